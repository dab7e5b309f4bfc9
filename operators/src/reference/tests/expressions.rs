//! Expressions, one by one.

use super::super::expression::{self, Datum, Names, Type};

/// `n` is a number, `t` a text, `z` null; `u` (7), `v` ('7') and `b` (true) have no type in advance.
struct Sample;

impl Names for Sample {
    fn type_of(&self, name: &[String]) -> Result<Option<Type>, String> {
        match name[0].as_str() {
            "n" | "z" => Ok(Some(Type::Number)),
            "t" => Ok(Some(Type::Text)),
            "u" | "v" | "b" => Ok(None),
            other => Err(format!("no {other}")),
        }
    }

    fn value(&self, name: &[String]) -> Result<Datum, String> {
        Ok(match name[0].as_str() {
            "n" => Datum::Number(5.0),
            "t" => Datum::Text("Grüße_%".into()),
            "u" => Datum::Number(7.0),
            "v" => Datum::Text("7".into()),
            "b" => Datum::Bool(true),
            _ => Datum::Null,
        })
    }
}

fn eval(text: &str) -> Result<Datum, String> {
    expression::eval(&expression::parse(text)?, None, &Sample)
}

#[test]
fn numbers() {
    // Goal: arithmetic and functions of numbers, with null where there is no value.
    for (text, value) in [
        ("5 / 2", Some(2.5)),
        ("-7 % 3", Some(-1.0)),
        ("7.5 % -2", Some(1.5)),
        ("1 + 2 * 3 - 4", Some(3.0)),
        ("n / 0", None),
        ("0 / 0", None),
        ("n % 0", None),
        ("1e308 * 10", None),
        ("n + z", None),
        ("round(2.5)", Some(3.0)),
        ("round(-2.5)", Some(-3.0)),
        ("floor(-2.5)", Some(-3.0)),
        ("ceil(-2.5)", Some(-2.0)),
        ("ceiling(2.1)", Some(3.0)),
        ("abs(-3)", Some(3.0)),
        ("sqrt(9)", Some(3.0)),
        ("sqrt(-1)", None),
        ("ln(1)", Some(0.0)),
        ("ln(0)", None),
        ("ln(-1)", None),
        ("exp(0)", Some(1.0)),
        ("exp(1000)", None),
        ("pow(2, 10)", Some(1024.0)),
        ("power(-8, 0.5)", None),
        ("least(3, z, 1)", Some(1.0)),
        ("greatest(3, z, n)", Some(5.0)),
        ("greatest(z, null)", None),
        ("coalesce(z, 4)", Some(4.0)),
        ("nullif(n, 5)", None),
        ("nullif(n, 6)", Some(5.0)),
        ("nullif(n, z)", Some(5.0)),
        ("length(t)", Some(7.0)),
        ("case when z > 1 then 1 when n = 5 then 2 else 3 end", Some(2.0)),
        ("case n when 4 then 1 end", None),
        ("case n when 5 then 1 else 2 end", Some(1.0)),
        ("u + 1", Some(8.0)),
        ("v + 1", None),
        ("coalesce(v, 1)", Some(1.0)),
    ] {
        assert_eq!(eval(text), Ok(value.map_or(Datum::Null, Datum::Number)), "{text}");
    }
}

#[test]
fn truth_values() {
    // Goal: three-valued logic, comparisons within and across types, and the sides without a type.
    for (text, value) in [
        ("n > 4 and t = 'Grüße_%'", Some(true)),
        ("z > 1 and false", Some(false)),
        ("z > 1 and true", None),
        ("z > 1 or true", Some(true)),
        ("z > 1 or false", None),
        ("not (z > 1)", None),
        ("not n", None),
        ("n and true", None),
        ("n = '5'", None),
        ("t > 'G'", Some(true)),
        ("n between 5 and 5", Some(true)),
        ("n not between z and 4", Some(true)),
        ("n between z and 6", None),
        ("n in (1, 5)", Some(true)),
        ("n in (1, null)", None),
        ("n not in (1, 2)", Some(true)),
        ("z in (1)", None),
        ("t like 'Gr__e\\_%'", Some(false)),
        ("t like 'Gr__e%'", Some(true)),
        ("t like 'gr%'", Some(false)),
        ("t not like '%x%'", Some(true)),
        ("n like '5'", None),
        ("z is null", Some(true)),
        ("n is not null", Some(true)),
        ("(z > 1) is true", Some(false)),
        ("(z > 1) is not true", Some(true)),
        ("(n > 9) is false", Some(true)),
        ("(z > 1) is not false", Some(true)),
        ("u = 7", Some(true)),
        ("v = 7", None),
        ("v = '7'", Some(true)),
        ("u = v", None),
        ("u = u", Some(true)),
        ("b = b", None),
        ("b = true", Some(true)),
        ("b and true", Some(true)),
        ("u is null", Some(false)),
        ("upper(lower(t)) <> t", Some(true)),
        ("n != 5", Some(false)),
    ] {
        assert_eq!(eval(text), Ok(value.map_or(Datum::Null, Datum::Bool)), "{text}");
    }
}

#[test]
fn what_is_refused() {
    // Goal: unknown names and functions, casts and trailing text are errors.
    for text in ["m > 1", "N > 1", "cast(n as int)", "n > 1 n", "random()", "t ilike 'a'", "n = (select 1)", "n >"] {
        assert!(eval(text).is_err(), "{text}");
    }
}
