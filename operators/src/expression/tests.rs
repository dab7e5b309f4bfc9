//! Each rule of the language by example; [`super::random_tests`] holds folding against the unfolded tree.

use std::{cell::Cell, collections::HashMap, sync::Arc};

use super::{
    BoolExpr, Comparison, Env, Expr, Kind, Name, Names, NumberUse, compile, compile_condition, compile_number,
    compile_text, nearest,
};
use crate::spec::{JobError, Located, Span};

/// A value in a slot.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cellar {
    Null,
    Number(f64),
    Text(String),
    Bool(bool),
}

/// Names with kinds and values: slot `i` is that of the `i`-th.
#[derive(Debug)]
pub(super) struct World {
    names: Vec<(&'static str, Kind)>,
    pub(super) values: Vec<Cellar>,
    pub(super) nulls: Cell<u32>,
    resolved: HashMap<String, u32>,
}

impl World {
    pub(super) fn new() -> World {
        let types: Arc<[String]> = ["user_login", "user_signup", "page_viewed"].map(str::to_owned).into();
        let (number, text) = (Cellar::Number, |text: &str| Cellar::Text(text.to_owned()));
        let rows = vec![
            ("x", Kind::Number, number(5.0)),
            ("y", Kind::Number, number(-2.0)),
            ("none", Kind::Number, Cellar::Null),
            ("name", Kind::Text, text("Ada")),
            ("no_name", Kind::Text, Cellar::Null),
            ("flag", Kind::Bool, Cellar::Bool(true)),
            ("no_flag", Kind::Bool, Cellar::Null),
            ("event_type", Kind::Choice(types), text("user_login")),
            ("properties.amount", Kind::Untyped, number(12.0)),
            ("properties.label", Kind::Untyped, text("blue")),
            ("properties.gone", Kind::Untyped, Cellar::Null),
            ("properties.on", Kind::Untyped, Cellar::Bool(true)),
            ("churn_risk", Kind::Number, number(0.5)),
            ("churn_risk.level", Kind::Text, text("high")),
            ("properties.my size", Kind::Number, number(1.0)),
        ];
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for (name, kind, value) in rows {
            names.push((name, kind));
            values.push(value);
        }
        World { names, values, nulls: Cell::new(0), resolved: HashMap::new() }
    }

    pub(super) fn slot(&self, name: &str) -> u16 {
        let at = self.names.iter().position(|(known, _)| *known == name).expect("a name of the world");
        u16::try_from(at).expect("few names")
    }

    fn value(&self, slot: u16) -> &Cellar {
        &self.values[usize::from(slot)]
    }
}

impl Names for World {
    fn resolve(&mut self, path: &[String]) -> Option<Name> {
        let name = path.join(".");
        *self.resolved.entry(name.clone()).or_default() += 1;
        let at = self.names.iter().position(|(known, _)| *known == name)?;
        Some(Name { slot: u16::try_from(at).ok()?, kind: self.names[at].1.clone() })
    }

    fn candidates(&self) -> Vec<String> {
        self.names.iter().map(|(name, _)| (*name).to_owned()).collect()
    }
}

impl Env for World {
    fn number(&self, slot: u16) -> f64 {
        if let Cellar::Number(number) = self.value(slot) { *number } else { f64::NAN }
    }

    fn text(&self, slot: u16) -> Option<&str> {
        if let Cellar::Text(text) = self.value(slot) { Some(text) } else { None }
    }

    fn boolean(&self, slot: u16) -> Option<bool> {
        if let Cellar::Bool(value) = self.value(slot) { Some(*value) } else { None }
    }

    fn is_null(&self, slot: u16) -> bool {
        *self.value(slot) == Cellar::Null
    }

    fn count_null(&self) {
        self.nulls.set(self.nulls.get() + 1);
    }
}

fn number(text: &str) -> f64 {
    let mut world = World::new();
    compile_number(&text.into(), &mut world).unwrap_or_else(|errors| panic!("{text}: {errors:?}")).eval(&world)
}

fn condition(text: &str) -> Option<bool> {
    let mut world = World::new();
    compile_condition(&text.into(), &mut world).unwrap_or_else(|errors| panic!("{text}: {errors:?}")).eval(&world)
}

fn text(expression: &str) -> Option<String> {
    let mut world = World::new();
    let tree = compile_text(&expression.into(), &mut world).expect(expression);
    tree.eval(&world).map(|text| text.into_owned())
}

fn folded(text: &str) -> BoolExpr {
    compile_condition(&text.into(), &mut World::new()).expect(text)
}

fn errors(text: &str) -> Vec<JobError> {
    compile(&text.into(), &mut World::new()).expect_err(text)
}

/// The one error of an expression: the text that it points at, its message, its hint.
fn error(text: &str) -> (&str, String, Option<String>) {
    let mut found = errors(text);
    assert_eq!(found.len(), 1, "{text}: {found:?}");
    let JobError { span, message, hint } = found.remove(0);
    (&text[span.bytes], message, hint)
}

#[test]
fn arithmetic_is_f64() {
    // Goal: every operator and function by its definition.
    let cases = [
        ("5 / 2", 2.5),
        ("1 + 2 * 3", 7.0),
        ("(1 + 2) * 3", 9.0),
        ("-7 % 3", -1.0),
        ("7 % -3", 1.0),
        ("x - y - 1", 6.0),
        ("-x", -5.0),
        ("+x", 5.0),
        ("- - x", 5.0),
        ("round(2.5)", 3.0),
        ("round(-2.5)", -3.0),
        ("ROUND(0.49999999999999994)", 0.0),
        ("floor(-1.5)", -2.0),
        ("ceil(1.2)", 2.0),
        ("ceiling(-1.2)", -1.0),
        ("abs(y)", 2.0),
        ("sqrt(9)", 3.0),
        ("ln(exp(2))", 2.0),
        ("pow(2, 10)", 1024.0),
        ("power(y, 3)", -8.0),
        ("length('naïve')", 5.0),
        ("length(name)", 3.0),
        ("1e3 + .5", 1000.5),
        ("properties.amount * 2", 24.0),
        ("\"properties\".\"my size\"", 1.0),
        ("churn_risk", 0.5),
    ];
    for (text, expected) in cases {
        assert_eq!(number(text), expected, "{text}");
    }
}

#[test]
fn nulls_go_through_arithmetic() {
    // Goal: a null operand gives null; `least`, `greatest`, `coalesce` and `nullif` treat nulls as PostgreSQL does.
    let nulls = ["none + 1", "-none", "abs(none)", "pow(1, none)", "pow(none, 0)", "null + 1", "least(none, null)"];
    let more = ["length(no_name)", "properties.label + 1", "properties.on * 2", "nullif(x, 5)", "coalesce(none, null)"];
    for text in nulls.into_iter().chain(more) {
        assert!(number(text).is_nan(), "{text}");
    }
    assert_eq!(number("least(none, 3, 1, null)"), 1.0);
    assert_eq!(number("greatest(3, none, properties.amount)"), 12.0);
    assert_eq!(number("coalesce(none, properties.gone, 7)"), 7.0);
    assert_eq!(number("nullif(x, 4)"), 5.0);
    assert_eq!(number("nullif(x, none)"), 5.0);
    assert_eq!(number("coalesce(nullif(x, 5), 1)"), 1.0);
}

#[test]
fn operations_without_a_value_are_counted() {
    // Goal: they give null and are counted once, also where they stand in constants; null operands are not counted.
    let cases = [
        ("x / (x - 5)", 1),
        ("1 / 0", 1),
        ("x % 0", 1),
        ("ln(0)", 1),
        ("ln(y)", 1),
        ("sqrt(y)", 1),
        ("exp(1000)", 1),
        ("pow(y, 0.5)", 1),
        ("pow(0, y)", 1),
        ("1e308 * 10", 1),
        ("(1 / 0) + (1 / 0)", 2),
        ("none / 0", 0),
        ("ln(none)", 0),
        ("pow(1, none)", 0),
        ("null / 0", 0),
    ];
    for (text, expected) in cases {
        let mut world = World::new();
        let tree = compile_number(&text.into(), &mut world).expect(text);
        assert!(tree.eval(&world).is_nan(), "{text}");
        assert_eq!(world.nulls.get(), expected, "{text}");
    }
}

#[test]
fn logic_has_three_values() {
    // Goal: the truth tables, with every null from a slot and from a literal.
    for null in ["no_flag", "null", "none > 1", "(none = none)"] {
        let cases = [
            (format!("true and {null}"), None),
            (format!("{null} and false"), Some(false)),
            (format!("false or {null}"), None),
            (format!("{null} or true"), Some(true)),
            (format!("not {null}"), None),
            (format!("({null}) is null"), Some(true)),
            (format!("({null}) is not null"), Some(false)),
            (format!("({null}) is true"), Some(false)),
            (format!("({null}) is not true"), Some(true)),
            (format!("({null}) is false"), Some(false)),
            (format!("({null}) is not false"), Some(true)),
            (format!("({null}) is unknown"), Some(true)),
            (format!("({null}) is not unknown"), Some(false)),
            (format!("coalesce({null}, true)"), Some(true)),
        ];
        for (text, expected) in cases {
            assert_eq!(condition(&text), expected, "{text}");
        }
    }
    let plain = [
        ("not flag", Some(false)),
        ("not x = 4", Some(true)),
        ("flag and x > 4 or x < 0", Some(true)),
        ("flag = true", Some(true)),
        ("flag <> (x < 0)", Some(true)),
        ("false < flag", Some(true)),
        ("flag in (false)", Some(false)),
        ("flag in (false, null)", None),
        ("flag and flag and flag and no_flag", None),
        ("properties.on", Some(true)),
        ("properties.on and flag", Some(true)),
        ("properties.label and flag", None),
    ];
    for (text, expected) in plain {
        assert_eq!(condition(text), expected, "{text}");
    }
}

#[test]
fn comparisons_are_of_one_type() {
    // Goal: numbers, texts by code points, untyped values by what they are; else null.
    let cases = [
        ("x >= 5", Some(true)),
        ("x != 5", Some(false)),
        ("x <> y", Some(true)),
        ("0 = -0.0", Some(true)),
        ("none = none", None),
        ("x = null", None),
        ("name = 'Ada'", Some(true)),
        ("name = 'ada'", Some(false)),
        ("'Z' < 'a'", Some(true)),
        ("'z' < 'ä'", Some(true)),
        ("'\u{ffff}' < '\u{10000}'", Some(true)),
        ("no_name = 'x'", None),
        ("properties.amount > 10", Some(true)),
        ("10 < properties.amount", Some(true)),
        ("properties.amount = '12'", None),
        ("properties.label = 'blue'", Some(true)),
        ("properties.label > 1", None),
        ("properties.label = properties.label", Some(true)),
        ("properties.amount = properties.label", None),
        ("properties.amount <= properties.amount", Some(true)),
        ("properties.on = properties.on", None),
        ("properties.on = true", Some(true)),
        ("properties.gone = null", None),
        ("properties.gone is null", Some(true)),
        ("properties.label is not null", Some(true)),
        ("coalesce(properties.gone, properties.label) is null", Some(false)),
        ("coalesce(properties.gone, properties.label) = 'blue'", Some(true)),
        ("none is null", Some(true)),
        ("no_name is null", Some(true)),
        ("churn_risk.level = 'high'", Some(true)),
        ("event_type = 'user_login'", Some(true)),
        ("event_type > 'a'", Some(true)),
    ];
    for (text, expected) in cases {
        assert_eq!(condition(text), expected, "{text}");
    }
}

#[test]
fn ranges_and_lists() {
    // Goal: `between` is inclusive, `in` knows nulls, both can be negated and take any type.
    let long = format!("'b{}'", (0..20).map(|i| format!("', 'a{i}")).collect::<String>());
    let cases = [
        ("x between 5 and 6", Some(true)),
        ("x not between 5 and 6", Some(false)),
        ("x between none and 4", Some(false)),
        ("x between none and 6", None),
        ("name between 'A' and 'B'", Some(true)),
        ("properties.amount between 1 and x", Some(false)),
        ("x in (1, 2 + 3)", Some(true)),
        ("x not in (1, -5)", Some(true)),
        ("x in (5, null)", Some(true)),
        ("x in (4, null)", None),
        ("x not in (4, null)", None),
        ("x in (null)", None),
        ("none in (1)", None),
        ("properties.gone in (null)", None),
        ("name in ('Bob', 'Ada')", Some(true)),
        ("properties.label in ('red', 'blue')", Some(true)),
        ("properties.amount in ('red', 'blue')", None),
        (&format!("name in ({long})"), Some(false)),
        (&format!("'a17' in ({long})"), Some(true)),
        (&format!("'b' in ({long})"), Some(true)),
    ];
    for (text, expected) in cases {
        assert_eq!(condition(text), expected, "{text}");
    }
}

#[test]
fn like_matches_whole_texts() {
    // Goal: `%`, `_` by code points, case, no escape, and going back.
    let cases = [
        ("'' like ''", true),
        ("'' like '%'", true),
        ("'' like '_'", false),
        ("'abc' like 'abc'", true),
        ("'abc' like 'ab'", false),
        ("'abc' like 'a%'", true),
        ("'abc' like '%c'", true),
        ("'abc' like '%b%'", true),
        ("'abc' like 'A%'", false),
        ("'abc' like '_b_'", true),
        ("'äöü' like '_ö_'", true),
        ("'äöü' like '__'", false),
        ("'aé€😀z' like 'a___z'", true),
        ("'aab' like '%ab'", true),
        ("'abcabd' like '%ab_'", true),
        ("'abcabd' like 'a%c%d'", true),
        ("'abab' like '%aba'", false),
        ("'a%b' like 'a\\%b'", false),
        ("'mississippi' like '%iss%ip%'", true),
        ("'é' like '%è'", false),
        ("name not like 'B%'", true),
    ];
    for (text, expected) in cases {
        assert_eq!(condition(text), Some(expected), "{text}");
    }
    assert_eq!(condition("no_name like '%'"), None);
    assert_eq!(condition("name like null"), None);
}

#[test]
fn texts_and_cases() {
    // Goal: text functions, both forms of `case`, and its types.
    assert_eq!(text("lower('ÄB')").as_deref(), Some("äb"));
    assert_eq!(text("upper(name)").as_deref(), Some("ADA"));
    assert_eq!(text("upper(no_name)"), None);
    assert_eq!(text("'it''s'").as_deref(), Some("it's"));
    assert_eq!(text("case when x > 9 then 'much' when x > 4 then 'some' else 'none' end").as_deref(), Some("some"));
    assert_eq!(text("case event_type when 'user_login' then lower(name) end").as_deref(), Some("ada"));
    assert_eq!(text("case when none > 1 then 'a' end"), None);
    assert_eq!(text("nullif(name, 'Ada')"), None);
    assert_eq!(text("properties.label").as_deref(), Some("blue"));
    assert_eq!(number("case when flag then properties.amount else 0 end + 1"), 13.0);
    assert_eq!(condition("case when flag then properties.label else properties.gone end = 'blue'"), Some(true));
    assert_eq!(condition("case x when 5 then flag else false end"), Some(true));
}

#[test]
fn the_type_of_an_expression() {
    // Goal: `compile` says what the value is; a bare untyped name stays untyped, also in parentheses.
    let mut world = World::new();
    let mut compiled = |text: &str| compile(&text.into(), &mut world).expect(text);
    assert!(matches!(compiled("x"), Expr::Number(_)));
    assert!(matches!(compiled("name"), Expr::Text(_)));
    assert!(matches!(compiled("x > 1"), Expr::Bool(_)));
    assert!(matches!(compiled("null"), Expr::Number(_)));
    let untyped = compiled("(properties.amount)");
    assert_eq!(untyped, Expr::Untyped(world.slot("properties.amount")));
}

#[test]
fn each_name_is_asked_for_once() {
    // Goal: `Names::resolve` may give out a new slot each time.
    let mut world = World::new();
    compile(&"x > 1 and x < 9 and unknown_thing = x or unknown_thing = 1".into(), &mut world).expect_err("unknown");
    assert!(world.resolved.values().all(|times| *times == 1));
}

#[test]
fn unknown_names_are_pointed_at() {
    // Goal: bytes and nearest name, for whole paths and for functions.
    assert_eq!(
        error("x > 1 and churn_rsk > 0.5"),
        ("churn_rsk", "unknown name \"churn_rsk\"".into(), Some("did you mean \"churn_risk\"?".into()))
    );
    let path = error("properties.amuont > 1");
    assert_eq!((path.0, path.2.as_deref()), ("properties.amuont", Some("did you mean \"properties.amount\"?")));
    assert_eq!(error("amount > 1").2.as_deref(), Some("did you mean \"properties.amount\"?"));
    assert_eq!(error("Name = 'x'").2.as_deref(), Some("did you mean \"name\"?"));
    assert_eq!(error("name = \"someone\"").2.as_deref(), Some("a text stands in single quotes: 'someone'"));
    assert_eq!(error("unthinkable").2, None);
    let function = ("flor", "unknown function \"flor\"".to_owned(), Some("did you mean \"floor\"?".to_owned()));
    assert_eq!(error("flor(x) > 1"), function);
    assert_eq!(error("zzz(x)").2, None);
}

#[test]
fn types_are_checked() {
    // Goal: each mixture is an error that says what is mixed, and points at it.
    let cases = [
        ("x > 1 and x = 'a'", "x = 'a'", "cannot compare a number with a text"),
        ("name <> 5", "name <> 5", "cannot compare a text with a number"),
        ("x < y < 3", "x < y < 3", "cannot compare a boolean with a number"),
        ("(x + 1) = flag", "(x + 1) = flag", "cannot compare a number with a boolean"),
        ("x + name", "name", "`+` needs a number, this is a text"),
        ("- name", "name", "`-` needs a number, this is a text"),
        ("x and flag", "x", "`and` needs a boolean, this is a number"),
        ("not x", "x", "`not` needs a boolean, this is a number"),
        ("x is true", "x", "`is` needs a boolean, this is a number"),
        ("x like 'a'", "x", "`like` needs a text, this is a number"),
        ("length(x)", "x", "`length` needs a text, this is a number"),
        ("ceil(name)", "name", "`ceil` needs a number, this is a text"),
        ("greatest(x, name)", "name", "`greatest` needs a number, this is a text"),
        ("coalesce(x, none, name)", "name", "`coalesce` mixes a number with a text"),
        ("case when flag then 1 else 'a' end", "'a'", "`case` mixes a number with a text"),
        ("case when x then 1 end", "x", "`when` needs a boolean, this is a number"),
        ("x in (1, 'a')", "'a'", "cannot compare a number with a text"),
        ("x in (1, y)", "y", "the list of an `in` holds constants only"),
        ("x in (1 / 0)", "1 / 0", "this has no value"),
        ("x between 1 and 'a'", "x between 1 and 'a'", "cannot compare a number with a text"),
        ("nullif(x, 'a')", "x, 'a'", "cannot compare a number with a text"),
        ("abs(x, y)", "abs(x, y)", "`abs` takes 1 argument, not 2"),
        ("pow(x)", "pow(x)", "`pow` takes 2 arguments, not 1"),
        ("1e999", "1e999", "`1e999` is beyond the numbers that a f64 can hold"),
    ];
    for (text, at, message) in cases {
        let found = error(text);
        assert_eq!((found.0, &*found.1), (at, message), "{text}");
    }
}

#[test]
fn the_top_has_a_type() {
    // Goal: what is wanted of the whole expression is checked.
    let mut world = World::new();
    let found = compile_condition(&"x + 1".into(), &mut world).expect_err("no condition");
    assert_eq!(found[0].message, "a condition must be a boolean, this is a number");
    assert!(compile_number(&"name".into(), &mut world).is_err());
    assert!(compile_text(&"x".into(), &mut world).is_err());
    let open = error("coalesce(properties.label, properties.gone)");
    assert_eq!(open.1, "it cannot be known whether this is a number or a text");
}

#[test]
fn closed_sets_are_checked() {
    // Goal: a literal outside the set is an error in `=`, `<>`, `in` and the short `case`, not in `like` or `<`.
    let near = Some("did you mean \"user_signup\"?".to_owned());
    let message = "\"user_sigup\" is not a value of \"event_type\"".to_owned();
    assert_eq!(error("event_type = 'user_sigup'"), ("'user_sigup'", message.clone(), near.clone()));
    assert_eq!(error("'user_sigup' <> event_type"), ("'user_sigup'", message.clone(), near.clone()));
    assert_eq!(error("event_type in ('page_viewed', 'user_sigup')"), ("'user_sigup'", message.clone(), near.clone()));
    assert_eq!(error("case event_type when 'user_sigup' then 1 end"), ("'user_sigup'", message, near));
    assert_eq!(error("event_type = 'xyz'").2.as_deref(), Some("it is one of user_login, user_signup, page_viewed"));
    assert_eq!(condition("event_type like 'user_%' and event_type < 'v'"), Some(true));
}

#[test]
fn what_is_not_supported_is_named() {
    // Goal: other SQL is refused by name.
    let cases = [
        ("x in (select 1)", "subqueries are not supported"),
        ("exists (select 1)", "subqueries are not supported"),
        ("(select 1) > 2", "subqueries are not supported"),
        ("cast(x as int) > 1", "casts are not supported"),
        ("x::text = 'a'", "casts are not supported"),
        ("interval '1' day", "intervals are not supported"),
        ("date '2020-01-01' = name", "dates, times and other literals with a type are not supported"),
        ("name ilike 'a'", "`ilike` is not supported"),
        ("name like 'a' escape '!'", "`like any` and `escape` are not supported"),
        ("name || 'a' = 'b'", "`||` is not supported"),
        ("x ^ 2 > 1", "`^` is not supported"),
        ("x is distinct from y", "`is distinct from` is not supported"),
        ("x > any(1)", "`any` is not supported"),
        ("substring(name from 1) = 'a'", "`substring` is not supported"),
        ("trim(name) = 'a'", "`trim` is not supported"),
        ("extract(day from x) = 1", "`extract` is not supported"),
        ("(x, y) = 1", "rows of several values are not supported"),
        ("array[1] = x", "arrays are not supported"),
        ("count(*) > 1", "aggregate function \"count\" is not supported"),
        ("sum(x) > 1", "aggregate function \"sum\" is not supported"),
        ("max(x) over () > 1", "aggregate function \"max\" is not supported"),
        ("abs(distinct x) > 1", "this form of `abs` is not supported"),
        ("round(x, 2) > 1", "`round` takes 1 argument, not 2"),
        ("now() > x", "unknown function \"now\""),
        ("current_date > x", "unknown function \"current_date\""),
        ("x = ?", "`?` is not supported"),
    ];
    for (text, message) in cases {
        assert_eq!(error(text).1, message, "{text}");
    }
}

#[test]
fn syntax_errors_are_pointed_at() {
    // Goal: each has its place and plain words.
    let cases = [
        ("", "", "an expression is missing"),
        ("  -- nothing", "  -- nothing", "an expression is missing"),
        ("x >", "", "expected an expression, found the end"),
        ("x > )", ")", "expected an expression, found `)`"),
        ("x 5", "5", "unexpected `5` after the expression"),
        ("x > 1; y", ";", "unexpected `;` after the expression"),
        ("(x > 1", "", "expected ), found the end"),
        ("name = 'abc", "'abc", "unterminated string literal"),
        ("x in ()", ")", "expected an expression, found `)`"),
    ];
    for (text, at, message) in cases {
        let found = error(text);
        assert_eq!((found.0, &*found.1), (at, message), "{text}");
    }
}

#[test]
fn all_errors_at_once_in_order() {
    // Goal: one mistake hides no other, and none is told twice or made up by another.
    let text = "foo = 1 and name > 2 or bar(x + baz) between 1 and 'a' and foo + 1 = 'x'";
    let found: Vec<String> = errors(text).into_iter().map(|error| error.message).collect();
    let expected = [
        "unknown name \"foo\"",
        "cannot compare a text with a number",
        "unknown function \"bar\"",
        "unknown name \"baz\"",
        "unknown name \"foo\"",
        "cannot compare a number with a text",
    ];
    assert_eq!(found, expected);
}

#[test]
fn places_are_bytes_of_the_file() {
    // Goal: lines, characters of several bytes, and the expression's place in its file are all counted in.
    let value = "name = 'ä€😀'\n  and\tföö > 1".to_owned();
    let at = value.find("föö").expect("it is there");
    let text = Located { span: Span { file: 3, bytes: 100..100 + value.len() }, value };
    let found = compile(&text, &mut World::new()).expect_err("unknown name");
    assert_eq!(found[0].span, Span { file: 3, bytes: 100 + at..100 + at + "föö".len() });
}

#[test]
fn depth_is_bounded() {
    // Goal: no nesting and no chain overflows the stack of a small thread; ordinary ones are accepted.
    let deep = [
        format!("{}x{} > 1", "(".repeat(10_000), ")".repeat(10_000)),
        format!("{}x{} > 1", "(".repeat(1_500), ")".repeat(1_500)),
        "(".repeat(4_000),
        "not ".repeat(4_000) + "flag",
        "- ".repeat(4_000) + "x",
        format!("{}x{}", "abs(".repeat(1_000), ")".repeat(1_000)),
        format!("{}1{}", "case when flag then ".repeat(800), " end".repeat(800)),
        "case ".repeat(2_000),
        format!("x{}", " + 1".repeat(2_000)),
        format!("x{}", "::int".repeat(2_000)),
        format!("x{}", " is null".repeat(2_000)),
        format!("x{} > 1", " || 1".repeat(2_000)),
        format!("zzz(x{})", " || 1".repeat(2_000)),
        format!("exists (select x{})", " || 1".repeat(2_000)),
        format!("x in ({})", vec!["1"; 10_000].join(", ")),
    ];
    let run = move || {
        for text in deep {
            assert!(compile(&Located::nowhere(text.clone()), &mut World::new()).is_err(), "{}", &text[..20]);
        }
        let chain = (0..900).map(|i| format!("x = {i}")).collect::<Vec<_>>().join(" or ");
        assert_eq!(condition(&chain), Some(true));
        assert_eq!(number(&format!("x{}", " + 1".repeat(250))), 255.0);
        assert_eq!(number(&format!("{}x{}", "(".repeat(40), ")".repeat(40))), 5.0);
        let list = (0..2_000).map(|i| i.to_string()).collect::<Vec<_>>().join(", ");
        assert_eq!(condition(&format!("x in ({list})")), Some(true));
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(run).expect("a thread");
    thread.join().expect("no overflow, no failed assertion");
}

#[test]
fn words_of_sql_can_be_names() {
    // Goal: a feature may be called by a word that SQL uses elsewhere, and any word can be quoted.
    struct Anything;
    impl Names for Anything {
        fn resolve(&mut self, _: &[String]) -> Option<Name> {
            Some(Name { slot: 0, kind: Kind::Number })
        }
        fn candidates(&self) -> Vec<String> {
            Vec::new()
        }
    }
    let words = "value form source label category date time rate first last count level user interval rows key day";
    for word in words.split(' ') {
        for text in [format!("{word} >= 1 and {word} < 3"), format!("properties.{word} + 1 > \"{word}\"")] {
            if word == "interval" && text.starts_with(word) {
                continue;
            }
            assert!(compile_condition(&(&*text).into(), &mut Anything).is_ok(), "{text}");
        }
    }
    for word in ["case", "select", "interval", "end", "null", "true", "and"] {
        let text = format!("properties.\"{word}\" + \"{word}\"");
        assert!(compile_number(&Located::nowhere(text), &mut Anything).is_ok(), "{word}");
    }
}

#[test]
fn constants_are_folded() {
    // Goal: what no slot changes is a constant, and what cannot be chosen is gone.
    assert_eq!(folded("1 + 1 = 2"), BoolExpr::Constant(Some(true)));
    assert_eq!(folded("false and x / 0 > 1"), BoolExpr::Constant(Some(false)));
    assert_eq!(folded("x > 1 or 'a' like '%a'"), BoolExpr::Constant(Some(true)));
    assert_eq!(folded("x = null"), BoolExpr::Constant(None));
    assert_eq!(folded("x = 1 and true and (y = 2 and flag)"), folded("x = 1 and y = 2 and flag"));
    assert_eq!(folded("case when 1 > 2 then x > 9 else x > 5 end"), folded("x > 5"));
    assert_eq!(folded("not not flag"), folded("flag"));
    assert_eq!(folded("coalesce(none, 2 * 3, y) > 1"), folded("coalesce(none, 6) > 1"));
    assert_eq!(folded("x > -(2 + 1)"), folded("x > -3"));
}

#[test]
fn a_known_text_is_folded_in() {
    // Goal: filters of the event type become constants, of each truth value; other names stay.
    let world = World::new();
    let slot = world.slot("event_type");
    let assume = |text: &str| folded(text).assume_text(slot, "user_login");
    assert_eq!(assume("event_type = 'user_login'"), BoolExpr::Constant(Some(true)));
    assert_eq!(assume("event_type in ('page_viewed', 'user_signup')"), BoolExpr::Constant(Some(false)));
    assert_eq!(assume("event_type in ('page_viewed', null)"), BoolExpr::Constant(None));
    assert_eq!(assume("upper(event_type) like 'USER%' or x > 1"), BoolExpr::Constant(Some(true)));
    assert_eq!(assume("event_type = 'page_viewed' and x > 1"), BoolExpr::Constant(Some(false)));
    assert_eq!(assume("event_type = 'user_login' and x > 1"), folded("x > 1"));
    assert_eq!(assume("case event_type when 'page_viewed' then x = 1 else y = 1 end"), folded("y = 1"));
    assert_eq!(assume("event_type is null or not flag"), folded("not flag"));
    assert_eq!(assume("name = 'user_login'"), folded("name = 'user_login'"));
}

fn uses(text: &str) -> Vec<NumberUse> {
    let mut found = Vec::new();
    folded(text).number_uses(&mut |used| found.push(used));
    found
}

#[test]
fn comparisons_with_constants_are_found() {
    // Goal: a bare slot against what reads no slot, turned so that the slot is left; everything else is another use.
    let world = World::new();
    let slot = world.slot("x");
    let against = |op, constant| NumberUse::CompareConstant { slot, op, constant };
    let other = NumberUse::Other { slot };
    use Comparison::{Equal, GreaterOrEqual, Less, LessOrEqual};
    assert_eq!(uses("x >= 30"), [against(GreaterOrEqual, 30.0)]);
    assert_eq!(uses("3 * 10 > (x)"), [against(Less, 30.0)]);
    assert_eq!(uses("not (flag and x = -1)"), [against(Equal, -1.0)]);
    assert_eq!(uses("x between 3 and 7"), [against(GreaterOrEqual, 3.0), against(LessOrEqual, 7.0)]);
    assert_eq!(uses("x not in (3, 7)"), [against(Equal, 3.0), against(Equal, 7.0)]);
    assert_eq!(uses("case when x < 1 then flag else false end"), [against(Less, 1.0)]);
    let turned = [("=", "="), ("<>", "<>"), ("<", ">"), ("<=", ">="), (">", "<"), (">=", "<=")];
    for (op, turned) in turned {
        assert_eq!(uses(&format!("7 {op} x")), uses(&format!("x {turned} 7")), "{op}");
    }
    let others = ["x + 1 > 2", "x is null", "x > coalesce(properties.label, 1)", "-x in (1)", "abs(x) < 1"];
    for text in others {
        assert_eq!(uses(text).iter().filter(|used| used.slot() == slot).collect::<Vec<_>>(), [&other], "{text}");
    }
    assert_eq!(uses("x > x"), [other, other]);
    let [NumberUse::CompareConstant { constant, .. }] = uses("x > 1 / 0")[..] else { panic!("one use") };
    assert!(constant.is_nan());
}

#[test]
fn slots_are_those_that_are_read() {
    // Goal: every kind of node gives its slots; what folding leaves out is not read.
    let world = World::new();
    let slots = |text: &str| {
        let mut found = Vec::new();
        compile(&text.into(), &mut World::new()).expect(text).slots(&mut |slot| found.push(slot));
        found.sort_unstable();
        found.dedup();
        found
    };
    let of = |names: &[&str]| {
        let mut slots: Vec<u16> = names.iter().map(|name| world.slot(name)).collect();
        slots.sort_unstable();
        slots
    };
    assert_eq!(slots("properties.label"), of(&["properties.label"]));
    assert_eq!(slots("flag and name like 'a' or properties.gone is null"), of(&["flag", "name", "properties.gone"]));
    assert_eq!(
        slots("case when properties.on then length(lower(name)) else least(x, pow(y, 2), -none) end"),
        of(&["properties.on", "name", "x", "y", "none"])
    );
    assert_eq!(
        slots("properties.label = properties.amount and x in (1) and event_type in ('user_login')"),
        of(&["properties.label", "properties.amount", "x", "event_type"])
    );
    assert_eq!(slots("x > 1 and false"), Vec::<u16>::new());
}

#[test]
fn nearest_is_near_or_nothing() {
    // Goal: mistakes of letters, case and prefix are bridged, other names are not.
    let names = ["error_count", "errors_24h", "properties.feature", "plan"];
    assert_eq!(nearest("eror_count", names).as_deref(), Some("error_count"));
    assert_eq!(nearest("errors_24", names).as_deref(), Some("errors_24h"));
    assert_eq!(nearest("Plan", names).as_deref(), Some("plan"));
    assert_eq!(nearest("feature", names).as_deref(), Some("properties.feature"));
    assert_eq!(nearest("something_else", names), None);
    assert_eq!(nearest("x", Vec::<String>::new()), None);
}
