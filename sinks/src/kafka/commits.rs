//! Which checkpoints are out: a topic beside that of the rows, written to in the same transactions.
//!
//! A record's key is the identity of the worker that filled an outbox, its value the number of the checkpoint; the last one of a key counts. The
//! topic is compacted, so it is short and nothing in it expires. The other place that a transaction can write a number to, the offsets of
//! a consumer group, forgets groups that nobody is in after `offsets.retention.minutes`: a job that stands still for a week would publish
//! its last outbox again. A record among the rows would be in everybody's way. The topic is the job's and the sink's own: an open
//! transaction of someone else would hide what lies behind it.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    config::{CreateTopic, KafkaOptions},
    connection::{ensure_topic, late},
    message::{Header, Message},
    reader::{Reader, view},
};
use crate::error::SinkError;

/// Small segments, compacted soon: what is read at a start stays a few megabytes.
const TOPIC: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.bytes", "4194304"),
    ("segment.ms", "3600000"),
    ("min.cleanable.dirty.ratio", "0.1"),
];

/// How often it is looked whether open transactions have ended.
const PAUSE: Duration = Duration::from_millis(50);

/// The value of a record.
#[derive(Debug, Serialize, Deserialize)]
struct Commit {
    /// The checkpoint.
    number: u64,
    /// The writer that published it.
    by: String,
}

/// Makes the topic if it is missing.
pub(super) fn ensure(options: &KafkaOptions) -> Result<(), SinkError> {
    // Numbers are as safe as rows: kept as many times as the broker keeps anything, or as the sink's own topic is.
    let replication = options.create.and_then(|create| create.replication);
    let create = CreateTopic { partitions: Some(1), replication };
    ensure_topic(options, &options.commits_topic(), Some(create), &TOPIC)
}

/// Hands the record of `number` to `take`.
pub(super) fn with_record<T>(
    maker: &str,
    by: &str,
    number: u64,
    take: impl FnOnce(&Message<'_, &[Header<'_>]>) -> T,
) -> T {
    let value =
        serde_json::to_vec(&Commit { number, by: by.into() }).expect("numbers and texts always have a JSON form");
    take(&Message { key: Some(maker.as_bytes()), value: Some(&value), headers: &[] })
}

/// The last number of each identity. Their transactions must have ended, or been fenced.
pub(super) fn read(options: &KafkaOptions) -> Result<BTreeMap<String, u64>, SinkError> {
    let topic = options.commits_topic();
    let all = Reader::open(options, &topic, "read_uncommitted")?.ends()?;
    let reader = Reader::open(options, &topic, "read_committed")?;
    wait_until_settled(&reader, &all, &topic, options.transaction_timeout())?;
    let mut numbers = BTreeMap::new();
    reader.read(&reader.begins()?, &all, |record| {
        let Message { key, value, .. } = view(record);
        let identity = key.and_then(|key| str::from_utf8(key).ok());
        let commit = value.and_then(|value| serde_json::from_slice::<Commit>(value).ok());
        let (Some(identity), Some(commit)) = (identity, commit) else {
            let detail = format!("offset {} holds no number of a checkpoint", record_offset(record));
            return Err(SinkError::Recorded { topic: topic.clone(), detail });
        };
        numbers.insert(identity.to_owned(), commit.number);
        Ok(())
    })?;
    Ok(numbers)
}

/// Waits until what is written is also decided: a writer that nobody has fenced may have left a transaction open, which the broker
/// gives up after its timeout.
fn wait_until_settled(
    reader: &Reader,
    all: &BTreeMap<i32, i64>,
    topic: &str,
    transaction_timeout: Duration,
) -> Result<(), SinkError> {
    // Brokers look for transactions that are too old every ten seconds.
    let bound = transaction_timeout + Duration::from_secs(20);
    let started = Instant::now();
    loop {
        let decided = reader.ends()?;
        if all.iter().all(|(partition, end)| decided.get(partition).is_some_and(|decided| decided >= end)) {
            return Ok(());
        }
        if started.elapsed() >= bound {
            return Err(late("read all of", topic, bound));
        }
        thread::sleep(PAUSE);
    }
}

fn record_offset(record: &rdkafka::message::BorrowedMessage<'_>) -> i64 {
    rdkafka::Message::offset(record)
}
