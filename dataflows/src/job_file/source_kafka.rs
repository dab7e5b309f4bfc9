//! The keys of `[source]` for `connector = "kafka"`.

use std::collections::BTreeMap;

use toml::de::DeValue;
use whisperer_connectors::{
    format::FormatOptions,
    kafka::{KafkaOptions, Start, owner_of_property},
    source::EpochSize,
};
use whisperer_schemas::Micros;

use super::{
    delivery::read_instant,
    section::{Section, Value},
    shape,
};

/// Milliseconds that `idle_timeout_ms` may say: below, the question itself takes as long; above, nothing would ever be idle.
const IDLE_TIMEOUT_MS: std::ops::RangeInclusive<u64> = 100..=7 * 24 * 3_600_000;

/// Reads the keys of the connector, on top of its defaults.
pub(super) fn read(
    section: &Section<'_>,
    epoch_size: EpochSize,
    format: &FormatOptions,
    out_of_orderness: Micros,
    job_name: &str,
) -> KafkaOptions {
    let text = |value: Option<Value<'_>>| value.and_then(|v| v.text()).map(|v| v.value);
    let flag = |key, default| section.get(key).and_then(|v: Value<'_>| v.flag()).unwrap_or(default);
    let brokers = text(section.require("brokers")).unwrap_or_default();
    let topic = text(section.require("topic")).unwrap_or_default();
    let default = KafkaOptions::new(&brokers, &topic);
    let idle_timeout = section.get("idle_timeout_ms").and_then(|v| v.whole(IDLE_TIMEOUT_MS));
    KafkaOptions {
        group: text(section.get("group")).unwrap_or_else(|| format!("whisperer-{job_name}")),
        properties: section.get("properties").map(|v| read_properties(&v)).unwrap_or_default(),
        start: section.get("start").and_then(|v| read_start(&v)).unwrap_or(default.start),
        idle_timeout: idle_timeout.map_or(default.idle_timeout, |millis| millis as Micros * 1_000),
        allow_repartition: flag("allow_repartition", default.allow_repartition),
        keyed: flag("keyed", default.keyed),
        until_end: flag("until_end", default.until_end),
        headers: section.get("format").is_some_and(|v| has_headers(&v)),
        epoch_size,
        event_bytes_max: format.event_bytes_max,
        out_of_orderness,
        ..default
    }
}

/// Whether records of a format say something in their headers.
fn has_headers(format: &Value<'_>) -> bool {
    format.raw().as_str().is_some_and(|name| !["native", "json", "csv", "segment"].contains(&name))
}

fn read_start(value: &Value<'_>) -> Option<Start> {
    match value.raw().as_str() {
        Some("earliest") => Some(Start::Earliest),
        Some("latest") => Some(Start::Latest),
        Some(text) if !text.starts_with(|letter: char| letter.is_ascii_digit()) => {
            value.problem(format!("unknown start \"{text}\""), Some("earliest, latest, or a time"));
            None
        }
        _ => read_instant(value).map(Start::Time),
    }
}

/// Properties by name. TOML reads a name with dots as tables in tables, so these are joined again.
fn read_properties(value: &Value<'_>) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    if let Some(section) = value.section(&shape::KAFKA_PROPERTIES) {
        gather(&section, "", &mut properties);
    }
    properties
}

fn gather(section: &Section<'_>, prefix: &str, properties: &mut BTreeMap<String, String>) {
    for entry in section.entries() {
        let name = format!("{prefix}{}", entry.key());
        if entry.raw().as_table().is_some() {
            if let Some(inner) = entry.section(&shape::KAFKA_PROPERTIES) {
                gather(&inner, &format!("{name}."), properties);
            }
            continue;
        }
        if let Some(owner) = owner_of_property(&name) {
            entry.problem_at_key(format!("the property \"{name}\" cannot be set"), Some(owner));
        } else if let Some(text) = read_property(&entry, &name) {
            properties.insert(name, text);
        }
    }
}

/// A property's value as librdkafka wants it. `"${NAME}"` is taken from the environment, so that no secret stands in a job file.
fn read_property(entry: &Value<'_>, name: &str) -> Option<String> {
    let text = match entry.raw() {
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Integer(_) => entry.integer()?.to_string(),
        _ => entry.text_or_empty()?.value,
    };
    let variable = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    let text = match variable.map(|variable| (variable, std::env::var(variable))) {
        None => text,
        Some((_, Ok(value))) => value,
        Some((variable, Err(_))) => {
            entry.problem(format!("the environment has no variable \"{variable}\""), None);
            return None;
        }
    };
    match problem(name, &text) {
        Some(problem) => {
            entry.problem_at_key(format!("the property \"{name}\" cannot be set: {problem}"), None);
            None
        }
        None => Some(text),
    }
}

/// What librdkafka says of a property, where it is there to ask.
#[cfg(feature = "kafka")]
fn problem(name: &str, text: &str) -> Option<String> {
    whisperer_connectors::kafka::problem_of_property(name, text)
}

#[cfg(not(feature = "kafka"))]
fn problem(_name: &str, _text: &str) -> Option<String> {
    None
}
