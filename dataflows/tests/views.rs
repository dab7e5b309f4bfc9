//! Views: whatever is asked about all users at once has the answer that a computation from scratch gives, whichever way the input was cut,
//! on any number of workers, and across stops and restarts on another number of them.

mod support;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use support::{compile, difference, jobs, logs, native, property, reference, sorted, views};
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
use whisperer_operators::{
    job::CompiledJob,
    reference::NamedRow,
    spec::{Aggregate, FeatureSpec, JobSpec, ViewKind, ViewSpec},
};
use whisperer_schemas::{Digest, Epoch};
use whisperer_sinks::MemoryTable;

fn format() -> FormatOptions {
    FormatOptions { event_bytes_max: logs::EVENT_BYTES_MAX, ..native() }
}

/// The tables of a job's views, whichever runs have written them.
struct Tables {
    fixed: [MemoryTable; 3],
    views: Vec<MemoryTable>,
}

impl Tables {
    fn new(job: &CompiledJob) -> Tables {
        Tables { fixed: Default::default(), views: job.views.each.iter().map(|_| MemoryTable::default()).collect() }
    }

    fn outputs(&self) -> Outputs {
        Outputs::in_memory_with_views(self.fixed.clone(), self.views.clone())
    }

    /// What each view's table adds up to; the digests that the run kept are those of that.
    fn contents(&self, job: &CompiledJob, report: &RunReport) -> Result<BTreeMap<String, Vec<NamedRow>>, String> {
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

fn same(ours: &BTreeMap<String, Vec<NamedRow>>, theirs: &BTreeMap<String, Vec<NamedRow>>) -> Result<(), String> {
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
fn whole(
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
struct Interrupted {
    spec: Arc<JobSpec>,
    job: Arc<CompiledJob>,
    store: Arc<dyn StateStore>,
    tables: Tables,
    every: u64,
}

impl Interrupted {
    fn new(spec: &JobSpec, every: u64) -> Interrupted {
        let disk = Arc::new(PowerDisk::default());
        let store = FolderStore::over(Path::new("state"), Role::Coordinator, disk, BaseKind::Sorted).expect("a store");
        let job = compile(spec);
        let tables = Tables::new(&job);
        Interrupted { spec: Arc::new(spec.clone()), job, store: Arc::new(store), tables, every }
    }

    /// The digests of a run that is not interrupted.
    fn undisturbed(&self, partitions: &[MemoryPartition]) -> Result<BTreeMap<&'static str, Digest>, String> {
        Interrupted::new(&self.spec, self.every).run(partitions, 2, i64::MAX).map(|report| report.digests)
    }

    /// Runs until so many records have been read, or to the end.
    fn run(&self, partitions: &[MemoryPartition], workers: usize, records: i64) -> Result<RunReport, String> {
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

#[test]
fn views_equal_a_computation_from_scratch() {
    // Goal: for random jobs with views of every kind over random logs, late events and disorder included, what the tables add up to equals
    // the oracle's answers, at 1 to 4 workers and as many random cuts.
    let cuts = [logs::cuts(), logs::cuts(), logs::cuts(), logs::cuts()];
    let strategy = (jobs::job(), views::dice(7), logs::log(60), cuts);
    property::check(
        250,
        &strategy,
        |(job, dice, log, _)| {
            format!("{}{}{}", job.show(), views::show(&views::with_views(job.spec(), dice)), log.show())
        },
        |(job, dice, log, cuts)| {
            let spec = views::with_views(job.spec(), dice);
            let oracle = reference(&spec, &log.partitions(&cuts[0]), &format());
            let job = compile(&spec);
            for (workers, cuts) in (1..).zip(cuts) {
                let ours = whole(&job, &log.partitions(cuts), workers)?;
                same(&ours, &oracle.views).map_err(|error| format!("{workers} workers: {error}"))?;
            }
            Ok(())
        },
    );
}

#[test]
fn views_go_on_after_a_restart() {
    // Goal: the same where the run is stopped at a random record, and again, and goes on on another number of workers: tables and digests
    // are those of a run that was never stopped.
    let stops = ((1..=4_usize, 1..60_i64), (1..=4_usize, 1..40_i64), 1..=4_usize, 1..5_u64);
    let strategy = (jobs::job(), views::dice(6), logs::log(60), logs::cuts(), stops);
    property::check(
        120,
        &strategy,
        |(job, dice, log, _, stops)| {
            format!("{stops:?}\n{}{}{}", job.show(), views::show(&views::with_views(job.spec(), dice)), log.show())
        },
        |(job, dice, log, cuts, (first, second, last, every))| {
            let spec = views::with_views(job.spec(), dice);
            let partitions = log.partitions(cuts);
            let oracle = reference(&spec, &partitions, &format());
            let job = Interrupted::new(&spec, *every);
            let undisturbed = job.undisturbed(&partitions)?;
            let mut report = job.run(&partitions, first.0, first.1)?;
            for (workers, records) in [*second, (*last, i64::MAX)] {
                if !report.finished {
                    report = job.run(&partitions, workers, records)?;
                }
            }
            same(&job.tables.contents(&job.job, &report)?, &oracle.views)?;
            match report.digests == undisturbed {
                true => Ok(()),
                false => Err(format!("digests differ: {:?} and {undisturbed:?}", report.digests)),
            }
        },
    );
}

#[test]
fn a_job_with_other_views_goes_on() {
    // Goal: where a job goes on with one view as it was, one that is another now and a new one, users who come no more are in all of them, and
    // each table adds up to what a whole run of the new job gives. Method: sixty users, of whom half come before the change only.
    let event = |at: u32| support::event(at, if at < 120 { at % 60 } else { at % 30 }, support::s(i64::from(at)));
    let lines = (0..240).map(|at| event(at).line()).collect();
    let partitions = vec![support::partition(lines, vec![vec![5, 5]; 24])];
    let job = |views: Vec<ViewSpec>| {
        let mut spec = JobSpec { views, ..JobSpec::default() };
        spec.features.push(FeatureSpec::new("events", Aggregate::Count));
        spec
    };
    let users = || ViewSpec::new("users", ViewKind::Count);
    let sum = ViewSpec::new("sum", ViewKind::Sum { of: "events".into() }).by(&["app_id"]);
    let before = job(vec![users(), ViewSpec::new("grouped", ViewKind::Count).by(&["app_id"])]);
    let after = job(vec![users(), ViewSpec::new("grouped", ViewKind::Count).by(&["events"]), sum]);

    let first = Interrupted::new(&before, 2);
    let report = first.run(&partitions, 2, 150).expect("the run is stopped");
    assert!(!report.finished && report.read >= 120, "{} records", report.read);
    let (fixed, mut views) = (first.tables.fixed.clone(), first.tables.views.clone());
    views.push(MemoryTable::default());
    let (spec, job, tables) = (Arc::new(after.clone()), compile(&after), Tables { fixed, views });
    let second = Interrupted { spec, job, store: first.store.clone(), tables, every: 2 };
    let report = second.run(&partitions, 3, i64::MAX).expect("the run ends");
    let ours = second.tables.contents(&second.job, &report).expect("the digests are those of the rows");
    let theirs = whole(&compile(&after), &partitions, 1).expect("the whole run ends");
    same(&ours, &theirs).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(ours["users"].len() + ours["sum"].len(), 2);
    assert!(ours["grouped"].len() > 1, "{ours:?}");
}
