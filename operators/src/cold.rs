//! Cold states: what a keyed operator does not keep in memory.
//!
//! The operator asks for all states that an epoch needs at once, before it applies the epoch; it hands over states that have not been
//! needed for long when its memory budget is spent. What is cold is scratch: checkpoints hold every state themselves, so a cold
//! store begins empty and is thrown away at the end.

use std::fmt::Debug;

use whisperer_schemas::{KeyHash, Micros};

mod memory;

pub use memory::MemoryCold;

/// A state on its way into or out of a cold store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdState {
    /// The key.
    pub key: KeyHash,
    /// Its earliest pending timer; `Micros::MAX` for none.
    pub due: Micros,
    /// The state, encoded.
    pub bytes: Box<[u8]>,
}

/// Why a cold store failed; the operator cannot go on without its states.
pub type ColdError = Box<dyn std::error::Error + Send + Sync>;

/// Where one worker keeps the states that are not in memory.
pub trait ColdStates: Debug {
    /// Takes states, none of which is in the store.
    ///
    /// # Errors
    /// What the store answers.
    fn put(&mut self, states: Vec<ColdState>) -> Result<(), ColdError>;

    /// Takes the states of these keys out of the store, by one look-up for all; keys that are not there are left out. No key twice.
    ///
    /// # Errors
    /// What the store answers.
    fn take(&mut self, keys: &[KeyHash]) -> Result<Vec<ColdState>, ColdError>;

    /// Keys that have a timer due at or before `until`, the earliest first, at most `limit`; their states stay in the store.
    ///
    /// # Errors
    /// What the store answers.
    fn due(&mut self, until: Micros, limit: usize) -> Result<Vec<KeyHash>, ColdError>;

    /// At most `limit` states of keys above `after`, in the order of keys; they stay in the store.
    ///
    /// # Errors
    /// What the store answers.
    fn scan(&mut self, after: Option<KeyHash>, limit: usize) -> Result<Vec<ColdState>, ColdError>;

    /// How many states there are.
    fn len(&self) -> u64;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes on disk, about.
    fn bytes(&self) -> u64;
}
