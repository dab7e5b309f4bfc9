//! A producer that counts what is acknowledged, and waits when too much is on its way.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext, Message as _,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::{DeliveryResult, Header as KafkaHeader, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig},
};

use super::{
    connection::{complain, log, refused},
    message::{Header, Message},
    reader::Offsets,
};
use crate::error::SinkError;

/// How long a wait for acknowledgements sleeps: little beside the milliseconds that they take.
const POLL: Duration = Duration::from_millis(1);

/// Messages between two looks at what is acknowledged; a few hundred microseconds of work.
const SENT_BETWEEN_POLLS: u64 = 256;

/// What became of messages.
#[derive(Debug)]
pub(super) struct Deliveries {
    settled: AtomicU64,
    /// The topic whose offsets are followed, and of each of its partitions the offset after the last message that is acknowledged.
    topic: String,
    ends: Mutex<Offsets>,
    /// The first error since it was last looked at.
    failed: Mutex<Option<KafkaError>>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(Code::Fatal) {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.clone());
        }
        complain(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) if message.topic() == self.topic => {
                let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
                let end = ends.entry(message.partition()).or_default();
                // A message that arrived at the second try may come back without its offset, as -1.
                *end = (message.offset() + 1).max(*end);
            }
            Ok(_) => {}
            Err((error, _)) => {
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.clone());
            }
        }
        self.settled.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends messages to one or a few topics.
pub(super) struct Sender {
    pub(super) producer: BaseProducer<Deliveries>,
    topic: String,
    sent: u64,
    /// How long a message is tried, and with it the longest wait for acknowledgements.
    timeout: Duration,
}

impl Sender {
    pub(super) fn open(config: &ClientConfig, topic: &str, timeout: Duration) -> Result<Sender, SinkError> {
        let (settled, failed, ends) = Default::default();
        let deliveries = Deliveries { settled, topic: topic.into(), ends, failed };
        let producer = BaseProducer::from_config_and_context(config, deliveries);
        let producer = producer.map_err(|error| refused("open", topic, &error))?;
        Ok(Sender { producer, topic: topic.into(), sent: 0, timeout })
    }

    /// How long a message is tried.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends to `topic`; waits while too much is on its way. A message that is not acknowledged in time makes room, as an error.
    pub(super) fn send<'h>(
        &mut self,
        topic: &str,
        message: &Message<'_, impl AsRef<[Header<'h>]>>,
    ) -> Result<(), KafkaError> {
        let headers = message.headers.as_ref();
        let mut owned = OwnedHeaders::new_with_capacity(headers.len());
        for (key, value) in headers {
            owned = owned.insert(KafkaHeader { key, value: Some(*value) });
        }
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).headers(owned);
        record.key = message.key;
        record.payload = message.value;
        loop {
            self.check()?;
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(POLL);
                }
                Err((error, _)) => return Err(error),
            }
        }
        self.sent += 1;
        if self.sent.is_multiple_of(SENT_BETWEEN_POLLS) {
            self.producer.poll(Duration::ZERO);
        }
        Ok(())
    }

    /// Waits until all messages are acknowledged.
    pub(super) fn settle(&mut self) -> Result<(), KafkaError> {
        // The library gives every message back by its own timeout; the margin is for the report to arrive.
        let bound = self.timeout + self.timeout / 4;
        let started = Instant::now();
        while self.settled() < self.sent {
            self.producer.poll(POLL);
            if started.elapsed() >= bound {
                return Err(KafkaError::Flush(Code::MessageTimedOut));
            }
        }
        self.check()
    }

    /// Of the partitions of its topic that it has written to, the offset after its last message that is acknowledged.
    pub(super) fn ends(&self) -> Offsets {
        self.producer.context().ends.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first message that was refused since the last call, if any.
    fn check(&self) -> Result<(), KafkaError> {
        let failed = self.producer.context().failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        failed.map_or(Ok(()), Err)
    }

    /// Forgets messages that are not acknowledged yet: they belong to a transaction that is given up.
    pub(super) fn forget(&mut self) {
        self.producer.purge(PurgeConfig::default().queue().inflight());
        let _purged = self.settle();
        let _refused = self.check();
    }

    /// What made the producer useless, if it is.
    pub(super) fn fatal(&self) -> Option<(Code, String)> {
        self.producer.client().fatal_error()
    }

    /// An error of this producer, with the reason why it is useless where it is.
    pub(super) fn refused(&self, doing: &'static str, error: &KafkaError) -> SinkError {
        let mut refusal = refused(doing, &self.topic, error);
        if let (SinkError::Topic { detail, retry, .. }, Some((code, reason))) = (&mut refusal, self.fatal()) {
            *detail = format!("{reason} ({code})");
            // A new producer begins with a clean slate.
            *retry = true;
        }
        refusal
    }

    fn settled(&self) -> u64 {
        self.producer.context().settled.load(Ordering::Relaxed)
    }
}
