//! Golden cases: `golden/<case>/job.toml` over `input.jsonl` makes the decisions in `expected.jsonl`.
//!
//! The head of each job file says what is to happen and why. Each case runs straight through and then cut into small epochs on three
//! workers. `UPDATE_GOLDEN=1` writes the expectations anew; read what changed before you believe it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use whisperer_connectors::{EpochSize, file::FileSource};
use whisperer_dataflows::{
    job_file::{self, Overrides, SinkSettings, SourceSettings},
    runtime::{Outputs, Run},
};
use whisperer_operators::job::CompiledJob;
use whisperer_sinks::Existing;

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = fs::read_dir(folder).expect("the cases are there");
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    cases.sort();
    cases
}

/// Runs a case and gives its decisions as sorted lines, without the columns that begin with `_`, which tell how and when the input was read.
fn decisions(case: &Path, workers: usize, epoch_size: EpochSize) -> String {
    let loaded = job_file::load_with(&case.join("job.toml"), &Overrides::default(), CompiledJob::new);
    let (file, job) = loaded.unwrap_or_else(|errors| panic!("{}", errors.render()));
    let SourceSettings::File(mut options) = file.source else { panic!("a case reads a file") };
    options.epoch_size = epoch_size;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("decisions.ndjson");
    let run = Run {
        workers,
        ..Run::new(
            Arc::new(job),
            Arc::new(FileSource::new(options).expect("the input is there")),
            file.format,
            Outputs::new(vec![SinkSettings::File { path: path.clone() }], Existing::Refuse, String::new()),
        )
    };
    run.execute().unwrap_or_else(|error| panic!("{}: {error}", case.display()));
    let text = fs::read_to_string(path).unwrap_or_default();
    let without = |line: &str| match line.find(r#","_position":"#) {
        Some(at) => format!("{}}}\n", &line[..at]),
        None => panic!("a decision has a position: {line}"),
    };
    let mut lines: Vec<String> = text.lines().map(without).collect();
    lines.sort_by_key(|line| order(line));
    lines.concat()
}

/// Firing time, user and trigger, so that a case reads from top to bottom.
fn order(line: &str) -> (String, String, String) {
    let row: serde_json::Value = serde_json::from_str(line).expect("a decision is JSON");
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    (text("event_time"), text("user_id"), text("trigger"))
}

#[test]
fn every_case_makes_its_decisions() {
    // Goal: the decisions of each case are those in its file, whatever the cut and the number of workers.
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = String::new();
    for case in cases() {
        let expected = case.join("expected.jsonl");
        let made = decisions(&case, 1, EpochSize::Bytes(1 << 20));
        if update {
            fs::write(&expected, &made).expect("the expectation is written");
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        let cut = decisions(&case, 3, EpochSize::Bytes(100));
        for (how, made) in [("straight through", made), ("in small epochs on three workers", cut)] {
            if made != expected {
                wrong += &format!("{}, {how}:\n{made}expected:\n{expected}", case.display());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_case_is_whole() {
    // Goal: a case without decisions or without words would show nothing.
    let cases = cases();
    assert!(cases.len() >= 8);
    for case in cases {
        for name in ["job.toml", "input.jsonl", "expected.jsonl"] {
            let text = fs::read_to_string(case.join(name)).unwrap_or_default();
            assert!(!text.is_empty(), "{} has no {name}", case.display());
            assert!(name != "job.toml" || text.starts_with("# "), "{} does not say what it shows", case.display());
        }
    }
}
