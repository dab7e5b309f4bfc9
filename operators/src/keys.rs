//! The keys of one worker: their states, and what records and time do to them.
//!
//! ```text
//! record ─▶ timers due ≤ pw ─▶ duplicate? ─▶ late? ─┬─ no ─▶ timers due ≤ t ─▶ apply ─▶ evaluate
//!                                                   └─ yes ─▶ apply
//! ```
//! The order above is the contract (docs/semantics.md, "When conditions are looked at"): a key's timers come before whatever is
//! done to the record. Since the global watermark never exceeds the `pw` of a later record, [`Keys::advance`] may fire timers at
//! any moment, or never.

mod codec;
mod cold;
mod counts;
mod cuts;
mod engine;
mod erasure;
mod expiry;
mod links;
mod parts;
mod restore;
mod state;
mod survey;
mod views;

use std::{collections::BTreeMap, sync::Arc};

use hashbrown::{HashMap, HashTable};
use whisperer_schemas::{
    Epoch, KeyHash, Micros, Row,
    erasure::{Erasures, Noted},
    time::HOUR,
};

use crate::{
    cells::Touch,
    evaluate::Values,
    interner::Interner,
    job::CompiledJob,
    memo::Outcome,
    record::{LaneMask, Record},
    rows::{self, Cause, Moment},
    views::{Fact, TextUpdate},
    wheel::Wheel,
};

pub use cold::ColdFailed;
pub use counts::Counts;
pub use cuts::EncodedStates;
pub use erasure::Removed;
pub use restore::{RestoreError, Restoring};
pub use state::KeyState;
pub use views::CHANGES_MAX;

pub(crate) use codec::decode_cells;
pub(crate) use engine::Engine;

use cold::Cold;
use cuts::Cuts;
use links::Links;
use parts::Parts;
use survey::Survey;
use views::Told;

/// States per block: the list of blocks grows, a block never moves.
const BLOCK: usize = 1 << 12;

/// Keys whose states are loaded together before they are worked on: enough to overlap the waits, few enough to stay in the cache.
pub const WARMED: usize = 16;

/// How often, by its clock, a key is rid of what no window holds any more.
const EXPIRED_EVERY: Micros = 6 * HOUR;

/// What one worker made of its records.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Rows of the decisions table.
    pub decisions: Vec<Row>,
    /// Rows of the profiles table.
    pub profiles: Vec<Row>,
    /// Keys that entered (1) or left (-1) a stage, as the job numbers stages; none where the job has no stages.
    pub stages: Vec<(u16, isize)>,
    /// What keys add to views from now on (1), and what they do not any more (-1); none where the job has no views.
    pub facts: Vec<(Fact, isize)>,
    /// Texts that stand as hashes in those.
    pub texts: Vec<TextUpdate>,
    /// Erasures that events asked for.
    pub noted: Vec<Noted>,
}

/// The keys of one worker.
#[derive(Debug)]
pub struct Keys {
    job: Arc<CompiledJob>,
    index: HashTable<u32>,
    blocks: Vec<Vec<KeyState>>,
    wheel: Wheel,
    /// Timers that are about to fire; kept for its room.
    due: Vec<(Micros, u32)>,
    engine: Engine,
    /// Places in the blocks that hold no state.
    free: Vec<u32>,
    /// What checkpoints need; none where there are no checkpoints.
    cuts: Option<Cuts>,
    /// What is not in memory; none where everything is.
    cold: Option<Cold>,
    survey: Survey,
    /// What keys at work have said that they hold; nothing where no view asks.
    parts: Parts,
    /// For each view, the epoch of the cut with which a change of the job began it anew.
    views_since: Vec<u64>,
    /// Whose events are suppressed.
    erasures: Erasures,
    /// What stands before these positions is in the restored states.
    restored_at: BTreeMap<u32, u64>,
    /// For each view, whether it begins anew.
    beginning: Vec<bool>,
    /// Restored keys whose states an erasure covers.
    doomed: Vec<KeyHash>,
}

impl Keys {
    /// No keys yet.
    #[must_use]
    pub fn new(job: Arc<CompiledJob>) -> Keys {
        let counts = Counts {
            decisions: vec![0; job.triggers.len()],
            suppressed: vec![0; job.triggers.len()],
            ..Counts::default()
        };
        let engine = Engine {
            values: Values::new(&job),
            texts: Interner::default(),
            apps: Interner::default(),
            silent: 0,
            warming: Vec::new(),
            starts: Vec::new(),
            kept_starts: HashMap::new(),
            told: Told::default(),
            links: Links::default(),
            counts,
        };
        let views_since = vec![0; job.views.each.len()];
        Keys {
            job,
            index: HashTable::new(),
            blocks: Vec::new(),
            wheel: Wheel::default(),
            due: Vec::new(),
            engine,
            free: Vec::new(),
            cuts: None,
            cold: None,
            survey: Survey::default(),
            parts: Parts::default(),
            views_since,
            erasures: Erasures::default(),
            restored_at: BTreeMap::new(),
            beginning: Vec::new(),
            doomed: Vec::new(),
        }
    }

    /// Takes a record of which the partition's watermark from earlier offsets is `pw`.
    pub fn apply(&mut self, record: &Record, pw: Micros, epoch: Epoch, outputs: &mut Outputs) {
        if (record.erases || !self.erasures.is_empty()) && self.erase(record, epoch, outputs) {
            return;
        }
        let at = self.find_or_insert(record, outputs);
        let state = &mut self.blocks[at as usize / BLOCK][at as usize % BLOCK];
        if let Some(cuts) = &mut self.cuts {
            cuts.touch(&self.job, &self.engine, state, at);
        }
        state.used = true;
        let entry = state.due;
        let before = self.cold.as_ref().map_or(0, |_| state.hot_bytes());
        let mut turn = Turn { job: &self.job, engine: &mut self.engine, state, at, epoch, outputs, found: false };
        self.parts.note(&mut turn);
        turn.record(record, pw);
        enter(&mut self.wheel, entry, state, at);
        if let Some(cold) = &mut self.cold {
            cold.hot_bytes = (cold.hot_bytes + state.hot_bytes()).saturating_sub(before);
        }
    }

    /// Loads what the next records will need into the caches: their states and the beginnings of their cells. Records of different
    /// keys do not depend on one another, so the loads of a whole block overlap where one by one each would be waited for.
    pub fn warm(&self, records: &[Record]) {
        let mut seen = 0;
        for record in records {
            let same = |at: &u32| self.state(*at).key.0 == record.key;
            if let Some(at) = self.index.find(record.key as u64, same) {
                seen ^= self.state(*at).first_word();
            }
        }
        std::hint::black_box(seen);
    }

    /// Fires timers due at or before the watermark, at most `limit` keys of them; true if there may be more.
    pub fn advance(&mut self, watermark: Micros, limit: usize, epoch: Epoch, outputs: &mut Outputs) -> bool {
        self.engine.links.pass(watermark, outputs);
        let mut entries = std::mem::take(&mut self.due);
        let mut left = limit;
        while left > 0 {
            let (wheel, blocks) = (&mut self.wheel, &self.blocks);
            let entry_of = |at: u32| blocks[at as usize / BLOCK][at as usize % BLOCK].due;
            entries.extend(std::iter::from_fn(|| wheel.pop(watermark, entry_of)).take(WARMED.min(left)));
            if entries.is_empty() {
                break;
            }
            left -= entries.len();
            let seen = entries.iter().fold(0, |seen, (_, at)| seen ^ self.state(*at).first_word());
            std::hint::black_box(seen);
            for (entry, at) in entries.drain(..) {
                self.fire(entry, at, watermark, epoch, outputs);
            }
        }
        self.due = entries;
        self.say_parts(outputs);
        left == 0
    }

    fn fire(&mut self, entry: Micros, at: u32, watermark: Micros, epoch: Epoch, outputs: &mut Outputs) {
        let state = &mut self.blocks[at as usize / BLOCK][at as usize % BLOCK];
        if state.due == entry {
            if let Some(cuts) = &mut self.cuts {
                cuts.touch(&self.job, &self.engine, state, at);
            }
            state.used = true;
            let mut turn = Turn { job: &self.job, engine: &mut self.engine, state, at, epoch, outputs, found: false };
            self.parts.note(&mut turn);
            turn.fire_until(watermark);
            if state.gone {
                let said = self.parts.take(at).flatten();
                outputs.facts.extend(said.map(|part| (Fact::Part(part), -1)));
                return self.forget(at);
            }
            enter(&mut self.wheel, entry, state, at);
        }
    }

    fn state(&self, at: u32) -> &KeyState {
        &self.blocks[at as usize / BLOCK][at as usize % BLOCK]
    }

    /// Writes the final rows of at most `limit` keys in memory from the `from`-th place on, as of the last watermark; the next place, if
    /// there is one. Keys that are cold come after these, by [`Keys::finish_cold`].
    pub fn finish(
        &mut self,
        watermark: Micros,
        (from, limit): (usize, usize),
        epoch: Epoch,
        outputs: &mut Outputs,
    ) -> Option<usize> {
        self.engine.links.end(outputs);
        let places = self.index.len() + self.free.len();
        let until = (from + limit).min(places);
        for at in from..until {
            let state = &mut self.blocks[at / BLOCK][at % BLOCK];
            if state.due == VACANT {
                continue;
            }
            let at = at as u32;
            Turn { job: &self.job, engine: &mut self.engine, state, at, epoch, outputs, found: false }
                .profile(watermark, false, true);
        }
        (until < places).then_some(until)
    }

    /// How many keys there are, cold ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len() + self.cold_len() as usize
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn find_or_insert(&mut self, record: &Record, outputs: &mut Outputs) -> u32 {
        let blocks = &self.blocks;
        let key = |at: u32| blocks[at as usize / BLOCK][at as usize % BLOCK].key;
        // The low half of the key is its hash: the table needs no other.
        if let Some(at) = self.index.find(record.key as u64, |at| key(*at).0 == record.key) {
            return *at;
        }
        let app = self.engine.apps.number(&record.app_id);
        let at = self.insert(KeyState::empty(KeyHash(record.key), record.user_id.clone(), app));
        if !self.job.stages.is_empty() {
            outputs.stages.push((0, 1));
        }
        if !self.job.views.is_empty() {
            let state = &mut self.blocks[at as usize / BLOCK][at as usize % BLOCK];
            Turn {
                job: &self.job,
                engine: &mut self.engine,
                state,
                at,
                epoch: Epoch::default(),
                outputs,
                found: false,
            }
            .appear();
        }
        at
    }

    /// Gives a state that is not there yet a place.
    fn insert(&mut self, state: KeyState) -> u32 {
        let hash = state.key.0 as u64;
        if let Some(cold) = &mut self.cold {
            cold.hot_bytes += state.hot_bytes();
        }
        let at = match self.free.pop() {
            Some(at) => {
                self.blocks[at as usize / BLOCK][at as usize % BLOCK] = state;
                at
            }
            None => {
                let at = u32::try_from(self.index.len()).expect("memory ends before four billion keys do");
                if (at as usize).is_multiple_of(BLOCK) {
                    self.blocks.push(Vec::with_capacity(BLOCK));
                }
                let block = self.blocks.last_mut().expect("a block was pushed when the last one was full");
                block.push(state);
                at
            }
        };
        let blocks = &self.blocks;
        let key = |at: u32| blocks[at as usize / BLOCK][at as usize % BLOCK].key;
        self.index.insert_unique(hash, at, |at| key(*at).0 as u64);
        at
    }
}

/// When a place that holds no state says its timer is due: never is one due then.
const VACANT: Micros = Micros::MIN;

/// Gives the key a new entry where it no longer stands by the one at `entry`, which the wheel drops when it comes up.
fn enter(wheel: &mut Wheel, entry: Micros, state: &KeyState, at: u32) {
    if state.due != entry && state.due != Micros::MAX {
        wheel.insert(state.due, at);
    }
}

/// One key at work: its state, and what it may use.
struct Turn<'a> {
    job: &'a CompiledJob,
    engine: &'a mut Engine,
    state: &'a mut KeyState,
    /// The key's index.
    at: u32,
    epoch: Epoch,
    outputs: &'a mut Outputs,
    /// Whether the engine's starts are those of this key's cells.
    found: bool,
}

impl Turn<'_> {
    fn find_starts(&mut self) {
        if !self.found {
            self.engine.find_starts(&self.job.layout, self.at, &self.state.cells);
            self.found = true;
        }
    }

    fn record(&mut self, record: &Record, pw: Micros) {
        self.engine.counts.nulls += u64::from(record.nulls);
        self.fire_until(pw);
        self.begin_anew(record, pw);
        self.state.floor = self.state.floor.max(pw);
        let late = record.time < pw;
        let clock = self.state.key_clock.max(record.time);
        let bound = clock.saturating_sub(self.job.dedup_horizon);
        if self.state.recent.contains(record.event_hash, bound, self.state.key_clock) {
            self.engine.counts.duplicates += 1;
            return;
        }
        if !late {
            self.fire_until(record.time);
            self.begin_anew(record, pw);
        }
        let key_clock = self.state.key_clock;
        self.state.recent.insert(record.event_hash, clock, bound, key_clock);
        self.apply(record, clock);
        self.identify(record, pw);
        if late {
            self.engine.counts.late += 1;
        } else {
            self.engine.counts.on_time += 1;
            self.evaluate(clock, Cause::Event(record));
        }
        self.schedule_touched(record.lanes);
    }

    fn fire_until(&mut self, bound: Micros) {
        while self.state.due <= bound {
            if self.state.exact {
                self.fire();
            } else {
                self.find_starts();
                self.schedule();
            }
        }
    }

    /// Fires what is due at the earliest pending instant: one evaluation, and a profile row after it.
    fn fire(&mut self) {
        let due = self.state.due;
        self.find_starts();
        let snapshot = self.job.snapshot;
        let boundary = |every: Option<Micros>| every.is_some_and(|every| due.rem_euclid(every) == 0);
        let expires = self.expiry() == due;
        if expires && due <= self.state.floor {
            // The key's first event came later than its state would have lasted: nothing else is due then.
            return self.expire();
        }
        // Off the boundaries of snapshots, and before it expires, only an evaluation can be due.
        let may_be_other = expires || boundary(snapshot.full_every) || boundary(snapshot.every);
        let evaluates = !may_be_other || self.next_evaluation() == due;
        self.state.floor = due;
        if evaluates {
            self.engine.counts.timers += 1;
            self.evaluate(due, Cause::Timer);
        }
        if boundary(snapshot.full_every) || (self.state.changed && boundary(snapshot.every)) {
            self.engine.counts.snapshots += 1;
            self.profile(due, evaluates, false);
            self.state.changed = false;
        }
        if expires { self.expire() } else { self.schedule() }
    }

    /// Takes an event into the aggregates.
    fn apply(&mut self, record: &Record, clock: Micros) {
        let state = &mut *self.state;
        // What a window has dropped is not read any more; that it goes for good can wait.
        if clock.div_euclid(EXPIRED_EVERY) != state.key_clock.div_euclid(EXPIRED_EVERY) {
            state.cells.expire(&self.job.layout, clock);
            self.engine.kept_starts.remove(&self.at);
            self.found = false;
        }
        state.key_clock = clock;
        state.floor = state.floor.max(clock);
        state.changed = true;
        self.find_starts();
        let job = self.job;
        let history = self.history_before(record);
        let Engine { texts, starts, .. } = &mut *self.engine;
        let mut editor = self.state.cells.edit(starts, &job.layout);
        let mut lanes = record.lanes;
        while lanes != 0 {
            let lane = lanes.trailing_zeros() as usize;
            lanes &= lanes - 1;
            for at in &job.lane_slots[lane] {
                let slot = &job.layout.slots()[*at];
                let value = match slot.text {
                    true => record.texts[slot.value].as_ref().map_or(0, |text| u64::from(texts.number(text))),
                    false => record.values.get(slot.value).copied().unwrap_or_default(),
                };
                editor.touch(*at, Touch { time: record.time, value, key_clock: clock });
            }
        }
        if let Some(gone) = history {
            self.history_after(gone);
        }
    }

    /// Evaluates scores, stages and triggers at `now`; the starts of the slots' cells must be those of the state.
    fn evaluate(&mut self, now: Micros, cause: Cause<'_>) {
        let job = self.job;
        self.engine.read(job, &job.condition_features, self.state, now);
        let Engine { values, texts, .. } = &mut *self.engine;
        // Just after an event the readings are small whole numbers; at timers the fractions of days that have passed are among them.
        let remembered = matches!(cause, Cause::Event(_));
        let outcome = values.outcome(job, texts, self.state.disarmed, remembered);
        let stage_before = self.state.stage;
        if !job.stages.is_empty() && outcome.stage != self.state.stage {
            self.outputs.stages.extend([(self.state.stage, -1), (outcome.stage, 1)]);
            self.state.stage = outcome.stage;
            self.state.changed = true;
        }
        self.triggers(outcome, now, cause);
        self.state.silent = false;
        self.engine.counts.nulls += self.engine.values.take_nulls();
        if !job.views.is_empty() {
            self.follow(stage_before, now);
        }
    }

    fn triggers(&mut self, outcome: Outcome, now: Micros, cause: Cause<'_>) {
        let silent = if self.state.silent { self.engine.silent } else { 0 };
        let state = &mut *self.state;
        let rearmed = state.disarmed & outcome.rearms;
        let began = outcome.holds & !state.held;
        state.changed |= rearmed != 0 || outcome.holds != state.held;
        state.disarmed &= !rearmed;
        state.held = outcome.holds;
        let mut edges = began & !state.disarmed & !silent;
        while edges != 0 {
            self.edge(edges.trailing_zeros() as usize, now, cause);
            edges &= edges - 1;
        }
    }

    /// An edge of an armed trigger: a decision, unless the last one is too near.
    fn edge(&mut self, at: usize, now: Micros, cause: Cause<'_>) {
        let job = self.job;
        let trigger = &job.triggers[at];
        if self.engine.warming.get(at).is_some_and(|until| now < *until) {
            self.engine.counts.warming += 1;
            return;
        }
        let mut editor = self.state.cells.edit(&mut self.engine.starts, &job.layout);
        let past = editor.firing(job.firings + at);
        let (last, ordinal) = (past[0] as Micros, past[1] >> 32);
        let first = last == Micros::MIN;
        if !first && now.saturating_sub(last) < trigger.cooldown {
            past[1] += 1;
            self.engine.counts.suppressed[at] += 1;
        } else {
            let ordinal = if last == now && !first { ordinal + 1 } else { 0 };
            (past[0], past[1]) = (now as u64, ordinal << 32 | (past[1] & u64::from(u32::MAX)));
            if trigger.rearm.is_some() {
                self.state.disarmed |= 1 << at;
            }
            self.engine.counts.decisions[at] += 1;
            let moment = Moment { now, epoch: self.epoch };
            let row = rows::decision(job, self.engine, self.state, moment, (at, ordinal as u32), cause);
            self.outputs.decisions.push(row);
            self.decided(at, now);
        }
    }

    /// Writes a profile row; `evaluated` says that the features of conditions have been read as of `now`.
    fn profile(&mut self, now: Micros, evaluated: bool, last: bool) {
        self.find_starts();
        let features = if evaluated { &self.job.other_features } else { &self.job.all_features };
        self.engine.read(self.job, features, self.state, now);
        let moment = Moment { now, epoch: self.epoch };
        let row = rows::profile(self.job, self.engine, self.state, moment, last);
        self.outputs.profiles.push(row);
        // Here, not with the next evaluation: which key that is depends on the cut.
        self.engine.counts.nulls += self.engine.values.take_nulls();
    }

    /// Finds the earliest pending timer of the state; the starts of the slots' cells must be those of the state.
    fn schedule(&mut self) {
        self.engine.keep_starts(self.at, &self.state.cells);
        let snapshot = self.job.asks.next_snapshot(self.state.times());
        self.state.due = self.next_evaluation().min(snapshot).min(self.expiry());
        self.state.exact = true;
    }

    /// The same after an event in these lanes: only what they touch can be due earlier than it was. What is due later now is found
    /// when the old time comes.
    fn schedule_touched(&mut self, lanes: LaneMask) {
        self.engine.keep_starts(self.at, &self.state.cells);
        let (asks, times) = (&self.job.asks, self.state.times());
        let (next, touched) = asks.next_touched(self.engine.cells(self.job, self.state), times, lanes);
        let (next, touched) = (next.min(self.expiry()), touched || self.job.retention_idle != Micros::MAX);
        if next < self.state.due {
            self.state.due = next;
            self.state.exact = true;
        } else if touched && next > self.state.due {
            self.state.exact = false;
        }
    }

    fn next_evaluation(&self) -> Micros {
        self.job.asks.next_evaluation(self.engine.cells(self.job, self.state), self.state.times())
    }
}
