//! From topic to topic: the same with a real broker (`WHISPERER_KAFKA=host:port`), or librdkafka's mock cluster where there is none.

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
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
use whisperer_schemas::time::parse_rfc3339;

use crate::{
    job::{Ended, Job, Random},
    rounds,
};

/// Partitions of every topic of the tests.
const PARTITIONS: i32 = 2;

/// How long a broker may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker, real or not.
struct Broker {
    address: String,
    mock: Option<MockCluster<'static, rdkafka::producer::DefaultProducerContext>>,
}

impl Broker {
    fn new() -> Broker {
        if let Ok(address) = std::env::var("WHISPERER_KAFKA") {
            return Broker { address, mock: None };
        }
        eprintln!(
            "WHISPERER_KAFKA IS NOT SET: these tests meet librdkafka's mock cluster, and no real broker (bin/broker up)"
        );
        let mock = MockCluster::new(1).expect("a mock cluster");
        Broker { address: mock.bootstrap_servers(), mock: Some(mock) }
    }

    fn create(&self, topic: &str) {
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

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.address);
        client
    }

    /// Produces generated events, keyed by user, each with the time at which it was received.
    fn produce(&self, topic: &str) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut generate = Command::new(env!("CARGO_BIN_EXE_whisperer"));
        generate.args(["generate", "--events", "40000", "--users", "4000", "--partitions", "2", "--output"]);
        assert!(generate.arg(folder.path()).output().expect("it runs").status.success());
        let producer: ThreadedProducer<_> = self.client().set("linger.ms", "20").create().expect("a producer");
        for partition in 0..PARTITIONS {
            let path = folder.path().join(format!("events-{partition}.ndjson"));
            let (text, mut time) = (fs::read(path).expect("generated"), 0);
            for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let event: Value = serde_json::from_slice(line).unwrap_or_default();
                let received = event["metadata"]["received_at"].as_str().and_then(|at| parse_rfc3339(at.as_bytes()));
                time = received.map_or(time, |at| at / 1000);
                let key = event["user_id"].as_str().unwrap_or("none");
                let record = BaseRecord::to(topic).partition(partition).timestamp(time).payload(line).key(key);
                let mut sent = producer.send(record);
                while let Err((_, record)) = sent {
                    std::thread::sleep(Duration::from_millis(5));
                    sent = producer.send(record);
                }
            }
        }
        producer.flush(PATIENCE).expect("acknowledged");
    }

    /// What a `read_committed` reader sees of a topic, in the order of each partition: key and value, engine's own columns left out.
    fn read(&self, topic: &str) -> Vec<(String, Value)> {
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

/// The engagement job from `events` into topics of its own.
fn job(broker: &Broker, events: &str, delivery: &str) -> (Job, [String; 2]) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let topics = ["decisions", "profiles"].map(|table| format!("{table}-{now}"));
    topics.iter().for_each(|topic| broker.create(topic));
    let edited = Job::edited("topics", |text| {
        let (before, rest) = text.split_once("[source]").expect("a source");
        let after = &rest[rest.find("\n[").expect("a section behind it")..];
        let before = before.replace("[job]", "[job]\ndeliver_from = \"beginning\"");
        let source = format!("connector = \"kafka\"\nbrokers = \"{}\"\ntopic = \"{events}\"\n", broker.address);
        let sink = |(table, topic): (&str, &String)| {
            let to = format!("brokers = \"{}\"\ntopic = \"{topic}\"\ntable = \"{table}\"", broker.address);
            format!("\n[[sink]]\nconnector = \"kafka\"\n{to}\ndelivery = \"{delivery}\"\n")
        };
        let sinks: String = ["decisions", "profiles"].into_iter().zip(&topics).map(sink).collect();
        format!("{before}[source]\n{source}{after}{sinks}")
    });
    (edited, topics)
}

/// The last value of each key.
fn table(rows: Vec<(String, Value)>) -> BTreeMap<String, Value> {
    rows.into_iter().collect()
}

fn topics_survive_crashes(delivery: &str) {
    let broker = Broker::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let events = format!("events-{now}");
    broker.create(&events);
    broker.produce(&events);
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
