//! A sink that keeps its rows in memory: the model that the others are held to, and what tests read.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use whisperer_schemas::Row;

use crate::{
    error::SinkError,
    sink::{CommitFacts, StagedFile, TableSink, WrittenFile},
};

/// Rows in memory. Clones share what is visible, so a test keeps one and gives one away.
#[derive(Clone, Debug, Default)]
pub struct MemoryTable {
    written: Vec<Row>,
    staged: Vec<Row>,
    replaces: bool,
    visible: Arc<Mutex<Vec<Row>>>,
}

impl MemoryTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> MemoryTable {
        MemoryTable::default()
    }

    /// Another writer to the same table, with nothing written yet; its rows add to those of others.
    #[must_use]
    pub fn writer(&self) -> MemoryTable {
        MemoryTable { visible: Arc::clone(&self.visible), ..MemoryTable::default() }
    }

    /// A writer whose first commit takes the place of what is there.
    #[must_use]
    pub fn replacing(&self) -> MemoryTable {
        MemoryTable { replaces: true, ..self.writer() }
    }

    /// The rows committed so far.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        self.visible.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl TableSink for MemoryTable {
    fn write(&mut self, mut rows: Vec<Row>) -> Result<(), SinkError> {
        self.written.append(&mut rows);
        Ok(())
    }

    fn stage(&mut self, _facts: &CommitFacts) -> Result<Vec<StagedFile>, SinkError> {
        self.staged.append(&mut self.written);
        Ok(Vec::new())
    }

    fn publish(&mut self, _staged: &[StagedFile]) -> Result<Vec<WrittenFile>, SinkError> {
        let mut visible = self.visible.lock().unwrap_or_else(PoisonError::into_inner);
        if mem::take(&mut self.replaces) {
            visible.clear();
        }
        visible.append(&mut self.staged);
        Ok(Vec::new())
    }
}
