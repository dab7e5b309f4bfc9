//! What a lake promises to a job with checkpoints: many commits, generations, clusters, writers that were stopped and wake up.

mod checkpointed;

use std::{collections::BTreeMap, fs, path::Path};

use tempfile::TempDir;
use whisperer_schemas::{Digest, row_hash};
use whisperer_sinks::{
    Existing, Lake, LakeOptions, RunId, RunManifest, SinkError, TableLog, TableSink, bytes_to_rows,
    conformance::{sample_facts, sample_row, sample_schema},
    digest_of_table, manifest,
    parquet::ROW_GROUP_ROWS_MAX,
};

use checkpointed::{Generation, JOB, Job, assert_rows, files_below, logs};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn run_id(name: &str) -> RunId {
    RunId::new(name).expect("a plain name")
}

/// Goal: many commits of several generations add up, every name is used once, and the digest is that of the rows.
#[test]
fn commits_of_generations_add_up() {
    for log in logs() {
        let folder = folder();
        let mut job = Job::new(folder.path(), "r1", log);
        for generation in 1..=3 {
            let mut lake = job.start().expect("start");
            job.assert_whole("after a start");
            for _ in 0..4 {
                job.checkpoint(&mut lake, 7).expect("checkpoint");
                job.assert_whole("after a checkpoint");
            }
            let written = lake.lake.written().expect("read");
            assert_eq!(written.iter().map(|file| file.rows).sum::<u64>(), generation * 28);
            assert!(written.iter().all(|file| file.table == "decisions" && file.path.starts_with("decisions")));
        }
        let names = names_below(folder.path());
        assert!(names.values().all(|count| *count == 1), "{names:?}");
        assert!(names.keys().any(|name| name.starts_with("part-r1-g0006-c000008-001-0000")), "{names:?}");
        let mut digest = Digest::default();
        (0..84).for_each(|row| digest.update(row_hash(&sample_schema(), &sample_row(row).values), 1));
        assert_eq!(digest_of_table(folder.path(), JOB, &sample_schema()).expect("read"), digest);
    }
}

/// Goal: what a manifest lists is published by the next generation, wherever the last one died; what no manifest lists is removed.
#[test]
fn listed_files_are_rolled_forward_and_others_removed() {
    for log in logs() {
        for renamed in 0..=4 {
            let folder = folder();
            let mut job = Job::new(folder.path(), "r1", log);
            let mut lake = job.start().expect("start");
            job.checkpoint(&mut lake, 10).expect("checkpoint");
            let staged = job.stage(&mut lake, 10).expect("stage");
            job.commit(&lake.lake, &staged, 10);
            for file in staged.iter().take(renamed) {
                fs::create_dir_all(file.place.parent().expect("a folder")).expect("create");
                fs::rename(&file.staged, &file.place).expect("rename");
            }
            let unlisted = job.stage(&mut lake, 5).expect("stage");
            assert!(!unlisted.is_empty());
            drop(lake);
            let mut lake = job.start().expect("go on");
            job.assert_whole("after the restart");
            assert!(files_below(&folder.path().join("_staging"), "staged").is_empty(), "{renamed}");
            job.checkpoint(&mut lake, 10).expect("checkpoint");
            job.assert_whole("after the next checkpoint");
        }
    }
}

/// Goal: opening a lake to go on touches nothing that is staged, neither of this job before it recovers nor ever of another.
#[test]
fn opening_leaves_staged_files() {
    let folder = folder();
    let mut job = Job::new(folder.path(), "r1", TableLog::None);
    let mut lake = job.start().expect("start");
    let staged = job.stage(&mut lake, 10).expect("stage");
    job.commit(&lake.lake, &staged, 10);
    drop(lake);
    let count = || files_below(&folder.path().join("_staging"), "staged").len();
    drop(Lake::open(job.options(2, 0)).expect("open"));
    assert_eq!(count(), staged.len());
    drop(Lake::open(LakeOptions::new(folder.path(), "other", 1, run_id("r2"))).expect("open"));
    assert_eq!(count(), staged.len());
    job.start().expect("go on");
    job.assert_whole("after all");
}

/// Goal: the processes of one generation share the lake, the first publishes for all; each is there once, and strangers wait.
#[test]
fn processes_of_a_cluster_share_the_lake() {
    for log in logs() {
        let folder = folder();
        let mut job = Job::new(folder.path(), "r1", log);
        let claimed = job.claim();
        let lakes = [0, 1].map(|process| Lake::open(job.options(claimed, process)).expect("open"));
        job.recover(&lakes[0], claimed, None, false).expect("recover");
        let mut staged = Vec::new();
        for (worker, lake) in lakes.iter().enumerate() {
            let mut table = lake.table(sample_schema(), worker);
            let rows = (0..10).filter(|row| row % 2 == worker as u64);
            table.write(rows.map(sample_row).collect()).expect("write");
            staged.extend(table.stage(&job.facts()).expect("stage"));
        }
        job.commit(&lakes[0], &staged, 10);
        lakes[0].publish(&staged).expect("publish");
        job.assert_whole("after the commit of both");
        let again = Lake::open(job.options(claimed, 1)).expect_err("it is there");
        assert!(matches!(again, SinkError::Busy { .. }), "{again}");
        let [first, second] = lakes;
        drop(first);
        let options = LakeOptions { log, ..LakeOptions::new(folder.path(), JOB, 1, run_id("r2")) };
        let other = LakeOptions { existing: Existing::Replace, ..options };
        let busy = Lake::open(other.clone()).expect_err("one is still there");
        assert!(matches!(busy, SinkError::Busy { .. }), "{busy}");
        drop(second);
        Lake::open(other).expect("nobody is there");
    }
}

/// Goal: a generation that was stopped and wakes up changes nothing: not by repeating its last publication, nor by staging, nor by its
/// end. And it cannot come back.
#[test]
fn a_fenced_generation_changes_nothing() {
    for log in logs() {
        let folder = folder();
        let mut job = Job::new(folder.path(), "r1", log);
        let mut stopped = job.start().expect("start");
        job.checkpoint(&mut stopped, 10).expect("checkpoint");
        let last = job.stage(&mut stopped, 10).expect("stage");
        job.commit(&stopped.lake, &last, 10);
        // It is stopped here: the manifest is committed, nothing is published. Its locks are held.
        let mut lake = job.start().expect("a lock of an earlier generation is no obstacle");
        job.assert_whole("after the successor has started");
        job.checkpoint(&mut lake, 10).expect("checkpoint");

        let before = names_below(folder.path());
        let commits = || files_below(&folder.path().join("decisions/_delta_log"), "json").len();
        let known = commits();
        stopped.lake.publish(&last).expect("it is done already");
        assert_eq!(commits(), known, "the log knows the commit, and takes it once");
        job.stage(&mut stopped, 10).expect("nobody looks there");
        job.assert_whole("after the stopped one has gone on");
        assert_eq!(names_below(folder.path()), before);
        let fenced = Lake::open(job.options(1, 0)).expect_err("its turn is over");
        assert!(matches!(fenced, SinkError::Fenced { generation: 1, .. }), "{fenced}");
        drop(stopped);
        job.checkpoint(&mut lake, 10).expect("checkpoint");
        job.assert_whole("after the stopped one has ended");
    }
}

/// Goal: going on from an older checkpoint is refused while later output is there; where it may be repeated, it is gone, and a stopped
/// writer that belonged to it does not bring it back.
#[test]
fn an_older_checkpoint_takes_later_output_back() {
    for log in logs() {
        let folder = folder();
        let mut job = Job::new(folder.path(), "r1", log);
        let mut stopped = job.start().expect("start");
        for _ in 0..3 {
            job.checkpoint(&mut stopped, 10).expect("checkpoint");
        }
        let last = job.stage(&mut stopped, 10).expect("stage");
        job.commit(&stopped.lake, &last, 10);
        let older = job.manifests[2].clone();
        let claimed = job.claim();
        let lake = Lake::open(job.options(claimed, 0)).expect("open");
        assert_eq!(
            lake.published_after(older.number).expect("list").len(),
            6,
            "two workers, three dates, one checkpoint"
        );
        let refused = job.recover(&lake, claimed, Some(&older), false).expect_err("refused");
        assert!(matches!(refused, SinkError::Repeats { checkpoint: 3, files: 6, .. }), "{refused}");
        assert_rows(folder.path(), 0..30, "after a refusal");
        job.recover(&lake, claimed, Some(&older), true).expect("recover");
        job.manifests.truncate(3);
        job.manifests.push(checkpointed::Manifest { number: claimed, listed: None, rows: 20 });
        job.assert_whole("after the older checkpoint was restored");
        let late = stopped.lake.publish(&last).expect_err("what it would publish is gone");
        assert!(matches!(late, SinkError::Lost { .. }), "{late}");
        job.assert_whole("after the stopped one has failed");
        job.checkpoint(&mut Generation::new(lake), 15).expect("checkpoint");
        job.assert_whole("after the next checkpoint");
    }
}

/// Goal: a run that goes on from an old copy of its state, while its tables have later checkpoints, is told so: its commits would be taken
/// for those, and their files be missing. Without a log there is nothing that could be mistaken.
#[test]
fn an_old_copy_of_the_state_is_told() {
    for log in logs() {
        let folder = folder();
        let mut job = Job::new(folder.path(), "r1", log);
        let mut lake = job.start().expect("start");
        for _ in 0..4 {
            job.checkpoint(&mut lake, 10).expect("checkpoint");
        }
        drop(lake);
        job.manifests.truncate(2);
        let claimed = job.claim();
        let lake = Lake::open(job.options(claimed, 0)).expect("open");
        let went_on = job.recover(&lake, claimed, job.cut(), true);
        match log {
            TableLog::None => went_on.expect("recover"),
            TableLog::Delta => {
                let error = went_on.expect_err("the log is ahead");
                assert!(matches!(error, SinkError::Ahead { recorded: 5, number: 3, .. }), "{error}");
                assert_rows(folder.path(), 0..40, "nothing is lost");
            }
            _ => unreachable!("there are two kinds of log"),
        }
    }
}

/// Goal: the first checkpoint of a new run replaces the job's earlier output, also where the process dies before it has.
#[test]
fn first_checkpoint_replaces() {
    for log in logs() {
        for dies in [false, true] {
            let folder = folder();
            let options = LakeOptions { log, ..LakeOptions::new(folder.path(), JOB, 1, run_id("old")) };
            let mut table = Lake::open(options).expect("open").table(sample_schema(), 0);
            table.write((500..520).map(sample_row).collect()).expect("write");
            table.commit(&sample_facts(1)).expect("commit");
            drop(table);
            let mut job = Job::new(folder.path(), "new", log);
            let mut lake = job.start().expect("start");
            assert_rows(folder.path(), 500..520, "until the first checkpoint");
            let staged = job.stage(&mut lake, 10).expect("stage");
            assert_rows(folder.path(), 500..520, "until it is committed");
            job.commit(&lake.lake, &staged, 10);
            if dies {
                drop(lake);
                job.start().expect("go on");
            } else {
                lake.lake.publish(&staged).expect("publish");
            }
            job.assert_whole("after the first checkpoint");
        }
    }
}

/// Goal: a run with checkpoints that comes to its end leaves its manifest and no staging folder, and may go through its end again.
#[test]
fn a_run_ends_and_may_end_again() {
    let folder = folder();
    let mut job = Job::new(folder.path(), "r1", TableLog::None);
    for _ in 0..2 {
        let mut lake = job.start().expect("start");
        job.checkpoint(&mut lake, 10).expect("checkpoint");
        let files = lake.lake.written().expect("read");
        let LakeOptions { job: name, job_version, run, .. } = lake.lake.options().clone();
        let run = RunManifest {
            version: manifest::MANIFEST_VERSION,
            run: run.as_str().into(),
            job: name,
            job_version,
            fingerprint: "f".into(),
            started: 0,
            ended: 1,
            workers: 1,
            epoch: 0,
            positions: Default::default(),
            watermark: None,
            counts: Default::default(),
            digests: Default::default(),
            files,
        };
        let path = lake.lake.finish(&run).expect("finish");
        assert_eq!(RunManifest::read(&path).expect("read"), run);
        assert!(files_below(&folder.path().join("_staging"), "json").is_empty());
    }
    job.assert_whole("after two ends");
}

/// Goal: a listed file that is nowhere is an error that names it, not a row less.
#[test]
fn a_lost_file_is_an_error() {
    let folder = folder();
    let mut job = Job::new(folder.path(), "r1", TableLog::None);
    let mut lake = job.start().expect("start");
    let staged = job.stage(&mut lake, 10).expect("stage");
    job.commit(&lake.lake, &staged, 10);
    fs::remove_file(&staged[1].staged).expect("remove");
    drop(lake);
    let lost = job.start().map(|_| ()).expect_err("a file is gone");
    assert!(matches!(&lost, SinkError::Lost { path, .. } if *path == staged[1].place), "{lost}");
}

/// How often each file name occurs below a folder.
fn names_below(folder: &Path) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for path in files_below(folder, "parquet") {
        *names.entry(path.file_name().unwrap_or_default().to_string_lossy().into_owned()).or_default() += 1;
    }
    names
}

/// Goal: what checkpoints keep of a table whose files grow on, and the rows after the last of them, are together the rows that are staged
/// at last: each once, and equal.
#[test]
fn held_rows_are_those_of_the_files() {
    let folder = folder();
    let mut job = Job::new(folder.path(), "r1", TableLog::None);
    let lake = job.start().expect("start").lake;
    let mut table = lake.table(sample_schema(), 0);
    let rows = |rows: std::ops::Range<u64>| rows.map(sample_row).collect::<Vec<_>>();
    assert_eq!(table.held().expect("whole"), None, "nothing was to be held");
    table.hold(true);
    let mut kept = Vec::new();
    for from in [0, 3_000, 6_000] {
        table.write(rows(from..from + 3_000)).expect("write");
        let bytes = table.held().expect("whole").expect("few enough");
        kept.extend(bytes_to_rows(&sample_schema(), &bytes).expect("rows"));
        assert_eq!(table.held().expect("whole"), Some(Vec::new()), "no rows since");
    }
    // Dates are kept apart, so that rows of one cut come date by date.
    kept.sort_by_key(|row| format!("{:?}", row.values[0]));
    let mut expected = rows(0..9_000);
    expected.sort_by_key(|row| format!("{:?}", row.values[0]));
    assert!(kept == expected);
    table.hold(false);
    table.write(rows(9_000..10_000)).expect("write");
    assert_eq!(table.held().expect("whole"), None);
    let staged = table.stage(&job.facts()).expect("stage");
    assert_eq!(staged.iter().map(|file| file.rows).sum::<u64>(), 10_000);
    job.commit(&lake, &staged, 10_000);
    lake.publish(&staged).expect("publish");
    assert_rows(folder.path(), 0..10_000, "published");
}

/// Goal: rows that are worth files are not held, however the table was told; after they are staged the next ones are.
#[test]
fn rows_beyond_a_row_group_are_staged() {
    let folder = folder();
    let mut job = Job::new(folder.path(), "r1", TableLog::None);
    let lake = job.start().expect("start").lake;
    let mut table = lake.table(sample_schema(), 0);
    table.hold(true);
    let half = (ROW_GROUP_ROWS_MAX as u64).div_ceil(2);
    for from in [0, half] {
        table.write((from..from + half + 1).map(sample_row).collect()).expect("write");
        assert_eq!(table.held().expect("whole").is_some(), from == 0);
    }
    let staged = table.stage(&job.facts()).expect("stage");
    assert_eq!(staged.iter().map(|file| file.rows).sum::<u64>(), 2 * half + 2);
    table.hold(true);
    table.write(vec![sample_row(1)]).expect("write");
    assert!(table.held().expect("whole").is_some_and(|bytes| !bytes.is_empty()));
}
