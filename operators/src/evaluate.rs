//! An evaluation: features, scores, the stage and the triggers of one key at one instant.

use std::cell::Cell;

use whisperer_schemas::Micros;

use crate::{
    expression::Env,
    features::{CellsView, Reading},
    interner::Interner,
    job::{Body, CompiledJob, LogisticModel, NameSlot, NameSlots, Step, Term},
    memo::{Memo, Outcome},
};

/// A text that there is none of.
const NO_TEXT: u32 = u32::MAX;

/// The values of a job's names for one key at one instant; reused from evaluation to evaluation.
#[derive(Debug)]
pub struct Values {
    slots: NameSlots,
    numbers: Vec<f64>,
    texts: Vec<u32>,
    nulls: Cell<u64>,
    /// Outcomes of evaluations, and the readings of the one at hand.
    memo: Memo,
    readings: Vec<u64>,
}

impl Values {
    /// Values of a job's names, all null.
    #[must_use]
    pub fn new(job: &CompiledJob) -> Values {
        let slots = job.name_slots();
        Values {
            slots,
            numbers: vec![f64::NAN; slots.count()],
            texts: vec![NO_TEXT; slots.count()],
            nulls: Cell::new(0),
            memo: Memo::new(job.condition_features.len()),
            readings: Vec::new(),
        }
    }

    /// What the conditions say, their features having been read; `disarmed` are the triggers that wait for their `rearm`. Evaluations
    /// whose readings are likely to come again are `remembered`; after those, scores may be left uncomputed.
    pub(crate) fn outcome(&mut self, job: &CompiledJob, texts: &Interner, disarmed: u64, remembered: bool) -> Outcome {
        if !remembered {
            return self.compute_outcome(job, texts, disarmed);
        }
        let mut readings = std::mem::take(&mut self.readings);
        readings.clear();
        readings.extend(job.condition_features.iter().map(|at| match job.features[*at].text {
            true => u64::from(self.texts[*at]),
            false => self.numbers[*at].to_bits(),
        }));
        let place = self.memo.place(&readings);
        let outcome = self.memo.get(place, &readings).unwrap_or_else(|| {
            let before = self.nulls.get();
            let outcome = self.compute_outcome(job, texts, u64::MAX);
            if self.nulls.get() == before {
                self.memo.put(place, &readings, outcome);
                return outcome;
            }
            // Nulls count, so nothing may be evaluated that is not asked for.
            self.nulls.set(before);
            self.compute_outcome(job, texts, disarmed)
        });
        self.readings = readings;
        outcome
    }

    fn compute_outcome(&mut self, job: &CompiledJob, texts: &Interner, disarmed: u64) -> Outcome {
        self.compute(job, &job.condition_steps, texts);
        let env = self.env(job, texts);
        let mut outcome = Outcome { stage: self.stage(), ..Outcome::default() };
        for (at, trigger) in job.triggers.iter().enumerate() {
            if let Some(rearm) = &trigger.rearm
                && disarmed & (1 << at) != 0
            {
                outcome.rearms |= u64::from(rearm.eval(&env) == Some(true)) << at;
            }
            outcome.holds |= u64::from(trigger.when.eval(&env) == Some(true)) << at;
        }
        outcome
    }

    /// Reads features as of `now`.
    pub fn read(&mut self, job: &CompiledJob, features: &[usize], cells: CellsView<'_>, now: Micros) {
        for at in features {
            match job.features[*at].read(cells, now) {
                Reading::Number(number) => self.numbers[*at] = number,
                Reading::Text(text) => self.texts[*at] = text.unwrap_or(NO_TEXT),
            }
        }
    }

    /// Computes scores and the stage, in the order of `steps`.
    pub fn compute(&mut self, job: &CompiledJob, steps: &[Step], texts: &Interner) {
        for step in steps {
            match *step {
                Step::Score(at) => self.score(job, at, texts),
                Step::Stage => {
                    let env = self.env(job, texts);
                    let stage = job.stages.iter().position(|(_, when)| when.eval(&env) == Some(true));
                    self.set_stage(stage.map_or(0, |stage| stage as u16 + 1));
                }
            }
        }
    }

    fn score(&mut self, job: &CompiledJob, at: usize, texts: &Interner) {
        let score = &job.scores[at];
        let env = self.env(job, texts);
        let value = match &score.body {
            Body::Expr(expr) => expr.eval(&env),
            Body::Model(model) => logistic(model, &env),
        };
        let level = score.level(value).map_or(NO_TEXT, |level| level as u32);
        let (number_slot, level_slot) = (self.slots.at(NameSlot::Score(at)), self.slots.at(NameSlot::Level(at)));
        self.numbers[number_slot] = value;
        self.texts[level_slot] = level;
    }

    /// The stage, as the job numbers stages.
    #[must_use]
    pub fn stage(&self) -> u16 {
        self.texts[self.slots.at(NameSlot::Stage)] as u16
    }

    /// Sets the stage, for what reads it without an evaluation.
    pub fn set_stage(&mut self, stage: u16) {
        let slot = self.slots.at(NameSlot::Stage);
        self.texts[slot] = u32::from(stage);
    }

    /// A feature's or score's number; NaN is null.
    #[must_use]
    pub fn number(&self, name: NameSlot) -> f64 {
        self.numbers[self.slots.at(name)]
    }

    /// The place of a level or the stage in its list, or the number of a text among the worker's; none where it is null.
    #[must_use]
    pub fn place(&self, name: NameSlot) -> Option<u32> {
        Some(self.texts[self.slots.at(name)]).filter(|place| *place != NO_TEXT)
    }

    /// Operations on values that gave none since this was last asked.
    pub fn take_nulls(&self) -> u64 {
        self.nulls.take()
    }

    /// These values as the environment of expressions.
    #[must_use]
    pub fn env<'a>(&'a self, job: &'a CompiledJob, texts: &'a Interner) -> KeyEnv<'a> {
        KeyEnv { job, texts, values: self }
    }
}

/// The values of a key as the environment of expressions.
#[derive(Clone, Copy, Debug)]
pub struct KeyEnv<'a> {
    job: &'a CompiledJob,
    texts: &'a Interner,
    values: &'a Values,
}

impl<'a> KeyEnv<'a> {
    /// The text at a slot, for as long as the values stand.
    #[must_use]
    pub fn text_at(&self, slot: usize) -> Option<&'a str> {
        let number = self.values.texts[slot];
        if number == NO_TEXT {
            return None;
        }
        match self.values.slots.name(slot) {
            NameSlot::Feature(_) => Some(self.texts.get(number)),
            NameSlot::Level(score) => Some(&self.job.scores[score].levels[number as usize].0),
            NameSlot::Stage => Some(&self.job.stage_names[number as usize]),
            NameSlot::Score(_) => None,
        }
    }

    /// A term of a model less its value at the reference; none where the score is null.
    #[must_use]
    pub fn contribution(&self, term: &Term) -> Option<f64> {
        let x = transformed(term, self);
        (!x.is_nan()).then_some(term.weight * x - term.reference)
    }
}

impl Env for KeyEnv<'_> {
    #[inline]
    fn number(&self, slot: u16) -> f64 {
        self.values.numbers[usize::from(slot)]
    }

    fn text(&self, slot: u16) -> Option<&str> {
        self.text_at(usize::from(slot))
    }

    fn boolean(&self, _slot: u16) -> Option<bool> {
        None
    }

    fn is_null(&self, slot: u16) -> bool {
        self.values.numbers[usize::from(slot)].is_nan() && self.values.texts[usize::from(slot)] == NO_TEXT
    }

    fn count_null(&self) {
        self.values.nulls.set(self.values.nulls.get() + 1);
    }
}

fn logistic(model: &LogisticModel, env: &KeyEnv<'_>) -> f64 {
    // A term without a value is NaN and makes the sum NaN, which is null.
    let z = model.terms.iter().fold(model.intercept, |z, term| z + term.weight * transformed(term, env));
    let score = 1.0 / (1.0 + libm::exp(-z));
    if z.is_nan() { f64::NAN } else { score }
}

fn transformed(term: &Term, env: &KeyEnv<'_>) -> f64 {
    let slot = usize::from(term.slot);
    let text = env.text_at(slot);
    let number = env.values.numbers[slot];
    match text {
        Some(text) => term.transform.text(text),
        None if number.is_nan() => term.null,
        None => term.transform.number(number),
    }
}
