//! Formats: how the bytes of a record become an event, or a rejection with its reason.
//!
//! ```text
//!            Plan (once per job: which members feed the event)
//!              │
//! RawRecord ─▶ capture ─▶ slots ─▶ checks, in the order of the reasons ─▶ EventView ─▶ Intake ─▶ Record
//! ```
//! Native JSON, mapped JSON and CSV differ only in their plan and in how the slots are filled.

mod capture;
mod check;
pub mod mapping;
mod members;
mod parser;
mod plan;
mod scan;
mod shapes;
mod time;

use whisperer_schemas::Micros;

pub use check::{Reason, Rejection};
pub use mapping::Mapping;
pub use parser::{EventReader, Parsed, Parser};

/// What a format checks and how.
#[derive(Clone, Debug, PartialEq)]
pub struct FormatOptions {
    /// Which ids are valid.
    pub ids: Ids,
    /// Which event types are valid.
    pub event_types: EventTypes,
    /// Longest record, in bytes; longer ones are `too_large`.
    pub event_bytes_max: u64,
    /// Event times further ahead of their ingest time than this are `future`.
    pub future_max: Micros,
    /// Event times further ahead than this are clamped to the ingest time.
    pub clamp_after: Micros,
    /// How foreign fields become those of an event; none is the native format.
    pub mapping: Option<Mapping>,
    /// The `app_id` of mapped events that have none: the job's name.
    pub app_id: String,
}

/// Which ids are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// The native patterns: `evt_`, `app_`, `usr_`, `ses_` and 16 alphanumerics.
    Strict,
    /// Any text of 1 to 128 bytes, and integers as their decimal text.
    Any,
}

/// Which event types are valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventTypes {
    /// Those of the event contract and these.
    Contract(Vec<String>),
    /// Any non-empty text.
    Any,
}
