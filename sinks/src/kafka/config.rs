//! What a sink into Kafka needs to know, and the librdkafka settings that follow from it.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::ClientConfig;

use super::changes::ChangeMode;
use crate::error::{Fault, SinkError};

/// Messages on their way from one writer: beyond it the writer waits. With 1 kB a message about what a broker takes in 100 ms.
const IN_FLIGHT_MESSAGES_MAX: &str = "50000";
/// Kilobytes on their way from one writer: 64 MiB, so that a thousand messages of the largest kind fit.
const IN_FLIGHT_KILOBYTES_MAX: &str = "65536";
/// How long a message is tried to be delivered: longer than a broker takes to start again, and its partitions to find a new leader.
const DELIVERY_TIMEOUT_MS: u64 = 120_000;
/// How long messages wait for others to be sent with them: little beside the 10 ms of an epoch.
const LINGER_MS: &str = "2";
/// Longest wait between two attempts to reach a broker: an outage should end when it ends, not ten seconds later.
const RECONNECT_BACKOFF_MS_MAX: &str = "1000";
/// librdkafka's own default, a little below the broker's.
const MESSAGE_BYTES_MAX: usize = 1_000_000;
/// librdkafka's own default for a transaction's length.
const TRANSACTION_TIMEOUT_MS: u64 = 60_000;
/// How long a single request to the brokers may take, or the waiting for one that answers.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Settings that are not the user's, as the sink's promises rest on them.
const FIXED: [&str; 6] =
    ["acks", "bootstrap.servers", "enable.idempotence", "isolation.level", "request.required.acks", "transactional.id"];

/// Settings that the sink chooses and the user may change, with their other names. Keys go to the partitions that Java's producers would
/// choose, so that topics can be joined.
const CHOSEN: [(&str, &str, &str); 5] = [
    ("compression.type", "compression.codec", "zstd"),
    ("linger.ms", "queue.buffering.max.ms", LINGER_MS),
    ("partitioner", "partitioner", "murmur2_random"),
    ("queue.buffering.max.kbytes", "queue.buffering.max.kbytes", IN_FLIGHT_KILOBYTES_MAX),
    ("queue.buffering.max.messages", "queue.buffering.max.messages", IN_FLIGHT_MESSAGES_MAX),
];

/// Settings that only producers have: consumers warn of them.
const OF_PRODUCERS: [&str; 19] = [
    "acks",
    "batch.num.messages",
    "batch.size",
    "compression.codec",
    "compression.level",
    "compression.type",
    "delivery.timeout.ms",
    "enable.gapless.guarantee",
    "linger.ms",
    "message.send.max.retries",
    "message.timeout.ms",
    "partitioner",
    "queue.buffering.backpressure.threshold",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "retries",
    "sticky.partitioning.linger.ms",
    "transaction.timeout.ms",
];

/// Where rows go, and who writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaOptions {
    /// Brokers to begin with: `host:port`, with commas between them.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// Further librdkafka settings by name. They come after those that the sink chooses, but cannot change what its promises rest on.
    pub properties: BTreeMap<String, String>,
    /// Creates the topic if it is missing. Otherwise it has to be there, unless the broker makes topics as they are asked for.
    pub create: Option<CreateTopic>,
    /// The job's name.
    pub job: String,
    /// The sink's name, of its own among the job's sinks. With the job's name it is part of transactional ids.
    pub sink: String,
    /// The number of this writer, over all processes.
    pub worker: u32,
    /// How many writers there are.
    pub workers: u32,
    /// What dead letters say they come from: the source's topic, or what stands for it.
    pub source: String,
    /// How changes of a view are written.
    pub changes: ChangeMode,
}

/// How a topic is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateTopic {
    /// Its partitions; the broker's default without.
    pub partitions: Option<u16>,
    /// Brokers that keep each partition; the broker's default without.
    pub replication: Option<u16>,
}

impl KafkaOptions {
    /// The librdkafka settings that [`KafkaOptions::properties`] may not have.
    #[must_use]
    pub fn fixed_properties() -> &'static [&'static str] {
        &FIXED
    }

    /// What the writer of a worker is called: its transactional id, and its name in the brokers' logs. A job's name has no dots, so no
    /// other job and sink make the same one.
    #[must_use]
    pub fn identity_of(&self, worker: u32) -> String {
        format!("whisperer.{}.{}.{worker}", self.job, self.sink)
    }

    /// The topic that records which checkpoints are out.
    pub(super) fn commits_topic(&self) -> String {
        format!("whisperer.{}.{}.commits", self.job, self.sink)
    }

    /// Settings that all clients share.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", self.identity_of(self.worker));
        config.set("reconnect.backoff.max.ms", RECONNECT_BACKOFF_MS_MAX);
        for (name, value) in self.properties.iter().filter(|(name, _)| !OF_PRODUCERS.contains(&name.as_str())) {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    /// Settings of a producer that writes everything once and in order.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        for (name, alias, value) in CHOSEN {
            // Two names of one setting must not both be set.
            if !self.properties.contains_key(alias) {
                config.set(name, value);
            }
        }
        if !self.properties.contains_key("delivery.timeout.ms") {
            config.set("message.timeout.ms", DELIVERY_TIMEOUT_MS.to_string());
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config.set("enable.idempotence", "true");
        config.set("acks", "all");
        config
    }

    /// Settings of a producer whose messages are readable when it says so.
    pub(super) fn transactional(&self, identity: &str) -> ClientConfig {
        let mut config = self.producer();
        let timeout = self.transaction_timeout().as_millis().to_string();
        config.set("transactional.id", identity).set("transaction.timeout.ms", &timeout);
        if !["message.timeout.ms", "delivery.timeout.ms"].iter().any(|name| self.properties.contains_key(*name)) {
            // A message must not be tried for longer than its transaction may take.
            config.set("message.timeout.ms", &timeout);
        }
        config
    }

    /// Settings of a consumer that reads partitions by hand.
    pub(super) fn consumer(&self, isolation: &str) -> ClientConfig {
        let mut config = self.client();
        // No group is joined and nothing committed; the library asks for a name all the same.
        config.set("group.id", self.identity_of(self.worker));
        config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        config.set("auto.offset.reset", "earliest").set("enable.partition.eof", "true");
        config.set("isolation.level", isolation);
        config
    }

    /// The largest message that is sent.
    pub(super) fn message_bytes_max(&self) -> usize {
        self.number("message.max.bytes").unwrap_or(MESSAGE_BYTES_MAX as u64) as usize
    }

    /// How long a message is tried to be delivered.
    pub(super) fn delivery_timeout(&self) -> Duration {
        let set = self.number("delivery.timeout.ms").or_else(|| self.number("message.timeout.ms"));
        Duration::from_millis(set.unwrap_or(DELIVERY_TIMEOUT_MS))
    }

    /// How long it may take at the start until a broker answers: the time that the client library gives a request.
    pub(super) fn patience(&self) -> Duration {
        self.number("socket.timeout.ms").map_or(REQUEST_TIMEOUT, Duration::from_millis)
    }

    /// How long a transaction may take.
    pub(super) fn transaction_timeout(&self) -> Duration {
        Duration::from_millis(self.number("transaction.timeout.ms").unwrap_or(TRANSACTION_TIMEOUT_MS))
    }

    /// Refuses what cannot work, before the first request.
    pub(super) fn check(&self) -> Result<(), SinkError> {
        let fixed = self.properties.keys().find(|name| FIXED.contains(&name.as_str()));
        if let Some(name) = fixed {
            let detail = format!("the property \"{name}\" is the sink's own");
            return Err(self.wrong(detail, "leave it out"));
        }
        let legal = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        for topic in [&self.topic, &self.commits_topic()] {
            if topic.is_empty() || topic.len() > 249 || !topic.chars().all(legal) {
                let detail = format!("\"{topic}\" is no name of a topic");
                return Err(self.wrong(detail, "use at most 249 letters, digits, \".\", \"_\" and \"-\""));
            }
        }
        Ok(())
    }

    fn wrong(&self, detail: String, hint: &'static str) -> SinkError {
        SinkError::Topic { doing: "open", topic: self.topic.clone(), detail, hint, fault: Fault::User, retry: false }
    }

    fn number(&self, property: &str) -> Option<u64> {
        self.properties.get(property)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(properties: &[(&str, &str)]) -> KafkaOptions {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (job, sink) = ("engagement".into(), "decisions".into());
        KafkaOptions {
            brokers: "b:1".into(),
            topic: "t".into(),
            properties,
            job,
            sink,
            workers: 1,
            ..Default::default()
        }
    }

    /// Goal: the user's settings arrive, those that promises rest on do not change, and consumers are spared those of producers.
    #[test]
    fn settings() {
        let options = options(&[("linger.ms", "7"), ("security.protocol", "SSL"), ("transaction.timeout.ms", "9000")]);
        let producer = options.producer();
        assert_eq!((producer.get("linger.ms"), producer.get("security.protocol")), (Some("7"), Some("SSL")));
        assert_eq!((producer.get("enable.idempotence"), producer.get("acks")), (Some("true"), Some("all")));
        let transactional = options.transactional("id");
        assert_eq!(transactional.get("message.timeout.ms"), Some("9000"));
        let consumer = options.consumer("read_committed");
        assert_eq!((consumer.get("linger.ms"), consumer.get("security.protocol")), (None, Some("SSL")));
    }

    /// Goal: a property that would break a promise is refused by name, and so is a topic that cannot exist.
    #[test]
    fn what_cannot_work_is_refused() {
        assert!(options(&[("linger.ms", "7")]).check().is_ok());
        for name in FIXED {
            let error = options(&[(name, "x")]).check().expect_err(name);
            assert!(error.to_string().contains(name), "{error}");
            assert_eq!(error.fault(), Fault::User);
        }
        let spaced = KafkaOptions { topic: "my topic".into(), ..options(&[]) };
        assert!(spaced.check().is_err());
    }
}
