//! Checkpoints between runs: listing them, verifying them, and sending a job back to one of them.
//!
//! A job is sent back by claiming the next number for a generation that says it starts from the wanted checkpoint. What lies between is no
//! part of the job's history any more. A run that is still alive finds its next number taken and stops: the claim fences it.

use std::collections::BTreeMap;

use whisperer_connectors::state::{
    StateStore, StoreError, load,
    resolve::{self, History, Standing},
};
use whisperer_schemas::{
    Micros,
    checkpoint::{Cut, MANIFEST_VERSION, Manifest},
};

/// A manifest and what it is worth.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Its number.
    pub number: u64,
    /// What it is worth.
    pub standing: Standing,
    /// What it says, if it can be read.
    pub manifest: Option<Manifest>,
}

impl Listed {
    /// Bytes of the files that the checkpoint names.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let cut = self.manifest.as_ref().and_then(|manifest| manifest.cut.as_ref());
        let Some(cut) = cut else { return 0 };
        let rows = cut.rows.iter().filter(|file| !cut.deltas.contains(file));
        cut.deltas.iter().chain(rows).chain(&cut.base.files).map(|file| file.bytes).sum()
    }
}

/// All manifests of a store, ascending.
///
/// # Errors
/// What the store answers.
pub fn list(store: &dyn StateStore) -> Result<Vec<Listed>, StoreError> {
    let history = load::read_history(store)?;
    let listed = |(number, standing)| Listed { number, standing, manifest: history.manifest(number).cloned() };
    Ok(history.standings().into_iter().map(listed).collect())
}

/// A checkpoint that was read as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Its number.
    pub number: u64,
    /// States that it holds.
    pub states: u64,
}

/// Reads everything that checkpoint `number` needs and checks it; the newest one where none is named.
///
/// # Errors
/// What is missing or damaged first.
pub fn verify(store: &dyn StateStore, number: Option<u64>) -> Result<Option<Verified>, StoreError> {
    let history = load::read_history(store)?;
    let Some(manifest) = resolve::choose(&history, number)? else { return Ok(None) };
    let Some(cut) = &manifest.cut else { return Ok(None) };
    Ok(Some(Verified { number: manifest.number, states: load::verify(store, cut)? }))
}

/// Why a job cannot be sent back, besides what the store says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The number was claimed by someone else meanwhile.
    #[error("another process has claimed number {number} meanwhile: the job runs, or is being started; stop it first")]
    Taken {
        /// The number.
        number: u64,
    },
}

/// Makes the next run start from checkpoint `number`; gives the number of the claim. `now` is the wall clock.
///
/// # Errors
/// A checkpoint that cannot be restored, one that sinks have gone beyond unless their outputs shall be repeated, a job that runs.
pub fn restore(store: &dyn StateStore, number: u64, repeat_outputs: bool, now: Micros) -> Result<u64, RestoreError> {
    let history = load::read_history(store)?;
    let chosen = resolve::choose(&history, Some(number))?;
    let Some(manifest) = chosen.filter(|manifest| manifest.cut.is_some()) else {
        let why = "there is no such checkpoint".to_owned();
        return Err(StoreError::NotRestorable { number, why }.into());
    };
    resolve::check_outputs(&history, number, &recorded(&history, manifest), repeat_outputs)?;
    // Deltas may be whole while the base is not: what cannot be loaded is better known before the claim.
    if let Some(cut) = &manifest.cut {
        load::verify(store, cut)?;
    }
    let (claim, generation) = resolve::next_claim(&history);
    let claim = Manifest {
        version: MANIFEST_VERSION,
        number: claim,
        generation,
        written: now,
        restored: Some(number),
        cut: None,
        ..manifest.clone()
    };
    if store.create_manifest(&claim)? { Ok(claim.number) } else { Err(RestoreError::Taken { number: claim.number }) }
}

/// The tables that have rows which checkpoint `from` does not know of, with the newest checkpoint that does. Rows that are out and not in
/// any checkpoint are not repeated by any restart: sinks read on from where the newest one left them.
fn recorded(history: &History, from: &Manifest) -> BTreeMap<String, u64> {
    let newest = history.live().first().and_then(|number| history.manifest(*number));
    let cuts = newest.and_then(|newest| Some((newest.number, newest.cut.as_ref()?, from.cut.as_ref()?)));
    let Some((number, newest, from)) = cuts else { return BTreeMap::new() };
    let beyond = |(table, digest): (&String, &_)| from.digests.get(table) != Some(digest);
    let tables = newest.digests.iter().filter(|entry| beyond(*entry));
    tables.map(|(table, _)| (table.clone(), number)).collect()
}

/// The checkpoint that the next run starts from.
///
/// # Errors
/// What the store answers.
pub fn newest(store: &dyn StateStore) -> Result<Option<(Manifest, Cut)>, StoreError> {
    let history = load::read_history(store)?;
    let manifest = resolve::choose(&history, None)?;
    Ok(manifest.and_then(|manifest| Some((manifest.clone(), manifest.cut.clone()?))))
}

/// The layout of a checkpoint's states. Its newest delta knows it; the base, which a running job holds, is asked only without one.
///
/// # Errors
/// What the store answers.
pub fn layout(store: &dyn StateStore, cut: &Cut) -> Result<Vec<u8>, StoreError> {
    let newest = cut.deltas.iter().max_by_key(|delta| delta.epoch);
    let states = match newest {
        Some(delta) => store.delta_states(delta)?,
        None => store.base_states()?,
    };
    Ok(states.head().layout.clone())
}
