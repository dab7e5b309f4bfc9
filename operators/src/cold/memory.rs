//! A cold store in memory: the twin of the one on disk, for tests, and for states that fit after all.

use std::collections::{BTreeMap, BTreeSet};

use whisperer_schemas::{KeyHash, Micros};

use super::{ColdError, ColdState, ColdStates};

/// Cold states in memory.
#[derive(Debug, Default)]
pub struct MemoryCold {
    states: BTreeMap<KeyHash, ColdState>,
    due: BTreeSet<(Micros, KeyHash)>,
    bytes: u64,
}

impl ColdStates for MemoryCold {
    fn put(&mut self, states: Vec<ColdState>) -> Result<(), ColdError> {
        for state in states {
            if state.due != Micros::MAX {
                self.due.insert((state.due, state.key));
            }
            self.bytes += state.bytes.len() as u64;
            let before = self.states.insert(state.key, state);
            debug_assert!(before.is_none(), "a state is put once");
        }
        Ok(())
    }

    fn take(&mut self, keys: &[KeyHash]) -> Result<Vec<ColdState>, ColdError> {
        let taken: Vec<ColdState> = keys.iter().filter_map(|key| self.states.remove(key)).collect();
        for state in &taken {
            self.due.remove(&(state.due, state.key));
            self.bytes -= state.bytes.len() as u64;
        }
        Ok(taken)
    }

    fn due(&mut self, until: Micros, limit: usize) -> Result<Vec<KeyHash>, ColdError> {
        Ok(self.due.iter().take_while(|(due, _)| *due <= until).take(limit).map(|(_, key)| *key).collect())
    }

    fn scan(&mut self, after: Option<KeyHash>, limit: usize) -> Result<Vec<ColdState>, ColdError> {
        let from = match after {
            None => Some(KeyHash(0)),
            Some(KeyHash(after)) => after.checked_add(1).map(KeyHash),
        };
        Ok(from
            .map_or_else(Vec::new, |from| self.states.range(from..).take(limit).map(|(_, one)| one.clone()).collect()))
    }

    fn len(&self) -> u64 {
        self.states.len() as u64
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}
