//! Random records: what is one JSON object, and what its numbers and texts are, is as another parser says.

use proptest::prelude::*;
use whisperer_connectors::{
    format::{EventReader, Reason},
    source::Payload,
};
use whisperer_operators::intake::FieldValue;

use crate::support::{GOOD, any_options, fields, json, options, raw, read, with};

/// A piece of JSON-like text: mostly right, often wrong.
fn fragments() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        4 => "[\\[\\]{}:, ]",
        2 => "\"[a-z\\\\\"u0-9]{0,6}\"",
        2 => "-?[0-9]{0,20}(\\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?",
        1 => "(null|true|false|NaN|\\\\u[0-9a-fA-F]{4})",
    ];
    prop::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat())
}

/// Valid by the other parser, which knows the same rules but for depth.
fn is_object(bytes: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(bytes).is_ok_and(|value| value.is_object())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn garbage_never_panics_and_is_judged_as_by_another_parser(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        // Goal: random bytes; both parsers agree on what is one object.
        let blank = bytes.iter().all(u8::is_ascii_whitespace);
        let invalid = read(any_options(), Payload::Json(&bytes)) == Err(Reason::InvalidJson);
        prop_assert_eq!(invalid, !blank && !is_object(&bytes));
    }

    #[test]
    fn fragments_are_judged_as_by_another_parser(text in fragments()) {
        // Goal: the same for texts that are nearly JSON, as an unread value and as a property.
        for line in [format!("{{\"a\":{text}}}"), format!("{{\"properties\":{{\"amount\":{text}}}}}")] {
            let invalid = json(any_options(), &line) == Err(Reason::InvalidJson);
            prop_assert_eq!(invalid, !is_object(line.as_bytes()), "{}", line);
        }
    }

    #[test]
    fn mutated_events_are_judged_as_by_another_parser(at in 0..GOOD.len(), byte in any::<u8>(), cut in 0..4_usize) {
        // Goal: one byte changed, and up to three lost behind it, anywhere in a valid event.
        let mut line = GOOD.as_bytes().to_vec();
        line[at] = byte;
        line.drain(at + 1..(at + 1 + cut).min(GOOD.len()));
        let invalid = read(any_options(), Payload::Json(&line)) == Err(Reason::InvalidJson);
        prop_assert_eq!(invalid, !is_object(&line), "{}", String::from_utf8_lossy(&line));
    }

    #[test]
    fn numbers_are_the_nearest_f64(text in "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?") {
        // Goal: the standard library's correctly rounded parse is the measure, bit for bit but for the sign of zero.
        let line = with("12.5", &text);
        let mut reader = EventReader::new(options(), &fields()).unwrap();
        let number = reader.read(&raw(Payload::Json(line.as_bytes())), |event| event.fields[1] == FieldValue::Number(text.parse().unwrap()));
        prop_assert_eq!(number, Ok(Some(true)), "{}", text);
    }

    #[test]
    fn texts_come_back_as_they_were_written(text in any::<String>(), name in any::<String>()) {
        // Goal: whatever the escapes and the length, extracted texts equal what was serialized, in any position.
        let mut event: serde_json::Value = serde_json::from_str(GOOD).unwrap();
        event["properties"][&name] = text.as_str().into();
        event["properties"]["feature"] = text.as_str().into();
        let mut reader = EventReader::new(options(), &fields()).unwrap();
        let line = event.to_string();
        let same = reader.read(&raw(Payload::Json(line.as_bytes())), |event| event.fields[0] == FieldValue::Text(&text));
        prop_assert_eq!(same, Ok(Some(true)));
    }
}
