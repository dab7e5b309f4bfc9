//! State stores: where checkpoints live.
//!
//! ```text
//! <state>/manifests/00000000000000000001.json      create-if-absent: the fence
//! <state>/deltas/<epoch>-<generation>-<worker>.delta
//! <state>/base/…                                   RocksDB: deltas that no retained checkpoint needs any more, merged
//! <state>/ticks/…                                  advances of idle partitions
//! ```
//! A store fetches facts and carries out decisions; what to do (which checkpoint to restore, what to merge, what to remove) is
//! decided by pure functions, which know no disk.

use whisperer_schemas::{
    Epoch, KeyHash,
    checkpoint::{Delta, FileFacts, Manifest},
};

/// A durable store of checkpoints, shared by the workers of a process. Every call that writes is durable when it returns.
pub trait StateStore: Send + Sync {
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

    /// Creates a manifest under its number; false where that number is taken, by whomever.
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

    /// Merges delta files, oldest first, into the base, which then holds everything up to `epoch`. Merging twice does no harm. Runs in the
    /// background, on one thread of the coordinating process only.
    ///
    /// # Errors
    /// What the store answers.
    fn merge(&self, deltas: &[FileFacts], epoch: Epoch) -> Result<(), StoreError>;

    /// The epoch up to which the base holds everything, and the layout that its states are encoded in, if it holds any.
    ///
    /// # Errors
    /// What the store answers.
    fn base(&self) -> Result<(Epoch, Vec<u8>), StoreError>;

    /// Hands every state of the base in these key groups to `each`.
    ///
    /// # Errors
    /// What the store answers.
    fn scan_base(&self, groups: &dyn Fn(u64) -> bool, each: &mut dyn FnMut(KeyHash, &[u8])) -> Result<(), StoreError>;

    /// Removes manifests and files that nothing refers to any more; what is missing already is no error.
    ///
    /// # Errors
    /// What the store answers.
    fn remove(&self, manifests: &[u64], files: &[FileFacts]) -> Result<(), StoreError>;
}

/// Why a store cannot do what it is asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Something that a manifest names is not there, or not as it was written.
    #[error("\"{name}\" is damaged: {detail}")]
    Damaged {
        /// The file or manifest.
        name: String,
        /// What is wrong.
        detail: String,
    },
}
