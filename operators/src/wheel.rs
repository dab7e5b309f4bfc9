//! The timer wheel of a worker: which keys have a timer due when the watermark moves.
//!
//! One entry per key, its earliest due time. Entries wait in buckets of a minute of event time; the bucket that the watermark has
//! reached is kept as a heap. An entry that a key no longer stands by is dropped when it comes up: the key knows its due time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use whisperer_schemas::time::{MINUTE, Micros};

/// Due times and the keys, by their index, that have them.
#[derive(Debug, Default)]
pub struct Wheel {
    /// Entries of buckets that the watermark has reached.
    near: BinaryHeap<Reverse<(Micros, u32)>>,
    near_until: Option<i64>,
    far: BTreeMap<i64, Vec<(Micros, u32)>>,
    far_entries: usize,
}

impl Wheel {
    /// Notes that a key has a timer due.
    pub fn insert(&mut self, due: Micros, key: u32) {
        let bucket = due.div_euclid(MINUTE);
        if self.near_until.is_some_and(|until| bucket <= until) {
            self.near.push(Reverse((due, key)));
        } else {
            self.far.entry(bucket).or_default().push((due, key));
            self.far_entries += 1;
        }
    }

    /// The earliest entry due at or before the watermark.
    pub fn pop(&mut self, watermark: Micros) -> Option<(Micros, u32)> {
        loop {
            if let Some(Reverse((due, _))) = self.near.peek() {
                return if *due <= watermark { self.near.pop().map(|Reverse(entry)| entry) } else { None };
            }
            let bucket = self.far.first_entry().filter(|bucket| *bucket.key() <= watermark.div_euclid(MINUTE))?;
            self.near_until = Some(*bucket.key());
            let entries = bucket.remove();
            self.far_entries -= entries.len();
            self.near = entries.into_iter().map(Reverse).collect();
        }
    }

    /// Bytes that the wheel holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let entry = size_of::<(Micros, u32)>();
        let far: usize = self.far.values().map(|bucket| bucket.capacity() * entry).sum();
        self.near.capacity() * entry + far
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
    use super::*;

    #[test]
    fn entries_come_in_due_order_up_to_the_watermark() {
        // Inserts before, into and behind the bucket that is open, as keys do while timers fire.
        let mut wheel = Wheel::default();
        for (due, key) in [(3 * MINUTE, 1), (5, 2), (MINUTE + 7, 3), (4, 4)] {
            wheel.insert(due, key);
        }
        assert_eq!(wheel.pop(3), None);
        assert_eq!(wheel.pop(4), Some((4, 4)));
        wheel.insert(2, 5);
        wheel.insert(MINUTE, 6);
        assert_eq!(wheel.pop(MINUTE + 6), Some((2, 5)));
        assert_eq!(wheel.pop(MINUTE + 6), Some((5, 2)));
        assert_eq!(wheel.pop(MINUTE + 6), Some((MINUTE, 6)));
        assert_eq!(wheel.pop(MINUTE + 6), None);
        assert_eq!(wheel.pop(Micros::MAX), Some((MINUTE + 7, 3)));
        assert_eq!(wheel.pop(Micros::MAX), Some((3 * MINUTE, 1)));
        assert_eq!(wheel.pop(Micros::MAX), None);
        assert!(wheel.is_empty());
    }
}
