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
    /// Few ids, packed.
    Few(Packed),
    /// Many ids: in the order of their clocks, and by hash.
    Many(Box<Indexed>),
}

/// Ids in 12 bytes each: two words of base clock, then for each id its hash, low word first, and what its clock is above the base.
#[derive(Clone, Debug, Default)]
pub struct Packed(Vec<u32>);

/// Ids in the order of their clocks, and their clocks by hash.
#[derive(Clone, Debug, Default)]
pub struct Indexed {
    order: VecDeque<(u64, Micros)>,
    clocks: HashMap<u64, Micros>,
}

impl Default for Recent {
    fn default() -> Self {
        Recent::Few(Packed::default())
    }
}

impl Recent {
    /// Whether the id was applied when the key clock was at least `bound`.
    #[must_use]
    pub fn contains(&self, id: u64, bound: Micros) -> bool {
        match self {
            Recent::Few(ids) => ids.iter().any(|(known, clock)| known == id && clock >= bound),
            Recent::Many(ids) => ids.clocks.get(&id).is_some_and(|clock| *clock >= bound),
        }
    }

    /// Remembers an id applied at `key_clock`, and forgets those applied before `bound`.
    pub fn insert(&mut self, id: u64, key_clock: Micros, bound: Micros) {
        match self {
            Recent::Few(ids) => {
                ids.forget(bound);
                if ids.len() >= SCANNED_MAX || !ids.push(id, key_clock) {
                    let mut order: VecDeque<_> = ids.iter().collect();
                    order.push_back((id, key_clock));
                    let clocks = order.iter().copied().collect();
                    *self = Recent::Many(Box::new(Indexed { order, clocks }));
                }
            }
            Recent::Many(ids) => {
                ids.forget(bound);
                ids.order.push_back((id, key_clock));
                ids.clocks.insert(id, key_clock);
                if ids.order.len() <= SCANNED_MAX / 4 {
                    let mut few = Packed::default();
                    if ids.order.iter().all(|(id, clock)| few.push(*id, *clock)) {
                        *self = Recent::Few(few);
                    }
                }
            }
        }
    }

    /// The ids with their clocks, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Micros)> + '_ {
        let (few, many) = match self {
            Recent::Few(ids) => (Some(ids.iter()), None),
            Recent::Many(ids) => (None, Some(ids.order.iter().copied())),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten())
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Recent::Few(ids) => ids.0.capacity() * size_of::<u32>(),
            Recent::Many(ids) => size_of::<Indexed>() + ids.order.capacity() * 16 + ids.clocks.allocation_size(),
        }
    }
}

fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

fn whole(halves: &[u32]) -> u64 {
    u64::from(halves[0]) | u64::from(halves[1]) << 32
}

impl Packed {
    fn len(&self) -> usize {
        self.0.len() / 3
    }

    fn base(&self) -> Micros {
        self.0.get(..2).map_or(0, |base| whole(base) as Micros)
    }

    fn iter(&self) -> impl Iterator<Item = (u64, Micros)> + '_ {
        let base = self.base();
        self.0.get(2..).unwrap_or_default().chunks_exact(3).map(move |id| (whole(id), base + Micros::from(id[2])))
    }

    /// Adds an id; false where its clock is too far above the base, which takes horizons of more than an hour.
    fn push(&mut self, id: u64, clock: Micros) -> bool {
        let base = if self.0.is_empty() { clock } else { self.base() };
        let Ok(above) = u32::try_from(clock - base) else { return false };
        let needed = if self.0.is_empty() { 5 } else { 3 };
        if self.0.capacity() - self.0.len() < needed {
            self.0.reserve_exact(needed.max(self.0.len() / 4));
        }
        if self.0.is_empty() {
            self.0.extend(halves(base as u64));
        }
        self.0.extend(halves(id));
        self.0.push(above);
        true
    }

    fn forget(&mut self, bound: Micros) {
        let gone = self.iter().take_while(|(_, clock)| *clock < bound).count();
        if gone == 0 {
            return;
        }
        let (old, mut kept) = (self.base(), std::mem::take(&mut self.0));
        kept.drain(2..2 + 3 * gone);
        if kept.len() > 2 {
            // The oldest id that is left is the new base.
            let base = old + Micros::from(kept[4]);
            kept[..2].copy_from_slice(&halves(base as u64));
            let shift = (base - old) as u32;
            kept[2..].chunks_exact_mut(3).for_each(|id| id[2] -= shift);
        } else {
            kept.clear();
        }
        self.0 = kept;
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
        for kept in [5, 20, 100] {
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
