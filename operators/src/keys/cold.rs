//! Keys that are not in memory: fetched before an epoch needs them, evicted when the budget is spent.
//!
//! Which keys are cold has no influence on results: a state comes back as it went, before anything looks for it. The hand of a clock
//! goes around the states; one that was used since it last passed is passed over once more.

use whisperer_schemas::{Epoch, KeyHash, Micros};

use super::{BLOCK, KeyState, Keys, Outputs, Turn, VACANT, codec, cuts::CLEAN, enter};
use crate::cold::{ColdError, ColdState, ColdStates};

/// States that are evicted together: one write of the store.
const EVICTED: usize = 4096;

/// Keys whose timers are fetched together.
const DUE_BATCH: usize = 4096;

/// What is not in memory.
#[derive(Debug)]
pub(super) struct Cold {
    pub(super) store: Box<dyn ColdStates>,
    /// Bytes that states and timers in memory may take.
    budget: usize,
    pub(super) hot_bytes: usize,
    hand: usize,
}

impl Cold {
    pub(super) fn bytes(&self) -> u64 {
        self.store.bytes()
    }
}

/// A cold store failed, and with it the operator: it cannot go on without its states.
#[derive(Debug, thiserror::Error)]
#[error("states that are not in memory cannot be read or written")]
pub struct ColdFailed(#[source] pub ColdError);

impl KeyState {
    /// Bytes that the state takes in memory, its share of the index and the timers included.
    pub(super) fn hot_bytes(&self) -> usize {
        /// An index holds four bytes a key and a byte of control, at most twice as many of them as there are keys; the wheel four.
        const SHARE: usize = 16;
        size_of::<KeyState>() + SHARE + self.heap_bytes()
    }
}

impl Keys {
    /// Keeps at most about `bytes_max` of states and timers in memory, and the rest in `store`, which is empty.
    pub fn use_cold(&mut self, store: Box<dyn ColdStates>, bytes_max: u64) {
        let budget = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        self.cold = Some(Cold { store, budget, hot_bytes: 0, hand: 0 });
    }

    pub(super) fn cold_len(&self) -> u64 {
        self.cold.as_ref().map_or(0, |cold| cold.store.len())
    }

    /// Whether some states may be cold, so that [`Keys::fetch`] is needed before records are applied.
    #[must_use]
    pub fn may_be_cold(&self) -> bool {
        self.cold_len() > 0
    }

    /// Whether the key's state is in memory.
    #[must_use]
    pub fn is_hot(&self, key: u128) -> bool {
        self.index.find(key as u64, |at| self.state(*at).key.0 == key).is_some()
    }

    /// Brings the states of these keys, none of them twice or in memory, back from the cold store, as far as it has them.
    ///
    /// # Errors
    /// What the store answers.
    pub fn fetch(&mut self, keys: &[KeyHash]) -> Result<(), ColdFailed> {
        let Some(cold) = &mut self.cold else { return Ok(()) };
        for state in cold.store.take(keys).map_err(ColdFailed)? {
            self.thaw(&state)?;
        }
        Ok(())
    }

    /// Brings back keys that have a timer due at or before the watermark; true if there may be more.
    ///
    /// # Errors
    /// What the store answers.
    pub fn fetch_due(&mut self, watermark: Micros) -> Result<bool, ColdFailed> {
        let Some(cold) = &mut self.cold else { return Ok(false) };
        let keys = cold.store.due(watermark, DUE_BATCH).map_err(ColdFailed)?;
        self.fetch(&keys)?;
        Ok(keys.len() == DUE_BATCH)
    }

    fn thaw(&mut self, cold: &ColdState) -> Result<(), ColdFailed> {
        let job = self.job.clone();
        let decoded = codec::decode(&mut self.engine, cold.key, &cold.bytes, (&job.state_layout, None));
        let mut state = decoded.map_err(|error| ColdFailed(error.into()))?;
        state.used = true;
        let at = self.insert(state);
        let state = &mut self.blocks[at as usize / BLOCK][at as usize % BLOCK];
        if let Some(cuts) = &mut self.cuts {
            if cuts.pending_cold.remove(&cold.key) {
                cuts.push(cold.key, &cold.bytes);
            }
            if cuts.dirty_cold.remove(&cold.key) {
                cuts.came_back_dirty(state, at);
            }
        }
        enter(&mut self.wheel, Micros::MAX, state, at);
        Ok(())
    }

    /// Evicts states until the rest fits into the budget.
    ///
    /// # Errors
    /// What the store answers.
    pub fn shrink(&mut self) -> Result<(), ColdFailed> {
        while self.cold.as_ref().is_some_and(|cold| cold.hot_bytes > cold.budget) && !self.index.is_empty() {
            self.evict()?;
        }
        Ok(())
    }

    /// Evicts the next states that the hand finds unused.
    fn evict(&mut self) -> Result<(), ColdFailed> {
        let Some(mut cold) = self.cold.take() else { return Ok(()) };
        let places = self.index.len() + self.free.len();
        let mut evicted = Vec::new();
        // Twice around at most: the first time clears what was used.
        for _ in 0..2 * places {
            if evicted.len() >= EVICTED || cold.hot_bytes <= cold.budget {
                break;
            }
            let at = cold.hand;
            cold.hand = (cold.hand + 1) % places;
            let state = &mut self.blocks[at / BLOCK][at % BLOCK];
            if state.due == VACANT {
                continue;
            }
            if std::mem::take(&mut state.used) {
                continue;
            }
            cold.hot_bytes = cold.hot_bytes.saturating_sub(state.hot_bytes());
            evicted.push(self.remove(at as u32));
        }
        let result = cold.store.put(evicted).map_err(ColdFailed);
        self.cold = Some(cold);
        result
    }

    /// Takes a state out of memory.
    pub(super) fn remove(&mut self, at: u32) -> ColdState {
        let state = &mut self.blocks[at as usize / BLOCK][at as usize % BLOCK];
        let key = state.key;
        if let Some(cuts) = &mut self.cuts {
            cuts.encode_pending(&self.job, &self.engine, state);
            if state.stamp == cuts.stamp {
                cuts.dirty_cold.insert(key);
            }
            state.stamp = CLEAN;
        }
        let mut bytes = Vec::new();
        codec::encode(&self.engine, &self.job.state_layout, state, &mut bytes);
        let due = state.due;
        *state = KeyState::empty(key, Default::default(), 0);
        state.due = VACANT;
        self.engine.kept_starts.remove(&at);
        if let Ok(entry) = self.index.find_entry(key.0 as u64, |other| *other == at) {
            entry.remove();
        }
        self.free.push(at);
        ColdState { key, due, bytes: bytes.into() }
    }

    /// Writes the final rows of at most `limit` cold keys above `after`; the last one, if there may be more.
    ///
    /// # Errors
    /// What the store answers.
    pub fn finish_cold(
        &mut self,
        watermark: Micros,
        (after, limit): (Option<KeyHash>, usize),
        epoch: Epoch,
        outputs: &mut Outputs,
    ) -> Result<Option<KeyHash>, ColdFailed> {
        let Some(cold) = &mut self.cold else { return Ok(None) };
        let states = cold.store.scan(after, limit).map_err(ColdFailed)?;
        let job = self.job.clone();
        for state in &states {
            let decoded = codec::decode(&mut self.engine, state.key, &state.bytes, (&job.state_layout, None));
            let state = &mut decoded.map_err(|error| ColdFailed(error.into()))?;
            // No place has this number, so nothing is kept under it.
            let at = u32::MAX;
            Turn { job: &job, engine: &mut self.engine, state, at, epoch, outputs, found: false }
                .profile(watermark, false, true);
        }
        Ok(if states.len() == limit { states.last().map(|state| state.key) } else { None })
    }
}
