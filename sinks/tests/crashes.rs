//! A process that dies, and a disk that loses its power, at every single step of staging, publishing and recovering.

mod checkpointed;

use std::path::Path;

use tempfile::TempDir;
use whisperer_schemas::Row;
use whisperer_sinks::{
    Existing, Lake, LakeOptions, RunId, SinkError, TableLog, TableSink,
    conformance::{sample_facts, sample_row, sample_schema},
    fault::FaultyDisk,
    read_table,
};

use checkpointed::{JOB, Job, assert_rows, logs};

/// What a crash takes with it of what was not synced.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// Nothing: the process was killed, the page cache stays.
    Nothing,
    /// All of it.
    All,
    /// Some of it, as the seed decides.
    Some(u64),
}

/// The losses that are tried at a step: all of it always, the others now and then where each costs the reading of a log.
fn losses(log: TableLog, steps: u64) -> Vec<Loss> {
    let (mut losses, others) = (vec![Loss::All], [Loss::Nothing, Loss::Some(steps + 1)]);
    if log == TableLog::None || steps.is_multiple_of(4) {
        losses.extend(others);
    }
    losses
}

/// Two folders on one file system: in memory where there is one, since thousands of synced files are of no use to a disk.
fn folders() -> (TempDir, TempDir) {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
    let folder = || tempfile::tempdir_in(&base).expect("a temporary folder");
    (folder(), folder())
}

/// Ends the life of a disk that has failed, or has not.
fn crash(disk: FaultyDisk, loss: Loss) {
    match loss {
        Loss::Nothing => drop(disk),
        Loss::All => disk.cut_power(|| true),
        Loss::Some(mut seed) => disk.cut_power(|| {
            // xorshift64
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed.is_multiple_of(2)
        }),
    }
}

/// A generation's life: it recovers, takes two checkpoints, one of them empty, and stages for a fourth.
fn live(job: &mut Job) -> Result<(), SinkError> {
    let mut lake = job.start()?;
    for count in [6, 0] {
        job.checkpoint(&mut lake, count)?;
    }
    job.stage(&mut lake, 4).map(|_| ())
}

/// Runs a generation that breaks after `steps`, and the one after it; says whether it broke.
fn crash_after(job: &mut Job, steps: u64, aside: &Path, loss: Loss) -> Option<&'static str> {
    let disk = FaultyDisk::after(steps, aside);
    let ended = live(job);
    let broke = disk.broke();
    assert_eq!(ended.is_err(), broke.is_some(), "{ended:?}");
    crash(disk, loss);
    broke
}

/// Goal: at whichever step a generation dies, whatever of the unsynced is lost: after the next start, and after it has gone on, readers
/// see the rows of the committed checkpoints, each once; and the log names exactly the files that are there.
#[test]
fn every_step_may_be_the_last() {
    for log in logs() {
        let mut points = Vec::new();
        'steps: for steps in 0.. {
            for loss in losses(log, steps) {
                let (root, aside) = folders();
                let mut job = Job::new(root.path(), "r1", log);
                let mut lake = job.start().expect("start");
                job.checkpoint(&mut lake, 8).expect("checkpoint");
                drop(lake);
                let Some(point) = crash_after(&mut job, steps, aside.path(), loss) else { break 'steps };
                points.push(point);
                let when = format!("{log:?}, {loss:?}, {steps} steps, broke at {point}");
                let mut lake = job.start().unwrap_or_else(|error| panic!("{error}: {when}"));
                job.assert_whole(&when);
                job.checkpoint(&mut lake, 3).expect("checkpoint");
                job.assert_whole(&when);
            }
        }
        points.sort_unstable();
        points.dedup();
        assert!(points.len() >= 9, "{points:?}");
    }
}

/// Goal: recovery itself may die at any step, twice, and the third one comes to the same end.
#[test]
fn recovery_may_die_at_every_step() {
    for log in logs() {
        for steps in 0.. {
            let (root, aside) = folders();
            let mut job = Job::new(root.path(), "r1", log);
            let mut lake = job.start().expect("start");
            job.checkpoint(&mut lake, 8).expect("checkpoint");
            let staged = job.stage(&mut lake, 6).expect("stage");
            job.commit(&lake.lake, &staged, 6);
            drop(lake);
            let mut broke = None;
            for _ in 0..2 {
                let disk = FaultyDisk::after(steps, aside.path());
                let ended = job.start().map(drop);
                broke = disk.broke();
                assert_eq!(ended.is_err(), broke.is_some(), "{ended:?}");
                crash(disk, Loss::All);
            }
            let mut lake = job.start().expect("start");
            let when = format!("{log:?}, {steps} steps, broke at {broke:?}");
            job.assert_whole(&when);
            job.checkpoint(&mut lake, 3).expect("checkpoint");
            job.assert_whole(&when);
            if broke.is_none() {
                break;
            }
        }
    }
}

/// Goal: a plain run that replaces an earlier one may die at every step: readers then see the earlier output or the new one, whole,
/// and the log agrees.
#[test]
fn a_plain_run_may_die_at_every_step() {
    for log in logs() {
        'steps: for steps in 0.. {
            for loss in losses(log, steps) {
                let (root, aside) = folders();
                plain_run(root.path(), "old", log, 0..20).expect("a run");
                let disk = FaultyDisk::after(steps, aside.path());
                let ended = plain_run(root.path(), "new", log, 50..70);
                let broke = disk.broke();
                crash(disk, loss);
                let other = RunId::new("other").expect("a plain name");
                Lake::open(LakeOptions { log, ..LakeOptions::new(root.path(), "other", 1, other) }).expect("open");
                let when = format!("{log:?}, {loss:?}, {steps} steps, broke at {broke:?}");
                if broke.is_none() || !has_rows(root.path(), 0..20) {
                    assert_rows(root.path(), 50..70, &when);
                }
                #[cfg(feature = "delta")]
                if log == TableLog::Delta {
                    checkpointed::assert_log_matches(root.path(), &when);
                }
                if broke.is_none() {
                    ended.expect("nothing broke");
                    break 'steps;
                }
            }
        }
    }
}

fn plain_run(root: &Path, run: &str, log: TableLog, rows: std::ops::Range<u64>) -> Result<(), SinkError> {
    let options = LakeOptions::new(root, JOB, 1, RunId::new(run).expect("a plain name"));
    let lake = Lake::open(LakeOptions { existing: Existing::Replace, log, ..options })?;
    let mut table = lake.table(sample_schema(), 0);
    table.write(rows.map(sample_row).collect())?;
    table.commit(&sample_facts(1)).map(|_| ())
}

/// Whether readers see exactly these rows.
fn has_rows(root: &Path, expected: std::ops::Range<u64>) -> bool {
    let mut rows = read_table(root, JOB, &sample_schema()).expect("whole files");
    rows.sort_by_key(|row| format!("{:?}", row.values[0]));
    rows == expected.map(sample_row).collect::<Vec<Row>>()
}
