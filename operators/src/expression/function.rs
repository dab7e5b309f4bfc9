//! Compilation of functions and of `case`.

use std::ops::{Range, RangeInclusive};

use sqlparser::ast::{
    CaseWhen, CeilFloorKind, DateTimeField, Expr as Syntax, Function as Call, FunctionArg, FunctionArgExpr,
    FunctionArguments, ObjectNamePart, Spanned,
};

use super::{
    compile::Compiler,
    nearest::did_you_mean,
    tree::{BoolExpr, Case, Comparison, Function, NumberExpr, TextExpr},
    typed::{Open, Type, Typed, Value},
};

/// All names of functions, for the nearest-name hint.
const FUNCTIONS: [&str; 17] = [
    "abs", "round", "floor", "ceil", "ceiling", "sqrt", "ln", "exp", "pow", "power", "least", "greatest", "coalesce",
    "nullif", "lower", "upper", "length",
];

/// SQL's aggregate functions that a reader may expect here.
const AGGREGATES: [&str; 9] = ["count", "sum", "avg", "mean", "min", "max", "first", "last", "array_agg"];

impl Compiler<'_> {
    /// A function call or a `case`, if the syntax is one.
    pub(super) fn call(&mut self, syntax: &Syntax) -> Option<Typed> {
        Some(match syntax {
            Syntax::Function(call) => self.function(call, syntax),
            Syntax::Ceil { expr, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
                self.rounded("ceil", expr)
            }
            Syntax::Floor { expr, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
                self.rounded("floor", expr)
            }
            Syntax::Case { case_token, end_token, operand, conditions, else_result } => {
                let operand = operand.as_ref().map(|operand| self.expression(operand));
                let value = self.case(operand, conditions, else_result.as_deref());
                let start = self.place.bytes(case_token.0.span).start;
                Typed::new(value, start..self.place.bytes(end_token.0.span).end)
            }
            _ => return None,
        })
    }

    /// The parser gives `ceil` and `floor` a syntax of their own.
    fn rounded(&mut self, name: &str, of: &Syntax) -> Typed {
        let of = self.expression(of);
        let at = self.place.with_closing(of.at.clone());
        Typed::new(self.apply(name, vec![of]), at)
    }

    fn function(&mut self, call: &Call, syntax: &Syntax) -> Typed {
        let [ObjectNamePart::Identifier(ident)] = &*call.name.0 else { return self.not_supported(syntax) };
        let at = self.place.bytes(ident.span);
        let name = ident.value.to_lowercase();
        let Some(arguments) = plain_arguments(call) else { return self.odd_call(&name, call, syntax) };
        let arguments: Vec<Typed> = arguments.into_iter().map(|argument| self.expression(argument)).collect();
        let end = arguments.last().map_or(at.end, |last| last.at.end);
        let around = if arguments.is_empty() { at.clone() } else { self.place.with_closing(at.start..end) };
        let Some(takes) = takes(&name) else {
            self.unknown_function(&name, at);
            return Typed::wrong(around);
        };
        if !takes.contains(&arguments.len()) {
            let wanted = match (*takes.start(), *takes.end()) {
                (1, 1) => "1 argument".to_owned(),
                (least, most) if least == most => format!("{least} arguments"),
                (least, _) => format!("{least} or more arguments"),
            };
            self.error(around.clone(), format!("`{name}` takes {wanted}, not {}", arguments.len()), None);
            return Typed::wrong(around);
        }
        Typed::new(self.apply(&name, arguments), around)
    }

    /// A call with more to it than arguments, such as `count(distinct x)`, `sum(x) over ()`, `current_date`.
    fn odd_call(&mut self, name: &str, call: &Call, syntax: &Syntax) -> Typed {
        if takes(name).is_none() {
            let at = self.place.bytes(call.name.span());
            self.unknown_function(name, at.clone());
            return Typed::wrong(at);
        }
        self.not_supported(syntax)
    }

    fn unknown_function(&mut self, name: &str, at: Range<usize>) {
        if AGGREGATES.contains(&name) {
            let hint = match name {
                "min" => "the smallest of several values is `least`; to aggregate events, make a feature of it",
                "max" => "the greatest of several values is `greatest`; to aggregate events, make a feature of it",
                _ => "to aggregate events, make a feature of it",
            };
            return self.error(at, format!("aggregate function \"{name}\" is not supported"), Some(hint.to_owned()));
        }
        let hint = did_you_mean(name, FUNCTIONS);
        self.error(at, format!("unknown function \"{name}\""), hint);
    }

    /// Applies a known function to as many arguments as it takes.
    fn apply(&mut self, name: &str, arguments: Vec<Typed>) -> Value {
        let user = format!("`{name}`");
        let mut numbers = |arguments: Vec<Typed>| -> Vec<NumberExpr> {
            arguments.into_iter().map(|argument| self.number(argument, &user)).collect()
        };
        match name {
            "least" => Value::Number(NumberExpr::Least(numbers(arguments).into())),
            "greatest" => Value::Number(NumberExpr::Greatest(numbers(arguments).into())),
            "coalesce" => self.coalesce(arguments),
            "nullif" => match <[Typed; 2]>::try_from(arguments) {
                Ok([of, other]) => self.null_if(of, other),
                Err(_) => Value::Wrong,
            },
            "pow" | "power" => match <[NumberExpr; 2]>::try_from(numbers(arguments)) {
                Ok(sides) => Value::Number(NumberExpr::Power(Box::new(sides))),
                Err(_) => Value::Wrong,
            },
            _ => match <[Typed; 1]>::try_from(arguments) {
                Ok([of]) => self.apply_to_one(name, of, &user),
                Err(_) => Value::Wrong,
            },
        }
    }

    fn apply_to_one(&mut self, name: &str, of: Typed, user: &str) -> Value {
        let function = match name {
            "lower" => return Value::Text(TextExpr::Lower(Box::new(self.text(of, user)))),
            "upper" => return Value::Text(TextExpr::Upper(Box::new(self.text(of, user)))),
            "length" => return Value::Number(NumberExpr::Length(Box::new(self.text(of, user)))),
            "abs" => Function::Abs,
            "round" => Function::Round,
            "floor" => Function::Floor,
            "ceil" | "ceiling" => Function::Ceil,
            "sqrt" => Function::Sqrt,
            "ln" => Function::Ln,
            "exp" => Function::Exp,
            _ => return Value::Wrong,
        };
        Value::Number(NumberExpr::Function(function, Box::new(self.number(of, user))))
    }

    fn coalesce(&mut self, parts: Vec<Typed>) -> Value {
        match self.unify(&parts, "`coalesce`") {
            Unified::Type(Type::Number) => {
                Value::Number(NumberExpr::Coalesce(parts.into_iter().map(|part| self.number(part, "")).collect()))
            }
            Unified::Type(Type::Text) => {
                Value::Text(TextExpr::Coalesce(parts.into_iter().map(|part| self.text(part, "")).collect()))
            }
            Unified::Type(Type::Bool) => {
                Value::Bool(BoolExpr::Coalesce(parts.into_iter().map(|part| self.boolean(part, "")).collect()))
            }
            Unified::Open => Value::Open(Open::Coalesce(parts.into_iter().filter_map(open).collect())),
            Unified::Wrong => Value::Wrong,
        }
    }

    /// `case when of = other then null else of end`
    fn null_if(&mut self, of: Typed, other: Typed) -> Value {
        let known = of.known_type().or(other.known_type());
        let equal = self.compare(Comparison::Equal, of.clone(), other);
        let null = Typed::new(Value::Open(Open::Null), of.at.clone());
        match known {
            Some(of_type) if !of.is_wrong() => self.build_case(Unified::Type(of_type), vec![(equal, null)], of),
            None if !of.is_wrong() => self.build_case(Unified::Open, vec![(equal, null)], of),
            _ => Value::Wrong,
        }
    }

    fn case(&mut self, operand: Option<Typed>, conditions: &[CaseWhen], otherwise: Option<&Syntax>) -> Value {
        let mut tests = Vec::with_capacity(conditions.len());
        let mut values = Vec::with_capacity(conditions.len() + 1);
        for CaseWhen { condition, result } in conditions {
            let condition = self.expression(condition);
            tests.push(match &operand {
                Some(operand) => self.compare(Comparison::Equal, operand.clone(), condition),
                None => self.boolean(condition, "`when`"),
            });
            values.push(self.expression(result));
        }
        let null = Typed::new(Value::Open(Open::Null), self.place.whole());
        values.push(otherwise.map_or(null, |otherwise| self.expression(otherwise)));
        let unified = self.unify(&values, "`case`");
        match values.pop() {
            Some(otherwise) => self.build_case(unified, tests.into_iter().zip(values).collect(), otherwise),
            None => Value::Wrong,
        }
    }

    fn build_case(&mut self, unified: Unified, arms: Vec<(BoolExpr, Typed)>, otherwise: Typed) -> Value {
        match unified {
            Unified::Type(Type::Number) => {
                Value::Number(NumberExpr::Case(build(arms, otherwise, |value| self.number(value, ""))))
            }
            Unified::Type(Type::Text) => {
                Value::Text(TextExpr::Case(build(arms, otherwise, |value| self.text(value, ""))))
            }
            Unified::Type(Type::Bool) => {
                Value::Bool(BoolExpr::Case(build(arms, otherwise, |value| self.boolean(value, ""))))
            }
            Unified::Open => {
                let arms = arms.into_iter().filter_map(|(condition, value)| Some((condition, open(value)?))).collect();
                open(otherwise).map_or(Value::Wrong, |otherwise| Value::Open(Open::Case(arms, Box::new(otherwise))))
            }
            Unified::Wrong => Value::Wrong,
        }
    }

    /// The one type of all parts; says where they are of different ones.
    fn unify(&mut self, parts: &[Typed], user: &str) -> Unified {
        let mut unified = None;
        let mut wrong = false;
        for part in parts {
            match (unified, part.known_type()) {
                (Some(one), Some(other)) if one != other => {
                    self.error(part.at.clone(), format!("{user} mixes {one} with {other}"), None);
                    return Unified::Wrong;
                }
                (None, found) => unified = found,
                _ => {}
            }
            wrong |= part.is_wrong();
        }
        match unified {
            Some(of_type) => Unified::Type(of_type),
            None if wrong => Unified::Wrong,
            None => Unified::Open,
        }
    }
}

/// What several parts have in common.
#[derive(Clone, Copy)]
enum Unified {
    Type(Type),
    Open,
    Wrong,
}

fn open(part: Typed) -> Option<Open> {
    match part.value {
        Value::Open(open) => Some(open),
        _ => None,
    }
}

fn build<T>(arms: Vec<(BoolExpr, Typed)>, otherwise: Typed, mut convert: impl FnMut(Typed) -> T) -> Case<T> {
    let arms = arms.into_iter().map(|(condition, value)| (condition, convert(value))).collect();
    Case { arms, otherwise: Box::new(convert(otherwise)) }
}

/// How many arguments a function takes; none for an unknown one.
fn takes(name: &str) -> Option<RangeInclusive<usize>> {
    match name {
        "least" | "greatest" | "coalesce" => Some(1..=usize::MAX),
        "pow" | "power" | "nullif" => Some(2..=2),
        name => FUNCTIONS.contains(&name).then_some(1..=1),
    }
}

/// The arguments of a call that has nothing else to it.
fn plain_arguments(call: &Call) -> Option<Vec<&Syntax>> {
    let extras = call.filter.is_some() || call.over.is_some() || call.null_treatment.is_some();
    let parameters = !matches!(call.parameters, FunctionArguments::None);
    if extras || parameters || call.uses_odbc_syntax || !call.within_group.is_empty() {
        return None;
    }
    let FunctionArguments::List(list) = &call.args else { return None };
    if list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
        return None;
    }
    list.args
        .iter()
        .map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) => Some(argument),
            _ => None,
        })
        .collect()
}
