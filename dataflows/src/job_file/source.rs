//! `[source]`: where records come from and how they become events.

use std::path::Path;

use whisperer_connectors::{
    file::FileOptions,
    format::{Format, FormatOptions},
    generator::GeneratorOptions,
    kafka::Start,
    source::EpochSize,
};
use whisperer_operators::spec::JobSpec;
use whisperer_schemas::Micros;

use super::{
    SourceSettings,
    delivery::{self, HistorySettings, read_instant},
    section::{Section, Value},
    shape, source_format, source_kafka,
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
    Kafka,
    Later,
}

const CONNECTORS: [(&str, Connector); 4] = [
    ("file", Connector::File),
    ("generator", Connector::Generator),
    ("kafka", Connector::Kafka),
    ("http", Connector::Later),
];

/// Reads `[source]`. `folder` is the job file's; the job's name is the `app_id` of mapped events that have none.
pub(super) fn read(root: &Section<'_>, folder: &Path, epoch_size: EpochSize, spec: &JobSpec) -> Source {
    let section = root.section("source", &shape::SOURCE);
    let connector = read_connector(&section);
    let job_name = spec.name.as_str();
    let format = source_format::read(&section, job_name);
    let out_of_orderness = section.get("out_of_orderness").and_then(|v| v.duration_or_zero());
    let out_of_orderness = out_of_orderness.map_or(JobSpec::default().out_of_orderness, |v| v.value);
    let mut settings = match connector {
        Some(Connector::Generator) => SourceSettings::Generator(read_generator(&section, epoch_size)),
        Some(Connector::Kafka) => {
            SourceSettings::Kafka(source_kafka::read(&section, epoch_size, &format, out_of_orderness, job_name))
        }
        _ => SourceSettings::File(read_file(&section, folder, epoch_size, connector, &format)),
    };
    reject_foreign_keys(&section, connector);
    reject_foreign_format(&section, connector, &format.format);
    let history = delivery::read_history(&section, folder, (format.event_bytes_max, epoch_size, spec.dedup_horizon));
    if let (Some(history), SourceSettings::Kafka(options)) = (&history, &mut settings) {
        options.start = Start::Time(history.until.saturating_sub(history.overlap));
    }
    reject_misplaced_history(&section, connector, &format.format);
    Source { settings, format, out_of_orderness, history }
}

/// Says of `history` where it cannot be, and of what it takes the place of.
fn reject_misplaced_history(section: &Section<'_>, connector: Option<Connector>, format: &Format) {
    let Some(value) = section.get("history") else { return };
    if is_bounded(connector) {
        value.problem_at_key("\"history\" belongs to the connector \"kafka\"".into(), None);
    }
    if let Format::Framed { encoding, .. } = format {
        value.problem_at_key(format!("messages of the format \"{encoding}\" do not stand in files"), None);
    }
    if let Some(start) = section.get("start") {
        let message = "\"history\" says where the topic begins: at its \"until\" less its \"overlap\"".to_owned();
        start.problem_at_key(message, Some("leave \"start\" out"));
    }
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
        value.problem(message, Some("kafka, file or generator"));
    }
    if connector == Connector::Kafka && !cfg!(feature = "kafka") {
        let message = "the connector \"kafka\" is not in this build".to_owned();
        value.problem(message, Some("build it with `--features kafka`"));
    }
    Some(connector)
}

/// Says of every key of another connector that it is one.
fn reject_foreign_keys(section: &Section<'_>, connector: Option<Connector>) {
    let owners = [
        (Connector::File, shape::FILE_KEYS, "file"),
        (Connector::Generator, shape::GENERATOR_KEYS, "generator"),
        (Connector::Kafka, shape::KAFKA_KEYS, "kafka"),
    ];
    let Some((_, own, _)) = owners.iter().find(|(owner, ..)| Some(*owner) == connector) else { return };
    for (_, keys, owner) in owners.iter().filter(|(owner, ..)| Some(*owner) != connector) {
        for value in keys.iter().filter(|key| !own.contains(key)).filter_map(|key| section.get(key)) {
            value.problem_at_key(format!("\"{}\" belongs to the connector \"{owner}\"", value.key()), None);
        }
    }
}

/// Says of a format that the connector cannot have.
fn reject_foreign_format(section: &Section<'_>, connector: Option<Connector>, format: &Format) {
    let Some(value) = section.get("format") else { return };
    match (connector, format) {
        (Some(Connector::Generator), format) if *format != Format::Native => {
            value.problem("the generator writes the native format".into(), Some("leave \"format\" out"));
        }
        (Some(Connector::File), Format::Framed { encoding, .. }) => {
            let message = format!("messages of the format \"{encoding}\" do not stand in files");
            value.problem(message, Some("connector = \"kafka\""));
        }
        _ => {}
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
