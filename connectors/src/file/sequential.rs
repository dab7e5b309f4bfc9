//! A partition read by one worker, from front to back.

use std::io::{self, Read};

use whisperer_schemas::{PartitionId, Position};

use super::{
    Limits, io_error,
    listing::{InputFile, Shape},
    parquet::ParquetRows,
    rows::Rows,
    window::{Line, Window},
};
use crate::source::{Chunk, EpochSize, RawRecord, SourceError};

pub(super) struct Sequential {
    partition: PartitionId,
    limits: Limits,
    epoch_size: EpochSize,
    files: Vec<InputFile>,
    /// The next file to open, and where it, or the open one, begins in the partition.
    next_file: usize,
    base: u64,
    open: Option<Open>,
    /// With epochs of bytes, where the next one ends: an offset, and the bytes of Parquet rows beyond one each.
    epoch_end: u64,
    row_bytes: u64,
}

/// A file being read.
enum Open {
    Text {
        window: Window<Box<dyn Read>>,
        /// Only CSV has rows.
        rows: Option<Box<Rows>>,
    },
    Parquet(ParquetRows),
}

impl Sequential {
    pub(super) fn open(
        partition: PartitionId,
        files: Vec<InputFile>,
        start: u64,
        epoch_size: EpochSize,
        limits: Limits,
    ) -> Result<Sequential, SourceError> {
        let (epoch_end, row_bytes) = (start, 0);
        let mut sequential = Sequential {
            partition,
            limits,
            epoch_size,
            files,
            next_file: 0,
            base: 0,
            open: None,
            epoch_end,
            row_bytes,
        };
        sequential.go_to(start)?;
        Ok(sequential)
    }

    /// Reads the next epoch.
    pub(super) fn read(&mut self, each: &mut dyn FnMut(RawRecord<'_>)) -> Result<Chunk, SourceError> {
        let ended = match self.epoch_size {
            EpochSize::Records(records) => self.read_records(records, each)?,
            EpochSize::Bytes(bytes) => self.read_bytes(bytes, each)?,
        };
        Ok(Chunk { partition: self.partition, chunk: 0, next_offset: self.offset(), ended, advance_to: None })
    }

    fn read_records(&mut self, records: u64, each: &mut dyn FnMut(RawRecord<'_>)) -> Result<bool, SourceError> {
        for _ in 0..records {
            if !self.next(each)? {
                return Ok(true);
            }
        }
        self.is_at_end()
    }

    /// The records that begin before the epoch's end.
    fn read_bytes(&mut self, bytes: u64, each: &mut dyn FnMut(RawRecord<'_>)) -> Result<bool, SourceError> {
        self.epoch_end = self.epoch_end.saturating_add(bytes);
        while self.offset() + self.row_bytes < self.epoch_end {
            if !self.next(each)? {
                return Ok(true);
            }
        }
        self.is_at_end()
    }

    /// Where the next record begins.
    fn offset(&self) -> u64 {
        self.base + self.open.as_ref().map_or(0, Open::offset)
    }

    /// Hands the next record over; false at the end of the partition.
    fn next(&mut self, each: &mut dyn FnMut(RawRecord<'_>)) -> Result<bool, SourceError> {
        while !self.is_at_end()? {
            let Some(open) = &mut self.open else { break };
            let (partition, base) = (self.partition, self.base);
            let line = open.next().map_err(|error| io_error(&self.files[self.next_file - 1].path, error))?;
            if let Some((line, is_row)) = line {
                if is_row {
                    self.row_bytes += line.payload.bytes();
                }
                let position = Position { partition, offset: base + line.offset };
                each(RawRecord { position, chunk: 0, ingest_time: None, headers: &[], payload: line.payload });
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// True at the end of the last file; at the end of another one, goes to the beginning of the next that has any text.
    fn is_at_end(&mut self) -> Result<bool, SourceError> {
        loop {
            if let Some(open) = &mut self.open {
                let path = &self.files[self.next_file - 1].path;
                if !open.is_at_end().map_err(|error| io_error(path, error))? {
                    return Ok(false);
                }
                self.base += open.offset();
                self.open = None;
            }
            if self.next_file == self.files.len() {
                return Ok(true);
            }
            self.open_next(0)?;
        }
    }

    /// Goes to the first record that begins at `start` of the partition or later.
    fn go_to(&mut self, start: u64) -> Result<(), SourceError> {
        while self.next_file < self.files.len() {
            let local = start - self.base;
            match self.files[self.next_file].offsets() {
                // Nothing of this file is left, and how long it is, is known.
                Some(offsets) if local >= offsets => {
                    self.base += offsets;
                    self.next_file += 1;
                }
                _ if self.open_next(local)? => return Ok(()),
                // It was shorter than that.
                _ => self.base += self.open.take().map_or(0, |open| open.offset()),
            }
        }
        if self.base == start {
            return Ok(());
        }
        let unit = if self.files.iter().all(InputFile::is_parquet) { "rows" } else { "bytes" };
        let detail = format!("its files have {} {unit}", self.base);
        Err(SourceError::NoSuchOffset { partition: self.partition, offset: start, detail })
    }

    /// Opens the next file at the first record that begins at `local` or later; false where the file is shorter.
    fn open_next(&mut self, local: u64) -> Result<bool, SourceError> {
        let file = &self.files[self.next_file];
        self.next_file += 1;
        if file.is_parquet() {
            self.open = Some(Open::Parquet(file.open_rows(local, self.limits)?));
            return Ok(true);
        }
        let (mut window, mut rows) = (file.open_text(0, self.limits)?, None);
        let done = (|| {
            if file.shape == Shape::Csv {
                rows = Some(Box::new(Rows::new(&mut window)?));
            }
            Ok(window.offset() >= local)
        })();
        let mut reached = done.map_err(|error| io_error(&file.path, error))?;
        if !reached {
            (window, reached) = resume(file, local, self.limits)?;
        }
        self.open = Some(Open::Text { window, rows });
        Ok(reached)
    }
}

/// The text of a file from the first record that begins at `local` (not 0) or later, and whether the text is that long.
fn resume(file: &InputFile, local: u64, limits: Limits) -> Result<(Window<Box<dyn Read>>, bool), SourceError> {
    let mut window = file.open_text(local - 1, limits)?;
    let mut skip = || {
        if window.offset() < local - 1 || window.is_at_end()? {
            return Ok(false);
        }
        match file.shape {
            Shape::Ndjson => drop(window.skip_line(u64::MAX)?),
            Shape::Csv | Shape::Parquet => window.consume(1),
        }
        Ok(true)
    };
    let reached = skip().map_err(|error| io_error(&file.path, error))?;
    Ok((window, reached))
}

impl Open {
    /// The next record, and whether it is a row that has one offset.
    fn next(&mut self) -> io::Result<Option<(Line<'_>, bool)>> {
        Ok(match self {
            Open::Text { window, rows: Some(rows) } => rows.next_row(window)?.map(|line| (line, false)),
            Open::Text { window, rows: None } => window.next_line()?.map(|line| (line, false)),
            Open::Parquet(rows) => rows.next_row()?.map(|line| (line, true)),
        })
    }

    /// Where the next record begins in the file.
    fn offset(&self) -> u64 {
        match self {
            Open::Text { window, .. } => window.offset(),
            Open::Parquet(rows) => rows.offset(),
        }
    }

    fn is_at_end(&mut self) -> io::Result<bool> {
        match self {
            Open::Text { window, .. } => window.is_at_end(),
            Open::Parquet(rows) => Ok(rows.is_at_end()),
        }
    }
}
