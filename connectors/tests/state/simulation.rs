//! A coordinating process whose power is cut again and again, at any operation of its disk.

use std::{env, path::Path, sync::Arc};

use whisperer_connectors::state::{
    BaseKind, FolderStore, Role, StateStore, StoreError,
    conformance::{Life, Model, Random},
    fault::PowerDisk,
    load::read_history,
};

/// Seeds of a run; `WHISPERER_SIMULATION_SEEDS` runs another number of them, `WHISPERER_SIMULATION_SEED` one alone.
const SEEDS: u64 = 60;
/// Power cuts per seed.
const CUTS: u64 = 25;
/// The power goes after at most so many operations: some cuts hit a start, some the third merge.
const OPERATIONS_MAX: u64 = 400;

#[test]
fn no_acknowledged_checkpoint_is_lost_in_a_power_cut() {
    // Goal: after any power cut the newest checkpoint is there, whole, and is none older than the last that was acknowledged. Method: a
    // disk in memory that loses, at each cut, a random part of what was not synced; a life of checkpoints, merges and removals on it,
    // cut at random operations; each start compares what is loaded with a model.
    let number = |variable| env::var(variable).ok().map(|text| text.parse().expect("a number"));
    let seeds = match number("WHISPERER_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WHISPERER_SIMULATION_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        println!("WHISPERER_SIMULATION_SEED={seed}");
        simulate(seed);
    }
}

fn simulate(seed: u64) {
    let mut random = Random(seed);
    let disk = PowerDisk::default();
    let mut life = Life::default();
    let mut acknowledged = None;
    for _ in 0..CUTS {
        disk.cut_at(disk.operations() + random.below(OPERATIONS_MAX));
        let ended = run(&disk, &mut life, &mut acknowledged, &mut random);
        assert!(matches!(ended, Err(StoreError::Io { .. })), "only the power ends it: {ended:?}");
        disk.restart(&mut |bound| random.below(bound));
        let store = open(&disk).expect("the store opens after a power cut");
        check(&store, &mut life, acknowledged);
    }
}

fn open(disk: &PowerDisk) -> Result<FolderStore, StoreError> {
    FolderStore::over(Path::new("/state"), Role::Coordinator, Arc::new(disk.clone()), BaseKind::Sorted)
}

/// Starts and takes checkpoints until the power goes.
fn run(
    disk: &PowerDisk,
    life: &mut Life,
    acknowledged: &mut Option<u64>,
    random: &mut Random,
) -> Result<(), StoreError> {
    let store = open(disk)?;
    life.try_start(&store, None, random)?;
    loop {
        life.change(random);
        assert!(life.try_checkpoint(&store)?, "nobody else commits");
        *acknowledged = store.manifests()?.last().copied();
        life.try_tidy(&store)?;
    }
}

/// What is there after a cut: a checkpoint not older than the last acknowledged one, with its states, and all others that are there.
fn check(store: &FolderStore, life: &mut Life, acknowledged: Option<u64>) {
    let history = read_history(store).expect("no manifest is damaged");
    let newest = history.live().first().copied();
    assert!(newest >= acknowledged, "{newest:?} is there, {acknowledged:?} was acknowledged");
    // A checkpoint that did not make it gives its number to the next claim.
    life.taken.retain(|number, _| history.manifest(*number).is_some_and(|manifest| manifest.cut.is_some()));
    life.check_kept(store);
    let loaded: Option<&Model> = newest.map(|number| &life.taken[&number]);
    assert_eq!(loaded.is_some(), newest.is_some());
}
