//! The benchmark of views itself, end to end on a tiny input.

use std::process::Command;

use serde_json::Value;

#[test]
fn a_tiny_benchmark_tells_what_views_take() {
    // Goal: the job without views and with each number of them comes with its figures, and views take memory of each user.
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_whisperer-bench"));
    command.args(["views", "--events", "20000", "--users", "2000", "--views", "3,20", "--runs", "1", "--name", "tiny"]);
    command.arg("--work").arg(folder.path().join("work")).arg("--results").arg(folder.path());
    let output = command.output().expect("the benchmark starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results = std::fs::read(folder.path().join("tiny.json")).expect("results");
    let results: Value = serde_json::from_slice(&results).expect("JSON");
    let summary = results["summary"].as_array().expect("a summary");
    let views: Vec<_> = summary.iter().filter_map(|found| found["views"].as_u64()).collect();
    assert_eq!(views, [0, 3, 20]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1 + 3);
    let bytes: Vec<_> = summary.iter().filter_map(|found| found["bytes_per_user"].as_f64()).collect();
    assert!(bytes[0] > 0.0 && bytes[0] < bytes[1] && bytes[1] < bytes[2], "{bytes:?}");
}
