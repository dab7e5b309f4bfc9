//! A key at an instant: features, scores, levels, contributions and stage as of `now`.

use std::cell::{Cell, OnceCell};

use whisperer_schemas::time::Micros;

use super::{
    expression::{self, Datum, Names, Type},
    features::{Reading, Touch},
    plan::Plan,
};
use crate::spec::{Aggregate, ModelSpec, ModelTerm, ModelValue, ScoreBody, Transform};

/// Scores and stages that read one another deeper than this read one another in a circle.
const DEPTH_MAX: u32 = 200;

/// Contributions shown in a row.
const CONTRIBUTIONS_MAX: usize = 5;

/// A key as of `now`.
pub(super) struct Moment<'a> {
    plan: &'a Plan<'a>,
    touches: &'a [Vec<Touch>],
    now: Micros,
    /// The stage to be shown and read; computed from the conditions where there is none.
    stage: Option<&'a str>,
    readings: Vec<OnceCell<Reading>>,
    depth: Cell<u32>,
}

impl<'a> Moment<'a> {
    pub fn new(plan: &'a Plan<'a>, touches: &'a [Vec<Touch>], now: Micros, stage: Option<&'a str>) -> Moment<'a> {
        let readings = vec![OnceCell::new(); plan.features.len()];
        Moment { plan, touches, now, stage, readings, depth: Cell::new(0) }
    }

    pub fn feature(&self, index: usize) -> &Reading {
        let distinct_max = self.plan.spec.distinct_max;
        self.readings[index]
            .get_or_init(|| self.plan.features[index].read(&self.touches[index], distinct_max, self.now))
    }

    /// The stage: the first that holds, else `unknown`.
    pub fn stage(&self) -> Result<String, String> {
        if let Some(stage) = self.stage {
            return Ok(stage.to_owned());
        }
        self.deeper(|| {
            for (stage, when) in self.plan.spec.stages.iter().zip(&self.plan.stages) {
                if expression::holds(when, self)? {
                    return Ok(stage.name.value.clone());
                }
            }
            Ok("unknown".to_owned())
        })
    }

    pub fn score(&self, index: usize) -> Result<Option<f64>, String> {
        self.deeper(|| match (&self.plan.spec.scores[index].body, &self.plan.scores[index]) {
            (ScoreBody::Model(model), _) => {
                let mut z = model.intercept;
                for term in &model.terms {
                    let Some(x) = self.transformed(term)? else { return Ok(None) };
                    z += term.weight * x;
                }
                Ok(Some(1.0 / (1.0 + libm::exp(-z))).filter(|score| score.is_finite()))
            }
            (_, Some(expr)) => Ok(expression::eval(expr, Some(Type::Number), self)?.as_number()),
            (_, None) => Ok(None),
        })
    }

    /// The highest level whose bound is at most the score.
    pub fn level(&self, index: usize) -> Result<Option<String>, String> {
        let Some(score) = self.score(index)? else { return Ok(None) };
        let reached = self.plan.spec.scores[index].levels.iter().filter(|(_, bound)| *bound <= score);
        let highest = reached.max_by(|(_, a), (_, b)| a.total_cmp(b));
        Ok(highest.map(|(name, _)| name.value.clone()))
    }

    /// What moved a model's score most: term name and contribution, largest first; `None` if the score is null.
    pub fn contributions(&self, index: usize, model: &ModelSpec) -> Result<Option<Vec<(String, f64)>>, String> {
        if self.score(index)?.is_none() {
            return Ok(None);
        }
        let mut all = Vec::new();
        for term in &model.terms {
            let x = self.transformed(term)?.unwrap_or(f64::NAN);
            all.push((term.name.value.clone(), term.weight * x - term.weight * reference(term)));
        }
        all.retain(|(_, contribution)| *contribution != 0.0);
        all.sort_by(|(_, a), (_, b)| b.abs().total_cmp(&a.abs()));
        all.truncate(CONTRIBUTIONS_MAX);
        Ok(Some(all))
    }

    /// A term's input after its transform; `None` if it has no value.
    fn transformed(&self, term: &ModelTerm) -> Result<Option<f64>, String> {
        let name: Vec<String> = term.name.value.split('.').map(str::to_owned).collect();
        let input = match self.value(&name)? {
            Datum::Null | Datum::Bool(_) => term.null.as_ref().map_or(Datum::Null, constant),
            value => value,
        };
        Ok(transform(&term.transform, &input))
    }

    fn deeper<T>(&self, f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        self.depth.set(self.depth.get() + 1);
        let result = if self.depth.get() > DEPTH_MAX { Err("scores and stages form a circle".into()) } else { f() };
        self.depth.set(self.depth.get() - 1);
        result
    }
}

fn constant(value: &ModelValue) -> Datum {
    match value {
        ModelValue::Number(number) => Datum::Number(*number),
        ModelValue::Text(text) => Datum::Text(text.clone()),
    }
}

/// A term's transformed reference: that of 0 where none is stated, which is 0 for `one_hot`.
fn reference(term: &ModelTerm) -> f64 {
    let value = match (&term.reference, &term.transform) {
        (Some(value), _) => transform(&term.transform, &constant(value)),
        (None, Transform::OneHot(_)) => Some(0.0),
        (None, other) => transform(other, &Datum::Number(0.0)),
    };
    value.unwrap_or(f64::NAN)
}

fn transform(transform: &Transform, input: &Datum) -> Option<f64> {
    let value = match (transform, input) {
        (Transform::OneHot(text), Datum::Text(value)) => f64::from(u8::from(text == value)),
        (Transform::Identity, Datum::Number(x)) => *x,
        (Transform::Log1p, Datum::Number(x)) => libm::log1p(*x),
        (Transform::Standard { mean, sd }, Datum::Number(x)) => (x - mean) / sd,
        (Transform::Clip { min, max }, Datum::Number(x)) => x.max(*min).min(*max),
        _ => return None,
    };
    Some(value).filter(|value| value.is_finite())
}

/// What a name in a condition stands for.
enum Meaning {
    Feature(usize),
    Score(usize),
    Level(usize),
    Stage,
}

impl Moment<'_> {
    fn meaning(&self, name: &[String]) -> Result<Meaning, String> {
        let meaning = match name {
            [name] if name == "lifecycle_stage" => Some(Meaning::Stage),
            [name] => {
                let score = self.plan.score_index(name).map(Meaning::Score);
                self.plan.feature_index(name).map(Meaning::Feature).or(score)
            }
            [name, level] if level == "level" => self.plan.score_index(name).map(Meaning::Level),
            _ => None,
        };
        meaning.ok_or_else(|| format!("no feature or score \"{}\"", name.join(".")))
    }
}

impl Names for Moment<'_> {
    fn type_of(&self, name: &[String]) -> Result<Option<Type>, String> {
        Ok(match self.meaning(name)? {
            Meaning::Feature(index) => match self.plan.features[index].spec.aggregate {
                // Text or number: what its values are is known, so nothing has to be wanted of them.
                Aggregate::Last | Aggregate::First => self.feature(index).value.kind(),
                _ => Some(Type::Number),
            },
            Meaning::Score(_) => Some(Type::Number),
            Meaning::Level(_) | Meaning::Stage => Some(Type::Text),
        })
    }

    fn value(&self, name: &[String]) -> Result<Datum, String> {
        Ok(match self.meaning(name)? {
            Meaning::Feature(index) => self.feature(index).value.clone(),
            Meaning::Score(index) => self.score(index)?.map_or(Datum::Null, Datum::number),
            Meaning::Level(index) => self.level(index)?.map_or(Datum::Null, Datum::Text),
            Meaning::Stage => Datum::Text(self.stage()?),
        })
    }
}
