//! The id of a decision: what makes a repeated one recognizable wherever it arrives.

use xxhash_rust::xxh3::Xxh3;

use crate::{ids::KeyHash, time::Micros};

/// The id of the `ordinal`th firing of a trigger of a job for a key at one firing time.
///
/// It is xxh3-128, as 32 hexadecimal digits, over the job's and the trigger's name, each after its length in bytes as `u32`,
/// the key hash, the firing time and the ordinal, all little-endian.
#[must_use]
pub fn decision_id(job: &str, trigger: &str, key: KeyHash, firing_time: Micros, ordinal: u32) -> String {
    let mut hasher = Xxh3::new();
    for name in [job, trigger] {
        hasher.update(&(name.len() as u32).to_le_bytes());
        hasher.update(name.as_bytes());
    }
    hasher.update(&key.0.to_le_bytes());
    hasher.update(&firing_time.to_le_bytes());
    hasher.update(&ordinal.to_le_bytes());
    format!("{:032x}", hasher.digest128())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_do_not_change() {
        // Fixed vectors: receivers recognize repeated decisions by them.
        let key = KeyHash(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        assert_eq!(
            decision_id("engagement", "win_back", key, 1_700_000_000_000_000, 0),
            "422a7c3f818f98a4a68fd04fe2e3f9de"
        );
        assert_eq!(decision_id("", "", KeyHash(0), 0, 0), "de7d71112ba8a784a2072842cc0b0784");
    }

    #[test]
    fn every_part_counts() {
        // Changing any one part, or moving a letter between the names, gives another id.
        let ids = HashSet::from([
            decision_id("ab", "c", KeyHash(1), 1, 0),
            decision_id("a", "bc", KeyHash(1), 1, 0),
            decision_id("ab", "d", KeyHash(1), 1, 0),
            decision_id("ab", "c", KeyHash(2), 1, 0),
            decision_id("ab", "c", KeyHash(1), -1, 0),
            decision_id("ab", "c", KeyHash(1), 1, 1),
        ]);
        assert_eq!(ids.len(), 6);
    }
}
