//! Tables into Kafka topics.
//!
//! ```text
//! decisions     key decision_id          header decision_id          value JSON
//! profiles      key ["app_id","user_id"] headers as_of, row_id       value JSON   null value = removed
//! dead_letters  no key                   headers __connect.errors.*  value the record's bytes
//! views/*       key {columns of it}      no headers                  value JSON   null value = no more
//! ```
//! Their timestamps are the times of sending, whatever times the rows tell of: a broker forgets what an idempotent producer has written, and
//! so what it must not take twice, by the timestamps of its messages (`producer.id.expiration.ms`, one day), and removes messages by them.
//!
//! [`KafkaLog`] makes rows readable at once and does not repeat, after a crash, what the topic holds already. [`KafkaOutbox`] makes them
//! readable with a checkpoint, in transactions that record the checkpoint's number in a compacted topic of its own.

mod changes;
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

pub use changes::ChangeMode;
pub use config::{CreateTopic, KafkaOptions};
pub use idempotent::KafkaLog;
pub use transactional::KafkaOutbox;
