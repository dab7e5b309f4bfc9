//! Clients of librdkafka: their configuration, what they say, and what of it is fatal.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use rdkafka::{
    ClientConfig, ClientContext, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, ConsumerContext},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};

use super::options::{KafkaOptions, owner_of_property};
use crate::source::SourceError;

/// A consumer with what is known of its brokers.
pub(super) type Consumer = BaseConsumer<Context>;

/// Records that librdkafka fetches ahead for one worker: some seconds of a busy topic, and the bound of what backpressure leaves lying.
const QUEUED_KBYTES_MAX: &str = "32768";

/// How long fetching pauses when that much lies there; librdkafka's second would be felt as a stutter.
const QUEUE_BACKOFF_MS: &str = "10";

/// Longest wait between two attempts to reach a broker: an outage should end when it ends, not ten seconds later.
const RECONNECT_BACKOFF_MS_MAX: &str = "1000";

/// What librdkafka finds wrong with a property; none where it takes it.
#[must_use]
pub fn problem_of_property(name: &str, value: &str) -> Option<String> {
    let mut config = ClientConfig::new();
    match config.set(name, value).create_native_config() {
        Err(KafkaError::ClientConfig(_, problem, ..)) => Some(problem),
        Err(other) => Some(other.to_string()),
        Ok(_) => None,
    }
}

/// A consumer for a worker's partitions.
pub(super) fn reading(options: &KafkaOptions, health: &Arc<Health>) -> Result<Consumer, SourceError> {
    let mut config = ClientConfig::new();
    config
        .set("isolation.level", "read_committed")
        .set("check.crcs", "true")
        .set("queued.max.messages.kbytes", QUEUED_KBYTES_MAX)
        .set("fetch.queue.backoff.ms", QUEUE_BACKOFF_MS);
    let owned = [
        ("group.id", options.group.as_str()),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "error"),
        ("enable.partition.eof", "true"),
    ];
    create(options, health, config, &owned)
}

/// A consumer that only asks. It sees the ends of open transactions too: a partition with one is not silent.
pub(super) fn asking(options: &KafkaOptions, health: &Arc<Health>) -> Result<Consumer, SourceError> {
    create(options, health, ClientConfig::new(), &[("isolation.level", "read_uncommitted")])
}

fn create(
    options: &KafkaOptions,
    health: &Arc<Health>,
    mut config: ClientConfig,
    owned: &[(&str, &str)],
) -> Result<Consumer, SourceError> {
    config.set("client.id", "whisperer").set("reconnect.backoff.max.ms", RECONNECT_BACKOFF_MS_MAX);
    for (name, value) in &options.properties {
        if let Some(owner) = owner_of_property(name) {
            return Err(SourceError::Settings(format!("the property \"{name}\" cannot be set: {owner}")));
        }
        config.set(name, value);
    }
    config.set("bootstrap.servers", &options.brokers);
    owned.iter().for_each(|(name, value)| {
        config.set(*name, *value);
    });
    config.create_with_context(Context(Arc::clone(health))).map_err(|error| match error {
        KafkaError::ClientConfig(_, problem, name, _) => {
            SourceError::Settings(format!("the property \"{name}\" cannot be set: {problem}"))
        }
        other => SourceError::Brokers { brokers: options.brokers.clone(), detail: other.to_string() },
    })
}

/// What the clients of a source have heard of the brokers.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Whether brokers were heard not to answer, and not to answer again since.
    is_down: AtomicBool,
    last: Mutex<Option<(RDKafkaErrorCode, String)>>,
}

impl Health {
    /// The last complaint.
    pub(super) fn last(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says that all brokers that matter answer.
    pub(super) fn answered(&self) {
        if self.is_down.swap(false, Ordering::Relaxed) {
            tracing::info!("the Kafka brokers answer again");
        }
    }

    fn complained(&self, code: RDKafkaErrorCode, reason: &str) {
        // That all brokers are down says less than why the last of them is.
        if code != RDKafkaErrorCode::AllBrokersDown {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((code, reason.to_owned()));
        }
        if !is_of_topic(code) && !self.is_down.swap(true, Ordering::Relaxed) {
            tracing::warn!(reason, "Kafka brokers do not answer; trying on");
        }
    }
}

/// Takes what a client of librdkafka says.
pub(super) struct Context(Arc<Health>);

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            // Failed connections are told by `error`, once an outage.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning if facility != "FAIL" => {
                tracing::warn!(facility, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::warn!(facility, "librdkafka: {message}");
            }
            _ => tracing::debug!(facility, "librdkafka: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            // Not an error; the reader takes it as an event.
            None | Some(RDKafkaErrorCode::PartitionEOF) => {}
            Some(code) => self.0.complained(code, reason),
        }
    }
}

impl ConsumerContext for Context {
    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            // Nobody but an observer of the group misses them, and the next checkpoint commits again.
            tracing::debug!(%error, "offsets were not committed to the group");
        }
    }
}

/// Whether the brokers do not know the topic or the partition.
pub(super) fn is_unknown(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition)
}

/// Whether an error is one of the topic or its data, which no waiting mends; anything else is an outage.
pub(super) fn is_of_topic(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    let is_other = matches!(
        code,
        Code::AutoOffsetReset
            | Code::OffsetOutOfRange
            | Code::TopicAuthorizationFailed
            | Code::InvalidTopic
            | Code::BadMessage
            | Code::BadCompression
            | Code::InvalidMessage
            | Code::MessageSizeTooLarge
            | Code::LogTruncation
            | Code::NotImplemented
    );
    is_unknown(code) || is_other
}

/// Whether the brokers refuse this client, which no waiting mends either.
pub(super) fn is_refusal(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL | Code::ClusterAuthorizationFailed)
}
