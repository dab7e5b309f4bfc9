//! The value of a feature, computed anew from all that ever touched it.

use std::collections::{BTreeMap, BTreeSet};

use whisperer_schemas::time::{DAY, MINUTE, Micros};

use super::{
    expression::Datum,
    plan::{Feature, Window},
};
use crate::spec::Aggregate;

/// What one applied event gave to one feature.
#[derive(Clone, Debug)]
pub(super) struct Touch {
    /// The event's time.
    pub time: Micros,
    /// The key clock once the event was applied.
    pub clock: Micros,
    /// The value of `of`; null where there is none.
    pub value: Datum,
    /// Whose it was among the ids of a person, in their order; 0 for an id by itself.
    pub member: usize,
}

/// A feature's value at an instant.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reading {
    pub value: Datum,
    /// `distinct` only: whether the window holds an event that was refused.
    pub capped: bool,
}

impl Feature<'_> {
    /// The feature as of `now`; `touches` in log order.
    pub fn read(&self, touches: &[Touch], distinct_max: u32, now: Micros) -> Reading {
        let value = match self.spec.aggregate {
            Aggregate::Distinct => {
                let (count, capped) = self.distinct(touches, distinct_max, now);
                return Reading { value: self.divided(Datum::Number(count as f64)), capped };
            }
            Aggregate::Sessions | Aggregate::SessionMinutes => self.sessions_value(touches, now),
            _ => self.windowed_value(touches, now),
        };
        Reading { value: self.divided(value), capped: false }
    }

    /// Panes of the feature's window that ever had content. For sessions, a session's content is where it began.
    pub fn content(&self, window: &Window, touches: &[Touch]) -> Vec<i64> {
        match self.spec.aggregate {
            Aggregate::Sessions | Aggregate::SessionMinutes => {
                self.sessions(touches).into_iter().map(|(start, _)| window.pane_of(start)).collect()
            }
            _ => {
                let counted = touches.iter().filter(|touch| counted(Some(window), touch));
                counted.map(|touch| window.pane_of(touch.time)).collect()
            }
        }
    }

    /// The newest event time that counts as of `now`.
    pub fn newest(&self, touches: &[Touch], now: Micros) -> Option<Micros> {
        self.visible(touches, now).into_iter().map(|touch| touch.time).max()
    }

    /// The latest UTC day that counts as of `now`.
    pub fn newest_day(&self, touches: &[Touch], now: Micros) -> Option<i64> {
        self.newest(touches, now).map(|time| time.div_euclid(DAY))
    }

    /// The touches in the window as of `now`, in log order.
    fn visible<'t>(&self, touches: &'t [Touch], now: Micros) -> Vec<&'t Touch> {
        let window = self.window.as_ref();
        let in_window = |touch: &&Touch| window.is_none_or(|w| w.holds(w.pane_of(touch.time), now));
        touches.iter().filter(|touch| counted(window, touch)).filter(in_window).collect()
    }

    fn windowed_value(&self, touches: &[Touch], now: Micros) -> Datum {
        let visible = self.visible(touches, now);
        let count = visible.len() as f64;
        let values = || visible.iter().filter_map(|touch| touch.value.as_number());
        match self.spec.aggregate {
            Aggregate::Count => Datum::Number(count),
            Aggregate::Sum => Datum::number(self.sum(&visible)),
            Aggregate::Mean if visible.is_empty() => Datum::Null,
            Aggregate::Mean => Datum::number(self.sum(&visible) / count),
            Aggregate::Min => values().reduce(f64::min).map_or(Datum::Null, Datum::number),
            Aggregate::Max => values().reduce(f64::max).map_or(Datum::Null, Datum::number),
            // Of equal times `max_by_key` takes the last in the log, `min_by_key` the first.
            Aggregate::Last => visible.iter().max_by_key(|touch| touch.time).map_or(Datum::Null, |t| t.value.clone()),
            Aggregate::First => visible.iter().min_by_key(|touch| touch.time).map_or(Datum::Null, |t| t.value.clone()),
            Aggregate::Recency => {
                let newest = visible.iter().map(|touch| touch.time).max();
                newest.map_or(Datum::Null, |time| Datum::number((now - time) as f64 / 86_400_000_000.0))
            }
            Aggregate::Rate => {
                let length = self.window.map_or(f64::NAN, |window| window.length as f64);
                Datum::number(count / (length / 86_400_000_000.0))
            }
            Aggregate::Streak => Datum::Number(streak(&visible, now) as f64),
            Aggregate::Ewma => self.ewma(&visible, now),
            Aggregate::Trend => self.trend(&visible, now),
            Aggregate::Distinct | Aggregate::Sessions | Aggregate::SessionMinutes => Datum::Null,
        }
    }

    /// The panes that hold the touches, oldest first; lifetime is one pane.
    fn panes<'t>(&self, visible: &[&'t Touch]) -> BTreeMap<i64, Vec<&'t Touch>> {
        let mut panes: BTreeMap<i64, Vec<&Touch>> = BTreeMap::new();
        for touch in visible {
            panes.entry(self.window.map_or(0, |window| window.pane_of(touch.time))).or_default().push(touch);
        }
        panes
    }

    fn sum(&self, visible: &[&Touch]) -> f64 {
        self.panes(visible).values().fold(0.0, |sum, pane| sum + pane_sum(pane))
    }

    fn ewma(&self, visible: &[&Touch], now: Micros) -> Datum {
        let half_life = self.spec.half_life.unwrap_or(DAY) as f64;
        let decay = |age: Micros| libm::exp2(-(age as f64 / half_life));
        let (mut sum, mut weight) = (0.0, 0.0);
        for pane in self.panes(visible).values() {
            let of_members = members(pane).map(|touches| {
                let (mut newest, mut s, mut w) = (touches[0].time, 0.0, 0.0);
                for touch in touches {
                    let value = touch.value.as_number().unwrap_or(0.0);
                    (newest, s, w) = newer((newest, s, w), (touch.time, value, 1.0), decay);
                }
                (newest, s, w)
            });
            let (newest, s, w) = of_members.reduce(|all, more| newer(all, more, decay)).expect("a pane has touches");
            sum += s * decay(now - newest);
            weight += w * decay(now - newest);
        }
        match (self.has_of(), visible.is_empty()) {
            (true, true) => Datum::Null,
            (true, false) => Datum::number(sum / weight),
            (false, _) => Datum::number(weight),
        }
    }

    fn trend(&self, visible: &[&Touch], now: Micros) -> Datum {
        let Some(window) = self.window else { return Datum::Null };
        let panes = self.panes(visible);
        let oldest = window.pane_of(now) - window.panes + 1;
        let pane_days = window.pane as f64 / 86_400_000_000.0;
        let (mut upper, mut lower) = (0.0, 0.0);
        for i in 0..window.panes {
            let d = (i as f64 - (window.panes - 1) as f64 / 2.0) * pane_days;
            let y = panes.get(&(oldest + i)).map_or(0.0, |pane| match self.has_of() {
                true => pane_sum(pane),
                false => pane.len() as f64,
            });
            upper += d * y;
            lower += d * d;
        }
        Datum::number(upper / lower)
    }

    /// The size of the set as of `now`, and whether it refused an event that the window holds.
    fn distinct(&self, touches: &[Touch], distinct_max: u32, now: Micros) -> (usize, bool) {
        let mut all = BTreeSet::new();
        let mut capped = false;
        for touches in members(&touches.iter().collect::<Vec<_>>()) {
            let (values, refused) = self.distinct_of_one(touches, distinct_max, now);
            all.extend(values);
            capped |= refused;
        }
        (all.len(), capped)
    }

    /// The set of one id.
    fn distinct_of_one(&self, touches: &[&Touch], distinct_max: u32, now: Micros) -> (BTreeSet<Distinct>, bool) {
        // By value the newest pane in which it was counted.
        let mut newest: BTreeMap<Distinct, i64> = BTreeMap::new();
        let mut refused = BTreeSet::new();
        let pane_of = |time| self.window.map_or(0, |window| window.pane_of(time));
        let held = |pane: i64, now| self.window.is_none_or(|window| window.holds(pane, now));
        for touch in touches.iter().filter(|touch| counted(self.window.as_ref(), touch)) {
            let pane = pane_of(touch.time);
            newest.retain(|_, newest| held(*newest, touch.clock));
            let full = newest.len() >= distinct_max as usize;
            let value = Distinct::of(&touch.value);
            match newest.get_mut(&value) {
                Some(newest) => *newest = pane.max(*newest),
                None if full => {
                    refused.insert(pane);
                }
                None => {
                    newest.insert(value, pane);
                }
            }
        }
        newest.retain(|_, newest| held(*newest, now));
        (newest.into_keys().collect(), refused.into_iter().any(|pane| held(pane, now)))
    }

    fn sessions_value(&self, touches: &[Touch], now: Micros) -> Datum {
        let mut sessions = self.sessions(touches);
        sessions.retain(|(start, _)| self.window.is_none_or(|window| window.holds(window.pane_of(*start), now)));
        if self.spec.aggregate == Aggregate::Sessions {
            return Datum::Number(sessions.len() as f64);
        }
        let lengths: Micros = sessions.iter().map(|(start, end)| end - start).sum();
        Datum::number(lengths as f64 / 60e6 / sessions.len() as f64)
    }

    /// Start and end of the maximal runs of events with gaps of at most `gap`, over all events whatever the window.
    fn sessions(&self, touches: &[Touch]) -> Vec<(Micros, Micros)> {
        let gap = self.spec.gap.unwrap_or(30 * MINUTE);
        let mut times: Vec<Micros> = touches.iter().map(|touch| touch.time).collect();
        times.sort_unstable();
        let mut sessions: Vec<(Micros, Micros)> = Vec::new();
        for time in times {
            match sessions.last_mut() {
                Some((_, end)) if time - *end <= gap => *end = time,
                _ => sessions.push((time, time)),
            }
        }
        sessions
    }

    fn divided(&self, value: Datum) -> Datum {
        match (value, self.spec.divide_by) {
            (Datum::Number(number), Some(divisor)) => Datum::number(number / divisor),
            (value, _) => value,
        }
    }
}

/// Whether the event was in the window at the key clock when it was applied; otherwise it never counts.
fn counted(window: Option<&Window>, touch: &Touch) -> bool {
    window.is_none_or(|window| window.holds(window.pane_of(touch.time), touch.clock))
}

/// What each id of a person did.
fn members<'s, 't>(touches: &'s [&'t Touch]) -> impl Iterator<Item = &'s [&'t Touch]> {
    touches.chunk_by(|one, other| one.member == other.member)
}

fn pane_sum(pane: &[&Touch]) -> f64 {
    let of_member = |touches: &[&Touch]| {
        touches.iter().filter_map(|touch| touch.value.as_number()).fold(0.0, |sum, value| sum + value)
    };
    members(pane).map(of_member).fold(0.0, |sum, member| sum + member)
}

/// Two weighted sums as of the newer of their times.
fn newer(
    (here, sum, weight): (Micros, f64, f64),
    (there, more, weights): (Micros, f64, f64),
    decay: impl Fn(Micros) -> f64,
) -> (Micros, f64, f64) {
    if there >= here {
        let factor = decay(there - here);
        (there, sum * factor + more, weight * factor + weights)
    } else {
        let factor = decay(here - there);
        (here, sum + more * factor, weight + weights * factor)
    }
}

/// Consecutive UTC days with an event, back from today or, if today has none, from yesterday.
fn streak(visible: &[&Touch], now: Micros) -> i64 {
    let days: BTreeSet<i64> = visible.iter().map(|touch| touch.time.div_euclid(DAY)).collect();
    let today = now.div_euclid(DAY);
    let last = if days.contains(&today) { today } else { today - 1 };
    (0..).take_while(|back| days.contains(&(last - back))).count() as i64
}

/// A value by which `distinct` tells events apart: numbers by their value, texts by their code points.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Distinct {
    Number(u64),
    Text(String),
}

impl Distinct {
    fn of(value: &Datum) -> Distinct {
        match value {
            // Negative zero equals zero.
            Datum::Number(number) => Distinct::Number((number + 0.0).to_bits()),
            Datum::Text(text) => Distinct::Text(text.clone()),
            Datum::Bool(_) | Datum::Null => Distinct::Text(String::new()),
        }
    }
}
