//! Brokers for tests: a mock cluster, and a real one where there is one; topics with names of their own, and what is written to them.

use std::{
    io::Write,
    pin::pin,
    sync::{
        Arc, Once,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    message::{Header, OwnedHeaders},
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, DeliveryResult, Producer, ProducerContext},
};

/// Where a test's topics lie.
pub enum Brokers {
    Mock(MockCluster<'static, DefaultProducerContext>),
    Real(String),
}

/// A record to be written.
#[derive(Clone, Copy)]
pub struct Written<'a> {
    pub partition: i32,
    pub key: Option<&'a str>,
    pub value: Option<&'a [u8]>,
    pub millis: Option<i64>,
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

impl<'a> Written<'a> {
    pub fn new(partition: i32, value: &'a str) -> Written<'a> {
        let value = Some(value.as_bytes());
        Written { partition, key: Some("k"), value, millis: None, headers: &[] }
    }
}

static TOPICS: AtomicU32 = AtomicU32::new(0);

impl Brokers {
    pub fn mock() -> Brokers {
        Brokers::Mock(MockCluster::new(3).unwrap())
    }

    /// The real broker; none, loudly, where there is none.
    pub fn real() -> Option<Brokers> {
        static SAID: Once = Once::new();
        let address = std::env::var("WHISPERER_KAFKA").ok().filter(|address| !address.is_empty());
        if address.is_none() {
            // Not through `eprintln`, which the test harness keeps to itself.
            let text = "\nNO BROKER: WHISPERER_KAFKA is not set, so the Kafka source meets the mock cluster only (bin/broker up)\n\n";
            SAID.call_once(|| std::io::stderr().write_all(text.as_bytes()).unwrap());
        }
        address.map(Brokers::Real)
    }

    /// All brokers that a test can have.
    pub fn all() -> Vec<Brokers> {
        [Some(Brokers::mock()), Brokers::real()].into_iter().flatten().collect()
    }

    pub fn cluster(&self) -> &MockCluster<'static, DefaultProducerContext> {
        match self {
            Brokers::Mock(cluster) => cluster,
            Brokers::Real(_) => panic!("no mock cluster"),
        }
    }

    pub fn address(&self) -> String {
        match self {
            Brokers::Mock(cluster) => cluster.bootstrap_servers(),
            Brokers::Real(address) => address.clone(),
        }
    }

    /// Makes a topic with a name of its own.
    pub fn topic(&self, partitions: i32) -> String {
        let number = TOPICS.fetch_add(1, Ordering::Relaxed);
        let nanos = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let topic = format!("source-test-{nanos}-{}-{number}", std::process::id());
        match self {
            Brokers::Mock(cluster) => cluster.create_topic(&topic, partitions, 3).unwrap(),
            Brokers::Real(_) => {
                let wanted = [NewTopic::new(&topic, partitions, TopicReplication::Fixed(1))];
                block_on(self.admin().create_topics(&wanted, &AdminOptions::new())).unwrap()[0].as_ref().unwrap();
            }
        }
        topic
    }

    pub fn add_partitions(&self, topic: &str, count: usize) {
        let wanted = [NewPartitions::new(topic, count)];
        block_on(self.admin().create_partitions(&wanted, &AdminOptions::new())).unwrap()[0].as_ref().unwrap();
    }

    pub fn delete_before(&self, topic: &str, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, rdkafka::Offset::Offset(offset)).unwrap();
        block_on(self.admin().delete_records(&list, &AdminOptions::new())).unwrap();
    }

    pub fn delete_topic(&self, topic: &str) {
        block_on(self.admin().delete_topics(&[topic], &AdminOptions::new())).unwrap()[0].as_ref().unwrap();
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", self.address()).create().unwrap()
    }

    pub fn producer(&self, properties: &[(&str, &str)]) -> BaseProducer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address()).set("linger.ms", "0");
        properties.iter().for_each(|(name, value)| {
            config.set(*name, *value);
        });
        config.create().unwrap()
    }

    /// Writes records and waits until all are there.
    pub fn write(&self, topic: &str, records: &[Written<'_>]) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address()).set("linger.ms", "0");
        let producer: BaseProducer<Refusals> = config.create_with_context(Refusals).unwrap();
        send(&producer, topic, records);
        producer.flush(Duration::from_secs(20)).unwrap();
    }

    /// Writes texts into a partition.
    pub fn write_texts(&self, topic: &str, partition: i32, texts: &[&str]) {
        let records: Vec<_> = texts.iter().map(|text| Written::new(partition, text)).collect();
        self.write(topic, &records);
    }
}

/// A record that a broker does not take would make a test wait for it.
struct Refusals;

impl ClientContext for Refusals {}

impl ProducerContext for Refusals {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _opaque: ()) {
        result.as_ref().map_err(|(error, _)| error).unwrap();
    }
}

/// Hands records to a producer.
pub fn send<C: ProducerContext<DeliveryOpaque = ()>>(producer: &BaseProducer<C>, topic: &str, records: &[Written<'_>]) {
    for written in records {
        let mut record = BaseRecord::<str, [u8]>::to(topic).partition(written.partition);
        record.key = written.key;
        record.payload = written.value;
        record.timestamp = written.millis;
        if !written.headers.is_empty() {
            let insert = |headers: OwnedHeaders, (key, value): &(&str, Option<&[u8]>)| {
                headers.insert(Header { key, value: *value })
            };
            record.headers = Some(written.headers.iter().fold(OwnedHeaders::new(), insert));
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.poll(Duration::ZERO);
    }
}

/// Waits for a future, of which only the administration needs any.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park_timeout(Duration::from_millis(50)),
        }
    }
}
