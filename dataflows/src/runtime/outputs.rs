//! Where the rows of a run go: the sinks of the job file, opened for each worker, and the lakes that publish for all of them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use whisperer_operators::job::CompiledJob;
use whisperer_schemas::{Digest, Micros, TableSchema};
use whisperer_sinks::{
    Existing, Lake, LakeOptions, MemoryTable, Ndjson, NdjsonLog, Removal, RunId, RunManifest, SinkError, StagedFile,
    TableLog, TableSink, WrittenFile, durable, manifest,
};

use super::{
    filing::{Cuts, Filing},
    measured::measured,
    tables::{Outlet, Staged, TableSinks, Way},
    views::Changes,
};
use crate::{
    job_file::{LakeTable, SinkSettings},
    operations::Metrics,
};

/// Where the rows of a run go.
#[derive(Debug, Default)]
pub struct Outputs {
    lakes: OnceLock<BTreeMap<PathBuf, Arc<Lake>>>,
    sinks: Vec<SinkSettings>,
    existing: Existing,
    memory: Option<([MemoryTable; 3], Vec<MemoryTable>)>,
    /// What dead letters say they come from.
    #[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "only topics tell"))]
    source: String,
    metrics: OnceLock<Arc<Metrics>>,
}

/// What the lakes of a run are opened with.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    /// What names the run in its files.
    pub(super) run: String,
    /// The incarnation of the cluster; 0 for a run without checkpoints.
    pub(super) generation: u64,
    /// This process.
    pub(super) process: usize,
    /// Whether it goes on from no checkpoint.
    pub(super) fresh: bool,
}

/// A worker among all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) worker: usize,
    #[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "only topics ask"))]
    pub(super) workers: usize,
}

impl Outputs {
    /// Outputs as the job's sinks say. `source` is what dead letters say they come from: a topic, or what stands for it.
    #[must_use]
    pub fn new(sinks: Vec<SinkSettings>, existing: Existing, source: String) -> Outputs {
        Outputs { sinks, existing, source, ..Outputs::default() }
    }

    /// Outputs into memory: decisions, profiles and dead letters, visible once the run has ended.
    #[must_use]
    pub fn in_memory(tables: [MemoryTable; 3]) -> Outputs {
        Outputs::in_memory_with_views(tables, Vec::new())
    }

    /// The same with the tables of the job's views.
    #[must_use]
    pub fn in_memory_with_views(tables: [MemoryTable; 3], views: Vec<MemoryTable>) -> Outputs {
        Outputs { memory: Some((tables, views)), ..Outputs::default() }
    }

    /// The lakes, once the run has begun.
    pub fn lakes(&self) -> impl Iterator<Item = &Arc<Lake>> {
        self.lakes.get().into_iter().flat_map(BTreeMap::values)
    }

    /// Files of rows as text.
    pub(super) fn texts(&self) -> impl Iterator<Item = &Path> {
        self.sinks.iter().filter_map(|sink| match sink {
            SinkSettings::File { path } => Some(path.as_path()),
            _ => None,
        })
    }

    /// Lets go of the lakes, so that they can be opened again.
    pub(super) fn close(&mut self) {
        self.lakes = OnceLock::new();
    }

    /// Opens the lakes. The sinks of a lake agree on its log: the job file was checked for it.
    pub(super) fn open(&self, job: &CompiledJob, opening: &Opening) -> Result<(), SinkError> {
        let roots: BTreeMap<&PathBuf, TableLog> = self.sinks.iter().filter_map(lake_of).collect();
        let mut lakes = BTreeMap::new();
        for (root, log) in roots {
            let existing = if opening.fresh { self.existing } else { Existing::Continue };
            let options = LakeOptions::new(root, &job.name, job.version, RunId::new(opening.run.clone())?);
            let (generation, process) = (opening.generation, opening.process as u32);
            let lake = Lake::open(LakeOptions { existing, log, generation, process, ..options })?;
            [&job.decisions, &job.profiles]
                .into_iter()
                .chain(job.views.tables())
                .try_for_each(|table| lake.check(table))?;
            lakes.insert(root.clone(), lake);
        }
        // Opened once in a process.
        let _ = self.lakes.set(lakes);
        Ok(())
    }

    /// Whether the run has written its manifest into every lake: the last thing that it does. A job without a lake never knows.
    pub(super) fn are_finished(&self, run: &str) -> bool {
        let roots: Vec<&PathBuf> = self.sinks.iter().filter_map(lake_of).map(|(root, _)| root).collect();
        !roots.is_empty() && roots.iter().all(|root| manifest::path(root, run).exists())
    }

    /// Takes back that the run is finished: an ended job goes on, and what its manifests say of it will change.
    pub(super) fn unfinish(&self, run: &str) -> Result<(), SinkError> {
        let roots = self.sinks.iter().filter_map(lake_of).map(|(root, _)| manifest::path(root, run));
        roots.filter(|manifest| manifest.exists()).try_for_each(|manifest| durable::remove(&manifest))
    }

    /// Whether rows of some sink wait for checkpoints.
    pub(super) fn has_outboxes(&self) -> bool {
        self.sinks.iter().any(waits_for_commit)
    }

    /// The sinks of one worker, for tables in the order decisions, profiles, dead letters, and then the views.
    pub(super) fn worker_tables(
        &self,
        job: &Arc<CompiledJob>,
        tables: [Arc<TableSchema>; 3],
        place: Place,
        (cuts, views_since): (Option<Cuts>, &[u64]),
    ) -> Result<WorkerTables, SinkError> {
        let each = tables.clone().map(|table| TableSinks::new(table, cuts));
        let views: Vec<_> = job.views.tables().map(|table| TableSinks::new(table.clone(), cuts)).collect();
        let changes = Changes::new(job.clone(), cuts, views_since.to_vec());
        let worker_tables = WorkerTables { each, views, changes, gathered: self.sinks.iter().any(is_text) };
        let schemas: Vec<_> = tables.iter().chain(job.views.tables()).cloned().collect();
        for settings in &self.sinks {
            if let Some((at, outlet)) = self.outlet(settings, (job, &schemas), place, cuts)? {
                let outlet = self.measured(outlet, (settings, schemas[at].name));
                if let Some((_, sinks)) = worker_tables.all().nth(at) {
                    sinks.add(outlet);
                }
            }
        }
        let memory = self.memory.iter().flat_map(|(tables, views)| tables.iter().chain(views));
        for (table, (_, sinks)) in memory.zip(worker_tables.all()) {
            let to = Way::Staged { sink: Box::new(table.writer()) };
            sinks.add(Outlet { to, whole: false, historical: true });
        }
        Ok(worker_tables)
    }

    /// Says where the sinks of the job file tell what they do; before any is opened.
    pub(super) fn tell(&self, metrics: Arc<Metrics>) {
        // A run tells of itself once.
        let _ = self.metrics.set(metrics);
    }

    fn measured(&self, outlet: Outlet, (settings, table): (&SinkSettings, &str)) -> Outlet {
        let Some(metrics) = self.metrics.get() else { return outlet };
        let name = match settings {
            SinkSettings::Parquet { path, .. } => format!("parquet/{}/{table}", path.display()),
            SinkSettings::File { path } => format!("file/{}", path.display()),
            SinkSettings::Stdout => "stdout".to_owned(),
            SinkSettings::Kafka(kafka) => format!("kafka/{}", kafka.topic),
        };
        Outlet { to: measured(outlet.to, &name, metrics), ..outlet }
    }

    fn outlet(
        &self,
        settings: &SinkSettings,
        (job, tables): (&CompiledJob, &[Arc<TableSchema>]),
        place: Place,
        cuts: Option<Cuts>,
    ) -> Result<Option<(usize, Outlet)>, SinkError> {
        let checkpoints = cuts.is_some();
        let decisions = &tables[0];
        let whole = |to| Some((0, Outlet { to, whole: true, historical: true }));
        let staged = |sink| Way::Staged { sink: Box::new(sink) };
        let log = |name: String, sink| Way::Log { name, sink: Box::new(sink) };
        Ok(match settings {
            SinkSettings::Parquet { table, path, commit_interval, .. } => {
                let at = number_of(*table);
                let Some(lake) = self.lakes.get().and_then(|lakes| lakes.get(path)) else { return Ok(None) };
                let mut sink = Box::new(lake.table((*tables[at]).clone(), place.worker));
                let name = format!("{}/{}", path.display(), tables[at].name);
                let filing = cuts.map(|cuts| Filing::new(&name, *commit_interval, cuts));
                sink.hold(filing.is_some());
                let to = Way::Lake { sink, lake: lake.clone(), filing };
                Some((at, Outlet { to, whole: false, historical: true }))
            }
            SinkSettings::File { .. } | SinkSettings::Stdout if place.worker > 0 => None,
            SinkSettings::File { path } if checkpoints => {
                let sink = NdjsonLog::file((**decisions).clone(), path, self.existing);
                whole(log(format!("file/{}", path.display()), sink))
            }
            SinkSettings::File { path } => whole(staged(self.text(decisions, path)?)),
            SinkSettings::Stdout if checkpoints => {
                whole(log("stdout".to_owned(), NdjsonLog::stdout((**decisions).clone())))
            }
            SinkSettings::Stdout => whole(staged(Ndjson::stdout((**decisions).clone()))),
            SinkSettings::Kafka(kafka) => Some(self.topic(kafka, (job, tables), place)?),
        })
    }

    #[cfg(feature = "kafka")]
    fn topic(
        &self,
        sink: &crate::job_file::KafkaSink,
        (job, tables): (&CompiledJob, &[Arc<TableSchema>]),
        place: Place,
    ) -> Result<(usize, Outlet), SinkError> {
        use std::sync::Mutex;

        use whisperer_sinks::{ChangeMode, CreateTopic, KafkaLog, KafkaOptions, KafkaOutbox, OutboxSink};

        let at = number_of(sink.table);
        let create = |shape: crate::job_file::TopicShape| CreateTopic {
            partitions: shape.partitions,
            replication: shape.replication,
        };
        let name = format!("kafka/{}", sink.topic);
        let options = KafkaOptions {
            brokers: sink.brokers.clone(),
            topic: sink.topic.clone(),
            properties: sink.properties.clone(),
            create: sink.create.map(create),
            job: job.name.clone(),
            sink: sink.topic.clone(),
            worker: place.worker as u32,
            workers: place.workers as u32,
            source: self.source.clone(),
            changes: match sink.changes {
                crate::job_file::Changes::Upsert => ChangeMode::Upsert,
                crate::job_file::Changes::Debezium => ChangeMode::Debezium,
            },
        };
        let schema = (*tables[at]).clone();
        let to = match sink.delivery {
            crate::job_file::Delivery::Idempotent => {
                Way::Log { name, sink: Box::new(KafkaLog::open(schema, &options)?) }
            }
            crate::job_file::Delivery::ExactlyOnce => {
                let sink = KafkaOutbox::open(schema, &options)?;
                Way::Outbox {
                    name,
                    identities: (0..place.workers as u32).map(|worker| options.identity_of(worker)).collect(),
                    encoder: sink.encoder(),
                    identity: sink.identity(),
                    sink: Arc::new(Mutex::new(Box::new(sink))),
                    rows: Vec::new(),
                    removals: Vec::new(),
                }
            }
        };
        Ok((at, Outlet { to, whole: false, historical: false }))
    }

    #[cfg(not(feature = "kafka"))]
    fn topic(
        &self,
        sink: &crate::job_file::KafkaSink,
        _: (&CompiledJob, &[Arc<TableSchema>]),
        _: Place,
    ) -> Result<(usize, Outlet), SinkError> {
        unreachable!("a build without Kafka refuses the job file that names the topic \"{}\"", sink.topic)
    }

    fn text(&self, table: &TableSchema, path: &Path) -> Result<Ndjson, SinkError> {
        Ndjson::file(table.clone(), path, self.existing)
    }

    /// Publishes what all workers have staged at the end of a run without checkpoints: each lake in one commit, then the rest.
    pub(super) fn publish(&self, staged: Vec<Staged>) -> Result<Vec<WrittenFile>, SinkError> {
        let mut written = Vec::new();
        let (in_lakes, others): (Vec<_>, Vec<_>) = staged.into_iter().partition(|staged| staged.lake.is_some());
        for lake in self.lakes() {
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
        self.lakes().map(|lake| lake.finish(manifest)).collect()
    }
}

fn lake_of(sink: &SinkSettings) -> Option<(&PathBuf, TableLog)> {
    match sink {
        SinkSettings::Parquet { path, log, .. } => Some((path, *log)),
        SinkSettings::File { .. } | SinkSettings::Stdout | SinkSettings::Kafka(_) => None,
    }
}

fn waits_for_commit(sink: &SinkSettings) -> bool {
    matches!(sink, SinkSettings::Kafka(kafka) if kafka.delivery == crate::job_file::Delivery::ExactlyOnce)
}

fn number_of(table: LakeTable) -> usize {
    match table {
        LakeTable::Decisions => 0,
        LakeTable::Profiles => 1,
        LakeTable::DeadLetters => 2,
        LakeTable::View(view) => TABLES.len() + view,
    }
}

fn is_text(sink: &SinkSettings) -> bool {
    matches!(sink, SinkSettings::File { .. } | SinkSettings::Stdout)
}

/// The sinks of one worker.
pub(super) struct WorkerTables {
    /// For decisions, profiles and dead letters.
    pub(super) each: [TableSinks; 3],
    /// For each view.
    pub(super) views: Vec<TableSinks>,
    /// What the views have changed by and is not with their sinks.
    pub(super) changes: Changes,
    /// Whether some sink takes the decisions of all workers.
    pub(super) gathered: bool,
}

impl WorkerTables {
    /// All of them, with their names.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, &TableSinks)> {
        self.each.iter().chain(&self.views).map(|sinks| (sinks.name(), sinks))
    }

    /// Takes the rows of users out of changelogs.
    pub(super) fn remove(&self, users: &[Removal]) -> Result<(), SinkError> {
        if users.is_empty() { Ok(()) } else { self.all().try_for_each(|(_, table)| table.remove(users)) }
    }

    /// Hands the changes of views up to an epoch to their sinks, when the global watermark stands at `as_of`.
    pub(super) fn write_views(&self, epoch: u64, as_of: Option<Micros>) {
        self.changes.write(epoch, as_of, &self.views);
    }

    /// The digests of all.
    pub(super) fn digests(&self) -> Vec<Digest> {
        self.all().map(|(_, sinks)| sinks.digest()).collect()
    }
}

/// The names of the tables that every job has, in that order.
const TABLES: [&str; 3] = ["decisions", "profiles", "dead_letters"];
