//! Rows of decisions and profiles, by column name.

use whisperer_schemas::{KeyHash, time::Micros, value::Value};
use xxhash_rust::xxh3::xxh3_128;

use super::{NamedRow, expression::Datum, moment::Moment, plan::Plan, run::Key};
use crate::spec::{Aggregate, Entity, JobSpec, ScoreBody};

/// A firing, as its decision row tells it.
pub(super) struct Firing<'a> {
    /// Index of the trigger.
    pub trigger: usize,
    pub now: Micros,
    /// Earlier firings of the trigger for this key and time.
    pub ordinal: u32,
    /// Id of the event, or `timer`.
    pub cause: &'a str,
}

pub(super) fn decision(plan: &Plan, key: &Key, moment: &Moment, firing: &Firing) -> Result<NamedRow, String> {
    let trigger = &plan.spec.triggers[firing.trigger];
    let name = trigger.name.value.as_str();
    let mut row = NamedRow::new();
    identify(plan.spec, key, &mut row);
    job_columns(plan, moment, &mut row)?;
    put(&mut row, "decision_id", Value::text(decision_id(plan.spec, name, key, firing)));
    put(&mut row, "trigger", Value::text(name));
    put(&mut row, "event_time", Value::Time(firing.now));
    put(&mut row, "cause", Value::text(firing.cause));
    put(&mut row, "priority", Value::Int(trigger.priority));
    put(&mut row, "action", trigger.action.as_ref().map_or(Value::Null, Value::text));
    Ok(row)
}

pub(super) fn profile(plan: &Plan, key: &Key, as_of: Micros, last: bool) -> Result<NamedRow, String> {
    let moment = Moment::new(plan, &key.touches, as_of, Some(&key.stage));
    let mut row = NamedRow::new();
    identify(plan.spec, key, &mut row);
    job_columns(plan, &moment, &mut row)?;
    put(&mut row, "as_of", Value::Time(as_of));
    put(&mut row, "key_clock", Value::Time(key.clock));
    put(&mut row, "final", Value::Bool(last));
    put(&mut row, "triggers", if last { triggers(plan, key) } else { Value::Null });
    Ok(row)
}

/// The row of a person of several ids, who is told by one of them.
pub(super) fn person(
    plan: &Plan,
    moment: &Moment,
    (canonical, ids): (&[String], usize),
    now: Micros,
) -> Result<NamedRow, String> {
    let mut row = NamedRow::new();
    job_columns(plan, moment, &mut row)?;
    row.retain(|name, _| !name.ends_with("_contributions") && (name != "lifecycle_stage" || !plan.stages.is_empty()));
    if let [app, id] = canonical {
        put(&mut row, "app_id", Value::text(app));
        put(&mut row, "canonical_id", Value::text(id));
    } else {
        put(&mut row, "canonical_id", canonical.first().map_or(Value::Null, Value::text));
    }
    put(&mut row, "user_ids", Value::Int(ids as i64));
    put(&mut row, "as_of", Value::Time(now));
    Ok(row)
}

fn put(row: &mut NamedRow, column: &str, value: Value) {
    row.insert(column.to_owned(), value);
}

fn identify(spec: &JobSpec, key: &Key, row: &mut NamedRow) {
    put(row, "job", Value::text(&spec.name));
    put(row, "job_version", Value::Int(i64::from(spec.version)));
    put(row, "app_id", Value::text(&key.app_id));
    put(row, "user_id", Value::text(&key.user_id));
}

/// Scores, features and the stage.
fn job_columns(plan: &Plan, moment: &Moment, row: &mut NamedRow) -> Result<(), String> {
    for (index, score) in plan.spec.scores.iter().enumerate() {
        let name = &score.name.value;
        put(row, name, moment.score(index)?.map_or(Value::Null, Value::number));
        if !score.levels.is_empty() {
            put(row, &format!("{name}_level"), moment.level(index)?.map_or(Value::Null, Value::text));
        }
        if let ScoreBody::Model(model) = &score.body {
            let entry = |(name, x): (String, f64)| vec![Value::text(name), Value::number(x)];
            let list = moment.contributions(index, model)?.map(|all| all.into_iter().map(entry).collect());
            put(row, &format!("{name}_contributions"), list.map_or(Value::Null, Value::List));
        }
    }
    for (index, feature) in plan.spec.features.iter().enumerate() {
        let reading = moment.feature(index);
        put(row, &feature.name.value, value(&reading.value));
        if feature.aggregate == Aggregate::Distinct {
            put(row, &format!("{}_capped", feature.name.value), Value::Bool(reading.capped));
        }
    }
    let stage = if plan.stages.is_empty() { Value::Null } else { Value::text(moment.stage()?) };
    put(row, "lifecycle_stage", stage);
    Ok(())
}

fn value(datum: &Datum) -> Value {
    match datum {
        Datum::Null => Value::Null,
        Datum::Bool(truth) => Value::Bool(*truth),
        Datum::Number(number) => Value::number(*number),
        Datum::Text(text) => Value::text(text),
    }
}

fn triggers(plan: &Plan, key: &Key) -> Value {
    let state = plan.spec.triggers.iter().zip(&key.triggers).map(|(trigger, state)| {
        vec![
            Value::text(&trigger.name.value),
            Value::Bool(state.holds),
            Value::Bool(state.armed),
            state.last_fired.map_or(Value::Null, Value::Time),
            Value::Int(state.suppressed),
        ]
    });
    Value::List(state.collect())
}

fn decision_id(spec: &JobSpec, trigger: &str, key: &Key, firing: &Firing) -> String {
    let hash = match spec.entity {
        Entity::AppUser => KeyHash::of(&[&key.app_id, &key.user_id]),
        Entity::User => KeyHash::of(&[&key.user_id]),
    };
    let mut bytes = Vec::new();
    for text in [spec.name.as_str(), trigger] {
        bytes.extend((text.len() as u32).to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    bytes.extend(hash.0.to_le_bytes());
    bytes.extend(firing.now.to_le_bytes());
    bytes.extend(firing.ordinal.to_le_bytes());
    format!("{:032x}", xxh3_128(&bytes))
}
