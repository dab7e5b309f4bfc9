//! Plain data of Whisperer and its wire and disk forms: events, profiles, decisions, dead letters.
//!
//! Invariant: every serialized form carries a version, and fixtures of released versions stay readable.
//! Nothing here knows timely, files or clocks.
//!
//! | module | holds |
//! |---|---|
//! | [`event`] | the event contract: names, ids, event types, types of known fields |
//! | [`wire`] | the event as JSON Schema; events, decisions, profiles and dead letters as Protobuf |
//! | [`time`] | event time in microseconds; RFC 3339, durations, dates |
//! | [`ids`] | epochs, partitions, positions, key hashes |
//! | [`value`], [`table`] | values, rows, and the tables that are written |
//! | [`arrow`] | tables as Arrow schemas, rows as record batches, and back |
//! | [`checkpoint`] | manifests and delta files of checkpoints |
//! | [`decision`] | the id of a decision |
//! | [`erasure`] | who is to be forgotten, and which events are suppressed for it |
//! | [`digest`] | hashes of rows and of whole tables, in any order |
//! | [`error`] | what can go wrong |

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

pub mod arrow;
pub mod checkpoint;
pub mod decision;
pub mod digest;
pub mod erasure;
pub mod error;
pub mod event;
pub mod ids;
pub mod table;
pub mod time;
pub mod value;
pub mod wire;

pub use self::{
    arrow::{batch_to_rows, rows_to_batch},
    decision::decision_id,
    digest::{Digest, row_hash},
    error::SchemaError,
    ids::{Epoch, KeyHash, PartitionId, Position},
    table::{Column, ColumnType, Row, TableSchema, VIEWS},
    time::Micros,
    value::Value,
};
