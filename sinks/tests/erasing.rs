//! Rows are taken out of published tables, with a table log and without.

use std::{fs, path::Path, sync::Arc};

use whisperer_schemas::{Digest, Row, TableSchema, row_hash};
use whisperer_sinks::{
    CommitFacts, Found, Lake, LakeOptions, RunId, TableLog, TableSink,
    conformance::{sample_row, sample_schema},
    digest_of_table,
};

/// The kinds of log that this build has.
fn logs() -> Vec<TableLog> {
    if cfg!(feature = "delta") { vec![TableLog::None, TableLog::Delta] } else { vec![TableLog::None] }
}

/// A lake with a published table of some rows.
fn published(root: &Path, log: TableLog, rows: u64) -> Arc<Lake> {
    let run = RunId::new("r1").expect("a name");
    let lake = Lake::open(LakeOptions { log, ..LakeOptions::new(root, "job", 1, run) }).expect("it opens");
    for part in 0..3 {
        let mut table = lake.table(sample_schema(), part);
        table.write((0..rows).filter(|row| row % 3 == part as u64).map(sample_row).collect()).expect("taken");
        table.commit(&CommitFacts::default()).expect("published");
    }
    lake
}

/// Every seventh row or so; of some files all.
fn goes(schema: &TableSchema, row: &Row) -> bool {
    row_hash(schema, &row.values).is_multiple_of(7)
}

fn digest(root: &Path) -> Digest {
    digest_of_table(root, "job", &sample_schema()).expect("readable")
}

/// What readers of the table see: the files of its log, or of its folder.
fn files(root: &Path, log: TableLog) -> usize {
    fn below(folder: &Path) -> usize {
        let entries = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
        let count = |path: std::path::PathBuf| match path.extension() {
            _ if path.ends_with("_delta_log") => 0,
            _ if path.is_dir() => below(&path),
            Some(ending) => usize::from(ending == "parquet"),
            None => 0,
        };
        entries.map(count).sum()
    }
    let folder = root.join(sample_schema().name);
    let found = below(&folder);
    #[cfg(feature = "delta")]
    if log == TableLog::Delta {
        let logged = whisperer_sinks::delta::files(&folder).expect("a log");
        assert!(logged.iter().all(|file| file.exists()), "{logged:?}");
        assert_eq!(logged.len(), found, "the log has what is in the folder");
    }
    let _ = log;
    found
}

#[test]
fn rows_that_go_are_gone_and_the_others_stay() {
    // Goal: the digest of what is left is the digest less the rows that were handed over; doing it again finds nothing, and the log and the folder
    // agree. Method: a table of three writers, of which every seventh row goes.
    for log in logs() {
        let folder = tempfile::tempdir().expect("a folder");
        let lake = published(folder.path(), log, 2_000);
        let (mut expected, mut gone) = (digest(folder.path()), 0);
        let mut take = |schema: &TableSchema, row: &Row| {
            expected.update(row_hash(schema, &row.values), -1);
            gone += 1;
        };
        let before = files(folder.path(), log);
        let found = lake.find_rows(&goes, &mut take).expect("readable");
        assert!(gone > 100 && found.files() > 0);
        lake.take_out(&found, &goes, 0).expect("rewritten");
        assert_eq!(digest(folder.path()), expected, "{log:?}");
        assert!(files(folder.path(), log) <= before);
        let again = lake.find_rows(&goes, &mut |_, _| panic!("nothing is left")).expect("readable");
        assert_eq!(again, Found::default());
        lake.take_out(&again, &goes, 0).expect("nothing to do");
        assert_eq!(digest(folder.path()), expected);
    }
}

#[test]
fn files_without_rows_are_no_files() {
    // Goal: where every row goes, no file stays, in the folder and in the log.
    for log in logs() {
        let folder = tempfile::tempdir().expect("a folder");
        let lake = published(folder.path(), log, 50);
        let found = lake.find_rows(&|_, _| true, &mut |_, _| {}).expect("readable");
        lake.take_out(&found, &|_, _| true, 0).expect("removed");
        assert_eq!((files(folder.path(), log), digest(folder.path())), (0, Digest::default()), "{log:?}");
    }
}

#[test]
fn a_file_that_has_given_way_counts_once() {
    // Goal: a start after a crash between the renaming and the removal finds the file and its successor, and keeps the successor alone. Method: the
    // old files are put back.
    for log in logs() {
        let folder = tempfile::tempdir().expect("a folder");
        let lake = published(folder.path(), log, 300);
        let table = folder.path().join(sample_schema().name);
        let copy = tempfile::tempdir().expect("a folder");
        copy_parquet(&table, copy.path());
        let found = lake.find_rows(&goes, &mut |_, _| {}).expect("readable");
        lake.take_out(&found, &goes, 0).expect("rewritten");
        let expected = digest(folder.path());
        copy_parquet(copy.path(), &table);
        assert_ne!(digest(folder.path()), expected, "the old files are back");
        let found = lake.find_rows(&goes, &mut |_, _| {}).expect("readable");
        lake.take_out(&found, &goes, 0).expect("rolled forward");
        assert_eq!(digest(folder.path()), expected, "{log:?}");
        files(folder.path(), log);
    }
}

fn copy_parquet(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && !path.ends_with("_delta_log") {
            copy_parquet(&path, &to.join(&name));
        } else if path.extension().is_some_and(|ending| ending == "parquet") {
            fs::copy(&path, to.join(&name)).expect("copied");
        }
    }
}
