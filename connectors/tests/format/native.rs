//! The native format: every rule of "Input, record by record", by lines and the events or reasons that they give.

use whisperer_connectors::{
    RawRecord,
    format::{EventReader, FormatOptions, ReadError, Reason},
    source::Payload,
};
use whisperer_schemas::time::{HOUR, SECOND, parse_rfc3339};

use crate::support::{GOOD, any_options, fields, json, options, raw, read, reason, with};

#[test]
fn a_valid_event_is_read_with_the_fields_asked_for() {
    // Goal: ids, type, time, and fields of all three groups and of nested objects.
    let expected = "evt_0123456789abcdef app_0123456789abcdef usr_0123456789abcdef ses_0123456789abcdef feature_used \
                    2024-05-01T12:00:00Z | \"export\" 12.5 true \"Linux\" 7";
    assert_eq!(json(options(), GOOD), Ok(Some(expected.into())));
    assert_eq!(json(options(), &format!(" \t{GOOD} \r")), Ok(Some(expected.into())));
}

#[test]
fn lines_of_white_space_are_skipped() {
    // Goal: they are no records, not even rejected ones.
    for line in ["", " ", "\t \r"] {
        assert_eq!(json(options(), line), Ok(None));
    }
}

#[test]
fn what_is_not_one_valid_object_is_invalid_json() {
    // Goal: the text as a whole is checked, members that nobody reads included.
    let member = |text: &str| with(r#""batch_id":7"#, &format!(r#""unread":{text}"#));
    for text in ["1", "-0.5e-3", "0", "\"\\u00e9\\ud83d\\ude00\\n\"", "[[],{}]", "null", "1.7976931348623157e308"] {
        assert_eq!(reason(&member(text)), None, "{text}");
    }
    let bad = [
        "NaN",
        "Infinity",
        "-",
        "01",
        "1.",
        ".5",
        "1e",
        "1e999",
        "-1e999",
        "+1",
        "0x1",
        "tru",
        "nul",
        "[1,]",
        "{,}",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{1:1}",
        "'a'",
        "\"\\x\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\\u12g4\"",
        "\"a\tb\"",
        "\"a\u{0}b\"",
        "\"open",
        "[",
        "{",
        "",
        "{\"\\ud800\":1}",
        "1 // note",
    ];
    for text in bad {
        assert_eq!(reason(&member(text)), Some(Reason::InvalidJson), "{text}");
    }
    for line in ["[]", "1", "\"a\"", "null", "nothing", "{} {}", "{}}", "\u{feff}{}"] {
        assert_eq!(reason(line), Some(Reason::InvalidJson), "{line}");
    }
    for cut in 1..GOOD.len() {
        assert_eq!(reason(&GOOD[..cut]), Some(Reason::InvalidJson), "{}", &GOOD[..cut]);
    }
}

#[test]
fn invalid_utf8_is_invalid_json_wherever_it_stands() {
    // Goal: a stray byte in a value, a name or between them.
    for at in 0..=GOOD.len() {
        let mut line = GOOD.as_bytes().to_vec();
        line.insert(at, 0xff);
        assert_eq!(read(options(), Payload::Json(&line)), Err(Reason::InvalidJson), "byte {at}");
    }
}

#[test]
fn nesting_is_bounded() {
    // Goal: 128 arrays and objects inside one another, the record included, and never a stack overflow.
    let nested = |open: &str, close: &str, depth: usize| {
        with("7}", &format!("{}1{}}}", open.repeat(depth), close.repeat(depth)))
    };
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        assert_eq!(reason(&nested(open, close, 126)), None);
        assert_eq!(reason(&nested(open, close, 127)), Some(Reason::InvalidJson));
    }
    assert_eq!(reason(&"[".repeat(1_000_000)), Some(Reason::InvalidJson));
    assert_eq!(reason(&"{\"properties\":".repeat(70_000)), Some(Reason::InvalidJson));
    assert_eq!(reason(&nested("[", "]", 400_000)), Some(Reason::InvalidJson));
}

#[test]
fn the_last_of_repeated_members_counts() {
    // Goal: for values, and for objects as a whole: what only the first one had is gone.
    let line = with(r#""context""#, r#""properties":{"amount":1,"amount":2},"context""#);
    assert!(json(options(), &line).unwrap().unwrap().ends_with("| - 2 - \"Linux\" 7"));
    let line = with(r#""deep":{"er":true}"#, r#""deep":{"er":true},"deep":5"#);
    assert!(json(options(), &line).unwrap().unwrap().ends_with("| \"export\" 12.5 - \"Linux\" 7"));
    let line = with(r#""context""#, r#""properties":null,"user_id":"usr_aaaaaaaaaaaaaaaa","context""#);
    let event = json(options(), &line).unwrap().unwrap();
    assert!(event.contains("usr_aaaaaaaaaaaaaaaa") && event.ends_with("| - - - \"Linux\" 7"), "{event}");
    assert_eq!(reason(&with(r#""context""#, r#""user_id":null,"context""#)), Some(Reason::MissingField));
    assert_eq!(reason(&with(r#""properties""#, r#""properties":1,"properties""#)), None);
    assert_eq!(reason(&with(r#""context""#, r#""properties":1,"context""#)), Some(Reason::Schema));
}

#[test]
fn escapes_are_undone_in_names_and_values() {
    // Goal: a name written with escapes is the same name; texts come unescaped.
    let line = with(r#""feature":"export""#, r#""fe\u0061ture":"a\"\u00e9\ud83d\ude00\\","us\u0065r":1"#);
    let line = line.replacen(r#""user_id""#, r#""\u0075ser_id""#, 1);
    assert!(json(options(), &line).unwrap().unwrap().contains(r#"| "a\"é😀\\" 12.5"#));
}

#[test]
fn required_fields_must_be_there() {
    // Goal: absent and null are the same; `event_id` is not required of the log and then is the position.
    for field in ["app_id", "user_id", "event_type", "timestamp"] {
        let renamed = with(&format!("\"{field}\""), "\"other\"");
        assert_eq!(reason(&renamed), Some(Reason::MissingField), "{field}");
        let mut null: serde_json::Value = serde_json::from_str(GOOD).unwrap();
        null[field] = serde_json::Value::Null;
        assert_eq!(reason(&null.to_string()), Some(Reason::MissingField), "{field}");
    }
    for line in [with("\"event_id\"", "\"other\""), with("\"evt_0123456789abcdef\"", "null")] {
        assert!(json(options(), &line).unwrap().unwrap().starts_with("3:77 app_"), "{line}");
    }
    assert!(json(options(), &with("\"session_id\"", "\"other\"")).unwrap().unwrap().contains(" - feature_used"));
}

#[test]
fn times_are_rfc_3339_with_an_offset() {
    // Goal: `T`, `t` or a space; an offset; nothing else, whatever its type.
    let line = |time: &str| with("\"2024-05-01T12:00:00Z\"", time);
    for time in ["\"2024-05-01t12:00:00z\"", "\"2024-05-01 14:00:00.0000009+02:00\""] {
        assert!(json(options(), &line(time)).unwrap().unwrap().contains(" 2024-05-01T12:00:00Z |"), "{time}");
    }
    for time in
        ["\"2024-05-01T12:00:00\"", "\"2024-02-30T12:00:00Z\"", "\"\"", "\"soon\"", "1714564800", "true", "{}", "[]"]
    {
        assert_eq!(reason(&line(time)), Some(Reason::BadTime), "{time}");
    }
}

#[test]
fn the_schema_is_that_of_the_contract() {
    // Goal: types, id patterns, event types and objects; what the objects hold is never wrong.
    let cases = [
        ("\"usr_0123456789abcdef\"", "\"usr_0123456789abcde\""),
        ("\"usr_0123456789abcdef\"", "\"\""),
        ("\"usr_0123456789abcdef\"", "5"),
        ("\"evt_0123456789abcdef\"", "\"usr_0123456789abcdef\""),
        ("\"evt_0123456789abcdef\"", "true"),
        ("\"app_0123456789abcdef\"", "\"app_0123456789abcd_f\""),
        ("\"ses_0123456789abcdef\"", "\"\""),
        ("\"feature_used\"", "\"feature_use\""),
        ("\"feature_used\"", "\"\""),
        ("\"feature_used\"", "1"),
        ("{\"os\":\"Linux\"}", "\"Linux\""),
        ("{\"os\":\"Linux\"}", "[]"),
        ("{\"received_at\":\"2024-05-01T12:00:01Z\",\"batch_id\":7}", "false"),
    ];
    for (part, by) in cases {
        assert_eq!(reason(&with(part, by)), Some(Reason::Schema), "{by}");
    }
    assert_eq!(reason(&with("\"feature_used\"", "\"own_type\"")), None);
    assert_eq!(reason(&with("{\"os\":\"Linux\"}", "null")), None);
    let odd = with("\"export\",\"amount\":12.5", "[1],\"amount\":\"12.5\"").replacen("\"Linux\"", "{\"a\":1}", 1);
    assert!(json(options(), &odd).unwrap().unwrap().ends_with("| - \"12.5\" true - 7"));
}

#[test]
fn any_ids_are_text_or_integers() {
    // Goal: 1 to 128 bytes; integers of any size as their decimal text; nothing else.
    let line = |id: &str| with("\"usr_0123456789abcdef\"", id);
    let user =
        |id: &str| json(any_options(), &line(id)).map(|event| event.unwrap().split(' ').nth(2).unwrap().to_owned());
    let cases = [
        ("\"x\"", "x"),
        ("17850", "17850"),
        ("-5", "-5"),
        ("0", "0"),
        ("18446744073709551615", "18446744073709551615"),
        ("184467440737095516150", "184467440737095516150"),
        ("-9223372036854775809", "-9223372036854775809"),
    ];
    for (id, text) in cases {
        assert_eq!(user(id), Ok(text.to_owned()), "{id}");
    }
    assert_eq!(user(&format!("\"{}\"", "x".repeat(128))).unwrap().len(), 128);
    for id in ["\"\"", "17850.0", "1e3", "true", "[]", "{}", &format!("\"{}\"", "x".repeat(129)), &"9".repeat(129)] {
        assert_eq!(user(id), Err(Reason::Schema), "{id}");
    }
    assert_eq!(json(any_options(), &with("\"feature_used\"", "\"anything\"")).map(drop), Ok(()));
    assert_eq!(json(any_options(), &with("\"feature_used\"", "\"\"")), Err(Reason::Schema));
}

#[test]
fn too_large_counts_the_records_bytes() {
    // Goal: exactly the limit is admitted; what a source cut off is too large as well.
    let bytes = GOOD.len() as u64;
    let limited = |event_bytes_max| FormatOptions { event_bytes_max, ..options() };
    assert!(json(limited(bytes), GOOD).is_ok());
    assert_eq!(json(limited(bytes - 1), GOOD), Err(Reason::TooLarge));
    assert_eq!(read(options(), Payload::TooLarge { head: b"{", bytes: 2 << 20 }), Err(Reason::TooLarge));
}

#[test]
fn times_ahead_of_ingest_are_clamped_or_future() {
    // Goal: exactly 5 s and exactly `future_max` are not "more"; no ingest time, no check.
    let ahead = |received: &str| with("\"2024-05-01T12:00:01Z\"", received);
    let time = |received: &str| {
        json(options(), &ahead(received)).map(|event| event.unwrap().split(' ').nth(5).unwrap().to_owned())
    };
    assert_eq!(time("\"2024-05-01T11:59:55Z\"").unwrap(), "2024-05-01T12:00:00Z");
    assert_eq!(time("\"2024-05-01T11:59:54.999999Z\"").unwrap(), "2024-05-01T11:59:54.999999Z");
    assert_eq!(time("\"2024-05-01T11:00:00Z\"").unwrap(), "2024-05-01T11:00:00Z");
    assert_eq!(time("\"2024-05-01T10:59:59.999999Z\""), Err(Reason::Future));
    for none in ["null", "\"once\"", "5", "\"2024-05-01\""] {
        assert_eq!(time(none).unwrap(), "2024-05-01T12:00:00Z", "{none}");
    }
}

#[test]
fn the_sources_ingest_time_goes_first_and_clamps_are_counted() {
    // Goal: a log's own record timestamp is the ingest time, whatever `metadata` says.
    let intake_time = parse_rfc3339(b"2024-05-01T11:59:00Z").unwrap();
    let mut reader = EventReader::new(options(), &fields()).unwrap();
    for ingest_time in [Some(intake_time), Some(intake_time - 2 * HOUR), None] {
        let record = RawRecord { ingest_time, ..raw(Payload::Json(GOOD.as_bytes())) };
        let time = reader.read(&record, |event| event.time).map_err(|error| match error {
            ReadError::Rejected(rejection) => rejection.reason,
            ReadError::Failed(error) => panic!("{error}"),
        });
        match ingest_time {
            Some(ingest) if ingest == intake_time => assert_eq!(time, Ok(Some(ingest))),
            Some(_) => assert_eq!(time, Err(Reason::Future)),
            None => assert_eq!(time, Ok(Some(intake_time + 60 * SECOND))),
        }
    }
    assert_eq!(reader.clamped(), 1);
}

#[test]
fn reasons_are_tested_in_order() {
    // Goal: a record wrong in every way shows the reasons one after the other as it is mended.
    let mut line =
        r#"{"context":1,"metadata":{"received_at":"2020-01-01T00:00:00Z"},"user_id":7,"timestamp":"x","#.to_owned();
    let small = FormatOptions { event_bytes_max: 10, ..options() };
    assert_eq!(json(small, &line), Err(Reason::TooLarge));
    assert_eq!(reason(&line), Some(Reason::InvalidJson));
    line += r#""app_id":"app_0123456789abcdef"}"#;
    assert_eq!(reason(&line), Some(Reason::MissingField));
    line = line.replace("\"app_id\"", "\"event_type\":\"no\",\"app_id\"");
    assert_eq!(reason(&line), Some(Reason::BadTime));
    line = line.replace("\"x\"", "\"2024-05-01T12:00:00Z\"");
    assert_eq!(reason(&line), Some(Reason::Schema));
    line = line
        .replace("\"context\":1,", "")
        .replace("\"no\"", "\"user_login\"")
        .replace("_id\":7", "_id\":\"usr_0123456789abcdef\"");
    assert_eq!(reason(&line), Some(Reason::Future));
    assert_eq!(
        Reason::ALL.map(Reason::as_str).join(" "),
        "too_large invalid_json missing_field bad_time schema future"
    );
}
