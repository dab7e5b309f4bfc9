//! A partition of plain NDJSON files, read by all workers together.
//!
//! ```text
//!         epoch e               epoch e + 1
//! ├── 0 ──┼── 1 ──┼── 2 ──┼── 0 ──┼── 1 ──┼── 2 ──┤      sub-ranges of three workers
//! └line─┴──line───┴line─┴─────line──────┴line┴ …
//! ```
//! A line is read by the worker in whose sub-range it begins. A line begins at the start of a file, and after a line feed, so
//! whether one begins at the first byte of a sub-range is seen from the byte before.

use std::{fs::File, ops::Range};

use whisperer_schemas::{PartitionId, Position};

use super::{
    Limits, io_error,
    listing::InputFile,
    window::{Line, Window},
};
use crate::source::{Chunk, RawRecord, SourceError};

/// Which part of every epoch a worker reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) worker: usize,
    pub(super) workers: usize,
    pub(super) epoch_bytes: u64,
}

#[derive(Debug)]
pub(super) struct Shared {
    partition: PartitionId,
    share: Share,
    limits: Limits,
    /// The files, and where each begins in the partition.
    files: Vec<(InputFile, u64)>,
    bytes: u64,
    /// Where the next epoch begins.
    next: u64,
    open: Option<Open>,
}

/// The file read last.
#[derive(Debug)]
struct Open {
    file: usize,
    window: Window<File>,
    /// The end of the sub-range read last, if the window then stood at the first line that begins there or later.
    read_to: Option<u64>,
}

impl Shared {
    pub(super) fn open(
        partition: PartitionId,
        files: &[InputFile],
        start: u64,
        share: Share,
        limits: Limits,
    ) -> Result<Shared, SourceError> {
        let mut bytes = 0;
        let mut placed = Vec::with_capacity(files.len());
        for file in files {
            placed.push((file.clone(), bytes));
            bytes += file.offsets().expect("only plain files are shared");
        }
        if start > bytes {
            let detail = format!("its files have {bytes} bytes");
            return Err(SourceError::NoSuchOffset { partition, offset: start, detail });
        }
        Ok(Shared { partition, share, limits, files: placed, bytes, next: start, open: None })
    }

    /// Reads this worker's part of the next epoch.
    pub(super) fn read(&mut self, each: &mut dyn FnMut(RawRecord<'_>)) -> Result<Chunk, SourceError> {
        let epoch = self.next..self.bytes.min(self.next.saturating_add(self.share.epoch_bytes));
        let part = self.share.of(&epoch);
        for file in 0..self.files.len() {
            self.read_file(file, &part, each)?;
        }
        self.next = epoch.end;
        Ok(Chunk {
            partition: self.partition,
            chunk: self.share.worker as u32,
            next_offset: part.end,
            ended: epoch.end == self.bytes,
            advance_to: None,
        })
    }

    /// Reads the lines of a file that begin in a range of the partition.
    fn read_file(
        &mut self,
        file: usize,
        part: &Range<u64>,
        each: &mut dyn FnMut(RawRecord<'_>),
    ) -> Result<(), SourceError> {
        let (input, base) = &self.files[file];
        let (base, bytes) = (*base, input.offsets().unwrap_or(0));
        let range = part.start.clamp(base, base + bytes) - base..part.end.clamp(base, base + bytes) - base;
        if range.is_empty() {
            return Ok(());
        }
        let mut open = match self.open.take() {
            Some(open) if open.file == file => open,
            _ => Open { file, window: input.open_plain(self.limits)?, read_to: None },
        };
        let (partition, chunk) = (self.partition, self.share.worker as u32);
        let result = open.read(&range, &mut |line| {
            let position = Position { partition, offset: base + line.offset };
            each(RawRecord { position, chunk, ingest_time: None, headers: &[], payload: line.payload });
        });
        result.map_err(|error| io_error(&input.path, error))?;
        self.open = Some(open);
        Ok(())
    }
}

impl Share {
    /// This worker's sub-range of an epoch.
    fn of(&self, epoch: &Range<u64>) -> Range<u64> {
        let cut = |part: usize| {
            let ahead = u128::from(epoch.end - epoch.start) * part as u128 / self.workers as u128;
            epoch.start + ahead as u64
        };
        cut(self.worker)..cut(self.worker + 1)
    }
}

impl Open {
    /// Hands over all lines that begin in `range` of the file.
    fn read(&mut self, range: &Range<u64>, each: &mut dyn FnMut(Line<'_>)) -> std::io::Result<()> {
        self.window.need(range.end);
        let found = self.read_to == Some(range.start) || self.find_line(range)?;
        while self.window.offset() < range.end {
            match self.window.next_line()? {
                Some(line) => each(line),
                None => break,
            }
        }
        self.read_to = found.then_some(range.end);
        Ok(())
    }

    /// Goes to the first line that begins in `range` or later; false where the search ended at the range's end.
    fn find_line(&mut self, range: &Range<u64>) -> std::io::Result<bool> {
        self.window.seek(range.start.saturating_sub(1))?;
        if range.start == 0 { Ok(true) } else { self.window.skip_line(range.end) }
    }
}
