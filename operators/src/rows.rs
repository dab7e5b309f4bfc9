//! Rows of the tables: decisions and profiles, with every score and feature at that instant.

use compact_str::CompactString;
use smallvec::SmallVec;
use whisperer_schemas::{Epoch, Micros, PartitionId, Position, Row, Value, decision::decision_id};

use crate::{
    evaluate::KeyEnv,
    features::Read,
    job::{Body, CONTRIBUTIONS_MAX, CompiledJob, LogisticModel, NameSlot, Step},
    keys::{Engine, KeyState},
    record::Record,
};

/// What an evaluation was made for.
#[derive(Clone, Copy, Debug)]
pub enum Cause<'a> {
    /// A record that is not late.
    Event(&'a Record),
    /// A timer.
    Timer,
}

/// When a row is made: in event time, and in which epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: Micros,
    pub(crate) epoch: Epoch,
}

/// The row of a decision: the `ordinal`-th firing of trigger `trigger` at this instant, from 0.
pub(crate) fn decision(
    job: &CompiledJob,
    engine: &mut Engine,
    state: &KeyState,
    moment: Moment,
    (trigger, ordinal): (usize, u32),
    cause: Cause<'_>,
) -> Row {
    engine.read(job, &job.all_features, state, moment.now);
    engine.compute(job, state, &job.steps);
    let trigger = &job.triggers[trigger];
    let (cause, position) = match cause {
        Cause::Event(record) => (record.event_id.clone(), Some(position(record))),
        Cause::Timer => (CompactString::const_new("timer"), None),
    };
    let mut values = Vec::with_capacity(job.decisions.columns.len());
    values.extend([
        Value::text(decision_id(&job.name, &trigger.name, state.key, moment.now, ordinal)),
        Value::text(&job.name),
        Value::Int(i64::from(job.version)),
        Value::text(engine.apps.get(state.app)),
        Value::Text(state.user_id.clone()),
        Value::text(&trigger.name),
        Value::Time(moment.now),
        Value::Text(cause),
        Value::Int(trigger.priority),
        trigger.action.as_ref().map_or(Value::Null, Value::text),
    ]);
    engine.push_job_columns(job, state, moment.now, &mut values);
    values.push(position.map_or(Value::Null, |position| Value::text(position.to_string())));
    values.push(Value::Int(moment.epoch.0 as i64));
    // Whoever delivers knows what is news.
    values.push(Value::Bool(false));
    Row { values, epoch: moment.epoch, position }
}

/// The row of a profile as of an instant, all features having been read; the last one tells of triggers and timers too.
pub(crate) fn profile(job: &CompiledJob, engine: &mut Engine, state: &KeyState, moment: Moment, last: bool) -> Row {
    // The stage shown, and read by scores, is that of the last evaluation.
    engine.compute(job, state, &job.score_steps);
    let mut values = Vec::with_capacity(job.profiles.columns.len());
    values.extend([
        Value::Time(moment.now),
        Value::text(&job.name),
        Value::Int(i64::from(job.version)),
        Value::text(engine.apps.get(state.app)),
        Value::Text(state.user_id.clone()),
        Value::Time(state.key_clock),
        Value::Bool(last),
    ]);
    engine.push_job_columns(job, state, moment.now, &mut values);
    values.push(if last { engine.triggers(job, state) } else { Value::Null });
    values.push(if last { engine.timers(job, state) } else { Value::Null });
    values.push(Value::Int(moment.epoch.0 as i64));
    Row { values, epoch: moment.epoch, position: None }
}

fn position(record: &Record) -> Position {
    Position { partition: PartitionId(record.partition), offset: record.offset }
}

impl Engine {
    /// Computes `steps` from what was read, the key's stage being given.
    fn compute(&mut self, job: &CompiledJob, state: &KeyState, steps: &[Step]) {
        self.values.set_stage(state.stage);
        self.values.compute(job, steps, &self.texts);
    }

    /// Scores, features and the stage, as [`crate::job`] orders their columns.
    fn push_job_columns(&self, job: &CompiledJob, state: &KeyState, now: Micros, values: &mut Vec<Value>) {
        let env = self.values.env(job, &self.texts);
        let slots = job.name_slots();
        for (at, score) in job.scores.iter().enumerate() {
            let number = self.values.number(NameSlot::Score(at));
            values.push(Value::number(number));
            if !score.levels.is_empty() {
                values.push(text(env.text_at(slots.at(NameSlot::Level(at)))));
            }
            if let Body::Model(model) = &score.body {
                values.push(contributions(model, &env));
            }
        }
        for (at, feature) in job.features.iter().enumerate() {
            values.push(match feature.text {
                true => text(env.text_at(slots.at(NameSlot::Feature(at)))),
                false => Value::number(self.values.number(NameSlot::Feature(at))),
            });
            if matches!(feature.read, Read::Distinct { .. }) {
                values.push(Value::Bool(feature.capped(self.cells(job, state), now)));
            }
        }
        let stage = (!job.stages.is_empty()).then(|| job.stage_names[usize::from(state.stage)].as_str());
        values.push(text(stage));
    }

    fn triggers(&self, job: &CompiledJob, state: &KeyState) -> Value {
        let cells = self.cells(job, state);
        let of_trigger = |(at, trigger): (usize, &crate::job::Trigger)| {
            let past = cells.cells(job.firings + at).next();
            let last = past.map(|cell| cell[1] as Micros).filter(|last| *last != Micros::MIN);
            let suppressed = past.map_or(0, |cell| cell[2] & u64::from(u32::MAX));
            vec![
                Value::text(&trigger.name),
                Value::Bool(state.held & (1 << at) != 0),
                Value::Bool(state.disarmed & (1 << at) == 0),
                last.map_or(Value::Null, Value::Time),
                Value::Int(suppressed as i64),
            ]
        };
        Value::List(job.triggers.iter().enumerate().map(of_trigger).collect())
    }

    fn timers(&self, job: &CompiledJob, state: &KeyState) -> Value {
        let pending = job.asks.pending(self.cells(job, state), state.times());
        let row = |(due, reason): (Micros, crate::timers::Reason)| vec![Value::Time(due), Value::text(reason.as_str())];
        Value::List(pending.into_iter().map(row).collect())
    }
}

fn text(text: Option<&str>) -> Value {
    text.map_or(Value::Null, Value::text)
}

/// The largest contributions by absolute value, ties in file order, zeros left out.
fn contributions(model: &LogisticModel, env: &KeyEnv<'_>) -> Value {
    let mut parts: SmallVec<[(usize, f64); 16]> = SmallVec::new();
    for (at, term) in model.terms.iter().enumerate() {
        let Some(part) = env.contribution(term) else { return Value::Null };
        if part != 0.0 {
            parts.push((at, part));
        }
    }
    parts.sort_by(|(_, a), (_, b)| b.abs().total_cmp(&a.abs()));
    parts.truncate(CONTRIBUTIONS_MAX);
    let pair = |(at, part): &(usize, f64)| vec![Value::text(&model.terms[*at].name), Value::Number(*part)];
    Value::List(parts.iter().map(pair).collect())
}
