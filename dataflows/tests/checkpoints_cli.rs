//! `whisperer checkpoints` and `whisperer check --against`, on what a small run with a state folder leaves.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

/// A job over generated events, cut small enough that a short input gives many checkpoints.
const JOB: &str = r#"
[job]
name = "shop"
[source]
connector = "generator"
events = 4000
users = 200
partitions = 2
[epoch]
records = 100
[checkpoint]
dir = "state"
interval_ms = 50
retain = 4
[[feature]]
name = "events_7d"
aggregate = "count"
window = "7d"
[[feature]]
name = "failures"
aggregate = "count"
where = "event_type = 'payment_failed'"
[[trigger]]
name = "busy"
when = "events_7d >= 5"
[[trigger]]
name = "failed"
when = "failures >= 1"
[[sink]]
connector = "parquet"
table = "decisions"
path = "lake"
"#;

/// Calls the binary in `folder`; gives its exit code, stdout and stderr.
fn whisperer(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whisperer"));
    command.current_dir(folder).args(arguments).env("WHISPERER_LOG", "error");
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
    (status.code().expect("it was not killed"), stdout, stderr)
}

/// The same, for a call that must succeed; gives stdout.
fn done(folder: &Path, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = whisperer(folder, arguments);
    assert_eq!(code, 0, "{arguments:?}\n{stdout}{stderr}");
    stdout
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// A folder in which the job has run to its end; and the digests of its tables.
fn ran() -> (tempfile::TempDir, Value) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("job.toml"), JOB).expect("written");
    let summary = json(&done(folder.path(), &["run", "job.toml", "--json"]));
    (folder, summary["digests"].clone())
}

fn list(folder: &Path) -> Vec<Value> {
    let all = json(&done(folder, &["checkpoints", "job.toml", "--format", "json", "list"]));
    all.as_array().expect("a list").clone()
}

/// The numbers of manifests of a standing, ascending.
fn numbers(folder: &Path, standing: &str) -> Vec<u64> {
    let all = list(folder).into_iter().filter(|one| one["standing"] == standing);
    all.map(|one| one["number"].as_u64().expect("a number")).collect()
}

#[test]
fn checkpoints_are_listed_inspected_and_verified() {
    // Goal: a finished run's manifests, with the job or with its folder alone; what one says; that the newest is whole, and a number that
    // is none is the caller's mistake.
    let (folder, _) = ran();
    let folder = folder.path();
    let live = numbers(folder, "live");
    assert!((4..=5).contains(&live.len()), "{live:?}");
    let text = done(folder, &["checkpoints", "--state", "state", "list"]);
    assert!(text.contains("generation") && text.contains(&live[0].to_string()), "{text}");
    let newest = live[live.len() - 1].to_string();
    let text = done(folder, &["checkpoints", "job.toml", "inspect", &newest]);
    for part in ["job \"shop\", version 1", "next offset by partition", "digest of decisions", "deltas"] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    let manifest = json(&done(folder, &["checkpoints", "job.toml", "inspect", &newest, "--format", "json"]));
    assert_eq!(manifest["manifest"]["cut"]["positions"].as_object().map(serde_json::Map::len), Some(2));
    let verified = done(folder, &["checkpoints", "job.toml", "verify"]);
    assert!(verified.contains(&format!("checkpoint {newest} is whole: 200 states")), "{verified}");
    let (code, _, stderr) = whisperer(folder, &["checkpoints", "job.toml", "restore", "1000"]);
    assert_eq!((code, stderr.contains("1000")), (2, true), "{stderr}");
    let (code, _, stderr) = whisperer(folder, &["checkpoints", "--state", "nowhere", "list"]);
    assert_eq!((code, stderr.contains("no state folder \"nowhere\"")), (2, true), "{stderr}");
    assert_eq!(whisperer(folder, &["checkpoints", "list"]).0, 2);
}

#[test]
fn a_damaged_delta_is_found() {
    // Goal: a flipped byte in a file of a checkpoint makes `verify` fail and name the file.
    let (folder, _) = ran();
    let deltas = folder.path().join("state/deltas");
    let newest = fs::read_dir(&deltas).expect("deltas").map(|file| file.expect("a file").path()).max().expect("one");
    let mut bytes = fs::read(&newest).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).expect("written");
    let (code, _, stderr) = whisperer(folder.path(), &["checkpoints", "job.toml", "verify"]);
    let name = newest.file_name().expect("a name").to_string_lossy().into_owned();
    assert_eq!((code, stderr.contains(&name)), (1, true), "{stderr}");
}

#[test]
fn a_job_is_sent_back() {
    // Goal: what is out already is not repeated unasked; once asked, the next run starts from the checkpoint, ends with the same digests,
    // and what lay between is left behind.
    let (folder, digests) = ran();
    let folder = folder.path();
    let live = numbers(folder, "live");
    let (oldest, between) = (live[0].to_string(), live[1]);
    let restore = ["checkpoints", "job.toml", "restore", &oldest];
    let (code, _, stderr) = whisperer(folder, &restore);
    assert_eq!((code, stderr.contains("--repeat-outputs")), (2, true), "{stderr}");
    assert_eq!(numbers(folder, "live"), live);
    let (code, _, stderr) = whisperer(folder, &[&restore[..], &["--repeat-outputs"]].concat());
    assert_eq!((code, stderr.contains(&format!("starts from checkpoint {oldest}"))), (0, true), "{stderr}");
    assert_eq!(numbers(folder, "live"), live[..1]);
    let summary = json(&done(folder, &["run", "job.toml", "--json"]));
    assert_eq!(summary["digests"], digests);
    assert!(!numbers(folder, "live").contains(&between));
}

#[test]
fn an_edited_job_is_held_against_its_state() {
    // Goal: what is kept, dropped, empty, silent and warming is told for an edited job, as text and as JSON; for the same job all is kept.
    let (folder, _) = ran();
    let folder = folder.path();
    let same = done(folder, &["check", "job.toml", "--against", "state"]);
    assert_eq!(same.lines().count(), 4, "{same}");
    assert!(same.lines().all(|line| line.trim_end().ends_with("kept")), "{same}");
    let edited = JOB.replace("events_7d >= 5", "events_30d >= 5").replace(
        "name = \"events_7d\"\naggregate = \"count\"\nwindow = \"7d\"",
        "name = \"events_30d\"\naggregate = \"count\"\nwindow = \"30d\"",
    );
    fs::write(folder.join("edited.toml"), edited).expect("written");
    let against = ["check", "edited.toml", "--against", "state", "--format", "json"];
    let told = json(&done(folder, &against));
    let fates: Vec<(&str, &str)> = told["changes"]
        .as_array()
        .expect("changes")
        .iter()
        .map(|change| (change["name"].as_str().expect("a name"), change["fate"].as_str().expect("a fate")))
        .collect();
    let expected = [
        ("events_30d", "starts_empty"),
        ("failures", "kept"),
        ("busy", "silent_first_edge"),
        ("failed", "kept"),
        ("events_7d", "dropped"),
    ];
    assert_eq!(fates, expected);
    assert_eq!(told["changes"][2]["warms_for"], "30d");
    let text = done(folder, &["check", "edited.toml", "--against", "state"]);
    assert!(text.contains("silent first edge, then suppressed as warming for 30d"), "{text}");
    let other = JOB.replace("name = \"shop\"", "name = \"other\"");
    fs::write(folder.join("other.toml"), other).expect("written");
    let (code, _, stderr) = whisperer(folder, &["check", "other.toml", "--against", "state"]);
    assert_eq!((code, stderr.contains("that of the job \"shop\"")), (2, true), "{stderr}");
}
