//! The output edge: rows of each table go to its sinks, are staged by every worker and published together.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        StreamVec,
        channels::pact::{Exchange as ExchangePact, Pipeline},
        operators::{Probe, generic::Operator, probe::Handle},
    },
};
use whisperer_schemas::{Micros, Row, TableSchema};
use whisperer_sinks::{
    CommitFacts, Existing, Lake, MemoryTable, Ndjson, RunManifest, SinkError, StagedFile, TableSink, WrittenFile,
};

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
    ) -> Result<WorkerTables, SinkError> {
        let each: [TableSinks; 3] = Default::default();
        for settings in &self.sinks {
            let (at, sink) = match settings {
                SinkSettings::Parquet { table, path, .. } => {
                    let at = match table {
                        LakeTable::Decisions => 0,
                        LakeTable::Profiles => 1,
                        LakeTable::DeadLetters => 2,
                    };
                    let Some(lake) = self.lakes.get(path) else { continue };
                    let sink = lake.table((*tables[at]).clone(), worker);
                    (at, Sink { to: Box::new(sink), lake: Some(lake.clone()), whole: false })
                }
                SinkSettings::File { path } if worker == 0 => (0, self.text(&tables[0], path)?),
                SinkSettings::Stdout if worker == 0 => {
                    let sink = Ndjson::stdout((*tables[0]).clone());
                    (0, Sink { to: Box::new(sink), lake: None, whole: true })
                }
                SinkSettings::File { .. } | SinkSettings::Stdout => continue,
            };
            each[at].0.borrow_mut().sinks.push(sink);
        }
        for (table, sinks) in self.memory.iter().flatten().zip(&each) {
            let sink = Sink { to: Box::new(table.writer()), lake: None, whole: false };
            sinks.0.borrow_mut().sinks.push(sink);
        }
        let texts = self.sinks.iter().any(|sink| !matches!(sink, SinkSettings::Parquet { .. }));
        each[0].0.borrow_mut().gathered = texts;
        Ok(WorkerTables { each })
    }

    fn text(&self, table: &TableSchema, path: &Path) -> Result<Sink, SinkError> {
        let sink = Ndjson::file(table.clone(), path, self.existing)?;
        Ok(Sink { to: Box::new(sink), lake: None, whole: true })
    }

    /// Publishes what all workers have staged: each lake in one commit, then the rest.
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

/// Where rows of one table go, on one worker.
struct Sink {
    to: Box<dyn TableSink>,
    lake: Option<Arc<Lake>>,
    /// Whether it takes the rows of all workers, in the order of event time inside an epoch.
    whole: bool,
}

/// What a worker has staged of one sink.
pub(super) struct Staged {
    sink: Box<dyn TableSink>,
    lake: Option<Arc<Lake>>,
    files: Vec<StagedFile>,
}

/// The sinks of one table on one worker, shared with the operators that write to them.
#[derive(Clone, Default)]
pub(super) struct TableSinks(Rc<RefCell<Sinks>>);

#[derive(Default)]
struct Sinks {
    sinks: Vec<Sink>,
    /// Whether some sink takes the rows of all workers.
    gathered: bool,
    failed: Option<SinkError>,
}

impl Sinks {
    fn write(&mut self, rows: &mut Vec<Row>, whole: bool) {
        let rows = std::mem::take(rows);
        if rows.is_empty() || self.failed.is_some() {
            return;
        }
        let mut rows = Some(rows);
        let mut sinks = self.sinks.iter_mut().filter(|sink| sink.whole == whole).peekable();
        while let Some(sink) = sinks.next() {
            // The last sink takes the rows themselves.
            let own = if sinks.peek().is_some() { rows.clone() } else { rows.take() };
            if let Err(error) = sink.to.write(own.unwrap_or_default()) {
                self.failed = Some(error);
                return;
            }
        }
    }
}

/// The sinks of one worker.
pub(super) struct WorkerTables {
    /// For decisions, profiles and dead letters.
    pub(super) each: [TableSinks; 3],
}

impl WorkerTables {
    /// Makes all rows durable, still unseen.
    pub(super) fn stage(self, facts: &CommitFacts) -> Result<Vec<Staged>, SinkError> {
        let mut staged = Vec::new();
        for table in self.each {
            let Sinks { sinks, failed, .. } = std::mem::take(&mut *table.0.borrow_mut());
            if let Some(error) = failed {
                return Err(error);
            }
            for mut sink in sinks {
                let files = sink.to.stage(facts)?;
                staged.push(Staged { sink: sink.to, lake: sink.lake, files });
            }
        }
        Ok(staged)
    }
}

/// Writes streams of rows to sinks.
pub(super) trait WriteTo {
    /// Hands every row to `sinks`; `probe` follows what they have taken.
    fn write_to(self, sinks: &TableSinks, probe: &Handle<u64>);
}

impl WriteTo for StreamVec<'_, u64, Row> {
    fn write_to(self, sinks: &TableSinks, probe: &Handle<u64>) {
        if sinks.0.borrow().gathered {
            gather(self.clone(), sinks.clone(), probe);
        }
        let sinks = sinks.clone();
        let write = move |rows: &mut Vec<Row>| sinks.0.borrow_mut().write(rows, false);
        self.unary::<CapacityContainerBuilder<Vec<Row>>, _, _, _>(Pipeline, "Write", move |_, _| {
            move |input, _output| input.for_each(|_, rows| write(rows))
        })
        .probe_with(probe);
    }
}

/// Brings the rows of all workers together and writes those of an epoch, once it is whole, in the order of their event times.
fn gather(rows: StreamVec<'_, u64, Row>, sinks: TableSinks, probe: &Handle<u64>) {
    let mut stash: BTreeMap<u64, Vec<Row>> = BTreeMap::new();
    let to_first = ExchangePact::new(|_: &Row| 0);
    rows.unary_frontier::<CapacityContainerBuilder<Vec<Row>>, _, _, _>(to_first, "Gather", move |capability, _| {
        // Held so that the probe waits for the rows to be written; let go of epoch by epoch.
        let mut held = Some(capability);
        move |(input, frontier), _output| {
            input.for_each(|capability, rows| stash.entry(*capability.time()).or_default().append(rows));
            let next = frontier.frontier().first().copied();
            while let Some(entry) = stash.first_entry().filter(|entry| next.is_none_or(|next| *entry.key() < next)) {
                let mut rows = entry.remove();
                // Columns 6 and 0 of the decisions table: firing time and decision id.
                rows.sort_by(|a, b| order(a).cmp(&order(b)));
                sinks.0.borrow_mut().write(&mut rows, true);
            }
            match (next, &mut held) {
                (Some(next), Some(held)) if *held.time() < next => held.downgrade(&next),
                (None, held) => *held = None,
                _ => {}
            }
        }
    })
    .probe_with(probe);
}

fn order(row: &Row) -> (Option<Micros>, Option<&str>) {
    (row.values[6].as_time(), row.values[0].as_text())
}
