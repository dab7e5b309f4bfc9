//! `[[sink]]`: where rows go.

use std::path::PathBuf;

use whisperer_schemas::Micros;
use whisperer_sinks::TableLog;

use super::{
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
}

/// A table of the lake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LakeTable {
    /// `profiles`
    Profiles,
    /// `decisions`
    Decisions,
    /// `dead_letters`
    DeadLetters,
}

#[derive(Clone, Copy)]
enum Connector {
    Parquet,
    File,
    Stdout,
    Later,
}

const CONNECTORS: [(&str, Connector); 6] = [
    ("parquet", Connector::Parquet),
    ("file", Connector::File),
    ("stdout", Connector::Stdout),
    ("kafka", Connector::Later),
    ("webhook", Connector::Later),
    ("http", Connector::Later),
];

/// Reads every `[[sink]]`.
pub(super) fn read(root: &Section<'_>) -> Vec<SinkSettings> {
    let mut sinks = Vec::new();
    for section in root.sections("sink", &shape::SINK) {
        let Some(sink) = read_sink(&section) else { continue };
        if sinks.contains(&sink) {
            section.problem("this sink is there already".into(), Some("every row would be written twice"));
        }
        if sinks.iter().any(|other| disagree(other, &sink)) {
            let message = "another sink writes into this lake with another \"log\"".into();
            section.problem(message, Some("a lake keeps a log for all of its tables, or for none"));
        }
        sinks.push(sink);
    }
    sinks
}

/// Whether two sinks want different logs of one lake.
fn disagree(one: &SinkSettings, other: &SinkSettings) -> bool {
    let lake = |sink: &SinkSettings| match sink {
        SinkSettings::Parquet { path, log, .. } => Some((path.clone(), *log)),
        SinkSettings::File { .. } | SinkSettings::Stdout => None,
    };
    lake(one).zip(lake(other)).is_some_and(|((path, log), (of, other))| path == of && log != other)
}

fn read_sink(section: &Section<'_>) -> Option<SinkSettings> {
    let connector = section.require("connector")?;
    match connector.choice(&CONNECTORS)? {
        Connector::Parquet => read_parquet(section),
        Connector::File => {
            only_decisions(section);
            let path = section.require("path").and_then(|v| v.text())?;
            Some(SinkSettings::File { path: path.value.into() })
        }
        Connector::Stdout => {
            only_decisions(section);
            if let Some(path) = section.get("path") {
                path.problem_at_key("\"path\" belongs to the connectors \"file\" and \"parquet\"".into(), None);
            }
            Some(SinkSettings::Stdout)
        }
        Connector::Later => {
            let message = format!("the connector \"{}\" is not in this build yet", connector.raw().as_str()?);
            connector.problem(message, Some("parquet, file or stdout"));
            None
        }
    }
}

fn read_parquet(section: &Section<'_>) -> Option<SinkSettings> {
    let table = section.require("table").and_then(|v| read_table(&v));
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

fn read_table(value: &Value<'_>) -> Option<LakeTable> {
    let name = value.text()?.value;
    if ["events", "training"].contains(&name.as_str()) || name.starts_with("views/") {
        let hint = "profiles, decisions or dead_letters";
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

/// Text sinks carry decisions; they have no files to commit.
fn only_decisions(section: &Section<'_>) {
    if let Some(table) = section.get("table").filter(|table| table.raw().as_str() != Some("decisions")) {
        table.problem("this connector writes decisions only".into(), Some("use connector = \"parquet\""));
    }
    for key in ["commit_interval", "log"] {
        if let Some(value) = section.get(key) {
            value.problem_at_key(format!("\"{key}\" belongs to the connector \"parquet\""), None);
        }
    }
}
