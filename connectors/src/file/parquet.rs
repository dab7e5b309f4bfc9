//! Parquet files: each row is a record, as if it were the JSON object of its columns.
//!
//! Structs and maps are objects, lists are arrays, a null is absent; a timestamp is RFC 3339 in UTC, one without a zone is taken for UTC, a
//! date is `2026-01-05`, bytes are hexadecimal. Columns are decoded and written in batches that fit into a block, whatever the length of
//! rows; row groups before the place where reading begins are not read.

use std::{fs::File, io, path::Path, sync::Arc};

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use arrow_json::{WriterBuilder, writer::LineDelimited};
use memchr::memchr;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};

use super::{Limits, window::Line};
use crate::source::Payload;

/// Rows that are decoded at once, at most: more of them make nothing faster.
const BATCH_ROWS_MAX: u64 = 4_096;

/// What every timestamp is read as: there is no other zone whose name every build knows.
const UTC: &str = "+00:00";

/// The rows of a file, from some place on.
pub(super) struct ParquetRows {
    batches: ParquetRecordBatchReader,
    /// Rows of the file that are being handed over, as lines of JSON, and where the next one begins.
    text: Vec<u8>,
    at: usize,
    /// The number of the next row, and of rows in the file.
    next: u64,
    rows: u64,
    bytes_max: u64,
}

/// How many rows a file has.
pub(super) fn count_rows(path: &Path) -> io::Result<u64> {
    Ok(rows_of(&metadata_of(&File::open(path)?)?))
}

impl ParquetRows {
    /// The rows of a file, which has `rows` of them, from row `from` on.
    pub(super) fn open(path: &Path, rows: u64, from: u64, limits: Limits) -> io::Result<ParquetRows> {
        let file = File::open(path)?;
        let metadata = metadata_of(&file)?;
        if rows_of(&metadata) != rows {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file has changed since it was found"));
        }
        let options = ArrowReaderOptions::new().with_schema(Arc::new(in_utc(metadata.schema())));
        let metadata = ArrowReaderMetadata::try_new(metadata.metadata().clone(), options).map_err(unreadable)?;
        let (groups, skipped) = groups_from(&metadata, from);
        let batch_rows = batch_rows(&metadata, limits.block_bytes);
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
            .with_row_groups(groups)
            .with_offset(skipped as usize)
            .with_batch_size(batch_rows);
        let batches = builder.build().map_err(unreadable)?;
        let bytes_max = limits.event_bytes_max;
        Ok(ParquetRows { batches, text: Vec::new(), at: 0, next: from.min(rows), rows, bytes_max })
    }

    /// The number of the next row.
    pub(super) fn offset(&self) -> u64 {
        self.next
    }

    /// Whether there is none.
    pub(super) fn is_at_end(&self) -> bool {
        self.next >= self.rows
    }

    /// The next row, or none at the end.
    pub(super) fn next_row(&mut self) -> io::Result<Option<Line<'_>>> {
        while self.at == self.text.len() {
            if self.is_at_end() {
                return Ok(None);
            }
            self.decode()?;
        }
        let rest = &self.text[self.at..];
        // A line feed in a text is escaped.
        let bytes = memchr(b'\n', rest).unwrap_or(rest.len());
        let (offset, row) = (self.next, &rest[..bytes]);
        self.at = (self.at + bytes + 1).min(self.text.len());
        self.next += 1;
        let payload = match bytes as u64 > self.bytes_max {
            true => Payload::TooLarge { head: &row[..self.bytes_max as usize], bytes: bytes as u64 },
            false => Payload::Json(row),
        };
        Ok(Some(Line { offset, payload }))
    }

    /// Decodes the next batch and writes it as JSON.
    fn decode(&mut self) -> io::Result<()> {
        (self.text, self.at) = (std::mem::take(&mut self.text), 0);
        self.text.clear();
        let Some(batch) = self.batches.next() else {
            return Err(unreadable(format!("it ends after row {} of {}", self.next, self.rows)));
        };
        let mut writer = WriterBuilder::new().build::<_, LineDelimited>(&mut self.text);
        let written = batch.and_then(|batch| writer.write(&batch)).and_then(|()| writer.finish());
        written.map_err(|error| unreadable(format!("from row {} on: {error}", self.next)))
    }
}

fn unreadable(error: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it is damaged, or no Parquet file: {}", error.to_string()))
}

/// What the end of a file says of it, as far as it can be believed: the library takes negative numbers and places outside of the file as they
/// come, and ends the process.
fn metadata_of(file: &File) -> io::Result<ArrowReaderMetadata> {
    let bytes = file.metadata()?.len();
    let metadata = ArrowReaderMetadata::load(file, ArrowReaderOptions::new()).map_err(unreadable)?;
    for group in metadata.metadata().row_groups() {
        if group.num_rows() < 0 || group.total_byte_size() < 0 {
            return Err(unreadable("a row group has a negative length"));
        }
        for column in group.columns() {
            let data = column.data_page_offset();
            let start = column.dictionary_page_offset().map_or(data, |dictionary| dictionary.min(data));
            let end = start.checked_add(column.compressed_size()).and_then(|end| u64::try_from(end).ok());
            let inside = start >= 0 && column.compressed_size() >= 0 && end.is_some_and(|end| end <= bytes);
            if !inside || data < 0 || column.num_values() < 0 {
                return Err(unreadable(format!("column {} lies outside of the file", column.column_path())));
            }
        }
    }
    Ok(metadata)
}

fn rows_of(metadata: &ArrowReaderMetadata) -> u64 {
    metadata.metadata().row_groups().iter().map(|group| group.num_rows().unsigned_abs()).sum()
}

/// The row groups from the one that holds row `from` on, and how many rows of that come before it.
fn groups_from(metadata: &ArrowReaderMetadata, from: u64) -> (Vec<usize>, u64) {
    let mut left = from;
    let groups = metadata.metadata().row_groups();
    let before = groups.iter().take_while(|group| {
        let rows = group.num_rows().unsigned_abs();
        let passed = rows <= left;
        left -= if passed { rows } else { 0 };
        passed
    });
    let before = before.count();
    ((before..groups.len()).collect(), left)
}

/// As many rows as fill a block, going by what they take decoded.
fn batch_rows(metadata: &ArrowReaderMetadata, block_bytes: usize) -> usize {
    let groups = metadata.metadata().row_groups();
    let row_bytes = groups.iter().filter(|group| group.num_rows() > 0).map(|group| {
        let bytes = group.total_byte_size().unsigned_abs();
        bytes / group.num_rows().unsigned_abs()
    });
    let row_bytes = row_bytes.max().unwrap_or(0).max(1);
    (block_bytes as u64 / row_bytes).clamp(1, BATCH_ROWS_MAX) as usize
}

/// The schema with every timestamp in UTC.
fn in_utc(schema: &Schema) -> Schema {
    Schema::new_with_metadata(fields_in_utc(schema.fields()), schema.metadata().clone())
}

fn fields_in_utc(fields: &Fields) -> Fields {
    fields.iter().map(field_in_utc).collect()
}

fn field_in_utc(field: &FieldRef) -> FieldRef {
    Arc::new(Field::clone(field).with_data_type(type_in_utc(field.data_type())))
}

fn type_in_utc(kind: &DataType) -> DataType {
    match kind {
        DataType::Timestamp(unit, _) => DataType::Timestamp(*unit, Some(UTC.into())),
        DataType::List(item) => DataType::List(field_in_utc(item)),
        DataType::LargeList(item) => DataType::LargeList(field_in_utc(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(field_in_utc(item), *length),
        DataType::Map(entries, sorted) => DataType::Map(field_in_utc(entries), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields_in_utc(fields)),
        other => other.clone(),
    }
}
