//! What each table looks like in its topic.

use std::time::UNIX_EPOCH;

use serde_json::{Value as Json, json};
use whisperer_schemas::{Column, ColumnType, Epoch, Row, TableSchema, Value, time::SECOND};
use whisperer_sinks::{
    ChangeMode, KafkaLog, KafkaOptions, KafkaOutbox, LogSink, OutboxSink, Removal,
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

/// A row of a view of users by plan, which comes or goes.
fn by_plan(plan: &str, users: i64, diff: i64) -> Row {
    let told = [Value::Int(9), Value::Time(7 * SECOND), Value::Int(0), Value::Int(diff)];
    let values = [Value::text(plan), Value::Int(users)].into_iter().chain(told).collect();
    Row { values, epoch: Epoch(9), position: None }
}

/// Goal: what comes, changes and goes in a view is a row, a newer row and a tombstone under the key of its group, or Debezium's envelope
/// with the row before and after; a view's changes do not go out before their checkpoint, and no key has two rows.
#[test]
fn changes_of_a_view() {
    let broker = Broker::start();
    let plan = Column::optional("plan", ColumnType::Text, "", "");
    let users = Column::required("users", ColumnType::Int, "", "");
    let schema = TableSchema::view("by_plan", vec![plan, users], 1);
    let changes = [
        vec![by_plan("free", 3, 1), by_plan("pro", 1, 1)],
        vec![by_plan("free", 4, 1), by_plan("pro", 1, -1), by_plan("free", 3, -1)],
    ];
    let row = |users: i64| json!({ "plan": "free", "users": users });
    let pro = json!({ "plan": "pro", "users": 1 });
    let told = |row: &Json| {
        let mut row = row.clone();
        row["_epoch"] = json!(9);
        row["_as_of"] = json!("1970-01-01T00:00:07Z");
        row["_since"] = json!(0);
        row
    };
    let envelope = |before: Json, after: Json, op: &str| json!({ "before": before, "after": after, "op": op });
    let upserts = [Some(told(&row(3))), Some(told(&pro)), Some(told(&row(4))), None];
    let envelopes = [
        Some(envelope(Json::Null, row(3), "c")),
        Some(envelope(Json::Null, pro.clone(), "c")),
        Some(envelope(row(3), row(4), "u")),
        Some(envelope(pro.clone(), Json::Null, "d")),
        None,
    ];
    for (mode, expected) in [(ChangeMode::Upsert, &upserts[..]), (ChangeMode::Debezium, &envelopes[..])] {
        let topic = broker.topic("views");
        let options = KafkaOptions { changes: mode, ..broker.options(&topic, 0, 1) };
        let mut sink = KafkaOutbox::open(schema.clone(), &options).expect("a log opens");
        sink.recover(&[]).expect("recovers");
        for (number, rows) in (1..).zip(&changes) {
            let mut outbox = Vec::new();
            sink.encoder().encode(rows, &mut outbox).expect("rows");
            sink.publish(&sink.identity(), number, &outbox).expect("published");
        }
        let keys = [r#"{"plan":"free"}"#, r#"{"plan":"pro"}"#];
        let mut seen: Vec<Vec<Option<Json>>> = vec![Vec::new(); 2];
        for message in broker.read(&topic) {
            let key = message.key.as_deref().and_then(|key| keys.iter().position(|known| known.as_bytes() == key));
            let value = message.value.as_deref().map(|value| {
                let mut value: Json = serde_json::from_slice(value).expect("JSON");
                if mode == ChangeMode::Debezium {
                    let (source, object) = (value["source"].take(), value.as_object_mut().expect("an envelope"));
                    assert_eq!((&source["table"], &source["epoch"]), (&json!("views/by_plan"), &json!(9)));
                    assert_eq!((object.remove("ts_ms"), source["ts_ms"].clone()), (Some(json!(7000)), json!(7000)));
                    object.remove("source");
                }
                value
            });
            seen[key.expect("a key of the view")].push(value);
        }
        let of = |plan: &str| {
            let is = |value: &&Option<Json>| value.as_ref().is_some_and(|value| value.to_string().contains(plan));
            expected.iter().filter(is).cloned().collect::<Vec<_>>()
        };
        assert_eq!(seen, [of("free"), [of("pro"), vec![None]].concat()], "{mode:?}");
        let twice = sink.encoder().encode(&[by_plan("free", 3, 1), by_plan("free", 4, 1)], &mut Vec::new());
        assert!(twice.is_err(), "one key, two rows");
    }
    let options = broker.options(&broker.topic("views"), 0, 1);
    let error = KafkaLog::open(schema, &options).expect("it opens").write(vec![by_plan("free", 3, 1)]);
    assert!(error.expect_err("it has to wait").to_string().contains("checkpoint"));
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
