//! A base that is one sorted file, in the form of a delta: written anew, and renamed into place, at each merge.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use whisperer_schemas::{
    KeyHash,
    checkpoint::delta::{DeltaEncoder, DeltaHead},
    ids::KEY_GROUPS,
};

use super::{BaseStore, Merging, NoStates};
use crate::state::{
    Role, States, StatesHead,
    disk::{Disk, DiskFile},
    error::{StoreError, io},
    failpoint,
    files::{self, DeltaFile, Encoding},
};

/// Its name in the folder of the base.
pub(crate) const FILE: &str = "states.base";

/// Bytes that gather before they are written.
const WRITE_BYTES: usize = 1 << 20;

/// A base in one file.
#[derive(Debug)]
pub(crate) struct SortedBase {
    folder: PathBuf,
    role: Role,
    disk: Arc<dyn Disk>,
}

impl SortedBase {
    pub(crate) fn new(folder: &Path, role: Role, disk: Arc<dyn Disk>) -> SortedBase {
        SortedBase { folder: folder.into(), role, disk }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// The file; none where nothing was merged yet.
    fn open(&self) -> Result<Option<DeltaFile>, StoreError> {
        let names = self.disk.list(&self.folder).map_err(io("list", &self.folder))?;
        if !names.iter().any(|name| name == FILE) {
            return Ok(None);
        }
        DeltaFile::open(self.disk.clone(), self.path(), "base/states.base").map(Some)
    }

    fn write(&self, mut merging: Merging, staged: &Path) -> Result<(), StoreError> {
        let mut old = if merging.replace { None } else { self.open()? };
        let head = DeltaHead { epoch: merging.epoch, full: true, layout: merging.layout, ..DeltaHead::default() };
        let mut file = files::create(self.disk.as_ref(), staged)?;
        let mut out = Vec::new();
        let mut encoder = DeltaEncoder::new(head, &mut out);
        for group in 0..KEY_GROUPS {
            for (key, state) in newest(old.as_mut(), &mut merging.deltas, group)? {
                encoder
                    .state(key, Some(&state), &mut out)
                    .map_err(|error| Encoding::States(error).store("base/states.base"))?;
                flush(file.as_mut(), &mut out, WRITE_BYTES, staged)?;
            }
            if group == KEY_GROUPS / 2 {
                failpoint::pass("merge-half-done");
            }
        }
        encoder.finish(&mut out);
        flush(file.as_mut(), &mut out, 1, staged)?;
        file.sync().map_err(io("sync", staged))
    }
}

/// The states of a key group after a merge.
fn newest(
    old: Option<&mut DeltaFile>,
    deltas: &mut [DeltaFile],
    group: u64,
) -> Result<BTreeMap<KeyHash, Box<[u8]>>, StoreError> {
    let mut states = BTreeMap::new();
    for source in old.into_iter().chain(deltas) {
        source.scan(group, &mut |key, state| {
            match state {
                Some(state) => states.insert(key, Box::from(state)),
                None => states.remove(&key),
            };
        })?;
    }
    Ok(states)
}

fn flush(file: &mut dyn DiskFile, out: &mut Vec<u8>, from: usize, path: &Path) -> Result<(), StoreError> {
    if out.len() >= from {
        file.write_all(out).map_err(io("write", path))?;
        out.clear();
    }
    Ok(())
}

impl BaseStore for SortedBase {
    fn head(&self) -> Result<StatesHead, StoreError> {
        Ok(self.open()?.map_or_else(NoStates::head, |file| file.head().clone()))
    }

    fn states(&self) -> Result<Box<dyn States>, StoreError> {
        Ok(match self.open()? {
            Some(file) => Box::new(file),
            None => Box::new(NoStates(NoStates::head())),
        })
    }

    fn merge(&self, merging: Merging) -> Result<(), StoreError> {
        self.role.writes("merge into", &self.folder)?;
        self.disk.create_folder(&self.folder).map_err(io("create", &self.folder))?;
        let staged = files::unfinished(&self.path(), "");
        self.write(merging, &staged)?;
        files::rename(self.disk.as_ref(), &staged, &self.path())
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.role.writes("empty", &self.folder)?;
        if self.open()?.is_some() {
            self.disk.remove(&self.path()).map_err(io("remove", &self.path()))?;
            files::sync_folder(self.disk.as_ref(), &self.folder)?;
        }
        Ok(())
    }

    fn copy(&self, into: &Path) -> Result<(), StoreError> {
        if self.open()?.is_some() {
            fs::hard_link(self.path(), into.join(FILE)).map_err(io("link", &self.path()))?;
        }
        Ok(())
    }

    fn install(&self, from: &Path) -> Result<(), StoreError> {
        if !from.join(FILE).exists() {
            return Err(StoreError::OtherBase { path: self.folder.clone(), found_rocksdb: true });
        }
        self.disk.create_folder(&self.folder).map_err(io("create", &self.folder))?;
        files::rename(self.disk.as_ref(), &from.join(FILE), &self.path())
    }
}
