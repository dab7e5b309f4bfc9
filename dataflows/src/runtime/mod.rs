//! The runtime: workers that read a source, run the keyed operator and write tables, from a start or a checkpoint to the end of the input
//! or a stop.
//!
//! ```text
//! source ─┬─ records ──▶ apply_keyed ─┬─ decisions ─▶ digest ─▶ sinks
//!         ├─ chunk facts ──▲          ├─ profiles ──▶ digest ─▶ sinks
//!         │                           ├─ stage updates ─▶ view of keys by stage
//!         │                           └─ facts ─▶ views ─▶ digest ─▶ sinks
//!         └─ dead letters ──────────────────────────▶ digest ─▶ sinks
//! ```
//! Every worker runs the whole graph on its share of partitions and keys. Without checkpoints, each stages its files when all have come to
//! the end, and only when all have staged are they published: an error anywhere leaves the earlier output as it was. With
//! checkpoints the same happens at every one of them; [`checkpoints`] tells how.

mod checkpoints;
mod control;
mod coordinator;
mod counts;
mod epochs;
pub mod erasures;
mod filing;
mod measured;
mod outputs;
mod progress;
mod reading;
mod recovery;
mod report;
mod tables;
mod telling;
mod ticks;
mod views;
mod worker;

use std::{
    sync::{
        Arc, Barrier, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use whisperer_connectors::{
    Source, SourceError, StateStore, StoreError, format::FormatOptions, source::GlobalWatermark,
    state::resolve::Retention,
};
use whisperer_operators::{
    cold::{ColdError, ColdStates},
    job::CompiledJob,
    keyed::{KeyedReport, KeyedSetup},
    keys::{ColdFailed, Keys, RestoreError},
    spec::JobSpec,
};
use whisperer_schemas::{Digest, Micros, TableSchema, checkpoint::Cut};
use whisperer_sinks::{SinkError, WrittenFile};

pub use filing::rows_waiting;
pub use outputs::Outputs;
pub use progress::Progress;
pub use report::{RunReport, cpu_time, resident_bytes};
pub use ticks::GenerationTicks;

use control::Start;
use coordinator::Origin;
use outputs::Opening;
use reading::ReadCounts;
use tables::Staged;

use crate::operations::{Cluster, Operations, Phase, Spans, Stop, traces};

/// What is run, and where its rows go.
pub struct Run {
    /// What names the run in its files, if it goes on from no checkpoint.
    pub name: String,
    /// The job.
    pub job: Arc<CompiledJob>,
    /// Where its records come from.
    pub source: Arc<dyn Source>,
    /// How they are parsed.
    pub format: FormatOptions,
    /// Where its rows go.
    pub outputs: Outputs,
    /// Worker threads of this process.
    pub workers: usize,
    /// The processes that run the job together; none where this one runs it alone.
    pub cluster: Option<Cluster>,
    /// Whether each worker is kept on a core of its own, as far as there are enough.
    pub pin: bool,
    /// The length of an epoch of a live source.
    pub epoch_interval: Duration,
    /// Checkpoints; none where the run starts from nothing and leaves nothing to go on from.
    pub state: Option<StateSettings>,
    /// Where states go that do not fit into memory; none where all do.
    pub cold: Option<ColdSettings>,
    /// Which decisions are news.
    pub news: News,
    /// Set from outside: the run takes a checkpoint and ends.
    pub stop: Stop,
    /// Who watches over the workers and tells about them; nobody has to.
    pub operations: Option<Arc<Operations>>,
    /// Where progress is noted.
    pub progress: Arc<Progress>,
    /// Where the global watermark is noted, for a source that begins new partitions with it.
    pub watermark: Arc<GlobalWatermark>,
    /// Events of history from this time on are left to the source that follows it.
    pub history_until: Option<Micros>,
}

/// How checkpoints are taken and kept.
#[derive(Clone, Debug)]
pub struct StateSettings {
    /// Where they are.
    pub store: Arc<dyn StateStore>,
    /// The job as it is written, to tell what has changed since a checkpoint.
    pub spec: Arc<JobSpec>,
    /// Epochs from one to the next.
    pub every: u64,
    /// How many are kept.
    pub retention: Retention,
    /// The checkpoint to start from, instead of the newest.
    pub restore: Option<u64>,
    /// Whether outputs that are out already may come again.
    pub repeat_outputs: bool,
    /// The advances of idle partitions, where the source is a topic.
    pub ticks: Option<Arc<GenerationTicks>>,
}

/// Opens the cold store of a worker.
pub type OpenCold = dyn Fn(usize) -> Result<Box<dyn ColdStates>, ColdError> + Send + Sync;

/// How states are kept that do not fit into memory.
#[derive(Clone)]
pub struct ColdSettings {
    /// Bytes of states and timers that all workers of this process together keep in memory.
    pub bytes_max: u64,
    /// Opens the store of a worker of the cluster.
    pub open: Arc<OpenCold>,
}

/// Which decisions are news; others are made and recorded, and delivered to nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Those from this event time on; all where there is none. A checkpoint keeps it from the first start on.
    pub deliver_from: Option<Micros>,
    /// Those not further back than this, by the wall clock.
    pub expires_after: Option<Micros>,
}

/// Why a run did not come to its end. What is visible of it then is whole checkpoints, or nothing where there are none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The source cannot be opened or read.
    #[error("the source cannot be read")]
    Source(#[from] SourceError),
    /// An output cannot be written.
    #[error("an output cannot be written")]
    Sink(#[from] SinkError),
    /// Checkpoints cannot be read or written.
    #[error("the state cannot be read or written")]
    Store(#[from] StoreError),
    /// The store of checkpoints cannot be made ready.
    #[error("the state cannot be made ready: {0}")]
    Prepare(String),
    /// A checkpoint's manifest says what this build does not understand.
    #[error("a checkpoint's manifest is damaged: {0}")]
    Manifest(String),
    /// States cannot be restored.
    #[error("the states of a checkpoint cannot be restored")]
    Restore(#[from] RestoreError),
    /// States that are not in memory are lost to the run.
    #[error("the state of users cannot be kept")]
    Cold(#[from] ColdFailed),
    /// The cold store of a worker cannot be opened.
    #[error("the store of states that do not fit into memory cannot be opened")]
    OpenCold(#[source] ColdError),
    /// Another generation has taken over.
    #[error(
        "manifest {number} was written by someone else: another run of the job has taken over, and this one, generation {generation}, stops"
    )]
    Fenced {
        /// The manifest that this run was to write.
        number: u64,
        /// Its generation.
        generation: u64,
    },
    /// The state belongs to another job.
    #[error("the state belongs to the job \"{found}\", and this is \"{job}\"")]
    OtherJob {
        /// The job that wrote it.
        found: String,
        /// The job that is run.
        job: String,
    },
    /// The job was changed while it read its history.
    #[error(
        "the checkpoint was taken while the files of [source] history were read (partition {partition} of them), and the job names them no \
         more: put history back until they are read, or start without the checkpoint"
    )]
    HistoryLeft {
        /// The partition of history that had not ended.
        partition: u32,
    },
    /// The job has read its whole input before.
    #[error("nothing is left to do: checkpoint {number} says that the input has been read to its end")]
    Finished {
        /// The last checkpoint.
        number: u64,
    },
    /// The control log cannot be used.
    #[error("the control log cannot be used: {0}")]
    Control(String),
    /// The workers could not be started.
    #[error("the workers cannot be started: {0}")]
    Start(String),
    /// Outputs tell of checkpoints that the state does not know: it is not the state that they were made with.
    #[error(
        "the sink \"{sink}\" has put out checkpoint {recorded} of this job, and the newest that the state folder knows is {known}: is the folder \
         empty, another one, or an old copy? What comes next would be passed over as put out already. Put the state back, or say \
         --repeat-outputs to start from what there is and have its outputs come again"
    )]
    LostState {
        /// The sink.
        sink: String,
        /// The checkpoint that it has recorded.
        recorded: u64,
        /// The newest number that is taken, 0 for none.
        known: u64,
    },
    /// Another worker says why.
    #[error("another worker could not go on")]
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
    /// Of decisions, profiles, dead letters and the views.
    digests: Vec<Digest>,
    staged: Vec<Staged>,
    /// Whether the input has come to its end.
    finished: bool,
    /// What names the run in its files.
    name: String,
    /// The last checkpoint, where this worker coordinates: it tells of the workers of all processes.
    last: Option<Cut>,
    /// Whether the run ended to start again.
    again: bool,
}

/// What the workers of a process share.
struct Shared {
    run: Run,
    ready: Ready,
    once: recovery::Once,
    /// What process 0 has found; worker 0 takes it.
    origin: Option<Origin>,
    /// Until the workers of this process begin to work.
    recovery: Mutex<tracing::Span>,
}

impl Run {
    /// A run on one worker with nothing but a job, a source and outputs; everything else can be set.
    #[must_use]
    pub fn new(job: Arc<CompiledJob>, source: Arc<dyn Source>, format: FormatOptions, outputs: Outputs) -> Run {
        Run {
            name: "run".to_owned(),
            job,
            source,
            format,
            outputs,
            workers: 1,
            cluster: None,
            pin: false,
            epoch_interval: Duration::from_millis(10),
            state: None,
            cold: None,
            news: News::default(),
            stop: Stop::default(),
            operations: None,
            progress: Arc::default(),
            watermark: Arc::default(),
            history_until: None,
        }
    }

    /// Runs to the end of the input, or until it is stopped; gives the outputs back, for the manifest.
    ///
    /// # Errors
    /// Where the source cannot be read, an output or a checkpoint not be written, or another run has taken over.
    pub fn execute(mut self) -> Result<(RunReport, Outputs), RunError> {
        let started = report::Started::now();
        loop {
            let (mut run, mut outcomes) = self.attempt()?;
            if !outcomes.iter().any(|outcome| outcome.again) || run.stop.requested() {
                let report = run.conclude(&mut outcomes, started)?;
                return Ok((report, run.outputs));
            }
            // An erasure is applied by a start.
            run.outputs.close();
            run.state.iter_mut().for_each(|state| (state.restore, state.repeat_outputs) = (None, false));
            self = run;
        }
    }

    /// Runs from a start to the next end.
    fn attempt(self) -> Result<(Run, Vec<WorkerOutcome>), RunError> {
        if self.cluster.is_some() && self.state.is_none() {
            return Err(RunError::Start("a cluster needs checkpoints: give the job [checkpoint] dir".to_owned()));
        }
        let spans = self.spans();
        let _run = spans.begin(&self.job.name, self.workers);
        let recovery = Mutex::new(traces::recovery(&spans.run()));
        if let Some(operations) = &self.operations {
            self.outputs.tell(operations.metrics.clone());
        }
        let origin = self.origin()?;
        let workers = self.workers;
        let config = match &self.cluster {
            Some(cluster) => timely::CommunicationConfig::Cluster {
                threads: workers,
                process: cluster.process,
                addresses: cluster.addresses.clone(),
                report: false,
                zerocopy: false,
            },
            None if workers == 1 => timely::CommunicationConfig::Thread,
            None => timely::CommunicationConfig::Process(workers),
        };
        let (builders, others) = config.try_build().map_err(RunError::Start)?;
        let once = recovery::Once::default();
        let shared = Shared { run: self, ready: Ready::new(workers), once, origin, recovery };
        let shared = Arc::new(shared);
        let own = shared.clone();
        let guards = timely::execute::execute_from(builders, others, timely::WorkerConfig::default(), move |worker| {
            worker::run_worker(worker, &own)
        });
        let guards = guards.map_err(RunError::Start)?;
        let outcomes = collect(guards.join())?;
        let Shared { run, .. } = Arc::into_inner(shared).expect("the workers, which shared it, have ended");
        Ok((run, outcomes))
    }

    /// Puts out what waits for the end, and says what the run came to.
    fn conclude(&self, outcomes: &mut Vec<WorkerOutcome>, started: report::Started) -> Result<RunReport, RunError> {
        let mut files = publish(self, outcomes)?;
        let noted: Vec<_> = outcomes.iter_mut().flat_map(|outcome| std::mem::take(&mut outcome.keyed.noted)).collect();
        if self.state.is_none() && !noted.is_empty() {
            files.clear();
            let gone = erasures::after_run(self, &noted)?;
            let names = self.tables().map(|table| table.name);
            if let Some(first) = outcomes.first_mut() {
                let digests = first.digests.iter_mut().zip(names);
                digests.for_each(|(digest, name)| digest.take_out(gone.get(name).copied().unwrap_or_default()));
            }
        }
        if self.state.is_some() || !noted.is_empty() {
            // Earlier generations of the run have published files too.
            for lake in self.outputs.lakes() {
                files.extend(lake.written()?);
            }
        }
        Ok(RunReport::new(self, std::mem::take(outcomes), files, started))
    }

    /// What takes how long; off where nobody listens.
    fn spans(&self) -> Arc<Spans> {
        self.operations.as_ref().map(|operations| operations.spans.clone()).unwrap_or_default()
    }

    /// What the run starts from, where this process decides it; its lakes are open then.
    fn origin(&self) -> Result<Option<Origin>, RunError> {
        let Some(state) = &self.state else {
            self.outputs
                .open(&self.job, &Opening { run: self.name.clone(), generation: 0, process: 0, fresh: true })?;
            return Ok(None);
        };
        if self.cluster.as_ref().is_some_and(|cluster| cluster.process > 0) {
            // Process 0 would not come: it has nothing left to do either.
            recovery::refuse_finished(self, state)?;
            return Ok(None);
        }
        let mut origin = recovery::claim(self, state)?;
        let Start { run, generation, restored, finished, .. } = origin.start.clone();
        if finished {
            self.outputs.unfinish(&run)?;
        }
        self.outputs.open(&self.job, &Opening { run, generation, process: 0, fresh: restored.is_none() })?;
        recovery::recover_lakes(self, &*state.store, &origin)?;
        let began = Instant::now();
        origin.start.erasing = erasures::apply(self, state, &origin)?;
        origin.erasing_took = began.elapsed();
        Ok(Some(origin))
    }

    /// The tables that every job has, in the order of [`WorkerOutcome::digests`]; the views come after.
    fn tables(&self) -> [Arc<TableSchema>; 3] {
        [self.job.decisions.clone(), self.job.profiles.clone(), Arc::new(TableSchema::dead_letters())]
    }

    /// The keyed operator's start from nothing.
    fn keyed_setup(&self) -> KeyedSetup {
        let mut setup = KeyedSetup::new(self.job.clone(), self.source.partitions());
        setup.clocks = setup.clocks.after_history(self.source.history());
        setup
    }

    /// Gives the keys of a worker a cold store, if the run has a budget.
    fn make_cold(&self, worker: usize, keys: &mut Keys) -> Result<(), RunError> {
        if let Some(cold) = &self.cold {
            let store = (cold.open)(worker).map_err(RunError::OpenCold)?;
            keys.use_cold(store, cold.bytes_max / self.workers as u64);
        }
        Ok(())
    }
}

impl Shared {
    /// A worker begins to load its share of a checkpoint.
    fn loading(&self, worker: usize, number: u64) -> tracing::Span {
        if let Some(operations) = &self.run.operations {
            operations.health.enter(Phase::Recovering);
        }
        let recovery = self.recovery.lock().unwrap_or_else(PoisonError::into_inner);
        recovery.record("checkpoint", number);
        traces::load(&recovery, worker)
    }

    /// The workers of this process have all they need.
    fn loaded(&self) {
        *self.recovery.lock().unwrap_or_else(PoisonError::into_inner) = tracing::Span::none();
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

/// Where the workers of a process wait for one another before they build the dataflow: one that cannot start would leave the others
/// waiting for ever. One that cannot go on later says so here too.
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
            self.fail();
        }
        self.all.wait();
        prepared.and_then(|own| if self.failed() { Err(RunError::OtherWorker) } else { Ok(own) })
    }

    fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
    }

    fn failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }
}
