//! Formats: how the bytes of a record become an event, or a rejection with its reason.
//!
//! ```text
//!            Plan (once per job: which members feed the event)
//!              │
//! RawRecord ─▶ decode ─▶ slots ─▶ checks, in the order of the reasons ─▶ EventView ─▶ Intake ─▶ Record
//! ```
//! Formats differ only in their plan and in how the slots are filled: from JSON by one walk (`capture`), from the cells of a CSV
//! row, from a message that a schema of the registry describes (`registry`).

mod capture;
mod check;
mod cloudevents;
mod decode;
pub mod mapping;
mod members;
mod parser;
mod plan;
pub mod registry;
mod scan;
mod segment;
mod shapes;
mod time;

use whisperer_schemas::Micros;

pub use check::{Reason, Rejection};
pub use decode::ReadError;
pub use mapping::Mapping;
pub use parser::{EventReader, Parsed, Parser};
pub use registry::{Encoding, RegistryError, RegistryOptions};

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
    /// How records are written.
    pub format: Format,
    /// The `app_id` of events that have none, but for the native format: the job's name.
    pub app_id: String,
}

/// How records are written, and how their fields become those of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// The event contract as JSON.
    Native,
    /// Foreign JSON objects or CSV rows. Only mapped properties exist.
    Foreign(Mapping),
    /// Messages of the Segment spec; what the mapping names comes from there instead of where the spec has it.
    Segment(Mapping),
    /// CloudEvents 1.0, structured as JSON or in binary mode; what the mapping names comes from there instead of the default place.
    CloudEvents(Mapping),
    /// Messages framed with the id of their schema, which a registry knows.
    Framed {
        /// How the message behind the frame is written.
        encoding: Encoding,
        /// Where schemas come from.
        registry: RegistryOptions,
        /// With a mapping the messages are foreign; without one they have the members of the native format.
        mapping: Option<Mapping>,
    },
}

impl Format {
    /// The mapping, in formats that have one.
    #[must_use]
    pub fn mapping(&self) -> Option<&Mapping> {
        match self {
            Format::Native => None,
            Format::Foreign(mapping) | Format::Segment(mapping) | Format::CloudEvents(mapping) => Some(mapping),
            Format::Framed { mapping, .. } => mapping.as_ref(),
        }
    }
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
