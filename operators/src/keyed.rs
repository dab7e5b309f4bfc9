//! `apply_keyed`: the fused keyed operator, from records to decisions and profiles.
//!
//! ```text
//! records ──exchange by key group──▶ ┌─────────────┐ ──▶ decisions
//! chunk facts ──────broadcast──────▶ │ apply_keyed │ ──▶ profiles
//!                                    │             │ ──▶ stage updates, for views
//!                                    └─────────────┘
//! ```
//! Records wait in a stash until the frontier has passed their epoch; then they are applied in the order of (partition, chunk), in which
//! each reader sent them in the order of the log. Without the wait, containers of two readers would interleave and results would
//! differ from run to run. Timers that the global watermark reaches are fired in slices, so that midnight does not stall the epoch.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};

use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        StreamVec,
        channels::pact::{Exchange, Pipeline},
        operators::{
            Capability,
            generic::{OutputBuilder, builder_rc::OperatorBuilder},
            vec::Broadcast,
        },
    },
    progress::frontier::MutableAntichain,
};
use whisperer_schemas::{Epoch, KeyHash, Micros, Row};

use crate::{
    job::CompiledJob,
    keys::{Counts, Keys, Outputs, WARMED},
    record::Record,
    views::StageUpdate,
    watermark::{ChunkFacts, PartitionClocks},
};

/// Keys whose timers are fired, or whose final rows are written, between two turns of the scheduler: some milliseconds of work, so that
/// sinks run in between and the rows that wait for them stay few.
const SLICE_KEYS: usize = 4096;

/// What an instance of the operator tells its worker, besides its rows.
#[derive(Clone, Debug, Default)]
pub struct KeyedReport {
    /// What happened so far; filled once the input has ended.
    pub counts: Counts,
    /// The global watermark.
    pub watermark: Option<Micros>,
    /// Epochs that were applied.
    pub epochs: u64,
}

/// What the keyed operator gives.
pub struct Keyed<'scope> {
    /// Rows of the decisions table.
    pub decisions: StreamVec<'scope, u64, Row>,
    /// Rows of the profiles table.
    pub profiles: StreamVec<'scope, u64, Row>,
    /// What stages keys were in and have come to.
    pub stages: StreamVec<'scope, u64, StageUpdate>,
}

/// The keyed operator on a stream of records.
pub trait ApplyKeyed<'scope> {
    /// Applies records to the states of their keys, and emits rows of the decisions and profiles tables.
    ///
    /// `facts` come from the readers, one per chunk and epoch, and are broadcast here; `partitions` is how many partitions there
    /// are over all workers. The input must be bounded: at its end the remaining timers fire up to the largest event time and every
    /// key writes its final row. `report` is kept up to date.
    ///
    /// ```
    /// use std::{cell::RefCell, rc::Rc, sync::Arc};
    /// use timely::dataflow::operators::{ToStream, capture::{Capture, Event}};
    /// use whisperer_operators::{
    ///     intake::{EventView, Place},
    ///     job::CompiledJob,
    ///     keyed::ApplyKeyed,
    ///     spec::{Aggregate, FeatureSpec, JobSpec, TriggerSpec},
    ///     watermark::ChunkFacts,
    /// };
    ///
    /// let mut spec = JobSpec::default();
    /// spec.features.push(FeatureSpec::new("events", Aggregate::Count));
    /// spec.triggers.push(TriggerSpec::new("second_event", "events >= 2"));
    /// let job = Arc::new(CompiledJob::new(&spec).expect("the job is valid"));
    ///
    /// let decisions = timely::example(move |scope| {
    ///     let event = |event_id, time| EventView {
    ///         event_id, app_id: "app", user_id: "ada", session_id: None, event_type: "user_login", time, fields: &[],
    ///     };
    ///     let records: Vec<_> = [event("a", 10), event("b", 20), event("b", 20)]
    ///         .map(|event| job.intake.record(&event, Place { chunk_time_max: i64::MIN, ..Place::default() }))
    ///         .into();
    ///     let facts = ChunkFacts { partition: 0, chunk: 0, time_max: 20, ended: true };
    ///     let facts = [facts].to_stream(scope);
    ///     records.to_stream(scope).apply_keyed(facts, job, 1, Rc::default()).decisions.capture()
    /// });
    /// let rows: Vec<_> = decisions
    ///     .iter()
    ///     .flat_map(|event| if let Event::Messages(_, rows) = event { rows } else { Vec::new() })
    ///     .collect();
    /// assert_eq!(rows.len(), 1);
    /// assert_eq!(rows[0].values[7].as_text(), Some("b"));
    /// ```
    fn apply_keyed(
        self,
        facts: StreamVec<'scope, u64, ChunkFacts>,
        job: Arc<CompiledJob>,
        partitions: u32,
        report: Rc<RefCell<KeyedReport>>,
    ) -> Keyed<'scope>;
}

impl<'scope> ApplyKeyed<'scope> for StreamVec<'scope, u64, Record> {
    fn apply_keyed(
        self,
        facts: StreamVec<'scope, u64, ChunkFacts>,
        job: Arc<CompiledJob>,
        partitions: u32,
        report: Rc<RefCell<KeyedReport>>,
    ) -> Keyed<'scope> {
        let scope = self.scope();
        let mut builder = OperatorBuilder::new("ApplyKeyed".to_owned(), scope);
        let by_group = Exchange::new(|record: &Record| KeyHash(record.key).group());
        let mut records = builder.new_input(self, by_group);
        let mut facts = builder.new_input(facts.broadcast(), Pipeline);
        let (decisions, decision_stream) = builder.new_output::<Vec<Row>>();
        let (profiles, profile_stream) = builder.new_output::<Vec<Row>>();
        let (stages, stage_stream) = builder.new_output::<Vec<StageUpdate>>();
        let mut decisions = OutputBuilder::<_, CapacityContainerBuilder<Vec<Row>>>::from(decisions);
        let mut profiles = OutputBuilder::<_, CapacityContainerBuilder<Vec<Row>>>::from(profiles);
        let mut stages = OutputBuilder::<_, CapacityContainerBuilder<Vec<StageUpdate>>>::from(stages);
        let activator = scope.activator_for(builder.operator_info().address);
        builder.build(move |capabilities| {
            let mut operator = KeyedOperator::new(job, partitions, report, capabilities);
            move |frontiers: &[MutableAntichain<u64>]| {
                records.for_each(|capability, batch| operator.stash_records(*capability.time(), batch));
                facts.for_each(|capability, batch| operator.stash_facts(*capability.time(), batch));
                let more = operator.step(frontiers);
                if let Some(capabilities) = &operator.capabilities {
                    let (mut decisions, mut profiles) = (decisions.activate(), profiles.activate());
                    let rows = &mut operator.outputs;
                    decisions.session(&capabilities[0]).give_iterator(rows.decisions.drain(..));
                    profiles.session(&capabilities[1]).give_iterator(rows.profiles.drain(..));
                    let (mut stages, epoch) = (stages.activate(), *capabilities[2].time());
                    let updates = rows.stages.drain(..).map(|(stage, diff)| (stage, epoch, diff));
                    stages.session(&capabilities[2]).give_iterator(updates);
                }
                operator.release(frontiers);
                if more {
                    activator.activate();
                }
            }
        });
        Keyed { decisions: decision_stream, profiles: profile_stream, stages: stage_stream }
    }
}

/// What has arrived of an epoch.
#[derive(Default)]
struct Stash {
    /// Runs of records of one chunk each, in the order in which they came.
    runs: Vec<(u32, u32, Vec<Record>)>,
    facts: Vec<ChunkFacts>,
}

/// What is left to do, besides taking in epochs.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// Epochs are taken in as the frontier passes them.
    Epochs,
    /// Timers up to the watermark of the last epoch are being fired.
    Timers,
    /// The input has ended: final rows are being written, from this key on.
    Final(usize),
    /// Nothing is left.
    Done,
}

struct KeyedOperator {
    keys: Keys,
    clocks: PartitionClocks,
    stash: BTreeMap<u64, Stash>,
    outputs: Outputs,
    phase: Phase,
    report: Rc<RefCell<KeyedReport>>,
    /// One for each output, at the epoch that is being worked on; none once all is done.
    capabilities: Option<Vec<Capability<u64>>>,
}

impl KeyedOperator {
    fn new(
        job: Arc<CompiledJob>,
        partitions: u32,
        report: Rc<RefCell<KeyedReport>>,
        capabilities: Vec<Capability<u64>>,
    ) -> KeyedOperator {
        KeyedOperator {
            clocks: PartitionClocks::new(partitions, job.out_of_orderness),
            keys: Keys::new(job),
            stash: BTreeMap::new(),
            outputs: Outputs::default(),
            phase: Phase::Epochs,
            report,
            capabilities: Some(capabilities),
        }
    }

    fn stash_records(&mut self, epoch: u64, batch: &mut Vec<Record>) {
        let runs = &mut self.stash.entry(epoch).or_default().runs;
        let mut rest = std::mem::take(batch);
        // A container comes from one reader and mostly holds one chunk; where it holds more, it is cut.
        while let Some(first) = rest.first() {
            let (partition, chunk) = (first.partition, first.chunk);
            let other = |record: &Record| (record.partition, record.chunk) != (partition, chunk);
            let tail = match rest.iter().position(other) {
                Some(at) => rest.split_off(at),
                None => Vec::new(),
            };
            runs.push((partition, chunk, std::mem::replace(&mut rest, tail)));
        }
    }

    fn stash_facts(&mut self, epoch: u64, batch: &mut Vec<ChunkFacts>) {
        self.stash.entry(epoch).or_default().facts.append(batch);
    }

    /// Does a bounded piece of work; true if there is more that needs no further input.
    fn step(&mut self, frontiers: &[MutableAntichain<u64>]) -> bool {
        if self.phase == Phase::Epochs {
            self.take_epoch(frontiers);
        }
        match self.phase {
            Phase::Timers => self.fire_timers(),
            Phase::Final(from) => self.finish(from),
            Phase::Epochs | Phase::Done => {}
        }
        match self.phase {
            Phase::Epochs => self.ready(frontiers),
            Phase::Timers | Phase::Final(_) => true,
            Phase::Done => false,
        }
    }

    /// Whether an epoch waits that the frontier has passed, or the end has come.
    fn ready(&self, frontiers: &[MutableAntichain<u64>]) -> bool {
        match (frontier(frontiers), self.stash.keys().next()) {
            (None, _) => true,
            (Some(frontier), Some(epoch)) => *epoch < frontier,
            (Some(_), None) => false,
        }
    }

    fn take_epoch(&mut self, frontiers: &[MutableAntichain<u64>]) {
        if !self.ready(frontiers) {
            return;
        }
        let Some((epoch, stash)) = self.stash.pop_first() else {
            self.phase = Phase::Final(0);
            return;
        };
        self.hold(epoch);
        self.apply(epoch, stash);
        self.phase = Phase::Timers;
    }

    fn apply(&mut self, epoch: u64, mut stash: Stash) {
        self.clocks.advance(stash.facts);
        // Stable: runs of one chunk keep the order in which their reader sent them, which is that of the log.
        stash.runs.sort_by_key(|(partition, chunk, _)| (*partition, *chunk));
        for (partition, chunk, run) in &stash.runs {
            let base = self.clocks.base(*partition, *chunk);
            for block in run.chunks(WARMED) {
                self.keys.warm(block);
                for record in block {
                    let pw = self.clocks.pw(base, record.chunk_time_max);
                    self.keys.apply(record, pw, Epoch(epoch), &mut self.outputs);
                }
            }
        }
        self.report.borrow_mut().epochs += 1;
    }

    fn fire_timers(&mut self) {
        let watermark = self.clocks.watermark();
        let epoch = self.epoch();
        let more = self.keys.advance(watermark, SLICE_KEYS, epoch, &mut self.outputs);
        if !more {
            self.phase = Phase::Epochs;
            let mut report = self.report.borrow_mut();
            report.watermark = Some(watermark).filter(|watermark| *watermark != Micros::MIN);
        }
    }

    fn finish(&mut self, from: usize) {
        let watermark = self.clocks.time_max();
        let epoch = self.epoch();
        if self.keys.advance(watermark, SLICE_KEYS, epoch, &mut self.outputs) {
            return;
        }
        let next = self.keys.finish(watermark, (from, SLICE_KEYS), epoch, &mut self.outputs);
        self.phase = next.map_or(Phase::Done, Phase::Final);
        if next.is_none() {
            self.report.borrow_mut().counts = self.keys.counts();
        }
    }

    fn epoch(&self) -> Epoch {
        let capability = self.capabilities.as_ref().and_then(|capabilities| capabilities.first());
        Epoch(capability.map_or(0, |capability| *capability.time()))
    }

    fn hold(&mut self, epoch: u64) {
        for capability in self.capabilities.iter_mut().flatten() {
            if *capability.time() < epoch {
                capability.downgrade(&epoch);
            }
        }
    }

    /// Lets go of the epochs in which nothing can be emitted any more.
    fn release(&mut self, frontiers: &[MutableAntichain<u64>]) {
        match self.phase {
            Phase::Done => self.capabilities = None,
            Phase::Epochs => {
                let waiting = self.stash.keys().next().copied();
                // At the end of the input the last epoch is kept for the final rows.
                if let Some(next) = frontier(frontiers).map(|frontier| waiting.unwrap_or(frontier).min(frontier)) {
                    self.hold(next);
                }
            }
            Phase::Timers | Phase::Final(_) => {}
        }
    }
}

/// The least epoch that may still arrive at any input; none once all have ended.
fn frontier(frontiers: &[MutableAntichain<u64>]) -> Option<u64> {
    frontiers.iter().filter_map(|frontier| frontier.frontier().first().copied()).min()
}
