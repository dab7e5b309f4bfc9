//! Scores, levels, contributions, stages and rows.

use super::*;
use crate::spec::{Entity, ModelSpec, ModelTerm, ModelValue, Transform};

const BASE: Micros = 20_000 * DAY;

fn term(name: &str, weight: f64, transform: Transform) -> ModelTerm {
    ModelTerm { name: name.into(), weight, transform, null: None, reference: None }
}

fn model(name: &str, intercept: f64, terms: Vec<ModelTerm>) -> ScoreSpec {
    let levels = vec![("low".into(), 0.0), ("high".into(), 0.5), ("top".into(), 0.99)];
    ScoreSpec { name: name.into(), body: ScoreBody::Model(ModelSpec { intercept, terms }), levels }
}

fn contributions(row: &NamedRow, column: &str) -> Vec<(Value, Value)> {
    match &row[column] {
        Value::List(list) => list.iter().map(|entry| (entry[0].clone(), entry[1].clone())).collect(),
        other => panic!("no list: {other:?}"),
    }
}

#[test]
fn a_logistic_model() {
    // Goal: score, level and the largest contributions, ties in file order, zeros left out.
    let terms = vec![
        term("n", 0.5, Transform::Identity),
        term("n", 1.0, Transform::Log1p),
        term("n", -2.0, Transform::Clip { min: 0.0, max: 1.0 }),
        term("n", 1.0, Transform::Standard { mean: 1.0, sd: 2.0 }),
        ModelTerm { reference: Some(ModelValue::Number(3.0)), ..term("n", 9.0, Transform::Identity) },
        term("lifecycle_stage", 1.5, Transform::OneHot("active".into())),
        ModelTerm { null: Some(ModelValue::Number(4.0)), ..term("nothing", 0.125, Transform::Identity) },
        term("n", -1.5, Transform::Identity),
    ];
    let nothing = FeatureSpec { filter: Some("false".into()), ..feature("nothing", Aggregate::Recency) };
    let spec = JobSpec {
        scores: vec![model("s", -27.0, terms)],
        stages: vec![stage("active", "n > 0")],
        ..job(vec![feature("n", Aggregate::Count), nothing])
    };
    let lines = [0, 1, 2].map(|second| plain(&format!("e{second}"), "k", BASE + second * SECOND));
    let row = last_row(&outcome(&spec, &lines), "k");
    let z = -27.0 + 1.5 + libm::log1p(3.0) - 2.0 + 1.0 + 27.0 + 1.5 + 0.5 - 4.5;
    assert_eq!(row["s"], Value::Number(1.0 / (1.0 + libm::exp(-z))));
    assert_eq!(row["s_level"], Value::text("low"));
    let number = |name: &str, x: f64| (Value::text(name), Value::Number(x));
    let all =
        [number("n", -4.5), number("n", -2.0), number("n", 1.5), number("n", 1.5), number("lifecycle_stage", 1.5)];
    assert_eq!(contributions(&row, "s_contributions"), all);
}

#[test]
fn a_null_score_has_no_level_and_no_contributions() {
    // Goal: a term without a value makes the score null, and all that hangs on it.
    let nothing = FeatureSpec { filter: Some("false".into()), ..feature("nothing", Aggregate::Recency) };
    let terms = vec![term("nothing", 1.0, Transform::Identity)];
    let spec = JobSpec {
        scores: vec![model("s", 0.0, terms), expr_score("double", "s * 2")],
        triggers: vec![trigger("t", "s < 1 or s.level = 'low'"), trigger("is_null", "double is null")],
        ..job(vec![nothing])
    };
    let outcome = outcome(&spec, &[plain("e", "k", BASE)]);
    let row = last_row(&outcome, "k");
    assert_eq!([&row["s"], &row["s_level"], &row["s_contributions"], &row["double"]], [&Value::Null; 4]);
    assert_eq!(fired(&outcome), expected(&[("is_null", BASE, "e")]));
}

#[test]
fn levels_are_reached_at_their_bound() {
    // Goal: the highest level whose bound is at most the score; none below all bounds.
    let mut score = expr_score("s", "n / 10 - 0.1");
    score.levels = vec![("low".into(), 0.1), ("high".into(), 0.2)];
    let spec = JobSpec { scores: vec![score], ..job(vec![feature("n", Aggregate::Count)]) };
    let lines: Vec<_> = (0..4).map(|second| plain(&format!("e{second}"), "k", BASE + second * SECOND)).collect();
    let level = |events: usize| last_row(&outcome(&spec, &lines[..events]), "k")["s_level"].clone();
    assert_eq!([level(1), level(2), level(4)], [Value::Null, Value::text("low"), Value::text("high")]);
}

#[test]
fn stages_and_scores_read_one_another() {
    // Goal: the first stage that holds wins, scores may read it, a circle is an error.
    let mut spec = JobSpec {
        scores: vec![expr_score("a", "n / 2"), expr_score("b", "case lifecycle_stage when 'two' then 1 else 0 end")],
        stages: vec![stage("three", "a >= 1.5"), stage("two", "a >= 1")],
        ..job(vec![feature("n", Aggregate::Count)])
    };
    let lines: Vec<_> = (0..3).map(|second| plain(&format!("e{second}"), "k", BASE + second * SECOND)).collect();
    for (events, stage, b) in [(1, "unknown", 0.0), (2, "two", 1.0), (3, "three", 0.0)] {
        let row = last_row(&outcome(&spec, &lines[..events]), "k");
        assert_eq!((&row["lifecycle_stage"], &row["b"]), (&Value::text(stage), &Value::Number(b)));
    }
    spec.scores[0] = expr_score("a", "b");
    assert!(run(&spec, &any(), &[raw(&lines)]).is_err());
}

#[test]
fn rows_have_the_columns_of_the_tables() {
    // Goal: names and types of the fixed columns of both tables, all but those that begin with `_` and `timers`.
    use whisperer_schemas::table::TableSchema;
    let spec = JobSpec { triggers: vec![trigger("t", "true")], ..job(vec![]) };
    let outcome = outcome(&spec, &[plain("e", "k", BASE)]);
    let names = |table: TableSchema| {
        let mut names: Vec<_> = table.columns.into_iter().map(|column| column.name).collect();
        names.retain(|name| !name.starts_with('_') && name != "timers");
        names.sort();
        names
    };
    let keys = |row: &NamedRow| row.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&outcome.decisions[0]), names(TableSchema::decisions(vec![])));
    assert_eq!(keys(&outcome.profiles[0]), names(TableSchema::profiles(vec![])));
    assert_eq!(outcome.decisions[0]["lifecycle_stage"], Value::Null);
}

#[test]
fn a_user_over_all_applications() {
    // Goal: with the entity `["user_id"]` one key holds the events of all applications and shows the first.
    let spec = JobSpec { entity: Entity::User, ..job(vec![feature("n", Aggregate::Count)]) };
    let lines = [plain("e0", "k", BASE), plain("e1", "k", BASE + 1).replace("\"a\"", "\"b\"")];
    let outcome = outcome(&spec, &lines);
    assert_eq!(outcome.profiles.len(), 1);
    assert_eq!((&outcome.profiles[0]["app_id"], &outcome.profiles[0]["n"]), (&Value::text("a"), &Value::Number(2.0)));
    assert_eq!(super::outcome(&JobSpec { entity: Entity::AppUser, ..spec }, &lines).profiles.len(), 2);
}

#[test]
fn decision_ids_agree_with_the_schemas() {
    // Goal: the id that the oracle computes by itself is the one that the tables promise.
    use whisperer_schemas::{KeyHash, decision::decision_id};
    let spec = JobSpec { triggers: vec![trigger("t", "true")], ..job(vec![]) };
    let outcome = outcome(&spec, &[plain("e", "k", BASE)]);
    let id = decision_id("job", "t", KeyHash::of(&["a", "k"]), BASE, 0);
    assert_eq!(outcome.decisions[0]["decision_id"], Value::text(id));
}
