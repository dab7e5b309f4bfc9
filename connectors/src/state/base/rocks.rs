//! A base in RocksDB.
//!
//! Keys are the key group, one byte, and the key, 16 bytes, big-endian; values are states as they are. What was merged stands under a key
//! of its own, one byte long. There is no log: a merge writes its states, then that key, and flushes; RocksDB makes what was written
//! last in the order in which it was written, so the epoch never lasts without its states.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rocksdb::{
    BlockBasedOptions, DB, DBCompressionType, FlushOptions, LogLevel, Options, ReadOptions, WaitForCompactOptions,
    WriteBatch, WriteOptions, checkpoint::Checkpoint,
};
use whisperer_schemas::{Epoch, KeyHash};

use super::{BaseStore, Merging, NoStates};
use crate::state::{
    Role, States, StatesHead,
    error::{StoreError, damaged, io},
    failpoint,
};

/// Version of the value under [`META`].
const META_VERSION: u8 = 1;
/// Where epoch and layout stand. Keys of states are longer.
const META: [u8; 1] = [0];
/// Bytes of a key: its group, and itself.
const KEY_BYTES: usize = 17;
/// States that gather in memory before RocksDB writes a file of them. Merges run in the background and are large, memory is for hot states.
const WRITE_BUFFER_BYTES: usize = 16 << 20;
/// Buffers that may wait to be written.
const WRITE_BUFFERS_MAX: i32 = 3;
/// Bytes that are handed to RocksDB at once.
const BATCH_BYTES: usize = 1 << 20;
/// Blocks are read one after the other: larger ones compress better.
const BLOCK_BYTES: usize = 16 << 10;
/// Threads that flush and compact: merging must not take the cores of the workers.
const BACKGROUND_JOBS_MAX: i32 = 2;
/// RocksDB's own log files.
const LOG_FILES_MAX: usize = 2;

/// A base in RocksDB. It is open for writing only while it is written: a process that was stopped, and replaced by another generation, would
/// keep that one from its base as long as it sleeps.
#[derive(Debug)]
pub(crate) struct RocksBase {
    folder: PathBuf,
    role: Role,
    /// What the coordinating process knows it to hold, as nobody else writes it.
    head: Mutex<Option<StatesHead>>,
}

impl RocksBase {
    pub(crate) fn new(folder: &Path, role: Role) -> RocksBase {
        RocksBase { folder: folder.into(), role, head: Mutex::new(None) }
    }

    fn known(&self) -> MutexGuard<'_, Option<StatesHead>> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exists(&self) -> bool {
        self.folder.join("CURRENT").exists()
    }

    /// The database for reading; none where nothing was merged yet.
    fn reader(&self) -> Result<Option<DB>, StoreError> {
        if !self.exists() {
            return Ok(None);
        }
        DB::open_for_read_only(&options(), &self.folder, false).map(Some).map_err(self.refused("open"))
    }

    fn writer(&self) -> Result<DB, StoreError> {
        self.role.writes("write", &self.folder)?;
        fs::create_dir_all(&self.folder).map_err(io("create", &self.folder))?;
        DB::open(&options(), &self.folder).map_err(self.refused("open"))
    }

    fn refused(&self, doing: &'static str) -> impl Fn(rocksdb::Error) -> StoreError + '_ {
        refused(doing, &self.folder)
    }
}

fn refused(doing: &'static str, folder: &Path) -> impl Fn(rocksdb::Error) -> StoreError {
    move |error| {
        let (path, detail) = (folder.into(), error.into_string());
        // There is no code for it.
        if detail.contains("While lock file") || detail.contains("lock hold by") {
            return StoreError::Busy { path };
        }
        StoreError::RocksDb { doing, path, detail }
    }
}

fn options() -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_size(BLOCK_BYTES);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(WRITE_BUFFERS_MAX);
    options.set_max_background_jobs(BACKGROUND_JOBS_MAX);
    options.set_keep_log_file_num(LOG_FILES_MAX);
    options.set_log_level(LogLevel::Warn);
    options
}

fn write_options() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

fn key_bytes(key: KeyHash) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    bytes[0] = key.group() as u8;
    bytes[1..].copy_from_slice(&key.0.to_be_bytes());
    bytes
}

fn read_head(db: &DB, folder: &Path) -> Result<StatesHead, StoreError> {
    let Some(meta) = db.get(META).map_err(refused("read", folder))? else { return Ok(NoStates::head()) };
    let name = folder.to_string_lossy();
    match meta.split_first_chunk::<9>() {
        Some(([META_VERSION, epoch @ ..], layout)) => Ok(StatesHead {
            epoch: Epoch(u64::from_le_bytes(*epoch)),
            layout: layout.to_vec(),
            full: true,
            empty: first_key(db).is_none(),
        }),
        Some(([version, ..], _)) if *version > META_VERSION => {
            Err(StoreError::Version { name: name.into(), found: (*version).into(), known: META_VERSION.into() })
        }
        _ => Err(damaged(name, "it does not say what it holds")),
    }
}

fn first_key(db: &DB) -> Option<Vec<u8>> {
    let mut keys = db.raw_iterator();
    keys.seek([0; KEY_BYTES]);
    keys.key().map(<[u8]>::to_vec)
}

impl BaseStore for RocksBase {
    fn head(&self) -> Result<StatesHead, StoreError> {
        let mut known = self.known();
        if let (Role::Coordinator, Some(head)) = (self.role, &*known) {
            return Ok(head.clone());
        }
        let head = self.reader()?.map_or_else(|| Ok(NoStates::head()), |db| read_head(&db, &self.folder))?;
        *known = Some(head.clone());
        Ok(head)
    }

    fn states(&self) -> Result<Box<dyn States>, StoreError> {
        let Some(db) = self.reader()? else { return Ok(Box::new(NoStates(NoStates::head()))) };
        let head = read_head(&db, &self.folder)?;
        Ok(Box::new(RocksStates { db, head, folder: self.folder.clone() }))
    }

    fn merge(&self, mut merging: Merging) -> Result<(), StoreError> {
        let db = self.writer()?;
        let write = |batch| db.write_opt(batch, &write_options()).map_err(self.refused("write"));
        if merging.replace {
            let mut batch = WriteBatch::default();
            // Above every key of a state.
            batch.delete_range([0; KEY_BYTES].as_slice(), [u8::MAX; KEY_BYTES + 1].as_slice());
            write(batch)?;
        }
        let (count, mut removed) = (merging.deltas.len(), false);
        for (at, delta) in merging.deltas.iter_mut().enumerate() {
            if at == count / 2 {
                failpoint::pass("merge-half-done");
            }
            for group in delta.groups() {
                let mut batch = WriteBatch::default();
                let mut written = Ok(());
                delta.scan(group, &mut |key, state| {
                    match state {
                        Some(state) => batch.put(key_bytes(key), state),
                        None => {
                            removed = true;
                            batch.delete(key_bytes(key));
                        }
                    }
                    if batch.size_in_bytes() >= BATCH_BYTES && written.is_ok() {
                        written = write(std::mem::take(&mut batch));
                    }
                })?;
                written?;
                write(batch)?;
            }
        }
        let mut meta = WriteBatch::default();
        meta.put(META, [[META_VERSION].as_slice(), &merging.epoch.0.to_le_bytes(), &merging.layout].concat());
        write(meta)?;
        let mut wait = FlushOptions::default();
        wait.set_wait(true);
        db.flush_opt(&wait).map_err(self.refused("flush"))?;
        if removed {
            // A key is removed because somebody is to be forgotten: its old states must not stay in files that nobody reads.
            db.compact_range(None::<&[u8]>, None::<&[u8]>);
        }
        *self.known() = Some(read_head(&db, &self.folder)?);
        // Closing breaks a compaction off: with none ever finished, files would gather.
        db.wait_for_compact(&WaitForCompactOptions::default()).map_err(self.refused("compact"))
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.role.writes("empty", &self.folder)?;
        *self.known() = None;
        remove_folder(&self.folder)
    }

    fn copy(&self, into: &Path) -> Result<(), StoreError> {
        if !self.exists() {
            return Ok(());
        }
        let db = self.writer()?;
        // RocksDB wants to create the folder itself.
        fs::remove_dir(into).map_err(io("remove", into))?;
        Checkpoint::new(&db).and_then(|copy| copy.create_checkpoint(into)).map_err(self.refused("copy"))
    }

    fn install(&self, from: &Path) -> Result<(), StoreError> {
        if !from.join("CURRENT").exists() {
            return Err(StoreError::OtherBase { path: self.folder.clone(), found_rocksdb: false });
        }
        *self.known() = None;
        remove_folder(&self.folder)?;
        fs::rename(from, &self.folder).map_err(io("rename into place", &self.folder))?;
        let above = self.folder.parent().unwrap_or(Path::new("."));
        fs::File::open(above).and_then(|folder| folder.sync_all()).map_err(io("sync", above))
    }
}

fn remove_folder(folder: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(io("remove", folder)),
    }
}

/// The states of an open database.
struct RocksStates {
    db: DB,
    head: StatesHead,
    folder: PathBuf,
}

impl States for RocksStates {
    fn head(&self) -> &StatesHead {
        &self.head
    }

    fn scan(&mut self, group: u64, each: &mut dyn FnMut(KeyHash, Option<&[u8]>)) -> Result<(), StoreError> {
        let mut reading = ReadOptions::default();
        if group < u64::from(u8::MAX) {
            reading.set_iterate_upper_bound(vec![group as u8 + 1]);
        }
        // Every block is read once: it would only push out others.
        reading.fill_cache(false);
        let mut states = self.db.raw_iterator_opt(reading);
        states.seek([group as u8]);
        while let Some((key, state)) = states.item() {
            // The key of what was merged is shorter.
            if let Some(([_], key)) = key.split_first_chunk::<1>()
                && let Ok(key) = key.try_into()
            {
                each(KeyHash(u128::from_be_bytes(key)), Some(state));
            }
            states.next();
        }
        states.status().map_err(refused("read", &self.folder))
    }
}
