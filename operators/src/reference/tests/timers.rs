//! Each kind of timer, and the order of timers and records.

use super::*;
use Aggregate::*;

/// Midnight of a far-off day.
const BASE: Micros = 20_000 * DAY;

/// What fired for user `k`.
fn fired_by(spec: &JobSpec, lines: &[String]) -> Vec<(String, Micros, String)> {
    let mut outcome = outcome(spec, lines);
    outcome.decisions.retain(|row| row["user_id"] == Value::text("k"));
    fired(&outcome)
}

/// A job with one feature and one trigger `t`.
fn job_of(feature: FeatureSpec, when: &str) -> JobSpec {
    JobSpec { triggers: vec![trigger("t", when)], ..job(vec![feature]) }
}

/// One event of `k`, and one of another user that ends the input.
fn one_event(time: Micros, end: Micros) -> Vec<String> {
    vec![plain("e1", "k", time), line("e2", "other", "end", end, json!({}))]
}

fn not_end(feature: FeatureSpec) -> FeatureSpec {
    FeatureSpec { filter: Some("event_type <> 'end'".into()), ..feature }
}

#[test]
fn recency_fires_at_the_first_microsecond() {
    // Goal: ">= 7" fires 7 days after the last event, "> 7" a microsecond later; also mirrored, divided, in a score.
    let week = 7 * DAY;
    for (when, after) in [
        ("r >= 7", Some(week)),
        ("r > 7", Some(week + 1)),
        ("7 <= r", Some(week)),
        ("not (r < 3 + 4)", Some(week)),
        ("not r <= 7", Some(week + 1)),
        ("r between 7 and 8", Some(week)),
        ("not r between 0 and 7", Some(week + 1)),
        ("r in (7)", Some(week)),
        ("r = 7", Some(week)),
        ("r >= null", None),
        ("r >= 100", None),
    ] {
        let spec = job_of(not_end(feature("r", Recency)), when);
        let list = after.map(|after| ("t", BASE + 5 + after, "timer"));
        assert_eq!(fired_by(&spec, &one_event(BASE + 5, BASE + 9 * DAY)), expected(list.as_slice()), "{when}");
    }
    let halved = FeatureSpec { divide_by: Some(2.0), ..not_end(feature("r", Recency)) };
    let lines = one_event(BASE, BASE + 9 * DAY);
    assert_eq!(fired_by(&job_of(halved, "r >= 3.5"), &lines), expected(&[("t", BASE + week, "timer")]));
    let scores = vec![expr_score("s", "case when r > 7 then 1 else 0 end")];
    let spec = JobSpec { scores, ..job_of(not_end(feature("r", Recency)), "s > 0.5") };
    assert_eq!(fired_by(&spec, &lines), expected(&[("t", BASE + week + 1, "timer")]));
}

#[test]
fn an_input_ends_with_the_timers_due_at_its_last_time() {
    // Goal: a timer due exactly at the largest event time fires, one a microsecond later does not.
    let spec = job_of(not_end(feature("r", Recency)), "r >= 7");
    assert_eq!(fired_by(&spec, &one_event(BASE, BASE + 7 * DAY)).len(), 1);
    assert_eq!(fired_by(&spec, &one_event(BASE, BASE + 7 * DAY - 1)).len(), 0);
}

#[test]
fn a_new_event_takes_the_old_timer_away() {
    // Goal: only the timers that the current state asks for are pending.
    let spec = job_of(not_end(feature("r", Recency)), "r >= 7");
    let mut lines = one_event(BASE, BASE + 20 * DAY);
    lines.insert(1, plain("e3", "k", BASE + 6 * DAY));
    assert_eq!(fired_by(&spec, &lines), expected(&[("t", BASE + 13 * DAY, "timer")]));
}

#[test]
fn panes_leave_windows() {
    // Goal: the last event of an hour's window leaves with its pane, 60 panes after the pane's start.
    let time = BASE + 30 * SECOND;
    for aggregate in [Count, Rate, Streak, Ewma] {
        let window = if aggregate == Streak { DAY } else { HOUR };
        let feature = FeatureSpec { half_life: Some(DAY), ..within(window, not_end(feature("f", aggregate))) };
        let list = [("t", BASE + window, "timer")];
        assert_eq!(fired_by(&job_of(feature, "f = 0"), &one_event(time, BASE + 2 * DAY)), expected(&list));
    }
    for aggregate in [Mean, Min, Max, Distinct, Last, First] {
        let feature = within(HOUR, not_end(of("f", aggregate, "user_id")));
        let feature = match aggregate {
            Mean | Min | Max => FeatureSpec { of: Some("length(user_id)".into()), ..feature },
            _ => feature,
        };
        let when = if aggregate == Distinct { "f = 0" } else { "f is null" };
        let list = [("t", BASE + HOUR, "timer")];
        assert_eq!(fired_by(&job_of(feature, when), &one_event(time, BASE + DAY)), expected(&list), "{aggregate:?}");
    }
}

#[test]
fn sessions_leave_with_the_pane_in_which_they_began() {
    // Goal: a session of 40 minutes leaves an hour's window an hour after its start.
    let spec = job_of(within(HOUR, not_end(feature("s", Sessions))), "s = 0");
    let mut lines = one_event(BASE + 30 * SECOND, BASE + DAY);
    lines.insert(1, plain("e3", "k", BASE + 20 * MINUTE));
    lines.insert(2, plain("e4", "k", BASE + 40 * MINUTE));
    assert_eq!(fired_by(&spec, &lines), expected(&[("t", BASE + HOUR, "timer")]));
}

#[test]
fn trends_are_looked_at_at_every_boundary() {
    // Goal: a trend turns negative when its only event reaches the oldest pane, though nothing leaves the window.
    let spec = job_of(within(3 * MINUTE, not_end(feature("f", Trend))), "f < 0");
    let lines = one_event(BASE + 30 * SECOND, BASE + DAY);
    assert_eq!(fired_by(&spec, &lines), expected(&[("t", BASE + 2 * MINUTE, "timer")]));
}

#[test]
fn a_streak_ends_at_the_second_midnight() {
    // Goal: a streak of one day is over when a day without events has passed.
    let lines = one_event(BASE + 12 * HOUR, BASE + 5 * DAY);
    for feature in [not_end(feature("f", Streak)), within(5 * DAY, not_end(feature("f", Streak)))] {
        assert_eq!(fired_by(&job_of(feature, "f = 0"), &lines), expected(&[("t", BASE + 2 * DAY, "timer")]));
    }
}

#[test]
fn drifting_values_are_looked_at_at_midnight() {
    // Goal: an ewma falls below a bound at a midnight, a recency in arithmetic too, until `decay_days` have passed.
    let ewma = FeatureSpec { half_life: Some(DAY), ..not_end(feature("f", Ewma)) };
    let lines = one_event(BASE + 12 * HOUR, BASE + 9 * DAY);
    // 2^-0.5 = 0.71, 2^-1.5 = 0.35, 2^-2.5 = 0.18 at the midnights.
    let spec = job_of(ewma, "f between 0.001 and 0.3");
    assert_eq!(fired_by(&spec, &lines), expected(&[("t", BASE + 3 * DAY, "timer")]));
    let forgetful = JobSpec { decay_days: 2, ..spec.clone() };
    assert_eq!(fired_by(&forgetful, &lines), expected(&[]));
    // A window with content keeps the midnights coming, read or not.
    let mut kept = forgetful.clone();
    kept.features.push(within(7 * DAY, feature("unread", Count)));
    assert_eq!(fired_by(&kept, &lines), expected(&[("t", BASE + 3 * DAY, "timer")]));
    for when in ["r + 0 >= 2.2", "coalesce(r, 0) >= 2.2", "-r <= -2.2"] {
        let spec = job_of(not_end(feature("r", Recency)), when);
        assert_eq!(fired_by(&spec, &lines), expected(&[("t", BASE + 3 * DAY, "timer")]), "{when}");
    }
}

#[test]
fn the_trap_a_timer_before_a_late_event() {
    // Goal: k's timer due at 130 fires before a late event of k at 120, once another key has moved the log to 1000.
    let spec = job_of(feature("r", Recency), "r >= 30.0 / 86400");
    let lines = [("e1", "k", 100), ("e2", "other", 1000), ("e3", "k", 120)]
        .map(|(id, user, second)| plain(id, user, BASE + second * SECOND));
    let outcome = outcome(&spec, &lines);
    assert_eq!(fired(&outcome), expected(&[("t", BASE + 130 * SECOND, "timer")]));
    assert_eq!(outcome.decisions[0]["r"], Value::Number(30.0 / 86_400.0));
    assert_eq!((outcome.counts.late, outcome.counts.accepted), (1, 3));
    let row = last_row(&outcome, "k");
    assert_eq!(row["key_clock"], Value::Time(BASE + 120 * SECOND));
    assert_eq!(row["r"], Value::Number(880.0 / 86_400.0));
}

#[test]
fn a_late_first_event_exists_without_an_evaluation() {
    // Goal: what a late event makes true shows at the next evaluation, with that evaluation's cause.
    let lines = [("e1", "other", 1000), ("e2", "k", 100), ("e3", "k", 2000)]
        .map(|(id, user, second)| plain(id, user, BASE + second * SECOND));
    let mut spec = job_of(feature("n", Count), "n >= 1");
    spec.stages = vec![stage("seen", "n >= 1")];
    let early = outcome(&spec, &lines[..2]);
    assert_eq!(fired(&early), expected(&[("t", BASE + 1000 * SECOND, "e1")]));
    let row = last_row(&early, "k");
    assert_eq!((&row["lifecycle_stage"], &row["n"]), (&Value::text("unknown"), &Value::Number(1.0)));
    assert_eq!(fired(&outcome(&spec, &lines))[1], expected(&[("t", BASE + 2000 * SECOND, "e3")])[0]);
    // With a timer in between, it is the timer's.
    spec.features.push(feature("r", Recency));
    spec.stages.push(stage("away", "r >= 1"));
    let mut lines = lines[..2].to_vec();
    lines.push(plain("e4", "other", BASE + 3 * DAY));
    assert_eq!(fired(&outcome(&spec, &lines))[1], expected(&[("t", BASE + 100 * SECOND + DAY, "timer")])[0]);
}

#[test]
fn snapshots_at_boundaries() {
    // Goal: rows as of boundaries show what came before them; an event at a boundary belongs to the next row.
    let mut spec = job(vec![feature("n", Count)]);
    spec.snapshot.every = Some(HOUR);
    spec.snapshot.full_every = Some(4 * HOUR);
    let lines = [("e1", "k", 0), ("e2", "k", HOUR), ("e3", "k", 5 * HOUR + 1), ("e4", "other", 7 * HOUR)]
        .map(|(id, user, time)| plain(id, user, BASE + time));
    let outcome = outcome(&spec, &lines);
    let columns = ["user_id", "as_of", "n", "final"];
    let rows: Vec<_> = outcome.profiles.iter().map(|row| columns.map(|column| row[column].clone())).collect();
    let row = |user: &str, hour: Micros, n: f64, last: bool| {
        [Value::text(user), Value::Time(BASE + hour * HOUR), Value::Number(n), Value::Bool(last)]
    };
    assert_eq!(
        rows,
        [
            row("k", 1, 1.0, false),
            row("k", 2, 2.0, false),
            row("k", 4, 2.0, false),
            row("k", 6, 3.0, false),
            row("k", 7, 3.0, true),
            row("other", 7, 1.0, true),
        ]
    );
    assert!(outcome.profiles[0]["triggers"] == Value::Null && outcome.profiles[4]["triggers"] != Value::Null);
}

#[test]
fn a_snapshot_comes_after_the_timers_of_its_instant() {
    // Goal: a stage that changes by a timer at a boundary shows in that boundary's row.
    let mut spec = job(vec![within(HOUR, not_end(feature("n", Count)))]);
    spec.snapshot.every = Some(HOUR);
    spec.stages = vec![stage("active", "n > 0"), stage("silent", "true")];
    let outcome = outcome(&spec, &one_event(BASE + 30 * SECOND, BASE + 3 * HOUR));
    let rows: Vec<_> =
        outcome.profiles.iter().map(|row| (row["as_of"].clone(), row["lifecycle_stage"].clone())).collect();
    assert_eq!(rows[0], (Value::Time(BASE + HOUR), Value::text("silent")));
    // Nothing changes after that: the next row of k is the final one.
    assert_eq!(rows[1], (Value::Time(BASE + 3 * HOUR), Value::text("silent")));
    assert_eq!(rows.len(), 3);
}
