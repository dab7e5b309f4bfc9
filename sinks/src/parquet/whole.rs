//! A few rows as one Parquet file, outside of any lake.

use std::path::Path;

use ::parquet::{arrow::ArrowWriter, errors::ParquetError};
use whisperer_schemas::{Row, TableSchema, rows_to_batch};

use super::{BATCH_ROWS_MAX, file::properties};
use crate::{
    durable::write_whole,
    error::{SinkError, parquet},
};

/// Writes rows of a table to a file, which appears whole, in place of one that is there.
///
/// # Errors
/// A row that does not fit the table, and what the file system answers.
pub fn write_rows(path: &Path, schema: &TableSchema, rows: &[Row]) -> Result<(), SinkError> {
    let failed = |error: ParquetError| parquet("write", path, schema.name)(error);
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.to_arrow(), Some(properties())).map_err(failed)?;
    for rows in rows.chunks(BATCH_ROWS_MAX) {
        let batch = rows_to_batch(schema, rows);
        let batch = batch.map_err(|source| SinkError::Rows { table: schema.name.into(), source })?;
        writer.write(&batch).map_err(failed)?;
    }
    write_whole(path, &writer.into_inner().map_err(failed)?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use whisperer_schemas::batch_to_rows;

    use super::*;
    use crate::conformance::{sample_row, sample_schema};

    /// Goal: what is written is read back, also if it is nothing, and takes the place of what was there.
    #[test]
    fn rows_are_read_back() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("rows.parquet");
        for count in [3_000, 0] {
            let rows: Vec<Row> = (0..count).map(sample_row).collect();
            write_rows(&path, &sample_schema(), &rows).expect("written");
            let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).expect("a file")).expect("Parquet");
            let batches = reader.build().expect("a reader").map(|batch| batch.expect("rows"));
            let read: Vec<Row> =
                batches.flat_map(|batch| batch_to_rows(&batch, &sample_schema()).expect("rows of the table")).collect();
            assert!(read == rows);
        }
    }
}
