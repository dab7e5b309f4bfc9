//! State stores: every one keeps the same rules, whatever fails below it.

mod crashes;
mod faults;
mod remote;
mod rules;
#[cfg(feature = "object-store")]
mod s3;
mod simulation;
mod speed;
