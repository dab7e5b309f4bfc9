//! Remote stores: the same rules, restoring on an empty machine, only new files uploaded, and failures on the way.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use whisperer_connectors::state::{
    BaseKind, FolderStore, RemoteStore, Role, StateStore, StoreError,
    conformance::{self, Life, Random},
    fault::{BrokenRemote, RemoteFailure},
    load::read_history,
    remote::{FolderRemote, Remote, open_remote},
};

fn folder_remote(folder: &Path) -> Arc<dyn Remote> {
    open_remote(&format!("file://{}", folder.display())).unwrap()
}

fn kinds() -> Vec<BaseKind> {
    vec![
        BaseKind::Sorted,
        #[cfg(feature = "rocksdb")]
        BaseKind::RocksDb,
    ]
}

fn open(remote: &Arc<dyn Remote>, folder: &Path, role: Role, kind: BaseKind) -> RemoteStore {
    RemoteStore::over(remote.clone(), folder, role, kind).unwrap()
}

/// The rules, in a state folder that stays, and in one that is new at each opening.
pub fn check_rules(remote: &Arc<dyn Remote>, kind: BaseKind) {
    let local = tempfile::tempdir().unwrap();
    conformance::check(&|role| Box::new(open(remote, local.path(), role, kind)));
}

/// A job whose machine is lost at every restart.
pub fn check_lost_machines(remote: &Arc<dyn Remote>, kind: BaseKind) {
    let (mut life, mut random) = (Life::default(), Random(99));
    for _ in 0..6 {
        let local = tempfile::tempdir().unwrap();
        let store = open(remote, local.path(), Role::Coordinator, kind);
        let newest = read_history(&store).unwrap().live().first().copied();
        life.start(&store, None, &mut random);
        assert_eq!(*life.states(), newest.map(|number| life.taken[&number].clone()).unwrap_or_default());
        for _ in 0..5 {
            life.change(&mut random);
            assert!(life.try_checkpoint(&store).unwrap());
            life.try_tidy(&store).unwrap();
        }
        life.check_kept(&store);
        let away = tempfile::tempdir().unwrap();
        let member = open(remote, away.path(), Role::Member(1), kind);
        let manifest = read_history(&member).unwrap();
        let cut = manifest.manifest(*manifest.live().first().unwrap()).unwrap().cut.clone();
        member.prepare(cut.as_ref()).unwrap();
        life.check_kept(&member);
    }
}

#[test]
fn a_remote_folder_keeps_the_rules() {
    // Goal: `file://`. Method: the suite, with each kind of base, then a job whose machine is lost at every restart.
    for kind in kinds() {
        let (rules, lost) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        check_rules(&folder_remote(rules.path()), kind);
        check_lost_machines(&folder_remote(lost.path()), kind);
    }
}

#[cfg(feature = "object-store")]
#[test]
fn an_object_store_keeps_the_rules() {
    // Goal: the layer over object stores. Method: the same, on object stores in memory and in a folder.
    use object_store::{local::LocalFileSystem, memory::InMemory};
    use whisperer_connectors::state::remote::ObjectRemote;
    let folder = tempfile::tempdir().unwrap();
    let memory = |prefix: &str| -> Arc<dyn Remote> {
        Arc::new(ObjectRemote::over("memory", Arc::new(InMemory::new()), prefix).unwrap())
    };
    let local = |prefix: &str| -> Arc<dyn Remote> {
        let store = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        Arc::new(ObjectRemote::over("local", Arc::new(store), prefix).unwrap())
    };
    for kind in kinds() {
        check_rules(&memory(""), kind);
        check_rules(&local(&format!("a/{kind:?}")), kind);
        check_lost_machines(&memory("jobs/engagement"), kind);
    }
}

#[cfg(feature = "object-store")]
#[test]
fn large_files_go_in_parts() {
    // Goal: files above one part arrive whole. Method: sizes around the size of a part, there and back.
    use object_store::memory::InMemory;
    use whisperer_connectors::state::remote::ObjectRemote;
    let remote = ObjectRemote::over("memory", Arc::new(InMemory::new()), "").unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (at, bytes) in [0, 1, (8 << 20) - 1, 8 << 20, (8 << 20) + 1, 20 << 20].into_iter().enumerate() {
        let content: Vec<u8> = (0..bytes).map(|byte| (byte / 7) as u8).collect();
        let (from, to) = (folder.path().join("from"), folder.path().join(format!("to{at}")));
        fs::write(&from, &content).unwrap();
        remote.upload("deltas/file", &from).unwrap();
        assert!(remote.download("deltas/file", &to).unwrap());
        assert!(fs::read(&to).unwrap() == content, "{bytes} bytes");
    }
    assert!(!remote.download("deltas/other", &folder.path().join("other")).unwrap());
}

#[test]
fn only_new_files_are_uploaded() {
    // Goal: a merge does not upload the base again. Method: with RocksDB, which adds files, names are never uploaded twice.
    for kind in kinds() {
        let (away, local) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let counted = Arc::new(BrokenRemote::new(Arc::new(FolderRemote::new("file:///away", away.path()))));
        let remote: Arc<dyn Remote> = counted.clone();
        let store = open(&remote, local.path(), Role::Coordinator, kind);
        let (mut life, mut random) = (Life::default(), Random(5));
        life.start(&store, None, &mut random);
        let mut uploaded = BTreeSet::new();
        for _ in 0..20 {
            life.change(&mut random);
            assert!(life.try_checkpoint(&store).unwrap());
            life.try_tidy(&store).unwrap();
            for name in counted.uploads() {
                assert!(uploaded.insert(name.clone()), "{name} again");
            }
        }
        assert!(uploaded.iter().any(|name| name.starts_with("base/")), "{uploaded:?}");
        life.check_kept(&store);
        // What no manifest names is gone, there as here.
        let names = |folder: &Path, of: &str| fs::read_dir(folder.join(of)).unwrap().count();
        assert_eq!(names(away.path(), "deltas"), names(local.path(), "deltas"));
        assert!(names(away.path(), "manifests") <= 4);
    }
}

#[test]
fn a_remote_store_that_fails_loses_nothing_committed() {
    // Goal: whatever call fails, or is carried out and its answer lost, the last committed checkpoint loads on an empty machine. Method: for
    // every call of a short life in turn.
    let calls = {
        let away = tempfile::tempdir().unwrap();
        let remote = Arc::new(BrokenRemote::new(Arc::new(FolderRemote::new("file:///away", away.path()))));
        assert!(live(&remote, &mut Life::default()).is_none());
        remote.calls()
    };
    assert!(calls > 70, "{calls} calls");
    for call in 0..calls {
        for failure in [RemoteFailure::Down(call), RemoteFailure::Lost(call)] {
            let away = tempfile::tempdir().unwrap();
            let remote = Arc::new(BrokenRemote::new(Arc::new(FolderRemote::new("file:///away", away.path()))));
            remote.fail(failure);
            let mut life = Life::default();
            let error = live(&remote, &mut life).expect("a failing store is told");
            assert!(error.retry(), "{error}");
            remote.fail(RemoteFailure::None);
            let local = tempfile::tempdir().unwrap();
            let remote: Arc<dyn Remote> = remote;
            let store = open(&remote, local.path(), Role::Coordinator, BaseKind::Sorted);
            let newest = read_history(&store).unwrap().live().first().copied();
            life.start(&store, None, &mut Random(call));
            let expected = newest.map(|number| life.taken[&number].clone()).unwrap_or_default();
            assert_eq!(*life.states(), expected, "{failure:?}");
            life.change(&mut Random(call));
            assert!(life.try_checkpoint(&store).unwrap());
            life.check_kept(&store);
        }
    }
}

fn live(remote: &Arc<BrokenRemote>, life: &mut Life) -> Option<StoreError> {
    let local = tempfile::tempdir().unwrap();
    let remote: Arc<dyn Remote> = remote.clone();
    let store = open(&remote, local.path(), Role::Coordinator, BaseKind::Sorted);
    let mut random = Random(3);
    let run = &mut || {
        life.try_start(&store, None, &mut random)?;
        for _ in 0..8 {
            life.change(&mut random);
            assert!(life.try_checkpoint(&store)?, "nobody else commits");
            life.try_tidy(&store)?;
        }
        Ok(())
    };
    run().err()
}

#[test]
fn an_answer_that_was_lost_is_no_fence() {
    // Goal: a put that is repeated after its answer was lost is not taken for another generation's. Method: the manifest is there already,
    // with the very same bytes, when the call is made; with other bytes it is the fence.
    let (away, local) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let remote: Arc<dyn Remote> = Arc::new(Forgetful(FolderRemote::new("file:///away", away.path())));
    let store = open(&remote, local.path(), Role::Coordinator, BaseKind::Sorted);
    assert!(store.create_manifest(&conformance::manifest(1, 1, None)).unwrap());
    let other = open(&remote, &local.path().join("other"), Role::Coordinator, BaseKind::Sorted);
    assert!(!other.create_manifest(&conformance::manifest(1, 2, None)).unwrap());
}

/// A store that carries out a create twice, as a client does that retries.
#[derive(Debug)]
struct Forgetful(FolderRemote);

impl Remote for Forgetful {
    fn url(&self) -> &str {
        self.0.url()
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        self.0.list(folder)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.read(name)
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        self.0.create(name, bytes)?;
        self.0.create(name, bytes)
    }

    fn upload(&self, name: &str, from: &Path) -> Result<(), StoreError> {
        self.0.upload(name, from)
    }

    fn download(&self, name: &str, to: &Path) -> Result<bool, StoreError> {
        self.0.download(name, to)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.0.remove(name)
    }
}

#[test]
fn a_state_folder_belongs_to_one_store() {
    // Goal: nobody mixes a copy of one store with another, or takes a copy for the truth. Method: every wrong pair.
    let (away, local) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let remote = folder_remote(away.path());
    open(&remote, local.path(), Role::Coordinator, BaseKind::best());
    let elsewhere = |error| matches!(error, StoreError::Elsewhere { .. });
    assert!(elsewhere(FolderStore::open(local.path(), Role::Reader).unwrap_err()));
    let other: Arc<dyn Remote> = Arc::new(FolderRemote::new("file:///other", away.path()));
    assert!(elsewhere(RemoteStore::open(other, local.path(), Role::Coordinator).unwrap_err()));
    let own = tempfile::tempdir().unwrap();
    let store = FolderStore::open(own.path(), Role::Coordinator).unwrap();
    assert!(store.create_manifest(&conformance::manifest(1, 1, None)).unwrap());
    assert!(elsewhere(RemoteStore::open(remote, own.path(), Role::Coordinator).unwrap_err()));
}

#[test]
fn a_url_that_cannot_be_used_says_what_can() {
    // Goal: a hint instead of a riddle. Method: some wrong ones.
    for url in ["", "/folder", "file://folder", "ftp://x/y", "gs://bucket"] {
        let error = open_remote(url).unwrap_err().to_string();
        assert!(error.contains("file:///") && error.contains(url), "{error}");
    }
}
