//! Which slots an expression reads, and how.

use super::{
    fold::NoSlots,
    tree::{BoolExpr, Case, Comparison, Expr, NumberExpr, TextExpr},
};

/// One occurrence of a slot that is read as a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NumberUse {
    /// It stands bare on one side of a comparison whose other side reads no slot.
    CompareConstant {
        /// The slot.
        slot: u16,
        /// The comparison as it is with the slot on the left.
        op: Comparison,
        /// The other side's value; NaN if that is null.
        constant: f64,
    },
    /// It is used in another way.
    Other {
        /// The slot.
        slot: u16,
    },
}

impl NumberUse {
    /// The slot.
    #[must_use]
    pub fn slot(self) -> u16 {
        match self {
            NumberUse::CompareConstant { slot, .. } | NumberUse::Other { slot } => slot,
        }
    }
}

/// One occurrence of a slot.
enum Use {
    Number(NumberUse),
    /// Read as a text, a truth value, or without a type.
    Else(u16),
}

type Visit<'a> = &'a mut dyn FnMut(Use);

macro_rules! analyses {
    ($($tree:ty),*) => { $(
        impl $tree {
            /// Gives every slot that is read, once for each occurrence.
            pub fn slots(&self, give: &mut impl FnMut(u16)) {
                self.uses(&mut |found| match found {
                    Use::Number(used) => give(used.slot()),
                    Use::Else(slot) => give(slot),
                });
            }

            /// Gives every occurrence of a slot that is read as a number: whether it stands bare against a constant.
            ///
            /// `between` and `in` count as the comparisons that they stand for.
            pub fn number_uses(&self, give: &mut dyn FnMut(NumberUse)) {
                self.uses(&mut |found| {
                    if let Use::Number(used) = found {
                        give(used);
                    }
                });
            }
        }
    )* };
}

analyses!(Expr, NumberExpr, TextExpr, BoolExpr);

macro_rules! closedness {
    ($($tree:ty),*) => { $(
        impl $tree {
            /// Whether no slot is read.
            pub(super) fn is_closed(&self) -> bool {
                let mut closed = true;
                self.uses(&mut |_| closed = false);
                closed
            }
        }
    )* };
}

closedness!(NumberExpr, TextExpr, BoolExpr);

impl Expr {
    fn uses(&self, give: Visit<'_>) {
        match self {
            Expr::Number(of) => of.uses(give),
            Expr::Text(of) => of.uses(give),
            Expr::Bool(of) => of.uses(give),
            Expr::Untyped(slot) => give(Use::Else(*slot)),
        }
    }
}

impl NumberExpr {
    fn uses(&self, give: Visit<'_>) {
        match self {
            NumberExpr::Constant(_) => {}
            NumberExpr::Slot(slot) => give(Use::Number(NumberUse::Other { slot: *slot })),
            NumberExpr::Negate(of) | NumberExpr::Function(_, of) => of.uses(give),
            NumberExpr::Arithmetic(_, sides) | NumberExpr::Power(sides) => {
                sides.iter().for_each(|side| side.uses(give));
            }
            NumberExpr::Length(of) => of.uses(give),
            NumberExpr::Least(parts) | NumberExpr::Greatest(parts) | NumberExpr::Coalesce(parts) => {
                parts.iter().for_each(|part| part.uses(give));
            }
            NumberExpr::Case(case) => case.uses(give, NumberExpr::uses),
        }
    }
}

impl TextExpr {
    fn uses(&self, give: Visit<'_>) {
        match self {
            TextExpr::Constant(_) => {}
            TextExpr::Slot(slot) => give(Use::Else(*slot)),
            TextExpr::Lower(of) | TextExpr::Upper(of) => of.uses(give),
            TextExpr::Coalesce(parts) => parts.iter().for_each(|part| part.uses(give)),
            TextExpr::Case(case) => case.uses(give, TextExpr::uses),
        }
    }
}

impl BoolExpr {
    fn uses(&self, give: Visit<'_>) {
        match self {
            BoolExpr::Constant(_) => {}
            BoolExpr::Slot(slot) | BoolExpr::UntypedIsNull(slot) => give(Use::Else(*slot)),
            BoolExpr::Not(of) | BoolExpr::BoolIsNull(of) | BoolExpr::Is(_, of) => of.uses(give),
            BoolExpr::And(parts) | BoolExpr::Or(parts) | BoolExpr::Coalesce(parts) => {
                parts.iter().for_each(|part| part.uses(give));
            }
            BoolExpr::CompareNumber(op, sides) => compare_uses(*op, sides, give),
            BoolExpr::CompareText(_, sides) | BoolExpr::Like(sides) => sides.iter().for_each(|side| side.uses(give)),
            BoolExpr::CompareBool(_, sides) => sides.iter().for_each(|side| side.uses(give)),
            BoolExpr::CompareUntyped(_, slots) => slots.iter().for_each(|slot| give(Use::Else(*slot))),
            BoolExpr::InNumber { value, list, .. } => in_uses(value, list, give),
            BoolExpr::InText { value, .. } => value.uses(give),
            BoolExpr::NumberIsNull(of) => of.uses(give),
            BoolExpr::TextIsNull(of) => of.uses(give),
            BoolExpr::Case(case) => case.uses(give, BoolExpr::uses),
        }
    }
}

fn compare_uses(op: Comparison, [left, right]: &[NumberExpr; 2], give: Visit<'_>) {
    let (slot, op, other) = match (left, right) {
        (NumberExpr::Slot(slot), other) if other.is_closed() => (*slot, op, other),
        (other, NumberExpr::Slot(slot)) if other.is_closed() => (*slot, op.flipped(), other),
        _ => {
            left.uses(give);
            return right.uses(give);
        }
    };
    give(Use::Number(NumberUse::CompareConstant { slot, op, constant: other.eval(&NoSlots::default()) }));
}

fn in_uses(value: &NumberExpr, list: &[f64], give: Visit<'_>) {
    let NumberExpr::Slot(slot) = value else { return value.uses(give) };
    for constant in list {
        let (slot, constant) = (*slot, *constant);
        give(Use::Number(NumberUse::CompareConstant { slot, op: Comparison::Equal, constant }));
    }
}

impl<T> Case<T> {
    fn uses(&self, give: Visit<'_>, of_value: impl Fn(&T, Visit<'_>)) {
        for (condition, value) in &self.arms {
            condition.uses(give);
            of_value(value, give);
        }
        of_value(&self.otherwise, give);
    }
}
