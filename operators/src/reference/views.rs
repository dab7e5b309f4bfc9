//! Views from scratch: what each key came to is listed, and every question is answered by going through the list.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use sqlparser::ast::Expr;
use whisperer_schemas::{
    time::{DAY, Micros},
    value::Value,
};

use super::{
    NamedRow,
    expression::{self, Datum, Names},
    identities::{Id, Persons},
    moment::Moment,
    parse::Event,
};
use crate::spec::{Entity, JobSpec, Located, Period, SegmentSpec, StepSpec, ViewKind, ViewSpec};

/// Different changes of the stage that count for a key.
const CHANGES_MAX: usize = 1024;

/// Times of a step that count for a key: the earliest different ones.
const TIMES_MAX: usize = 256;

/// The job's views with their expressions parsed.
pub(super) struct Views<'a> {
    entity: Entity,
    each: Vec<View<'a>>,
}

struct View<'a> {
    spec: &'a ViewSpec,
    when: Option<Expr>,
    /// The conditions of segments.
    segments: Vec<Expr>,
    /// The events of a cohort's beginning and activity, or of each step; none is any.
    events: Vec<Option<Expr>>,
}

/// What a key came to in one view.
#[derive(Clone, Debug, Default)]
struct Place {
    counts: bool,
    group: Vec<Value>,
    number: Option<f64>,
    segments: Vec<bool>,
}

/// What of a key the views are made from.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    app_id: String,
    user_id: String,
    /// By view, as of the last evaluation.
    places: Vec<Place>,
    /// Changes of the stage: from, to, day.
    changes: Vec<(String, String, i64)>,
    /// Decisions: trigger, day.
    decisions: Vec<(String, i64)>,
    /// By view and by condition on events, the times of those for which it holds.
    times: Vec<Vec<Vec<Micros>>>,
}

impl<'a> Views<'a> {
    pub fn new(spec: &'a JobSpec) -> Result<Views<'a>, String> {
        let each = spec.views.iter().map(View::new).collect::<Result<_, _>>()?;
        Ok(Views { entity: spec.entity, each })
    }

    /// A key before its first evaluation.
    pub fn seen(&self, event: &Event) -> Result<Seen, String> {
        let (app_id, user_id) = (event.app_id.clone(), event.user_id.clone());
        let times = self.each.iter().map(|view| vec![Vec::new(); view.events.len()]).collect();
        let mut seen = Seen { app_id, user_id, places: Vec::new(), changes: Vec::new(), decisions: Vec::new(), times };
        for view in &self.each {
            seen.places.push(view.place(&seen.app_id, None)?);
        }
        Ok(seen)
    }

    /// Notes an event that is applied.
    pub fn apply(&self, seen: &mut Seen, event: &Event) -> Result<(), String> {
        for (view, times) in self.each.iter().zip(&mut seen.times) {
            for (condition, times) in view.events.iter().zip(times) {
                if condition.as_ref().map_or(Ok(true), |condition| expression::holds(condition, event))? {
                    times.push(event.time);
                }
            }
        }
        Ok(())
    }

    /// Notes what an evaluation at `now` came to.
    pub fn evaluate(&self, seen: &mut Seen, moment: &Moment, before: &str, now: Micros) -> Result<(), String> {
        for (view, place) in self.each.iter().zip(&mut seen.places) {
            *place = view.place(&seen.app_id, Some(moment))?;
        }
        let after = moment.stage()?;
        if before != after {
            note(&mut seen.changes, (before.to_owned(), after, now.div_euclid(DAY)));
        }
        Ok(())
    }

    /// Notes a decision.
    pub fn decide(&self, seen: &mut Seen, trigger: &str, now: Micros) {
        note(&mut seen.decisions, (trigger.to_owned(), now.div_euclid(DAY)));
    }

    /// The rows of every view, by its name, in no order.
    pub fn rows(&self, all: &[Seen], persons: &Persons, profiles: &[NamedRow]) -> BTreeMap<String, Vec<NamedRow>> {
        let person = |seen: &Seen| match self.entity {
            Entity::AppUser => persons.canonical(&vec![seen.app_id.clone(), seen.user_id.clone()]),
            Entity::User => persons.canonical(&vec![seen.user_id.clone()]),
        };
        let rows = |(at, view): (usize, &View)| {
            let rows = match view.spec.kind {
                ViewKind::Identities => persons.rows(),
                ViewKind::Profiles => profiles.to_vec(),
                _ => view.rows(at, all, &person),
            };
            (view.spec.name.value.clone(), rows)
        };
        self.each.iter().enumerate().map(rows).collect()
    }
}

impl<'a> View<'a> {
    fn new(spec: &'a ViewSpec) -> Result<View<'a>, String> {
        let parse = |text: &Located<String>| expression::parse(&text.value);
        let some = |text: &Option<Located<String>>| text.as_ref().map(parse).transpose();
        let (mut segments, mut events) = (Vec::new(), Vec::new());
        match &spec.kind {
            ViewKind::Segments { segments: all } | ViewKind::Members { segments: all } => {
                segments = all.iter().map(|segment| parse(&segment.when)).collect::<Result<_, _>>()?;
            }
            ViewKind::Cohorts { begins, active, .. } => events = vec![some(begins)?, some(active)?],
            ViewKind::Funnel { steps, .. } => {
                let step = |step: &StepSpec| parse(&step.filter).map(Some);
                events = steps.iter().map(step).collect::<Result<_, _>>()?;
            }
            _ => {}
        }
        Ok(View { spec, when: some(&spec.when)?, segments, events })
    }

    fn place(&self, app_id: &str, moment: Option<&Moment>) -> Result<Place, String> {
        let holds = |condition: &Expr| moment.map_or(Ok(false), |moment| expression::holds(condition, moment));
        let value = |name: &str| match (name, moment) {
            ("app_id", _) => Ok(Datum::Text(app_id.to_owned())),
            (_, Some(moment)) => moment.value(&name.split('.').map(str::to_owned).collect::<Vec<_>>()),
            ("lifecycle_stage", None) => Ok(Datum::Text("unknown".to_owned())),
            (_, None) => Ok(Datum::Null),
        };
        let as_value = |datum: Datum| match datum {
            Datum::Number(number) => Value::number(number + 0.0),
            Datum::Text(text) => Value::text(text),
            Datum::Null | Datum::Bool(_) => Value::Null,
        };
        let of = match &self.spec.kind {
            ViewKind::Sum { of } | ViewKind::Top { of, .. } | ViewKind::Percentiles { of, .. } => Some(&of.value),
            _ => None,
        };
        let number = of.map(|name| value(name)).transpose()?;
        Ok(Place {
            counts: self.when.as_ref().map_or(Ok(true), holds)?,
            group: self.spec.group_by.iter().map(|name| value(&name.value).map(as_value)).collect::<Result<_, _>>()?,
            number: number.and_then(|number| if let Datum::Number(number) = number { Some(number) } else { None }),
            segments: self.segments.iter().map(holds).collect::<Result<_, _>>()?,
        })
    }

    fn rows(&self, at: usize, all: &[Seen], person: &dyn Fn(&Seen) -> Id) -> Vec<NamedRow> {
        let mut groups: BTreeMap<String, (Vec<Value>, Vec<&Seen>)> = BTreeMap::new();
        for seen in all.iter().filter(|seen| seen.places[at].counts) {
            let group = &seen.places[at].group;
            groups.entry(format!("{group:?}")).or_insert_with(|| (group.clone(), Vec::new())).1.push(seen);
        }
        let mut rows = Vec::new();
        for (group, users) in groups.into_values() {
            for mut row in self.of_group(at, &users, person) {
                for (name, value) in self.spec.group_by.iter().zip(&group) {
                    row.insert(name.value.replace('.', "_"), value.clone());
                }
                rows.push(row);
            }
        }
        rows
    }

    fn of_group(&self, at: usize, users: &[&Seen], person: &dyn Fn(&Seen) -> Id) -> Vec<NamedRow> {
        let numbers = || users.iter().filter_map(|seen| seen.places[at].number);
        match &self.spec.kind {
            ViewKind::Count => vec![named([("users", int(users.len()))])],
            ViewKind::Distinct => {
                let ids: BTreeSet<&str> = users.iter().map(|seen| seen.user_id.as_str()).collect();
                vec![named([("users", int(ids.len()))])]
            }
            ViewKind::Persons => {
                let different: BTreeSet<Id> = users.iter().map(|seen| person(seen)).collect();
                vec![named([("users", int(different.len()))])]
            }
            // They have no groups.
            ViewKind::Identities | ViewKind::Profiles => Vec::new(),
            ViewKind::Sum { .. } => sum(&numbers().collect::<Vec<_>>()),
            ViewKind::Top { limit, .. } => top(at, users, *limit as usize),
            ViewKind::Percentiles { at: asked, resolution, .. } => percentiles(numbers(), asked, *resolution),
            ViewKind::Transitions => counted(users.iter().flat_map(|seen| &seen.changes), |(from, to, day)| {
                named([
                    ("from_stage", Value::text(from)),
                    ("to_stage", Value::text(to)),
                    ("day", Value::Time(day * DAY)),
                ])
            }),
            ViewKind::Decisions => decisions(users),
            ViewKind::Members { segments } => members(at, segments, users),
            ViewKind::Segments { segments } => {
                let pairs = (0..segments.len()).flat_map(|one| (one..segments.len()).map(move |other| (one, other)));
                let row = |(one, other): (usize, usize)| {
                    let both = |seen: &&&Seen| seen.places[at].segments[one] && seen.places[at].segments[other];
                    let count = users.iter().filter(both).count();
                    let name = |at: usize| Value::text(&segments[at].name.value);
                    let row = named([("segment", name(one)), ("other", name(other)), ("users", int(count))]);
                    (count > 0).then_some(row)
                };
                pairs.filter_map(row).collect()
            }
            ViewKind::Cohorts { period, .. } => {
                let pairs: Vec<_> = users.iter().flat_map(|seen| cohort(*period, &seen.times[at])).collect();
                counted(pairs.iter(), |(cohort, active)| {
                    named([("cohort", Value::Time(*cohort)), ("active", Value::Time(*active))])
                })
            }
            ViewKind::Funnel { steps, within } => funnel(steps, *within, users.iter().map(|seen| &seen.times[at])),
        }
    }
}

/// Adds what there is room for, or what is there already once more.
fn note<T: Ord>(noted: &mut Vec<T>, one: T) {
    let different = noted.iter().collect::<BTreeSet<_>>();
    if different.contains(&one) || different.len() < CHANGES_MAX {
        noted.push(one);
    }
}

fn decisions(users: &[&Seen]) -> Vec<NamedRow> {
    let mut rows = counted(users.iter().flat_map(|seen| &seen.decisions), |(trigger, day)| {
        named([("trigger", Value::text(trigger)), ("day", Value::Time(day * DAY))])
    });
    for row in &mut rows {
        let count = row.remove("users").expect("what is counted has a count");
        row.insert("decisions".to_owned(), count);
    }
    rows
}

fn members(at: usize, segments: &[SegmentSpec], users: &[&Seen]) -> Vec<NamedRow> {
    let mut rows = Vec::new();
    for (place, segment) in segments.iter().enumerate() {
        for seen in users.iter().filter(|seen| seen.places[at].segments[place]) {
            let (app, user) = (Value::text(&seen.app_id), Value::text(&seen.user_id));
            rows.push(named([("segment", Value::text(&segment.name.value)), ("user_app_id", app), ("user_id", user)]));
        }
    }
    rows
}

/// The sum of numbers, each to the nearest millionth; no row where there is none.
fn sum(numbers: &[f64]) -> Vec<NamedRow> {
    let millionths: i128 = numbers.iter().map(|number| i128::from((number * 1e6).round() as i64)).sum();
    let row = named([("users", int(numbers.len())), ("sum", Value::number(millionths as f64 / 1e6))]);
    Some(row).filter(|_| !numbers.is_empty()).into_iter().collect()
}

fn percentiles(numbers: impl Iterator<Item = f64>, asked: &[f64], resolution: f64) -> Vec<NamedRow> {
    let mut values: Vec<i64> = numbers.map(|number| (number / resolution).round() as i64).collect();
    values.sort_unstable();
    let row = |p: &f64| {
        let value = Value::number(nearest_rank(&values, *p)? as f64 * resolution);
        let (p, users) = (Value::number(*p), int(values.len()));
        Some(named([("percentile", p), ("users", users), ("value", value)]))
    };
    asked.iter().filter_map(row).collect()
}

fn top(at: usize, users: &[&Seen], limit: usize) -> Vec<NamedRow> {
    let mut ranked: Vec<_> = users.iter().filter_map(|seen| Some((seen.places[at].number?, seen))).collect();
    ranked.sort_by(|(a, one), (b, other)| {
        let texts = |seen: &Seen| (seen.user_id.clone(), seen.app_id.clone());
        b.partial_cmp(a).expect("numbers are no NaN").then_with(|| texts(one).cmp(&texts(other)))
    });
    let row = |(rank, (number, seen)): (usize, &(f64, &&Seen))| {
        named([
            ("rank", int(rank + 1)),
            ("value", Value::number(*number)),
            ("user_app_id", Value::text(&seen.app_id)),
            ("user_id", Value::text(&seen.user_id)),
        ])
    };
    ranked.iter().take(limit).enumerate().map(row).collect()
}

/// The periods in which a user of a cohort was active, each with the cohort; none for who never began.
fn cohort(period: Period, times: &[Vec<Micros>]) -> Vec<(Micros, Micros)> {
    let Some(begin) = times[0].iter().min() else { return Vec::new() };
    let cohort = start_of(period, *begin);
    let active: BTreeSet<Micros> = times[1].iter().map(|time| start_of(period, *time)).collect();
    active.into_iter().filter(|active| *active >= cohort).map(|active| (cohort, active)).collect()
}

fn funnel<'s>(steps: &[StepSpec], within: Micros, users: impl Iterator<Item = &'s Vec<Vec<Micros>>>) -> Vec<NamedRow> {
    let mut taken: Vec<Vec<i64>> = vec![Vec::new(); steps.len()];
    for times in users {
        let earliest = |step: usize, from: Micros| {
            let different: BTreeSet<Micros> = times[step].iter().copied().collect();
            different.into_iter().take(TIMES_MAX).find(|time| *time > from)
        };
        let Some(begin) = earliest(0, Micros::MIN) else { continue };
        // The first step is taken after this.
        let mut at = begin - 1;
        for (step, taken) in taken.iter_mut().enumerate() {
            match earliest(step, at) {
                Some(time) if time - begin <= within => at = time,
                _ => break,
            }
            taken.push(at - begin);
        }
    }
    let row = |(step, mut times): (&StepSpec, Vec<i64>)| {
        times.sort_unstable();
        let median = nearest_rank(&times, 0.5)?;
        let seconds = Value::number(median as f64 / 1e6);
        let name = Value::text(&step.name.value);
        Some(named([("step", name), ("users", int(times.len())), ("median_seconds", seconds)]))
    };
    steps.iter().zip(taken).filter_map(row).collect()
}

fn start_of(period: Period, time: Micros) -> Micros {
    let zoned = Timestamp::from_microsecond(time).expect("events lie in the years 0 to 9999").to_zoned(TimeZone::UTC);
    let date = zoned.date();
    let first = match period {
        Period::Day => date,
        Period::Week => date.checked_sub(i64::from(date.weekday().to_monday_zero_offset()).days()).expect("a date"),
        Period::Month => date.first_of_month(),
    };
    first.to_zoned(TimeZone::UTC).expect("UTC has every midnight").timestamp().as_microsecond()
}

/// Of sorted values the one at rank `max(1, ceil(p n))`.
fn nearest_rank(values: &[i64], p: f64) -> Option<i64> {
    let rank = (p * values.len() as f64).ceil().max(1.0) as usize;
    values.get(rank - 1).copied()
}

/// A row for each different item, with how often it is there.
fn counted<'i, T: Ord + 'i>(items: impl Iterator<Item = &'i T>, row: impl Fn(&T) -> NamedRow) -> Vec<NamedRow> {
    let mut counts: BTreeMap<&T, usize> = BTreeMap::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    let with_count = |(item, count): (&T, usize)| {
        let mut row = row(item);
        row.insert("users".to_owned(), int(count));
        row
    };
    counts.into_iter().map(with_count).collect()
}

fn named<const N: usize>(columns: [(&str, Value); N]) -> NamedRow {
    columns.map(|(name, value)| (name.to_owned(), value)).into()
}

fn int(number: usize) -> Value {
    Value::Int(number as i64)
}
