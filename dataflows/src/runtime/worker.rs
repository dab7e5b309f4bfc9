//! One worker: builds the dataflow, drives it, and takes part in checkpoints.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use timely::{
    dataflow::{
        StreamVec,
        operators::{Inspect, Probe, probe::Handle},
    },
    worker::Worker,
};
use whisperer_connectors::{format::Parser, state::resolve::Retention};
use whisperer_operators::{
    keyed::{ApplyKeyed, KeyedReport, KeyedSetup},
    views::{StageCounts, StageUpdate},
};
use whisperer_schemas::{Epoch, checkpoint::Cut};

use super::{
    News, Run, RunError, Shared, StateSettings, WorkerOutcome,
    checkpoints::{COORDINATOR, Checkpoints, Parts},
    control::{Committed, Control, Message, Start},
    coordinator::{Coordinator, Tools},
    counts,
    filing::{Clock, Cuts, take_over_rows},
    outputs::{Place, WorkerTables},
    reading::{Pace, ReadCounts, Reading, Shared as SharedReading, read_source},
    recovery::{self, Restored},
    tables::WriteTo,
    telling::{Beginning, ReadTelling, Telling},
};
use crate::operations::register_timely_logging;

/// Longest sleep of a worker that has nothing to do; what wakes it is an activation.
const PARKED_MAX: Duration = Duration::from_millis(10);

/// What a worker has prepared before it builds the dataflow.
struct Prepared {
    reading: Reading,
    tables: WorkerTables,
    setup: KeyedSetup,
    full: bool,
    /// The checkpoint that the run goes on from.
    cut: Cut,
}

/// Runs a worker to its end.
pub(super) fn run_worker(worker: &mut Worker, shared: &Shared) -> Result<WorkerOutcome, RunError> {
    pin(&shared.run, worker.index());
    if let Some(operations) = shared.run.operations.as_ref().filter(|operations| operations.is_served()) {
        register_timely_logging(worker, &operations.metrics);
    }
    let outcome = drive(worker, shared);
    if outcome.is_err() {
        // The others would wait for this one for ever.
        shared.ready.fail();
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
        if shared.run.cluster.is_some() {
            leave_cluster(&outcome);
        }
    }
    outcome
}

/// Ends the process: its peers see it go, and end too. There is nothing to be saved that a restart does not find.
fn leave_cluster(outcome: &Result<WorkerOutcome, RunError>) {
    if let Err(error) = outcome
        && !matches!(error, RunError::OtherWorker)
    {
        tracing::error!(error = recovery::chain(error), "this process leaves the cluster");
        std::process::exit(1);
    }
}

fn drive(worker: &mut Worker, shared: &Shared) -> Result<WorkerOutcome, RunError> {
    let run = &shared.run;
    let mut control = Control::new(worker);
    let start = match &run.state {
        Some(_) => Some(await_start(worker, shared, &mut control)?),
        None => None,
    };
    let prepared = prepare(shared, start.as_ref(), worker);
    let prepared = shared.ready.wait(prepared)?;
    shared.loaded();
    match start {
        Some(start) if start.is_done() => Ok(finished(worker, prepared, start)),
        start => Running::build(worker, shared, prepared, (start, control)).drive(worker, shared),
    }
}

/// The outcome of a run that had come to its end, and was ended before all of its outputs were in their places. They are now.
fn finished(worker: &Worker, prepared: Prepared, start: Start) -> WorkerOutcome {
    let Prepared { tables, cut, .. } = prepared;
    WorkerOutcome {
        keyed: KeyedReport::default(),
        stages: Vec::new(),
        read: ReadCounts::default(),
        digests: tables.digests(),
        staged: Vec::new(),
        finished: true,
        name: start.run,
        last: (worker.index() == COORDINATOR).then_some(cut),
        again: false,
    }
}

/// Waits until the coordinator has said what the run starts from.
fn await_start(worker: &mut Worker, shared: &Shared, control: &mut Control) -> Result<Start, RunError> {
    if worker.index() == COORDINATOR
        && let Some(origin) = &shared.origin
    {
        control.broadcast(&Message::Start(origin.start.clone()));
    }
    loop {
        match control.take() {
            Some(Message::Start(start)) => return Ok(start),
            Some(_) => {}
            None if shared.ready.failed() => return Err(RunError::OtherWorker),
            None => drop(worker.step_or_park(Some(PARKED_MAX))),
        }
    }
}

fn prepare(shared: &Shared, start: Option<&Start>, worker: &Worker) -> Result<Prepared, RunError> {
    let run = &shared.run;
    let (index, peers) = (worker.index(), worker.peers());
    let restored = match (&run.state, start) {
        (Some(state), Some(start)) => {
            let loading = start.restored.map(|number| shared.loading(index, number));
            let restored = recovery::restore(run, state, (index, peers), (start, &shared.once))?;
            if let Some(loading) = loading {
                loading.record("keys", restored.setup.keys.len());
            }
            restored
        }
        _ => {
            let mut setup = run.keyed_setup();
            run.make_cold(index, &mut setup.keys)?;
            Restored::from_nothing(setup)
        }
    };
    let Restored { cut, positions, setup, full, removed } = restored;
    if run.source.history() > 0 && setup.clocks.history_ended() {
        run.watermark.end_history();
    }
    let reader = run.source.open(index, peers, &positions)?;
    let parser = Parser::new(run.format.clone(), run.job.intake.clone())?;
    let clock = if run.source.live() { Clock::Epochs(run.epoch_interval) } else { Clock::Wall };
    let fresh = start.is_some_and(|start| start.restored.is_none());
    let cuts = setup.plan.map(|plan| Cuts { plan, fresh, clock });
    let place = Place { worker: index, workers: peers };
    let tables = run.outputs.worker_tables(&run.job, run.tables(), place, (cuts, setup.keys.views_since()))?;
    let deliver_from = start.map_or(run.news.deliver_from, |start| start.deliver_from);
    tables.each[0].tell_news(News { deliver_from, ..run.news });
    if let (Some(state), Some(start)) = (&run.state, start) {
        recovery::recover_sinks(run, (state, start), (index, &tables), &cut)?;
        let matching = recovery::matching(state, start)?;
        take_over_rows(&*state.store, &cut, (index, peers), (&tables, &matching))?;
        tables.remove(&recovery::removals(run, start, (index, peers), (&removed, &cut)))?;
    }
    let pace = Pace {
        live: run.source.live().then_some(run.epoch_interval),
        first: setup.plan.map_or(0, |plan| plan.after + 1),
        plan: setup.plan,
    };
    let read_before = if index == 0 { counts::read(&cut.counts) } else { ReadCounts::default() };
    let telling = ReadTelling::new(run, &read_before);
    let mut reading = Reading::new(reader, parser, run.progress.clone(), (pace, read_before)).until(run.history_until);
    if let (Some(state), Some(start)) = (&run.state, start) {
        reading.leave_out(recovery::suppressed(state, start)?);
    }
    reading.tell(telling);
    Ok(Prepared { reading, tables, setup, full, cut })
}

/// A worker at work.
struct Running {
    control: Control,
    tables: WorkerTables,
    probe: Handle<u64>,
    reading: SharedReading,
    keyed: Rc<RefCell<KeyedReport>>,
    stages: Rc<RefCell<Vec<i64>>>,
    stopping: Rc<Cell<bool>>,
    checkpoints: Option<Checkpoints>,
    coordinator: Option<Coordinator>,
    /// The last checkpoint was committed, and the run ends with it.
    last: bool,
    stop_requested: bool,
    /// Whether the run ends to start again.
    again: bool,
    finished: bool,
    /// What names the run in its files.
    name: String,
    telling: Option<Telling>,
}

impl Running {
    fn build(
        worker: &mut Worker,
        shared: &Shared,
        prepared: Prepared,
        (start, control): (Option<Start>, Control),
    ) -> Running {
        let run = &shared.run;
        let Prepared { reading, tables, setup, full, cut: _ } = prepared;
        let probe = Handle::new();
        let shared_reading = reading.shared();
        let keyed = setup.report.clone();
        let cuts = setup.cuts.clone();
        let stopping = setup.stopping.clone();
        let stages = Rc::new(RefCell::new(vec![0; run.job.stage_names.len()]));
        let index = worker.index();
        let beginning = Beginning { worker: index, epoch: shared_reading.epoch(), counts: setup.keys.numbers() };
        let telling = Telling::new(run, &beginning);
        worker.dataflow::<u64, _, _>(|scope| {
            let streams = read_source(scope, reading, probe.clone());
            let keyed = streams.records.apply_keyed(streams.facts, setup);
            follow_stages(keyed.stages, stages.clone(), &probe);
            let [decisions, profiles, dead_letters] = &tables.each;
            keyed.decisions.write_to(decisions, tables.gathered, &probe);
            keyed.profiles.write_to(profiles, false, &probe);
            streams.dead_letters.write_to(dead_letters, false, &probe);
            tables.changes.follow(keyed.facts, keyed.texts, &probe);
        });
        let name = start.as_ref().map_or_else(|| run.name.clone(), |start| start.run.clone());
        let checkpoints = run.state.as_ref().zip(start).map(|(state, start)| {
            let parts = Parts {
                job: run.job.clone(),
                worker: index,
                coordinates_elsewhere: shared.origin.is_none(),
                generation: start.generation,
                number: start.claim + 1,
                store: state.store.clone(),
                full,
                keyed: cuts,
                reading: shared_reading.clone(),
                stages: stages.clone(),
                probe: probe.clone(),
                operations: run.operations.clone(),
                spans: run.spans(),
            };
            Checkpoints::new(parts, &tables)
        });
        let coordinator = run.state.as_ref().and_then(|state| coordinator(worker, shared, state));
        Running {
            control,
            tables,
            probe,
            reading: shared_reading,
            keyed,
            stages,
            stopping,
            checkpoints,
            coordinator,
            last: false,
            stop_requested: false,
            again: false,
            finished: false,
            name,
            telling,
        }
    }

    fn drive(mut self, worker: &mut Worker, shared: &Shared) -> Result<WorkerOutcome, RunError> {
        self.telling.iter().for_each(Telling::begin);
        while !self.is_done() {
            worker.step_or_park(Some(PARKED_MAX));
            self.turn(shared)?;
            if let Some(telling) = &mut self.telling {
                telling.turn(self.reading.epoch(), &self.probe, &self.keyed.borrow());
            }
        }
        if let Some(telling) = self.telling.take() {
            telling.finish(&self.keyed.borrow());
        }
        self.finish(shared)
    }

    /// With checkpoints the last commit is the end; without, the dataflow's end is.
    fn is_done(&self) -> bool {
        self.probe.done() && (self.last || self.checkpoints.is_none())
    }

    fn turn(&mut self, shared: &Shared) -> Result<(), RunError> {
        self.check(shared)?;
        if let KeyedReport { applied: Some(epoch), watermark, history_ended, .. } = &*self.keyed.borrow() {
            watermark.iter().for_each(|watermark| shared.run.watermark.set(Epoch(*epoch), *watermark));
            if *history_ended {
                shared.run.watermark.end_history();
            }
        }
        self.heed_stop(shared);
        // Before cuts are taken: whether one is the last is told before it can come.
        while let Some(message) = self.control.take() {
            self.receive(message)?;
        }
        if let Some(checkpoints) = &mut self.checkpoints {
            self.telling.iter().for_each(Telling::wait_for_sinks);
            checkpoints.turn(&self.tables, &mut self.control)?;
        }
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.turn(&mut self.control)?;
            if coordinator.is_asked_to_erase()
                && let Some(stop) = coordinator.stop(self.reading.stop_epoch(), true)
            {
                tracing::info!("an erasure is asked for: the job takes a checkpoint and starts again");
                self.control.broadcast(&stop);
            }
        }
        Ok(())
    }

    /// Looks whether something has failed.
    fn check(&mut self, shared: &Shared) -> Result<(), RunError> {
        if let Some(error) = self.reading.take_failure() {
            return Err(error.into());
        }
        if let Some(error) = self.keyed.borrow_mut().failed.take() {
            return Err(error.into());
        }
        for (_, table) in self.tables.all() {
            if let Some(error) = table.take_failure() {
                return Err(error.into());
            }
        }
        if shared.ready.failed() { Err(RunError::OtherWorker) } else { Ok(()) }
    }

    /// Passes on a wish from outside to stop.
    fn heed_stop(&mut self, shared: &Shared) {
        if self.stop_requested || !shared.run.stop.requested() {
            return;
        }
        self.stop_requested = true;
        self.telling.iter().for_each(Telling::stop);
        if self.checkpoints.is_some() {
            self.control.send(COORDINATOR, &Message::StopRequest);
        } else {
            self.end_stream();
        }
    }

    /// Ends the input without ending the job.
    fn end_stream(&self) {
        self.stopping.set(true);
        self.reading.end();
    }

    fn receive(&mut self, message: Message) -> Result<(), RunError> {
        match message {
            Message::Start(_) => {}
            Message::Ack(ack) => {
                if let Some(coordinator) = &mut self.coordinator {
                    coordinator.acknowledge(*ack)?;
                }
            }
            Message::Committed(committed) => self.commit(committed)?,
            Message::Published { worker, number } => {
                if let Some(coordinator) = &mut self.coordinator {
                    coordinator.published(worker, number);
                }
            }
            Message::StopRequest => {
                let epoch = self.reading.stop_epoch();
                let stop = self.coordinator.as_mut().and_then(|coordinator| coordinator.stop(epoch, false));
                if let Some(stop) = stop {
                    self.control.broadcast(&stop);
                }
            }
            Message::Stop { epoch, again } => {
                self.again = again;
                self.telling.iter().for_each(Telling::stop);
                self.checkpoints.iter_mut().for_each(|checkpoints| checkpoints.stop_at(epoch));
                self.reading.stop_at(epoch);
            }
        }
        Ok(())
    }

    fn commit(&mut self, committed: Committed) -> Result<(), RunError> {
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.committed(committed, &self.tables)?;
        }
        if committed.last {
            self.last = true;
            self.again |= committed.again;
            self.finished = !self.stopping.get() && self.probe.done();
            self.end_stream();
        }
        Ok(())
    }

    fn finish(self, shared: &Shared) -> Result<WorkerOutcome, RunError> {
        let Running { tables, checkpoints, coordinator, keyed, stages, name, again, .. } = self;
        let finished = if checkpoints.is_some() { self.finished } else { !self.stopping.get() };
        let mut staged = Vec::new();
        let mut last = None;
        match checkpoints {
            Some(checkpoints) => checkpoints.finish()?,
            None => {
                let (epoch, watermark) = (keyed.borrow().applied.unwrap_or_default(), keyed.borrow().watermark);
                tables.write_views(epoch, watermark);
                for (_, table) in tables.all() {
                    staged.extend(table.stage(&shared.run.progress.facts())?);
                }
            }
        }
        if let Some(coordinator) = coordinator {
            last = Some(coordinator.finish()?);
        }
        let stages = stages.borrow().clone();
        let digests = tables.digests();
        let keyed = std::mem::take(&mut *keyed.borrow_mut());
        let read = self.reading.counts();
        Ok(WorkerOutcome { keyed, stages, read, digests, staged, finished, name, last, again })
    }
}

fn coordinator(worker: &Worker, shared: &Shared, state: &StateSettings) -> Option<Coordinator> {
    let origin = shared.origin.clone().filter(|_| worker.index() == COORDINATOR)?;
    let lakes = shared.run.outputs.lakes().map(|lake| (lake.root().to_owned(), lake.clone()));
    let tools = Tools {
        store: state.store.clone(),
        lakes: lakes.collect::<BTreeMap<_, _>>(),
        // A job that had ended goes on to forget somebody: nothing comes after that.
        retention: if origin.start.finished { Retention::LAST } else { state.retention },
        workers: worker.peers(),
        outboxes: shared.run.outputs.has_outboxes(),
        operations: shared.run.operations.clone(),
        spans: shared.run.spans(),
    };
    Some(Coordinator::new(origin, tools))
}

/// Keeps the counts of keys by stage as the view of them changes.
fn follow_stages(updates: StreamVec<'_, u64, StageUpdate>, counts: Rc<RefCell<Vec<i64>>>, probe: &Handle<u64>) {
    let follow = move |((stage, keys), _, diff): &((u16, isize), u64, isize)| {
        counts.borrow_mut()[usize::from(*stage)] += (keys * diff) as i64;
    };
    updates.stage_counts().inner.inspect(follow).probe_with(probe);
}

/// Keeps the worker on a core of its own. Kernels of small machines like to pack threads that are not pinned onto one core.
fn pin(run: &Run, worker: usize) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let own = worker % run.workers;
    if run.pin && run.workers <= cores.len() {
        core_affinity::set_for_current(cores[own]);
    }
}
