//! Cells: the aggregates of one key, sparse and packed into 64-bit words.
//!
//! ```text
//! word  = slot (9 bits) | pane + 2^32 (33 bits) | low (22 bits), then `width` payload words
//! cells = words ordered by (slot, pane); all cells of a slot have the same width
//! ```
//! A slot is one accumulator of the job (a count, a sum, the set of values …) over panes of one length; what a key never did
//! takes no room. A count lives in the low bits of its only word, chained over several cells of the same pane where it overflows
//! them, so a count of a pane costs eight bytes. Lifetime slots have the one pane 0. A session needs no pane: behind the slot
//! it has its start (59 bits) and its length (60 bits), which orders it like one.

mod editor;
mod history;
mod merge;

use whisperer_schemas::time::{DAY, HOUR, MINUTE, Micros};

use crate::spec::Period;

pub use editor::{Editor, decay_factor};

/// Slots in a job, those of its triggers included.
pub const SLOTS_MAX: usize = 1 << 9;

const LOW_BITS: u32 = 22;
const PANE_BITS: u32 = 33;
const LOW_MAX: u64 = (1 << LOW_BITS) - 1;
const PANE_BIAS: i64 = 1 << 32;
/// Bits of a session's start and length; the years 0 to 9999 need no more.
const START_BITS: u32 = 59;
const LENGTH_BITS: u32 = 60;
const START_BIAS: Micros = 1 << (START_BITS - 1);
/// Bits of the start that stand in the second word.
const START_LOW_BITS: u32 = u64::BITS - LENGTH_BITS;

/// The part of a word by which cells are ordered.
type CellKey = u64;

/// What a slot accumulates, per pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlotKind {
    /// Number of events: in the low bits.
    Count,
    /// Sum of the values: `f64`.
    Sum,
    /// Least value: `f64`.
    Min,
    /// Greatest value: `f64`.
    Max,
    /// Value of the greatest event time: time, value.
    Last,
    /// Value of the least event time: time, value.
    First,
    /// Greatest event time.
    Latest,
    /// A cell per different value, in the newest pane that it was seen in: hash.
    Values {
        /// Values kept.
        max: u32,
    },
    /// Panes in which a value was refused: no payload.
    Refused,
    /// Weights decaying since the pane's newest event: time, weight.
    Decay {
        /// Half-life.
        half_life: Micros,
    },
    /// The same with weighted values: time, weight, weighted sum.
    DecayOf {
        /// Half-life.
        half_life: Micros,
    },
    /// A cell per session, ordered by its start: start and length over both words.
    Sessions {
        /// Longest gap inside a session.
        gap: Micros,
    },
    /// A trigger's past: time of the last firing, ordinal and suppressed edges.
    Firing,
    /// What views know of the key: a word.
    Shown,
    /// How often something changed, by day: a cell for each different change; the count in the low bits, the change.
    Changes,
    /// Least event time.
    Earliest,
    /// Periods with events, by their first day: no payload.
    Periods {
        /// Their length.
        period: Period,
    },
    /// The earliest different event times, encoded like sessions without length.
    Times {
        /// Times kept.
        max: u32,
    },
    /// What the key's events have said about links, in the order of effect; the statement in the low bits, then effect time, partition,
    /// offset and the other id.
    Statements,
}

impl SlotKind {
    /// Payload words of a cell.
    #[must_use]
    pub fn width(self) -> usize {
        match self {
            SlotKind::Count | SlotKind::Refused | SlotKind::Periods { .. } => 0,
            SlotKind::Sum
            | SlotKind::Min
            | SlotKind::Max
            | SlotKind::Latest
            | SlotKind::Values { .. }
            | SlotKind::Sessions { .. }
            | SlotKind::Shown
            | SlotKind::Changes
            | SlotKind::Earliest
            | SlotKind::Times { .. } => 1,
            SlotKind::Last | SlotKind::First | SlotKind::Decay { .. } | SlotKind::Firing => 2,
            SlotKind::DecayOf { .. } => 3,
            SlotKind::Statements => 4,
        }
    }
}

/// A slot of a compiled job.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// What it accumulates.
    pub kind: SlotKind,
    /// The lane whose events it takes.
    pub lane: usize,
    /// Length of a pane; 0 for lifetime.
    pub pane: Micros,
    /// Panes that are kept; `i64::MAX` where none is ever dropped.
    pub panes: i64,
    /// Where its value stands in the record, if it takes one.
    pub value: usize,
    /// Whether the value is a text.
    pub text: bool,
}

impl Slot {
    /// The pane of an event time.
    #[inline]
    #[must_use]
    pub fn pane_of(&self, time: Micros) -> i64 {
        if self.pane == 0 { 0 } else { floor_div(time, self.pane) }
    }

    /// The oldest pane that is kept when the key clock stands at `key_clock`.
    #[inline]
    #[must_use]
    pub fn oldest(&self, key_clock: Micros) -> i64 {
        if self.panes == i64::MAX { i64::MIN } else { self.pane_of(key_clock) - self.panes + 1 }
    }

    /// Whether a session that began before the window may still be bridged to one inside it, within the gap.
    fn bridges(&self, cell: &[u64], key_clock: Micros) -> bool {
        match self.kind {
            SlotKind::Sessions { gap } => {
                self.panes == i64::MAX || self.pane_of(session_of(cell).1.saturating_add(gap)) >= self.oldest(key_clock)
            }
            _ => false,
        }
    }
}

/// The slots of a job, and what is looked up most about them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    slots: Vec<Slot>,
    /// Words of a cell, by slot.
    widths: Vec<u8>,
}

impl Layout {
    /// The layout of these slots.
    #[must_use]
    pub fn new(slots: Vec<Slot>) -> Layout {
        let widths = slots.iter().map(|slot| 1 + slot.kind.width() as u8).collect();
        Layout { slots, widths }
    }

    /// The slots.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The least first word of a slot's cells that is kept when the key clock stands at `key_clock`; of sessions, which are ordered by their
    /// start and kept by their end, none is sure to be kept.
    fn least_kept(&self, slot: usize, key_clock: Micros) -> u64 {
        match self.slots[slot].kind {
            SlotKind::Sessions { .. } => u64::MAX,
            _ => least_word(slot, self.slots[slot].oldest(key_clock)),
        }
    }

    /// Words of a cell of a slot.
    #[inline]
    #[must_use]
    pub fn width(&self, slot: usize) -> usize {
        usize::from(self.widths[slot])
    }
}

/// What an event brings to a slot.
#[derive(Clone, Copy, Debug)]
pub struct Touch {
    /// Event time.
    pub time: Micros,
    /// The value's bits: an `f64`, a hash, or a text's number.
    pub value: u64,
    /// Key clock after the event.
    pub key_clock: Micros,
}

/// The cells of one key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cells {
    words: Vec<u64>,
}

fn cell_key(slot: usize, pane: i64) -> CellKey {
    ((slot as u64) << PANE_BITS) | ((pane + PANE_BIAS) as u64 & ((1 << PANE_BITS) - 1))
}

fn key_of(word: u64) -> CellKey {
    word >> LOW_BITS
}

fn slot_of(word: u64) -> usize {
    (word >> (LOW_BITS + PANE_BITS)) as usize
}

/// The pane of a cell's first word.
#[inline]
#[must_use]
pub fn pane_of(word: u64) -> i64 {
    (key_of(word) & ((1 << PANE_BITS) - 1)) as i64 - PANE_BIAS
}

/// The start and the end of a session.
#[inline]
#[must_use]
pub fn session_of(cell: &[u64]) -> (Micros, Micros) {
    let high = cell[0] & ((1 << (LOW_BITS + PANE_BITS)) - 1);
    let start = (high << START_LOW_BITS | cell[1] >> LENGTH_BITS) as Micros - START_BIAS;
    (start, start + (cell[1] & ((1 << LENGTH_BITS) - 1)) as Micros)
}

fn session_cell(slot: usize, start: Micros, end: Micros) -> [u64; 2] {
    let biased = (start + START_BIAS) as u64;
    let word = (slot as u64) << (LOW_BITS + PANE_BITS) | biased >> START_LOW_BITS;
    [word, biased << LENGTH_BITS | (end - start) as u64]
}

/// `time.div_euclid(pane)`. The lengths that windows have are constants here, by which the compiler divides with a
/// multiplication; a division by a variable costs ten times as much, and there is one at nearly every step.
#[inline]
#[must_use]
pub fn floor_div(time: Micros, pane: Micros) -> i64 {
    const SIX_HOURS: Micros = 6 * HOUR;
    match pane {
        HOUR => time.div_euclid(HOUR),
        DAY => time.div_euclid(DAY),
        SIX_HOURS => time.div_euclid(SIX_HOURS),
        MINUTE => time.div_euclid(MINUTE),
        _ => time.div_euclid(pane),
    }
}

/// The count in a cell's first word.
#[inline]
#[must_use]
pub fn count_of(word: u64) -> u64 {
    word & LOW_MAX
}

/// The slot of a cell's first word.
#[inline]
#[must_use]
pub(crate) fn slot_in(word: u64) -> usize {
    slot_of(word)
}

/// The first word of a cell.
#[inline]
pub(crate) fn first_word(slot: usize, pane: i64, low: u64) -> u64 {
    cell_key(slot, pane) << LOW_BITS | low & LOW_MAX
}

/// The least first word of a slot's cells in a pane and the later ones: cells are in the order of their first words.
#[inline]
pub(crate) fn least_word(slot: usize, pane: i64) -> u64 {
    first_word(slot, pane.max(-PANE_BIAS), 0)
}

impl Cells {
    /// An editor of these cells, of which `starts` are the places.
    pub fn edit<'a>(&'a mut self, starts: &'a mut [u32], layout: &'a Layout) -> Editor<'a> {
        Editor { words: &mut self.words, starts, layout }
    }

    /// Fills `starts` with the place at which each slot's cells begin, and the end.
    pub fn starts(&self, layout: &Layout, starts: &mut Vec<u32>) {
        starts.clear();
        let widths = layout.widths.as_slice();
        let mut at = 0;
        while let Some(word) = self.words.get(at) {
            let slot = slot_of(*word);
            while starts.len() <= slot {
                starts.push(at as u32);
            }
            at += usize::from(widths[slot]);
        }
        starts.resize(widths.len() + 1, at as u32);
    }

    /// Cells of these words, which are in order.
    pub(crate) fn from_words(words: Vec<u64>) -> Cells {
        Cells { words }
    }

    /// The words.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    /// Drops what no window holds any more when the key clock stands at `key_clock`.
    pub fn expire(&mut self, layout: &Layout, key_clock: Micros) {
        let (mut from, mut to) = (0, 0);
        // The slot at hand, the words of its cells, and the least first word that is kept.
        let (mut slot, mut width, mut least) = (usize::MAX, 1, 0);
        while from < self.words.len() {
            let first = self.words[from];
            if slot_of(first) != slot {
                slot = slot_of(first);
                (width, least) = (layout.width(slot), layout.least_kept(slot, key_clock));
            }
            let cell = &self.words[from..from + width];
            if first >= least || layout.slots[slot].bridges(cell, key_clock) {
                if from != to {
                    self.words.copy_within(from..from + width, to);
                }
                to += width;
            }
            from += width;
        }
        self.words.truncate(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(kind: SlotKind, panes: i64) -> Slot {
        Slot { kind, lane: 0, pane: 10, panes, value: 0, text: false }
    }

    fn touch(cells: &mut Cells, layout: &Layout, at: usize, time: Micros, value: u64) {
        let mut starts = Vec::new();
        cells.starts(layout, &mut starts);
        cells.edit(&mut starts, layout).touch(at, Touch { time, value, key_clock: time });
        let kept = std::mem::take(&mut starts);
        cells.starts(layout, &mut starts);
        assert_eq!(kept, starts, "an edit keeps the starts");
    }

    #[test]
    fn a_count_overflows_into_the_next_cell() {
        // Starts just below the limit of the low bits and counts past it.
        let slots = Layout::new(vec![slot(SlotKind::Count, 2)]);
        let mut cells = Cells { words: vec![cell_key(0, 3) << LOW_BITS | (LOW_MAX - 1)] };
        for _ in 0..3 {
            touch(&mut cells, &slots, 0, 35, 0);
        }
        assert_eq!(cells.words.iter().map(|word| count_of(*word)).sum::<u64>(), LOW_MAX + 2);
        assert!(cells.words.iter().all(|word| pane_of(*word) == 3));
    }

    #[test]
    fn cells_stay_ordered_and_expire() {
        // Negative panes included: event times before 1970 are valid.
        let slots = Layout::new(vec![slot(SlotKind::Count, 2), slot(SlotKind::Sum, 2)]);
        let mut cells = Cells::default();
        for time in [-25, 15, -5, 35] {
            for at in 0..2 {
                touch(&mut cells, &slots, at, time, 2_f64.to_bits());
            }
        }
        let mut starts = Vec::new();
        cells.starts(&slots, &mut starts);
        assert_eq!(starts, [0, 4, 12]);
        assert_eq!(cells.words[..4].iter().map(|word| pane_of(*word)).collect::<Vec<_>>(), [-3, -1, 1, 3]);
        cells.expire(&slots, 35);
        cells.starts(&slots, &mut starts);
        assert_eq!(starts, [0, 1, 3]);
    }

    #[test]
    fn a_late_event_bridges_two_sessions() {
        // 100 and 120 are apart by more than the gap until 110 comes.
        let slots = Layout::new(vec![slot(SlotKind::Sessions { gap: 10 }, 100)]);
        let mut cells = Cells::default();
        for time in [100, 120, 110] {
            touch(&mut cells, &slots, 0, time, 0);
        }
        assert_eq!(session_of(&cells.words), (100, 120));
        assert_eq!(cells.words.len(), 2);
    }

    #[test]
    fn sessions_keep_every_microsecond_of_ten_thousand_years() {
        // The first and last instants that an event can have, each as a start and as an end, in the first and the last slot.
        let (least, greatest) = (-719_528 * DAY, 2_932_897 * DAY - 1);
        for (start, end) in [(least, least), (least, greatest), (-1, 0), (0, 1), (greatest, greatest)] {
            for slot in [0, SLOTS_MAX - 1] {
                let cell = session_cell(slot, start, end);
                assert_eq!((slot_of(cell[0]), session_of(&cell)), (slot, (start, end)));
            }
        }
        assert!(session_cell(3, -1, 7)[0] <= session_cell(3, 0, 0)[0], "cells of a slot are ordered by their starts");
    }

    #[test]
    fn panes_of_known_lengths_are_those_of_any() {
        // Each length that has its own division, around multiples and below zero, against the general one.
        for pane in [MINUTE, HOUR, 6 * HOUR, DAY, 10] {
            for time in [-DAY - 1, -DAY, -1, 0, 1, pane - 1, pane, 7 * pane + 3, i64::MAX, i64::MIN] {
                assert_eq!(floor_div(time, pane), time.div_euclid(pane));
            }
        }
    }

    #[test]
    fn a_full_set_refuses_and_remembers_it() {
        // Two values fit; the third is refused until the first has left the window.
        let slots = Layout::new(vec![slot(SlotKind::Values { max: 2 }, 2), slot(SlotKind::Refused, 2)]);
        let mut cells = Cells::default();
        for (time, value) in [(5, 1), (15, 2), (16, 3), (25, 3), (17, 2)] {
            touch(&mut cells, &slots, 0, time, value);
        }
        let hashes: Vec<u64> = cells.words[..6].chunks(2).map(|cell| cell[1]).collect();
        assert_eq!(hashes, [1, 2, 3]);
        assert_eq!(pane_of(cells.words[6]), 1);
    }
}
