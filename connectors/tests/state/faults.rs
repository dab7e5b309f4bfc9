//! What a store does on a disk that is full, tears writes or damages files; and merges that are cut off.

use std::{fs, io::ErrorKind, path::Path, sync::Arc};

use whisperer_connectors::state::{
    BaseKind, FolderStore, Loading, Role, StateStore, StoreError,
    conformance::{self, Life, Random, delta, key, manifest},
    disk::LocalDisk,
    fault::{BrokenDisk, Failure, PowerDisk},
    load::{read_history, verify},
    resolve,
};
use whisperer_schemas::{
    Epoch,
    checkpoint::{Cut, FileFacts},
};

const STATE: &str = "/state";

#[test]
fn a_disk_that_fails_loses_nothing_committed() {
    // Goal: whatever call fails, the last committed checkpoint loads, and the next attempt succeeds. Method: on a disk in memory, one life
    // of a few checkpoints; for every operation in turn it fails once, is torn, or finds the disk full; afterwards a healthy store goes on.
    let steps = {
        let disk = BrokenDisk::new(PowerDisk::default(), Failure::Full(u64::MAX));
        assert!(live(&disk, &mut Life::default()).is_none());
        disk.operations()
    };
    assert!(steps > 50, "{steps} operations");
    for step in 0..steps {
        for failure in [Failure::Full(step), Failure::Once(step), Failure::Torn(step)] {
            let power = PowerDisk::default();
            let mut life = Life::default();
            let error = live(&BrokenDisk::new(power.clone(), failure), &mut life);
            if failure == Failure::Full(step) {
                let error = error.expect("a full disk is told");
                assert!(error.retry(), "{error}");
                assert!(error.to_string().contains('"'), "says which file: {error}");
            }
            let store =
                FolderStore::over(Path::new(STATE), Role::Coordinator, Arc::new(power), BaseKind::Sorted).unwrap();
            let newest = read_history(&store).unwrap().live().first().copied();
            life.start(&store, None, &mut Random(step));
            let expected = newest.map(|number| life.taken[&number].clone()).unwrap_or_default();
            assert_eq!(*life.states(), expected, "{failure:?}");
            life.change(&mut Random(step));
            assert!(life.try_checkpoint(&store).unwrap());
            life.try_tidy(&store).unwrap();
            life.check_kept(&store);
        }
    }
}

/// A start and some checkpoints, until something fails.
fn live(disk: &BrokenDisk<PowerDisk>, life: &mut Life) -> Option<StoreError> {
    let store =
        FolderStore::over(Path::new(STATE), Role::Coordinator, Arc::new(disk.clone()), BaseKind::Sorted).unwrap();
    let mut random = Random(7);
    let run = &mut || {
        life.try_start(&store, None, &mut random)?;
        for _ in 0..6 {
            life.change(&mut random);
            assert!(life.try_checkpoint(&store)?, "nobody else commits");
            life.try_tidy(&store)?;
        }
        Ok(())
    };
    run().err()
}

fn kinds() -> Vec<BaseKind> {
    vec![
        BaseKind::Sorted,
        #[cfg(feature = "rocksdb")]
        BaseKind::RocksDb,
    ]
}

fn open(folder: &Path, kind: BaseKind) -> FolderStore {
    FolderStore::over(folder, Role::Coordinator, Arc::new(LocalDisk), kind).unwrap()
}

/// A store with two checkpoints: `(epoch, deltas)` of each.
fn two_checkpoints(store: &FolderStore) -> Vec<FileFacts> {
    let mut files = Vec::new();
    assert!(store.create_manifest(&manifest(1, 1, None)).unwrap());
    for (number, epoch) in [(2, 10), (3, 20)] {
        let text = format!("state of {epoch}");
        // One key group beside the others: half of a merge is done when its block is found damaged.
        let states: Vec<_> = (0..200).map(|group| (key(group, epoch % 20), Some(text.as_bytes()))).collect();
        files.push(store.write_delta(&delta(epoch, 0, &states), 1).unwrap());
        let cut = Cut { epoch: Epoch(epoch), deltas: files.clone(), ..Cut::default() };
        assert!(store.create_manifest(&manifest(number, 1, Some(cut))).unwrap());
    }
    files
}

#[test]
fn a_merge_that_is_cut_off_does_no_harm() {
    // Goal: a base with part of a merge, under its old epoch, loads right, and the merge is repeated. Method: the second of two deltas is
    // damaged in the middle, so that the merge ends there; the first checkpoint loads; with the file healed, so does the second.
    for kind in kinds() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), kind);
        let files = two_checkpoints(&store);
        store.merge(&files[..1], Epoch(10)).unwrap();
        let path = folder.path().join(&files[1].name);
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 1;
        fs::write(&path, &damaged).unwrap();
        // The facts are those of the damaged file: only the block's own checksum is left to find it, after half of the merge.
        let mut checksum = whisperer_schemas::checkpoint::Checksum::default();
        checksum.update(&damaged);
        let wrong = checksum.facts(&files[1].name, Epoch(20));
        let refused = store.merge(&[files[0].clone(), wrong], Epoch(20)).unwrap_err();
        assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
        fs::write(&path, &whole).unwrap();
        drop(store);
        let store = open(folder.path(), kind);
        assert_eq!(store.base().unwrap().epoch, Epoch(10), "{kind:?}");
        let history = read_history(&store).unwrap();
        let cut = history.manifest(3).unwrap().cut.clone().unwrap();
        let loaded = |store: &FolderStore| {
            let mut states = Vec::new();
            let each = &mut |key, state: &[u8]| states.push((key, state.to_vec()));
            Loading::open(store, &cut).unwrap().states(&|_| true, each).unwrap();
            states.sort_unstable();
            states
        };
        let before = loaded(&store);
        assert_eq!(before.len(), 400);
        store.merge(&files, Epoch(20)).unwrap();
        assert_eq!(loaded(&store), before, "{kind:?}");
        assert_eq!(store.base().unwrap().epoch, Epoch(20));
    }
}

#[test]
fn damage_to_any_file_is_told_by_name() {
    // Goal: `verify` finds what is damaged, and says where. Method: each file is cut, flipped, emptied or lost.
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), BaseKind::Sorted);
    let files = two_checkpoints(&store);
    let cut = store.manifest(3).unwrap().cut.unwrap();
    assert_eq!(verify(&store, &cut).unwrap(), 400);
    for file in &files {
        let path = folder.path().join(&file.name);
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 3] ^= 0x10;
        for damage in [Some(&whole[..whole.len() - 1]), Some(&flipped), Some(&[]), None] {
            match damage {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let error = verify(&store, &cut).unwrap_err();
            assert!(matches!(&error, StoreError::Damaged { name, .. } if *name == file.name), "{error}");
        }
        fs::write(&path, &whole).unwrap();
    }
    let manifest = folder.path().join("manifests/00000000000000000003.json");
    let whole = fs::read(&manifest).unwrap();
    fs::write(&manifest, &whole[..whole.len() / 2]).unwrap();
    let history = read_history(&store).unwrap();
    assert_eq!(history.standings()[2], (3, resolve::Standing::Damaged));
    assert!(matches!(resolve::choose(&history, None), Err(StoreError::Damaged { .. })));
    assert_eq!(resolve::choose(&history, Some(2)).unwrap().unwrap().number, 2);
}

#[test]
fn of_two_claimants_one_wins() {
    // Goal: the fence. Method: two processes, each with its own handle on the folder, race for every number; a third comes late.
    let folder = tempfile::tempdir().unwrap();
    for number in 1..=50 {
        let barrier = std::sync::Barrier::new(2);
        let claim = |generation: u64| {
            let store = open(folder.path(), BaseKind::Sorted);
            barrier.wait();
            store.create_manifest(&manifest(number, generation, None)).unwrap()
        };
        let won = std::thread::scope(|scope| {
            let threads = [1, 2].map(|generation| scope.spawn(move || claim(generation)));
            threads.map(|thread| thread.join().unwrap())
        });
        assert_ne!(won[0], won[1], "manifest {number}");
        let written = open(folder.path(), BaseKind::Sorted).manifest(number).unwrap();
        assert_eq!(written.generation, if won[0] { 1 } else { 2 });
    }
}

#[test]
fn a_sleeper_commits_nothing() {
    // Goal: a process that was stopped for long commits nothing, not even under a number that was removed meanwhile. Method: generation 2
    // takes over and removes the old manifests, the first of its own too; generation 1 goes on where it was.
    let folder = tempfile::tempdir().unwrap();
    let (sleeper, awake) = (open(folder.path(), BaseKind::Sorted), open(folder.path(), BaseKind::Sorted));
    assert!(sleeper.create_manifest(&manifest(1, 1, None)).unwrap());
    for number in 2..9 {
        assert!(awake.create_manifest(&manifest(number, 2, None)).unwrap());
    }
    awake.remove(&[1, 2, 3, 4], &[]).unwrap();
    assert!(!sleeper.create_manifest(&manifest(2, 1, Some(Cut::default()))).unwrap());
    assert_eq!(awake.manifests().unwrap(), [5, 6, 7, 8]);
}

#[test]
fn what_a_crash_left_unfinished_goes() {
    // Goal: temporary files do not gather, and none of them is in the way. Method: leftovers of every kind, then a start.
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), BaseKind::Sorted);
    let file = two_checkpoints(&store)[1].clone();
    let deltas = folder.path().join("deltas");
    let leftovers = [
        deltas.join(format!(".{}.new", file.name.trim_start_matches("deltas/"))),
        folder.path().join("manifests/.00000000000000000004.json.0123.new"),
    ];
    leftovers.iter().for_each(|path| fs::write(path, b"half").unwrap());
    store.write_delta(&delta(20, 0, &[]), 1).unwrap();
    leftovers.iter().for_each(|path| fs::write(path, b"half").unwrap());
    let cut = store.manifest(2).unwrap().cut;
    store.prepare(cut.as_ref()).unwrap();
    assert!(leftovers.iter().all(|path| !path.exists()));
    let listed = fs::read_dir(deltas).unwrap().count();
    assert_eq!(listed, 2);
}

#[test]
fn a_full_disk_is_said_to_be_full() {
    // Goal: the message names the file and what was tried, the source says why. Method: a disk that is full from the start.
    let disk = BrokenDisk::new(PowerDisk::default(), Failure::Full(0));
    let store = FolderStore::over(Path::new(STATE), Role::Coordinator, Arc::new(disk), BaseKind::Sorted).unwrap();
    let error = store.write_delta(&conformance::delta(1, 0, &[]), 1).unwrap_err();
    let StoreError::Io { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), ErrorKind::StorageFull);
    assert!(error.to_string().contains("/state/deltas/"), "{error}");
}

#[cfg(feature = "rocksdb")]
#[test]
fn a_sleeping_process_does_not_hold_the_base() {
    // Goal: a new generation reads and writes the base beside a process that was stopped, unless that one sleeps in the middle of a merge:
    // then it says so, and may try again. Method: two stores on one folder, the first of which has merged and read; then a third that holds
    // the database open for writing.
    let folder = tempfile::tempdir().unwrap();
    let sleeper = open(folder.path(), BaseKind::RocksDb);
    let files = two_checkpoints(&sleeper);
    sleeper.merge(&files[..1], Epoch(10)).unwrap();
    let reading = sleeper.base_states().unwrap();
    let awake = open(folder.path(), BaseKind::RocksDb);
    awake.merge(&files, Epoch(20)).unwrap();
    assert_eq!(awake.base().unwrap().epoch, Epoch(20));
    assert_eq!(reading.head().epoch, Epoch(10));
    let held = rocksdb::DB::open_default(folder.path().join("base")).unwrap();
    let later = awake.write_delta(&delta(30, 0, &[]), 1).unwrap();
    let refused = awake.merge(std::slice::from_ref(&later), Epoch(30)).unwrap_err();
    assert!(matches!(refused, StoreError::Busy { .. }) && refused.retry(), "{refused}");
    drop(held);
    awake.merge(&[later], Epoch(30)).unwrap();
}
