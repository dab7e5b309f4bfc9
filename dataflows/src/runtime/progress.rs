//! Progress: how far the readers of all workers have come; what a terminal shows while a job runs.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use whisperer_connectors::Chunk;
use whisperer_schemas::{Epoch, PartitionId};
use whisperer_sinks::CommitFacts;

/// How far a run has come; shared by its workers and whoever looks on. Updated once per epoch.
#[derive(Debug, Default)]
pub struct Progress {
    records: AtomicU64,
    epoch: AtomicU64,
    positions: Mutex<BTreeMap<PartitionId, u64>>,
}

impl Progress {
    /// Records read so far.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// The sum of all positions: for files, bytes read.
    #[must_use]
    pub fn position_sum(&self) -> u64 {
        self.locked().values().sum()
    }

    /// What has been read so far, for a commit.
    #[must_use]
    pub fn facts(&self) -> CommitFacts {
        let (epoch, positions) = (Epoch(self.epoch.load(Ordering::Relaxed)), self.locked().clone());
        CommitFacts { epoch, positions, checkpoint: 0 }
    }

    pub(super) fn add(&self, epoch: Epoch, records: u64, chunks: &[Chunk]) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.epoch.fetch_max(epoch.0, Ordering::Relaxed);
        let mut positions = self.locked();
        for chunk in chunks {
            let position = positions.entry(chunk.partition).or_default();
            *position = chunk.next_offset.max(*position);
        }
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<PartitionId, u64>> {
        // The map is whole at any moment: a worker that panicked elsewhere does not spoil it.
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
