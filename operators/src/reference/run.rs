//! The run: partitions line by line, each record through its key.

use std::collections::BTreeMap;

use whisperer_schemas::time::Micros;

use super::{
    NamedRow, Options, Outcome, RawLine, expression,
    features::Touch,
    identities::{Id, Identities, Persons},
    moment::Moment,
    parse::{self, Event, Line},
    plan::Plan,
    rows::{self, Firing},
    timers::{self, Waiting},
    views::{Seen, Views},
};
use crate::spec::{Entity, JobSpec};

pub(super) fn run(spec: &JobSpec, options: &Options, partitions: &[Vec<RawLine>]) -> Result<Outcome, String> {
    let plan = Plan::new(spec)?;
    let views = Views::new(spec)?;
    let identities = Identities::new(spec)?;
    let mut run = Run { plan: &plan, views: &views, identities, outcome: Outcome::default(), keys: BTreeMap::new() };
    let mut end = None;
    for (partition, lines) in (0..).zip(partitions) {
        end = end.max(run.partition(partition, lines, options)?);
    }
    if let Some(end) = end {
        run.finish(end)?;
    }
    let persons = run.identities.persons();
    let profiles = profiles(&plan, &persons, &run.keys)?;
    let seen: Vec<Seen> = run.keys.into_values().map(|key| key.seen).collect();
    run.outcome.views = views.rows(&seen, &persons, &profiles);
    Ok(run.outcome)
}

/// What the ids of each person of several come to together.
fn profiles(plan: &Plan, persons: &Persons, keys: &BTreeMap<Id, Key>) -> Result<Vec<NamedRow>, String> {
    let mut rows = Vec::new();
    for (canonical, ids) in persons.of_several() {
        let members: Vec<&Key> = ids.iter().filter_map(|id| keys.get(id)).collect();
        let Some(now) = members.iter().map(|key| key.floor).max() else { continue };
        let mut touches = vec![Vec::new(); plan.features.len()];
        for (member, key) in members.iter().enumerate() {
            for (all, own) in touches.iter_mut().zip(&key.touches) {
                all.extend(own.iter().map(|touch| Touch { member, ..touch.clone() }));
            }
        }
        let moment = Moment::new(plan, &touches, now, None);
        rows.push(rows::person(plan, &moment, (&canonical, ids.len()), now)?);
    }
    Ok(rows)
}

/// All that is kept for a key.
pub(super) struct Key {
    pub app_id: String,
    pub user_id: String,
    /// The key clock.
    pub clock: Micros,
    /// By feature, what the applied events gave to it, in log order.
    pub touches: Vec<Vec<Touch>>,
    /// The stage of the last evaluation.
    pub stage: String,
    pub triggers: Vec<TriggerState>,
    /// The largest of the key clock, the `pw` of the key's records and the last timer fired.
    floor: Micros,
    /// Whether there is something new since the key's last row.
    changed: bool,
    /// Whether it was dropped because no event had come for long.
    expired: bool,
    /// Ids of the applied events, each with the key clock once it was last applied.
    applied: Vec<(String, Micros)>,
    /// Firings by trigger and time.
    firings: BTreeMap<(usize, Micros), u32>,
    /// What the views are made from.
    seen: Seen,
}

/// What a key remembers of a trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TriggerState {
    pub holds: bool,
    pub armed: bool,
    pub last_fired: Option<Micros>,
    pub suppressed: i64,
}

impl Key {
    fn new(plan: &Plan, event: &Event, seen: Seen) -> Key {
        let fresh = TriggerState { holds: false, armed: true, last_fired: None, suppressed: 0 };
        Key {
            app_id: event.app_id.clone(),
            user_id: event.user_id.clone(),
            clock: Micros::MIN,
            touches: vec![Vec::new(); plan.features.len()],
            stage: "unknown".to_owned(),
            triggers: vec![fresh; plan.triggers.len()],
            floor: Micros::MIN,
            changed: false,
            expired: false,
            applied: Vec::new(),
            firings: BTreeMap::new(),
            seen,
        }
    }

    fn is_new(&self) -> bool {
        self.applied.is_empty()
    }

    fn is_duplicate(&self, event: &Event, horizon: Micros) -> bool {
        let since = self.clock.max(event.time).saturating_sub(horizon);
        self.applied.iter().any(|(id, clock)| *id == event.event_id && *clock >= since)
    }

    fn apply(&mut self, plan: &Plan, event: &Event) -> Result<(), String> {
        self.clock = self.clock.max(event.time);
        self.floor = self.floor.max(self.clock);
        self.changed = true;
        self.applied.push((event.event_id.clone(), self.clock));
        for (feature, touches) in plan.features.iter().zip(&mut self.touches) {
            let touch = |value| Touch { time: event.time, clock: self.clock, value, member: 0 };
            touches.extend(feature.touch(event)?.map(touch));
        }
        Ok(())
    }

    fn next_due(&self, plan: &Plan) -> Option<timers::Due> {
        let (touches, clock, floor, changed) = (&self.touches, self.clock, self.floor, self.changed);
        timers::next(plan, Waiting { touches, clock, floor, changed })
    }
}

struct Run<'a> {
    plan: &'a Plan<'a>,
    views: &'a Views<'a>,
    identities: Identities<'a>,
    outcome: Outcome,
    keys: BTreeMap<Vec<String>, Key>,
}

impl Run<'_> {
    /// Reads a partition; gives its largest event time.
    fn partition(&mut self, partition: u32, lines: &[RawLine], options: &Options) -> Result<Option<Micros>, String> {
        let mut largest: Option<Micros> = None;
        for line in lines {
            let event = match parse::read(line, partition, options) {
                Line::Blank => continue,
                Line::Dead(reason) => {
                    self.outcome.counts.read += 1;
                    *self.outcome.counts.dead.entry(reason).or_default() += 1;
                    self.outcome.dead_letters.push((partition, line.offset, reason));
                    continue;
                }
                Line::Event(event) => event,
            };
            self.outcome.counts.read += 1;
            self.outcome.counts.clamped += u64::from(event.clamped);
            // From earlier records only: this one's own time does not count yet.
            let pw = largest.map_or(Micros::MIN, |largest| largest.saturating_sub(self.plan.spec.out_of_orderness));
            largest = largest.max(Some(event.time));
            self.record(&event, pw, (partition, line.offset))?;
        }
        Ok(largest)
    }

    fn record(&mut self, event: &Event, pw: Micros, place: (u32, u64)) -> Result<(), String> {
        let ids = match self.plan.spec.entity {
            Entity::AppUser => vec![event.app_id.clone(), event.user_id.clone()],
            Entity::User => vec![event.user_id.clone()],
        };
        let mut key = match self.keys.remove(&ids) {
            Some(key) => key,
            None => Key::new(self.plan, event, self.views.seen(event)?),
        };
        self.keyed(&mut key, event, pw, place)?;
        self.keys.insert(ids, key);
        Ok(())
    }

    /// Timers first, then what the record is.
    fn keyed(&mut self, key: &mut Key, event: &Event, pw: Micros, place: (u32, u64)) -> Result<(), String> {
        self.fire_until(key, pw)?;
        self.begin_anew(key, event, pw)?;
        key.floor = key.floor.max(pw);
        if key.is_duplicate(event, self.plan.spec.dedup_horizon) {
            self.outcome.counts.duplicate += 1;
            return Ok(());
        }
        self.outcome.counts.accepted += 1;
        if event.time < pw {
            self.outcome.counts.late += 1;
            self.identities.apply(event, pw, place)?;
            self.views.apply(&mut key.seen, event)?;
            return key.apply(self.plan, event);
        }
        self.fire_until(key, event.time)?;
        self.begin_anew(key, event, pw)?;
        self.identities.apply(event, pw, place)?;
        self.views.apply(&mut key.seen, event)?;
        key.apply(self.plan, event)?;
        let now = key.clock;
        self.evaluate(key, now, &event.event_id)
    }

    /// Fires the pending timers due at or before an instant; they are worked out anew after each.
    fn fire_until(&mut self, key: &mut Key, until: Micros) -> Result<(), String> {
        if key.is_new() {
            return Ok(());
        }
        let expiry = self.plan.spec.retention_idle.map(|idle| key.clock + idle);
        let last = until.min(expiry.unwrap_or(Micros::MAX));
        while let Some(due) = key.next_due(self.plan).filter(|due| due.at <= last) {
            key.floor = due.at;
            if due.evaluation {
                self.evaluate(key, due.at, "timer")?;
            }
            // Asked again: the evaluation may have changed the key.
            if timers::is_snapshot(self.plan.spec.snapshot, key.changed, due.at) {
                self.outcome.profiles.push(rows::profile(self.plan, key, due.at, false)?);
                key.changed = false;
            }
        }
        key.expired = expiry.is_some_and(|expiry| expiry <= until);
        Ok(())
    }

    /// The event finds a new user where the state has expired before it.
    fn begin_anew(&mut self, key: &mut Key, event: &Event, pw: Micros) -> Result<(), String> {
        if key.expired {
            self.identities.forget_user_of(event);
            *key = Key { floor: pw, ..Key::new(self.plan, event, self.views.seen(event)?) };
        }
        Ok(())
    }

    /// Evaluates the stage and all triggers as of `now`.
    fn evaluate(&mut self, key: &mut Key, now: Micros, cause: &str) -> Result<(), String> {
        // Taken out for a while, because the key's triggers change while it is looked at.
        let touches = std::mem::take(&mut key.touches);
        let moment = Moment::new(self.plan, &touches, now, None);
        let before = (key.stage.clone(), states(key));
        key.stage = moment.stage()?;
        for index in 0..self.plan.triggers.len() {
            self.trigger(key, index, &moment, now, cause)?;
        }
        self.views.evaluate(&mut key.seen, &moment, &before.0, now)?;
        key.changed |= before != (key.stage.clone(), states(key));
        key.touches = touches;
        Ok(())
    }

    fn trigger(
        &mut self,
        key: &mut Key,
        index: usize,
        moment: &Moment,
        now: Micros,
        cause: &str,
    ) -> Result<(), String> {
        let (conditions, spec) = (&self.plan.triggers[index], &self.plan.spec.triggers[index]);
        let rearmed = conditions.rearm.as_ref().map_or(Ok(true), |rearm| expression::holds(rearm, moment))?;
        let holds = expression::holds(&conditions.when, moment)?;
        let state = &mut key.triggers[index];
        state.armed |= rearmed;
        let edge = holds && !state.holds;
        state.holds = holds;
        if !edge || !state.armed {
            return Ok(());
        }
        if state.last_fired.is_some_and(|last| now - last < spec.cooldown) {
            state.suppressed += 1;
            *self.outcome.counts.suppressed.entry(spec.name.value.clone()).or_default() += 1;
            return Ok(());
        }
        state.last_fired = Some(now);
        state.armed = conditions.rearm.is_none();
        let count = key.firings.entry((index, now)).or_default();
        let ordinal = *count;
        *count += 1;
        let firing = Firing { trigger: index, now, ordinal, cause };
        self.outcome.decisions.push(rows::decision(self.plan, key, moment, &firing)?);
        self.views.decide(&mut key.seen, &spec.name.value, now);
        Ok(())
    }

    /// The end of a bounded input: the remaining timers, then a last row of every key.
    fn finish(&mut self, end: Micros) -> Result<(), String> {
        for (ids, mut key) in std::mem::take(&mut self.keys) {
            self.fire_until(&mut key, end)?;
            if key.expired {
                self.identities.forget(&ids);
                continue;
            }
            self.outcome.profiles.push(rows::profile(self.plan, &key, end, true)?);
            self.keys.insert(ids, key);
        }
        Ok(())
    }
}

/// What of the triggers' states makes a new row worth writing.
fn states(key: &Key) -> Vec<(bool, bool, Option<Micros>)> {
    key.triggers.iter().map(|state| (state.holds, state.armed, state.last_fired)).collect()
}
