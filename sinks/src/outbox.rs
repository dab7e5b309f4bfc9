//! Rows of a table as bytes: those of checkpoints whose Parquet files are not closed yet wait in the checkpoint.
//!
//! A live job closes its files only now and then, or there would be millions. The rows of the checkpoints in between are kept with the
//! checkpoint, and written again by whoever goes on from it.
//!
//! ```text
//! "WROW", the version (one byte), a Parquet file in which columns are found by name
//! ```
//! What a row came from is read back from its columns (`_position`, `_epoch`). A job that was changed meanwhile reads what it knows:
//! columns that are gone are left out, new ones are null, new truth values false.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use ::parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::{EnabledStatistics, WriterProperties},
};
use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch},
    datatypes::{Field, Schema},
};
use bytes::Bytes;
use whisperer_schemas::{ColumnType, Row, TableSchema, batch_to_rows, rows_to_batch};

use crate::error::{SinkError, parquet};

const MAGIC: &[u8] = b"WROW";

/// The version of the layout that this release writes.
pub const OUTBOX_VERSION: u8 = 1;

/// Rows that are laid out at a time.
const BATCH_ROWS: usize = 8_192;

/// What errors call the place of the rows.
const PLACE: &str = "<outbox>";

/// Encodes rows of a table; no bytes for no rows.
///
/// # Errors
/// A row that does not fit the table.
pub fn rows_to_bytes(schema: &TableSchema, rows: &[Row]) -> Result<Vec<u8>, SinkError> {
    let mut writer = RowsWriter::new(schema.name);
    for rows in rows.chunks(BATCH_ROWS) {
        let batch = rows_to_batch(schema, rows);
        writer.write(&batch.map_err(|source| SinkError::Rows { table: schema.name.into(), source })?)?;
    }
    writer.finish()
}

/// Encodes rows that come batch by batch.
pub(crate) struct RowsWriter {
    table: &'static str,
    /// None before the first row.
    writer: Option<ArrowWriter<Vec<u8>>>,
}

impl RowsWriter {
    /// A writer of a table's rows that has none yet.
    pub(crate) fn new(table: &'static str) -> RowsWriter {
        RowsWriter { table, writer: None }
    }

    /// Adds rows. All batches have the same columns.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), SinkError> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let writer = ArrowWriter::try_new(begin(), batch.schema(), Some(properties()));
                none.insert(writer.map_err(failed(self.table))?)
            }
        };
        writer.write(batch).map_err(failed(self.table))
    }

    /// Roughly the memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.writer.as_ref().map_or(0, |writer| writer.bytes_written() + writer.memory_size())
    }

    /// What is encoded; no bytes for no rows.
    pub(crate) fn finish(self) -> Result<Vec<u8>, SinkError> {
        self.writer.map_or(Ok(Vec::new()), |writer| writer.into_inner().map_err(failed(self.table)))
    }
}

/// What stands before the Parquet file, whose offsets count from its own beginning.
fn begin() -> Vec<u8> {
    [MAGIC, &[OUTBOX_VERSION]].concat()
}

fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::None)
        .build()
}

fn failed(table: &'static str) -> impl FnOnce(ParquetError) -> SinkError {
    parquet("write", Path::new(PLACE), table)
}

/// The rows that [`rows_to_bytes`] encoded, now or in an earlier version of the job.
///
/// # Errors
/// Bytes that it did not make, or that a newer release made.
pub fn bytes_to_rows(schema: &TableSchema, bytes: &[u8]) -> Result<Vec<Row>, SinkError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let body = body(bytes)?;
    let failed = |error: ParquetError| parquet("read", Path::new(PLACE), schema.name)(error);
    let body = Bytes::copy_from_slice(body);
    let reader = ParquetRecordBatchReaderBuilder::try_new(body).map_err(failed)?;
    let reader = reader.with_batch_size(BATCH_ROWS).build().map_err(failed)?;
    let mut rows = Vec::new();
    for batch in reader {
        let batch = fit(batch.map_err(|error| failed(error.into()))?, schema).map_err(|error| failed(error.into()))?;
        let read = batch_to_rows(&batch, schema);
        rows.extend(read.map_err(|source| SinkError::Rows { table: schema.name.into(), source })?);
    }
    Ok(rows)
}

fn body(bytes: &[u8]) -> Result<&[u8], SinkError> {
    let rest = bytes.strip_prefix(MAGIC).and_then(<[u8]>::split_first);
    let Some((version, body)) = rest else {
        return Err(SinkError::Schema { path: PLACE.into(), detail: "it does not begin as rows do".into() });
    };
    if *version > OUTBOX_VERSION {
        let (found, known) = (u64::from(*version), u64::from(OUTBOX_VERSION));
        return Err(SinkError::Version { path: PLACE.into(), found, known });
    }
    Ok(body)
}

/// The batch as the table has it today: without columns that became another type, and with the truth values that came to it.
fn fit(batch: RecordBatch, schema: &TableSchema) -> Result<RecordBatch, arrow::error::ArrowError> {
    let mut fields: Vec<Arc<Field>> = Vec::new();
    let mut arrays: Vec<ArrayRef> = Vec::new();
    let mut changed = BTreeSet::new();
    for column in &schema.columns {
        let array = batch.column_by_name(&column.name);
        let fits = array.filter(|array| array.data_type().equals_datatype(&column.kind.to_arrow()));
        match fits {
            Some(fits) => arrays.push(fits.clone()),
            None if !column.nullable && column.kind == ColumnType::Bool => {
                arrays.push(Arc::new(BooleanArray::from(vec![false; batch.num_rows()])));
            }
            None => {
                changed.extend(array.map(|_| column.name.as_str()));
                continue;
            }
        }
        fields.push(Arc::new(Field::new(&column.name, column.kind.to_arrow(), true)));
    }
    if !changed.is_empty() {
        tracing::warn!(table = schema.name, columns = ?changed, "values of another type, from before the job was changed, are left out");
    }
    let rows = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &rows)
}

#[cfg(test)]
mod tests {
    use whisperer_schemas::{Column, Value};

    use super::*;
    use crate::{
        conformance::{sample_row, sample_schema},
        error::Fault,
    };

    /// Goal: rows come back equal, in order, over several batches; none are no bytes.
    #[test]
    fn rows_come_back() {
        let rows: Vec<Row> = (0..20_000).map(sample_row).collect();
        let bytes = rows_to_bytes(&sample_schema(), &rows).expect("rows of the table");
        assert!(bytes_to_rows(&sample_schema(), &bytes).expect("our bytes") == rows);
        assert_eq!(rows_to_bytes(&sample_schema(), &[]).expect("no rows"), Vec::<u8>::new());
        assert_eq!(bytes_to_rows(&sample_schema(), &[]).expect("no rows"), []);
    }

    /// Goal: a job that was changed reads what it still knows of its rows.
    #[test]
    fn changed_job_reads_its_rows() {
        let bytes = rows_to_bytes(&sample_schema(), &[sample_row(1)]).expect("rows of the table");
        let schema = TableSchema::decisions(vec![
            Column::optional("churn_risk", ColumnType::Text, "", "Was a number"),
            Column::optional("clicks", ColumnType::Number, "1", "Is new"),
            Column::required("clicks_capped", ColumnType::Bool, "", "Is new"),
        ]);
        let rows = bytes_to_rows(&schema, &bytes).expect("readable");
        let old = sample_row(1);
        assert_eq!(rows[0].values[..10], old.values[..10]);
        assert_eq!(rows[0].values[10..13], [Value::Null, Value::Null, Value::Bool(false)]);
        assert_eq!((rows[0].epoch, rows[0].position), (old.epoch, old.position));
    }

    /// Goal: foreign, torn and newer bytes are told apart from ours.
    #[test]
    fn other_bytes_are_refused() {
        let bytes = rows_to_bytes(&sample_schema(), &[sample_row(1)]).expect("rows of the table");
        let error = |bytes: &[u8]| bytes_to_rows(&sample_schema(), bytes).expect_err("not ours");
        assert!(matches!(error(b"PAR1"), SinkError::Schema { .. }));
        assert_eq!(error(&bytes[..bytes.len() / 2]).fault(), Fault::External);
        let mut newer = bytes.clone();
        newer[4] = 9;
        assert!(matches!(error(&newer), SinkError::Version { found: 9, known: 1, .. }));
    }
}
