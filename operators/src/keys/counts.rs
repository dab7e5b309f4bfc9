//! What happened to the keys of a worker, in numbers.

use serde::{Deserialize, Serialize};

/// What happened, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Events that were applied and not late.
    pub on_time: u64,
    /// Events that were applied and late.
    pub late: u64,
    /// Events whose id was applied before, within the horizon.
    pub duplicates: u64,
    /// Timers that led to an evaluation.
    pub timers: u64,
    /// Profile rows at boundaries.
    pub snapshots: u64,
    /// Decisions by trigger, in file order.
    pub decisions: Vec<u64>,
    /// Edges within the cooldown, by trigger, in file order.
    pub suppressed: Vec<u64>,
    /// Edges of triggers that read a window which has not filled since the job changed.
    pub warming: u64,
    /// Operations in expressions that gave no value.
    pub nulls: u64,
    /// Keys.
    pub keys: u64,
    /// Those of them whose state is not in memory.
    pub cold_keys: u64,
    /// Bytes that the keys' states take in memory, index and timers included.
    pub state_bytes: u64,
    /// Bytes on disk of the states that are not.
    pub cold_bytes: u64,
}

impl Counts {
    /// Adds another worker's numbers.
    pub fn merge(&mut self, other: &Counts) {
        fn add(all: &mut Vec<u64>, more: &[u64]) {
            all.resize(all.len().max(more.len()), 0);
            all.iter_mut().zip(more).for_each(|(sum, part)| *sum += part);
        }
        self.on_time += other.on_time;
        self.late += other.late;
        self.duplicates += other.duplicates;
        self.timers += other.timers;
        self.snapshots += other.snapshots;
        self.nulls += other.nulls;
        self.warming += other.warming;
        self.keys += other.keys;
        self.cold_keys += other.cold_keys;
        self.state_bytes += other.state_bytes;
        self.cold_bytes += other.cold_bytes;
        add(&mut self.decisions, &other.decisions);
        add(&mut self.suppressed, &other.suppressed);
    }
}
