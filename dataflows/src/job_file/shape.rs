//! The shape of a job file: every section, its keys, and the keys that a later version will know.
//!
//! A test holds `config/default.toml` against [`ALL`], so that a key cannot be added without its line there.

use whisperer_schemas::{
    Micros,
    time::{HOUR, MINUTE, SECOND},
};

/// The keys of a section.
#[derive(Debug)]
pub(super) struct Shape {
    /// How the section is called in messages.
    pub title: &'static str,
    /// Its keys.
    pub keys: &'static [&'static str],
    /// Keys that the design knows and this version does not.
    pub later: &'static [&'static str],
}

impl Shape {
    /// True where the author chooses the keys.
    pub(super) fn is_open(&self) -> bool {
        self.keys.is_empty()
    }
}

pub(super) const ROOT: Shape = Shape {
    title: "the job file",
    keys: &[
        "job",
        "source",
        "epoch",
        "dedup",
        "retention",
        "snapshot",
        "feature",
        "score",
        "stage",
        "trigger",
        "view",
        "identity",
        "sink",
        "checkpoint",
        "state",
        "ready",
        "cluster",
        "server",
        "telemetry",
    ],
    later: &["policy", "delivery", "metrics"],
};

pub(super) const JOB: Shape = Shape {
    title: "[job]",
    keys: &["name", "version", "entity", "decay_days", "distinct_max", "deliver_from", "expires_after"],
    later: &[],
};

/// The keys of every connector; which of them belong to which is in [`FILE_KEYS`], [`GENERATOR_KEYS`] and [`KAFKA_KEYS`].
pub(super) const SOURCE: Shape = Shape {
    title: "[source]",
    keys: &[
        "connector",
        "format",
        "map",
        "registry",
        "ids",
        "event_types",
        "event_bytes_max",
        "future_max",
        "out_of_orderness",
        "path",
        "partitioned",
        "seed",
        "users",
        "events",
        "partitions",
        "start",
        "span",
        "zipf",
        "duplicates",
        "disorder",
        "late",
        "malformed",
        "history",
        "brokers",
        "topic",
        "group",
        "properties",
        "keyed",
        "allow_repartition",
        "idle_timeout_ms",
        "until_end",
    ],
    later: &["log_epochs", "listen"],
};

/// Keys of `[source]` for `connector = "file"` only.
pub(super) const FILE_KEYS: &[&str] = &["path", "partitioned"];

/// Keys of `[source]` for `connector = "generator"` only.
pub(super) const GENERATOR_KEYS: &[&str] =
    &["seed", "users", "events", "partitions", "start", "span", "zipf", "duplicates", "disorder", "late", "malformed"];

/// Keys of `[source]` for `connector = "kafka"` only, but for `start`, which the generator has too.
pub(super) const KAFKA_KEYS: &[&str] =
    &["brokers", "topic", "group", "properties", "start", "keyed", "allow_repartition", "idle_timeout_ms", "until_end"];

/// `[source.properties]`, by the property's name.
pub(super) const KAFKA_PROPERTIES: Shape = Shape { title: "[source.properties]", keys: &[], later: &[] };

pub(super) const REGISTRY: Shape = Shape {
    title: "[source.registry]",
    keys: &["url", "user", "password", "password_env", "timeout", "retry_for"],
    later: &[],
};

pub(super) const MAP: Shape = Shape {
    title: "[source.map]",
    keys: &["event_id", "app_id", "user_id", "session_id", "event_type", "timestamp", "properties"],
    later: &["context", "metadata"],
};

/// `[source.map] properties`, by the property's name.
pub(super) const MAP_PROPERTIES: Shape = Shape { title: "[source.map.properties]", keys: &[], later: &[] };

pub(super) const MEMBER: Shape = Shape {
    title: "a field of [source.map]",
    keys: &["field", "value", "rename", "otherwise", "format", "unit", "zone"],
    later: &[],
};

/// `rename`, by the value to be replaced.
pub(super) const RENAME: Shape = Shape { title: "\"rename\"", keys: &[], later: &[] };

/// `[source] history`
pub(super) const HISTORY: Shape =
    Shape { title: "\"history\"", keys: &["path", "until", "partitioned", "overlap"], later: &[] };

pub(super) const EPOCH: Shape = Shape { title: "[epoch]", keys: &["bytes", "records", "interval_ms"], later: &[] };

pub(super) const DEDUP: Shape = Shape { title: "[dedup]", keys: &["horizon"], later: &[] };

pub(super) const RETENTION: Shape = Shape { title: "[retention]", keys: &["idle"], later: &["tables"] };

pub(super) const SNAPSHOT: Shape = Shape { title: "[snapshot]", keys: &["every", "full_every"], later: &[] };

pub(super) const FEATURE: Shape = Shape {
    title: "[[feature]]",
    keys: &["name", "aggregate", "of", "where", "window", "divide_by", "half_life", "gap", "type", "unit"],
    later: &[],
};

pub(super) const SCORE: Shape =
    Shape { title: "[[score]]", keys: &["name", "expr", "model", "levels"], later: &["calibration"] };

/// `levels`, by the level's name.
pub(super) const LEVELS: Shape = Shape { title: "\"levels\"", keys: &[], later: &[] };

pub(super) const STAGE: Shape = Shape { title: "[[stage]]", keys: &["name", "when"], later: &[] };

pub(super) const TRIGGER: Shape =
    Shape { title: "[[trigger]]", keys: &["name", "when", "rearm", "cooldown", "priority", "action"], later: &[] };

pub(super) const VIEW: Shape = Shape {
    title: "[[view]]",
    keys: &[
        "name",
        "aggregate",
        "group_by",
        "when",
        "of",
        "limit",
        "at",
        "resolution",
        "segments",
        "period",
        "begins",
        "active",
        "steps",
        "within",
    ],
    later: &["history"],
};

/// `segments`, by the segment's name.
pub(super) const SEGMENTS: Shape = Shape { title: "\"segments\"", keys: &[], later: &[] };

/// A member of `steps`.
pub(super) const STEP: Shape = Shape { title: "a step", keys: &["name", "where"], later: &[] };

pub(super) const IDENTITY: Shape =
    Shape { title: "[identity]", keys: &["component_ids_max", "persons", "link", "unlink"], later: &[] };

pub(super) const LINK: Shape = Shape { title: "[[identity.link]]", keys: &["event", "other"], later: &[] };

pub(super) const UNLINK: Shape = Shape { title: "[[identity.unlink]]", keys: &["event", "other"], later: &[] };

pub(super) const SINK: Shape = Shape {
    title: "[[sink]]",
    keys: &[
        "connector",
        "table",
        "path",
        "commit_interval",
        "log",
        "brokers",
        "topic",
        "delivery",
        "create",
        "properties",
        "mode",
    ],
    later: &["url"],
};

/// Keys of `[[sink]]` for `connector = "kafka"` only.
pub(super) const KAFKA_SINK_KEYS: &[&str] = &["brokers", "topic", "delivery", "create", "properties", "mode"];

/// `create`, of a topic.
pub(super) const CREATE: Shape = Shape { title: "\"create\"", keys: &["partitions", "replication"], later: &[] };

/// `properties`, by the name of the client library's setting.
pub(super) const PROPERTIES: Shape = Shape { title: "[sink.properties]", keys: &[], later: &[] };

pub(super) const CHECKPOINT: Shape =
    Shape { title: "[checkpoint]", keys: &["dir", "interval_ms", "retain", "remote"], later: &[] };

pub(super) const STATE: Shape = Shape { title: "[state]", keys: &["memory_bytes_max"], later: &[] };

pub(super) const READY: Shape = Shape { title: "[ready]", keys: &["lag_ms_max"], later: &[] };

pub(super) const CLUSTER: Shape = Shape { title: "[cluster]", keys: &["watchdog_ms"], later: &[] };

pub(super) const SERVER: Shape = Shape { title: "[server]", keys: &["listen"], later: &[] };

pub(super) const TELEMETRY: Shape = Shape { title: "[telemetry]", keys: &["otlp", "log"], later: &[] };

pub(super) const MODEL: Shape = Shape { title: "the model file", keys: &["intercept", "feature"], later: &[] };

pub(super) const TERM: Shape =
    Shape { title: "[[feature]]", keys: &["name", "weight", "transform", "null", "reference"], later: &[] };

/// `transform`, where it is a table.
pub(super) const TRANSFORM: Shape =
    Shape { title: "\"transform\"", keys: &["standard", "clip", "one_hot"], later: &[] };

pub(super) const STANDARD: Shape = Shape { title: "\"standard\"", keys: &["mean", "sd"], later: &[] };

pub(super) const CLIP: Shape = Shape { title: "\"clip\"", keys: &["min", "max"], later: &[] };

/// Every shape of a job file with keys of its own.
#[cfg(test)]
pub(super) const ALL: &[&Shape] = &[
    &ROOT,
    &JOB,
    &SOURCE,
    &REGISTRY,
    &MAP,
    &MEMBER,
    &EPOCH,
    &DEDUP,
    &SNAPSHOT,
    &FEATURE,
    &SCORE,
    &STAGE,
    &TRIGGER,
    &VIEW,
    &IDENTITY,
    &LINK,
    &UNLINK,
    &SINK,
    &CHECKPOINT,
    &STATE,
    &READY,
    &CLUSTER,
    &SERVER,
    &TELEMETRY,
];

/// `[epoch] bytes`: enough that the cost of an epoch vanishes, little enough that an epoch in flight costs no memory to speak of.
pub(super) const EPOCH_BYTES: u64 = 4 << 20;
/// `[epoch] interval_ms`
pub(super) const EPOCH_INTERVAL_MS: u64 = 10;
/// `[source] event_bytes_max`
pub(super) const EVENT_BYTES_MAX: u64 = 1 << 20;
/// `[source] future_max`
pub(super) const FUTURE_MAX: Micros = HOUR;
/// Event times further ahead of their ingest time are clamped to it; docs/semantics.md says so.
pub(super) const CLAMP_AFTER: Micros = 5 * SECOND;
/// `[[sink]] commit_interval`
pub(super) const COMMIT_INTERVAL: Micros = MINUTE;
/// `[[view]] limit`
pub(super) const VIEW_LIMIT: u64 = 10;
/// `[[view]] at`
pub(super) const VIEW_AT: &[f64] = &[0.5, 0.9, 0.99];
/// `[[view]] resolution`
pub(super) const VIEW_RESOLUTION: f64 = 0.001;
/// `[checkpoint] interval_ms`: what a crash makes a job read again, against what writing costs.
pub(super) const CHECKPOINT_INTERVAL_MS: u64 = 10_000;
/// `[checkpoint] retain`
pub(super) const CHECKPOINT_RETAIN: u64 = 3;
/// Less memory than this could not hold the states of one epoch.
pub(super) const MEMORY_BYTES_LEAST: u64 = 1 << 20;
/// `[ready] lag_ms_max`
pub(super) const READY_LAG_MS_MAX: u64 = 5_000;
/// `[cluster] watchdog_ms`: longer than any pause of a healthy worker, short enough that a cluster does not wait for long.
pub(super) const WATCHDOG_MS: u64 = 60_000;
