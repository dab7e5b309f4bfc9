//! The rules that every state store keeps, as checks for tests: `memory` first, then all others.
//!
//! 1. A manifest is created once: its number, and every smaller one, is taken from then on. It is read as it was written.
//! 2. A delta is read as it was written, whole, without its states, and by key group; one that is missing or other than its facts is damage.
//! 3. The base holds the newest version of every state that was merged. Merging again, or less, changes nothing. Full deltas replace it;
//!    another layout without full deltas is refused.
//! 4. What starts from nothing finds an empty base; a checkpoint that lies before the base is refused.
//! 5. Removing twice is no error, and what is removed is not listed.
//! 6. What was written is there when the store is opened again.
//! 7. A record of the control log is created once, by anybody; another one of that name is refused, the same is not.
//! 8. Whatever the sequence of checkpoints, merges and removals: every checkpoint that is kept loads as it was taken.

use std::collections::BTreeMap;

use bytes::Bytes;
use whisperer_schemas::{
    Epoch, KeyHash, Micros,
    checkpoint::{Base, Cut, Delta, FileFacts, MANIFEST_VERSION, Manifest},
    ids::KEY_GROUPS,
};

use super::{
    Loading, Role, StateStore, StatesHead, StoreError,
    load::{read_history, verify},
    resolve::{self, Retention},
};

/// Opens the store under test, always the same one; what was opened before is closed by then, or open as a member.
pub type Open<'a> = &'a dyn Fn(Role) -> Box<dyn StateStore>;

/// States by key.
pub type Model = BTreeMap<KeyHash, Vec<u8>>;

/// Checks a store that is empty.
///
/// # Panics
/// Where the store breaks a rule.
pub fn check(open: Open<'_>) {
    check_manifests(open);
    check_deltas(open);
    let base = check_base(open);
    check_preparing(open, &base);
    check_removal(open);
    check_control(open);
    clear(open);
    check_life(open, 0x5eed);
}

fn clear(open: Open<'_>) {
    let store = open(Role::Coordinator);
    let (manifests, files) = (store.manifests().expect("listed"), store.files().expect("listed"));
    store.remove(&manifests, &files).expect("removed");
    store.prepare(None).expect("emptied");
}

/// A manifest; with a cut where it is a checkpoint.
#[must_use]
pub fn manifest(number: u64, generation: u64, cut: Option<Cut>) -> Manifest {
    Manifest {
        version: MANIFEST_VERSION,
        number,
        generation,
        job: "conformance".into(),
        job_version: 1,
        fingerprint: "f".into(),
        written: number as Micros,
        restored: None,
        cut,
    }
}

/// A key of a group.
#[must_use]
pub fn key(group: u64, low: u64) -> KeyHash {
    KeyHash(u128::from(group % KEY_GROUPS) << 64 | u128::from(low))
}

/// A delta of these states.
#[must_use]
pub fn delta(epoch: u64, worker: u32, states: &[(KeyHash, Option<&[u8]>)]) -> Delta {
    let mut states: Vec<_> = states.iter().map(|(key, state)| (*key, state.map(Bytes::copy_from_slice))).collect();
    states.sort_by_key(|(key, _)| (key.group(), *key));
    let parts = BTreeMap::from([("timers".into(), epoch.to_le_bytes().to_vec())]);
    let outbox = BTreeMap::from([("decisions".into(), vec![worker as u8; 3])]);
    Delta { epoch: Epoch(epoch), worker, layout: b"one".to_vec(), full: false, states, parts, outbox }
}

fn check_manifests(open: Open<'_>) {
    let store = open(Role::Coordinator);
    assert_eq!(store.manifests().expect("listed"), [0_u64; 0]);
    assert!(matches!(store.manifest(1), Err(StoreError::Damaged { .. })), "a manifest that is not there");
    let cut = Cut { epoch: Epoch(7), positions: BTreeMap::from([(0, 9)]), ..Cut::default() };
    let written = [manifest(1, 1, None), manifest(2, 1, Some(cut)), manifest(4, 2, None)];
    for manifest in &written {
        assert!(store.create_manifest(manifest).expect("created"), "{}", manifest.number);
        assert!(!store.create_manifest(manifest).expect("refused"), "{} again", manifest.number);
    }
    assert!(!store.create_manifest(&manifest(3, 1, None)).expect("refused"), "a smaller number is taken");
    drop(store);
    let store = open(Role::Reader);
    assert_eq!(store.manifests().expect("listed"), [1, 2, 4]);
    for manifest in written {
        assert_eq!(store.manifest(manifest.number).expect("readable"), manifest);
    }
}

fn check_deltas(open: Open<'_>) {
    let store = open(Role::Coordinator);
    let states: [(KeyHash, Option<&[u8]>); 4] =
        [(key(0, 1), Some(b"zero")), (key(9, 1), None), (key(9, 2), Some(b"")), (key(255, 0), Some(b"last"))];
    let written = delta(100, 0, &states);
    let facts = store.write_delta(&written, 1).expect("written");
    let other = store.write_delta(&delta(100, 1, &[]), 1).expect("written");
    assert_eq!(facts.epoch, Epoch(100));
    drop(store);
    let store = open(Role::Reader);
    assert_eq!(store.files().expect("listed"), [facts.name.clone(), other.name.clone()]);
    assert_eq!(store.read_delta(&facts).expect("readable"), written);
    assert_eq!(store.read_rest(&facts).expect("readable"), Delta { states: Vec::new(), ..written.clone() });
    let mut read = store.delta_states(&facts).expect("readable");
    let head = StatesHead { epoch: Epoch(100), layout: b"one".to_vec(), full: false, empty: false };
    assert_eq!(*read.head(), head);
    let mut seen = Vec::new();
    for group in [9, 0, 3] {
        read.scan(group, &mut |key, state| seen.push((key, state.map(<[u8]>::to_vec)))).expect("readable");
    }
    let state = |at: usize| (states[at].0, states[at].1.map(<[u8]>::to_vec));
    assert_eq!(seen, [state(1), state(2), state(0)]);
    assert!(store.delta_states(&other).expect("readable").head().empty);
    let missing = FileFacts { name: resolve::delta_name(Epoch(5), 1, 0), ..facts.clone() };
    let longer = FileFacts { bytes: facts.bytes + 1, ..facts.clone() };
    let else_where = FileFacts { xxh3: other.xxh3, ..facts };
    for wrong in [missing, longer, else_where] {
        assert!(matches!(store.read_delta(&wrong), Err(StoreError::Damaged { .. })), "{wrong:?}");
    }
}

fn write(store: &dyn StateStore, delta: &Delta) -> FileFacts {
    store.write_delta(delta, 1).expect("written")
}

fn base_model(store: &dyn StateStore) -> Model {
    let mut model = Model::new();
    let mut states = store.base_states().expect("readable");
    for group in 0..KEY_GROUPS {
        let each = &mut |key: KeyHash, state: Option<&[u8]>| {
            assert_eq!(key.group(), group);
            assert_eq!(model.insert(key, state.expect("the base holds no removals").to_vec()), None, "{key:?} twice");
        };
        states.scan(group, each).expect("readable");
    }
    assert_eq!(states.head().empty, model.is_empty());
    model
}

/// Gives the base as it is at the end.
fn check_base(open: Open<'_>) -> Base {
    let store = open(Role::Coordinator);
    let store = store.as_ref();
    assert_eq!(store.base().expect("readable").epoch, Epoch(0));
    assert!(base_model(store).is_empty());
    let (one, two, three) = (key(0, 1), key(255, 2), key(7, 3));
    let first = write(store, &delta(110, 0, &[(one, Some(b"1")), (two, Some(b"2"))]));
    let beside = write(store, &delta(110, 1, &[(three, Some(b"3"))]));
    let second = write(store, &delta(120, 0, &[(one, Some(b"1+")), (two, None)]));
    store.merge(&[first.clone(), beside.clone()], Epoch(110)).expect("merged");
    assert_eq!(base_model(store), Model::from([(one, b"1".to_vec()), (two, b"2".to_vec()), (three, b"3".to_vec())]));
    let all = [first.clone(), beside.clone(), second];
    let merged = Model::from([(one, b"1+".to_vec()), (three, b"3".to_vec())]);
    for (deltas, epoch) in [(&all[..], 120), (&all[..], 120), (&all[..2], 110)] {
        store.merge(deltas, Epoch(epoch)).expect("merged");
        assert_eq!(base_model(store), merged);
        assert_eq!(store.base().expect("readable").epoch, Epoch(120));
    }
    check_layouts(store, &merged, three);
    let kept = base_model(store);
    let cut = Cut { epoch: Epoch(140), base: store.base().expect("readable"), ..Cut::default() };
    let reader = open(Role::Reader);
    reader.prepare(Some(&cut)).expect("prepared");
    assert_eq!(base_model(reader.as_ref()), kept, "another process reads the base");
    cut.base
}

fn check_layouts(store: &dyn StateStore, merged: &Model, key: KeyHash) {
    let changed = Delta { layout: b"two".to_vec(), ..delta(130, 0, &[(key, Some(b"two"))]) };
    let refused = write(store, &changed);
    assert!(matches!(store.merge(&[refused], Epoch(130)), Err(StoreError::Layout { .. })));
    assert_eq!(base_model(store), *merged, "a merge that was refused changes nothing");
    let full = write(store, &Delta { full: true, worker: 1, ..changed.clone() });
    let partial = write(store, &changed);
    assert!(matches!(store.merge(&[full, partial], Epoch(130)), Err(StoreError::Damaged { .. })), "full and not");
    // The full delta of epoch 130 hides the one before it; the one after it comes on top.
    let before = write(store, &delta(125, 0, &[(key, Some(b"old")), (self::key(1, 1), Some(b"old"))]));
    let full = write(store, &Delta { full: true, ..changed.clone() });
    let after =
        Delta { epoch: Epoch(140), states: vec![(self::key(2, 2), Some(Bytes::from_static(b"new")))], ..changed };
    let after = write(store, &after);
    store.merge(&[before, full, after], Epoch(140)).expect("merged");
    assert_eq!(base_model(store), Model::from([(key, b"two".to_vec()), (self::key(2, 2), b"new".to_vec())]));
    assert_eq!(store.base_states().expect("readable").head().layout, b"two");
}

fn check_preparing(open: Open<'_>, base: &Base) {
    let cut = Cut { epoch: Epoch(base.epoch.0 + 5), base: base.clone(), ..Cut::default() };
    let before = Cut { epoch: Epoch(base.epoch.0 - 1), ..Cut::default() };
    let store = open(Role::Coordinator);
    store.prepare(Some(&cut)).expect("prepared");
    assert_eq!(store.base().expect("readable"), *base);
    let states = base_model(store.as_ref());
    assert!(!states.is_empty());
    // A remote store may have a base that fits; one that does not fit is never used.
    if store.prepare(Some(&before)).is_ok() {
        assert!(base_model(store.as_ref()).is_empty(), "a base that holds what the checkpoint does not");
    }
    drop(store);
    let store = open(Role::Coordinator);
    store.prepare(Some(&cut)).expect("prepared");
    assert_eq!(base_model(store.as_ref()), states);
    store.prepare(None).expect("emptied");
    assert_eq!(store.base().expect("readable"), Base::default());
    assert!(base_model(store.as_ref()).is_empty());
}

fn check_removal(open: Open<'_>) {
    let store = open(Role::Coordinator);
    let (manifests, files) = (store.manifests().expect("listed"), store.files().expect("listed"));
    assert!(manifests.len() > 1 && files.len() > 1);
    for _ in 0..2 {
        store.remove(&manifests[1..], &files[1..]).expect("removed");
        assert_eq!(store.manifests().expect("listed"), manifests[..1]);
        assert_eq!(store.files().expect("listed"), files[..1]);
    }
}

/// Rule 7: a job's life, from `seed`.
fn check_control(open: Open<'_>) {
    let (store, reader) = (open(Role::Coordinator), open(Role::Reader));
    assert_eq!(store.control().expect("listed"), Vec::<String>::new());
    assert_eq!(store.read_control("request-1").expect("read"), None);
    assert!(reader.create_control("request-1", b"one").expect("created"));
    assert!(store.create_control("request-1", b"one").expect("the same"));
    assert!(!store.create_control("request-1", b"two").expect("refused"));
    assert!(store.create_control("entry-1", b"").expect("created"));
    drop((store, reader));
    let store = open(Role::Coordinator);
    assert_eq!(store.control().expect("listed"), ["entry-1", "request-1"]);
    assert_eq!(store.read_control("request-1").expect("read").as_deref(), Some(&b"one"[..]));
    let names = ["request-1".to_owned(), "entry-1".to_owned()];
    store.remove_control(&names).expect("removed");
    store.remove_control(&names).expect("removed already");
    assert_eq!(store.control().expect("listed"), Vec::<String>::new());
}

fn check_life(open: Open<'_>, seed: u64) {
    let mut random = Random(seed);
    let mut life = Life::default();
    for generation in 0..6 {
        let store = open(Role::Coordinator);
        // Two generations are sent back: to the checkpoint before the newest, then to one that was abandoned thereby.
        let history = read_history(store.as_ref()).expect("readable");
        let newest_but = |count: usize| {
            life.taken.keys().rev().copied().filter(|number| history.manifest(*number).is_some()).nth(count)
        };
        let wanted = if generation == 3 { history.live().get(1).copied() } else { None };
        let wanted = if generation == 4 { newest_but(0) } else { wanted };
        life.start(store.as_ref(), wanted, &mut random);
        for _ in 0..7 {
            life.checkpoint(store.as_ref(), &mut random);
            life.tidy(store.as_ref());
            assert!(life.history.live().len() <= RETENTION.checkpoints, "no more than are to be kept");
            life.check_kept(store.as_ref());
        }
        // Written, and never committed.
        life.change(&mut random);
        life.write(store.as_ref());
    }
}

/// Checkpoints that can be restored, and merges of at least this many: both come often in a short life.
const RETENTION: Retention = Retention { checkpoints: 3, merge_from: 2 };

/// A coordinating process with a few keys and two workers.
#[derive(Debug, Default)]
pub struct Life {
    /// States now, and the keys that changed since the last checkpoint.
    states: Model,
    dirty: BTreeMap<KeyHash, ()>,
    full: bool,
    layout: Vec<u8>,
    generation: u64,
    epoch: u64,
    deltas: Vec<FileFacts>,
    /// States of every checkpoint that was taken and not removed.
    pub taken: BTreeMap<u64, Model>,
    history: resolve::History,
}

impl Life {
    /// Starts a generation from a checkpoint, the newest if none is `wanted`; checks what is loaded.
    pub fn start(&mut self, store: &dyn StateStore, wanted: Option<u64>, random: &mut Random) {
        self.try_start(store, wanted, random).expect("the store starts");
    }

    /// The same where the store may fail.
    ///
    /// # Errors
    /// What the store answers.
    pub fn try_start(
        &mut self,
        store: &dyn StateStore,
        wanted: Option<u64>,
        random: &mut Random,
    ) -> Result<(), StoreError> {
        self.history = read_history(store)?;
        let chosen = resolve::choose(&self.history, wanted)?.cloned();
        let (number, generation) = resolve::next_claim(&self.history);
        let restored = chosen.as_ref().map(|manifest| manifest.number);
        let claim = Manifest { restored, ..manifest(number, generation, None) };
        assert!(store.create_manifest(&claim)?, "nobody else claims");
        self.history.add(claim);
        let cut = chosen.and_then(|manifest| manifest.cut);
        store.prepare(cut.as_ref())?;
        self.states.clear();
        self.layout = b"one".to_vec();
        if let Some(cut) = &cut {
            let mut loading = Loading::open(store, cut)?;
            self.layout = loading.layout().to_vec();
            let each = &mut |key, state: &[u8]| {
                assert_eq!(self.states.insert(key, state.to_vec()), None, "{key:?} twice");
            };
            loading.states(&|_| true, each)?;
        }
        (self.generation, self.deltas) = (generation, cut.as_ref().map_or_else(Vec::new, |cut| cut.deltas.clone()));
        // Rolled back or not: epochs go on from the checkpoint, as those of a backfill do.
        self.epoch = cut.map_or(0, |cut| cut.epoch.0);
        self.dirty.clear();
        // Some generations are of a changed job.
        self.full = random.below(3) == 0;
        if self.full {
            self.layout = format!("layout of generation {generation}").into_bytes();
        }
        Ok(())
    }

    /// Changes some states.
    pub fn change(&mut self, random: &mut Random) {
        self.epoch += 10;
        for _ in 0..random.below(12) {
            let key = key(random.below(5) * 51, random.below(6));
            self.dirty.insert(key, ());
            if random.below(4) == 0 {
                self.states.remove(&key);
            } else {
                let state = vec![random.below(256) as u8; random.below(40) as usize];
                self.states.insert(key, state);
            }
        }
    }

    fn write(&mut self, store: &dyn StateStore) -> Vec<FileFacts> {
        self.try_write(store).expect("written")
    }

    /// Writes the deltas of two workers.
    ///
    /// # Errors
    /// What the store answers.
    pub fn try_write(&mut self, store: &dyn StateStore) -> Result<Vec<FileFacts>, StoreError> {
        let keys = if self.full {
            self.states.keys().copied().collect()
        } else {
            self.dirty.keys().copied().collect::<Vec<_>>()
        };
        let states: Vec<_> = keys.iter().map(|key| (*key, self.states.get(key).map(Vec::as_slice))).collect();
        let write = |worker: u32| {
            let own: Vec<_> = states.iter().filter(|(key, _)| key.group() % 2 == u64::from(worker)).copied().collect();
            let written = Delta { full: self.full, layout: self.layout.clone(), ..delta(self.epoch, worker, &own) };
            store.write_delta(&written, self.generation)
        };
        let written = [write(0)?, write(1)?];
        Ok(written.to_vec())
    }

    fn checkpoint(&mut self, store: &dyn StateStore, random: &mut Random) {
        self.change(random);
        assert!(self.try_checkpoint(store).expect("the store writes"), "nobody else commits");
    }

    /// Takes a checkpoint of what was changed; whether it is committed.
    ///
    /// # Errors
    /// What the store answers.
    pub fn try_checkpoint(&mut self, store: &dyn StateStore) -> Result<bool, StoreError> {
        let written = self.try_write(store)?;
        let base = store.base()?;
        let mut deltas: Vec<FileFacts> = self.deltas.iter().filter(|file| file.epoch > base.epoch).cloned().collect();
        deltas.extend(written);
        let cut = Cut { epoch: Epoch(self.epoch), workers: 2, base, deltas: deltas.clone(), ..Cut::default() };
        let (number, _) = resolve::next_claim(&self.history);
        let manifest = manifest(number, self.generation, Some(cut));
        // It may be there even where creating it fails.
        self.taken.insert(number, self.states.clone());
        if !store.create_manifest(&manifest)? {
            return Ok(false);
        }
        self.history.add(manifest);
        (self.full, self.deltas) = (false, deltas);
        self.dirty.clear();
        Ok(true)
    }

    fn tidy(&mut self, store: &dyn StateStore) {
        self.try_tidy(store).expect("the store merges and removes");
    }

    /// Removes and merges what may be.
    ///
    /// # Errors
    /// What the store answers.
    pub fn try_tidy(&mut self, store: &dyn StateStore) -> Result<(), StoreError> {
        let removal = resolve::removable(&self.history, self.generation, RETENTION, &store.files()?);
        store.remove(&removal.manifests, &removal.files)?;
        self.taken.retain(|number, _| !removal.manifests.contains(number));
        self.history.forget(&removal.manifests);
        if let Some(merge) = resolve::mergeable(&self.history, &store.base()?, RETENTION, Some(u64::MAX)) {
            store.merge(&merge.deltas, merge.epoch)?;
        }
        Ok(())
    }

    /// The states as they are now.
    #[must_use]
    pub fn states(&self) -> &Model {
        &self.states
    }

    /// Checks that every checkpoint which is kept loads as it was taken.
    ///
    /// # Panics
    /// Where one does not.
    pub fn check_kept(&self, store: &dyn StateStore) {
        let history = read_history(store).expect("readable");
        for (number, _) in history.standings() {
            let Some(cut) = history.manifest(number).and_then(|manifest| manifest.cut.as_ref()) else { continue };
            let mut loaded = Model::new();
            let mut loading = Loading::open(store, cut).expect("loadable");
            let each = &mut |key, state: &[u8]| assert_eq!(loaded.insert(key, state.to_vec()), None);
            loading.states(&|group| group % 2 == 0, each).expect("loadable");
            loading.states(&|group| group % 2 == 1, each).expect("loadable");
            assert_eq!(loaded, self.taken[&number], "checkpoint {number}");
            assert_eq!(verify(store, cut).expect("sound"), loaded.len() as u64);
        }
    }
}

/// Numbers from a seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`, which is above 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
