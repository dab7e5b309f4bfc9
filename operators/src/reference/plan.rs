//! A job with its expressions parsed and its windows cut into panes.

use sqlparser::ast::Expr;
use whisperer_schemas::time::{DAY, HOUR, MINUTE, Micros};

use super::{
    expression::{self, Datum, Type},
    parse::Event,
    reads::Reads,
};
use crate::spec::{Aggregate, FeatureSpec, JobSpec, Located, ScoreBody};

/// A job, ready to be run.
pub(super) struct Plan<'a> {
    pub spec: &'a JobSpec,
    pub features: Vec<Feature<'a>>,
    /// The expressions of the scores that are expressions.
    pub scores: Vec<Option<Expr>>,
    pub stages: Vec<Expr>,
    pub triggers: Vec<Trigger>,
    /// What the conditions read, for timers.
    pub reads: Reads,
}

/// The conditions of a trigger.
pub(super) struct Trigger {
    pub when: Expr,
    pub rearm: Option<Expr>,
}

impl<'a> Plan<'a> {
    pub fn new(spec: &'a JobSpec) -> Result<Plan<'a>, String> {
        let parse = |text: &Located<String>| expression::parse(&text.value);
        let trigger = |when, rearm: &Option<Located<String>>| {
            Ok::<_, String>(Trigger { when: parse(when)?, rearm: rearm.as_ref().map(parse).transpose()? })
        };
        let mut plan = Plan {
            spec,
            features: spec.features.iter().map(Feature::new).collect::<Result<_, _>>()?,
            scores: spec
                .scores
                .iter()
                .map(|score| match &score.body {
                    ScoreBody::Expr(text) => parse(text).map(Some),
                    ScoreBody::Model(_) => Ok(None),
                })
                .collect::<Result<_, _>>()?,
            stages: spec.stages.iter().map(|stage| parse(&stage.when)).collect::<Result<_, _>>()?,
            triggers: spec.triggers.iter().map(|t| trigger(&t.when, &t.rearm)).collect::<Result<_, _>>()?,
            reads: Reads::default(),
        };
        plan.reads = Reads::of(&plan)?;
        Ok(plan)
    }

    pub fn feature_index(&self, name: &str) -> Option<usize> {
        self.spec.features.iter().position(|feature| feature.name.value == name)
    }

    pub fn score_index(&self, name: &str) -> Option<usize> {
        self.spec.scores.iter().position(|score| score.name.value == name)
    }
}

/// A feature with its expressions parsed.
pub(super) struct Feature<'a> {
    pub spec: &'a FeatureSpec,
    pub window: Option<Window>,
    of: Option<Expr>,
    filter: Option<Expr>,
}

impl<'a> Feature<'a> {
    fn new(spec: &'a FeatureSpec) -> Result<Feature<'a>, String> {
        let parse = |text: &Option<Located<String>>| text.as_ref().map(|t| expression::parse(&t.value)).transpose();
        let days = spec.aggregate == Aggregate::Streak;
        let window = spec.window.as_ref().map(|window| Window::new(window.value, days)).transpose()?;
        let needed = matches!(spec.aggregate, Aggregate::Rate | Aggregate::Trend);
        if needed && window.is_none() {
            return Err(format!("\"{}\" needs a window", spec.name.value));
        }
        Ok(Feature { spec, window, of: parse(&spec.of)?, filter: parse(&spec.filter)? })
    }

    /// What an event gives to the feature: `None` if it does not touch it, null if the feature has no `of`.
    pub fn touch(&self, event: &Event) -> Result<Option<Datum>, String> {
        if let Some(filter) = &self.filter
            && !expression::holds(filter, event)?
        {
            return Ok(None);
        }
        let Some(of) = &self.of else { return Ok(Some(Datum::Null)) };
        let want = self.type_wanted(of, event)?;
        let value = expression::eval(of, want, event)?;
        let other = want.is_some() && value.kind() != want;
        let refused = self.spec.aggregate == Aggregate::Distinct && value.kind() == Some(Type::Bool);
        Ok(if value == Datum::Null || other || refused { None } else { Some(value) })
    }

    /// The type of `of` that the aggregate takes; `None` where it takes any.
    fn type_wanted(&self, of: &Expr, event: &Event) -> Result<Option<Type>, String> {
        use Aggregate::{Ewma, First, Last, Max, Mean, Min, Sum, Trend};
        Ok(match self.spec.aggregate {
            Sum | Mean | Min | Max | Ewma | Trend => Some(Type::Number),
            Last | First => Some(expression::static_type(of, event)?.unwrap_or(self.stated_type())),
            _ => None,
        })
    }

    /// The type that the job file states for `last` and `first`.
    fn stated_type(&self) -> Type {
        match self.spec.value_type {
            Some(crate::spec::ValueType::Number) => Type::Number,
            _ => Type::Text,
        }
    }

    pub fn has_of(&self) -> bool {
        self.of.is_some()
    }
}

/// A sliding window of whole panes, aligned to the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub length: Micros,
    /// Length of a pane.
    pub pane: Micros,
    /// Panes in the window.
    pub panes: i64,
}

impl Window {
    fn new(length: Micros, days: bool) -> Result<Window, String> {
        let finest = [MINUTE, HOUR, 6 * HOUR].into_iter().find(|pane| length <= 60 * pane).unwrap_or(DAY);
        let pane = if days { DAY } else { finest };
        let panes = length / pane;
        match length > 0 && length % pane == 0 && panes <= 366 {
            true => Ok(Window { length, pane, panes }),
            false => Err(format!("a window of {length} us is not a whole number of panes")),
        }
    }

    pub fn pane_of(&self, time: Micros) -> i64 {
        time.div_euclid(self.pane)
    }

    /// Whether the window as of `now` holds a pane.
    pub fn holds(&self, pane: i64, now: Micros) -> bool {
        let newest = self.pane_of(now);
        pane > newest - self.panes && pane <= newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_have_the_panes_of_the_documents() {
        // Goal: 1h, 24h, 7d, 30d and others are cut as documented; what is no whole number of panes is refused.
        let cut = |length| Window::new(length, false).map(|window| (window.pane, window.panes));
        assert_eq!(cut(HOUR), Ok((MINUTE, 60)));
        assert_eq!(cut(DAY), Ok((HOUR, 24)));
        assert_eq!(cut(7 * DAY), Ok((6 * HOUR, 28)));
        assert_eq!(cut(30 * DAY), Ok((DAY, 30)));
        assert_eq!(cut(366 * DAY), Ok((DAY, 366)));
        assert_eq!(Window::new(7 * DAY, true).map(|window| window.panes), Ok(7));
        assert!(cut(90 * MINUTE).is_err());
        assert!(cut(367 * DAY).is_err());
        assert!(Window::new(36 * HOUR, true).is_err());
    }

    #[test]
    fn a_window_holds_the_pane_of_now_and_those_before_it() {
        // Goal: both ends of the window, also before 1970.
        let window = Window { length: HOUR, pane: MINUTE, panes: 60 };
        assert!(window.holds(window.pane_of(0), 60 * MINUTE - 1));
        assert!(!window.holds(window.pane_of(0), 60 * MINUTE));
        assert!(!window.holds(1, 0));
        assert_eq!(window.pane_of(-1), -1);
    }
}
