//! A job with checkpoints as the lake sees it: generations that stage, have a manifest list it, publish, and go on from the newest.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use whisperer_schemas::{Epoch, Row};
use whisperer_sinks::{
    CommitFacts, Existing, Lake, LakeOptions, ParquetTable, Recovery, RunId, SinkError, StagedFile, TableLog,
    TableSink,
    conformance::{sample_row, sample_schema},
    read_table,
};

pub const JOB: &str = "engagement";

/// A manifest: it is durable once it is in the list of its job.
#[derive(Clone)]
pub struct Manifest {
    pub number: u64,
    /// As JSON, the way manifests hold it.
    pub listed: Option<Vec<String>>,
    /// Rows up to this one are in it or in an earlier one.
    pub rows: u64,
}

/// One generation: its lake and the writers of its two workers.
pub struct Generation {
    pub lake: Arc<Lake>,
    tables: [ParquetTable; 2],
}

impl Generation {
    pub fn new(lake: Arc<Lake>) -> Generation {
        let tables = [0, 1].map(|worker| lake.table(sample_schema(), worker));
        Generation { lake, tables }
    }
}

/// A job's manifests and the folder of its lake.
pub struct Job {
    pub root: PathBuf,
    pub run: String,
    pub log: TableLog,
    pub manifests: Vec<Manifest>,
}

impl Job {
    pub fn new(root: &Path, run: &str, log: TableLog) -> Job {
        Job { root: root.into(), run: run.into(), log, manifests: Vec::new() }
    }

    pub fn options(&self, generation: u64, process: u32) -> LakeOptions {
        let run = RunId::new(self.run.as_str()).expect("a plain name");
        let existing = if self.cut().is_some() { Existing::Continue } else { Existing::Replace };
        let options = LakeOptions::new(&self.root, JOB, 1, run);
        LakeOptions { existing, generation, process, log: self.log, ..options }
    }

    /// The newest manifest with a checkpoint.
    pub fn cut(&self) -> Option<&Manifest> {
        self.manifests.iter().rev().find(|manifest| manifest.listed.is_some())
    }

    pub fn number(&self) -> u64 {
        self.manifests.last().map_or(0, |manifest| manifest.number)
    }

    /// How many rows the committed checkpoints have.
    pub fn rows(&self) -> u64 {
        self.cut().map_or(0, |manifest| manifest.rows)
    }

    pub fn claim(&mut self) -> u64 {
        let (number, rows) = (self.number() + 1, self.rows());
        self.manifests.push(Manifest { number, listed: None, rows });
        number
    }

    /// Starts a generation as one process, and recovers.
    pub fn start(&mut self) -> Result<Generation, SinkError> {
        let claimed = self.claim();
        let lake = Lake::open(self.options(claimed, 0))?;
        self.recover(&lake, claimed, self.cut(), false)?;
        Ok(Generation::new(lake))
    }

    pub fn recover(
        &self,
        lake: &Lake,
        claimed: u64,
        from: Option<&Manifest>,
        repeat_outputs: bool,
    ) -> Result<(), SinkError> {
        let listed: Vec<StagedFile> = from
            .iter()
            .flat_map(|manifest| manifest.listed.iter().flatten())
            .map(|json| serde_json::from_str(json).expect("a staged file"))
            .collect();
        let checkpoint = from.map_or(0, |manifest| manifest.number);
        lake.recover(&Recovery { checkpoint, listed: &listed, claimed, repeat_outputs, erased: false }).map(|_| ())
    }

    /// Writes `count` rows more on two workers and stages them for the next checkpoint.
    pub fn stage(&self, generation: &mut Generation, count: u64) -> Result<Vec<StagedFile>, SinkError> {
        let (facts, from) = (self.facts(), self.rows());
        let mut staged = Vec::new();
        for (worker, table) in generation.tables.iter_mut().enumerate() {
            let rows = (from..from + count).filter(|row| row % 2 == worker as u64);
            table.write(rows.map(sample_row).collect())?;
            staged.extend(table.stage(&facts)?);
        }
        Ok(staged)
    }

    pub fn facts(&self) -> CommitFacts {
        CommitFacts { epoch: Epoch(self.number() * 10), checkpoint: self.number() + 1, ..CommitFacts::default() }
    }

    /// Commits the next manifest, with what was staged of `count` rows.
    pub fn commit(&mut self, lake: &Lake, staged: &[StagedFile], count: u64) {
        let json = |file: &StagedFile| serde_json::to_string(file).expect("JSON");
        let listed = Some(lake.listed(staged).iter().map(json).collect());
        self.manifests.push(Manifest { number: self.number() + 1, listed, rows: self.rows() + count });
    }

    /// A whole checkpoint.
    pub fn checkpoint(&mut self, generation: &mut Generation, count: u64) -> Result<(), SinkError> {
        let staged = self.stage(generation, count)?;
        self.commit(&generation.lake, &staged, count);
        generation.lake.publish(&staged).map(|_| ())
    }

    /// The rows that readers see are those of the committed checkpoints, each once.
    pub fn assert_whole(&self, when: &str) {
        assert_rows(&self.root, 0..self.rows(), when);
        #[cfg(feature = "delta")]
        if self.log == TableLog::Delta {
            assert_log_matches(&self.root, when);
        }
    }
}

pub fn assert_rows(root: &Path, expected: std::ops::Range<u64>, when: &str) {
    let mut rows = read_table(root, JOB, &sample_schema()).expect("whole files");
    rows.sort_by_key(|row| format!("{:?}", row.values[0]));
    let ids = |rows: &[Row]| rows.iter().map(|row| format!("{:?}", row.values[0])).collect::<Vec<_>>();
    let expected: Vec<Row> = expected.map(sample_row).collect();
    assert_eq!(ids(&rows), ids(&expected), "{when}");
    assert!(rows == expected, "values of rows {when}");
}

/// The log names the files that are there, each once.
#[cfg(feature = "delta")]
pub fn assert_log_matches(root: &Path, when: &str) {
    let folder = root.join("decisions");
    let there = files_below(&folder, "parquet");
    if there.is_empty() && !folder.join("_delta_log").is_dir() {
        return;
    }
    let mut logged = whisperer_sinks::delta::files(&folder).expect("a log that can be read");
    logged.sort();
    let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let names = |paths: &[PathBuf]| {
        let mut names: Vec<_> = paths.iter().filter_map(name).collect();
        names.sort();
        names
    };
    assert_eq!(names(&logged), names(&there), "{when}");
}

/// The files below `folder` with this ending, without those of the log.
pub fn files_below(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() && !path.ends_with("_delta_log") {
            files.extend(files_below(&path, ending));
        } else if path.extension().is_some_and(|found| found == ending) {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The kinds of log that this build has.
pub fn logs() -> Vec<TableLog> {
    if cfg!(feature = "delta") { vec![TableLog::None, TableLog::Delta] } else { vec![TableLog::None] }
}
