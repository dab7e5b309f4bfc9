//! What can go wrong in a sink, whose fault it is, and whether trying again may help.

use std::{
    error::Error,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use ::parquet::errors::ParquetError;
use whisperer_schemas::SchemaError;

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Of whoever started the run: another argument or another folder helps.
    User,
    /// Of the world outside: a disk that is full, a file that was damaged.
    External,
    /// Of Whisperer itself.
    Internal,
}

/// Why a sink could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The file system refused.
    #[error("could not {doing} \"{}\"", path.display())]
    Io {
        /// What was tried, such as `create`.
        doing: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// Parquet could not be written or read.
    #[error("could not {doing} the Parquet file \"{}\" of table \"{table}\"", path.display())]
    Parquet {
        /// What was tried: `write` or `read`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Its table; empty where it is not known yet.
        table: String,
        /// What the library answered.
        #[source]
        source: ParquetError,
    },
    /// Rows could not be turned into Arrow arrays or back.
    #[error("could not convert rows of table \"{table}\" to Arrow or back")]
    Rows {
        /// The table.
        table: String,
        /// What is wrong with them.
        #[source]
        source: SchemaError,
    },
    /// A row does not fit its table.
    #[error("a row does not fit table \"{table}\": {detail}")]
    Row {
        /// The table.
        table: String,
        /// What is wrong with the row.
        detail: String,
    },
    /// A file holds something else than was expected.
    #[error("\"{}\" is not what was expected: {detail}", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// The difference.
        detail: String,
    },
    /// A JSON file of the lake could not be read or written.
    #[error("could not {doing} the JSON of \"{}\"", path.display())]
    Json {
        /// What was tried: `write` or `read`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A file was written by a newer release.
    #[error("\"{}\" has version {found}; this release reads up to {known}. Read it with the release that wrote it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The newest version that is understood here.
        known: u64,
    },
    /// An earlier run's output is in the way.
    #[error(
        "\"{}\" holds output of an earlier run of \"{job}\" already ({files} files, the first is \"{}\"). \
         Choose another folder, or say that it is to be replaced", path.display(), first.display()
    )]
    Occupied {
        /// The lake or the file.
        path: PathBuf,
        /// The job that the output belongs to.
        job: String,
        /// How many files there are.
        files: usize,
        /// The first of them.
        first: PathBuf,
    },
    /// Another run writes here at this moment.
    #[error("\"{}\" is being written by another run of \"{job}\" (\"{run}\"). Wait for its end, or choose another folder", path.display())]
    Busy {
        /// The lake or the file.
        path: PathBuf,
        /// The job that runs.
        job: String,
        /// The run that writes, as far as it is known.
        run: String,
    },
    /// A later generation of the run is at work.
    #[error(
        "\"{}\" is being written by generation {newer} of run \"{run}\"; this is generation {generation}, which has to end",
        path.display()
    )]
    Fenced {
        /// The lake.
        path: PathBuf,
        /// The run.
        run: String,
        /// The generation that is refused.
        generation: u64,
        /// The generation that is at work.
        newer: u64,
    },
    /// Going on from a checkpoint would make rows once more that readers see already.
    #[error(
        "\"{}\" holds output of checkpoints after {checkpoint} ({files} files, the first is \"{}\"). Go on from the newest checkpoint, \
         or say that outputs are to be repeated: then these files are removed", path.display(), first.display()
    )]
    Repeats {
        /// The lake.
        path: PathBuf,
        /// The checkpoint to go on from.
        checkpoint: u64,
        /// How many files there are.
        files: usize,
        /// The first of them.
        first: PathBuf,
    },
    /// A file that a checkpoint lists is neither where it was staged nor where it belongs.
    #[error(
        "\"{}\" ({rows} rows), which the checkpoint lists, is gone. Put it back, or go on from an earlier checkpoint and have its \
         outputs repeated", path.display()
    )]
    Lost {
        /// Where it belongs.
        path: PathBuf,
        /// How many rows it held.
        rows: u64,
    },
    /// A table keeps a log, and the lake was opened without.
    #[error(
        "the table \"{}\" keeps a Delta log, which plain files would not be part of. Set log = \"delta\", or choose another folder",
        path.display()
    )]
    Logged {
        /// The table's folder.
        path: PathBuf,
    },
    /// The log of a table could not be read or written.
    #[error("could not {doing} the log of table \"{}\": {detail}", path.display())]
    Log {
        /// What was tried: `write`, `read` or `summarize`.
        doing: &'static str,
        /// The table's folder.
        path: PathBuf,
        /// What the library answered, or what is wrong.
        detail: String,
    },
    /// The build lacks what was asked for.
    #[error("{what} is not in this build. Build it with the feature \"{feature}\"")]
    Feature {
        /// What was asked for.
        what: &'static str,
        /// The feature that it needs.
        feature: &'static str,
    },
    /// A name cannot be part of a path.
    #[error(
        "{what} \"{name}\" cannot be part of a file name. Use letters, digits, \".\", \"_\" and \"-\", and begin with a letter or digit"
    )]
    Name {
        /// What bears the name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A topic's brokers refused, or did not answer in time.
    #[error("could not {doing} the topic \"{topic}\": {detail}{}{hint}", if hint.is_empty() { "" } else { ". " })]
    Topic {
        /// What was tried, such as `write to`.
        doing: &'static str,
        /// The topic.
        topic: String,
        /// What they answered.
        detail: String,
        /// What may help; empty where nothing is known.
        hint: &'static str,
        /// Whose fault it is.
        fault: Fault,
        /// Whether a new sink may succeed with the same settings.
        retry: bool,
    },
    /// A newer incarnation of the job has taken over.
    #[error(
        "\"{writer}\" may not write to the topic \"{topic}\" any more: a newer incarnation of the job has taken over. \
         Is the job started twice?"
    )]
    TakenOver {
        /// The topic.
        topic: String,
        /// The identity of the writer.
        writer: String,
    },
    /// A table's log is further than the run that goes on: a commit would be taken for one that is done.
    #[error(
        "the log of table \"{}\" has checkpoint {recorded} of this run, and the run goes on with {number}: either it was continued elsewhere \
         meanwhile, or its state is an old copy. Put the newer state back, or begin anew with an empty state folder",
        path.display()
    )]
    Ahead {
        /// The table's folder.
        path: PathBuf,
        /// The number that the log has.
        recorded: u64,
        /// The number that was to be written.
        number: u64,
    },
    /// What a checkpoint says of a sink cannot be read.
    #[error("what the checkpoint says of the topic \"{topic}\" cannot be read: {detail}")]
    Recorded {
        /// The topic.
        topic: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The sink failed before; what it holds may be incomplete, so it accepts and commits nothing more.
    #[error("the sink of table \"{table}\" failed before and commits nothing more; its first error tells why")]
    Broken {
        /// The table.
        table: String,
    },
}

impl SinkError {
    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            SinkError::Occupied { .. }
            | SinkError::Busy { .. }
            | SinkError::Fenced { .. }
            | SinkError::TakenOver { .. }
            | SinkError::Repeats { .. }
            | SinkError::Ahead { .. }
            | SinkError::Logged { .. }
            | SinkError::Feature { .. }
            | SinkError::Name { .. }
            | SinkError::Version { .. } => Fault::User,
            SinkError::Row { .. } | SinkError::Rows { .. } | SinkError::Broken { .. } => Fault::Internal,
            SinkError::Io { source, .. } => io_fault(source),
            SinkError::Parquet { source, .. } => io_cause(source).map_or(Fault::External, io_fault),
            SinkError::Topic { fault, .. } => *fault,
            SinkError::Schema { .. }
            | SinkError::Json { .. }
            | SinkError::Lost { .. }
            | SinkError::Log { .. }
            | SinkError::Recorded { .. } => Fault::External,
        }
    }

    /// Whether a new run may succeed with the same arguments, once the disk has room or the other run has ended.
    #[must_use]
    pub fn retry(&self) -> bool {
        match self {
            SinkError::Busy { .. } => true,
            SinkError::Topic { retry, .. } => *retry,
            SinkError::Io { source, .. } => io_retry(source),
            SinkError::Parquet { source, .. } => io_cause(source).is_some_and(io_retry),
            _ => false,
        }
    }
}

/// Turns an I/O error into a [`SinkError`] that says what was tried on which path.
pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SinkError {
    move |source| SinkError::Io { doing, path: path.into(), source }
}

/// Turns an error of the Parquet library into a [`SinkError`].
pub(crate) fn parquet(doing: &'static str, path: &Path, table: &str) -> impl FnOnce(ParquetError) -> SinkError {
    move |source| SinkError::Parquet { doing, path: path.into(), table: table.into(), source }
}

fn io_fault(error: &io::Error) -> Fault {
    match error.kind() {
        // A folder that is missing, closed or a file is one that was named wrongly.
        ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
            Fault::User
        }
        _ => Fault::External,
    }
}

fn io_retry(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::Interrupted
            | ErrorKind::TimedOut
            | ErrorKind::ResourceBusy
    )
}

/// The I/O error below an error of the Parquet library, if there is one.
fn io_cause(error: &ParquetError) -> Option<&io::Error> {
    let ParquetError::External(cause) = error else { return None };
    let mut cause: Option<&(dyn Error + 'static)> = Some(cause.as_ref());
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a full disk is nobody's mistake here and worth another try, also when the Parquet library reports it.
    #[test]
    fn full_disk_is_external_and_worth_a_retry() {
        let full = || io::Error::from(ErrorKind::StorageFull);
        let plain = io("write", Path::new("x"))(full());
        let wrapped = parquet("write", Path::new("x"), "profiles")(ParquetError::External(Box::new(full())));
        for error in [plain, wrapped] {
            assert_eq!((error.fault(), error.retry()), (Fault::External, true), "{error}");
        }
    }

    /// Goal: a folder that cannot be one is the user's to correct, and trying again is useless.
    #[test]
    fn wrong_folder_is_the_users() {
        let error = io("create", Path::new("x"))(ErrorKind::NotADirectory.into());
        assert_eq!((error.fault(), error.retry()), (Fault::User, false));
    }
}
