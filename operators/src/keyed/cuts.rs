//! Cuts of the keyed operator: when they are taken, and what they hold.

use whisperer_schemas::erasure::Noted;

use crate::{
    keys::{Counts, EncodedStates},
    layout::StateLayout,
    watermark::PartitionClocks,
};

/// When cuts are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutPlan {
    /// Epochs from cut to cut, above 0: a cut is taken at every multiple.
    pub every: u64,
    /// The epoch of the cut that the run goes on from; 0 at a first start.
    pub after: u64,
    /// The epoch that it goes on at, by the clock, where the input is live: what lies between was not lived through, so no cut lies there.
    /// All workers agree on it. 0 where the input is bounded.
    pub from: u64,
}

impl CutPlan {
    /// The first cut above an epoch.
    /// ```
    /// use whisperer_operators::keyed::CutPlan;
    ///
    /// let bounded = CutPlan { every: 10, after: 0, from: 0 };
    /// assert_eq!([bounded.next_after(0), bounded.next_after(10)], [10, 20]);
    /// let live = CutPlan { from: 1_003, ..bounded };
    /// assert_eq!([live.next_after(0), live.next_after(1_010)], [1_010, 1_020]);
    /// ```
    #[must_use]
    pub fn next_after(self, epoch: u64) -> u64 {
        (epoch.max(self.from) / self.every + 1) * self.every
    }
}

/// The state of one instance of the operator after an epoch.
#[derive(Debug)]
pub struct KeyedCut {
    /// The epoch.
    pub epoch: u64,
    /// The clocks of all partitions.
    pub clocks: PartitionClocks,
    /// The numbers so far, those of keys and bytes at the end only.
    pub counts: Counts,
    /// What the states mean.
    pub layout: StateLayout,
    /// The states that changed since the last cut, in the order of (key group, key); none until all are encoded.
    pub states: Option<EncodedStates>,
    /// Whether this is the end of a bounded input, everything put out.
    pub last: bool,
    /// Erasures that events asked for since the last cut.
    pub noted: Vec<Noted>,
}
