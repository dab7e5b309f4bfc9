//! A job as its author wrote it: features, scores, stages, triggers, each text with its place in the job file.
//!
//! A job file is read into a [`JobSpec`] by `dataflows`; a program builds one by hand. [`crate::job::CompiledJob::new`]
//! makes of it typed slots, or says all that is wrong with it at once.

mod identity;
mod views;

use std::{fmt, ops::Range, sync::Arc};

use whisperer_schemas::time::{DAY, HOUR, Micros, SECOND};

pub use identity::{COMPONENT_IDS_MAX, IdentitySpec, LinkSpec};
pub use views::{Period, SegmentSpec, StepSpec, ViewKind, ViewSpec};

/// A value and the bytes of the file it was written in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub span: Span,
}

/// A range of bytes in one of a job's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// 0 is the job file; model files count from 1, in the order in which scores name them.
    pub file: u16,
    /// The bytes; `0..0` where there is no file.
    pub bytes: Range<usize>,
}

impl<T> Located<T> {
    /// A value that stands in no file.
    pub fn nowhere(value: T) -> Located<T> {
        Located { value, span: Span::default() }
    }
}

impl From<&str> for Located<String> {
    fn from(text: &str) -> Self {
        Located::nowhere(text.to_owned())
    }
}

/// One mistake in a job, with its place and, where one is near, what was probably meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobError {
    /// Where the mistake is.
    pub span: Span,
    /// What is wrong, with names quoted.
    pub message: String,
    /// What may help.
    pub hint: Option<String>,
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for JobError {}

/// What the state is kept for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entity {
    /// `["app_id", "user_id"]`
    #[default]
    AppUser,
    /// `["user_id"]`: one user over all applications; rows show the application seen first.
    User,
}

/// A whole job, before it is compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct JobSpec {
    /// The job's name.
    pub name: String,
    /// Its version, as its author counts.
    pub version: u32,
    /// What the state is kept for.
    pub entity: Entity,
    /// How far event times may lie behind the largest one of their partition before they are late.
    pub out_of_orderness: Micros,
    /// How long an event id is remembered.
    pub dedup_horizon: Micros,
    /// How long after a key's last event its state is dropped; never, where there is none.
    pub retention_idle: Option<Micros>,
    /// How many days after the key clock drifting values (`ewma`, `recency`) are still looked at each midnight.
    pub decay_days: u32,
    /// Values kept per `distinct` feature and key.
    pub distinct_max: u32,
    /// The event types that there are, for a closed list; none where any is admitted.
    pub event_types: Option<Arc<[String]>>,
    /// When profile rows are written.
    pub snapshot: SnapshotSpec,
    /// Per-key aggregates.
    pub features: Vec<FeatureSpec>,
    /// Scores in 0..1 or otherwise, from features and one another.
    pub scores: Vec<ScoreSpec>,
    /// Lifecycle stages; the first that holds wins.
    pub stages: Vec<StageSpec>,
    /// What leads to decisions.
    pub triggers: Vec<TriggerSpec>,
    /// What is asked about all users at once.
    pub views: Vec<ViewSpec>,
    /// Which ids are one person; each by itself where there is none.
    pub identity: Option<IdentitySpec>,
}

impl JobSpec {
    /// A hash of all that the job's results depend on, in hex; the same wherever its texts stand in files.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut plain = self.clone();
        plain.strip_places();
        format!("{:032x}", xxhash_rust::xxh3::xxh3_128(format!("{plain:?}").as_bytes()))
    }

    fn strip_places(&mut self) {
        let strip = |text: &mut Located<String>| text.span = Span::default();
        for feature in &mut self.features {
            feature.aggregate_span = Span::default();
            strip(&mut feature.name);
            feature.of.iter_mut().chain(&mut feature.filter).for_each(strip);
            feature.window.iter_mut().for_each(|window| window.span = Span::default());
        }
        for score in &mut self.scores {
            strip(&mut score.name);
            score.levels.iter_mut().for_each(|(name, _)| strip(name));
            match &mut score.body {
                ScoreBody::Expr(text) => strip(text),
                ScoreBody::Model(model) => model.terms.iter_mut().for_each(|term| strip(&mut term.name)),
            }
        }
        for stage in &mut self.stages {
            strip(&mut stage.name);
            strip(&mut stage.when);
        }
        for trigger in &mut self.triggers {
            strip(&mut trigger.name);
            strip(&mut trigger.when);
            trigger.rearm.iter_mut().for_each(strip);
        }
        self.views.iter_mut().for_each(ViewSpec::strip_places);
        self.identity.iter_mut().for_each(IdentitySpec::strip_places);
    }
}

impl Default for JobSpec {
    fn default() -> Self {
        JobSpec {
            name: "job".into(),
            version: 1,
            entity: Entity::AppUser,
            out_of_orderness: 30 * SECOND,
            dedup_horizon: HOUR,
            retention_idle: None,
            decay_days: 90,
            distinct_max: 4096,
            event_types: None,
            snapshot: SnapshotSpec::default(),
            features: Vec::new(),
            scores: Vec::new(),
            stages: Vec::new(),
            triggers: Vec::new(),
            views: Vec::new(),
            identity: None,
        }
    }
}

/// When profile rows are written, in event time. Rows at the end of a bounded input are always written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotSpec {
    /// Rows of the keys that changed since their last row, at multiples of this since the Unix epoch.
    pub every: Option<Micros>,
    /// Rows of every key, at multiples of this; a multiple of `every` where both are given.
    pub full_every: Option<Micros>,
}

/// What a feature computes; `docs/jobs.md` defines each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the definitions")]
pub enum Aggregate {
    Count,
    Sum,
    Mean,
    Min,
    Max,
    Last,
    First,
    Distinct,
    Recency,
    Rate,
    Streak,
    Ewma,
    Trend,
    Sessions,
    SessionMinutes,
}

/// The type that `last` and `first` take where the event contract does not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// 64-bit floating point.
    Number,
    /// UTF-8.
    Text,
}

/// One `[[feature]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureSpec {
    /// Its name in expressions and its column.
    pub name: Located<String>,
    /// What it computes.
    pub aggregate: Aggregate,
    /// Where `aggregate` was written, for errors.
    pub aggregate_span: Span,
    /// The expression whose values are aggregated.
    pub of: Option<Located<String>>,
    /// `where`: the events that count.
    pub filter: Option<Located<String>>,
    /// Length of the sliding window; none is lifetime.
    pub window: Option<Located<Micros>>,
    /// What the value is divided by.
    pub divide_by: Option<f64>,
    /// `ewma` only.
    pub half_life: Option<Micros>,
    /// `sessions` and `session_minutes` only; 30 minutes if left out.
    pub gap: Option<Micros>,
    /// `type`: `last` and `first` of a property outside the contract; text if left out.
    pub value_type: Option<ValueType>,
    /// The unit of the value for the tables; derived from the aggregate where left out.
    pub unit: Option<String>,
}

impl FeatureSpec {
    /// A lifetime feature over all events.
    #[must_use]
    pub fn new(name: &str, aggregate: Aggregate) -> FeatureSpec {
        FeatureSpec {
            name: name.into(),
            aggregate,
            aggregate_span: Span::default(),
            of: None,
            filter: None,
            window: None,
            divide_by: None,
            half_life: None,
            gap: None,
            value_type: None,
            unit: None,
        }
    }
}

/// One `[[score]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreSpec {
    /// Its name in expressions and its column.
    pub name: Located<String>,
    /// How it is computed.
    pub body: ScoreBody,
    /// Level names and their lower bounds, in ascending order of bounds.
    pub levels: Vec<(Located<String>, f64)>,
}

/// How a score is computed.
#[derive(Clone, Debug, PartialEq)]
pub enum ScoreBody {
    /// A SQL expression.
    Expr(Located<String>),
    /// A logistic model.
    Model(ModelSpec),
}

/// A logistic model: `1 / (1 + exp(-(intercept + terms in file order)))`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// The constant term.
    pub intercept: f64,
    /// One term per `[[feature]]` of the model file, in file order.
    pub terms: Vec<ModelTerm>,
}

/// One `[[feature]]` of a model file.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelTerm {
    /// A feature, a score or `lifecycle_stage`.
    pub name: Located<String>,
    /// What the transformed value is multiplied by.
    pub weight: f64,
    /// What is done to the value before.
    pub transform: Transform,
    /// The value taken where the input is null.
    pub null: Option<ModelValue>,
    /// The value whose term contributions are measured from; 0 if left out.
    pub reference: Option<ModelValue>,
}

/// A constant in a model file.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are the definitions")]
pub enum ModelValue {
    Number(f64),
    Text(String),
}

/// What a model does to a value before it is weighted.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Transform {
    /// `x`
    #[default]
    Identity,
    /// `ln(1 + x)`
    Log1p,
    /// `(x - mean) / sd`
    Standard {
        /// Subtracted.
        mean: f64,
        /// Divided by.
        sd: f64,
    },
    /// `min(max(x, min), max)`
    Clip {
        /// Lower bound.
        min: f64,
        /// Upper bound.
        max: f64,
    },
    /// 1 where the text equals this, else 0.
    OneHot(String),
}

/// One `[[stage]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct StageSpec {
    /// The stage's name.
    pub name: Located<String>,
    /// When the key is in it, unless in an earlier one.
    pub when: Located<String>,
}

/// One `[[trigger]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerSpec {
    /// The trigger's name.
    pub name: Located<String>,
    /// Fires when this begins to hold.
    pub when: Located<String>,
    /// After a firing, armed again once this has held; always armed if left out.
    pub rearm: Option<Located<String>>,
    /// Edges nearer than this to the last firing are suppressed.
    pub cooldown: Micros,
    /// Higher goes first where deliveries compete.
    pub priority: i64,
    /// What is to be done, as JSON text for the decision row.
    pub action: Option<Arc<str>>,
}

impl TriggerSpec {
    /// A trigger without re-arm, cooldown or action.
    #[must_use]
    pub fn new(name: &str, when: &str) -> TriggerSpec {
        TriggerSpec { name: name.into(), when: when.into(), rearm: None, cooldown: 0, priority: 0, action: None }
    }
}

/// Days in a span of event time, as a fraction.
#[must_use]
pub fn days(span: Micros) -> f64 {
    span as f64 / DAY as f64
}
