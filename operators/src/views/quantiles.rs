//! Quantiles: the values at given ranks of each key.

use std::{collections::BTreeMap, hash::Hash, ops::Bound};

use differential_dataflow::{ExchangeData, VecCollection, hashable::Hashable};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Exchange;

use super::epochs::{Combine, EachEpoch};

/// A value at a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Quantile {
    /// Which of those that were asked for.
    pub at: u16,
    /// The value.
    pub value: i64,
    /// How many values there are in all.
    pub count: i64,
}

/// Quantiles of a collection of keys and values.
pub trait Quantiles<'scope, K> {
    /// The nearest-rank quantiles of the values under each key: of `n` values, the `p`-quantile is the one at rank `max(1, ceil(p n))` in
    /// ascending order. A change costs a search among the *different* values of its key, however many there are.
    ///
    /// ```
    /// use differential_dataflow::input::Input;
    /// use timely::dataflow::operators::capture::{Capture, Extract};
    /// use whisperer_operators::views::{Quantile, Quantiles};
    ///
    /// let medians = timely::example(|scope| {
    ///     let (_, values) = scope.new_collection_from(vec![(1, 10), (1, 30), (1, 20), (1, 90)]);
    ///     values.quantiles(|_, ask| ask(&[0.5])).inner.capture()
    /// });
    /// let medians: Vec<_> = medians.extract().into_iter().flat_map(|(_, updates)| updates).collect();
    /// assert_eq!(medians, [((1, Quantile { at: 0, value: 20, count: 4 }), 0, 1)]);
    /// ```
    fn quantiles(self, at: impl Fn(&K, &mut dyn FnMut(&[f64])) + 'static) -> VecCollection<'scope, u64, (K, Quantile)>;
}

impl<'scope, K: ExchangeData + Hash> Quantiles<'scope, K> for VecCollection<'scope, u64, (K, i64)> {
    fn quantiles(self, at: impl Fn(&K, &mut dyn FnMut(&[f64])) + 'static) -> VecCollection<'scope, u64, (K, Quantile)> {
        let mut keys: HashMap<K, Values> = HashMap::new();
        let mut changed = Vec::new();
        let by_key = Exchange::new(|((key, _), _, _): &((K, i64), u64, isize)| key.hashed());
        self.combine().each_epoch(by_key, "Quantiles", move |updates, quantiles| {
            for ((key, value), diff) in updates {
                let values = keys.entry_ref(&key).or_default();
                if values.change(value, diff as i64) {
                    changed.push(key);
                }
            }
            for key in changed.drain(..) {
                let Some(values) = keys.get_mut(&key) else { continue };
                at(&key, &mut |asked| {
                    values.settle(asked, |quantile, diff| quantiles.push(((key.clone(), quantile), diff)))
                });
                if values.counts.is_empty() {
                    keys.remove(&key);
                }
            }
        })
    }
}

/// The values of a key, each with how often it is there, and a cursor for each quantile, which a change moves a little.
#[derive(Default)]
struct Values {
    counts: BTreeMap<i64, i64>,
    count: i64,
    cursors: Vec<Cursor>,
    /// The quantiles as they were last said.
    said: Vec<Quantile>,
    stale: bool,
}

/// A place among values.
struct Cursor {
    value: i64,
    /// How many values are less.
    below: i64,
}

impl Values {
    /// Takes in a change; true if it is the first of an epoch.
    fn change(&mut self, value: i64, diff: i64) -> bool {
        let count = self.counts.entry(value).or_default();
        *count += diff;
        if *count == 0 {
            self.counts.remove(&value);
        }
        self.count += diff;
        for cursor in self.cursors.iter_mut().filter(|cursor| value < cursor.value) {
            cursor.below += diff;
        }
        !std::mem::replace(&mut self.stale, true)
    }

    /// Says how the quantiles have changed.
    fn settle(&mut self, asked: &[f64], mut say: impl FnMut(Quantile, isize)) {
        self.stale = false;
        self.cursors.resize_with(asked.len(), || Cursor { value: i64::MIN, below: 0 });
        let (counts, count) = (&self.counts, self.count);
        let mut quantiles = Vec::with_capacity(asked.len());
        for ((at, p), cursor) in (0..).zip(asked).zip(&mut self.cursors) {
            if count > 0 {
                cursor.seek(((p * count as f64).ceil() as i64).max(1), counts);
                quantiles.push(Quantile { at, value: cursor.value, count });
            }
        }
        if quantiles != self.said {
            self.said.drain(..).for_each(|quantile| say(quantile, -1));
            quantiles.iter().for_each(|quantile| say(*quantile, 1));
            self.said = quantiles;
        }
    }
}

impl Cursor {
    /// Goes to the value at a rank.
    fn seek(&mut self, rank: i64, counts: &BTreeMap<i64, i64>) {
        loop {
            let here = counts.get(&self.value).copied().unwrap_or(0);
            let next = if rank <= self.below {
                counts.range(..self.value).next_back().map(|(value, count)| (*value, self.below - count))
            } else if rank > self.below + here {
                let after = counts.range((Bound::Excluded(self.value), Bound::Unbounded)).next();
                after.map(|(value, _)| (*value, self.below + here))
            } else {
                None
            };
            let Some((value, below)) = next else { break };
            *self = Cursor { value, below };
        }
    }
}
