//! Every sink passes the same suite: `memory` first, then Parquet and NDJSON.

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde_json::Value as Json;
use tempfile::TempDir;
use whisperer_schemas::{ColumnType, Epoch, PartitionId, Position, Row, Value, time::parse_rfc3339};
use whisperer_sinks::{
    Existing, Lake, LakeOptions, LogSink, MemoryTable, MemoryTopic, Ndjson, OutboxSink, RunId, TableLog, TableSink,
    conformance::{
        Harness,
        log::{LogHarness, OutboxHarness, run_logs, run_outboxes},
        run_all, sample_schema,
    },
    read_table,
};

/// Goal: the model passes, so the suite asks for nothing impossible.
#[test]
fn memory() {
    struct Memory(MemoryTable);
    impl Harness for Memory {
        fn open(&mut self) -> Box<dyn TableSink> {
            Box::new(self.0.replacing())
        }
        fn visible(&self) -> Vec<Row> {
            self.0.rows()
        }
        fn staged_files(&self) -> usize {
            0
        }
    }
    run_all(|| Box::new(Memory(MemoryTable::new())));
}

/// Goal: the model of a log passes, in both ways of writing to one.
#[test]
fn memory_logs() {
    struct Memory(MemoryTopic);
    impl LogHarness for Memory {
        fn open(&mut self, _worker: u32, _workers: u32) -> Box<dyn LogSink> {
            Box::new(self.0.log(sample_schema()))
        }
        fn visible(&self) -> Vec<String> {
            self.0.lines()
        }
    }
    impl OutboxHarness for Memory {
        fn open(&mut self, worker: u32, workers: u32) -> Box<dyn OutboxSink> {
            Box::new(self.0.outbox(sample_schema(), worker, workers))
        }
        fn visible(&self) -> Vec<String> {
            self.0.lines()
        }
    }
    run_logs(|| Box::new(Memory(MemoryTopic::new())));
    run_outboxes(|| Box::new(Memory(MemoryTopic::new())));
}

/// Goal: Parquet files appear whole or not at all, and hold what was written; with a log and without.
#[test]
fn parquet() {
    struct Parquet {
        folder: TempDir,
        runs: u32,
        log: TableLog,
    }
    impl Harness for Parquet {
        fn open(&mut self) -> Box<dyn TableSink> {
            self.runs += 1;
            let run = RunId::new(format!("run-{}", self.runs)).expect("a plain name");
            let options = LakeOptions::new(&self.folder.path().join("lake"), "engagement", 1, run);
            let options = LakeOptions { existing: Existing::Replace, log: self.log, ..options };
            Box::new(Lake::open(options).expect("open the lake").table(sample_schema(), 0))
        }
        fn visible(&self) -> Vec<Row> {
            read_table(&self.folder.path().join("lake"), "engagement", &sample_schema()).expect("whole files")
        }
        fn staged_files(&self) -> usize {
            let files = files_below(&self.folder.path().join("lake/_staging"));
            files.iter().filter(|path| path.extension().is_some_and(|ending| ending == "staged")).count()
        }
    }
    let logs: &[TableLog] =
        if cfg!(feature = "delta") { &[TableLog::None, TableLog::Delta] } else { &[TableLog::None] };
    for log in logs {
        let folder = || tempfile::tempdir().expect("a temporary folder");
        run_all(|| Box::new(Parquet { folder: folder(), runs: 0, log: *log }));
    }
}

/// Goal: an NDJSON file appears whole or not at all, and every value reads back from its JSON form.
#[test]
fn ndjson() {
    struct File(TempDir);
    impl File {
        fn path(&self) -> PathBuf {
            self.0.path().join("out/decisions.ndjson")
        }
    }
    impl Harness for File {
        fn open(&mut self) -> Box<dyn TableSink> {
            Box::new(Ndjson::file(sample_schema(), &self.path(), Existing::Replace).expect("open the file"))
        }
        fn visible(&self) -> Vec<Row> {
            let text = fs::read_to_string(self.path()).unwrap_or_default();
            assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole");
            text.lines().map(row_of).collect()
        }
        fn staged_files(&self) -> usize {
            let files = files_below(&self.0.path().join("out"));
            files.iter().filter(|path| path.extension().is_some_and(|ending| ending == "staged")).count()
        }
    }
    run_all(|| Box::new(File(tempfile::tempdir().expect("a temporary folder"))));
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

fn row_of(line: &str) -> Row {
    let json: Json = serde_json::from_str(&quote_numbers(line)).expect("a line is a JSON object");
    let schema = sample_schema();
    assert_eq!(json.as_object().map(serde_json::Map::len), Some(schema.columns.len()), "all columns, nulls too");
    let values: Vec<Value> = schema.columns.iter().map(|column| value_of(&column.kind, &json[&column.name])).collect();
    let position = json["_position"].as_str().map(|text| {
        let (partition, offset) = text.split_once(':').expect("partition:offset");
        Position { partition: PartitionId(partition.parse().expect("a number")), offset: offset.parse().expect("one") }
    });
    Row { values, epoch: Epoch(number(&json["_epoch"])), position }
}

/// Makes texts of all numbers: `serde_json` reads some numbers to a neighbour of the nearest f64, the standard library none.
fn quote_numbers(line: &str) -> String {
    let mut quoted = String::new();
    let (mut in_text, mut escaped, mut in_number) = (false, false, false);
    for letter in line.chars() {
        let of_number = !in_text && (letter.is_ascii_digit() || "+-.".contains(letter) || in_number && letter == 'e');
        if of_number != in_number {
            quoted.push('"');
        }
        in_number = of_number;
        in_text ^= letter == '"' && !escaped;
        escaped = in_text && letter == '\\' && !escaped;
        quoted.push(letter);
    }
    quoted
}

fn number<T: FromStr>(json: &Json) -> T {
    let number = json.as_str().and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("{json} is no number"))
}

fn value_of(kind: &ColumnType, json: &Json) -> Value {
    match (kind, json) {
        (_, Json::Null) => Value::Null,
        (ColumnType::Bool, Json::Bool(truth)) => Value::Bool(*truth),
        (ColumnType::Int, json) => Value::Int(number(json)),
        (ColumnType::Number, json) => Value::Number(number(json)),
        (ColumnType::Text, Json::String(text)) => Value::text(text),
        (ColumnType::Time, Json::String(text)) => Value::Time(parse_rfc3339(text.as_bytes()).expect("a time")),
        (ColumnType::List(fields), Json::Array(items)) => {
            let structure = |item: &Json| fields.iter().map(|(name, kind)| value_of(kind, &item[*name])).collect();
            Value::List(items.iter().map(structure).collect())
        }
        _ => panic!("{json} is no {kind:?}"),
    }
}
