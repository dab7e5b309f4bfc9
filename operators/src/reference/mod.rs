//! The naive oracle: a second implementation of a job's semantics, in plain maps and lists, to compare the engine with.
//!
//! It is written from the documents alone and shares no code with the engine, or it would prove nothing: only the
//! job's description ([`JobSpec`]), the values of rows and the hash of a key's ids are common. Nothing is incremental.
//! For each key it keeps what every applied event gave to every feature, in log order, and recomputes values, sessions,
//! windows and pending timers from those lists whenever they are asked for. There are no epochs and no workers: a
//! partition is read from its first line to its last, one partition after another, since no key is in two.
//!
//! ```text
//! lines ──parse──▶ events ──run──▶ per key: timers due ▶ duplicate? ▶ apply ▶ evaluate ──rows──▶ decisions, profiles
//!                                        ▲ timers       ▲ features     ▲ moment (scores, stage)
//! ```
//!
//! Invariant: no result depends on anything but the job, the options and the lines.

mod expression;
mod features;
mod identities;
mod moment;
mod parse;
mod plan;
mod reads;
mod rfc3339;
mod rows;
mod run;
mod timers;
mod views;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use whisperer_schemas::{
    time::{HOUR, Micros, SECOND},
    value::Value,
};

use crate::spec::JobSpec;

/// One line of a partition, without its line end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawLine {
    /// Its offset in the partition; for a file, in bytes.
    pub offset: u64,
    /// The line.
    pub bytes: Vec<u8>,
}

/// What a record must be like; the native strict format by default.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// `ids = "any"`
    pub ids_any: bool,
    /// `event_types = "any"`
    pub event_types_any: bool,
    /// Event types admitted besides those of the event contract.
    pub extra_event_types: Vec<String>,
    /// Longest record in bytes.
    pub event_bytes_max: u64,
    /// Event times further ahead of their ingest time than this are `future`.
    pub future_max: Micros,
    /// Event times further ahead than this are clamped to the ingest time.
    pub clamp_after: Micros,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            ids_any: false,
            event_types_any: false,
            extra_event_types: Vec::new(),
            event_bytes_max: 1 << 20,
            future_max: HOUR,
            clamp_after: 5 * SECOND,
        }
    }
}

/// A row by column name.
pub type NamedRow = BTreeMap<String, Value>;

/// How many records ended where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines that are not blank.
    pub read: u64,
    /// Records applied: on time, or late.
    pub accepted: u64,
    /// Records that were applied before.
    pub duplicate: u64,
    /// Records applied behind the watermark of their partition.
    pub late: u64,
    /// Rejected records by reason.
    pub dead: BTreeMap<&'static str, u64>,
    /// Records whose event time was clamped to their ingest time.
    pub clamped: u64,
    /// Firings that a cooldown suppressed, by trigger.
    pub suppressed: BTreeMap<String, u64>,
}

/// All that a job makes of its input.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Rows of the table of decisions, without the columns that begin with `_`.
    pub decisions: Vec<NamedRow>,
    /// Rows of the table of profiles, without the columns that begin with `_` and without `timers`.
    pub profiles: Vec<NamedRow>,
    /// Partition, offset and reason of every rejected record.
    pub dead_letters: Vec<(u32, u64, &'static str)>,
    /// How many records ended where.
    pub counts: Counts,
    /// The contents of every view at the end, without the columns that begin with `_`.
    pub views: BTreeMap<String, Vec<NamedRow>>,
}

/// Runs a job over whole partitions.
///
/// # Errors
/// What is wrong with the job, in no particular form: the oracle is for jobs that the engine accepts.
pub fn run(spec: &JobSpec, options: &Options, partitions: &[Vec<RawLine>]) -> Result<Outcome, String> {
    run::run(spec, options, partitions)
}
