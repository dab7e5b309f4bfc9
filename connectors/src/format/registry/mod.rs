//! Messages framed with the id of their schema, as Confluent's serializers write them: Avro, Protobuf, JSON with a JSON Schema.
//!
//! ```text
//! 0 | schema id, 4 bytes | (Protobuf: which message of the schema) | the message
//!     │
//!     └─▶ schemas known by id ─(a new id)─▶ client ─▶ the registry, over HTTP
//! ```
//! Invariant: whether a record is a dead letter depends on the record and on what the registry holds, never on whether the registry
//! could be reached. A record whose schema cannot be asked for ends the run.
//!
//! The client blocks its worker, and is called for schema ids that the worker has not seen: a handful of times in a run.

#[cfg(feature = "registry")]
mod avro;
#[cfg(feature = "registry")]
mod client;
#[cfg(feature = "registry")]
mod filling;
#[cfg(feature = "registry")]
mod framed;
#[cfg(feature = "registry")]
mod json_schema;
#[cfg(feature = "registry")]
mod protobuf;

use std::{fmt, time::Duration};

#[cfg(feature = "registry")]
pub(super) use framed::Framed;

/// How the message behind a frame is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the definitions")]
pub enum Encoding {
    Avro,
    Protobuf,
    JsonSchema,
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Encoding::Avro => "avro",
            Encoding::Protobuf => "protobuf",
            Encoding::JsonSchema => "json_schema",
        })
    }
}

/// Where schemas come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryOptions {
    /// `http://` or `https://`, host, port and path, without a user.
    pub url: String,
    /// User of basic authentication.
    pub user: Option<String>,
    /// Password of basic authentication.
    pub password: Option<Secret>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How long a running job asks again when the registry does not answer, before it ends.
    pub retry_for: Duration,
}

impl RegistryOptions {
    /// `[source] registry.timeout`: a registry answers within milliseconds.
    pub const TIMEOUT: Duration = Duration::from_secs(5);
    /// `[source] registry.retry_for`: a registry's restart takes less; a job that waits longer only hides that it does nothing.
    pub const RETRY_FOR: Duration = Duration::from_secs(30);

    /// A registry without authentication, with the default bounds.
    #[must_use]
    pub fn new(url: impl Into<String>) -> RegistryOptions {
        RegistryOptions {
            url: url.into(),
            user: None,
            password: None,
            timeout: RegistryOptions::TIMEOUT,
            retry_for: RegistryOptions::RETRY_FOR,
        }
    }
}

/// What nobody is shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The secret itself.
    Value(String),
    /// The environment variable that holds it, read when the source is opened.
    Environment(String),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Value(_) => f.write_str("(secret)"),
            Secret::Environment(name) => write!(f, "${name}"),
        }
    }
}

/// Why the registry does not give what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot get {what} from the schema registry \"{url}\": {detail}")]
pub struct RegistryError {
    /// The registry.
    pub url: String,
    /// What it was asked for.
    pub what: String,
    /// What went wrong.
    pub detail: String,
}
