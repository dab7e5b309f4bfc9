//! Messages that Confluent's Python client wrote (`fixtures/messages.py`), with the schemas that it registered.

use serde_json::Value;
use whisperer_connectors::format::{
    Encoding, EventReader, Mapping,
    mapping::{Constant, From},
};

use super::{framed, property, read_with, stand_in::StandIn};
use crate::support::{Outcome, any_options, fields, member};

fn fixtures() -> Value {
    serde_json::from_str(include_str!("../fixtures/messages.json")).unwrap()
}

/// Each message of an encoding: its case, its bytes, and the native event that it stands for.
fn messages(encoding: Encoding) -> Vec<(String, Vec<u8>, Value)> {
    let fixtures = fixtures();
    let all = fixtures["messages"].as_array().unwrap();
    let own = all.iter().filter(|message| message["format"] == encoding.to_string());
    own.map(|message| {
        let (case, hex) = (message["case"].as_str().unwrap(), message["hex"].as_str().unwrap());
        let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
        (case.to_owned(), bytes.collect(), message["native"].clone())
    })
    .collect()
}

fn registry() -> StandIn {
    StandIn::new(fixtures()["schemas"].as_array().unwrap().clone())
}

/// A message of the fixtures, read as any event.
fn kinds(encoding: Encoding, case: &str, user: &str, time: Option<&str>, properties: &[&str]) -> Outcome {
    let (_, bytes, _) = messages(encoding).into_iter().find(|(found, ..)| found == case).unwrap();
    any_event(encoding, &bytes, user, time, properties)
}

/// A message read with a mapping that makes any message an event: its user, time and these properties.
fn any_event(encoding: Encoding, bytes: &[u8], user: &str, time: Option<&str>, properties: &[&str]) -> Outcome {
    let text = |text: &str| Some(From::Value(Constant::Text(text.into())));
    let mapping = Mapping {
        user_id: Some(From::Member(member(user))),
        event_type: text("e"),
        timestamp: time.map_or_else(|| text("2024-01-01T00:00:00Z"), |time| Some(From::Member(member(time)))),
        properties: properties.iter().map(|path| ((*path).to_owned(), From::Member(member(path)))).collect(),
        ..Mapping::default()
    };
    let registry = registry();
    let fields: Vec<_> = properties.iter().map(|path| property(path)).collect();
    let mut reader = EventReader::new(framed(encoding, registry.options(), Some(mapping)), &fields).unwrap();
    read_with(&mut reader, bytes)
}

#[test]
fn messages_of_the_contract_are_the_same_events_as_in_json() {
    // Goal: every case that has a native form gives what that form gives, all fields included; one reader reads all schemas.
    let registry = registry();
    for encoding in [Encoding::Avro, Encoding::Protobuf, Encoding::JsonSchema] {
        let mut fields = fields();
        fields.extend(["value", "trial", "seats", "plan", "none"].map(property));
        let mut framed = EventReader::new(framed(encoding, registry.options(), None), &fields).unwrap();
        let mut native = EventReader::new(any_options(), &fields).unwrap();
        let cases: Vec<_> = messages(encoding).into_iter().filter(|(.., event)| event.is_object()).collect();
        assert!(!cases.is_empty());
        for (case, bytes, event) in cases {
            let expected = read_with(&mut native, event.to_string().as_bytes());
            assert!(expected.is_ok());
            assert_eq!(read_with(&mut framed, &bytes), expected, "{encoding} {case}");
        }
    }
}

#[test]
fn avro_types_have_their_values() {
    // Goal: every type and logical type, through references to named types.
    let properties = [
        "who.boss.id",
        "kind",
        "again",
        "day",
        "local",
        "clock",
        "price",
        "whole",
        "four",
        "raw",
        "single",
        "items",
        "nothing",
    ];
    let expected = "3:77 job 00000000-0000-0000-0000-000000000001 - e 2024-05-01T12:00:00.123000Z | \
                    \"00000000-0000-0000-0000-000000000002\" \"green\" \"red\" \"2024-02-29\" \"2024-05-01T14:00:00.500000\" 3600000 \
                    -1234.56 90071992547409940 \"AAEC/w==\" \"YWJj\" 0.5 - -";
    assert_eq!(kinds(Encoding::Avro, "kinds", "who.id", Some("when"), &properties), Ok(Some(expected.into())));
}

#[test]
fn integers_of_decimals_are_ids() {
    // Goal: a decimal without a fraction is an exact integer, beyond what an f64 holds.
    let event = kinds(Encoding::Avro, "kinds", "whole", None, &[]).unwrap().unwrap();
    assert!(event.contains(" 90071992547409930 "), "{event}");
}

#[test]
fn schemas_are_read_with_those_that_they_refer_to() {
    // Goal: a reference to a schema of another subject, in each encoding that has them.
    let avro = kinds(Encoding::Avro, "a reference", "user.id", None, &["friend.id"]);
    assert!(avro.unwrap().unwrap().contains(" u1 - e 2024-01-01T00:00:00Z | \"u2\""));
    let protobuf = kinds(Encoding::Protobuf, "kinds", "user.id", None, &[]);
    assert!(protobuf.unwrap().unwrap().contains(" u1 "));
    let json = kinds(Encoding::JsonSchema, "native", "user_id", None, &["context.os"]);
    assert!(json.unwrap().unwrap().ends_with("| \"Linux\""));
}

#[test]
fn protobuf_types_have_their_values() {
    // Goal: enums, presence, maps, oneofs and the well-known types; names as in the schema or as in its JSON form.
    let properties = [
        "color",
        "unset",
        "count",
        "zero",
        "empty",
        "absent",
        "raw",
        "scores.x",
        "sizes.7",
        "pause",
        "wrapped",
        "details.deep.er",
        "email",
        "phone",
    ];
    let expected =
        "3:77 job u1 - e 2024-01-01T00:00:00Z | \"GREEN\" - 7 0 - - \"YWJj\" 1.5 \"large\" 2500 \"w\" 3 \"a@b\" -";
    assert_eq!(kinds(Encoding::Protobuf, "kinds", "user.id", None, &properties), Ok(Some(expected.into())));
}

#[test]
fn a_frame_names_a_message_of_the_schema() {
    // Goal: an index of several levels, and both spellings of a field's name. The Python client counts the messages that stand for maps,
    // those in Java and Rust do not: its index 1, 2, 0 is their 1, 1, 0.
    let (_, python, _) =
        messages(Encoding::Protobuf).into_iter().find(|(case, ..)| case == "a nested message").unwrap();
    assert_eq!(python[5..9], [6, 2, 4, 0]);
    let mut java = python.clone();
    java[7] = 2;
    for (name, bytes) in [("user_id", python.clone()), ("userId", python), ("user_id", java)] {
        let event = any_event(Encoding::Protobuf, &bytes, name, None, &[]).unwrap().unwrap();
        assert!(event.starts_with("3:77 job u9 - e "), "{event}");
    }
}

#[test]
fn a_schema_is_asked_for_once() {
    // Goal: no request for an id that is known, however many messages it has; a new id is one request, and one for each reference.
    let registry = registry();
    let mut reader = EventReader::new(framed(Encoding::Avro, registry.options(), None), &[]).unwrap();
    assert_eq!(registry.requests().len(), 1);
    let all = messages(Encoding::Avro);
    for _ in 0..3 {
        for (_, bytes, _) in &all {
            let _ = read_with(&mut reader, bytes);
        }
    }
    let mut requests = registry.requests();
    requests.sort();
    let ids = [1, 2, 3, 5].map(|id| format!("/schemas/ids/{id}?deleted=true"));
    assert_eq!(requests, [&ids[..], &["/subjects/people/versions/1".to_owned()]].concat());
}
