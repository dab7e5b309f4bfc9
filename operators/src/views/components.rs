//! Components: which nodes of a graph hang together.

use std::hash::Hash;

use differential_dataflow::{ExchangeData, VecCollection, operators::Iterate};

/// The connected components of a graph.
pub trait Components<'scope, N> {
    /// Labels every node of these edges, which go both ways, with the least node of its component.
    ///
    /// Labels go from node to node until none changes. Where an edge goes, what its labels had led to is taken back, as far as it led. What
    /// comes out on the way adds up to that.
    ///
    /// ```
    /// use differential_dataflow::AsCollection;
    /// use timely::dataflow::operators::{ToStream, capture::{Capture, Extract}};
    /// use whisperer_operators::views::Components;
    ///
    /// let labels = timely::example(|scope| {
    ///     // A path of three nodes that falls apart.
    ///     let edges = [((7, 5), 0, 1), ((5, 3), 0, 1), ((7, 5), 1, -1)];
    ///     edges.to_stream(scope).as_collection().components().consolidate().inner.capture()
    /// });
    /// let mut labels: Vec<_> = labels.extract().into_iter().flat_map(|(_, updates)| updates).collect();
    /// labels.sort_by_key(|(label, epoch, diff)| (*epoch, *label, *diff));
    /// assert_eq!(labels, [((3, 3), 0, 1), ((5, 3), 0, 1), ((7, 3), 0, 1), ((7, 3), 1, -1)]);
    /// ```
    fn components(self) -> VecCollection<'scope, u64, (N, N)>;
}

impl<'scope, N: ExchangeData + Hash> Components<'scope, N> for VecCollection<'scope, u64, (N, N)> {
    fn components(self) -> VecCollection<'scope, u64, (N, N)> {
        let edges = self.flat_map(|(one, other)| [(one.clone(), other.clone()), (other, one)]);
        let nodes = edges.clone().map(|(node, _)| (node.clone(), node));
        let edges = edges.arrange_by_key();
        nodes.clone().iterate(move |scope, labels| {
            let next = labels.join_core(edges.enter(scope), |_, label, other| Some((other.clone(), label.clone())));
            next.concat(nodes.enter(scope)).reduce(|_, labels, least| least.push((labels[0].0.clone(), 1)))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use differential_dataflow::AsCollection;
    use proptest::{collection::vec, prelude::*};
    use timely::dataflow::operators::{
        ToStream,
        capture::{Capture, Extract},
    };

    use super::*;

    type Edge = (u8, u8);

    /// The least node that each node can be walked to.
    fn walked(edges: &[Edge]) -> BTreeMap<u8, u8> {
        let mut labels: BTreeMap<u8, u8> = edges.iter().flat_map(|(a, b)| [(*a, *a), (*b, *b)]).collect();
        for _ in 0..=labels.len() {
            for (a, b) in edges {
                let least = labels[a].min(labels[b]);
                labels.extend([(*a, least), (*b, least)]);
            }
        }
        labels
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn labels_follow_edges_that_come_and_go(toggles in vec(vec((0..12_u8, 0..12_u8), 0..6), 1..12)) {
            // Goal: after every epoch, labels are those of a walk over the edges that are there. Method: an edge that comes again goes.
            let mut there: Vec<Edge> = Vec::new();
            let (mut updates, mut expected) = (Vec::new(), Vec::new());
            for (epoch, edges) in (0..).zip(&toggles) {
                for edge in edges {
                    let known = there.iter().position(|other| other == edge);
                    updates.push((*edge, epoch, if known.is_some() { -1 } else { 1 }));
                    match known {
                        Some(at) => drop(there.remove(at)),
                        None => there.push(*edge),
                    }
                }
                expected.push(walked(&there));
            }
            let labels = timely::example(move |scope| {
                updates.to_stream(scope).as_collection().components().inner.capture()
            });
            let all: Vec<((u8, u8), u64, isize)> =
                labels.extract().into_iter().flat_map(|(_, updates)| updates).collect();
            for (epoch, expected) in (0..).zip(&expected) {
                let mut sums: BTreeMap<(u8, u8), isize> = BTreeMap::new();
                for (label, _, diff) in all.iter().filter(|(_, at, _)| *at <= epoch) {
                    *sums.entry(*label).or_default() += diff;
                }
                sums.retain(|_, count| *count != 0);
                prop_assert!(sums.values().all(|count| *count == 1));
                prop_assert_eq!(&sums.into_keys().collect::<BTreeMap<_, _>>(), expected);
            }
        }
    }
}
