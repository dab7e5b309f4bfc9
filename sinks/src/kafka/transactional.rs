//! Rows that are readable with their checkpoint.
//!
//! ```text
//! encode ─▶ outbox in the worker's delta ─▶ manifest committed ─▶ begin ─ rows ─ number ─ commit      one transaction
//! ```
//! The transactional id is the writer's identity, the same in every generation: a new writer that takes it fences the old one, whose
//! open transaction is given up and whose later ones are refused. Then the number that is recorded tells which outboxes are out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
    producer::Producer,
};
use whisperer_schemas::{Row, TableSchema};

use super::{
    commits,
    config::{KafkaOptions, REQUEST_TIMEOUT},
    connection::ensure_topic,
    encode::{Encoder, topic_config},
    message::{Messages, append},
    producer::Sender,
};
use crate::{
    error::{Fault, SinkError},
    log::{OutboxEncoder, OutboxSink, Removal, taken_over},
};

/// How often a transaction that had to be given up is tried: with the pauses between, as long as a broker takes to start again.
const ATTEMPTS_MAX: u32 = 6;
/// The pause before the second attempt; it doubles each time.
const PAUSE: Duration = Duration::from_millis(200);

/// How long the library may take to tell what it knows already.
const REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// Writes a table's rows to a topic, a transaction for each checkpoint.
pub struct KafkaOutbox {
    options: KafkaOptions,
    encoder: Arc<Encoder>,
    commits_topic: String,
    /// None before recovery: whoever takes the identity fences its earlier owner.
    sender: Option<Sender>,
    /// Of the identities taken over the number of the last checkpoint that is out; they count from 1.
    recorded: BTreeMap<String, u64>,
    broken: bool,
}

impl KafkaOutbox {
    /// A writer of `schema`'s rows; waits for its topics to be there.
    ///
    /// # Errors
    /// Settings that cannot work, or what Kafka answers.
    pub fn open(schema: TableSchema, options: &KafkaOptions) -> Result<KafkaOutbox, SinkError> {
        options.check()?;
        let config = topic_config(&schema);
        let encoder = Encoder::new(schema, options)?;
        ensure_topic(options, &options.topic, options.create, config)?;
        commits::ensure(options)?;
        Ok(KafkaOutbox {
            options: options.clone(),
            encoder: Arc::new(encoder),
            commits_topic: options.commits_topic(),
            sender: None,
            recorded: BTreeMap::new(),
            broken: false,
        })
    }

    fn unless_broken<T>(
        &mut self,
        step: impl FnOnce(&mut KafkaOutbox) -> Result<T, SinkError>,
    ) -> Result<T, SinkError> {
        if self.broken {
            return Err(SinkError::Broken { table: self.options.topic.clone() });
        }
        let result = step(self);
        self.broken = result.is_err();
        result
    }

    fn take_over(&mut self, earlier: &[String]) -> Result<BTreeMap<String, u64>, SinkError> {
        let KafkaOptions { worker, workers, .. } = self.options;
        let share: BTreeSet<String> = taken_over(earlier, worker, workers, |worker| self.options.identity_of(worker));
        let own = self.identity();
        for identity in share.iter().filter(|identity| **identity != own) {
            fence(&self.options, identity)?;
        }
        self.sender = Some(fence(&self.options, &own)?);
        let numbers = commits::read(&self.options)?;
        let number_of = |identity: String| (numbers.get(&identity).copied().unwrap_or_default(), identity);
        self.recorded = share.into_iter().map(number_of).map(|(number, identity)| (identity, number)).collect();
        Ok(self.recorded.clone())
    }

    /// One transaction, tried again while that may help.
    fn transact(&mut self, numbers: &[(&str, u64)], outbox: &[u8]) -> Result<(), SinkError> {
        let mut pause = PAUSE;
        for attempt in 1.. {
            let error = match self.attempt(numbers, outbox)? {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            self.give_up(&error)?;
            if attempt == ATTEMPTS_MAX || is_final(&error) {
                return Err(self.refused("publish to", &error));
            }
            tracing::warn!(topic = self.options.topic, %error, attempt, "a transaction was given up and is tried again");
            thread::sleep(pause);
            pause *= 2;
        }
        unreachable!("the last attempt returns")
    }

    /// Begins, sends and commits. The outer error says that the outbox is damaged.
    fn attempt(&mut self, numbers: &[(&str, u64)], outbox: &[u8]) -> Result<KafkaResult<()>, SinkError> {
        let own = self.identity();
        let KafkaOutbox { options, commits_topic, sender, .. } = self;
        let sender = opened(sender)?;
        let damaged = |detail| SinkError::Recorded { topic: options.topic.clone(), detail };
        if let Err(error) = sender.producer.begin_transaction() {
            return Ok(Err(error));
        }
        for message in Messages::of(outbox).map_err(damaged)? {
            let sent = sender.send(&options.topic, &message.map_err(damaged)?);
            if let Err(error) = sent {
                return Ok(Err(reason(sender, error)));
            }
        }
        for (maker, number) in numbers {
            let sent = commits::with_record(maker, &own, *number, |record| sender.send(commits_topic, record));
            if let Err(error) = sent {
                return Ok(Err(reason(sender, error)));
            }
        }
        Ok(match sender.settle() {
            Ok(()) => persist(options.transaction_timeout(), |left| sender.producer.commit_transaction(left)),
            Err(error) => Err(reason(sender, error)),
        })
    }

    /// Aborts a transaction; that the writer is fenced, or of no more use, is an error.
    fn give_up(&mut self, error: &KafkaError) -> Result<(), SinkError> {
        self.unless_fatal(error)?;
        let timeout = self.options.transaction_timeout();
        let sender = opened(&mut self.sender)?;
        sender.forget();
        let aborted = persist(timeout, |left| sender.producer.abort_transaction(left));
        aborted.or_else(|error| {
            self.unless_fatal(&error)?;
            Err(self.refused("abort a transaction on", &error))
        })
    }

    fn unless_fatal(&self, error: &KafkaError) -> Result<(), SinkError> {
        let fatal = self.sender.as_ref().and_then(Sender::fatal).map(|(code, _)| code);
        let codes = [fatal, error.rdkafka_error_code()];
        if codes.iter().flatten().any(|code| matches!(code, Code::Fenced | Code::ProducerFenced)) {
            return Err(SinkError::TakenOver { topic: self.options.topic.clone(), writer: self.identity() });
        }
        if fatal.is_some() { Err(self.refused("publish to", error)) } else { Ok(()) }
    }

    fn refused(&self, doing: &'static str, error: &KafkaError) -> SinkError {
        let sender = self.sender.as_ref().expect("only a writer that has recovered sends");
        sender.refused(doing, error)
    }
}

impl OutboxEncoder for Encoder {
    fn encode(&self, rows: &[Row], outbox: &mut Vec<u8>) -> Result<(), SinkError> {
        if let Some(changes) = self.changes() {
            return changes.encode(rows, outbox);
        }
        rows.iter().try_for_each(|row| {
            self.with_message(row, |message| {
                append(message, outbox);
                Ok(())
            })
        })
    }

    fn encode_removals(&self, keys: &[Removal], outbox: &mut Vec<u8>) -> Result<(), SinkError> {
        keys.iter().try_for_each(|key| {
            self.with_tombstone(key, |message| {
                append(message, outbox);
                Ok(())
            })
        })
    }
}

impl OutboxSink for KafkaOutbox {
    fn recover(&mut self, earlier: &[String]) -> Result<BTreeMap<String, u64>, SinkError> {
        self.unless_broken(|outbox| outbox.take_over(earlier))
    }

    fn identity(&self) -> String {
        self.options.identity_of(self.options.worker)
    }

    fn encoder(&self) -> Arc<dyn OutboxEncoder> {
        self.encoder.clone()
    }

    fn publish(&mut self, maker: &str, number: u64, outbox: &[u8]) -> Result<(), SinkError> {
        self.unless_broken(|sink| {
            let Some(recorded) = sink.recorded.get(maker).copied() else {
                return Err(sink.not_taken_over(maker));
            };
            if outbox.is_empty() || number <= recorded {
                return Ok(());
            }
            sink.transact(&[(maker, number)], outbox)?;
            sink.recorded.insert(maker.to_owned(), number);
            Ok(())
        })
    }

    fn forget(&mut self) -> Result<(), SinkError> {
        self.unless_broken(|sink| {
            let identities: Vec<String> = sink.recorded.keys().cloned().collect();
            let numbers: Vec<(&str, u64)> = identities.iter().map(|identity| (identity.as_str(), 0)).collect();
            sink.transact(&numbers, &[])?;
            sink.recorded.values_mut().for_each(|number| *number = 0);
            Ok(())
        })
    }
}

impl KafkaOutbox {
    fn not_taken_over(&self, maker: &str) -> SinkError {
        let detail = format!("\"{}\" has not taken over the writer \"{maker}\"", self.identity());
        let topic = self.options.topic.clone();
        SinkError::Topic { doing: "publish to", topic, detail, hint: "", fault: Fault::Internal, retry: false }
    }
}

impl fmt::Debug for KafkaOutbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaOutbox").field("identity", &self.identity()).finish_non_exhaustive()
    }
}

fn opened(sender: &mut Option<Sender>) -> Result<&mut Sender, SinkError> {
    Ok(sender.as_mut().expect("an identity is taken over together with its producer"))
}

/// Takes an identity: its earlier owner's open transaction is given up, and it can begin no other.
fn fence(options: &KafkaOptions, identity: &str) -> Result<Sender, SinkError> {
    let sender = Sender::open(&options.transactional(identity), &options.topic, options.transaction_timeout())?;
    persist(REQUEST_TIMEOUT, |left| sender.producer.init_transactions(left))
        .map_err(|error| sender.refused("take over the writing to", &error))?;
    Ok(sender)
}

/// Why messages of a transaction were not taken: when it fails they are purged, and only the commit, which then fails too, tells why.
/// It must not be asked of a transaction that has not failed: of that, it would commit what it has.
fn reason(sender: &Sender, error: KafkaError) -> KafkaError {
    if !matches!(error.rdkafka_error_code(), Some(Code::PurgeQueue | Code::PurgeInflight | Code::State)) {
        return error;
    }
    match sender.producer.commit_transaction(REASON_TIMEOUT) {
        Err(reason @ KafkaError::Transaction(_)) => reason,
        _ => error,
    }
}

/// Repeats a call while the library says that the same call may succeed.
fn persist(bound: Duration, mut call: impl FnMut(Duration) -> KafkaResult<()>) -> KafkaResult<()> {
    let started = Instant::now();
    loop {
        let left = bound.saturating_sub(started.elapsed());
        match call(left.max(Duration::from_millis(1))) {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && started.elapsed() < bound => {}
            result => return result,
        }
    }
}

/// Whether the same messages would be refused again.
fn is_final(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::MessageSizeTooLarge
                | Code::InvalidTimestamp
                | Code::InvalidRecord
                | Code::TopicAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed
                | Code::UnknownTopic
                | Code::UnknownTopicOrPartition
                | Code::PolicyViolation
        )
    )
}
