//! The benchmark itself, end to end on a tiny input: its figures are complete, and the engine and the program by hand agree.

use std::{path::Path, process::Command};

use serde_json::Value;
use whisperer_bench::decisions;

const EVENTS: u64 = 20_000;

fn throughput(folder: &Path) -> (String, Value) {
    let arguments = ["throughput", "--events", "20000", "--users", "2000", "--workers", "1,2", "--runs", "1"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_whisperer-bench"));
    command.args(arguments).args(["--name", "tiny", "--markdown", "--check"]);
    command.arg("--work").arg(folder.join("work")).arg("--results").arg(folder);
    let output = command.output().expect("the benchmark starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    let results = std::fs::read(folder.join("tiny.json")).expect("results");
    (String::from_utf8(output.stdout).expect("UTF-8"), serde_json::from_slice(&results).expect("JSON"))
}

#[test]
fn a_tiny_benchmark_runs_and_its_programs_agree() {
    // Goal: every case comes with all its figures, and the engine makes the very decisions of the program written by hand.
    let folder = tempfile::tempdir().expect("a folder");
    let (table, results) = throughput(folder.path());
    assert_eq!(table.lines().count(), 2 + 7, "head, rule and a row for each case:\n{table}");
    for key in ["command", "commit", "machine", "version", "input_bytes"] {
        assert!(!results[key].is_null(), "{key}");
    }
    let runs = results["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 7);
    for run in runs {
        assert_eq!(run["read"], EVENTS, "{run}");
        assert_eq!(run["duplicates"], runs[0]["duplicates"], "{run}");
        assert_eq!(run["users"], runs[0]["users"], "{run}");
        assert!(run["duplicates"].as_u64() > Some(100), "{run}");
        assert!(run["bytes_per_user"].as_f64() > Some(0.0), "{run}");
        assert!(run["seconds"].as_f64() > Some(0.0), "{run}");
    }
    the_same_decisions(&folder.path().join("work").join("output"));
}

/// By user, instant, score and features, number for number.
fn the_same_decisions(output: &Path) {
    let made = |case: &str| decisions::read(&output.join(case).join("decisions.ndjson")).expect("decisions");
    let by_hand = made("J-by-hand-2000-workers-1");
    assert!(by_hand.len() > 100, "{} decisions", by_hand.len());
    let midnight = |decision: &&decisions::Decision| decision.event_time.ends_with("T00:00:00Z");
    assert!(by_hand.iter().any(|decision| midnight(&decision)), "none was made by time alone");
    assert!(!by_hand.iter().all(|decision| midnight(&decision)), "none was made by an event");
    for workers in 1..=2 {
        let by_engine = made(&format!("J-2000-workers-{workers}"));
        assert_eq!(decisions::difference(&by_engine, &by_hand), None, "{workers} workers");
    }
}
