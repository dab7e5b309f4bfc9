//! Cells that are kept for views: what a key shows, and facts of its history.

use whisperer_schemas::time::Micros;

use super::{
    Editor, LOW_BITS, LOW_MAX, START_BIAS, cell_key, count_of, editor::Found, key_of, session_cell, session_of,
};

impl Editor<'_> {
    /// Sets the only cell of a slot to a word, or leaves the slot without one.
    pub fn show(&mut self, at: usize, word: Option<u64>) {
        let key = cell_key(at, 0);
        match (self.find(at, key), word) {
            (Found::At(place), Some(word)) => self.words[place + 1] = word,
            (Found::At(place), None) => self.remove(at, place),
            (Found::Before(place), Some(word)) => self.insert(at, place, key << LOW_BITS, &[word]),
            (Found::Before(_), None) => {}
        }
    }

    /// Counts a change on a day, of which at most `max` different ones are kept; false where there is no room for one more.
    pub fn change(&mut self, at: usize, day: i64, change: u64, max: usize) -> bool {
        let key = cell_key(at, day);
        let (begin, end) = self.range(at);
        let cells = self.words[begin..end].chunks_exact(2);
        let known = cells.enumerate().find(|(_, cell)| key_of(cell[0]) == key && cell[1] == change);
        if let Some((index, cell)) = known {
            let room = count_of(cell[0]) < LOW_MAX;
            self.words[begin + 2 * index] += u64::from(room);
            return room;
        }
        let room = (end - begin) / 2 < max;
        if room {
            let place = match self.find(at, key) {
                Found::At(place) => place + 2,
                Found::Before(place) => place,
            };
            self.insert(at, place, key << LOW_BITS | 1, &[change]);
        }
        room
    }

    /// Takes the cells of a slot away and puts others there, which must be in order.
    pub fn replace(&mut self, at: usize, cells: &[u64]) {
        let (begin, end) = self.range(at);
        self.words.splice(begin..end, cells.iter().copied());
        let moved = |start: u32| start - (end - begin) as u32 + cells.len() as u32;
        self.starts[at + 1..].iter_mut().for_each(|start| *start = moved(*start));
    }

    /// Keeps a time in a slot that has none.
    pub fn keep_first(&mut self, at: usize, time: Micros) {
        let key = cell_key(at, 0);
        if let Found::Before(place) = self.find(at, key) {
            self.insert(at, place, key << LOW_BITS, &[time as u64]);
        }
    }

    /// Adds a time, and drops the latest where there are too many.
    pub(super) fn add_time(&mut self, at: usize, max: u32, time: Micros) {
        const WIDTH: usize = 2;
        let time = time.clamp(-START_BIAS, START_BIAS - 1);
        let (begin, end) = self.range(at);
        let mut place = end;
        while place > begin && session_of(&self.words[place - WIDTH..place]).0 >= time {
            place -= WIDTH;
        }
        let is_full = (end - begin) / WIDTH >= max as usize;
        if (place < end && session_of(&self.words[place..place + WIDTH]).0 == time) || (place == end && is_full) {
            return;
        }
        if is_full {
            self.remove(at, end - WIDTH);
        }
        let [word, length] = session_cell(at, time, time);
        self.insert(at, place, word, &[length]);
    }
}

#[cfg(test)]
mod tests {
    use whisperer_schemas::time::DAY;

    use super::*;
    use crate::cells::{Cells, Layout, Slot, SlotKind, Touch, pane_of};

    fn slot(kind: SlotKind, pane: Micros) -> Layout {
        Layout::new(vec![Slot { kind, lane: 0, pane, panes: i64::MAX, value: 0, text: false }])
    }

    #[test]
    fn the_earliest_times_are_kept() {
        // Goal: of any order of the same times, the same three are left: the earliest different ones.
        let slots = slot(SlotKind::Times { max: 3 }, 0);
        for times in [[50, 20, 40, 20, 30], [20, 20, 30, 40, 50], [50, 40, 30, 20, 20]] {
            let mut cells = Cells::default();
            for time in times {
                let mut starts = Vec::new();
                cells.starts(&slots, &mut starts);
                cells.edit(&mut starts, &slots).touch(0, Touch { time, value: 0, key_clock: time });
            }
            let kept: Vec<Micros> = cells.words.chunks(2).map(|cell| session_of(cell).0).collect();
            assert_eq!(kept, [20, 30, 40], "{times:?}");
        }
    }

    #[test]
    fn changes_are_counted_by_day() {
        // Goal: the same change of a day adds up, others stand beside it in the order of days, and no more than there is room for.
        let slots = slot(SlotKind::Changes, DAY);
        let (mut cells, mut starts) = (Cells::default(), Vec::new());
        cells.starts(&slots, &mut starts);
        let mut edit = cells.edit(&mut starts, &slots);
        let counted = [(7, 1), (7, 2), (6, 1), (7, 1), (8, 1)].map(|(day, change)| edit.change(0, day, change, 3));
        assert_eq!(counted, [true, true, true, true, false]);
        let kept: Vec<_> = cells.words.chunks(2).map(|cell| (pane_of(cell[0]), cell[1], count_of(cell[0]))).collect();
        assert_eq!(kept, [(6, 1, 1), (7, 1, 2), (7, 2, 1)]);
    }
}
