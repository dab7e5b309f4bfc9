//! The logs of a lake's tables, where they keep any: what a lake says to them, whichever there are in this build.

use std::path::{Path, PathBuf};

use whisperer_schemas::TableSchema;

use crate::{error::SinkError, lake::TableLog, sink::StagedFile};

/// A commit of a lake as the logs of its tables take it: each those of its own files. Paths are relative to the lake.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "delta"), allow(dead_code, reason = "only a log reads it"))]
pub(crate) struct LogCommit<'a> {
    /// Who commits: a job's run.
    pub(crate) app: &'a str,
    /// The commit, as the run counts. A log that has this number or a larger one of the same run has the commit already.
    pub(crate) number: u64,
    /// Files to be added, which are in place.
    pub(crate) files: &'a [StagedFile],
    /// Files to be removed, which are there still.
    pub(crate) remove: &'a [PathBuf],
    /// Whether the number is written even where nothing is added: commits of earlier generations then find it and stop.
    pub(crate) fences: bool,
    /// Whether the log may have the commit in part, under the same number: what it has of it is passed over.
    pub(crate) repeated: bool,
}

/// The logs of a lake.
#[derive(Debug)]
pub(crate) enum LogTables {
    /// The tables keep none.
    None,
    /// Delta tables.
    #[cfg(feature = "delta")]
    Delta(Box<crate::delta::DeltaLogs>),
}

impl LogTables {
    /// # Errors
    /// A kind of log that this build does not have.
    pub(crate) fn new(log: TableLog) -> Result<LogTables, SinkError> {
        match log {
            TableLog::None => Ok(LogTables::None),
            #[cfg(feature = "delta")]
            TableLog::Delta => Ok(LogTables::Delta(Box::default())),
            #[cfg(not(feature = "delta"))]
            TableLog::Delta => Err(SinkError::Feature { what: "the Delta log of tables", feature: "delta" }),
        }
    }

    #[cfg_attr(not(feature = "delta"), expect(unused_variables, reason = "there is no log to tell"))]
    pub(crate) fn commit(&mut self, root: &Path, commit: &LogCommit<'_>) -> Result<(), SinkError> {
        match self {
            LogTables::None => Ok(()),
            #[cfg(feature = "delta")]
            LogTables::Delta(logs) => logs.commit(root, commit),
        }
    }

    #[cfg_attr(not(feature = "delta"), expect(unused_variables, reason = "there is no log to ask"))]
    pub(crate) fn check(&mut self, root: &Path, schema: &TableSchema, remove: &[PathBuf]) -> Result<(), SinkError> {
        match self {
            LogTables::None => Ok(()),
            #[cfg(feature = "delta")]
            LogTables::Delta(logs) => logs.check(root, schema, remove),
        }
    }
}

/// Whether the table in `folder` keeps a log.
pub(crate) fn is_logged(folder: &Path) -> bool {
    folder.join("_delta_log").is_dir()
}
