//! Files that are closed now and then: rows wait in checkpoints meanwhile, and no crash loses or doubles them.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    kill_until_done, rounds,
    running::job::{Ended, Job, Random},
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A `commit_interval` that every checkpoint comes after.
const ALWAYS: &str = "1us";

/// Gives every table of a job a `commit_interval` and a log.
fn filed(interval: &str, log: &str) -> impl FnOnce(String) -> String {
    let keys = format!("path = \"data/lake\"\ncommit_interval = \"{interval}\"\nlog = \"{log}\"\n");
    move |text| text.replace("path      = \"data/lake\"\n", &keys)
}

/// The kinds of log that this build has.
fn logs() -> &'static [&'static str] {
    if cfg!(feature = "delta") { &["none", "delta"] } else { &["none"] }
}

/// Files of a table that readers see.
fn files(job: &Job, table: &str) -> usize {
    fn below(folder: &Path) -> usize {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let count = |path: std::path::PathBuf| match path.extension() {
            _ if path.ends_with("_delta_log") => 0,
            _ if path.is_dir() => below(&path),
            Some(ending) => usize::from(ending == "parquet"),
            None => 0,
        };
        entries.map(count).sum()
    }
    below(&job.folder().join("out").join(table))
}

/// The newest checkpoint of a job.
fn newest_cut(job: &Job) -> Value {
    let manifests = job.folder().join("state/manifests");
    let cut = |number: u64| {
        let text = fs::read_to_string(manifests.join(format!("{number:020}.json"))).ok()?;
        let manifest: Value = serde_json::from_str(text.lines().next()?).ok()?;
        manifest.get("cut").filter(|cut| !cut.is_null()).cloned()
    };
    (1..=job.manifest_max()).rev().find_map(cut).expect("a checkpoint")
}

#[test]
fn files_of_many_checkpoints_are_closed_together() {
    // Goal: with checkpoints more often than `commit_interval` a table has a file per worker and date, closed at the end of the input, and
    // none before; with an interval that is always over it has files of each checkpoint. What is in the tables is the same.
    for log in logs() {
        let each = Job::edited("each", filed(ALWAYS, log));
        each.finish(&[]);
        let job = Job::edited("together", filed("60s", log));
        job.begin(&["--workers", "2"]);
        assert_eq!(files(&job, "profiles"), 0, "nothing is closed yet");
        assert!(newest_cut(&job)["rows"].as_array().is_some_and(|rows| !rows.is_empty()), "the rows wait");
        let job = Job::edited("together", filed("60s", log));
        job.finish(&[]);
        job.assert_equals(&each, log);
        assert_eq!(newest_cut(&job)["rows"], Value::Null, "all rows are in files at the end");
        let dates = fs::read_dir(job.folder().join("out/profiles")).expect("dates").flatten();
        let dates = dates.filter(|date| date.file_name().to_string_lossy().starts_with("as_of_date=")).count();
        assert_eq!(files(&job, "profiles"), dates);
        assert_eq!(files(&job, "dead_letters"), 1);
        assert!(files(&each, "dead_letters") > 10, "{} files", files(&each, "dead_letters"));
    }
}

#[test]
fn rows_that_wait_for_their_files_survive_crashes() {
    // Goal: kill -9 at random moments on 1 to 3 workers loses no row that is in no file yet and doubles none, whatever the interval, with a
    // table log and without.
    let undisturbed = Job::new("undisturbed");
    undisturbed.finish(&["--workers", "2"]);
    let (mut random, mut kills, mut at) = (Random::new(), 0, 0);
    while kills < rounds().div_ceil(2) || at < 4 {
        let interval = ["60s", "150ms", "400ms"][at % 3];
        let log = logs()[at % logs().len()];
        let job = Job::edited("waiting", filed(interval, log));
        kills += kill_until_done(&job, &mut random);
        job.assert_equals(&undisturbed, &format!("seed {}, {interval}, log {log}, {kills} kills", random.seed()));
        at += 1;
    }
}

/// Whether a checkpoint of a remote store lists rows in a delta that is a part of the base.
fn keeps_merged_deltas(remote: &Path) -> bool {
    let manifests = fs::read_dir(remote.join("manifests")).into_iter().flatten().flatten();
    let texts = manifests.filter_map(|file| fs::read_to_string(file.path()).ok());
    let mut cuts =
        texts.filter_map(|text| Some(serde_json::from_str::<Value>(text.lines().next()?).ok()?["cut"].clone()));
    cuts.any(|cut| {
        let base = cut["base"]["epoch"].as_u64();
        cut["rows"].as_array().into_iter().flatten().any(|file| file["epoch"].as_u64() <= base)
    })
}

#[test]
fn rows_that_wait_are_found_on_an_empty_machine() {
    // Goal: the remote store alone brings them back. Method: checkpoints are merged into the base, so that deltas are kept for their rows
    // alone; then the state folder is lost.
    let undisturbed = Job::new("undisturbed");
    undisturbed.finish(&[]);
    let remote = tempfile::tempdir().expect("a temporary folder");
    let url = format!("file://{}", remote.path().display());
    let edit = |text: String| format!("{}remote = \"{url}\"\n", filed("60s", "none")(text));
    let job = Job::edited("lost", edit);
    let mut child = job.start(&["--workers", "2"], &[]);
    let started = Instant::now();
    while !keeps_merged_deltas(remote.path()) {
        assert!(
            !child.has_ended() && started.elapsed() < PATIENCE,
            "no delta is kept for its rows alone: {}",
            job.log()
        );
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("it runs");
    assert!(matches!(job.ended(child), Ended::Killed));
    fs::remove_dir_all(job.folder().join("state")).expect("removed");
    job.finish(&["--workers", "3"]);
    job.assert_equals(&undisturbed, "from the remote store");
}

#[test]
fn a_damaged_delta_of_rows_is_found() {
    // Goal: `checkpoints verify` reads the deltas that are kept for their rows, and names one that is damaged.
    let job = Job::edited("damaged", filed("60s", "none"));
    let verify = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_whisperer"));
        command.args(["checkpoints", "--state", "state", "verify"]).current_dir(job.folder());
        command.output().expect("it runs")
    };
    job.begin(&[]);
    assert!(verify().status.success());
    let cut = newest_cut(&job);
    let name = cut["rows"][0]["name"].as_str().expect("a delta with rows").to_owned();
    let path = job.folder().join("state").join(&name);
    let mut bytes = fs::read(&path).expect("readable");
    let at = bytes.windows(4).position(|word| word == b"WROW").expect("rows") + 8;
    bytes[at] ^= 1;
    fs::write(&path, bytes).expect("written");
    let verified = verify();
    let told = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(!verified.status.success() && told.contains(&name), "{told}");
}

#[test]
fn a_stop_closes_the_files() {
    // Goal: a job that is asked to stop leaves no rows waiting; those who read its tables then see all that its checkpoint counts.
    let job = Job::edited("stopped", filed("60s", "none"));
    let child = job.start(&["--workers", "1"], &[]);
    while job.manifest_max() < 5 {
        thread::sleep(Duration::from_millis(2));
    }
    child.signal("TERM");
    job.assert_done(child);
    let cut = newest_cut(&job);
    assert_eq!((&cut["rows"], &cut["finished"]), (&Value::Null, &Value::Bool(false)));
    assert!(files(&job, "profiles") > 0);
}

#[cfg(feature = "kafka")]
mod live {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    use super::{filed, files, newest_cut};
    use crate::running::{
        broker::{self, Broker, PATIENCE},
        job::{Ended, Job, Process},
    };

    /// Waits until a job has as many manifests.
    fn await_manifests(job: &Job, child: &mut Process, number: u64) {
        let started = Instant::now();
        while job.manifest_max() < number {
            assert!(!child.has_ended() && started.elapsed() < PATIENCE, "no manifest {number}: {}", job.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_live_job_closes_its_files_by_the_clock() {
        // Goal: a live job that takes a checkpoint every 100 ms has no file before its `commit_interval` is over, whether it is killed
        // meanwhile or not; the first checkpoint after a kill closes what was taken over; `--until-end` closes the rest, and the tables are
        // those of a job that closed files at each checkpoint.
        let broker = Broker::new();
        let events = broker.topic("events");
        let feed = broker.producer();
        feed.send(&events, &broker::events(40_000));
        feed.flush();
        let job = |name: &str, interval: &str| {
            let edit = filed(interval, "none");
            Job::edited(name, |text| {
                let text = edit(text).replace("[job]", "[job]\ndeliver_from = \"beginning\"");
                let (before, section) = text.split_once("[source]").expect("a source");
                let after = &section[section.find("\n[").expect("a section behind it")..];
                // Silence is not to move the clock of a live job on.
                let source =
                    format!("brokers = \"{}\"\ntopic = \"{events}\"\nidle_timeout_ms = 600000", broker.address);
                format!("{before}[source]\nconnector = \"kafka\"\n{source}\n{after}")
            })
        };
        let live = job("live", "300s");
        for _ in 0..2 {
            let closed = files(&live, "profiles");
            let mut child = live.start(&["--workers", "2"], &[]);
            let before = live.manifest_max();
            await_manifests(&live, &mut child, before + 12);
            let opened = newest_cut(&live);
            assert!(opened["counts"]["read"].as_u64() > Some(0), "it has read: {opened}");
            // What the run before left is closed at once, in files of that checkpoint alone.
            let now = files(&live, "profiles");
            assert!(if before == 0 { now == 0 } else { now > closed }, "{closed} files, then {now}");
            child.kill().expect("it runs");
            assert!(matches!(live.ended(child), Ended::Killed));
        }
        live.finish(&["--until-end"]);
        let each = job("each", super::ALWAYS);
        each.finish(&["--until-end", "--workers", "2"]);
        live.assert_equals(&each, "after two kills");
    }
}
