//! Segment: each call of the spec, ids, names, clocks, and what a mapping changes.

use whisperer_connectors::format::{
    EventReader, EventTypes, Format, FormatOptions, Mapping, Reason,
    mapping::{From, Member},
};
use whisperer_connectors::source::Payload;

use crate::support::{Outcome, any_options, fields, json, member, options, raw};

/// A call as Segment hands it on; the part that differs by call comes first.
fn call(part: &str) -> String {
    format!(
        r#"{{{part},"messageId":"ajs-1","userId":"u1","anonymousId":"a1","timestamp":"2024-05-01T12:00:00Z","originalTimestamp":"2024-05-01T11:00:00Z","sentAt":"2024-05-01T11:00:01Z","receivedAt":"2024-05-01T12:00:01Z","context":{{"os":{{"name":"Linux"}},"sessionId":1714564800}}}}"#
    )
}

fn segment(mapping: Mapping) -> FormatOptions {
    FormatOptions { format: Format::Segment(mapping), ..any_options() }
}

fn read(line: &str) -> Outcome {
    json(segment(Mapping::default()), line)
}

fn kind(mapping: Mapping, part: &str) -> Result<String, Reason> {
    json(segment(mapping), &call(part)).map(|event| event.unwrap().split(' ').nth(4).unwrap().to_owned())
}

#[test]
fn a_track_call_is_an_event() {
    // Goal: every field of the event, and properties and context, from where Segment has them.
    let line = call(r#""type":"track","event":"Feature Used","properties":{"feature":"export","amount":3}"#);
    let expected = "ajs-1 job u1 1714564800 feature_used 2024-05-01T12:00:00Z | \"export\" 3 - \"Linux\" -";
    assert_eq!(read(&line), Ok(Some(expected.into())));
    let escaped = line.replace("Feature Used", "Feature\\u0020Used").replace("\"u1\"", "\"\\u00751\"");
    assert_eq!(read(&escaped), Ok(Some(expected.into())));
    assert_eq!(read("  "), Ok(None));
}

#[test]
fn each_call_has_its_event_type() {
    // Goal: the default mapping: names of the spec that have a counterpart, snake case, and the calls without names.
    let track = |name: &str| kind(Mapping::default(), &format!(r#""type":"track","event":"{name}""#));
    for (name, expected) in [
        ("Signed Up", "user_signup"),
        ("Signed In", "user_login"),
        ("Signed Out", "user_logout"),
        ("Application Crashed", "app_crashed"),
        ("Email Link Clicked", "email_clicked"),
        ("Push Notification Tapped", "push_opened"),
        ("Trial Started", "trial_started"),
        ("buttonClicked", "button_clicked"),
        ("page_viewed", "page_viewed"),
    ] {
        assert_eq!(track(name).as_deref(), Ok(expected), "{name}");
    }
    for (call, expected) in [
        ("page", "page_viewed"),
        ("screen", "page_viewed"),
        ("identify", "identify"),
        ("group", "group"),
        ("alias", "alias"),
    ] {
        assert_eq!(kind(Mapping::default(), &format!(r#""type":"{call}""#)).as_deref(), Ok(expected));
    }
}

#[test]
fn calls_that_say_too_little_or_the_wrong_thing_are_rejected() {
    // Goal: missing, null, of a wrong type, unknown; and the order of the reasons.
    let reason = |part: &str| read(&call(part)).err();
    assert_eq!(reason(r#""event":"a""#), Some(Reason::MissingField));
    assert_eq!(reason(r#""type":null"#), Some(Reason::MissingField));
    assert_eq!(reason(r#""type":"track""#), Some(Reason::MissingField));
    assert_eq!(reason(r#""type":"track","event":null"#), Some(Reason::MissingField));
    assert_eq!(reason(r#""type":"track","event":7"#), Some(Reason::Schema));
    assert_eq!(reason(r#""type":"track","event":"!!""#), Some(Reason::Schema));
    assert_eq!(reason(r#""type":"batch""#), Some(Reason::Schema));
    assert_eq!(reason(r#""type":7"#), Some(Reason::Schema));
    assert_eq!(reason(r#""type":"page","traits":1"#), Some(Reason::Schema));
    assert_eq!(reason(r#""type":"page","properties":[]"#), Some(Reason::Schema));
    let unknown = call(r#""type":"batch""#);
    assert_eq!(read(&unknown.replace("\"userId\":\"u1\",\"anonymousId\":\"a1\",", "")), Err(Reason::MissingField));
    assert_eq!(read(&unknown.replace("2024-05-01T12:00:00Z", "noon")), Err(Reason::BadTime));
    assert_eq!(read(&unknown[..unknown.len() - 1]), Err(Reason::InvalidJson));
}

#[test]
fn an_anonymous_visitor_is_known_by_the_anonymous_id() {
    // Goal: absent and null are the same; an empty id is an id, and a wrong one.
    let line = call(r#""type":"page""#);
    let user = |line: &str| read(line).map(|event| event.unwrap().split(' ').nth(2).unwrap().to_owned());
    assert_eq!(user(&line).as_deref(), Ok("u1"));
    assert_eq!(user(&line.replace("\"u1\"", "null")).as_deref(), Ok("a1"));
    assert_eq!(user(&line.replace("\"userId\":\"u1\",", "")).as_deref(), Ok("a1"));
    assert_eq!(user(&line.replace("\"u1\"", "\"\"")), Err(Reason::Schema));
    assert_eq!(user(&line.replace("\"u1\"", "17850")).as_deref(), Ok("17850"));
}

#[test]
fn a_wrong_client_clock_is_corrected_as_segment_does() {
    // Goal: `timestamp` is right already; without it, receivedAt - (sentAt - originalTimestamp); without those, what the client says.
    let line = call(r#""type":"page""#);
    let time = |line: &str| read(line).map(|event| event.unwrap().split(' ').nth(5).unwrap().to_owned());
    assert_eq!(time(&line).as_deref(), Ok("2024-05-01T12:00:00Z"));
    let raw = line.replace("\"timestamp\":\"2024-05-01T12:00:00Z\",", "");
    assert_eq!(time(&raw.replace("11:00:01Z", "11:00:00.250Z")).as_deref(), Ok("2024-05-01T12:00:00.750000Z"));
    assert_eq!(time(&raw.replace("\"sentAt\"", "\"other\"")).as_deref(), Ok("2024-05-01T11:00:00Z"));
    assert_eq!(time(&raw.replace("11:00:01Z", "soon")).as_deref(), Ok("2024-05-01T11:00:00Z"));
    assert_eq!(time(&raw.replace("\"originalTimestamp\"", "\"other\"")), Err(Reason::MissingField));
    assert_eq!(time(&line.replace("\"2024-05-01T12:00:00Z\"", "1714564800")), Err(Reason::BadTime));
}

#[test]
fn received_at_is_the_ingest_time() {
    // Goal: times far ahead of it are clamped or rejected, as for the contract's `metadata.received_at`.
    let line = call(r#""type":"page""#);
    let time = |received: &str| {
        let line = line.replace("2024-05-01T12:00:01Z", received);
        read(&line).map(|event| event.unwrap().split(' ').nth(5).unwrap().to_owned())
    };
    assert_eq!(time("2024-05-01T11:59:00Z").as_deref(), Ok("2024-05-01T11:59:00Z"));
    assert_eq!(time("2024-05-01T10:00:00Z"), Err(Reason::Future));
}

#[test]
fn traits_and_names_are_properties() {
    // Goal: traits of identify and group; the name of a page where its properties have no page; the other ids of a call that links two.
    let read = |part: &str, path: &[&str]| {
        let mut fields = fields();
        fields.truncate(1);
        fields[0].path = path.iter().map(|name| (*name).to_owned()).collect();
        let mut reader = EventReader::new(segment(Mapping::default()), &fields).unwrap();
        let line = call(part);
        reader.read(&raw(Payload::Json(line.as_bytes())), |event| format!("{:?}", event.fields[0])).unwrap().unwrap()
    };
    assert_eq!(read(r#""type":"identify","traits":{"plan":"pro"}"#, &["plan"]), "Text(\"pro\")");
    assert_eq!(read(r#""type":"group","traits":{"a":{"b":1}}"#, &["a", "b"]), "Number(1.0)");
    assert_eq!(read(r#""type":"page","name":"Home""#, &["page"]), "Text(\"Home\")");
    assert_eq!(read(r#""type":"page","name":"Home","properties":{"page":"Start"}"#, &["page"]), "Text(\"Start\")");
    assert_eq!(read(r#""type":"identify""#, &["anonymous_id"]), "Text(\"a1\")");
    assert_eq!(read(r#""type":"alias","previousId":"a0""#, &["previous_id"]), "Text(\"a0\")");
}

#[test]
fn a_mapping_replaces_what_it_names_and_nothing_else() {
    // Goal: renamed names before the defaults, `otherwise` instead of them, other members, constants, single properties.
    let rename = |otherwise: Option<&str>| Mapping {
        event_type: Some(From::Member(Member {
            rename: vec![("Song Played".into(), "feature_used".into()), ("screen".into(), "screen_viewed".into())],
            otherwise: otherwise.map(str::to_owned),
            ..member("event")
        })),
        ..Mapping::default()
    };
    let track = |otherwise, name: &str| kind(rename(otherwise), &format!(r#""type":"track","event":"{name}""#));
    assert_eq!(track(None, "Song Played").as_deref(), Ok("feature_used"));
    assert_eq!(track(None, "Signed Up").as_deref(), Ok("user_signup"));
    assert_eq!(track(Some("rest"), "Signed Up").as_deref(), Ok("rest"));
    assert_eq!(kind(rename(Some("rest")), r#""type":"page""#).as_deref(), Ok("page_viewed"));
    assert_eq!(kind(rename(None), r#""type":"screen""#).as_deref(), Ok("screen_viewed"));

    let mapping = Mapping {
        app_id: Some(From::Member(member("context.app.namespace"))),
        event_type: Some(From::Member(member("properties.kind"))),
        timestamp: Some(From::Member(member("sentAt"))),
        properties: vec![("amount".into(), From::Member(member("properties.revenue")))],
        ..Mapping::default()
    };
    let line = call(r#""type":"x","properties":{"kind":"k","revenue":5,"feature":"f"}"#)
        .replace(r#""context":{"#, r#""context":{"app":{"namespace":"com.shop"},"#);
    let expected = "ajs-1 com.shop u1 1714564800 k 2024-05-01T11:00:01Z | \"f\" 5 - \"Linux\" -";
    assert_eq!(json(segment(mapping), &line), Ok(Some(expected.into())));
}

#[test]
fn ids_and_types_may_be_held_to_the_contract() {
    // Goal: strict ids and the contract's types where the job says so.
    let strict = FormatOptions { format: Format::Segment(Mapping::default()), ..options() };
    assert_eq!(json(strict, &call(r#""type":"page""#)), Err(Reason::Schema));
    let contract = FormatOptions { event_types: EventTypes::Contract(vec![]), ..segment(Mapping::default()) };
    assert!(json(contract.clone(), &call(r#""type":"page""#)).is_ok());
    assert_eq!(json(contract, &call(r#""type":"group""#)), Err(Reason::Schema));
}

#[test]
fn rows_of_a_csv_file_are_calls_too() {
    // Goal: columns are members; what is derived is derived from cells.
    let header = csv::ByteRecord::from(vec!["type", "event", "userId", "originalTimestamp", "sentAt", "receivedAt"]);
    let cells = ["track", "Feature Used", "u1", "2024-05-01T11:00:00Z", "2024-05-01T11:00:01Z", "2024-05-01T12:00:01Z"];
    let cells = csv::ByteRecord::from(cells.to_vec());
    let payload = Payload::Csv { header: &header, cells: &cells, raw: b"track" };
    let expected = "3:77 job u1 - feature_used 2024-05-01T12:00:00Z | - - - - -";
    assert_eq!(crate::support::read(segment(Mapping::default()), payload), Ok(Some(expected.into())));
}
