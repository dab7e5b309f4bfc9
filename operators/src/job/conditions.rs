//! Stages and triggers, the order of an evaluation, and what the conditions read.

use crate::{
    expression::{self, BoolExpr, Comparison, NumberUse},
    spec::{JobError, JobSpec, Located},
};

use super::{Body, JobNames, NameSlot, NameSlots, Score, Shown, Step, Trigger, Views};

/// Stages and triggers, compiled.
pub(super) struct Conditions {
    pub(super) stages: Vec<(String, BoolExpr)>,
    pub(super) triggers: Vec<Trigger>,
    pub(super) steps: Vec<Step>,
    pub(super) condition_steps: Vec<Step>,
    pub(super) reads: Reads,
}

/// What the conditions of a job read, through scores too.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Features that are read at all.
    features: Vec<usize>,
    /// Bare features compared with constants.
    pub(crate) comparisons: Vec<(usize, Comparison, f64)>,
    /// Features that are read in any other way.
    pub(crate) otherwise: Vec<usize>,
    scores: Vec<usize>,
}

impl Reads {
    /// The features that are read, ascending.
    pub(crate) fn features(&self) -> Vec<usize> {
        let mut features = self.features.clone();
        features.sort_unstable();
        features
    }
}

pub(super) fn compile(
    spec: &JobSpec,
    scores: &[Score],
    names: &mut JobNames,
    errors: &mut Vec<JobError>,
) -> Conditions {
    let mut condition = |text: &Located<String>| {
        expression::compile_condition(text, names).unwrap_or_else(|found| {
            errors.extend(found);
            BoolExpr::Constant(None)
        })
    };
    let stages: Vec<_> = spec.stages.iter().map(|stage| (stage.name.value.clone(), condition(&stage.when))).collect();
    let triggers: Vec<_> = spec
        .triggers
        .iter()
        .map(|trigger| Trigger {
            name: trigger.name.value.clone(),
            when: condition(&trigger.when),
            rearm: trigger.rearm.as_ref().map(&mut condition),
            cooldown: trigger.cooldown,
            priority: trigger.priority,
            action: trigger.action.clone(),
        })
        .collect();
    let slots = NameSlots { features: spec.features.len(), scores: spec.scores.len() };
    let mut order = Order { slots, scores, stages: &stages, done: Vec::new(), open: Vec::new(), cycle: None };
    let steps = order.all();
    if let Some(step) = order.cycle {
        let (what, name) = match step {
            Step::Score(score) => ("score", &spec.scores[score].name),
            Step::Stage => ("stage", &spec.stages[0].name),
        };
        errors.push(JobError {
            span: name.span.clone(),
            message: format!("{what} \"{}\" reads itself, through other scores or the stage", name.value),
            hint: Some("break the circle: scores and stages may read one another, but not round".into()),
        });
    }
    let reads = reads(slots, scores, &stages, &triggers);
    let needed = |step: &Step| match step {
        Step::Score(score) => reads.scores.contains(score),
        Step::Stage => true,
    };
    let condition_steps = steps.iter().copied().filter(needed).collect();
    Conditions { stages, triggers, steps, condition_steps, reads }
}

/// Notes what has to be read for what views show, besides what the conditions read. Nothing is asked for by timers: a view follows
/// evaluations, and causes none.
pub(super) fn read_for_views(views: &mut Views, (spec, scores): (&JobSpec, &[Score]), conditions: &Conditions) {
    let slots = NameSlots { features: spec.features.len(), scores: spec.scores.len() };
    let mut roots = Vec::new();
    for shown in &views.shown {
        match shown {
            Shown::Number(slot) | Shown::Text(slot) | Shown::Choice(slot) => roots.push(slots.at(*slot) as u16),
            Shown::Condition(_, condition) => condition.slots(&mut |slot| roots.push(slot)),
        }
    }
    let (mut read, mut open) = (Reads::default(), Vec::new());
    roots.iter().for_each(|slot| read.note(slots, *slot, &mut open));
    while let Some(score) = open.pop() {
        scores[score].body.slots(&mut |slot| read.note(slots, slot, &mut open));
    }
    // The stage itself is that of the evaluation, which comes before.
    let needed = |step: &Step| matches!(step, Step::Score(score) if read.scores.contains(score));
    let steps = conditions.steps.iter().copied().filter(needed).collect();
    let mut features = read.features();
    features.retain(|feature| !conditions.reads.features.contains(feature));
    views.note_reads(features, steps);
}

/// Finds an order in which every score and the stage come after what they read.
struct Order<'a> {
    slots: NameSlots,
    scores: &'a [Score],
    stages: &'a [(String, BoolExpr)],
    done: Vec<Step>,
    open: Vec<Step>,
    cycle: Option<Step>,
}

impl Order<'_> {
    fn all(&mut self) -> Vec<Step> {
        for score in 0..self.scores.len() {
            self.visit(Step::Score(score));
        }
        if !self.stages.is_empty() {
            self.visit(Step::Stage);
        }
        self.done.clone()
    }

    fn visit(&mut self, step: Step) {
        if self.done.contains(&step) {
            return;
        }
        if self.open.contains(&step) {
            self.cycle = self.cycle.or(Some(step));
            return;
        }
        self.open.push(step);
        for slot in self.inputs(step) {
            match self.slots.name(usize::from(slot)) {
                NameSlot::Feature(_) => {}
                NameSlot::Score(score) | NameSlot::Level(score) => self.visit(Step::Score(score)),
                NameSlot::Stage => self.visit(Step::Stage),
            }
        }
        self.open.pop();
        self.done.push(step);
    }

    fn inputs(&self, step: Step) -> Vec<u16> {
        let mut slots = Vec::new();
        match step {
            Step::Score(score) => self.scores[score].body.slots(&mut |slot| slots.push(slot)),
            Step::Stage => self.stages.iter().for_each(|(_, when)| when.slots(&mut |slot| slots.push(slot))),
        }
        slots
    }
}

fn reads(slots: NameSlots, scores: &[Score], stages: &[(String, BoolExpr)], triggers: &[Trigger]) -> Reads {
    let mut reads = Reads::default();
    let mut open = Vec::new();
    let conditions = stages.iter().map(|(_, when)| when);
    let conditions = conditions
        .chain(triggers.iter().flat_map(|trigger| [Some(&trigger.when), trigger.rearm.as_ref()].into_iter().flatten()));
    for condition in conditions {
        condition.slots(&mut |slot| reads.note(slots, slot, &mut open));
        condition.number_uses(&mut |used| reads.note_use(slots, used));
    }
    while let Some(score) = open.pop() {
        let body = &scores[score].body;
        body.slots(&mut |slot| reads.note(slots, slot, &mut open));
        match body {
            Body::Expr(expr) => expr.number_uses(&mut |used| reads.note_use(slots, used)),
            Body::Model(model) => {
                let each = model.terms.iter().map(|term| NumberUse::Other { slot: term.slot });
                each.for_each(|used| reads.note_use(slots, used));
            }
        }
    }
    reads
}

impl Reads {
    fn note(&mut self, slots: NameSlots, slot: u16, open: &mut Vec<usize>) {
        match slots.name(usize::from(slot)) {
            NameSlot::Feature(feature) if !self.features.contains(&feature) => self.features.push(feature),
            NameSlot::Score(score) | NameSlot::Level(score) if !self.scores.contains(&score) => {
                self.scores.push(score);
                open.push(score);
            }
            _ => {}
        }
    }

    fn note_use(&mut self, slots: NameSlots, used: NumberUse) {
        match used {
            NumberUse::CompareConstant { slot, op, constant } => {
                if let NameSlot::Feature(feature) = slots.name(usize::from(slot)) {
                    self.comparisons.push((feature, op, constant));
                }
            }
            NumberUse::Other { slot } => {
                if let NameSlot::Feature(feature) = slots.name(usize::from(slot)) {
                    self.otherwise.push(feature);
                }
            }
        }
    }
}
