//! Cells: the aggregates of one key, sparse and packed into 64-bit words.
//!
//! ```text
//! word  = slot (9 bits) | pane + 2^32 (33 bits) | low (22 bits), then `width` payload words
//! cells = words ordered by (slot, pane); all cells of a slot have the same width
//! ```
//! A slot is one accumulator of the job (a count, a sum, the set of values …) over panes of one length; what a key never did
//! takes no room. A count lives in the low bits of its only word, chained over several cells of the same pane where it overflows
//! them, so a count of a pane costs eight bytes. Lifetime slots have the one pane 0.

use whisperer_schemas::time::Micros;

/// Slots in a job, those of its triggers included.
pub const SLOTS_MAX: usize = 1 << 9;

const LOW_BITS: u32 = 22;
const PANE_BITS: u32 = 33;
const LOW_MAX: u64 = (1 << LOW_BITS) - 1;
const PANE_BIAS: i64 = 1 << 32;

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
    /// A cell per session, in the pane in which it began: start, end.
    Sessions {
        /// Longest gap inside a session.
        gap: Micros,
    },
    /// A trigger's past: time of the last firing, ordinal and suppressed edges.
    Firing,
}

impl SlotKind {
    /// Payload words of a cell.
    #[must_use]
    pub fn width(self) -> usize {
        match self {
            SlotKind::Count | SlotKind::Refused => 0,
            SlotKind::Sum | SlotKind::Min | SlotKind::Max | SlotKind::Latest | SlotKind::Values { .. } => 1,
            SlotKind::Last
            | SlotKind::First
            | SlotKind::Decay { .. }
            | SlotKind::Sessions { .. }
            | SlotKind::Firing => 2,
            SlotKind::DecayOf { .. } => 3,
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
        if self.pane == 0 { 0 } else { time.div_euclid(self.pane) }
    }

    /// The oldest pane that is kept when the key clock stands at `key_clock`.
    #[inline]
    #[must_use]
    pub fn oldest(&self, key_clock: Micros) -> i64 {
        if self.panes == i64::MAX { i64::MIN } else { self.pane_of(key_clock) - self.panes + 1 }
    }

    /// When the key clock makes a cell superfluous; `Micros::MAX` for never.
    fn expires_at(&self, pane: i64, payload: &[u64]) -> Micros {
        if self.panes == i64::MAX {
            return Micros::MAX;
        }
        let last = match self.kind {
            // A session that lies before the window may still be bridged to one inside it, within the gap.
            SlotKind::Sessions { gap } => self.pane_of((payload[1] as Micros).saturating_add(gap)),
            _ => pane,
        };
        last.saturating_add(self.panes).saturating_mul(self.pane)
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

/// The count in a cell's first word.
#[inline]
#[must_use]
pub fn count_of(word: u64) -> u64 {
    word & LOW_MAX
}

/// A place in the cells that only moves forward, so that one pass serves all slots that an event touches.
pub struct Cursor<'a> {
    words: &'a mut Vec<u64>,
    slots: &'a [Slot],
    at: usize,
    /// Least instant at which a cell that was added becomes superfluous.
    pub expires_at: Micros,
}

impl Cells {
    /// A cursor before the first cell.
    pub fn cursor<'a>(&'a mut self, slots: &'a [Slot]) -> Cursor<'a> {
        Cursor { words: &mut self.words, slots, at: 0, expires_at: Micros::MAX }
    }

    /// Fills `starts` with the place at which each slot's cells begin, and the end.
    pub fn starts(&self, slots: &[Slot], starts: &mut Vec<u32>) {
        starts.clear();
        let mut at = 0;
        while at < self.words.len() {
            let slot = slot_of(self.words[at]);
            while starts.len() <= slot {
                starts.push(at as u32);
            }
            at += 1 + slots[slot].kind.width();
        }
        starts.resize(slots.len() + 1, at as u32);
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

    /// Drops what no window holds any more when the key clock stands at `key_clock`; returns when there will be more to drop.
    pub fn expire(&mut self, slots: &[Slot], key_clock: Micros) -> Micros {
        let (mut from, mut to, mut next) = (0, 0, Micros::MAX);
        while from < self.words.len() {
            let slot = &slots[slot_of(self.words[from])];
            let width = 1 + slot.kind.width();
            let cell = &self.words[from..from + width];
            let expires_at = slot.expires_at(pane_of(cell[0]), &cell[1..]);
            if expires_at > key_clock {
                next = next.min(expires_at);
                self.words.copy_within(from..from + width, to);
                to += width;
            }
            from += width;
        }
        self.words.truncate(to);
        next
    }
}

impl Cursor<'_> {
    /// Takes an event into a slot. Slots must come in ascending order.
    pub fn touch(&mut self, at: usize, touch: Touch) {
        let slot = &self.slots[at];
        if let SlotKind::Sessions { gap } = slot.kind {
            return self.extend_session(at, gap, touch.time);
        }
        let pane = slot.pane_of(touch.time);
        if pane < slot.oldest(touch.key_clock) {
            return;
        }
        match slot.kind {
            SlotKind::Count => self.count(at, pane),
            SlotKind::Values { max } => self.add_value(at, pane, max, touch),
            SlotKind::Refused => {}
            kind => self.fold(at, pane, kind, touch),
        }
    }

    /// The cell of a trigger's past, made where there is none: `[time, ordinal and suppressed]`.
    pub fn firing(&mut self, at: usize) -> &mut [u64] {
        let key = cell_key(at, 0);
        self.seek(key);
        if !self.found(key) {
            self.insert(key << LOW_BITS, &[Micros::MIN as u64, 0]);
        }
        &mut self.words[self.at + 1..self.at + 3]
    }

    fn seek(&mut self, key: CellKey) {
        while self.at < self.words.len() && key_of(self.words[self.at]) < key {
            self.at += 1 + self.slots[slot_of(self.words[self.at])].kind.width();
        }
    }

    fn found(&self, key: CellKey) -> bool {
        self.words.get(self.at).is_some_and(|word| key_of(*word) == key)
    }

    fn insert(&mut self, word: u64, payload: &[u64]) {
        let slot = &self.slots[slot_of(word)];
        self.expires_at = self.expires_at.min(slot.expires_at(pane_of(word), payload));
        let needed = 1 + payload.len();
        if self.words.capacity() - self.words.len() < needed {
            // Doubling would leave half of a million small keys' memory empty.
            self.words.reserve_exact(needed.max(self.words.len() / 4).max(6));
        }
        self.words.insert(self.at, word);
        for (at, payload) in payload.iter().enumerate() {
            self.words.insert(self.at + 1 + at, *payload);
        }
    }

    fn count(&mut self, at: usize, pane: i64) {
        let key = cell_key(at, pane);
        self.seek(key);
        while self.found(key) {
            if count_of(self.words[self.at]) < LOW_MAX {
                self.words[self.at] += 1;
                return;
            }
            self.at += 1;
        }
        self.insert(key << LOW_BITS | 1, &[]);
    }

    fn fold(&mut self, at: usize, pane: i64, kind: SlotKind, touch: Touch) {
        let key = cell_key(at, pane);
        self.seek(key);
        if !self.found(key) {
            let time = touch.time as u64;
            let one = 1_f64.to_bits();
            let payload: &[u64] = match kind {
                SlotKind::Latest => &[time],
                SlotKind::Last | SlotKind::First => &[time, touch.value],
                SlotKind::Decay { .. } => &[time, one],
                SlotKind::DecayOf { .. } => &[time, one, touch.value],
                _ => &[touch.value],
            };
            return self.insert(key << LOW_BITS, payload);
        }
        let payload = &mut self.words[self.at + 1..self.at + 1 + kind.width()];
        fold_payload(kind, payload, touch);
    }

    /// Moves a value to the pane, adds it, or notes in the slot behind that there was no room.
    fn add_value(&mut self, at: usize, pane: i64, max: u32, touch: Touch) {
        let (begin, end) = self.slot_range(at);
        let oldest = self.slots[at].oldest(touch.key_clock);
        let mut known = None;
        let mut held = 0;
        for (index, cell) in self.words[begin..end].chunks_exact(2).enumerate() {
            let gone = pane_of(cell[0]) < oldest;
            if cell[1] == touch.value {
                known = (!gone).then_some((begin + 2 * index, pane_of(cell[0])));
                if known.is_some() {
                    break;
                }
            }
            held += u32::from(!gone);
        }
        match known {
            Some((_, seen)) if seen >= pane => return,
            Some((place, _)) => {
                self.words.drain(place..place + 2);
                self.at = begin;
            }
            None if held >= max => {
                self.at = end;
                return self.refuse(at + 1, pane);
            }
            None => {}
        }
        let key = cell_key(at, pane);
        self.seek(key);
        self.insert(key << LOW_BITS, &[touch.value]);
        self.at = begin;
    }

    fn refuse(&mut self, at: usize, pane: i64) {
        let key = cell_key(at, pane);
        self.seek(key);
        if !self.found(key) {
            self.insert(key << LOW_BITS, &[]);
        }
    }

    /// Joins the event to the sessions that it touches, at most one on either side.
    fn extend_session(&mut self, at: usize, gap: Micros, time: Micros) {
        let (begin, end) = self.slot_range(at);
        let (mut first, mut last) = (time, time);
        let mut index = begin;
        let mut end = end;
        while index < end {
            let (start, stop) = (self.words[index + 1] as Micros, self.words[index + 2] as Micros);
            if start.saturating_sub(gap) > time {
                break;
            }
            if stop.saturating_add(gap) < time {
                index += 3;
                continue;
            }
            (first, last) = (first.min(start), last.max(stop));
            self.words.drain(index..index + 3);
            end -= 3;
        }
        // What stands before `index` ended earlier, what follows begins later: this keeps the order of starts.
        self.at = index;
        let key = cell_key(at, self.slots[at].pane_of(first));
        self.insert(key << LOW_BITS, &[first as u64, last as u64]);
        self.at = begin;
    }

    fn slot_range(&mut self, at: usize) -> (usize, usize) {
        self.seek((at as u64) << PANE_BITS);
        let begin = self.at;
        let width = 1 + self.slots[at].kind.width();
        let mut end = begin;
        while end < self.words.len() && slot_of(self.words[end]) == at {
            end += width;
        }
        (begin, end)
    }
}

fn fold_payload(kind: SlotKind, payload: &mut [u64], touch: Touch) {
    let number = f64::from_bits(touch.value);
    match kind {
        SlotKind::Sum => payload[0] = (f64::from_bits(payload[0]) + number).to_bits(),
        SlotKind::Min if number < f64::from_bits(payload[0]) => payload[0] = touch.value,
        SlotKind::Max if number > f64::from_bits(payload[0]) => payload[0] = touch.value,
        SlotKind::Latest => payload[0] = (payload[0] as Micros).max(touch.time) as u64,
        SlotKind::Last if touch.time >= payload[0] as Micros => {
            (payload[0], payload[1]) = (touch.time as u64, touch.value);
        }
        SlotKind::First if touch.time < payload[0] as Micros => {
            (payload[0], payload[1]) = (touch.time as u64, touch.value);
        }
        SlotKind::Decay { half_life } | SlotKind::DecayOf { half_life } => decay(half_life, payload, touch),
        _ => {}
    }
}

/// The factor by which a weight falls over a span.
#[must_use]
pub fn decay_factor(span: Micros, half_life: Micros) -> f64 {
    libm::exp2(-(span as f64 / half_life as f64))
}

fn decay(half_life: Micros, payload: &mut [u64], touch: Touch) {
    let newest = payload[0] as Micros;
    let value = f64::from_bits(touch.value);
    let newer = touch.time >= newest;
    let factor = decay_factor(touch.time.abs_diff(newest) as Micros, half_life);
    let mix = |kept: u64, added: f64| {
        let kept = f64::from_bits(kept);
        let mixed = if newer { kept * factor + added } else { kept + added * factor };
        mixed.to_bits()
    };
    payload[1] = mix(payload[1], 1.0);
    if let Some(sum) = payload.get_mut(2) {
        *sum = mix(*sum, value);
    }
    if newer {
        payload[0] = touch.time as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(kind: SlotKind, panes: i64) -> Slot {
        Slot { kind, lane: 0, pane: 10, panes, value: 0, text: false }
    }

    fn touch(cells: &mut Cells, slots: &[Slot], at: usize, time: Micros, value: u64) {
        cells.cursor(slots).touch(at, Touch { time, value, key_clock: time });
    }

    #[test]
    fn a_count_overflows_into_the_next_cell() {
        // Starts just below the limit of the low bits and counts past it.
        let slots = [slot(SlotKind::Count, 2)];
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
        let slots = [slot(SlotKind::Count, 2), slot(SlotKind::Sum, 2)];
        let mut cells = Cells::default();
        for time in [-25, 15, -5, 35] {
            let mut cursor = cells.cursor(&slots);
            for at in 0..2 {
                cursor.touch(at, Touch { time, value: 2_f64.to_bits(), key_clock: time });
            }
        }
        let mut starts = Vec::new();
        cells.starts(&slots, &mut starts);
        assert_eq!(starts, [0, 4, 12]);
        assert_eq!(cells.words[..4].iter().map(|word| pane_of(*word)).collect::<Vec<_>>(), [-3, -1, 1, 3]);
        assert_eq!(cells.expire(&slots, 35), 50);
        cells.starts(&slots, &mut starts);
        assert_eq!(starts, [0, 1, 3]);
    }

    #[test]
    fn a_late_event_bridges_two_sessions() {
        // 100 and 120 are apart by more than the gap until 110 comes.
        let slots = [slot(SlotKind::Sessions { gap: 10 }, 100)];
        let mut cells = Cells::default();
        for time in [100, 120, 110] {
            touch(&mut cells, &slots, 0, time, 0);
        }
        assert_eq!(cells.words[1..], [100, 120]);
    }

    #[test]
    fn a_full_set_refuses_and_remembers_it() {
        // Two values fit; the third is refused until the first has left the window.
        let slots = [slot(SlotKind::Values { max: 2 }, 2), slot(SlotKind::Refused, 2)];
        let mut cells = Cells::default();
        for (time, value) in [(5, 1), (15, 2), (16, 3), (25, 3), (17, 2)] {
            touch(&mut cells, &slots, 0, time, value);
        }
        let hashes: Vec<u64> = cells.words[..6].chunks(2).map(|cell| cell[1]).collect();
        assert_eq!(hashes, [1, 2, 3]);
        assert_eq!(pane_of(cells.words[6]), 1);
    }
}
