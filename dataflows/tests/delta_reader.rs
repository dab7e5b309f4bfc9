//! Tables with a Delta log as a stranger reads them: the `deltalake` package of Python.
#![cfg(feature = "delta")]

mod outside;

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use serde_json::Value;
use whisperer_schemas::{Column, ColumnType, Epoch, Row, TableSchema, Value as Datum};
use whisperer_sinks::{
    CommitFacts, Existing, Lake, LakeOptions, Recovery, RunId, TableLog, TableSink,
    conformance::{sample_row, sample_schema},
};

/// The engagement job with a log, in a folder of its own.
fn job(folder: &Path) {
    let jobs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/jobs");
    let text = fs::read_to_string(jobs.join("engagement.toml")).expect("the job");
    let logged = text.replace("path      = \"data/lake\"", "path      = \"data/lake\"\nlog       = \"delta\"");
    assert_ne!(logged, text);
    fs::create_dir(folder.join("models")).expect("a folder");
    fs::write(folder.join("job.toml"), logged).expect("write");
    for model in fs::read_dir(jobs.join("models")).expect("models") {
        let model = model.expect("a file").path();
        fs::copy(&model, folder.join("models").join(model.file_name().expect("a name"))).expect("copy");
    }
}

fn run(folder: &Path, events: &str, failpoint: Option<&str>) -> Output {
    let mut run = Command::new(env!("CARGO_BIN_EXE_whisperer"));
    run.args(["run", "job.toml", "--users", "3000", "--json", "--events", events]).current_dir(folder);
    if let Some(point) = failpoint {
        run.env("WHISPERER_FAILPOINT", point);
    }
    run.env("WHISPERER_LOG", "error").stderr(Stdio::null()).output().expect("the binary runs")
}

fn tables(python: &Path, folder: &Path) -> Value {
    serde_json::from_str(&outside::run(python, folder, "outside/delta_tables.py", "")).expect("JSON")
}

#[test]
fn deltalake_reads_what_the_run_counted() {
    // Goal: row counts by table are those of the run, before, after and amid a run that dies between renaming its files and its log.
    let Some(python) = outside::python("deltalake_reads_what_the_run_counted") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    job(folder);
    let check = |output: Output, versions: u64| {
        assert!(output.status.success());
        let said: Value = serde_json::from_slice(&output.stdout).expect("the summary is JSON");
        let counted = tables(&python, folder);
        let sum = |kind: &str| {
            let counts = said["counts"].as_object().expect("counts").iter();
            counts.filter(|(name, _)| name.starts_with(kind)).filter_map(|(_, count)| count.as_u64()).sum::<u64>()
        };
        assert_eq!(counted["profiles"]["final"], said["counts"]["users"]);
        assert_eq!(counted["decisions"]["rows"], sum("decisions."));
        assert_eq!(counted["dead_letters"]["rows"], sum("dead."));
        for table in ["profiles", "decisions", "dead_letters"] {
            assert_eq!(counted[table]["version"], versions, "{table}");
            assert_eq!(counted[table]["plain"], counted[table]["rows"], "{table}");
        }
        counted
    };
    let first = check(run(folder, "30000", None), 0);
    let died = run(folder, "60000", Some("lake.renamed:1"));
    assert!(!died.status.success());
    let amid = tables(&python, folder);
    for table in ["profiles", "decisions", "dead_letters"] {
        assert_eq!(amid[table]["rows"], first[table]["rows"], "the log knows nothing of {table} yet");
        assert_ne!(amid[table]["plain"], first[table]["rows"], "and its files are there");
    }
    // The next run carries out what the dead one had decided, and then replaces it.
    check(run(folder, "40000", None), 2);
}

fn open(root: &Path, run: &str, generation: u64, existing: Existing) -> Arc<Lake> {
    let options = LakeOptions::new(root, "engagement", 1, RunId::new(run).expect("a plain name"));
    Lake::open(LakeOptions { generation, existing, log: TableLog::Delta, ..options }).expect("open")
}

/// Commits of the test of concurrent reading: enough that the log is summarized once.
const COMMITS: u64 = 120;

/// Rows of each: on three dates, so in three files.
const ROWS: u64 = 30;

#[test]
fn a_concurrent_reader_sees_whole_commits() {
    // Goal: a reader that looks again and again while a job commits sees the rows of whole commits, never fewer than before.
    let Some(python) = outside::python("a_concurrent_reader_sees_whole_commits") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().to_owned();
    let reader = std::thread::spawn({
        let (python, root) = (python.clone(), root.clone());
        move || outside::run(&python, &root, "outside/delta_watch.py", &format!("{} {ROWS}", COMMITS * ROWS))
    });
    let lake = open(&root, "r1", 1, Existing::Replace);
    lake.recover(&Recovery { claimed: 1, ..Recovery::default() }).expect("nothing to recover");
    let mut table = lake.table(sample_schema(), 0);
    for commit in 0..COMMITS {
        table.write((commit * ROWS..commit * ROWS + ROWS).map(sample_row).collect()).expect("write");
        let facts = CommitFacts { epoch: Epoch(commit), checkpoint: commit + 2, ..CommitFacts::default() };
        let staged = table.stage(&facts).expect("stage");
        lake.publish(&staged).expect("publish");
    }
    let seen: Vec<u64> = serde_json::from_str(&reader.join().expect("the reader ends")).expect("JSON");
    assert!(seen.len() > 3, "it has looked while the job was at work: {seen:?}");
    assert!(seen.is_sorted() && seen.iter().all(|rows| rows.is_multiple_of(ROWS)), "{seen:?}");
    assert_eq!(seen.last(), Some(&(COMMITS * ROWS)));
    let log = root.join("decisions/_delta_log");
    assert!(log.join("00000000000000000099.checkpoint.parquet").exists(), "the log is summarized");
}

#[test]
fn columns_come_to_a_table() {
    // Goal: a feature that comes to the job is a column that is null in older rows; nested lists read as what they are.
    let Some(python) = outside::python("columns_come_to_a_table") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let lake = open(folder.path(), "r1", 1, Existing::Replace);
    let facts = |checkpoint| CommitFacts { checkpoint, ..CommitFacts::default() };
    let mut table = lake.table(sample_schema(), 0);
    table.write((0..10).map(sample_row).collect()).expect("write");
    lake.publish(&table.stage(&facts(2)).expect("stage")).expect("publish");

    let wider = wider();
    lake.check(&wider).expect("a new column is welcome");
    let mut table = lake.table(wider, 1);
    let widen = |mut row: Row| {
        row.values.insert(14, Datum::Number(7.5));
        row
    };
    table.write((10..15).map(sample_row).map(widen).collect()).expect("write");
    lake.publish(&table.stage(&facts(3)).expect("stage")).expect("publish");
    let script = "outside/delta_columns.py";
    let read: Value = serde_json::from_str(&outside::run(&python, folder.path(), script, "")).expect("JSON");
    assert_eq!((&read["rows"], &read["clicks"]), (&15.into(), &5.into()));
    // Rows 1, 2 and 3 of four have so many contributions, and row 2 of them an empty one.
    assert_eq!(read["contributions"], (0..15_u64).map(|row| (row % 4).saturating_sub(1)).sum::<u64>());
    assert_eq!(read["dates"], serde_json::json!(["2024-10-03", "2024-10-04", "2024-10-05", "2024-10-06"]));
    let other = Column::optional("churn_risk", ColumnType::Text, "", "Was a number");
    let refused = lake.check(&TableSchema::decisions(vec![other])).expect_err("another type");
    assert!(refused.to_string().contains("churn_risk"), "{refused}");
}

fn wider() -> TableSchema {
    let mut schema = sample_schema();
    schema.columns.insert(14, Column::optional("clicks", ColumnType::Number, "1", "Is new"));
    schema
}
