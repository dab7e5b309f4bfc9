//! Random expressions: folding changes no value, and neither does knowing a text beforehand.

use proptest::prelude::*;

use super::{
    Expr, compile_condition, compile_number,
    tests::{Cellar, World},
    unfolded,
};
use crate::spec::Located;

/// Numbers among which comparisons and divisions hit every border.
fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(1.0), Just(-2.0), Just(2.5), Just(5.0), Just(1e308)]
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![Just("a"), Just("B"), Just("user_login"), Just("blue"), Just("")].prop_map(str::to_owned)
}

/// The text of a number, from the leaves up; conditions and texts stand inside.
fn number_of(depth: u32) -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        any_number().prop_map(|number| format!("({number})")),
        Just("null".to_owned()),
        prop::sample::select(vec!["x", "y", "none", "properties.amount", "properties.label"]).prop_map(str::to_owned),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    let inner = || number_of(depth - 1);
    let functions = vec!["abs", "round", "floor", "ceil", "sqrt", "ln", "exp", "-", "+"];
    prop_oneof![
        1 => leaf,
        4 => (inner(), prop::sample::select(vec!["+", "-", "*", "/", "%"]), inner())
            .prop_map(|(left, op, right)| format!("({left} {op} {right})")),
        2 => (prop::sample::select(functions), inner()).prop_map(|(name, of)| format!("{name}({of})")),
        1 => (inner(), inner()).prop_map(|(left, right)| format!("pow({left}, {right})")),
        1 => text_of(depth - 1).prop_map(|of| format!("length({of})")),
        2 => (prop::sample::select(vec!["least", "greatest", "coalesce"]), prop::collection::vec(inner(), 1..4))
            .prop_map(|(name, parts)| format!("({name}({}, none))", parts.join(", "))),
        1 => (inner(), inner()).prop_map(|(left, right)| format!("nullif({left}, {right} + 0)")),
        1 => (condition_of(depth - 1), inner(), inner())
            .prop_map(|(when, then, other)| format!("case when {when} then {then} else {other} + 0 end")),
    ]
    .boxed()
}

fn text_of(depth: u32) -> BoxedStrategy<String> {
    let names = vec!["name", "no_name", "event_type", "properties.label", "properties.amount"];
    let leaf = prop_oneof![
        any_text().prop_map(|text| format!("'{text}'")),
        Just("null".to_owned()),
        prop::sample::select(names).prop_map(str::to_owned),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    let inner = || text_of(depth - 1);
    prop_oneof![
        1 => leaf,
        2 => (prop::sample::select(vec!["lower", "upper"]), inner()).prop_map(|(name, of)| format!("{name}({of})")),
        1 => (inner(), inner()).prop_map(|(left, right)| format!("coalesce({left}, upper({right}))")),
        1 => (condition_of(depth - 1), inner()).prop_map(|(when, then)| format!("case when {when} then {then} else name end")),
    ]
    .boxed()
}

fn condition_of(depth: u32) -> BoxedStrategy<String> {
    let leaf =
        prop::sample::select(vec!["true", "false", "null", "flag", "no_flag", "properties.on", "properties.label"])
            .prop_map(str::to_owned);
    if depth == 0 {
        return leaf.boxed();
    }
    let inner = || condition_of(depth - 1);
    let number = || number_of(depth - 1);
    let text = || text_of(depth - 1);
    let comparisons = || prop::sample::select(vec!["=", "<>", "<", "<=", ">", ">="]);
    let tests = vec!["is null", "is not null", "is true", "is not true", "is false", "is not false", "is unknown"];
    prop_oneof![
        1 => leaf,
        3 => (inner(), prop::sample::select(vec!["and", "or"]), inner())
            .prop_map(|(left, op, right)| format!("({left} {op} {right})")),
        1 => inner().prop_map(|of| format!("(not {of})")),
        3 => (number(), comparisons(), number()).prop_map(|(left, op, right)| format!("({left} {op} ({right}) + 0)")),
        2 => (text(), comparisons(), text()).prop_map(|(left, op, right)| format!("({left} {op} lower({right}))")),
        1 => (number(), number()).prop_map(|(of, low)| format!("({of} + 0 between {low} and 5)")),
        1 => (number(), prop::collection::vec(any_number(), 1..4), any::<bool>()).prop_map(|(of, list, null)| {
            let list: Vec<String> = list.iter().map(f64::to_string).collect();
            format!("({of} in ({}{}))", list.join(", "), if null { ", null" } else { "" })
        }),
        1 => (text(), prop::collection::vec(any_text(), 1..4), any::<bool>()).prop_map(|(of, list, null)| {
            let list: Vec<String> = list.iter().map(|item| format!("'{item}'")).collect();
            format!("(lower({of}) not in ({}{}))", list.join(", "), if null { ", null" } else { "" })
        }),
        1 => (text(), prop::sample::select(vec!["%", "a%", "_", "user\\_%", "%l%"]))
            .prop_map(|(of, pattern)| format!("({of} like '{pattern}')")),
        1 => number().prop_map(|of| format!("(({of}) is null)")),
        1 => text().prop_map(|of| format!("(({of}) is not null)")),
        1 => (inner(), prop::sample::select(tests)).prop_map(|(of, test)| format!("(({of}) {test})")),
        1 => (inner(), inner()).prop_map(|(left, right)| format!("coalesce({left}, {right}, flag)")),
        1 => (inner(), inner()).prop_map(|(when, then)| format!("(case when {when} then {then} else flag end)")),
        1 => Just("(properties.amount < properties.label)".to_owned()),
    ]
    .boxed()
}

fn any_value() -> impl Strategy<Value = Cellar> {
    prop_oneof![
        Just(Cellar::Null),
        any_number().prop_map(Cellar::Number),
        any_text().prop_map(Cellar::Text),
        any::<bool>().prop_map(Cellar::Bool),
    ]
}

/// A world whose typed slots hold values of their types, or nulls.
fn any_world() -> impl Strategy<Value = World> {
    prop::collection::vec((any_value(), any_number(), any_text(), any::<bool>()), 15).prop_map(|values| {
        let mut world = World::new();
        for (slot, (value, number, text, flag)) in values.into_iter().enumerate() {
            let null = value == Cellar::Null;
            world.values[slot] = match (&world.values[slot], slot) {
                (_, 8..=11) => value,
                _ if null => Cellar::Null,
                (_, 0..=2 | 12 | 14) => Cellar::Number(number),
                (_, 5 | 6) => Cellar::Bool(flag),
                _ => Cellar::Text(text),
            };
        }
        world
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Goal: a folded condition has the value of the unfolded one, for any values.
    #[test]
    fn folding_keeps_conditions(text in condition_of(4), mut world in any_world()) {
        let text = Located::nowhere(text);
        let plain = unfolded(&text, &mut world).expect("the expression is valid");
        let Expr::Bool(plain) = plain else { return Ok(()) };
        let folded = compile_condition(&text, &mut world).expect("the expression is valid");
        prop_assert_eq!(plain.eval(&world), folded.eval(&world));
        let again = folded.clone().fold(None);
        prop_assert_eq!(format!("{folded:?}"), format!("{again:?}"), "folding twice is folding once");
    }

    /// Goal: a folded number has the bits of the unfolded one, and is never infinite.
    #[test]
    fn folding_keeps_numbers(text in number_of(4), mut world in any_world()) {
        let text = Located::nowhere(text);
        let folded = compile_number(&text, &mut world).expect("the expression is valid").eval(&world);
        if let Expr::Number(plain) = unfolded(&text, &mut world).expect("the expression is valid") {
            let plain = plain.eval(&world);
            prop_assert!(plain.to_bits() == folded.to_bits() || (plain.is_nan() && folded.is_nan()));
        }
        prop_assert!(!folded.is_infinite());
    }

    /// Goal: assuming the text that a slot holds changes nothing, and the slot is read no more.
    #[test]
    fn assuming_a_text_keeps_conditions(text in condition_of(4), value in any_text(), mut world in any_world()) {
        let slot = world.slot("event_type");
        world.values[usize::from(slot)] = Cellar::Text(value.clone());
        let folded = compile_condition(&Located::nowhere(text), &mut world).expect("the expression is valid");
        let assumed = folded.assume_text(slot, &value);
        prop_assert_eq!(folded.eval(&world), assumed.eval(&world));
        assumed.slots(&mut |read| assert_ne!(read, slot));
    }
}
