//! The rules that every cold store keeps, as checks for tests.
//!
//! 1. What was put is taken once, as it was; keys that are not there are left out.
//! 2. Due keys come in the order of their timers, up to the time that was asked for, as long as their states are in the store.
//! 3. A scan walks all states in the order of keys, and takes none.
//! 4. The count is exact.

use std::collections::{BTreeMap, btree_map::Entry};

use whisperer_operators::cold::{ColdState, ColdStates};
use whisperer_schemas::{KeyHash, Micros};

use crate::state::conformance::Random;

/// Checks a store that is empty against a model, through random calls from `seed`.
///
/// # Panics
/// Where the store breaks a rule.
pub fn check(store: &mut dyn ColdStates, seed: u64) {
    let mut random = Random(seed);
    let mut model = BTreeMap::new();
    for _ in 0..STEPS {
        match random.below(4) {
            0 | 1 => put(store, &mut model, &mut random),
            2 => take(store, &mut model, &mut random),
            _ => check_due(store, &model, &mut random),
        }
        assert_eq!((store.len(), store.is_empty()), (model.len() as u64, model.is_empty()));
    }
    check_scan(store, &model);
    let keys: Vec<KeyHash> = model.keys().copied().collect();
    assert_eq!(store.take(&keys).expect("taken").len(), keys.len());
    assert!(store.is_empty());
    assert_eq!(store.due(Micros::MAX - 1, usize::MAX).expect("listed"), []);
}

const STEPS: usize = 400;
/// Few keys, so that they come and go.
const KEYS: u64 = 300;

type Model = BTreeMap<KeyHash, ColdState>;

fn key(random: &mut Random) -> KeyHash {
    // At both ends of the keys too.
    match random.below(40) {
        0 => KeyHash(0),
        1 => KeyHash(u128::MAX),
        _ => KeyHash(u128::from(random.below(KEYS)).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)),
    }
}

fn put(store: &mut dyn ColdStates, model: &mut Model, random: &mut Random) {
    let mut states = Vec::new();
    for _ in 0..random.below(20) {
        let key = key(random);
        let due = match random.below(4) {
            0 => Micros::MAX,
            1 => -(random.below(50) as Micros),
            _ => random.below(50) as Micros,
        };
        let bytes = vec![random.below(256) as u8; random.below(200) as usize].into();
        if let Entry::Vacant(vacant) = model.entry(key) {
            let state = ColdState { key, due, bytes };
            vacant.insert(state.clone());
            states.push(state);
        }
    }
    store.put(states).expect("put");
}

fn take(store: &mut dyn ColdStates, model: &mut Model, random: &mut Random) {
    let mut keys: Vec<KeyHash> = Vec::new();
    for _ in 0..random.below(20) {
        let key = key(random);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let mut taken = store.take(&keys).expect("taken");
    taken.sort_by_key(|state| state.key);
    keys.sort_unstable();
    let expected: Vec<ColdState> = keys.iter().filter_map(|key| model.remove(key)).collect();
    assert_eq!(taken, expected);
}

fn check_due(store: &mut dyn ColdStates, model: &Model, random: &mut Random) {
    let until = random.below(120) as Micros - 60;
    let limit = random.below(30) as usize;
    let mut due: Vec<(Micros, KeyHash)> = model.values().map(|state| (state.due, state.key)).collect();
    due.retain(|(due, _)| *due <= until);
    due.sort_unstable();
    due.truncate(limit);
    let expected: Vec<KeyHash> = due.into_iter().map(|(_, key)| key).collect();
    assert_eq!(store.due(until, limit).expect("listed"), expected, "until {until}, at most {limit}");
}

fn check_scan(store: &mut dyn ColdStates, model: &Model) {
    let (mut scanned, mut after) = (Vec::new(), None);
    loop {
        let part = store.scan(after, 7).expect("scanned");
        assert!(part.len() <= 7);
        let Some(last) = part.last() else { break };
        after = Some(last.key);
        scanned.extend(part);
    }
    assert_eq!(scanned, model.values().cloned().collect::<Vec<_>>());
}
