//! What of history is news: `[job] deliver_from` and `expires_after`, and the hand-over `[source] history`.

use std::path::Path;

use whisperer_connectors::{file::FileOptions, source::EpochSize};
use whisperer_schemas::{Micros, time::format_duration};

use super::{
    quantity,
    section::{Section, Value},
    shape,
};

/// Most records of history in an epoch of bytes: an order of magnitude more than a live epoch of the default length has time for.
const HISTORY_EPOCH_RECORDS_MAX: u64 = 8192;

/// What a record has in bytes, about, where epochs are so many bytes.
const RECORD_BYTES: u64 = 256;

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

/// `[source] history`: files that are read before a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistorySettings {
    /// The files. Each partition of them is read by one worker.
    pub files: FileOptions,
    /// Events of this time and later are the topic's.
    pub until: Micros,
    /// How far before that time the topic is read from, by the timestamps of its records: within the dedup horizon.
    pub overlap: Micros,
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

/// Reads `[source] history`; `folder` is the job file's, and what the files repeat is found within `dedup_horizon`.
pub(super) fn read_history(
    source: &Section<'_>,
    folder: &Path,
    (event_bytes_max, epoch_size, dedup_horizon): (u64, EpochSize, Micros),
) -> Option<HistorySettings> {
    let history = source.get("history")?.section(&shape::HISTORY)?;
    let path = history.require("path").and_then(|v| v.text());
    let until = history.require("until").and_then(|v| read_instant(&v));
    let partitioned = history.get("partitioned").and_then(|v| v.flag()).unwrap_or(false);
    let overlap = history.get("overlap").and_then(|v| {
        let overlap = v.duration_or_zero()?.value;
        if overlap > dedup_horizon {
            let horizon = format_duration(dedup_horizon).to_string();
            let message = format!("beyond the dedup horizon of {horizon} an overlap would count events twice");
            v.problem(message, Some(&horizon));
        }
        Some(overlap)
    });
    // Epochs of bytes would be read by all workers together, which live epochs cannot be.
    let records = match epoch_size {
        EpochSize::Records(records) => records,
        EpochSize::Bytes(bytes) => (bytes / RECORD_BYTES).clamp(1, HISTORY_EPOCH_RECORDS_MAX),
    };
    let files = FileOptions {
        path: path?.value,
        root: folder.to_owned(),
        partitioned,
        epoch_size: EpochSize::Records(records),
        event_bytes_max,
    };
    Some(HistorySettings { files, until: until?, overlap: overlap.unwrap_or(dedup_horizon / 2) })
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
