//! The hot path does not grow unnoticed: instructions per event against those that are kept with the sources.

use std::{path::Path, process::Command};

#[test]
fn an_event_costs_no_more_than_what_is_kept() {
    // Goal: the hot path costs at most 5 % more instructions than what is kept with the sources; that more is told is a test of its own, in
    // the module. Method: the command itself, as anyone would call it.
    let work = tempfile::tempdir().expect("a folder");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    let mut command = Command::new(env!("CARGO_BIN_EXE_whisperer-bench"));
    command.args(["instructions", "--check", "--work"]).arg(work.path()).arg("--results").arg(&kept);
    let output = command.output().expect("the benchmark starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    if said.contains("NOT CHECKED") {
        // Past the capture of what passing tests print.
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "\n*** {said}");
    }
}
