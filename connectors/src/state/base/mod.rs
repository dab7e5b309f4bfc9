//! The compacted base: the newest version of every state that no kept checkpoint can go back behind.
//!
//! Two kinds, by the build: RocksDB, which writes what changed, and a file of our own that is written anew at each merge, which serves
//! small states. Neither reads what the other has written.
//!
//! Invariants:
//! 1. The base's epoch is written last, and lasts only together with everything that was merged up to it.
//! 2. A merge that was cut off leaves the old epoch, and states of deltas that are still there: they are on top of the base whenever it is
//!    read, and are merged again.

use std::{fmt::Debug, path::Path, sync::Arc};

use whisperer_schemas::{Epoch, KeyHash, checkpoint::FileFacts};

use super::{
    Role, States, StatesHead,
    disk::Disk,
    error::{StoreError, damaged},
    files::DeltaFile,
};

#[cfg(feature = "rocksdb")]
pub(crate) mod rocks;
pub(crate) mod sorted;

/// What a base is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseKind {
    /// A RocksDB: for states of any size.
    #[cfg(feature = "rocksdb")]
    RocksDb,
    /// One sorted file: for small states, or builds without RocksDB.
    Sorted,
}

impl BaseKind {
    /// The better one of what this build has.
    #[must_use]
    pub fn best() -> BaseKind {
        #[cfg(feature = "rocksdb")]
        let best = BaseKind::RocksDb;
        #[cfg(not(feature = "rocksdb"))]
        let best = BaseKind::Sorted;
        best
    }
}

/// A base in a folder.
pub(crate) trait BaseStore: Debug + Send + Sync {
    /// What it holds.
    fn head(&self) -> Result<StatesHead, StoreError>;

    /// Its states.
    fn states(&self) -> Result<Box<dyn States>, StoreError>;

    /// Merges deltas.
    fn merge(&self, merging: Merging) -> Result<(), StoreError>;

    /// Removes everything.
    fn clear(&self) -> Result<(), StoreError>;

    /// Puts a copy of its files, which do not change any more, into an empty folder.
    fn copy(&self, into: &Path) -> Result<(), StoreError>;

    /// Replaces it by the files of a copy.
    fn install(&self, from: &Path) -> Result<(), StoreError>;
}

/// A merge that is sound as far as can be said without reading states.
#[derive(Debug)]
pub(crate) struct Merging {
    /// Oldest first.
    pub(crate) deltas: Vec<DeltaFile>,
    /// Whether what the base holds is void.
    pub(crate) replace: bool,
    /// The layout of the base afterwards.
    pub(crate) layout: Vec<u8>,
    /// Its epoch.
    pub(crate) epoch: Epoch,
}

impl Merging {
    /// Opens deltas, oldest first; leaves out what a full delta makes void, and refuses what does not fit.
    pub(crate) fn plan(
        base: &StatesHead,
        files: &[FileFacts],
        epoch: Epoch,
        open: &dyn Fn(&FileFacts) -> Result<DeltaFile, StoreError>,
    ) -> Result<Merging, StoreError> {
        let mut sorted: Vec<&FileFacts> = files.iter().collect();
        sorted.sort_by_key(|file| file.epoch);
        let (mut deltas, mut replace) = (Vec::new(), false);
        for same in sorted.chunk_by(|one, other| one.epoch == other.epoch) {
            let opened = same.iter().map(|file| open(file)).collect::<Result<Vec<_>, _>>()?;
            if all_full(same, &opened.iter().map(States::head).collect::<Vec<_>>())? {
                deltas.clear();
                replace = true;
            }
            deltas.extend(opened);
        }
        let layout = one_layout(base, &deltas, replace)?;
        Ok(Merging { deltas, replace, layout, epoch })
    }
}

/// Whether the deltas of an epoch are full: all are, or none is.
pub(crate) fn all_full(files: &[&FileFacts], heads: &[&StatesHead]) -> Result<bool, StoreError> {
    let full = heads.iter().any(|head| head.full);
    match heads.iter().position(|head| head.full != full) {
        None => Ok(full),
        Some(other) => Err(damaged(
            &files[other].name,
            "it holds what changed, and another worker's delta of the same epoch holds all",
        )),
    }
}

fn one_layout(base: &StatesHead, deltas: &[DeltaFile], replace: bool) -> Result<Vec<u8>, StoreError> {
    let mut layout = (!replace && !base.empty).then(|| base.layout.clone());
    for delta in deltas.iter().filter(|delta| !delta.head().empty) {
        if *layout.get_or_insert_with(|| delta.head().layout.clone()) != delta.head().layout {
            return Err(StoreError::Layout { name: delta.name().into() });
        }
    }
    Ok(layout.or_else(|| Some(deltas.first()?.head().layout.clone())).unwrap_or_else(|| base.layout.clone()))
}

/// Opens the base of a state folder; what another build has written there is refused.
pub(crate) fn open(
    folder: &Path,
    kind: BaseKind,
    role: Role,
    disk: &Arc<dyn Disk>,
) -> Result<Box<dyn BaseStore>, StoreError> {
    let rocksdb = folder.join("CURRENT").exists();
    let sorted = disk.list(folder).is_ok_and(|names| names.iter().any(|name| name == sorted::FILE));
    let other = |found_rocksdb| Err(StoreError::OtherBase { path: folder.into(), found_rocksdb });
    match kind {
        #[cfg(feature = "rocksdb")]
        BaseKind::RocksDb if sorted => other(false),
        BaseKind::Sorted if rocksdb => other(true),
        #[cfg(feature = "rocksdb")]
        BaseKind::RocksDb => Ok(Box::new(rocks::RocksBase::new(folder, role))),
        BaseKind::Sorted => {
            let _ = sorted;
            Ok(Box::new(sorted::SortedBase::new(folder, role, disk.clone())))
        }
    }
}

/// No states.
pub(crate) struct NoStates(pub(crate) StatesHead);

impl NoStates {
    pub(crate) fn head() -> StatesHead {
        StatesHead { full: true, empty: true, ..StatesHead::default() }
    }
}

impl States for NoStates {
    fn head(&self) -> &StatesHead {
        &self.0
    }

    fn scan(&mut self, _group: u64, _each: &mut dyn FnMut(KeyHash, Option<&[u8]>)) -> Result<(), StoreError> {
        Ok(())
    }
}
