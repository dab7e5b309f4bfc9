//! How a job is operated: `[checkpoint]`, `[state]`, `[ready]`, `[cluster]`, `[server]`, `[telemetry]`. No result depends on it.

use std::{net::SocketAddr, path::PathBuf};

use super::{
    quantity,
    section::{Section, Value},
    shape,
};

/// How a job is operated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationsSettings {
    /// Where and how often recovery states are kept.
    pub checkpoint: CheckpointSettings,
    /// How much memory states may take.
    pub state: StateSettings,
    /// When the job calls itself ready.
    pub ready: ReadySettings,
    /// What keeps several workers together.
    pub cluster: ClusterSettings,
    /// The HTTP server.
    pub server: ServerSettings,
    /// Logs and traces.
    pub telemetry: TelemetrySettings,
}

/// `[checkpoint]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointSettings {
    /// The state folder, relative to the working directory; without one there are no checkpoints.
    pub dir: Option<PathBuf>,
    /// Time between two checkpoints; a multiple of the epoch's length.
    pub interval_ms: u64,
    /// Checkpoints that stay restorable, the newest included.
    pub retain: u64,
    /// Where checkpoints are copied to, so that another machine can go on from them.
    pub remote: Option<Remote>,
}

impl CheckpointSettings {
    /// The settings of a state folder that no job file names.
    #[must_use]
    pub fn at(dir: PathBuf) -> CheckpointSettings {
        let (interval_ms, retain) = (shape::CHECKPOINT_INTERVAL_MS, shape::CHECKPOINT_RETAIN);
        CheckpointSettings { dir: Some(dir), interval_ms, retain, remote: None }
    }
}

/// A place for checkpoints outside this machine's state folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// A folder, of a file system that machines share.
    Folder(PathBuf),
    /// `s3://BUCKET/PREFIX`
    ObjectStore(String),
}

/// `[state]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateSettings {
    /// Bytes of hot states and timer wheel together, over the workers of a process; none for no bound.
    pub memory_bytes_max: Option<u64>,
}

/// `[ready]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadySettings {
    /// The largest lag with which the job calls itself ready.
    pub lag_ms_max: u64,
}

/// `[cluster]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// How long a worker may give no sign of life before its process ends itself.
    pub watchdog_ms: u64,
}

/// `[server]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerSettings {
    /// `HOST:PORT` to listen on; without one there is no server.
    pub listen: Option<String>,
}

/// `[telemetry]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// Base URL of an OpenTelemetry collector that takes OTLP over HTTP; without one there are no traces.
    pub otlp: Option<String>,
    /// The least level that is logged: `error`, `warn`, `info`, `debug` or `trace`.
    pub log: Option<&'static str>,
}

/// Reads all of it. Checkpoints are taken between epochs, so their interval is a multiple of the epoch's.
pub(super) fn read(root: &Section<'_>, epoch_interval_ms: u64) -> OperationsSettings {
    OperationsSettings {
        checkpoint: read_checkpoint(&root.section("checkpoint", &shape::CHECKPOINT), epoch_interval_ms),
        state: read_state(&root.section("state", &shape::STATE)),
        ready: ReadySettings {
            lag_ms_max: root
                .section("ready", &shape::READY)
                .get("lag_ms_max")
                .and_then(|v| v.whole(1..=86_400_000))
                .unwrap_or(shape::READY_LAG_MS_MAX),
        },
        cluster: ClusterSettings {
            watchdog_ms: root
                .section("cluster", &shape::CLUSTER)
                .get("watchdog_ms")
                .and_then(|v| v.whole(1_000..=3_600_000))
                .unwrap_or(shape::WATCHDOG_MS),
        },
        server: ServerSettings {
            listen: root.section("server", &shape::SERVER).get("listen").and_then(|v| read_listen(&v)),
        },
        telemetry: read_telemetry(&root.section("telemetry", &shape::TELEMETRY)),
    }
}

fn read_checkpoint(section: &Section<'_>, epoch_interval_ms: u64) -> CheckpointSettings {
    CheckpointSettings {
        dir: section.get("dir").and_then(|v| read_folder(&v)),
        interval_ms: read_interval(section, epoch_interval_ms),
        retain: section.get("retain").and_then(|v| v.whole(1..=1000)).unwrap_or(shape::CHECKPOINT_RETAIN),
        remote: section.get("remote").and_then(|v| read_remote(&v)),
    }
}

/// The default gives way to the nearest multiple above it where an unusual epoch does not divide it.
fn read_interval(section: &Section<'_>, epoch_interval_ms: u64) -> u64 {
    let default = shape::CHECKPOINT_INTERVAL_MS.next_multiple_of(epoch_interval_ms);
    let Some(value) = section.get("interval_ms") else { return default };
    let Some(interval) = value.whole(1..=86_400_000) else { return default };
    if interval % epoch_interval_ms == 0 {
        return interval;
    }
    let above = interval.next_multiple_of(epoch_interval_ms);
    let below = above - epoch_interval_ms;
    let below = if below > 0 { format!("{below} or ") } else { String::new() };
    value.problem(
        format!("\"interval_ms\" must be a multiple of the epoch's, {epoch_interval_ms}"),
        Some(&format!("the nearest are {below}{above}")),
    );
    default
}

/// A folder of this machine.
fn read_folder(value: &Value<'_>) -> Option<PathBuf> {
    let path = value.text()?.value;
    if path.contains("://") {
        value.problem(format!("\"{path}\" is not a folder"), Some("an object store goes into \"remote\""));
        return None;
    }
    Some(path.into())
}

/// A folder, `file://` and a folder, or `s3://` and a bucket.
fn read_remote(value: &Value<'_>) -> Option<Remote> {
    let place = value.text()?.value;
    let Some((scheme, rest)) = place.split_once("://") else { return Some(Remote::Folder(place.into())) };
    match scheme {
        "file" if rest.starts_with('/') => Some(Remote::Folder(rest.into())),
        "s3" if !rest.split('/').next().unwrap_or("").is_empty() => {
            require_feature(value, cfg!(feature = "object-store"), "an object store", "object-store");
            Some(Remote::ObjectStore(place))
        }
        _ => {
            let forms = "a folder, \"file:///FOLDER\" or \"s3://BUCKET/PREFIX\"";
            value.problem(format!("checkpoints cannot be copied to \"{place}\""), Some(forms));
            None
        }
    }
}

fn read_state(section: &Section<'_>) -> StateSettings {
    let value = section.get("memory_bytes_max");
    let memory_bytes_max = value.and_then(|v| read_bytes(&v));
    if let (Some(value), Some(_)) = (value, memory_bytes_max) {
        require_feature(&value, cfg!(feature = "rocksdb"), "a bound on memory", "rocksdb");
    }
    StateSettings { memory_bytes_max }
}

/// A number of bytes, or a text such as `"1GiB"`.
fn read_bytes(value: &Value<'_>) -> Option<u64> {
    let bytes = match value.raw().as_str() {
        Some(text) => quantity::bytes(text).map_err(|mistake| value.problem(mistake.message, mistake.hint.as_deref())),
        None => return value.whole(shape::MEMORY_BYTES_LEAST..=1 << 50),
    };
    let bytes = bytes.ok()?;
    if bytes < shape::MEMORY_BYTES_LEAST {
        value.problem(format!("\"{}\" is too little", value.key()), Some("at least 1MiB"));
        return None;
    }
    Some(bytes)
}

/// `HOST:PORT`; whether this machine has the address shows when the server starts.
fn read_listen(value: &Value<'_>) -> Option<String> {
    let address = value.text()?.value;
    if is_address(&address) {
        return Some(address);
    }
    value.problem(format!("\"{address}\" is not an address"), Some("a host and a port, such as \"127.0.0.1:9184\""));
    None
}

/// Whether a text is an IP address or the name of a host, a colon and a port.
pub(crate) fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let plain = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-');
    (plain && port.parse::<u16>().is_ok()) || text.parse::<SocketAddr>().is_ok()
}

fn read_telemetry(section: &Section<'_>) -> TelemetrySettings {
    let levels = ["error", "warn", "info", "debug", "trace"].map(|level| (level, level));
    TelemetrySettings {
        otlp: section.get("otlp").and_then(|v| read_collector(&v)),
        log: section.get("log").and_then(|v| v.choice(&levels)),
    }
}

fn read_collector(value: &Value<'_>) -> Option<String> {
    let url = value.text()?.value;
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
        value.problem(format!("\"{url}\" is not the URL of a collector"), Some("such as \"http://localhost:4318\""));
        return None;
    }
    require_feature(value, cfg!(feature = "otel"), "traces", "otel");
    Some(url.trim_end_matches('/').to_owned())
}

/// What this build was made without is a mistake in the job that asks for it.
fn require_feature(value: &Value<'_>, built: bool, what: &str, feature: &str) {
    if !built {
        let message = format!("{what} (\"{}\") needs the feature \"{feature}\", which this build lacks", value.key());
        value.problem(message, Some(&format!("build with --features {feature}")));
    }
}
