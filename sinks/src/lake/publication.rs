//! A commit that has been decided, and carrying it out: what is left to do is done by whoever opens the lake.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{STAGING, TableLog};
use crate::{
    durable::{create_folder, folder_of, remove, remove_folder, rename, sync_folder, write_whole},
    error::{SinkError, io},
    failpoint,
    log_tables::{LogCommit, LogTables},
    sink::StagedFile,
};

/// Name of a commit that was decided.
pub(super) const PUBLISH: &str = "publish.json";

/// The version of `publish.json`.
const PUBLICATION_VERSION: u64 = 2;

/// What a commit does. Paths are relative to the lake where they are in it, so that a moved lake recovers too.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Publication {
    pub(super) version: u64,
    /// Names the run in the tables' logs.
    #[serde(default)]
    pub(super) app: String,
    /// The commit, counted by the run: from 1, or as its checkpoints are numbered.
    #[serde(default)]
    pub(super) number: u64,
    #[serde(default)]
    pub(super) log: TableLog,
    pub(super) files: Vec<StagedFile>,
    pub(super) remove: Vec<PathBuf>,
}

impl Publication {
    pub(super) fn new(app: String, number: u64, log: TableLog, files: Vec<StagedFile>, remove: Vec<PathBuf>) -> Self {
        Publication { version: PUBLICATION_VERSION, app, number, log, files, remove }
    }

    pub(super) fn read(path: &Path) -> Result<Option<Publication>, SinkError> {
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
    pub(super) fn decide(&self, path: &Path) -> Result<(), SinkError> {
        let json =
            serde_json::to_vec(self).map_err(|source| SinkError::Json { doing: "write", path: path.into(), source })?;
        write_whole(path, &json)?;
        failpoint::pass("lake.decided").map_err(io("publish", path))
    }

    /// Does what is left to do of the commit; doing it twice does no harm.
    pub(super) fn carry_out(&self, root: &Path, logs: &mut LogTables) -> Result<(), SinkError> {
        self.rename(root)?;
        let Publication { app, number, files, remove, .. } = self;
        logs.commit(root, &LogCommit { app, number: *number, files, remove, fences: false, repeated: false })?;
        failpoint::pass("lake.logged").map_err(io("publish", root))?;
        remove_all(root, remove)
    }

    /// Gives every file its name.
    pub(super) fn rename(&self, root: &Path) -> Result<(), SinkError> {
        let mut folders = BTreeSet::new();
        for file in &self.files {
            let (staged, place) = (root.join(&file.staged), root.join(&file.place));
            folders.insert(folder_of(&place).to_path_buf());
            put_in_place(&staged, &place, file)?;
        }
        folders.iter().try_for_each(|folder| sync_folder(folder))?;
        failpoint::pass("lake.renamed").map_err(io("publish", root))
    }
}

fn put_in_place(staged: &Path, place: &Path, file: &StagedFile) -> Result<(), SinkError> {
    match (staged.exists(), place.exists()) {
        (false, true) => return Ok(()),
        // After a power cut a file may go by both names.
        (true, true) if is_same_file(staged, place)? => return remove(staged),
        (true, true) if !file.replaces => {
            return Err(io("create", place)(std::io::ErrorKind::AlreadyExists.into()));
        }
        (false, false) => return Err(SinkError::Lost { path: place.into(), rows: file.rows }),
        (true, _) => {}
    }
    create_folder(folder_of(place))?;
    rename(staged, place)
}

fn is_same_file(one: &Path, other: &Path) -> Result<bool, SinkError> {
    let number = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).map_err(io("read", path));
    Ok(number(one)? == number(other)?)
}

/// Removes files that gave way, and folders that became empty.
pub(super) fn remove_all(root: &Path, files: &[PathBuf]) -> Result<(), SinkError> {
    let mut folders = BTreeSet::new();
    for path in files {
        let path = root.join(path);
        remove(&path)?;
        folders.insert(folder_of(&path).to_path_buf());
    }
    for folder in &folders {
        if !folder.is_dir() {
            continue;
        }
        sync_folder(folder)?;
        // One that is not empty stays, and that is no error. An empty one that comes back is none either.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

/// Moves a staging folder out of the way of whoever may still write to it, and removes it.
pub(super) fn retire(root: &Path, folder: &Path) -> Result<(), SinkError> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let retired = root.join(STAGING).join(format!("{}{name}", super::opening::RETIRED));
    if retired.is_dir() {
        remove_folder(&retired)?;
    }
    failpoint::pass("sink.rename").and_then(|()| fs::rename(folder, &retired)).map_err(io("move away", folder))?;
    sync_folder(&root.join(STAGING))?;
    remove_folder(&retired)
}
