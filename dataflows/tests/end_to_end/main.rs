//! From topic to topic, end to end: `whisperer run` among strangers, and among brokers that fail.
//!
//! What it puts out is compared with what it says itself and with an undisturbed run. Where `WHISPERER_KAFKA` names no broker, the tests
//! meet librdkafka's mock cluster, and those that only a real one can pass say that they are skipped.

#![cfg(feature = "kafka")]

mod faults;
mod kcat;
#[path = "../outside/mod.rs"]
mod outside;
mod restarts;
#[path = "../running/mod.rs"]
mod running;
#[cfg(feature = "registry")]
#[allow(dead_code, clippy::unwrap_used, reason = "another crate's tests use the rest of it")]
#[path = "../../../connectors/tests/format/registry/stand_in.rs"]
mod stand_in;
mod strangers;
mod watching;
