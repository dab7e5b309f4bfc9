//! Random jobs: every aggregate, expression and model, stages and triggers, built from indexes so that they stay valid while they shrink.

use std::fmt::Write as _;

use proptest::{collection::vec, option, prelude::*};
use whisperer_operators::spec::{
    Aggregate, Entity, FeatureSpec, JobSpec, Located, ModelSpec, ModelTerm, ModelValue, ScoreBody, ScoreSpec,
    SnapshotSpec, StageSpec, Transform, TriggerSpec, ValueType,
};
use whisperer_schemas::time::{DAY, HOUR, MINUTE, Micros, SECOND, format_duration};

/// A job to be.
#[derive(Clone, Debug)]
pub struct Job {
    by_user_alone: bool,
    out_of_orderness: u8,
    horizon: u8,
    idle: u8,
    decay_days: u32,
    distinct_max: u32,
    every: u8,
    full_every: u8,
    features: Vec<Feature>,
    scores: Vec<Score>,
    /// Whether scores may read the stage; otherwise stages may read scores.
    stage_first: bool,
    stages: Vec<Condition>,
    triggers: Vec<Trigger>,
}

#[derive(Clone, Debug)]
struct Feature {
    aggregate: u8,
    of: u8,
    filter: u8,
    window: u8,
    divide_by: u8,
    span: u8,
}

#[derive(Clone, Debug)]
struct Score {
    terms: Vec<(u8, u8, i8)>,
    form: u8,
    reads: (u8, u8),
    levels: bool,
}

#[derive(Clone, Debug)]
struct Condition {
    atoms: Vec<Atom>,
    join: u8,
}

#[derive(Clone, Debug)]
struct Atom {
    name: u8,
    form: u8,
    constant: u8,
    negated: bool,
}

#[derive(Clone, Debug)]
struct Trigger {
    when: Condition,
    rearm: Option<Condition>,
    cooldown: u8,
}

pub fn job() -> impl Strategy<Value = Job> {
    let settings = (
        any::<bool>(),
        any::<u8>(),
        (any::<u8>(), any::<u8>()),
        0..4_u32,
        1..5_u32,
        any::<u8>(),
        any::<u8>(),
        any::<bool>(),
    );
    let parts = (vec(feature(), 1..6), vec(score(), 0..4), vec(condition(), 0..4), vec(trigger(), 0..4));
    (settings, parts).prop_map(|(settings, (features, scores, stages, triggers))| {
        let (
            by_user_alone,
            out_of_orderness,
            (horizon, idle),
            decay_days,
            distinct_max,
            every,
            full_every,
            stage_first,
        ) = settings;
        Job {
            by_user_alone,
            out_of_orderness,
            horizon,
            idle,
            decay_days,
            distinct_max,
            every,
            full_every,
            features,
            scores,
            stage_first,
            stages,
            triggers,
        }
    })
}

fn feature() -> impl Strategy<Value = Feature> {
    (0..15_u8, any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>()).prop_map(
        |(aggregate, of, filter, window, divide_by, span)| Feature { aggregate, of, filter, window, divide_by, span },
    )
}

fn score() -> impl Strategy<Value = Score> {
    (vec((any::<u8>(), any::<u8>(), any::<i8>()), 1..7), any::<u8>(), any::<(u8, u8)>(), any::<bool>())
        .prop_map(|(terms, form, reads, levels)| Score { terms, form, reads, levels })
}

fn condition() -> impl Strategy<Value = Condition> {
    let atom = (any::<u8>(), any::<u8>(), any::<u8>(), prop::bool::weighted(0.2))
        .prop_map(|(name, form, constant, negated)| Atom { name, form, constant, negated });
    (vec(atom, 1..4), any::<u8>()).prop_map(|(atoms, join)| Condition { atoms, join })
}

fn trigger() -> impl Strategy<Value = Trigger> {
    (condition(), option::of(condition()), any::<u8>()).prop_map(|(when, rearm, cooldown)| Trigger {
        when,
        rearm,
        cooldown,
    })
}

fn pick<T: Clone>(choices: &[T], byte: u8) -> T {
    choices[usize::from(byte) % choices.len()].clone()
}

/// What a condition or score may read.
#[derive(Clone, Debug)]
struct Name {
    text: String,
    kind: Kind,
    nullable: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Number,
    Days,
    Text,
    Choice(Vec<String>),
}

impl Job {
    pub fn spec(&self) -> JobSpec {
        let mut spec = JobSpec {
            name: "random".into(),
            version: 3,
            entity: if self.by_user_alone { Entity::User } else { Entity::AppUser },
            out_of_orderness: pick(&[30 * SECOND, 0, 5 * MINUTE, 3 * HOUR, 2 * DAY], self.out_of_orderness),
            dedup_horizon: pick(&[HOUR, 0, MINUTE, DAY, 20 * DAY], self.horizon),
            retention_idle: pick(&[None, Some(DAY), None, Some(6 * HOUR), Some(10 * DAY)], self.idle),
            decay_days: self.decay_days,
            distinct_max: self.distinct_max,
            snapshot: self.snapshot(),
            ..JobSpec::default()
        };
        let mut names = Vec::new();
        for (at, feature) in self.features.iter().enumerate() {
            let feature = feature.spec(&format!("f{at}"));
            names.push(name_of(&feature));
            spec.features.push(feature);
        }
        let stage_names: Vec<String> = (0..self.stages.len()).map(|at| format!("s{at}")).collect();
        let choices = ["unknown".to_owned()].into_iter().chain(stage_names.clone()).collect();
        let stage = Name { text: "lifecycle_stage".into(), kind: Kind::Choice(choices), nullable: false };
        let stage = (!self.stages.is_empty()).then_some(stage);
        let mut read_by_stages = names.clone();
        names.extend(stage.clone().filter(|_| self.stage_first));
        for (at, score) in self.scores.iter().enumerate() {
            let score = score.spec(&format!("score{at}"), &names);
            names.push(Name {
                text: score.name.value.clone(),
                kind: Kind::Number,
                nullable: matches!(score.body, ScoreBody::Expr(_)),
            });
            if !score.levels.is_empty() {
                let levels = score.levels.iter().map(|(level, _)| level.value.clone()).collect();
                let text = format!("{}.level", score.name.value);
                names.push(Name { text, kind: Kind::Choice(levels), nullable: true });
            }
            spec.scores.push(score);
        }
        if !self.stage_first {
            read_by_stages = names.clone();
            names.extend(stage);
        }
        let stages = stage_names.iter().zip(&self.stages);
        let stage = |(name, when): (&String, &Condition)| StageSpec {
            name: name.as_str().into(),
            when: when.text(&read_by_stages).as_str().into(),
        };
        spec.stages = stages.map(stage).collect();
        for (at, trigger) in self.triggers.iter().enumerate() {
            let mut made = TriggerSpec::new(&format!("t{at}"), &trigger.when.text(&names));
            made.rearm = trigger.rearm.as_ref().map(|rearm| rearm.text(&names).as_str().into());
            made.cooldown = pick(&[0, MINUTE, HOUR, DAY, 7 * DAY], trigger.cooldown);
            made.priority = at as i64 - 1;
            made.action = (at == 0).then(|| r#"{"template":"hello"}"#.into());
            spec.triggers.push(made);
        }
        spec
    }

    fn snapshot(&self) -> SnapshotSpec {
        let every = pick(&[None, Some(6 * HOUR), Some(DAY), Some(7 * DAY), Some(5 * HOUR)], self.every);
        let unit = every.unwrap_or(DAY);
        let full_every = pick(&[None, Some(unit), Some(2 * unit), Some(5 * unit)], self.full_every);
        SnapshotSpec { every, full_every }
    }

    pub fn show(&self) -> String {
        show(&self.spec())
    }
}

/// A job in short.
pub fn show(spec: &JobSpec) -> String {
    let mut text = format!(
        "entity {:?}, out_of_orderness {}, horizon {}, idle {:?}, decay_days {}, distinct_max {}, snapshot {:?}\n",
        spec.entity,
        format_duration(spec.out_of_orderness),
        format_duration(spec.dedup_horizon),
        spec.retention_idle,
        spec.decay_days,
        spec.distinct_max,
        spec.snapshot
    );
    let plain = |text: &Option<Located<String>>| text.as_ref().map(|text| text.value.clone());
    for feature in &spec.features {
        let _ = writeln!(
            text,
            "feature {} = {:?} of {:?} where {:?} window {:?} / {:?} half_life {:?} gap {:?} {:?}",
            feature.name.value,
            feature.aggregate,
            plain(&feature.of),
            plain(&feature.filter),
            feature.window.as_ref().map(|window| format_duration(window.value).to_string()),
            feature.divide_by,
            feature.half_life,
            feature.gap,
            feature.value_type,
        );
    }
    for score in &spec.scores {
        let _ = match &score.body {
            ScoreBody::Expr(expr) => writeln!(text, "score {} = {}", score.name.value, expr.value),
            ScoreBody::Model(model) => {
                let term = |term: &ModelTerm| {
                    let ModelTerm { name, weight, transform, null, reference } = term;
                    format!("{weight} * {transform:?}({}) null {null:?} reference {reference:?}", name.value)
                };
                let terms: Vec<String> = model.terms.iter().map(term).collect();
                writeln!(text, "score {} = model {} + {}", score.name.value, model.intercept, terms.join(" + "))
            }
        };
    }
    for stage in &spec.stages {
        let _ = writeln!(text, "stage {} when {}", stage.name.value, stage.when.value);
    }
    for trigger in &spec.triggers {
        let TriggerSpec { name, when, rearm, cooldown, .. } = trigger;
        let _ =
            writeln!(text, "trigger {} when {} rearm {:?} cooldown {cooldown}", name.value, when.value, plain(rearm));
    }
    text
}

const AGGREGATES: [Aggregate; 15] = [
    Aggregate::Count,
    Aggregate::Sum,
    Aggregate::Mean,
    Aggregate::Min,
    Aggregate::Max,
    Aggregate::Last,
    Aggregate::First,
    Aggregate::Distinct,
    Aggregate::Recency,
    Aggregate::Rate,
    Aggregate::Streak,
    Aggregate::Ewma,
    Aggregate::Trend,
    Aggregate::Sessions,
    Aggregate::SessionMinutes,
];

const NUMBERS: [&str; 7] = [
    "properties.amount",
    "properties.score",
    "properties.amount * 2 - 1",
    "properties.amount * properties.score",
    "length(properties.plan)",
    "case when properties.plan = 'pro' then properties.amount else 1 end",
    "coalesce(properties.score, 0.1)",
];

const TEXTS: [&str; 5] = ["properties.plan", "properties.feature", "event_type", "session_id", "context.device_type"];

const UNTYPED: [&str; 2] = ["properties.custom", "properties.flag"];

/// Whether `last` and `first` of this are texts where nothing says otherwise.
pub fn is_text_of(of: &str) -> bool {
    TEXTS.contains(&of) || UNTYPED.contains(&of)
}

const FILTERS: [&str; 12] = [
    "event_type = 'feature_used'",
    "event_type in ('page_viewed', 'user_login', 'payment_failed')",
    "event_type <> 'user_signup'",
    "properties.amount > 5",
    "properties.plan like 'p%' or properties.score >= 4",
    "properties.custom = 'x'",
    "properties.custom = 1",
    "properties.flag",
    "properties.flag is not true",
    "session_id is null and app_id = 'app_0000000000000000'",
    "not (properties.amount between 0 and 10)",
    "properties.score is not null",
];

impl Feature {
    fn spec(&self, name: &str) -> FeatureSpec {
        use Aggregate::{Count, Distinct, Ewma, First, Last, Max, Mean, Min, Rate, Recency, Sum, Trend};
        let aggregate = pick(&AGGREGATES, self.aggregate);
        let mut spec = FeatureSpec::new(name, aggregate);
        let number = pick(&NUMBERS, self.of);
        let any = pick(&[&NUMBERS[..], &TEXTS[..], &UNTYPED[..]].concat(), self.of);
        let of = match aggregate {
            Sum | Mean | Min | Max => Some(number),
            Last | First | Distinct => Some(any),
            Count | Recency | Rate if self.of.is_multiple_of(3) => Some(any),
            Ewma | Trend if self.of.is_multiple_of(2) => Some(number),
            _ => None,
        };
        if matches!(aggregate, Last | First) {
            spec.value_type = match any {
                any if UNTYPED.contains(&any) => {
                    pick(&[None, Some(ValueType::Number), Some(ValueType::Text)], self.span)
                }
                any if TEXTS.contains(&any) => None,
                _ => Some(ValueType::Number),
            };
        }
        spec.of = of.map(Into::into);
        spec.filter = (!self.filter.is_multiple_of(3)).then(|| pick(&FILTERS, self.filter / 3).into());
        spec.window = self.window(aggregate).map(Located::nowhere);
        let number = !matches!(name_of(&spec).kind, Kind::Text);
        spec.divide_by = pick(&[None, None, Some(12.0), Some(0.7)], self.divide_by).filter(|_| number);
        if aggregate == Ewma {
            spec.half_life = Some(pick(&[DAY, HOUR, 7 * DAY, 90 * SECOND], self.span));
        }
        if matches!(aggregate, Aggregate::Sessions | Aggregate::SessionMinutes) {
            spec.gap = pick(&[None, Some(MINUTE), Some(3 * HOUR), Some(2 * DAY), Some(30 * HOUR)], self.span);
        }
        spec
    }

    fn window(&self, aggregate: Aggregate) -> Option<Micros> {
        match aggregate {
            Aggregate::Streak => pick(&[None, Some(DAY), Some(7 * DAY), Some(30 * DAY), Some(2 * DAY)], self.window),
            Aggregate::Trend => Some(pick(&[DAY, 7 * DAY, 30 * DAY, 3 * HOUR, 14 * DAY], self.window)),
            Aggregate::Rate => Some(pick(&[HOUR, DAY, 7 * DAY, 90 * DAY], self.window)),
            _ => {
                let some = [MINUTE, HOUR, DAY, 7 * DAY, 30 * DAY, 90 * DAY, 3 * HOUR, 36 * HOUR];
                pick(&some.map(Some).into_iter().chain([None, None]).collect::<Vec<_>>(), self.window)
            }
        }
    }
}

fn name_of(spec: &FeatureSpec) -> Name {
    use Aggregate::{Ewma, First, Last, Max, Mean, Min, Recency, SessionMinutes};
    let of = spec.of.as_ref().map_or("", |of| of.value.as_str());
    let text = TEXTS.contains(&of) || (UNTYPED.contains(&of) && spec.value_type != Some(ValueType::Number));
    let kind = match spec.aggregate {
        Last | First if text => Kind::Text,
        Recency => Kind::Days,
        _ => Kind::Number,
    };
    let nullable = match spec.aggregate {
        Mean | Min | Max | Last | First | Recency | SessionMinutes => true,
        Ewma => spec.of.is_some(),
        _ => false,
    };
    Name { text: spec.name.value.clone(), kind, nullable }
}

impl Score {
    fn spec(&self, name: &str, names: &[Name]) -> ScoreSpec {
        let body = match self.form % 2 {
            0 => ScoreBody::Model(self.model(names)),
            _ => ScoreBody::Expr(self.expr(names).as_str().into()),
        };
        let levels =
            if self.levels { vec![("low".into(), 0.0), ("mid".into(), 0.3), ("high".into(), 1.5)] } else { vec![] };
        ScoreSpec { name: name.into(), body, levels }
    }

    fn model(&self, names: &[Name]) -> ModelSpec {
        let term = |(name, transform, weight): &(u8, u8, i8)| {
            let name = pick(names, *name);
            let number = |byte: u8| ModelValue::Number(f64::from(byte % 5) / 2.0);
            let some = transform.is_multiple_of(3);
            let (transform, null, reference) = match &name.kind {
                Kind::Number | Kind::Days => {
                    let all = [
                        Transform::Identity,
                        Transform::Log1p,
                        Transform::Standard { mean: 1.5, sd: 0.3 },
                        Transform::Clip { min: -1.0, max: 2.5 },
                    ];
                    (pick(&all, transform / 3), number(*transform), some.then(|| number(transform / 5)))
                }
                Kind::Text => {
                    let all = ["pro", "f3", "user_login"].map(|text| Transform::OneHot(text.into()));
                    (
                        pick(&all, transform / 3),
                        ModelValue::Text("pro".into()),
                        some.then(|| ModelValue::Text("free".into())),
                    )
                }
                Kind::Choice(choices) => {
                    let value = ModelValue::Text(choices[0].clone());
                    (Transform::OneHot(pick(choices, transform / 3)), value.clone(), some.then_some(value))
                }
            };
            let null = (name.nullable || some).then_some(null);
            ModelTerm { name: name.text.as_str().into(), weight: f64::from(*weight) / 25.0, transform, null, reference }
        };
        ModelSpec { intercept: f64::from(self.reads.0) / 50.0 - 2.0, terms: self.terms.iter().map(term).collect() }
    }

    fn expr(&self, names: &[Name]) -> String {
        let mut numbers: Vec<String> = names
            .iter()
            .filter(|name| matches!(name.kind, Kind::Number | Kind::Days))
            .map(|name| name.text.clone())
            .collect();
        // Only where there is nothing else: what constants alone decide is left out when the job is compiled, and asks for no timers.
        if numbers.is_empty() {
            numbers.push("0.5".into());
        }
        let (f, g) = (pick(&numbers, self.reads.0), pick(&numbers, self.reads.1));
        match (self.form / 2) % 13 {
            0 => format!("least(1, coalesce({f}, 0) / 10)"),
            1 => format!("{f} + {g}"),
            2 => format!("case when {f} > 1 then 0.25 when {g} < {f} then {f} else {g} end"),
            3 => format!("exp(-{f})"),
            4 => format!("ln({f}) - {g}"),
            5 => format!("sqrt({f}) * 0.5"),
            6 => format!("pow({f}, 0.5) + pow({g}, 2)"),
            7 => format!("{f} / {g}"),
            8 => format!("greatest({f}, {g}, 0.5)"),
            9 => format!("abs({f}) % 3"),
            10 => format!("round({f}) + floor({g})"),
            11 => format!("case {f} when 1 then 0.5 when 3 then {g} else 2 end"),
            _ => format!("nullif({f}, 1) * 0.1"),
        }
    }
}

impl Condition {
    fn text(&self, names: &[Name]) -> String {
        let atoms: Vec<String> = self.atoms.iter().map(|atom| atom.text(names)).collect();
        let join = if self.join.is_multiple_of(2) { " and " } else { " or " };
        atoms.join(join)
    }
}

impl Atom {
    fn text(&self, names: &[Name]) -> String {
        let Name { text: name, kind, .. } = pick(names, self.name);
        let text = match kind {
            Kind::Number => self.number(&name, &["0", "1", "2", "3", "0.5", "10", "-1", "0.1"]),
            Kind::Days => {
                self.number(&name, &["1", "0", "7", "0.5", "1.0 / 24", "3", "1.0 / 1440", "30", "0.1", "0.000011"])
            }
            Kind::Text => match self.form % 5 {
                0 => format!("{name} = 'pro'"),
                1 => format!("{name} is not null"),
                2 => format!("{name} like 'f%'"),
                3 => format!("length({name}) > 4"),
                _ => format!("{name} in ('free', 'f3', 'user_login', '1')"),
            },
            Kind::Choice(choices) => match self.form % 3 {
                0 => format!("{name} = '{}'", pick(&choices, self.constant)),
                1 => format!("{name} <> '{}'", pick(&choices, self.constant)),
                _ => format!("{name} is null"),
            },
        };
        if self.negated { format!("not ({text})") } else { text }
    }

    fn number(&self, name: &str, constants: &[&str]) -> String {
        let (c, other) = (pick(constants, self.constant), pick(constants, self.constant / 7));
        match self.form % 16 {
            0..3 => format!("{name} >= {c}"),
            3 => format!("{name} < {c}"),
            4 => format!("{name} > {c}"),
            5 => format!("{name} <= {c}"),
            6 => format!("{name} = {c}"),
            7 => format!("{name} <> {c}"),
            8 => format!("{name} between {c} and {other}"),
            9 => format!("{name} in ({c}, {other})"),
            10 => format!("{name} is null"),
            11 => format!("{name} * 2 + 1 > {c}"),
            12 => format!("{c} <= {name}"),
            13 => format!("coalesce({name}, 0) > {c}"),
            14 => format!("{name} not in ({c}, {other})"),
            _ => format!("{c} > ({name})"),
        }
    }
}
