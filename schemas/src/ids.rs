//! Identifiers that cross crate borders: epochs, partitions, positions and key hashes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::error::SchemaError;

/// One ingestion tick: the timely timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// A partition of a source, numbered from 0; those of files that are read before a topic, from 2^24.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId(pub u32);

impl PartitionId {
    /// The first partition of history: more than a topic can have.
    pub const HISTORY: u32 = 1 << 24;

    /// Whether it is one of the files that are read before a topic.
    #[inline]
    #[must_use]
    pub fn is_history(self) -> bool {
        self.0 >= PartitionId::HISTORY
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a record stands in its source: a partition and an offset in it.
///
/// The offset's unit is the source's own: bytes of the decompressed text for files, records for a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The partition that holds the record.
    pub partition: PartitionId,
    /// The record's offset in the partition.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition.0, self.offset)
    }
}

impl FromStr for Position {
    type Err = SchemaError;

    fn from_str(text: &str) -> Result<Position, SchemaError> {
        let position = text.split_once(':').and_then(|(partition, offset)| {
            Some(Position { partition: PartitionId(partition.parse().ok()?), offset: offset.parse().ok()? })
        });
        position.ok_or_else(|| SchemaError::Position { text: text.into() })
    }
}

/// 128-bit hash of a key's ids; what records are exchanged and states are found by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyHash(pub u128);

/// Key groups in a job: the unit in which state is owned, checkpointed and moved between workers.
pub const KEY_GROUPS: u64 = 256;

impl KeyHash {
    /// Hashes the ids of a key: each id is preceded by its length, so `("a", "bc")` differs from `("ab", "c")`.
    ///
    /// ```
    /// use whisperer_schemas::KeyHash;
    /// assert_ne!(KeyHash::of(&["a", "bc"]), KeyHash::of(&["ab", "c"]));
    /// ```
    #[must_use]
    pub fn of(ids: &[&str]) -> KeyHash {
        // Native ids are 20 bytes: two of them and their lengths fit the stack buffer.
        let mut buffer = [0_u8; 264];
        let bytes: usize = ids.iter().map(|id| id.len() + 2).sum();
        if bytes > buffer.len() {
            let mut long = vec![0; bytes];
            KeyHash::fill(ids, &mut long);
            return KeyHash(xxh3_128(&long));
        }
        KeyHash::fill(ids, &mut buffer[..bytes]);
        KeyHash(xxh3_128(&buffer[..bytes]))
    }

    fn fill(ids: &[&str], buffer: &mut [u8]) {
        let mut at = 0;
        for id in ids {
            buffer[at..at + 2].copy_from_slice(&(id.len() as u16).to_le_bytes());
            buffer[at + 2..at + 2 + id.len()].copy_from_slice(id.as_bytes());
            at += 2 + id.len();
        }
    }

    /// The key group of the key, below [`KEY_GROUPS`].
    #[must_use]
    pub fn group(self) -> u64 {
        // The upper half: the lower half serves the hash table, and both should be spread.
        ((self.0 >> 64) as u64) % KEY_GROUPS
    }
}

/// 64-bit hash of an event id, for deduplication, and of text values, for distinct counts.
#[must_use]
pub fn text_hash(text: &str) -> u64 {
    xxh3_64(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_written() {
        // Display and FromStr are inverses at the bounds; anything else is refused.
        for position in [Position::default(), Position { partition: PartitionId(u32::MAX), offset: u64::MAX }] {
            assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
        }
        for wrong in ["", "1", ":", "1:", ":1", "-1:1", "1:2:3", "4294967296:0", "1:18446744073709551616"] {
            assert!(wrong.parse::<Position>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn key_hashes_do_not_change() {
        // Fixed vectors: state on disk and decision ids depend on them. Short and long keys hash the same bytes.
        assert_eq!(
            KeyHash::of(&["app_0123456789abcdef", "usr_0123456789abcdef"]).0,
            0x8817_a3bc_ee2e_ef35_2c9d_c506_84e5_e8b6
        );
        let long = "x".repeat(300);
        assert_eq!(KeyHash::of(&[&long]).0, xxh3_128(format!("\x2c\x01{long}").as_bytes()));
        assert!(KeyHash::of(&[&long]).group() < KEY_GROUPS);
    }
}
