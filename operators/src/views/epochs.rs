//! Updates taken by the epoch: all of one at once, when there can be no more of it.

use std::{collections::BTreeMap, hash::Hash};

use differential_dataflow::{AsCollection, ExchangeData, VecCollection, difference::Semigroup};
use hashbrown::HashMap;
use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        channels::pact::{ParallelizationContract, Pipeline},
        operators::{Capability, generic::operator::Operator},
    },
};

/// The container in which updates travel.
type Updates<D, R> = Vec<(D, u64, R)>;

/// An epoch of which there can be more: the right to put out results of it, and its updates so far.
type Open<D, R> = (Capability<u64>, Vec<(D, R)>);

/// Work on the updates of one epoch after another.
pub(super) trait EachEpoch<'scope, D, R> {
    /// Calls `work` with the updates of each epoch, in the order of epochs; what it puts into its second argument is of the same epoch.
    fn each_epoch<P, D2, R2>(
        self,
        pact: P,
        name: &str,
        work: impl FnMut(Vec<(D, R)>, &mut Vec<(D2, R2)>) + 'static,
    ) -> VecCollection<'scope, u64, D2, R2>
    where
        P: ParallelizationContract<u64, Updates<D, R>>,
        D2: Clone + 'static,
        R2: Clone + 'static;
}

impl<'scope, D, R> EachEpoch<'scope, D, R> for VecCollection<'scope, u64, D, R>
where
    D: Clone + 'static,
    R: Clone + 'static,
{
    fn each_epoch<P, D2, R2>(
        self,
        pact: P,
        name: &str,
        mut work: impl FnMut(Vec<(D, R)>, &mut Vec<(D2, R2)>) + 'static,
    ) -> VecCollection<'scope, u64, D2, R2>
    where
        P: ParallelizationContract<u64, Updates<D, R>>,
        D2: Clone + 'static,
        R2: Clone + 'static,
    {
        let mut open: BTreeMap<u64, Open<D, R>> = BTreeMap::new();
        let mut results = Vec::new();
        let worked =
            self.inner.unary_frontier::<CapacityContainerBuilder<Updates<D2, R2>>, _, _, _>(pact, name, |_, _| {
                move |(input, frontier), output| {
                    input.for_each(|capability, updates| {
                        for (data, epoch, diff) in updates.drain(..) {
                            let of_epoch = open.entry(epoch);
                            let (_, updates) = of_epoch.or_insert_with(|| (capability.delayed(&epoch, 0), Vec::new()));
                            updates.push((data, diff));
                        }
                    });
                    while let Some(first) = open.first_entry().filter(|first| !frontier.less_equal(first.key())) {
                        let (epoch, (capability, updates)) = first.remove_entry();
                        work(updates, &mut results);
                        let of_epoch = results.drain(..).map(|(data, diff)| (data, epoch, diff));
                        output.session(&capability).give_iterator(of_epoch);
                    }
                }
            });
        worked.as_collection()
    }
}

/// What a worker's updates of an epoch come to, before they travel: of thousands of users in few groups, an update for each group.
pub(super) trait Combine {
    /// The same collection in fewer updates.
    fn combine(self) -> Self;
}

impl<D, R> Combine for VecCollection<'_, u64, D, R>
where
    D: ExchangeData + Hash,
    R: ExchangeData + Semigroup,
{
    fn combine(self) -> Self {
        let mut sums: HashMap<D, R> = HashMap::new();
        self.each_epoch(Pipeline, "Combine", move |updates, combined| {
            for (data, diff) in updates {
                sums.entry(data).and_modify(|sum| sum.plus_equals(&diff)).or_insert(diff);
            }
            combined.extend(sums.drain().filter(|(_, sum)| !sum.is_zero()));
        })
    }
}
