//! Quantiles: the values at given ranks of each key.

use std::hash::Hash;

use differential_dataflow::{ExchangeData, VecCollection};
use serde::{Deserialize, Serialize};

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
    /// ascending order. The cost of a change is the number of *different* values of its key.
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
        self.consolidate_stream().reduce_named("Quantiles", move |key, values, quantiles| {
            let count: i64 = values.iter().map(|(_, count)| *count as i64).sum();
            at(key, &mut |asked| {
                for (at, p) in (0..).zip(asked) {
                    let rank = ((p * count as f64).ceil() as i64).max(1);
                    let mut seen = 0;
                    let found = values.iter().find(|(_, more)| {
                        seen += *more as i64;
                        seen >= rank
                    });
                    quantiles.extend(found.map(|(value, _)| (Quantile { at, value: **value, count }, 1)));
                }
            });
        })
    }
}
