//! Runs of jobs with views in memory: to the end, or stopped and gone on with.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use whisperer_connectors::{
    Positions, Reader, Source, SourceError, StateStore,
    format::FormatOptions,
    memory::{MemoryPartition, MemorySource},
    source::{Chunk, RawRecord, Size},
    state::{BaseKind, FolderStore, Role, fault::PowerDisk, resolve::Retention},
};
use whisperer_dataflows::{
    operations::Stop,
    runtime::{Outputs, Run, RunReport, StateSettings},
};
use whisperer_operators::{job::CompiledJob, reference::NamedRow, spec::JobSpec};
use whisperer_schemas::{Digest, Epoch};
use whisperer_sinks::MemoryTable;

use super::{compile, difference, logs, native, sorted, views};

/// The strict native format with short records.
pub fn format() -> FormatOptions {
    FormatOptions { event_bytes_max: logs::EVENT_BYTES_MAX, ..native() }
}

/// The tables of a job's views, whichever runs have written them.
pub struct Tables {
    pub fixed: [MemoryTable; 3],
    pub views: Vec<MemoryTable>,
}

impl Tables {
    pub fn new(job: &CompiledJob) -> Tables {
        Tables { fixed: Default::default(), views: job.views.each.iter().map(|_| MemoryTable::default()).collect() }
    }

    pub fn outputs(&self) -> Outputs {
        Outputs::in_memory_with_views(self.fixed.clone(), self.views.clone())
    }

    /// What each view's table adds up to; the digests that the run kept are those of that.
    pub fn contents(&self, job: &CompiledJob, report: &RunReport) -> Result<BTreeMap<String, Vec<NamedRow>>, String> {
        let mut all = BTreeMap::new();
        for ((table, memory), view) in views::tables(job).iter().zip(&self.views).zip(&job.views.each) {
            let (rows, digest) = views::contents(table, &memory.rows());
            let kept: Digest = report.digests[table.name];
            if kept != digest {
                return Err(format!("the digest of {} is {kept}, and that of its rows {digest}", table.name));
            }
            all.insert(view.name.clone(), rows);
        }
        Ok(all)
    }
}

/// Whether views hold the same rows.
pub fn same(ours: &BTreeMap<String, Vec<NamedRow>>, theirs: &BTreeMap<String, Vec<NamedRow>>) -> Result<(), String> {
    assert_eq!(ours.len(), theirs.len());
    theirs.iter().try_for_each(|(name, theirs)| difference(name, &ours[name], &sorted(theirs.clone())))
}

/// A source that asks the run to stop once so many records have been read.
struct Stopping {
    source: MemorySource,
    left: Arc<AtomicI64>,
    stop: Stop,
}

impl Source for Stopping {
    fn partitions(&self) -> u32 {
        self.source.partitions()
    }

    fn size(&self) -> Option<Size> {
        self.source.size()
    }

    fn open(&self, worker: usize, workers: usize, positions: &Positions) -> Result<Box<dyn Reader>, SourceError> {
        let reader = self.source.open(worker, workers, positions)?;
        Ok(Box::new(StoppingReader { reader, left: self.left.clone(), stop: self.stop.clone() }))
    }
}

struct StoppingReader {
    reader: Box<dyn Reader>,
    left: Arc<AtomicI64>,
    stop: Stop,
}

impl Reader for StoppingReader {
    fn read(
        &mut self,
        epoch: Epoch,
        each: &mut dyn FnMut(RawRecord<'_>),
        chunks: &mut Vec<Chunk>,
    ) -> Result<bool, SourceError> {
        let mut read = 0;
        let goes_on = self.reader.read(
            epoch,
            &mut |record| {
                read += 1;
                each(record);
            },
            chunks,
        );
        if self.left.fetch_sub(read, Ordering::SeqCst) <= read {
            self.stop.request();
        }
        goes_on
    }
}

/// Runs a job over partitions in memory to the end, and gives what its views come to.
pub fn whole(
    job: &Arc<CompiledJob>,
    partitions: &[MemoryPartition],
    workers: usize,
) -> Result<BTreeMap<String, Vec<NamedRow>>, String> {
    let tables = Tables::new(job);
    let source = Arc::new(MemorySource::new(partitions.to_vec()));
    let run = Run { workers, ..Run::new(job.clone(), source, format(), tables.outputs()) };
    let (report, _) = run.execute().map_err(|error| format!("the run failed: {error}"))?;
    tables.contents(job, &report)
}

/// A job whose runs go on where the last one was stopped.
pub struct Interrupted {
    pub spec: Arc<JobSpec>,
    pub job: Arc<CompiledJob>,
    pub store: Arc<dyn StateStore>,
    pub tables: Tables,
    pub every: u64,
}

impl Interrupted {
    pub fn new(spec: &JobSpec, every: u64) -> Interrupted {
        let disk = Arc::new(PowerDisk::default());
        let store = FolderStore::over(Path::new("state"), Role::Coordinator, disk, BaseKind::Sorted).expect("a store");
        let job = compile(spec);
        let tables = Tables::new(&job);
        Interrupted { spec: Arc::new(spec.clone()), job, store: Arc::new(store), tables, every }
    }

    /// The digests of a run that is not interrupted.
    pub fn undisturbed(&self, partitions: &[MemoryPartition]) -> Result<BTreeMap<&'static str, Digest>, String> {
        Interrupted::new(&self.spec, self.every).run(partitions, 2, i64::MAX).map(|report| report.digests)
    }

    /// Runs until so many records have been read, or to the end.
    pub fn run(&self, partitions: &[MemoryPartition], workers: usize, records: i64) -> Result<RunReport, String> {
        let stop = Stop::default();
        let source = Stopping {
            source: MemorySource::new(partitions.to_vec()),
            left: Arc::new(AtomicI64::new(records)),
            stop: stop.clone(),
        };
        let state = StateSettings {
            store: self.store.clone(),
            spec: self.spec.clone(),
            every: self.every,
            retention: Retention { checkpoints: 3, merge_from: 4 },
            restore: None,
            repeat_outputs: false,
            ticks: None,
        };
        let run = Run {
            workers,
            stop,
            state: Some(state),
            ..Run::new(self.job.clone(), Arc::new(source), format(), self.tables.outputs())
        };
        run.execute().map(|(report, _)| report).map_err(|error| format!("the run failed: {error}"))
    }
}
