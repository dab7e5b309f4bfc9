//! Sinks of Whisperer: where rows leave the engine.
//!
//! Invariant: nothing is visible twice, and nothing is visible before its commit. A file appears whole or not at all.
//!
//! ```text
//! rows ─▶ write ─▶ stage: durable, invisible ─▶ publish: renamed into place ─▶ manifest of the run
//!                    _staging/<run>/…             <table>/<date>/part-…          _runs/<run>.json
//! ```
//! Into logs there are two ways: [`log`].

pub mod conformance;
#[cfg(feature = "delta")]
pub mod delta;
pub mod durable;
pub mod error;
pub mod failpoint;
pub mod fault;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod lake;
pub mod log;
mod log_tables;
pub mod manifest;
pub mod memory;
pub mod ndjson;
pub mod ndjson_lines;
pub mod ndjson_log;
pub mod outbox;
pub mod parquet;
pub mod sink;
pub mod verify;

pub use error::{Fault, SinkError};
#[cfg(feature = "kafka")]
pub use kafka::{ChangeMode, CreateTopic, KafkaLog, KafkaOptions, KafkaOutbox};
pub use lake::{Existing, Found, Goes, Lake, LakeOptions, Recovery, RunId, TableLog};
pub use log::{LogSink, OutboxEncoder, OutboxSink, Removal};
pub use manifest::RunManifest;
pub use memory::{MemoryLog, MemoryOutbox, MemoryTable, MemoryTopic};
pub use ndjson::Ndjson;
pub use ndjson_lines::blank_lines;
pub use ndjson_log::NdjsonLog;
pub use outbox::{bytes_to_rows, rows_to_bytes};
pub use parquet::{ParquetTable, Scan, TextEquals, read_schema, read_table, read_where, scan, write_rows};
pub use sink::{CommitFacts, StagedFile, TableSink, WrittenFile};
pub use verify::digest_of_table;
