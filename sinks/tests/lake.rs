//! What a lake promises beyond the conformance suite: layout, metadata, recovery, earlier output, other runs.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use parquet::file::reader::{FileReader, SerializedFileReader};
use tempfile::TempDir;
use whisperer_schemas::{Column, ColumnType, Digest, Epoch, Row, TableSchema, Value, row_hash, time::DAY};
use whisperer_sinks::{
    CommitFacts, Existing, Fault, Lake, LakeOptions, Ndjson, RunId, RunManifest, Scan, SinkError, TableSink,
    TextEquals,
    conformance::{sample_facts, sample_row, sample_schema},
    digest_of_table, manifest, read_schema, read_table, read_where, scan,
};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn options(root: &Path, job: &str, run: &str, existing: Existing) -> LakeOptions {
    let run = RunId::new(run).expect("a plain name");
    LakeOptions { existing, ..LakeOptions::new(root, job, 4, run) }
}

fn open(root: &Path, run: &str, existing: Existing) -> Arc<Lake> {
    Lake::open(options(root, "engagement", run, existing)).expect("open the lake")
}

fn rows(numbers: std::ops::Range<u64>) -> Vec<Row> {
    numbers.map(sample_row).collect()
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(|row| format!("{:?}", row.values[0]));
    rows
}

fn read(root: &Path) -> Vec<Row> {
    sorted(read_table(root, "engagement", &sample_schema()).expect("readable"))
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> =
        paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

fn finished(lake: &Lake, ended: i64) -> RunManifest {
    let LakeOptions { job, job_version, run, .. } = lake.options().clone();
    RunManifest {
        version: manifest::MANIFEST_VERSION,
        run: run.as_str().into(),
        job,
        job_version,
        fingerprint: "f".into(),
        started: 0,
        ended,
        workers: 1,
        epoch: 0,
        positions: Default::default(),
        watermark: None,
        counts: Default::default(),
        digests: Default::default(),
        files: Vec::new(),
    }
}

/// Goal: two workers' files are found under their dates, named after run, worker and number, with all metadata.
#[test]
fn layout_and_metadata() {
    let folder = folder();
    let lake = open(folder.path(), "r1", Existing::Refuse);
    let mut staged = Vec::new();
    for worker in 0..2 {
        let mut table = lake.table(sample_schema(), worker as usize);
        table.write(rows(worker * 30..worker * 30 + 30)).expect("write");
        staged.extend(table.stage(&sample_facts(9)).expect("stage"));
    }
    assert_eq!(read(folder.path()), vec![]);
    let written = lake.publish(&staged).expect("publish");
    assert_eq!(read(folder.path()), rows(0..60));
    let paths: Vec<String> = written.iter().map(|file| file.path.display().to_string()).collect();
    assert!(paths.contains(&"decisions/event_date=2024-10-05/part-r1-001-00001.parquet".into()), "{paths:?}");
    for file in &written {
        let path = folder.path().join(&file.path);
        let reader = SerializedFileReader::new(fs::File::open(&path).expect("open")).expect("Parquet");
        let metadata = reader.metadata().file_metadata();
        let pairs = metadata.key_value_metadata().expect("metadata");
        let value = |key: &str| pairs.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone());
        let expected = [
            ("job", "engagement"),
            ("job_version", "4"),
            ("run", "r1"),
            ("table", "decisions"),
            ("table_version", "1"),
            ("epoch", "9"),
            ("source_positions", r#"{"0":900,"1":7}"#),
        ];
        for (key, expected) in expected {
            assert_eq!(value(key).as_deref(), Some(expected), "{key} of {path:?}");
        }
        assert_eq!(metadata.num_rows() as u64, file.rows);
        let compression = reader.metadata().row_group(0).column(0).compression();
        assert!(matches!(compression, parquet::basic::Compression::ZSTD(_)), "{compression}");
        let bytes = fs::read(&path).expect("read");
        assert_eq!(file.bytes, bytes.len() as u64);
        assert_eq!(file.xxh3, format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes)));
    }
}

/// Goal: the schema read from a file is the one it was written with, for all tables: types, units, sentences.
#[test]
fn schema_reads_back() {
    let list = ColumnType::List(vec![("feature", ColumnType::Text), ("contribution", ColumnType::Number)]);
    let job = vec![
        Column::optional("days_idle", ColumnType::Number, "days", "Days since the last activity"),
        Column::optional("risk_contributions", list, "", "Why"),
    ];
    for schema in [TableSchema::decisions(job.clone()), TableSchema::profiles(job), TableSchema::dead_letters()] {
        let folder = folder();
        let mut table = open(folder.path(), "r1", Existing::Refuse).table(schema.clone(), 0);
        let values = schema.columns.iter().map(|column| any_value(&column.kind)).collect();
        table.write(vec![Row { values, epoch: Epoch(0), position: None }]).expect("write");
        let written = table.commit(&CommitFacts::default()).expect("commit");
        let path = folder.path().join(&written[0].path);
        assert_eq!(read_schema(&path).expect("a table's file"), schema);
    }
}

fn any_value(kind: &ColumnType) -> Value {
    match kind {
        ColumnType::Bool => Value::Bool(true),
        ColumnType::Int => Value::Int(1),
        ColumnType::Number => Value::Number(0.5),
        ColumnType::Text => Value::text("0:1"),
        ColumnType::Bytes => Value::Bytes(Box::from(&b"\xff"[..])),
        ColumnType::Time => Value::Time(DAY),
        ColumnType::List(_) => Value::List(Vec::new()),
    }
}

/// Goal: a commit that was decided, and then interrupted at any file, is carried out by the next opening.
#[test]
fn interrupted_publication_is_rolled_forward() {
    for renamed in 0..=3 {
        let folder = folder();
        let root = folder.path();
        let lake = open(root, "old", Existing::Refuse);
        let mut table = lake.table(sample_schema(), 0);
        table.write(rows(0..10)).expect("write");
        table.commit(&sample_facts(1)).expect("commit");
        drop((lake, table));

        let lake = open(root, "new", Existing::Replace);
        let mut table = lake.table(sample_schema(), 0);
        table.write(rows(10..40)).expect("write");
        let staged = table.stage(&sample_facts(2)).expect("stage");
        assert_eq!(staged.len(), 3, "one file for each date");
        // What a process leaves that dies after deciding: the record, and the first files renamed.
        let remove: Vec<PathBuf> = files_below(&root.join("decisions"));
        let record = serde_json::json!({ "version": 1, "files": staged, "remove": remove });
        fs::write(root.join("_staging/new/publish.json"), record.to_string()).expect("write the record");
        for file in &staged[..renamed] {
            fs::create_dir_all(file.place.parent().expect("a folder")).expect("create");
            fs::rename(&file.staged, &file.place).expect("rename");
        }
        drop((lake, table));

        let lake = Lake::open(options(root, "other job", "next", Existing::Refuse)).expect("open");
        assert_eq!(read(root), rows(10..40), "{renamed} files were in place");
        drop(lake);
        // Nothing is left to do for the opening after it.
        open(root, "last", Existing::Replace);
        assert_eq!(read(root), rows(10..40));
    }
}

/// Goal: earlier output of the job is refused by default, with its place; that of another job is not touched.
#[test]
fn earlier_output_is_refused_or_replaced() {
    let folder = folder();
    let root = folder.path();
    for (job, from) in [("engagement", 0), ("other", 100)] {
        let lake = Lake::open(options(root, job, &format!("{job}-1"), Existing::Refuse)).expect("open");
        let mut table = lake.table(sample_schema(), 0);
        table.write(rows(from..from + 10)).expect("write");
        table.commit(&sample_facts(1)).expect("commit");
        lake.finish(&finished(&lake, 1)).expect("finish");
    }
    let refused = Lake::open(options(root, "engagement", "2", Existing::Refuse)).expect_err("refused");
    assert!(matches!(&refused, SinkError::Occupied { files: 4, .. }), "{refused}");
    assert_eq!((refused.fault(), refused.retry()), (Fault::User, false));

    let lake = open(root, "2", Existing::Replace);
    let mut table = lake.table(sample_schema(), 0);
    table.write(rows(50..51)).expect("write");
    assert_eq!(read(root), rows(0..10), "until the commit the earlier output is whole");
    table.commit(&sample_facts(1)).expect("commit");
    lake.finish(&finished(&lake, 2)).expect("finish");
    assert_eq!(read(root), rows(50..51));
    assert_eq!(sorted(read_table(root, "other", &sample_schema()).expect("read")), rows(100..110));
    assert_eq!(manifest::latest(root, "engagement").expect("read").map(|run| run.run), Some("2".into()));
    assert!(!manifest::path(root, "engagement-1").exists(), "a manifest goes with its files");
    assert!(manifest::path(root, "other-1").exists());
    assert_eq!(files_below(&root.join("_staging")), Vec::<PathBuf>::new());
}

/// Goal: a run without output still replaces what was there.
#[test]
fn empty_run_replaces() {
    let folder = folder();
    let mut table = open(folder.path(), "1", Existing::Refuse).table(sample_schema(), 0);
    table.write(rows(0..10)).expect("write");
    table.commit(&sample_facts(1)).expect("commit");
    drop(table);
    let lake = open(folder.path(), "2", Existing::Replace);
    lake.finish(&finished(&lake, 1)).expect("finish");
    assert_eq!(files_below(&folder.path().join("decisions")), Vec::<PathBuf>::new());
}

/// Goal: while a run lives, a second one of its job is refused and its files are safe from the openings of others.
#[test]
fn live_run_is_left_alone() {
    let folder = folder();
    let mut table = open(folder.path(), "1", Existing::Refuse).table(sample_schema(), 0);
    table.write(rows(0..10)).expect("write");
    let staged = table.stage(&sample_facts(1)).expect("stage");
    let busy = Lake::open(options(folder.path(), "engagement", "2", Existing::Replace)).expect_err("busy");
    assert!(matches!(&busy, SinkError::Busy { run, .. } if run == "1"), "{busy}");
    assert!(busy.retry());
    Lake::open(options(folder.path(), "other", "3", Existing::Refuse)).expect("another job may run");
    table.publish(&staged).expect("publish");
    assert_eq!(read(folder.path()), rows(0..10));
}

/// Goal: more dates at once than files may be open, in turns: every row arrives, and the files stay open no more.
#[test]
fn many_dates_at_once() {
    let folder = folder();
    let mut table = open(folder.path(), "1", Existing::Refuse).table(TableSchema::profiles(vec![]), 0);
    let schema = TableSchema::profiles(vec![]);
    let mut digest = Digest::default();
    for round in 0..30 {
        // Long texts fill the bound of waiting bytes, so that dates are converted in turns.
        let rows: Vec<Row> = (0..100).map(|day| profile(&schema, day, &"x".repeat(40_000 + round))).collect();
        rows.iter().for_each(|row| digest.update(row_hash(&schema, &row.values), 1));
        table.write(rows).expect("write");
        assert!(open_files_below(folder.path()) <= whisperer_sinks::parquet::OPEN_FILES_MAX + 1);
    }
    let written = table.commit(&sample_facts(1)).expect("commit");
    assert_eq!(written.len(), 100, "one file for each date");
    assert_eq!(digest_of_table(folder.path(), "engagement", &schema).expect("read"), digest);
}

fn profile(schema: &TableSchema, day: i64, user: &str) -> Row {
    let value = |column: &Column| match column.name.as_str() {
        "as_of" => Value::Time(day * DAY),
        "user_id" => Value::text(user),
        "_epoch" => Value::Int(0),
        _ if column.nullable => Value::Null,
        _ => any_value(&column.kind),
    };
    Row { values: schema.columns.iter().map(value).collect(), epoch: Epoch(0), position: None }
}

/// Files below `folder` that this process holds open.
fn open_files_below(folder: &Path) -> usize {
    let Ok(handles) = fs::read_dir("/proc/self/fd") else { return 0 };
    let targets = handles.filter_map(|handle| fs::read_link(handle.ok()?.path()).ok());
    targets.filter(|target| target.starts_with(folder) && target.is_file()).count()
}

/// Goal: files end at the bound of rows, and their row groups at theirs.
#[test]
fn files_are_bounded() {
    let folder = folder();
    let schema = TableSchema::dead_letters();
    let mut table = open(folder.path(), "1", Existing::Refuse).table(schema.clone(), 0);
    let values: Vec<Value> = schema.columns.iter().map(|column| any_value(&column.kind)).collect();
    let total = whisperer_sinks::parquet::FILE_ROWS_MAX + 10;
    let mut left = total;
    while left > 0 {
        let count = left.min(10_007);
        table
            .write(vec![Row { values: values.clone(), epoch: Epoch(0), position: None }; count as usize])
            .expect("write");
        left -= count;
    }
    let written = table.commit(&sample_facts(1)).expect("commit");
    assert_eq!(written.len(), 2);
    assert_eq!(written.iter().map(|file| file.rows).sum::<u64>(), total);
    for file in &written {
        assert!(file.rows <= whisperer_sinks::parquet::FILE_ROWS_MAX);
        let path = folder.path().join(&file.path);
        let reader = SerializedFileReader::new(fs::File::open(path).expect("open")).expect("Parquet");
        let largest = reader.metadata().row_groups().iter().map(|group| group.num_rows()).max();
        assert!(largest <= Some(whisperer_sinks::parquet::ROW_GROUP_ROWS_MAX as i64), "{largest:?}");
    }
}

/// Goal: conditions on text are decided while reading and give the same rows as a look at every row.
#[test]
fn conditions_select_rows() {
    let folder = folder();
    let mut table = open(folder.path(), "1", Existing::Refuse).table(sample_schema(), 0);
    table.write(rows(0..20_000)).expect("write");
    table.commit(&sample_facts(1)).expect("commit");
    let schema = sample_schema();
    let user = sample_row(3).values[4].clone();
    let Value::Text(name) = &user else { panic!("an id is text") };
    let conditions =
        [TextEquals { column: "user_id", value: name }, TextEquals { column: "trigger", value: "win_back" }];
    let found = read_where(folder.path(), "engagement", &schema, &conditions).expect("read");
    let mut expected = Vec::new();
    let all = Scan { lake: folder.path(), job: "engagement", schema: &schema, conditions: &[] };
    scan(all, |row| {
        if row.values[4] == user {
            expected.push(row)
        }
    })
    .expect("read");
    assert_eq!(found.len(), 20_000 / 7);
    assert_eq!(found, expected);
    let unknown = [TextEquals { column: "nobody", value: "" }];
    assert!(read_where(folder.path(), "engagement", &schema, &unknown).is_err());
}

/// Goal: a row that does not fit is refused, and so is everything after it: a table that lacks rows is not committed.
#[test]
fn misfit_breaks_the_writer() {
    let folder = folder();
    let mut table = open(folder.path(), "1", Existing::Refuse).table(sample_schema(), 0);
    table.write(rows(0..10)).expect("write");
    let mut misfit = sample_row(0);
    misfit.values[6] = Value::Null;
    let error = table.write(vec![misfit]).expect_err("no time");
    assert_eq!(error.fault(), Fault::Internal, "{error}");
    assert!(matches!(table.commit(&sample_facts(1)), Err(SinkError::Broken { .. })));
    drop(table);
    assert_eq!(read(folder.path()), vec![]);
}

/// Goal: a disk that refuses files while they are written leaves nothing visible. A file stands where a folder must go.
#[test]
fn refusing_disk_leaves_nothing() {
    let folder = folder();
    let lake = open(folder.path(), "1", Existing::Refuse);
    fs::write(folder.path().join("_staging/1/decisions"), "in the way").expect("write");
    let mut table = lake.table(sample_schema(), 0);
    table.write(rows(0..10)).expect("rows wait");
    table.commit(&sample_facts(1)).expect_err("no folder");
    assert!(matches!(table.write(rows(0..1)), Err(SinkError::Broken { .. })));
    assert_eq!(files_below(&folder.path().join("decisions")), Vec::<PathBuf>::new());
}

/// Goal: a lake below a file, and a run whose name is no file name, are the user's mistakes and said so.
#[test]
fn wrong_places_and_names() {
    let folder = folder();
    fs::write(folder.path().join("file"), "").expect("write");
    let error =
        Lake::open(options(&folder.path().join("file/lake"), "job", "1", Existing::Refuse)).expect_err("a file");
    assert_eq!(error.fault(), Fault::User, "{error}");
    for name in ["", "a/b", "..", "_x", ".x", "a b", "\u{e9}"] {
        assert!(matches!(RunId::new(name), Err(SinkError::Name { .. })), "{name:?}");
    }
}

/// Goal: a run's name is used once; a second run cannot overwrite the first one's files or manifest.
#[test]
fn run_names_are_used_once() {
    let folder = folder();
    let lake = open(folder.path(), "1", Existing::Refuse);
    lake.finish(&finished(&lake, 1)).expect("finish");
    drop(lake);
    let error = Lake::open(options(folder.path(), "engagement", "1", Existing::Replace)).expect_err("taken");
    assert!(matches!(error, SinkError::Occupied { .. }), "{error}");
}

/// Goal: an NDJSON file of an earlier run is refused by default, and one that is being written is busy.
#[test]
fn ndjson_is_not_overwritten() {
    let folder = folder();
    let path = folder.path().join("decisions.ndjson");
    let first = Ndjson::file(sample_schema(), &path, Existing::Refuse).expect("open");
    let busy = Ndjson::file(sample_schema(), &path, Existing::Replace).expect_err("busy");
    assert!(matches!(busy, SinkError::Busy { .. }), "{busy}");
    drop(first);
    fs::write(&path, "old\n").expect("write");
    let refused = Ndjson::file(sample_schema(), &path, Existing::Refuse).expect_err("refused");
    assert!(matches!(refused, SinkError::Occupied { .. }), "{refused}");
    assert_eq!(files_below(folder.path()), [path], "nothing else is left in the folder");
}

/// Goal: NDJSON staged beside Parquet is published by the lake in the same commit, and goes on after it.
#[test]
fn ndjson_is_published_by_the_lake() {
    let folder = folder();
    let path = folder.path().join("out/decisions.ndjson");
    let lake = open(&folder.path().join("lake"), "1", Existing::Refuse);
    let mut table = lake.table(sample_schema(), 0);
    let mut lines = Ndjson::file(sample_schema(), &path, Existing::Refuse).expect("open");
    for commit in 0..2 {
        table.write(rows(commit * 10..commit * 10 + 10)).expect("write");
        lines.write(rows(commit * 10..commit * 10 + 10)).expect("write");
        let mut staged = table.stage(&sample_facts(commit)).expect("stage");
        staged.extend(lines.stage(&sample_facts(commit)).expect("stage"));
        // Rows that come between the two steps belong to the next commit.
        lines.write(Vec::new()).expect("write");
        lake.publish(&staged).expect("publish");
        let count = fs::read_to_string(&path).expect("read").lines().count();
        assert_eq!(count as u64, commit * 10 + 10);
    }
    assert_eq!(read(&folder.path().join("lake")), rows(0..20));
}
