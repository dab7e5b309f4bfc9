//! Watermarks: what each partition's log promises about event time, from chunk to chunk and epoch to epoch.
//!
//! A partition's watermark is its largest event time so far less `out_of_orderness`. Readers know the largest event time *inside* their
//! chunk; what came in earlier chunks and epochs is added here, from the facts that every reader broadcasts with the epoch. So
//! several workers may read one partition together, and each record still gets exactly the `pw` that its place in the log gives it.
//!
//! A live source can get new partitions. From the first fact of one it holds the global watermark, which never goes back, until its
//! clock is known; its reader then lets the clock begin at the watermark that was held.
//!
//! Files may be read before a live source: partitions of history. While one of them goes on, only they make the watermark; with the end
//! of the last one the clocks of all others begin at the largest event time of history.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use whisperer_schemas::{Micros, PartitionId};

/// What a reader tells all workers about one chunk of one partition in one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkFacts {
    /// The partition.
    pub partition: u32,
    /// The chunk, from 0.
    pub chunk: u32,
    /// Largest event time of its records that were not rejected; `Micros::MIN` where there is none.
    pub time_max: Micros,
    /// Whether the partition has no more records, now or later.
    pub ended: bool,
}

/// The clocks of all partitions.
#[derive(Clone, Debug)]
pub struct PartitionClocks {
    out_of_orderness: Micros,
    partitions: BTreeMap<u32, PartitionClock>,
    /// Largest event time before each chunk of the epoch at hand.
    bases: Vec<(u32, u32, Micros)>,
    watermark: Micros,
}

#[derive(Clone, Copy, Debug)]
struct PartitionClock {
    time_max: Micros,
    ended: bool,
}

impl Default for PartitionClock {
    /// The clock of a partition of which nothing has been read.
    fn default() -> PartitionClock {
        PartitionClock { time_max: Micros::MIN, ended: false }
    }
}

impl PartitionClocks {
    /// Clocks of partitions of which nothing has been read.
    #[must_use]
    pub fn new(partitions: u32, out_of_orderness: Micros) -> PartitionClocks {
        let partitions = (0..partitions).map(|partition| (partition, PartitionClock::default())).collect();
        PartitionClocks { out_of_orderness, partitions, bases: Vec::new(), watermark: Micros::MIN }
    }

    /// Adds partitions of history, which come before all others.
    #[must_use]
    pub fn after_history(mut self, partitions: u32) -> PartitionClocks {
        let history = (0..partitions).map(|partition| (PartitionId::HISTORY + partition, PartitionClock::default()));
        self.partitions.extend(history);
        self
    }

    /// Whether no partition of history goes on.
    #[must_use]
    pub fn history_ended(&self) -> bool {
        self.history().all(|clock| clock.ended)
    }

    fn history(&self) -> impl Iterator<Item = &PartitionClock> {
        self.partitions.range(PartitionId::HISTORY..).map(|(_, clock)| clock)
    }

    /// Goes on from what a checkpoint says: the largest event time of each partition that has one, and the partitions that have ended.
    pub fn restore(&mut self, times: impl IntoIterator<Item = (u32, Micros)>, ended: impl IntoIterator<Item = u32>) {
        for (partition, time_max) in times {
            self.clock(partition).time_max = time_max;
        }
        for partition in ended {
            self.clock(partition).ended = true;
        }
        self.watermark = self.minimum();
    }

    /// Does not go back behind a watermark that was reached: where a partition had been announced and had no clock yet, the clocks alone
    /// do not tell it.
    pub fn hold(&mut self, watermark: Option<Micros>) {
        self.watermark = watermark.map_or(self.watermark, |reached| self.watermark.max(reached));
    }

    /// The largest event time of each partition that has one.
    pub fn times(&self) -> impl Iterator<Item = (u32, Micros)> + '_ {
        let times = self.partitions.iter().map(|(partition, clock)| (*partition, clock.time_max));
        times.filter(|(_, time_max)| *time_max != Micros::MIN)
    }

    /// The partitions that have ended.
    pub fn ended(&self) -> impl Iterator<Item = u32> + '_ {
        self.partitions.iter().filter(|(_, clock)| clock.ended).map(|(partition, _)| *partition)
    }

    fn clock(&mut self, partition: u32) -> &mut PartitionClock {
        self.partitions.entry(partition).or_default()
    }

    /// Takes in the facts of an epoch, whatever order they came in. A partition that was not there before is there from now on.
    pub fn advance(&mut self, mut facts: Vec<ChunkFacts>) {
        facts.sort_unstable_by_key(|fact| (fact.partition, fact.chunk));
        self.bases.clear();
        let in_history = !self.history_ended();
        for fact in facts {
            let clock = self.partitions.entry(fact.partition).or_default();
            self.bases.push((fact.partition, fact.chunk, clock.time_max));
            clock.time_max = clock.time_max.max(fact.time_max);
            clock.ended |= fact.ended;
        }
        if in_history && self.history_ended() {
            self.begin_after_history();
        }
        self.watermark = self.watermark.max(self.minimum());
    }

    /// What comes after history begins where history ends, whoever reads it and when.
    fn begin_after_history(&mut self) {
        let end = self.history().map(|clock| clock.time_max).max().unwrap_or(Micros::MIN);
        for (_, clock) in self.partitions.range_mut(..PartitionId::HISTORY) {
            clock.time_max = clock.time_max.max(end);
        }
    }

    /// Largest event time of a partition before a chunk of the epoch at hand.
    #[must_use]
    pub fn base(&self, partition: u32, chunk: u32) -> Micros {
        let found = self.bases.binary_search_by_key(&(partition, chunk), |(partition, chunk, _)| (*partition, *chunk));
        found.map_or(Micros::MIN, |at| self.bases[at].2)
    }

    /// `pw` of a record: the watermark from earlier offsets only.
    #[inline]
    #[must_use]
    pub fn pw(&self, base: Micros, chunk_time_max: Micros) -> Micros {
        base.max(chunk_time_max).saturating_sub(self.out_of_orderness)
    }

    /// The global watermark: the minimum over the partitions that may still hold records.
    ///
    /// It never exceeds the `pw` of any later record, and never goes back. When no partition is left it is the largest event time of all.
    #[must_use]
    pub fn watermark(&self) -> Micros {
        self.watermark
    }

    fn minimum(&self) -> Micros {
        let from = if self.history_ended() { 0 } else { PartitionId::HISTORY };
        let open = self.partitions.range(from..).map(|(_, clock)| clock).filter(|clock| !clock.ended);
        let behind = open.map(|clock| clock.time_max.saturating_sub(self.out_of_orderness)).min();
        behind.unwrap_or_else(|| self.time_max())
    }

    /// The largest event time of all partitions; `Micros::MIN` before the first record.
    #[must_use]
    pub fn time_max(&self) -> Micros {
        self.partitions.values().map(|clock| clock.time_max).max().unwrap_or(Micros::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(partition: u32, chunk: u32, time_max: Micros, ended: bool) -> ChunkFacts {
        ChunkFacts { partition, chunk, time_max, ended }
    }

    #[test]
    fn a_chunk_starts_from_what_lies_before_it() {
        // Chunks arrive out of order; an empty chunk hands on what it was given.
        let mut clocks = PartitionClocks::new(2, 10);
        clocks.advance(vec![fact(0, 2, 90, false), fact(0, 0, 100, false), fact(0, 1, Micros::MIN, false)]);
        assert_eq!(clocks.base(0, 0), Micros::MIN);
        assert_eq!((clocks.base(0, 1), clocks.base(0, 2)), (100, 100));
        assert_eq!(clocks.pw(clocks.base(0, 2), 105), 95);
        assert_eq!(clocks.watermark(), Micros::MIN);
        clocks.advance(vec![fact(0, 0, 110, false), fact(1, 0, 70, false)]);
        assert_eq!((clocks.base(0, 0), clocks.base(1, 0)), (100, Micros::MIN));
        assert_eq!(clocks.watermark(), 60);
    }

    #[test]
    fn a_new_partition_holds_the_watermark_until_its_clock_is_known() {
        // Goal: from its announcement to its first clock nothing moves; what its reader then says is where it begins.
        let mut clocks = PartitionClocks::new(1, 10);
        clocks.advance(vec![fact(0, 0, 100, false)]);
        assert_eq!(clocks.watermark(), 90);
        clocks.advance(vec![fact(0, 0, 200, false), fact(2, 0, Micros::MIN, false)]);
        clocks.advance(vec![fact(0, 0, 300, false)]);
        assert_eq!((clocks.watermark(), clocks.time_max()), (90, 300));
        let mut restored = PartitionClocks::new(3, 10);
        restored.restore(clocks.times().collect::<Vec<_>>(), []);
        restored.hold(Some(clocks.watermark()));
        assert_eq!(restored.watermark(), 90);
        clocks.advance(vec![fact(1, 0, 100, false), fact(2, 0, 100, false), fact(2, 1, 150, false)]);
        assert_eq!((clocks.base(2, 1), clocks.watermark()), (100, 90));
        clocks.advance(vec![fact(1, 0, 400, false), fact(2, 0, 400, false)]);
        assert_eq!(clocks.watermark(), 290);
    }

    #[test]
    fn a_bounded_input_ends_at_its_largest_event_time() {
        // A partition that ended holds nothing back; the last one to end lets the watermark reach the largest time.
        let mut clocks = PartitionClocks::new(2, 10);
        clocks.advance(vec![fact(0, 0, 500, true), fact(1, 0, 70, false)]);
        assert_eq!(clocks.watermark(), 60);
        clocks.advance(vec![fact(1, 0, 80, true)]);
        assert_eq!(clocks.watermark(), 500);
    }

    #[test]
    fn what_comes_after_history_begins_where_it_ends() {
        // Goal: while files are read they alone make the watermark; the topic's clocks begin at their largest event time, all at once, and
        // the watermark does not jump to it as if all input had ended.
        let file = |at: u32, time_max, ended| fact(PartitionId::HISTORY + at, 0, time_max, ended);
        let mut clocks = PartitionClocks::new(2, 10).after_history(2);
        assert!(!clocks.history_ended());
        clocks.advance(vec![file(0, 100, false), file(1, 80, false)]);
        assert_eq!(clocks.watermark(), 70);
        clocks.advance(vec![file(0, 110, false), file(1, 200, true)]);
        assert_eq!(clocks.watermark(), 100);
        let mut restored = PartitionClocks::new(2, 10).after_history(2);
        restored.restore(clocks.times().collect::<Vec<_>>(), clocks.ended().collect::<Vec<_>>());
        for clocks in [&mut clocks, &mut restored] {
            assert!(!clocks.history_ended());
            clocks.advance(vec![file(0, 150, true)]);
            assert!(clocks.history_ended());
            assert_eq!(clocks.watermark(), 190);
            clocks.advance(vec![fact(1, 0, 195, false)]);
            assert_eq!((clocks.base(1, 0), clocks.watermark()), (200, 190));
            clocks.advance(vec![fact(0, 0, 300, false), fact(1, 0, 250, false)]);
            assert_eq!((clocks.base(0, 0), clocks.watermark()), (200, 240));
        }
    }
}
