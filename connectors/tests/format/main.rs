//! Formats, by records and the events or reasons that they give.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod cloudevents;
mod garbage;
mod mapped;
mod native;
#[cfg(feature = "registry")]
mod registry;
#[cfg(feature = "registry")]
mod same;
mod segment;
mod support;
