//! Top: the first values of each key, in their order.

use std::hash::Hash;

use differential_dataflow::{ExchangeData, VecCollection, hashable::Hashable};

/// Parts into which the values of a key are divided, stage by stage: a change then looks at one part of each stage, not at all values.
const PARTS: [u64; 2] = [4096, 64];

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
        let parts = PARTS.into_iter().fold(self, |values, parts| part(values, parts, limit.clone()));
        parts.reduce_named("Top", move |key, values, top| {
            let each = values.iter().flat_map(|(value, count)| (0..*count).map(|_| (*value).clone()));
            top.extend((1..).zip(each.take(limit(key))).map(|ranked| (ranked, 1)));
        })
    }
}

/// The first values of each part of a key's: the first of all are among them.
fn part<'scope, K, V>(
    values: VecCollection<'scope, u64, (K, V)>,
    parts: u64,
    limit: impl Fn(&K) -> usize + 'static,
) -> VecCollection<'scope, u64, (K, V)>
where
    K: ExchangeData + Hash,
    V: ExchangeData + Hash,
{
    values
        .map(move |(key, value)| {
            let part = value.hashed() % parts;
            ((key, part), value)
        })
        .reduce_named("TopOfPart", move |(key, _), values, top| {
            let mut left = limit(key) as isize;
            for (value, count) in values {
                if left > 0 {
                    top.push(((*value).clone(), left.min(*count)));
                    left -= *count;
                }
            }
        })
        .map(|((key, _), value)| (key, value))
}
