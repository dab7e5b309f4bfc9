//! A Python with confluent-kafka, deltalake, DuckDB, pandas, prometheus-client and pyarrow,
//! for tests that read tables, topics and metrics as a stranger would.

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The Python that `bin/setup --tests` has prepared, or the system's if it can do the same.
///
/// Where there is none, says so past the capture of test output, and fails where `CI` is set.
pub fn python(test: &str) -> Option<PathBuf> {
    let home = |variable, below: &str| env::var_os(variable).map(|home| Path::new(&home).join(below));
    let venv = env::var_os("WHISPERER_VENV").map(PathBuf::from);
    let venv =
        venv.or_else(|| home("XDG_CACHE_HOME", "whisperer/venv")).or_else(|| home("HOME", ".cache/whisperer/venv"));
    let own = env::var_os("WHISPERER_PYTHON").map(PathBuf::from);
    let candidates = [own, venv.map(|venv| venv.join("bin/python")), Some("python3".into())];
    let found = candidates.into_iter().flatten().find(|python| {
        let mut imports = Command::new(python);
        imports
            .args(["-c", "import confluent_kafka, deltalake, duckdb, pandas, prometheus_client, pyarrow"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        imports.status().is_ok_and(|status| status.success())
    });
    if found.is_none() {
        skipped(
            test,
            "no Python with confluent-kafka, deltalake, DuckDB, pandas, prometheus-client and pyarrow: run bin/setup --tests",
        );
        assert!(env::var_os("CI").is_none(), "CI runs every test");
    }
    found
}

/// Says on the terminal that a test was skipped; `eprintln!` would be captured, as the test passes.
pub fn skipped(test: &str, why: &str) {
    say(&format!("SKIPPED {test}: {why}"));
}

/// Says something on the terminal although the test passes.
pub fn say(text: &str) {
    // A terminal that has gone takes no test with it.
    let _ = writeln!(std::io::stderr(), "\n*** {text}");
}

/// Runs a script and ends at once: threads that deltalake leaves behind abort about one interpreter in fifty that
/// winds down in the ordinary way, after its answer is out.
const RUNNER: &str =
    "import os, runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__'); sys.stdout.flush(); os._exit(0)";

/// Runs a script in `folder` with `input` on its standard input; gives what it prints.
pub fn run(python: &Path, folder: &Path, script: &str, input: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(script);
    let mut child = Command::new(python);
    child
        .args(["-c", RUNNER])
        .arg(script)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = child.spawn().expect("Python starts");
    // Scripts read all of their input before they print.
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("the script reads");
    let output = child.wait_with_output().expect("Python ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}
