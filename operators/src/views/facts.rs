//! Facts: what one user adds to one view, as small typed words.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use whisperer_schemas::Micros;

use crate::job::EffectOrder;

/// Names that a view groups by, at most.
pub const GROUP_MAX: usize = 4;

/// The word of a value that is not there; as bits of an `f64` it is NaN.
pub const NONE: u64 = u64::MAX;

/// Parts of one in a sum.
pub const FIXED_POINT: f64 = 1_000_000.0;

/// A group: a word for each of its names, the rest 0. A word is the bits of a number, the hash of a text, or a place in a closed list.
pub type Group = [u64; GROUP_MAX];

/// What a user adds to a view, which has a number among the job's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Fact {
    /// One user, and an amount, in a group.
    Tally {
        /// The view.
        view: u16,
        /// The group.
        group: Group,
        /// The amount, in [`FIXED_POINT`]ths.
        amount: i64,
    },
    /// A member of a group, who counts once however often it is said.
    Member {
        /// The view.
        view: u16,
        /// The group.
        group: Group,
        /// Hash of the user's id.
        user: u64,
    },
    /// A number in a group whose quantiles are asked for.
    Valued {
        /// The view.
        view: u16,
        /// The group.
        group: Group,
        /// The number, as a multiple of the view's resolution.
        value: i64,
    },
    /// A user in the ranks of a group.
    Ranked(Box<UserFact>),
    /// A user in a list.
    Listed(Box<UserFact>),
    /// An id in a group, whose person counts once.
    Person {
        /// The view.
        view: u16,
        /// The group.
        group: Group,
        /// The id.
        id: IdHash,
    },
    /// When an id was first seen.
    FirstSeen {
        /// The id.
        id: IdHash,
        /// Effect time of its first event.
        time: Micros,
    },
    /// A link between two ids that is in effect.
    Link(Box<Link>),
    /// What the state of an id holds.
    Part(Box<Part>),
}

/// An id in its application: the two halves of its key's hash, since a `u128` would make every fact longer.
pub type IdHash = [u64; 2];

/// What the state of an id holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Part {
    /// The id.
    pub id: IdHash,
    /// The instant that it has come to: that of its last event or timer, or the watermark that its last event was late against.
    pub now: Micros,
    /// The cells of its features, encoded.
    pub cells: Vec<u8>,
}

/// A link between two ids: the user of the event that said so, and the other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Link {
    /// Since when.
    pub since: EffectOrder,
    /// The application.
    pub app: CompactString,
    /// Both ids.
    pub ids: [CompactString; 2],
    /// Their hashes.
    pub hashes: [IdHash; 2],
}

/// A user by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UserFact {
    /// The view.
    pub view: u16,
    /// The group.
    pub group: Group,
    /// What is least in the first rank: the complement of the number's bits in an order that integers have; 0 in a list.
    pub order: u64,
    /// The user.
    pub user: CompactString,
    /// The application.
    pub app: CompactString,
}

/// A fact that became so, or is so no more, in an epoch.
pub type FactUpdate = (Fact, u64, isize);

/// A text, by the hash that stands for it in groups.
pub type TextUpdate = (u64, CompactString);

/// A number in parts of [`FIXED_POINT`], to the nearest; beyond 64 bits the last that there is.
/// ```
/// use whisperer_operators::views::fixed_point;
///
/// assert_eq!([0.1 + 0.2, -1.5, 1e300].map(fixed_point), [300_000, -1_500_000, i64::MAX]);
/// ```
#[must_use]
pub fn fixed_point(number: f64) -> i64 {
    (number * FIXED_POINT).round() as i64
}

/// Bits whose order is the descending one of numbers.
pub(crate) fn descending(number: f64) -> u64 {
    let bits = (number + 0.0).to_bits();
    let ascending = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    !ascending
}

/// The number of which these are the bits.
pub(crate) fn from_descending(order: u64) -> f64 {
    let ascending = !order;
    f64::from_bits(if ascending >> 63 == 1 { ascending & !(1 << 63) } else { !ascending })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descending_bits_order_numbers() {
        // Goal: every pair of neighbours keeps its order, turned round, and every number comes back; negative zero is zero.
        let numbers = [f64::MIN, -1.5, -f64::MIN_POSITIVE, -0.0, f64::MIN_POSITIVE, 0.3, 1.0, f64::MAX];
        for pair in numbers.windows(2) {
            assert!(descending(pair[0]) > descending(pair[1]), "{pair:?}");
        }
        for number in numbers {
            assert_eq!(from_descending(descending(number)).to_bits(), (number + 0.0).to_bits());
        }
        assert_eq!(descending(-0.0), descending(0.0));
    }
}
