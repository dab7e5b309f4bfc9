//! A job that runs as a process of its own in a folder of its own, and a broker for it.

#![allow(dead_code, reason = "every test binary uses its part of this")]

#[cfg(feature = "kafka")]
pub mod broker;
pub mod columns;
pub mod job;
#[cfg(feature = "kafka")]
pub mod topics;
