//! A broker for jobs that run as processes: a real one, or librdkafka's mock cluster, which listens on a port as any other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::Headers,
    mocking::MockCluster,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use serde_json::Value;
use whisperer_schemas::time::parse_rfc3339;

/// Partitions of every topic of the tests.
pub const PARTITIONS: i32 = 2;

/// What fits into a message of a producer as it comes.
const LINE_BYTES_MAX: usize = 900_000;

/// How long a broker may take.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A broker, real or not.
pub struct Broker {
    pub address: String,
    pub mock: Option<MockCluster<'static, DefaultProducerContext>>,
}

/// A message as readers see it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: BTreeMap<String, Vec<u8>>,
}

impl Broker {
    /// The one that `WHISPERER_KAFKA` names, or else a mock.
    pub fn new() -> Broker {
        if let Ok(address) = std::env::var("WHISPERER_KAFKA") {
            return Broker::at(address);
        }
        eprintln!(
            "WHISPERER_KAFKA IS NOT SET: these tests meet librdkafka's mock cluster, and no real broker (bin/broker up)"
        );
        Broker::mock(1)
    }

    /// A mock of some brokers.
    pub fn mock(brokers: i32) -> Broker {
        let mock = MockCluster::new(brokers).expect("a mock cluster");
        Broker { address: mock.bootstrap_servers(), mock: Some(mock) }
    }

    /// A real one.
    pub fn at(address: String) -> Broker {
        Broker { address, mock: None }
    }

    /// Makes a topic; gives its name, which no other has.
    pub fn topic(&self, kind: &str) -> String {
        static TOPICS: AtomicU32 = AtomicU32::new(0);
        let nanos = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let topic = format!("{kind}-{nanos}-{}", TOPICS.fetch_add(1, Ordering::Relaxed));
        if let Some(mock) = &self.mock {
            mock.create_topic(&topic, PARTITIONS, 1).expect("created");
            // It knows no request for making topics, and takes half a minute to say so.
            mock.create_topic(&format!("whisperer.engagement.{topic}.commits"), 1, 1).expect("created");
            return topic;
        }
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("an admin client");
        // The events are as old as the generator makes them.
        let new = NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(1)).set("retention.ms", "-1");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let created = runtime.block_on(admin.create_topics([&new], &AdminOptions::new())).expect("an answer");
        created.into_iter().for_each(|one| drop(one.expect("created")));
        topic
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.address);
        client
    }

    /// A producer that writes each event once.
    pub fn producer(&self) -> Feed {
        let mut client = self.client();
        let producer = client.set("linger.ms", "20").set("enable.idempotence", "true").create();
        Feed(producer.expect("a producer"))
    }

    fn consumer(&self, isolation: &str) -> BaseConsumer {
        let mut client = self.client();
        client.set("group.id", "reader").set("isolation.level", isolation).set("enable.partition.eof", "true");
        client.set("auto.offset.reset", "earliest").create().expect("a consumer")
    }

    /// Waits until `read_committed` readers see all that a topic holds: a broker says that a transaction is committed, and lets them see
    /// it a little later.
    pub fn await_committed(&self, topic: &str) {
        let started = Instant::now();
        let ends = |isolation| {
            let consumer = self.consumer(isolation);
            let end = |partition| consumer.fetch_watermarks(topic, partition, PATIENCE).expect("an answer").1;
            (0..PARTITIONS).map(end).collect::<Vec<i64>>()
        };
        let all = ends("read_uncommitted");
        loop {
            let committed = ends("read_committed");
            if committed.iter().zip(&all).all(|(committed, all)| committed >= all) {
                return;
            }
            let waited = started.elapsed();
            assert!(
                waited < PATIENCE,
                "a transaction on \"{topic}\" stays open: {committed:?} of {all:?} is committed"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What a `read_committed` reader sees of a topic, in the order of each partition, once all of it is committed.
    pub fn read(&self, topic: &str) -> Vec<Seen> {
        self.await_committed(topic);
        let consumer = self.consumer("read_committed");
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            list.add_partition_offset(topic, partition, Offset::Beginning).expect("assignable");
        }
        consumer.assign(&list).expect("assigned");
        let (mut seen, started) = (Vec::new(), Instant::now());
        // A client may tell of an end more than once.
        let mut open: BTreeSet<i32> = (0..PARTITIONS).collect();
        while !open.is_empty() {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => seen.push(Seen::of(&message)),
                Some(Err(KafkaError::PartitionEOF(partition))) => _ = open.remove(&partition),
                // What passes, passes in time.
                other => assert!(started.elapsed() < PATIENCE, "the end of \"{topic}\" is not reached: {other:?}"),
            }
        }
        seen
    }
}

impl Seen {
    fn of(message: &impl Message<Headers = impl Headers>) -> Seen {
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        let header = |header: rdkafka::message::Header<'_, &[u8]>| {
            (header.key.to_owned(), header.value.unwrap_or_default().to_vec())
        };
        Seen {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.map(header).collect(),
        }
    }

    /// The text of a header; empty where there is none.
    pub fn header(&self, name: &str) -> String {
        self.headers.get(name).map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    }
}

/// Writes events.
pub struct Feed(ThreadedProducer<DefaultProducerContext>);

impl Feed {
    /// Hands records on; the brokers need not have them yet.
    pub fn send<'r>(&self, topic: &str, records: impl IntoIterator<Item = &'r Record>) {
        for Record { partition, millis, key, line } in records {
            let record = BaseRecord::to(topic).partition(*partition).timestamp(*millis).payload(line).key(key);
            let (mut sent, started) = (self.0.send(record), Instant::now());
            while let Err((error, record)) = sent {
                assert!(started.elapsed() < PATIENCE, "\"{topic}\" takes no events: {error}");
                std::thread::sleep(Duration::from_millis(5));
                sent = self.0.send(record);
            }
        }
    }

    /// Waits until the brokers have all of them.
    pub fn flush(&self) {
        self.0.flush(PATIENCE).expect("acknowledged");
    }
}

/// An event on its way into a topic.
#[derive(Clone, Debug)]
pub struct Record {
    pub partition: i32,
    /// When it was received.
    pub millis: i64,
    pub key: String,
    pub line: Vec<u8>,
}

/// Generates files of events, one for each partition.
pub fn generate(folder: &Path, events: u32, flags: &[&str]) -> Vec<PathBuf> {
    let mut generate = Command::new(env!("CARGO_BIN_EXE_whisperer"));
    // Long ago, so that no reader's clock stands before it.
    generate.args(["generate", "--start", "2024-01-01T00:00:00Z", "--users", "4000"]).args(flags);
    generate.arg("--events").arg(events.to_string());
    generate.arg("--partitions").arg(PARTITIONS.to_string()).arg("--output").arg(folder);
    assert!(generate.output().expect("it runs").status.success());
    (0..PARTITIONS).map(|partition| folder.join(format!("events-{partition}.ndjson"))).collect()
}

/// Generated events, keyed by user, each with the time at which it was received; those of a partition in their order, partitions in turn.
pub fn events(count: u32) -> Vec<Record> {
    events_with(count, &[])
}

/// The same with further flags for the generator.
pub fn events_with(count: u32, flags: &[&str]) -> Vec<Record> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut records = Vec::new();
    for (partition, path) in generate(folder.path(), count, flags).into_iter().enumerate() {
        let (text, mut millis) = (fs::read(path).expect("generated"), 0);
        // One that is too long for any topic is the broker's to refuse.
        let lines = text.split(|byte| *byte == b'\n').filter(|line| (1..LINE_BYTES_MAX).contains(&line.len()));
        for (at, line) in lines.enumerate() {
            let event: Value = serde_json::from_slice(line).unwrap_or_default();
            let received = event["metadata"]["received_at"].as_str().and_then(|at| parse_rfc3339(at.as_bytes()));
            millis = received.map_or(millis, |at| at / 1000);
            let key = event["user_id"].as_str().unwrap_or("none").to_owned();
            records.push((at, Record { partition: partition as i32, millis, key, line: line.to_vec() }));
        }
    }
    records.sort_by_key(|(at, record)| (*at, record.partition));
    records.into_iter().map(|(_, record)| record).collect()
}
