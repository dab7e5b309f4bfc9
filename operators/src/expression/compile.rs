//! From syntax to typed trees: names, literals, arithmetic, and the errors that are found on the way.
//!
//! One pass from the leaves up. An error is reported where it is found, and its part is [`Value::Wrong`] from there on,
//! so that the pass goes on and finds the others without making up more.

use std::{collections::HashMap, ops::Range};

use sqlparser::ast::{BinaryOperator, Expr as Syntax, Ident, Spanned, UnaryOperator, Value as Literal, ValueWithSpan};

use super::{
    Kind, Name, Names,
    nearest::did_you_mean,
    parse::{SyntaxError, parse, too_deep},
    place::Place,
    tree::{Arithmetic, BoolExpr, Comparison, Expr, NumberExpr, TextExpr},
    typed::{Choices, Open, Type, Typed, Value},
    unsupported::unsupported,
};
use crate::spec::{JobError, Located};

/// Bounds the recursion of compilation and of everything done with the trees. A chain of `and` or of `or` is one level
/// however long it is, one of `+` a level for each.
const DEPTH_MAX: usize = 256;

/// Names the values that could have been meant only where they can be taken in at a glance.
const CHOICES_LISTED_MAX: usize = 8;

/// Compiles one expression.
pub(super) struct Compiler<'a> {
    pub(super) place: Place<'a>,
    names: &'a mut (dyn Names + 'a),
    known: HashMap<Vec<String>, Option<Name>>,
    errors: Vec<JobError>,
    depth: usize,
}

impl<'a> Compiler<'a> {
    /// Compiles the text; `finish` makes of it what is wanted.
    pub(super) fn run<T>(
        text: &'a Located<String>,
        names: &'a mut (dyn Names + 'a),
        finish: impl FnOnce(&mut Compiler<'a>, Typed) -> T,
    ) -> Result<T, Vec<JobError>> {
        let place = Place::new(text);
        let mut compiler = Compiler { place, names, known: HashMap::new(), errors: Vec::new(), depth: 0 };
        let result = match parse(&text.value, &compiler.place) {
            Ok(syntax) => {
                let value = compiler.expression(&syntax);
                Some(finish(&mut compiler, value))
            }
            Err(error) => {
                compiler.report(error);
                None
            }
        };
        let mut errors = compiler.errors;
        errors.sort_by_key(|error| (error.span.bytes.start, error.span.bytes.end));
        errors.dedup();
        result.filter(|_| errors.is_empty()).ok_or(errors)
    }

    /// The expression whatever its type is.
    pub(super) fn any(&mut self, typed: Typed) -> Expr {
        match typed.value {
            Value::Number(number) => Expr::Number(number),
            Value::Text(text) => Expr::Text(text),
            Value::Bool(condition) => Expr::Bool(condition),
            Value::Open(Open::Slot(slot)) => Expr::Untyped(slot),
            Value::Open(Open::Null) | Value::Wrong => Expr::Number(NumberExpr::NULL),
            Value::Open(_) => {
                self.ambiguous(typed.at);
                Expr::Number(NumberExpr::NULL)
            }
        }
    }

    /// The part as a number, which `user` needs.
    pub(super) fn number(&mut self, typed: Typed, user: &str) -> NumberExpr {
        match typed.value {
            Value::Number(number) => number,
            Value::Open(open) => open.number(),
            _ => {
                self.expected(Type::Number, &typed, user);
                NumberExpr::NULL
            }
        }
    }

    /// The part as a text, which `user` needs.
    pub(super) fn text(&mut self, typed: Typed, user: &str) -> TextExpr {
        match typed.value {
            Value::Text(text) => text,
            Value::Open(open) => open.text(),
            _ => {
                self.expected(Type::Text, &typed, user);
                TextExpr::NULL
            }
        }
    }

    /// The part as a condition, which `user` needs.
    pub(super) fn boolean(&mut self, typed: Typed, user: &str) -> BoolExpr {
        match typed.value {
            Value::Bool(condition) => condition,
            Value::Open(open) => open.boolean(),
            _ => {
                self.expected(Type::Bool, &typed, user);
                BoolExpr::NULL
            }
        }
    }

    /// Any part, from its syntax.
    pub(super) fn expression(&mut self, syntax: &Syntax) -> Typed {
        if self.depth == DEPTH_MAX {
            let error = too_deep(&self.place);
            self.report(error);
            return Typed::wrong(self.place.whole());
        }
        self.depth += 1;
        let typed = self.descend(syntax);
        self.depth -= 1;
        typed
    }

    fn descend(&mut self, syntax: &Syntax) -> Typed {
        match syntax {
            Syntax::Nested(inner) => {
                let inner = self.expression(inner);
                Typed { at: self.place.with_parentheses(inner.at.clone()), ..inner }
            }
            Syntax::Identifier(name) => self.name(std::slice::from_ref(name)),
            Syntax::CompoundIdentifier(path) => self.name(path),
            Syntax::Value(literal) => self.literal(literal),
            Syntax::UnaryOp { op, expr } => self.unary(*op, expr, syntax),
            Syntax::BinaryOp { left, op, right } => self.binary(left, op, right, syntax),
            _ => self.special(syntax),
        }
    }

    /// Parts with a form of their own; a level of their own as well, to keep the frames of the common ones small.
    #[inline(never)]
    fn special(&mut self, syntax: &Syntax) -> Typed {
        if let Some(condition) = self.condition(syntax) {
            return condition;
        }
        if let Some(value) = self.call(syntax) {
            return value;
        }
        self.not_supported(syntax)
    }

    fn unary(&mut self, op: UnaryOperator, of: &Syntax, syntax: &Syntax) -> Typed {
        let user = format!("`{}`", op.to_string().to_lowercase());
        let of = match op {
            UnaryOperator::Minus | UnaryOperator::Plus | UnaryOperator::Not => self.expression(of),
            _ => return self.not_supported(syntax),
        };
        let at = of.at.clone();
        match op {
            UnaryOperator::Not => Typed::new(Value::Bool(BoolExpr::Not(Box::new(self.boolean(of, &user)))), at),
            UnaryOperator::Plus => Typed::new(Value::Number(self.number(of, &user)), self.place.with_sign('+', at)),
            _ => {
                let number = NumberExpr::Negate(Box::new(self.number(of, &user)));
                Typed::new(Value::Number(number), self.place.with_sign('-', at))
            }
        }
    }

    fn binary(&mut self, left: &Syntax, op: &BinaryOperator, right: &Syntax, syntax: &Syntax) -> Typed {
        if matches!(op, BinaryOperator::And | BinaryOperator::Or) {
            return self.junction(syntax, op);
        }
        if let Some(operation) = arithmetic(op) {
            let (left, right) = (self.expression(left), self.expression(right));
            let at = left.at.start..right.at.end;
            let user = format!("`{op}`");
            let sides = [self.number(left, &user), self.number(right, &user)];
            return Typed::new(Value::Number(NumberExpr::Arithmetic(operation, Box::new(sides))), at);
        }
        if let Some(comparison) = comparison(op) {
            let (left, right) = (self.expression(left), self.expression(right));
            let at = left.at.start..right.at.end;
            return Typed::new(Value::Bool(self.compare(comparison, left, right)), at);
        }
        self.not_supported(syntax)
    }

    fn name(&mut self, path: &[Ident]) -> Typed {
        let start = path.first().map_or(0..0, |first| self.place.bytes(first.span)).start;
        let end = path.last().map_or(0..0, |last| self.place.bytes(last.span)).end;
        let words: Vec<String> = path.iter().map(|word| word.value.clone()).collect();
        let name = match self.known.get(&words) {
            Some(name) => name.clone(),
            None => {
                let name = self.names.resolve(&words);
                self.known.insert(words.clone(), name.clone());
                name
            }
        };
        let Some(Name { slot, kind }) = name else {
            self.unknown_name(path, &words.join("."), start..end);
            return Typed::wrong(start..end);
        };
        let value = match kind {
            Kind::Number => Value::Number(NumberExpr::Slot(slot)),
            Kind::Text | Kind::Choice(_) => Value::Text(TextExpr::Slot(slot)),
            Kind::Bool => Value::Bool(BoolExpr::Slot(slot)),
            Kind::Untyped => Value::Open(Open::Slot(slot)),
        };
        let choices = match kind {
            Kind::Choice(values) => Some(Choices { name: words.join("."), values }),
            _ => None,
        };
        Typed { value, at: start..end, choices }
    }

    fn unknown_name(&mut self, path: &[Ident], name: &str, at: Range<usize>) {
        let quoted_text = matches!(path, [Ident { quote_style: Some(_), .. }]);
        let hint = match did_you_mean(name, self.names.candidates()) {
            Some(hint) => Some(hint),
            None if quoted_text => Some(format!("a text stands in single quotes: '{name}'")),
            None => None,
        };
        self.error(at, format!("unknown name \"{name}\""), hint);
    }

    fn literal(&mut self, literal: &ValueWithSpan) -> Typed {
        let at = self.place.bytes(literal.span);
        let value = match &literal.value {
            Literal::Number(digits, false) => match digits.parse::<f64>() {
                Ok(number) if number.is_finite() => Value::Number(NumberExpr::Constant(number)),
                _ => {
                    self.error(at.clone(), format!("`{digits}` is beyond the numbers that a f64 can hold"), None);
                    Value::Wrong
                }
            },
            Literal::SingleQuotedString(text) => Value::Text(TextExpr::Constant(Some(text.as_str().into()))),
            Literal::Boolean(value) => Value::Bool(BoolExpr::Constant(Some(*value))),
            Literal::Null => Value::Open(Open::Null),
            other => {
                self.error(at.clone(), format!("`{other}` is not supported"), None);
                Value::Wrong
            }
        };
        Typed::new(value, at)
    }

    pub(super) fn not_supported(&mut self, syntax: &Syntax) -> Typed {
        let at = self.place.bytes(syntax.span());
        let (what, hint) = unsupported(syntax);
        self.error(at.clone(), format!("{what} not supported"), hint.map(str::to_owned));
        Typed::wrong(at)
    }

    /// Reports a literal that a name with a closed set of values never equals.
    pub(super) fn check_choice(&mut self, one: &Typed, other: &Typed) {
        for (name, literal) in [(one, other), (other, one)] {
            let (Some(Choices { name, values }), Some(text)) = (&name.choices, literal.literal()) else { continue };
            if values.iter().any(|value| value == text) {
                continue;
            }
            let hint = match did_you_mean(text, values.iter()) {
                Some(hint) => Some(hint),
                None if values.len() <= CHOICES_LISTED_MAX => Some(format!("it is one of {}", values.join(", "))),
                None => None,
            };
            self.error(literal.at.clone(), format!("\"{text}\" is not a value of \"{name}\""), hint);
        }
    }

    fn expected(&mut self, wanted: Type, found: &Typed, user: &str) {
        if let Some(found_type) = found.known_type() {
            let message = match user {
                "a condition" => format!("a condition must be a boolean, this is {found_type}"),
                user => format!("{user} needs {wanted}, this is {found_type}"),
            };
            self.error(found.at.clone(), message, None);
        }
    }

    /// Reports a part that could be of any type, where it matters.
    pub(super) fn ambiguous(&mut self, at: Range<usize>) {
        let hint = "add a constant that says it, as in `coalesce(x, 0)`".to_owned();
        self.error(at, "it cannot be known whether this is a number or a text".to_owned(), Some(hint));
    }

    fn report(&mut self, error: SyntaxError) {
        self.error(error.bytes, error.message, error.hint);
    }

    pub(super) fn error(&mut self, at: Range<usize>, message: String, hint: Option<String>) {
        self.errors.push(JobError { span: self.place.span(at), message, hint });
    }
}

fn arithmetic(op: &BinaryOperator) -> Option<Arithmetic> {
    Some(match op {
        BinaryOperator::Plus => Arithmetic::Add,
        BinaryOperator::Minus => Arithmetic::Subtract,
        BinaryOperator::Multiply => Arithmetic::Multiply,
        BinaryOperator::Divide => Arithmetic::Divide,
        BinaryOperator::Modulo => Arithmetic::Remainder,
        _ => return None,
    })
}

fn comparison(op: &BinaryOperator) -> Option<Comparison> {
    Some(match op {
        BinaryOperator::Eq => Comparison::Equal,
        BinaryOperator::NotEq => Comparison::NotEqual,
        BinaryOperator::Lt => Comparison::Less,
        BinaryOperator::LtEq => Comparison::LessOrEqual,
        BinaryOperator::Gt => Comparison::Greater,
        BinaryOperator::GtEq => Comparison::GreaterOrEqual,
        _ => return None,
    })
}
