//! Why a state store cannot do what it is asked, and whether trying again may help.

use std::{
    error::Error,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use whisperer_schemas::SchemaError;

/// Why a store cannot do what it is asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system refused.
    #[error("could not {doing} \"{}\"", path.display())]
    Io {
        /// What was tried, such as `sync`.
        doing: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// Something that a manifest names is not there, or not as it was written.
    #[error("\"{name}\" is damaged: {detail}")]
    Damaged {
        /// The file or manifest.
        name: String,
        /// What is wrong.
        detail: String,
    },
    /// A delta file that cannot be read or written.
    #[error("could not {doing} the states of \"{name}\"")]
    States {
        /// What was tried: `read` or `write`.
        doing: &'static str,
        /// The file.
        name: String,
        /// What is wrong.
        #[source]
        source: SchemaError,
    },
    /// Something was written by a newer release.
    #[error("\"{name}\" has version {found}; this release reads up to {known}. Read it with the release that wrote it")]
    Version {
        /// The manifest.
        name: String,
        /// Its version.
        found: u64,
        /// The newest version that is understood here.
        known: u64,
    },
    /// A base that another build has written.
    #[error(
        "the base \"{}\" was written by a build {}, and this one is built {}. Use that build, or begin with an empty state folder",
        path.display(), with_rocksdb(*found_rocksdb), with_rocksdb(!*found_rocksdb)
    )]
    OtherBase {
        /// The base's folder.
        path: PathBuf,
        /// Whether RocksDB has written it.
        found_rocksdb: bool,
    },
    /// RocksDB refused.
    #[error("could not {doing} RocksDB at \"{}\": {detail}", path.display())]
    RocksDb {
        /// What was tried.
        doing: &'static str,
        /// The folder.
        path: PathBuf,
        /// What it answered.
        detail: String,
    },
    /// Another process holds the base.
    #[error("the base \"{}\" is held by another process, which sleeps or is about to stop. End it, or wait", path.display())]
    Busy {
        /// The base's folder.
        path: PathBuf,
    },
    /// The remote store refused.
    #[error("could not {doing} \"{name}\" on the remote store")]
    Remote {
        /// What was tried, such as `upload`.
        doing: &'static str,
        /// The object.
        name: String,
        /// What it answered.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A remote store that cannot be used at all.
    #[error("checkpoint.remote \"{url}\" cannot be used: {detail}")]
    Url {
        /// As it is configured.
        url: String,
        /// Why.
        detail: String,
    },
    /// A state folder that belongs to a remote store, or to another one.
    #[error(
        "the state folder \"{}\" {found}, and the job asks for {wanted}. Name the same store as before, or begin with an empty state folder",
        path.display()
    )]
    Elsewhere {
        /// The state folder.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// What is wanted.
        wanted: String,
    },
    /// States of another layout came without those that they replace.
    #[error("\"{name}\" holds states of another job than the base that it is to be merged into, and does not hold all")]
    Layout {
        /// The delta.
        name: String,
    },
    /// Only the coordinating process writes the base.
    #[error("only the coordinating process may {doing} the base \"{}\"", path.display())]
    Member {
        /// What was tried.
        doing: &'static str,
        /// The base's folder.
        path: PathBuf,
    },
    /// A checkpoint that was asked for by its number cannot be restored.
    #[error("checkpoint {number} cannot be restored: {why}")]
    NotRestorable {
        /// Its number.
        number: u64,
        /// Why not, and what can.
        why: String,
    },
    /// Restoring would make a sink repeat what it has put out.
    #[error(
        "checkpoint {number} lies before checkpoint {recorded}, whose outputs sink \"{sink}\" has put out already: they would come again. \
         Say --repeat-outputs if they shall"
    )]
    Repeats {
        /// The checkpoint that was asked for.
        number: u64,
        /// The newest one that the sink has recorded.
        recorded: u64,
        /// The sink.
        sink: String,
    },
}

fn with_rocksdb(with: bool) -> &'static str {
    if with { "with the feature \"rocksdb\"" } else { "without the feature \"rocksdb\"" }
}

impl StoreError {
    /// Whether the same call may succeed later: once the disk has room, or the remote store answers again.
    #[must_use]
    pub fn retry(&self) -> bool {
        match self {
            StoreError::Io { source, .. } => matches!(
                source.kind(),
                ErrorKind::StorageFull
                    | ErrorKind::QuotaExceeded
                    | ErrorKind::Interrupted
                    | ErrorKind::TimedOut
                    | ErrorKind::ResourceBusy
            ),
            StoreError::Remote { .. } | StoreError::Busy { .. } => true,
            // There is no code for it.
            StoreError::RocksDb { detail, .. } => detail.contains("No space left on device"),
            _ => false,
        }
    }
}

/// Turns an I/O error into a [`StoreError`] that says what was tried on which path.
pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { doing, path: path.into(), source }
}

/// Something is there, but not as it was written.
pub(crate) fn damaged(name: impl Into<String>, detail: impl Into<String>) -> StoreError {
    StoreError::Damaged { name: name.into(), detail: detail.into() }
}
