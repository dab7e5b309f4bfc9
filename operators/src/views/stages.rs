//! Keys by lifecycle stage.

use differential_dataflow::{AsCollection, VecCollection, operators::CountTotal};
use timely::dataflow::StreamVec;

/// An update of a collection of lifecycle stages: a stage, as the job numbers them, the epoch, and how many keys have entered it.
pub type StageUpdate = (u16, u64, isize);

/// Keys by lifecycle stage.
pub trait StageCounts<'scope> {
    /// Counts the keys in each stage. A stage without keys has no count.
    ///
    /// ```
    /// use timely::dataflow::operators::{ToStream, capture::{Capture, Extract}};
    /// use whisperer_operators::views::StageCounts;
    ///
    /// let counts = timely::example(|scope| {
    ///     // Two keys appear in stage 0; one of them moves on to stage 1.
    ///     let updates = [(0, 0, 1), (0, 0, 1), (0, 3, -1), (1, 3, 1)];
    ///     updates.to_stream(scope).stage_counts().inner.capture()
    /// });
    /// let mut counts: Vec<_> = counts.extract().into_iter().flat_map(|(_, updates)| updates).collect();
    /// counts.sort_by_key(|((stage, _), epoch, diff)| (*epoch, *stage, *diff));
    /// assert_eq!(counts, [((0, 2), 0, 1), ((0, 2), 3, -1), ((0, 1), 3, 1), ((1, 1), 3, 1)]);
    /// ```
    fn stage_counts(self) -> VecCollection<'scope, u64, (u16, isize)>;
}

impl<'scope> StageCounts<'scope> for StreamVec<'scope, u64, StageUpdate> {
    fn stage_counts(self) -> VecCollection<'scope, u64, (u16, isize)> {
        self.as_collection().count_total()
    }
}
