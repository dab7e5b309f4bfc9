//! A broker to test against, and a reader of its topics.

use std::{
    collections::BTreeMap,
    env, process,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::Headers,
    mocking::MockCluster,
    producer::DefaultProducerContext,
};
use whisperer_sinks::{ChangeMode, CreateTopic, KafkaOptions};

/// How long a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A real broker or a mock cluster.
pub struct Broker {
    pub address: String,
    pub mock: Option<MockCluster<'static, DefaultProducerContext>>,
}

/// A message as readers see it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: BTreeMap<String, String>,
    pub timestamp: Option<i64>,
}

impl Broker {
    /// The one that `WHISPERER_KAFKA` names, or else a mock.
    pub fn start() -> Broker {
        match env::var("WHISPERER_KAFKA") {
            Ok(address) if !address.is_empty() => Broker { address, mock: None },
            _ => Broker::mock(),
        }
    }

    /// A mock, for faults that only it can make.
    pub fn mock() -> Broker {
        let mock = MockCluster::new(3).expect("a mock cluster starts");
        Broker { address: mock.bootstrap_servers(), mock: Some(mock) }
    }

    pub fn is_real(&self) -> bool {
        self.mock.is_none()
    }

    /// A name that no other test has.
    pub fn topic(&self, table: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let topic = format!("{table}-{}-{}-{next}", since.as_millis(), process::id());
        if let Some(mock) = &self.mock {
            // It knows no request for making topics, and takes half a minute to say so.
            mock.create_topic(&topic, 3, 1).expect("a topic");
            mock.create_topic(&format!("whisperer.engagement.{topic}.commits"), 1, 1).expect("a topic");
        }
        topic
    }

    pub fn options(&self, topic: &str, worker: u32, workers: u32) -> KafkaOptions {
        KafkaOptions {
            brokers: self.address.clone(),
            topic: topic.into(),
            properties: BTreeMap::new(),
            create: Some(CreateTopic { partitions: Some(3), replication: None }),
            job: "engagement".into(),
            sink: topic.into(),
            worker,
            workers,
            source: "events".into(),
            changes: ChangeMode::Upsert,
        }
    }

    /// What readers see of `topic` who wait for commits; the values as text.
    pub fn values(&self, topic: &str) -> Vec<String> {
        let text = |seen: Seen| String::from_utf8(seen.value.expect("no tombstone")).expect("text");
        self.read(topic).into_iter().map(text).collect()
    }

    /// What readers see of `topic` who wait for commits.
    pub fn read(&self, topic: &str) -> Vec<Seen> {
        let consumer: BaseConsumer = self.consumer();
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).expect("the broker answers");
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            list.add_partition_offset(topic, partition.id(), Offset::Beginning).expect("a partition");
        }
        consumer.assign(&list).expect("partitions to read");
        let (mut seen, mut ended, started) = (Vec::new(), 0, Instant::now());
        while ended < list.count() {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => seen.push(Seen::of(&message)),
                Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
                Some(Err(_)) | None => assert!(started.elapsed() < PATIENCE, "\"{topic}\" does not end"),
            }
        }
        seen
    }

    fn consumer(&self) -> BaseConsumer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address).set("group.id", "tests").set("enable.auto.commit", "false");
        config.set("enable.partition.eof", "true").set("isolation.level", "read_committed");
        config.create().expect("a consumer")
    }
}

impl Seen {
    fn of(message: &impl Message<Headers = impl Headers>) -> Seen {
        let text =
            |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or_default().to_vec()).expect("headers are text");
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        Seen {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.map(|header| (header.key.to_owned(), text(header.value))).collect(),
            timestamp: message.timestamp().to_millis(),
        }
    }
}
