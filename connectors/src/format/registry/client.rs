//! The client of a schema registry: gives a schema by its id, with all that it refers to.

use std::{
    collections::BTreeSet,
    env,
    error::Error,
    thread,
    time::{Duration, Instant},
};

use schema_registry_converter::{
    blocking::schema_registry::{SrSettings, perform_sr_call},
    error::SRCError,
    schema_registry_common::{RawError, RawRegisteredSchema, SrCall},
};

use super::{Encoding, RegistryError, RegistryOptions, Secret};
use crate::source::SourceError;

/// Schemas that one schema may refer to, all of them counted. Real ones refer to a few; a registry that answers in circles must not
/// keep a worker for ever.
const REFERENCES_MAX: usize = 256;

/// Pauses between two attempts grow from the first to the second: short enough for a restart, long enough for a registry under load.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A schema as the registry has it.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) encoding: Option<Encoding>,
    pub(super) text: String,
    /// Schemas that it refers to, directly or not, by the names under which they are referred to.
    pub(super) references: Vec<(String, String)>,
}

/// Why there is no schema.
#[derive(Debug)]
pub(super) enum Lookup {
    /// The registry knows no such schema, or one that it refers to.
    Unknown(String),
    /// The registry does not answer.
    Failed(RegistryError),
}

/// A connection to a registry.
#[derive(Debug)]
pub(super) struct Client {
    settings: SrSettings,
    url: String,
    retry_for: Duration,
    /// The failure after which nothing is asked any more: the run is about to end.
    failed: Option<RegistryError>,
}

impl Client {
    /// A client of a registry that answers.
    ///
    /// # Errors
    /// Where it does not answer, or refuses us.
    pub(super) fn connect(options: &RegistryOptions) -> Result<Client, SourceError> {
        let url = options.url.trim_end_matches('/').to_owned();
        let mut builder = SrSettings::new_builder(url.clone());
        builder.set_timeout(options.timeout);
        if let Some(user) = &options.user {
            builder.set_basic_authorization(user, options.password.as_ref().map(reveal).transpose()?.as_deref());
        }
        let settings = builder.build().map_err(|error| SourceError::Settings(shown(&error)))?;
        let client = Client { settings, url, retry_for: options.retry_for, failed: None };
        // No registry gives this id to a schema, and every registry that is there and lets us in says so.
        match perform_sr_call(&client.settings, SrCall::GetById(0)) {
            Ok(_) => Ok(client),
            Err(error) if is_unknown(&error) => Ok(client),
            Err(error) => Err(client.error("an answer", &error).into()),
        }
    }

    /// The schema of an id. Where the registry does not answer, it is asked again until `retry_for` has passed.
    pub(super) fn schema(&mut self, id: u32) -> Result<Fetched, Lookup> {
        let raw = self.call(SrCall::GetById(id), &format!("schema {id}"))?;
        let encoding = match raw.schema_type.as_deref() {
            None | Some("AVRO") => Some(Encoding::Avro),
            Some("PROTOBUF") => Some(Encoding::Protobuf),
            Some("JSON") => Some(Encoding::JsonSchema),
            Some(_) => None,
        };
        let references = self.references(id, &raw)?;
        Ok(Fetched { encoding, text: raw.schema.unwrap_or_default(), references })
    }

    fn references(&mut self, id: u32, root: &RawRegisteredSchema) -> Result<Vec<(String, String)>, Lookup> {
        let mut open = root.references.clone().unwrap_or_default();
        let mut names: BTreeSet<String> = BTreeSet::new();
        let mut found = Vec::new();
        while let Some(reference) = open.pop() {
            if !names.insert(reference.name.clone()) {
                continue;
            }
            if names.len() > REFERENCES_MAX {
                return Err(Lookup::Unknown(format!("schema {id} refers to more than {REFERENCES_MAX} others")));
            }
            let what =
                format!("version {} of \"{}\", which schema {id} refers to", reference.version, reference.subject);
            let raw = self.call(SrCall::GetBySubjectAndVersion(&reference.subject, reference.version), &what)?;
            open.extend(raw.references.unwrap_or_default());
            found.push((reference.name, raw.schema.unwrap_or_default()));
        }
        Ok(found)
    }

    fn call(&mut self, call: SrCall<'_>, what: &str) -> Result<RawRegisteredSchema, Lookup> {
        if let Some(error) = &self.failed {
            return Err(Lookup::Failed(error.clone()));
        }
        let start = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            let error = match perform_sr_call(&self.settings, call) {
                Ok(raw) => return Ok(raw),
                Err(error) if is_unknown(&error) => {
                    return Err(Lookup::Unknown(format!("the schema registry has no {what}: {}", shown(&error))));
                }
                Err(error) => self.error(what, &error),
            };
            if start.elapsed() + pause > self.retry_for {
                self.failed = Some(error.clone());
                return Err(Lookup::Failed(error));
            }
            if pause == PAUSE_MIN {
                tracing::warn!(
                    url = self.url,
                    what,
                    detail = error.detail,
                    "the schema registry does not answer; asking again"
                );
            }
            thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn error(&self, what: &str, error: &SRCError) -> RegistryError {
        RegistryError { url: self.url.clone(), what: what.to_owned(), detail: shown(error) }
    }
}

fn reveal(secret: &Secret) -> Result<String, SourceError> {
    match secret {
        Secret::Value(value) => Ok(value.clone()),
        Secret::Environment(name) => env::var(name).map_err(|_| {
            SourceError::Settings(format!(
                "the environment variable \"{name}\", which holds the registry's password, is not set"
            ))
        }),
    }
}

/// Whether the registry itself says that it has no such subject, version or schema: codes 40401 to 40403. A 404 without such a code
/// comes from something else that listens at the address.
fn is_unknown(error: &SRCError) -> bool {
    let raw = error.source().and_then(|source| source.downcast_ref::<RawError>());
    raw.is_some_and(|raw| raw.error_code / 100 == 404)
}

/// What went wrong, from what the client says to the deepest cause, in one line.
fn shown(error: &SRCError) -> String {
    let mut text = error.error.clone();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text.replace(['\n', '\r'], " ")
}
