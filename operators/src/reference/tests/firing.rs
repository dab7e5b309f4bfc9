//! Edges, re-arming, cooldowns, ordinals, duplicates and what is late.

use super::*;
use Aggregate::*;

const BASE: Micros = 20_000 * DAY;

/// A job whose trigger `t` follows the last amount.
fn levels(rearm: Option<&str>, cooldown: Micros) -> JobSpec {
    let rearm = rearm.map(Into::into);
    let triggers = vec![TriggerSpec { rearm, cooldown, priority: 3, ..trigger("t", "level >= 10") }];
    JobSpec { triggers, ..job(vec![of("level", Last, "properties.amount")]) }
}

/// Events one second apart.
fn amounts(list: &[f64]) -> Vec<String> {
    let amount = |(second, amount): (Micros, &f64)| {
        line(&format!("e{second}"), "k", "x", BASE + second * SECOND, json!({ "amount": amount }))
    };
    (0..).zip(list).map(amount).collect()
}

fn seconds(outcome: &Outcome) -> Vec<Micros> {
    fired(outcome).into_iter().map(|(_, time, _)| (time - BASE) / SECOND).collect()
}

fn state(outcome: &Outcome) -> Vec<Value> {
    match &last_row(outcome, "k")["triggers"] {
        Value::List(list) => list[0].clone(),
        other => panic!("no list: {other:?}"),
    }
}

#[test]
fn only_edges_fire() {
    // Goal: a trigger fires when it begins to hold, and each time it does so again.
    let outcome = outcome(&levels(None, 0), &amounts(&[1.0, 10.0, 11.0, 9.0, 12.0]));
    assert_eq!(seconds(&outcome), [1, 4]);
    assert_eq!(outcome.decisions[0]["cause"], Value::text("e1"));
    assert_eq!(outcome.decisions[0]["priority"], Value::Int(3));
    assert_eq!(outcome.decisions[0]["action"], Value::Null);
    let last = Value::Time(BASE + 4 * SECOND);
    assert_eq!(state(&outcome), [Value::text("t"), Value::Bool(true), Value::Bool(true), last, Value::Int(0)]);
}

#[test]
fn a_fired_trigger_must_be_armed_again() {
    // Goal: an edge before `rearm` has held is lost; `rearm` is looked at before the edge.
    let outcome = outcome(&levels(Some("level < 5"), 0), &amounts(&[10.0, 9.0, 10.0, 4.0, 10.0, 6.0]));
    assert_eq!(seconds(&outcome), [0, 4]);
    let last = Value::Time(BASE + 4 * SECOND);
    assert_eq!(state(&outcome), [Value::text("t"), Value::Bool(false), Value::Bool(false), last, Value::Int(0)]);
    // Where `rearm` holds at the very edge, the edge fires.
    assert_eq!(seconds(&super::outcome(&levels(Some("level > 10"), 0), &amounts(&[10.0, 9.0, 11.0]))), [0, 2]);
}

#[test]
fn a_cooldown_suppresses_edges() {
    // Goal: an edge less than the cooldown after the last firing is counted and lost; one exactly after it fires.
    let outcome = outcome(&levels(None, 4 * SECOND), &amounts(&[10.0, 1.0, 10.0, 1.0, 10.0, 1.0, 10.0]));
    assert_eq!(seconds(&outcome), [0, 4]);
    assert_eq!(outcome.counts.suppressed["t"], 2);
    assert_eq!(state(&outcome)[4], Value::Int(2));
}

#[test]
fn ordinals_count_firings_of_one_time() {
    // Goal: two firings at one firing time have different ids, since disorder leaves the key clock where it is.
    let spec = JobSpec { features: vec![feature("n", Count)], ..levels(None, 0) };
    let spec = JobSpec { triggers: vec![trigger("t", "n % 2 = 1")], ..spec };
    let lines = [(0, "e0"), (-1, "e1"), (-2, "e2")].map(|(second, id)| plain(id, "k", BASE + second * SECOND));
    let outcome = outcome(&spec, &lines);
    assert_eq!(fired(&outcome), expected(&[("t", BASE, "e0"), ("t", BASE, "e2")]));
    assert_ne!(outcome.decisions[0]["decision_id"], outcome.decisions[1]["decision_id"]);
}

#[test]
fn what_a_late_event_flips_and_another_undoes_is_not_seen() {
    // Goal: late events are applied without an evaluation.
    let late =
        |id: &str, second: Micros, amount: f64| line(id, "k", "x", BASE + second * SECOND, json!({ "amount": amount }));
    let spec = JobSpec {
        features: vec![of("total", Sum, "properties.amount")],
        triggers: vec![trigger("t", "total >= 10")],
        ..JobSpec::default()
    };
    let mut lines = vec![late("e0", 100, 1.0), late("e1", 0, 20.0), late("e2", 1, -20.0), late("e3", 101, 0.0)];
    assert_eq!(outcome(&spec, &lines).decisions.len(), 0);
    lines.remove(2);
    assert_eq!(fired(&outcome(&spec, &lines)), expected(&[("t", BASE + 101 * SECOND, "e3")]));
}

#[test]
fn late_is_before_the_watermark_of_earlier_records() {
    // Goal: `t = pw` is on time, a microsecond before is late; the record's own time does not count.
    let spec = job(vec![feature("n", Count)]);
    let late = |time| outcome(&spec, &[plain("e0", "k", BASE), plain("e1", "k", BASE + time)]).counts.late;
    assert_eq!((late(-30 * SECOND), late(-30 * SECOND - 1), late(DAY)), (0, 1, 0));
}

#[test]
fn duplicates_within_the_horizon() {
    // Goal: an id is a duplicate up to exactly the horizon after the key clock at which it was applied.
    let spec = job(vec![feature("n", Count)]);
    let duplicates = |events: &[(&str, Micros)]| {
        let lines: Vec<_> = events.iter().map(|(id, time)| plain(id, "k", BASE + time)).collect();
        outcome(&spec, &lines).counts.duplicate
    };
    assert_eq!(duplicates(&[("a", 0), ("a", HOUR)]), 1);
    assert_eq!(duplicates(&[("a", 0), ("a", HOUR + 1)]), 0);
    assert_eq!(duplicates(&[("a", 0), ("b", HOUR + 1), ("a", 0)]), 0);
    assert_eq!(duplicates(&[("a", 0), ("b", HOUR), ("a", 0)]), 1);
    // Applied when the clock stood at two hours, so remembered until three.
    assert_eq!(duplicates(&[("b", 2 * HOUR), ("a", 0), ("a", 3 * HOUR)]), 1);
    // A duplicate changes nothing: it does not renew the memory.
    assert_eq!(duplicates(&[("a", 0), ("a", HOUR), ("a", HOUR + 1)]), 1);
    assert_eq!(duplicates(&[("a", 0), ("a", HOUR + 1), ("a", 2 * HOUR + 1)]), 1);
}

#[test]
fn duplicates_move_the_watermark_and_fire_timers() {
    // Goal: a duplicate whose time lies ahead makes later records late and lets time pass for its key's timers.
    let recency = FeatureSpec { filter: Some("event_type = 'x'".into()), ..feature("r", Recency) };
    let mut spec = job(vec![recency]);
    spec.triggers = vec![trigger("t", "r >= 1.0 / 1440")];
    spec.dedup_horizon = DAY;
    let lines = [("a", 0), ("b", 600), ("a", 1200), ("c", 800)].map(|(id, s)| plain(id, "k", BASE + s * SECOND));
    let outcome = outcome(&spec, &lines);
    assert_eq!((outcome.counts.duplicate, outcome.counts.late), (1, 1));
    let first = [("t", BASE + 60 * SECOND, "timer"), ("t", BASE + 660 * SECOND, "timer")];
    assert_eq!(fired(&outcome), expected(&first));
}
