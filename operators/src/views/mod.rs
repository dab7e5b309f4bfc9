//! Views: questions about all keys at once, kept by differential dataflow while keys change.
//!
//! ```text
//! keyed operator ── facts (fact, epoch, +1 / -1) ──▶ tallies ───┐
//!                                              ├───▶ distinct ──┤
//!                                              ├───▶ top ───────┼──▶ answers (row, epoch, diff)
//!                                              ├───▶ quantiles ─┤
//!                                              ├───▶ lists ─────┤
//!                                              └───▶ identities ┘
//! ```
//! The keyed operator says what each user adds to each view as [`Fact`]s, and takes back what is no more so; a view is a collection
//! that follows them. All views of one kind share their operators: the number of a view is a part of every key. Whatever a state holds can
//! be said again after a restore, so nothing of a view has to be stored. Sums are integers, so that their order does not matter.
//!
//! The operators are of use by themselves: [`Tallies`], [`DistinctCounts`], [`Top`], [`Quantiles`], [`Components`] and [`StageCounts`] work on any
//! collection of matching type.

mod answers;
mod components;
mod distinct;
mod epochs;
mod facts;
mod identities;
mod period;
mod persons;
mod quantiles;
mod rows;
mod stages;
mod tally;
mod top;

pub use answers::{Answer, AnswerViews};
pub use components::Components;
pub use distinct::DistinctCounts;
pub(crate) use facts::descending;
pub use facts::{
    FIXED_POINT, Fact, FactUpdate, GROUP_MAX, Group, IdHash, Link, NONE, Part, TextUpdate, UserFact, fixed_point,
};
pub use identities::{Identities, Identity};
pub use period::first_day_of;
pub use quantiles::{Quantile, Quantiles};
pub use rows::{Texts, row};
pub use stages::{StageCounts, StageUpdate};
pub use tally::{Tallies, Tally};
pub use top::Top;
