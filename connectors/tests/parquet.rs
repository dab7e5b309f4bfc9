//! Parquet files as a source: rows are records, positions are row numbers, and what is damaged is said.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs::{self, File},
    io::Cursor,
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{
        ArrayRef, BinaryArray, Date32Array, Float64Array, Int64Array, MapBuilder, RecordBatch, StringArray,
        StringBuilder, StructArray, TimestampMicrosecondArray, TimestampNanosecondArray,
    },
    buffer::NullBuffer,
    datatypes::{DataType, Field, Fields},
};
use arrow_json::{ReaderBuilder, reader::infer_json_schema};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use whisperer_connectors::{
    EpochSize, Source, SourceError,
    conformance::{Seen, check},
    file::{FileOptions, FileSource},
    source::{Payload, Positions, RawRecord, Size},
};
use whisperer_schemas::{Epoch, PartitionId};

const EPOCHS: [EpochSize; 5] = [
    EpochSize::Bytes(1),
    EpochSize::Bytes(100),
    EpochSize::Bytes(1 << 20),
    EpochSize::Records(1),
    EpochSize::Records(7),
];

fn source(folder: &Path, epoch_size: EpochSize, partitioned: bool) -> Result<FileSource, SourceError> {
    let root = folder.to_owned();
    FileSource::new(FileOptions { path: ".".into(), root, partitioned, epoch_size, event_bytes_max: 200 })
}

/// Objects with a number, a text of some length and a nested object; every third lacks the text.
fn lines(count: usize) -> Vec<String> {
    let text = |n: usize| {
        if n.is_multiple_of(3) { String::new() } else { format!(",\"text\":\"{}\\n\"", "é".repeat(n % 17)) }
    };
    (0..count).map(|n| format!("{{\"inner\":{{\"half\":{}.5}},\"n\":{n}{}}}", n / 2, text(n))).collect()
}

/// Writes lines of JSON as a Parquet file.
fn write(path: &Path, lines: &[String], group_rows: usize) {
    let text = lines.join("\n");
    let (schema, _) = infer_json_schema(Cursor::new(&text), None).unwrap();
    let schema = Arc::new(schema);
    let batches = ReaderBuilder::new(schema.clone()).build(Cursor::new(&text)).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group_rows))
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), schema, Some(properties)).unwrap();
    batches.for_each(|batch| writer.write(&batch.unwrap()).unwrap());
    writer.close().unwrap();
}

/// Writes one batch as a Parquet file.
fn write_batch(path: &Path, batch: &RecordBatch) {
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn seen(lines: &[String], base: u64) -> Vec<Seen> {
    (base..).zip(lines).map(|(offset, line)| (offset, line.clone().into_bytes())).collect()
}

/// What one worker reads from a position on.
fn read(source: &FileSource, from: u64) -> Result<Vec<String>, SourceError> {
    let mut records = Vec::new();
    let mut reader = source.open(0, 1, &Positions::from([(PartitionId(0), from)]))?;
    let mut each = |raw: RawRecord<'_>| match raw.payload {
        Payload::Json(text) => records.push(String::from_utf8(text.to_vec()).unwrap()),
        Payload::TooLarge { head, bytes } => records.push(format!("{} of {bytes}", head.len())),
        Payload::Csv { .. } => panic!("a row of cells in a Parquet file"),
    };
    while reader.read(Epoch(0), &mut each, &mut Vec::new())? {}
    Ok(records)
}

#[test]
fn parquet_files_conform() {
    // Goal: rows come once and in order in epochs of every size, on 1 to 4 workers, and from any position on; with row groups of any length,
    // an empty file among others, and text files beside them.
    for group_rows in [1, 7, 1_000] {
        let folder = tempfile::tempdir().unwrap();
        let lines = lines(40);
        write(&folder.path().join("1.parquet"), &lines[..15], group_rows);
        write(&folder.path().join("3.parquet"), &lines[15..], group_rows);
        let empty = RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::new(vec![Field::new(
            "n",
            DataType::Int64,
            true,
        )])));
        write_batch(&folder.path().join("2.parquet"), &empty);
        for size in EPOCHS {
            let parts = [seen(&lines[..15], 0), vec![], seen(&lines[15..], 0)];
            check(&source(folder.path(), size, true).unwrap(), &parts);
            let whole = source(folder.path(), size, false).unwrap();
            assert_eq!(whole.size(), Some(Size::Records(40)));
            check(&whole, &[seen(&lines, 0)]);
        }
        fs::write(folder.path().join("2.ndjson"), "{\"a\":1}\n{\"a\":2}\n").unwrap();
        let mut mixed = seen(&lines[..15], 0);
        mixed.extend([(15, b"{\"a\":1}".to_vec()), (23, b"{\"a\":2}".to_vec())]);
        mixed.extend(seen(&lines[15..], 31));
        for size in EPOCHS {
            let mixed_source = source(folder.path(), size, false).unwrap();
            assert_eq!(mixed_source.size(), None);
            check(&mixed_source, std::slice::from_ref(&mixed));
        }
    }
}

#[test]
fn an_epoch_of_bytes_holds_so_many_bytes_of_rows() {
    // Goal: rows count by their length and not by their number, which would put a whole file into an epoch.
    let folder = tempfile::tempdir().unwrap();
    let lines = lines(200);
    write(&folder.path().join("a.parquet"), &lines, 1_000);
    let source = source(folder.path(), EpochSize::Bytes(1_000), false).unwrap();
    let mut reader = source.open(0, 1, &Positions::new()).unwrap();
    let mut largest = 0;
    let mut more = true;
    while more {
        let mut bytes = 0;
        more = reader.read(Epoch(0), &mut |raw| bytes += raw.payload.bytes(), &mut Vec::new()).unwrap();
        largest = largest.max(bytes);
    }
    assert!((900..1_200).contains(&largest), "{largest} bytes in an epoch");
}

#[test]
fn columns_of_every_kind_are_json() {
    // Goal: the JSON of each kind of column, nulls absent, times in UTC whatever their zone.
    let at = 1_767_603_600_123_456_i64;
    let times = |zone: Option<&str>| {
        let times = TimestampMicrosecondArray::from(vec![Some(at), None]);
        Arc::new(if let Some(zone) = zone { times.with_timezone(zone) } else { times }) as ArrayRef
    };
    let inner = Fields::from(vec![
        Field::new("at", DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None), true),
        Field::new("x", DataType::Float64, true),
    ]);
    let numbers = Arc::new(Float64Array::from(vec![Some(0.1), None])) as ArrayRef;
    let nested = StructArray::new(inner, vec![times(None), numbers], Some(NullBuffer::from(vec![true, false])));
    let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    map.keys().append_value("k");
    map.values().append_value("v");
    map.append(true).unwrap();
    map.append(false).unwrap();
    let list = arrow::array::ListArray::from_iter_primitive::<arrow::datatypes::Int64Type, _, _>(vec![
        Some(vec![Some(1), None, Some(3)]),
        Some(vec![]),
    ]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("bytes", Arc::new(BinaryArray::from(vec![Some(b"\x00\xff".as_slice()), None]))),
        ("date", Arc::new(Date32Array::from(vec![Some(20_458), None]))),
        ("integer", Arc::new(Int64Array::from(vec![Some(i64::MAX), Some(-1)]))),
        ("list", Arc::new(list)),
        ("map", Arc::new(map.finish())),
        ("nested", Arc::new(nested)),
        ("text", Arc::new(StringArray::from(vec![Some("\"\n\u{1}é"), None]))),
        ("time_berlin", times(Some("Europe/Berlin"))),
        ("time_nanos", Arc::new(TimestampNanosecondArray::from(vec![Some(at * 1_000), None]))),
        ("time_plain", times(None)),
        ("time_utc", times(Some("UTC"))),
    ];
    let folder = tempfile::tempdir().unwrap();
    write_batch(
        &folder.path().join("a.parquet"),
        &RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
            .unwrap(),
    );
    let options = FileOptions {
        path: "a.parquet".into(),
        root: folder.path().into(),
        partitioned: false,
        epoch_size: EpochSize::Records(1),
        event_bytes_max: 10_000,
    };
    let rows = read(&FileSource::new(options).unwrap(), 0).unwrap();
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let time = "2026-01-05T09:00:00.123456Z";
    let expected = serde_json::json!({
        "bytes": "00ff", "date": "2026-01-05", "integer": i64::MAX, "list": [1, null, 3], "map": {"k": "v"},
        "nested": {"at": time, "x": 0.1}, "text": "\"\n\u{1}é",
        "time_berlin": time, "time_nanos": time, "time_plain": time, "time_utc": time,
    });
    assert_eq!(parse(&rows[0]), expected);
    assert_eq!(parse(&rows[1]), serde_json::json!({ "integer": -1, "list": [] }));
}

#[test]
fn a_row_that_is_too_large_has_a_head_and_a_length() {
    // Goal: the limit counts the row as JSON.
    let folder = tempfile::tempdir().unwrap();
    let row = |bytes: usize| format!("{{\"t\":\"{}\"}}", "x".repeat(bytes - 8));
    write(&folder.path().join("a.parquet"), &[row(200), row(201), row(5_000)], 10);
    let rows = read(&source(folder.path(), EpochSize::Records(9), false).unwrap(), 0).unwrap();
    assert_eq!(rows, [row(200), "200 of 201".to_owned(), "200 of 5000".to_owned()]);
}

#[test]
fn reading_resumes_at_a_row_group() {
    // Goal: what lies before a position is not read again. Method: the first row group is overwritten; rows behind it are still there.
    let folder = tempfile::tempdir().unwrap();
    let (path, lines) = (folder.path().join("a.parquet"), lines(100));
    write(&path, &lines, 25);
    let mut bytes = fs::read(&path).unwrap();
    bytes[4..200].fill(0xaa);
    fs::write(&path, bytes).unwrap();
    let source = source(folder.path(), EpochSize::Records(10), false).unwrap();
    assert!(matches!(read(&source, 24), Err(SourceError::Io { .. })));
    for from in [25, 26, 60, 99, 100] {
        assert_eq!(read(&source, from).unwrap(), lines[from as usize..]);
    }
    assert!(matches!(read(&source, 101), Err(SourceError::NoSuchOffset { offset: 101, .. })));
}

#[test]
fn a_damaged_file_is_an_error_that_names_it() {
    // Goal: a file that was cut, overwritten or is none at all ends the reading with its name, and never the process.
    let folder = tempfile::tempdir().unwrap();
    let (path, lines) = (folder.path().join("a.parquet"), lines(300));
    write(&path, &lines, 100);
    let whole = fs::read(&path).unwrap();
    let outcome = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        source(folder.path(), EpochSize::Records(10), false).and_then(|source| read(&source, 0))
    };
    for bytes in [&whole[..whole.len() / 2], &whole[1..], b"", b"PAR1", b"not at all a Parquet file"] {
        let Err(error) = outcome(bytes) else { panic!("{} bytes are read", bytes.len()) };
        let SourceError::Io { path: named, source } = &error else { panic!("{error:?}") };
        assert!(named.ends_with("a.parquet") && source.to_string().contains("Parquet"), "{error:?}");
    }
    let mut told = 0;
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        match outcome(&bytes) {
            Ok(_) => {}
            Err(SourceError::Io { path: named, .. }) => told += usize::from(named.ends_with("a.parquet")),
            Err(error) => panic!("byte {at}: {error:?}"),
        }
    }
    assert!(told > whole.len() / 7 / 2, "{told} of {} flips are told", whole.len() / 7);
    fs::write(&path, &whole).unwrap();
    let before = source(folder.path(), EpochSize::Records(10), false).unwrap();
    write(&path, &lines[..10], 100);
    let changed = read(&before, 0).unwrap_err();
    assert!(matches!(changed, SourceError::Io { source, .. } if source.to_string().contains("has changed")));
}
