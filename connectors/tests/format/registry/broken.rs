//! Messages and schemas that cannot be read: dead letters with their reasons, and never the end of the process.

use proptest::prelude::*;
use serde_json::json;
use whisperer_connectors::format::{Encoding, EventReader, FormatOptions, Mapping, ReadError, Reason, Rejection};
use whisperer_connectors::source::Payload;

use super::{frame, framed, property, read_with, stand_in::StandIn};
use crate::support::{GOOD, raw, with};

const AVRO: &str = r#"{"type":"record","name":"E","fields":[
    {"name":"user_id","type":["null","string"]},{"name":"event_type","type":"string"},
    {"name":"timestamp","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"properties","type":{"type":"map","values":["null","double",{"type":"array","items":"long"},"boolean"]}},
    {"name":"next","type":["null","E"]}]}"#;

const PROTO: &str = r#"syntax = "proto3"; message E { string user_id = 1; string event_type = 2; string timestamp = 3; double amount = 4; E next = 5; }"#;

/// An Avro text: its length, zigzag, and its bytes.
fn text(text: &str) -> Vec<u8> {
    [&[text.len() as u8 * 2], text.as_bytes()].concat()
}

/// A message of the schema, up to its properties.
fn head() -> Vec<u8> {
    [&[2][..], &text("u"), &text("e"), &[2]].concat()
}

fn registry() -> StandIn {
    let schema =
        |id, kind, text: &str| json!({"id": id, "subject": "s", "version": id, "schemaType": kind, "schema": text});
    StandIn::new(vec![
        schema(1, "AVRO", AVRO),
        schema(2, "PROTOBUF", PROTO),
        schema(3, "JSON", r#"{"type":"object","required":["session_id"],"properties":{"user_id":{"maxLength":20}}}"#),
        schema(4, "AVRO", r#"{"type":"record"}"#),
        schema(5, "PROTOBUF", r#"syntax = "proto3"; import "gone.proto"; message M {}"#),
        schema(6, "JSON", r#"{"type":7}"#),
        schema(7, "AVRO", r#""string""#),
        schema(8, "XML", "<a/>"),
        json!({"id": 9, "subject": "s", "version": 9, "schemaType": "AVRO", "schema": AVRO,
            "references": [{"name": "X", "subject": "gone", "version": 1}]}),
    ])
}

fn rejection(reader: &mut EventReader, bytes: &[u8]) -> Rejection {
    match reader.read(&raw(Payload::Json(bytes)), |_| ()) {
        Err(ReadError::Rejected(rejection)) => rejection,
        other => panic!("{other:?} of {bytes:?}"),
    }
}

fn reader(encoding: Encoding, registry: &StandIn) -> EventReader {
    EventReader::new(framed(encoding, registry.options(), None), &[property("amount")]).unwrap()
}

#[test]
fn broken_frames_are_invalid() {
    // Goal: too short, another first byte, white space; an empty record is none, as everywhere.
    let registry = registry();
    for encoding in [Encoding::Avro, Encoding::Protobuf, Encoding::JsonSchema] {
        let mut reader = reader(encoding, &registry);
        for bytes in [&b"\0"[..], b"\0\0\0\0", b"\x01\0\0\0\x01a", b"{\"user_id\":1}", b"  ", b"     "] {
            assert_eq!(rejection(&mut reader, bytes).reason, Reason::InvalidJson, "{bytes:?}");
        }
        assert_eq!(read_with(&mut reader, b""), Ok(None));
    }
}

#[test]
fn messages_that_their_schema_does_not_describe_are_invalid() {
    // Goal: everything that an Avro message can get wrong; the good one beside them shows that the rest is right.
    let registry = registry();
    let mut reader = reader(Encoding::Avro, &registry);
    let amount = [&[2][..], &text("amount"), &[2], &1.5_f64.to_le_bytes()].concat();
    let good = [&head()[..], &amount, &[0, 0]].concat();
    let event = read_with(&mut reader, &frame(1, &good)).unwrap().unwrap();
    assert_eq!(event, "3:77 job u - e 1970-01-01T00:00:00.001000Z | 1.5");
    for cut in 0..good.len() {
        assert_eq!(rejection(&mut reader, &frame(1, &good[..cut])).reason, Reason::InvalidJson, "{cut}");
    }
    let map = |rest: &[u8]| [&head()[..], rest].concat();
    let value = |value: &[u8]| map(&[&[2][..], &text("amount"), value, &[0, 0]].concat());
    let bad = [
        [&good[..], &[0]].concat(),
        value(&[&[2][..], &f64::NAN.to_le_bytes()].concat()),
        value(&[&[2][..], &f64::INFINITY.to_le_bytes()].concat()),
        value(&[8]),
        value(&[1]),
        value(&[6, 2]),
        map(&[2, 1, 0, 0, 0]),
        map(&[2, 2, 0xff, 0, 0, 0]),
        map(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        map(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0]),
        map(&[0xff; 12]),
        [&[4][..], &head()[1..]].concat(),
        vec![2; 100_000],
    ];
    for bytes in bad {
        let rejection = rejection(&mut reader, &frame(1, &bytes));
        assert_eq!(rejection.reason, Reason::InvalidJson, "{rejection:?}");
    }
    let nothing = value(&[0]);
    assert!(read_with(&mut reader, &frame(1, &nothing)).unwrap().unwrap().ends_with("| -"));
    let block = map(&[&[1][..], &[24], &text("amount"), &[2], &1.5_f64.to_le_bytes(), &[0, 0]].concat());
    assert!(read_with(&mut reader, &frame(1, &block)).unwrap().unwrap().ends_with("| 1.5"));
}

#[test]
fn recursion_is_bounded() {
    // Goal: a message of a recursive schema that is a thousand levels deep is invalid, and does not end the process.
    let registry = registry();
    let mut reader = reader(Encoding::Avro, &registry);
    let level = [&head()[..], &[0, 2]].concat();
    let nested = |levels: usize| frame(1, &[&level.repeat(levels)[..], &head(), &[0, 0]].concat());
    assert!(read_with(&mut reader, &nested(60)).is_ok());
    for levels in [64, 1_000, 50_000] {
        assert_eq!(rejection(&mut reader, &nested(levels)).reason, Reason::InvalidJson);
    }
    let mut reader = self::reader(Encoding::Protobuf, &registry);
    let mut message = vec![];
    for _ in 0..200 {
        let length = message.len();
        let size = if length < 128 { vec![length as u8] } else { vec![length as u8 | 0x80, (length >> 7) as u8] };
        message = [&[0x2a][..], &size, &message].concat();
    }
    assert_eq!(rejection(&mut reader, &frame(2, &[&[0][..], &message].concat())).reason, Reason::InvalidJson);
}

#[test]
fn protobuf_messages_and_their_indexes_may_be_wrong() {
    // Goal: indexes that name nothing, contents that are no message, numbers that are none.
    let registry = registry();
    let mut reader = reader(Encoding::Protobuf, &registry);
    let content = b"\x0a\x01u\x12\x01e\x1a\x142024-05-01T12:00:00Z";
    for index in [&[0][..], &[2, 0]] {
        let message = frame(2, &[index, content].concat());
        assert!(read_with(&mut reader, &message).unwrap().unwrap().starts_with("3:77 job u - e 2024-05-01T12:00:00Z"));
    }
    for index in [&[2, 2][..], &[4, 0, 0], &[1], &[0xff; 10], &[2], &[], &[0x80; 11], &[2, 1], &[40]] {
        let message = frame(2, &[index, content].concat());
        let rejection = rejection(&mut reader, &message);
        assert_eq!(rejection.reason, Reason::InvalidJson, "{index:?} {rejection:?}");
    }
    for content in [&b"\x0a\x05u"[..], b"\x0a\x01\xff", b"\x0f", b"\x21\0\0\0\0\0\0\xf8\x7f"] {
        let message = frame(2, &[&[0], content].concat());
        assert_eq!(rejection(&mut reader, &message).reason, Reason::InvalidJson, "{content:?}");
    }
    assert_eq!(rejection(&mut reader, &frame(2, &[0])).reason, Reason::MissingField);
}

#[test]
fn json_is_held_against_its_schema() {
    // Goal: what breaks the schema is `schema`, after missing fields and bad times; what is no JSON is `invalid_json`.
    let registry = registry();
    let mut reader = reader(Encoding::JsonSchema, &registry);
    let reason = |reader: &mut EventReader, line: &str| read_with(reader, &frame(3, line.as_bytes())).err();
    assert_eq!(reason(&mut reader, GOOD), None);
    let mut reason = |line: &str| reason(&mut reader, line);
    assert_eq!(reason(&with("\"session_id\"", "\"other\"")), Some(Reason::Schema));
    let long = with("usr_0123456789abcdef", &"u".repeat(21));
    assert_eq!(reason(&long), Some(Reason::Schema));
    assert_eq!(reason(&long.replace("\"event_type\"", "\"other\"")), Some(Reason::MissingField));
    assert_eq!(reason(&long.replace("2024-05-01T12:00:00Z", "noon")), Some(Reason::BadTime));
    assert_eq!(reason(&long[1..]), Some(Reason::InvalidJson));
    assert_eq!(reason(&with("12.5", "NaN")), Some(Reason::InvalidJson));
}

#[test]
fn unknown_and_broken_schemas_are_told_with_their_id() {
    // Goal: nothing of such a message can be read, so the reason is the schema; the detail says what is wrong with it.
    let registry = registry();
    for (encoding, id, detail) in [
        (Encoding::Avro, 77, "no schema 77"),
        (Encoding::Avro, 2, "schema 2 cannot be used: it is \"protobuf\", and the job's format is \"avro\""),
        (Encoding::Avro, 4, "schema 4 cannot be used"),
        (Encoding::Avro, 7, "neither a record nor a map"),
        (Encoding::Avro, 8, "of an unknown kind"),
        (Encoding::Avro, 9, "version 1 of \"gone\", which schema 9 refers to"),
        (Encoding::Protobuf, 5, "gone.proto"),
        (Encoding::JsonSchema, 6, "schema 6 cannot be used"),
    ] {
        let mut reader = reader(encoding, &registry);
        for _ in 0..2 {
            let rejection = rejection(&mut reader, &frame(id, b"\0"));
            assert_eq!(rejection.reason, Reason::Schema);
            assert!(rejection.detail.contains(detail) && !rejection.detail.contains('\n'), "{rejection:?}");
        }
    }
}

#[test]
fn a_schema_that_arrives_late_is_found() {
    // Goal: an unknown id is asked for again, but not for every message that has it.
    let registry = registry();
    let mut reader = reader(Encoding::Avro, &registry);
    let message = frame(20, &[&head()[..], &[0, 0]].concat());
    registry.requests();
    for _ in 0..100 {
        assert_eq!(rejection(&mut reader, &message).reason, Reason::Schema);
    }
    assert!(registry.requests().len() < 10);
    registry.add(json!({"id": 20, "subject": "s", "version": 20, "schemaType": "AVRO", "schema": AVRO}));
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    assert!(read_with(&mut reader, &message).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_message_ends_the_process(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..40_usize) {
        // Goal: random bytes, alone and over a good message, in both binary encodings: an event or a dead letter.
        let good = [&head()[..], &[0, 0]].concat();
        let mut spoilt = good.clone();
        spoilt.splice(at.min(good.len())..(at + bytes.len()).min(good.len()), bytes.iter().copied());
        READERS.with_borrow_mut(|(_, readers)| {
            for (reader, id) in readers {
                for message in [&bytes, &spoilt] {
                    let read = reader.read(&raw(Payload::Json(&frame(*id, message))), |_| ());
                    assert!(!matches!(read, Err(ReadError::Failed(_))));
                }
            }
        });
    }
}

thread_local! {
    /// One registry and its readers for all cases.
    static READERS: std::cell::RefCell<(StandIn, Vec<(EventReader, u32)>)> = std::cell::RefCell::new({
        let registry = registry();
        let readers = vec![(reader(Encoding::Avro, &registry), 1), (reader(Encoding::Protobuf, &registry), 2)];
        (registry, readers)
    });
}

#[test]
fn too_large_counts_the_frame() {
    // Goal: the limit is that of the record as it came.
    let registry = registry();
    let message = frame(1, &[&head()[..], &[0, 0]].concat());
    let limited = |event_bytes_max| {
        let options = framed(Encoding::Avro, registry.options(), Some(Mapping::default()));
        EventReader::new(FormatOptions { event_bytes_max, ..options }, &[]).unwrap()
    };
    assert!(read_with(&mut limited(message.len() as u64), &message).is_ok());
    assert_eq!(read_with(&mut limited(message.len() as u64 - 1), &message), Err(Reason::TooLarge));
}
