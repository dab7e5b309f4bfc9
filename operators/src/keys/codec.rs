//! States as bytes: for checkpoints, and for a cold store.
//!
//! ```text
//! state   = flags stage key_clock floor due held disarmed app user_id ids cells
//! ids     = count, then for each: hash (8 bytes), clock below the key clock
//! cells   = count, then for each: slot, pane (less the last one's where the slot is the same), low bits, words
//! numbers = LEB128; signed ones zigzag. A word of a cell = one byte of (leading, trailing zero bytes), then what is between
//! ```
//! What the slots, stages and trigger bits mean stands beside the states, in a [`StateLayout`]. Texts that a worker numbers are written
//! out, so that any worker can read the state.

use compact_str::CompactString;
use whisperer_schemas::{KeyHash, Micros};

use super::{Engine, KeyState};
use crate::{
    cells::{Cells, count_of, first_word, pane_of, slot_in},
    dedup::Recent,
    interner::Interner,
    layout::{LayoutError, StateLayout},
};

const CHANGED: u64 = 1;
const SILENT: u64 = 2;
const EXACT: u64 = 4;

/// How states of an older layout become states of this one.
#[derive(Debug)]
pub(super) struct Mapping {
    slots: Vec<Option<usize>>,
    /// For each old trigger its new bit; none where it is gone or has changed.
    triggers: Vec<Option<usize>>,
    stages: Vec<u16>,
}

impl Mapping {
    pub(super) fn new(old: &StateLayout, new: &StateLayout) -> Mapping {
        let trigger = |name: &str| new.triggers.iter().position(|trigger| trigger.name == name);
        let stage = |name: &String| new.stages.iter().position(|stage| stage == name).unwrap_or_default() as u16;
        Mapping {
            slots: new.slots_from(old),
            triggers: old.triggers.iter().map(|old| trigger(&old.name)).collect(),
            stages: old.stages.iter().map(stage).collect(),
        }
    }

    fn bits(&self, old: u64) -> u64 {
        let moved = self.triggers.iter().enumerate().filter(|(at, _)| old >> at & 1 == 1);
        moved.filter_map(|(_, to)| *to).fold(0, |bits, to| bits | 1 << to)
    }
}

/// Appends a state.
pub(super) fn encode(engine: &Engine, layout: &StateLayout, state: &KeyState, out: &mut Vec<u8>) {
    let flags = if state.changed { CHANGED } else { 0 } | if state.silent { SILENT } else { 0 };
    let flags = flags | if state.exact { EXACT } else { 0 };
    number(out, flags);
    number(out, u64::from(state.stage));
    number(out, zigzag(state.key_clock));
    number(out, zigzag(state.floor));
    number(out, zigzag(state.due));
    number(out, state.held);
    number(out, state.disarmed);
    text(out, engine.apps.get(state.app));
    text(out, &state.user_id);
    number(out, state.recent.len() as u64);
    state.recent.each(state.key_clock, |id, clock| {
        out.extend_from_slice(&id.to_le_bytes());
        number(out, zigzag(state.key_clock.wrapping_sub(clock)));
    });
    encode_cells(&engine.texts, layout, state.cells.words(), out);
}

/// Appends cells, of which `words` are the words.
pub(super) fn encode_cells(texts: &Interner, layout: &StateLayout, words: &[u64], out: &mut Vec<u8>) {
    let (mut last_slot, mut last) = (usize::MAX, 0);
    let mut rest = words;
    let mut cells = 0;
    let count_at = out.len();
    // Most states have fewer than 128 cells: one byte is left for their number, and more room is made where it is needed.
    out.push(0);
    while let Some(first) = rest.first() {
        let slot = slot_in(*first);
        let of = &layout.slots[slot];
        let (cell, others) = rest.split_at(usize::from(of.words));
        rest = others;
        let pane = pane_of(*first);
        number(out, slot as u64);
        number(out, zigzag(if slot == last_slot { pane - last } else { pane }));
        number(out, count_of(*first));
        (last_slot, last) = (slot, pane);
        for (at, value) in cell.iter().enumerate().skip(1) {
            if of.text && at + 1 == cell.len() { text(out, texts.get(*value as u32)) } else { word(out, *value) }
        }
        cells += 1;
    }
    if cells < 0x80 {
        out[count_at] = cells as u8;
        return;
    }
    let mut count = Vec::with_capacity(2);
    number(&mut count, cells);
    out.splice(count_at..=count_at, count);
}

/// Reads a state; `old` is the layout that it was encoded with, and `mapping` leads from that to the job's own where they differ.
pub(super) fn decode(
    engine: &mut Engine,
    key: KeyHash,
    bytes: &[u8],
    (old, mapping): (&StateLayout, Option<&Mapping>),
) -> Result<KeyState, LayoutError> {
    let mut input = Input { rest: bytes };
    let flags = input.number()?;
    let stage = input.number()? as u16;
    let key_clock = unzigzag(input.number()?);
    let floor = unzigzag(input.number()?);
    let due = unzigzag(input.number()?);
    let (held, disarmed) = (input.number()?, input.number()?);
    let app = engine.apps.number(input.text()?);
    let user_id = CompactString::new(input.text()?);
    let recent = input.recent(key_clock)?;
    let words = input.cells(&mut engine.texts, old, mapping)?;
    if !input.rest.is_empty() {
        return Err(LayoutError::State);
    }
    let bits = |bits| mapping.map_or(bits, |mapping| mapping.bits(bits));
    let stage = match mapping {
        Some(mapping) => mapping.stages.get(usize::from(stage)).copied().unwrap_or_default(),
        None => stage,
    };
    let mut state = KeyState::empty(key, user_id, app);
    (state.key_clock, state.floor, state.due) = (key_clock, floor, due);
    (state.held, state.disarmed, state.stage) = (bits(held), bits(disarmed), stage);
    state.changed = flags & CHANGED != 0;
    state.exact = flags & EXACT != 0;
    state.silent = flags & SILENT != 0 || mapping.is_some();
    state.recent = recent;
    state.cells = Cells::from_words(words);
    Ok(state)
}

/// Reads cells that were encoded alone; gives their words, in which texts have their numbers among `texts`.
pub(crate) fn decode_cells(texts: &mut Interner, layout: &StateLayout, bytes: &[u8]) -> Result<Vec<u64>, LayoutError> {
    Input { rest: bytes }.cells(texts, layout, None)
}

struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, LayoutError> {
        let (byte, rest) = self.rest.split_first().ok_or(LayoutError::State)?;
        self.rest = rest;
        Ok(*byte)
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], LayoutError> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(LayoutError::State)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u64, LayoutError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(LayoutError::State)
    }

    fn text(&mut self) -> Result<&'a str, LayoutError> {
        let length = usize::try_from(self.number()?).map_err(|_| LayoutError::State)?;
        std::str::from_utf8(self.bytes(length)?).map_err(|_| LayoutError::State)
    }

    fn word(&mut self) -> Result<u64, LayoutError> {
        let zeros = self.byte()?;
        let (leading, trailing) = (usize::from(zeros >> 4), usize::from(zeros & 15));
        let length = 8_usize.checked_sub(leading + trailing).ok_or(LayoutError::State)?;
        let mut whole = [0; 8];
        whole[leading..leading + length].copy_from_slice(self.bytes(length)?);
        Ok(u64::from_be_bytes(whole))
    }

    fn recent(&mut self, key_clock: Micros) -> Result<Recent, LayoutError> {
        let mut ids = Vec::new();
        for _ in 0..self.number()? {
            let id = self.bytes(8)?.try_into().map_err(|_| LayoutError::State)?;
            let clock = key_clock.wrapping_sub(unzigzag(self.number()?));
            ids.push((u64::from_le_bytes(id), clock));
        }
        Ok(Recent::of(&ids))
    }

    fn cells(
        &mut self,
        texts: &mut Interner,
        old: &StateLayout,
        mapping: Option<&Mapping>,
    ) -> Result<Vec<u64>, LayoutError> {
        let count = self.number()?;
        let mut words = Vec::new();
        let mut moved: Vec<(u64, Vec<u64>)> = Vec::new();
        let (mut last_slot, mut last) = (usize::MAX, 0_i64);
        for _ in 0..count {
            let slot = usize::try_from(self.number()?).map_err(|_| LayoutError::State)?;
            let of = old.slots.get(slot).ok_or(LayoutError::State)?;
            let pane = unzigzag(self.number()?);
            let pane = if slot == last_slot { last.wrapping_add(pane) } else { pane };
            let low = self.number()?;
            (last_slot, last) = (slot, pane);
            let begin = words.len();
            words.push(first_word(slot, pane, low));
            for at in 1..of.words {
                let is_text = of.text && at + 1 == of.words;
                words.push(if is_text { u64::from(texts.number(self.text()?)) } else { self.word()? });
            }
            if let Some(mapping) = mapping {
                let mut cell = words.split_off(begin);
                if let Some(to) = mapping.slots[slot] {
                    cell[0] = first_word(to, pane, low);
                    moved.push((cell[0], cell));
                }
            }
        }
        if mapping.is_some() {
            // Stable: cells of one slot and pane keep their order.
            moved.sort_by_key(|(first, _)| slot_in(*first));
            words = moved.into_iter().flat_map(|(_, cell)| cell).collect();
        }
        words.shrink_to_fit();
        Ok(words)
    }
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn text(out: &mut Vec<u8>, text: &str) {
    number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn word(out: &mut Vec<u8>, value: u64) {
    let leading = value.leading_zeros() as usize / 8;
    let trailing = if value == 0 { 0 } else { value.trailing_zeros() as usize / 8 };
    out.push((leading << 4 | trailing) as u8);
    out.extend_from_slice(&value.to_be_bytes()[leading..8 - trailing]);
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_come_back() {
        // Bounds and powers of two, both signs, through each of the encodings.
        let values = (0..64).flat_map(|shift| [1_u64 << shift, (1 << shift) - 1, u64::MAX << shift]);
        let values: Vec<u64> = values.chain([0, 1.5_f64.to_bits(), f64::NAN.to_bits()]).collect();
        for value in values {
            let mut bytes = Vec::new();
            number(&mut bytes, value);
            word(&mut bytes, value);
            number(&mut bytes, zigzag(value as i64));
            let mut input = Input { rest: &bytes };
            assert_eq!(input.number().unwrap(), value);
            assert_eq!(input.word().unwrap(), value);
            assert_eq!(unzigzag(input.number().unwrap()), value as i64);
            assert!(input.rest.is_empty());
        }
    }
}
