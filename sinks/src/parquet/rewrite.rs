//! Files without some of their rows: what an erasure leaves of a table.
//!
//! The columns are those of the file, whatever the job has become since, so a row hashes as it did when it was written.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use ::parquet::{
    arrow::{
        ArrowWriter,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
        },
        arrow_writer::ArrowWriterOptions,
    },
    file::metadata::KeyValue,
};
use arrow::{array::BooleanArray, array::RecordBatch, compute::filter_record_batch};
use whisperer_schemas::{Row, TableSchema, batch_to_rows};

use super::{file::properties, schema::read_schema};
use crate::{
    durable::{HashedFile, folder_of, remove, sync_folder},
    error::{SinkError, io, parquet},
};

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 8_192;

/// The key under which the library keeps the columns, and writes them itself.
const ARROW_SCHEMA: &str = "ARROW:schema";

/// A rewritten file, under its staged name.
pub(crate) struct Rewritten {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) xxh3: String,
}

/// A file that is read as a whole.
struct Whole {
    path: PathBuf,
    schema: TableSchema,
    metadata: ArrowReaderMetadata,
    reader: ParquetRecordBatchReader,
}

impl Whole {
    fn open(path: &Path) -> Result<Whole, SinkError> {
        let schema = read_schema(path)?;
        let failed = |error| parquet("read", path, schema.name)(error);
        let file = File::open(path).map_err(io("open", path))?;
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(failed)?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone());
        let reader = builder.with_batch_size(BATCH_ROWS).build().map_err(failed)?;
        Ok(Whole { path: path.into(), schema, metadata, reader })
    }

    /// The next batch, and its rows.
    fn next(&mut self) -> Result<Option<(RecordBatch, Vec<Row>)>, SinkError> {
        let Some(batch) = self.reader.next() else { return Ok(None) };
        let table = self.schema.name;
        let batch = batch.map_err(|error| parquet("read", &self.path, table)(error.into()))?;
        let rows = batch_to_rows(&batch, &self.schema);
        Ok(Some((batch, rows.map_err(|source| SinkError::Rows { table: table.into(), source })?)))
    }

    /// What the file says of itself.
    fn facts(&self) -> Vec<KeyValue> {
        let facts = self.metadata.metadata().file_metadata().key_value_metadata();
        facts.into_iter().flatten().filter(|fact| fact.key != ARROW_SCHEMA).cloned().collect()
    }
}

/// Hands every row of a file to `each`.
pub(crate) fn each_row(path: &Path, each: &mut dyn FnMut(&TableSchema, &Row)) -> Result<(), SinkError> {
    let mut whole = Whole::open(path)?;
    while let Some((_, rows)) = whole.next()? {
        rows.iter().for_each(|row| each(&whole.schema, row));
    }
    Ok(())
}

/// Writes a file without the rows that go; none where no row stays.
pub(crate) fn rewrite(
    path: &Path,
    staged: &Path,
    goes: &dyn Fn(&TableSchema, &Row) -> bool,
) -> Result<Option<Rewritten>, SinkError> {
    let mut whole = Whole::open(path)?;
    let table = whole.schema.name;
    // What a start before this one has left of it.
    remove(staged)?;
    let options = ArrowWriterOptions::new().with_properties(properties());
    let file = HashedFile::create(staged.into())?;
    let failed = |error| parquet("write", staged, table)(error);
    let mut writer =
        ArrowWriter::try_new_with_options(file, whole.metadata.schema().clone(), options).map_err(failed)?;
    let mut kept = 0;
    while let Some((batch, rows)) = whole.next()? {
        let stays: BooleanArray = rows.iter().map(|row| Some(!goes(&whole.schema, row))).collect();
        let batch = filter_record_batch(&batch, &stays).map_err(|error| failed(error.into()))?;
        kept += batch.num_rows() as u64;
        writer.write(&batch).map_err(failed)?;
    }
    whole.facts().into_iter().for_each(|fact| writer.append_key_value_metadata(fact));
    let mut file = writer.into_inner().map_err(failed)?;
    let (bytes, xxh3) = file.sync()?;
    if kept == 0 {
        drop(file);
        remove(staged)?;
        return Ok(None);
    }
    sync_folder(folder_of(staged))?;
    Ok(Some(Rewritten { rows: kept, bytes, xxh3 }))
}
