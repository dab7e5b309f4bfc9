//! Cold states in RocksDB: one database per worker, which begins empty.
//!
//! ```text
//! states   key (16 bytes, big-endian)                      ▶ due, state
//! due      due (8 bytes, ordered), key                     ▶ nothing; states without a timer have no entry
//! ```
//! Every key is put once and taken once, in turns: a single deletion takes its place in the next compaction together with what it deletes.
//! Nothing is logged or has to last.

use std::{
    fmt, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, LogLevel, Options,
    ReadOptions, WriteBatch, WriteOptions, properties,
};
use whisperer_operators::cold::{ColdError, ColdState, ColdStates};
use whisperer_schemas::{KeyHash, Micros};

use crate::state::error::{StoreError, io};

const STATES: &str = "states";
const DUE: &str = "due";

/// States that gather in memory before a file of them is written, twice per worker: this is outside of the budget of hot states.
const STATES_BUFFER_BYTES: usize = 16 << 20;
/// The same for due times, 24 bytes each.
const DUE_BUFFER_BYTES: usize = 4 << 20;
/// Blocks that are kept per worker. A state that was taken is not read again, so a cache serves neighbours and the page cache the rest.
const CACHE_BYTES: usize = 16 << 20;
/// Bits of a filter per key: one look-up in a hundred of a key that is not there reads a block.
const FILTER_BITS: f64 = 10.0;
/// A state is some dozens to some thousands of bytes: a block holds few, as one of them is wanted.
const BLOCK_BYTES: usize = 4 << 10;
/// Bytes handed over at once.
const BATCH_BYTES: usize = 1 << 20;
/// Keys looked up at once: bounds what is pinned.
const LOOKUP_KEYS_MAX: usize = 4_096;
/// Threads that flush and compact, shared by the process.
const BACKGROUND_JOBS_MAX: i32 = 2;
/// RocksDB's own log files.
const LOG_FILES_MAX: usize = 2;

const KEY_BYTES: usize = 16;
const DUE_BYTES: usize = 8;

/// Cold states of one worker.
pub struct RocksCold {
    db: DB,
    folder: PathBuf,
    len: u64,
    /// No timer in the store is due before: nothing is read until then, and not what lies below, which was deleted.
    earliest: Micros,
}

impl fmt::Debug for RocksCold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksCold").field("folder", &self.folder).field("len", &self.len).finish_non_exhaustive()
    }
}

impl RocksCold {
    /// Opens the store of a worker below the state folder; what an earlier run has left there is removed.
    ///
    /// # Errors
    /// What the disk or RocksDB answers.
    pub fn open(state: &Path, process: usize, worker: usize) -> Result<RocksCold, StoreError> {
        let folder = state.join(format!("cold-{process}-{worker}"));
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("empty", &folder)(error)),
            _ => fs::create_dir_all(&folder).map_err(io("create", &folder))?,
        }
        let cache = Cache::new_lru_cache(CACHE_BYTES);
        let columns = [(STATES, STATES_BUFFER_BYTES), (DUE, DUE_BUFFER_BYTES)]
            .map(|(name, buffer)| ColumnFamilyDescriptor::new(name, column_options(&cache, buffer)));
        let db = DB::open_cf_descriptors(&options(), &folder, columns).map_err(refused("open", &folder))?;
        Ok(RocksCold { db, folder, len: 0, earliest: Micros::MAX })
    }

    fn column(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("the columns were created with the database")
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        self.db.write_opt(batch, &unlogged).map_err(refused("write", &self.folder))
    }

    fn look_up(&self, keys: &[[u8; KEY_BYTES]], taken: &mut Vec<ColdState>) -> Result<(), StoreError> {
        let found = self.db.batched_multi_get_cf(self.column(STATES), keys, true);
        for (key, value) in keys.iter().zip(found) {
            if let Some(value) = value.map_err(refused("read", &self.folder))? {
                taken.push(state(*key, &value));
            }
        }
        Ok(())
    }

    fn delete(&self, taken: &[ColdState]) -> Result<(), StoreError> {
        let (states, due) = (self.column(STATES), self.column(DUE));
        let mut batch = WriteBatch::default();
        for state in taken {
            batch.single_delete_cf(states, state.key.0.to_be_bytes());
            if state.due != Micros::MAX {
                batch.single_delete_cf(due, due_key(state));
            }
        }
        self.write(batch)
    }
}

impl Drop for RocksCold {
    fn drop(&mut self) {
        // Open handles do not need names. Whoever opens it next removes what this could not.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn refused(doing: &'static str, folder: &Path) -> impl Fn(rocksdb::Error) -> StoreError {
    move |error| StoreError::RocksDb { doing, path: folder.into(), detail: error.into_string() }
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_background_jobs(BACKGROUND_JOBS_MAX);
    options.set_keep_log_file_num(LOG_FILES_MAX);
    options.set_log_level(LogLevel::Warn);
    options
}

fn column_options(cache: &Cache, write_buffer_bytes: usize) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_block_size(BLOCK_BYTES);
    blocks.set_bloom_filter(FILTER_BITS, false);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(write_buffer_bytes);
    options
}

fn ordered(due: Micros) -> [u8; DUE_BYTES] {
    // With the sign flipped, bytes compare as numbers do.
    (due as u64 ^ (1 << 63)).to_be_bytes()
}

fn due_key(state: &ColdState) -> [u8; DUE_BYTES + KEY_BYTES] {
    let mut bytes = [0; DUE_BYTES + KEY_BYTES];
    bytes[..DUE_BYTES].copy_from_slice(&ordered(state.due));
    bytes[DUE_BYTES..].copy_from_slice(&state.key.0.to_be_bytes());
    bytes
}

fn state(key: [u8; KEY_BYTES], value: &[u8]) -> ColdState {
    let (due, bytes) = value.split_first_chunk().expect("a value begins with its due time");
    ColdState { key: KeyHash(u128::from_be_bytes(key)), due: Micros::from_le_bytes(*due), bytes: bytes.into() }
}

impl ColdStates for RocksCold {
    fn put(&mut self, states: Vec<ColdState>) -> Result<(), ColdError> {
        let mut batch = WriteBatch::default();
        let mut value = Vec::new();
        for state in &states {
            value.clear();
            value.extend(state.due.to_le_bytes());
            value.extend_from_slice(&state.bytes);
            batch.put_cf(self.column(STATES), state.key.0.to_be_bytes(), &value);
            if state.due != Micros::MAX {
                batch.put_cf(self.column(DUE), due_key(state), []);
            }
            if batch.size_in_bytes() >= BATCH_BYTES {
                self.write(std::mem::take(&mut batch))?;
            }
        }
        self.write(batch)?;
        self.len += states.len() as u64;
        self.earliest = states.iter().map(|state| state.due).fold(self.earliest, Micros::min);
        Ok(())
    }

    fn take(&mut self, keys: &[KeyHash]) -> Result<Vec<ColdState>, ColdError> {
        let mut taken = Vec::new();
        if self.len == 0 {
            return Ok(taken);
        }
        let mut sorted: Vec<[u8; KEY_BYTES]> = keys.iter().map(|key| key.0.to_be_bytes()).collect();
        sorted.sort_unstable();
        for keys in sorted.chunks(LOOKUP_KEYS_MAX) {
            let from = taken.len();
            self.look_up(keys, &mut taken)?;
            self.delete(&taken[from..])?;
        }
        self.len -= taken.len() as u64;
        Ok(taken)
    }

    fn due(&mut self, until: Micros, limit: usize) -> Result<Vec<KeyHash>, ColdError> {
        let mut keys = Vec::new();
        // What has no timer is never due.
        let until = until.min(Micros::MAX - 1);
        if self.earliest > until || limit == 0 {
            return Ok(keys);
        }
        let after = until + 1;
        let mut reading = ReadOptions::default();
        reading.set_iterate_upper_bound(ordered(after));
        let mut entries = self.db.raw_iterator_cf_opt(self.column(DUE), reading);
        entries.seek(ordered(self.earliest));
        let mut first = after;
        while let Some((due, key)) = entries.key().and_then(<[u8]>::split_first_chunk::<DUE_BYTES>)
            && keys.len() < limit
        {
            first = first.min((u64::from_be_bytes(*due) ^ (1 << 63)) as Micros);
            keys.push(KeyHash(u128::from_be_bytes(key.try_into().expect("a key follows its due time"))));
            entries.next();
        }
        entries.status().map_err(refused("read", &self.folder))?;
        self.earliest = first;
        Ok(keys)
    }

    fn scan(&mut self, after: Option<KeyHash>, limit: usize) -> Result<Vec<ColdState>, ColdError> {
        let mut states = Vec::new();
        let from = match after {
            None => 0,
            Some(KeyHash(u128::MAX)) => return Ok(states),
            Some(KeyHash(after)) => after + 1,
        };
        let mut entries = self.db.raw_iterator_cf(self.column(STATES));
        entries.seek(from.to_be_bytes());
        while states.len() < limit
            && let Some((key, value)) = entries.item()
        {
            states.push(state(key.try_into().expect("keys are 16 bytes long"), value));
            entries.next();
        }
        entries.status().map_err(refused("read", &self.folder))?;
        Ok(states)
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn bytes(&self) -> u64 {
        [STATES, DUE]
            .into_iter()
            .flat_map(|name| {
                let column = self.column(name);
                [properties::TOTAL_SST_FILES_SIZE, properties::CUR_SIZE_ALL_MEM_TABLES]
                    .map(|property| self.db.property_int_value_cf(column, property).ok().flatten().unwrap_or(0))
            })
            .sum()
    }
}
