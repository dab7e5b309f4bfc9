//! A compiled job: names became slots, expressions became typed trees, and what time alone can change is known.
//!
//! Nothing here is interpreted by name when events flow. A job that cannot be compiled is answered with all its mistakes.

mod conditions;
mod features;
mod identity;
mod scores;
mod views;

use std::sync::Arc;

use whisperer_schemas::{Column, ColumnType, Micros, TableSchema};

use crate::{
    cells::{Layout, SLOTS_MAX, Slot, SlotKind},
    expression::{BoolExpr, Kind, Name, Names},
    features::{Feature, Read},
    intake::Intake,
    layout::StateLayout,
    spec::{Entity, JobError, JobSpec, Located, SnapshotSpec, Span},
    timers::Asks,
};

pub(crate) use conditions::Reads;
pub(crate) use features::Features as CompiledFeatures;
pub use features::STEP_TIMES_MAX;
pub use identity::{EffectOrder, Identity, STATEMENTS_MAX};
pub use scores::{Body, LogisticModel, Score, Term};
pub(crate) use views::{Dimension, Shown};
pub use views::{SEGMENTS_MAX, View, ViewPlan, Views, Word};

/// Most triggers of a job: their states are the bits of one word.
pub const TRIGGERS_MAX: usize = 64;
/// The stage of a key for which no stage holds.
pub const UNKNOWN_STAGE: &str = "unknown";
/// Contributions that a row lists, the largest first.
pub const CONTRIBUTIONS_MAX: usize = 5;

/// A job, ready to run.
#[derive(Debug)]
pub struct CompiledJob {
    /// Its name.
    pub name: String,
    /// Its version, as its author counts.
    pub version: u32,
    /// How far event times may lie behind the largest one of their partition before they are late.
    pub out_of_orderness: Micros,
    /// How long an event id is remembered.
    pub dedup_horizon: Micros,
    /// What the state is kept for.
    pub entity: Entity,
    /// How long after its last event a key's state is dropped; `Micros::MAX` for never.
    pub retention_idle: Micros,
    /// When profile rows are written.
    pub snapshot: SnapshotSpec,
    /// What it needs of an event.
    pub intake: Arc<Intake>,
    /// Accumulators, those of the triggers' pasts last.
    pub layout: Layout,
    /// What states that are encoded with it mean.
    pub state_layout: StateLayout,
    /// The first slot that keeps a trigger's past.
    pub firings: usize,
    /// Slots that a lane's events touch, by lane.
    pub lane_slots: Vec<Vec<usize>>,
    /// Features, in file order.
    pub features: Vec<Feature>,
    /// Scores, in file order.
    pub scores: Vec<Score>,
    /// Stages with their conditions, in file order.
    pub stages: Vec<(String, BoolExpr)>,
    /// Stage names as a key's state numbers them: `unknown` is 0, stage `i` is `i + 1`.
    pub stage_names: Arc<[String]>,
    /// Triggers, in file order.
    pub triggers: Vec<Trigger>,
    /// All scores and the stage, each after what it reads.
    pub steps: Vec<Step>,
    /// All scores, for rows that show the stage of the last evaluation.
    pub score_steps: Vec<Step>,
    /// The steps that a stage or a trigger needs.
    pub condition_steps: Vec<Step>,
    /// The features that a stage or a trigger needs, through scores too.
    pub condition_features: Vec<usize>,
    /// The features that only rows show.
    pub other_features: Vec<usize>,
    /// All features.
    pub all_features: Vec<usize>,
    /// The timers that a state asks for.
    pub asks: Asks,
    /// What is asked about all keys at once.
    pub views: Views,
    /// How ids are linked; none where each is by itself.
    pub identity: Option<Identity>,
    /// The table of decisions.
    pub decisions: Arc<TableSchema>,
    /// The table of profiles.
    pub profiles: Arc<TableSchema>,
}

/// A compiled trigger.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// Fires when this begins to hold.
    pub when: BoolExpr,
    /// Armed again once this has held; always armed if there is none.
    pub rearm: Option<BoolExpr>,
    /// Edges nearer than this to the last firing are suppressed.
    pub cooldown: Micros,
    /// Higher goes first.
    pub priority: i64,
    /// What is to be done, as JSON.
    pub action: Option<Arc<str>>,
}

/// One step of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Computes a score and its level.
    Score(usize),
    /// Finds the lifecycle stage.
    Stage,
}

/// Where the values of names stand: features, then each score's number and level, then the stage.
#[derive(Clone, Copy, Debug)]
pub struct NameSlots {
    features: usize,
    scores: usize,
}

/// What a name slot stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameSlot {
    /// A feature.
    Feature(usize),
    /// A score's number.
    Score(usize),
    /// A score's level.
    Level(usize),
    /// The lifecycle stage.
    Stage,
}

impl NameSlots {
    /// The slot of a name.
    #[must_use]
    pub fn at(self, name: NameSlot) -> usize {
        match name {
            NameSlot::Feature(feature) => feature,
            NameSlot::Score(score) => self.features + 2 * score,
            NameSlot::Level(score) => self.features + 2 * score + 1,
            NameSlot::Stage => self.features + 2 * self.scores,
        }
    }

    /// The name at a slot.
    #[must_use]
    pub fn name(self, slot: usize) -> NameSlot {
        match slot.checked_sub(self.features) {
            None => NameSlot::Feature(slot),
            Some(at) if at == 2 * self.scores => NameSlot::Stage,
            Some(at) if at % 2 == 0 => NameSlot::Score(at / 2),
            Some(at) => NameSlot::Level(at / 2),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(self) -> usize {
        self.features + 2 * self.scores + 1
    }
}

impl CompiledJob {
    /// Compiles a job.
    ///
    /// # Errors
    /// All mistakes of the job, each with its place.
    pub fn new(spec: &JobSpec) -> Result<CompiledJob, Vec<JobError>> {
        let mut errors = Vec::new();
        check_names(spec, &mut errors);
        let features = features::compile(spec, &mut errors);
        let mut names = JobNames::new(spec, &features.features);
        let scores = scores::compile(spec, &mut names, &mut errors);
        let conditions = conditions::compile(spec, &scores, &mut names, &mut errors);
        let mut views = views::compile(spec, &features, &mut names, &mut errors);
        identity::check(spec, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        let asks = Asks::new(spec, &features, &conditions.reads);
        conditions::read_for_views(&mut views, (spec, &scores), &conditions);
        let mut slots = features.slots;
        let firings = slots.len();
        slots.extend(spec.triggers.iter().map(|_| firing_slot()));
        views.add_slots(&mut slots);
        let identity = identity::compile(spec, features.statements, &mut slots);
        if slots.len() > SLOTS_MAX {
            return Err(vec![JobError {
                span: Span::default(),
                message: format!("the job needs {} accumulators, and there are at most {SLOTS_MAX}", slots.len()),
                hint: Some("let features share `where`, `of` and pane length".into()),
            }]);
        }
        let state_layout = StateLayout::new(spec, &slots, &features.lanes, (&names.stages, &views, identity.as_ref()));
        let columns = job_columns(spec, &features.features, &scores);
        let condition_features = conditions.reads.features();
        Ok(CompiledJob {
            name: spec.name.clone(),
            version: spec.version,
            out_of_orderness: spec.out_of_orderness,
            dedup_horizon: spec.dedup_horizon,
            entity: spec.entity,
            retention_idle: spec.retention_idle.unwrap_or(Micros::MAX),
            snapshot: spec.snapshot,
            intake: Arc::new(features.intake),
            layout: Layout::new(slots),
            state_layout,
            firings,
            lane_slots: features.lane_slots,
            all_features: (0..features.features.len()).collect(),
            other_features: (0..features.features.len()).filter(|at| !condition_features.contains(at)).collect(),
            features: features.features,
            scores,
            stages: conditions.stages,
            stage_names: names.stages,
            triggers: conditions.triggers,
            score_steps: conditions.steps.iter().copied().filter(|step| *step != Step::Stage).collect(),
            steps: conditions.steps,
            condition_steps: conditions.condition_steps,
            condition_features,
            asks,
            views,
            identity,
            decisions: Arc::new(TableSchema::decisions(columns.clone())),
            profiles: Arc::new(TableSchema::profiles(columns)),
        })
    }

    /// Where the values of names stand.
    #[must_use]
    pub fn name_slots(&self) -> NameSlots {
        NameSlots { features: self.features.len(), scores: self.scores.len() }
    }
}

fn firing_slot() -> Slot {
    Slot { kind: SlotKind::Firing, lane: usize::MAX, pane: 0, panes: i64::MAX, value: 0, text: false }
}

/// What names mean in `when`, `rearm`, `expr` and models.
struct JobNames {
    names: Vec<(String, Name)>,
    stages: Arc<[String]>,
}

impl JobNames {
    fn new(spec: &JobSpec, features: &[Feature]) -> JobNames {
        let slots = NameSlots { features: spec.features.len(), scores: spec.scores.len() };
        let mut names = Vec::new();
        let mut add = |name: String, slot: NameSlot, kind: Kind| {
            let slot = u16::try_from(slots.at(slot)).unwrap_or(u16::MAX);
            names.push((name, Name { slot, kind }));
        };
        for (at, feature) in spec.features.iter().enumerate() {
            let text = features.get(at).is_some_and(|feature| feature.text);
            add(feature.name.value.clone(), NameSlot::Feature(at), if text { Kind::Text } else { Kind::Number });
        }
        for (at, score) in spec.scores.iter().enumerate() {
            add(score.name.value.clone(), NameSlot::Score(at), Kind::Number);
            if !score.levels.is_empty() {
                let levels = score.levels.iter().map(|(name, _)| name.value.clone()).collect();
                add(format!("{}.level", score.name.value), NameSlot::Level(at), Kind::Choice(levels));
            }
        }
        let own = spec.stages.iter().map(|stage| stage.name.value.clone());
        let stages: Arc<[String]> = [UNKNOWN_STAGE.to_owned()].into_iter().chain(own).collect();
        if !spec.stages.is_empty() {
            add("lifecycle_stage".into(), NameSlot::Stage, Kind::Choice(stages.clone()));
        }
        JobNames { names, stages }
    }
}

impl Names for JobNames {
    fn resolve(&mut self, path: &[String]) -> Option<Name> {
        let joined = path.join(".");
        self.names.iter().find(|(name, _)| *name == joined).map(|(_, name)| name.clone())
    }

    fn candidates(&self) -> Vec<String> {
        self.names.iter().map(|(name, _)| name.clone()).collect()
    }
}

fn check_names(spec: &JobSpec, errors: &mut Vec<JobError>) {
    let columns = spec.features.iter().map(|feature| &feature.name).chain(spec.scores.iter().map(|score| &score.name));
    check_distinct(columns.collect(), errors);
    check_distinct(spec.stages.iter().map(|stage| &stage.name).collect(), errors);
    check_distinct(spec.triggers.iter().map(|trigger| &trigger.name).collect(), errors);
    for score in &spec.scores {
        check_distinct(score.levels.iter().map(|(name, _)| name).collect(), errors);
    }
    if let Some(trigger) = spec.triggers.get(TRIGGERS_MAX) {
        errors.push(JobError {
            span: trigger.name.span.clone(),
            message: format!("a job has at most {TRIGGERS_MAX} triggers"),
            hint: None,
        });
    }
}

fn check_distinct(names: Vec<&Located<String>>, errors: &mut Vec<JobError>) {
    for (at, name) in names.iter().enumerate() {
        if names[..at].iter().any(|earlier| earlier.value == name.value) {
            errors.push(JobError {
                span: name.span.clone(),
                message: format!("the name \"{}\" is taken", name.value),
                hint: None,
            });
        }
    }
}

/// The job's own columns of decisions and profiles: scores, then features.
fn job_columns(spec: &JobSpec, features: &[Feature], scores: &[Score]) -> Vec<Column> {
    use ColumnType::{Bool, List, Number, Text};
    let mut columns = Vec::new();
    for score in scores {
        columns.push(Column::optional(&score.name, Number, "1", "Score"));
        if !score.levels.is_empty() {
            columns.push(Column::optional(&format!("{}_level", score.name), Text, "", "Level of the score"));
        }
        if let Body::Model(_) = score.body {
            let kind = List(vec![("feature", Text), ("contribution", Number)]);
            let doc = "Terms of the model that made the score, less their values at the reference; largest first";
            columns.push(Column::optional(&format!("{}_contributions", score.name), kind, "log-odds", doc));
        }
    }
    for (feature, spec) in features.iter().zip(&spec.features) {
        let kind = if feature.text { Text } else { Number };
        let unit = spec.unit.clone().unwrap_or_else(|| unit(feature).to_owned());
        columns.push(Column::optional(&feature.name, kind, &unit, &describe(spec)));
        if matches!(feature.read, Read::Distinct { .. }) {
            let doc = "Whether there were more different values than are kept";
            columns.push(Column::required(&format!("{}_capped", feature.name), Bool, "", doc));
        }
    }
    columns
}

fn unit(feature: &Feature) -> &'static str {
    match feature.read {
        _ if feature.divide_by.is_some() => "1",
        Read::Count { .. } => "events",
        Read::Rate { .. } => "events/day",
        Read::Distinct { .. } => "values",
        Read::Recency { .. } | Read::Streak { .. } => "days",
        Read::Sessions { .. } => "sessions",
        Read::SessionMinutes { .. } => "minutes",
        _ => "",
    }
}

fn describe(spec: &crate::spec::FeatureSpec) -> String {
    let of = spec.of.as_ref().map_or(String::new(), |of| format!(" of {}", of.value));
    let filter = spec.filter.as_ref().map_or(String::new(), |filter| format!(" where {}", filter.value));
    let window = spec
        .window
        .as_ref()
        .map_or("lifetime".to_owned(), |window| whisperer_schemas::time::format_duration(window.value).to_string());
    format!("{}{of}{filter}, {window}", features::aggregate_name(spec.aggregate))
}
