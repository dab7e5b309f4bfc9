//! Cells of several keys put together: what one key would hold that had done what they did.
//!
//! Panes are merged one by one, in the order in which the keys are given: sums are added up in that order, and of values of the same time
//! the later key's is the last and the earlier key's the first. Sets are united whole: what was refused by one of them stays refused.
//! Cells that tell what happened to one key alone, or are kept for views, are left out.

use std::collections::BTreeMap;

use super::{
    Cells, LOW_MAX, Layout, SlotKind, count_of, editor::decay_factor, first_word, pane_of, session_cell, session_of,
    slot_of,
};
use whisperer_schemas::Micros;

impl Cells {
    /// Merges the words of several keys' cells.
    #[must_use]
    pub fn merged(layout: &Layout, keys: &[Vec<u64>]) -> Cells {
        let mut by_slot: BTreeMap<usize, Vec<&[u64]>> = BTreeMap::new();
        for words in keys {
            let mut rest = words.as_slice();
            while let Some(first) = rest.first() {
                let slot = slot_of(*first);
                let (cell, others) = rest.split_at(layout.width(slot));
                by_slot.entry(slot).or_default().push(cell);
                rest = others;
            }
        }
        let mut words = Vec::new();
        for (slot, cells) in by_slot {
            merge_slot(slot, layout.slots[slot].kind, cells, &mut words);
        }
        Cells { words }
    }
}

fn merge_slot(slot: usize, kind: SlotKind, mut cells: Vec<&[u64]>, words: &mut Vec<u64>) {
    match kind {
        SlotKind::Firing
        | SlotKind::Shown
        | SlotKind::Changes
        | SlotKind::Times { .. }
        | SlotKind::Periods { .. }
        | SlotKind::Statements => {}
        SlotKind::Sessions { gap } => merge_sessions(slot, gap, &cells, words),
        SlotKind::Values { .. } => merge_values(slot, &cells, words),
        _ => {
            // Stable: cells of one pane stay in the order of keys.
            cells.sort_by_key(|cell| pane_of(cell[0]));
            for pane in cells.chunk_by(|one, other| pane_of(one[0]) == pane_of(other[0])) {
                merge_pane(slot, kind, pane, words);
            }
        }
    }
}

fn merge_pane(slot: usize, kind: SlotKind, cells: &[&[u64]], words: &mut Vec<u64>) {
    let pane = pane_of(cells[0][0]);
    if kind == SlotKind::Count {
        let mut count: u64 = cells.iter().map(|cell| count_of(cell[0])).sum();
        // Full cells first: the next one goes on.
        while count > 0 {
            let here = count.min(LOW_MAX);
            words.push(first_word(slot, pane, here));
            count -= here;
        }
        return;
    }
    let begin = words.len();
    words.extend_from_slice(cells[0]);
    words[begin] = first_word(slot, pane, 0);
    for cell in &cells[1..] {
        merge_payload(kind, &mut words[begin + 1..], &cell[1..]);
    }
}

fn merge_payload(kind: SlotKind, payload: &mut [u64], other: &[u64]) {
    let number = |word: u64| f64::from_bits(word);
    let takes = match kind {
        SlotKind::Sum => {
            payload[0] = (number(payload[0]) + number(other[0])).to_bits();
            false
        }
        SlotKind::Decay { half_life } | SlotKind::DecayOf { half_life } => {
            merge_decay(half_life, payload, other);
            false
        }
        SlotKind::Min => number(other[0]) < number(payload[0]),
        SlotKind::Max => number(other[0]) > number(payload[0]),
        SlotKind::Latest => other[0] as Micros > payload[0] as Micros,
        SlotKind::Last => other[0] as Micros >= payload[0] as Micros,
        SlotKind::Earliest | SlotKind::First => (other[0] as Micros) < payload[0] as Micros,
        _ => false,
    };
    if takes {
        payload.copy_from_slice(other);
    }
}

/// Weights as of the newer of two times.
fn merge_decay(half_life: Micros, payload: &mut [u64], other: &[u64]) {
    let (here, there) = (payload[0] as Micros, other[0] as Micros);
    let factor = decay_factor((there - here).abs(), half_life);
    for (word, other) in payload[1..].iter_mut().zip(&other[1..]) {
        let (kept, added) = (f64::from_bits(*word), f64::from_bits(*other));
        *word = if there >= here { kept * factor + added } else { kept + added * factor }.to_bits();
    }
    payload[0] = here.max(there) as u64;
}

/// Each value once, in the newest pane that it was seen in.
fn merge_values(slot: usize, cells: &[&[u64]], words: &mut Vec<u64>) {
    let mut newest: BTreeMap<u64, i64> = BTreeMap::new();
    for cell in cells {
        let pane = pane_of(cell[0]);
        newest.entry(cell[1]).and_modify(|newest| *newest = pane.max(*newest)).or_insert(pane);
    }
    let mut merged: Vec<[u64; 2]> = newest.iter().map(|(value, pane)| [first_word(slot, *pane, 0), *value]).collect();
    merged.sort_unstable();
    words.extend(merged.iter().flatten());
}

fn merge_sessions(slot: usize, gap: Micros, cells: &[&[u64]], words: &mut Vec<u64>) {
    let mut sessions: Vec<(Micros, Micros)> = cells.iter().map(|cell| session_of(cell)).collect();
    sessions.sort_unstable();
    let mut open: Option<(Micros, Micros)> = None;
    for (start, end) in sessions {
        open = match open {
            Some((first, last)) if last.saturating_add(gap) >= start => Some((first, last.max(end))),
            before => {
                words.extend(before.iter().flat_map(|(first, last)| session_cell(slot, *first, *last)));
                Some((start, end))
            }
        };
    }
    words.extend(open.iter().flat_map(|(first, last)| session_cell(slot, *first, *last)));
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use whisperer_schemas::time::{DAY, HOUR, MINUTE};

    use super::*;
    use crate::cells::{Slot, Touch, cell_key};

    const KINDS: [SlotKind; 9] = [
        SlotKind::Count,
        SlotKind::Sum,
        SlotKind::Min,
        SlotKind::Max,
        SlotKind::Latest,
        SlotKind::Earliest,
        SlotKind::Values { max: 1 << 10 },
        SlotKind::Sessions { gap: 30 * MINUTE },
        SlotKind::Refused,
    ];

    fn layout() -> Layout {
        let slot = |kind| Slot { kind, lane: 0, pane: HOUR, panes: i64::MAX, value: 0, text: false };
        Layout::new(KINDS.map(slot).into())
    }

    fn cells_of<'a>(layout: &Layout, events: impl Iterator<Item = &'a (u8, i64, u8)>) -> Cells {
        let (mut cells, mut starts) = (Cells::default(), Vec::new());
        cells.starts(layout, &mut starts);
        for (_, time, value) in events {
            for (at, kind) in KINDS.iter().enumerate() {
                // Whole numbers: their sums do not depend on the order.
                let value = f64::from(*value).to_bits();
                let touch = Touch { time: time * MINUTE, value, key_clock: 40 * DAY };
                if *kind != SlotKind::Refused {
                    cells.edit(&mut starts, layout).touch(at, touch);
                }
            }
        }
        cells
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn merged_cells_are_those_of_one_key(events in vec((0..3_u8, 0..600_i64, 0..6_u8), 0..40)) {
            // Goal: whatever is divided among three keys, together they hold what one key holds that had all events.
            let layout = layout();
            let keys: Vec<Vec<u64>> = (0..3_u8)
                .map(|key| cells_of(&layout, events.iter().filter(|event| event.0 == key)).words)
                .collect();
            let merged = Cells::merged(&layout, &keys);
            let whole = cells_of(&layout, events.iter());
            // Values of a pane have no order.
            let sorted = |cells: &Cells| {
                let (mut starts, mut sorted) = (Vec::new(), Vec::new());
                cells.starts(&layout, &mut starts);
                for at in 0..KINDS.len() {
                    let range = starts[at] as usize..starts[at + 1] as usize;
                    let mut cells: Vec<Vec<u64>> =
                        cells.words[range].chunks(layout.width(at)).map(<[u64]>::to_vec).collect();
                    if matches!(KINDS[at], SlotKind::Values { .. }) {
                        cells.sort_unstable();
                    }
                    sorted.push(cells);
                }
                sorted
            };
            prop_assert_eq!(sorted(&merged), sorted(&whole));
        }
    }

    #[test]
    fn a_full_count_goes_on_in_the_next_cell() {
        // Goal: two counts that together do not fit into one cell are two cells of their pane.
        let layout = layout();
        let half = vec![first_word(0, 7, LOW_MAX - 1)];
        let merged = Cells::merged(&layout, &[half.clone(), half]);
        assert_eq!(merged.words.iter().map(|word| count_of(*word)).sum::<u64>(), 2 * (LOW_MAX - 1));
        assert!(merged.words.iter().all(|word| *word >> super::super::LOW_BITS == cell_key(0, 7)));
    }

    #[test]
    fn ties_go_by_the_order_of_keys() {
        // Goal: of values of one time, the last is the later key's and the first the earlier key's.
        let slot = |kind| Slot { kind, lane: 0, pane: 0, panes: i64::MAX, value: 0, text: false };
        let layout = Layout::new(vec![slot(SlotKind::Last), slot(SlotKind::First)]);
        let key = |value| vec![first_word(0, 0, 0), 5, value, first_word(1, 0, 0), 5, value];
        assert_eq!(
            Cells::merged(&layout, &[key(1), key(2)]).words,
            [first_word(0, 0, 0), 5, 2, first_word(1, 0, 0), 5, 1]
        );
    }
}
