//! What the conditions of a job read, directly and through scores: what its timers are for.

use std::collections::BTreeSet;

use sqlparser::ast::{BinaryOperator, Expr};
use whisperer_schemas::time::Micros;

use super::{
    expression::{self, NoNames},
    plan::Plan,
};
use crate::spec::{Aggregate, ScoreBody};

/// What the `when` of stages and the `when` and `rearm` of triggers read.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Features, by index.
    pub features: BTreeSet<usize>,
    /// Bare recencies compared with constants.
    pub thresholds: Vec<Threshold>,
    /// Whether a value is read that drifts with time: an `ewma`, or a recency in another way.
    pub drifting: bool,
}

/// A comparison of a bare recency with a constant changes `after` its last event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Threshold {
    pub feature: usize,
    pub after: Micros,
}

impl Reads {
    pub fn of(plan: &Plan) -> Result<Reads, String> {
        let mut walk = Walk { plan, reads: Reads::default(), scores: BTreeSet::new() };
        for when in &plan.stages {
            walk.expr(when)?;
        }
        for trigger in &plan.triggers {
            walk.expr(&trigger.when)?;
            trigger.rearm.iter().try_for_each(|rearm| walk.expr(rearm))?;
        }
        Ok(walk.reads)
    }
}

struct Walk<'a> {
    plan: &'a Plan<'a>,
    reads: Reads,
    /// Scores gone through.
    scores: BTreeSet<usize>,
}

impl Walk<'_> {
    fn expr(&mut self, expr: &Expr) -> Result<(), String> {
        if let Some(name) = expression::name(expr) {
            return self.name(&name);
        }
        match expr {
            Expr::BinaryOp { left, op, right } if is_comparison(op) => self.comparison(left, op, right),
            Expr::Between { expr, low, high, .. } => {
                self.comparison(expr, &BinaryOperator::GtEq, low)?;
                self.comparison(expr, &BinaryOperator::LtEq, high)
            }
            Expr::InList { expr, list, .. } => {
                list.iter().try_for_each(|item| self.comparison(expr, &BinaryOperator::Eq, item))
            }
            // `case x when y` compares x with y.
            Expr::Case { operand: Some(operand), conditions, else_result, .. } => {
                for when in conditions {
                    self.comparison(operand, &BinaryOperator::Eq, &when.condition)?;
                    self.expr(&when.result)?;
                }
                else_result.iter().try_for_each(|otherwise| self.expr(otherwise))
            }
            // `nullif(x, y)` stands for `case when x = y then null else x end`.
            Expr::Function(call) if expression::function_name(call) == "nullif" => {
                let arguments = expression::children(expr)?;
                if let [left, right] = arguments[..] {
                    self.comparison(left, &BinaryOperator::Eq, right)?;
                    self.expr(left)?;
                }
                Ok(())
            }
            other => expression::children(other)?.into_iter().try_for_each(|child| self.expr(child)),
        }
    }

    /// A name in any place but a comparison of a bare recency with a constant.
    fn name(&mut self, name: &[String]) -> Result<(), String> {
        if let Some(index) = self.plan.feature_index(&name[0]).filter(|_| name.len() == 1) {
            self.reads.features.insert(index);
            let aggregate = self.plan.features[index].spec.aggregate;
            self.reads.drifting |= matches!(aggregate, Aggregate::Ewma | Aggregate::Recency);
            return Ok(());
        }
        match self.plan.score_index(&name[0]) {
            Some(index) => self.score(index),
            // The stages are conditions themselves.
            None if name == ["lifecycle_stage"] => Ok(()),
            None => Err(format!("no feature or score \"{}\"", name.join("."))),
        }
    }

    fn score(&mut self, index: usize) -> Result<(), String> {
        if !self.scores.insert(index) {
            return Ok(());
        }
        let plan = self.plan;
        match (&plan.spec.scores[index].body, &plan.scores[index]) {
            (ScoreBody::Model(model), _) => model.terms.iter().try_for_each(|term| {
                let name: Vec<String> = term.name.value.split('.').map(str::to_owned).collect();
                self.name(&name)
            }),
            (_, Some(expr)) => self.expr(expr),
            (_, None) => Ok(()),
        }
    }

    fn comparison(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<(), String> {
        if let (Some(feature), true) = (self.recency(left), is_constant(right)?) {
            return self.threshold(feature, op, right);
        }
        if let (true, Some(feature)) = (is_constant(left)?, self.recency(right)) {
            return self.threshold(feature, &mirrored(op), left);
        }
        self.expr(left)?;
        self.expr(right)
    }

    fn recency(&self, expr: &Expr) -> Option<usize> {
        let name = expression::name(expr).filter(|name| name.len() == 1)?;
        let index = self.plan.feature_index(&name[0])?;
        (self.plan.features[index].spec.aggregate == Aggregate::Recency).then_some(index)
    }

    fn threshold(&mut self, feature: usize, op: &BinaryOperator, constant: &Expr) -> Result<(), String> {
        self.reads.features.insert(feature);
        let Some(constant) = expression::eval(constant, None, &NoNames)?.as_number() else { return Ok(()) };
        let divisor = self.plan.features[feature].spec.divide_by;
        let value = |after: Micros| {
            let days = after as f64 / 86_400_000_000.0;
            divisor.map_or(days, |divisor| days / divisor)
        };
        use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
        let reached = matches!(op, GtEq | Lt | Eq | NotEq).then(|| first(|after| value(after) >= constant));
        let passed = matches!(op, Gt | LtEq | Eq | NotEq).then(|| first(|after| value(after) > constant));
        // What holds at once needs no timer.
        let later = [reached, passed].into_iter().flatten().flatten().filter(|after| *after > 0);
        self.reads.thresholds.extend(later.map(|after| Threshold { feature, after }));
        Ok(())
    }
}

/// The least span for which `holds`, which goes on holding once it does; `None` if none does.
fn first(holds: impl Fn(Micros) -> bool) -> Option<Micros> {
    let (mut low, mut high) = (0, Micros::MAX);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) { high = middle } else { low = middle + 1 }
    }
    holds(low).then_some(low)
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

fn mirrored(op: &BinaryOperator) -> BinaryOperator {
    match op {
        BinaryOperator::Lt => BinaryOperator::Gt,
        BinaryOperator::LtEq => BinaryOperator::GtEq,
        BinaryOperator::Gt => BinaryOperator::Lt,
        BinaryOperator::GtEq => BinaryOperator::LtEq,
        other => other.clone(),
    }
}

/// Whether an expression reads no name.
fn is_constant(expr: &Expr) -> Result<bool, String> {
    if expression::name(expr).is_some() {
        return Ok(false);
    }
    for child in expression::children(expr)? {
        if !is_constant(child)? {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::first;

    #[test]
    fn the_first_span_is_found_to_the_microsecond() {
        // Goal: "at least 7 days" begins at exactly 7 days, "more than 7 days" one microsecond later.
        let days = |after: i64| after as f64 / 86_400_000_000.0;
        assert_eq!(first(|after| days(after) >= 7.0), Some(604_800_000_000));
        assert_eq!(first(|after| days(after) > 7.0), Some(604_800_000_001));
        assert_eq!(first(|after| days(after) >= 0.0), Some(0));
        assert_eq!(first(|after| days(after) >= 1e300), None);
    }
}
