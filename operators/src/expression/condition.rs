//! Compilation of conditions: `and`, `or`, comparisons, `between`, `in`, `like`, `is`.

use std::ops::Range;

use sqlparser::ast::{BinaryOperator, Expr as Syntax};

use super::{
    compile::Compiler,
    fold::NoSlots,
    tree::{BoolExpr, Comparison},
    typed::{Open, Type, Typed, Value},
};

impl Compiler<'_> {
    /// A condition that is no comparison, if the syntax is one.
    pub(super) fn condition(&mut self, syntax: &Syntax) -> Option<Typed> {
        Some(match syntax {
            Syntax::IsNull(of) => self.is_null(of, false),
            Syntax::IsNotNull(of) => self.is_null(of, true),
            Syntax::IsTrue(of) => self.is(of, false, |of| BoolExpr::Is(true, of)),
            Syntax::IsNotTrue(of) => self.is(of, true, |of| BoolExpr::Is(true, of)),
            Syntax::IsFalse(of) => self.is(of, false, |of| BoolExpr::Is(false, of)),
            Syntax::IsNotFalse(of) => self.is(of, true, |of| BoolExpr::Is(false, of)),
            Syntax::IsUnknown(of) => self.is(of, false, BoolExpr::BoolIsNull),
            Syntax::IsNotUnknown(of) => self.is(of, true, BoolExpr::BoolIsNull),
            Syntax::Between { expr, negated, low, high } => self.between(expr, *negated, low, high),
            Syntax::InList { expr, list, negated } => self.in_list(expr, list, *negated),
            Syntax::Like { negated, any: false, expr, pattern, escape_char: None } => {
                self.like(expr, pattern, *negated)
            }
            _ => return None,
        })
    }

    /// A chain of `and` or of `or`. The parser leans it to the left, so it is walked in a loop.
    pub(super) fn junction(&mut self, syntax: &Syntax, op: &BinaryOperator) -> Typed {
        let mut chain = Vec::new();
        let mut rest = syntax;
        while let Syntax::BinaryOp { left, op: found, right } = rest
            && found == op
        {
            chain.push(&**right);
            rest = left;
        }
        chain.push(rest);
        let user = if *op == BinaryOperator::And { "`and`" } else { "`or`" };
        let mut at = self.place.whole();
        let mut parts = Vec::with_capacity(chain.len());
        for syntax in chain.into_iter().rev() {
            let part = self.expression(syntax);
            if parts.is_empty() {
                at.start = part.at.start;
            }
            at.end = part.at.end;
            parts.push(self.boolean(part, user));
        }
        let parts = parts.into();
        let junction = if *op == BinaryOperator::And { BoolExpr::And(parts) } else { BoolExpr::Or(parts) };
        Typed::new(Value::Bool(junction), at)
    }

    /// A comparison; a side of open type takes that of the other.
    pub(super) fn compare(&mut self, op: Comparison, left: Typed, right: Typed) -> BoolExpr {
        if matches!(op, Comparison::Equal | Comparison::NotEqual) {
            self.check_choice(&left, &right);
        }
        if left.is_wrong() || right.is_wrong() {
            return BoolExpr::NULL;
        }
        let at = left.at.start..right.at.end;
        let of_type = match (left.known_type(), right.known_type()) {
            (Some(one), Some(other)) if one != other => {
                self.error(at, format!("cannot compare {one} with {other}"), None);
                return BoolExpr::NULL;
            }
            (Some(one), _) | (None, Some(one)) => one,
            (None, None) => return self.compare_open(op, left, right),
        };
        let user = "a comparison";
        match of_type {
            Type::Number => BoolExpr::CompareNumber(op, Box::new([left, right].map(|side| self.number(side, user)))),
            Type::Text => BoolExpr::CompareText(op, Box::new([left, right].map(|side| self.text(side, user)))),
            Type::Bool => BoolExpr::CompareBool(op, Box::new([left, right].map(|side| self.boolean(side, user)))),
        }
    }

    fn compare_open(&mut self, op: Comparison, left: Typed, right: Typed) -> BoolExpr {
        match (left.value, right.value) {
            (Value::Open(Open::Slot(left)), Value::Open(Open::Slot(right))) => {
                BoolExpr::CompareUntyped(op, [left, right])
            }
            (Value::Open(Open::Null), _) | (_, Value::Open(Open::Null)) => BoolExpr::NULL,
            _ => {
                self.ambiguous(left.at.start..right.at.end);
                BoolExpr::NULL
            }
        }
    }

    fn between(&mut self, of: &Syntax, negated: bool, low: &Syntax, high: &Syntax) -> Typed {
        let [of, low, high] = [of, low, high].map(|syntax| self.expression(syntax));
        let at = of.at.start..high.at.end;
        let above = self.compare(Comparison::GreaterOrEqual, of.clone(), low);
        let below = self.compare(Comparison::LessOrEqual, of, high);
        let inside = BoolExpr::And(Box::new([above, below]));
        Typed::new(Value::Bool(negate(inside, negated)), at)
    }

    fn in_list(&mut self, of: &Syntax, list: &[Syntax], negated: bool) -> Typed {
        let of = self.expression(of);
        let list: Vec<Typed> = list.iter().map(|item| self.expression(item)).collect();
        let end = list.last().map_or(of.at.end, |last| last.at.end);
        let at = self.place.with_closing(of.at.start..end);
        for item in &list {
            self.check_choice(&of, item);
        }
        let of_type = of.known_type().or_else(|| list.iter().find_map(Typed::known_type));
        let found = match of_type {
            _ if of.is_wrong() => BoolExpr::NULL,
            Some(of_type) => self.typed_list(of_type, of, list),
            // Nothing but nulls.
            None => BoolExpr::NULL,
        };
        Typed::new(Value::Bool(negate(found, negated)), at)
    }

    fn typed_list(&mut self, of_type: Type, of: Typed, list: Vec<Typed>) -> BoolExpr {
        let null = list.iter().any(Typed::is_null);
        let list: Vec<Typed> = list.into_iter().filter(|item| self.fits_list(of_type, item)).collect();
        match of_type {
            Type::Number => {
                let list = list.into_iter().filter_map(|item| self.constant_number(item)).collect();
                BoolExpr::InNumber { value: Box::new(self.number(of, "`in`")), list, null }
            }
            Type::Text => {
                let mut list: Vec<Box<str>> = list.into_iter().filter_map(|item| self.constant_text(item)).collect();
                list.sort();
                list.dedup();
                BoolExpr::InText { value: Box::new(self.text(of, "`in`")), list: list.into(), null }
            }
            Type::Bool => {
                let value = self.boolean(of, "`in`");
                let nulls = null.then_some(BoolExpr::NULL);
                let items = list.into_iter().map(|item| {
                    let sides = [value.clone(), self.boolean(item, "`in`")];
                    BoolExpr::CompareBool(Comparison::Equal, Box::new(sides))
                });
                BoolExpr::Or(items.collect::<Vec<_>>().into_iter().chain(nulls).collect())
            }
        }
    }

    /// Whether an item can be compared, and is not null; says if it cannot.
    fn fits_list(&mut self, of_type: Type, item: &Typed) -> bool {
        match item.known_type() {
            Some(other) if other != of_type => {
                self.error(item.at.clone(), format!("cannot compare {of_type} with {other}"), None);
                false
            }
            _ => !item.is_null() && !item.is_wrong(),
        }
    }

    fn constant_number(&mut self, item: Typed) -> Option<f64> {
        let at = item.at.clone();
        let number = self.number(item, "`in`");
        if !number.is_closed() {
            self.not_constant(at);
            return None;
        }
        let value = number.eval(&NoSlots::default());
        if value.is_nan() {
            self.error(at, "this has no value".to_owned(), None);
        }
        Some(value)
    }

    fn constant_text(&mut self, item: Typed) -> Option<Box<str>> {
        let at = item.at.clone();
        let text = self.text(item, "`in`");
        if !text.is_closed() {
            self.not_constant(at);
            return None;
        }
        text.eval(&NoSlots::default()).map(|text| Box::from(&*text))
    }

    fn not_constant(&mut self, at: Range<usize>) {
        let hint = Some("compare with `=` and `or`".to_owned());
        self.error(at, "the list of an `in` holds constants only".to_owned(), hint);
    }

    fn like(&mut self, of: &Syntax, pattern: &Syntax, negated: bool) -> Typed {
        let (of, pattern) = (self.expression(of), self.expression(pattern));
        let at = of.at.start..pattern.at.end;
        let sides = [self.text(of, "`like`"), self.text(pattern, "`like`")];
        Typed::new(Value::Bool(negate(BoolExpr::Like(Box::new(sides)), negated)), at)
    }

    fn is_null(&mut self, of: &Syntax, negated: bool) -> Typed {
        let of = self.expression(of);
        let null = match of.value {
            Value::Number(number) => BoolExpr::NumberIsNull(Box::new(number)),
            Value::Text(text) => BoolExpr::TextIsNull(Box::new(text)),
            Value::Bool(condition) => BoolExpr::BoolIsNull(Box::new(condition)),
            Value::Open(open) => open.null_test(),
            Value::Wrong => BoolExpr::NULL,
        };
        Typed::new(Value::Bool(negate(null, negated)), of.at)
    }

    fn is(&mut self, of: &Syntax, negated: bool, build: impl FnOnce(Box<BoolExpr>) -> BoolExpr) -> Typed {
        let of = self.expression(of);
        let at = of.at.clone();
        let condition = self.boolean(of, "`is`");
        Typed::new(Value::Bool(negate(build(Box::new(condition)), negated)), at)
    }
}

fn negate(condition: BoolExpr, negated: bool) -> BoolExpr {
    if negated { BoolExpr::Not(Box::new(condition)) } else { condition }
}
