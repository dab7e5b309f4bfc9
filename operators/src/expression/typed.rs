//! What compilation passes upwards: a tree with its type, or a value whose type its use has yet to say.

use std::{fmt, ops::Range, sync::Arc};

use super::tree::{BoolExpr, Case, NumberExpr, TextExpr};

/// A part of an expression.
#[derive(Clone)]
pub(super) struct Typed {
    pub(super) value: Value,
    /// Its bytes in the text.
    pub(super) at: Range<usize>,
    /// The values that it can have, where it is a name with a closed set of them.
    pub(super) choices: Option<Choices>,
}

#[derive(Clone)]
pub(super) struct Choices {
    pub(super) name: String,
    pub(super) values: Arc<[String]>,
}

#[derive(Clone)]
pub(super) enum Value {
    Number(NumberExpr),
    Text(TextExpr),
    Bool(BoolExpr),
    Open(Open),
    /// An error has been reported; nothing that follows from it should be.
    Wrong,
}

/// A value that takes the type that its use needs.
#[derive(Clone)]
pub(super) enum Open {
    Null,
    Slot(u16),
    Coalesce(Vec<Open>),
    Case(Vec<(BoolExpr, Open)>, Box<Open>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Number,
    Text,
    Bool,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::Number => "a number",
            Type::Text => "a text",
            Type::Bool => "a boolean",
        })
    }
}

impl Typed {
    pub(super) fn new(value: Value, at: Range<usize>) -> Typed {
        Typed { value, at, choices: None }
    }

    pub(super) fn wrong(at: Range<usize>) -> Typed {
        Typed::new(Value::Wrong, at)
    }

    /// The type, if it is known.
    pub(super) fn known_type(&self) -> Option<Type> {
        match self.value {
            Value::Number(_) => Some(Type::Number),
            Value::Text(_) => Some(Type::Text),
            Value::Bool(_) => Some(Type::Bool),
            Value::Open(_) | Value::Wrong => None,
        }
    }

    pub(super) fn is_wrong(&self) -> bool {
        matches!(self.value, Value::Wrong)
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.value, Value::Open(Open::Null))
    }

    /// The literal text that this is, if it is one.
    pub(super) fn literal(&self) -> Option<&str> {
        match &self.value {
            Value::Text(TextExpr::Constant(value)) => value.as_deref(),
            _ => None,
        }
    }
}

impl Open {
    pub(super) fn number(self) -> NumberExpr {
        match self {
            Open::Null => NumberExpr::NULL,
            Open::Slot(slot) => NumberExpr::Slot(slot),
            Open::Coalesce(parts) => NumberExpr::Coalesce(parts.into_iter().map(Open::number).collect()),
            Open::Case(arms, otherwise) => NumberExpr::Case(case(arms, *otherwise, Open::number)),
        }
    }

    pub(super) fn text(self) -> TextExpr {
        match self {
            Open::Null => TextExpr::NULL,
            Open::Slot(slot) => TextExpr::Slot(slot),
            Open::Coalesce(parts) => TextExpr::Coalesce(parts.into_iter().map(Open::text).collect()),
            Open::Case(arms, otherwise) => TextExpr::Case(case(arms, *otherwise, Open::text)),
        }
    }

    pub(super) fn boolean(self) -> BoolExpr {
        match self {
            Open::Null => BoolExpr::NULL,
            Open::Slot(slot) => BoolExpr::Slot(slot),
            Open::Coalesce(parts) => BoolExpr::Coalesce(parts.into_iter().map(Open::boolean).collect()),
            Open::Case(arms, otherwise) => BoolExpr::Case(case(arms, *otherwise, Open::boolean)),
        }
    }

    /// Whether it is null, whatever its type.
    pub(super) fn null_test(self) -> BoolExpr {
        match self {
            Open::Null => BoolExpr::Constant(Some(true)),
            Open::Slot(slot) => BoolExpr::UntypedIsNull(slot),
            Open::Coalesce(parts) => BoolExpr::And(parts.into_iter().map(Open::null_test).collect()),
            Open::Case(arms, otherwise) => BoolExpr::Case(case(arms, *otherwise, Open::null_test)),
        }
    }
}

fn case<T>(arms: Vec<(BoolExpr, Open)>, otherwise: Open, convert: impl Fn(Open) -> T) -> Case<T> {
    let arms = arms.into_iter().map(|(condition, value)| (condition, convert(value))).collect();
    Case { arms, otherwise: Box::new(convert(otherwise)) }
}
