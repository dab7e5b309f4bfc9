//! Loading a checkpoint: the newest version of every state, from the base and the deltas above it.
//!
//! Key group by key group, newest source first, each key once: memory holds the keys of one group at a time, whatever the size of the
//! job. A full delta hides everything older.
//!
//! ```text
//! group 0:  deltas of epoch 3000 ─▶ deltas of epoch 2000 ─▶ base      a key that was seen is skipped in what is older
//! group 1:  …
//! ```

use std::collections::HashSet;

use whisperer_schemas::{KeyHash, checkpoint::Cut, ids::KEY_GROUPS};

use super::{
    StateStore, States, StatesHead,
    base::all_full,
    error::{StoreError, damaged},
    resolve::{History, above, base_serves},
};

/// Reads every manifest of a store. One that cannot be read is part of the history; one of a later version is an error.
///
/// # Errors
/// What the store answers.
pub fn read_history(store: &dyn StateStore) -> Result<History, StoreError> {
    let mut entries = Vec::new();
    for number in store.manifests()? {
        match store.manifest(number) {
            Ok(manifest) => entries.push((number, Some(manifest))),
            Err(StoreError::Damaged { name, detail }) => {
                tracing::warn!(manifest = name, detail, "a manifest cannot be read");
                entries.push((number, None));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(History::new(entries))
}

/// The states of a checkpoint, opened and ready to be handed out.
pub struct Loading<'a> {
    /// Newest first; nothing in it is void as a whole.
    sources: Vec<Box<dyn States + 'a>>,
    layout: Vec<u8>,
}

impl<'a> Loading<'a> {
    /// Opens the states of `cut`. The store has been prepared for it.
    ///
    /// # Errors
    /// What the store answers, and states of several layouts.
    pub fn open(store: &'a dyn StateStore, cut: &Cut) -> Result<Loading<'a>, StoreError> {
        let sources = open_sources(store, cut)?;
        let mut layouts = sources.iter().filter(|states| !states.head().empty).map(|states| &states.head().layout);
        let layout =
            layouts.next().or(sources.first().map(|states| &states.head().layout)).cloned().unwrap_or_default();
        if layouts.any(|other| *other != layout) {
            let detail = "its deltas and its base hold states of different jobs";
            return Err(damaged(format!("the checkpoint of epoch {}", cut.epoch.0), detail));
        }
        Ok(Loading { sources, layout })
    }

    /// The layout of the states, of all of them.
    #[must_use]
    pub fn layout(&self) -> &[u8] {
        &self.layout
    }

    /// Hands every state of these key groups to `each`, the newest version of each, in the order of groups; gives how many there were.
    ///
    /// # Errors
    /// A file that is damaged, or what the store answers.
    pub fn states(
        &mut self,
        groups: &dyn Fn(u64) -> bool,
        each: &mut dyn FnMut(KeyHash, &[u8]),
    ) -> Result<u64, StoreError> {
        let (mut seen, mut states) = (HashSet::new(), 0);
        for group in (0..KEY_GROUPS).filter(|group| groups(*group)) {
            seen.clear();
            let oldest = self.sources.len().saturating_sub(1);
            for (at, source) in self.sources.iter_mut().enumerate() {
                source.scan(group, &mut |key, state| {
                    // What stands in the oldest source hides nothing.
                    let new = if at == oldest { !seen.contains(&key) } else { seen.insert(key) };
                    if let (true, Some(state)) = (new, state) {
                        states += 1;
                        each(key, state);
                    }
                })?;
            }
        }
        Ok(states)
    }
}

/// Opens deltas, newest first, down to the first epoch that is full, and the base unless one is.
fn open_sources<'a>(store: &'a dyn StateStore, cut: &Cut) -> Result<Vec<Box<dyn States + 'a>>, StoreError> {
    let base = store.base_states()?;
    let mut sources: Vec<Box<dyn States + 'a>> = Vec::new();
    let deltas = above(cut, base.head().epoch);
    for epoch in deltas.chunk_by(|one, other| one.epoch == other.epoch) {
        let from = sources.len();
        for file in epoch {
            sources.push(store.delta_states(file)?);
        }
        let heads: Vec<&StatesHead> = sources[from..].iter().map(|states| states.head()).collect();
        if all_full(epoch, &heads)? {
            return Ok(sources);
        }
    }
    if !base_serves(cut, base.head().epoch) {
        let detail = format!(
            "it holds everything up to {}, the checkpoint of epoch {} needs {}",
            base.head().epoch.0,
            cut.epoch.0,
            cut.base.epoch.0
        );
        return Err(damaged("the base", detail));
    }
    sources.push(base);
    Ok(sources)
}

/// Reads everything that a checkpoint needs and checks it; gives how many states it holds.
///
/// # Errors
/// What is missing or damaged first.
pub fn verify(store: &dyn StateStore, cut: &Cut) -> Result<u64, StoreError> {
    for file in cut.deltas.iter().chain(cut.rows.iter().filter(|file| !cut.deltas.contains(file))) {
        store.read_delta(file)?;
    }
    Loading::open(store, cut)?.states(&|_| true, &mut |_, _| {})
}
