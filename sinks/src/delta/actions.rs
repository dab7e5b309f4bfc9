//! What stands in a commit.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use deltalake_core::kernel::{Action, Add, MetadataExt, Remove, StructField, StructType, Transaction, new_metadata};
use serde_json::json;
use whisperer_schemas::TableSchema;

use super::{is_among, schema, state::TableState};
use crate::{
    error::{SinkError, io},
    log_tables::LogCommit,
    parquet::{parquet_files, read_schema, rows_of},
};

/// The next commit of a table, to be made from a commit of the lake.
pub(super) struct Next<'a> {
    pub(super) folder: &'a Path,
    pub(super) table: &'a str,
    pub(super) commit: &'a LogCommit<'a>,
    pub(super) now_ms: i64,
}

impl Next<'_> {
    /// The first commit of a table: all files that stay, ours among them. None if there are none.
    pub(super) fn first(&self) -> Result<Option<Vec<String>>, SinkError> {
        let mut files = parquet_files(self.folder)?;
        files.retain(|path| !is_among(&file_name(path), self.commit.remove));
        let Some(schema) = self.schema_of(&files)? else { return Ok(None) };
        let (adds, partition) = self.adds(&files)?;
        let metadata = new_metadata(&schema, partition, BTreeMap::<String, String>::new());
        let metadata = metadata.map_err(self.failed())?.with_name(self.table.into()).map_err(self.failed())?;
        let protocol = json!({ "protocol": { "minReaderVersion": 1, "minWriterVersion": 2 } }).to_string();
        let mut lines = vec![self.information(), protocol];
        lines.extend(self.lines(vec![Action::Metadata(metadata)])?);
        lines.extend(self.progress()?);
        lines.extend(self.lines(adds)?);
        Ok(Some(lines))
    }

    /// The commit after `state`, in which files with the names `active` belong to the table, as far as the commit removes any. None if
    /// the table has it already.
    pub(super) fn after(&self, state: &TableState, active: &[String]) -> Result<Option<Vec<String>>, SinkError> {
        let LogCommit { number, files, remove, fences, repeated, .. } = *self.commit;
        if let Some(recorded) = state.committed.filter(|recorded| fences && *recorded > number) {
            return Err(SinkError::Ahead { path: self.folder.into(), recorded, number });
        }
        let known = |of: u64| !repeated && of > 0 && state.committed.is_some_and(|committed| of <= committed);
        let number_of = |checkpoint: u64| if checkpoint == 0 { number } else { checkpoint };
        let new = files.iter().filter(|file| file.place.starts_with(self.table) && !known(number_of(file.checkpoint)));
        let new = new.filter(|file| !repeated || !active.contains(&file_name(&file.place)));
        let new: Vec<PathBuf> = new.map(|file| self.in_table(&file.place)).collect();
        let gone: Vec<&PathBuf> = if known(number) { Vec::new() } else { remove.iter().collect() };
        let gone = gone.into_iter().filter(|path| path.starts_with(self.table) && active.contains(&file_name(path)));
        let gone: Vec<Action> = gone.map(|path| self.remove(path)).collect();
        // A run that the log does not know has nothing to be fenced: what it added would have to be there.
        let fences = fences && state.committed.is_some() && !known(number);
        if new.is_empty() && gone.is_empty() && !fences {
            return Ok(None);
        }
        let emptied = !gone.is_empty() && active.len() == gone.len();
        let mut lines = vec![self.information()];
        lines.extend(self.columns(state, &new, emptied)?);
        lines.extend(if known(number) { None } else { self.progress()? });
        lines.extend(self.lines(gone)?);
        lines.extend(self.lines(self.adds(&new)?.0)?);
        Ok(Some(lines))
    }

    /// The change of the table's columns, if there is one. A table that was emptied has only those of its new files.
    fn columns(&self, state: &TableState, new: &[PathBuf], emptied: bool) -> Result<Option<String>, SinkError> {
        let Some(wanted) = self.schema_of(new)? else { return Ok(None) };
        let (_, partition) = self.adds(&new[..1])?;
        schema::check_partition(self.folder, state, partition.as_deref())?;
        let schema = match emptied {
            true => Some(wanted).filter(|wanted| *wanted != state.schema),
            false => schema::merged(self.folder, &state.schema, wanted.fields().cloned().collect())?,
        };
        let Some(schema) = schema else { return Ok(None) };
        let metadata = state.metadata.clone().with_schema(&schema).map_err(self.failed())?;
        Ok(self.lines(vec![Action::Metadata(metadata)])?.pop())
    }

    /// The columns of all of `files`; none if there are no files.
    fn schema_of(&self, files: &[PathBuf]) -> Result<Option<StructType>, SinkError> {
        let mut known: Vec<TableSchema> = Vec::new();
        let mut all: Option<StructType> = None;
        for path in files {
            let table = read_schema(path)?;
            if known.contains(&table) {
                continue;
            }
            let columns = schema::columns_of(&table);
            all = match all {
                None => Some(self.structure(columns)?),
                Some(before) => Some(schema::merged(self.folder, &before, columns)?.unwrap_or(before)),
            };
            known.push(table);
        }
        Ok(all)
    }

    fn structure(&self, columns: Vec<StructField>) -> Result<StructType, SinkError> {
        let detail = |error: String| SinkError::Log { doing: "write", path: self.folder.into(), detail: error };
        StructType::try_new(columns).map_err(|error| detail(error.to_string()))
    }

    /// Files as they are added, and the column that their folders stand for.
    fn adds(&self, files: &[PathBuf]) -> Result<(Vec<Action>, Option<String>), SinkError> {
        let mut partition = None;
        let mut adds = Vec::new();
        for path in files {
            let relative = path.strip_prefix(self.folder).unwrap_or(path);
            let values = partition_values(relative);
            partition = partition.or_else(|| values.keys().next().cloned());
            let facts = fs::metadata(path).map_err(io("read", path))?;
            let modified = facts.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            adds.push(Action::Add(Add {
                path: relative.to_string_lossy().into(),
                partition_values: values,
                size: facts.len() as i64,
                modification_time: modified.map_or(self.now_ms, |time| time.as_millis() as i64),
                data_change: true,
                stats: Some(json!({ "numRecords": rows_of(path)? }).to_string()),
                ..Add::default()
            }));
        }
        Ok((adds, partition))
    }

    fn remove(&self, path: &Path) -> Action {
        let relative = path.strip_prefix(self.table).unwrap_or(path);
        Action::Remove(Remove {
            path: relative.to_string_lossy().into(),
            data_change: true,
            deletion_timestamp: Some(self.now_ms),
            extended_file_metadata: Some(false),
            ..Remove::default()
        })
    }

    fn information(&self) -> String {
        let mode = if self.commit.remove.is_empty() { "Append" } else { "Overwrite" };
        let engine = concat!("whisperer/", env!("CARGO_PKG_VERSION"));
        let parameters = json!({ "mode": mode, "run": self.commit.app, "number": self.commit.number.to_string() });
        json!({ "commitInfo": {
            "timestamp": self.now_ms, "operation": "WRITE", "operationParameters": parameters, "engineInfo": engine,
        } })
        .to_string()
    }

    /// How far the run is; nothing where the commit has no number.
    fn progress(&self) -> Result<Option<String>, SinkError> {
        if self.commit.number == 0 {
            return Ok(None);
        }
        let number = i64::try_from(self.commit.number).unwrap_or(i64::MAX);
        let progress = Transaction::new_with_last_update(self.commit.app, number, Some(self.now_ms));
        Ok(self.lines(vec![Action::Txn(progress)])?.pop())
    }

    fn lines(&self, actions: Vec<Action>) -> Result<Vec<String>, SinkError> {
        let json = |source| SinkError::Json { doing: "write", path: self.folder.into(), source };
        actions.iter().map(|action| serde_json::to_string(action).map_err(json)).collect()
    }

    fn in_table(&self, path: &Path) -> PathBuf {
        self.folder.join(path.strip_prefix(self.table).unwrap_or(path))
    }

    fn failed<E: fmt::Display>(&self) -> impl FnOnce(E) -> SinkError {
        super::failed("write", self.folder)
    }
}

/// `as_of_date=2026-01-03/part-….parquet` is in the partition `as_of_date` of that value.
fn partition_values(relative: &Path) -> HashMap<String, Option<String>> {
    let folders = relative.parent().into_iter().flat_map(Path::components);
    let pairs = folders.filter_map(|folder| {
        let (name, value) = folder.as_os_str().to_str()?.split_once('=')?;
        Some((name.to_owned(), Some(value.to_owned())))
    });
    pairs.collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into()
}
