//! `whisperer export`: what is held on a user, all of it and nothing of others.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Output},
};

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;

const JOB: &str = r#"
[job]
name = "shop"
[source]
connector = "file"
path = "events.ndjson"
ids = "any"
[epoch]
records = 1
[checkpoint]
dir = "state"
interval_ms = 10
[[feature]]
name = "failures"
aggregate = "count"
where = "event_type = 'payment_failed'"
[[trigger]]
name = "failed"
when = "failures >= 2"
[[sink]]
connector = "parquet"
table = "profiles"
path = "lake"
[[sink]]
connector = "parquet"
table = "decisions"
path = "lake"
[[sink]]
connector = "parquet"
table = "dead_letters"
path = "lake"
[[sink]]
connector = "file"
path = "decisions.ndjson"
"#;

/// Calls the binary in `folder`; gives its exit code (none where it was killed), stdout and stderr.
fn whisperer(folder: &Path, arguments: &[&str], failpoint: Option<&str>) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whisperer"));
    command.current_dir(folder).args(arguments).env("WHISPERER_LOG", "error");
    command.envs(failpoint.map(|point| ("WHISPERER_FAILPOINT", point)));
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
    (status.code(), stdout, stderr)
}

fn export(folder: &Path, arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = whisperer(folder, &[&["export", "job.toml"], arguments].concat(), None);
    assert_eq!(code, Some(0), "{stderr}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

/// A folder with the job and its input: two users of two applications, of whom one has an id that begins like the other's.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("job.toml"), JOB).expect("written");
    let event = |(number, (app, user, kind)): (usize, (&str, &str, &str))| {
        let time = format!("2026-01-05T09:{number:02}:00Z");
        format!(
            r#"{{"event_id":"{number}","app_id":"{app}","user_id":"{user}","event_type":"{kind}","timestamp":"{time}"}}"#
        )
    };
    let events = [
        ("shop", "ann", "payment_failed"),
        ("shop", "ann2", "payment_failed"),
        ("shop", "ann", "payment_failed"),
        ("cafe", "ann", "page_viewed"),
        ("shop", "ann2", "payment_failed"),
        ("shop", "ann", "no_such_type"),
        ("shop", "ann2", "no_such_type"),
        ("shop", "ann", "page_viewed"),
    ];
    let lines: Vec<String> = events.into_iter().enumerate().map(event).collect();
    fs::write(folder.path().join("events.ndjson"), lines.join("\n")).expect("written");
    folder
}

fn rows<'a>(held: &'a Value, table: &str) -> &'a Vec<Value> {
    held[table].as_array().unwrap_or_else(|| panic!("no {table} in {held}"))
}

#[test]
fn everything_that_is_held_on_a_user_is_written_down() {
    // Goal: after a run the rows of the tables, the dead letters that carry the id and the state of the checkpoint, of all applications or
    // of one; nothing of a user whose id begins alike; as JSON and as Parquet.
    let folder = folder();
    let folder = folder.path();
    let ran = whisperer(folder, &["run", "job.toml"], None);
    assert_eq!(ran.0, Some(0), "{}", ran.2);
    let held = export(folder, &["ann"]);
    let counts = |held: &Value| ["profiles", "decisions", "dead_letters", "state"].map(|table| rows(held, table).len());
    assert_eq!(counts(&held), [2, 1, 1, 2], "{held:#}");
    assert!(!held.to_string().contains("ann2"));
    assert_eq!(held["elsewhere"], serde_json::json!(["file decisions.ndjson"]));
    for (profile, state) in rows(&held, "profiles").iter().zip(rows(&held, "state")) {
        let same = ["app_id", "user_id", "failures", "key_clock", "triggers", "timers"];
        assert!(same.iter().all(|name| profile[name] == state[name]), "{profile} and {state}");
    }
    let held = export(folder, &["ann", "--app", "cafe"]);
    assert_eq!(counts(&held), [1, 0, 1, 1], "{held:#}");
    let (code, _, told) = whisperer(folder, &["export", "job.toml", "ann", "--to", "out"], None);
    assert_eq!((code, told.contains("profiles 2, decisions 1, dead_letters 1, state 2")), (Some(0), true), "{told}");
    for (table, count) in [("profiles", 2), ("decisions", 1), ("dead_letters", 1), ("state", 2)] {
        let file = File::open(folder.join(format!("out/{table}.parquet"))).expect("a file");
        let metadata = SerializedFileReader::new(file).expect("Parquet").metadata().file_metadata().num_rows();
        assert_eq!(metadata, count, "{table}");
    }
    assert!(folder.join("out/export.json").is_file());
    let (code, stdout, told) = whisperer(folder, &["export", "job.toml", "an"], None);
    assert_eq!(
        (code, stdout.as_str(), told.contains("nothing is held on the user \"an\"")),
        (Some(1), "", true),
        "{told}"
    );
}

#[test]
fn rows_that_wait_for_their_files_are_held() {
    // Goal: of a job that died before it closed any file, what its checkpoint keeps is found.
    let folder = folder();
    let folder = folder.path();
    let died = whisperer(folder, &["run", "job.toml"], Some("manifest-created:9"));
    assert_eq!(died.0, None, "{}", died.2);
    assert!(!folder.join("lake/decisions").exists());
    let held = export(folder, &["ann", "--app", "shop"]);
    assert_eq!((rows(&held, "decisions").len(), rows(&held, "dead_letters").len()), (1, 1), "{held:#}");
    assert_eq!(rows(&held, "state")[0]["failures"], 2.0);
}
