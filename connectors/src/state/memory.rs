//! A state store in memory: the twin of those on disks, for tests and for jobs that are not to survive.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use whisperer_schemas::{
    Epoch, KeyHash, SchemaError,
    checkpoint::{Base, Checksum, Cut, Delta, FileFacts, Manifest},
};

use super::{
    StateStore, States, StatesHead,
    base::{NoStates, all_full},
    error::{StoreError, damaged},
    resolve::{base_serves, delta_name},
};

/// States by key group and key.
type ByKey = BTreeMap<(u64, KeyHash), Option<Bytes>>;

/// A store in memory; clones are the same store.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Contents>>);

#[derive(Debug)]
struct Contents {
    manifests: BTreeMap<u64, Manifest>,
    deltas: BTreeMap<String, (FileFacts, Delta)>,
    base: StatesHead,
    states: ByKey,
    control: BTreeMap<String, Vec<u8>>,
}

impl Default for Contents {
    fn default() -> Contents {
        let (manifests, deltas, control) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Contents { manifests, deltas, base: NoStates::head(), states: ByKey::new(), control }
    }
}

impl MemoryStore {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn delta(&self, file: &FileFacts) -> Result<&Delta, StoreError> {
        match self.deltas.get(&file.name) {
            Some((facts, delta)) if facts == file => Ok(delta),
            Some(_) => Err(damaged(&file.name, "it is not what the manifest says")),
            None => Err(damaged(&file.name, "it is missing")),
        }
    }

    /// The base after a merge.
    fn merged(&self, files: &[FileFacts], epoch: Epoch) -> Result<(StatesHead, ByKey), StoreError> {
        let (mut head, mut states) = (self.base.clone(), self.states.clone());
        let mut files: Vec<&FileFacts> = files.iter().collect();
        files.sort_by_key(|file| file.epoch);
        for same in files.chunk_by(|one, other| one.epoch == other.epoch) {
            let deltas = same.iter().map(|file| self.delta(file)).collect::<Result<Vec<_>, _>>()?;
            let heads: Vec<StatesHead> = deltas.iter().map(|delta| head_of(delta)).collect();
            if all_full(same, &heads.iter().collect::<Vec<_>>())? {
                states.clear();
                head.empty = true;
            }
            for (delta, file) in deltas.iter().zip(same).filter(|(delta, _)| !delta.states.is_empty()) {
                if !head.empty && head.layout != delta.layout {
                    return Err(StoreError::Layout { name: file.name.clone() });
                }
                (head.layout, head.empty) = (delta.layout.clone(), false);
                states.extend(by_key(delta));
            }
        }
        states.retain(|_, state| state.is_some());
        (head.epoch, head.empty) = (epoch, states.is_empty());
        Ok((head, states))
    }
}

fn head_of(delta: &Delta) -> StatesHead {
    let layout = delta.layout.clone();
    StatesHead { epoch: delta.epoch, layout, full: delta.full, empty: delta.states.is_empty() }
}

fn by_key(delta: &Delta) -> impl Iterator<Item = ((u64, KeyHash), Option<Bytes>)> {
    delta.states.iter().map(|(key, state)| ((key.group(), *key), state.clone()))
}

impl StateStore for MemoryStore {
    fn manifests(&self) -> Result<Vec<u64>, StoreError> {
        Ok(self.contents().manifests.keys().copied().collect())
    }

    fn manifest(&self, number: u64) -> Result<Manifest, StoreError> {
        let found = self.contents().manifests.get(&number).cloned();
        found.ok_or_else(|| damaged(format!("manifest {number}"), "it is missing"))
    }

    fn create_manifest(&self, manifest: &Manifest) -> Result<bool, StoreError> {
        let mut contents = self.contents();
        if contents.manifests.last_key_value().is_some_and(|(newest, _)| *newest >= manifest.number) {
            return Ok(false);
        }
        contents.manifests.insert(manifest.number, manifest.clone());
        Ok(true)
    }

    fn write_delta(&self, delta: &Delta, generation: u64) -> Result<FileFacts, StoreError> {
        let name = delta_name(delta.epoch, generation, delta.worker);
        let mut checksum = Checksum::default();
        let encoded = delta.encode::<SchemaError>(generation, &mut |out| {
            checksum.update(out);
            out.clear();
            Ok(())
        });
        encoded.map_err(|source| StoreError::States { doing: "write", name: name.clone(), source })?;
        let facts = checksum.facts(&name, delta.epoch);
        self.contents().deltas.insert(name, (facts.clone(), delta.clone()));
        Ok(facts)
    }

    fn read_delta(&self, file: &FileFacts) -> Result<Delta, StoreError> {
        self.contents().delta(file).cloned()
    }

    fn read_rest(&self, file: &FileFacts) -> Result<Delta, StoreError> {
        Ok(Delta { states: Vec::new(), ..self.read_delta(file)? })
    }

    fn delta_states(&self, file: &FileFacts) -> Result<Box<dyn States + '_>, StoreError> {
        let delta = self.read_delta(file)?;
        Ok(Box::new(MemoryStates { head: head_of(&delta), states: by_key(&delta).collect() }))
    }

    fn prepare(&self, cut: Option<&Cut>) -> Result<(), StoreError> {
        let mut contents = self.contents();
        match cut {
            None => (contents.base, contents.states) = (NoStates::head(), ByKey::new()),
            Some(cut) if base_serves(cut, contents.base.epoch) => {}
            Some(_) => return Err(damaged("the base", "it is not that of the checkpoint")),
        }
        Ok(())
    }

    fn merge(&self, deltas: &[FileFacts], epoch: Epoch) -> Result<(), StoreError> {
        let mut contents = self.contents();
        if epoch > contents.base.epoch {
            (contents.base, contents.states) = contents.merged(deltas, epoch)?;
        }
        Ok(())
    }

    fn base(&self) -> Result<Base, StoreError> {
        Ok(Base { epoch: self.contents().base.epoch, files: Vec::new() })
    }

    fn base_states(&self) -> Result<Box<dyn States + '_>, StoreError> {
        let contents = self.contents();
        Ok(Box::new(MemoryStates { head: contents.base.clone(), states: contents.states.clone() }))
    }

    fn files(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.contents().deltas.keys().cloned().collect())
    }

    fn control(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.contents().control.keys().cloned().collect())
    }

    fn read_control(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.contents().control.get(name).cloned())
    }

    fn create_control(&self, name: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        let mut contents = self.contents();
        let there = contents.control.entry(name.into()).or_insert_with(|| bytes.into());
        Ok(there == bytes)
    }

    fn remove_control(&self, names: &[String]) -> Result<(), StoreError> {
        let mut contents = self.contents();
        names.iter().for_each(|name| drop(contents.control.remove(name)));
        Ok(())
    }

    fn remove(&self, manifests: &[u64], files: &[String]) -> Result<(), StoreError> {
        let mut contents = self.contents();
        contents.manifests.retain(|number, _| !manifests.contains(number));
        contents.deltas.retain(|name, _| !files.contains(name));
        Ok(())
    }
}

struct MemoryStates {
    head: StatesHead,
    states: ByKey,
}

impl States for MemoryStates {
    fn head(&self) -> &StatesHead {
        &self.head
    }

    fn scan(&mut self, group: u64, each: &mut dyn FnMut(KeyHash, Option<&[u8]>)) -> Result<(), StoreError> {
        let range = (group, KeyHash(0))..=(group, KeyHash(u128::MAX));
        self.states.range(range).for_each(|((_, key), state)| each(*key, state.as_deref()));
        Ok(())
    }
}
