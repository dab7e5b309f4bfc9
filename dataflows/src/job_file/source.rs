//! `[source]`: where records come from and how they become events.

use std::path::Path;

use whisperer_connectors::{
    file::FileOptions,
    format::{EventTypes, FormatOptions, Ids, Mapping},
    generator::GeneratorOptions,
    source::EpochSize,
};
use whisperer_operators::spec::JobSpec;
use whisperer_schemas::Micros;

use super::{
    SourceSettings,
    delivery::{self, HistorySettings, read_instant},
    section::{Section, Value},
    shape, source_map,
};

/// What `[source]` says.
#[derive(Debug)]
pub(super) struct Source {
    pub settings: SourceSettings,
    pub format: FormatOptions,
    pub out_of_orderness: Micros,
    pub history: Option<HistorySettings>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Connector {
    File,
    Generator,
    Later,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Native,
    Foreign,
    Later,
}

const CONNECTORS: [(&str, Connector); 4] = [
    ("file", Connector::File),
    ("generator", Connector::Generator),
    ("kafka", Connector::Later),
    ("http", Connector::Later),
];

const FORMATS: [(&str, Format); 7] = [
    ("native", Format::Native),
    ("json", Format::Foreign),
    ("csv", Format::Foreign),
    ("segment", Format::Later),
    ("cloudevents", Format::Later),
    ("avro", Format::Later),
    ("protobuf", Format::Later),
];

/// Reads `[source]`. `folder` is the job file's; `job_name` is the `app_id` of mapped events that have none.
pub(super) fn read(root: &Section<'_>, folder: &Path, epoch_size: EpochSize, job_name: &str) -> Source {
    let section = root.section("source", &shape::SOURCE);
    let connector = read_connector(&section);
    let format = read_format(&section, job_name);
    let settings = match connector {
        Some(Connector::Generator) => SourceSettings::Generator(read_generator(&section, epoch_size)),
        _ => SourceSettings::File(read_file(&section, folder, epoch_size, connector, &format)),
    };
    reject_foreign_keys(&section, connector);
    if let Some(value) =
        section.get("format").filter(|_| connector == Some(Connector::Generator) && format.mapping.is_some())
    {
        value.problem("the generator writes the native format".into(), Some("leave \"format\" out"));
    }
    let out_of_orderness = section.get("out_of_orderness").and_then(|v| v.duration_or_zero());
    let out_of_orderness = out_of_orderness.map_or(JobSpec::default().out_of_orderness, |v| v.value);
    let history = delivery::read_history(&section, folder);
    if let Some(value) = section.get("history").filter(|_| is_bounded(connector)) {
        value.problem_at_key("\"history\" belongs to the connector \"kafka\"".into(), None);
    }
    Source { settings, format, out_of_orderness, history }
}

/// A source that has all of its history itself.
fn is_bounded(connector: Option<Connector>) -> bool {
    matches!(connector, Some(Connector::File | Connector::Generator))
}

fn read_connector(section: &Section<'_>) -> Option<Connector> {
    let value = section.require("connector")?;
    let connector = value.choice(&CONNECTORS)?;
    if connector == Connector::Later {
        let message = format!("the connector \"{}\" is not in this build yet", value.raw().as_str()?);
        value.problem(message, Some("file or generator"));
    }
    Some(connector)
}

/// Says of every key of the other connector that it is one.
fn reject_foreign_keys(section: &Section<'_>, connector: Option<Connector>) {
    let (foreign, owner) = match connector {
        Some(Connector::File) => (shape::GENERATOR_KEYS, "generator"),
        Some(Connector::Generator) => (shape::FILE_KEYS, "file"),
        _ => return,
    };
    for value in foreign.iter().filter_map(|key| section.get(key)) {
        value.problem_at_key(format!("\"{}\" belongs to the connector \"{owner}\"", value.key()), None);
    }
}

fn read_file(
    section: &Section<'_>,
    folder: &Path,
    epoch_size: EpochSize,
    connector: Option<Connector>,
    format: &FormatOptions,
) -> FileOptions {
    let path = if connector == Some(Connector::File) { section.require("path") } else { None };
    FileOptions {
        path: path.and_then(|v| v.text()).map(|v| v.value).unwrap_or_default(),
        root: folder.to_owned(),
        partitioned: section.get("partitioned").and_then(|v| v.flag()).unwrap_or(false),
        epoch_size,
        event_bytes_max: format.event_bytes_max,
    }
}

/// The generator checks its settings once more, together; the ranges here are the same, with a place in the file.
fn read_generator(section: &Section<'_>, epoch_size: EpochSize) -> GeneratorOptions {
    let default = GeneratorOptions { epoch_size, ..GeneratorOptions::default() };
    let whole = |key, max| section.get(key).and_then(|v: Value<'_>| v.whole(1..=max));
    let rate = |key, default| section.get(key).and_then(|v: Value<'_>| v.number_within(0.0..=0.5)).unwrap_or(default);
    GeneratorOptions {
        seed: section.get("seed").and_then(|v| v.whole(0..=i64::MAX as u64)).unwrap_or(default.seed),
        users: whole("users", 1 << 40).unwrap_or(default.users),
        events: whole("events", 1 << 40).unwrap_or(default.events),
        partitions: whole("partitions", 1 << 16).and_then(|n| u32::try_from(n).ok()).unwrap_or(default.partitions),
        start: section.get("start").and_then(|v| read_instant(&v)).unwrap_or(default.start),
        span: section.get("span").and_then(|v| v.duration()).map_or(default.span, |v| v.value),
        zipf: section.get("zipf").and_then(|v| v.number_within(0.0..=10.0)).unwrap_or(default.zipf),
        duplicates: rate("duplicates", default.duplicates),
        disorder: rate("disorder", default.disorder),
        late: rate("late", default.late),
        malformed: rate("malformed", default.malformed),
        epoch_size,
    }
}

fn read_format(section: &Section<'_>, job_name: &str) -> FormatOptions {
    let format = section.get("format").and_then(|v| read_format_name(&v)).unwrap_or(Format::Native);
    let is_native = format == Format::Native;
    let ids = section.get("ids").and_then(|v| v.choice(&[("strict", Ids::Strict), ("any", Ids::Any)]));
    let event_types = section.get("event_types").and_then(|v| read_event_types(&v));
    let default_types = if is_native { EventTypes::Contract(Vec::new()) } else { EventTypes::Any };
    FormatOptions {
        ids: ids.unwrap_or(if is_native { Ids::Strict } else { Ids::Any }),
        event_types: event_types.unwrap_or(default_types),
        event_bytes_max: read_event_bytes_max(section),
        future_max: section.get("future_max").and_then(|v| v.duration()).map_or(shape::FUTURE_MAX, |v| v.value),
        clamp_after: shape::CLAMP_AFTER,
        mapping: read_mapping(section, format),
        app_id: job_name.to_owned(),
    }
}

fn read_event_bytes_max(section: &Section<'_>) -> u64 {
    section.get("event_bytes_max").and_then(|v| v.whole(64..=1 << 30)).unwrap_or(shape::EVENT_BYTES_MAX)
}

fn read_format_name(value: &Value<'_>) -> Option<Format> {
    let format = value.choice(&FORMATS)?;
    if format == Format::Later {
        let message = format!("the format \"{}\" is not supported in this version", value.raw().as_str()?);
        value.problem(message, Some("native, json or csv"));
    }
    Some(format)
}

/// The native format is not mapped; a foreign one without a map takes every field from the member of the same name.
fn read_mapping(section: &Section<'_>, format: Format) -> Option<Mapping> {
    let map = section.get("map");
    if let Some(map) = map.filter(|_| format == Format::Native) {
        map.problem_at_key("[source.map] needs format = \"json\" or \"csv\"".into(), None);
    }
    let mapping = map.and_then(|map| map.section(&shape::MAP)).map(|map| source_map::read(&map)).unwrap_or_default();
    (format == Format::Foreign).then_some(mapping)
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
