//! Tables with a Delta log: readers see whole commits, each once.
//!
//! ```text
//! <table>/_delta_log/00000000000000000007.json               commit 7: who, when; files added and removed; how far the run is
//! <table>/_delta_log/00000000000000000099.checkpoint.parquet commits 0 to 99 in one, so that readers need not read them all
//! ```
//! A commit is a file that is created only if absent, whole and synced. Of two writers that want the same number, one has it; the other
//! reads it and tries the next. Every commit says in a `txn` action how far its run is, so that a commit which is repeated after a crash
//! is known and not done twice. The files it adds are in place before it, and what it removes is deleted after it.
//!
//! A table whose folder has files but no log yet begins with a commit that adds them all: nothing that readers saw is lost. Columns that
//! a job gets later come to the table, and are null in older files; a column that becomes another type is an error.

mod actions;
mod schema;
mod state;
mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use deltalake_core::{DeltaTable, DeltaTableBuilder, checkpoints};
use tokio::runtime::{Builder, Runtime};
use whisperer_schemas::{TableSchema, VIEWS};

use self::{state::TableState, store::DurableFolder};
use crate::{
    durable::write_new,
    error::{SinkError, io},
    failpoint, lake,
    log_tables::{LogCommit, is_logged},
};

/// Folder of the log in that of its table.
const LOG: &str = "_delta_log";

/// Other writers' commits that one of ours lets go first, at most. Each took its number between our reading and our writing.
const ATTEMPTS_MAX: u32 = 100;

/// Commits after which the log is summarized: a reader opens at most so many small files, and a summary costs as much as all files of the
/// table have entries.
const COMMITS_PER_SUMMARY: u64 = 100;

/// The files that belong to the table in `folder` after its newest commit.
///
/// # Errors
/// A folder without a log, or one that cannot be read.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, SinkError> {
    let table = DeltaLogs::default().load(folder)?;
    let uris = table.get_file_uris().map_err(failed("read", folder))?;
    Ok(uris.map(PathBuf::from).collect())
}

/// The Delta tables of a lake.
pub(crate) struct DeltaLogs {
    store: Arc<DurableFolder>,
    /// What is known of each table, by its folder's name; brought up to date before each commit.
    tables: BTreeMap<String, TableState>,
    /// The library is asynchronous; it is waited for on the thread that publishes.
    runtime: Option<Runtime>,
    /// Tells this writer's files in the making from those of others.
    writer: String,
}

impl Default for DeltaLogs {
    fn default() -> DeltaLogs {
        let writer = format!("{}-{}", process::id(), now().as_nanos());
        DeltaLogs { store: Arc::new(DurableFolder::new()), tables: BTreeMap::new(), runtime: None, writer }
    }
}

impl fmt::Debug for DeltaLogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeltaLogs").field("tables", &self.tables.keys()).finish_non_exhaustive()
    }
}

impl DeltaLogs {
    /// Adds a lake's commit to the logs of its tables.
    pub(crate) fn commit(&mut self, root: &Path, commit: &LogCommit<'_>) -> Result<(), SinkError> {
        for table in tables_of(root, commit)? {
            self.commit_table(&root.join(&table), &table, commit)?;
        }
        Ok(())
    }

    /// Whether a table's log has room for the columns of `schema`, once `remove` is gone.
    pub(crate) fn check(&mut self, root: &Path, schema: &TableSchema, remove: &[PathBuf]) -> Result<(), SinkError> {
        let folder = root.join(schema.name);
        let Some(state) = self.refreshed(&folder, schema.name, "")? else { return Ok(()) };
        if !remove.is_empty() && self.active(&folder)?.iter().all(|file| is_among(file, remove)) {
            return Ok(());
        }
        let columns = schema::columns_of(schema);
        let partition = schema.partition_by.map(|_| schema::partition_name(schema));
        schema::check_partition(&folder, &state, partition.as_deref())?;
        schema::merged(&folder, &state.schema, columns).map(|_| ())
    }

    fn commit_table(&mut self, folder: &Path, table: &str, commit: &LogCommit<'_>) -> Result<(), SinkError> {
        for _ in 0..ATTEMPTS_MAX {
            let state = self.refreshed(folder, table, commit.app)?;
            let active = if commit.remove.is_empty() || state.is_none() { None } else { Some(self.active(folder)?) };
            let next = actions::Next { folder, table, commit, now_ms: now().as_millis() as i64 };
            let lines = match &state {
                None => next.first()?,
                Some(state) => next.after(state, active.as_deref().unwrap_or_default())?,
            };
            let Some(lines) = lines else { return Ok(()) };
            let version = state.map_or(0, |state| state.version + 1);
            let path = folder.join(LOG).join(format!("{version:020}.json"));
            if write_new(&path, lines.join("\n").as_bytes(), &self.writer)? {
                self.summarize_now_and_then(folder, version);
                return Ok(());
            }
        }
        let detail = format!("{ATTEMPTS_MAX} commits of others came first");
        Err(SinkError::Log { doing: "write", path: folder.into(), detail })
    }

    /// The state of a table after its newest commit; none if it keeps no log yet.
    fn refreshed(&mut self, folder: &Path, table: &str, app: &str) -> Result<Option<TableState>, SinkError> {
        if !is_logged(folder) || state::newest(folder)?.is_none() {
            self.tables.remove(table);
            return Ok(None);
        }
        let known = self.tables.remove(table).filter(|state| state.app == app);
        let state = match known.map(|state| state.followed(folder)).transpose()?.flatten() {
            Some(state) => state,
            None => {
                let table = self.load(folder)?;
                let failed = failed("read", folder);
                self.runtime()?.block_on(TableState::read(&table, app)).map_err(failed)?
            }
        };
        self.tables.insert(table.into(), state.clone());
        state.check_writable(folder).map(|()| Some(state))
    }

    /// Names of the files that belong to the table.
    fn active(&mut self, folder: &Path) -> Result<Vec<String>, SinkError> {
        let table = self.load(folder)?;
        let files = table.get_file_uris().map_err(failed("read", folder))?;
        Ok(files.map(|uri| uri.rsplit('/').next().unwrap_or_default().to_owned()).collect())
    }

    fn load(&mut self, folder: &Path) -> Result<DeltaTable, SinkError> {
        let absolute = folder.canonicalize().map_err(io("find", folder))?;
        let url = url::Url::from_directory_path(absolute).expect("an absolute path");
        let store = Arc::clone(&self.store);
        let load = async {
            let builder = DeltaTableBuilder::from_url(url.clone())?.with_storage_backend(store, url);
            builder.load().await
        };
        self.runtime()?.block_on(load).map_err(failed("read", folder))
    }

    /// A summary that fails is made by a later commit: the log is only longer until then.
    fn summarize_now_and_then(&mut self, folder: &Path, version: u64) {
        if (version + 1).is_multiple_of(COMMITS_PER_SUMMARY)
            && let Err(error) = self.summarize(folder)
        {
            tracing::warn!(table = %folder.display(), version, %error, "the table's log could not be summarized");
        }
    }

    fn summarize(&mut self, folder: &Path) -> Result<(), SinkError> {
        failpoint::pass("log.checkpoint").map_err(io("summarize", folder))?;
        let table = self.load(folder)?;
        let summarize = async {
            checkpoints::create_checkpoint(&table, None).await?;
            checkpoints::cleanup_metadata(&table, None).await
        };
        self.runtime()?.block_on(summarize).map(|_| ()).map_err(failed("summarize", folder))
    }

    fn runtime(&mut self) -> Result<&Runtime, SinkError> {
        if self.runtime.is_none() {
            let runtime = Builder::new_current_thread().enable_all().build();
            self.runtime = Some(runtime.map_err(io("start a runtime for", Path::new(LOG)))?);
        }
        Ok(self.runtime.as_ref().expect("made just above"))
    }
}

/// Names of the tables that a commit touches; those that it only fences keep a log already.
fn tables_of(root: &Path, commit: &LogCommit<'_>) -> Result<BTreeSet<String>, SinkError> {
    let in_table = |path: &Path| path.is_relative() && path.extension().is_some_and(|ending| ending == "parquet");
    let added = commit.files.iter().map(|file| file.place.as_path());
    let paths = added.chain(commit.remove.iter().map(PathBuf::as_path)).filter(|path| in_table(path));
    let mut tables: BTreeSet<String> = paths.filter_map(table_of).collect();
    if commit.fences {
        let logged = lake::tables(root)?.into_iter().filter(|folder| is_logged(folder));
        tables.extend(logged.filter_map(|folder| table_of(folder.strip_prefix(root).ok()?)));
    }
    Ok(tables)
}

/// The table that a path in a lake belongs to: its first folder, or the first two where it is a view's.
fn table_of(path: &Path) -> Option<String> {
    let mut folders = path.components().map(|folder| folder.as_os_str().to_string_lossy().into_owned());
    let first = folders.next()?;
    if Path::new(&first) == Path::new(VIEWS) { Some(format!("{VIEWS}{}", folders.next()?)) } else { Some(first) }
}

/// Whether `paths` have a file of that name; the names of our files are used once.
fn is_among(file: &str, paths: &[PathBuf]) -> bool {
    paths.iter().any(|path| path.file_name().is_some_and(|name| name == file))
}

/// Turns an error of the library, which has several kinds, into ours.
fn failed<E: fmt::Display>(doing: &'static str, folder: &Path) -> impl FnOnce(E) -> SinkError {
    let path = folder.to_owned();
    move |error| SinkError::Log { doing, path, detail: error.to_string() }
}

/// The wall clock: what a commit says of when it was made.
fn now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
