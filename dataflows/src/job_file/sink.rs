//! `[[sink]]`: where rows go.

use std::path::PathBuf;

use whisperer_operators::{expression::did_you_mean, spec::ViewSpec};
use whisperer_schemas::{Micros, VIEWS};
use whisperer_sinks::TableLog;

use super::{
    kafka_sink::{self, KafkaSink},
    section::{Section, Value},
    shape,
};

/// Where rows go. Paths are relative to the working directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkSettings {
    /// `connector = "stdout"`: decisions, a JSON object a line.
    Stdout,
    /// `connector = "file"`: decisions, a JSON object a line.
    File {
        /// The file.
        path: PathBuf,
    },
    /// `connector = "parquet"`: one table of a lake.
    Parquet {
        /// Which table.
        table: LakeTable,
        /// The lake's root; the table is a folder in it.
        path: PathBuf,
        /// How often a live job closes its files.
        commit_interval: Micros,
        /// Whether the lake's tables keep a log.
        log: TableLog,
    },
    /// `connector = "kafka"`: one table in a topic.
    Kafka(KafkaSink),
}

/// A table that has rows to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LakeTable {
    /// `profiles`
    Profiles,
    /// `decisions`
    Decisions,
    /// `dead_letters`
    DeadLetters,
    /// `views/NAME`, by the view's place in the job file.
    View(usize),
}

#[derive(Clone, Copy)]
enum Connector {
    Parquet,
    Kafka,
    File,
    Stdout,
    Later,
}

const CONNECTORS: [(&str, Connector); 6] = [
    ("parquet", Connector::Parquet),
    ("kafka", Connector::Kafka),
    ("file", Connector::File),
    ("stdout", Connector::Stdout),
    ("webhook", Connector::Later),
    ("http", Connector::Later),
];

/// All views of the job, as the table of a sink.
const ALL_VIEWS: &str = "views/*";

/// Reads every `[[sink]]`; one of all views is as many as there are views.
pub(super) fn read(root: &Section<'_>, views: &[ViewSpec]) -> Vec<SinkSettings> {
    let mut sinks = Vec::new();
    for (section, sink) in root.sections("sink", &shape::SINK).iter().flat_map(|section| each(section, views)) {
        if sinks.contains(&sink) {
            section.problem("this sink is there already".into(), Some("every row would be written twice"));
        } else if sinks.iter().any(|other| same_topic(other, &sink)) {
            // Transactional ids and what checkpoints remember go by the topic.
            section.problem("another sink writes to this topic already".into(), Some("a topic takes one table"));
        }
        if sinks.iter().any(|other| disagree(other, &sink)) {
            let message = "another sink writes into this lake with another \"log\"".into();
            section.problem(message, Some("a lake keeps a log for all of its tables, or for none"));
        }
        sinks.push(sink);
    }
    sinks
}

fn each<'s, 't>(section: &'s Section<'t>, views: &[ViewSpec]) -> Vec<(&'s Section<'t>, SinkSettings)> {
    let sink = read_sink(section, views);
    match sink {
        Some(SinkSettings::Parquet { table: LakeTable::View(_), path, commit_interval, log }) if is_all(section) => {
            let sink =
                |view| SinkSettings::Parquet { table: LakeTable::View(view), path: path.clone(), commit_interval, log };
            (0..views.len()).map(|view| (section, sink(view))).collect()
        }
        sink => sink.into_iter().map(|sink| (section, sink)).collect(),
    }
}

fn is_all(section: &Section<'_>) -> bool {
    section.get("table").is_some_and(|table| table.raw().as_str() == Some(ALL_VIEWS))
}

/// Whether two sinks want different logs of one lake.
fn disagree(one: &SinkSettings, other: &SinkSettings) -> bool {
    let lake = |sink: &SinkSettings| match sink {
        SinkSettings::Parquet { path, log, .. } => Some((path.clone(), *log)),
        SinkSettings::File { .. } | SinkSettings::Stdout | SinkSettings::Kafka(_) => None,
    };
    lake(one).zip(lake(other)).is_some_and(|((path, log), (of, other))| path == of && log != other)
}

fn same_topic(one: &SinkSettings, other: &SinkSettings) -> bool {
    matches!((one, other), (SinkSettings::Kafka(one), SinkSettings::Kafka(other)) if one.topic == other.topic)
}

fn read_sink(section: &Section<'_>, views: &[ViewSpec]) -> Option<SinkSettings> {
    let connector = section.require("connector")?;
    let connector_kind = connector.choice(&CONNECTORS)?;
    reject_foreign_keys(section, connector_kind);
    match connector_kind {
        Connector::Parquet => read_parquet(section, views),
        Connector::Kafka => kafka_sink::read(section, views).map(SinkSettings::Kafka),
        Connector::File => {
            only_decisions(section);
            let path = section.require("path").and_then(|v| v.text())?;
            Some(SinkSettings::File { path: path.value.into() })
        }
        Connector::Stdout => {
            only_decisions(section);
            Some(SinkSettings::Stdout)
        }
        Connector::Later => {
            let message = format!("the connector \"{}\" is not in this build yet", connector.raw().as_str()?);
            connector.problem(message, Some("parquet, kafka, file or stdout"));
            None
        }
    }
}

fn read_parquet(section: &Section<'_>, views: &[ViewSpec]) -> Option<SinkSettings> {
    let table = section.require("table").and_then(|v| match v.raw().as_str()?.strip_prefix(VIEWS) {
        Some(view) => read_view(&v, view, views),
        None => read_table(&v),
    });
    let path = section.require("path").and_then(|v| read_lake(&v));
    let commit_interval = section.get("commit_interval").and_then(|v| v.duration());
    let commit_interval = commit_interval.map_or(shape::COMMIT_INTERVAL, |interval| interval.value);
    let log = section.get("log").map_or(Some(TableLog::None), |v| read_log(&v));
    Some(SinkSettings::Parquet { table: table?, path: path?, commit_interval, log: log? })
}

fn read_log(value: &Value<'_>) -> Option<TableLog> {
    let log = value.choice(&[("none", TableLog::None), ("delta", TableLog::Delta)])?;
    if log == TableLog::Delta && !cfg!(feature = "delta") {
        value.problem("the Delta log is not in this build".into(), Some("build it with the feature \"delta\""));
        return None;
    }
    Some(log)
}

/// A view's table, or the first one where all are meant.
pub(super) fn read_view(value: &Value<'_>, name: &str, views: &[ViewSpec]) -> Option<LakeTable> {
    if views.is_empty() {
        value.problem("the job has no views".into(), Some("write a [[view]]"));
        return None;
    }
    if name == "*" {
        return Some(LakeTable::View(0));
    }
    let place = views.iter().position(|view| view.name.value == name);
    if place.is_none() {
        let near = did_you_mean(name, views.iter().map(|view| view.name.value.as_str()));
        let hint = near.unwrap_or_else(|| format!("\"{ALL_VIEWS}\" stands for all of them"));
        value.problem(format!("there is no view \"{name}\""), Some(&hint));
    }
    place.map(LakeTable::View)
}

pub(super) fn read_table(value: &Value<'_>) -> Option<LakeTable> {
    let name = value.text()?.value;
    if ["events", "training"].contains(&name.as_str()) {
        let hint = "profiles, decisions, dead_letters or a view's";
        value.problem(format!("the table \"{name}\" is not supported in this version"), Some(hint));
        return None;
    }
    value.choice(&[
        ("profiles", LakeTable::Profiles),
        ("decisions", LakeTable::Decisions),
        ("dead_letters", LakeTable::DeadLetters),
    ])
}

fn read_lake(value: &Value<'_>) -> Option<PathBuf> {
    let path = value.text()?.value;
    if path.contains("://") {
        value.problem(format!("\"{path}\": object stores are not supported in this version"), Some("a folder"));
        return None;
    }
    Some(path.into())
}

/// Text sinks carry decisions.
fn only_decisions(section: &Section<'_>) {
    if let Some(table) = section.get("table").filter(|table| table.raw().as_str() != Some("decisions")) {
        table.problem("this connector writes decisions only".into(), Some("use connector = \"parquet\""));
    }
}

/// A key of another connector would do nothing.
fn reject_foreign_keys(section: &Section<'_>, connector: Connector) {
    let (path, interval) = ("the connectors \"file\" and \"parquet\"", "the connector \"parquet\"");
    let foreign: &[(&[&str], &str)] = match connector {
        Connector::Parquet => &[(shape::KAFKA_SINK_KEYS, "the connector \"kafka\"")],
        Connector::File => {
            &[(shape::KAFKA_SINK_KEYS, "the connector \"kafka\""), (&["commit_interval", "log"], interval)]
        }
        Connector::Stdout => &[
            (shape::KAFKA_SINK_KEYS, "the connector \"kafka\""),
            (&["commit_interval", "log"], interval),
            (&["path"], path),
        ],
        Connector::Kafka => &[(&["commit_interval", "log"], interval), (&["path"], path)],
        Connector::Later => &[],
    };
    for (keys, owner) in foreign {
        for value in keys.iter().filter_map(|key| section.get(key)) {
            value.problem_at_key(format!("\"{}\" belongs to {owner}", value.key()), None);
        }
    }
}
