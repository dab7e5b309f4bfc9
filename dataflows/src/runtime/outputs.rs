//! Where the rows of a run go: the sinks of the job file, opened for each worker, and the lakes that publish for all of them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use whisperer_operators::keyed::CutPlan;
use whisperer_schemas::TableSchema;
use whisperer_sinks::{Existing, Fault, Lake, MemoryTable, Ndjson, RunManifest, SinkError, StagedFile, WrittenFile};

use super::tables::{Outlet, Staged, TableSinks, Way};
use crate::job_file::{LakeTable, SinkSettings};

/// Where the rows of a run go.
#[derive(Debug, Default)]
pub struct Outputs {
    lakes: BTreeMap<PathBuf, Arc<Lake>>,
    sinks: Vec<SinkSettings>,
    existing: Existing,
    memory: Option<[MemoryTable; 3]>,
}

impl Outputs {
    /// Outputs as the job's sinks say, into lakes that are open.
    #[must_use]
    pub fn new(sinks: Vec<SinkSettings>, lakes: Vec<Arc<Lake>>, existing: Existing) -> Outputs {
        let lakes = lakes.into_iter().map(|lake| (lake.root().to_owned(), lake)).collect();
        Outputs { lakes, sinks, existing, memory: None }
    }

    /// Outputs into memory: decisions, profiles and dead letters, visible once the run has ended.
    #[must_use]
    pub fn in_memory(tables: [MemoryTable; 3]) -> Outputs {
        Outputs { memory: Some(tables), ..Outputs::default() }
    }

    /// The lakes.
    pub fn lakes(&self) -> impl Iterator<Item = &Arc<Lake>> {
        self.lakes.values()
    }

    /// The sinks of one worker, for tables in the order decisions, profiles, dead letters.
    pub(super) fn worker_tables(
        &self,
        tables: [Arc<TableSchema>; 3],
        worker: usize,
        plan: Option<CutPlan>,
    ) -> Result<WorkerTables, SinkError> {
        let each = tables.clone().map(|table| TableSinks::new(table, plan));
        for settings in &self.sinks {
            if let Some((at, outlet)) = self.outlet(settings, &tables, worker)? {
                each[at].add(outlet);
            }
        }
        for (table, sinks) in self.memory.iter().flatten().zip(&each) {
            let to = Way::Staged { sink: Box::new(table.writer()), lake: None };
            sinks.add(Outlet { to, whole: false, historical: true });
        }
        let texts = |sink: &SinkSettings| matches!(sink, SinkSettings::File { .. } | SinkSettings::Stdout);
        let gathered = self.sinks.iter().any(texts);
        Ok(WorkerTables { each, gathered })
    }

    fn outlet(
        &self,
        settings: &SinkSettings,
        tables: &[Arc<TableSchema>; 3],
        worker: usize,
    ) -> Result<Option<(usize, Outlet)>, SinkError> {
        Ok(match settings {
            SinkSettings::Parquet { table, path, .. } => {
                let at = place(*table);
                let Some(lake) = self.lakes.get(path) else { return Ok(None) };
                let sink = Box::new(lake.table((*tables[at]).clone(), worker));
                let to = Way::Staged { sink, lake: Some(lake.clone()) };
                Some((at, Outlet { to, whole: false, historical: true }))
            }
            SinkSettings::File { path } if worker == 0 => {
                let sink = Box::new(self.text(&tables[0], path)?);
                Some((0, Outlet { to: Way::Staged { sink, lake: None }, whole: true, historical: true }))
            }
            SinkSettings::Stdout if worker == 0 => {
                let sink = Box::new(Ndjson::stdout((*tables[0]).clone()));
                Some((0, Outlet { to: Way::Staged { sink, lake: None }, whole: true, historical: true }))
            }
            SinkSettings::File { .. } | SinkSettings::Stdout => None,
            SinkSettings::Kafka(kafka) => return Err(not_wired(&kafka.topic)),
        })
    }

    fn text(&self, table: &TableSchema, path: &Path) -> Result<Ndjson, SinkError> {
        Ndjson::file(table.clone(), path, self.existing)
    }

    /// Publishes what all workers have staged at the end of a run without checkpoints: each lake in one commit, then the rest.
    pub(super) fn publish(&self, staged: Vec<Staged>) -> Result<Vec<WrittenFile>, SinkError> {
        let mut written = Vec::new();
        let (in_lakes, others): (Vec<_>, Vec<_>) = staged.into_iter().partition(|staged| staged.lake.is_some());
        for lake in self.lakes.values() {
            let here = |staged: &&Staged| staged.lake.as_ref().is_some_and(|other| Arc::ptr_eq(other, lake));
            let files: Vec<StagedFile> = in_lakes.iter().filter(here).flat_map(|staged| staged.files.clone()).collect();
            written.extend(lake.publish(&files)?);
        }
        for mut staged in others {
            written.extend(staged.sink.publish(&staged.files)?);
        }
        Ok(written)
    }

    /// Writes the run's manifest into every lake.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn finish(&self, manifest: &RunManifest) -> Result<Vec<PathBuf>, SinkError> {
        self.lakes.values().map(|lake| lake.finish(manifest)).collect()
    }
}

/// Rows must not vanish: a topic is opened by whoever takes checkpoints.
fn not_wired(topic: &str) -> SinkError {
    SinkError::Topic {
        doing: "open",
        topic: topic.into(),
        detail: "this run does not write to Kafka yet".into(),
        hint: "use connector = \"parquet\" or \"file\"",
        fault: Fault::User,
        retry: false,
    }
}

fn place(table: LakeTable) -> usize {
    match table {
        LakeTable::Decisions => 0,
        LakeTable::Profiles => 1,
        LakeTable::DeadLetters => 2,
    }
}

/// The sinks of one worker.
pub(super) struct WorkerTables {
    /// For decisions, profiles and dead letters.
    pub(super) each: [TableSinks; 3],
    /// Whether some sink takes the decisions of all workers.
    pub(super) gathered: bool,
}

/// The names of the tables, in that order.
pub(super) const TABLES: [&str; 3] = ["decisions", "profiles", "dead_letters"];
