//! Processes that end at each named point, on this machine's disk.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use whisperer_connectors::state::{
    FolderStore, Loading, Role, StateStore,
    conformance::{Life, Model, Random},
    failpoint,
    load::{read_history, verify},
};
use whisperer_schemas::digest::Digest;

/// Says to the child which folder is its own; the test that is the child does nothing without it.
const FOLDER: &str = "WHISPERER_CRASHING_STORE";
/// Checkpoints of a child that nothing ends.
const CHECKPOINTS: u64 = 12;

#[test]
fn a_process_may_end_at_every_point() {
    // Goal: whichever step a crash comes in between, the next process goes on from the newest checkpoint, and what was acknowledged is
    // there. Method: this test binary again as a child, on one folder, told to abort at each point in turn, at its first, third and
    // seventh passing; before it starts, every kept checkpoint is compared with what the child noted when it was taken, and every record of
    // the control log with its name.
    let folder = tempfile::tempdir().unwrap();
    let mut ended = BTreeMap::<&str, u32>::new();
    for (at, point) in failpoint::POINTS.iter().enumerate() {
        for count in [1, 3, 7] {
            let mut child = Command::new(env::current_exe().unwrap());
            child.args(["--exact", "crashes::child", "--nocapture"]).env(FOLDER, folder.path());
            child
                .env(failpoint::VARIABLE, format!("{point}:{count}"))
                .env("WHISPERER_SEED", format!("{}", at * 10 + count));
            let output = child.stdin(Stdio::null()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() || said.contains("the process ends at"), "{point}:{count}: {said}");
            *ended.entry(point).or_default() += u32::from(!output.status.success());
            check(folder.path());
        }
    }
    let never: Vec<_> = ended.iter().filter(|(point, ended)| **ended == 0 && !point.starts_with("upload")).collect();
    assert!(never.is_empty(), "points that were never passed: {never:?}");
}

#[test]
fn child() {
    // Goal: a process for the test above. Method: a start, then checkpoints, noted before they are taken and once they are acknowledged.
    let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else { return };
    let seed: u64 = env::var("WHISPERER_SEED").unwrap().parse().unwrap();
    let mut random = Random(seed);
    let store = FolderStore::open(&folder.join("state"), Role::Coordinator).unwrap();
    let mut life = Life::default();
    life.start(&store, None, &mut random);
    for _ in 0..CHECKPOINTS {
        life.change(&mut random);
        let number = store.manifests().unwrap().last().unwrap() + 1;
        note(&folder, "taken", number, life.states());
        assert!(life.try_checkpoint(&store).unwrap());
        note(&folder, "acknowledged", number, life.states());
        let record = format!("entry-{seed}-{number}");
        assert!(store.create_control(&record, record.as_bytes()).unwrap());
        writeln!(log(&folder, "recorded"), "{record}").unwrap();
        life.try_tidy(&store).unwrap();
    }
}

fn note(folder: &Path, what: &str, number: u64, states: &Model) {
    writeln!(log(folder, what), "{number} {}", digest(states)).unwrap();
}

fn log(folder: &Path, what: &str) -> File {
    OpenOptions::new().create(true).append(true).open(folder.join(what)).unwrap()
}

fn digest(states: &Model) -> Digest {
    let mut digest = Digest::default();
    for (key, state) in states {
        let mut checksum = whisperer_schemas::checkpoint::Checksum::default();
        checksum.update(&key.0.to_le_bytes());
        checksum.update(state);
        let hash = checksum.facts("", Default::default()).xxh3;
        digest.update(u128::from_str_radix(&hash, 16).unwrap(), 1);
    }
    digest
}

/// Numbers with digests; of a number that was taken twice, the later one: its first holder did not make it.
fn notes(folder: &Path, what: &str) -> BTreeMap<u64, String> {
    let text = fs::read_to_string(folder.join(what)).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(n, digest)| (n.parse().unwrap(), digest.into()))
        .collect()
}

fn check(folder: &Path) {
    let store = FolderStore::open(&folder.join("state"), Role::Reader).unwrap();
    let history = read_history(&store).unwrap();
    let (taken, acknowledged) = (notes(folder, "taken"), notes(folder, "acknowledged"));
    let newest = history.live().first().copied();
    let last = acknowledged.keys().next_back().copied();
    assert!(newest >= last, "{newest:?} is there, {last:?} was acknowledged");
    for record in fs::read_to_string(folder.join("recorded")).unwrap_or_default().lines() {
        assert_eq!(store.read_control(record).unwrap().as_deref(), Some(record.as_bytes()), "{record}");
    }
    for (number, _) in history.standings() {
        let Some(cut) = history.manifest(number).and_then(|manifest| manifest.cut.as_ref()) else { continue };
        let mut states = Model::new();
        let each = &mut |key, state: &[u8]| assert!(states.insert(key, state.to_vec()).is_none());
        Loading::open(&store, cut).unwrap().states(&|_| true, each).unwrap();
        assert_eq!(digest(&states).to_string(), taken[&number], "checkpoint {number}");
        verify(&store, cut).unwrap();
    }
}
