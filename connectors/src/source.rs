//! What a source is: partitions of records at positions, read epoch by epoch, resumable from any position.
//!
//! ```text
//! Source ── open(worker, workers, positions) ──▶ Reader ── read(epoch) ──▶ RawRecord … , [Chunk]
//! ```
//! A [`Source`] is shared by all workers of a process; each worker opens its own [`Reader`]. For every epoch each reader
//! yields its share as *chunks*. The chunks of one partition in one epoch are consecutive ranges of that partition,
//! numbered from 0; together with the epoch they order the partition's records without comparing offsets. A partition
//! read by one worker has one chunk an epoch (chunk 0); a plain file read by `n` workers has `n`, chunk `i` read by worker `i`.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use whisperer_schemas::{Epoch, Micros, PartitionId, Position};

use crate::format::RegistryError;

/// The next offset to read of each partition; a partition that is not named starts at its beginning.
pub type Positions = BTreeMap<PartitionId, u64>;

/// How much a bounded source puts into one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochSize {
    /// About so many bytes of each partition, so that several workers can share one file.
    Bytes(u64),
    /// Exactly so many records of each partition; each partition is then read by one worker.
    Records(u64),
}

/// One record as it stands in the source.
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'a> {
    /// The partition and the offset in it.
    pub position: Position,
    /// The chunk that it belongs to.
    pub chunk: u32,
    /// When the source took it in, where the source itself knows (a log's record timestamp).
    pub ingest_time: Option<Micros>,
    /// Headers that the source keeps beside the content (those of a Kafka record); files have none.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// Its content.
    pub payload: Payload<'a>,
}

/// The content of a record.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// The record's bytes, written as the job's format says: one JSON text, or one framed message.
    Json(&'a [u8]),
    /// A row of a CSV file: the names of its header, and its cells. `raw` is the row as it came.
    Csv {
        /// Column names.
        header: &'a csv::ByteRecord,
        /// Cells.
        cells: &'a csv::ByteRecord,
        /// The row as it stands in the file.
        raw: &'a [u8],
    },
    /// A record longer than the limit: its first bytes, and how long it was.
    TooLarge {
        /// The first `event_bytes_max` bytes.
        head: &'a [u8],
        /// Its whole length in bytes.
        bytes: u64,
    },
}

impl Payload<'_> {
    /// Its length in bytes, as it stands in the source.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Payload::Json(bytes) | Payload::Csv { raw: bytes, .. } => bytes.len() as u64,
            Payload::TooLarge { bytes, .. } => *bytes,
        }
    }
}

/// What a reader covered of one partition in one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The partition.
    pub partition: PartitionId,
    /// The chunk, from 0.
    pub chunk: u32,
    /// Where the next chunk begins; what a checkpoint after this epoch would store.
    pub next_offset: u64,
    /// True where the partition has no more records, now or later.
    pub ended: bool,
    /// An advance of the partition's clock after the chunk's records, as if a record of that event time stood there: of a live partition
    /// that is idle. It is durable, with its position, before the chunk is handed out; a replay hands it out at the same place.
    pub advance_to: Option<Micros>,
}

/// A place that events come from, shared by the workers of a process.
pub trait Source: Send + Sync {
    /// How many partitions there are; they are numbered from 0. Of a live source there may be more later.
    fn partitions(&self) -> u32;

    /// How many partitions of history are read before them; they are numbered from [`PartitionId::HISTORY`].
    fn history(&self) -> u32 {
        0
    }

    /// Total bytes or records of a bounded source, for progress; none where it is not known.
    fn size(&self) -> Option<Size>;

    /// Whether records may come for ever. A live source never ends; its readers return at once with what is there.
    fn live(&self) -> bool {
        false
    }

    /// Where each partition ends, as far as a live source has learnt lately: what the lag of its readers is measured against.
    fn ends(&self) -> Positions {
        Positions::new()
    }

    /// A reader of worker `worker`'s share of `workers`, from `positions` on.
    ///
    /// # Errors
    /// Where an input cannot be opened or a position does not exist.
    fn open(&self, worker: usize, workers: usize, positions: &Positions) -> Result<Box<dyn Reader>, SourceError>;
}

/// How far the reader of a partition lags behind its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// Records that wait, about: offsets that hold none are among them.
    pub records: u64,
    /// How long the oldest of them has waited at most; none where nobody knows yet.
    pub waiting: Option<Duration>,
}

/// How large a bounded source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// In units of offsets that are bytes.
    Bytes(u64),
    /// In records.
    Records(u64),
}

/// One worker's view of a source.
pub trait Reader {
    /// Reads this worker's share of the next epoch: hands every record to `each`, chunk by chunk and in the order of offsets inside a
    /// chunk, and appends to `chunks` what was covered, also where a chunk holds no record. A partition that this worker does not
    /// read is not mentioned. Every partition ends exactly once: the epoch in which all of its chunks say `ended` is its last, and
    /// all chunks of one partition and epoch say the same.
    ///
    /// Returns false when this worker has nothing more to read, ever.
    ///
    /// # Errors
    /// Where the input cannot be read further.
    fn read(
        &mut self,
        epoch: Epoch,
        each: &mut dyn FnMut(RawRecord<'_>),
        chunks: &mut Vec<Chunk>,
    ) -> Result<bool, SourceError>;

    /// Says how far each of its partitions lags behind its end, as far as that is known without waiting for anybody. A bounded source
    /// has no lag.
    fn lags(&self, _each: &mut dyn FnMut(PartitionId, Lag)) {}

    /// Learns that a checkpoint with these positions is committed. Only outside observers care (a Kafka group's offsets): a restart goes
    /// by the checkpoint.
    fn committed(&mut self, _positions: &Positions) {}

    /// Where reading of its live partitions begins, settled when it was opened: a checkpoint before their first record keeps it. A bounded
    /// source begins where it was told to.
    fn positions(&self) -> Positions {
        Positions::new()
    }

    /// Whether everything that its partitions held when it was opened has been read: what an earlier run can have made of the source is
    /// made again by then. A bounded source never says so before its end.
    fn caught_up(&self) -> bool {
        false
    }
}

/// The global watermark as the workers of a process last computed it, for readers that have to begin a partition at it, or once history
/// has come to its end.
#[derive(Debug, Default)]
pub struct GlobalWatermark {
    last: Mutex<Option<(Epoch, Micros)>>,
    history_ended: AtomicBool,
}

impl GlobalWatermark {
    /// Says what the watermark is once all facts up to `epoch` are in. It never goes back.
    pub fn set(&self, epoch: Epoch, time: Micros) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (epoch_before, time_before) = last.unwrap_or((epoch, time));
        *last = Some((epoch.max(epoch_before), time.max(time_before)));
    }

    /// The last epoch whose facts are in, and the watermark; none before the first.
    #[must_use]
    pub fn get(&self) -> Option<(Epoch, Micros)> {
        // A pair of numbers is whole at any moment.
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that all partitions of history have ended, on all workers, and that what is read from now on comes after them.
    pub fn end_history(&self) {
        self.history_ended.store(true, Ordering::Release);
    }

    /// Whether it was said.
    #[must_use]
    pub fn history_ended(&self) -> bool {
        self.history_ended.load(Ordering::Acquire)
    }
}

/// Why a source cannot be opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A file cannot be opened or read.
    #[error("cannot read \"{path}\"")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A path or pattern names no file.
    #[error("\"{pattern}\" names no file")]
    NoFile {
        /// The path or pattern as given.
        pattern: String,
    },
    /// A pattern cannot be understood.
    #[error("\"{pattern}\" is not a pattern: {detail}")]
    Pattern {
        /// The pattern as given.
        pattern: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A position that the source does not have.
    #[error("partition {partition} has no offset {offset}: {detail}")]
    NoSuchOffset {
        /// The partition.
        partition: PartitionId,
        /// The offset asked for.
        offset: u64,
        /// Why.
        detail: String,
    },
    /// The brokers cannot be reached, or refuse the client.
    #[error("cannot read from the Kafka brokers \"{brokers}\": {detail}")]
    Brokers {
        /// The brokers as the settings name them.
        brokers: String,
        /// What they, or the client, said; and what to look at.
        detail: String,
    },
    /// The brokers answer, but the topic cannot be read.
    #[error("cannot read the topic \"{topic}\": {detail}")]
    Topic {
        /// The topic.
        topic: String,
        /// Why.
        detail: String,
    },
    /// A topic has more partitions than the state knows.
    #[error(
        "the topic \"{topic}\" has grown from {known} to {found} partitions, which moves keys from one partition to another: their events \
         could be applied out of order; if that is acceptable, set allow_repartition = true in [source]"
    )]
    Repartitioned {
        /// The topic.
        topic: String,
        /// Partitions before.
        known: u32,
        /// Partitions now.
        found: u32,
    },
    /// The tick log, which holds the advances of idle partitions, cannot be read or written.
    #[error("cannot use the tick log \"{path}\"")]
    Ticks {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The settings contradict one another.
    #[error("{0}")]
    Settings(String),
    /// The schema registry does not give what it was asked for.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}
