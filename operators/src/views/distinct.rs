//! Distinct counts: how many different members each key has.

use std::hash::Hash;

use differential_dataflow::{
    ExchangeData, VecCollection,
    operators::{CountTotal, ThresholdTotal},
};

use super::epochs::Combine;

/// Distinct counts of a collection of keys and members.
pub trait DistinctCounts<'scope, K> {
    /// Counts the different members under each key. A key without members has no count.
    ///
    /// ```
    /// use differential_dataflow::AsCollection;
    /// use timely::dataflow::operators::{ToStream, capture::{Capture, Extract}};
    /// use whisperer_operators::views::DistinctCounts;
    ///
    /// let counts = timely::example(|scope| {
    ///     // A member who is there twice counts once, and as long as one of the two is left.
    ///     let members = [((1, 7), 0, 2), ((1, 8), 0, 1), ((1, 7), 1, -1), ((1, 8), 2, -1)];
    ///     members.to_stream(scope).as_collection().distinct_counts().inner.capture()
    /// });
    /// let mut counts: Vec<_> = counts.extract().into_iter().flat_map(|(_, updates)| updates).collect();
    /// counts.sort_by_key(|(_, epoch, diff)| (*epoch, *diff));
    /// assert_eq!(counts, [((1, 2), 0, 1), ((1, 2), 2, -1), ((1, 1), 2, 1)]);
    /// ```
    fn distinct_counts(self) -> VecCollection<'scope, u64, (K, isize)>;
}

impl<'scope, K, V> DistinctCounts<'scope, K> for VecCollection<'scope, u64, (K, V)>
where
    K: ExchangeData + Hash,
    V: ExchangeData + Hash,
{
    fn distinct_counts(self) -> VecCollection<'scope, u64, (K, isize)> {
        // `distinct_total` of this version takes nothing back: its threshold is 1 for a count of 0, too.
        let there = |_: &(K, V), count: &isize| isize::from(*count > 0);
        self.combine().threshold_total(there).map(|(key, _)| key).count_total()
    }
}
