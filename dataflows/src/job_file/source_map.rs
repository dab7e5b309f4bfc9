//! `[source.map]`: how the fields of foreign records become those of an event.

use whisperer_connectors::format::mapping::{Constant, From, Mapping, Member, TimeUnit};

use toml::de::DeValue;

use super::{
    section::{Section, Value, as_number},
    shape,
};

const UNITS: [(&str, TimeUnit); 4] =
    [("s", TimeUnit::Seconds), ("ms", TimeUnit::Millis), ("us", TimeUnit::Micros), ("ns", TimeUnit::Nanos)];

/// Keys of a field that describe a time.
const TIME_KEYS: [&str; 3] = ["format", "unit", "zone"];

/// Reads `[source.map]`.
pub(super) fn read(section: &Section<'_>) -> Mapping {
    let field = |key| section.get(key).and_then(|value| read_field(&value, key == "timestamp"));
    let properties = section.get("properties").and_then(|v| v.section(&shape::MAP_PROPERTIES));
    let properties = properties.map(|section| section.entries()).unwrap_or_default();
    let read_property = |entry: &Value<'_>| Some((entry.key().to_owned(), read_field(entry, false)?));
    Mapping {
        event_id: field("event_id"),
        app_id: field("app_id"),
        user_id: field("user_id"),
        session_id: field("session_id"),
        event_type: field("event_type"),
        timestamp: field("timestamp"),
        properties: properties.iter().filter_map(read_property).collect(),
    }
}

/// A text is the path of a member, a table says more about it or gives a constant.
fn read_field(value: &Value<'_>, is_time: bool) -> Option<From> {
    if value.raw().is_str() {
        return read_path(value).map(|path| From::Member(Member { path, ..Member::default() }));
    }
    if !value.raw().is_table() {
        let forms = "\"member\", { field = \"member\", … } or { value = … }";
        value.problem(format!("\"{}\" must be a text or a table", value.key()), Some(forms));
        return None;
    }
    let section = value.section(&shape::MEMBER)?;
    match section.get("value") {
        Some(constant) => read_constant(&section, &constant),
        None => read_member(&section, is_time).map(From::Member),
    }
}

fn read_path(value: &Value<'_>) -> Option<Vec<String>> {
    let text = value.text()?.value;
    let path: Vec<String> = text.split('.').map(str::to_owned).collect();
    if path.iter().any(String::is_empty) {
        value.problem(format!("\"{text}\" is not the path of a member"), Some("names with dots between them"));
        return None;
    }
    Some(path)
}

fn read_constant(section: &Section<'_>, value: &Value<'_>) -> Option<From> {
    for other in section.entries().iter().filter(|entry| shape::MEMBER.keys.contains(&entry.key())) {
        if other.key() != "value" {
            other.problem_at_key(format!("\"{}\" and \"value\" exclude each other", other.key()), None);
        }
    }
    let constant = match value.raw() {
        DeValue::String(text) => Some(Constant::Text(text.clone().into_owned())),
        DeValue::Boolean(flag) => Some(Constant::Bool(*flag)),
        raw => as_number(raw).map(Constant::Number),
    };
    if constant.is_none() {
        value.problem("\"value\" must be a text, a number, true or false".into(), None);
    }
    constant.map(From::Value)
}

fn read_member(section: &Section<'_>, is_time: bool) -> Option<Member> {
    for value in TIME_KEYS.iter().filter(|_| !is_time).filter_map(|key| section.get(key)) {
        value.problem_at_key(format!("\"{}\" belongs to \"timestamp\"", value.key()), None);
    }
    let path = section.require("field").and_then(|v| read_path(&v));
    let rename = section.get("rename").and_then(|v| v.section(&shape::RENAME));
    let rename = rename.map(|section| section.entries()).unwrap_or_default();
    let otherwise = section.get("otherwise");
    if let Some(otherwise) = otherwise.filter(|_| section.get("rename").is_none()) {
        otherwise.problem_at_key("\"otherwise\" needs \"rename\"".into(), None);
    }
    let member = Member {
        rename: rename.iter().filter_map(|v| Some((v.key().to_owned(), v.text()?.value))).collect(),
        otherwise: otherwise.and_then(|v| v.text()).map(|v| v.value),
        format: section.get("format").and_then(|v| v.text()).map(|v| v.value),
        unit: section.get("unit").and_then(|v| v.choice(&UNITS)),
        zone: section.get("zone").and_then(|v| read_zone(&v)),
        path: path?,
    };
    Some(member)
}

fn read_zone(value: &Value<'_>) -> Option<String> {
    let zone = value.text()?.value;
    if jiff::tz::TimeZone::get(&zone).is_err() {
        value.problem(format!("unknown time zone \"{zone}\""), Some("an IANA name, such as \"Europe/London\""));
        return None;
    }
    Some(zone)
}
