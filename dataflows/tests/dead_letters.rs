//! Dead letters through the command line: listed with their reasons, replayed once and never again.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

/// Seven records: two events, and one dead letter each that a wider job admits (without an id, and with one), that has a null for an
/// id, that stays invalid, that is too large.
const EVENTS: &str = r#"{"event_id":"1","app_id":"shop","user_id":"ann","event_type":"page_viewed","timestamp":"2026-01-05T09:00:00Z"}
{"app_id":"shop","user_id":"ann","event_type":"page_teleported","timestamp":"2026-01-05T09:01:00Z"}
{"event_id":"3","app_id":"shop","user_id":"bob","event_type":"page_teleported","timestamp":"2026-01-05T09:02:00Z"}
{"event_id":null,"app_id":"shop","user_id":"bob","event_type":"page_teleported","timestamp":"2026-01-05T09:03:00Z"}
{"event_id":"5","app_id":"shop"
{"event_id":"6","app_id":"shop","user_id":"bob","event_type":"page_viewed","timestamp":"2026-01-05T09:05:00Z","properties":{"page":"LONG"}}
{"event_id":"7","app_id":"shop","user_id":"bob","event_type":"page_viewed","timestamp":"2026-01-05T09:06:00Z"}
"#;

fn job(event_types: &str) -> String {
    format!(
        "[job]\nname = \"shop\"\n[source]\nconnector = \"file\"\npath = \"events.ndjson\"\nids = \"any\"\n\
         event_types = {event_types}\nevent_bytes_max = 256\n[[feature]]\nname = \"events\"\naggregate = \"count\"\n\
         [[sink]]\nconnector = \"parquet\"\ntable = \"dead_letters\"\npath = \"lake\"\n"
    )
}

/// Calls the binary in `folder`; gives its exit code, stdout and stderr.
fn whisperer(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whisperer"));
    command.current_dir(folder).args(arguments).env("WHISPERER_LOG", "error");
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
    (status.code().expect("it was not killed"), stdout, stderr)
}

/// A folder in which the job has run.
fn ran() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("job.toml"), job("[]")).expect("written");
    fs::write(folder.path().join("events.ndjson"), EVENTS.replace("LONG", &"x".repeat(300))).expect("written");
    let (code, _, stderr) = whisperer(folder.path(), &["run", "job.toml"]);
    assert_eq!(code, 0, "{stderr}");
    folder
}

fn replay(folder: &Path, more: &[&str]) -> (i32, String) {
    let arguments = [&["dead-letters", "job.toml", "replay"], more].concat();
    let (code, stdout, stderr) = whisperer(folder, &arguments);
    assert_eq!(stdout, "");
    (code, stderr)
}

fn records(folder: &Path, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.join(file)).expect("the replay's file");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn dead_letters_are_listed_with_their_reasons() {
    // Goal: positions, reasons and records as text and as rows of the table, filtered by reason, counted on stderr.
    let folder = ran();
    let (code, stdout, stderr) = whisperer(folder.path(), &["dead-letters", "job.toml", "list"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("0:111  schema  unknown event_type \"page_teleported\""), "{stdout}");
    assert!(stderr.contains("5 of 5 dead letters shown: invalid_json 1, schema 3, too_large 1"), "{stderr}");
    let list = ["dead-letters", "job.toml", "list", "--reason", "schema", "--limit", "2", "--format", "json"];
    let (_, stdout, stderr) = whisperer(folder.path(), &list);
    let rows: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row["reason"] == "schema" && row["raw"].as_str().is_some()), "{rows:?}");
    assert!(stderr.contains("2 of 3 dead letters shown: schema 3"), "{stderr}");
    let (code, _, stderr) = whisperer(folder.path(), &["dead-letters", "job.toml", "list", "--reason", "shema"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("schema"), "{stderr}");
}

#[test]
fn what_is_an_event_by_now_is_replayed_once() {
    // Goal: after the job has learnt the event type, three of five dead letters are written, each with an id; a second replay has nothing
    // to write; what stays invalid or is cut is counted; a dry run changes nothing.
    let folder = ran();
    let folder = folder.path();
    let (code, stderr) = replay(folder, &["--to", "again.ndjson"]);
    assert_eq!((code, stderr.contains("0 records are in again.ndjson")), (0, true), "{stderr}");
    assert!(stderr.contains("3 are still no events: schema"), "{stderr}");
    assert!(!folder.join("again.ndjson").exists());
    fs::write(folder.join("job.toml"), job("[\"page_teleported\"]")).expect("written");
    let (_, stderr) = replay(folder, &["--to", "again.ndjson", "--dry-run"]);
    assert!(stderr.contains("3 records would be put into again.ndjson"), "{stderr}");
    assert!(!folder.join("again.ndjson").exists());
    let (_, stderr) = replay(folder, &["--to", "again.ndjson"]);
    assert!(stderr.contains("3 records are in again.ndjson"), "{stderr}");
    assert!(stderr.contains("1 are cut") && stderr.contains("1 are still no events: invalid_json"), "{stderr}");
    let ids: Vec<Value> = records(folder, "again.ndjson").iter().map(|record| record["event_id"].clone()).collect();
    assert_eq!(ids, ["0:111", "3", "0:326"]);
    let (_, stderr) = replay(folder, &["--to", "more.ndjson"]);
    assert!(stderr.contains("0 records are in more.ndjson"), "{stderr}");
    assert!(stderr.contains("3 were replayed before"), "{stderr}");
    let (code, stderr) = replay(folder, &["--to", "again.ndjson"]);
    assert_eq!((code, stderr.contains("is there already")), (2, true), "{stderr}");
}

#[test]
fn a_replay_that_was_interrupted_is_carried_out_first() {
    // Goal: with the ledger's entry written and the file not, as a crash leaves it, the next replay writes that file, and nothing twice.
    let folder = ran();
    let folder = folder.path();
    fs::write(folder.join("job.toml"), job("\"any\"")).expect("written");
    assert_eq!(replay(folder, &["--to", "first.ndjson"]).0, 0);
    let ledger = folder.join("lake/_replays/shop");
    let first = fs::read_to_string(folder.join("first.ndjson")).expect("the file");
    // Back to the moment before the file appeared.
    let lines: String = first.lines().map(|record| format!("0\t{record}\n")).collect();
    fs::write(ledger.join("00000001.records"), lines).expect("written");
    fs::remove_file(ledger.join("00000001.done")).expect("the replay was done");
    fs::remove_file(folder.join("first.ndjson")).expect("the file");
    let (code, stderr) = replay(folder, &["--to", "second.ndjson"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("replay 1 had been interrupted: its 3 records are in"), "{stderr}");
    assert_eq!(fs::read_to_string(folder.join("first.ndjson")).expect("carried out"), first);
    assert!(!folder.join("second.ndjson").exists());
}

#[test]
fn a_job_without_dead_letters_says_so() {
    // Goal: a job that keeps none is told how to.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let none = job("[]").replace("table = \"dead_letters\"", "table = \"decisions\"");
    fs::write(folder.path().join("job.toml"), none).expect("written");
    let (code, _, stderr) = whisperer(folder.path(), &["dead-letters", "job.toml", "list"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("table = \"dead_letters\""), "{stderr}");
}
