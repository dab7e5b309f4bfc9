//! A value in a row of a table.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::time::Micros;

/// One value of a row; its column says which variants it may have besides `Null`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// No value.
    #[default]
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number; never NaN or infinite.
    Number(f64),
    /// UTF-8 text.
    Text(CompactString),
    /// Bytes as they came.
    Bytes(Box<[u8]>),
    /// An instant in event time.
    Time(Micros),
    /// A list of structs, each with the fields that the column names.
    List(Vec<Vec<Value>>),
}

impl Value {
    /// A number, or null where `number` is NaN or infinite.
    #[must_use]
    pub fn number(number: f64) -> Value {
        if number.is_finite() { Value::Number(number) } else { Value::Null }
    }

    /// Text.
    #[must_use]
    pub fn text(text: impl AsRef<str>) -> Value {
        Value::Text(CompactString::new(text))
    }

    /// The word for it in messages.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Value::Null => "no value",
            Value::Bool(_) => "a truth value",
            Value::Int(_) => "a whole number",
            Value::Number(_) => "a number",
            Value::Text(_) => "text",
            Value::Bytes(_) => "bytes",
            Value::Time(_) => "a time",
            Value::List(_) => "a list of other structs",
        }
    }

    /// The truth value, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    /// The whole number, if it is one.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The number, if it is one.
    #[must_use]
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The text, if it is some.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The bytes, if it is some.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The time, if it is one.
    #[must_use]
    pub fn as_time(&self) -> Option<Micros> {
        match self {
            Value::Time(time) => Some(*time),
            _ => None,
        }
    }

    /// The structs of the list, if it is one.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Vec<Value>]> {
        match self {
            Value::List(structs) => Some(structs),
            _ => None,
        }
    }
}
