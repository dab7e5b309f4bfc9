//! State stores: every one keeps the same rules, whatever fails below it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod crashes;
mod faults;
mod remote;
mod rules;
#[cfg(feature = "object-store")]
mod s3;
mod simulation;
mod speed;
