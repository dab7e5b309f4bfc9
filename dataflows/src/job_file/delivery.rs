//! What of history is news: `[job] deliver_from` and `expires_after`, and the hand-over `[source] history`.

use std::path::{Path, PathBuf};

use whisperer_schemas::Micros;

use super::{
    quantity,
    section::{Section, Value},
    shape,
};

/// Which decisions are delivered; the others are made, recorded and marked as historical.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliverySettings {
    /// From when on decisions are news.
    pub deliver_from: DeliverFrom,
    /// How far a decision's event time may lie back when it is made; none for no bound.
    pub expires_after: Option<Micros>,
}

/// The event time from which on decisions are news.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeliverFrom {
    /// `"now"`: the job's first start.
    #[default]
    Now,
    /// `"beginning"`: all of them.
    Beginning,
    /// An instant.
    At(Micros),
}

/// `[source] history`: files that are read before a topic. The topic is read from an overlap within the dedup horizon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistorySettings {
    /// A file, a folder or a glob.
    pub path: String,
    /// The job file's folder, which `path` is relative to.
    pub root: PathBuf,
    /// Events of this time and later are the topic's.
    pub until: Micros,
}

/// Reads what `[job]` says of delivery.
pub(super) fn read(job: &Section<'_>) -> DeliverySettings {
    DeliverySettings {
        deliver_from: job.get("deliver_from").and_then(|v| read_deliver_from(&v)).unwrap_or_default(),
        expires_after: job.get("expires_after").and_then(|v| v.duration()).map(|v| v.value),
    }
}

fn read_deliver_from(value: &Value<'_>) -> Option<DeliverFrom> {
    match value.raw().as_str() {
        Some("now") => Some(DeliverFrom::Now),
        Some("beginning") => Some(DeliverFrom::Beginning),
        _ => {
            let hint = "\"now\", \"beginning\" or RFC 3339 with an offset, such as \"2026-01-01T00:00:00Z\"";
            read_instant_or(value, hint).map(DeliverFrom::At)
        }
    }
}

/// Reads `[source] history`; `folder` is the job file's.
pub(super) fn read_history(source: &Section<'_>, folder: &Path) -> Option<HistorySettings> {
    let history = source.get("history")?.section(&shape::HISTORY)?;
    let path = history.require("path").and_then(|v| v.text());
    let until = history.require("until").and_then(|v| read_instant(&v));
    Some(HistorySettings { path: path?.value, root: folder.to_owned(), until: until? })
}

/// An instant in quotes, or TOML's own offset date-time.
pub(super) fn read_instant(value: &Value<'_>) -> Option<Micros> {
    instant(value, None)
}

fn read_instant_or(value: &Value<'_>, hint: &str) -> Option<Micros> {
    instant(value, Some(hint))
}

fn instant(value: &Value<'_>, hint: Option<&str>) -> Option<Micros> {
    let text = match value.raw().as_datetime() {
        Some(time) => time.to_string(),
        None => value.text()?.value,
    };
    let tell = |mistake: quantity::Mistake| value.problem(mistake.message, hint.or(mistake.hint.as_deref()));
    quantity::instant(&text).map_err(tell).ok()
}
