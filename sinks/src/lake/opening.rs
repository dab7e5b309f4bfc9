//! Opening a lake: which staging folders are whose, what earlier runs have left, and who else is at work.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    Existing, LakeOptions, STAGING, TableLog,
    publication::{PUBLISH, Publication},
    tables,
};
use crate::{
    durable::{create_folder, remove_folder, write_whole},
    error::{SinkError, io},
    log_tables, manifest,
    parquet::{files_of_job, parquet_files, run_of},
};

const OWNER: &str = "owner.json";

/// Beginning of the name of a staging folder that was given up and is being removed.
pub(super) const RETIRED: &str = ".retired-";

/// Waits until nobody else looks through the staging folders.
pub(super) fn take_turn(root: &Path) -> Result<File, SinkError> {
    let staging = root.join(STAGING);
    let turn = File::open(&staging).map_err(io("open", &staging))?;
    turn.lock().map_err(io("lock", &staging))?;
    Ok(turn)
}

/// Whose a staging folder is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) job: String,
    pub(super) run: String,
    pub(super) generation: u64,
}

impl Owner {
    fn of(options: &LakeOptions) -> Owner {
        let LakeOptions { job, run, generation, .. } = options;
        Owner { job: job.clone(), run: run.as_str().into(), generation: *generation }
    }

    /// None where a writer that was fenced has made the folder anew, without knowing that it was gone.
    pub(super) fn read(folder: &Path) -> Result<Option<Owner>, SinkError> {
        let path = folder.join(OWNER);
        if !path.exists() {
            return Ok(None);
        }
        let json = fs::read(&path).map_err(io("read", &path))?;
        serde_json::from_slice(&json).map(Some).map_err(|source| SinkError::Json { doing: "read", path, source })
    }
}

/// The folders in which runs stage.
pub(super) fn staging_folders(root: &Path) -> Result<Vec<PathBuf>, SinkError> {
    let staging = root.join(STAGING);
    let mut folders = Vec::new();
    for entry in fs::read_dir(&staging).map_err(io("list", &staging))? {
        let path = entry.map_err(io("list", &staging))?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

/// Rolls forward and removes what dead runs left; an error if another run of this job is alive, or a later generation of this one.
pub(super) fn clear_up(options: &LakeOptions) -> Result<(), SinkError> {
    for folder in staging_folders(&options.root)? {
        if folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(RETIRED)) {
            remove_folder(&folder)?;
            continue;
        }
        let owner = Owner::read(&folder)?;
        if let Some(owner) = owner.as_ref().filter(|owner| options.continues(owner)) {
            refuse_fenced(options, owner)?;
            continue;
        }
        let alive = File::open(&folder).map_err(io("open", &folder))?;
        match (alive.try_lock(), owner) {
            // A checkpoint may list what is staged there. Only its own run knows, or its job, which gives it up.
            (Ok(()), Some(owner)) if owner.generation > 0 => give_up(options, &owner, &folder)?,
            (Ok(()), _) => clear_up_run(&options.root, &folder)?,
            (Err(TryLockError::WouldBlock), owner) => refuse_second_run(options, owner)?,
            (Err(TryLockError::Error(error)), _) => return Err(io("lock", &folder)(error)),
        }
    }
    Ok(())
}

fn refuse_fenced(options: &LakeOptions, owner: &Owner) -> Result<(), SinkError> {
    if owner.generation <= options.generation {
        return Ok(());
    }
    let (path, run) = (options.root.clone(), owner.run.clone());
    Err(SinkError::Fenced { path, run, generation: options.generation, newer: owner.generation })
}

fn give_up(options: &LakeOptions, owner: &Owner, folder: &Path) -> Result<(), SinkError> {
    if owner.job == options.job && options.existing != Existing::Refuse {
        remove_folder(folder)?;
    }
    Ok(())
}

fn clear_up_run(root: &Path, folder: &Path) -> Result<(), SinkError> {
    if let Some(publication) = Publication::read(&folder.join(PUBLISH))? {
        publication.carry_out(root, &mut log_tables::LogTables::new(publication.log)?)?;
    }
    remove_folder(folder)
}

fn refuse_second_run(options: &LakeOptions, owner: Option<Owner>) -> Result<(), SinkError> {
    let Some(Owner { job, run, .. }) = owner else { return Ok(()) };
    if job == options.job || run == options.run.as_str() {
        return Err(SinkError::Busy { path: options.root.clone(), job, run });
    }
    Ok(())
}

/// A lake keeps a log or it does not: files that a log does not know of, or that it believes to be there, would make it lie.
pub(super) fn check_log(options: &LakeOptions) -> Result<(), SinkError> {
    log_tables::LogTables::new(options.log)?;
    if options.log == TableLog::Delta {
        return Ok(());
    }
    let logged = tables(&options.root)?.into_iter().find(|table| log_tables::is_logged(table));
    logged.map_or(Ok(()), |path| Err(SinkError::Logged { path }))
}

/// The files of the job's earlier runs and their manifests: to be replaced, or the reason to refuse.
pub(super) fn earlier_output(options: &LakeOptions) -> Result<Vec<PathBuf>, SinkError> {
    let occupied = |files: usize, first: &Path| {
        let (path, job) = (options.root.clone(), options.job.clone());
        SinkError::Occupied { path, job, files, first: first.into() }
    };
    let own = manifest::path(&options.root, options.run.as_str());
    if own.exists() && options.generation == 0 {
        return Err(occupied(1, &own));
    }
    let mut files = Vec::new();
    if options.process > 0 {
        // The first process of a cluster publishes, and replaces, for all.
        return Ok(files);
    }
    for table in tables(&options.root)? {
        files.extend(others(options, &table)?);
    }
    if let (Existing::Refuse, Some(first)) = (options.existing, files.first()) {
        return Err(occupied(files.len(), first));
    }
    let manifests = manifest::of_job(&options.root, &options.job)?.into_iter().map(|(path, _)| path);
    files.extend(manifests.filter(|path| *path != own));
    Ok(files)
}

/// The files of a table that the job made in other runs. A file that bears this run's name is not opened: a live job has many.
fn others(options: &LakeOptions, table: &Path) -> Result<Vec<PathBuf>, SinkError> {
    if options.generation == 0 {
        return files_of_job(table, &options.job);
    }
    let own = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        super::names::checkpoint_of(&name, &options.run).is_some()
    };
    let mut others = Vec::new();
    for path in parquet_files(table)?.into_iter().filter(|path| !own(path)) {
        if run_of(&path)?.is_some_and(|(job, run)| job == options.job && run != options.run.as_str()) {
            others.push(path);
        }
    }
    Ok(others)
}

/// What tells this process to be alive.
#[derive(Debug)]
pub(super) struct Alive {
    /// Shared with the other processes of the cluster, so that the folder is locked while one of them lives.
    _folder: File,
    /// This process alone.
    _process: File,
}

/// Makes the run's staging folder and locks it.
pub(super) fn claim(options: &LakeOptions) -> Result<Alive, SinkError> {
    let folder = options.staging();
    create_folder(&folder)?;
    let alive = File::open(&folder).map_err(io("open", &folder))?;
    alive.lock_shared().map_err(io("lock", &folder))?;
    let path = folder.join(format!("process-{:03}", options.process));
    let process = File::create(&path).map_err(io("create", &path))?;
    match process.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let (path, job, run) = (options.root.clone(), options.job.clone(), options.run.as_str().into());
            return Err(SinkError::Busy { path, job, run });
        }
        Err(TryLockError::Error(error)) => return Err(io("lock", &path)(error)),
    }
    let owner = serde_json::to_vec(&Owner::of(options)).expect("texts and numbers always have a JSON form");
    write_whole(&folder.join(OWNER), &owner)?;
    Ok(Alive { _folder: alive, _process: process })
}
