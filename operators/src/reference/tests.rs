//! Small cases worked out by hand.

mod aggregates;
mod evaluation;
mod expressions;
mod firing;
mod input;
mod timers;

use serde_json::json;
use whisperer_schemas::{
    time::{DAY, HOUR, MINUTE, Micros, SECOND},
    value::Value,
};

use super::{NamedRow, Options, Outcome, RawLine, run};
use crate::spec::{Aggregate, FeatureSpec, JobSpec, Located, ScoreBody, ScoreSpec, StageSpec, TriggerSpec};

/// A line of user `user`, with ids and types of any form.
fn line(id: &str, user: &str, kind: &str, time: Micros, properties: serde_json::Value) -> String {
    let timestamp = jiff::Timestamp::from_microsecond(time).expect("a time that a test names is in range").to_string();
    json!({ "event_id": id, "app_id": "a", "user_id": user, "event_type": kind, "timestamp": timestamp,
            "properties": properties })
    .to_string()
}

/// The line of an event of which only key and time matter.
fn plain(id: &str, user: &str, time: Micros) -> String {
    line(id, user, "x", time, json!({}))
}

fn any() -> Options {
    Options { ids_any: true, event_types_any: true, ..Options::default() }
}

fn raw(lines: &[String]) -> Vec<RawLine> {
    (0..).zip(lines).map(|(offset, line)| RawLine { offset, bytes: line.clone().into_bytes() }).collect()
}

fn outcome(spec: &JobSpec, lines: &[String]) -> Outcome {
    run(spec, &any(), &[raw(lines)]).expect("the job is valid")
}

fn last_row(outcome: &Outcome, user: &str) -> NamedRow {
    let is_last = |row: &&NamedRow| row["final"] == Value::Bool(true) && row["user_id"] == Value::text(user);
    outcome.profiles.iter().find(is_last).expect("every user has a final row").clone()
}

fn feature(name: &str, aggregate: Aggregate) -> FeatureSpec {
    FeatureSpec::new(name, aggregate)
}

fn of(name: &str, aggregate: Aggregate, of: &str) -> FeatureSpec {
    FeatureSpec { of: Some(of.into()), ..feature(name, aggregate) }
}

fn within(window: Micros, feature: FeatureSpec) -> FeatureSpec {
    FeatureSpec { window: Some(Located::nowhere(window)), ..feature }
}

fn job(features: Vec<FeatureSpec>) -> JobSpec {
    JobSpec { features, ..JobSpec::default() }
}

fn trigger(name: &str, when: &str) -> TriggerSpec {
    TriggerSpec { name: name.into(), when: when.into(), rearm: None, cooldown: 0, priority: 0, action: None }
}

fn stage(name: &str, when: &str) -> StageSpec {
    StageSpec { name: name.into(), when: when.into() }
}

fn expr_score(name: &str, text: &str) -> ScoreSpec {
    ScoreSpec { name: name.into(), body: ScoreBody::Expr(text.into()), levels: Vec::new() }
}

/// Trigger, firing time and cause of each decision.
fn fired(outcome: &Outcome) -> Vec<(String, Micros, String)> {
    let text = |value: &Value| match value {
        Value::Text(text) => text.to_string(),
        other => panic!("no text: {other:?}"),
    };
    let time = |value: &Value| match value {
        Value::Time(time) => *time,
        other => panic!("no time: {other:?}"),
    };
    let decisions = outcome.decisions.iter();
    decisions.map(|row| (text(&row["trigger"]), time(&row["event_time"]), text(&row["cause"]))).collect()
}

/// The same for expected values.
fn expected(list: &[(&str, Micros, &str)]) -> Vec<(String, Micros, String)> {
    list.iter().map(|(trigger, time, cause)| ((*trigger).to_owned(), *time, (*cause).to_owned())).collect()
}
