//! Timers: the instants at which time alone can change what a key's conditions say.
//!
//! Pending timers are a function of a key's state: those that the state asks for, above the key's floor (the largest of its clock, of
//! the `pw` that it has seen and of the timers that fired). So nothing about timers has to be stored but the floor.

use whisperer_schemas::time::{DAY, Micros, format_duration};

use crate::{
    cells::{Slot, floor_div, pane_of},
    expression::Comparison,
    features::{CellsView, Read},
    job::Reads,
    record::LaneMask,
    spec::{JobSpec, SnapshotSpec},
    window::Window,
};

/// What the state of a key may ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asks {
    each: Vec<Ask>,
    /// The lanes whose events can make each of them due earlier.
    lanes: Vec<LaneMask>,
    /// Where a drifting value is read: the windows whose content keeps it drifting.
    drift: Option<Drift>,
    snapshot: SnapshotSpec,
}

/// One kind of timer of one feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// When a pane with content leaves the window.
    PaneLeaves { slot: usize, window: Window },
    /// Every pane boundary whose window holds content.
    Boundary { slot: usize, window: Window },
    /// The midnight that ends a streak.
    StreakEnds { slot: usize },
    /// The first microsecond at which a comparison of a recency changes.
    Reaches { slot: usize, window: Option<Window>, after: Micros },
}

#[derive(Clone, Debug, PartialEq)]
struct Drift {
    after_key_clock: Micros,
    windows: Vec<(usize, Window)>,
}

/// Why a timer is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A pane leaves a window, or a trend moves on.
    Window,
    /// A streak ends.
    Streak,
    /// A recency reaches a constant.
    Recency,
    /// A drifting value is looked at.
    Midnight,
    /// A profile row is written.
    Snapshot,
}

impl Reason {
    /// The reason as the profiles table writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Window => "window",
            Reason::Streak => "streak",
            Reason::Recency => "recency",
            Reason::Midnight => "midnight",
            Reason::Snapshot => "snapshot",
        }
    }
}

/// The facts of a key that its timers depend on, besides its cells.
#[derive(Clone, Copy, Debug)]
pub struct KeyTimes {
    /// Largest event time applied.
    pub key_clock: Micros,
    /// Timers at or below are not pending.
    pub floor: Micros,
    /// Whether the key changed since its last profile row.
    pub changed: bool,
}

impl Asks {
    /// What the conditions of a job make its keys ask for.
    pub(crate) fn new(spec: &JobSpec, features: &crate::job::CompiledFeatures, reads: &Reads) -> Asks {
        let mut asks = Asks { snapshot: spec.snapshot, ..Asks::default() };
        for at in reads.features() {
            let (feature, content) = (&features.features[at], features.content[at]);
            if let Some(window) = feature.window {
                asks.add(Ask::PaneLeaves { slot: content, window });
                if matches!(feature.read, Read::Trend { .. }) {
                    asks.add(Ask::Boundary { slot: content, window });
                }
            }
            if let Read::Streak { slot } = feature.read
                && feature.window.is_none_or(|window| window.panes > 1)
            {
                asks.add(Ask::StreakEnds { slot });
            }
        }
        for (at, op, constant) in &reads.comparisons {
            let feature = &features.features[*at];
            if let Read::Recency { slot } = feature.read {
                for after in changes(*op, *constant, feature.divide_by) {
                    asks.add(Ask::Reaches { slot, window: feature.window, after });
                }
            }
        }
        let reads_at = |at: &usize| features.features[*at].read;
        let drifts = reads.features().iter().any(|at| matches!(reads_at(at), Read::Ewma { .. }))
            || reads.otherwise.iter().any(|at| matches!(reads_at(at), Read::Recency { .. }));
        if drifts {
            let windows = features.features.iter().zip(&features.content);
            let mut windows: Vec<_> =
                windows.filter_map(|(feature, slot)| feature.window.map(|window| (*slot, window))).collect();
            windows.dedup();
            asks.drift = Some(Drift { after_key_clock: i64::from(spec.decay_days) * DAY, windows });
        }
        asks.lanes = asks.each.iter().map(|ask| 1 << features.slots[ask.slot()].lane).collect();
        asks
    }

    fn add(&mut self, ask: Ask) {
        if !self.each.contains(&ask) {
            self.each.push(ask);
        }
    }

    /// The earliest pending timer that leads to an evaluation; `Micros::MAX` if there is none.
    #[must_use]
    pub fn next_evaluation(&self, cells: CellsView<'_>, times: KeyTimes) -> Micros {
        let each = self.each.iter().map(|ask| ask.due(cells, times.floor));
        each.fold(self.next_midnight(cells, times), Micros::min)
    }

    /// What an event in these lanes can have brought forward: the earliest such timer, and whether the event can have put one off.
    /// Midnights and boundaries of snapshots are never put off: they stay pending until they are reached.
    #[must_use]
    pub fn next_touched(&self, cells: CellsView<'_>, times: KeyTimes, lanes: LaneMask) -> (Micros, bool) {
        let each = self.each.iter().zip(&self.lanes).filter(|(_, of)| *of & lanes != 0);
        let next = each.map(|(ask, _)| ask.due(cells, times.floor)).min();
        let others = self.next_midnight(cells, times).min(self.next_snapshot(times));
        (next.map_or(others, |next| next.min(others)), next.is_some())
    }

    /// The earliest boundary at which the key has a profile row to write; `Micros::MAX` if there is none.
    #[must_use]
    pub fn next_snapshot(&self, times: KeyTimes) -> Micros {
        let next = |every: Option<Micros>| every.map_or(Micros::MAX, |every| next_multiple(times.floor, every));
        let changed = if times.changed { self.snapshot.every } else { None };
        next(changed).min(next(self.snapshot.full_every))
    }

    /// All kinds of pending timers, each with its earliest instant, earliest first.
    #[must_use]
    pub fn pending(&self, cells: CellsView<'_>, times: KeyTimes) -> Vec<(Micros, Reason)> {
        let mut pending: Vec<_> = self.each.iter().map(|ask| (ask.due(cells, times.floor), ask.reason())).collect();
        pending.push((self.next_midnight(cells, times), Reason::Midnight));
        pending.push((self.next_snapshot(times), Reason::Snapshot));
        pending.retain(|(due, _)| *due != Micros::MAX);
        pending.sort_unstable();
        pending.dedup();
        pending
    }

    /// What the conditions make keys ask for, a sentence each.
    #[must_use]
    pub fn describe(&self, slots: &[Slot]) -> Vec<String> {
        let mut lines: Vec<String> = self.each.iter().map(|ask| ask.describe(slots)).collect();
        if let Some(drift) = &self.drift {
            lines.push(format!(
                "each UTC midnight, while a window holds content or up to {} after the key clock",
                format_duration(drift.after_key_clock)
            ));
        }
        for (every, of) in [(self.snapshot.every, "a changed user"), (self.snapshot.full_every, "every user")] {
            lines.extend(every.map(|every| format!("every {}: a profile row of {of}", format_duration(every))));
        }
        lines
    }

    fn next_midnight(&self, cells: CellsView<'_>, times: KeyTimes) -> Micros {
        let Some(drift) = &self.drift else { return Micros::MAX };
        let midnight = next_multiple(times.floor, DAY);
        let fresh = midnight <= times.key_clock.saturating_add(drift.after_key_clock);
        let holds_content = |(slot, window): &(usize, Window)| {
            let newest = newest(cells, *slot, *window);
            newest.is_some_and(|pane| window.oldest(window.pane_of(midnight)) <= pane)
        };
        if fresh || drift.windows.iter().any(holds_content) { midnight } else { Micros::MAX }
    }
}

impl Ask {
    fn slot(self) -> usize {
        match self {
            Ask::PaneLeaves { slot, .. }
            | Ask::Boundary { slot, .. }
            | Ask::StreakEnds { slot }
            | Ask::Reaches { slot, .. } => slot,
        }
    }

    fn due(self, cells: CellsView<'_>, floor: Micros) -> Micros {
        let due = match self {
            Ask::PaneLeaves { slot, window } => {
                // What lies in the window as of `floor` leaves it later, and what does not has left it by then.
                let oldest = cells.oldest_within(slot, window, floor);
                oldest.map(|cell| window.leaves_at(cells.content_pane(slot, window, cell)))
            }
            Ask::Boundary { slot, window } => {
                let boundary = next_multiple(floor, window.pane);
                let newest = newest(cells, slot, window);
                newest.filter(|pane| window.oldest(window.pane_of(boundary)) <= *pane).map(|_| boundary)
            }
            Ask::StreakEnds { slot } => {
                newest(cells, slot, Window { pane: DAY, panes: 1 }).map(|day| (day + 2).saturating_mul(DAY))
            }
            Ask::Reaches { slot, window, after } => cells.cells(slot).next_back().and_then(|cell| {
                let due = (cell[1] as Micros).saturating_add(after);
                // Once its pane has left the window the recency is null, and reaches nothing.
                let held = window.is_none_or(|window| due < window.leaves_at(pane_of(cell[0])));
                held.then_some(due)
            }),
        };
        due.filter(|due| *due > floor).unwrap_or(Micros::MAX)
    }

    fn describe(self, slots: &[Slot]) -> String {
        let of = |slot: usize| format!("{:?} of lane {}", slots[slot].kind, slots[slot].lane);
        match self {
            Ask::PaneLeaves { slot, window } => {
                let length = format_duration(window.pane * window.panes);
                format!("a pane of {} leaves the window of {length} ({})", format_duration(window.pane), of(slot))
            }
            Ask::Boundary { slot, window } => {
                format!("every {} while the trend has content ({})", format_duration(window.pane), of(slot))
            }
            Ask::StreakEnds { slot } => format!("the midnight that ends a streak ({})", of(slot)),
            Ask::Reaches { slot, after, .. } => {
                format!("{} after the last event ({})", format_duration(after), of(slot))
            }
        }
    }

    fn reason(self) -> Reason {
        match self {
            Ask::PaneLeaves { .. } | Ask::Boundary { .. } => Reason::Window,
            Ask::StreakEnds { .. } => Reason::Streak,
            Ask::Reaches { .. } => Reason::Recency,
        }
    }
}

/// The newest pane of the window that holds content.
fn newest(cells: CellsView<'_>, slot: usize, window: Window) -> Option<i64> {
    cells.cells(slot).next_back().map(|cell| cells.content_pane(slot, window, cell))
}

/// The least multiple of `every` above `floor`.
fn next_multiple(floor: Micros, every: Micros) -> Micros {
    floor_div(floor, every).saturating_add(1).saturating_mul(every)
}

/// The spans after the last event at which the comparison of a recency with a constant changes.
fn changes(op: Comparison, constant: f64, divide_by: Option<f64>) -> Vec<Micros> {
    let value = |span: Micros| crate::spec::days(span) / divide_by.unwrap_or(1.0);
    let reaches = || first_span(|span| value(span) >= constant);
    let passes = || first_span(|span| value(span) > constant);
    let spans = match op {
        Comparison::GreaterOrEqual | Comparison::Less => [reaches(), None],
        Comparison::Greater | Comparison::LessOrEqual => [passes(), None],
        Comparison::Equal | Comparison::NotEqual => [reaches(), passes()],
    };
    // What holds from the event on does not change later.
    spans.into_iter().flatten().filter(|span| *span > 0).collect()
}

/// The least span for which a condition, which holds from some span on, holds.
fn first_span(holds: impl Fn(Micros) -> bool) -> Option<Micros> {
    /// No event time lies further from another than this: the years 0 to 9999.
    const SPAN_MAX: Micros = 10_000 * 366 * DAY;
    if !holds(SPAN_MAX) {
        return None;
    }
    let (mut below, mut above) = (-1, SPAN_MAX);
    while above - below > 1 {
        let middle = below + (above - below) / 2;
        if holds(middle) { above = middle } else { below = middle }
    }
    Some(above)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_changes_at_its_first_microsecond() {
        // `>= 7` and `< 7` change at seven days sharp, `> 7` and `<= 7` one microsecond later, `= 7` at both.
        let week = 7 * DAY;
        assert_eq!(changes(Comparison::GreaterOrEqual, 7.0, None), [week]);
        assert_eq!(changes(Comparison::LessOrEqual, 7.0, None), [week + 1]);
        assert_eq!(changes(Comparison::Equal, 7.0, None), [week, week + 1]);
        assert_eq!(changes(Comparison::Less, 1.0, Some(7.0)), [week]);
        assert!(changes(Comparison::GreaterOrEqual, 0.0, None).is_empty());
        assert_eq!(changes(Comparison::Greater, 0.0, None), [1]);
        assert!(changes(Comparison::Greater, f64::NAN, None).is_empty());
    }

    #[test]
    fn multiples_lie_above_their_floor() {
        // Also before 1970, and where the floor is no time at all.
        assert_eq!(next_multiple(0, 10), 10);
        assert_eq!(next_multiple(-1, 10), 0);
        assert_eq!(next_multiple(9, 10), 10);
        assert!(next_multiple(Micros::MIN, DAY) < 0);
    }
}
