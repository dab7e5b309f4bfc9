//! A disk in memory whose power can be cut: what was not synced is lost, in part or whole, as it comes.
//!
//! ```text
//!                 names now ──▶ file ──▶ bytes now, bytes that were synced
//!  synced folder's names ──▶    file
//! ```
//! At the cut, for every name that changed since its folder was synced, a coin says whether the change stays; every file keeps what was
//! synced and, of what follows, a part that a die tells, of which the last bytes may be garbage. A file that was overwritten in place does
//! not exist here: files are created, appended to, and renamed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::state::disk::{Disk, DiskFile};

/// The disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct PowerDisk(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    files: Vec<FileBytes>,
    /// Names as they are, and as they were when their folder was synced.
    names: BTreeMap<PathBuf, usize>,
    synced: BTreeMap<PathBuf, usize>,
    /// Operations that changed something.
    operations: u64,
    /// The number of the operation at which the power goes; everything from there on is refused.
    cut: Option<u64>,
}

#[derive(Debug, Default)]
struct FileBytes {
    bytes: Vec<u8>,
    synced: usize,
}

impl PowerDisk {
    /// Operations that changed something, so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.contents().operations
    }

    /// Lets the power go at an operation that is still to come: it and all after it are refused, until [`PowerDisk::restart`].
    pub fn cut_at(&self, operation: u64) {
        self.contents().cut = Some(operation);
    }

    /// Brings the disk back with what has lasted; `dice` gives numbers below its argument.
    pub fn restart(&self, dice: &mut dyn FnMut(u64) -> u64) {
        let mut contents = self.contents();
        let contents = &mut *contents;
        contents.cut = None;
        let changed: BTreeSet<PathBuf> = contents.names.keys().chain(contents.synced.keys()).cloned().collect();
        for name in changed {
            // A rename over another file, a new name, a removal: it has lasted or not.
            if contents.names.get(&name) != contents.synced.get(&name) && dice(2) == 0 {
                match contents.synced.get(&name) {
                    Some(file) => contents.names.insert(name, *file),
                    None => contents.names.remove(&name),
                };
            }
        }
        for file in &mut contents.files {
            let lost = file.bytes.len() - file.synced;
            let kept = file.synced + dice(lost as u64 + 1) as usize;
            file.bytes.truncate(kept);
            // A sector that was allocated and never written.
            if kept > file.synced && dice(2) == 0 {
                let garbage = (dice((kept - file.synced) as u64 + 1) as usize).min(SECTOR_BYTES);
                file.bytes[kept - garbage..].fill(0);
            }
            file.synced = file.bytes.len();
        }
        contents.synced = contents.names.clone();
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        // A test that panics elsewhere shall still see the disk.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a disk writes at once.
const SECTOR_BYTES: usize = 512;

impl Contents {
    fn step(&mut self) -> io::Result<()> {
        if self.cut.is_some_and(|cut| self.operations >= cut) {
            return Err(io::Error::other("the power is gone"));
        }
        self.operations += 1;
        Ok(())
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }
}

struct PowerFile {
    disk: PowerDisk,
    file: usize,
}

impl Write for PowerFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut contents = self.disk.contents();
        contents.step()?;
        contents.files[self.file].bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for PowerFile {
    fn sync(&mut self) -> io::Result<()> {
        let mut contents = self.disk.contents();
        contents.step()?;
        let file = &mut contents.files[self.file];
        file.synced = file.bytes.len();
        Ok(())
    }
}

impl Disk for PowerDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut contents = self.contents();
        contents.step()?;
        if contents.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let file = contents.files.len();
        contents.files.push(FileBytes::default());
        contents.names.insert(path.into(), file);
        Ok(Box::new(PowerFile { disk: self.clone(), file }))
    }

    fn read_at(&self, path: &Path, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let contents = self.contents();
        let file = &contents.files[contents.file(path)?].bytes;
        let found = file.get(offset as usize..offset as usize + bytes.len()).ok_or(ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(found);
        Ok(())
    }

    fn bytes(&self, path: &Path) -> io::Result<u64> {
        let contents = self.contents();
        Ok(contents.files[contents.file(path)?].bytes.len() as u64)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let contents = self.contents();
        let inside = contents.names.keys().filter(|name| name.parent() == Some(folder));
        Ok(inside.filter_map(|name| Some(name.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn create_folder(&self, _folder: &Path) -> io::Result<()> {
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut contents = self.contents();
        contents.step()?;
        let file = contents.file(from)?;
        if contents.names.contains_key(to) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        contents.names.insert(to.into(), file);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut contents = self.contents();
        contents.step()?;
        let file = contents.file(from)?;
        contents.names.remove(from);
        contents.names.insert(to.into(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut contents = self.contents();
        contents.step()?;
        contents.names.remove(path);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut contents = self.contents();
        contents.step()?;
        let contents = &mut *contents;
        contents.synced.retain(|name, _| name.parent() != Some(folder));
        let inside = contents.names.iter().filter(|(name, _)| name.parent() == Some(folder));
        contents.synced.extend(inside.map(|(name, file)| (name.clone(), *file)));
        Ok(())
    }
}
