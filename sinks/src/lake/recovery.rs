//! Going on from a checkpoint: what it lists is rolled forward, what came after it goes.
//!
//! ```text
//! 1  staged files that the manifest lists      ─▶ renamed into place; those that are there already stay
//! 2  staging folders of earlier generations    ─▶ given up: whoever still writes there writes nowhere
//! 3  files of checkpoints after the manifest   ─▶ to be removed, if their rows may be made once more; else an error, before 1
//! 4  the tables' logs                          ─▶ told of both in one commit with the number that this generation has claimed
//! 5  the files to be removed                   ─▶ removed
//! ```
//! Each step can be done twice. After 4, a writer of an earlier generation that wakes up finds a number in the log that is larger than
//! its own, and adds nothing.

use std::path::{Path, PathBuf};

use super::{
    Lake,
    names::checkpoint_of,
    opening::{Owner, staging_folders, take_turn},
    publication::{Publication, remove_all, retire},
    tables,
};
use crate::{
    error::{SinkError, io},
    failpoint,
    log_tables::LogCommit,
    parquet::{parquet_files, written_file},
    sink::{StagedFile, WrittenFile},
};

/// What a generation goes on from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recovery<'a> {
    /// Number of the manifest whose cut was restored; 0 if there is none.
    pub checkpoint: u64,
    /// What [`Lake::listed`] gave to that manifest, from all workers.
    pub listed: &'a [StagedFile],
    /// Number of the manifest with which this generation claimed its turn.
    pub claimed: u64,
    /// Whether files of later checkpoints are removed, since their rows will be made once more; otherwise they are an error.
    pub repeat_outputs: bool,
    /// Whether an erasure has been applied to the checkpoint: files that it lists may have given way to others, or to none.
    pub erased: bool,
}

impl Lake {
    /// Staged files as a manifest lists them: with paths in the lake, wherever that is mounted.
    #[must_use]
    pub fn listed(&self, staged: &[StagedFile]) -> Vec<StagedFile> {
        let listed = staged.iter().map(|file| StagedFile {
            staged: self.relative(&file.staged),
            place: self.relative(&file.place),
            ..file.clone()
        });
        listed.collect()
    }

    /// The files of this run that readers see and that belong to checkpoints after manifest `checkpoint`. There are none in a recovery
    /// from the newest manifest: what is published was in one.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn published_after(&self, checkpoint: u64) -> Result<Vec<PathBuf>, SinkError> {
        let mut after = self.own_files()?;
        after.retain(|(number, _)| *number > checkpoint);
        Ok(after.into_iter().map(|(_, path)| path).collect())
    }

    /// Every file of this run that readers see, read once: for the manifest of a run that was continued.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn written(&self) -> Result<Vec<WrittenFile>, SinkError> {
        let files = self.own_files()?;
        files.into_iter().map(|(_, path)| written_file(self.root(), &self.relative(&path))).collect()
    }

    /// Goes on from a checkpoint: the first process calls it once, after it has claimed its turn and before anything is staged.
    ///
    /// # Errors
    /// Files of later checkpoints whose rows may not be made once more, a listed file that is gone, what the file system answers.
    /// It can be called again.
    pub fn recover(&self, recovery: &Recovery<'_>) -> Result<Vec<WrittenFile>, SinkError> {
        let mut commits = self.commits();
        self.refuse_repeated(recovery)?;
        failpoint::pass("lake.recovering").map_err(io("recover", self.root()))?;
        let mut files = self.listed(recovery.listed);
        let is_there = |path: &Path| self.root().join(path).exists();
        files.retain(|file| !recovery.erased || is_there(&file.staged) || is_there(&file.place));
        let publication = Publication::new(self.options.app(), recovery.claimed, self.options.log, files, Vec::new());
        publication.rename(self.root())?;
        self.retire_earlier()?;
        let mut removed = self.published_after(recovery.checkpoint)?;
        if recovery.checkpoint > 0 {
            // The first commit of this run was decided, so that what it replaced has to go.
            removed.append(&mut commits.replaced);
        }
        let removed: Vec<PathBuf> = removed.iter().map(|path| self.relative(path)).collect();
        let app = self.options.app();
        let (number, files) = (recovery.claimed, publication.files.as_slice());
        let commit = LogCommit { app: &app, number, files, remove: &removed, fences: true, repeated: false };
        commits.logs.commit(self.root(), &commit)?;
        failpoint::pass("lake.logged").map_err(io("recover", self.root()))?;
        remove_all(self.root(), &removed)?;
        failpoint::pass("lake.recovered").map_err(io("recover", self.root()))?;
        Ok(publication.files.iter().map(|file| WrittenFile::of(file, file.place.clone())).collect())
    }

    fn refuse_repeated(&self, recovery: &Recovery<'_>) -> Result<(), SinkError> {
        if recovery.repeat_outputs {
            return Ok(());
        }
        let after = self.published_after(recovery.checkpoint)?;
        let Some(first) = after.first() else { return Ok(()) };
        let (path, first, files) = (self.root().into(), first.clone(), after.len());
        Err(SinkError::Repeats { path, checkpoint: recovery.checkpoint, files, first })
    }

    /// Gives up what earlier generations of this run have staged.
    fn retire_earlier(&self) -> Result<(), SinkError> {
        let own = self.staging();
        let _turn = take_turn(self.root())?;
        for folder in staging_folders(self.root())? {
            let owner = Owner::read(&folder)?;
            if folder != own && owner.is_some_and(|owner| self.options.continues(&owner)) {
                retire(self.root(), &folder)?;
            }
        }
        Ok(())
    }

    /// The files of this run that readers see, with the checkpoints that they were made for.
    fn own_files(&self) -> Result<Vec<(u64, PathBuf)>, SinkError> {
        let mut files = Vec::new();
        for table in tables(self.root())? {
            let numbered = |path: PathBuf| Some((self.number_of(&path)?, path));
            files.extend(parquet_files(&table)?.into_iter().filter_map(numbered));
        }
        Ok(files)
    }

    fn number_of(&self, path: &Path) -> Option<u64> {
        checkpoint_of(&path.file_name()?.to_string_lossy(), &self.options.run)
    }
}
