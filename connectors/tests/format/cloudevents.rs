//! CloudEvents: both modes, what the envelope gives where the body does not, and what is no CloudEvent.

use whisperer_connectors::{
    RawRecord,
    format::{EventReader, Format, FormatOptions, Mapping, Reason, mapping::From},
    source::Payload,
};

use crate::support::{GOOD, Outcome, any_options, fields, json, member, outcome, raw, shown};

const STRUCTURED: &str = r#"{"specversion":"1.0","id":"c1","source":"/shop","type":"com.shop.used","time":"2024-05-01T12:00:00Z","subject":"u1","tenant":"t1","data":{"properties":{"feature":"export"},"context":{"os":"Linux"}}}"#;

const ENVELOPE: [(&str, &[u8]); 7] = [
    ("content-type", b"application/json"),
    ("ce_specversion", b"1.0"),
    ("ce_id", b"c1"),
    ("ce_source", b"/shop"),
    ("ce_type", b"com.shop.used"),
    ("ce_time", b"2024-05-01T12:00:00Z"),
    ("ce_subject", b"u1"),
];

const BODY: &str = r#"{"properties":{"feature":"export"},"context":{"os":"Linux"}}"#;

const EVENT: &str = "c1 job u1 - com.shop.used 2024-05-01T12:00:00Z | \"export\" - - \"Linux\" -";

fn options(mapping: Mapping) -> FormatOptions {
    FormatOptions { format: Format::CloudEvents(mapping), ..any_options() }
}

fn structured(line: &str) -> Outcome {
    json(options(Mapping::default()), line)
}

fn binary(headers: &[(&str, &[u8])], body: &[u8]) -> Outcome {
    let mut reader = EventReader::new(options(Mapping::default()), &fields()).unwrap();
    let record = RawRecord { headers, ..raw(Payload::Json(body)) };
    outcome(reader.read(&record, shown))
}

/// The envelope with one header replaced, or left out.
fn envelope(name: &str, value: Option<&'static [u8]>) -> Vec<(&'static str, &'static [u8])> {
    let replaced =
        |(header, old)| if header == name { value.map(|value| (header, value)) } else { Some((header, old)) };
    ENVELOPE.into_iter().filter_map(replaced).collect()
}

#[test]
fn both_modes_give_the_same_event() {
    // Goal: attributes and body, whichever way they are written; the mode is told by the content type.
    assert_eq!(structured(STRUCTURED), Ok(Some(EVENT.into())));
    assert_eq!(binary(&ENVELOPE, BODY.as_bytes()), Ok(Some(EVENT.into())));
    for content_type in
        ["application/cloudevents+json", "application/cloudevents+json; charset=UTF-8", "Application/CloudEvents"]
    {
        assert_eq!(binary(&[("content-type", content_type.as_bytes())], STRUCTURED.as_bytes()), Ok(Some(EVENT.into())));
    }
    for content_type in ["application/json;charset=utf-8", "application/vnd.shop.event+json"] {
        let headers = envelope("content-type", Some(content_type.as_bytes()));
        assert_eq!(binary(&headers, BODY.as_bytes()), Ok(Some(EVENT.into())));
    }
    assert_eq!(binary(&envelope("content-type", None), BODY.as_bytes()), Ok(Some(EVENT.into())));
    assert_eq!(binary(&[("content-type", b"application/json")], STRUCTURED.as_bytes()), Ok(Some(EVENT.into())));
    assert_eq!(binary(&[("trace", b"\xff")], STRUCTURED.as_bytes()), Ok(Some(EVENT.into())));
    let more = [&ENVELOPE[..], &[("trace", b"\xff"), ("ce_data", b"no")]].concat();
    assert_eq!(binary(&more, BODY.as_bytes()), Ok(Some(EVENT.into())));
}

#[test]
fn the_body_goes_before_the_envelope() {
    // Goal: a body that is a whole event of the contract is that event; the envelope only stands in.
    let line = format!("{},\"data\":{GOOD}}}", &STRUCTURED[..STRUCTURED.find(",\"data\"").unwrap()]);
    let whole = json(any_options(), GOOD);
    assert_eq!(structured(&line), whole);
    assert_eq!(binary(&ENVELOPE, GOOD.as_bytes()), whole);
}

#[test]
fn an_event_without_a_body_is_its_attributes() {
    // Goal: no content in binary mode is no blank line; null and absent data are the same.
    let expected = Ok(Some("c1 job u1 - com.shop.used 2024-05-01T12:00:00Z | - - - - -".to_owned()));
    assert_eq!(binary(&ENVELOPE, b""), expected);
    assert_eq!(structured(&STRUCTURED.replace(&format!(",\"data\":{BODY}"), "")), expected);
    assert_eq!(structured(&STRUCTURED.replace(BODY, "null")), expected);
    assert_eq!(structured(" "), Ok(None));
    assert_eq!(binary(&[("content-type", b"application/cloudevents+json")], b""), Ok(None));
}

#[test]
fn what_lacks_an_attribute_misses_a_field() {
    // Goal: in both modes; without an id the position is one.
    for (attribute, reason) in [
        ("specversion", Some(Reason::MissingField)),
        ("type", Some(Reason::MissingField)),
        ("time", Some(Reason::MissingField)),
        ("subject", Some(Reason::MissingField)),
        ("id", None),
        ("source", None),
    ] {
        let line = STRUCTURED.replace(&format!("\"{attribute}\""), "\"other\"");
        assert_eq!(structured(&line).err(), reason, "{attribute}");
        let headers = envelope(&format!("ce_{attribute}"), None);
        assert_eq!(binary(&headers, BODY.as_bytes()).err(), reason, "{attribute}");
    }
}

#[test]
fn what_is_no_cloud_event_is_rejected() {
    // Goal: contents, versions, types and headers that cannot be read, in the order of the reasons.
    assert_eq!(binary(&ENVELOPE, b"{"), Err(Reason::InvalidJson));
    assert_eq!(binary(&ENVELOPE, b"[]"), Err(Reason::InvalidJson));
    assert_eq!(structured(&STRUCTURED.replace(BODY, "[]")), Err(Reason::Schema));
    assert_eq!(structured(&STRUCTURED.replace(BODY, "\"text\"")), Err(Reason::Schema));
    assert_eq!(structured(&STRUCTURED.replace("{\"feature\":\"export\"}", "7")), Err(Reason::Schema));
    assert_eq!(structured(&STRUCTURED.replace("\"1.0\"", "\"0.3\"")), Err(Reason::Schema));
    assert_eq!(structured(&STRUCTURED.replace("\"1.0\"", "1.0")), Err(Reason::MissingField));
    let old = STRUCTURED.replace("\"1.0\"", "\"0.3\"");
    assert_eq!(structured(&old.replace("\"subject\"", "\"other\"")), Err(Reason::MissingField));
    assert_eq!(structured(&old.replace("12:00:00Z", "noon")), Err(Reason::BadTime));
    assert_eq!(binary(&envelope("ce_time", Some(b"noon")), BODY.as_bytes()), Err(Reason::BadTime));
    assert_eq!(binary(&envelope("ce_subject", Some(b"\xff")), BODY.as_bytes()), Err(Reason::InvalidJson));
    assert_eq!(binary(&envelope("ce_subject", Some(b"")), BODY.as_bytes()), Err(Reason::Schema));
    for content_type in
        ["text/xml", "application/avro", "application/cloudevents-batch+json", "application/cloudevents+avro"]
    {
        let headers = envelope("content-type", Some(content_type.as_bytes()));
        assert_eq!(binary(&headers, BODY.as_bytes()), Err(Reason::InvalidJson), "{content_type}");
    }
}

#[test]
fn a_mapping_names_the_structured_form_in_both_modes() {
    // Goal: attributes, extensions and members of the body; what is not mapped stays where it was.
    let mapping = Mapping {
        app_id: Some(From::Member(member("tenant"))),
        user_id: Some(From::Member(member("data.context.os"))),
        properties: vec![("amount".into(), From::Member(member("source")))],
        ..Mapping::default()
    };
    let expected = "c1 t1 Linux - com.shop.used 2024-05-01T12:00:00Z | \"export\" \"/shop\" - \"Linux\" -";
    assert_eq!(json(options(mapping.clone()), STRUCTURED), Ok(Some(expected.into())));
    let headers = [&ENVELOPE[..], &[("ce_tenant", b"t1")]].concat();
    let mut reader = EventReader::new(options(mapping), &fields()).unwrap();
    let record = RawRecord { headers: &headers, ..raw(Payload::Json(BODY.as_bytes())) };
    assert_eq!(reader.read(&record, shown), Ok(Some(expected.to_owned())));
}
