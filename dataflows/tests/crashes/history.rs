//! History, then live: files up to a time and a topic from a little before it give what all events in files give.

use std::{fs, path::Path, time::Duration};

use whisperer_schemas::{Micros, time::format_micros};

use crate::{
    job::{Ended, Job, Random},
    kafka::{Broker, Event, generate, new_name, with_source},
    rounds,
};

const HOUR: Micros = 3_600_000_000;

/// Writes those events of each partition that `of` takes into a file of its own.
fn write(folder: &Path, events: &[Vec<Event>], of: impl Fn(&Event) -> bool) {
    fs::create_dir(folder).expect("a folder");
    for (partition, events) in events.iter().enumerate() {
        let lines = events.iter().filter(|event| of(event)).map(|event| [&event.line[..], b"\n"].concat());
        fs::write(folder.join(format!("{partition}.ndjson")), lines.collect::<Vec<_>>().concat()).expect("written");
    }
}

#[test]
fn files_and_then_a_topic_are_one_log() {
    // Goal: a hand-over amid the log, files that reach beyond it, a topic that begins before it, and kills on both sides of it, live and
    // bounded, on 1 to 3 workers: decisions and profiles are those of one run over everything.
    let events = generate(&["--disorder", "0", "--late", "0", "--malformed", "0"]);
    let mut times: Vec<Micros> = events.iter().flatten().map(|event| event.time).collect();
    times.sort_unstable();
    let until = times[times.len() / 2];
    let files = tempfile::tempdir().expect("a temporary folder");
    write(&files.path().join("all"), &events, |_| true);
    write(&files.path().join("history"), &events, |event| event.received < until + HOUR);
    let broker = Broker::new();
    let topic = new_name("events");
    broker.create(&topic);
    for (partition, of_partition) in events.iter().enumerate() {
        let later: Vec<Event> =
            of_partition.iter().filter(|event| event.received >= until - 3 * HOUR).cloned().collect();
        assert!(later.len() > 1000 && later.len() + 1000 < of_partition.len(), "there is something on both sides");
        broker.produce(&topic, partition as i32, &later);
    }

    let all = format!("connector = \"file\"\npath = \"{}/all/*.ndjson\"\npartitioned = true\n", files.path().display());
    let undisturbed = Job::edited("whole", |text| with_source(&text, &all));
    undisturbed.finish(&[]);
    let path = format!("{}/history/*.ndjson", files.path().display());
    let history =
        format!("history = {{ path = \"{path}\", until = \"{}\", partitioned = true }}\n", format_micros(until));
    let source = broker.source(&topic) + &history;
    let mut random = Random::new();
    let mut kills = 0;
    while kills < rounds().div_ceil(4) {
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
        job.assert_equals(&undisturbed, &format!("seed {}, {kills} kills", random.seed()));
    }
}
