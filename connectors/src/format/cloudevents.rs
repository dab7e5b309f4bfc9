//! CloudEvents 1.0 over Kafka: structured mode (a JSON envelope) and binary mode (attributes in headers, the body as the value).
//!
//! Both modes give the members of the structured form, so that a mapping names the same paths in either: attributes at the root, the
//! body under `data`. The body is an event of the contract; what it lacks comes from the envelope.

use whisperer_operators::intake::Field;

use super::{
    capture::{Captured, capture_below, capture_plain, empty},
    decode::Unread,
    members::{Members, UNWANTED},
    plan::{Draft, Feed, Plan, objects, path, same_path},
};

/// What headers of attributes begin with in binary mode.
const ATTRIBUTE_PREFIX: &str = "ce_";

const CONTENT_TYPE: &str = "content-type";

type Headers<'a> = &'a [(&'a str, &'a [u8])];

/// Where the fields of an event stand in a CloudEvent.
pub(super) fn draft() -> Draft {
    let body_or = |field: &str, attribute: &str| Feed::First(vec![path(&format!("data.{field}")), path(attribute)]);
    Draft {
        event_id: body_or("event_id", "id"),
        app_id: Feed::Member(path("data.app_id")),
        user_id: body_or("user_id", "subject"),
        session_id: Feed::Member(path("data.session_id")),
        event_type: body_or("event_type", "type"),
        timestamp: body_or("timestamp", "time"),
        received_at: Feed::Member(path("data.metadata.received_at")),
        objects: objects(&["data", "data.properties", "data.context", "data.metadata"]),
        more: vec![path("specversion")],
    }
}

/// Where a field of a group stands.
pub(super) fn field(field: &Field) -> Feed<Vec<String>> {
    let mut path = same_path(field);
    path.insert(0, "data".to_owned());
    Feed::Member(path)
}

/// How a record is written, by its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Structured,
    Binary,
}

/// Reads CloudEvents.
#[derive(Debug)]
pub(super) struct CloudEvents {
    data: u16,
    specversion: u16,
}

impl CloudEvents {
    pub(super) fn new(plan: &Plan) -> CloudEvents {
        let slot = |name| plan.members.slot(&path(name)).expect("the draft names these members");
        CloudEvents { data: slot("data"), specversion: slot("specversion") }
    }

    /// Whether the record is one in binary mode, which may have no content.
    pub(super) fn is_binary(headers: Headers<'_>) -> bool {
        mode(headers).is_ok_and(|mode| mode == Mode::Binary)
    }

    /// Fills the slots from the envelope and the body.
    pub(super) fn fill<'a>(
        &self,
        headers: Headers<'a>,
        bytes: &'a [u8],
        members: &Members,
        slots: &mut Vec<Captured<'a>>,
        scratch: &mut String,
    ) -> Result<(), Unread> {
        match mode(headers)? {
            Mode::Structured => capture_plain(bytes, members, slots, scratch)?,
            Mode::Binary => {
                empty(members, slots, scratch);
                attributes(headers, members, slots)?;
                if !bytes.iter().all(u8::is_ascii_whitespace) {
                    capture_below(self.data, bytes, members, slots, scratch)?;
                }
            }
        }
        self.check_version(slots, scratch)
    }

    fn check_version(&self, slots: &[Captured<'_>], scratch: &str) -> Result<(), Unread> {
        let version = match slots[usize::from(self.specversion)] {
            Captured::Text(version) | Captured::Cell(version) => Some(version),
            Captured::Escaped(start, end) => Some(&scratch[start..end]),
            _ => None,
        };
        match version {
            Some("1.0") => Ok(()),
            Some(other) => Err(Unread::BreaksSchema(format!("specversion {:?} is not \"1.0\"", cut(other)))),
            None => Err(Unread::Missing("specversion is missing: no CloudEvent".to_owned())),
        }
    }
}

/// The mode is told by the content type. A record without one, and without attributes in headers, can only be structured: a line
/// of a file, or what a producer wrote that sets no headers.
fn mode(headers: Headers<'_>) -> Result<Mode, String> {
    let content_type = headers.iter().rfind(|(name, _)| name.eq_ignore_ascii_case(CONTENT_TYPE));
    let content_type = content_type.map(|(_, value)| media_type(value)).transpose()?;
    let has_attributes = headers.iter().any(|(name, _)| *name == "ce_specversion");
    match content_type.as_deref() {
        Some("application/cloudevents+json" | "application/cloudevents") => Ok(Mode::Structured),
        Some(other) if other.starts_with("application/cloudevents") => {
            Err(format!("the content type {other:?} is not read"))
        }
        None if !has_attributes => Ok(Mode::Structured),
        None => Ok(Mode::Binary),
        Some("application/json") if !has_attributes => Ok(Mode::Structured),
        Some(json) if json == "application/json" || json.ends_with("+json") => Ok(Mode::Binary),
        Some(other) => Err(format!("the content type {:?} is not JSON", cut(other))),
    }
}

/// A media type in lower case, without its parameters.
fn media_type(value: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(value).map_err(|_| "the content type is not UTF-8".to_owned())?;
    Ok(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Fills the slots of the attributes, which are texts. Other headers are not looked at.
fn attributes<'a>(headers: Headers<'a>, members: &Members, slots: &mut [Captured<'a>]) -> Result<(), Unread> {
    for (header, value) in headers {
        let name = match header.strip_prefix(ATTRIBUTE_PREFIX) {
            Some("data") => continue,
            Some(name) => name,
            None if header.eq_ignore_ascii_case(CONTENT_TYPE) => "datacontenttype",
            None => continue,
        };
        let text = std::str::from_utf8(value).map_err(|_| format!("the header {:?} is not UTF-8", cut(header)))?;
        let slot = members.child(0, name.as_bytes());
        if slot != UNWANTED {
            slots[usize::from(slot)] = Captured::Text(text);
        }
    }
    Ok(())
}

/// The beginning of a text, for a message.
fn cut(text: &str) -> &str {
    const CHARS_MAX: usize = 64;
    text.char_indices().nth(CHARS_MAX).map_or(text, |(end, _)| &text[..end])
}
