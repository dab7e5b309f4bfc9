//! What happened to the keys of a worker, in numbers.

use serde::{Deserialize, Serialize};

use super::{KeyState, Keys, cold::Cold, cuts::Cuts};

/// What happened, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Events that were applied and not late.
    pub on_time: u64,
    /// Events that were applied and late.
    pub late: u64,
    /// Events whose id was applied before, within the horizon.
    pub duplicates: u64,
    /// Events of users who were erased, which moved the watermark and nothing else.
    pub erased: u64,
    /// States that were dropped because no event had come for long.
    pub expired: u64,
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
    /// Statements about links that a key had no room for.
    #[serde(default)]
    pub statements_refused: u64,
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
        self.erased += other.erased;
        self.expired += other.expired;
        self.timers += other.timers;
        self.snapshots += other.snapshots;
        self.nulls += other.nulls;
        self.warming += other.warming;
        self.statements_refused += other.statements_refused;
        self.keys += other.keys;
        self.cold_keys += other.cold_keys;
        self.state_bytes += other.state_bytes;
        self.cold_bytes += other.cold_bytes;
        add(&mut self.decisions, &other.decisions);
        add(&mut self.suppressed, &other.suppressed);
    }
}

impl Keys {
    /// The numbers so far, those of keys and bytes left out.
    #[must_use]
    pub fn numbers(&self) -> &Counts {
        &self.engine.counts
    }

    /// The numbers so far; that of bytes takes a look at every key.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = self.engine.counts.clone();
        counts.keys = self.len() as u64;
        let mut bytes = self.shared_bytes();
        counts.cold_keys = self.cold_len();
        counts.cold_bytes = self.cold.as_ref().map_or(0, Cold::bytes);
        for block in &self.blocks {
            bytes += block.capacity() * size_of::<KeyState>();
            for state in block {
                bytes += state.heap_bytes();
            }
        }
        counts.state_bytes = bytes as u64;
        counts
    }

    /// Bytes in memory that are no key's own.
    pub(super) fn shared_bytes(&self) -> usize {
        let kept_bytes = self.engine.kept_starts.len() * size_of::<u32>() * (self.job.layout.slots().len() + 1);
        let kept_bytes = kept_bytes + self.engine.kept_starts.allocation_size();
        let texts_bytes = self.engine.texts.bytes() + self.engine.apps.bytes();
        let cuts_bytes = self.cuts.as_ref().map_or(0, Cuts::bytes);
        self.index.allocation_size() + self.wheel.bytes() + kept_bytes + texts_bytes + cuts_bytes
    }
}
