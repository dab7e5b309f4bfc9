//! Which names a job may give, and that none is given twice.
//!
//! Features and scores share one namespace: that of expressions and of the columns of decisions and profiles.

use std::collections::BTreeMap;

use whisperer_operators::spec::{Aggregate, JobSpec, Located, ScoreBody, Span};
use whisperer_schemas::TableSchema;

use super::problems::Problems;

/// Longest name, in bytes: what PostgreSQL and its kin take as a column.
const NAME_BYTES_MAX: usize = 63;

/// Words of the expression language, which cannot be names in it.
const WORDS: [&str; 20] = [
    "and",
    "or",
    "not",
    "in",
    "is",
    "null",
    "true",
    "false",
    "case",
    "when",
    "then",
    "else",
    "end",
    "between",
    "like",
    "cast",
    "distinct",
    "select",
    "from",
    "timestamp",
];

/// Checks every name of the job.
pub(super) fn check(spec: &JobSpec, problems: &Problems) {
    let features = spec.features.iter().map(|feature| &feature.name);
    let scores = spec.scores.iter().map(|score| &score.name);
    let stages = || spec.stages.iter().map(|stage| &stage.name);
    let triggers = || spec.triggers.iter().map(|trigger| &trigger.name);
    let views = || spec.views.iter().map(|view| &view.name);
    for name in features.chain(scores).chain(stages()).chain(triggers()).chain(views()) {
        check_form(name, problems);
    }
    check_columns(spec, problems);
    check_distinct("stage", stages(), problems);
    check_distinct("trigger", triggers(), problems);
    check_distinct("view", views(), problems);
    for stage in stages().filter(|stage| stage.value == "unknown") {
        let hint = Some("remove it: \"unknown\" is the stage of whom no other stage holds".to_owned());
        problems.add(stage.span.clone(), "\"unknown\" cannot be a stage's name".into(), hint);
    }
}

/// A name that a missing `name` key left empty is not looked at again.
fn check_form(name: &Located<String>, problems: &Problems) {
    let text = name.value.as_str();
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_plain = starts_well && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let is_word = WORDS.contains(&text.to_ascii_lowercase().as_str());
    if text.is_empty() || (is_plain && text.len() <= NAME_BYTES_MAX && !is_word) {
        return;
    }
    let (message, hint) = if is_word {
        (format!("\"{text}\" is a word of the expression language, not a name"), None)
    } else {
        let rule = format!("a letter, then letters, digits and _, at most {NAME_BYTES_MAX} in all");
        (format!("\"{text}\" is not a name"), Some(rule))
    };
    problems.add(name.span.clone(), message, hint);
}

fn check_distinct<'a>(kind: &str, names: impl Iterator<Item = &'a Located<String>>, problems: &Problems) {
    let mut seen: BTreeMap<&str, ()> = BTreeMap::new();
    for name in names.filter(|name| !name.value.is_empty()) {
        if seen.insert(&name.value, ()).is_some() {
            problems.add(name.span.clone(), format!("there is a {kind} \"{}\" already", name.value), None);
        }
    }
}

/// Checks that no two columns of a decision or profile row have one name.
fn check_columns(spec: &JobSpec, problems: &Problems) {
    let mut taken: BTreeMap<String, String> = reserved();
    for (name, what, span) in columns(spec) {
        if let Some(owner) = taken.get(&name) {
            problems.add(span, format!("the name \"{name}\" is taken by {owner}"), Some("choose another name".into()));
        } else {
            taken.insert(name, what);
        }
    }
}

/// The fixed columns of both tables, `lifecycle_stage` among them.
fn reserved() -> BTreeMap<String, String> {
    let tables = [TableSchema::decisions(Vec::new()), TableSchema::profiles(Vec::new())];
    let columns =
        tables.into_iter().flat_map(|table| table.columns.into_iter().map(move |column| (column, table.name)));
    columns.map(|(column, table)| (column.name, format!("a column of every {table} table"))).collect()
}

/// Every column that the job adds: its name, what it belongs to, and where that is named.
fn columns(spec: &JobSpec) -> Vec<(String, String, Span)> {
    let mut columns = Vec::new();
    for feature in spec.features.iter().filter(|feature| !feature.name.value.is_empty()) {
        let Located { value: name, span } = &feature.name;
        columns.push((name.clone(), format!("the feature \"{name}\""), span.clone()));
        if feature.aggregate == Aggregate::Distinct {
            columns.push((format!("{name}_capped"), format!("the feature \"{name}\""), span.clone()));
        }
    }
    for score in spec.scores.iter().filter(|score| !score.name.value.is_empty()) {
        let Located { value: name, span } = &score.name;
        columns.push((name.clone(), format!("the score \"{name}\""), span.clone()));
        if !score.levels.is_empty() {
            columns.push((format!("{name}_level"), format!("the score \"{name}\""), span.clone()));
        }
        if matches!(score.body, ScoreBody::Model(_)) {
            columns.push((format!("{name}_contributions"), format!("the score \"{name}\""), span.clone()));
        }
    }
    columns
}
