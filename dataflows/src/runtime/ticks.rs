//! The tick log of a run, which can be opened only once the run's generation is known.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use whisperer_connectors::{
    Positions, SourceError,
    ticks::{FileTickLog, Tick, TickLog, TickWriter},
};
use whisperer_schemas::{Micros, PartitionId};

/// Ticks in a state folder.
#[derive(Debug)]
pub struct GenerationTicks {
    folder: PathBuf,
    /// That of the last start.
    log: Mutex<Option<Arc<FileTickLog>>>,
}

impl GenerationTicks {
    /// Ticks in this folder; not to be used before the run has begun.
    #[must_use]
    pub fn new(folder: PathBuf) -> GenerationTicks {
        GenerationTicks { folder, log: Mutex::default() }
    }

    /// Opens the log for a generation; the first process begins it, the others join.
    pub(super) fn open(&self, generation: u64, first: bool) -> Result<(), SourceError> {
        let log = match first {
            true => FileTickLog::begin(&self.folder, generation)?,
            false => FileTickLog::join(&self.folder, generation),
        };
        // One worker of a process opens it, once for each start.
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(log));
        Ok(())
    }

    fn opened(&self) -> Arc<FileTickLog> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.clone().expect("the log is opened before any source is")
    }
}

impl TickLog for GenerationTicks {
    fn ticks(&self) -> Result<Vec<Tick>, SourceError> {
        self.opened().ticks()
    }

    fn writer(&self, worker: usize) -> Result<Box<dyn TickWriter>, SourceError> {
        self.opened().writer(worker)
    }

    fn forget_before(&self, positions: &Positions, clocks: &BTreeMap<PartitionId, Micros>) -> Result<(), SourceError> {
        self.opened().forget_before(positions, clocks)
    }
}
