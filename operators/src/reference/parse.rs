//! A line becomes an event, or the first reason why it is rejected.

use serde_json::{Map, Value};
use whisperer_schemas::time::Micros;

use super::{Options, RawLine, expression::Datum, expression::Names, expression::Type, rfc3339};

/// Event types of the event contract.
const EVENT_TYPES: [&str; 33] = [
    "user_signup",
    "user_login",
    "user_logout",
    "feature_used",
    "page_viewed",
    "button_clicked",
    "form_submitted",
    "error_encountered",
    "trial_started",
    "subscription_upgraded",
    "subscription_downgraded",
    "subscription_cancelled",
    "payment_failed",
    "support_ticket_created",
    "app_crashed",
    "feature_discovery",
    "onboarding_step_completed",
    "tutorial_viewed",
    "settings_changed",
    "data_exported",
    "data_imported",
    "collaboration_invited",
    "collaboration_accepted",
    "notification_sent",
    "notification_opened",
    "notification_clicked",
    "email_sent",
    "email_opened",
    "email_clicked",
    "sms_sent",
    "sms_delivered",
    "push_sent",
    "push_opened",
];

/// Listed properties that hold numbers.
const NUMBER_PROPERTIES: [&str; 3] = ["amount", "duration", "value"];
/// Listed properties that hold text.
const TEXT_PROPERTIES: [&str; 10] =
    ["feature", "page", "button", "form", "error_type", "error_message", "plan", "currency", "category", "label"];
/// Listed members of `context`; all hold text.
const CONTEXT: [&str; 16] = [
    "ip",
    "user_agent",
    "referrer",
    "utm_source",
    "utm_medium",
    "utm_campaign",
    "device_type",
    "browser",
    "browser_version",
    "os",
    "os_version",
    "screen_resolution",
    "timezone",
    "locale",
    "app_version",
    "sdk_version",
];
/// Listed members of `metadata`; all hold text.
const METADATA: [&str; 5] = ["received_at", "processed_at", "schema_version", "source", "batch_id"];

/// A valid event.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub event_id: String,
    pub app_id: String,
    pub user_id: String,
    pub session_id: Option<String>,
    pub event_type: String,
    /// Event time, after clamping.
    pub time: Micros,
    pub clamped: bool,
    /// The whole record.
    pub json: Map<String, Value>,
}

/// What a line is.
#[derive(Debug)]
pub(super) enum Line {
    Blank,
    Dead(&'static str),
    Event(Box<Event>),
}

pub(super) fn read(line: &RawLine, partition: u32, options: &Options) -> Line {
    if line.bytes.iter().all(u8::is_ascii_whitespace) {
        return Line::Blank;
    }
    match event(line, partition, options) {
        Ok(event) => Line::Event(Box::new(event)),
        Err(reason) => Line::Dead(reason),
    }
}

fn event(line: &RawLine, partition: u32, options: &Options) -> Result<Event, &'static str> {
    if line.bytes.len() as u64 > options.event_bytes_max {
        return Err("too_large");
    }
    let text = std::str::from_utf8(&line.bytes).map_err(|_| "invalid_json")?;
    let json: Map<String, Value> = serde_json::from_str(text).map_err(|_| "invalid_json")?;
    if ["app_id", "user_id", "event_type", "timestamp"].iter().any(|name| present(&json, name).is_none()) {
        return Err("missing_field");
    }
    let stated = json["timestamp"].as_str().and_then(rfc3339::parse).ok_or("bad_time")?;
    let id = |name: &str, prefix: &str| present(&json, name).map(|value| id(value, prefix, options)).transpose();
    let event_id = id("event_id", "evt_")?.unwrap_or_else(|| format!("{partition}:{}", line.offset));
    let app_id = id("app_id", "app_")?.ok_or("missing_field")?;
    let user_id = id("user_id", "usr_")?.ok_or("missing_field")?;
    let session_id = id("session_id", "ses_")?;
    let event_type = event_type(&json["event_type"], options)?;
    if ["properties", "context", "metadata"].iter().any(|name| present(&json, name).is_some_and(|v| !v.is_object())) {
        return Err("schema");
    }
    let (time, clamped) = clamp(stated, ingest_time(&json), options)?;
    Ok(Event { event_id, app_id, user_id, session_id, event_type, time, clamped, json })
}

fn present<'a>(json: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    json.get(name).filter(|value| !value.is_null())
}

fn id(value: &Value, prefix: &str, options: &Options) -> Result<String, &'static str> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if options.ids_any && (number.is_i64() || number.is_u64()) => number.to_string(),
        _ => return Err("schema"),
    };
    let strict = |rest: &str| rest.len() == 16 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let valid = match options.ids_any {
        true => (1..=128).contains(&text.len()),
        false => text.strip_prefix(prefix).is_some_and(strict),
    };
    valid.then_some(text).ok_or("schema")
}

fn event_type(value: &Value, options: &Options) -> Result<String, &'static str> {
    let text = value.as_str().ok_or("schema")?;
    let listed = EVENT_TYPES.contains(&text) || options.extra_event_types.iter().any(|extra| extra == text);
    (listed || (options.event_types_any && !text.is_empty())).then(|| text.to_owned()).ok_or("schema")
}

/// `metadata.received_at`; one that cannot be read is as if it were absent, since contents are never `schema`.
fn ingest_time(json: &Map<String, Value>) -> Option<Micros> {
    json.get("metadata")?.get("received_at")?.as_str().and_then(rfc3339::parse)
}

fn clamp(stated: Micros, ingest: Option<Micros>, options: &Options) -> Result<(Micros, bool), &'static str> {
    match ingest {
        Some(ingest) if stated - ingest > options.future_max => Err("future"),
        Some(ingest) if stated - ingest > options.clamp_after => Ok((ingest, true)),
        _ => Ok((stated, false)),
    }
}

impl Names for Event {
    fn type_of(&self, name: &[String]) -> Result<Option<Type>, String> {
        let path: Vec<&str> = name.iter().map(String::as_str).collect();
        match path[..] {
            ["event_type" | "event_id" | "app_id" | "user_id" | "session_id"] => Ok(Some(Type::Text)),
            ["properties", name] if NUMBER_PROPERTIES.contains(&name) => Ok(Some(Type::Number)),
            ["properties", name] if TEXT_PROPERTIES.contains(&name) => Ok(Some(Type::Text)),
            ["context", name] if CONTEXT.contains(&name) => Ok(Some(Type::Text)),
            ["metadata", name] if METADATA.contains(&name) => Ok(Some(Type::Text)),
            ["properties" | "context" | "metadata", _, ..] => Ok(None),
            _ => Err(format!("no field \"{}\"", path.join("."))),
        }
    }

    fn value(&self, name: &[String]) -> Result<Datum, String> {
        let kind = self.type_of(name)?;
        let value = match name[0].as_str() {
            "event_type" => return Ok(Datum::Text(self.event_type.clone())),
            "event_id" => return Ok(Datum::Text(self.event_id.clone())),
            "app_id" => return Ok(Datum::Text(self.app_id.clone())),
            "user_id" => return Ok(Datum::Text(self.user_id.clone())),
            "session_id" => return Ok(self.session_id.clone().map_or(Datum::Null, Datum::Text)),
            group => name[1..].iter().try_fold(self.json.get(group), |at, member| Some(at?.get(member))).flatten(),
        };
        let datum = match value {
            Some(Value::Bool(truth)) => Datum::Bool(*truth),
            Some(Value::Number(number)) => number.as_f64().map_or(Datum::Null, Datum::Number),
            Some(Value::String(text)) => Datum::Text(text.clone()),
            _ => Datum::Null,
        };
        // A value of another type than the contract's is null.
        Ok(if kind.is_some() && datum.kind() != kind { Datum::Null } else { datum })
    }
}
