//! The timers that a key's state asks for, worked out from nothing each time.

use whisperer_schemas::time::{DAY, Micros};

use super::{
    features::Touch,
    plan::{Plan, Window},
};
use crate::spec::{Aggregate, SnapshotSpec};

/// What decides the pending timers of a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting<'a> {
    /// By feature, what touched it.
    pub touches: &'a [Vec<Touch>],
    /// The key clock.
    pub clock: Micros,
    /// Only timers above this are pending.
    pub floor: Micros,
    /// Whether a row would show something new.
    pub changed: bool,
}

/// The earliest pending timer of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub at: Micros,
    /// Whether conditions are to be evaluated; otherwise it is for a snapshot alone.
    pub evaluation: bool,
}

pub(super) fn next(plan: &Plan, key: Waiting) -> Option<Due> {
    let evaluation = evaluation(plan, key);
    let at = evaluation.into_iter().chain(snapshot(plan.spec.snapshot, key)).min()?;
    Some(Due { at, evaluation: evaluation == Some(at) })
}

/// Whether a snapshot is to be taken at an instant.
pub(super) fn is_snapshot(spec: SnapshotSpec, changed: bool, at: Micros) -> bool {
    let on = |every: Option<Micros>| every.is_some_and(|every| at % every == 0);
    (changed && on(spec.every)) || on(spec.full_every)
}

fn snapshot(spec: SnapshotSpec, key: Waiting) -> Option<Micros> {
    let changed = spec.every.filter(|_| key.changed).map(|every| next_multiple(key.floor, every));
    let full = spec.full_every.map(|every| next_multiple(key.floor, every));
    changed.into_iter().chain(full).min()
}

fn next_multiple(floor: Micros, every: Micros) -> Micros {
    (floor.div_euclid(every) + 1) * every
}

fn evaluation(plan: &Plan, key: Waiting) -> Option<Micros> {
    let mut dues = Vec::new();
    for &index in &plan.reads.features {
        let (feature, touches) = (&plan.features[index], &key.touches[index]);
        let content = feature.window.map(|window| (window, feature.content(&window, touches)));
        if let Some((window, content)) = &content {
            dues.extend(content.iter().map(|pane| (pane + window.panes) * window.pane));
            if feature.spec.aggregate == Aggregate::Trend {
                let boundary = next_multiple(key.floor, window.pane);
                dues.extend(holds_any(window, content, boundary).then_some(boundary));
            }
        }
        if feature.spec.aggregate == Aggregate::Streak && feature.window.is_none_or(|window| window.panes >= 2) {
            dues.extend(feature.newest_day(touches, key.floor).map(|day| (day + 2) * DAY));
        }
    }
    for threshold in &plan.reads.thresholds {
        let last = plan.features[threshold.feature].newest(&key.touches[threshold.feature], key.floor);
        dues.extend(last.and_then(|last| last.checked_add(threshold.after)));
    }
    if plan.reads.drifting {
        let midnight = next_multiple(key.floor, DAY);
        let near = midnight <= key.clock + i64::from(plan.spec.decay_days) * DAY;
        dues.extend((near || any_content(plan, key, midnight)).then_some(midnight));
    }
    dues.into_iter().filter(|due| *due > key.floor).min()
}

/// Whether the window as of `now` holds any of the panes.
fn holds_any(window: &Window, panes: &[i64], now: Micros) -> bool {
    panes.iter().any(|pane| window.holds(*pane, now))
}

/// Whether some window of the job, read or not, holds content as of `now`.
fn any_content(plan: &Plan, key: Waiting, now: Micros) -> bool {
    plan.features.iter().zip(key.touches).any(|(feature, touches)| {
        feature.window.is_some_and(|window| holds_any(&window, &feature.content(&window, touches), now))
    })
}
