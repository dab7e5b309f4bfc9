//! The same events in columns: lines of JSON as a Parquet file.

use std::{fs::File, io::Cursor, path::Path, sync::Arc};

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow_json::{ReaderBuilder, reader::infer_json_schema};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};

/// Rows of a row group: so few that a file has several.
const GROUP_ROWS: usize = 1_000;

/// Writes lines as rows, each member a column; the event time is a timestamp and no text.
pub fn write(path: &Path, lines: &[u8]) {
    let (inferred, _) = infer_json_schema(Cursor::new(lines), None).expect("lines of JSON");
    let column = |field: &Arc<Field>| match field.name().as_str() {
        "timestamp" => Field::new("timestamp", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        _ => Field::clone(field),
    };
    let schema = Arc::new(Schema::new(inferred.fields().iter().map(column).collect::<Vec<_>>()));
    let batches = ReaderBuilder::new(schema.clone()).build(Cursor::new(lines)).expect("a reader");
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let mut writer =
        ArrowWriter::try_new(File::create(path).expect("a file"), schema, Some(properties)).expect("begun");
    batches.for_each(|batch| writer.write(&batch.expect("rows")).expect("written"));
    writer.close().expect("ended");
}
