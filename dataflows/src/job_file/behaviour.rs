//! What a job computes: `[job]`, `[dedup]`, `[retention]`, `[snapshot]`, `[[feature]]`, `[[score]]`, `[[stage]]`, `[[trigger]]`, `[[view]]`,
//! `[identity]`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use toml::de::DeValue;
use whisperer_operators::{
    spec::{
        Aggregate, Entity, FeatureSpec, JobSpec, Located, ModelSpec, ScoreBody, ScoreSpec, SnapshotSpec, Span,
        StageSpec, TriggerSpec, ValueType,
    },
    window::{DAYS_MAX, Window, WindowError},
};
use whisperer_schemas::{
    Micros,
    time::{DAY, format_duration},
};

use super::{
    delivery::{self, DeliverySettings},
    identity,
    model::{self, ModelFiles},
    names,
    section::{Section, Value, as_number},
    shape, views,
};

const AGGREGATES: [(&str, Aggregate); 15] = [
    ("count", Aggregate::Count),
    ("sum", Aggregate::Sum),
    ("mean", Aggregate::Mean),
    ("min", Aggregate::Min),
    ("max", Aggregate::Max),
    ("last", Aggregate::Last),
    ("first", Aggregate::First),
    ("distinct", Aggregate::Distinct),
    ("recency", Aggregate::Recency),
    ("rate", Aggregate::Rate),
    ("streak", Aggregate::Streak),
    ("ewma", Aggregate::Ewma),
    ("trend", Aggregate::Trend),
    ("sessions", Aggregate::Sessions),
    ("session_minutes", Aggregate::SessionMinutes),
];

/// Reads all of it, and what `[job]` says of delivery; `folder` is the job file's, which model paths are relative to. Gives the
/// model files too.
pub(super) fn read(root: &Section<'_>, folder: &Path) -> (JobSpec, DeliverySettings, Vec<(PathBuf, String)>) {
    let mut models = ModelFiles::new(folder);
    let job = root.section("job", &shape::JOB);
    let delivery = delivery::read(&job);
    let mut spec = read_job(&job);
    spec.dedup_horizon = read_dedup(&root.section("dedup", &shape::DEDUP), spec.dedup_horizon);
    spec.retention_idle = read_retention(&root.section("retention", &shape::RETENTION));
    spec.snapshot = read_snapshot(&root.section("snapshot", &shape::SNAPSHOT));
    spec.features = root.sections("feature", &shape::FEATURE).iter().map(read_feature).collect();
    spec.scores = root.sections("score", &shape::SCORE).iter().map(|s| read_score(s, &mut models)).collect();
    spec.stages = root.sections("stage", &shape::STAGE).iter().map(read_stage).collect();
    spec.triggers = root.sections("trigger", &shape::TRIGGER).iter().map(read_trigger).collect();
    spec.views = views::read(root);
    identity::read(root, &mut spec);
    names::check(&spec, root.place().problems);
    (spec, delivery, models.into_files())
}

fn read_job(section: &Section<'_>) -> JobSpec {
    let default = JobSpec::default();
    let number = |key, max| section.get(key).and_then(|v: Value<'_>| v.whole(1..=max));
    JobSpec {
        name: section.require("name").and_then(|v| read_job_name(&v)).unwrap_or(default.name),
        version: number("version", u64::from(u32::MAX)).map_or(default.version, narrow),
        entity: section.get("entity").and_then(|v| read_entity(&v)).unwrap_or_default(),
        decay_days: section.get("decay_days").and_then(|v| v.whole(0..=3660)).map_or(default.decay_days, narrow),
        distinct_max: number("distinct_max", 1 << 20).map_or(default.distinct_max, narrow),
        ..JobSpec::default()
    }
}

/// Only for numbers whose range was checked.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).expect("the range that was read ends below 2^32")
}

/// A job's name stands in paths and is the `app_id` of mapped events, so it keeps to plain letters.
fn read_job_name(value: &Value<'_>) -> Option<String> {
    let name = value.text()?.value;
    let is_plain = name.len() <= 128 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if !is_plain {
        value.problem(format!("\"{name}\" is not a job's name"), Some("letters, digits, _ and -, at most 128"));
    }
    is_plain.then_some(name)
}

fn read_entity(value: &Value<'_>) -> Option<Entity> {
    let fields = value.texts()?;
    let fields: Vec<&str> = fields.iter().map(|field| field.value.as_str()).collect();
    match fields[..] {
        ["app_id", "user_id"] => Some(Entity::AppUser),
        ["user_id"] => Some(Entity::User),
        _ => {
            let forms = "[\"app_id\", \"user_id\"] or [\"user_id\"]";
            value.problem("state is not kept for that entity".into(), Some(forms));
            None
        }
    }
}

fn read_dedup(section: &Section<'_>, default: Micros) -> Micros {
    section.get("horizon").and_then(|v| v.duration_or_zero()).map_or(default, |horizon| horizon.value)
}

fn read_retention(section: &Section<'_>) -> Option<Micros> {
    section.get("idle").and_then(|v| v.duration()).map(|idle| idle.value)
}

fn read_snapshot(section: &Section<'_>) -> SnapshotSpec {
    let every = section.get("every").and_then(|v| v.duration());
    let full_every = section.get("full_every").and_then(|v| v.duration());
    if let (Some(every), Some(full)) = (&every, &full_every)
        && full.value % every.value != 0
    {
        let span = full.span.bytes.clone();
        let hint = format!("every = \"{}\"", format_duration(every.value));
        section.place().problem(span, "\"full_every\" must be a multiple of \"every\"".into(), Some(hint));
    }
    SnapshotSpec { every: every.map(|v| v.value), full_every: full_every.map(|v| v.value) }
}

fn read_feature(section: &Section<'_>) -> FeatureSpec {
    let name = section.require("name").and_then(|v| v.text()).unwrap_or_else(|| nameless(section));
    let aggregate = section.require("aggregate");
    let mut feature = FeatureSpec::new("", Aggregate::Count);
    feature.name = name;
    feature.aggregate_span = aggregate.map_or_else(|| section.span(), |value| value.span());
    feature.of = section.get("of").and_then(|v| v.text());
    feature.filter = section.get("where").and_then(|v| v.text());
    feature.window = section.get("window").and_then(|v| read_window(&v));
    feature.divide_by = section.get("divide_by").and_then(|v| read_divisor(&v));
    feature.half_life = section.get("half_life").and_then(|v| v.duration()).map(|v| v.value);
    feature.gap = section.get("gap").and_then(|v| v.duration()).map(|v| v.value);
    let types = [("number", ValueType::Number), ("text", ValueType::Text)];
    feature.value_type = section.get("type").and_then(|v| v.choice(&types));
    feature.unit = section.get("unit").and_then(|v| v.text_or_empty()).map(|v| v.value);
    if let Some(kind) = aggregate.and_then(|value| value.choice(&AGGREGATES)) {
        feature.aggregate = kind;
        check_aggregate_keys(section, kind, &feature.aggregate_span);
    }
    feature
}

/// The name of what has none; it stands for a mistake that is already recorded.
fn nameless(section: &Section<'_>) -> Located<String> {
    Located { value: String::new(), span: section.span() }
}

/// Keys that an aggregate needs, and keys that only some aggregates have.
fn check_aggregate_keys(section: &Section<'_>, kind: Aggregate, place: &Span) {
    use Aggregate::{Distinct, Ewma, First, Last, Max, Mean, Min, Rate, SessionMinutes, Sessions, Sum, Trend};
    let needs: [(&str, &[Aggregate]); 3] =
        [("of", &[Sum, Mean, Min, Max, Last, First, Distinct]), ("half_life", &[Ewma]), ("window", &[Rate, Trend])];
    for (key, aggregates) in needs {
        if aggregates.contains(&kind) && section.get(key).is_none() {
            let message = format!("the aggregate \"{}\" needs \"{key}\"", written(kind));
            section.place().problem(place.bytes.clone(), message, None);
        }
    }
    let only: [(&str, &[Aggregate]); 3] =
        [("half_life", &[Ewma]), ("gap", &[Sessions, SessionMinutes]), ("type", &[Last, First])];
    for (key, aggregates) in only {
        if let Some(value) = section.get(key).filter(|_| !aggregates.contains(&kind)) {
            let owners: Vec<_> = aggregates.iter().map(|kind| format!("\"{}\"", written(*kind))).collect();
            value.problem_at_key(format!("\"{key}\" belongs to the aggregate {}", owners.join(" or ")), None);
        }
    }
}

fn written(kind: Aggregate) -> &'static str {
    AGGREGATES.iter().find(|(_, aggregate)| *aggregate == kind).map_or("", |(name, _)| name)
}

/// A window is a whole number of its panes; one that is not is answered with the nearest two. A window that cannot be read is
/// read as a day, so that the rest of the feature can be checked.
fn read_window(value: &Value<'_>) -> Option<Located<Micros>> {
    if value.raw().as_str() == Some("lifetime") {
        return None;
    }
    let fallback = Located { value: DAY, span: value.span() };
    let Some(window) = value.duration() else { return Some(fallback) };
    let length = format_duration(window.value);
    let (message, hint) = match Window::of(window.value) {
        Ok(_) => return Some(window),
        Err(WindowError::Empty) => ("a window must be longer than nothing".into(), None),
        Err(WindowError::TooLong) => {
            let hint = format!("at most {DAYS_MAX}d; \"lifetime\" has no bound");
            (format!("a window of {length} is too long"), Some(hint))
        }
        Err(WindowError::Ragged { below, above }) => {
            let below = below.map(|below| format!("\"{}\" or ", format_duration(below))).unwrap_or_default();
            let hint = format!("the nearest are {below}\"{}\"", format_duration(above));
            (format!("a window of {length} is not a whole number of its panes"), Some(hint))
        }
    };
    value.problem(message, hint.as_deref());
    Some(fallback)
}

fn read_divisor(value: &Value<'_>) -> Option<f64> {
    let divisor = value.number()?;
    if divisor <= 0.0 {
        value.problem("\"divide_by\" must be above 0".into(), None);
        return None;
    }
    Some(divisor)
}

fn read_score(section: &Section<'_>, models: &mut ModelFiles<'_>) -> ScoreSpec {
    let name = section.require("name").and_then(|v| v.text()).unwrap_or_else(|| nameless(section));
    let levels = section.get("levels").map(|v| read_levels(&v)).unwrap_or_default();
    ScoreSpec { name, body: read_score_body(section, models), levels }
}

fn read_score_body(section: &Section<'_>, models: &mut ModelFiles<'_>) -> ScoreBody {
    let (expr, model) = (section.get("expr"), section.get("model"));
    let nothing = ScoreBody::Model(ModelSpec { intercept: 0.0, terms: Vec::new() });
    if let (Some(_), Some(model)) = (expr, model) {
        model.problem_at_key("\"expr\" and \"model\" exclude each other".into(), Some("keep one of them"));
    }
    match (expr, model) {
        (Some(expr), _) => expr.text().map_or(nothing, ScoreBody::Expr),
        (None, Some(model)) => model::read(&model, models).map_or(nothing, ScoreBody::Model),
        (None, None) => {
            section.problem("[[score]] needs \"expr\" or \"model\"".into(), None);
            nothing
        }
    }
}

/// Levels by ascending bound, whatever the order in which they are written.
fn read_levels(value: &Value<'_>) -> Vec<(Located<String>, f64)> {
    let Some(section) = value.section(&shape::LEVELS) else { return Vec::new() };
    let mut levels: Vec<(Located<String>, f64)> = Vec::new();
    for entry in section.entries() {
        let Some(bound) = entry.number() else { continue };
        if levels.iter().any(|(_, other)| *other == bound) {
            entry.problem_at_key(format!("two levels begin at {bound}"), None);
        }
        levels.push((Located { value: entry.key().to_owned(), span: entry.key_span() }, bound));
    }
    if section.entries().is_empty() {
        section.problem("\"levels\" is empty".into(), Some("such as { low = 0.0, high = 0.6 }"));
    }
    levels.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    levels
}

fn read_stage(section: &Section<'_>) -> StageSpec {
    StageSpec {
        name: section.require("name").and_then(|v| v.text()).unwrap_or_else(|| nameless(section)),
        when: read_condition(section),
    }
}

fn read_trigger(section: &Section<'_>) -> TriggerSpec {
    TriggerSpec {
        name: section.require("name").and_then(|v| v.text()).unwrap_or_else(|| nameless(section)),
        when: read_condition(section),
        rearm: section.get("rearm").and_then(|v| v.text()),
        cooldown: section.get("cooldown").and_then(|v| v.duration_or_zero()).map_or(0, |v| v.value),
        priority: section.get("priority").and_then(|v| v.integer()).unwrap_or(0),
        action: section.get("action").and_then(|v| read_action(&v)),
    }
}

/// A `when` that is missing reads as `false`, so that the rest can be compiled.
fn read_condition(section: &Section<'_>) -> Located<String> {
    let missing = || Located { value: "false".into(), span: section.span() };
    section.require("when").and_then(|v| v.text()).unwrap_or_else(missing)
}

/// Any table, as JSON text with its members as they are written.
fn read_action(value: &Value<'_>) -> Option<Arc<str>> {
    if !value.raw().is_table() {
        value.problem("\"action\" must be a table".into(), Some("such as { template = \"win_back\" }"));
        return None;
    }
    let mut json = String::new();
    write_json(value.raw(), &mut json);
    Some(json.into())
}

fn write_json(value: &DeValue<'_>, out: &mut String) {
    match value {
        DeValue::String(text) => out.push_str(&quoted(text)),
        DeValue::Boolean(flag) => out.push_str(if *flag { "true" } else { "false" }),
        DeValue::Datetime(time) => out.push_str(&quoted(&time.to_string())),
        DeValue::Integer(_) | DeValue::Float(_) => {
            // JSON has no infinity and no NaN: they become null.
            let number = as_number(value).map_or(serde_json::Value::Null, number_as_json);
            out.push_str(&number.to_string());
        }
        DeValue::Array(items) => {
            write_list(out, ['[', ']'], items.iter(), |item, out| write_json(item.get_ref(), out));
        }
        DeValue::Table(table) => {
            let mut members: Vec<_> = table.iter().collect();
            members.sort_by_key(|(key, _)| key.span().start);
            write_list(out, ['{', '}'], members.into_iter(), |(key, value), out| {
                out.push_str(&quoted(key.get_ref()));
                out.push(':');
                write_json(value.get_ref(), out);
            });
        }
    }
}

fn write_list<T>(out: &mut String, ends: [char; 2], items: impl Iterator<Item = T>, each: impl Fn(T, &mut String)) {
    out.push(ends[0]);
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.push(',');
        }
        each(item, out);
    }
    out.push(ends[1]);
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whole numbers are written without a fraction, as they stand in the job file.
fn number_as_json(number: f64) -> serde_json::Value {
    let whole = number as i64;
    if whole as f64 == number && whole.unsigned_abs() < 1 << 53 { whole.into() } else { number.into() }
}
