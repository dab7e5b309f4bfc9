//! `generator`: seeded synthetic users with habits, sessions, plans and a known hazard of churning.
//!
//! ```text
//! calendar: who comes when ─▶ behaviour: what they do ─▶ simulation: when it arrives ─▶ line: its text ─▶ dirt
//! ```
//! Each partition is simulated for itself, from the seed and its number: its log is the same whatever reads it, on every
//! machine, in epochs of any size. **An offset is the number of a line in its partition**, from 0; a reader opened at an
//! offset simulates the lines before it without writing them, so every position can be resumed from.

mod behaviour;
mod calendar;
mod dirt;
mod kind;
mod line;
mod properties;
mod random;
mod simulation;
mod source;
#[cfg(test)]
mod tests;
mod texts;
mod users;
mod write;

use whisperer_schemas::{
    Micros,
    time::{DAY, SECOND},
};

pub use source::{GeneratorSource, UserTruth};
pub use write::{Summary, write_ndjson};

use crate::source::{EpochSize, SourceError};
use calendar::Plan;

/// How many users and events, how they behave, and how dirty the log is. All rates are fractions of the lines.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratorOptions {
    /// Everything follows from it.
    pub seed: u64,
    /// Users there are; how many appear depends on `events`: all of them do from about 8 lines per user on.
    pub users: u64,
    /// Lines written over all partitions, dirt included.
    pub events: u64,
    /// Partitions; a user is always in one.
    pub partitions: u32,
    /// Event time of the first session.
    pub start: Micros,
    /// Event time that the events are spread over, about.
    pub span: Micros,
    /// Exponent of the activity's Zipf distribution over users.
    pub zipf: f64,
    /// Lines that repeat an earlier one within the dedup horizon.
    pub duplicates: f64,
    /// Lines that stand up to `out_of_orderness` later than they should.
    pub disorder: f64,
    /// Lines that come later than that.
    pub late: f64,
    /// Lines that are no valid event.
    pub malformed: f64,
    /// How much is read in one epoch.
    pub epoch_size: EpochSize,
}

/// The first month of 2026, a million events of 100,000 users, a little dirty.
impl Default for GeneratorOptions {
    fn default() -> GeneratorOptions {
        GeneratorOptions {
            seed: 42,
            users: 100_000,
            events: 1_000_000,
            partitions: 4,
            start: 1_767_225_600 * SECOND,
            span: 30 * DAY,
            zipf: 1.0,
            duplicates: 0.01,
            disorder: 0.05,
            late: 0.002,
            malformed: 0.001,
            epoch_size: EpochSize::Bytes(4 << 20),
        }
    }
}

/// Lines of a partition and visits in it are numbered by so many bits of an id.
const EVENTS_MAX: u64 = 1 << 40;

/// The last second of the year 9899: times as late as that still have four digits of the year when dirt moves them ahead.
const END_MAX: Micros = 250_241_399_999 * SECOND;

impl GeneratorOptions {
    /// Tells which setting cannot be.
    fn check(&self) -> Result<(), SourceError> {
        let wrong = |detail: String| Err(SourceError::Settings(format!("the generator cannot make {detail}")));
        let rates = [
            ("duplicates", self.duplicates),
            ("disorder", self.disorder),
            ("late", self.late),
            ("malformed", self.malformed),
        ];
        if let Some((name, rate)) = rates.iter().find(|(_, rate)| !(0.0..=0.5).contains(rate)) {
            return wrong(format!("\"{name}\" = {rate}: rates lie between 0 and 0.5"));
        }
        let together: f64 = rates.iter().map(|(_, rate)| rate).sum();
        if together > 0.9 {
            return wrong(format!("rates that add up to {together}: at most 0.9 of the lines can be dirty"));
        }
        if self.partitions == 0 || self.partitions > 1 << 16 {
            return wrong(format!("{} partitions: there are 1 to 65536", self.partitions));
        }
        if self.users < u64::from(self.partitions) {
            return wrong(format!("{} users in {} partitions: each needs one", self.users, self.partitions));
        }
        if self.users / u64::from(self.partitions) >= u64::from(u32::MAX) {
            return wrong(format!("{} users in {} partitions: too many in one", self.users, self.partitions));
        }
        if self.events > EVENTS_MAX {
            return wrong(format!("{} events: at most {EVENTS_MAX}", self.events));
        }
        if !(0.0..=10.0).contains(&self.zipf) {
            return wrong(format!("\"zipf\" = {}: the exponent lies between 0 and 10", self.zipf));
        }
        if self.span < SECOND || self.start < 0 || self.start > END_MAX - self.span.min(END_MAX) {
            return wrong("this start and span: the span is at least 1 s, between the years 1970 and 9900".to_owned());
        }
        if matches!(self.epoch_size, EpochSize::Bytes(0) | EpochSize::Records(0)) {
            return wrong("epochs of nothing".to_owned());
        }
        Ok(())
    }

    /// What one partition holds: users and lines are dealt out evenly, the first partitions get what remains.
    fn plan(&self, partition: u32) -> Plan {
        let share = |total: u64| {
            let partitions = u64::from(self.partitions);
            total / partitions + u64::from(u64::from(partition) < total % partitions)
        };
        Plan {
            users: share(self.users) as u32,
            lines: share(self.events),
            start: self.start,
            span: self.span,
            zipf: self.zipf,
        }
    }
}
