//! One Parquet file in the making, under its staged name.

use std::path::PathBuf;

use ::parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, ZstdLevel},
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties},
    },
};
use arrow::array::RecordBatch;
use whisperer_schemas::TableSchema;

use super::{FILE_BYTES_MAX, FILE_ROWS_MAX, ROW_GROUP_ROWS_MAX};
use crate::{
    durable::{HashedFile, folder_of, sync_folder},
    error::{SinkError, parquet},
    sink::StagedFile,
};

/// Bytes of a column's dictionary, at most. Numbers and ids that hardly repeat fall back to plain pages early, which
/// keeps the memory of 50 columns in bounds.
const DICTIONARY_BYTES_MAX: usize = 256 << 10;

/// Where a file is written, and where it belongs: its name there says for which checkpoint it was written, which is known at its end.
pub(super) struct Place {
    pub(super) staged: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) number: u64,
}

/// What a file is finished with.
pub(super) struct Finish<'a> {
    pub(super) metadata: &'a [(&'static str, String)],
    pub(super) checkpoint: u64,
    /// Gives a file's name by its number.
    pub(super) name: &'a dyn Fn(u64) -> String,
}

/// A file that rows are being added to.
pub(super) struct OpenFile {
    writer: ArrowWriter<HashedFile>,
    place: Place,
    table: &'static str,
    rows: u64,
    encoding_bytes: usize,
}

impl OpenFile {
    pub(super) fn create(schema: &TableSchema, place: Place) -> Result<OpenFile, SinkError> {
        let file = HashedFile::create(place.staged.clone())?;
        let options = ArrowWriterOptions::new().with_properties(properties());
        let writer = ArrowWriter::try_new_with_options(file, schema.to_arrow(), options).map_err(parquet(
            "write",
            &place.staged,
            schema.name,
        ))?;
        Ok(OpenFile { writer, place, table: schema.name, rows: 0, encoding_bytes: 0 })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        self.writer.write(batch).map_err(parquet("write", &self.place.staged, self.table))?;
        self.rows += batch.num_rows() as u64;
        self.encoding_bytes = self.writer.memory_size();
        Ok(())
    }

    /// Writes out the row group that is in the making.
    pub(super) fn flush(&mut self) -> Result<(), SinkError> {
        self.writer.flush().map_err(parquet("write", &self.place.staged, self.table))?;
        self.encoding_bytes = 0;
        Ok(())
    }

    /// Gives the file handle back until it is needed again.
    pub(super) fn park(&mut self) -> Result<(), SinkError> {
        self.writer.inner_mut().park()
    }

    pub(super) fn is_open(&self) -> bool {
        self.writer.inner().is_open()
    }

    /// Whether so many rows more fit.
    pub(super) fn has_room(&self, rows: usize) -> bool {
        let bytes = self.writer.bytes_written() + self.writer.in_progress_size();
        self.rows + rows as u64 <= FILE_ROWS_MAX && (bytes as u64) < FILE_BYTES_MAX
    }

    /// Memory that the row group in the making takes.
    pub(super) fn encoding_bytes(&self) -> usize {
        self.encoding_bytes
    }

    /// Ends the file, and makes it and its name durable.
    pub(super) fn finish(mut self, finish: &Finish<'_>) -> Result<StagedFile, SinkError> {
        for (key, value) in finish.metadata {
            self.writer.append_key_value_metadata(KeyValue::new((*key).to_owned(), value.clone()));
        }
        let mut file = self.writer.into_inner().map_err(parquet("write", &self.place.staged, self.table))?;
        let (bytes, xxh3) = file.sync()?;
        sync_folder(folder_of(&self.place.staged))?;
        let Place { staged, folder, number } = self.place;
        let (place, checkpoint) = (folder.join((finish.name)(number)), finish.checkpoint);
        let (table, rows) = (self.table.into(), self.rows);
        Ok(StagedFile { staged, place, replaces: false, table, rows, bytes, xxh3, checkpoint })
    }
}

/// How every file for readers is written.
pub(super) fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_created_by(concat!("whisperer ", env!("CARGO_PKG_VERSION")).into())
        // The library's default level, the fastest: the engine shares its cores with the sinks.
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_page_size_limit(DICTIONARY_BYTES_MAX)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        // Rows come in no order that would make statistics per page worth their bytes.
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .build()
}
