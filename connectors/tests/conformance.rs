//! Every source keeps the rules of `conformance`: memory, and files of every shape, encoding and cut.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, io::Write, path::Path};

use proptest::prelude::*;
use tempfile::TempDir;
use whisperer_connectors::{
    EpochSize, Source, SourceError,
    conformance::{Seen, check},
    file::{FileOptions, FileSource},
    memory::{MemoryPartition, MemorySource},
    source::{Payload, Positions},
};
use whisperer_schemas::{Epoch, PartitionId};

const EPOCHS: [EpochSize; 6] = [
    EpochSize::Bytes(1),
    EpochSize::Bytes(7),
    EpochSize::Bytes(64),
    EpochSize::Bytes(1 << 20),
    EpochSize::Records(1),
    EpochSize::Records(5),
];

fn options(folder: &Path, epoch_size: EpochSize) -> FileOptions {
    FileOptions { path: ".".into(), root: folder.into(), partitioned: false, epoch_size, event_bytes_max: 100 }
}

fn source(folder: &Path, epoch_size: EpochSize) -> FileSource {
    FileSource::new(options(folder, epoch_size)).expect("the files are there")
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::encode_all(text, 1).unwrap()
}

fn folder(files: &[(&str, Vec<u8>)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

/// The lines of one file as a model reads them, from `base` of the partition on.
fn lines(text: &[u8], base: u64) -> Vec<Seen> {
    let mut offset = base;
    let mut seen = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let end = line.strip_suffix(b"\n").unwrap_or(line);
        let end = end.strip_suffix(b"\r").unwrap_or(end);
        let end = if offset == base { end.strip_prefix(b"\xef\xbb\xbf").unwrap_or(end) } else { end };
        seen.push((offset, end[..end.len().min(100)].to_vec()));
        offset += line.len() as u64;
    }
    seen
}

/// Texts that are easily read wrongly.
fn texts() -> Vec<(&'static str, Vec<u8>)> {
    let numbered = (0..40).map(|n| format!("{{\"n\":{n},\"pad\":\"{}\"}}\n", "x".repeat(n % 23))).collect::<String>();
    let long = format!("short\n{}\nafter\r\n{}\r\n{}", "a".repeat(100), "b".repeat(101), "c".repeat(5_000));
    vec![
        ("empty", vec![]),
        ("one", b"{}".to_vec()),
        ("numbered", numbered.clone().into_bytes()),
        ("no_final_line_feed", numbered.trim_end().as_bytes().to_vec()),
        ("carriage_returns", numbered.replace('\n', "\r\n").into_bytes()),
        ("byte_order_mark", [b"\xef\xbb\xbf", numbered.as_bytes()].concat()),
        ("only_byte_order_mark", b"\xef\xbb\xbf".to_vec()),
        ("blank_lines", b"\n\n \n{}\n\n\r\n{}\n \n".to_vec()),
        ("long_lines", long.into_bytes()),
        ("binary", (0..=255).cycle().take(3_000).collect()),
    ]
}

#[test]
fn memory_conforms() {
    // Goal: the model source keeps the rules, for cuts of every kind: empty epochs and chunks, cuts past the end.
    let records = |count: u64| (0..count).map(|n| (n * n, n.to_string().into_bytes())).collect::<Vec<Seen>>();
    for cuts in [vec![], vec![vec![3, 0, 2], vec![], vec![1; 7], vec![0]], vec![vec![100, 1], vec![1]]] {
        let partitions = [records(0), records(1), records(20)];
        let cut = |records: &Vec<Seen>| MemoryPartition { records: records.clone(), cuts: cuts.clone() };
        check(&MemorySource::new(partitions.iter().map(cut).collect()), &partitions);
    }
}

#[test]
fn plain_files_conform() {
    // Goal: lines of one file, read alone and by several workers, in epochs of one byte to all.
    for (name, text) in texts() {
        let folder = folder(&[(&format!("{name}.ndjson"), text.clone())]);
        for size in EPOCHS {
            check(&source(folder.path(), size), &[lines(&text, 0)]);
        }
    }
}

#[test]
fn compressed_files_conform() {
    // Goal: gzip with several members and zstd with several frames read like the text they hold.
    for (_, text) in texts() {
        let (left, right) = text.split_at(text.len() / 2);
        let folder_gz = folder(&[("a.jsonl.gz", [gzip(left), gzip(right)].concat())]);
        let folder_zst = folder(&[("a.json.zst", [zstd(left), zstd(right)].concat())]);
        for size in EPOCHS {
            check(&source(folder_gz.path(), size), &[lines(&text, 0)]);
            check(&source(folder_zst.path(), size), &[lines(&text, 0)]);
        }
    }
}

#[test]
fn consecutive_files_are_one_partition() {
    // Goal: files in natural name order are one text; the last line of a file is a record of its own; encodings mix.
    let texts = texts();
    let names =
        |ending: fn(usize) -> &'static str| (0..texts.len()).map(|n| format!("part-{n}{}", ending(n))).collect();
    let plain: Vec<String> = names(|_| ".ndjson");
    let mixed: Vec<String> = names(|n| [".ndjson", ".ndjson.gz", ".ndjson.zst"][n % 3]);
    for names in [plain, mixed] {
        let mut expected = Vec::new();
        let mut base = 0;
        let folder = tempfile::tempdir().unwrap();
        for (name, (_, text)) in names.iter().zip(&texts) {
            let encoded = match name.rsplit('.').next() {
                Some("gz") => gzip(text),
                Some("zst") => zstd(text),
                _ => text.clone(),
            };
            fs::write(folder.path().join(name), encoded).unwrap();
            expected.extend(lines(text, base));
            base += text.len() as u64;
        }
        for size in EPOCHS {
            check(&source(folder.path(), size), std::slice::from_ref(&expected));
        }
    }
}

#[test]
fn a_file_cut_into_consecutive_ones_is_the_same() {
    // Goal: where a text is cut between lines, offsets and records do not depend on the cut.
    let (_, text) = texts().swap_remove(2);
    let cut = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(17).unwrap().0 + 1;
    let folder = folder(&[("p2.ndjson", text[..cut].to_vec()), ("p10.ndjson", text[cut..].to_vec())]);
    for size in EPOCHS {
        check(&source(folder.path(), size), &[lines(&text, 0)]);
    }
}

#[test]
fn partitioned_files_conform() {
    // Goal: with `partitioned`, every file is a partition of its own, shared or not.
    let texts = texts();
    let folder = tempfile::tempdir().unwrap();
    for (number, (_, text)) in texts.iter().enumerate() {
        let (name, bytes) = if number % 4 == 3 { ("jsonl.gz", gzip(text)) } else { ("jsonl", text.clone()) };
        fs::write(folder.path().join(format!("{number}.{name}")), bytes).unwrap();
    }
    let expected: Vec<_> = texts.iter().map(|(_, text)| lines(text, 0)).collect();
    for size in EPOCHS {
        let options = FileOptions { partitioned: true, path: "*.json*".into(), ..options(folder.path(), size) };
        check(&FileSource::new(options).unwrap(), &expected);
    }
}

const CSV: &str =
    "id,text\r\n1,plain\r\n2,\"a, b\"\r\n\r\n3,\"two\r\nlines \"\"quoted\"\"\"\n4,x,too many\n5\n\n6,\"\r\"";

/// Rows of `CSV`, as they stand in the file.
fn csv_rows(base: u64) -> Vec<Seen> {
    let rows = ["1,plain", "2,\"a, b\"", "3,\"two\r\nlines \"\"quoted\"\"\"", "4,x,too many", "5", "6,\"\r\""];
    let offset = |row: &str| CSV.find(&format!("\n{row}")).unwrap() as u64 + 1 + base;
    let mut seen: Vec<Seen> = rows.iter().map(|row| (offset(row), row.as_bytes().to_vec())).collect();
    seen.insert(2, (offset("\r\n3"), vec![]));
    seen
}

#[test]
fn csv_files_conform() {
    // Goal: rows with quoted line feeds, empty lines and wrong numbers of cells; every file has its own header.
    let marked = ["\u{feff}", CSV].concat();
    let folder = folder(&[("a.csv", CSV.into()), ("b.csv.gz", gzip(CSV.as_bytes())), ("c.csv.zst", zstd(b"id,text"))]);
    let mut expected = csv_rows(0);
    expected.extend(csv_rows(CSV.len() as u64));
    for size in EPOCHS {
        check(&source(folder.path(), size), std::slice::from_ref(&expected));
    }
    let folder = self::folder(&[("a.csv", marked.into())]);
    check(&source(folder.path(), EpochSize::Bytes(9)), &[csv_rows(3)]);
}

/// Header and cells of a row, or the length of one that is too large.
type Row = Result<(Vec<String>, Vec<String>), u64>;

fn cells(source: &FileSource) -> Vec<Row> {
    let texts = |record: &csv::ByteRecord| record.iter().map(|cell| String::from_utf8_lossy(cell).into()).collect();
    let mut rows = Vec::new();
    let mut reader = source.open(0, 1, &Positions::new()).unwrap();
    let mut each = |raw: whisperer_connectors::RawRecord<'_>| match raw.payload {
        Payload::Csv { header, cells, .. } => rows.push(Ok((texts(header), texts(cells)))),
        Payload::TooLarge { bytes, .. } => rows.push(Err(bytes)),
        Payload::Json(_) => panic!("a JSON text in a CSV file"),
    };
    while reader.read(Epoch(0), &mut each, &mut Vec::new()).unwrap() {}
    rows
}

#[test]
fn csv_cells_are_unquoted_under_their_files_header() {
    // Goal: cells as RFC 4180 says, without the row's carriage return, under the header of their own file.
    let folder = folder(&[("a.csv", CSV.into()), ("b.csv", b"\xef\xbb\xbfx\ry\n\"q\"\r\n".to_vec())]);
    let rows = cells(&source(folder.path(), EpochSize::Records(100)));
    let row = |header: &[&str], cells: &[&str]| {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Ok((texts(header), texts(cells)))
    };
    let header = ["id", "text"];
    let expected = vec![
        row(&header, &["1", "plain"]),
        row(&header, &["2", "a, b"]),
        row(&header, &[""]),
        row(&header, &["3", "two\r\nlines \"quoted\""]),
        row(&header, &["4", "x", "too many"]),
        row(&header, &["5"]),
        row(&header, &["6", "\r"]),
        row(&["x\ry"], &["q"]),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn csv_rows_that_are_too_large_are_not_held() {
    // Goal: a row beyond the limit is counted and passed by, be it in one block or many; so is a quote that is never closed.
    let long = "y".repeat(3 << 20);
    let text = format!("id,text\n1,{}\n2,{}\n3,{long}\n4,ok\n5,\"{long}\n6,lost\n", "x".repeat(98), "x".repeat(99));
    let folder = folder(&[("a.csv", text.clone().into_bytes())]);
    let rows = cells(&source(folder.path(), EpochSize::Bytes(1 << 30)));
    let tail = text.len() - text.find("5,\"").unwrap() - 1;
    assert_eq!(rows.len(), 5);
    assert!(rows[0].is_ok() && rows[3].is_ok());
    assert_eq!((rows[1].clone(), rows[2].clone(), rows[4].clone()), (Err(101), Err(2 + (3 << 20)), Err(tail as u64)));
}

#[test]
fn a_line_that_is_too_large_has_a_head_and_a_length() {
    // Goal: the limit counts the line without its end; blocks smaller than the line do not matter.
    let text = format!("{}\n{}\r\n{}\r\n{}", "a".repeat(100), "b".repeat(100), "c".repeat(101), "d".repeat(5 << 20));
    let folder = folder(&[("a.json", text.into_bytes())]);
    let source = source(folder.path(), EpochSize::Bytes(1 << 30));
    let mut seen = Vec::new();
    let mut each = |raw: whisperer_connectors::RawRecord<'_>| {
        seen.push(match raw.payload {
            Payload::TooLarge { head, bytes } => (head.len(), bytes),
            Payload::Json(text) => (text.len(), 0),
            Payload::Csv { .. } => panic!("a row in an NDJSON file"),
        });
    };
    source.open(0, 1, &Positions::new()).unwrap().read(Epoch(0), &mut each, &mut Vec::new()).unwrap();
    assert_eq!(seen, [(100, 0), (100, 0), (100, 101), (100, 5 << 20)]);
}

#[test]
fn what_cannot_be_opened_is_said() {
    // Goal: wrong paths, endings, patterns, sizes and positions are errors, each of its own kind.
    let folder = folder(&[("a.ndjson", b"{}\n".to_vec()), ("b.txt", vec![]), ("c.ndjson.gz", b"no gzip".to_vec())]);
    let new = |path: &str, epoch_size| {
        FileSource::new(FileOptions { path: path.into(), ..options(folder.path(), epoch_size) })
    };
    let bytes = EpochSize::Bytes(10);
    assert!(matches!(new("none.ndjson", bytes), Err(SourceError::NoFile { .. })));
    assert!(matches!(new("*.txt", bytes), Err(SourceError::NoFile { .. })));
    assert!(matches!(new("b.txt", bytes), Err(SourceError::Settings(_))));
    assert!(matches!(new("a[", bytes), Err(SourceError::Pattern { .. })));
    assert!(matches!(new("a.ndjson", EpochSize::Records(0)), Err(SourceError::Settings(_))));

    let open = |path: &str, size, partition, offset| {
        new(path, size).unwrap().open(0, 1, &Positions::from([(PartitionId(partition), offset)])).map(drop)
    };
    for size in [bytes, EpochSize::Records(1)] {
        assert!(open("a.ndjson", size, 0, 3).is_ok());
        assert!(matches!(open("a.ndjson", size, 0, 4), Err(SourceError::NoSuchOffset { offset: 4, .. })));
        assert!(matches!(open("a.ndjson", size, 1, 0), Err(SourceError::NoSuchOffset { .. })));
    }
    let mut broken = new("c.ndjson.gz", bytes).unwrap().open(0, 1, &Positions::new()).unwrap();
    let error = broken.read(Epoch(0), &mut |_| {}, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, SourceError::Io { path, .. } if path.ends_with("c.ndjson.gz")));
}

#[test]
fn a_folder_is_its_visible_files_with_known_endings() {
    // Goal: hidden files, other endings and folders below are no part of a folder.
    let folder = folder(&[("a.json", b"1".to_vec()), (".b.json", b"2".to_vec()), ("c.avro", vec![])]);
    fs::create_dir(folder.path().join("d.json")).unwrap();
    check(&source(folder.path(), EpochSize::Bytes(10)), &[vec![(0, b"1".to_vec())]]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_in_any_cut_conforms(
        texts in prop::collection::vec("[a-c\r\n ]{0,60}", 1..5),
        compressed in any::<bool>(),
        bytes in 1..40_u64,
    ) {
        // Goal: no text, cut into files and epochs in any way, loses, repeats or misplaces a line.
        let folder = tempfile::tempdir().unwrap();
        let (mut expected, mut base) = (Vec::new(), 0);
        for (number, text) in texts.iter().enumerate() {
            let path = folder.path().join(format!("{number}.json{}", if compressed { ".gz" } else { "" }));
            fs::write(path, if compressed { gzip(text.as_bytes()) } else { text.clone().into_bytes() }).unwrap();
            expected.extend(lines(text.as_bytes(), base));
            base += text.len() as u64;
        }
        check(&source(folder.path(), EpochSize::Bytes(bytes)), &[expected.clone()]);
        check(&source(folder.path(), EpochSize::Records(bytes)), &[expected]);
    }
}
