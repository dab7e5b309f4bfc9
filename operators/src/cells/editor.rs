//! Changing the cells of a key: each kind of slot takes an event in its own way.

use whisperer_schemas::time::Micros;

use super::{
    CellKey, LOW_BITS, LOW_MAX, Layout, START_BIAS, SlotKind, Touch, cell_key, count_of, key_of, pane_of, session_cell,
    session_of,
};
use crate::views::first_day_of;

/// Changes the cells of a key, keeping the place at which each slot's begin.
pub struct Editor<'a> {
    pub(super) words: &'a mut Vec<u64>,
    pub(super) starts: &'a mut [u32],
    pub(super) layout: &'a Layout,
}

impl Editor<'_> {
    /// Takes an event into a slot.
    pub fn touch(&mut self, at: usize, touch: Touch) {
        let slot = &self.layout.slots[at];
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
            SlotKind::Periods { period } => self.mark(at, first_day_of(period, touch.time)),
            SlotKind::Times { max } => self.add_time(at, max, touch.time),
            kind => self.fold(at, pane, kind, touch),
        }
    }

    /// The cell of a trigger's past, made where there is none: `[time, ordinal and suppressed]`.
    pub fn firing(&mut self, at: usize) -> &mut [u64] {
        let key = cell_key(at, 0);
        let place = match self.find(at, key) {
            Found::At(place) => place,
            Found::Before(place) => {
                self.insert(at, place, key << LOW_BITS, &[Micros::MIN as u64, 0]);
                place
            }
        };
        &mut self.words[place + 1..place + 3]
    }

    /// The last cell of the slot with this key, or the place where one belongs. Looks from the newest pane back: most events are new.
    pub(super) fn find(&self, at: usize, key: CellKey) -> Found {
        let (begin, mut place) = self.range(at);
        let width = self.layout.width(at);
        while place > begin {
            let before = key_of(self.words[place - width]);
            if before == key {
                return Found::At(place - width);
            }
            if before < key {
                break;
            }
            place -= width;
        }
        Found::Before(place)
    }

    pub(super) fn range(&self, at: usize) -> (usize, usize) {
        (self.starts[at] as usize, self.starts[at + 1] as usize)
    }

    pub(super) fn insert(&mut self, at: usize, place: usize, word: u64, payload: &[u64]) {
        let (needed, old) = (1 + payload.len(), self.words.len());
        if self.words.capacity() - old < needed {
            // Doubling would leave half of a million small keys' memory empty; the allocator's own steps are an eighth, so most of
            // these need no copy.
            self.words.reserve_exact(needed.max(old / 16));
        }
        self.words.resize(old + needed, 0);
        self.words.copy_within(place..old, place + needed);
        self.words[place] = word;
        self.words[place + 1..place + needed].copy_from_slice(payload);
        self.starts[at + 1..].iter_mut().for_each(|start| *start += needed as u32);
    }

    pub(super) fn remove(&mut self, at: usize, place: usize) {
        let width = self.layout.width(at);
        self.words.drain(place..place + width);
        self.starts[at + 1..].iter_mut().for_each(|start| *start -= width as u32);
    }

    fn count(&mut self, at: usize, pane: i64) {
        let key = cell_key(at, pane);
        match self.find(at, key) {
            Found::At(place) if count_of(self.words[place]) < LOW_MAX => self.words[place] += 1,
            // Full: the next cell of the pane goes on.
            Found::At(place) => self.insert(at, place + 1, key << LOW_BITS | 1, &[]),
            Found::Before(place) => self.insert(at, place, key << LOW_BITS | 1, &[]),
        }
    }

    fn fold(&mut self, at: usize, pane: i64, kind: SlotKind, touch: Touch) {
        let key = cell_key(at, pane);
        let place = match self.find(at, key) {
            Found::At(place) => {
                let payload = &mut self.words[place + 1..place + 1 + kind.width()];
                return fold_payload(kind, payload, touch);
            }
            Found::Before(place) => place,
        };
        let time = touch.time as u64;
        let one = 1_f64.to_bits();
        let payload: &[u64] = match kind {
            SlotKind::Latest | SlotKind::Earliest => &[time],
            SlotKind::Last | SlotKind::First => &[time, touch.value],
            SlotKind::Decay { .. } => &[time, one],
            SlotKind::DecayOf { .. } => &[time, one, touch.value],
            _ => &[touch.value],
        };
        self.insert(at, place, key << LOW_BITS, payload);
    }

    /// Moves a value to the pane, adds it, or notes in the slot behind that there was no room.
    fn add_value(&mut self, at: usize, pane: i64, max: u32, touch: Touch) {
        let (begin, end) = self.range(at);
        let oldest = self.layout.slots[at].oldest(touch.key_clock);
        let (mut known, mut held) = (None, 0);
        for (index, cell) in self.words[begin..end].chunks_exact(2).enumerate() {
            let seen = pane_of(cell[0]);
            if seen >= oldest {
                if cell[1] == touch.value {
                    known = Some((begin + 2 * index, seen));
                    break;
                }
                held += 1;
            }
        }
        match known {
            Some((_, seen)) if seen >= pane => return,
            Some((place, _)) => self.remove(at, place),
            None if held >= max => return self.mark(at + 1, pane),
            None => {}
        }
        let key = cell_key(at, pane);
        let (Found::At(place) | Found::Before(place)) = self.find(at, key);
        self.insert(at, place, key << LOW_BITS, &[touch.value]);
    }

    /// Marks a pane in a slot whose cells have no payload.
    fn mark(&mut self, at: usize, pane: i64) {
        let key = cell_key(at, pane);
        if let Found::Before(place) = self.find(at, key) {
            self.insert(at, place, key << LOW_BITS, &[]);
        }
    }

    /// Joins the event to the sessions that it touches, at most one on either side.
    fn extend_session(&mut self, at: usize, gap: Micros, time: Micros) {
        const WIDTH: usize = 2;
        let time = time.clamp(-START_BIAS, START_BIAS - 1);
        let (begin, mut end) = self.range(at);
        let (mut first, mut last) = (time, time);
        let mut place = end;
        // From the newest back: most events are new. What ended too early lies before all that did not.
        while place > begin && session_of(&self.words[place - WIDTH..place]).1.saturating_add(gap) >= time {
            place -= WIDTH;
        }
        while place < end {
            let (start, stop) = session_of(&self.words[place..place + WIDTH]);
            if start.saturating_sub(gap) > time {
                break;
            }
            (first, last) = (first.min(start), last.max(stop));
            if (first, last) == (start, stop) {
                return;
            }
            if place + WIDTH == end {
                // The newest one, which grows in place.
                let cell = session_cell(at, first, last);
                return self.words[place..place + WIDTH].copy_from_slice(&cell);
            }
            self.remove(at, place);
            end -= WIDTH;
        }
        // What stands before `place` ended earlier, what follows begins later: this keeps the order of starts.
        let [word, length] = session_cell(at, first, last);
        self.insert(at, place, word, &[length]);
    }
}

/// Where a cell is, or belongs.
pub(super) enum Found {
    At(usize),
    Before(usize),
}

fn fold_payload(kind: SlotKind, payload: &mut [u64], touch: Touch) {
    let number = f64::from_bits(touch.value);
    match kind {
        SlotKind::Sum => payload[0] = (f64::from_bits(payload[0]) + number).to_bits(),
        SlotKind::Min if number < f64::from_bits(payload[0]) => payload[0] = touch.value,
        SlotKind::Max if number > f64::from_bits(payload[0]) => payload[0] = touch.value,
        SlotKind::Latest => payload[0] = (payload[0] as Micros).max(touch.time) as u64,
        SlotKind::Earliest => payload[0] = (payload[0] as Micros).min(touch.time) as u64,
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
