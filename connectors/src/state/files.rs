//! Whole files and delta files on a disk: written under another name, synced, given their name, and the folder synced.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use whisperer_schemas::{
    KeyHash, SchemaError,
    checkpoint::{
        Checksum, Delta, FileFacts,
        delta::{Block, DeltaIndex, HEADER_BYTES, Section, TRAILER_BYTES, find_index},
    },
};

use super::{
    States, StatesHead,
    disk::{Disk, DiskFile},
    error::{StoreError, damaged, io},
    failpoint,
};

/// Ending of files that are still being written.
const UNFINISHED: &str = ".new";

/// Bytes read at once where a whole file is checked.
const READ_BYTES: usize = 1 << 20;

/// The name under which `path` is written; hidden. `writer` tells apart those that may write the same file at the same time.
pub(crate) fn unfinished(path: &Path, writer: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{writer}{UNFINISHED}"))
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// Begins a file under the name `path`; what a crash left there goes.
pub(crate) fn create(disk: &dyn Disk, path: &Path) -> Result<Box<dyn DiskFile>, StoreError> {
    disk.remove(path).map_err(io("remove", path))?;
    disk.create(path).map_err(io("create", path))
}

/// Gives a synced file its name, for good.
pub(crate) fn rename(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), StoreError> {
    disk.rename(from, to).map_err(io("rename into place", to))?;
    sync_folder(disk, folder_of(to))
}

pub(crate) fn sync_folder(disk: &dyn Disk, folder: &Path) -> Result<(), StoreError> {
    disk.sync_folder(folder).map_err(io("sync", folder))
}

/// Writes a file that replaces another one whole, or appears whole.
pub(crate) fn write_whole(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let staged = unfinished(path, "");
    let mut file = create(disk, &staged)?;
    file.write_all(bytes).map_err(io("write", &staged))?;
    file.sync().map_err(io("sync", &staged))?;
    drop(file);
    rename(disk, &staged, path)
}

/// Writes a file only if there is none under that name; whether there was none. The name appears with the whole file behind it.
pub(crate) fn write_if_absent(disk: &dyn Disk, path: &Path, bytes: &[u8], writer: &str) -> Result<bool, StoreError> {
    let staged = unfinished(path, writer);
    let mut file = create(disk, &staged)?;
    file.write_all(bytes).map_err(io("write", &staged))?;
    file.sync().map_err(io("sync", &staged))?;
    drop(file);
    let created = match disk.link(&staged, path) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
        Err(error) => return Err(io("create", path)(error)),
    };
    if created {
        sync_folder(disk, folder_of(path))?;
    }
    // The second name of what is safe already: a crash leaves it to the next cleaning.
    disk.remove(&staged).map_err(io("remove", &staged))?;
    Ok(created)
}

/// Removes what was left unfinished in a folder.
pub(crate) fn clean(disk: &dyn Disk, folder: &Path) -> Result<(), StoreError> {
    let names = disk.list(folder).map_err(io("list", folder))?;
    for name in names.iter().filter(|name| name.starts_with('.') && name.ends_with(UNFINISHED)) {
        let path = folder.join(name);
        disk.remove(&path).map_err(io("remove", &path))?;
    }
    Ok(())
}

/// Encodes a delta into `staged` and syncs it; gives its facts under `name`.
pub(crate) fn write_delta(
    disk: &dyn Disk,
    staged: &Path,
    name: &str,
    delta: &Delta,
    generation: u64,
) -> Result<FileFacts, StoreError> {
    let mut file = create(disk, staged)?;
    let mut checksum = Checksum::default();
    let encoded = delta.encode::<Encoding>(generation, &mut |out| {
        checksum.update(out);
        failpoint::pass("delta-half-written");
        file.write_all(out).map_err(io("write", staged)).map_err(Encoding::Store)?;
        out.clear();
        Ok(())
    });
    encoded.map_err(|error| error.store(name))?;
    file.sync().map_err(io("sync", staged))?;
    Ok(checksum.facts(name, delta.epoch))
}

/// Why a delta cannot be written: its states, or the disk.
pub(crate) enum Encoding {
    States(SchemaError),
    Store(StoreError),
}

impl From<SchemaError> for Encoding {
    fn from(error: SchemaError) -> Encoding {
        Encoding::States(error)
    }
}

impl Encoding {
    pub(crate) fn store(self, name: &str) -> StoreError {
        match self {
            Encoding::States(source) => StoreError::States { doing: "write", name: name.into(), source },
            Encoding::Store(error) => error,
        }
    }
}

/// Checks a file's length and checksum.
pub(crate) fn check(disk: &dyn Disk, path: &Path, facts: &FileFacts) -> Result<(), StoreError> {
    check_length(disk, path, facts)?;
    let (mut checksum, mut buffer) = (Checksum::default(), vec![0; READ_BYTES.min(facts.bytes as usize)]);
    let mut offset = 0;
    while offset < facts.bytes {
        let bytes = buffer.len().min((facts.bytes - offset) as usize);
        disk.read_at(path, offset, &mut buffer[..bytes]).map_err(io("read", path))?;
        checksum.update(&buffer[..bytes]);
        offset += bytes as u64;
    }
    if checksum.facts(&facts.name, facts.epoch).xxh3 == facts.xxh3 {
        return Ok(());
    }
    Err(damaged(&facts.name, "its checksum is not that of the manifest"))
}

pub(crate) fn check_length(disk: &dyn Disk, path: &Path, facts: &FileFacts) -> Result<(), StoreError> {
    match disk.bytes(path) {
        Ok(bytes) if bytes == facts.bytes => Ok(()),
        Ok(bytes) => Err(damaged(&facts.name, format!("it is {bytes} bytes long, the manifest says {}", facts.bytes))),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(damaged(&facts.name, "it is missing")),
        Err(error) => Err(io("read", path)(error)),
    }
}

/// A delta file on a disk, of which the index is in memory. No handle stays open: there may be more deltas than a process may open files.
#[derive(Debug)]
pub(crate) struct DeltaFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    name: String,
    index: DeltaIndex,
    head: StatesHead,
}

impl DeltaFile {
    /// Opens `path` and reads its index.
    pub(crate) fn open(disk: Arc<dyn Disk>, path: PathBuf, name: &str) -> Result<DeltaFile, StoreError> {
        let bytes = disk.bytes(&path).map_err(io("read", &path))?;
        let read = |offset: u64, bytes: usize| read(disk.as_ref(), &path, offset, bytes);
        let header = read(0, HEADER_BYTES.min(bytes as usize))?;
        let trailer = read(bytes.saturating_sub(TRAILER_BYTES as u64), TRAILER_BYTES.min(bytes as usize))?;
        let index = find_index(bytes, &header, &trailer).map_err(unreadable(name))?;
        let index = read(index.start, (index.end - index.start) as usize)?;
        let index = DeltaIndex::decode(&header, &index, &trailer).map_err(unreadable(name))?;
        let head = StatesHead {
            epoch: index.head.epoch,
            layout: index.head.layout.clone(),
            full: index.head.full,
            empty: index.blocks.is_empty(),
        };
        Ok(DeltaFile { disk, path, name: name.into(), index, head })
    }

    /// Opens the file that `facts` tells of; its length is checked, and that it is of the same epoch.
    pub(crate) fn of(disk: Arc<dyn Disk>, path: PathBuf, facts: &FileFacts) -> Result<DeltaFile, StoreError> {
        check_length(disk.as_ref(), &path, facts)?;
        let file = DeltaFile::open(disk, path, &facts.name)?;
        if file.head.epoch != facts.epoch {
            return Err(damaged(&facts.name, "it is of another epoch than the manifest says"));
        }
        Ok(file)
    }

    /// Its name in manifests.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Key groups of which it holds states, ascending.
    #[cfg_attr(not(feature = "rocksdb"), allow(dead_code, reason = "only RocksDB is merged group by group"))]
    pub(crate) fn groups(&self) -> Vec<u64> {
        let mut groups: Vec<u64> = self.index.blocks.iter().map(|block| block.group).collect();
        groups.dedup();
        groups
    }

    /// Everything but states.
    pub(crate) fn rest(&self) -> Result<Delta, StoreError> {
        let mut delta = Delta::from_head(&self.index.head);
        for section in &self.index.sections {
            delta.add(section, self.section(section)?);
        }
        Ok(delta)
    }

    /// Everything.
    pub(crate) fn whole(&self) -> Result<Delta, StoreError> {
        let mut delta = self.rest()?;
        delta.states.reserve_exact(self.index.states() as usize);
        for block in &self.index.blocks {
            self.block(block, &mut |key, state| delta.states.push((key, state.map(Bytes::copy_from_slice))))?;
        }
        Ok(delta)
    }

    fn section(&self, section: &Section) -> Result<Vec<u8>, StoreError> {
        let bytes = read(self.disk.as_ref(), &self.path, section.range.start, length(&section.range))?;
        section.check(&bytes).map_err(unreadable(&self.name))?;
        Ok(bytes)
    }

    fn block(&self, block: &Block, each: &mut dyn FnMut(KeyHash, Option<&[u8]>)) -> Result<(), StoreError> {
        let bytes = read(self.disk.as_ref(), &self.path, block.range.start, length(&block.range))?;
        block.states(&bytes, each).map_err(unreadable(&self.name))
    }
}

impl States for DeltaFile {
    fn head(&self) -> &StatesHead {
        &self.head
    }

    fn scan(&mut self, group: u64, each: &mut dyn FnMut(KeyHash, Option<&[u8]>)) -> Result<(), StoreError> {
        self.index.group(group).iter().try_for_each(|block| self.block(block, each))
    }
}

fn read(disk: &dyn Disk, path: &Path, offset: u64, bytes: usize) -> Result<Vec<u8>, StoreError> {
    let mut buffer = vec![0; bytes];
    disk.read_at(path, offset, &mut buffer).map_err(io("read", path))?;
    Ok(buffer)
}

fn length(range: &std::ops::Range<u64>) -> usize {
    (range.end - range.start) as usize
}

fn unreadable(name: &str) -> impl FnOnce(SchemaError) -> StoreError {
    move |error| match error {
        SchemaError::DeltaVersion { found, known } => {
            StoreError::Version { name: name.into(), found: found.into(), known: known.into() }
        }
        error => damaged(name, error.to_string()),
    }
}
