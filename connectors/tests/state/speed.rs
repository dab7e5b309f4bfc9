//! How fast states are loaded, and moved into the cold store and out of it: with few states in tests; `WHISPERER_STATES=1000000` and
//! `--nocapture` give figures.

use std::{env, time::Instant};

use bytes::Bytes;
use whisperer_connectors::state::{
    FolderStore, Loading, Role, StateStore,
    conformance::{Random, manifest},
};
use whisperer_schemas::{
    Epoch, KeyHash,
    checkpoint::{Base, Cut, Delta, FileFacts},
};

/// States in a test; figures are taken with more.
fn states() -> u64 {
    env::var("WHISPERER_STATES").map_or(20_000, |states| states.parse().expect("a number"))
}

fn key(number: u64) -> KeyHash {
    KeyHash::of(&[&number.to_string()])
}

/// What a sparse state takes.
fn state(number: u64, epoch: u64) -> Bytes {
    let mut random = Random(number ^ (epoch << 40));
    (0..50 + random.below(20)).map(|_| random.below(256) as u8).collect()
}

fn delta(epoch: u64, worker: u32, numbers: impl Iterator<Item = u64>) -> Delta {
    let mut states: Vec<_> = numbers.map(|number| (key(number), Some(state(number, epoch)))).collect();
    states.sort_by_key(|(key, _)| (key.group(), *key));
    Delta { epoch: Epoch(epoch), worker, states, ..Delta::default() }
}

#[test]
fn a_job_is_loaded_quickly() {
    // Goal: every state is loaded once, and a million of them in well under ten seconds (with WHISPERER_STATES=1000000). Method: a base of
    // all states, then six checkpoints of two workers that change a tenth each; two workers load half of the groups each.
    let folder = tempfile::tempdir().unwrap();
    let store = FolderStore::open(folder.path(), Role::Coordinator).unwrap();
    let count = states();
    let whole: Vec<FileFacts> = (0..2)
        .map(|worker| {
            store.write_delta(&delta(10, worker, (0..count).filter(|n| n % 2 == u64::from(worker))), 1).unwrap()
        })
        .collect();
    let began = Instant::now();
    store.merge(&whole, Epoch(10)).unwrap();
    let merged = began.elapsed();
    let mut deltas = Vec::new();
    let began = Instant::now();
    for epoch in 2..8 {
        for worker in 0..2_u32 {
            let changed = (0..count).filter(|number| number % 10 == epoch && (number / 10) % 2 == u64::from(worker));
            deltas.push(store.write_delta(&delta(epoch * 10, worker, changed), 1).unwrap());
        }
    }
    let written = began.elapsed();
    let cut = Cut { epoch: Epoch(70), base: Base { epoch: Epoch(10), files: vec![] }, deltas, ..Cut::default() };
    assert!(store.create_manifest(&manifest(1, 1, Some(cut.clone()))).unwrap());
    let began = Instant::now();
    let loaded: u64 = std::thread::scope(|scope| {
        let load = |worker: u64| {
            let mut bytes = 0;
            let each = &mut |_, state: &[u8]| bytes += state.len();
            Loading::open(&store, &cut).unwrap().states(&|group| group % 2 == worker, each).unwrap()
        };
        let threads = [0, 1].map(|worker| scope.spawn(move || load(worker)));
        threads.map(|thread| thread.join().unwrap()).iter().sum()
    });
    assert_eq!(loaded, count);
    println!(
        "{count} states: merged in {merged:?}, 6 checkpoints of a tenth each in {written:?}, loaded in {:?}",
        began.elapsed()
    );
}

#[cfg(feature = "rocksdb")]
#[test]
fn cold_states_come_and_go_quickly() {
    // Goal: every state comes back as it was put; figures with WHISPERER_STATES=10000000. Method: all states are put, then thousand
    // epochs each take some at random and put them back with another due time.
    use whisperer_connectors::state::cold::RocksCold;
    use whisperer_operators::cold::{ColdState, ColdStates};
    let folder = tempfile::tempdir().unwrap();
    let mut store = RocksCold::open(folder.path(), 0, 0).unwrap();
    let count = states();
    let cold = |number: u64, due: i64| ColdState { key: key(number), due, bytes: Box::from(&*state(number, 1)) };
    let began = Instant::now();
    for from in (0..count).step_by(10_000) {
        store.put((from..count.min(from + 10_000)).map(|number| cold(number, number as i64)).collect()).unwrap();
    }
    let put = began.elapsed();
    let mut random = Random(1);
    let (mut taken, began) = (0, Instant::now());
    for round in 0..1_000_i64 {
        let mut keys: Vec<KeyHash> = (0..200).map(|_| key(random.below(count))).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut states = store.take(&keys).unwrap();
        assert_eq!(states.len(), keys.len());
        taken += states.len();
        states.iter_mut().for_each(|state| state.due += round);
        store.put(states).unwrap();
    }
    let moved = began.elapsed();
    assert_eq!(store.len(), count);
    let bytes = store.bytes();
    println!(
        "{count} cold states: {:.0}/s put, {:.0}/s taken and put back, {bytes} bytes",
        count as f64 / put.as_secs_f64(),
        taken as f64 / moved.as_secs_f64()
    );
}
