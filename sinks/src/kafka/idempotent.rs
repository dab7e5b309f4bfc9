//! Rows that are readable at once.
//!
//! The producer is idempotent: what the library tries again by itself arrives once and in order. What the engine makes again after a
//! crash is passed over, as far as the topic holds it; `tail.rs` says how.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use whisperer_schemas::{Row, TableSchema};

use super::{
    config::KafkaOptions,
    connection::ensure_topic,
    encode::{Encoder, topic_config},
    message::{Header, Message},
    producer::Sender,
    reader::{Offsets, Reader, view},
    tail::{IDS_MAX, Mark, Tail},
};
use crate::{
    error::{Fault, SinkError},
    log::{LogSink, Removal},
};

/// The version of recorded positions.
const POSITION_VERSION: u32 = 1;

/// How often the broker is asked where the topic ends: the worker waits for the answer. In between, a checkpoint takes the ends that are
/// known from before and from the writer's own messages: too early ones at worst, after which a recovery reads a minute more.
const ASKED_EVERY: Duration = Duration::from_secs(60);

/// Writes a table's rows to a topic at once.
pub struct KafkaLog {
    encoder: Encoder,
    out: Out,
    reader: Reader,
    /// Where the stretch begins that rows are passed over for.
    begins: Offsets,
    /// Where the topic ended when that was asked, and the writer's own messages since.
    ends: Offsets,
    asked: Option<Instant>,
    broken: bool,
}

/// The way of a message: passed over, or sent.
struct Out {
    topic: String,
    sender: Sender,
    tail: Tail,
    caught_up: bool,
    passed_over: u64,
}

/// What a checkpoint remembers of a writer.
#[derive(Debug, Serialize, Deserialize)]
struct Recorded {
    version: u32,
    topic: String,
    /// The offset that came next, or an earlier one, by partition.
    ends: BTreeMap<i32, i64>,
}

impl KafkaLog {
    /// A writer of `schema`'s rows; waits for the topic to be there.
    ///
    /// # Errors
    /// Settings that cannot work, or what Kafka answers.
    pub fn open(schema: TableSchema, options: &KafkaOptions) -> Result<KafkaLog, SinkError> {
        options.check()?;
        let config = topic_config(&schema);
        let encoder = Encoder::new(schema, options)?;
        ensure_topic(options, &options.topic, options.create, config)?;
        let sender = Sender::open(&options.producer(), &options.topic, options.delivery_timeout())?;
        let reader = Reader::open(options, &options.topic, "read_uncommitted")?;
        let topic = options.topic.clone();
        let out = Out { topic, sender, tail: Tail::default(), caught_up: false, passed_over: 0 };
        Ok(KafkaLog { encoder, out, reader, begins: Offsets::new(), ends: Offsets::new(), asked: None, broken: false })
    }

    fn unless_broken<T>(&mut self, step: impl FnOnce(&mut KafkaLog) -> Result<T, SinkError>) -> Result<T, SinkError> {
        if self.broken {
            return Err(SinkError::Broken { table: self.out.topic.clone() });
        }
        let result = step(self);
        self.broken = result.is_err();
        result
    }

    fn read_tail(&mut self, positions: &[String]) -> Result<(), SinkError> {
        let recorded = smallest(&self.out.topic, positions)?;
        let (firsts, ends) = (self.reader.begins()?, self.reader.ends()?);
        if recorded.is_empty() {
            // A first start, or another topic than the checkpoint knows: nothing in it is this job's.
            return Ok(());
        }
        for (partition, first) in firsts {
            let end = ends.get(&partition).copied().unwrap_or(first);
            // A partition that the checkpoint does not know is younger than it. One that ends before what is recorded was made anew.
            let begin = recorded.get(&partition).copied().filter(|begin| *begin <= end).unwrap_or(first);
            self.begins.insert(partition, begin.max(first));
        }
        let (table, tail, topic) = (self.encoder.table(), &mut self.out.tail, &self.out.topic);
        self.reader.read(&self.begins, &ends, |message| match Mark::of(table, &view(message)) {
            Some(mark) if !tail.add(mark) => Err(too_much(topic)),
            _ => Ok(()),
        })?;
        tracing::info!(topic, rows = tail.len(), "read what the topic holds since the checkpoint");
        Ok(())
    }

    fn record(&mut self) -> Result<String, SinkError> {
        self.reader.wait_for(self.out.sender.timeout());
        self.out.sender.settle().map_err(|error| self.out.sender.refused("write to", &error))?;
        if self.out.caught_up || self.out.tail.len() == 0 {
            self.out.tail = Tail::default();
            self.begins = Offsets::new();
        }
        if self.asked.is_none_or(|asked| asked.elapsed() >= ASKED_EVERY) {
            self.ends = self.reader.ends()?;
            self.asked = Some(Instant::now());
        }
        for (partition, end) in self.out.sender.ends() {
            let known = self.ends.entry(partition).or_insert(end);
            *known = end.max(*known);
        }
        let mut ends = self.ends.clone();
        // Rows that stand in the topic and were not made again yet have to be found again by whoever recovers next.
        ends.extend(&self.begins);
        let recorded = Recorded { version: POSITION_VERSION, topic: self.out.topic.clone(), ends };
        Ok(serde_json::to_string(&recorded).expect("numbers and texts always have a JSON form"))
    }
}

impl LogSink for KafkaLog {
    fn recover(&mut self, positions: &[String]) -> Result<(), SinkError> {
        self.unless_broken(|log| log.read_tail(positions))
    }

    fn write(&mut self, rows: Vec<Row>) -> Result<(), SinkError> {
        self.unless_broken(|KafkaLog { encoder, out, .. }| {
            rows.iter().try_for_each(|row| {
                encoder.with_message(row, |message| out.put(Mark::of(encoder.table(), message), message))
            })
        })
    }

    fn remove(&mut self, keys: &[Removal]) -> Result<(), SinkError> {
        self.unless_broken(|KafkaLog { encoder, out, .. }| {
            keys.iter().try_for_each(|key| {
                encoder.with_tombstone(key, |message| out.put(Mark::of(encoder.table(), message), message))
            })
        })
    }

    fn flush(&mut self) -> Result<String, SinkError> {
        self.unless_broken(KafkaLog::record)
    }

    fn caught_up(&mut self) {
        self.out.caught_up = true;
    }

    fn passed_over(&self) -> u64 {
        self.out.passed_over
    }
}

impl Out {
    fn put(&mut self, mark: Option<Mark>, message: &Message<'_, &[Header<'_>]>) -> Result<(), SinkError> {
        if self.tail.len() > 0 && mark.is_some_and(|mark| self.tail.take(mark)) {
            self.passed_over += 1;
            return Ok(());
        }
        self.sender.send(&self.topic, message).map_err(|error| self.sender.refused("write to", &error))
    }
}

impl fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Out { topic, tail, .. } = &self.out;
        f.debug_struct("KafkaLog").field("topic", topic).field("tail", &tail.len()).finish_non_exhaustive()
    }
}

/// The smallest offset that any writer recorded, by partition; of those that speak of `topic`.
fn smallest(topic: &str, positions: &[String]) -> Result<Offsets, SinkError> {
    let wrong = |detail: String| SinkError::Recorded { topic: topic.into(), detail };
    let mut offsets = Offsets::new();
    for position in positions {
        let recorded: Recorded =
            serde_json::from_str(position).map_err(|error| wrong(format!("{error} in {position}")))?;
        if recorded.version != POSITION_VERSION {
            return Err(wrong(format!("it has version {}; this release reads {POSITION_VERSION}", recorded.version)));
        }
        for (partition, end) in recorded.ends.into_iter().filter(|_| recorded.topic == topic) {
            let smallest = offsets.entry(partition).or_insert(end);
            *smallest = end.min(*smallest);
        }
    }
    Ok(offsets)
}

fn too_much(topic: &str) -> SinkError {
    SinkError::Topic {
        doing: "recover",
        topic: topic.into(),
        detail: format!("it holds more than {IDS_MAX} rows since the last checkpoint"),
        hint: "they can be repeated instead of being passed over: --repeat-outputs",
        fault: Fault::External,
        retry: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: of all writers' positions the smallest counts, those of another topic do not, and damage is an error.
    #[test]
    fn smallest_position_counts() {
        let position = |topic: &str, ends: &[(i32, i64)]| {
            let recorded = Recorded { version: 1, topic: topic.into(), ends: ends.iter().copied().collect() };
            serde_json::to_string(&recorded).unwrap()
        };
        let positions = [position("t", &[(0, 7), (1, 3)]), position("t", &[(0, 5), (2, 9)]), position("u", &[(0, 1)])];
        assert_eq!(smallest("t", &positions).unwrap(), Offsets::from([(0, 5), (1, 3), (2, 9)]));
        assert_eq!(positions[0], r#"{"version":1,"topic":"t","ends":{"0":7,"1":3}}"#, "its form is kept in manifests");
        for damaged in ["", "{}", r#"{"version":2,"topic":"t","ends":{}}"#] {
            assert!(matches!(smallest("t", &[damaged.to_owned()]), Err(SinkError::Recorded { .. })));
        }
    }
}
