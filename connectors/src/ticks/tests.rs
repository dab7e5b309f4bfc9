//! Tick logs: the model and the files keep the same promises, and the files keep them through crashes.

use std::{fs, path::Path};

use super::*;

fn tick(partition: u32, offset: u64, time: Micros) -> Tick {
    Tick { partition: PartitionId(partition), offset, time }
}

fn clocks(clocks: &[(u32, Micros)]) -> BTreeMap<PartitionId, Micros> {
    clocks.iter().map(|(partition, time)| (PartitionId(*partition), *time)).collect()
}

fn positions(positions: &[(u32, u64)]) -> Positions {
    positions.iter().map(|(partition, offset)| (PartitionId(*partition), *offset)).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The promises of the trait, on a log that is empty.
fn check(log: &dyn TickLog) {
    assert_eq!(log.ticks().unwrap(), []);
    let (mut one, mut two) = (log.writer(0).unwrap(), log.writer(1).unwrap());
    one.append(&[tick(0, 5, 100), tick(2, 7, 100)]).unwrap();
    two.append(&[tick(1, 3, Micros::MIN)]).unwrap();
    one.append(&[]).unwrap();
    one.append(&[tick(0, 5, 200)]).unwrap();
    let all = [tick(0, 5, 100), tick(0, 5, 200), tick(1, 3, Micros::MIN), tick(2, 7, 100)];
    assert_eq!(log.ticks().unwrap(), all);

    // Nothing is forgotten that the checkpoint does not hold: not what comes after it, not what its clock has not seen.
    log.forget_before(&positions(&[(0, 4), (1, 3), (2, 7)]), &clocks(&[(0, 500), (2, 99)])).unwrap();
    assert_eq!(log.ticks().unwrap(), all);
    // A writer goes on after anything is forgotten.
    log.forget_before(&positions(&[(0, 6), (1, 9), (2, 8)]), &clocks(&[])).unwrap();
    one.append(&[tick(0, 9, 300)]).unwrap();
    assert!(log.ticks().unwrap().contains(&tick(0, 9, 300)));
}

#[test]
fn memory_and_files_keep_the_promises() {
    // Goal: one suite for the model and the files.
    let folder = tempfile::tempdir().unwrap();
    check(&MemoryTickLog::default());
    check(&FileTickLog::begin(folder.path(), 1).unwrap());
}

#[test]
fn what_a_checkpoint_holds_is_told_by_position_and_clock() {
    // Goal: the rule of forgetting, at its borders, on the model, which forgets at once.
    let log = MemoryTickLog::default();
    let ticks = [tick(0, 4, 900), tick(0, 5, 100), tick(0, 5, 101), tick(0, 6, 1), tick(1, 0, 1)];
    log.writer(0).unwrap().append(&ticks).unwrap();
    log.forget_before(&positions(&[(0, 5)]), &clocks(&[(0, 100), (1, 100)])).unwrap();
    assert_eq!(log.ticks().unwrap(), [tick(0, 5, 101), tick(0, 6, 1), tick(1, 0, 1)]);
}

#[test]
fn a_torn_append_is_left_out_at_any_byte() {
    // Goal: whatever a crash leaves of the last append, all earlier ones are read. Method: cut the file at every length.
    let folder = tempfile::tempdir().unwrap();
    let log = FileTickLog::begin(folder.path(), 1).unwrap();
    let mut writer = log.writer(0).unwrap();
    writer.append(&[tick(0, 1, 10)]).unwrap();
    let path = folder.path().join("00000001-00000-00000000.ticks");
    let kept = fs::read(&path).unwrap().len();
    writer.append(&[tick(0, 1, 20), tick(1, 1, 20)]).unwrap();
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let expected: &[Tick] = if length < kept { &[] } else { &[tick(0, 1, 10)] };
        assert_eq!(log.ticks().unwrap(), expected, "cut at {length}");
    }
    for byte in kept..whole.len() {
        let mut torn = whole.clone();
        torn[byte] ^= 0x55;
        fs::write(&path, &torn).unwrap();
        assert_eq!(log.ticks().unwrap(), [tick(0, 1, 10)], "byte {byte} is wrong");
    }
    fs::write(&path, b"something else").unwrap();
    assert!(matches!(log.ticks(), Err(SourceError::Ticks { .. })));
}

#[test]
fn a_generation_adopts_what_was_left_and_hears_no_zombie() {
    // Goal: ticks survive any number of generations; one that an old generation writes after the new one began does not count.
    let folder = tempfile::tempdir().unwrap();
    let old = FileTickLog::begin(folder.path(), 1).unwrap();
    let (mut zombie, mut late) = (old.writer(0).unwrap(), old.writer(1).unwrap());
    zombie.append(&[tick(0, 1, 10)]).unwrap();
    let new = FileTickLog::begin(folder.path(), 2).unwrap();
    assert_eq!(names(folder.path()), ["00000002-adopted.ticks"]);
    zombie.append(&[tick(0, 1, 20)]).unwrap();
    late.append(&[tick(0, 1, 30)]).unwrap();
    FileTickLog::join(folder.path(), 2).writer(3).unwrap().append(&[tick(0, 1, 40)]).unwrap();
    assert_eq!(new.ticks().unwrap(), [tick(0, 1, 10), tick(0, 1, 40)]);
    // A crash inside adoption: it is done again.
    fs::write(folder.path().join("00000003-adopted.part"), b"torn").unwrap();
    assert_eq!(FileTickLog::begin(folder.path(), 3).unwrap().ticks().unwrap(), [tick(0, 1, 40)]);
    // Of several at one place the last is kept; what a checkpoint holds leaves the adopted file too.
    let third = FileTickLog::begin(folder.path(), 3).unwrap();
    assert_eq!(third.ticks().unwrap(), [tick(0, 1, 40)]);
    third.forget_before(&positions(&[(0, 2)]), &clocks(&[])).unwrap();
    assert_eq!((third.ticks().unwrap().len(), names(folder.path()).len()), (0, 1));
}

#[test]
fn a_process_may_join_where_there_is_no_folder_yet() {
    // Goal: the disk of another machine holds nothing when its process joins, and what that appends afterwards.
    let folder = tempfile::tempdir().unwrap();
    let log = FileTickLog::join(&folder.path().join("ticks"), 1);
    assert_eq!(log.ticks().unwrap(), []);
    log.writer(4).unwrap().append(&[tick(0, 1, 10)]).unwrap();
    assert_eq!(log.ticks().unwrap(), [tick(0, 1, 10)]);
}

#[test]
fn full_files_go_when_they_are_held() {
    // Goal: a partition that stays idle for weeks does not fill the disk, and the file that is open stays.
    let folder = tempfile::tempdir().unwrap();
    let log = FileTickLog::begin(folder.path(), 1).unwrap();
    let mut writer = log.writer(0).unwrap();
    let many: Vec<Tick> = (0..60_000).map(|time| tick(0, 5, time)).collect();
    for ticks in [&many[..], &many[..], &[tick(0, 5, 70_000)]] {
        writer.append(ticks).unwrap();
    }
    assert_eq!(names(folder.path()).len(), 3);
    log.forget_before(&positions(&[(0, 5)]), &clocks(&[(0, 59_998)])).unwrap();
    assert_eq!(names(folder.path()).len(), 3);
    log.forget_before(&positions(&[(0, 5)]), &clocks(&[(0, 80_000)])).unwrap();
    assert_eq!(log.ticks().unwrap(), [tick(0, 5, 70_000)]);
    // A writer of the same name, after a crash that claimed no new generation, leaves the old file alone.
    log.writer(0).unwrap().append(&[tick(0, 5, 90_000)]).unwrap();
    assert_eq!(log.ticks().unwrap(), [tick(0, 5, 70_000), tick(0, 5, 90_000)]);
}
