//! The job file: one TOML file, and the model files that it names, read into a [`JobFile`].
//!
//! ```text
//! text ── syntax (toml) ──▶ spanned tree ── sections, each against its Shape ──▶ JobFile
//!                                                       └─ every mistake, with its place ──▶ JobFileErrors
//! ```
//! Reading never stops at the first mistake: a section records what is wrong with it and goes on with a default, so
//! that one run shows them all. Expressions are only located here; compiling the [`JobSpec`] types them, and
//! [`load_with`] puts the mistakes of both steps into one answer.
//!
//! Paths: `[source] path` and `model` are relative to the folder of the job file, which travels with its models and
//! data; the `path` of a `[[sink]]` is relative to the working directory, because a job must not write beside itself.

mod behaviour;
mod delivery;
mod errors;
mod identity;
mod kafka_sink;
mod model;
mod names;
mod operations;
mod overrides;
mod problems;
mod quantity;
mod section;
mod shape;
mod sink;
mod source;
mod source_format;
mod source_kafka;
mod source_map;
mod views;

#[cfg(test)]
mod tests;

use std::{
    fs,
    path::{Path, PathBuf},
};

use toml::de::DeTable;
use whisperer_connectors::{
    file::FileOptions, format::FormatOptions, generator::GeneratorOptions, kafka::KafkaOptions, source::EpochSize,
};
use whisperer_operators::spec::{JobError, JobSpec, Span};

pub use delivery::{DeliverFrom, DeliverySettings, HistorySettings};
pub use errors::JobFileErrors;
pub use kafka_sink::{Changes, Delivery, KafkaSink, TopicShape};
pub use operations::{
    CheckpointSettings, ClusterSettings, OperationsSettings, ReadySettings, Remote, ServerSettings, StateSettings,
    TelemetrySettings,
};
pub use overrides::Overrides;
pub use sink::{LakeTable, SinkSettings};

pub(crate) use operations::is_address;

use problems::{Place, Problems};
use section::Section;

/// A job file with everything it says, defaults filled in.
#[derive(Clone, Debug)]
pub struct JobFile {
    /// What is computed.
    pub spec: JobSpec,
    /// Where records come from.
    pub source: SourceSettings,
    /// How records become events.
    pub format: FormatOptions,
    /// Where rows go.
    pub sinks: Vec<SinkSettings>,
    /// How the input is cut into epochs.
    pub epoch: EpochSettings,
    /// Files that are read before the source.
    pub history: Option<HistorySettings>,
    /// Which decisions are delivered.
    pub delivery: DeliverySettings,
    /// How the job is operated.
    pub operations: OperationsSettings,
    /// The job file, then its model files: path as it was found, and text; [`Span::file`] is the index.
    pub files: Vec<(PathBuf, String)>,
}

/// Where records come from.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceSettings {
    /// `connector = "file"`
    File(FileOptions),
    /// `connector = "generator"`
    Generator(GeneratorOptions),
    /// `connector = "kafka"`
    Kafka(KafkaOptions),
}

/// How the input is cut into epochs. Results do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochSettings {
    /// How much of a bounded source is one epoch.
    pub size: EpochSize,
    /// The length of a live epoch.
    pub interval_ms: u64,
}

/// Reads the job at `path`, with the flags of this run laid over it.
///
/// # Errors
/// All mistakes of the job file and its model files, or that one cannot be read.
pub fn load(path: &Path, overrides: &Overrides) -> Result<JobFile, JobFileErrors> {
    load_with(path, overrides, |_| Ok(())).map(|(job, ())| job)
}

/// Reads the job at `path` and compiles it. The compiler sees the job even where the file has mistakes, with defaults in their
/// place, so that one answer holds the mistakes of both; of two at the same place, the file's is shown.
///
/// # Errors
/// All mistakes, or that a file cannot be read.
pub fn load_with<C>(
    path: &Path,
    overrides: &Overrides,
    compile: impl FnOnce(&JobSpec) -> Result<C, Vec<JobError>>,
) -> Result<(JobFile, C), JobFileErrors> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return Err(JobFileErrors::unreadable(path, &error)),
    };
    let problems = Problems::default();
    let Some(mut job) = read(path, &text, &problems) else {
        return Err(JobFileErrors::new(vec![(path.to_owned(), text)], problems.into_errors()));
    };
    job.files.insert(0, (path.to_owned(), text));
    overrides.apply(&mut job, &problems);
    let compiled = compile(&job.spec);
    let mut errors = problems.into_errors();
    match compiled {
        Ok(compiled) if errors.is_empty() => return Ok((job, compiled)),
        Ok(_) => {}
        Err(more) => errors::add_elsewhere(&mut errors, more),
    }
    Err(JobFileErrors::new(job.files, errors))
}

/// Reads all sections; none where the text is no TOML, which `problems` then says.
fn read(path: &Path, text: &str, problems: &Problems) -> Option<JobFile> {
    let (tree, mistakes) = DeTable::parse_recoverable(text);
    let place = Place { file: 0, text, problems };
    if !mistakes.is_empty() {
        problems.add_syntax(0, &mistakes);
        return None;
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let root = Section::root(place, tree.get_ref(), &shape::ROOT);
    let epoch = read_epoch(&root.section("epoch", &shape::EPOCH));
    let operations = operations::read(&root, epoch.interval_ms);
    let (mut spec, delivery, models) = behaviour::read(&root, folder);
    let read = source::read(&root, folder, epoch.size, &spec);
    spec.out_of_orderness = read.out_of_orderness;
    identity::check_events(&spec, &read.format.event_types, problems);
    let sinks = sink::read(&root, &spec.views);
    Some(JobFile {
        spec,
        source: read.settings,
        format: read.format,
        sinks,
        epoch,
        history: read.history,
        delivery,
        operations,
        files: models,
    })
}

fn read_epoch(section: &Section<'_>) -> EpochSettings {
    let bytes = section.get("bytes").and_then(|v| v.whole(1..=1 << 40));
    let records = section.get("records").and_then(|v| v.whole(1..=1 << 40));
    if let (Some(_), Some(records)) = (section.get("bytes"), section.get("records")) {
        records.problem("\"bytes\" and \"records\" exclude each other".into(), Some("keep one of them"));
    }
    let size = match (bytes, records) {
        (Some(bytes), _) => EpochSize::Bytes(bytes),
        (None, Some(records)) => EpochSize::Records(records),
        (None, None) => EpochSize::Bytes(shape::EPOCH_BYTES),
    };
    let interval_ms = section.get("interval_ms").and_then(|v| v.whole(1..=60_000)).unwrap_or(shape::EPOCH_INTERVAL_MS);
    EpochSettings { size, interval_ms }
}

/// The place of nothing: a mistake that concerns a file as a whole.
fn whole_file(file: u16) -> Span {
    Span { file, bytes: 0..0 }
}
