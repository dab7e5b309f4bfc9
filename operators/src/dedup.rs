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

/// The recent ids of one key, in two words: most keys have seen one id within the horizon.
#[derive(Clone, Debug, Default)]
pub enum Recent {
    /// None yet.
    #[default]
    None,
    /// One id. It was applied last, so its clock is the key's.
    One(u64),
    /// Few ids, packed.
    Few(Box<Packed>),
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

impl Recent {
    /// Whether the id was applied when the key clock was at least `bound`; `key_clock` is that of the last id.
    #[must_use]
    pub fn contains(&self, id: u64, bound: Micros, key_clock: Micros) -> bool {
        match self {
            Recent::None => false,
            Recent::One(known) => *known == id && key_clock >= bound,
            Recent::Few(ids) => ids.contains(id, bound),
            Recent::Many(ids) => ids.clocks.get(&id).is_some_and(|clock| *clock >= bound),
        }
    }

    /// Remembers an id applied at `clock`, and forgets those applied before `bound`; `key_clock` is that of the last id before.
    pub fn insert(&mut self, id: u64, clock: Micros, bound: Micros, key_clock: Micros) {
        match self {
            Recent::None => *self = Recent::One(id),
            Recent::One(_) if key_clock < bound => *self = Recent::One(id),
            Recent::One(known) => *self = Recent::of(&[(*known, key_clock), (id, clock)]),
            Recent::Few(ids) => {
                ids.forget(bound);
                if ids.0.is_empty() {
                    *self = Recent::One(id);
                } else if ids.len() >= SCANNED_MAX || !ids.push(id, clock) {
                    let all: Vec<_> = ids.iter().chain([(id, clock)]).collect();
                    *self = Recent::indexed(all);
                }
            }
            Recent::Many(ids) => {
                ids.forget(bound);
                ids.order.push_back((id, clock));
                ids.clocks.insert(id, clock);
                let span = clock - ids.order.front().map_or(clock, |(_, oldest)| *oldest);
                if ids.order.len() <= SCANNED_MAX / 4 && span <= Micros::from(u32::MAX) {
                    let all: Vec<_> = ids.order.iter().copied().collect();
                    *self = Recent::of(&all);
                }
            }
        }
    }

    /// Hands over the ids with the key clocks at which they were applied, oldest first; `key_clock` is that of the last one.
    pub fn each(&self, key_clock: Micros, mut take: impl FnMut(u64, Micros)) {
        match self {
            Recent::None => {}
            Recent::One(id) => take(*id, key_clock),
            Recent::Few(ids) => ids.iter().for_each(|(id, clock)| take(id, clock)),
            Recent::Many(ids) => ids.order.iter().for_each(|(id, clock)| take(*id, *clock)),
        }
    }

    /// How many ids there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Recent::None => 0,
            Recent::One(_) => 1,
            Recent::Few(ids) => ids.len(),
            Recent::Many(ids) => ids.order.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The recent ids from what [`Recent::each`] gave.
    #[must_use]
    pub fn of(ids: &[(u64, Micros)]) -> Recent {
        let mut packed = Packed::default();
        match ids {
            [] => Recent::None,
            [(id, _)] => Recent::One(*id),
            _ if ids.len() <= SCANNED_MAX && ids.iter().all(|(id, clock)| packed.push(*id, *clock)) => {
                Recent::Few(Box::new(packed))
            }
            _ => Recent::indexed(ids.to_vec()),
        }
    }

    fn indexed(ids: Vec<(u64, Micros)>) -> Recent {
        let clocks = ids.iter().copied().collect();
        Recent::Many(Box::new(Indexed { order: ids.into(), clocks }))
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Recent::None | Recent::One(_) => 0,
            Recent::Few(ids) => size_of::<Packed>() + ids.0.capacity() * size_of::<u32>(),
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

    /// Looks for the hash first: nearly no event is a duplicate.
    fn contains(&self, id: u64, bound: Micros) -> bool {
        let wanted = halves(id);
        let mut ids = self.0.get(2..).unwrap_or_default().chunks_exact(3);
        ids.any(|known| known[..2] == wanted && self.base() + Micros::from(known[2]) >= bound)
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

    fn ids(recent: &Recent, key_clock: Micros) -> Vec<(u64, Micros)> {
        let mut ids = Vec::new();
        recent.each(key_clock, |id, clock| ids.push((id, clock)));
        ids
    }

    #[test]
    fn ids_are_forgotten_at_the_horizon_whatever_their_number() {
        // One id per tick over a horizon of `kept`: the newest `kept` are known, older ones are not.
        for kept in [0, 5, 20, 100] {
            let mut recent = Recent::default();
            for clock in 0..1000_i64 {
                recent.insert(clock as u64, clock, clock - kept, clock - 1);
            }
            assert!(recent.contains((999 - kept) as u64, 999 - kept, 999));
            assert!(!recent.contains((998 - kept) as u64, 999 - kept, 999));
            assert_eq!(matches!(recent, Recent::Many(_)), kept > SCANNED_MAX as i64);
            let again = Recent::of(&ids(&recent, 999));
            assert_eq!(ids(&again, 999), ids(&recent, 999));
            assert_eq!(recent.len() as i64, kept + 1);
        }
    }

    #[test]
    fn a_lone_id_has_the_clock_of_its_key() {
        // The second id comes within the horizon of the first, then so late that the first is forgotten; a late one adds to the set.
        let mut recent = Recent::default();
        recent.insert(1, 100, 90, i64::MIN);
        assert!(recent.contains(1, 100, 100));
        assert!(!recent.contains(1, 101, 100));
        recent.insert(2, 105, 95, 100);
        assert_eq!(ids(&recent, 105), [(1, 100), (2, 105)]);
        recent.insert(3, 105, 95, 105);
        assert_eq!(ids(&recent, 105), [(1, 100), (2, 105), (3, 105)]);
        recent.insert(4, 200, 190, 105);
        assert!(matches!(recent, Recent::One(4)));
        recent.insert(5, 300, 290, 200);
        assert!(matches!(recent, Recent::One(5)));
    }
}
