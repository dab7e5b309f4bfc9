//! Tables into Kafka topics.
//!
//! ```text
//! decisions     key decision_id          header decision_id          value JSON   timestamp event_time
//! profiles      key ["app_id","user_id"] headers as_of, row_id       value JSON   timestamp as_of         null value = removed
//! dead_letters  no key                   headers __connect.errors.*  value the record's bytes
//! ```
//!
//! [`KafkaLog`] makes rows readable at once and does not repeat, after a crash, what the topic holds already. [`KafkaOutbox`] makes them
//! readable with a checkpoint, in transactions that record the checkpoint's number in a compacted topic of its own.

mod commits;
mod config;
mod connection;
mod encode;
mod idempotent;
mod message;
mod producer;
mod reader;
mod tail;
mod transactional;

pub use config::{CreateTopic, KafkaOptions};
pub use idempotent::KafkaLog;
pub use transactional::KafkaOutbox;
