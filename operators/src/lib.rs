//! Whisperer's operators: what happens to events between the sources and the sinks.
//!
//! Invariant: the same input gives the same output, on any worker count and any epoch cut. No I/O, no clock, no async.

pub mod cells;
pub mod cold;
pub mod dedup;
pub mod evaluate;
pub mod expression;
pub mod features;
pub mod intake;
pub mod interner;
pub mod job;
pub mod keyed;
pub mod keys;
pub mod layout;
mod memo;
pub mod record;
pub mod reference;
pub mod rows;
pub mod spec;
pub mod timers;
pub mod views;
pub mod watermark;
pub mod wheel;
pub mod window;
