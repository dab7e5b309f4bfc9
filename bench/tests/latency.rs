//! The benchmark of latencies itself, end to end on librdkafka's mock cluster: it tells nothing of a broker, but every decision is accounted
//! for, with checkpoints and without.

use std::{path::Path, process::Command};

use serde_json::Value;

const RATE: u64 = 2_000;
const SECONDS: u64 = 2;
const BACKLOG: u64 = 20_000;

fn latency(folder: &Path) -> (String, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whisperer-bench"));
    command.args(["latency", "--mock", "--jobs", "j", "--checkpoints", "0,500", "--deliveries", "idempotent"]);
    command.args(["--rates", &RATE.to_string(), "--seconds", &SECONDS.to_string(), "--warm-up", "1"]);
    command.args(["--backlog", &BACKLOG.to_string(), "--runs", "1", "--name", "tiny", "--markdown"]);
    command.arg("--work").arg(folder.join("work")).arg("--results").arg(folder);
    let output = command.output().expect("the benchmark starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    let results = std::fs::read(folder.join("tiny.json")).expect("results");
    (String::from_utf8(output.stdout).expect("UTF-8"), serde_json::from_slice(&results).expect("JSON"))
}

#[test]
fn a_tiny_benchmark_accounts_for_every_decision() {
    // Goal: each event that is to lead to a decision does, once, and its latency is counted; the echo comes back; a backlog is read whole.
    let folder = tempfile::tempdir().expect("a folder");
    let (tables, results) = latency(folder.path());
    assert_eq!(tables.lines().filter(|line| line.contains("every 500 ms")).count(), 2, "{tables}");
    for key in ["command", "commit", "machine", "version", "broker", "users"] {
        assert!(!results[key].is_null(), "{key}");
    }
    let rows = results["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2);
    for row in rows {
        // One event in a hundred decides, but for those of a user whose last one did too.
        let expected = row["expected"].as_u64().expect("a number");
        assert!((RATE * SECONDS / 150..=RATE * SECONDS / 100).contains(&expected), "{row}");
        assert_eq!(row["decision_ms"]["samples"], expected, "{row}");
        for none in ["missing", "doubled", "refused", "echo_missing"] {
            assert_eq!(row[none], 0, "{none}: {row}");
        }
        assert!(row["echo_ms"]["samples"].as_u64() > Some(900), "{row}");
        assert!(row["decision_ms"]["p50"].as_f64() > Some(0.0), "{row}");
        assert!(row["epoch_p99_ms"].as_f64() > Some(0.0), "the engine tells how long its epochs take: {row}");
    }
    let readings = results["readings"].as_array().expect("readings");
    assert_eq!(readings.len(), 2);
    assert!(readings.iter().all(|reading| reading["events"] == BACKLOG), "{readings:?}");
}
