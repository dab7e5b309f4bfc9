//! From topic to topic: the same with a real broker (`WHISPERER_KAFKA=host:port`), or librdkafka's mock cluster where there is none.

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    mocking::MockCluster,
    producer::{BaseRecord, Producer, ThreadedProducer},
};
use serde_json::Value;
use whisperer_schemas::{Micros, time::parse_rfc3339};

use crate::{
    job::{Ended, Job, Random},
    rounds,
};

/// Partitions of every topic of the tests.
const PARTITIONS: i32 = 2;

/// How long a broker may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a committed transaction may be invisible: far less than one that nobody ends, which goes after a minute.
const SETTLED: Duration = Duration::from_secs(20);

/// A generated event.
#[derive(Clone)]
pub struct Event {
    /// As it stands in a file.
    pub line: Vec<u8>,
    /// Whose it is.
    pub user: String,
    /// Its event time and when it was received, in microseconds; those of the event before it where it has none.
    pub time: Micros,
    /// When it was received.
    pub received: Micros,
}

/// Generated events of each partition, in the order of the log.
pub fn generate(flags: &[&str]) -> Vec<Vec<Event>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut generate = Command::new(env!("CARGO_BIN_EXE_whisperer"));
    generate.args(["generate", "--events", "40000", "--users", "4000", "--partitions", "2"]).args(flags);
    assert!(generate.arg("--output").arg(folder.path()).output().expect("it runs").status.success());
    let read = |partition| {
        let text = fs::read(folder.path().join(format!("events-{partition}.ndjson"))).expect("generated");
        let (mut time, mut received) = (0, 0);
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let event = |line: &[u8]| {
            let event: Value = serde_json::from_slice(line).unwrap_or_default();
            let at = |value: &Value| parse_rfc3339(value.as_str()?.as_bytes());
            time = at(&event["timestamp"]).unwrap_or(time);
            received = at(&event["metadata"]["received_at"]).unwrap_or(received);
            let user = event["user_id"].as_str().unwrap_or("none").to_owned();
            Event { line: line.to_owned(), user, time, received }
        };
        lines.map(event).collect()
    };
    (0..PARTITIONS).map(read).collect()
}

/// A name that no other run has.
pub fn new_name(of: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{of}-{now}")
}

/// A broker, real or not.
pub struct Broker {
    /// Where it listens.
    pub address: String,
    mock: Option<MockCluster<'static, rdkafka::producer::DefaultProducerContext>>,
}

impl Broker {
    /// The one that `WHISPERER_KAFKA` names, or a mock.
    pub fn new() -> Broker {
        if let Ok(address) = std::env::var("WHISPERER_KAFKA") {
            return Broker { address, mock: None };
        }
        eprintln!(
            "WHISPERER_KAFKA IS NOT SET: these tests meet librdkafka's mock cluster, and no real broker (bin/broker up)"
        );
        let mock = MockCluster::new(1).expect("a mock cluster");
        Broker { address: mock.bootstrap_servers(), mock: Some(mock) }
    }

    /// Makes a topic.
    pub fn create(&self, topic: &str) {
        if let Some(mock) = &self.mock {
            return mock.create_topic(topic, PARTITIONS, 1).expect("created");
        }
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("an admin client");
        // The events are as old as the generator makes them.
        let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1)).set("retention.ms", "-1");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let created = runtime.block_on(admin.create_topics([&new], &AdminOptions::new())).expect("an answer");
        created.into_iter().for_each(|one| drop(one.expect("created")));
    }

    /// What a job says that reads a topic.
    pub fn source(&self, topic: &str) -> String {
        format!("connector = \"kafka\"\nbrokers = \"{}\"\ntopic = \"{topic}\"\n", self.address)
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.address);
        client
    }

    /// Produces events to a partition, keyed by user, each with the time at which it was received.
    pub fn produce(&self, topic: &str, partition: i32, events: &[Event]) {
        let producer: ThreadedProducer<_> = self.client().set("linger.ms", "20").create().expect("a producer");
        for event in events {
            let record = BaseRecord::to(topic).partition(partition).timestamp(event.received / 1000);
            let mut sent = producer.send(record.payload(&event.line).key(&event.user));
            while let Err((_, record)) = sent {
                std::thread::sleep(Duration::from_millis(5));
                sent = producer.send(record);
            }
        }
        producer.flush(PATIENCE).expect("acknowledged");
    }

    /// Waits until no transaction is open: a broker says that one is committed before the readers of its partitions see it. That a job has
    /// left one open for good is a failure.
    fn settle(&self, topic: &str) {
        let reader = |isolation| -> BaseConsumer {
            let mut client = self.client();
            client.set("group.id", "settling").set("isolation.level", isolation).create().expect("a consumer")
        };
        let readers = [reader("read_committed"), reader("read_uncommitted")];
        let deadline = Instant::now() + SETTLED;
        for partition in 0..PARTITIONS {
            let end = |reader: &BaseConsumer| reader.fetch_watermarks(topic, partition, PATIENCE).expect("an answer").1;
            while end(&readers[0]) < end(&readers[1]) {
                assert!(Instant::now() < deadline, "a transaction is still open on partition {partition} of {topic}");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// What a `read_committed` reader sees of a topic, in the order of each partition: key and value, engine's own columns left out.
    fn read(&self, topic: &str) -> Vec<(String, Value)> {
        self.settle(topic);
        let mut client = self.client();
        client.set("group.id", "reader").set("isolation.level", "read_committed").set("enable.partition.eof", "true");
        let consumer: BaseConsumer = client.set("auto.offset.reset", "earliest").create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            list.add_partition_offset(topic, partition, Offset::Beginning).expect("assignable");
        }
        consumer.assign(&list).expect("assigned");
        let (mut rows, mut open) = (Vec::new(), PARTITIONS);
        while open > 0 {
            match consumer.poll(PATIENCE).expect("the broker answers") {
                Err(rdkafka::error::KafkaError::PartitionEOF(_)) => open -= 1,
                Err(error) => panic!("{error}"),
                Ok(message) => {
                    let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
                    let mut value: Value = serde_json::from_slice(message.payload().unwrap_or_default()).expect("JSON");
                    let members = value.as_object_mut().expect("a row");
                    members.retain(|name, _| !name.starts_with('_'));
                    rows.push((key, value));
                }
            }
        }
        rows
    }
}

/// A job with another source.
pub fn with_source(job: &str, source: &str) -> String {
    let (before, rest) = job.split_once("[source]").expect("a source");
    let after = &rest[rest.find("\n[").expect("a section behind it")..];
    format!("{before}[source]\n{source}{after}")
}

/// The engagement job from `events` into topics of its own.
fn job(broker: &Broker, events: &str, delivery: &str) -> (Job, [String; 2]) {
    let topics = ["decisions", "profiles"].map(new_name);
    topics.iter().for_each(|topic| broker.create(topic));
    let edited = Job::edited("topics", |text| {
        let text = text.replace("[job]", "[job]\ndeliver_from = \"beginning\"");
        let source = broker.source(events);
        let sink = |(table, topic): (&str, &String)| {
            let to = format!("brokers = \"{}\"\ntopic = \"{topic}\"\ntable = \"{table}\"", broker.address);
            format!("\n[[sink]]\nconnector = \"kafka\"\n{to}\ndelivery = \"{delivery}\"\n")
        };
        let sinks: String = ["decisions", "profiles"].into_iter().zip(&topics).map(sink).collect();
        with_source(&text, &source) + &sinks
    });
    (edited, topics)
}

/// The last value of each key.
fn table(rows: Vec<(String, Value)>) -> BTreeMap<String, Value> {
    rows.into_iter().collect()
}

fn topics_survive_crashes(delivery: &str) {
    let broker = Broker::new();
    let events = new_name("events");
    broker.create(&events);
    for (partition, of_partition) in generate(&[]).iter().enumerate() {
        broker.produce(&events, partition as i32, of_partition);
    }
    let (undisturbed, expected) = job(&broker, &events, delivery);
    undisturbed.finish(&["--until-end"]);
    let mut expected_decisions = broker.read(&expected[0]);
    expected_decisions.sort_by(|one, other| one.0.cmp(&other.0));
    let expected_profiles = table(broker.read(&expected[1]));
    assert!(expected_decisions.len() > 100 && expected_profiles.len() > 1000, "there is something to compare");
    let mut random = Random::new();
    let mut kills = 0;
    while kills < rounds().div_ceil(2) {
        let (job, topics) = job(&broker, &events, delivery);
        let (mut workers, mut attempts) = (0, 0);
        loop {
            workers = workers % 3 + 1;
            let flags = ["--until-end", "--workers", &workers.to_string()];
            // Each time a little later: to fence the writers of the run before takes seconds.
            let most = Duration::from_millis(500 + random.below(2500) + 500 * attempts);
            attempts += 1;
            match job.run_for(&flags, &[], most) {
                Ended::Done => break,
                Ended::Killed => kills += 1,
                Ended::Failed(code, told) => panic!("seed {}: exit code {code}: {told}", random.seed()),
            }
        }
        let mut decisions = broker.read(&topics[0]);
        decisions.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(decisions.len(), expected_decisions.len(), "seed {}, {kills} kills", random.seed());
        assert!(decisions == expected_decisions, "seed {}: other decisions", random.seed());
        let profiles = table(broker.read(&topics[1]));
        assert!(profiles == expected_profiles, "seed {}: another table of profiles", random.seed());
    }
}

#[test]
fn a_topic_that_is_readable_at_once_holds_each_decision_once() {
    // Goal: with `delivery = "idempotent"`, kill -9 leaves each decision in the topic once, and the changelog adds up to the same table.
    topics_survive_crashes("idempotent");
}

#[test]
fn a_topic_that_waits_for_checkpoints_holds_each_decision_once() {
    // Goal: the same with `delivery = "exactly_once"`, for a reader who waits for commits.
    topics_survive_crashes("exactly_once");
}
