//! Taking rows out of a lake: files that hold them give way to files without them.
//!
//! ```text
//! 1  every file of the run is read                        ─▶ which hold rows that go, and what those hash to
//! 2  each is written again without them, in staging       part-…-00007.parquet ─▶ part-…-100007.parquet
//! 3  the new files are renamed into place
//! 4  the tables' logs                                     ─▶ told of the new and the old files in one commit
//! 5  the old files are removed
//! ```
//! The name of a file says which one it stands for, so a start after a crash knows between 3 and 5 that a file has given way. Every step can be
//! done twice. It is done by a start, when nobody writes.

use std::path::{Path, PathBuf};

use whisperer_schemas::{Row, TableSchema};

use super::{
    Lake,
    publication::{Publication, remove_all},
    tables,
};
use crate::{
    durable::STAGED_SUFFIX,
    error::{SinkError, io},
    failpoint,
    log_tables::LogCommit,
    parquet::{each_row, parquet_files, rewrite, run_of},
    sink::StagedFile,
};

/// What a file's number grows by when it is written again; no run of a worker writes as many.
const WRITTEN_AGAIN: u64 = 100_000;

/// Which rows go.
pub type Goes<'a> = dyn Fn(&TableSchema, &Row) -> bool + 'a;

/// Files with rows that go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Those that are to be written again.
    files: Vec<PathBuf>,
    /// Those whose successors are there already.
    succeeded: Vec<PathBuf>,
}

impl Found {
    /// How many files are to be written again.
    #[must_use]
    pub fn files(&self) -> usize {
        self.files.len()
    }
}

impl Lake {
    /// Looks for rows that go in the files of this run, and hands each to `each`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn find_rows(&self, goes: &Goes<'_>, each: &mut dyn FnMut(&TableSchema, &Row)) -> Result<Found, SinkError> {
        let mut found = Found::default();
        for table in tables(self.root())? {
            for path in parquet_files(&table)? {
                if !run_of(&path)?.is_some_and(|(job, run)| self.is_own(&job, &run)) {
                    continue;
                }
                if successor(&path).is_some_and(|successor| successor.exists()) {
                    found.succeeded.push(path);
                    continue;
                }
                let mut holds = false;
                each_row(&path, &mut |schema, row| {
                    if goes(schema, row) {
                        holds = true;
                        each(schema, row);
                    }
                })?;
                found.files.extend(holds.then_some(path));
            }
        }
        Ok(found)
    }

    /// Writes the files that were found again, without the rows that go. `number` is that of the manifest with which this generation claimed
    /// its turn, 0 in a run without checkpoints.
    ///
    /// # Errors
    /// What the file system answers. It can be done again, from the beginning.
    pub fn take_out(&self, found: &Found, goes: &Goes<'_>, number: u64) -> Result<(), SinkError> {
        if found == &Found::default() {
            return Ok(());
        }
        let mut commits = self.commits();
        let mut files = Vec::new();
        for path in &found.files {
            files.extend(self.write_again(path, goes, number)?);
        }
        for path in &found.succeeded {
            files.extend(successor(path).map(|place| self.in_place(place, number)));
        }
        failpoint::pass("lake.erasing").map_err(io("erase", self.root()))?;
        let removed: Vec<PathBuf> =
            found.files.iter().chain(&found.succeeded).map(|path| self.relative(path)).collect();
        let app = self.options.app();
        let publication = Publication::new(app.clone(), number, self.options.log, self.listed(&files), removed);
        publication.rename(self.root())?;
        let (files, remove) = (publication.files.as_slice(), publication.remove.as_slice());
        let commit = LogCommit { app: &app, number, files, remove, fences: false, repeated: true };
        commits.logs.commit(self.root(), &commit)?;
        failpoint::pass("lake.logged").map_err(io("erase", self.root()))?;
        remove_all(self.root(), remove)?;
        failpoint::pass("lake.erased").map_err(io("erase", self.root()))
    }

    fn is_own(&self, job: &str, run: &str) -> bool {
        job == self.options.job && run == self.options.run.as_str()
    }

    fn write_again(&self, path: &Path, goes: &Goes<'_>, number: u64) -> Result<Option<StagedFile>, SinkError> {
        let Some(place) = successor(path) else { return Ok(None) };
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(STAGED_SUFFIX);
        let staged = self.staging().join(self.relative(&place)).with_file_name(name);
        let Some(rewritten) = rewrite(path, &staged, goes)? else { return Ok(None) };
        let file = self.in_place(place, number);
        Ok(Some(StagedFile { staged, rows: rewritten.rows, bytes: rewritten.bytes, xxh3: rewritten.xxh3, ..file }))
    }

    /// A file that is where it belongs.
    fn in_place(&self, place: PathBuf, number: u64) -> StagedFile {
        let (staged, table) = (self.staging().join("none"), String::new());
        StagedFile { staged, place, replaces: true, table, rows: 0, bytes: 0, xxh3: String::new(), checkpoint: number }
    }
}

/// What a file is called when it has been written again.
fn successor(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let (stem, number) = name.strip_suffix(".parquet")?.rsplit_once('-')?;
    let number = number.parse::<u64>().ok()? + WRITTEN_AGAIN;
    Some(path.with_file_name(format!("{stem}-{number:05}.parquet")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_it_stands_for() {
        // Goal: the successor belongs to the same checkpoint, and has a successor of its own; what is none of ours has none.
        let name = |name: &str| successor(Path::new(name)).map(|path| path.display().to_string());
        let first = name("a/part-r-g0001-c000002-000-00007.parquet").expect("a name of ours");
        assert_eq!(first, "a/part-r-g0001-c000002-000-100007.parquet");
        assert_eq!(name(&first).as_deref(), Some("a/part-r-g0001-c000002-000-200007.parquet"));
        assert_eq!((name("a/part.parquet"), name("a/x-1.txt")), (None, None));
    }
}
