//! A lake: the folder that holds a job's tables, and the rules by which a run's files get into it.
//!
//! ```text
//! <lake>/profiles/as_of_date=2026-01-03/part-<run>-000-00000.parquet      what readers see
//! <lake>/profiles/_delta_log/00000000000000000000.json                    the table's log, if it keeps one
//! <lake>/dead_letters/part-<run>-001-00000.parquet
//! <lake>/_runs/<run>.json                                                 manifest of each finished run
//! <lake>/_staging/<run>/profiles/…/part-….parquet.staged                  written, not committed
//! <lake>/_staging/<run>/publish.json                                      the commit that is being carried out
//! <lake>/_staging/<run>-g0002/profiles/…                                  the same of the second generation of a run with checkpoints
//! ```
//!
//! **Publishing.** Staged files are durable. Their names and places, and the files that give way to them, are written
//! to `publish.json`; from then on the commit counts. The files are renamed, the folders synced, the tables' logs told, the replaced
//! files removed, in this order, then `publish.json` itself. If the process dies in between, the next opening carries the
//! commit out: all of a commit is in place, or nothing. A reader that lists the folder at that very moment may see part of it, or old
//! files beside new ones: plain files cannot hide that; a table's log does.
//!
//! **Runs.** A run holds a lock on its staging folder while it lives. Opening a lake removes the staging folders of
//! runs that are dead, after rolling their commits forward, and refuses a job that another live run writes.
//!
//! **Runs with checkpoints** have generations, from 1, and commit many times. There the manifest of a checkpoint, which lists the staged
//! files, is what decides, and [`Lake::recover`] is what rolls forward; nothing that an earlier generation has staged is touched before
//! it. A generation that was stopped and wakes up is fenced by the manifests, not by the lock: it may still write to its own staging
//! folder, which was given up, and repeat the publication that its successor has carried out, which changes nothing. The
//! processes of a cluster share the staging folder of their generation; the first of them publishes.
//!
//! **Earlier output.** Files say in their metadata which job made them, in which run. A job's files of earlier runs make the opening
//! fail ([`Existing::Refuse`]) or give way, all at once, to the first commit of this run ([`Existing::Replace`]); until then
//! readers see the earlier output whole. Other jobs' files are never touched.

mod erasing;
mod names;
mod opening;
mod publication;
mod recovery;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use whisperer_schemas::{TableSchema, VIEWS};

use self::{
    opening::{Alive, Owner},
    publication::{PUBLISH, Publication},
};
use crate::{
    durable::{create_folder, remove, remove_folder, sync_folder},
    error::{SinkError, io},
    failpoint,
    log_tables::LogTables,
    manifest::{self, RunManifest},
    parquet::ParquetTable,
    sink::{StagedFile, WrittenFile},
};

pub use erasing::{Found, Goes};
pub(crate) use names::PartName;
pub use recovery::Recovery;

const STAGING: &str = "_staging";

/// What names a run in file names; different for every run. A run that is continued from a checkpoint keeps its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunId(String);

impl RunId {
    /// A run's name: letters, digits, `.`, `_` and `-`, beginning with a letter or digit.
    ///
    /// # Errors
    /// A name that cannot be part of a file name.
    pub fn new(name: impl Into<String>) -> Result<RunId, SinkError> {
        let name = name.into();
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        let begins = name.starts_with(|first: char| first.is_ascii_alphanumeric());
        // File systems allow 255 bytes in a name; the rest of a part's name takes some of them.
        if plain && begins && name.len() <= 128 { Ok(RunId(name)) } else { Err(SinkError::Name { what: "run", name }) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What becomes of the output of the job's earlier runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Existing {
    /// It stays, and the new run is refused.
    #[default]
    Refuse,
    /// The first commit of the new run takes its place.
    Replace,
    /// It is this run's own, from before a checkpoint that it goes on from. What other runs of the job have left gives way.
    Continue,
}

/// Whether the tables of a lake keep a log, from which readers learn which files belong to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TableLog {
    /// They do not: the files in the folder are the table.
    #[default]
    None,
    /// Each is a Delta table; needs the feature `delta`.
    Delta,
}

/// What a lake is opened with.
#[derive(Clone, Debug)]
pub struct LakeOptions {
    /// The folder; created where it is missing.
    pub root: PathBuf,
    /// The job that writes.
    pub job: String,
    /// The version of its file.
    pub job_version: u32,
    /// The run: the same in every generation of a job that goes on from its checkpoints.
    pub run: RunId,
    /// What becomes of its earlier output.
    pub existing: Existing,
    /// The incarnation of the cluster, from 1; 0 for a run without checkpoints.
    pub generation: u64,
    /// Which process of the cluster this is; the first, 0, publishes.
    pub process: u32,
    /// Whether its tables keep a log.
    pub log: TableLog,
}

impl LakeOptions {
    /// Those of a run without checkpoints, in one process, whose tables keep no log.
    #[must_use]
    pub fn new(root: &Path, job: &str, job_version: u32, run: RunId) -> LakeOptions {
        let (root, job, existing, log) = (root.into(), job.into(), Existing::Refuse, TableLog::None);
        LakeOptions { root, job, job_version, run, existing, generation: 0, process: 0, log }
    }

    /// The folder in which this generation stages.
    fn staging(&self) -> PathBuf {
        let run = self.run.as_str();
        let folder = self.root.join(STAGING);
        if self.generation == 0 { folder.join(run) } else { folder.join(format!("{run}-g{:04}", self.generation)) }
    }

    /// Whether `owner` is a generation of this run with checkpoints.
    fn continues(&self, owner: &Owner) -> bool {
        self.generation > 0 && owner.generation > 0 && owner.job == self.job && owner.run == self.run.as_str()
    }

    /// What the run is called in the logs of tables.
    fn app(&self) -> String {
        format!("whisperer/{}/{}", self.job, self.run.as_str())
    }
}

/// A lake opened for one run. Dropping it without [`Lake::finish`] leaves at most staged files.
#[derive(Debug)]
pub struct Lake {
    options: LakeOptions,
    commits: Mutex<Commits>,
    _alive: Alive,
}

/// What makes commits go one after the other.
#[derive(Debug)]
struct Commits {
    /// Files that give way to the first commit.
    replaced: Vec<PathBuf>,
    /// How many there were.
    count: u64,
    logs: LogTables,
}

impl Lake {
    /// Opens a lake for a run: clears up after dead runs and looks for the job's earlier output.
    ///
    /// # Errors
    /// Earlier output that may not be replaced, another run of the job that is alive, a folder that cannot be written.
    pub fn open(options: LakeOptions) -> Result<Arc<Lake>, SinkError> {
        create_folder(&options.root.join(STAGING))?;
        // Openings go one after the other, so that none takes a folder that is being made for an abandoned one.
        let _turn = opening::take_turn(&options.root)?;
        opening::check_log(&options)?;
        opening::clear_up(&options)?;
        let replaced = opening::earlier_output(&options)?;
        let alive = opening::claim(&options)?;
        let commits = Commits { replaced, count: 0, logs: LogTables::new(options.log)? };
        Ok(Arc::new(Lake { options, commits: Mutex::new(commits), _alive: alive }))
    }

    /// A writer of one table for one worker.
    #[must_use]
    pub fn table(self: &Arc<Lake>, schema: TableSchema, worker: usize) -> ParquetTable {
        ParquetTable::new(Arc::clone(self), schema, worker)
    }

    /// Whether the job's rows fit the table's log: best asked before the first row, since a commit that fails stops the job.
    ///
    /// # Errors
    /// A column that has another type there.
    pub fn check(&self, schema: &TableSchema) -> Result<(), SinkError> {
        let Commits { replaced, logs, .. } = &mut *self.commits();
        logs.check(self.root(), schema, replaced)
    }

    /// Makes staged files visible: those of all tables and workers in one commit, and the job's earlier output gone. In a run with
    /// checkpoints it comes after the manifest that lists the files, and before the next manifest.
    ///
    /// # Errors
    /// What the file system answers. The commit counts if `publish.json`, or the manifest, was written; the next opening, or
    /// [`Lake::recover`], then finishes it.
    pub fn publish(&self, staged: &[StagedFile]) -> Result<Vec<WrittenFile>, SinkError> {
        let mut commits = self.commits();
        if staged.is_empty() && commits.replaced.is_empty() {
            return Ok(Vec::new());
        }
        let publication = self.publication(staged, &mut commits);
        if self.options.generation > 0 {
            publication.carry_out(self.root(), &mut commits.logs)?;
        } else {
            self.carry_out_recorded(&publication, &mut commits)?;
        }
        commits.replaced.clear();
        failpoint::pass("lake.published").map_err(io("publish", self.root()))?;
        Ok(publication.files.iter().map(|file| WrittenFile::of(file, file.place.clone())).collect())
    }

    /// Ends the run: writes its manifest and removes its staging folder. A job's manifests of replaced runs go with
    /// their files.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn finish(&self, run: &RunManifest) -> Result<PathBuf, SinkError> {
        self.publish(&[])?;
        let path = manifest::path(self.root(), self.options.run.as_str());
        run.write(&path)?;
        failpoint::pass("lake.finished").map_err(io("finish", &path))?;
        remove_folder(&self.staging())?;
        Ok(path)
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.options.root
    }

    /// What it was opened with.
    #[must_use]
    pub fn options(&self) -> &LakeOptions {
        &self.options
    }

    /// The folder in which this run stages.
    pub(crate) fn staging(&self) -> PathBuf {
        self.options.staging()
    }

    fn commits(&self) -> MutexGuard<'_, Commits> {
        // What it guards is whole at any moment: a worker that panicked elsewhere does not spoil it.
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries a commit out that nothing else writes down.
    fn carry_out_recorded(&self, publication: &Publication, commits: &mut Commits) -> Result<(), SinkError> {
        let record = self.staging().join(PUBLISH);
        if let Some(unfinished) = Publication::read(&record)? {
            unfinished.carry_out(self.root(), &mut commits.logs)?;
        }
        publication.decide(&record)?;
        publication.carry_out(self.root(), &mut commits.logs)?;
        remove(&record)?;
        sync_folder(&self.staging())
    }

    /// The commit of `staged`.
    fn publication(&self, staged: &[StagedFile], commits: &mut Commits) -> Publication {
        commits.count += 1;
        let number = match self.options.generation {
            0 => commits.count,
            _ => staged.iter().map(|file| file.checkpoint).max().unwrap_or_default(),
        };
        let remove = commits.replaced.iter().map(|path| self.relative(path)).collect();
        Publication::new(self.options.app(), number, self.options.log, self.listed(staged), remove)
    }

    /// The path in the lake, or as it is where it is not in it.
    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.root()).unwrap_or(path).to_path_buf()
    }
}

/// The folders of tables: all but those whose name says that readers ignore it. Those of views lie in a folder of their own.
pub(crate) fn tables(root: &Path) -> Result<Vec<PathBuf>, SinkError> {
    let mut tables = folders(root)?;
    let views = root.join(VIEWS);
    if let Some(at) = tables.iter().position(|folder| *folder == views) {
        tables.remove(at);
        tables.extend(folders(&views)?);
    }
    Ok(tables)
}

fn folders(root: &Path) -> Result<Vec<PathBuf>, SinkError> {
    let mut tables = Vec::new();
    for entry in fs::read_dir(root).map_err(io("list", root))? {
        let path = entry.map_err(io("list", root))?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(['_', '.']));
        if path.is_dir() && !hidden {
            tables.push(path);
        }
    }
    tables.sort();
    Ok(tables)
}
