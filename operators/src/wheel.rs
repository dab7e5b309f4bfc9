//! The timer wheel of a worker: which keys have a timer due when the watermark moves.
//!
//! One entry per key, its earliest due time. Entries wait in buckets of a minute of event time; the bucket that the watermark has
//! reached is kept as a heap. An entry that a key no longer stands by is dropped when it comes up: the key knows its due time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use whisperer_schemas::time::{MINUTE, Micros};

/// Keys by the times at which they have timers due.
#[derive(Debug, Default)]
pub struct Wheel {
    /// Entries of buckets that the watermark has reached.
    near: BinaryHeap<Reverse<(Micros, u32)>>,
    near_until: Option<i64>,
    /// Keys alone: what they are due at is asked when their bucket comes up.
    far: BTreeMap<i64, Vec<u32>>,
    far_entries: usize,
}

impl Wheel {
    /// Notes that a key has a timer due.
    pub fn insert(&mut self, due: Micros, key: u32) {
        let bucket = due.div_euclid(MINUTE);
        if self.near_until.is_some_and(|until| bucket <= until) {
            self.near.push(Reverse((due, key)));
        } else {
            self.far.entry(bucket).or_default().push(key);
            self.far_entries += 1;
        }
    }

    /// The earliest entry due at or before the watermark. `due_of` tells at which time a key stands by its entry; one that stands by
    /// another time is dropped.
    pub fn pop(&mut self, watermark: Micros, due_of: impl Fn(u32) -> Micros) -> Option<(Micros, u32)> {
        loop {
            if let Some(Reverse((due, _))) = self.near.peek() {
                return if *due <= watermark { self.near.pop().map(|Reverse(entry)| entry) } else { None };
            }
            let bucket = self.far.first_entry().filter(|bucket| *bucket.key() <= watermark.div_euclid(MINUTE))?;
            let minute = *bucket.key();
            self.near_until = Some(minute);
            let keys = bucket.remove();
            self.far_entries -= keys.len();
            let entries = keys.into_iter().map(|key| (due_of(key), key));
            self.near.extend(entries.filter(|(due, _)| due.div_euclid(MINUTE) == minute).map(Reverse));
        }
    }

    /// Bytes that the wheel holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let far: usize = self.far.values().map(|bucket| bucket.capacity() * size_of::<u32>()).sum();
        self.near.capacity() * size_of::<(Micros, u32)>() + far
    }

    /// Entries that wait, stale ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.near.len() + self.far_entries
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::HashMap};

    use super::*;

    #[test]
    fn entries_come_in_due_order_up_to_the_watermark() {
        // Inserts before, into and behind the bucket that is open, as keys do while timers fire.
        let dues: RefCell<HashMap<u32, Micros>> = RefCell::default();
        let mut wheel = Wheel::default();
        let insert = |wheel: &mut Wheel, due, key| {
            dues.borrow_mut().insert(key, due);
            wheel.insert(due, key);
        };
        let pop = |wheel: &mut Wheel, watermark| wheel.pop(watermark, |key| dues.borrow()[&key]);
        for (due, key) in [(3 * MINUTE, 1), (5, 2), (MINUTE + 7, 3), (4, 4)] {
            insert(&mut wheel, due, key);
        }
        assert_eq!(pop(&mut wheel, 3), None);
        assert_eq!(pop(&mut wheel, 4), Some((4, 4)));
        insert(&mut wheel, 2, 5);
        insert(&mut wheel, MINUTE, 6);
        assert_eq!(pop(&mut wheel, MINUTE + 6), Some((2, 5)));
        assert_eq!(pop(&mut wheel, MINUTE + 6), Some((5, 2)));
        assert_eq!(pop(&mut wheel, MINUTE + 6), Some((MINUTE, 6)));
        assert_eq!(pop(&mut wheel, MINUTE + 6), None);
        assert_eq!(pop(&mut wheel, Micros::MAX), Some((MINUTE + 7, 3)));
        assert_eq!(pop(&mut wheel, Micros::MAX), Some((3 * MINUTE, 1)));
        assert_eq!(pop(&mut wheel, Micros::MAX), None);
        assert!(wheel.is_empty());
    }

    #[test]
    fn an_entry_that_its_key_left_is_dropped() {
        // The key has moved to an earlier minute since: only the newer entry comes up.
        let mut wheel = Wheel::default();
        wheel.insert(5 * MINUTE, 1);
        wheel.insert(2 * MINUTE, 1);
        assert_eq!(wheel.pop(Micros::MAX, |_| 2 * MINUTE), Some((2 * MINUTE, 1)));
        assert_eq!(wheel.pop(Micros::MAX, |_| 2 * MINUTE), None);
    }
}
