//! SQL expressions: parsed, typed and compiled once, then evaluated without allocation.
//!
//! ```text
//! text ── parse ──▶ syntax ── compile ──▶ typed tree ── fold ──▶ typed tree ── eval(Env) ──▶ value
//!                               ▲                                    │
//!                             Names                      slots, number_uses, assume_text
//! ```
//!
//! [`Names`] says what a name means: a slot and its kind. [`Env`] gives the value of a slot at evaluation. In between
//! there are only the trees [`NumberExpr`], [`TextExpr`] and [`BoolExpr`], which are open to analysis.
//!
//! Arithmetic is f64, logic three-valued. A number's null is NaN, so an operation that gives NaN or an infinity gives
//! null, and [`Env::count_null`] hears of it where its operands were not null. What the language does not have is an
//! error that names it; all errors of an expression are found at once, each with its bytes in the job file.
//!
//! Evaluation never panics and its depth is bounded by that of the text, which [`compile`] bounds.

mod compile;
mod condition;
mod evaluate;
mod fold;
mod function;
mod nearest;
mod parse;
mod place;
mod tree;
mod typed;
mod unsupported;
mod uses;

#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use nearest::{did_you_mean, nearest};
pub use tree::{Arithmetic, BoolExpr, Case, Comparison, Expr, Function, NumberExpr, TextExpr};
pub use uses::NumberUse;

use crate::spec::{JobError, Located};
use compile::Compiler;

/// What the names of an expression mean.
pub trait Names {
    /// The meaning of a name, `properties.feature` being `["properties", "feature"]`; none if there is no such name.
    ///
    /// Names are case-sensitive. Within one expression each different name is asked for once.
    fn resolve(&mut self, path: &[String]) -> Option<Name>;

    /// All names that are known beforehand, dotted, to say which one was probably meant.
    fn candidates(&self) -> Vec<String>;
}

/// The meaning of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// What [`Env`] is asked for.
    pub slot: u16,
    /// What kind of values it has.
    pub kind: Kind,
}

/// The kind of a name's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 64-bit floating point.
    Number,
    /// UTF-8.
    Text,
    /// Truth values.
    Bool,
    /// Not known: it takes the type that its use needs, and is null where the value is of another.
    Untyped,
    /// A text of a closed set: to compare it with any other literal is an error.
    Choice(Arc<[String]>),
}

/// The values of an expression's names at one evaluation.
pub trait Env {
    /// The number in a slot; NaN is null. An untyped slot gives NaN unless its value is a number.
    fn number(&self, slot: u16) -> f64;

    /// The text in a slot; an untyped slot gives none unless its value is a text.
    fn text(&self, slot: u16) -> Option<&str>;

    /// The truth value in a slot; an untyped slot gives none unless its value is one.
    fn boolean(&self, slot: u16) -> Option<bool>;

    /// Whether a slot, of any kind, has no value. Asked of untyped slots only.
    fn is_null(&self, slot: u16) -> bool;

    /// Hears that an operation on operands that are not null gave no value: a division by zero, an overflow.
    fn count_null(&self);
}

/// Compiles an expression of any type. A bare null is a number.
pub fn compile(text: &Located<String>, names: &mut dyn Names) -> Result<Expr, Vec<JobError>> {
    Ok(unfolded(text, names)?.fold())
}

/// Compiles an expression that must be boolean.
pub fn compile_condition(text: &Located<String>, names: &mut dyn Names) -> Result<BoolExpr, Vec<JobError>> {
    let tree = Compiler::run(text, names, |compiler, value| compiler.boolean(value, "a condition"))?;
    Ok(tree.fold(None))
}

/// Compiles an expression that must be a number.
pub fn compile_number(text: &Located<String>, names: &mut dyn Names) -> Result<NumberExpr, Vec<JobError>> {
    let tree = Compiler::run(text, names, |compiler, value| compiler.number(value, "what is computed here"))?;
    Ok(tree.fold(None))
}

/// Compiles an expression that must be a text.
pub fn compile_text(text: &Located<String>, names: &mut dyn Names) -> Result<TextExpr, Vec<JobError>> {
    let tree = Compiler::run(text, names, |compiler, value| compiler.text(value, "what is computed here"))?;
    Ok(tree.fold(None))
}

/// The tree as written, for tests to hold against the folded one.
fn unfolded(text: &Located<String>, names: &mut dyn Names) -> Result<Expr, Vec<JobError>> {
    Compiler::run(text, names, |compiler, value| compiler.any(value))
}
