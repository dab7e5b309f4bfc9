//! Every store and every cold store passes its conformance suite; bases of other builds are refused.

use std::{path::Path, sync::Arc};

use whisperer_connectors::state::{
    BaseKind, FolderStore, MemoryStore, Role, StateStore, StoreError,
    cold::{self, MemoryCold},
    conformance,
    disk::LocalDisk,
    fault::PowerDisk,
};

fn folder_store(folder: &Path, kind: BaseKind, role: Role) -> Box<dyn StateStore> {
    Box::new(FolderStore::over(folder, role, Arc::new(LocalDisk), kind).expect("the store opens"))
}

#[test]
fn the_store_in_memory_keeps_the_rules() {
    // Goal: the twin behaves as it should. Method: the suite; clones are the same store.
    let store = MemoryStore::default();
    conformance::check(&|_| Box::new(store.clone()));
}

#[test]
fn a_folder_with_a_sorted_base_keeps_the_rules() {
    // Goal: the store of lean builds. Method: the suite, on this machine's disk.
    let folder = tempfile::tempdir().unwrap();
    conformance::check(&|role| folder_store(folder.path(), BaseKind::Sorted, role));
}

#[test]
fn a_folder_on_a_disk_in_memory_keeps_the_rules() {
    // Goal: the disk that the simulation uses behaves like a disk. Method: the suite.
    let disk = PowerDisk::default();
    let open = |role| FolderStore::over(Path::new("/state"), role, Arc::new(disk.clone()), BaseKind::Sorted);
    conformance::check(&|role| Box::new(open(role).expect("the store opens")));
}

#[cfg(feature = "rocksdb")]
#[test]
fn a_folder_with_rocksdb_keeps_the_rules() {
    // Goal: the store of full builds. Method: the suite, on this machine's disk.
    let folder = tempfile::tempdir().unwrap();
    conformance::check(&|role| folder_store(folder.path(), BaseKind::RocksDb, role));
}

#[cfg(feature = "rocksdb")]
#[test]
fn a_base_of_another_build_is_refused() {
    // Goal: a lean build does not take RocksDB's files for an empty base, nor the other way round. Method: one merge of each kind.
    for (wrote, opens) in [(BaseKind::RocksDb, BaseKind::Sorted), (BaseKind::Sorted, BaseKind::RocksDb)] {
        let folder = tempfile::tempdir().unwrap();
        let store = folder_store(folder.path(), wrote, Role::Coordinator);
        let delta = conformance::delta(1, 0, &[(conformance::key(1, 1), Some(b"state"))]);
        let file = store.write_delta(&delta, 1).unwrap();
        store.merge(&[file], delta.epoch).unwrap();
        drop(store);
        let refused = FolderStore::over(folder.path(), Role::Reader, Arc::new(LocalDisk), opens).unwrap_err();
        assert!(matches!(refused, StoreError::OtherBase { .. }), "{refused}");
    }
}

#[test]
fn only_the_coordinating_process_writes_the_base() {
    // Goal: two processes never write the same base. Method: a member merges.
    let folder = tempfile::tempdir().unwrap();
    let store = folder_store(folder.path(), BaseKind::best(), Role::Member(1));
    let delta = conformance::delta(1, 0, &[]);
    let file = store.write_delta(&delta, 1).unwrap();
    assert!(matches!(store.merge(&[file], delta.epoch), Err(StoreError::Member { .. })));
}

#[test]
fn cold_states_in_memory_keep_the_rules() {
    // Goal: the twin behaves as it should. Method: the suite, from some seeds.
    for seed in 0..20 {
        cold::conformance::check(&mut MemoryCold::default(), seed);
    }
}

#[cfg(feature = "rocksdb")]
#[test]
fn cold_states_in_rocksdb_keep_the_rules() {
    // Goal: the store of full builds. Method: the suite; each store opens where the last one was, and begins empty.
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..5 {
        let mut store = cold::RocksCold::open(folder.path(), 0, 1).unwrap();
        cold::conformance::check(&mut store, seed);
        let key = conformance::key(1, 1);
        let state = whisperer_operators::cold::ColdState { key, due: 5, bytes: Box::from(b"left behind".as_slice()) };
        whisperer_operators::cold::ColdStates::put(&mut store, vec![state]).unwrap();
    }
}
