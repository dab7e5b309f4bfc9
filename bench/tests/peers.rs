//! The comparison with other engines itself, end to end on a tiny input, with the one that needs no package.

use std::process::Command;

use serde_json::Value;

#[test]
fn peers_make_the_same_decisions() {
    // Goal: who has to make the engine's decisions is held against them, and every run comes with its cost.
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_whisperer-bench"));
    command
        .args(["peers", "--peers", "by-hand", "--events", "20000", "--users", "2000", "--runs", "2", "--name", "tiny"]);
    command.arg("--work").arg(folder.path().join("work")).arg("--results").arg(folder.path());
    let output = command.output().expect("the benchmark starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results = std::fs::read(folder.path().join("tiny.json")).expect("results");
    let results: Value = serde_json::from_slice(&results).expect("JSON");
    let runs = results["runs"].as_array().expect("runs");
    let told: Vec<_> = runs.iter().map(|run| (run["peer"].as_str(), run["agrees"].as_bool())).collect();
    let round = [(Some("whisperer"), None), (Some("by_hand"), Some(true))];
    assert_eq!(told, [round, round].concat());
    for run in runs {
        assert!(run["decisions"].as_u64() > Some(100) && run["cpu_seconds"].as_f64() > Some(0.0), "{run}");
    }
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1 + 2);
}
