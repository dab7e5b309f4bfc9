//! Deduplication: the ids that a key has seen within the horizon, kept with the key.
//!
//! Each id is kept with the key clock at which it was applied. An event is a duplicate if its id was applied when the key clock was at
//! least `max(key clock, event time) - horizon`. Key clocks only grow, so the ids lie in the order of their clocks and the
//! old ones are dropped from the front.

use std::collections::VecDeque;

use hashbrown::HashMap;
use whisperer_schemas::time::Micros;

/// Ids up to which a scan of the list beats a look-up in a map.
const SCANNED_MAX: usize = 32;

/// The recent ids of one key.
#[derive(Clone, Debug)]
pub enum Recent {
    /// Few ids: pairs of hash and clock.
    Few(Vec<(u64, Micros)>),
    /// Many ids: the same in order, and by hash.
    Many(Box<Indexed>),
}

/// Ids in the order of their clocks, and their clocks by hash.
#[derive(Clone, Debug, Default)]
pub struct Indexed {
    order: VecDeque<(u64, Micros)>,
    clocks: HashMap<u64, Micros>,
}

impl Default for Recent {
    fn default() -> Self {
        Recent::Few(Vec::new())
    }
}

impl Recent {
    /// Whether the id was applied when the key clock was at least `bound`.
    #[must_use]
    pub fn contains(&self, id: u64, bound: Micros) -> bool {
        match self {
            Recent::Few(ids) => ids.iter().any(|(known, clock)| *known == id && *clock >= bound),
            Recent::Many(ids) => ids.clocks.get(&id).is_some_and(|clock| *clock >= bound),
        }
    }

    /// Remembers an id applied at `key_clock`, and forgets those applied before `bound`.
    pub fn insert(&mut self, id: u64, key_clock: Micros, bound: Micros) {
        match self {
            Recent::Few(ids) => {
                let gone = ids.iter().take_while(|(_, clock)| *clock < bound).count();
                ids.drain(..gone);
                if ids.len() == ids.capacity() {
                    ids.reserve_exact((ids.len() / 4).max(1));
                }
                ids.push((id, key_clock));
                if ids.len() > SCANNED_MAX {
                    let order: VecDeque<_> = std::mem::take(ids).into();
                    let clocks = order.iter().copied().collect();
                    *self = Recent::Many(Box::new(Indexed { order, clocks }));
                }
            }
            Recent::Many(ids) => {
                ids.forget(bound);
                ids.order.push_back((id, key_clock));
                ids.clocks.insert(id, key_clock);
                if ids.order.len() <= SCANNED_MAX / 4 {
                    *self = Recent::Few(ids.order.iter().copied().collect());
                }
            }
        }
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Recent::Few(ids) => ids.capacity() * size_of::<(u64, Micros)>(),
            Recent::Many(ids) => size_of::<Indexed>() + ids.order.capacity() * 16 + ids.clocks.allocation_size(),
        }
    }
}

impl Indexed {
    fn forget(&mut self, bound: Micros) {
        while let Some((id, clock)) = self.order.front().copied().filter(|(_, clock)| *clock < bound) {
            self.order.pop_front();
            // The id may have been applied again since, after it was out of the horizon.
            if self.clocks.get(&id) == Some(&clock) {
                self.clocks.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_forgotten_at_the_horizon_whatever_their_number() {
        // One id per tick over a horizon of `kept`: the newest `kept` are known, older ones are not.
        for kept in [5, 100] {
            let mut recent = Recent::default();
            for clock in 0..1000_i64 {
                recent.insert(clock as u64, clock, clock - kept);
            }
            assert!(recent.contains((999 - kept) as u64, 999 - kept));
            assert!(!recent.contains((998 - kept) as u64, 999 - kept));
            assert_eq!(matches!(recent, Recent::Many(_)), kept > SCANNED_MAX as i64);
        }
    }
}
