//! kcat writes what a job reads, and reads what it writes.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::{
    outside,
    running::{
        broker::{Broker, events},
        topics::{Wiring, job},
    },
};

/// Calls kcat, and lets `timeout` end it where it does not end by itself.
fn kcat(arguments: &[&str]) -> Output {
    let output = Command::new("timeout").args(["120", "kcat"]).args(arguments).output().expect("it starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Whether it is there; if not, says so on the terminal.
fn has_kcat(test: &str) -> bool {
    let has = Command::new("kcat").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !has {
        outside::skipped(test, "no kcat: run bin/setup --tests");
    }
    has
}

/// Writes events as lines of key and value, into a file.
fn lines(path: &Path) {
    let mut file = fs::File::create(path).expect("created");
    for record in events(10_000) {
        let key_and_tab = [record.key.as_bytes(), b"\t"].concat();
        file.write_all(&[&key_and_tab, &record.line[..], b"\n"].concat()).expect("written");
    }
}

#[test]
fn kcat_writes_and_reads() {
    // Goal: what kcat produces is read, and the ids that it consumes are those of the job's own file, in both deliveries.
    if !has_kcat("kcat_writes_and_reads") {
        return;
    }
    let broker = Broker::new();
    let (topic, folder) = (broker.topic("events"), tempfile::tempdir().expect("a temporary folder"));
    let path = folder.path().join("lines");
    lines(&path);
    let path = path.display().to_string();
    kcat(&["-P", "-b", &broker.address, "-t", &topic, "-K", "\t", "-l", &path]);
    for delivery in ["idempotent", "exactly_once"] {
        let (job, topics) = job(&broker, &topic, &Wiring { delivery, ..Wiring::default() });
        job.finish(&["--until-end"]);
        topics.await_committed(&broker);
        let isolation = "isolation.level=read_committed";
        let told =
            kcat(&["-C", "-b", &broker.address, "-t", &topics.decisions, "-e", "-q", "-X", isolation, "-f", "%k %h\n"]);
        let told = String::from_utf8(told.stdout).expect("text");
        let id = |line: &str| {
            let (key, header) = line.split_once(' ').expect("a key and a header");
            assert_eq!(header, format!("decision_id={key}"));
            key.to_owned()
        };
        let mut ids: Vec<String> = told.lines().map(id).collect();
        ids.sort_unstable();
        assert!(ids.len() > 50, "{delivery}: there is something to compare");
        assert_eq!(ids, job.outcome().decisions, "{delivery}");
    }
}
