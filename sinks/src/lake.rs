//! A lake: the folder that holds a job's tables, and the rules by which a run's files get into it.
//!
//! ```text
//! <lake>/profiles/as_of_date=2026-01-03/part-<run>-000-00000.parquet      what readers see
//! <lake>/dead_letters/part-<run>-001-00000.parquet
//! <lake>/_runs/<run>.json                                                 manifest of each finished run
//! <lake>/_staging/<run>/profiles/…/part-….parquet.staged                  written, not committed
//! <lake>/_staging/<run>/publish.json                                      the commit that is being carried out
//! ```
//!
//! **Publishing.** Staged files are durable. Their names and places, and the files that give way to them, are written
//! to `publish.json`; from then on the commit counts. The files are renamed, the folders synced, the replaced files
//! removed, in this order, then `publish.json` itself. If the process dies in between, the next opening carries the
//! commit out: all of a commit is in place, or nothing. A reader that lists the folder at that very moment may see part of it, or old
//! files beside new ones: plain files cannot hide that; a table log can.
//!
//! **Runs.** A run holds a lock on its staging folder while it lives. Opening a lake removes the staging folders of
//! runs that are dead, after rolling their commits forward, and refuses a job that another live run writes.
//!
//! **Earlier output.** Files say in their metadata which job made them. A job's files of earlier runs make the opening
//! fail ([`Existing::Refuse`]) or give way, all at once, to the first commit of this run ([`Existing::Replace`]); until then
//! readers see the earlier output whole. Other jobs' files are never touched.

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use whisperer_schemas::TableSchema;

use crate::{
    durable::{create_folder, folder_of, rename, sync_folder, write_whole},
    error::{SinkError, io},
    manifest::{self, RunManifest},
    parquet::{ParquetTable, files_of_job},
    sink::{StagedFile, WrittenFile},
};

const STAGING: &str = "_staging";
const PUBLISH: &str = "publish.json";
const JOB: &str = "job";

/// What names a run in file names; different for every run.
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
    /// The run.
    pub run: RunId,
    /// What becomes of its earlier output.
    pub existing: Existing,
}

/// A lake opened for one run. Dropping it without [`Lake::finish`] leaves at most staged files.
#[derive(Debug)]
pub struct Lake {
    options: LakeOptions,
    /// Files that give way to the first commit; also what makes commits go one after the other.
    replaced: Mutex<Vec<PathBuf>>,
    /// Holds the lock that tells a live run from a dead one.
    _alive: File,
}

/// A commit that has been decided: what is left to do is done by whoever opens the lake.
#[derive(Debug, Serialize, Deserialize)]
struct Publication {
    version: u64,
    files: Vec<StagedFile>,
    remove: Vec<PathBuf>,
}

/// The version of `publish.json`.
const PUBLICATION_VERSION: u64 = 1;

impl Lake {
    /// Opens a lake for a run: clears up after dead runs and looks for the job's earlier output.
    ///
    /// # Errors
    /// Earlier output that may not be replaced, another run of the job that is alive, a folder that cannot be written.
    pub fn open(options: LakeOptions) -> Result<Arc<Lake>, SinkError> {
        let staging = options.root.join(STAGING);
        create_folder(&staging)?;
        // Openings go one after the other, so that none takes a folder that is being made for an abandoned one.
        let turn = File::open(&staging).map_err(io("open", &staging))?;
        turn.lock().map_err(io("lock", &staging))?;
        clear_up(&options)?;
        let replaced = earlier_output(&options)?;
        let alive = claim(&options)?;
        Ok(Arc::new(Lake { options, replaced: Mutex::new(replaced), _alive: alive }))
    }

    /// A writer of one table for one worker.
    #[must_use]
    pub fn table(self: &Arc<Lake>, schema: TableSchema, worker: usize) -> ParquetTable {
        ParquetTable::new(Arc::clone(self), schema, worker)
    }

    /// Makes staged files visible: those of all tables and workers in one commit, and the job's earlier output gone.
    ///
    /// # Errors
    /// What the file system answers. The commit counts if `publish.json` was written; the next opening then finishes it.
    pub fn publish(&self, staged: &[StagedFile]) -> Result<Vec<WrittenFile>, SinkError> {
        let mut replaced = self.replaced();
        if staged.is_empty() && replaced.is_empty() {
            return Ok(Vec::new());
        }
        let record = self.staging().join(PUBLISH);
        if let Some(unfinished) = Publication::read(&record)? {
            unfinished.carry_out(self.root())?;
        }
        let publication = self.publication(staged, &replaced);
        publication.decide(&record)?;
        publication.carry_out(self.root())?;
        replaced.clear();
        fs::remove_file(&record).map_err(io("remove", &record))?;
        sync_folder(&self.staging())?;
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
        let staging = self.staging();
        fs::remove_dir_all(&staging).map_err(io("remove", &staging))?;
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
        self.options.root.join(STAGING).join(self.options.run.as_str())
    }

    fn replaced(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        // The list is whole at any moment: a worker that panicked elsewhere does not spoil it.
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The commit of `staged`, its paths relative to the lake where they are in it, so that a moved lake recovers too.
    fn publication(&self, staged: &[StagedFile], replaced: &[PathBuf]) -> Publication {
        let relative = |path: &Path| path.strip_prefix(self.root()).unwrap_or(path).to_path_buf();
        let files = staged.iter().map(|file| StagedFile {
            staged: relative(&file.staged),
            place: relative(&file.place),
            ..file.clone()
        });
        let remove = replaced.iter().map(|path| relative(path)).collect();
        Publication { version: PUBLICATION_VERSION, files: files.collect(), remove }
    }
}

impl Publication {
    fn read(path: &Path) -> Result<Option<Publication>, SinkError> {
        if !path.exists() {
            return Ok(None);
        }
        let json = fs::read(path).map_err(io("read", path))?;
        let publication: Publication = serde_json::from_slice(&json).map_err(|source| SinkError::Json {
            doing: "read",
            path: path.into(),
            source,
        })?;
        if publication.version > PUBLICATION_VERSION {
            let (path, found) = (path.into(), publication.version);
            return Err(SinkError::Version { path, found, known: PUBLICATION_VERSION });
        }
        Ok(Some(publication))
    }

    /// Writes the commit down; from here on it counts.
    fn decide(&self, path: &Path) -> Result<(), SinkError> {
        let json =
            serde_json::to_vec(self).map_err(|source| SinkError::Json { doing: "write", path: path.into(), source })?;
        write_whole(path, &json)
    }

    /// Does what is left to do of the commit; doing it twice does no harm.
    fn carry_out(&self, root: &Path) -> Result<(), SinkError> {
        let mut folders = BTreeSet::new();
        for file in &self.files {
            let (staged, place) = (root.join(&file.staged), root.join(&file.place));
            folders.insert(folder_of(&place).to_path_buf());
            put_in_place(&staged, &place, file.replaces)?;
        }
        folders.iter().try_for_each(|folder| sync_folder(folder))?;
        self.remove.iter().try_for_each(|path| remove_replaced(&root.join(path)))
    }
}

fn put_in_place(staged: &Path, place: &Path, replaces: bool) -> Result<(), SinkError> {
    let there = place.exists();
    if there && !staged.exists() {
        return Ok(());
    }
    if there && !replaces {
        return Err(io("create", place)(std::io::ErrorKind::AlreadyExists.into()));
    }
    create_folder(folder_of(place))?;
    rename(staged, place)
}

fn remove_replaced(path: &Path) -> Result<(), SinkError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("remove", path)(error)),
        _ => {}
    }
    // A folder that became empty goes too; one that did not stays, and that is no error.
    let _ = fs::remove_dir(folder_of(path));
    Ok(())
}

/// Rolls forward and removes what dead runs left; an error if a run of this job is alive.
fn clear_up(options: &LakeOptions) -> Result<(), SinkError> {
    let staging = options.root.join(STAGING);
    for entry in fs::read_dir(&staging).map_err(io("list", &staging))? {
        let folder = entry.map_err(io("list", &staging))?.path();
        if !folder.is_dir() {
            continue;
        }
        let alive = File::open(&folder).map_err(io("open", &folder))?;
        match alive.try_lock() {
            Ok(()) => clear_up_run(&options.root, &folder)?,
            Err(TryLockError::WouldBlock) => refuse_second_run(options, &folder)?,
            Err(TryLockError::Error(error)) => return Err(io("lock", &folder)(error)),
        }
    }
    Ok(())
}

fn clear_up_run(root: &Path, folder: &Path) -> Result<(), SinkError> {
    if let Some(publication) = Publication::read(&folder.join(PUBLISH))? {
        publication.carry_out(root)?;
    }
    fs::remove_dir_all(folder).map_err(io("remove", folder))
}

fn refuse_second_run(options: &LakeOptions, folder: &Path) -> Result<(), SinkError> {
    let path = folder.join(JOB);
    let job = fs::read_to_string(&path).map_err(io("read", &path))?;
    let run = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if job == options.job || run == options.run.as_str() {
        return Err(SinkError::Busy { path: options.root.clone(), job, run });
    }
    Ok(())
}

/// The files of the job's earlier runs and their manifests: to be replaced, or the reason to refuse.
fn earlier_output(options: &LakeOptions) -> Result<Vec<PathBuf>, SinkError> {
    let manifest = manifest::path(&options.root, options.run.as_str());
    if manifest.exists() {
        let (path, job) = (options.root.clone(), options.job.clone());
        return Err(SinkError::Occupied { path, job, files: 1, first: manifest });
    }
    let mut files = Vec::new();
    for table in tables(&options.root)? {
        files.extend(files_of_job(&table, &options.job)?);
    }
    if let (Existing::Refuse, Some(first)) = (options.existing, files.first()) {
        let (path, job) = (options.root.clone(), options.job.clone());
        return Err(SinkError::Occupied { path, job, files: files.len(), first: first.clone() });
    }
    files.extend(manifest::of_job(&options.root, &options.job)?.into_iter().map(|(path, _)| path));
    Ok(files)
}

/// The folders of tables: all but those whose name says that readers ignore it.
fn tables(root: &Path) -> Result<Vec<PathBuf>, SinkError> {
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

/// Makes the run's staging folder and locks it.
fn claim(options: &LakeOptions) -> Result<File, SinkError> {
    let folder = options.root.join(STAGING).join(options.run.as_str());
    create_folder(&folder)?;
    let alive = File::open(&folder).map_err(io("open", &folder))?;
    alive.lock().map_err(io("lock", &folder))?;
    let path = folder.join(JOB);
    fs::write(&path, &options.job).map_err(io("write", &path))?;
    Ok(alive)
}
