//! `file`: NDJSON and CSV, plain, gzip or zstd, and Parquet; one file, a folder or a glob.
//!
//! Files are read in natural name order, as one partition or, with `partitioned`, as a partition each. Offsets count bytes of the
//! decompressed text over the partition's files; a Parquet file has an offset a row. A line ends at a line feed (a carriage return before it is cut off) or with its
//! file; a byte order mark at a file's start belongs to its first line and is cut off as well.
//!
//! How a partition is read:
//! * Plain NDJSON in epochs of bytes is read by all workers together ([`shared`]): an epoch is a range of bytes, each worker
//!   has a sub-range of it, and a line belongs to the sub-range in which it begins. All workers compute the same cuts.
//! * Everything else is read by one worker from front to back ([`sequential`]): compressed text has no way in but from its
//!   beginning, a CSV row may contain line feeds, and records can only be counted in order. A Parquet file is entered at any row group.
//!
//! A position is any byte at which an epoch was cut. It may lie inside a line that an earlier epoch has read, which is seen from the byte
//! before it: where that is no line feed, reading goes on after the next one. Positions in CSV files are beginnings of rows.

mod listing;
mod parquet;
mod rows;
mod sequential;
mod shared;
mod window;

use std::path::PathBuf;

use whisperer_schemas::{Epoch, PartitionId};

use self::{listing::InputFile, sequential::Sequential, shared::Shared};
use crate::source::{Chunk, EpochSize, Positions, RawRecord, Reader, Size, Source, SourceError};

/// Which files, and how they are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// A file, a folder (all its files with a known ending) or a glob; relative to `root`.
    pub path: String,
    /// The folder that `path` is relative to.
    pub root: PathBuf,
    /// True where no key is in two files: each file is then a partition of its own.
    pub partitioned: bool,
    /// How much is read in one epoch.
    pub epoch_size: EpochSize,
    /// Longest record, in bytes.
    pub event_bytes_max: u64,
}

/// Files on a disk, listed and measured once: what is appended later is not read.
#[derive(Debug)]
pub struct FileSource {
    epoch_size: EpochSize,
    event_bytes_max: u64,
    partitions: Vec<Vec<InputFile>>,
}

impl FileSource {
    /// Finds the files.
    ///
    /// # Errors
    /// Where the path names no file, a single file has an unknown ending, or an epoch has no size.
    pub fn new(options: FileOptions) -> Result<FileSource, SourceError> {
        if matches!(options.epoch_size, EpochSize::Bytes(0) | EpochSize::Records(0)) {
            return Err(SourceError::Settings(
                "an epoch of the file source must hold at least one byte or record".into(),
            ));
        }
        let files = listing::list(&options.root, &options.path)?;
        let partitions = match options.partitioned {
            true => files.into_iter().map(|file| vec![file]).collect(),
            false => vec![files],
        };
        Ok(FileSource { epoch_size: options.epoch_size, event_bytes_max: options.event_bytes_max, partitions })
    }

    /// Whether all workers read the partition together.
    fn is_shared(&self, files: &[InputFile]) -> Option<u64> {
        match self.epoch_size {
            EpochSize::Bytes(bytes) if files.iter().all(InputFile::is_plain_ndjson) => Some(bytes),
            EpochSize::Bytes(_) | EpochSize::Records(_) => None,
        }
    }

    fn limits(&self) -> Limits {
        // All partitions are read side by side; together their blocks should not outgrow a processor's caches by much.
        const ALL_BLOCKS_BYTES: usize = 64 << 20;
        let block_bytes = (ALL_BLOCKS_BYTES / self.partitions.len().max(1)).clamp(64 << 10, 1 << 20);
        Limits { event_bytes_max: self.event_bytes_max, block_bytes }
    }
}

/// Bounds of what a reader holds in memory.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Longest record that is held as a whole.
    event_bytes_max: u64,
    /// How much is read at once.
    block_bytes: usize,
}

impl Source for FileSource {
    fn partitions(&self) -> u32 {
        self.partitions.len() as u32
    }

    fn size(&self) -> Option<Size> {
        let all = || self.partitions.iter().flatten();
        let sum = all().map(InputFile::offsets).sum::<Option<u64>>();
        match all().filter(|file| file.is_parquet()).count() {
            0 => sum.map(Size::Bytes),
            // Bytes and rows do not add up.
            some => sum.filter(|_| some == all().count()).map(Size::Records),
        }
    }

    fn open(&self, worker: usize, workers: usize, positions: &Positions) -> Result<Box<dyn Reader>, SourceError> {
        if let Some((partition, offset)) = positions.range(PartitionId(self.partitions())..).next() {
            let detail = format!("there are {} partitions", self.partitions());
            return Err(SourceError::NoSuchOffset { partition: *partition, offset: *offset, detail });
        }
        let mut reader = FileReader { shared: Vec::new(), sequential: Vec::new() };
        for (index, files) in self.partitions.iter().enumerate() {
            let partition = PartitionId(index as u32);
            let start = positions.get(&partition).copied().unwrap_or(0);
            match self.is_shared(files) {
                Some(epoch_bytes) => {
                    let share = shared::Share { worker, workers, epoch_bytes };
                    reader.shared.push(Shared::open(partition, files, start, share, self.limits())?);
                }
                None if index % workers == worker => {
                    let files = files.clone();
                    reader.sequential.push(Sequential::open(partition, files, start, self.epoch_size, self.limits())?);
                }
                None => {}
            }
        }
        Ok(Box::new(reader))
    }
}

/// One worker's view of all partitions; those that have ended are dropped.
struct FileReader {
    shared: Vec<Shared>,
    sequential: Vec<Sequential>,
}

impl Reader for FileReader {
    fn read(
        &mut self,
        _epoch: Epoch,
        each: &mut dyn FnMut(RawRecord<'_>),
        chunks: &mut Vec<Chunk>,
    ) -> Result<bool, SourceError> {
        let first = chunks.len();
        for partition in &mut self.shared {
            chunks.push(partition.read(each)?);
        }
        for partition in &mut self.sequential {
            chunks.push(partition.read(each)?);
        }
        let mut ended = chunks[first..].iter().map(|chunk| chunk.ended);
        self.shared.retain(|_| ended.next() == Some(false));
        self.sequential.retain(|_| ended.next() == Some(false));
        Ok(!self.shared.is_empty() || !self.sequential.is_empty())
    }
}

fn io_error(path: &std::path::Path, source: std::io::Error) -> SourceError {
    SourceError::Io { path: path.to_owned(), source }
}
