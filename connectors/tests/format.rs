//! Every rule of "Input, record by record", by lines and the events or reasons that they give.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use whisperer_connectors::{
    RawRecord,
    format::{
        EventReader, EventTypes, FormatOptions, Ids, Mapping, Reason,
        mapping::{Constant, From, Member, TimeUnit},
    },
    source::Payload,
};
use whisperer_operators::intake::{Field, FieldValue, Group};
use whisperer_schemas::{
    PartitionId, Position,
    time::{HOUR, SECOND, format_micros, parse_rfc3339},
};

const GOOD: &str = r#"{"event_id":"evt_0123456789abcdef","app_id":"app_0123456789abcdef","user_id":"usr_0123456789abcdef","session_id":"ses_0123456789abcdef","event_type":"feature_used","timestamp":"2024-05-01T12:00:00Z","properties":{"feature":"export","amount":12.5,"deep":{"er":true}},"context":{"os":"Linux"},"metadata":{"received_at":"2024-05-01T12:00:01Z","batch_id":7}}"#;

fn options() -> FormatOptions {
    FormatOptions {
        ids: Ids::Strict,
        event_types: EventTypes::Contract(vec!["own_type".into()]),
        event_bytes_max: 1 << 20,
        future_max: HOUR,
        clamp_after: 5 * SECOND,
        mapping: None,
        app_id: "job".into(),
    }
}

fn any_options() -> FormatOptions {
    FormatOptions { ids: Ids::Any, event_types: EventTypes::Any, ..options() }
}

fn fields() -> Vec<Field> {
    let field = |group, path: &str| Field { group, path: path.split('.').map(str::to_owned).collect() };
    vec![
        field(Group::Properties, "feature"),
        field(Group::Properties, "amount"),
        field(Group::Properties, "deep.er"),
        field(Group::Context, "os"),
        field(Group::Metadata, "batch_id"),
    ]
}

fn raw(payload: Payload<'_>) -> RawRecord<'_> {
    let position = Position { partition: PartitionId(3), offset: 77 };
    RawRecord { position, chunk: 0, ingest_time: None, headers: &[], payload }
}

/// An event as text, or a reason.
type Outcome = Result<Option<String>, Reason>;

fn read(options: FormatOptions, payload: Payload<'_>) -> Outcome {
    let mut reader = EventReader::new(options, &fields()).expect("the options are valid");
    let shown = reader.read(&raw(payload), |event| {
        let values = event.fields.iter().map(|value| match value {
            FieldValue::Null => "-".to_owned(),
            FieldValue::Bool(truth) => truth.to_string(),
            FieldValue::Number(number) => number.to_string(),
            FieldValue::Text(text) => format!("{text:?}"),
            FieldValue::Cell(text) => format!("cell {text}"),
        });
        let values = values.collect::<Vec<_>>().join(" ");
        let (id, app, user, kind) = (event.event_id, event.app_id, event.user_id, event.event_type);
        let session = event.session_id.unwrap_or("-");
        format!("{id} {app} {user} {session} {kind} {} | {values}", format_micros(event.time))
    });
    shown.map_err(|rejection| {
        assert!(!rejection.detail.is_empty() && !rejection.detail.contains('\n'), "{:?}", rejection.detail);
        rejection.reason
    })
}

fn json(options: FormatOptions, line: &str) -> Outcome {
    read(options, Payload::Json(line.as_bytes()))
}

/// `GOOD` with one part replaced.
fn with(part: &str, by: &str) -> String {
    assert!(GOOD.contains(part), "{part}");
    GOOD.replacen(part, by, 1)
}

fn reason(line: &str) -> Option<Reason> {
    json(options(), line).err()
}

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
        let time = reader.read(&record, |event| event.time).map_err(|rejection| rejection.reason);
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

fn member(path: &str) -> Member {
    Member { path: path.split('.').map(str::to_owned).collect(), ..Member::default() }
}

fn mapped(mapping: Mapping) -> FormatOptions {
    FormatOptions { mapping: Some(mapping), ..any_options() }
}

fn retail() -> Mapping {
    let purchase = Constant::Text("purchase".into());
    Mapping {
        user_id: Some(From::Member(member("CustomerID"))),
        event_type: Some(From::Value(purchase)),
        timestamp: Some(From::Member(Member { format: Some("%Y-%m-%d %H:%M:%S".into()), ..member("InvoiceDate") })),
        properties: vec![
            ("feature".into(), From::Member(member("StockCode"))),
            ("amount".into(), From::Member(member("Quantity"))),
        ],
        ..Mapping::default()
    }
}

#[test]
fn foreign_records_are_mapped() {
    // Goal: the retail data's own shape; a line without its customer misses a field.
    let line = r#"{"InvoiceNo": "536365", "StockCode": "85123A", "Quantity": 6, "InvoiceDate": "2010-12-01 08:26:00", "UnitPrice": 2.55, "CustomerID": "17850", "properties": "no matter"}"#;
    let expected = "3:77 job 17850 - purchase 2010-12-01T08:26:00Z | \"85123A\" 6 - - -";
    assert_eq!(json(mapped(retail()), line), Ok(Some(expected.into())));
    assert_eq!(json(mapped(retail()), &line.replace("\"17850\"", "17850")), Ok(Some(expected.into())));
    assert_eq!(json(mapped(retail()), &line.replace("CustomerID", "Customer")), Err(Reason::MissingField));
    assert_eq!(json(mapped(retail()), &line.replace("08:26:00", "08:26")), Err(Reason::BadTime));
    assert_eq!(json(mapped(retail()), &line.replace("-12-01", "-13-01")), Err(Reason::BadTime));
}

#[test]
fn csv_rows_are_mapped_like_objects() {
    // Goal: columns are members, dots in their names included; empty cells are null; wrong rows are invalid.
    let row = |options: FormatOptions, header: &[&str], cells: &[&str]| {
        let text = cells.join(",");
        let (header, cells) = (csv::ByteRecord::from(header.to_vec()), csv::ByteRecord::from(cells.to_vec()));
        read(options, Payload::Csv { header: &header, cells: &cells, raw: text.as_bytes() })
    };
    let header = ["CustomerID", "InvoiceDate", "Quantity", "StockCode", "context.os"];
    let good = ["17850", "2010-12-01 08:26:00", "6", "85123A", "Linux"];
    let expected = "3:77 job 17850 - purchase 2010-12-01T08:26:00Z | cell 85123A cell 6 - cell Linux -";
    assert_eq!(row(mapped(retail()), &header, &good), Ok(Some(expected.into())));
    assert_eq!(row(mapped(retail()), &header, &["", good[1], good[2], good[3], good[4]]), Err(Reason::MissingField));
    assert_eq!(row(mapped(retail()), &header, &good[..4]), Err(Reason::InvalidJson));
    assert_eq!(row(mapped(retail()), &header, &[" "]), Ok(None));

    let native = ["user_id", "app_id", "event_type", "timestamp", "properties.amount", "context"];
    let cells = ["u", "a", "e", "2024-05-01T12:00:00Z", "3", "text"];
    let expected = "3:77 a u - e 2024-05-01T12:00:00Z | - cell 3 - - -";
    assert_eq!(row(any_options(), &native, &cells), Ok(Some(expected.into())));

    let (header, cells) = (csv::ByteRecord::from(vec!["a"]), csv::ByteRecord::from(vec![b"\xff".as_slice()]));
    let payload = Payload::Csv { header: &header, cells: &cells, raw: b"\xff" };
    assert_eq!(read(any_options(), payload), Err(Reason::InvalidJson));
}

#[test]
fn mapped_values_are_renamed() {
    // Goal: exact matches on the value's text; without one `otherwise`, else the value; what is missing stays missing.
    let rename =
        vec![("Next".into(), "feature_used".into()), ("1".into(), "one".into()), ("true".into(), "yes".into())];
    let page = |otherwise: Option<&str>| Mapping {
        event_type: Some(From::Member(Member {
            rename: rename.clone(),
            otherwise: otherwise.map(str::to_owned),
            ..member("a.page")
        })),
        ..Mapping::default()
    };
    let kind = |otherwise, value: &str| {
        let line = format!(r#"{{"user_id":"u","timestamp":"2024-05-01T12:00:00Z","a":{{"page":{value}}}}}"#);
        json(mapped(page(otherwise)), &line).map(|event| event.unwrap().split(' ').nth(4).unwrap().to_owned())
    };
    assert_eq!(kind(None, "\"Next\""), Ok("feature_used".into()));
    assert_eq!(kind(None, "\"next\""), Ok("next".into()));
    assert_eq!(kind(Some("rest"), "\"next\""), Ok("rest".into()));
    assert_eq!((kind(None, "1"), kind(None, "true")), (Ok("one".into()), Ok("yes".into())));
    assert_eq!((kind(None, "2"), kind(Some("rest"), "[]")), (Err(Reason::Schema), Ok("rest".into())));
    assert_eq!(kind(Some("rest"), "null"), Err(Reason::MissingField));
}

#[test]
fn only_mapped_properties_exist() {
    // Goal: `properties` of the record are not those of the event; context and metadata come from their own members.
    let mapping = Mapping { properties: vec![("deep".into(), From::Member(member("x.y")))], ..Mapping::default() };
    let line = r#"{"app_id":"a","user_id":"u","event_type":"e","timestamp":"2024-05-01T12:00:00Z","properties":{"feature":"f"},"x":{"y":{"er":1}},"context":{"os":"o"},"metadata":{"batch_id":2}}"#;
    assert_eq!(
        json(mapped(mapping.clone()), line),
        Ok(Some("3:77 a u - e 2024-05-01T12:00:00Z | - - 1 \"o\" 2".into()))
    );
    assert_eq!(json(mapped(mapping), &line.replace("{\"os\":\"o\"}", "3")), Err(Reason::Schema));
}

#[test]
fn constants_and_app_ids() {
    // Goal: a constant is a value like another; an `app_id` of the record goes before the job's name, a mapped one has no substitute.
    let mapping = Mapping {
        user_id: Some(From::Value(Constant::Number(5.0))),
        event_type: Some(From::Value(Constant::Text("e".into()))),
        properties: vec![
            ("amount".into(), From::Value(Constant::Number(0.5))),
            ("feature".into(), From::Value(Constant::Bool(true))),
        ],
        ..Mapping::default()
    };
    let time = r#""timestamp":"2024-05-01T12:00:00Z""#;
    let expected = |app: &str| Ok(Some(format!("3:77 {app} 5 - e 2024-05-01T12:00:00Z | true 0.5 - - -")));
    assert_eq!(json(mapped(mapping.clone()), &format!("{{{time}}}")), expected("job"));
    assert_eq!(json(mapped(mapping.clone()), &format!("{{\"app_id\":\"own\",{time}}}")), expected("own"));
    let mapping = Mapping { app_id: Some(From::Member(member("tenant"))), ..mapping };
    assert_eq!(json(mapped(mapping), &format!("{{\"app_id\":\"own\",{time}}}")), Err(Reason::MissingField));
}

#[test]
fn mapped_times_have_formats_units_and_zones() {
    // Goal: every way to write a time, exact to the microsecond and cut there; what is out of range is no time.
    let read = |time: Member, value: &str| {
        let mapping =
            Mapping { timestamp: Some(From::Member(Member { path: vec!["t".into()], ..time })), ..Mapping::default() };
        let line = format!(r#"{{"user_id":"u","event_type":"e","t":{value}}}"#);
        json(mapped(mapping), &line).map(|event| event.unwrap().split(' ').nth(5).unwrap().to_owned())
    };
    let unit = |unit| Member { unit: Some(unit), ..Member::default() };
    let format = |letters: &str, zone: Option<&str>| Member {
        format: Some(letters.into()),
        zone: zone.map(str::to_owned),
        ..Member::default()
    };
    let good = [
        (unit(TimeUnit::Seconds), "1285321830", "2010-09-24T09:50:30Z"),
        (unit(TimeUnit::Seconds), "1285321830.1234567", "2010-09-24T09:50:30.123456Z"),
        (unit(TimeUnit::Seconds), "1.285321830e9", "2010-09-24T09:50:30Z"),
        (unit(TimeUnit::Seconds), "-0.5", "1969-12-31T23:59:59.500000Z"),
        (unit(TimeUnit::Millis), "1285321830123.45", "2010-09-24T09:50:30.123450Z"),
        (unit(TimeUnit::Micros), "1285321830123456", "2010-09-24T09:50:30.123456Z"),
        (unit(TimeUnit::Nanos), "1285321830123456789", "2010-09-24T09:50:30.123456Z"),
        (unit(TimeUnit::Nanos), "-1", "1969-12-31T23:59:59.999999Z"),
        (unit(TimeUnit::Seconds), "\"2010-09-24T09:50:30Z\"", "2010-09-24T09:50:30Z"),
        (format("%Y-%m-%d %H:%M:%S", None), "\"2010-12-01 08:26:00\"", "2010-12-01T08:26:00Z"),
        (format("%Y-%m-%d %H:%M:%S", Some("Europe/London")), "\"2011-07-01 08:26:00\"", "2011-07-01T07:26:00Z"),
        (format("%d/%b/%Y:%H:%M:%S %z", Some("Asia/Tokyo")), "\"10/Oct/2000:13:55:36 -0700\"", "2000-10-10T20:55:36Z"),
        (format("%Y%m%d", None), "\"20101201\"", "2010-12-01T00:00:00Z"),
        (format("%s", None), "\"1285321830\"", "2010-09-24T09:50:30Z"),
        (
            Member { zone: Some("Asia/Tokyo".into()), ..Member::default() },
            "\"2010-12-01 08:26:00.25\"",
            "2010-11-30T23:26:00.250000Z",
        ),
        (
            Member { zone: Some("Asia/Tokyo".into()), ..Member::default() },
            "\"2010-12-01T08:26:00Z\"",
            "2010-12-01T08:26:00Z",
        ),
    ];
    for (member, value, expected) in good {
        assert_eq!(read(member, value), Ok(expected.to_owned()), "{value}");
    }
    let bad = [
        (unit(TimeUnit::Seconds), "1e300"),
        (unit(TimeUnit::Seconds), "253402300800"),
        (unit(TimeUnit::Micros), "-9223372036854775808"),
        (unit(TimeUnit::Seconds), "\"1285321830\""),
        (format("%Y-%m-%d %H:%M:%S", None), "\"2010-12-01T08:26:00Z\""),
        (format("%Y", None), "\"2010\""),
        (format("%Y-%m-%d", None), "20101201"),
    ];
    for (member, value) in bad {
        assert_eq!(read(member, value), Err(Reason::BadTime), "{value}");
    }
    for wrong in [format("%Y-%!", None), format("%Y-%m-%d", Some("Mars/Olympus"))] {
        let mapping = Mapping { timestamp: Some(From::Member(wrong)), ..Mapping::default() };
        assert!(EventReader::new(mapped(mapping), &[]).is_err());
    }
}

#[test]
fn a_cell_with_a_unit_is_a_number() {
    // Goal: CSV has no JSON numbers, so the cell's text decides; other texts are read as times.
    let time = Member { unit: Some(TimeUnit::Millis), ..member("t") };
    let mapping = Mapping { timestamp: Some(From::Member(time)), ..Mapping::default() };
    for (cell, expected) in [
        ("1500", Some("1970-01-01T00:00:01.500000Z")),
        ("1970-01-01T00:00:01.5Z", Some("1970-01-01T00:00:01.500000Z")),
        ("1e3", None),
    ] {
        let header = csv::ByteRecord::from(vec!["user_id", "event_type", "t"]);
        let cells = csv::ByteRecord::from(vec!["u", "e", cell]);
        let payload = Payload::Csv { header: &header, cells: &cells, raw: b"u,e,t" };
        let time = read(mapped(mapping.clone()), payload)
            .ok()
            .map(|event| event.unwrap().split(' ').nth(5).unwrap().to_owned());
        assert_eq!(time.as_deref(), expected, "{cell}");
    }
}

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
