//! The compiled trees: what an expression is once its names are slots and its types are known.
//!
//! A node stands in the tree of its result's type, so evaluation never asks what a value is. A slot's node says how the
//! slot is read; the slot itself may be of that type or untyped.

use std::cmp::Ordering;

/// An expression of any type.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// A number.
    Number(NumberExpr),
    /// A text.
    Text(TextExpr),
    /// A truth value.
    Bool(BoolExpr),
    /// A bare slot of unknown type.
    Untyped(u16),
}

/// An expression whose value is a number; NaN is null.
#[derive(Clone, Debug, PartialEq)]
pub enum NumberExpr {
    /// Finite, or NaN for null.
    Constant(f64),
    /// The number in a slot.
    Slot(u16),
    /// `-x`
    Negate(Box<NumberExpr>),
    /// `a + b` and the like.
    Arithmetic(Arithmetic, Box<[NumberExpr; 2]>),
    /// A function of one number.
    Function(Function, Box<NumberExpr>),
    /// `pow(a, b)`
    Power(Box<[NumberExpr; 2]>),
    /// `length(text)`, in code points.
    Length(Box<TextExpr>),
    /// The smallest of those that are not null.
    Least(Box<[NumberExpr]>),
    /// The greatest of those that are not null.
    Greatest(Box<[NumberExpr]>),
    /// The first that is not null.
    Coalesce(Box<[NumberExpr]>),
    /// `case when`
    Case(Case<NumberExpr>),
}

/// An expression whose value is a text.
#[derive(Clone, Debug, PartialEq)]
pub enum TextExpr {
    /// A literal, or null.
    Constant(Option<Box<str>>),
    /// The text in a slot.
    Slot(u16),
    /// `lower(text)`
    Lower(Box<TextExpr>),
    /// `upper(text)`
    Upper(Box<TextExpr>),
    /// The first that is not null.
    Coalesce(Box<[TextExpr]>),
    /// `case when`
    Case(Case<TextExpr>),
}

/// An expression whose value is a truth value, or unknown.
#[derive(Clone, Debug, PartialEq)]
pub enum BoolExpr {
    /// `true`, `false` or null.
    Constant(Option<bool>),
    /// The truth value in a slot.
    Slot(u16),
    /// `not x`
    Not(Box<BoolExpr>),
    /// All of these, from left to right.
    And(Box<[BoolExpr]>),
    /// Any of these, from left to right.
    Or(Box<[BoolExpr]>),
    /// Two numbers compared.
    CompareNumber(Comparison, Box<[NumberExpr; 2]>),
    /// Two texts compared by code points.
    CompareText(Comparison, Box<[TextExpr; 2]>),
    /// Two truth values compared, false being less than true.
    CompareBool(Comparison, Box<[BoolExpr; 2]>),
    /// Two untyped slots compared: numbers as numbers, texts as texts, else null.
    CompareUntyped(Comparison, [u16; 2]),
    /// Whether a number is one of these.
    InNumber {
        /// What is looked for.
        value: Box<NumberExpr>,
        /// The list's values in the order written, without its nulls.
        list: Box<[f64]>,
        /// Whether the list had a null, which makes "not found" unknown.
        null: bool,
    },
    /// Whether a text is one of these.
    InText {
        /// What is looked for.
        value: Box<TextExpr>,
        /// The list's values, sorted, each once, without its nulls.
        list: Box<[Box<str>]>,
        /// Whether the list had a null, which makes "not found" unknown.
        null: bool,
    },
    /// A text and its pattern: `%` is any text, `_` any code point.
    Like(Box<[TextExpr; 2]>),
    /// Whether a number is null.
    NumberIsNull(Box<NumberExpr>),
    /// Whether a text is null.
    TextIsNull(Box<TextExpr>),
    /// Whether a truth value is unknown.
    BoolIsNull(Box<BoolExpr>),
    /// Whether an untyped slot is null.
    UntypedIsNull(u16),
    /// Whether this is known to be so.
    Is(bool, Box<BoolExpr>),
    /// The first that is not null.
    Coalesce(Box<[BoolExpr]>),
    /// `case when`
    Case(Case<BoolExpr>),
}

/// `case when c then x … else y end`: the first arm whose condition holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Case<T> {
    /// Conditions and values, in order.
    pub arms: Box<[(BoolExpr, T)]>,
    /// The value where no condition holds.
    pub otherwise: Box<T>,
}

/// An operation on two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the definitions")]
pub enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    /// With the dividend's sign.
    Remainder,
}

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// The magnitude.
    Abs,
    /// To the nearest whole number, half away from zero.
    Round,
    /// Down.
    Floor,
    /// Up.
    Ceil,
    /// The square root.
    Sqrt,
    /// The natural logarithm.
    Ln,
    /// e to this power.
    Exp,
}

/// A comparison operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the definitions")]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    /// Whether a left side that compares so to the right one satisfies this.
    #[must_use]
    #[inline]
    pub fn holds(self, ordering: Ordering) -> bool {
        match self {
            Comparison::Equal => ordering.is_eq(),
            Comparison::NotEqual => ordering.is_ne(),
            Comparison::Less => ordering.is_lt(),
            Comparison::LessOrEqual => ordering.is_le(),
            Comparison::Greater => ordering.is_gt(),
            Comparison::GreaterOrEqual => ordering.is_ge(),
        }
    }

    /// What holds between two numbers; null if one of them is.
    #[must_use]
    #[inline]
    pub fn numbers(self, left: f64, right: f64) -> Option<bool> {
        left.partial_cmp(&right).map(|ordering| self.holds(ordering))
    }

    /// The operator with its sides exchanged.
    #[must_use]
    pub fn flipped(self) -> Comparison {
        match self {
            Comparison::Equal => Comparison::Equal,
            Comparison::NotEqual => Comparison::NotEqual,
            Comparison::Less => Comparison::Greater,
            Comparison::LessOrEqual => Comparison::GreaterOrEqual,
            Comparison::Greater => Comparison::Less,
            Comparison::GreaterOrEqual => Comparison::LessOrEqual,
        }
    }
}
