//! A reader that watches all the while a job is killed and goes on.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    outside,
    running::{
        broker::{Broker, PATIENCE, events},
        job::{Ended, Job, Process, Random},
        topics::{Told, Wiring, job},
    },
};

/// Kills of the test.
const KILLS: u64 = 5;

const FLAGS: [&str; 3] = ["--until-end", "--workers", "2"];

/// A watching Python. It bounds its own waits.
struct Watcher {
    _process: Process,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Watcher {
    fn start(python: &Path, broker: &Broker, topic: &str) -> Watcher {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/outside/kafka_watch.py");
        let mut command = Command::new(python);
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(command);
        let (ask, answers) = (process.stdin.take().expect("a pipe"), process.stdout.take().expect("a pipe"));
        let mut watcher = Watcher { _process: process, ask, answers: BufReader::new(answers) };
        assert_eq!(watcher.ask(&json!({"brokers": broker.address, "topic": topic}).to_string()), "watching");
        watcher
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.ask, "{question}").expect("it listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("it answers");
        answer.trim_end().to_owned()
    }

    /// The ids that it has seen, once it has seen all that are committed.
    fn seen(&mut self) -> Vec<String> {
        serde_json::from_str(&self.ask("seen")).expect("ids")
    }
}

/// Waits until a checkpoint counts more decisions than at the start, or the job has ended.
fn await_decisions(job: &Job, child: &mut Process) {
    let (before, started) = (job.decisions_committed(), Instant::now());
    while job.decisions_committed() <= before && !child.has_ended() {
        assert!(started.elapsed() < PATIENCE, "no decision is committed: {}", job.log());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_reader_sees_only_what_is_committed() {
    // Goal: with `exactly_once`, a `read_committed` reader that watches while the job is killed -9 and goes on sees after each kill at most
    // what the newest checkpoint counts, so nothing that the crash takes back, and at the end each decision once.
    let test = "a_reader_sees_only_what_is_committed";
    let Some(python) = outside::python(test) else { return };
    let broker = Broker::new();
    if broker.mock.is_some() {
        return outside::skipped(test, "the mock cluster shows open transactions: set WHISPERER_KAFKA (bin/broker up)");
    }
    let topic = broker.topic("events");
    let feed = broker.producer();
    feed.send(&topic, &events(40_000));
    feed.flush();
    let wiring = Wiring { delivery: "exactly_once", ..Wiring::default() };
    let (job, topics) = job(&broker, &topic, &wiring);
    let mut watcher = Watcher::start(&python, &broker, &topics.decisions);
    let (mut random, mut amid) = (Random::new(), 0);
    for kill in 0..KILLS {
        let mut child = job.start(&FLAGS, &[]);
        await_decisions(&job, &mut child);
        thread::sleep(Duration::from_millis(random.below(150)));
        // One that has come to its end cannot be killed any more.
        let _ = child.kill();
        match job.ended(child) {
            Ended::Killed => {}
            Ended::Done => break,
            Ended::Failed(code, told) => panic!("seed {}: exit code {code}: {told}", random.seed()),
        }
        let (seen, committed) = (watcher.seen().len() as u64, job.decisions_committed());
        assert!(seen <= committed, "seed {}, kill {kill}: {seen} seen, {committed} committed", random.seed());
        amid += u64::from(seen > 0);
    }
    job.finish(&FLAGS);
    topics.await_committed(&broker);
    let mut seen = watcher.seen();
    let last = job.decisions_committed();
    assert!(amid > 0, "seed {}: no kill came amid the decisions", random.seed());
    assert_eq!(seen.len() as u64, last, "seed {}", random.seed());
    seen.sort_unstable();
    let told = Told::read(&broker, &topics);
    let ids: Vec<&String> = told.decisions.iter().map(|(id, _)| id).collect();
    assert!(seen.iter().eq(ids), "seed {}: what was seen is what is there", random.seed());
    assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "seed {}: an id twice", random.seed());
    assert_eq!(seen, job.outcome().decisions, "seed {}", random.seed());
}
