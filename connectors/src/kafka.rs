//! `kafka`: one topic, read from exact offsets that the engine keeps itself.
//!
//! ```text
//!  brokers ──▶ KafkaReader (one consumer a worker, partition % workers) ──▶ records, chunks
//!     │            ▲ ends of partitions, new partitions
//!     └──────▶ Watch (one client and thread a process: an end a second, partitions every 30 s)
//! ```
//! There is no consumer group: partitions are assigned by hand, so no rebalance stops the dataflow. Offsets are committed to a group
//! only so that others can see how far the job is. Nothing here blocks once a live reader is open: it takes what librdkafka's threads
//! have fetched. A job that does not ask gets nothing fetched beyond librdkafka's bounded queue, which is the backpressure.
//!
//! Invariants: records of a partition come in order of their offsets, and a position is never beyond a record that was not handed out;
//! a partition's clock advances by itself only where a broker has just said that there is nothing to read, and never before the
//! advance is durable in the [tick log](crate::ticks).
//!
//! A record without a value (a tombstone) holds no event. It is handed out as the JSON text `null`, which becomes a dead letter.

mod options;

#[cfg(feature = "kafka")]
mod client;
#[cfg(feature = "kafka")]
mod lag;
#[cfg(feature = "kafka")]
mod partition;
#[cfg(feature = "kafka")]
mod quiet;
#[cfg(feature = "kafka")]
mod reader;
#[cfg(feature = "kafka")]
mod source;
#[cfg(feature = "kafka")]
mod watch;

#[cfg(feature = "kafka")]
pub use client::problem_of_property;
pub use options::{KafkaOptions, Start, owner_of_property};
#[cfg(feature = "kafka")]
pub use source::{KafkaSource, Surroundings};
