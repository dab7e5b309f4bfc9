//! Cuts and restores of all keys of a worker.

use whisperer_schemas::{KeyHash, Micros};

use super::{
    Counts, Cuts, EncodedStates, Keys, Outputs, Turn,
    codec::{self, Mapping},
    cold::ColdFailed,
    enter,
};
use crate::{
    keys::BLOCK,
    layout::{LayoutError, StateLayout, ViewLayout},
    spec::JobSpec,
};

/// States that are looked up in a cold store together while a cut is encoded.
const COLD_BATCH: usize = 1024;

/// Restores states of a checkpoint.
pub struct Restoring<'a> {
    keys: &'a mut Keys,
    old: StateLayout,
    mapping: Option<Mapping>,
}

impl Keys {
    /// Keeps note of what changes, for checkpoints. To be called before the first record.
    pub fn keep_cuts(&mut self) {
        self.cuts = Some(Cuts::default());
    }

    /// Begins a cut: what the states are now is what [`Keys::encode_cut`] gives. A cut that is not complete yet is completed first.
    ///
    /// # Errors
    /// Where a cold state cannot be read.
    pub fn begin_cut(&mut self) -> Result<Option<EncodedStates>, ColdFailed> {
        let unfinished = self.cuts.as_ref().is_some_and(|cuts| !cuts.is_complete());
        let earlier = if unfinished { self.encode_cut(usize::MAX)? } else { None };
        if let Some(cuts) = &mut self.cuts
            && cuts.begin()
        {
            cuts.restamp(&mut self.blocks);
        }
        self.cut_removed();
        Ok(earlier)
    }

    /// Encodes at most `limit` more states of the cut; all of them once the last one is encoded.
    ///
    /// # Errors
    /// Where a cold state cannot be read.
    pub fn encode_cut(&mut self, limit: usize) -> Result<Option<EncodedStates>, ColdFailed> {
        let Some(cuts) = &mut self.cuts else { return Ok(None) };
        cuts.encode_slice(&self.job, &self.engine, &mut self.blocks, limit);
        if let Some(cold) = &mut self.cold {
            let mut left = limit;
            while left > 0 && !cuts.pending_cold.is_empty() {
                let batch: Vec<KeyHash> = cuts.pending_cold.iter().copied().take(COLD_BATCH.min(left)).collect();
                left -= batch.len();
                for key in &batch {
                    cuts.pending_cold.remove(key);
                }
                let states = cold.store.take(&batch).map_err(ColdFailed)?;
                states.iter().for_each(|state| cuts.push(state.key, &state.bytes));
                cold.store.put(states).map_err(ColdFailed)?;
            }
        }
        Ok(cuts.is_complete().then(|| cuts.take()))
    }

    /// What the states of the next cut mean; stands beside them.
    #[must_use]
    pub fn layout(&self) -> StateLayout {
        let mut layout = self.job.state_layout.clone();
        let name = |at: usize| self.job.triggers[at].name.clone();
        layout.silent = (0..self.job.triggers.len()).filter(|at| self.engine.silent >> at & 1 == 1).map(name).collect();
        let warming = self.engine.warming.iter().enumerate().filter(|(_, until)| **until != Micros::MIN);
        layout.warming = warming.map(|(at, until)| (name(at), *until)).collect();
        layout.views.iter_mut().zip(&self.views_since).for_each(|(view, since)| view.since = *since);
        layout
    }

    /// Begins to restore states that were encoded with the `old` layout. Where the job is another one now, what has changed starts empty,
    /// silent and warming; `watermark` is the global watermark of the checkpoint, and `epoch` its epoch.
    pub fn restore(&mut self, old: StateLayout, spec: &JobSpec, (watermark, epoch): (Micros, u64)) -> Restoring<'_> {
        let mut layout = self.job.state_layout.clone();
        layout.take_over(&old, spec, watermark);
        let bit = |name: &String| self.job.triggers.iter().position(|trigger| trigger.name == *name);
        self.engine.silent = layout.silent.iter().filter_map(bit).fold(0, |bits, at| bits | 1 << at);
        if !layout.warming.is_empty() {
            self.engine.warming = vec![Micros::MIN; self.job.triggers.len()];
            for (name, until) in &layout.warming {
                if let Some(at) = bit(name) {
                    self.engine.warming[at] = *until;
                }
            }
        }
        let mapping = (!layout.reads(&old)).then(|| Mapping::new(&old, &layout));
        // What keys show may be other values now, even for a view that is the same.
        let kept = |view: &ViewLayout| old.views.iter().find(|old| mapping.is_none() && old.is_same(view));
        self.views_since = layout.views.iter().map(|view| kept(view).map_or(epoch, |old| old.since)).collect();
        self.engine.links.restore(watermark);
        let begins = self.views_since.iter_mut().zip(&self.beginning).filter(|(_, begins)| **begins);
        begins.for_each(|(since, _)| *since = epoch);
        Restoring { keys: self, old, mapping }
    }

    /// For each view, the epoch of the cut with which a change of the job began it anew; 0 where none did.
    #[must_use]
    pub fn views_since(&self) -> &[u64] {
        &self.views_since
    }

    /// Adds the numbers of an earlier run.
    pub fn add_counts(&mut self, earlier: &Counts) {
        let mut earlier = earlier.clone();
        (earlier.keys, earlier.cold_keys, earlier.state_bytes, earlier.cold_bytes) = (0, 0, 0, 0);
        earlier.decisions.resize(self.job.triggers.len(), 0);
        earlier.suppressed.resize(self.job.triggers.len(), 0);
        self.engine.counts.merge(&earlier);
    }
}

impl Restoring<'_> {
    /// Whether the states have to be written anew, since the job is another one now, or some of its views are.
    #[must_use]
    pub fn changes_layout(&self) -> bool {
        self.mapping.is_some() || self.keys.begins_views()
    }

    /// Restores one state; no key twice. What it says about stages goes to `outputs`.
    ///
    /// # Errors
    /// Bytes that are no state of that layout, or a cold store that fails.
    pub fn state(&mut self, key: KeyHash, bytes: &[u8], outputs: &mut Outputs) -> Result<(), RestoreError> {
        let rewrites = self.changes_layout();
        let keys = &mut *self.keys;
        let state = codec::decode(&mut keys.engine, key, bytes, (&self.old, self.mapping.as_ref()))?;
        if !keys.job.stages.is_empty() {
            outputs.stages.push((state.stage, 1));
        }
        keys.note_doomed(&state);
        let at = keys.insert(state);
        let state = &mut keys.blocks[at as usize / BLOCK][at as usize % BLOCK];
        let (changed, viewed) = (self.mapping.is_some(), !keys.job.views.is_empty());
        if changed || viewed {
            let (job, engine) = (&keys.job, &mut keys.engine);
            let mut turn = Turn { job, engine, state, at, epoch: Default::default(), outputs, found: false };
            turn.find_starts();
            if changed && viewed {
                turn.show_anew();
            }
            if changed {
                // Other conditions ask for other timers.
                turn.schedule();
            }
            if viewed {
                turn.say_all(1);
                turn.say_part(None);
            }
        }
        if keys.job.retention_idle != Micros::MAX {
            // It may be another time than it was: when it is due is found out then.
            state.due = state.due.min(state.key_clock.saturating_add(keys.job.retention_idle));
            state.exact = false;
        }
        if let Some(cuts) = keys.cuts.as_mut().filter(|_| rewrites) {
            // The state is to be written again as it is now.
            cuts.came_back_dirty(state, at);
        }
        enter(&mut keys.wheel, Micros::MAX, state, at);
        keys.shrink()?;
        Ok(())
    }
}

/// Why a state cannot be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// It is damaged, or of a later version.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// There is no room for it in memory, and none elsewhere.
    #[error(transparent)]
    Cold(#[from] ColdFailed),
}
