//! What every sink of a table can do: take rows, make them durable, make them visible.
//!
//! Two steps lie between a row and its readers. `stage` makes everything written so far durable under names that
//! no reader looks at; `publish` renames. With several workers, all stage before any publishes (best through
//! [`crate::Lake::publish`], which takes the files of all at once): a disk that fills up on one worker then leaves
//! no part of the output visible.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use whisperer_schemas::{Epoch, PartitionId, Row};

use crate::error::SinkError;

/// A table's way out of the engine. After an error only a new sink goes on: a broken one commits nothing more.
pub trait TableSink: Send {
    /// Takes rows; they are neither durable nor visible yet.
    ///
    /// # Errors
    /// A row that does not fit the table, or a file that cannot be written.
    fn write(&mut self, rows: Vec<Row>) -> Result<(), SinkError>;

    /// Makes all rows written since the last call durable, still unseen by readers.
    ///
    /// # Errors
    /// A file that cannot be written; then nothing of it becomes visible.
    fn stage(&mut self, facts: &CommitFacts) -> Result<Vec<StagedFile>, SinkError>;

    /// Says whether rows from now on are kept for [`TableSink::held`] too. Called where nothing was written since the last commit, or since
    /// the last call of [`TableSink::held`]. A sink without files has nothing to hold.
    fn hold(&mut self, hold: bool) {
        let _ = hold;
    }

    /// In place of [`TableSink::stage`], where files are to grow beyond this checkpoint: the rows written since the last call of either, for
    /// the checkpoint to keep ([`crate::bytes_to_rows`]); no bytes for no rows. None where rows are not held, or are worth files by now:
    /// then they are to be staged.
    ///
    /// # Errors
    /// Those of [`TableSink::write`].
    fn held(&mut self) -> Result<Option<Vec<u8>>, SinkError> {
        Ok(None)
    }

    /// Makes what was staged visible.
    ///
    /// # Errors
    /// A file that cannot be renamed.
    fn publish(&mut self, staged: &[StagedFile]) -> Result<Vec<WrittenFile>, SinkError>;

    /// Stages and publishes: for a sink that commits by itself.
    ///
    /// # Errors
    /// Those of both.
    fn commit(&mut self, facts: &CommitFacts) -> Result<Vec<WrittenFile>, SinkError> {
        let staged = self.stage(facts)?;
        self.publish(&staged)
    }
}

impl<S: TableSink + ?Sized> TableSink for Box<S> {
    fn write(&mut self, rows: Vec<Row>) -> Result<(), SinkError> {
        (**self).write(rows)
    }

    fn stage(&mut self, facts: &CommitFacts) -> Result<Vec<StagedFile>, SinkError> {
        (**self).stage(facts)
    }

    fn hold(&mut self, hold: bool) {
        (**self).hold(hold);
    }

    fn held(&mut self) -> Result<Option<Vec<u8>>, SinkError> {
        (**self).held()
    }

    fn publish(&mut self, staged: &[StagedFile]) -> Result<Vec<WrittenFile>, SinkError> {
        (**self).publish(staged)
    }
}

/// What a commit covers: every row made of input up to here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitFacts {
    /// The last epoch that is in it whole.
    pub epoch: Epoch,
    /// For each partition of the source the offset at which reading would go on.
    pub positions: BTreeMap<PartitionId, u64>,
    /// Number of the manifest that is to list what is staged; 0 in a run without checkpoints.
    pub checkpoint: u64,
}

impl CommitFacts {
    /// The positions as a JSON object from partition to offset.
    #[must_use]
    pub fn positions_json(&self) -> String {
        let pairs: Vec<String> = self.positions.iter().map(|(partition, at)| format!("\"{partition}\":{at}")).collect();
        format!("{{{}}}", pairs.join(","))
    }
}

/// A file that is whole and durable, under a name that readers ignore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedFile {
    /// Where it is.
    pub staged: PathBuf,
    /// Where it belongs.
    pub place: PathBuf,
    /// Whether a file at that place gives way to it; otherwise one there is an error.
    pub replaces: bool,
    /// The table whose rows it holds.
    pub table: String,
    /// How many.
    pub rows: u64,
    /// Its length.
    pub bytes: u64,
    /// xxh3-64 of its bytes, in hex.
    pub xxh3: String,
    /// Number of the manifest that lists it; 0 in a run without checkpoints.
    #[serde(default)]
    pub checkpoint: u64,
}

/// A file that readers see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenFile {
    /// Where it is: relative to the lake for a file in one.
    pub path: PathBuf,
    /// The table whose rows it holds.
    pub table: String,
    /// How many.
    pub rows: u64,
    /// Its length.
    pub bytes: u64,
    /// xxh3-64 of its bytes, in hex.
    pub xxh3: String,
}

impl WrittenFile {
    /// The file that `staged` becomes, called `path`.
    #[must_use]
    pub fn of(staged: &StagedFile, path: PathBuf) -> WrittenFile {
        let StagedFile { table, rows, bytes, xxh3, .. } = staged.clone();
        WrittenFile { path, table, rows, bytes, xxh3 }
    }
}
