//! History, then live: files up to a time and a topic from a little before it give what all events in files give.

use std::{fs, path::Path, time::Duration};

use serde_json::Value;
use whisperer_schemas::{
    Micros,
    time::{format_micros, parse_rfc3339},
};

use crate::{
    outside, rounds,
    running::{
        broker::{Broker, PARTITIONS, Record, events_with},
        columns,
        job::{Ended, Job, Random},
    },
};

const HOUR: Micros = 3_600_000_000;

/// When an event happened.
fn time(event: &Record) -> Micros {
    let event: Value = serde_json::from_slice(&event.line).expect("JSON");
    event["timestamp"].as_str().and_then(|time| parse_rfc3339(time.as_bytes())).expect("a time")
}

/// Writes those events of each partition that `of` takes into a file of its own, as lines and as columns.
fn write(folder: &Path, events: &[Record], of: impl Fn(&Record) -> bool) {
    fs::create_dir(folder).expect("a folder");
    for partition in 0..PARTITIONS {
        let own = events.iter().filter(|event| event.partition == partition && of(event));
        let lines: Vec<Vec<u8>> = own.map(|event| [&event.line[..], b"\n"].concat()).collect();
        columns::write(&folder.join(format!("{partition}.parquet")), &lines.concat());
        fs::write(folder.join(format!("{partition}.ndjson")), lines.concat()).expect("written");
    }
}

/// A job with another source.
fn with_source(job: &str, source: &str) -> String {
    let (before, rest) = job.split_once("[source]").expect("a source");
    let after = &rest[rest.find("\n[").expect("a section behind it")..];
    format!("{before}[source]\n{source}{after}")
}

#[test]
fn files_and_then_a_topic_are_one_log() {
    // Goal: a hand-over amid the log, files that reach beyond it, a topic that begins before it, and kills on both sides of it, live and
    // bounded, on 1 to 3 workers: decisions and profiles are those of one run over everything, be the files lines or columns.
    let events = events_with(40_000, &["--disorder", "0", "--late", "0", "--malformed", "0"]);
    let mut times: Vec<Micros> = events.iter().map(time).collect();
    times.sort_unstable();
    let until = times[times.len() / 2];
    let files = tempfile::tempdir().expect("a temporary folder");
    write(&files.path().join("all"), &events, |_| true);
    write(&files.path().join("history"), &events, |event| event.millis * 1000 < until + HOUR);
    let later: Vec<&Record> = events.iter().filter(|event| event.millis * 1000 >= until - 3 * HOUR).collect();
    assert!(later.len() > 1000 && later.len() + 1000 < events.len(), "there is something on both sides");
    let broker = Broker::new();
    if broker.mock.is_some() {
        let test = "files_and_then_a_topic_are_one_log";
        return outside::skipped(
            test,
            "the mock cluster knows no record by its time: set WHISPERER_KAFKA (bin/broker up)",
        );
    }
    let topic = broker.topic("events");
    let feed = broker.producer();
    feed.send(&topic, later);
    feed.flush();

    let folder = files.path().display();
    let all = format!("connector = \"file\"\npath = \"{folder}/all/*.ndjson\"\npartitioned = true\n");
    let undisturbed = Job::edited("whole", |text| with_source(&text, &all));
    undisturbed.finish(&[]);
    let history = |kind: &str| {
        format!("path = \"{folder}/history/*.{kind}\", until = \"{}\", partitioned = true", format_micros(until))
    };
    let of_topic = format!("connector = \"kafka\"\nbrokers = \"{}\"\ntopic = \"{topic}\"\n", broker.address);
    let mut random = Random::new();
    let (mut kills, mut kinds) = (0, ["ndjson", "parquet"].into_iter().cycle().enumerate());
    while let Some((at, kind)) = kinds.next().filter(|(at, _)| *at < 2 || kills < rounds().div_ceil(4)) {
        let source = format!("{of_topic}history = {{ {} }}\n", history(kind));
        let job = Job::edited("history", |text| with_source(&text, &source));
        let mut attempts = 0;
        loop {
            let workers = (1 + random.below(3)).to_string();
            // A live job does not end: each second start is a bounded one.
            let flags = ["--workers", &workers, "--until-end"];
            let flags = if attempts % 2 == 0 { &flags[..2] } else { &flags[..] };
            attempts += 1;
            match job.run_for(flags, &[], Duration::from_millis(300 + random.below(1200) + 200 * attempts)) {
                Ended::Done => break,
                Ended::Killed => kills += 1,
                Ended::Failed(code, told) => panic!("seed {}: exit code {code}: {told}", random.seed()),
            }
        }
        job.assert_equals(&undisturbed, &format!("seed {}, job {at} from {kind}, {kills} kills", random.seed()));
    }
}
