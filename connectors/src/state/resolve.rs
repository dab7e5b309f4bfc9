//! What to do about checkpoints, decided from facts already read: which one to restore, which number to claim, what may be merged and
//! what may go. No disk, no clock.
//!
//! ```text
//! 1 claim ── 2 ── 3 ── 4                      generation 1 dies
//!                      └── 5 claim ── 6 ── 7  generation 2 starts from 4 …
//!                 └────────────────────────── 8 claim ── 9   … and the user sends generation 3 back to 3: 4, 6 and 7 are abandoned
//! ```
//! Invariants:
//! 1. The numbers of a generation are consecutive, from its claim on: a process whose create fails stops.
//! 2. Along the live line (here 9, 3, 2) epochs ascend. It is walked from the newest manifest back: a checkpoint follows the number
//!    before it, a claim follows the checkpoint that it says it was restored from.
//! 3. The base holds only what belongs to every checkpoint that is there, so each of them can be restored.
//! 4. A file that a kept manifest names is kept. The newest manifest and the newest claim are kept whatever happens: a process of an older
//!    generation that wakes up must find its next number taken, or a larger one.

use std::collections::{BTreeMap, BTreeSet};

use whisperer_schemas::{
    Epoch,
    checkpoint::{Base, Cut, FileFacts, Manifest},
};

use super::error::{StoreError, damaged};

/// Folder of delta files, in a state folder and on a remote store.
pub const DELTAS: &str = "deltas";
/// Folder of the base, in a state folder and on a remote store.
pub const BASE: &str = "base";

/// All manifests of a store.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// By number; none where one is there but cannot be read.
    entries: BTreeMap<u64, Option<Manifest>>,
}

/// What a manifest is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It claims its number for a generation.
    Claim,
    /// A checkpoint on the live line.
    Live,
    /// A checkpoint that a later generation did not start from; it can still be restored.
    Abandoned,
    /// It cannot be read.
    Damaged,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Live checkpoints that can be restored; at least one.
    pub checkpoints: usize,
    /// Checkpoints that gather above the base before they are merged into it: each merge writes every state that it touches again.
    pub merge_from: usize,
}

impl Retention {
    /// The last checkpoint alone, everything before it merged.
    pub const LAST: Retention = Retention { checkpoints: 1, merge_from: 1 };
}

/// What to merge into the base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// Delta files, oldest first.
    pub deltas: Vec<FileFacts>,
    /// What the base holds everything up to, afterwards.
    pub epoch: Epoch,
}

/// What to remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Numbers of manifests, oldest first.
    pub manifests: Vec<u64>,
    /// Names of files.
    pub files: Vec<String>,
}

impl History {
    /// The history that these manifests tell; none where one cannot be read.
    pub fn new(entries: impl IntoIterator<Item = (u64, Option<Manifest>)>) -> History {
        History { entries: entries.into_iter().collect() }
    }

    /// Adds a manifest that was just created.
    pub fn add(&mut self, manifest: Manifest) {
        self.entries.insert(manifest.number, Some(manifest));
    }

    /// Forgets manifests that were removed.
    pub fn forget(&mut self, numbers: &[u64]) {
        self.entries.retain(|number, _| !numbers.contains(number));
    }

    /// A manifest, if it is there and can be read.
    #[must_use]
    pub fn manifest(&self, number: u64) -> Option<&Manifest> {
        self.entries.get(&number)?.as_ref()
    }

    fn cut(&self, number: u64) -> Option<&Cut> {
        self.manifest(number)?.cut.as_ref()
    }

    /// Every number with what it is worth, ascending.
    #[must_use]
    pub fn standings(&self) -> Vec<(u64, Standing)> {
        let live: BTreeSet<u64> = self.live().into_iter().collect();
        let standing = |number: &u64, manifest: &Option<Manifest>| match manifest {
            None => Standing::Damaged,
            Some(Manifest { cut: None, .. }) => Standing::Claim,
            Some(_) if live.contains(number) => Standing::Live,
            Some(_) => Standing::Abandoned,
        };
        self.entries.iter().map(|(number, manifest)| (*number, standing(number, manifest))).collect()
    }

    /// The numbers of the live checkpoints, newest first, as far back as the manifests reach.
    #[must_use]
    pub fn live(&self) -> Vec<u64> {
        self.entries.last_key_value().map_or_else(Vec::new, |(newest, _)| self.line(*newest))
    }

    /// The checkpoints that lead to a manifest, newest first, itself among them if it is one.
    fn line(&self, number: u64) -> Vec<u64> {
        let mut line = Vec::new();
        let mut next = Some(number);
        while let Some(manifest) = next.and_then(|number| self.manifest(number)) {
            next = if manifest.cut.is_some() {
                line.push(manifest.number);
                let before = manifest.number.checked_sub(1).and_then(|number| self.manifest(number));
                before.filter(|before| before.generation == manifest.generation).map(|before| before.number)
            } else {
                // A claim looks back; one that does not is damaged in a way that no checksum sees, and would be walked for ever.
                manifest.restored.filter(|restored| *restored < manifest.number)
            };
        }
        line
    }

    /// Manifests that are kept: as many live checkpoints as `retention` says, and what came after the oldest of them, but for abandoned
    /// checkpoints that do not descend from it. Everything where there are fewer.
    fn kept(&self, retention: Retention) -> BTreeSet<u64> {
        let Some(oldest) = self.live().get(retention.checkpoints.max(1) - 1).copied() else {
            return self.entries.keys().copied().collect();
        };
        let claim = |manifest: &Option<Manifest>| manifest.as_ref().is_some_and(|manifest| manifest.cut.is_none());
        let newest_claim = self.entries.iter().rev().find(|(_, manifest)| claim(manifest)).map(|(number, _)| *number);
        let descends = |number: u64| self.cut(number).is_none() || self.line(number).contains(&oldest);
        let kept = |number: &u64| Some(*number) == newest_claim || (*number >= oldest && descends(*number));
        self.entries.keys().copied().filter(kept).collect()
    }

    /// The generation that writes at present: that of the newest manifest.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        self.entries.last_key_value().and_then(|(_, manifest)| Some(manifest.as_ref()?.generation))
    }
}

/// The checkpoint to start from: `wanted`, or the newest live one; none where there is none yet.
///
/// # Errors
/// A number that names no checkpoint, and a newest manifest that cannot be read: it may be the claim that abandons what lies before it.
pub fn choose(history: &History, wanted: Option<u64>) -> Result<Option<&Manifest>, StoreError> {
    let Some(number) = wanted else {
        return match history.entries.last_key_value() {
            Some((number, None)) => Err(unreadable(history, *number)),
            _ => newest(history),
        };
    };
    match history.entries.get(&number) {
        Some(Some(manifest)) if manifest.cut.is_some() => Ok(Some(manifest)),
        Some(Some(_)) => Err(refused(history, number, "it only claims its number for a generation")),
        Some(None) => Err(refused(history, number, "its manifest cannot be read")),
        None => Err(refused(history, number, "there is no such checkpoint")),
    }
}

/// The newest live checkpoint. That the line ends in a manifest which is gone or unreadable is an error: to begin anew would lose everything.
fn newest(history: &History) -> Result<Option<&Manifest>, StoreError> {
    if let Some(number) = history.live().first() {
        return Ok(history.manifest(*number));
    }
    let claims = history.entries.values().rev().map_while(|manifest| manifest.as_ref()?.restored);
    match claims.last() {
        Some(number) => {
            Err(refused(history, number, "the newest generation started from it, and it cannot be read any more"))
        }
        None => Ok(None),
    }
}

fn unreadable(history: &History, number: u64) -> StoreError {
    let detail = format!("the newest manifest cannot be read; {}", restorable(history));
    damaged(format!("manifest {number}"), detail)
}

fn refused(history: &History, number: u64, why: &str) -> StoreError {
    StoreError::NotRestorable { number, why: format!("{why}; {}", restorable(history)) }
}

fn restorable(history: &History) -> String {
    let numbers = history.entries.keys().filter(|number| history.cut(**number).is_some());
    let numbers: Vec<String> = numbers.map(u64::to_string).collect();
    if numbers.is_empty() { "none can".into() } else { format!("these can: {}", numbers.join(", ")) }
}

/// The number that a new generation claims, and the generation.
#[must_use]
pub fn next_claim(history: &History) -> (u64, u64) {
    let number = history.entries.last_key_value().map_or(0, |(number, _)| *number) + 1;
    let known = history.entries.values().flatten().map(|manifest| manifest.generation).max().unwrap_or(0);
    // Each manifest that cannot be read may be the claim of one more generation.
    let unknown = history.entries.values().filter(|manifest| manifest.is_none()).count() as u64;
    (number, known + unknown + 1)
}

/// Refuses to start from checkpoint `number` where a sink has recorded a later one, unless its outputs shall be repeated, or a generation
/// was already told to repeat them.
///
/// # Errors
/// The sink that would repeat outputs.
pub fn check_outputs(
    history: &History,
    number: u64,
    recorded: &BTreeMap<String, u64>,
    repeat_outputs: bool,
) -> Result<(), StoreError> {
    let accepted = |recorded: u64| {
        let later = history.entries.range(recorded + 1..).filter_map(|(_, manifest)| manifest.as_ref());
        later.filter(|manifest| manifest.cut.is_none()).any(|claim| claim.restored.unwrap_or(0) <= number)
    };
    match recorded.iter().find(|(_, recorded)| **recorded > number && !accepted(**recorded)) {
        Some((sink, recorded)) if !repeat_outputs => {
            Err(StoreError::Repeats { number, recorded: *recorded, sink: sink.clone() })
        }
        _ => Ok(()),
    }
}

/// The deltas of a cut that come on top of a base that holds everything up to `base`, newest first.
#[must_use]
pub fn above(cut: &Cut, base: Epoch) -> Vec<&FileFacts> {
    let mut deltas: Vec<&FileFacts> = cut.deltas.iter().filter(|delta| delta.epoch > base).collect();
    deltas.sort_by_key(|delta| std::cmp::Reverse(delta.epoch));
    deltas
}

/// Whether a base that holds everything up to `base` serves to restore a cut.
#[must_use]
pub fn base_serves(cut: &Cut, base: Epoch) -> bool {
    (cut.base.epoch..=cut.epoch).contains(&base)
}

/// What may be merged into `base`, the one that is there: deltas up to a checkpoint that all others which are there descend from, and of
/// those only such as belong to a checkpoint whose outputs are out. `published` is its number; none where nothing is. What [`removable`]
/// tells is removed, and forgotten by the history, before: as long as a manifest is there, somebody may restore it.
#[must_use]
pub fn mergeable(history: &History, base: &Base, retention: Retention, published: Option<u64>) -> Option<Merge> {
    let numbers = history.entries.keys().filter(|number| history.cut(**number).is_some());
    let lines: Vec<Vec<u64>> = numbers.map(|number| history.line(*number)).collect();
    let merged = |number: &u64| Some(*number) <= published && lines.iter().all(|line| line.contains(number));
    let cut = history.live().into_iter().find(merged).and_then(|number| history.cut(number))?;
    if cut.epoch <= base.epoch || !base_serves(cut, base.epoch) {
        return None;
    }
    let mut deltas: Vec<FileFacts> = above(cut, base.epoch).into_iter().cloned().collect();
    deltas.reverse();
    let epochs: BTreeSet<Epoch> = deltas.iter().map(|delta| delta.epoch).collect();
    (epochs.len() >= retention.merge_from).then_some(Merge { deltas, epoch: cut.epoch })
}

/// What nothing needs any more. `generation` is that of the caller, `files` all names that the store tells of; nothing goes when another
/// generation has taken over.
#[must_use]
pub fn removable(history: &History, generation: u64, retention: Retention, files: &[String]) -> Removal {
    if history.generation() != Some(generation) {
        return Removal::default();
    }
    let kept = history.kept(retention);
    let manifests = history.entries.keys().filter(|number| !kept.contains(number)).copied().collect();
    // Nobody knows what a manifest needs that cannot be read.
    let readable = kept.iter().all(|number| history.manifest(*number).is_some());
    let named: BTreeSet<&str> = kept.iter().filter_map(|number| history.cut(*number)).flat_map(names).collect();
    let gone = |name: &&String| readable && !named.contains(name.as_str()) && dead(history, generation, name);
    Removal { manifests, files: files.iter().filter(gone).cloned().collect() }
}

fn names(cut: &Cut) -> impl Iterator<Item = &str> {
    cut.deltas.iter().chain(&cut.rows).chain(&cut.base.files).map(|file| file.name.as_str())
}

/// Whether a file that no manifest names will not be named by the next one either. A delta whose checkpoint is under way is named soon.
fn dead(history: &History, generation: u64, name: &str) -> bool {
    if name.strip_prefix(BASE).is_some_and(|rest| rest.starts_with('/')) {
        return true;
    }
    let Some((epoch, writer, _)) = parse_delta_name(name) else { return false };
    let committed = history.entries.values().rev().flatten().find(|manifest| manifest.generation == generation);
    let committed = committed.and_then(|manifest| manifest.cut.as_ref()).map(|cut| cut.epoch);
    writer < generation || (writer == generation && committed.is_some_and(|committed| epoch <= committed))
}

/// The name of a delta file: it holds the epoch, so that names sort by age, the generation, so that no two ever write the same file,
/// and the worker.
#[must_use]
pub fn delta_name(epoch: Epoch, generation: u64, worker: u32) -> String {
    format!("{DELTAS}/{:020}-{generation:010}-{worker:05}.delta", epoch.0)
}

/// Epoch, generation and worker of a delta file, from its name.
#[must_use]
pub fn parse_delta_name(name: &str) -> Option<(Epoch, u64, u32)> {
    let stem = name.strip_prefix(DELTAS)?.strip_prefix('/')?.strip_suffix(".delta")?;
    let mut parts = stem.split('-');
    let (epoch, generation, worker) = (parts.next()?, parts.next()?, parts.next()?);
    let parsed = (Epoch(epoch.parse().ok()?), generation.parse().ok()?, worker.parse().ok()?);
    (parts.next().is_none() && delta_name(parsed.0, parsed.1, parsed.2) == name).then_some(parsed)
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
