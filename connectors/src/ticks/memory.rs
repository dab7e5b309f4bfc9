//! `MemoryTickLog`: the model of every tick log, and that of runs that keep no state.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use whisperer_schemas::{Micros, PartitionId};

use super::{Tick, TickLog, TickWriter, is_held};
use crate::source::{Positions, SourceError};

/// Ticks in memory; clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryTickLog {
    ticks: Arc<Mutex<BTreeSet<Tick>>>,
}

impl MemoryTickLog {
    fn locked(&self) -> MutexGuard<'_, BTreeSet<Tick>> {
        // The set is whole at any moment.
        self.ticks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TickLog for MemoryTickLog {
    fn ticks(&self) -> Result<Vec<Tick>, SourceError> {
        Ok(self.locked().iter().copied().collect())
    }

    fn writer(&self, _worker: usize) -> Result<Box<dyn TickWriter>, SourceError> {
        Ok(Box::new(self.clone()))
    }

    fn forget_before(&self, positions: &Positions, clocks: &BTreeMap<PartitionId, Micros>) -> Result<(), SourceError> {
        self.locked().retain(|tick| !is_held(tick, positions, clocks));
        Ok(())
    }
}

impl TickWriter for MemoryTickLog {
    fn append(&mut self, ticks: &[Tick]) -> Result<(), SourceError> {
        self.locked().extend(ticks);
        Ok(())
    }
}
