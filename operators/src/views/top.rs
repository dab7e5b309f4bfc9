//! Top: the first values of each key, in their order.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    hash::Hash,
};

use differential_dataflow::{ExchangeData, VecCollection, hashable::Hashable};
use hashbrown::HashMap;
use timely::dataflow::channels::pact::Exchange;

use super::epochs::EachEpoch;

/// The first values of each key of a collection.
pub trait Top<'scope, K, V> {
    /// The least values under each key, at most as many as `limit` says, each with its rank from 1. Of equal values each counts.
    ///
    /// ```
    /// use differential_dataflow::input::Input;
    /// use timely::dataflow::operators::capture::{Capture, Extract};
    /// use whisperer_operators::views::Top;
    ///
    /// let top = timely::example(|scope| {
    ///     let (_, values) = scope.new_collection_from(vec![(1, 30), (1, 10), (1, 20), (2, 5)]);
    ///     values.top(|_| 2).inner.capture()
    /// });
    /// let mut top: Vec<_> = top.extract().into_iter().flat_map(|(_, updates)| updates).collect();
    /// top.sort();
    /// assert_eq!(top, [((1, (1, 10)), 0, 1), ((1, (2, 20)), 0, 1), ((2, (1, 5)), 0, 1)]);
    /// ```
    fn top(self, limit: impl Fn(&K) -> usize + Clone + 'static) -> VecCollection<'scope, u64, (K, (u32, V))>;
}

impl<'scope, K, V> Top<'scope, K, V> for VecCollection<'scope, u64, (K, V)>
where
    K: ExchangeData + Hash,
    V: ExchangeData + Hash,
{
    fn top(self, limit: impl Fn(&K) -> usize + Clone + 'static) -> VecCollection<'scope, u64, (K, (u32, V))> {
        firsts(self, limit.clone()).reduce_named("Top", move |key, values, top| {
            let each = values.iter().flat_map(|(value, count)| (0..*count).map(|_| (*value).clone()));
            top.extend((1..).zip(each.take(limit(key))).map(|ranked| (ranked, 1)));
        })
    }
}

/// The first values of each worker's share of a key: the first of all are among them. The values are divided, not the keys, of which there
/// may be one.
fn firsts<'scope, K, V>(
    values: VecCollection<'scope, u64, (K, V)>,
    limit: impl Fn(&K) -> usize + 'static,
) -> VecCollection<'scope, u64, (K, V)>
where
    K: ExchangeData + Hash,
    V: ExchangeData + Hash,
{
    let mut shares: HashMap<K, Share<V>> = HashMap::new();
    let mut changed = Vec::new();
    let by_value = Exchange::new(|((_, value), _, _): &((K, V), u64, isize)| value.hashed());
    values.each_epoch(by_value, "FirstsOfShare", move |updates, firsts| {
        for ((key, value), diff) in updates {
            let limit = limit(&key) as isize;
            let share = shares.entry_ref(&key).or_default();
            if share.change(value, diff, limit) {
                changed.push(key);
            }
        }
        for key in changed.drain(..) {
            let Some(share) = shares.get_mut(&key) else { continue };
            share.settle(limit(&key) as isize, |value, diff| firsts.push(((key.clone(), value), diff)));
            if share.values.is_empty() {
                shares.remove(&key);
            }
        }
    })
}

/// A worker's values of a key, in order, each with how often it is there.
struct Share<V> {
    values: BTreeMap<V, isize>,
    /// The first of them as they were last said.
    firsts: Vec<(V, isize)>,
    /// Whether they may be others now.
    stale: bool,
}

impl<V> Default for Share<V> {
    fn default() -> Share<V> {
        Share { values: BTreeMap::new(), firsts: Vec::new(), stale: false }
    }
}

impl<V: Ord + Clone> Share<V> {
    /// Takes in a change; true if it is the first of an epoch that can change the first values.
    fn change(&mut self, value: V, diff: isize, limit: isize) -> bool {
        let full = self.firsts.iter().map(|(_, count)| count).sum::<isize>() >= limit;
        let behind = full && self.firsts.last().is_some_and(|(last, _)| value > *last);
        match self.values.entry(value) {
            Entry::Vacant(entry) => {
                entry.insert(diff);
            }
            Entry::Occupied(mut entry) => {
                *entry.get_mut() += diff;
                if *entry.get() == 0 {
                    entry.remove();
                }
            }
        }
        !behind && !std::mem::replace(&mut self.stale, true)
    }

    /// Says how the first values have changed.
    fn settle(&mut self, limit: isize, mut say: impl FnMut(V, isize)) {
        let mut left = limit;
        let mut firsts = Vec::with_capacity(self.firsts.len());
        for (value, count) in &self.values {
            if left <= 0 {
                break;
            }
            firsts.push((value.clone(), left.min(*count)));
            left -= count;
        }
        self.firsts.drain(..).for_each(|(value, count)| say(value, -count));
        firsts.iter().for_each(|(value, count)| say(value.clone(), *count));
        self.firsts = firsts;
        self.stale = false;
    }
}
