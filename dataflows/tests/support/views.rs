//! Random views of random jobs, and what a view's rows add up to.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};
use whisperer_operators::{
    job::CompiledJob,
    reference::NamedRow,
    spec::{Aggregate, FeatureSpec, JobSpec, Period, ScoreSpec, SegmentSpec, StepSpec, ValueType, ViewKind, ViewSpec},
};
use whisperer_schemas::{
    Digest, Row, TableSchema, row_hash,
    time::{DAY, HOUR, MINUTE},
};

use super::sorted;

/// A view to be: bytes that are picked by.
pub type Dice = [u8; 8];

pub fn dice(most: usize) -> impl Strategy<Value = Vec<Dice>> {
    vec(any::<Dice>(), 1..most)
}

fn pick<T: Clone>(choices: &[T], byte: u8) -> T {
    choices[usize::from(byte) % choices.len()].clone()
}

const EVENTS: [&str; 6] = [
    "event_type = 'user_login'",
    "event_type in ('page_viewed', 'user_login', 'payment_failed')",
    "event_type <> 'user_signup'",
    "properties.amount > 5",
    "properties.plan like 'p%'",
    "event_type = 'feature_used'",
];

/// The job with these views, and with a number that is always there.
pub fn with_views(mut spec: JobSpec, dice: &[Dice]) -> JobSpec {
    spec.features.push(FeatureSpec::new("events", Aggregate::Count));
    spec.views = dice.iter().enumerate().map(|(at, dice)| view(&spec, &format!("v{at}"), dice)).collect();
    spec
}

fn view(spec: &JobSpec, name: &str, dice: &Dice) -> ViewSpec {
    let [kind, of, when, first, second, third, some, more] = *dice;
    let number = || pick(&numbers(spec), of).as_str().into();
    let has_stages = !spec.stages.is_empty();
    let segments = || {
        let segment = |(at, byte): (usize, u8)| SegmentSpec {
            name: format!("s{at}").as_str().into(),
            when: condition(spec, byte).as_str().into(),
        };
        [some, more, second, third].into_iter().enumerate().map(segment).collect()
    };
    let kind = match kind % 11 {
        0 => ViewKind::Count,
        1 => ViewKind::Sum { of: number() },
        2 => ViewKind::Distinct,
        3 => ViewKind::Top { of: number(), limit: u32::from(some % 4) + 1 },
        4 => {
            let at = pick(&[vec![0.5], vec![0.0, 0.5, 1.0], vec![0.1, 0.9, 0.99]], some);
            ViewKind::Percentiles { of: number(), at, resolution: pick(&[0.001, 1.0, 0.25], more) }
        }
        5 if has_stages => ViewKind::Transitions,
        6 => ViewKind::Segments { segments: segments() },
        9 => ViewKind::Members { segments: segments() },
        10 if !spec.triggers.is_empty() => ViewKind::Decisions,
        7 => ViewKind::Cohorts {
            period: pick(&[Period::Day, Period::Week, Period::Month], some),
            begins: more.is_multiple_of(2).then(|| pick(&EVENTS, more / 2).into()),
            active: second.is_multiple_of(2).then(|| pick(&EVENTS, second / 2).into()),
        },
        _ => {
            let step = |(at, byte): (usize, u8)| StepSpec {
                name: format!("step{at}").as_str().into(),
                filter: pick(&EVENTS, byte).into(),
            };
            let steps = [some, more, second].into_iter().take(2 + usize::from(third % 2)).enumerate();
            ViewKind::Funnel { steps: steps.map(step).collect(), within: pick(&[MINUTE, HOUR, DAY, 30 * DAY], of) }
        }
    };
    let of_users = !matches!(
        kind,
        ViewKind::Transitions
            | ViewKind::Segments { .. }
            | ViewKind::Members { .. }
            | ViewKind::Decisions
            | ViewKind::Cohorts { .. }
            | ViewKind::Funnel { .. }
    );
    let mut view = ViewSpec::new(name, kind);
    if of_users {
        let dimensions = dimensions(spec);
        let mut names: Vec<String> = [first, second, third].map(|byte| pick(&dimensions, byte)).into();
        names.truncate(usize::from(first % 4));
        names.sort();
        names.dedup();
        view.group_by = names.iter().map(|name| name.as_str().into()).collect();
    } else if first.is_multiple_of(2) {
        view.group_by = vec!["app_id".into()];
    }
    let conditional = of_users || matches!(view.kind, ViewKind::Segments { .. } | ViewKind::Members { .. });
    view.when = (conditional && when.is_multiple_of(3)).then(|| condition(spec, when / 3).as_str().into());
    view
}

/// Names of numbers.
fn numbers(spec: &JobSpec) -> Vec<String> {
    let features = spec.features.iter().filter(|feature| !is_text(feature)).map(|feature| feature.name.value.clone());
    let numbers: Vec<String> = features.chain(spec.scores.iter().map(|score| score.name.value.clone())).collect();
    numbers
}

fn is_text(feature: &FeatureSpec) -> bool {
    use super::jobs::is_text_of;
    let of = feature.of.as_ref().map_or("", |of| of.value.as_str());
    matches!(feature.aggregate, Aggregate::Last | Aggregate::First)
        && feature.value_type != Some(ValueType::Number)
        && is_text_of(of)
}

fn dimensions(spec: &JobSpec) -> Vec<String> {
    let mut names = vec!["app_id".to_owned()];
    names.extend(spec.features.iter().map(|feature| feature.name.value.clone()));
    let levels = |score: &ScoreSpec| (!score.levels.is_empty()).then(|| format!("{}.level", score.name.value));
    names.extend(spec.scores.iter().filter_map(levels));
    if !spec.stages.is_empty() {
        names.push("lifecycle_stage".to_owned());
    }
    names
}

/// A condition on what is known of a user: one that the job has, or a plain one.
fn condition(spec: &JobSpec, byte: u8) -> String {
    let stages = spec.stages.iter().map(|stage| stage.when.value.clone());
    let triggers = spec.triggers.iter().map(|trigger| trigger.when.value.clone());
    let numbers = numbers(spec).into_iter().map(|name| format!("{name} > {}", f64::from(byte % 5) / 2.0));
    pick(&stages.chain(triggers).chain(numbers).collect::<Vec<_>>(), byte)
}

/// What the rows of a view's table add up to, and the digest of that.
pub fn contents(table: &TableSchema, rows: &[Row]) -> (Vec<NamedRow>, Digest) {
    let diff = table.diff_index().expect("a view has diffs");
    let since = table.column_index("_since").expect("a view says since when");
    let newest = rows.iter().filter_map(|row| row.values[since].as_int()).max();
    let mut sums: BTreeMap<String, (NamedRow, i64, u128)> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.values[since].as_int() == newest) {
        let cells = table.columns.iter().zip(&row.values).filter(|(column, _)| !column.is_internal());
        let named: NamedRow = cells.map(|(column, value)| (column.name.clone(), value.clone())).collect();
        let hash = row_hash(table, &row.values);
        let sum = sums.entry(format!("{named:?}")).or_insert((named, 0, hash));
        sum.1 += row.values[diff].as_int().expect("a diff is a number");
    }
    let mut digest = Digest::default();
    let mut there = Vec::new();
    for (row, count, hash) in sums.into_values().filter(|(_, count, _)| *count != 0) {
        assert_eq!(count, 1, "{}: a row is there once or not at all: {row:?}", table.name);
        digest.update(hash, count);
        there.push(row);
    }
    (sorted(there), digest)
}

/// The views of a job in short.
pub fn show(spec: &JobSpec) -> String {
    spec.views
        .iter()
        .map(|view| {
            let names: Vec<&str> = view.group_by.iter().map(|name| name.value.as_str()).collect();
            let when = view.when.as_ref().map(|when| &when.value);
            format!("view {} by {names:?} when {when:?}: {:?}\n", view.name.value, view.kind)
        })
        .collect()
}

/// The tables of a job's views.
pub fn tables(job: &CompiledJob) -> Vec<TableSchema> {
    job.views.tables().map(|table| (**table).clone()).collect()
}
