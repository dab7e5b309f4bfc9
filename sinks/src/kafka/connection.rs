//! What all clients share: logs, errors with hints, and topics that are there when rows come.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode as Code},
};

use super::config::{CreateTopic, KafkaOptions};
use crate::error::{Fault, SinkError};

/// How often a topic is looked for while it comes into being.
const TOPIC_PAUSE: Duration = Duration::from_millis(50);

/// Forwards the library's own logs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Logs;

impl ClientContext for Logs {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        complain(&error, reason);
    }
}

impl rdkafka::consumer::ConsumerContext for Logs {}

/// Tells of what the library says of brokers. That all of them are down says less than why each is, and is said again and again.
pub(super) fn complain(error: &KafkaError, reason: &str) {
    if error.rdkafka_error_code() == Some(Code::AllBrokersDown) {
        tracing::debug!(%error, reason, "kafka");
    } else {
        tracing::warn!(%error, reason, "kafka");
    }
}

/// The library calls an error what it goes on to repair by itself, such as a broker that went away; none is more than a warning here.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
    match level {
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => tracing::debug!(facility, text, "librdkafka"),
        RDKafkaLogLevel::Notice => tracing::info!(facility, text, "librdkafka"),
        _ => tracing::warn!(facility, text, "librdkafka"),
    }
}

/// An error of the library, with what may help.
pub(super) fn refused(doing: &'static str, topic: &str, error: &KafkaError) -> SinkError {
    let code = error.rdkafka_error_code();
    let detail = match error {
        KafkaError::Transaction(error) => error.string(),
        KafkaError::ClientConfig(_, detail, name, value) => format!("\"{name}\" = \"{value}\": {detail}"),
        KafkaError::ClientCreation(detail) => detail.clone(),
        _ => code.map_or_else(|| error.to_string(), |code| code.to_string()),
    };
    let unfit = matches!(error, KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_));
    let (hint, fault, retry) = match code {
        _ if unfit => ("see \"properties\"", Fault::User, false),
        Some(code) => advice(code),
        None => ("", Fault::External, false),
    };
    SinkError::Topic { doing, topic: topic.into(), detail, hint, fault, retry }
}

/// What helps, whose fault it is, and whether another try may do.
fn advice(code: Code) -> (&'static str, Fault, bool) {
    match code {
        Code::MessageSizeTooLarge => (
            "raise \"message.max.bytes\" in the sink's properties, and \"max.message.bytes\" of the topic",
            Fault::User,
            false,
        ),
        Code::InvalidTimestamp => (
            "the clocks of this machine and of the broker are too far apart; set them, or set the topic's \
             \"message.timestamp.type\" to LogAppendTime",
            Fault::User,
            false,
        ),
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => (
            "create the topic, or let the sink do it: create = { partitions = 6, replication = 3 }",
            Fault::User,
            false,
        ),
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            ("the user needs the right to write, read and describe the topic", Fault::User, false)
        }
        Code::GroupAuthorizationFailed => {
            ("the user needs the right to read groups whose name begins with \"whisperer.\"", Fault::User, false)
        }
        Code::TransactionalIdAuthorizationFailed => {
            ("the user needs the right to write transactional ids that begin with \"whisperer.\"", Fault::User, false)
        }
        Code::InvalidTransactionTimeout => (
            "\"transaction.timeout.ms\" must not exceed the broker's \"transaction.max.timeout.ms\"",
            Fault::User,
            false,
        ),
        Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL => {
            ("see the \"sasl.\" and \"ssl.\" properties of the sink", Fault::User, false)
        }
        Code::MessageTimedOut
        | Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::TimedOutQueue
        | Code::LeaderNotAvailable
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::BrokerNotAvailable => ("are the brokers up, and is \"brokers\" right?", Fault::External, true),
        _ => ("", Fault::External, false),
    }
}

/// No answer at all.
pub(super) fn late(doing: &'static str, topic: &str, waited: Duration) -> SinkError {
    SinkError::Topic {
        doing,
        topic: topic.into(),
        detail: format!("no answer for {} s", waited.as_secs()),
        hint: "are the brokers up, and is \"brokers\" right?",
        fault: Fault::External,
        retry: true,
    }
}

/// Waits until `topic` has partitions with leaders. It is made first where `create` says so, with `config`.
pub(super) fn ensure_topic(
    options: &KafkaOptions,
    topic: &str,
    create: Option<CreateTopic>,
    config: &[(&str, &str)],
) -> Result<(), SinkError> {
    let admin: AdminClient<Logs> = AdminClient::from_config_and_context(&options.client(), Logs)
        .map_err(|error| refused("open", topic, &error))?;
    let wait = options.patience();
    let wanted = create.filter(|_| !exists(options, topic));
    let refusal = wanted.and_then(|create| create_topic(&admin, topic, create, config, wait).err());
    let started = Instant::now();
    loop {
        let Some(error) = missing(&admin, topic, wait) else { return Ok(()) };
        // A topic that a broker makes when asked for it is unknown for a moment. Whatever stood in the way of creating it says more.
        let wait = if refusal.is_some() { Duration::ZERO } else { wait.min(patience(&error)) };
        if started.elapsed() >= wait {
            return Err(refused("open", topic, refusal.as_ref().unwrap_or(&error)));
        }
        thread::sleep(TOPIC_PAUSE);
    }
}

/// Whether `topic` is there. Only a consumer can ask without making it.
fn exists(options: &KafkaOptions, topic: &str) -> bool {
    let consumer = BaseConsumer::from_config_and_context(&options.consumer("read_uncommitted"), Logs);
    let ask = |consumer: BaseConsumer<Logs>| consumer.fetch_metadata(Some(topic), options.patience());
    let metadata = consumer.and_then(ask);
    metadata.is_ok_and(|metadata| metadata.topics().iter().any(|found| found.error().is_none()))
}

/// What is missing for `topic` to be written to.
fn missing(admin: &AdminClient<Logs>, topic: &str, wait: Duration) -> Option<KafkaError> {
    let metadata = match admin.inner().fetch_metadata(Some(topic), wait) {
        Ok(metadata) => metadata,
        Err(error) => return Some(error),
    };
    let Some(found) = metadata.topics().first() else { return Some(KafkaError::MetadataFetch(Code::UnknownTopic)) };
    if let Some(error) = found.error() {
        return Some(KafkaError::MetadataFetch(error.into()));
    }
    let leaderless = found.partitions().iter().find_map(|partition| partition.error());
    match leaderless {
        Some(error) => Some(KafkaError::MetadataFetch(error.into())),
        None if found.partitions().is_empty() => Some(KafkaError::MetadataFetch(Code::LeaderNotAvailable)),
        None => None,
    }
}

/// How long it may last until an error heals by itself.
fn patience(error: &KafkaError) -> Duration {
    match error.rdkafka_error_code() {
        Some(Code::UnknownTopic | Code::UnknownTopicOrPartition) => Duration::from_secs(5),
        Some(Code::TopicAuthorizationFailed | Code::InvalidTopic | Code::Authentication) => Duration::ZERO,
        _ => Duration::MAX,
    }
}

fn create_topic(
    admin: &AdminClient<Logs>,
    topic: &str,
    create: CreateTopic,
    config: &[(&str, &str)],
    wait: Duration,
) -> Result<(), KafkaError> {
    let default = |number: Option<u16>| number.map_or(-1, i32::from);
    let replication = TopicReplication::Fixed(default(create.replication));
    let mut new = NewTopic::new(topic, default(create.partitions), replication);
    new.config = config.to_vec();
    let limit = Some(wait);
    let options = AdminOptions::new().request_timeout(limit).operation_timeout(limit);
    let code = match block_on(admin.create_topics([&new], &options)) {
        Ok(results) => results.into_iter().find_map(Result::err).map(|(_, code)| code),
        Err(error) => Some(error.rdkafka_error_code().ok_or(error)?),
    };
    match code {
        // A broker that knows no such request makes topics as they are asked for, or has them.
        None | Some(Code::TopicAlreadyExists | Code::UnsupportedFeature) => Ok(()),
        Some(code) => Err(KafkaError::AdminOp(code)),
    }
}

/// Waits for a future whose own thread wakes this one.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
