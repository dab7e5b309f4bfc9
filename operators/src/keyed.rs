//! `apply_keyed`: the fused keyed operator, from records to decisions and profiles.
//!
//! ```text
//! records ──exchange by key group──▶ ┌─────────────┐ ──▶ decisions
//! chunk facts ──────broadcast──────▶ │ apply_keyed │ ──▶ profiles
//!                                    │             │ ──▶ stage updates, facts and their texts, for views
//!                                    └─────────────┘
//! ```
//! Records wait in a stash until the frontier has passed their epoch; then they are applied in the order of (partition, chunk), in which
//! each reader sent them in the order of the log. Without the wait, containers of two readers would interleave and results would
//! differ from run to run. Timers that the global watermark reaches are fired in slices, so that midnight does not stall the epoch.
//!
//! **Cuts.** With a [`CutPlan`], the operator takes a cut at every multiple of its interval: after the last record and timer of that epoch,
//! before the first of a later one. What it puts out up to a cut carries epochs up to it, so everything downstream can cut at the same place.
//! The changed states are encoded in slices between epochs ([`crate::keys`]) and collected from [`KeyedSetup::cuts`].

mod cuts;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::Arc,
};

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
use whisperer_schemas::{Epoch, KeyHash, Micros, Row, erasure::Noted};

use crate::{
    job::CompiledJob,
    keys::{ColdFailed, Counts, Keys, Outputs, WARMED},
    record::Record,
    views::{Fact, FactUpdate, StageUpdate, TextUpdate},
    watermark::{ChunkFacts, PartitionClocks},
};

pub use cuts::{CutPlan, KeyedCut};

/// Keys whose timers are fired, or whose final rows are written, between two turns of the scheduler: a millisecond of work, so that
/// sinks run in between, and find the rows that wait for them in the cache.
const SLICE_KEYS: usize = 1024;

/// States that are encoded for a cut between two turns of the scheduler: under a millisecond of work.
const SLICE_STATES: usize = 2048;

/// What an instance of the operator tells its worker, besides its rows.
#[derive(Debug, Default)]
pub struct KeyedReport {
    /// What happened so far; the numbers of keys and bytes are about right until the input has ended, and exact then.
    pub counts: Counts,
    /// The global watermark.
    pub watermark: Option<Micros>,
    /// Whether no partition of history goes on.
    pub history_ended: bool,
    /// Epochs that were applied.
    pub epochs: u64,
    /// The last of them.
    pub applied: Option<u64>,
    /// Why the operator cannot go on; the run has to end then.
    pub failed: Option<ColdFailed>,
    /// Erasures that events asked for and no cut holds.
    pub noted: Vec<Noted>,
}

/// What an instance of the operator starts with, and what it shares with its worker.
pub struct KeyedSetup {
    /// The job.
    pub job: Arc<CompiledJob>,
    /// The keys, restored ones included.
    pub keys: Keys,
    /// The clocks of all partitions.
    pub clocks: PartitionClocks,
    /// What is put out before the first record: the stages of restored keys, and their facts, with the epoch of the cut that they stand in.
    pub outputs: Outputs,
    /// What erasures take back of it, after it.
    pub taken_back: Vec<(Fact, isize)>,
    /// Whether everything that the end of the input brings is out already: the run is about something else.
    pub settled: bool,
    /// When cuts are taken; never where there is no plan.
    pub plan: Option<CutPlan>,
    /// Where cuts go, oldest first; the worker takes them when their states are there.
    pub cuts: Rc<RefCell<VecDeque<KeyedCut>>>,
    /// Whether the end of the input is no end of the job: no timers up to the last watermark, no final rows.
    pub stopping: Rc<Cell<bool>>,
    /// Kept up to date.
    pub report: Rc<RefCell<KeyedReport>>,
}

impl KeyedSetup {
    /// A start from nothing, without cuts; `partitions` is how many partitions there are over all workers.
    #[must_use]
    pub fn new(job: Arc<CompiledJob>, partitions: u32) -> KeyedSetup {
        KeyedSetup {
            keys: Keys::new(job.clone()),
            clocks: PartitionClocks::new(partitions, job.out_of_orderness),
            outputs: Outputs::default(),
            taken_back: Vec::new(),
            settled: false,
            plan: None,
            cuts: Rc::default(),
            stopping: Rc::default(),
            report: Rc::default(),
            job,
        }
    }
}

/// What the keyed operator gives.
pub struct Keyed<'scope> {
    /// Rows of the decisions table.
    pub decisions: StreamVec<'scope, u64, Row>,
    /// Rows of the profiles table.
    pub profiles: StreamVec<'scope, u64, Row>,
    /// What stages keys were in and have come to.
    pub stages: StreamVec<'scope, u64, StageUpdate>,
    /// What keys add to views, and take back.
    pub facts: StreamVec<'scope, u64, FactUpdate>,
    /// The texts that stand in facts as hashes, each before or with its first fact of this worker.
    pub texts: StreamVec<'scope, u64, TextUpdate>,
}

/// The keyed operator on a stream of records.
pub trait ApplyKeyed<'scope> {
    /// Applies records to the states of their keys, and emits rows of the decisions and profiles tables.
    ///
    /// `facts` come from the readers, one per chunk and epoch, and are broadcast here. At the end of a bounded input the remaining timers
    /// fire up to the largest event time and every key writes its final row.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use timely::dataflow::operators::{ToStream, capture::{Capture, Event}};
    /// use whisperer_operators::{
    ///     intake::{EventView, Place},
    ///     job::CompiledJob,
    ///     keyed::{ApplyKeyed, KeyedSetup},
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
    ///     records.to_stream(scope).apply_keyed(facts, KeyedSetup::new(job, 1)).decisions.capture()
    /// });
    /// let rows: Vec<_> = decisions
    ///     .iter()
    ///     .flat_map(|event| if let Event::Messages(_, rows) = event { rows } else { Vec::new() })
    ///     .collect();
    /// assert_eq!(rows.len(), 1);
    /// assert_eq!(rows[0].values[7].as_text(), Some("b"));
    /// ```
    fn apply_keyed(self, facts: StreamVec<'scope, u64, ChunkFacts>, setup: KeyedSetup) -> Keyed<'scope>;
}

impl<'scope> ApplyKeyed<'scope> for StreamVec<'scope, u64, Record> {
    fn apply_keyed(self, facts: StreamVec<'scope, u64, ChunkFacts>, setup: KeyedSetup) -> Keyed<'scope> {
        let scope = self.scope();
        let mut builder = OperatorBuilder::new("ApplyKeyed".to_owned(), scope);
        let by_group = Exchange::new(|record: &Record| KeyHash(record.key).group());
        let mut records = builder.new_input(self, by_group);
        let mut facts = builder.new_input(facts.broadcast(), Pipeline);
        let (decisions, decision_stream) = builder.new_output::<Vec<Row>>();
        let (profiles, profile_stream) = builder.new_output::<Vec<Row>>();
        let (stages, stage_stream) = builder.new_output::<Vec<StageUpdate>>();
        let (facts_out, fact_stream) = builder.new_output::<Vec<FactUpdate>>();
        let (texts, text_stream) = builder.new_output::<Vec<TextUpdate>>();
        let mut facts_out = OutputBuilder::<_, CapacityContainerBuilder<Vec<FactUpdate>>>::from(facts_out);
        let mut texts = OutputBuilder::<_, CapacityContainerBuilder<Vec<TextUpdate>>>::from(texts);
        let mut decisions = OutputBuilder::<_, CapacityContainerBuilder<Vec<Row>>>::from(decisions);
        let mut profiles = OutputBuilder::<_, CapacityContainerBuilder<Vec<Row>>>::from(profiles);
        let mut stages = OutputBuilder::<_, CapacityContainerBuilder<Vec<StageUpdate>>>::from(stages);
        let activator = scope.activator_for(builder.operator_info().address);
        builder.build(move |capabilities| {
            let mut operator = KeyedOperator::new(setup, capabilities);
            move |frontiers: &[MutableAntichain<u64>]| {
                if let (Some((epoch, restored)), Some(capabilities)) = (operator.restored(), &operator.capabilities) {
                    let restored = restored.into_iter().map(|(fact, diff)| (fact, epoch, diff));
                    facts_out.activate().session(&capabilities[3].delayed(&epoch)).give_iterator(restored);
                    let taken_back = std::mem::take(&mut operator.taken_back);
                    let taken_back = taken_back.into_iter().map(|(fact, diff)| (fact, epoch + 1, diff));
                    facts_out.activate().session(&capabilities[3].delayed(&(epoch + 1))).give_iterator(taken_back);
                }
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
                    let updates = rows.facts.drain(..).map(|(fact, diff)| (fact, epoch, diff));
                    facts_out.activate().session(&capabilities[3]).give_iterator(updates);
                    texts.activate().session(&capabilities[4]).give_iterator(rows.texts.drain(..));
                }
                operator.release(frontiers);
                if more {
                    activator.activate();
                }
            }
        });
        Keyed {
            decisions: decision_stream,
            profiles: profile_stream,
            stages: stage_stream,
            facts: fact_stream,
            texts: text_stream,
        }
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
    /// The input has ended: final rows of the keys in memory are being written, from this place on.
    Final(usize),
    /// The same of the keys that are not in memory, after this key.
    FinalCold(Option<KeyHash>),
    /// The last cut is being encoded.
    LastCut,
    /// Nothing is left.
    Done,
}

struct KeyedOperator {
    keys: Keys,
    clocks: PartitionClocks,
    stash: BTreeMap<u64, Stash>,
    outputs: Outputs,
    phase: Phase,
    plan: Option<CutPlan>,
    /// The epoch of the last cut.
    cut: u64,
    /// The last epoch that was applied.
    applied: u64,
    /// What restored keys add to views, until it is said.
    restored: Option<Vec<(Fact, isize)>>,
    /// What erasures take back of that.
    taken_back: Vec<(Fact, isize)>,
    settled: bool,
    /// Whether the newest cut waits for its states.
    encoding: bool,
    cuts: Rc<RefCell<VecDeque<KeyedCut>>>,
    stopping: Rc<Cell<bool>>,
    report: Rc<RefCell<KeyedReport>>,
    /// Keys to be fetched; kept for its room.
    wanted: Vec<KeyHash>,
    /// One for each output, at the epoch that is being worked on; none once all is done.
    capabilities: Option<Vec<Capability<u64>>>,
}

impl KeyedOperator {
    fn new(mut setup: KeyedSetup, capabilities: Vec<Capability<u64>>) -> KeyedOperator {
        KeyedOperator {
            restored: Some(std::mem::take(&mut setup.outputs.facts)),
            taken_back: setup.taken_back,
            settled: setup.settled,
            clocks: setup.clocks,
            keys: setup.keys,
            stash: BTreeMap::new(),
            outputs: setup.outputs,
            phase: Phase::Epochs,
            plan: setup.plan,
            cut: setup.plan.map_or(0, |plan| plan.after),
            applied: 0,
            encoding: false,
            cuts: setup.cuts,
            stopping: setup.stopping,
            report: setup.report,
            wanted: Vec::new(),
            capabilities: Some(capabilities),
        }
    }

    /// The facts of restored keys, once: they were so at the cut already.
    fn restored(&mut self) -> Option<(u64, Vec<(Fact, isize)>)> {
        let facts = self.restored.take()?;
        Some((self.cut, facts))
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
        match self.work(frontiers) {
            Ok(more) => more,
            Err(failed) => {
                // The capabilities stay: no cut is complete after this one.
                self.report.borrow_mut().failed = Some(failed);
                false
            }
        }
    }

    fn work(&mut self, frontiers: &[MutableAntichain<u64>]) -> Result<bool, ColdFailed> {
        self.encode_cut(SLICE_STATES)?;
        if self.phase == Phase::Epochs {
            match self.due_cut(frontiers) {
                Some(epoch) => self.begin_cut(epoch, false)?,
                None => self.take_epoch(frontiers)?,
            }
        }
        match self.phase {
            Phase::Timers => self.fire_timers()?,
            Phase::Final(from) => self.finish(from)?,
            Phase::FinalCold(after) => self.finish_cold(after)?,
            Phase::LastCut if !self.encoding => self.phase = Phase::Done,
            Phase::Epochs | Phase::LastCut | Phase::Done => {}
        }
        Ok(match self.phase {
            Phase::Epochs => self.encoding || self.due_cut(frontiers).is_some() || self.ready(frontiers),
            Phase::Timers | Phase::Final(_) | Phase::FinalCold(_) | Phase::LastCut => true,
            Phase::Done => false,
        })
    }

    /// The epoch at which the next cut is to be taken now: the frontier has passed it, and everything up to it is applied.
    fn due_cut(&self, frontiers: &[MutableAntichain<u64>]) -> Option<u64> {
        let next = self.plan?.next_after(self.cut);
        let applied = self.stash.keys().next().is_none_or(|epoch| *epoch > next);
        // Once the input has ended, cuts go as far as there were epochs: every worker has seen the same ones, whatever it saw of the
        // frontier on its way to the end.
        let last = self.stash.keys().next_back().copied().unwrap_or_default().max(self.applied);
        let passed = frontier(frontiers).map_or(next <= last, |frontier| frontier > next);
        (applied && passed).then_some(next)
    }

    fn begin_cut(&mut self, epoch: u64, last: bool) -> Result<(), ColdFailed> {
        if let (Some(states), Some(cut)) = (self.keys.begin_cut()?, self.cuts.borrow_mut().back_mut()) {
            cut.states = Some(states);
        }
        self.cut = epoch;
        self.encoding = true;
        let counts = if last { self.keys.counts() } else { self.keys.numbers().clone() };
        let (clocks, layout) = (self.clocks.clone(), self.keys.layout());
        let noted = std::mem::take(&mut self.report.borrow_mut().noted);
        self.cuts.borrow_mut().push_back(KeyedCut { epoch, clocks, counts, layout, states: None, last, noted });
        Ok(())
    }

    fn encode_cut(&mut self, limit: usize) -> Result<(), ColdFailed> {
        if self.encoding
            && let Some(states) = self.keys.encode_cut(limit)?
        {
            if let Some(cut) = self.cuts.borrow_mut().back_mut() {
                cut.states = Some(states);
            }
            self.encoding = false;
        }
        Ok(())
    }

    /// Whether an epoch waits that the frontier has passed, or the end has come.
    fn ready(&self, frontiers: &[MutableAntichain<u64>]) -> bool {
        match (frontier(frontiers), self.stash.keys().next()) {
            (None, _) => true,
            (Some(frontier), Some(epoch)) => *epoch < frontier,
            (Some(_), None) => false,
        }
    }

    fn take_epoch(&mut self, frontiers: &[MutableAntichain<u64>]) -> Result<(), ColdFailed> {
        if !self.ready(frontiers) {
            return Ok(());
        }
        let Some((epoch, stash)) = self.stash.pop_first() else {
            return self.end_input();
        };
        self.hold(epoch);
        self.fetch(&stash)?;
        self.apply(epoch, stash);
        self.keys.shrink()?;
        self.phase = Phase::Timers;
        Ok(())
    }

    /// The input has ended. What the end brings is put out after a cut from which it can be brought about again.
    fn end_input(&mut self) -> Result<(), ColdFailed> {
        if self.stopping.get() {
            self.phase = Phase::Done;
            self.report.borrow_mut().counts = self.keys.counts();
            return Ok(());
        }
        if let Some(plan) = self.plan.filter(|_| self.settled) {
            self.begin_cut(plan.next_after(self.cut.max(self.applied)), true)?;
            self.report.borrow_mut().counts = self.keys.counts();
            self.phase = Phase::LastCut;
            return Ok(());
        }
        if let Some(plan) = self.plan {
            let epoch = plan.next_after(self.cut.max(self.applied));
            self.begin_cut(epoch, false)?;
            self.hold(epoch + 1);
        }
        self.phase = Phase::Final(0);
        Ok(())
    }

    /// Brings back the states that the records of an epoch need.
    fn fetch(&mut self, stash: &Stash) -> Result<(), ColdFailed> {
        if !self.keys.may_be_cold() {
            return Ok(());
        }
        let records = stash.runs.iter().flat_map(|(_, _, run)| run);
        let (keys, wanted) = (&self.keys, &mut self.wanted);
        wanted.clear();
        wanted.extend(records.map(|record| KeyHash(record.key)).filter(|key| !keys.is_hot(key.0)));
        wanted.sort_unstable();
        wanted.dedup();
        self.keys.fetch(&self.wanted)
    }

    fn apply(&mut self, epoch: u64, mut stash: Stash) {
        self.applied = epoch;
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
        self.keys.say_parts(&mut self.outputs);
        let mut report = self.report.borrow_mut();
        report.epochs += 1;
        report.applied = Some(epoch);
        report.history_ended = self.clocks.history_ended();
        report.noted.append(&mut self.outputs.noted);
        report.counts.clone_from(self.keys.numbers());
        self.keys.survey(&mut report.counts);
    }

    /// Fires a slice of the timers due at or before the watermark; true if there may be more.
    fn advance(&mut self, watermark: Micros) -> Result<bool, ColdFailed> {
        let epoch = self.epoch();
        let more_cold = self.keys.fetch_due(watermark)?;
        let more = self.keys.advance(watermark, SLICE_KEYS, epoch, &mut self.outputs);
        if !more {
            self.keys.shrink()?;
        }
        Ok(more || more_cold)
    }

    fn fire_timers(&mut self) -> Result<(), ColdFailed> {
        let watermark = self.clocks.watermark();
        if !self.advance(watermark)? {
            self.phase = Phase::Epochs;
            let mut report = self.report.borrow_mut();
            report.watermark = Some(watermark).filter(|watermark| *watermark != Micros::MIN);
        }
        Ok(())
    }

    fn finish(&mut self, from: usize) -> Result<(), ColdFailed> {
        let watermark = self.clocks.time_max();
        // Firing moves states between memory and disk: all timers come first.
        if from == 0 && self.advance(watermark)? {
            return Ok(());
        }
        let epoch = self.epoch();
        let next = self.keys.finish(watermark, (from, SLICE_KEYS), epoch, &mut self.outputs);
        self.phase = next.map_or(Phase::FinalCold(None), Phase::Final);
        Ok(())
    }

    fn finish_cold(&mut self, after: Option<KeyHash>) -> Result<(), ColdFailed> {
        let (watermark, epoch) = (self.clocks.time_max(), self.epoch());
        let next = self.keys.finish_cold(watermark, (after, SLICE_KEYS), epoch, &mut self.outputs)?;
        if next.is_some() {
            self.phase = Phase::FinalCold(next);
            return Ok(());
        }
        self.report.borrow_mut().counts = self.keys.counts();
        self.phase = Phase::Done;
        if let Some(plan) = self.plan {
            self.begin_cut(plan.next_after(self.cut), true)?;
            self.phase = Phase::LastCut;
        }
        Ok(())
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
            Phase::Timers | Phase::Final(_) | Phase::FinalCold(_) | Phase::LastCut => {}
        }
    }
}

/// The least epoch that may still arrive at any input; none once all have ended.
fn frontier(frontiers: &[MutableAntichain<u64>]) -> Option<u64> {
    frontiers.iter().filter_map(|frontier| frontier.frontier().first().copied()).min()
}
