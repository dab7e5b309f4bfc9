//! What the topic holds beyond the last checkpoint, and which rows are passed over because of it.
//!
//! Decisions and dead letters have an id: a row whose id stands in the topic is passed over, as often as it stands there.
//!
//! A changelog is different: it may be compacted, so that of a key's rows only the last one is certain to be left, and a row that
//! is older than the last must not follow it. A key's rows are made again in the order of its log. So they are passed over until the
//! one comes that stands last, told by its time and its hash; from then on all are written. Should a row come that is as young as
//! the last but none of those that are left, it and all that follow are written too: at worst a row stands there twice, and the last
//! one is always right.

use std::collections::HashMap;

use whisperer_schemas::{Micros, time::parse_rfc3339};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    encode::{AS_OF, DECISION_ID, ERROR_OFFSET, ERROR_PARTITION, ERROR_TOPIC, ROW_ID, Table},
    message::{Header, Message},
};

/// Ids that are remembered: 20 million take about a gigabyte. The topic holds that many beyond a checkpoint only if checkpoints
/// have failed for long, or others write much into the same topic.
pub(super) const IDS_MAX: usize = 20_000_000;

/// What tells a message from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Of a decision or dead letter.
    Id(u128),
    /// Of a changelog's row.
    Change { key: u128, as_of: Micros, row: u128 },
}

impl Mark {
    /// The mark of a message; none for one that is not this sink's.
    pub(super) fn of<'h>(table: Table, message: &Message<'_, impl AsRef<[Header<'h>]>>) -> Option<Mark> {
        let headers = message.headers.as_ref();
        let header = |wanted: &str| headers.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
        match table {
            Table::Decisions { .. } => header(DECISION_ID).map(|id| Mark::Id(xxh3_128(id))),
            Table::Profiles { .. } => {
                let as_of = header(AS_OF).and_then(parse_rfc3339)?;
                Some(Mark::Change { key: xxh3_128(message.key?), as_of, row: xxh3_128(header(ROW_ID)?) })
            }
            Table::DeadLetters { .. } => {
                // No part but the last can hold a zero byte.
                let parts = [header(ERROR_PARTITION)?, header(ERROR_OFFSET)?, header(ERROR_TOPIC)?];
                Some(Mark::Id(xxh3_128(&parts.join(&0))))
            }
            Table::Changes => None,
        }
    }
}

/// The rows that stand in the topic beyond the last checkpoint.
#[derive(Debug, Default)]
pub(super) struct Tail {
    ids: HashMap<u128, u32>,
    changes: HashMap<u128, Last>,
}

/// What stands last of a key.
#[derive(Debug)]
struct Last {
    as_of: Micros,
    /// The hashes of its last rows, as far as they are of the same time; the last one last.
    rows: Vec<u128>,
}

impl Tail {
    /// Adds what was read, in the order of the topic. False if that is too much.
    #[must_use]
    pub(super) fn add(&mut self, mark: Mark) -> bool {
        match mark {
            Mark::Id(id) => *self.ids.entry(id).or_default() += 1,
            Mark::Change { key, as_of, row } => {
                let last = self.changes.entry(key).or_insert_with(|| Last { as_of, rows: Vec::new() });
                if last.as_of != as_of {
                    *last = Last { as_of, rows: Vec::new() };
                }
                last.rows.push(row);
            }
        }
        self.len() <= IDS_MAX
    }

    /// Whether a row is passed over. What it stood for is forgotten.
    pub(super) fn take(&mut self, mark: Mark) -> bool {
        match mark {
            Mark::Id(id) => self.take_id(id),
            Mark::Change { key, as_of, row } => self.take_change(key, as_of, row),
        }
    }

    /// How many ids and keys are left.
    pub(super) fn len(&self) -> usize {
        self.ids.len() + self.changes.len()
    }

    fn take_id(&mut self, id: u128) -> bool {
        let Some(times) = self.ids.get_mut(&id) else { return false };
        *times -= 1;
        if *times == 0 {
            self.ids.remove(&id);
        }
        true
    }

    fn take_change(&mut self, key: u128, as_of: Micros, row: u128) -> bool {
        let Some(last) = self.changes.get_mut(&key) else { return false };
        if as_of < last.as_of {
            return true;
        }
        let place = (as_of == last.as_of).then(|| last.rows.iter().position(|other| *other == row)).flatten();
        let Some(place) = place else {
            self.changes.remove(&key);
            return false;
        };
        last.rows.drain(..=place);
        if last.rows.is_empty() {
            self.changes.remove(&key);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(as_of: Micros, row: u128) -> Mark {
        Mark::Change { key: 1, as_of, row }
    }

    fn tail(marks: &[Mark]) -> Tail {
        let mut tail = Tail::default();
        marks.iter().for_each(|mark| assert!(tail.add(*mark)));
        tail
    }

    /// Goal: an id is passed over as often as it stands in the topic, then never again; others are not.
    #[test]
    fn ids_are_passed_over_as_often_as_seen() {
        let mut tail = tail(&[Mark::Id(1), Mark::Id(2), Mark::Id(1)]);
        let taken: Vec<bool> = [3, 1, 2, 1, 1, 2].map(|id| tail.take(Mark::Id(id))).into();
        assert_eq!(taken, [false, true, true, true, false, false]);
        assert_eq!(tail.len(), 0);
    }

    /// Goal: whatever compaction left of a key's rows, and wherever the writer died, making the rows again ends with the right one, and
    /// writes nothing at all where nothing is missing. Method: all rows of a log with equal times, all compactions, all ends.
    #[test]
    fn changelogs_end_right() {
        let log = [change(1, 10), change(2, 11), change(2, 12), change(2, 11), change(3, 13), change(3, 14)];
        for end in 0..=log.len() {
            // Compaction may take out any rows but the last of the key.
            for gone in 0..1_usize << end.saturating_sub(1) {
                let left: Vec<Mark> = log[..end]
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| gone >> at & 1 == 0)
                    .map(|(_, mark)| *mark)
                    .collect();
                let mut tail = tail(&left);
                let written: Vec<Mark> = log.iter().copied().filter(|mark| !tail.take(*mark)).collect();
                let last = left.iter().chain(&written).next_back();
                assert_eq!(last, log.last(), "{end} rows, {gone:b} gone");
                if gone == 0 {
                    assert_eq!(written, log[end..], "{end} rows, none gone");
                }
                assert_eq!(tail.len(), 0);
            }
        }
    }

    /// Goal: keys do not mix.
    #[test]
    fn keys_are_apart() {
        let mut tail = tail(&[change(5, 1)]);
        assert!(!tail.take(Mark::Change { key: 2, as_of: 1, row: 1 }));
        assert!(tail.take(change(4, 9)));
    }
}
