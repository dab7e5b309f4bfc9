//! Folding: what can be computed once is computed once.
//!
//! A folded tree has the value of the one that it came from, whatever the slots hold. Operations that give null by
//! themselves (`1 / 0`) stay, so that [`Env::count_null`] goes on hearing of them; but like any other part they may be
//! left out where they cannot change the value. Optionally one text slot is taken to be known.

use std::cell::Cell;

use super::{
    Env,
    tree::{BoolExpr, Case, Expr, NumberExpr, TextExpr},
};

/// A text slot whose value is known.
pub(super) type Known<'a> = Option<(u16, &'a str)>;

impl Expr {
    pub(super) fn fold(self) -> Expr {
        match self {
            Expr::Number(of) => Expr::Number(of.fold(None)),
            Expr::Text(of) => Expr::Text(of.fold(None)),
            Expr::Bool(of) => Expr::Bool(of.fold(None)),
            Expr::Untyped(slot) => Expr::Untyped(slot),
        }
    }
}

impl BoolExpr {
    /// The expression where a slot is known to hold this text: a filter of the event type folds to a constant.
    #[must_use]
    pub fn assume_text(&self, slot: u16, value: &str) -> BoolExpr {
        self.clone().fold(Some((slot, value)))
    }
}

impl NumberExpr {
    pub(super) fn fold(self, known: Known<'_>) -> NumberExpr {
        self.fold_parts(known).settle()
    }

    fn fold_parts(self, known: Known<'_>) -> NumberExpr {
        match self {
            NumberExpr::Constant(_) | NumberExpr::Slot(_) => self,
            NumberExpr::Negate(of) => NumberExpr::Negate(Box::new(of.fold(known))),
            NumberExpr::Function(function, of) => NumberExpr::Function(function, Box::new(of.fold(known))),
            NumberExpr::Arithmetic(operation, sides) => {
                strict(*sides, known, |sides| NumberExpr::Arithmetic(operation, sides))
            }
            NumberExpr::Power(sides) => strict(*sides, known, NumberExpr::Power),
            NumberExpr::Length(of) => NumberExpr::Length(Box::new(of.fold(known))),
            NumberExpr::Least(parts) => some_of(without_nulls(parts, known), NumberExpr::Least),
            NumberExpr::Greatest(parts) => some_of(without_nulls(parts, known), NumberExpr::Greatest),
            NumberExpr::Coalesce(parts) => {
                let parts = until(without_nulls(parts, known), |part| matches!(part, NumberExpr::Constant(_)));
                some_of(parts, NumberExpr::Coalesce)
            }
            NumberExpr::Case(case) => case.fold(known, NumberExpr::fold, NumberExpr::Case),
        }
    }

    fn settle(self) -> NumberExpr {
        match closed(self.is_closed(), |env| self.eval(env)) {
            Some(value) => NumberExpr::Constant(value),
            None => self,
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, NumberExpr::Constant(value) if value.is_nan())
    }
}

/// An operation that is null where one side is.
fn strict(
    sides: [NumberExpr; 2],
    known: Known<'_>,
    build: impl FnOnce(Box<[NumberExpr; 2]>) -> NumberExpr,
) -> NumberExpr {
    let sides = sides.map(|side| side.fold(known));
    if sides.iter().any(NumberExpr::is_null) { NumberExpr::NULL } else { build(Box::new(sides)) }
}

fn without_nulls(parts: Box<[NumberExpr]>, known: Known<'_>) -> Vec<NumberExpr> {
    parts.into_iter().map(|part| part.fold(known)).filter(|part| !part.is_null()).collect()
}

fn some_of(mut parts: Vec<NumberExpr>, build: impl FnOnce(Box<[NumberExpr]>) -> NumberExpr) -> NumberExpr {
    match parts.len() {
        0 => NumberExpr::NULL,
        1 => parts.remove(0),
        _ => build(parts.into()),
    }
}

/// The parts up to the first that is so, which has the last word.
fn until<T>(mut parts: Vec<T>, last: impl Fn(&T) -> bool) -> Vec<T> {
    if let Some(at) = parts.iter().position(last) {
        parts.truncate(at + 1);
    }
    parts
}

impl TextExpr {
    pub(super) fn fold(self, known: Known<'_>) -> TextExpr {
        self.fold_parts(known).settle()
    }

    fn fold_parts(self, known: Known<'_>) -> TextExpr {
        match self {
            TextExpr::Constant(_) => self,
            TextExpr::Slot(slot) => match known {
                Some((known, value)) if known == slot => TextExpr::Constant(Some(value.into())),
                _ => self,
            },
            TextExpr::Lower(of) => TextExpr::Lower(Box::new(of.fold(known))),
            TextExpr::Upper(of) => TextExpr::Upper(Box::new(of.fold(known))),
            TextExpr::Coalesce(parts) => {
                let parts = parts.into_iter().map(|part| part.fold(known)).filter(|part| !part.is_null());
                let mut parts = until(parts.collect(), |part| matches!(part, TextExpr::Constant(_)));
                match parts.len() {
                    0 => TextExpr::NULL,
                    1 => parts.remove(0),
                    _ => TextExpr::Coalesce(parts.into()),
                }
            }
            TextExpr::Case(case) => case.fold(known, TextExpr::fold, TextExpr::Case),
        }
    }

    fn settle(self) -> TextExpr {
        match closed(self.is_closed(), |env| self.eval(env).map(|text| Box::from(&*text))) {
            Some(value) => TextExpr::Constant(value),
            None => self,
        }
    }

    fn is_null(&self) -> bool {
        *self == TextExpr::NULL
    }
}

impl BoolExpr {
    pub(super) fn fold(self, known: Known<'_>) -> BoolExpr {
        self.fold_parts(known).settle()
    }

    fn fold_parts(self, known: Known<'_>) -> BoolExpr {
        let text = |of: TextExpr| of.fold(known);
        match self {
            BoolExpr::Constant(_) | BoolExpr::Slot(_) => self,
            BoolExpr::UntypedIsNull(_) | BoolExpr::CompareUntyped(..) => self,
            BoolExpr::Not(of) => match of.fold(known) {
                BoolExpr::Not(of) => *of,
                of => BoolExpr::Not(Box::new(of)),
            },
            BoolExpr::And(parts) => junction(parts, known, false),
            BoolExpr::Or(parts) => junction(parts, known, true),
            BoolExpr::CompareNumber(op, sides) => {
                compare(sides.map(|side| side.fold(known)), NumberExpr::is_null, |s| BoolExpr::CompareNumber(op, s))
            }
            BoolExpr::CompareText(op, sides) => {
                compare(sides.map(text), TextExpr::is_null, |sides| BoolExpr::CompareText(op, sides))
            }
            BoolExpr::CompareBool(op, sides) => {
                compare(sides.map(|side| side.fold(known)), BoolExpr::is_null, |s| BoolExpr::CompareBool(op, s))
            }
            BoolExpr::InNumber { list, null: true, .. } if list.is_empty() => BoolExpr::NULL,
            BoolExpr::InText { list, null: true, .. } if list.is_empty() => BoolExpr::NULL,
            BoolExpr::InNumber { value, list, null } => {
                BoolExpr::InNumber { value: Box::new(value.fold(known)), list, null }
            }
            BoolExpr::InText { value, list, null } => {
                BoolExpr::InText { value: Box::new(value.fold(known)), list, null }
            }
            BoolExpr::Like(sides) => compare(sides.map(text), TextExpr::is_null, BoolExpr::Like),
            BoolExpr::NumberIsNull(of) => BoolExpr::NumberIsNull(Box::new(of.fold(known))),
            BoolExpr::TextIsNull(of) => BoolExpr::TextIsNull(Box::new(of.fold(known))),
            BoolExpr::BoolIsNull(of) => BoolExpr::BoolIsNull(Box::new(of.fold(known))),
            BoolExpr::Is(wanted, of) => BoolExpr::Is(wanted, Box::new(of.fold(known))),
            BoolExpr::Coalesce(parts) => coalesce_conditions(parts, known),
            BoolExpr::Case(case) => case.fold(known, BoolExpr::fold, BoolExpr::Case),
        }
    }

    fn settle(self) -> BoolExpr {
        match closed(self.is_closed(), |env| self.eval(env)) {
            Some(value) => BoolExpr::Constant(value),
            None => self,
        }
    }

    fn is_null(&self) -> bool {
        *self == BoolExpr::NULL
    }
}

/// A comparison is null where one side is.
fn compare<T>(sides: [T; 2], is_null: impl Fn(&T) -> bool, build: impl FnOnce(Box<[T; 2]>) -> BoolExpr) -> BoolExpr {
    if sides.iter().any(is_null) { BoolExpr::NULL } else { build(Box::new(sides)) }
}

/// `and` (`decisive` is false) or `or` (true): flattened, with at most one constant left, a null.
fn junction(parts: Box<[BoolExpr]>, known: Known<'_>, decisive: bool) -> BoolExpr {
    let mut kept = Vec::with_capacity(parts.len());
    let mut null = false;
    for part in parts {
        let inner = match part.fold(known) {
            BoolExpr::And(inner) if !decisive => inner.into_vec(),
            BoolExpr::Or(inner) if decisive => inner.into_vec(),
            other => vec![other],
        };
        for part in inner {
            match part {
                BoolExpr::Constant(Some(value)) if value == decisive => return BoolExpr::Constant(Some(decisive)),
                BoolExpr::Constant(Some(_)) => {}
                BoolExpr::Constant(None) => null = true,
                other => kept.push(other),
            }
        }
    }
    if null {
        kept.push(BoolExpr::NULL);
    }
    match kept.len() {
        0 => BoolExpr::Constant(Some(!decisive)),
        1 => kept.remove(0),
        _ if decisive => BoolExpr::Or(kept.into()),
        _ => BoolExpr::And(kept.into()),
    }
}

fn coalesce_conditions(parts: Box<[BoolExpr]>, known: Known<'_>) -> BoolExpr {
    let parts = parts.into_iter().map(|part| part.fold(known)).filter(|part| !part.is_null());
    let mut parts = until(parts.collect(), |part| matches!(part, BoolExpr::Constant(_)));
    match parts.len() {
        0 => BoolExpr::NULL,
        1 => parts.remove(0),
        _ => BoolExpr::Coalesce(parts.into()),
    }
}

impl<T> Case<T> {
    /// Leaves out the arms that cannot be chosen.
    fn fold(self, known: Known<'_>, value: impl Fn(T, Known<'_>) -> T, build: impl FnOnce(Case<T>) -> T) -> T {
        let mut arms = Vec::with_capacity(self.arms.len());
        let mut otherwise = *self.otherwise;
        for (condition, chosen) in self.arms {
            match condition.fold(known) {
                BoolExpr::Constant(Some(true)) => {
                    otherwise = chosen;
                    break;
                }
                BoolExpr::Constant(_) => {}
                condition => arms.push((condition, value(chosen, known))),
            }
        }
        let otherwise = value(otherwise, known);
        if arms.is_empty() { otherwise } else { build(Case { arms: arms.into(), otherwise: Box::new(otherwise) }) }
    }
}

/// The value of an expression that reads no slot, unless computing it is to be counted.
fn closed<T>(is_closed: bool, eval: impl FnOnce(&NoSlots) -> T) -> Option<T> {
    let env = NoSlots::default();
    let value = is_closed.then(|| eval(&env))?;
    (env.nulls.get() == 0).then_some(value)
}

/// For expressions that read no slot: says whether an operation gave null.
#[derive(Default)]
pub(super) struct NoSlots {
    nulls: Cell<u32>,
}

impl Env for NoSlots {
    fn number(&self, _: u16) -> f64 {
        f64::NAN
    }

    fn text(&self, _: u16) -> Option<&str> {
        None
    }

    fn boolean(&self, _: u16) -> Option<bool> {
        None
    }

    fn is_null(&self, _: u16) -> bool {
        true
    }

    fn count_null(&self) {
        self.nulls.set(self.nulls.get() + 1);
    }
}
