//! The runtime: workers that read a source, run the keyed operator and write tables, from start to end of a bounded input.
//!
//! ```text
//! source ─┬─ records ──▶ apply_keyed ─┬─ decisions ─▶ digest ─▶ sinks
//!         ├─ chunk facts ──▲          ├─ profiles ──▶ digest ─▶ sinks
//!         │                           └─ stage updates ─▶ view of keys by stage
//!         └─ dead letters ──────────────────────────▶ digest ─▶ sinks
//! ```
//! Every worker runs the whole graph on its share of partitions and keys. When all have come to the end, each stages its files, and
//! only when all have staged are they published: an error anywhere leaves the earlier output as it was.

mod outputs;
mod progress;
mod reading;
mod report;

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use timely::{
    dataflow::{
        StreamVec,
        operators::{Inspect, Probe, probe::Handle},
    },
    worker::Worker,
};
use whisperer_connectors::{
    Source, SourceError,
    format::{FormatOptions, Parser},
};
use whisperer_operators::{
    digested::Digested,
    job::CompiledJob,
    keyed::{ApplyKeyed, KeyedReport},
    views::{StageCounts, StageUpdate},
};
use whisperer_schemas::{Digest, TableSchema};
use whisperer_sinks::{SinkError, WrittenFile};

pub use outputs::Outputs;
pub use progress::Progress;
pub use report::{RunReport, cpu_time, resident_bytes};

use outputs::{Staged, WorkerTables, WriteTo};
use reading::{ReadCounts, Reading, read_source};

/// What is run, and where its rows go.
pub struct Run {
    /// The job.
    pub job: Arc<CompiledJob>,
    /// Where its records come from.
    pub source: Arc<dyn Source>,
    /// How they are parsed.
    pub format: FormatOptions,
    /// Where its rows go.
    pub outputs: Outputs,
    /// Worker threads.
    pub workers: usize,
    /// Whether each worker is kept on a core of its own, as far as there are enough.
    pub pin: bool,
    /// Where progress is noted.
    pub progress: Arc<Progress>,
}

/// Why a run did not come to its end; nothing of it is visible then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The source cannot be opened or read.
    #[error("the source cannot be read")]
    Source(#[from] SourceError),
    /// An output cannot be written.
    #[error("an output cannot be written")]
    Sink(#[from] SinkError),
    /// The workers could not be started.
    #[error("the workers cannot be started: {0}")]
    Start(String),
    /// Another worker says why.
    #[error("another worker could not start")]
    OtherWorker,
    /// A worker came down.
    #[error("a worker came down: {0}")]
    Worker(String),
}

/// What a worker brings home.
struct WorkerOutcome {
    keyed: KeyedReport,
    /// This worker's part of the view of keys by stage.
    stages: Vec<i64>,
    read: ReadCounts,
    digests: [Digest; 3],
    staged: Vec<Staged>,
}

impl Run {
    /// Runs to the end of the input; gives the outputs back, for the manifest.
    ///
    /// # Errors
    /// Where the source cannot be read or an output not be written.
    pub fn execute(self) -> Result<(RunReport, Outputs), RunError> {
        let started = report::Started::now();
        let workers = self.workers;
        let run = Arc::new(self);
        let config = match workers {
            1 => timely::CommunicationConfig::Thread,
            workers => timely::CommunicationConfig::Process(workers),
        };
        let (builders, others) = config.try_build().map_err(RunError::Start)?;
        let (shared, ready) = (run.clone(), Ready::new(workers));
        let guards = timely::execute::execute_from(builders, others, timely::WorkerConfig::default(), move |worker| {
            run_worker(worker, &shared, &ready)
        });
        let guards = guards.map_err(RunError::Start)?;
        let mut outcomes = collect(guards.join())?;
        let files = publish(&run, &mut outcomes)?;
        let report = RunReport::new(&run, outcomes, files, started);
        let run = Arc::into_inner(run).expect("the workers, which shared it, have ended");
        Ok((report, run.outputs))
    }

    /// The tables in the order of [`WorkerOutcome::digests`].
    fn tables(&self) -> [Arc<TableSchema>; 3] {
        [self.job.decisions.clone(), self.job.profiles.clone(), Arc::new(TableSchema::dead_letters())]
    }
}

/// All outcomes, or the error that says most.
fn collect(joined: Vec<Result<Result<WorkerOutcome, RunError>, String>>) -> Result<Vec<WorkerOutcome>, RunError> {
    let mut outcomes = Vec::new();
    let mut failed = None;
    for outcome in joined {
        match outcome.map_err(RunError::Worker).flatten() {
            Ok(outcome) => outcomes.push(outcome),
            Err(RunError::OtherWorker) if failed.is_some() => {}
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(outcomes), Err)
}

fn publish(run: &Run, outcomes: &mut [WorkerOutcome]) -> Result<Vec<WrittenFile>, RunError> {
    let staged = outcomes.iter_mut().flat_map(|outcome| std::mem::take(&mut outcome.staged)).collect();
    Ok(run.outputs.publish(staged)?)
}

/// Where workers wait for one another before they build the dataflow: one that cannot start would leave the others waiting for ever.
struct Ready {
    all: Barrier,
    failed: AtomicBool,
}

impl Ready {
    fn new(workers: usize) -> Ready {
        Ready { all: Barrier::new(workers), failed: AtomicBool::new(false) }
    }

    /// Gives what this worker has prepared once all have; none if another one has failed.
    fn wait<T>(&self, prepared: Result<T, RunError>) -> Result<T, RunError> {
        if prepared.is_err() {
            self.failed.store(true, Ordering::SeqCst);
        }
        self.all.wait();
        let failed = self.failed.load(Ordering::SeqCst);
        prepared.and_then(|own| if failed { Err(RunError::OtherWorker) } else { Ok(own) })
    }
}

fn prepare(run: &Run, worker: usize) -> Result<(Reading, WorkerTables), RunError> {
    let reader = run.source.open(worker, run.workers, &Default::default())?;
    let parser = Parser::new(run.format.clone(), run.job.intake.clone())?;
    let tables = run.outputs.worker_tables(run.tables(), worker)?;
    Ok((Reading::new(reader, parser, run.progress.clone()), tables))
}

fn run_worker(worker: &mut Worker, run: &Run, ready: &Ready) -> Result<WorkerOutcome, RunError> {
    let index = worker.index();
    pin(run, index);
    let (reading, tables) = ready.wait(prepare(run, index))?;
    let report = Rc::new(RefCell::new(KeyedReport::default()));
    let digests: [Rc<RefCell<Digest>>; 3] = Default::default();
    let read = reading.outcome();
    let stages = Rc::new(RefCell::new(vec![0; run.job.stage_names.len()]));
    let probe = Handle::new();
    worker.dataflow::<u64, _, _>(|scope| {
        let streams = read_source(scope, reading, probe.clone());
        let partitions = run.source.partitions();
        let keyed = streams.records.apply_keyed(streams.facts, run.job.clone(), partitions, report.clone());
        let of_table = run.tables();
        follow_stages(keyed.stages, stages.clone(), &probe);
        let rows = [keyed.decisions, keyed.profiles, streams.dead_letters];
        for ((rows, table), (digest, sinks)) in rows.into_iter().zip(of_table).zip(digests.iter().zip(&tables.each)) {
            rows.digested(table, digest.clone()).write_to(sinks, &probe);
        }
    });
    while !probe.done() {
        worker.step_or_park(Some(PARKED_MAX));
    }
    let read = read.take()?;
    let staged = stage(run, tables)?;
    let keyed = report.borrow().clone();
    let stages = stages.borrow().clone();
    Ok(WorkerOutcome { keyed, stages, read, digests: digests.map(|digest| *digest.borrow()), staged })
}

/// Keeps the counts of keys by stage as the view of them changes.
fn follow_stages(updates: StreamVec<'_, u64, StageUpdate>, counts: Rc<RefCell<Vec<i64>>>, probe: &Handle<u64>) {
    let follow = move |((stage, keys), _, diff): &((u16, isize), u64, isize)| {
        counts.borrow_mut()[usize::from(*stage)] += (keys * diff) as i64;
    };
    updates.stage_counts().inner.inspect(follow).probe_with(probe);
}

/// Longest sleep of a worker that has nothing to do; what wakes it is an activation.
const PARKED_MAX: Duration = Duration::from_millis(10);

fn stage(run: &Run, tables: WorkerTables) -> Result<Vec<Staged>, RunError> {
    Ok(tables.stage(&run.progress.facts())?)
}

/// Keeps the worker on a core of its own. Kernels of small machines like to pack threads that are not pinned onto one core.
fn pin(run: &Run, worker: usize) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if run.pin && run.workers <= cores.len() {
        core_affinity::set_for_current(cores[worker]);
    }
}
