//! Brokers that refuse, stall, move and go away while a live job reads from them and writes to them: librdkafka's mock cluster on demand.

use std::{
    fs,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    mocking::{MockCluster, MockCoordinator},
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey as Api, RDKafkaRespErr as Answer},
};

use crate::running::{
    broker::{Broker, PARTITIONS, Record, events},
    job::{Ended, Job, Outcome, Process},
    topics::{Told, Topics, Wiring, job},
};

type Mock = MockCluster<'static, DefaultProducerContext>;

/// Brokers of a cluster.
const BROKERS: i32 = 3;

/// Faults of a test, each of them followed by its part of the events.
const ROUNDS: usize = 12;
/// How long a job has with each.
const ROUND: Duration = Duration::from_millis(150);
/// How long it may take to tell something after the last fault, and to stop.
const PATIENCE: Duration = Duration::from_secs(120);

/// No silence: its advances would be in the ticks of one run and not of the other.
pub const SOURCE: &str = "idle_timeout_ms = 3600000";

/// Both deliveries.
pub const DELIVERIES: [&str; 2] = ["idempotent", "exactly_once"];

/// The events of all tests here.
pub fn all_events() -> &'static [Record] {
    static EVENTS: OnceLock<Vec<Record>> = OnceLock::new();
    EVENTS.get_or_init(|| events(20_000))
}

/// What an undisturbed run tells of them.
pub fn expected() -> &'static (Told, Outcome) {
    static EXPECTED: OnceLock<(Told, Outcome)> = OnceLock::new();
    EXPECTED.get_or_init(|| {
        let broker = Broker::mock(1);
        let topic = broker.topic("events");
        let feed = broker.producer();
        feed.send(&topic, all_events());
        feed.flush();
        undisturbed(&broker, &topic)
    })
}

/// What an undisturbed run tells of a topic.
pub fn undisturbed(broker: &Broker, topic: &str) -> (Told, Outcome) {
    let (job, topics) = job(broker, topic, &Wiring { delivery: "idempotent", source: SOURCE, ..Wiring::default() });
    job.finish(&["--until-end"]);
    (Told::read(broker, &topics), job.outcome())
}

/// A live job, and where it tells.
pub struct Live {
    pub delivery: &'static str,
    pub job: Job,
    pub topics: Topics,
    process: Process,
}

impl Live {
    pub fn start(broker: &Broker, events: &str, (delivery, properties): (&'static str, &str)) -> Live {
        let (job, topics) = job(broker, events, &Wiring { delivery, source: SOURCE, properties, views: false });
        let process = job.start(&["--workers", "2"], &[]);
        Live { delivery, job, topics, process }
    }

    /// Waits until it has opened its source and its sinks: what fails before is an error, by design.
    pub fn await_checkpoint(&mut self) {
        await_checkpoint(&self.job, &mut self.process);
    }

    pub fn assert_runs(&mut self, when: &str) {
        assert!(!self.process.has_ended(), "{}, {when}: it has ended: {}", self.delivery, self.job.log());
    }

    /// Waits until a checkpoint counts so many decisions, stops it, lets it read the rest, and compares what it has told.
    pub fn assert_unharmed(mut self, broker: &Broker, expected: &(Told, Outcome)) {
        let decisions = expected.0.decisions.len() / 2;
        let started = Instant::now();
        while (self.job.decisions_committed() as usize) < decisions {
            self.assert_runs("after the faults");
            let (committed, delivery) = (self.job.decisions_committed(), self.delivery);
            let waited = started.elapsed();
            assert!(waited < PATIENCE, "{delivery}: {committed} of {decisions} decisions: {}", self.job.log());
            thread::sleep(Duration::from_millis(10));
        }
        let Live { delivery, job, topics, process } = self;
        process.signal("TERM");
        match job.ended_within(process, PATIENCE) {
            Ended::Done => {}
            Ended::Killed => panic!("{delivery}: it does not stop: {}", job.log()),
            Ended::Failed(code, told) => panic!("{delivery}: exit code {code}: {told}"),
        }
        job.finish(&["--until-end"]);
        assert_equals(broker, &job, &topics, (expected, delivery));
    }
}

/// Compares topics, tables and digests with those of an undisturbed run.
fn assert_equals(broker: &Broker, job: &Job, topics: &Topics, ((told, outcome), what): (&(Told, Outcome), &str)) {
    Told::read(broker, topics).assert_equals(told, what);
    job.outcome().assert_equals(outcome, what);
}

/// Two live jobs, one of each delivery, read events that come in parts, while `fault` does its worst before each part.
fn endure(fault: impl Fn(&Mock, &[&str], usize)) {
    let broker = Broker::mock(BROKERS);
    let mock = broker.mock.as_ref().expect("a mock");
    let (topic, feed) = (broker.topic("events"), broker.producer());
    let mut jobs = DELIVERIES.map(|delivery| Live::start(&broker, &topic, (delivery, "")));
    let mut topics = vec![topic.as_str()];
    let told: Vec<Topics> = jobs.iter().map(|live| live.topics.clone()).collect();
    topics.extend(told.iter().flat_map(|told| [told.decisions.as_str(), &told.profiles, &told.dead_letters]));
    jobs.iter_mut().for_each(Live::await_checkpoint);
    for (round, part) in all_events().chunks(all_events().len().div_ceil(ROUNDS)).enumerate() {
        fault(mock, &topics, round);
        feed.send(&topic, part);
        thread::sleep(ROUND);
        jobs.iter_mut().for_each(|live| live.assert_runs(&format!("round {round}")));
    }
    mock.broker_up(-1).expect("brokers come");
    mock.broker_round_trip_time(-1, Duration::ZERO).expect("quick brokers");
    feed.flush();
    let [one, other] = jobs;
    one.assert_unharmed(&broker, expected());
    other.assert_unharmed(&broker, expected());
}

fn await_checkpoint(job: &Job, process: &mut Process) {
    let started = Instant::now();
    while !job.has_checkpoint() {
        assert!(!process.has_ended(), "it ended before its first checkpoint: {}", job.log());
        assert!(started.elapsed() < PATIENCE, "no checkpoint: {}", job.log());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn request_errors_pass() {
    // Goal: errors of every kind of request that a running job makes, hang-ups included, lose nothing and double nothing.
    let reading = [
        Answer::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        Answer::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        Answer::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        Answer::RD_KAFKA_RESP_ERR__TRANSPORT,
        Answer::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
    ];
    let writing = [
        Answer::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        Answer::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        Answer::RD_KAFKA_RESP_ERR__TRANSPORT,
        Answer::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    ];
    let transactions = [
        Answer::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
        Answer::RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
        Answer::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
        Answer::RD_KAFKA_RESP_ERR__TRANSPORT,
    ];
    endure(|mock, _, round| {
        mock.request_errors(Api::Fetch, &[reading[round % reading.len()]; 3]);
        mock.request_errors(Api::ListOffsets, &[reading[round % reading.len()]; 2]);
        mock.request_errors(Api::Metadata, &[reading[round % reading.len()]]);
        mock.request_errors(Api::Produce, &[writing[round % writing.len()]; 3]);
        for api in [Api::AddPartitionsToTxn, Api::EndTxn, Api::FindCoordinator] {
            mock.request_errors(api, &[transactions[round % transactions.len()]]);
        }
    });
}

#[test]
fn leaders_may_change() {
    // Goal: partitions of all topics, and what coordinates transactions, wander from broker to broker.
    endure(|mock, topics, round| {
        for (at, topic) in topics.iter().enumerate() {
            for partition in 0..PARTITIONS {
                let leader = (round + at) as i32 + partition;
                mock.partition_leader(topic, partition, Some(leader % BROKERS + 1)).expect("a leader");
            }
            for worker in 0..2 {
                let identity = MockCoordinator::Transaction(format!("whisperer.engagement.{topic}.{worker}"));
                mock.coordinator(identity, (round + at) as i32 % BROKERS + 1).expect("a coordinator");
            }
        }
    });
}

#[test]
fn brokers_may_go_and_come() {
    // Goal: one broker after the other goes away for a round, then all of them.
    endure(|mock, _, round| match round % 4 {
        0 => mock.broker_down(round as i32 / 4 % BROKERS + 1).expect("it goes"),
        2 => mock.broker_down(-1).expect("all go"),
        _ => mock.broker_up(-1).expect("all come"),
    });
}

#[test]
fn brokers_may_be_slow() {
    // Goal: answers that take a quarter of a second delay a job, and do no more.
    endure(|mock, _, round| {
        let time = Duration::from_millis([0, 80, 250][round % 3]);
        mock.broker_round_trip_time(-1, time).expect("slow brokers");
    });
}

#[test]
fn brokers_that_stay_away_end_the_job() {
    // Goal: brokers that stay away longer than the settings allow end a job that has something to tell them, with an error that says so
    // and not with a hang; started again when they are back, it goes on as if nothing had happened.
    // The mock shows what an open transaction has written, its number too: in the other delivery this needs a real broker.
    let delivery = "idempotent";
    let (broker, told) = (Broker::mock(1), Broker::mock(1));
    let mock = told.mock.as_ref().expect("a mock");
    let (topic, feed) = (broker.topic("events"), broker.producer());
    let (first, rest) = all_events().split_at(all_events().len() / 2);
    feed.send(&topic, first);
    feed.flush();
    let properties = "\"message.timeout.ms\" = \"1500\"\n\"transaction.timeout.ms\" = \"1500\"";
    let wiring = Wiring { delivery, source: SOURCE, properties, views: false };
    let (job, topics) = job(&broker, &topic, &wiring);
    let path = job.folder().join("job.toml");
    let mut text = fs::read_to_string(&path).expect("the job");
    for topic in [&topics.decisions, &topics.profiles, &topics.dead_letters] {
        mock.create_topic(topic, PARTITIONS, 1).expect("created");
        let at = |address: &str| format!("brokers = \"{address}\"\ntopic = \"{topic}\"");
        text = text.replace(&at(&broker.address), &at(&told.address));
    }
    fs::write(&path, text).expect("written");
    let mut child = job.start(&[], &[]);
    await_checkpoint(&job, &mut child);
    mock.broker_down(-1).expect("it goes");
    feed.send(&topic, rest);
    feed.flush();
    let Ended::Failed(code, log) = job.ended_within(child, PATIENCE) else {
        panic!("{delivery}: it goes on without a broker, or hangs: {}", job.log())
    };
    assert_eq!(code, 1, "{delivery}: {log}");
    assert!(log.contains("are the brokers up"), "{delivery}: {log}");
    mock.broker_up(-1).expect("it comes");
    job.finish(&["--until-end"]);
    assert_equals(&told, &job, &topics, (expected(), delivery));
}
