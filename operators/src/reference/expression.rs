//! SQL expressions, evaluated by walking the tree that `sqlparser` makes of their text.
//!
//! Values carry their type with them. Only for names of unknown type (properties outside the event contract) is a type
//! passed down: the one that the place needs, so that a value of another type is null there.

use std::cmp::Ordering;

use sqlparser::{
    ast::{
        BinaryOperator, CaseWhen, CeilFloorKind, DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr,
        FunctionArguments, UnaryOperator, Value,
    },
    dialect::GenericDialect,
    parser::Parser,
    tokenizer::Token,
};

/// The value of an expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Datum {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
}

/// The type of a value that is not null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Number,
    Text,
}

impl Datum {
    pub fn kind(&self) -> Option<Type> {
        match self {
            Datum::Null => None,
            Datum::Bool(_) => Some(Type::Bool),
            Datum::Number(_) => Some(Type::Number),
            Datum::Text(_) => Some(Type::Text),
        }
    }

    /// A number; null where it is NaN or infinite.
    pub fn number(number: f64) -> Datum {
        if number.is_finite() { Datum::Number(number) } else { Datum::Null }
    }

    pub fn as_number(&self) -> Option<f64> {
        match self {
            Datum::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Datum::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    fn truth(truth: Option<bool>) -> Datum {
        truth.map_or(Datum::Null, Datum::Bool)
    }
}

/// What the names of an expression stand for.
pub(super) trait Names {
    /// The type of a name, if it has one; an error for a name that does not exist.
    fn type_of(&self, name: &[String]) -> Result<Option<Type>, String>;
    /// The value of a name.
    fn value(&self, name: &[String]) -> Result<Datum, String>;
}

/// No names at all: for constants.
pub(super) struct NoNames;

impl Names for NoNames {
    fn type_of(&self, name: &[String]) -> Result<Option<Type>, String> {
        Err(format!("\"{}\" is not a constant", name.join(".")))
    }

    fn value(&self, name: &[String]) -> Result<Datum, String> {
        self.type_of(name).map(|_| Datum::Null)
    }
}

pub(super) fn parse(text: &str) -> Result<Expr, String> {
    let fail = |error| format!("\"{text}\": {error}");
    let mut parser = Parser::new(&GenericDialect {}).try_with_sql(text).map_err(|error| fail(error.to_string()))?;
    let expr = parser.parse_expr().map_err(|error| fail(error.to_string()))?;
    match parser.peek_token().token {
        Token::EOF => Ok(expr),
        token => Err(fail(format!("unexpected {token}"))),
    }
}

/// Whether a condition holds: null does not.
pub(super) fn holds(expr: &Expr, names: &dyn Names) -> Result<bool, String> {
    Ok(eval(expr, Some(Type::Bool), names)? == Datum::Bool(true))
}

/// The name that an expression is, if it is nothing but a name.
pub(super) fn name(expr: &Expr) -> Option<Vec<String>> {
    match expr {
        Expr::Identifier(ident) => Some(vec![ident.value.clone()]),
        Expr::CompoundIdentifier(idents) => Some(idents.iter().map(|ident| ident.value.clone()).collect()),
        Expr::Nested(inner) => name(inner),
        _ => None,
    }
}

/// The expressions that an expression is directly made of.
pub(super) fn children(expr: &Expr) -> Result<Vec<&Expr>, String> {
    Ok(match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Value(_) => vec![],
        Expr::Nested(e) | Expr::UnaryOp { expr: e, .. } | Expr::IsNull(e) | Expr::IsNotNull(e) => vec![e],
        Expr::IsTrue(e) | Expr::IsNotTrue(e) | Expr::IsFalse(e) | Expr::IsNotFalse(e) => vec![e],
        Expr::Ceil { expr: e, .. } | Expr::Floor { expr: e, .. } => vec![e],
        Expr::BinaryOp { left, right, .. } => vec![left, right],
        Expr::Between { expr, low, high, .. } => vec![expr, low, high],
        Expr::InList { expr, list, .. } => std::iter::once(&**expr).chain(list).collect(),
        Expr::Like { expr, pattern, .. } => vec![expr, pattern],
        Expr::Case { operand, conditions, else_result, .. } => {
            let whens = conditions.iter().flat_map(|when| [&when.condition, &when.result]);
            operand.as_deref().into_iter().chain(whens).chain(else_result.as_deref()).collect()
        }
        Expr::Function(call) => arguments(call)?,
        other => return Err(format!("\"{other}\" is not supported")),
    })
}

/// The type of an expression as far as it is known before any value is.
pub(super) fn static_type(expr: &Expr, names: &dyn Names) -> Result<Option<Type>, String> {
    if let Some(name) = name(expr) {
        return names.type_of(&name);
    }
    Ok(match expr {
        Expr::Nested(inner) => static_type(inner, names)?,
        Expr::Value(value) => literal(&value.value)?.kind(),
        Expr::UnaryOp { op: UnaryOperator::Not, .. } => Some(Type::Bool),
        Expr::BinaryOp { op, .. } => Some(if is_arithmetic(op) { Type::Number } else { Type::Bool }),
        Expr::UnaryOp { .. } | Expr::Ceil { .. } | Expr::Floor { .. } => Some(Type::Number),
        Expr::Case { conditions, else_result, .. } => {
            let results: Vec<&Expr> =
                conditions.iter().map(|when| &when.result).chain(else_result.as_deref()).collect();
            first_type(&results, names)?
        }
        Expr::Function(call) => match function_name(call).as_str() {
            "coalesce" | "nullif" => first_type(&arguments(call)?, names)?,
            "least" | "greatest" => first_type(&arguments(call)?, names)?.or(Some(Type::Number)),
            "lower" | "upper" => Some(Type::Text),
            _ => Some(Type::Number),
        },
        _ => Some(Type::Bool),
    })
}

fn first_type(exprs: &[&Expr], names: &dyn Names) -> Result<Option<Type>, String> {
    for expr in exprs {
        if let Some(kind) = static_type(expr, names)? {
            return Ok(Some(kind));
        }
    }
    Ok(None)
}

/// The value of an expression; `want` is the type that its place needs, where that is known.
pub(super) fn eval(expr: &Expr, want: Option<Type>, names: &dyn Names) -> Result<Datum, String> {
    if let Some(name) = name(expr) {
        let value = names.value(&name)?;
        let other = names.type_of(&name)?.is_none() && want.is_some() && value.kind() != want;
        return Ok(if other { Datum::Null } else { value });
    }
    let boolean = |e: &Expr| Ok::<_, String>(eval(e, Some(Type::Bool), names)?.as_bool());
    Ok(match expr {
        Expr::Nested(inner) => eval(inner, want, names)?,
        Expr::Value(value) => literal(&value.value)?,
        Expr::UnaryOp { op, expr } => unary(op, expr, names)?,
        Expr::BinaryOp { left, op, right } => binary(left, op, right, names)?,
        Expr::IsNull(e) => Datum::Bool(eval(e, None, names)? == Datum::Null),
        Expr::IsNotNull(e) => Datum::Bool(eval(e, None, names)? != Datum::Null),
        Expr::IsTrue(e) => Datum::Bool(boolean(e)? == Some(true)),
        Expr::IsNotTrue(e) => Datum::Bool(boolean(e)? != Some(true)),
        Expr::IsFalse(e) => Datum::Bool(boolean(e)? == Some(false)),
        Expr::IsNotFalse(e) => Datum::Bool(boolean(e)? != Some(false)),
        Expr::Between { expr, negated, low, high } => {
            let above = compared(expr, &BinaryOperator::GtEq, low, names)?;
            let below = compared(expr, &BinaryOperator::LtEq, high, names)?;
            Datum::truth(negate_if(*negated, and(above, below)))
        }
        Expr::InList { expr, list, negated } => {
            let mut found = Some(false);
            for item in list {
                found = or(found, compared(expr, &BinaryOperator::Eq, item, names)?);
            }
            Datum::truth(negate_if(*negated, found))
        }
        Expr::Like { negated, any: false, expr, pattern, escape_char: None } => {
            let (text, pattern) = (eval(expr, Some(Type::Text), names)?, eval(pattern, Some(Type::Text), names)?);
            let (Datum::Text(text), Datum::Text(pattern)) = (text, pattern) else { return Ok(Datum::Null) };
            let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
            Datum::Bool(like(&text, &pattern) != *negated)
        }
        Expr::Case { operand, conditions, else_result, .. } => {
            let want = want.or(static_type(expr, names)?);
            case(operand.as_deref(), conditions, else_result.as_deref(), want, names)?
        }
        Expr::Ceil { expr, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
            numeric(expr, names, f64::ceil)?
        }
        Expr::Floor { expr, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
            numeric(expr, names, f64::floor)?
        }
        Expr::Function(call) => function(call, want.or(static_type(expr, names)?), names)?,
        other => return Err(format!("\"{other}\" is not supported")),
    })
}

fn literal(value: &Value) -> Result<Datum, String> {
    match value {
        Value::Number(text, false) => text.parse().map(Datum::number).map_err(|_| format!("\"{text}\" is no number")),
        Value::SingleQuotedString(text) => Ok(Datum::Text(text.clone())),
        Value::Boolean(truth) => Ok(Datum::Bool(*truth)),
        Value::Null => Ok(Datum::Null),
        other => Err(format!("\"{other}\" is not supported")),
    }
}

fn unary(op: &UnaryOperator, expr: &Expr, names: &dyn Names) -> Result<Datum, String> {
    match op {
        UnaryOperator::Not => Ok(Datum::truth(eval(expr, Some(Type::Bool), names)?.as_bool().map(|truth| !truth))),
        UnaryOperator::Minus => numeric(expr, names, |x| -x),
        UnaryOperator::Plus => numeric(expr, names, |x| x),
        other => Err(format!("\"{other}\" is not supported")),
    }
}

fn is_arithmetic(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Divide, Minus, Modulo, Multiply, Plus};
    matches!(op, Plus | Minus | Multiply | Divide | Modulo)
}

fn binary(left: &Expr, op: &BinaryOperator, right: &Expr, names: &dyn Names) -> Result<Datum, String> {
    let want = if is_arithmetic(op) { Type::Number } else { Type::Bool };
    match op {
        BinaryOperator::And | BinaryOperator::Or => {
            let (left, right) = (eval(left, Some(want), names)?, eval(right, Some(want), names)?);
            let join = if *op == BinaryOperator::And { and } else { or };
            Ok(Datum::truth(join(left.as_bool(), right.as_bool())))
        }
        op if is_arithmetic(op) => {
            let (left, right) = (eval(left, Some(want), names)?, eval(right, Some(want), names)?);
            let (Some(x), Some(y)) = (left.as_number(), right.as_number()) else { return Ok(Datum::Null) };
            Ok(Datum::number(match op {
                BinaryOperator::Plus => x + y,
                BinaryOperator::Minus => x - y,
                BinaryOperator::Multiply => x * y,
                BinaryOperator::Divide => x / y,
                _ => x % y,
            }))
        }
        op => Ok(Datum::truth(compared(left, op, right, names)?)),
    }
}

/// A comparison; `None` is null. A side of unknown type takes the type of the other.
fn compared(left: &Expr, op: &BinaryOperator, right: &Expr, names: &dyn Names) -> Result<Option<bool>, String> {
    let (left_type, right_type) = (static_type(left, names)?, static_type(right, names)?);
    let left = eval(left, left_type.or(right_type), names)?;
    let right = eval(right, right_type.or(left_type), names)?;
    let order = match (&left, &right) {
        (Datum::Number(x), Datum::Number(y)) => x.partial_cmp(y),
        (Datum::Text(x), Datum::Text(y)) => Some(x.cmp(y)),
        (Datum::Bool(x), Datum::Bool(y)) if left_type.or(right_type).is_some() => Some(x.cmp(y)),
        _ => None,
    };
    let test: fn(Ordering) -> bool = match op {
        BinaryOperator::Eq => Ordering::is_eq,
        BinaryOperator::NotEq => Ordering::is_ne,
        BinaryOperator::Lt => Ordering::is_lt,
        BinaryOperator::LtEq => Ordering::is_le,
        BinaryOperator::Gt => Ordering::is_gt,
        BinaryOperator::GtEq => Ordering::is_ge,
        other => return Err(format!("\"{other}\" is not supported")),
    };
    Ok(order.map(test))
}

fn and(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

fn or(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    and(left.map(|truth| !truth), right.map(|truth| !truth)).map(|truth| !truth)
}

fn negate_if(negated: bool, truth: Option<bool>) -> Option<bool> {
    truth.map(|truth| truth != negated)
}

/// `%` stands for any run of characters, `_` for one.
fn like(text: &[char], pattern: &[char]) -> bool {
    // reached[j]: the pattern so far matches the first j characters of the text.
    let mut reached: Vec<bool> = (0..=text.len()).map(|j| j == 0).collect();
    for wild in pattern {
        reached = (0..=text.len())
            .map(|j| match wild {
                '%' => reached[..=j].contains(&true),
                '_' => j > 0 && reached[j - 1],
                literal => j > 0 && reached[j - 1] && text[j - 1] == *literal,
            })
            .collect();
    }
    reached[text.len()]
}

fn case(
    operand: Option<&Expr>,
    conditions: &[CaseWhen],
    otherwise: Option<&Expr>,
    want: Option<Type>,
    names: &dyn Names,
) -> Result<Datum, String> {
    for CaseWhen { condition, result } in conditions {
        let chosen = match operand {
            Some(operand) => compared(operand, &BinaryOperator::Eq, condition, names)? == Some(true),
            None => holds(condition, names)?,
        };
        if chosen {
            return eval(result, want, names);
        }
    }
    otherwise.map_or(Ok(Datum::Null), |expr| eval(expr, want, names))
}

pub(super) fn function_name(call: &Function) -> String {
    call.name.to_string().to_lowercase()
}

fn arguments<'a>(call: &'a Function) -> Result<Vec<&'a Expr>, String> {
    let fail = || format!("\"{call}\" is not supported");
    let plain = call.filter.is_none() && call.over.is_none() && call.within_group.is_empty();
    let FunctionArguments::List(list) = &call.args else { return Err(fail()) };
    if !plain || list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
        return Err(fail());
    }
    let argument = |argument: &'a FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
        _ => Err(fail()),
    };
    list.args.iter().map(argument).collect()
}

fn function(call: &Function, want: Option<Type>, names: &dyn Names) -> Result<Datum, String> {
    let arguments = arguments(call)?;
    match (function_name(call).as_str(), arguments[..].as_ref()) {
        ("abs", [x]) => numeric(x, names, f64::abs),
        // Half away from zero.
        ("round", [x]) => numeric(x, names, f64::round),
        ("ceil" | "ceiling", [x]) => numeric(x, names, f64::ceil),
        ("floor", [x]) => numeric(x, names, f64::floor),
        ("sqrt", [x]) => numeric(x, names, f64::sqrt),
        ("ln", [x]) => numeric(x, names, libm::log),
        ("exp", [x]) => numeric(x, names, libm::exp),
        ("pow" | "power", [x, y]) => {
            let (x, y) = (eval(x, Some(Type::Number), names)?, eval(y, Some(Type::Number), names)?);
            let (Some(x), Some(y)) = (x.as_number(), y.as_number()) else { return Ok(Datum::Null) };
            Ok(Datum::number(libm::pow(x, y)))
        }
        ("least", [_, ..]) => extreme(&arguments, Ordering::Less, want, names),
        ("greatest", [_, ..]) => extreme(&arguments, Ordering::Greater, want, names),
        ("coalesce", [_, ..]) => {
            for argument in &arguments {
                let value = eval(argument, want, names)?;
                if value != Datum::Null {
                    return Ok(value);
                }
            }
            Ok(Datum::Null)
        }
        ("nullif", [x, y]) => match compared(x, &BinaryOperator::Eq, y, names)? {
            Some(true) => Ok(Datum::Null),
            _ => eval(x, want, names),
        },
        ("lower", [x]) => textual(x, names, |text| Datum::Text(text.to_lowercase())),
        ("upper", [x]) => textual(x, names, |text| Datum::Text(text.to_uppercase())),
        ("length", [x]) => textual(x, names, |text| Datum::Number(text.chars().count() as f64)),
        _ => Err(format!("\"{call}\" is not supported")),
    }
}

fn numeric(expr: &Expr, names: &dyn Names, f: impl Fn(f64) -> f64) -> Result<Datum, String> {
    let value = eval(expr, Some(Type::Number), names)?.as_number();
    Ok(value.map_or(Datum::Null, |number| Datum::number(f(number))))
}

fn textual(expr: &Expr, names: &dyn Names, f: impl Fn(&str) -> Datum) -> Result<Datum, String> {
    match eval(expr, Some(Type::Text), names)? {
        Datum::Text(text) => Ok(f(&text)),
        _ => Ok(Datum::Null),
    }
}

/// `least` and `greatest`: nulls, and what cannot be compared with the values before it, are passed over.
fn extreme(exprs: &[&Expr], side: Ordering, want: Option<Type>, names: &dyn Names) -> Result<Datum, String> {
    let mut best = Datum::Null;
    for expr in exprs {
        let value = eval(expr, want, names)?;
        let order = match (&value, &best) {
            (Datum::Number(x), Datum::Number(y)) => x.partial_cmp(y),
            (Datum::Text(x), Datum::Text(y)) => Some(x.cmp(y)),
            (Datum::Number(_) | Datum::Text(_), Datum::Null) => Some(side),
            _ => None,
        };
        if order == Some(side) {
            best = value;
        }
    }
    Ok(best)
}
