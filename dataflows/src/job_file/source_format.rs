//! `[source] format` and what belongs to it: how records are written, and which of them are valid.

use std::time::Duration;

use whisperer_connectors::format::{
    Encoding, EventTypes, Format, FormatOptions, Ids, Mapping, RegistryOptions, registry::Secret,
};

use super::{
    section::{Section, Value},
    shape, source_map,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    Native,
    Foreign,
    Segment,
    CloudEvents,
    Framed(Encoding),
}

const FORMATS: [(&str, Name); 8] = [
    ("native", Name::Native),
    ("json", Name::Foreign),
    ("csv", Name::Foreign),
    ("segment", Name::Segment),
    ("cloudevents", Name::CloudEvents),
    ("avro", Name::Framed(Encoding::Avro)),
    ("protobuf", Name::Framed(Encoding::Protobuf)),
    ("json_schema", Name::Framed(Encoding::JsonSchema)),
];

/// Reads how records are written. `job_name` is the `app_id` of events that have none.
pub(super) fn read(section: &Section<'_>, job_name: &str) -> FormatOptions {
    let name = section.get("format").and_then(|v| v.choice(&FORMATS)).unwrap_or(Name::Native);
    let is_native = name == Name::Native;
    let ids = section.get("ids").and_then(|v| v.choice(&[("strict", Ids::Strict), ("any", Ids::Any)]));
    let event_types = section.get("event_types").and_then(|v| read_event_types(&v));
    let default_types = if is_native { EventTypes::Contract(Vec::new()) } else { EventTypes::Any };
    FormatOptions {
        ids: ids.unwrap_or(if is_native { Ids::Strict } else { Ids::Any }),
        event_types: event_types.unwrap_or(default_types),
        event_bytes_max: read_event_bytes_max(section),
        future_max: section.get("future_max").and_then(|v| v.duration()).map_or(shape::FUTURE_MAX, |v| v.value),
        clamp_after: shape::CLAMP_AFTER,
        format: read_format(section, name),
        app_id: job_name.to_owned(),
    }
}

fn read_event_bytes_max(section: &Section<'_>) -> u64 {
    section.get("event_bytes_max").and_then(|v| v.whole(64..=1 << 30)).unwrap_or(shape::EVENT_BYTES_MAX)
}

fn read_format(section: &Section<'_>, name: Name) -> Format {
    let mapping = read_mapping(section, name);
    let registry = section.get("registry");
    if let (Some(registry), false) = (&registry, matches!(name, Name::Framed(_))) {
        registry.problem_at_key("\"registry\" needs format = \"avro\", \"protobuf\" or \"json_schema\"".into(), None);
    }
    match name {
        Name::Native => Format::Native,
        Name::Foreign => Format::Foreign(mapping.unwrap_or_default()),
        Name::Segment => Format::Segment(mapping.unwrap_or_default()),
        Name::CloudEvents => Format::CloudEvents(mapping.unwrap_or_default()),
        Name::Framed(encoding) => {
            reject_without_client(section, encoding);
            let registry = section.require("registry").and_then(|v| read_registry(&v));
            // Where it is missing or wrong, the job does not run anyway.
            let registry = registry.unwrap_or_else(|| RegistryOptions::new(""));
            Format::Framed { encoding, registry, mapping }
        }
    }
}

fn reject_without_client(section: &Section<'_>, encoding: Encoding) {
    if let (Some(value), false) = (section.get("format"), cfg!(feature = "registry")) {
        let hint = "build with the feature \"registry\"";
        value.problem(format!("this build has no client of a schema registry, which \"{encoding}\" needs"), Some(hint));
    }
}

fn read_mapping(section: &Section<'_>, name: Name) -> Option<Mapping> {
    let map = section.get("map")?;
    if name == Name::Native {
        map.problem_at_key("[source.map] needs a format that is not \"native\"".into(), Some("format = \"json\""));
    }
    map.section(&shape::MAP).map(|map| source_map::read(&map))
}

fn read_registry(value: &Value<'_>) -> Option<RegistryOptions> {
    let section = value.section(&shape::REGISTRY)?;
    let url = section.require("url").and_then(|v| read_url(&v));
    let user = section.get("user").and_then(|v| v.text()).map(|v| v.value);
    let (password, variable) = (section.get("password"), section.get("password_env"));
    for value in [&password, &variable].into_iter().flatten().filter(|_| section.get("user").is_none()) {
        value.problem_at_key(format!("\"{}\" needs \"user\"", value.key()), None);
    }
    if let (Some(_), Some(variable)) = (&password, &variable) {
        variable.problem_at_key("\"password\" and \"password_env\" exclude each other".into(), None);
    }
    let password = password.and_then(|v| v.text()).map(|v| Secret::Value(v.value));
    let variable = variable.and_then(|v| v.text()).map(|v| Secret::Environment(v.value));
    let span = |key, default: Duration| {
        let span = section.get(key).and_then(|v: Value<'_>| v.duration());
        span.and_then(|span| u64::try_from(span.value).ok()).map_or(default, Duration::from_micros)
    };
    let timeout = span("timeout", RegistryOptions::TIMEOUT);
    let retry_for = span("retry_for", RegistryOptions::RETRY_FOR);
    Some(RegistryOptions { url: url?, user, password: password.or(variable), timeout, retry_for })
}

fn read_url(value: &Value<'_>) -> Option<String> {
    let url = value.text()?.value;
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    match host {
        Some(host) if host.contains('@') => {
            value.problem("a user in an address would be shown with it".into(), Some("\"user\" and \"password_env\""));
            None
        }
        Some(host) if !host.is_empty() => Some(url),
        _ => {
            value
                .problem(format!("\"{url}\" is not the address of a registry"), Some("http:// or https:// and a host"));
            None
        }
    }
}

/// `"any"`, or types admitted beside those of the event contract.
fn read_event_types(value: &Value<'_>) -> Option<EventTypes> {
    if let Some(word) = value.raw().as_str() {
        if word != "any" {
            value.problem(format!("unknown event_types \"{word}\""), Some("an array of types, or \"any\""));
        }
        return Some(EventTypes::Any);
    }
    Some(EventTypes::Contract(value.texts()?.into_iter().map(|name| name.value).collect()))
}
