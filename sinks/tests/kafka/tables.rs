//! What each table looks like in its topic.

use std::time::UNIX_EPOCH;

use serde_json::Value as Json;
use whisperer_schemas::{Epoch, Row, TableSchema, Value, time::SECOND};
use whisperer_sinks::{
    KafkaLog, KafkaOutbox, LogSink, OutboxSink, Removal,
    conformance::{sample_row, sample_schema},
    ndjson,
};

use super::broker::{Broker, Seen};

/// Goal: a decision's key and header are its id, its value the JSON of the file sink, its timestamp the time of
/// sending: of old timestamps a broker would conclude that the producer is no more, and take twice what it is sent again.
#[test]
fn decisions() {
    let broker = Broker::start();
    let topic = broker.topic("decisions");
    let mut sink = KafkaLog::open(sample_schema(), &broker.options(&topic, 0, 1)).expect("a log opens");
    let row = sample_row(7);
    let now = || UNIX_EPOCH.elapsed().expect("a time after 1970").as_millis() as i64;
    let begun = now();
    sink.write(vec![row.clone()]).expect("a row");
    sink.flush().expect("acknowledged");
    let [seen] = broker.read(&topic).try_into().expect("one message");
    let id = row.values[0].as_text().expect("an id");
    assert_eq!(seen.key.as_deref(), Some(id.as_bytes()));
    assert_eq!(seen.headers, [("decision_id".to_owned(), id.to_owned())].into());
    assert!(seen.timestamp.is_some_and(|at| (begun..=now()).contains(&at)), "{:?}", seen.timestamp);
    let line = ndjson::line(&sample_schema(), &row).expect("a line");
    assert_eq!(seen.value.as_deref(), line.strip_suffix(b"\n"));
}

fn profile(user: &str, as_of: i64, clock: i64, epoch: u64) -> Row {
    let schema = TableSchema::profiles(Vec::new());
    let mut values = vec![Value::Null; schema.columns.len()];
    values[0] = Value::Time(as_of * SECOND);
    (values[1], values[2]) = (Value::text("engagement"), Value::Int(1));
    (values[3], values[4]) = (Value::text("app"), Value::text(user));
    (values[5], values[6]) = (Value::Time(clock * SECOND), Value::Bool(false));
    *values.last_mut().expect("columns") = Value::Int(epoch as i64);
    Row { values, epoch: Epoch(epoch), position: None }
}

fn removal(user: &str, at: i64) -> Removal {
    Removal { app_id: "app".into(), user_id: user.into(), at: at * SECOND }
}

/// The last message of each key, as compaction leaves them: its key clock in seconds, or none for a tombstone.
fn compacted(messages: &[Seen]) -> Vec<(String, Option<i64>)> {
    let clock = |value: &Vec<u8>| {
        let json: Json = serde_json::from_slice(value).expect("JSON");
        let text = json["key_clock"].as_str().expect("a time").to_owned();
        whisperer_schemas::time::parse_rfc3339(text.as_bytes()).expect("a time") / SECOND
    };
    let mut last = std::collections::BTreeMap::new();
    for message in messages {
        let key = String::from_utf8(message.key.clone().expect("a key")).expect("text");
        last.insert(key, message.value.as_ref().map(clock));
    }
    last.into_iter().collect()
}

/// Goal: profiles are keyed by app and user, removals are tombstones, and after a crash no older row follows a younger one,
/// though epochs differ from one run to the next and rows may have been compacted away.
#[test]
fn profiles_are_a_changelog() {
    let broker = Broker::start();
    let topic = broker.topic("profiles");
    let open =
        || KafkaLog::open(TableSchema::profiles(Vec::new()), &broker.options(&topic, 0, 1)).expect("a log opens");
    let mut sink = open();
    let position = sink.flush().expect("acknowledged");
    sink.write(vec![profile("a", 10, 1, 1), profile("b", 10, 2, 1), profile("a\"", 20, 3, 2)]).expect("rows");
    sink.write(vec![profile("a", 20, 4, 2), profile("a", 20, 5, 2)]).expect("rows");
    sink.remove(&[removal("b", 30)]).expect("a removal");
    sink.flush().expect("acknowledged");
    drop(sink);
    let mut sink = open();
    sink.recover(&[position]).expect("recovers");
    // The same rows, made in other epochs.
    sink.write(vec![profile("a", 10, 1, 7), profile("b", 10, 2, 7), profile("a\"", 20, 3, 7)]).expect("rows");
    sink.write(vec![profile("a", 20, 4, 8), profile("a", 20, 5, 8)]).expect("rows");
    sink.remove(&[removal("b", 30)]).expect("a removal");
    assert_eq!(sink.passed_over(), 6);
    // And what comes after them.
    sink.write(vec![profile("a", 20, 6, 9), profile("b", 40, 7, 9)]).expect("rows");
    sink.flush().expect("acknowledged");
    let messages = broker.read(&topic);
    assert_eq!(messages.len(), 8);
    let last = compacted(&messages);
    let key = |user: &str| serde_json::to_string(&["app", user]).expect("JSON");
    let mut expected = vec![(key("a"), Some(6)), (key("b"), Some(7)), (key("a\""), Some(3))];
    expected.sort();
    assert_eq!(last, expected);
    let tombstone = messages.iter().find(|message| message.value.is_none()).expect("a tombstone");
    assert_eq!(tombstone.key.as_deref(), Some(key("b").as_bytes()));
}

/// Goal: removals go through outboxes too.
#[test]
fn outboxes_carry_tombstones() {
    let broker = Broker::start();
    let topic = broker.topic("profiles");
    let options = broker.options(&topic, 0, 1);
    let mut sink = KafkaOutbox::open(TableSchema::profiles(Vec::new()), &options).expect("a log opens");
    sink.recover(&[]).expect("recovers");
    let mut outbox = Vec::new();
    sink.encoder().encode(&[profile("a", 10, 1, 1), profile("b", 10, 1, 1)], &mut outbox).expect("rows");
    sink.encoder().encode_removals(&[removal("a", 20)], &mut outbox).expect("a removal");
    sink.publish(&sink.identity(), 1, &outbox).expect("published");
    let removed: Vec<bool> = compacted(&broker.read(&topic)).iter().map(|(_, clock)| clock.is_none()).collect();
    assert_eq!(removed, [true, false]);
}

fn dead_letter(offset: i64, raw: &[u8]) -> Row {
    let values = vec![
        Value::text("invalid_json"),
        Value::text("expected `,` or `}` at line 1 column 9 \u{2026}"),
        Value::Int(3),
        Value::Int(offset),
        Value::Bytes(raw.into()),
        Value::Int(raw.len() as i64),
        Value::Int(1),
    ];
    Row { values, epoch: Epoch(1), position: None }
}

/// Goal: a dead letter is the record byte for byte, with Kafka Connect's headers as text; one that is too long for the topic is
/// cut, not lost; and none is written twice after a crash.
#[test]
fn dead_letters_keep_their_bytes() {
    let broker = Broker::start();
    let topic = broker.topic("dead-letters");
    let open = || KafkaLog::open(TableSchema::dead_letters(), &broker.options(&topic, 0, 1)).expect("a log opens");
    let mut sink = open();
    let position = sink.flush().expect("acknowledged");
    let (raw, long) = (b"{\"a\":\xff\0 1 ".as_slice(), vec![7; 3 << 20]);
    sink.write(vec![dead_letter(41, raw), dead_letter(42, &long)]).expect("rows");
    sink.flush().expect("acknowledged");
    drop(sink);
    let mut sink = open();
    sink.recover(&[position]).expect("recovers");
    sink.write(vec![dead_letter(41, raw), dead_letter(42, &long), dead_letter(43, b"")]).expect("rows");
    sink.flush().expect("acknowledged");
    let mut seen = broker.read(&topic);
    seen.sort_by_key(|message| message.headers["__connect.errors.offset"].clone());
    let [first, second, third] = seen.try_into().expect("three messages");
    assert_eq!((first.value.as_deref(), first.key), (Some(raw), None));
    let expected = [
        ("__connect.errors.topic", "events"),
        ("__connect.errors.partition", "3"),
        ("__connect.errors.offset", "41"),
        ("__connect.errors.connector.name", "engagement"),
        ("__connect.errors.stage", "VALUE_CONVERTER"),
        ("__connect.errors.class.name", "whisperer"),
        ("__connect.errors.exception.class.name", "invalid_json"),
        ("__connect.errors.exception.message", "expected `,` or `}` at line 1 column 9 \u{2026}"),
        ("whisperer.raw.bytes", "10"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(first.headers, expected.into());
    let cut = second.value.expect("a value");
    assert!(cut.len() > 900_000 && long.starts_with(&cut), "{} bytes", cut.len());
    assert_eq!(second.headers["whisperer.raw.bytes"], long.len().to_string());
    assert_eq!(third.value.as_deref(), Some(&b""[..]));
}
