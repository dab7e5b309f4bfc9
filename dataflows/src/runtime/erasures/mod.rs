//! Erasures: what a job was asked to forget, and what it has done about it.
//!
//! ```text
//! <state>/control/secret           what persons are hashed with; made by the first start
//! <state>/control/request-<id>     the ids, as they were asked for         goes when the erasure is final
//! <state>/control/entry-<id>       which events are suppressed from now on
//! <state>/control/applied-<id>     the checkpoint that it was applied to, and what digests up to that still count
//! ```
//! **An erasure is applied by a start.** A running job that finds a request takes its last checkpoint, as it would for a stop, and starts again
//! in the same process: then nothing is on its way, every file is closed, and what is to be done is the same as for a job that was stopped, that
//! had come to its end, that crashed, or that was sent back to an older checkpoint ([`applying`]). Each step can be done twice.
//!
//! An event `user_erased` takes effect at its place in the log. Its request and entry are written before the checkpoint that holds it; the
//! tables follow with the start that the request brings about.

mod applying;
mod matching;
mod receipt;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use whisperer_connectors::StateStore;
use whisperer_schemas::{
    Digest, Micros,
    erasure::{Applied, ERASURE_VERSION, Entry, Erasures, Noted, Request, Secret},
};

use super::RunError;

pub(super) use applying::{after_run, apply};
pub(super) use matching::Matching;
pub(super) use watch::{Watch, waits};

pub use receipt::{Receipt, Signed, Status, key_from_hex, receipts, settle, signing_key};

const SECRET: &str = "secret";
const REQUEST: &str = "request-";
const ENTRY: &str = "entry-";
const APPLIED: &str = "applied-";

/// What a start has to know of erasures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Erasing {
    /// All entries of the control log.
    pub(super) entries: Vec<Entry>,
    /// Names of those that this start applies.
    pub(super) applies: BTreeSet<String>,
    /// Whether there are erasures of which something is left: an ended job then takes one more checkpoint, after which nothing is.
    pub(super) clears: bool,
    /// What the digests of the restored checkpoint count of rows that are gone.
    pub(super) corrections: BTreeMap<String, Digest>,
    /// Users whose rows are to go from changelogs, with their application.
    pub(super) users: Vec<(String, String)>,
}

impl Erasing {
    /// The entries that this start applies.
    pub(super) fn applied(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| self.applies.contains(&entry.id))
    }
}

/// The control log of a job, as far as it is about erasures.
#[derive(Clone, Debug, Default)]
pub struct ControlLog {
    /// By name, as all of them.
    pub requests: BTreeMap<String, Request>,
    /// What is suppressed.
    pub entries: BTreeMap<String, Entry>,
    /// What was done.
    pub applied: BTreeMap<String, Applied>,
}

impl ControlLog {
    /// Reads it.
    ///
    /// # Errors
    /// What the store answers, and a record that is damaged or newer than this release.
    pub fn read(store: &dyn StateStore) -> Result<ControlLog, RunError> {
        let mut log = ControlLog::default();
        for name in store.control()? {
            if let Some(id) = name.strip_prefix(REQUEST) {
                log.requests.extend(read::<Request>(store, &name)?.map(|request| (id.to_owned(), request)));
            } else if let Some(id) = name.strip_prefix(ENTRY) {
                log.entries.extend(read::<Entry>(store, &name)?.map(|entry| (id.to_owned(), entry)));
            } else if let Some(id) = name.strip_prefix(APPLIED) {
                log.applied.extend(read::<Applied>(store, &name)?.map(|applied| (id.to_owned(), applied)));
            }
        }
        Ok(log)
    }

    /// The erasures that a start from a checkpoint (0 for none) applies, or applies once more: what is applied again finds nothing left.
    #[must_use]
    pub fn due(&self, checkpoint: u64) -> BTreeSet<String> {
        let known = self.requests.keys().chain(self.entries.keys());
        let due = |id: &&String| self.applied.get(*id).is_none_or(|applied| applied.checkpoint >= checkpoint);
        known.filter(due).cloned().collect()
    }

    /// What the digests of a checkpoint count of rows that are gone.
    fn corrections(&self, checkpoint: u64) -> BTreeMap<String, Digest> {
        let mut sums: BTreeMap<String, Digest> = BTreeMap::new();
        for of_table in self.applied.values().filter_map(|applied| applied.corrections.get(&checkpoint)) {
            for (table, digest) in of_table {
                sums.entry(table.clone()).or_default().merge(*digest);
            }
        }
        sums
    }
}

/// Whether a job has erasures to apply, or something left of others, before it can be said to have nothing left to do.
pub(super) fn are_due(store: &dyn StateStore, checkpoint: u64) -> Result<bool, RunError> {
    let log = ControlLog::read(store)?;
    Ok(!log.requests.is_empty() || !log.due(checkpoint).is_empty())
}

/// Whether an erasure was applied to a checkpoint, or to a later one: a crash has led back to it.
pub(super) fn were_applied(store: &dyn StateStore, checkpoint: u64) -> Result<bool, RunError> {
    Ok(ControlLog::read(store)?.applied.values().any(|applied| applied.checkpoint >= checkpoint))
}

/// Asks for an erasure. The job applies it soon if it runs, and else at its next start.
///
/// # Errors
/// What the store answers.
pub fn ask(
    store: &dyn StateStore,
    (app, user): (Option<&str>, &str),
    (up_to, requested): (Option<Micros>, Micros),
) -> Result<Request, RunError> {
    let secret = secret(store)?;
    let name = format!("request {requested} {} {user}", app.unwrap_or_default());
    let id = String::from(secret.hash(name.as_bytes()));
    let (app, user) = (app.map(str::to_owned), user.to_owned());
    let request = Request { version: ERASURE_VERSION, id, app, user, up_to, requested };
    create(store, &format!("{REQUEST}{}", request.id), &request)?;
    Ok(request)
}

/// Writes down what events of the log asked for.
pub(super) fn note(store: &dyn StateStore, noted: &[Noted]) -> Result<(), RunError> {
    for Noted { request, entry } in noted {
        create(store, &format!("{ENTRY}{}", entry.id), entry)?;
        create(store, &format!("{REQUEST}{}", request.id), request)?;
    }
    Ok(())
}

/// Erasures as the operators ask for them.
pub(super) fn of_entries<'a>(secret: Secret, entries: impl IntoIterator<Item = &'a Entry>) -> Erasures {
    let mut erasures = Erasures::new(secret);
    entries.into_iter().for_each(|entry| erasures.insert(entry.clone()));
    erasures
}

/// What persons are hashed with; made where there is nothing yet.
pub(super) fn secret(store: &dyn StateStore) -> Result<Secret, RunError> {
    if let Some(bytes) = store.read_control(SECRET)? {
        let bytes = bytes.try_into();
        return bytes.map(Secret).map_err(|_| RunError::Control("\"secret\" does not have 16 bytes".to_owned()));
    }
    let mut bytes = [0; 16];
    let random = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    random.map_err(|error| RunError::Control(format!("no secret can be made: {error}")))?;
    // Whoever was faster has made it.
    store.create_control(SECRET, &bytes)?;
    secret(store)
}

fn read<T: DeserializeOwned>(store: &dyn StateStore, name: &str) -> Result<Option<T>, RunError> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    // One that was listed may be gone by now.
    let Some(bytes) = store.read_control(name)? else { return Ok(None) };
    let damaged = |error: serde_json::Error| RunError::Control(format!("\"{name}\" is damaged: {error}"));
    let Version { version } = serde_json::from_slice(&bytes).map_err(damaged)?;
    if version > ERASURE_VERSION {
        let known = ERASURE_VERSION;
        return Err(RunError::Control(format!("\"{name}\" is of version {version}, this release knows {known}")));
    }
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

/// One that is there already says what another start has found: it stays.
fn create<T: Serialize>(store: &dyn StateStore, name: &str, record: &T) -> Result<bool, RunError> {
    let bytes = serde_json::to_vec(record).expect("plain data with text keys");
    Ok(store.create_control(name, &bytes)?)
}
