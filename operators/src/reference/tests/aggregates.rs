//! Each aggregate, over a lifetime and over a window.

use super::*;
use Aggregate::*;

/// A far-off day, so that nothing depends on being near the epoch.
const BASE: Micros = 20_000 * DAY;

fn amounts(list: &[(Micros, serde_json::Value)]) -> Vec<String> {
    let amount = |(index, (time, amount)): (usize, &(Micros, serde_json::Value))| {
        line(&format!("e{index}"), "k", "x", BASE + time, json!({ "amount": amount, "tag": amount }))
    };
    list.iter().enumerate().map(amount).collect()
}

fn values(features: Vec<FeatureSpec>, lines: &[String]) -> NamedRow {
    last_row(&outcome(&job(features), lines), "k")
}

#[test]
fn sums_and_extremes() {
    // Goal: count, sum, mean, min and max take the events of the window; values of another type do not touch them.
    let lines = amounts(&[
        (0, json!(10)),
        (30 * MINUTE, json!(20.0)),
        (40 * MINUTE, json!("5")),
        (50 * MINUTE, json!(null)),
        (61 * MINUTE, json!(4)),
    ]);
    let all = [Count, Sum, Mean, Min, Max];
    let lifetime = all.iter().map(|a| of(&format!("{a:?}"), *a, "properties.amount"));
    let hour = all.iter().map(|a| within(HOUR, of(&format!("{a:?}_1h"), *a, "properties.amount")));
    let mut features: Vec<_> = lifetime.chain(hour).collect();
    features.push(feature("events", Count));
    features.push(FeatureSpec { filter: Some("properties.amount > 15".into()), ..feature("large", Count) });
    features.push(within(HOUR, of("double", Sum, "properties.amount * 2 / 0.5")));
    let row = values(features, &lines);
    for (column, value) in [
        ("Count", 3.0),
        ("Sum", 34.0),
        ("Mean", 34.0 / 3.0),
        ("Min", 4.0),
        ("Max", 20.0),
        ("Count_1h", 2.0),
        ("Sum_1h", 24.0),
        ("Mean_1h", 12.0),
        ("Min_1h", 4.0),
        ("Max_1h", 20.0),
        ("events", 5.0),
        ("large", 1.0),
        ("double", 96.0),
    ] {
        assert_eq!(row[column], Value::Number(value), "{column}");
    }
}

#[test]
fn nothing_matched() {
    // Goal: the value of each aggregate without any event is the one of the table.
    let none = |aggregate: Aggregate, property: &str| {
        let window = matches!(aggregate, Rate | Trend).then(|| Located::nowhere(DAY));
        let property = (!property.is_empty()).then(|| property.into());
        let name = format!("{aggregate:?}{}", property.is_some());
        FeatureSpec { of: property, window, filter: Some("false".into()), ..feature(&name, aggregate) }
    };
    let property = "properties.amount";
    let zero = [Count, Rate, Streak, Ewma, Trend, Sessions].map(|a| none(a, ""));
    let null = [Recency, SessionMinutes].map(|a| none(a, ""));
    let of_null = [Mean, Min, Max, Last, First, Ewma].map(|a| none(a, property));
    let of_zero = [Sum, Distinct].map(|a| none(a, property));
    let features: Vec<_> = [&zero[..], &null, &of_null, &of_zero].concat();
    let row = values(features, &[plain("e", "k", BASE)]);
    for feature in zero.iter().chain(&of_zero) {
        assert_eq!(row[&feature.name.value], Value::Number(0.0), "{}", feature.name.value);
    }
    for feature in null.iter().chain(&of_null) {
        assert_eq!(row[&feature.name.value], Value::Null, "{}", feature.name.value);
    }
}

#[test]
fn pane_sums_in_log_order_then_panes_from_oldest_to_newest() {
    // Goal: 1e16 and 1 and -1e16 give 0 in one pane, and 1 where the pane of 1e16 and -1e16 comes first.
    let lines = amounts(&[(0, json!(1e16)), (MINUTE, json!(1)), (MINUTE / 2, json!(-1e16))]);
    let of = |name| of(name, Sum, "properties.amount");
    let row = values(vec![of("lifetime"), within(HOUR, of("hour")), within(24 * HOUR, of("day"))], &lines);
    assert_eq!(row["lifetime"], Value::Number(0.0));
    assert_eq!(row["hour"], Value::Number(1.0));
    assert_eq!(row["day"], Value::Number(0.0));
}

#[test]
fn last_and_first_take_ties_from_the_log() {
    // Goal: of equal times the later in the log is last, the earlier is first; the type is the stated one.
    let tags = [(10, json!("a")), (10, json!("b")), (5, json!("c")), (5, json!("d")), (7, json!(3)), (6, json!(4))];
    let lines = amounts(&tags.map(|(second, tag)| (second * SECOND, tag)));
    let number = |f: FeatureSpec| FeatureSpec { value_type: Some(crate::spec::ValueType::Number), ..f };
    let row = values(
        vec![
            of("last", Last, "properties.tag"),
            of("first", First, "properties.tag"),
            number(of("last_number", Last, "properties.tag")),
            of("first_amount", First, "properties.amount"),
        ],
        &lines,
    );
    assert_eq!(row["last"], Value::text("b"));
    assert_eq!(row["first"], Value::text("c"));
    assert_eq!(row["last_number"], Value::Number(3.0));
    assert_eq!(row["first_amount"], Value::Number(4.0));
}

#[test]
fn distinct_tells_types_apart() {
    // Goal: 1 and 1.0 are one value, "1" another, null and booleans none.
    let lines = amounts(&[(0, json!(1)), (1, json!("1")), (2, json!(1.0)), (3, json!(true)), (4, json!(null))]);
    let row = values(vec![of("d", Distinct, "properties.tag")], &lines);
    assert_eq!(row["d"], Value::Number(2.0));
    assert_eq!(row["d_capped"], Value::Bool(false));
}

#[test]
fn distinct_is_capped_while_the_window_holds_what_was_refused() {
    // Goal: a value that comes while the set is full is not stored, counts when it comes again, and the flag ages.
    let mut spec = job(vec![within(HOUR, of("d", Distinct, "properties.tag")), of("all", Distinct, "properties.tag")]);
    spec.distinct_max = 2;
    let tags = [(0, "a"), (10, "b"), (20, "c"), (61, "c"), (80, "c")];
    let lines = amounts(&tags.map(|(minute, tag)| (minute * MINUTE, json!(tag))));
    for (events, count, capped) in [(2, 2.0, false), (3, 2.0, true), (4, 2.0, true), (5, 1.0, false)] {
        let row = last_row(&outcome(&spec, &lines[..events]), "k");
        // At 80 minutes the window holds the panes of minutes 21 to 80.
        assert_eq!((&row["d"], &row["d_capped"]), (&Value::Number(count), &Value::Bool(capped)), "{events}");
        assert_eq!((&row["all"], &row["all_capped"]), (&Value::Number(2.0), &Value::Bool(events > 2)), "{events}");
    }
}

#[test]
fn recency_and_rate() {
    // Goal: recency is in days from the last match to now, rate per day of the stated window; both can be divided.
    let halved = FeatureSpec { divide_by: Some(2.0), ..feature("halved", Recency) };
    let matched = FeatureSpec { filter: Some("properties.amount = 1".into()), ..feature("matched", Recency) };
    let features = vec![
        FeatureSpec { filter: Some("properties.amount = 1".into()), ..halved },
        matched,
        within(HOUR, feature("hourly", Rate)),
        within(2 * DAY, feature("daily", Rate)),
        within(HOUR, FeatureSpec { filter: Some("properties.amount = 1".into()), ..feature("recent", Recency) }),
    ];
    let row = values(features, &amounts(&[(0, json!(1)), (36 * HOUR, json!(2))]));
    assert_eq!(row["matched"], Value::Number(1.5));
    assert_eq!(row["halved"], Value::Number(0.75));
    assert_eq!(row["hourly"], Value::Number(24.0));
    assert_eq!(row["daily"], Value::Number(1.0));
    assert_eq!(row["recent"], Value::Null);
}

#[test]
fn streak_may_end_yesterday() {
    // Goal: three days in a row count through the next day and not the one after; a window cuts the streak.
    let features = vec![
        FeatureSpec { filter: Some("properties.amount = 1".into()), ..feature("streak", Streak) },
        within(2 * DAY, FeatureSpec { filter: Some("properties.amount = 1".into()), ..feature("short", Streak) }),
    ];
    let days = [(0, json!(1)), (DAY, json!(1)), (3 * DAY - 1, json!(1)), (3 * DAY, json!(0)), (4 * DAY, json!(0))];
    let lines = amounts(&days);
    for (events, streak, short) in [(1, 1.0, 1.0), (3, 3.0, 2.0), (4, 3.0, 1.0), (5, 0.0, 0.0)] {
        let row = values(features.clone(), &lines[..events]);
        assert_eq!((&row["streak"], &row["short"]), (&Value::Number(streak), &Value::Number(short)), "{events}");
    }
}

#[test]
fn ewma_halves_in_a_half_life() {
    // Goal: weights halve in a half-life, in whatever order events come; the older pane weighs the same.
    let lines = amounts(&[(DAY, json!(8)), (DAY - SECOND, json!(0)), (2 * DAY, json!(4))]);
    let ewma = |name: &str| FeatureSpec { half_life: Some(DAY), ..of(name, Ewma, "properties.amount") };
    let weight = FeatureSpec { half_life: Some(DAY), ..feature("weight", Ewma) };
    let row = values(vec![ewma("lifetime"), within(30 * DAY, ewma("window")), weight], &lines);
    let second = libm::exp2(-1.0 / 86_400.0);
    let near = |value: &Value, number: f64| assert!(matches!(value, Value::Number(x) if (x - number).abs() < 1e-12));
    near(&row["lifetime"], (8.0 * 0.5 + 4.0) / (0.5 + second * 0.5 + 1.0));
    near(&row["window"], (8.0 * 0.5 + 4.0) / (0.5 + second * 0.5 + 1.0));
    near(&row["weight"], 0.5 + second * 0.5 + 1.0);
}

#[test]
fn trend_is_the_least_squares_slope() {
    // Goal: one event, then three, in two panes of a minute are two events a minute, 2880 a day.
    let lines = amounts(&[(0, json!(1)), (MINUTE, json!(1)), (MINUTE + 1, json!(2)), (MINUTE + 2, json!(-3))]);
    let row = values(
        vec![
            within(2 * MINUTE, feature("count", Trend)),
            within(2 * MINUTE, of("sum", Trend, "properties.amount")),
            within(10 * MINUTE, FeatureSpec { filter: Some("false".into()), ..feature("flat", Trend) }),
        ],
        &lines,
    );
    let near = |value: &Value, number: f64| assert!(matches!(value, Value::Number(x) if (x - number).abs() < 1e-9));
    near(&row["count"], 2.0 * 1440.0);
    near(&row["sum"], -1440.0);
    assert_eq!(row["flat"], Value::Number(0.0));
}

#[test]
fn sessions_are_runs_of_events() {
    // Goal: a gap of exactly 30 minutes joins; a late event bridges two sessions, whose start has left the window.
    let times = [0, 10, 40, 80, 60].map(|minute| (minute * MINUTE, json!(1)));
    let lines = amounts(&times);
    let features = vec![
        feature("all", Sessions),
        feature("minutes", SessionMinutes),
        within(HOUR, feature("hour", Sessions)),
        within(HOUR, feature("hour_minutes", SessionMinutes)),
        FeatureSpec { gap: Some(40 * MINUTE), ..feature("wide", Sessions) },
    ];
    let row = values(features.clone(), &lines[..4]);
    for (column, value) in [("all", 2.0), ("minutes", 20.0), ("hour", 1.0), ("hour_minutes", 0.0), ("wide", 1.0)] {
        assert_eq!(row[column], Value::Number(value), "{column}");
    }
    let row = values(features, &lines);
    for (column, value) in [("all", 1.0), ("minutes", 80.0), ("hour", 0.0), ("wide", 1.0)] {
        assert_eq!(row[column], Value::Number(value), "{column}");
    }
    assert_eq!(row["hour_minutes"], Value::Null);
}

#[test]
fn an_event_older_than_the_window_does_not_touch_it() {
    // Goal: a late event counts for the lifetime, not for a window that has left its pane.
    let lines = amounts(&[(61 * MINUTE, json!(1)), (MINUTE, json!(1)), (2 * MINUTE, json!(1))]);
    let row = values(vec![feature("all", Count), within(HOUR, feature("hour", Count))], &lines);
    assert_eq!((&row["all"], &row["hour"]), (&Value::Number(3.0), &Value::Number(2.0)));
}
