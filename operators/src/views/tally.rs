//! Tallies: how many users there are under each key, and what their amounts come to.

use std::hash::Hash;

use differential_dataflow::{
    ExchangeData, VecCollection,
    difference::{Abelian, IsZero, Monoid, Multiply, Semigroup},
    operators::CountTotal,
};
use serde::{Deserialize, Serialize};

use super::epochs::Combine;

/// A number of users and the sum of their amounts: a difference that adds up exactly, in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tally {
    /// Users.
    pub users: i64,
    /// The sum of the amounts.
    pub sum: i128,
}

impl IsZero for Tally {
    fn is_zero(&self) -> bool {
        self.users == 0 && self.sum == 0
    }
}

impl Semigroup for Tally {
    fn plus_equals(&mut self, other: &Tally) {
        self.users += other.users;
        self.sum += other.sum;
    }
}

impl Monoid for Tally {
    fn zero() -> Tally {
        Tally::default()
    }
}

impl Abelian for Tally {
    fn negate(&mut self) {
        (self.users, self.sum) = (-self.users, -self.sum);
    }
}

impl Multiply<isize> for Tally {
    type Output = Tally;

    fn multiply(self, diff: &isize) -> Tally {
        Tally { users: self.users * *diff as i64, sum: self.sum * *diff as i128 }
    }
}

/// Tallies of a collection of keys and amounts.
pub trait Tallies<'scope, K> {
    /// Adds up the amounts under each key. A key without entries has no tally.
    ///
    /// ```
    /// use differential_dataflow::input::Input;
    /// use timely::dataflow::operators::capture::{Capture, Extract};
    /// use whisperer_operators::views::{Tallies, Tally};
    ///
    /// let sums = timely::example(|scope| {
    ///     let (_, amounts) = scope.new_collection_from(vec![(1, 40), (0, 0), (1, 60)]);
    ///     amounts.tallies().inner.capture()
    /// });
    /// let mut sums: Vec<_> = sums.extract().into_iter().flat_map(|(_, updates)| updates).collect();
    /// sums.sort();
    /// let (none, paid) = (Tally { users: 1, sum: 0 }, Tally { users: 2, sum: 100 });
    /// assert_eq!(sums, [((0, none), 0, 1), ((1, paid), 0, 1)]);
    /// ```
    fn tallies(self) -> VecCollection<'scope, u64, (K, Tally)>;
}

impl<'scope, K: ExchangeData + Hash> Tallies<'scope, K> for VecCollection<'scope, u64, (K, i64)> {
    fn tallies(self) -> VecCollection<'scope, u64, (K, Tally)> {
        let one = |(key, amount): (K, i64)| Some((key, Tally { users: 1, sum: i128::from(amount) }));
        self.explode(one).combine().count_total()
    }
}
