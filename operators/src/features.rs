//! Features: what the cells of a key say as of an instant.
//!
//! Panes are combined from oldest to newest, always anew: a running total would round differently after a recovery.

use whisperer_schemas::time::{DAY, MINUTE, Micros};

use crate::{
    cells::{Layout, SlotKind, count_of, decay_factor, floor_div, least_word, pane_of, session_of},
    spec::days,
    window::Window,
};

/// How a feature's value is read from its slots; numbers are indexes of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the aggregates")]
pub enum Read {
    Count {
        slot: usize,
    },
    Rate {
        slot: usize,
    },
    Sum {
        slot: usize,
    },
    Mean {
        sum: usize,
        count: usize,
    },
    /// The least of the panes' values.
    Min {
        slot: usize,
    },
    /// The greatest of the panes' values.
    Max {
        slot: usize,
    },
    Last {
        slot: usize,
    },
    First {
        slot: usize,
    },
    Distinct {
        slot: usize,
    },
    Recency {
        slot: usize,
    },
    Streak {
        slot: usize,
    },
    Ewma {
        slot: usize,
        half_life: Micros,
        weighted: bool,
    },
    Trend {
        slot: usize,
        counts: bool,
    },
    Sessions {
        slot: usize,
    },
    SessionMinutes {
        slot: usize,
    },
}

/// A compiled feature.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// Where its value comes from.
    pub read: Read,
    /// The window; none is lifetime.
    pub window: Option<Window>,
    /// What the value is divided by.
    pub divide_by: Option<f64>,
    /// Whether its value is a text.
    pub text: bool,
    /// Of a trend, how far its panes are spread.
    pub spread: f64,
}

/// A feature's value: null is NaN, and a text is its number among the worker's texts.
#[derive(Clone, Copy, Debug)]
pub enum Reading {
    /// A number or null.
    Number(f64),
    /// A text's number, if there is one.
    Text(Option<u32>),
}

/// The cells of one key, with the place at which each slot's begin.
#[derive(Clone, Copy, Debug)]
pub struct CellsView<'a> {
    /// All words.
    pub words: &'a [u64],
    /// As [`crate::cells::Cells::starts`] fills it.
    pub starts: &'a [u32],
    /// The job's slots.
    pub layout: &'a Layout,
}

impl<'a> CellsView<'a> {
    /// A slot's cells, each as its words.
    #[inline]
    pub fn cells(&self, slot: usize) -> std::slice::ChunksExact<'a, u64> {
        let range = self.starts[slot] as usize..self.starts[slot + 1] as usize;
        self.words[range].chunks_exact(self.layout.width(slot))
    }

    /// A slot's sessions that began inside a window as of `now`, oldest first.
    pub fn sessions(
        &self,
        slot: usize,
        window: Option<Window>,
        now: Micros,
    ) -> impl Iterator<Item = &'a [u64]> + use<'a> {
        let oldest =
            window.map_or(Micros::MIN, |window| window.oldest(window.pane_of(now)).saturating_mul(window.pane));
        self.cells(slot).skip_while(move |cell| session_of(cell).0 < oldest)
    }

    /// The pane of a window in which a cell's content lies. Counts may be kept in finer panes than the window's, and a session lies
    /// where it began.
    #[inline]
    #[must_use]
    pub fn content_pane(&self, slot: usize, window: Window, cell: &[u64]) -> i64 {
        let kept = &self.layout.slots()[slot];
        match kept.kind {
            SlotKind::Sessions { .. } => window.pane_of(session_of(cell).0),
            _ if kept.pane == window.pane => pane_of(cell[0]),
            _ => window.pane_of(pane_of(cell[0]) * kept.pane),
        }
    }

    /// A slot's cells inside a window as of `now`, oldest first.
    #[inline]
    pub fn within(&self, slot: usize, window: Option<Window>, now: Micros) -> std::slice::ChunksExact<'a, u64> {
        self.words_within(slot, window, now).chunks_exact(self.layout.width(slot))
    }

    /// What the cells of a slot of counts come to inside a window as of `now`.
    #[inline]
    #[must_use]
    pub fn count_within(&self, slot: usize, window: Option<Window>, now: Micros) -> u64 {
        // A count has no word but its first.
        self.words_within(slot, window, now).iter().map(|word| count_of(*word)).sum()
    }

    /// The oldest of a slot's cells whose content lies inside a window as of `now`, sessions too.
    #[inline]
    pub(crate) fn oldest_within(&self, slot: usize, window: Window, now: Micros) -> Option<&'a [u64]> {
        match self.layout.slots()[slot].kind {
            SlotKind::Sessions { .. } => self.sessions(slot, Some(window), now).next(),
            _ => self.within(slot, Some(window), now).next(),
        }
    }

    #[inline]
    fn words_within(&self, slot: usize, window: Option<Window>, now: Micros) -> &'a [u64] {
        let mut words = &self.words[self.starts[slot] as usize..self.starts[slot + 1] as usize];
        if let Some(window) = window
            && !words.is_empty()
        {
            let (oldest, kept) = (window.oldest(window.pane_of(now)), self.layout.slots()[slot].pane);
            let oldest = if kept == window.pane { oldest } else { floor_div(oldest.saturating_mul(window.pane), kept) };
            let least = least_word(slot, oldest);
            while words.first().is_some_and(|first| *first < least) {
                words = &words[self.layout.width(slot)..];
            }
        }
        words
    }
}

impl Feature {
    /// The value as of `now`, which is never before the key clock.
    #[must_use]
    pub fn read(&self, cells: CellsView<'_>, now: Micros) -> Reading {
        if self.text {
            return Reading::Text(self.text_value(cells, now).map(|number| number as u32));
        }
        let number = self.number(cells, now);
        let divided = self.divide_by.map_or(number, |by| number / by);
        Reading::Number(if divided.is_finite() { divided } else { f64::NAN })
    }

    /// Whether a value was refused that the window still holds.
    #[must_use]
    pub fn capped(&self, cells: CellsView<'_>, now: Micros) -> bool {
        match self.read {
            Read::Distinct { slot } => cells.within(slot + 1, self.window, now).next().is_some(),
            _ => false,
        }
    }

    fn number(&self, cells: CellsView<'_>, now: Micros) -> f64 {
        let within = |slot| cells.within(slot, self.window, now);
        let payloads = |slot| within(slot).map(|cell| f64::from_bits(cell[1]));
        let count = |slot| cells.count_within(slot, self.window, now) as f64;
        match self.read {
            Read::Count { slot } => count(slot),
            Read::Rate { slot } => {
                let window = self.window.expect("a rate has a window: checked when the job is compiled");
                count(slot) / days(window.pane * window.panes)
            }
            Read::Sum { slot } => payloads(slot).fold(0.0, |sum, part| sum + part),
            Read::Mean { sum, count: n } => payloads(sum).fold(0.0, |sum, part| sum + part) / count(n),
            Read::Min { slot } => payloads(slot).fold(f64::NAN, f64::min),
            Read::Max { slot } => payloads(slot).fold(f64::NAN, f64::max),
            Read::Last { .. } | Read::First { .. } => self.extreme(cells, now).map_or(f64::NAN, f64::from_bits),
            Read::Distinct { slot } => within(slot).len() as f64,
            Read::Recency { slot } => within(slot).next_back().map_or(f64::NAN, |cell| days(now - cell[1] as Micros)),
            Read::Streak { slot } => {
                let kept = cells.layout.slots()[slot].pane;
                let day =
                    |cell: &[u64]| if kept == DAY { pane_of(cell[0]) } else { floor_div(pane_of(cell[0]) * kept, DAY) };
                streak(within(slot).map(day), now.div_euclid(DAY))
            }
            Read::Ewma { slot, half_life, weighted } => ewma(within(slot), now, half_life, weighted),
            Read::Trend { slot, counts } => {
                let window = self.window.expect("a trend has a window: checked when the job is compiled");
                let oldest = window.oldest(window.pane_of(now));
                let panes = within(slot).map(|cell| {
                    let value = if counts { count_of(cell[0]) as f64 } else { f64::from_bits(cell[1]) };
                    (cells.content_pane(slot, window, cell) - oldest, value)
                });
                trend(panes, window, self.spread)
            }
            Read::Sessions { slot } => cells.sessions(slot, self.window, now).count() as f64,
            Read::SessionMinutes { slot } => session_minutes(cells.sessions(slot, self.window, now)),
        }
    }

    fn text_value(&self, cells: CellsView<'_>, now: Micros) -> Option<u64> {
        self.extreme(cells, now)
    }

    /// The value of the pane that `last` or `first` is in: panes are ordered, and hold their own extreme.
    fn extreme(&self, cells: CellsView<'_>, now: Micros) -> Option<u64> {
        match self.read {
            Read::Last { slot } => cells.within(slot, self.window, now).next_back().map(|cell| cell[2]),
            Read::First { slot } => cells.within(slot, self.window, now).next().map(|cell| cell[2]),
            _ => None,
        }
    }
}

/// Consecutive days up to today, or up to yesterday where today has none. A day may come in several cells.
fn streak(days: impl Iterator<Item = i64>, today: i64) -> f64 {
    let mut length = 0_i64;
    let mut newest = i64::MIN;
    for day in days {
        length = match day.checked_sub(newest) {
            Some(0) => length,
            Some(1) => length + 1,
            _ => 1,
        };
        newest = day;
    }
    if newest >= today - 1 { length as f64 } else { 0.0 }
}

fn ewma<'a>(cells: impl Iterator<Item = &'a [u64]>, now: Micros, half_life: Micros, weighted: bool) -> f64 {
    let (mut sum, mut weight) = (0.0, 0.0);
    for cell in cells {
        let factor = decay_factor(now - cell[1] as Micros, half_life);
        weight += f64::from_bits(cell[2]) * factor;
        if weighted {
            sum += f64::from_bits(cell[3]) * factor;
        }
    }
    if weighted { sum / weight } else { weight }
}

/// Days of a pane from the middle of the window.
fn distance(window: Window, index: i64) -> f64 {
    let centre = (window.panes - 1) as f64 / 2.0;
    (index as f64 - centre) * days(window.pane)
}

/// How far the panes of a window are spread: the sum of the squares of their distances, as [`trend`] divides by it.
pub(crate) fn spread(window: Window) -> f64 {
    (0..window.panes).fold(0.0, |sum, index| sum + distance(window, index) * distance(window, index))
}

/// Least-squares slope per day over all panes of the window, empty ones 0.
///
/// With x centred, `slope = Σ d·y / Σ d²`; empty panes add nothing above, and all panes below.
fn trend(cells: impl Iterator<Item = (i64, f64)>, window: Window, spread: f64) -> f64 {
    let distance = |index: i64| distance(window, index);
    let mut above = 0.0;
    let mut pane = (i64::MIN, 0.0);
    for (index, value) in cells {
        // A count that overflowed its cell, or is kept in finer panes, comes in several cells of one pane.
        if pane.0 == index {
            pane.1 += value;
        } else {
            above += distance(pane.0) * pane.1;
            pane = (index, value);
        }
    }
    if pane.0 != i64::MIN {
        above += distance(pane.0) * pane.1;
    }
    above / spread
}

fn session_minutes<'a>(cells: impl Iterator<Item = &'a [u64]>) -> f64 {
    let (mut count, mut length) = (0_u32, 0_i64);
    for cell in cells {
        count += 1;
        let (start, end) = session_of(cell);
        length += end - start;
    }
    length as f64 / MINUTE as f64 / f64::from(count)
}
