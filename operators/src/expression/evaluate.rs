//! Evaluation: three-valued, without allocation (but for `lower` and `upper` of texts that they change).

use std::borrow::Cow;

use super::{
    Env,
    tree::{Arithmetic, BoolExpr, Case, Comparison, Function, NumberExpr, TextExpr},
};

/// Longer lists of texts are searched by halves; in shorter ones comparing lengths first is faster.
const SCANNED_LIST_MAX: usize = 8;

impl NumberExpr {
    /// Null, as numbers have it.
    pub const NULL: NumberExpr = NumberExpr::Constant(f64::NAN);

    /// The value; NaN is null, and no value is infinite.
    #[inline]
    pub fn eval<E: Env + ?Sized>(&self, env: &E) -> f64 {
        match self {
            NumberExpr::Constant(value) => *value,
            NumberExpr::Slot(slot) => env.number(*slot),
            _ => self.eval_operation(env),
        }
    }

    fn eval_operation<E: Env + ?Sized>(&self, env: &E) -> f64 {
        match self {
            NumberExpr::Constant(value) => *value,
            NumberExpr::Slot(slot) => env.number(*slot),
            NumberExpr::Negate(of) => -of.eval(env),
            NumberExpr::Arithmetic(operation, sides) => {
                let (left, right) = (sides[0].eval(env), sides[1].eval(env));
                known(operation.apply(left, right), left.is_nan() || right.is_nan(), env)
            }
            NumberExpr::Function(function, of) => {
                let of = of.eval(env);
                known(function.apply(of), of.is_nan(), env)
            }
            NumberExpr::Power(sides) => {
                let (base, exponent) = (sides[0].eval(env), sides[1].eval(env));
                let null = base.is_nan() || exponent.is_nan();
                // `pow(1, NaN)` is 1 to IEEE 754, and null here.
                known(if null { f64::NAN } else { libm::pow(base, exponent) }, null, env)
            }
            NumberExpr::Length(of) => of.eval(env).map_or(f64::NAN, |text| text.chars().count() as f64),
            NumberExpr::Least(parts) => pick(parts, env, |new, old| new < old),
            NumberExpr::Greatest(parts) => pick(parts, env, |new, old| new > old),
            NumberExpr::Coalesce(parts) => {
                parts.iter().map(|part| part.eval(env)).find(|value| !value.is_nan()).unwrap_or(f64::NAN)
            }
            NumberExpr::Case(case) => case.choose(env).eval(env),
        }
    }
}

/// The result of an operation, null where it is not finite; that is counted unless an operand was null.
#[inline]
fn known<E: Env + ?Sized>(result: f64, null: bool, env: &E) -> f64 {
    if result.is_finite() {
        return result;
    }
    if !null {
        env.count_null();
    }
    f64::NAN
}

fn pick<E: Env + ?Sized>(parts: &[NumberExpr], env: &E, better: impl Fn(f64, f64) -> bool) -> f64 {
    let mut picked = f64::NAN;
    for part in parts {
        let value = part.eval(env);
        if picked.is_nan() || better(value, picked) {
            picked = value;
        }
    }
    picked
}

impl Arithmetic {
    #[inline]
    fn apply(self, left: f64, right: f64) -> f64 {
        match self {
            Arithmetic::Add => left + right,
            Arithmetic::Subtract => left - right,
            Arithmetic::Multiply => left * right,
            Arithmetic::Divide => left / right,
            Arithmetic::Remainder => left % right,
        }
    }
}

impl Function {
    /// `abs`, `round`, `floor`, `ceil` and `sqrt` are exact in IEEE 754; `ln` and `exp` are `libm`'s, so that every
    /// machine gives the same bits.
    fn apply(self, of: f64) -> f64 {
        match self {
            Function::Abs => of.abs(),
            Function::Round => of.round(),
            Function::Floor => of.floor(),
            Function::Ceil => of.ceil(),
            Function::Sqrt => of.sqrt(),
            Function::Ln => libm::log(of),
            Function::Exp => libm::exp(of),
        }
    }
}

impl TextExpr {
    /// Null, as texts have it.
    pub const NULL: TextExpr = TextExpr::Constant(None);

    /// The value, borrowed wherever it stands somewhere already.
    pub fn eval<'a, E: Env + ?Sized>(&'a self, env: &'a E) -> Option<Cow<'a, str>> {
        match self {
            TextExpr::Constant(value) => value.as_deref().map(Cow::Borrowed),
            TextExpr::Slot(slot) => env.text(*slot).map(Cow::Borrowed),
            TextExpr::Lower(of) => of.eval(env).map(lower),
            TextExpr::Upper(of) => of.eval(env).map(upper),
            TextExpr::Coalesce(parts) => parts.iter().find_map(|part| part.eval(env)),
            TextExpr::Case(case) => case.choose(env).eval(env),
        }
    }
}

fn lower(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        return text;
    }
    Cow::Owned(text.to_lowercase())
}

fn upper(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_lowercase()) {
        return text;
    }
    Cow::Owned(text.to_uppercase())
}

impl BoolExpr {
    /// Null, as conditions have it.
    pub const NULL: BoolExpr = BoolExpr::Constant(None);

    /// The value; none is unknown. A condition holds if it is `Some(true)`.
    pub fn eval<E: Env + ?Sized>(&self, env: &E) -> Option<bool> {
        match self {
            BoolExpr::Constant(value) => *value,
            BoolExpr::Slot(slot) => env.boolean(*slot),
            BoolExpr::Not(of) => of.eval(env).map(|value| !value),
            BoolExpr::And(parts) => all(parts, env, false),
            BoolExpr::Or(parts) => all(parts, env, true),
            BoolExpr::CompareNumber(op, sides) => op.numbers(sides[0].eval(env), sides[1].eval(env)),
            BoolExpr::CompareText(op, sides) => Some(op.holds(sides[0].eval(env)?.cmp(&sides[1].eval(env)?))),
            BoolExpr::CompareBool(op, sides) => Some(op.holds(sides[0].eval(env)?.cmp(&sides[1].eval(env)?))),
            BoolExpr::CompareUntyped(op, slots) => compare_untyped(*op, *slots, env),
            BoolExpr::InNumber { value, list, null } => {
                let value = value.eval(env);
                (!value.is_nan()).then(|| list.contains(&value)).filter(|found| *found || !null)
            }
            BoolExpr::InText { value, list, null } => {
                let value = value.eval(env)?;
                Some(listed(list, &value)).filter(|found| *found || !null)
            }
            BoolExpr::Like(sides) => Some(like(&sides[0].eval(env)?, &sides[1].eval(env)?)),
            BoolExpr::NumberIsNull(of) => Some(of.eval(env).is_nan()),
            BoolExpr::TextIsNull(of) => Some(of.eval(env).is_none()),
            BoolExpr::BoolIsNull(of) => Some(of.eval(env).is_none()),
            BoolExpr::UntypedIsNull(slot) => Some(env.is_null(*slot)),
            BoolExpr::Is(wanted, of) => Some(of.eval(env) == Some(*wanted)),
            BoolExpr::Coalesce(parts) => parts.iter().find_map(|part| part.eval(env)),
            BoolExpr::Case(case) => case.choose(env).eval(env),
        }
    }
}

/// `and` (`decisive` is false) or `or` (true): one decisive part decides, else one unknown part leaves it unknown.
fn all<E: Env + ?Sized>(parts: &[BoolExpr], env: &E, decisive: bool) -> Option<bool> {
    let mut result = Some(!decisive);
    for part in parts {
        match part.eval(env) {
            Some(value) if value == decisive => return Some(decisive),
            Some(_) => {}
            None => result = None,
        }
    }
    result
}

fn compare_untyped<E: Env + ?Sized>(op: Comparison, [left, right]: [u16; 2], env: &E) -> Option<bool> {
    let numbers = op.numbers(env.number(left), env.number(right));
    numbers.or_else(|| Some(op.holds(env.text(left)?.cmp(env.text(right)?))))
}

fn listed(list: &[Box<str>], value: &str) -> bool {
    if list.len() <= SCANNED_LIST_MAX {
        return list.iter().any(|item| **item == *value);
    }
    list.binary_search_by(|item| (**item).cmp(value)).is_ok()
}

/// Goes back to the last `%` on a mismatch: what an earlier one could take, the last one can take too.
pub(super) fn like(text: &str, pattern: &str) -> bool {
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let (mut at, mut next) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (text.get(at), pattern.get(next)) {
            (_, Some(b'%')) => {
                next += 1;
                retry = Some((at, next));
                continue;
            }
            (Some(byte), Some(b'_')) => {
                at += code_point_length(*byte);
                next += 1;
                continue;
            }
            (Some(byte), Some(wanted)) if byte == wanted => {
                at += 1;
                next += 1;
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        match retry {
            Some((from, after)) if from < text.len() => {
                at = from + code_point_length(text[from]);
                next = after;
                retry = Some((at, after));
            }
            _ => return false,
        }
    }
}

/// Bytes of the code point that begins with this one.
fn code_point_length(first: u8) -> usize {
    match first {
        0..0x80 => 1,
        0x80..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0.. => 4,
    }
}

impl<T> Case<T> {
    /// The expression that gives the value.
    fn choose<E: Env + ?Sized>(&self, env: &E) -> &T {
        let arm = self.arms.iter().find(|(condition, _)| condition.eval(env) == Some(true));
        arm.map_or(&*self.otherwise, |(_, value)| value)
    }
}
