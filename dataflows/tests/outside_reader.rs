//! The tables as a stranger reads them: DuckDB counts in the Parquet of a small run what the run said.

mod outside;

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

/// Runs the main job on a small input, with its lake at `data/lake` below `folder`; gives the run's summary.
fn small_run(folder: &Path) -> Value {
    let job = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/jobs/engagement.toml");
    let mut run = Command::new(env!("CARGO_BIN_EXE_whisperer"));
    run.arg("run").arg(job).args(["--events", "50000", "--users", "4000", "--json"]).current_dir(folder);
    let output = run.env("WHISPERER_LOG", "error").stderr(Stdio::inherit()).output().expect("the binary runs");
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).expect("the summary is JSON")
}

#[test]
fn duckdb_counts_what_the_run_counted() {
    // Goal: users, stages, decisions and dead letters, counted in the Parquet by DuckDB, are those of the run's summary.
    let Some(python) = outside::python("duckdb_counts_what_the_run_counted") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let summary = small_run(folder.path());
    let counted: BTreeMap<String, u64> =
        serde_json::from_str(&outside::run(&python, folder.path(), "outside/counts.py", "")).expect("counts");
    assert_eq!((counted["misplaced"], counted["causeless"]), (0, 0));
    assert_eq!(counted["profiles"], counted["users"]);
    let said = summary["counts"].as_object().expect("counts");
    for (name, count) in said.iter().map(|(name, count)| (name, count.as_u64().expect("a count"))) {
        let in_tables = ["users", "stage.", "decisions.", "dead."].iter().any(|kind| name.starts_with(kind));
        if in_tables {
            assert_eq!(counted.get(name).copied().unwrap_or(0), count, "{name}");
        }
    }
    assert!(said.keys().filter(|name| name.starts_with("decisions.")).count() >= 6);
}
