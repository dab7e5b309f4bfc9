//! Scores: logistic models and expressions, with their levels.

use std::sync::LazyLock;

use crate::{
    expression::{self, Kind, Names, NumberExpr},
    spec::{Aggregate, JobError, JobSpec, Located, ModelSpec, ModelTerm, ModelValue, ScoreBody, ScoreSpec, Transform},
};

use super::JobNames;

/// A compiled score.
#[derive(Clone, Debug)]
pub struct Score {
    /// Its name.
    pub name: String,
    /// How it is computed.
    pub body: Body,
    /// Level names and their lower bounds, ascending.
    pub levels: Vec<(String, f64)>,
}

/// How a score is computed.
#[derive(Clone, Debug)]
pub enum Body {
    /// An expression.
    Expr(NumberExpr),
    /// A logistic model.
    Model(LogisticModel),
}

/// `1 / (1 + exp(-(intercept + terms in file order)))`
#[derive(Clone, Debug)]
pub struct LogisticModel {
    /// The constant term.
    pub intercept: f64,
    /// The others.
    pub terms: Vec<Term>,
}

/// A term of a logistic model.
#[derive(Clone, Debug)]
pub struct Term {
    /// The input's name.
    pub name: String,
    /// Its slot.
    pub slot: u16,
    /// What the transformed value is multiplied by.
    pub weight: f64,
    /// What is done to the value before.
    pub transform: Transform,
    /// The transformed value taken where the input is null; NaN where the score is null then.
    pub null: f64,
    /// The term at the reference, which contributions are measured from.
    pub reference: f64,
}

impl Score {
    /// The index of the level that a value has: the highest whose bound is not above it.
    #[must_use]
    pub fn level(&self, value: f64) -> Option<usize> {
        self.levels.iter().rposition(|(_, bound)| *bound <= value)
    }
}

impl Transform {
    /// The transformed number; NaN where there is none.
    #[must_use]
    pub fn number(&self, x: f64) -> f64 {
        let transformed = match self {
            Transform::Identity => x,
            Transform::Log1p => log1p(x),
            Transform::Standard { mean, sd } => (x - mean) / sd,
            // A null stays a null: `max` and `min` would answer with the other operand.
            Transform::Clip { .. } if x.is_nan() => x,
            Transform::Clip { min, max } => x.max(*min).min(*max),
            Transform::OneHot(_) => f64::NAN,
        };
        if transformed.is_finite() { transformed } else { f64::NAN }
    }

    /// The transformed text; NaN where there is none.
    #[must_use]
    pub fn text(&self, text: &str) -> f64 {
        match self {
            Transform::OneHot(category) => f64::from(u8::from(category == text)),
            _ => f64::NAN,
        }
    }

    fn constant(&self, value: &ModelValue) -> f64 {
        match value {
            ModelValue::Number(number) => self.number(*number),
            ModelValue::Text(text) => self.text(text),
        }
    }
}

/// `libm`'s, looked up for the small whole numbers that counts are.
fn log1p(x: f64) -> f64 {
    static OF_WHOLE: LazyLock<[f64; 256]> = LazyLock::new(|| std::array::from_fn(|n| libm::log1p(n as f64)));
    let whole = x as u8;
    // Bits, so that a negative zero keeps its sign.
    if f64::from(whole).to_bits() == x.to_bits() { OF_WHOLE[usize::from(whole)] } else { libm::log1p(x) }
}

pub(super) fn compile(spec: &JobSpec, names: &mut JobNames, errors: &mut Vec<JobError>) -> Vec<Score> {
    let mut compiled = Vec::new();
    for score in &spec.scores {
        check_levels(score, errors);
        let body = match &score.body {
            ScoreBody::Expr(text) => expression::compile_number(text, names).map(Body::Expr),
            ScoreBody::Model(model) => logistic(spec, model, names).map(Body::Model),
        };
        let body = body.unwrap_or_else(|found| {
            errors.extend(found);
            Body::Expr(NumberExpr::Constant(f64::NAN))
        });
        let levels = score.levels.iter().map(|(name, bound)| (name.value.clone(), *bound)).collect();
        compiled.push(Score { name: score.name.value.clone(), body, levels });
    }
    compiled
}

fn check_levels(score: &ScoreSpec, errors: &mut Vec<JobError>) {
    for pair in score.levels.windows(2) {
        if pair[0].1 >= pair[1].1 || pair[0].1.is_nan() || pair[1].1.is_nan() {
            errors.push(JobError {
                span: pair[1].0.span.clone(),
                message: format!("level \"{}\" does not begin above level \"{}\"", pair[1].0.value, pair[0].0.value),
                hint: Some("list the levels from low to high".into()),
            });
        }
    }
}

fn logistic(spec: &JobSpec, model: &ModelSpec, names: &mut JobNames) -> Result<LogisticModel, Vec<JobError>> {
    let mut errors = Vec::new();
    let mut terms = Vec::new();
    for term in &model.terms {
        match compile_term(spec, term, names) {
            Ok(term) => terms.push(term),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(LogisticModel { intercept: model.intercept, terms }) } else { Err(errors) }
}

fn compile_term(spec: &JobSpec, term: &ModelTerm, names: &mut JobNames) -> Result<Term, JobError> {
    let error = |message: String, hint: Option<String>| JobError { span: term.name.span.clone(), message, hint };
    let path: Vec<String> = term.name.value.split('.').map(str::to_owned).collect();
    let Some(name) = names.resolve(&path) else {
        let hint = expression::did_you_mean(&term.name.value, names.candidates());
        return Err(error(format!("unknown name \"{}\"", term.name.value), hint));
    };
    let text = matches!(name.kind, Kind::Text | Kind::Choice(_));
    let one_hot = matches!(term.transform, Transform::OneHot(_));
    if text != one_hot {
        let wants = if text {
            "is a text: use `transform = { one_hot = \"…\" }`"
        } else {
            "is a number, and `one_hot` takes a text"
        };
        return Err(error(format!("\"{}\" {wants}", term.name.value), None));
    }
    let constants = [&term.null, &term.reference];
    if constants.into_iter().flatten().any(|value| matches!(value, ModelValue::Text(_)) != text) {
        return Err(error(format!("`null` and `reference` of \"{}\" must have its type", term.name.value), None));
    }
    if term.null.is_none() && can_be_null(spec, &term.name) {
        let hint = "say `null = …`: the value to take then".into();
        return Err(error(format!("\"{}\" can be null", term.name.value), Some(hint)));
    }
    let reference = match &term.reference {
        Some(value) => term.transform.constant(value),
        None if text => 0.0,
        None => term.transform.number(0.0),
    };
    if reference.is_nan() {
        return Err(error(format!("the reference of \"{}\" has no transformed value", term.name.value), None));
    }
    let null = term.null.as_ref().map_or(f64::NAN, |value| term.transform.constant(value));
    Ok(Term {
        name: term.name.value.clone(),
        slot: name.slot,
        weight: term.weight,
        transform: term.transform.clone(),
        null,
        reference: term.weight * reference,
    })
}

fn can_be_null(spec: &JobSpec, name: &Located<String>) -> bool {
    use Aggregate::{Ewma, First, Last, Max, Mean, Min, Recency, SessionMinutes};
    let feature = spec.features.iter().find(|feature| feature.name.value == name.value);
    let score = spec.scores.iter().find(|score| score.name.value == name.value);
    let of_feature = feature.is_some_and(|feature| match feature.aggregate {
        Mean | Min | Max | Last | First | Recency | SessionMinutes => true,
        Ewma => feature.of.is_some(),
        _ => false,
    });
    of_feature || score.is_some_and(|score| matches!(score.body, ScoreBody::Expr(_)))
}

impl Body {
    /// The name slots that the body reads.
    pub(super) fn slots(&self, each: &mut impl FnMut(u16)) {
        match self {
            Body::Expr(expr) => expr.slots(each),
            Body::Model(model) => model.terms.iter().for_each(|term| each(term.slot)),
        }
    }
}
