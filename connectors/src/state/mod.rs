//! State stores: where checkpoints live.
//!
//! ```text
//! <state>/manifests/00000000000000000001.json      create-if-absent: the fence
//! <state>/deltas/<epoch>-<generation>-<worker>.delta
//! <state>/base/…                                   deltas that no retained checkpoint needs any more, merged
//! <state>/ticks/…                                  advances of idle partitions
//! <state>/control/<name>                           the control log: what the job was asked to do, and has done
//! ```
//! A store fetches facts and carries out decisions; what to do (which checkpoint to restore, what to merge, what to remove) is
//! decided by the pure functions of [`resolve`], which know no disk.
//!
//! The life of a store, as the coordinating process leads it:
//!
//! ```text
//! read every manifest ─▶ resolve::choose ─▶ create_manifest(resolve::claim) ─▶ prepare(cut) ─▶ Loading::open, states
//!   each checkpoint: write_delta by every worker ─▶ create_manifest (false: fenced, stop) ─▶ publish what waited for it
//!   now and then:    resolve::removable ─▶ remove, and then resolve::mergeable ─▶ merge
//! ```

use std::{fmt::Debug, path::Path, sync::Arc};

use whisperer_schemas::{
    Epoch, KeyHash,
    checkpoint::{Base, Cut, Delta, FileFacts, Manifest},
};

/// Folder of the control log, in a state folder and on a remote store.
pub const CONTROL: &str = "control";

mod base;
pub mod cold;
pub mod conformance;
pub mod disk;
mod error;
pub mod failpoint;
pub mod fault;
mod files;
mod folder;
pub mod load;
mod manifest_file;
mod memory;
pub mod remote;
pub mod resolve;

pub use self::{
    base::BaseKind, error::StoreError, folder::FolderStore, load::Loading, memory::MemoryStore, remote::RemoteStore,
};

/// What a process is for a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one process of a cluster that commits checkpoints and writes the base.
    Coordinator,
    /// Any other, by its number.
    Member(u32),
    /// One that only looks, beside a cluster that may be running.
    Reader,
}

impl Role {
    fn writes(self, doing: &'static str, base: &Path) -> Result<(), StoreError> {
        match self {
            Role::Coordinator => Ok(()),
            Role::Member(_) | Role::Reader => Err(StoreError::Member { doing, path: base.into() }),
        }
    }
}

/// Opens the store of a state folder, or the remote store that it is a copy of.
///
/// # Errors
/// A folder or remote store that cannot be used, and a folder that belongs to another one.
pub fn open(folder: &Path, remote: Option<&str>, role: Role) -> Result<Arc<dyn StateStore>, StoreError> {
    Ok(match remote {
        None => Arc::new(FolderStore::open(folder, role)?),
        Some(url) => Arc::new(RemoteStore::open(remote::open_remote(url)?, folder, role)?),
    })
}

/// A durable store of checkpoints, shared by the workers of a process. Every call that writes is durable when it returns.
pub trait StateStore: Debug + Send + Sync {
    /// The numbers of all manifests, ascending.
    ///
    /// # Errors
    /// What the store answers.
    fn manifests(&self) -> Result<Vec<u64>, StoreError>;

    /// The manifest of a number.
    ///
    /// # Errors
    /// Where it is missing, torn or of a later version.
    fn manifest(&self, number: u64) -> Result<Manifest, StoreError>;

    /// Creates a manifest under its number. False where that number is taken, by whomever, or where there is a larger one: then another
    /// generation has taken over, and the caller stops at once, whatever became of its manifest.
    ///
    /// # Errors
    /// What the store answers; the manifest may or may not exist then.
    fn create_manifest(&self, manifest: &Manifest) -> Result<bool, StoreError>;

    /// Writes a worker's delta file under a name that holds epoch, generation and worker.
    ///
    /// # Errors
    /// What the store answers.
    fn write_delta(&self, delta: &Delta, generation: u64) -> Result<FileFacts, StoreError>;

    /// Reads a delta file back and checks its length and checksum.
    ///
    /// # Errors
    /// A file that is missing or not what the facts say.
    fn read_delta(&self, file: &FileFacts) -> Result<Delta, StoreError>;

    /// A delta without its states, of which nothing is read: its parts and its outbox, checked.
    ///
    /// # Errors
    /// A file that is missing or not what the facts say.
    fn read_rest(&self, file: &FileFacts) -> Result<Delta, StoreError>;

    /// The states of a delta file, to be read by key group.
    ///
    /// # Errors
    /// A file that is missing or not what the facts say.
    fn delta_states(&self, file: &FileFacts) -> Result<Box<dyn States + '_>, StoreError>;

    /// Gets ready for what a generation starts from: fetches the base that `cut` names if it lies elsewhere; without a cut, empties the base.
    /// Called once by every process, after the claim and before anything is loaded.
    ///
    /// # Errors
    /// A base that does not fit the cut.
    fn prepare(&self, cut: Option<&Cut>) -> Result<(), StoreError>;

    /// Merges delta files, oldest first, into the base, which then holds everything up to `epoch`. Merging twice does no harm. Runs in the
    /// background, on one thread of the coordinating process only. Full deltas replace the base.
    ///
    /// # Errors
    /// What the store answers, and a delta of another layout than the base that is not full. What is merged in part does no harm as long
    /// as the deltas stay.
    fn merge(&self, deltas: &[FileFacts], epoch: Epoch) -> Result<(), StoreError>;

    /// The base as the next manifest has to name it.
    ///
    /// # Errors
    /// What the store answers.
    fn base(&self) -> Result<Base, StoreError>;

    /// The states of the base, to be read by key group; nothing is merged while they are read.
    ///
    /// # Errors
    /// What the store answers.
    fn base_states(&self) -> Result<Box<dyn States + '_>, StoreError>;

    /// The names of all files but manifests that may be removed once nothing refers to them: deltas, and copies of a base that is not the
    /// present one.
    ///
    /// # Errors
    /// What the store answers.
    fn files(&self) -> Result<Vec<String>, StoreError>;

    /// The names of the records of the control log, sorted: what a job was asked to do beside its input. Anybody may add to it.
    ///
    /// # Errors
    /// What the store answers.
    fn control(&self) -> Result<Vec<String>, StoreError>;

    /// A record of the control log, if it is there.
    ///
    /// # Errors
    /// What the store answers.
    fn read_control(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Writes a record of the control log, unless there is one of that name; whether there was none, or the same.
    ///
    /// # Errors
    /// What the store answers; the record may or may not be there then.
    fn create_control(&self, name: &str, bytes: &[u8]) -> Result<bool, StoreError>;

    /// Removes records of the control log; what is missing already is no error.
    ///
    /// # Errors
    /// What the store answers.
    fn remove_control(&self, names: &[String]) -> Result<(), StoreError>;

    /// Removes manifests, oldest first, and then files; what is missing already is no error.
    ///
    /// # Errors
    /// What the store answers.
    fn remove(&self, manifests: &[u64], files: &[String]) -> Result<(), StoreError>;
}

/// States as a delta or the base holds them.
pub trait States {
    /// What they are.
    fn head(&self) -> &StatesHead;

    /// Hands every state of a key group to `each`, in the order of keys; none where the key was removed.
    ///
    /// # Errors
    /// A file that is damaged, or what the store answers.
    fn scan(&mut self, group: u64, each: &mut dyn FnMut(KeyHash, Option<&[u8]>)) -> Result<(), StoreError>;
}

/// What is known of states before they are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatesHead {
    /// Everything up to this epoch is in them; of a delta, its epoch.
    pub epoch: Epoch,
    /// Their layout.
    pub layout: Vec<u8>,
    /// Whether everything older is void. Always so of the base.
    pub full: bool,
    /// Whether there is no state at all.
    pub empty: bool,
}
