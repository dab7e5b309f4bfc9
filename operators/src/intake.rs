//! The intake: what a job needs of an event, and how an event becomes a [`Record`].
//!
//! A parser extracts the [`Field`]s that the intake names, straight from the bytes, and hands an [`EventView`] over;
//! the intake evaluates each `where` and `of` and packs the results into lanes. Nothing else of an event travels on.
//!
//! A *lane* is one different pair of `where` and `of`. Since most filters speak of the event type, every filter is
//! evaluated in advance for each known type: what is left to do per event is a mask and the few filters that depend on more.

use std::{cell::Cell, sync::Arc};

use compact_str::CompactString;
use hashbrown::HashMap;
use smallvec::SmallVec;
use whisperer_schemas::{
    KeyHash,
    erasure::USER_ERASED,
    event::{ContractType, EVENT_TYPES, event_type_index, property_type},
    ids::text_hash,
    time::Micros,
};

pub use whisperer_schemas::event::Group;

use crate::{
    expression::{self, BoolExpr, Env, Expr, Kind, Name, Names},
    record::{LANES_MAX, LaneMask, Record},
    spec::{Entity, JobError, Located},
};

/// A field that the job reads: `properties.a.b` has the group `Properties` and the path `["a", "b"]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Field {
    /// The object that holds it.
    pub group: Group,
    /// Member names from there.
    pub path: Vec<String>,
}

/// A field's value in one event, borrowed from the input.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum FieldValue<'a> {
    /// Absent, null, an array or an object.
    #[default]
    Null,
    /// A truth value.
    Bool(bool),
    /// A finite number.
    Number(f64),
    /// Text.
    Text(&'a str),
    /// A cell of a CSV row, which has no type: a number where a number is needed and it is one, text elsewhere.
    Cell(&'a str),
}

/// One valid event as a parser sees it.
#[derive(Clone, Copy, Debug)]
pub struct EventView<'a> {
    /// Its id.
    pub event_id: &'a str,
    /// The application.
    pub app_id: &'a str,
    /// The user.
    pub user_id: &'a str,
    /// The session, if it names one.
    pub session_id: Option<&'a str>,
    /// The event type.
    pub event_type: &'a str,
    /// Event time, already clamped to the ingest time.
    pub time: Micros,
    /// Values of [`Intake::fields`], in their order.
    pub fields: &'a [FieldValue<'a>],
}

/// Where a record stands, for [`Intake::record`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// The partition.
    pub partition: u32,
    /// The chunk of the partition's part of the epoch.
    pub chunk: u32,
    /// Offset in the partition.
    pub offset: u64,
    /// Largest event time of the records before this one in its chunk; `Micros::MIN` where there is none.
    pub chunk_time_max: Micros,
}

/// What is kept of the value of an `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueKind {
    /// Only whether there is one.
    Presence,
    /// The number.
    Number,
    /// A hash of the number or text, for distinct counts.
    Hash,
    /// The text.
    Text,
}

/// A compiled intake, shared by all parsers of a job.
#[derive(Debug)]
pub struct Intake {
    entity: Entity,
    fields: Vec<Field>,
    values: Vec<Value>,
    numbers: usize,
    texts: usize,
    /// By index of the contract's event types, then the job's own.
    plans: Vec<TypePlan>,
    more_types: HashMap<String, usize>,
    /// For types that are known to nobody in advance.
    any_type: TypePlan,
    /// For the type that erases its user.
    erasing: TypePlan,
}

/// An `of`: what it is, what is kept of it, and where that stands in the record.
#[derive(Debug)]
struct Value {
    of: Expr,
    kind: ValueKind,
    slot: usize,
}

/// What there is to do for events of one type.
#[derive(Debug, Default)]
struct TypePlan {
    /// Lanes that every event of the type touches, as far as `where` goes.
    sure: LaneMask,
    /// Filters that depend on more than the type, and their lanes.
    tests: Vec<(BoolExpr, LaneMask)>,
    /// Values that these lanes need, and the lanes that go without it.
    values: Vec<(usize, LaneMask)>,
    /// Whether they erase their user.
    erases: bool,
}

/// Slots of the names that every event has; fields follow.
const EVENT_TYPE: u16 = 0;
const IDS: [&str; 4] = ["event_id", "app_id", "user_id", "session_id"];
const FIELDS: u16 = 5;

impl Intake {
    /// The fields that a parser has to extract, in the order in which [`EventView::fields`] lists them.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Whether users are the same in all applications.
    #[must_use]
    pub fn joins_applications(&self) -> bool {
        self.entity == Entity::User
    }

    /// Reduces an event to its record.
    #[must_use]
    pub fn record(&self, event: &EventView<'_>, place: Place) -> Record {
        let env = EventEnv { event, nulls: Cell::new(0) };
        let plan = self.plan(event.event_type);
        let mut lanes = plan.sure;
        for (filter, mask) in &plan.tests {
            if filter.eval(&env) == Some(true) {
                lanes |= mask;
            }
        }
        let mut record = Record {
            key: self.key(event).0,
            event_hash: text_hash(event.event_id),
            time: event.time,
            chunk_time_max: place.chunk_time_max,
            offset: place.offset,
            partition: place.partition,
            chunk: place.chunk,
            nulls: 0,
            erases: plan.erases,
            lanes,
            values: SmallVec::from_elem(0, self.numbers),
            texts: SmallVec::from_elem(None, self.texts),
            event_id: CompactString::new(event.event_id),
            app_id: CompactString::new(event.app_id),
            user_id: CompactString::new(event.user_id),
        };
        self.fill_values(plan, &env, &mut record);
        record.nulls = env.nulls.get();
        record
    }

    fn fill_values(&self, plan: &TypePlan, env: &EventEnv<'_>, record: &mut Record) {
        for (value, mask) in &plan.values {
            if record.lanes & mask == 0 {
                continue;
            }
            let Value { of, kind, slot } = &self.values[*value];
            let slot = *slot;
            let present = match kind {
                ValueKind::Presence => !is_null(of, env),
                ValueKind::Number => number(of, env).map(|number| record.values[slot] = number.to_bits()).is_some(),
                ValueKind::Hash => hash(of, env).map(|hash| record.values[slot] = hash).is_some(),
                ValueKind::Text => text(of, env).map(|text| record.texts[slot] = Some(text)).is_some(),
            };
            if !present {
                record.lanes &= !mask;
            }
        }
    }

    /// Where a value stands in [`Record::values`] or [`Record::texts`].
    pub(crate) fn value_slot(&self, value: usize) -> usize {
        self.values[value].slot
    }

    fn key(&self, event: &EventView<'_>) -> KeyHash {
        match self.entity {
            Entity::AppUser => KeyHash::of(&[event.app_id, event.user_id]),
            Entity::User => KeyHash::of(&[event.user_id]),
        }
    }

    fn plan(&self, event_type: &str) -> &TypePlan {
        let known = event_type_index(event_type).map(usize::from);
        if let Some(index) = known {
            return &self.plans[index];
        }
        if event_type == USER_ERASED {
            return &self.erasing;
        }
        self.more_types.get(event_type).map_or(&self.any_type, |index| &self.plans[*index])
    }
}

/// Collects the lanes of a job's features, then becomes its [`Intake`].
#[derive(Debug)]
pub(crate) struct IntakeBuilder {
    entity: Entity,
    names: EventNames,
    filters: Vec<(String, BoolExpr)>,
    values: Vec<(String, ValueKind, Expr)>,
    lanes: Vec<Lane>,
}

/// A lane: where, and of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lane {
    filter: Option<usize>,
    pub(crate) value: Option<usize>,
}

/// What a feature asks of the intake.
pub(crate) struct LaneRequest<'a> {
    pub(crate) filter: Option<&'a Located<String>>,
    pub(crate) of: Option<(&'a Located<String>, OfType)>,
}

/// The type that an aggregate wants its `of` to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OfType {
    /// Any: only its presence counts.
    Presence,
    /// A number.
    Number,
    /// Number or text, to be counted as distinct.
    Hash,
    /// What the contract says, else text.
    Declared,
    /// Text.
    Text,
}

impl IntakeBuilder {
    pub(crate) fn new(entity: Entity, event_types: Option<Arc<[String]>>) -> IntakeBuilder {
        let names = EventNames { fields: Vec::new(), event_types };
        IntakeBuilder { entity, names, filters: Vec::new(), values: Vec::new(), lanes: Vec::new() }
    }

    /// The lane of a feature, an old one where another feature asks for the same; with it, what kind of value it carries.
    pub(crate) fn lane(&mut self, request: &LaneRequest<'_>) -> Result<(usize, Option<ValueKind>), Vec<JobError>> {
        let filter = request.filter.map(|text| self.filter(text)).transpose();
        let value = request.of.map(|(text, of)| self.value(text, of)).transpose();
        let (filter, value) = match (filter, value) {
            (Ok(filter), Ok(value)) => (filter, value),
            (filter, value) => {
                return Err(filter.err().into_iter().chain(value.err()).flatten().collect());
            }
        };
        let lane = Lane { filter, value };
        let kind = value.map(|value| self.values[value].1);
        if let Some(known) = self.lanes.iter().position(|other| *other == lane) {
            return Ok((known, kind));
        }
        if self.lanes.len() == LANES_MAX {
            let span = request.filter.or(request.of.map(|(of, _)| of)).map(|text| text.span.clone());
            return Err(vec![JobError {
                span: span.unwrap_or_default(),
                message: format!("a job has at most {LANES_MAX} different pairs of `where` and `of`"),
                hint: None,
            }]);
        }
        self.lanes.push(lane);
        Ok((self.lanes.len() - 1, kind))
    }

    fn filter(&mut self, text: &Located<String>) -> Result<usize, Vec<JobError>> {
        let compiled = expression::compile_condition(text, &mut self.names)?;
        if let Some(known) = self.filters.iter().position(|(other, _)| *other == text.value) {
            return Ok(known);
        }
        self.filters.push((text.value.clone(), compiled));
        Ok(self.filters.len() - 1)
    }

    fn value(&mut self, text: &Located<String>, of: OfType) -> Result<usize, Vec<JobError>> {
        let compiled = expression::compile(text, &mut self.names)?;
        let wrong = |what: &str| {
            vec![JobError { span: text.span.clone(), message: format!("`of` must be {what}"), hint: None }]
        };
        let kind = match (of, &compiled) {
            (OfType::Presence, _) => ValueKind::Presence,
            (OfType::Number, Expr::Number(_) | Expr::Untyped(_)) => ValueKind::Number,
            (OfType::Number, _) => return Err(wrong("a number")),
            (_, Expr::Bool(_)) => return Err(wrong("a number or a text")),
            (OfType::Hash, _) => ValueKind::Hash,
            (OfType::Declared, Expr::Number(_)) => ValueKind::Number,
            (OfType::Text, Expr::Number(_)) => return Err(wrong("a text")),
            (OfType::Declared | OfType::Text, _) => ValueKind::Text,
        };
        let same = |(other, k, _): &(String, ValueKind, Expr)| *other == text.value && *k == kind;
        if let Some(known) = self.values.iter().position(same) {
            return Ok(known);
        }
        self.values.push((text.value.clone(), kind, compiled));
        Ok(self.values.len() - 1)
    }

    pub(crate) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    pub(crate) fn finish(self) -> Intake {
        let more: Vec<String> = self.names.event_types.iter().flat_map(|types| types.iter()).cloned().collect();
        let own: Vec<String> = more.into_iter().filter(|name| event_type_index(name).is_none()).collect();
        let known = EVENT_TYPES.iter().copied().chain(own.iter().map(String::as_str));
        let plans = known.map(|name| self.plan(Some(name))).collect();
        let any_type = self.plan(None);
        let erasing = TypePlan { erases: true, ..TypePlan::default() };
        let more_types = own.iter().enumerate().map(|(at, name)| (name.clone(), EVENT_TYPES.len() + at)).collect();
        let (mut numbers, mut texts) = (0, 0);
        let values = self.values.into_iter().map(|(_, kind, of)| {
            let of_kind = match kind {
                ValueKind::Presence => return Value { of, kind, slot: 0 },
                ValueKind::Text => &mut texts,
                ValueKind::Number | ValueKind::Hash => &mut numbers,
            };
            *of_kind += 1;
            Value { of, kind, slot: *of_kind - 1 }
        });
        let values = values.collect();
        let (entity, fields) = (self.entity, self.names.fields);
        Intake { entity, fields, values, numbers, texts, plans, more_types, any_type, erasing }
    }

    fn plan(&self, event_type: Option<&str>) -> TypePlan {
        let mut plan = TypePlan::default();
        for (at, lane) in self.lanes.iter().enumerate() {
            if lane.filter.is_none() {
                plan.sure |= 1 << at;
            }
        }
        for (at, (_, filter)) in self.filters.iter().enumerate() {
            let mask = self.mask(|lane| lane.filter == Some(at));
            let folded = match event_type {
                Some(name) => filter.assume_text(EVENT_TYPE, name),
                None => filter.clone(),
            };
            match folded {
                BoolExpr::Constant(Some(true)) => plan.sure |= mask,
                BoolExpr::Constant(_) => {}
                depends => plan.tests.push((depends, mask)),
            }
        }
        let possible = plan.tests.iter().fold(plan.sure, |all, (_, mask)| all | mask);
        for value in 0..self.values.len() {
            let mask = self.mask(|lane| lane.value == Some(value));
            if mask & possible != 0 {
                plan.values.push((value, mask));
            }
        }
        plan
    }

    fn mask(&self, of: impl Fn(&Lane) -> bool) -> LaneMask {
        self.lanes.iter().enumerate().filter(|(_, lane)| of(lane)).fold(0, |mask, (at, _)| mask | 1 << at)
    }
}

/// What names mean in `where` and `of`: fields are numbered as they are met.
#[derive(Debug)]
struct EventNames {
    fields: Vec<Field>,
    event_types: Option<Arc<[String]>>,
}

impl Names for EventNames {
    fn resolve(&mut self, path: &[String]) -> Option<Name> {
        let (first, rest) = path.split_first()?;
        if rest.is_empty() {
            return self.resolve_plain(first);
        }
        let group = match first.as_str() {
            "properties" => Group::Properties,
            "context" => Group::Context,
            "metadata" => Group::Metadata,
            _ => return None,
        };
        let kind = match rest {
            [name] => match property_type(group, name) {
                Some(ContractType::Number) => Kind::Number,
                Some(ContractType::Text) => Kind::Text,
                None => Kind::Untyped,
            },
            _ => Kind::Untyped,
        };
        let field = Field { group, path: rest.to_vec() };
        let at = self.fields.iter().position(|known| *known == field).unwrap_or_else(|| {
            self.fields.push(field);
            self.fields.len() - 1
        });
        Some(Name { slot: FIELDS + u16::try_from(at).ok()?, kind })
    }

    fn candidates(&self) -> Vec<String> {
        let plain = ["event_type"].into_iter().chain(IDS).map(str::to_owned);
        let of_group = |group: Group| group.fields().iter().map(move |(name, _)| format!("{}.{name}", group.name()));
        plain.chain(Group::ALL.into_iter().flat_map(of_group)).collect()
    }
}

impl EventNames {
    fn resolve_plain(&self, name: &str) -> Option<Name> {
        if name == "event_type" {
            let kind = self.event_types.clone().map_or(Kind::Text, Kind::Choice);
            return Some(Name { slot: EVENT_TYPE, kind });
        }
        let at = IDS.iter().position(|id| *id == name)?;
        Some(Name { slot: EVENT_TYPE + 1 + at as u16, kind: Kind::Text })
    }
}

/// An event as the environment of its expressions.
struct EventEnv<'a> {
    event: &'a EventView<'a>,
    nulls: Cell<u32>,
}

impl EventEnv<'_> {
    fn field(&self, slot: u16) -> FieldValue<'_> {
        self.event.fields.get(usize::from(slot - FIELDS)).copied().unwrap_or_default()
    }
}

impl Env for EventEnv<'_> {
    fn number(&self, slot: u16) -> f64 {
        if slot < FIELDS {
            return f64::NAN;
        }
        match self.field(slot) {
            FieldValue::Number(number) => number,
            FieldValue::Cell(cell) => cell_number(cell).unwrap_or(f64::NAN),
            _ => f64::NAN,
        }
    }

    fn text(&self, slot: u16) -> Option<&str> {
        match slot {
            EVENT_TYPE => Some(self.event.event_type),
            1 => Some(self.event.event_id),
            2 => Some(self.event.app_id),
            3 => Some(self.event.user_id),
            4 => self.event.session_id,
            _ => match self.field(slot) {
                FieldValue::Text(text) | FieldValue::Cell(text) => Some(text),
                _ => None,
            },
        }
    }

    fn boolean(&self, slot: u16) -> Option<bool> {
        match slot {
            0..FIELDS => None,
            _ => match self.field(slot) {
                FieldValue::Bool(truth) => Some(truth),
                _ => None,
            },
        }
    }

    fn is_null(&self, slot: u16) -> bool {
        match slot {
            4 => self.event.session_id.is_none(),
            0..FIELDS => false,
            _ => matches!(self.field(slot), FieldValue::Null),
        }
    }

    fn count_null(&self) {
        self.nulls.set(self.nulls.get().saturating_add(1));
    }
}

/// The number that a CSV cell writes, in JSON's grammar, if it writes one.
fn cell_number(cell: &str) -> Option<f64> {
    let digits = cell.strip_prefix('-').unwrap_or(cell);
    let leading_zero = digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
    let plausible = digits.starts_with(|c: char| c.is_ascii_digit()) && !leading_zero && !cell.ends_with('.');
    let number = plausible.then(|| cell.parse::<f64>().ok())??;
    number.is_finite().then_some(number)
}

fn is_null(of: &Expr, env: &EventEnv<'_>) -> bool {
    match of {
        Expr::Number(expr) => expr.eval(env).is_nan(),
        Expr::Text(expr) => expr.eval(env).is_none(),
        Expr::Bool(expr) => expr.eval(env).is_none(),
        Expr::Untyped(slot) => env.is_null(*slot),
    }
}

fn number(of: &Expr, env: &EventEnv<'_>) -> Option<f64> {
    let number = match of {
        Expr::Number(expr) => expr.eval(env),
        Expr::Untyped(slot) => env.number(*slot),
        _ => f64::NAN,
    };
    // Zero has one sign here, or equal values would give unequal hashes and sums.
    (!number.is_nan()).then_some(number + 0.0)
}

fn text(of: &Expr, env: &EventEnv<'_>) -> Option<CompactString> {
    match of {
        Expr::Text(expr) => expr.eval(env).map(CompactString::new),
        Expr::Untyped(slot) => env.text(*slot).map(CompactString::new),
        _ => None,
    }
}

/// Hashes a number by its bits and a text by its bytes, so that `1` and `"1"` differ.
fn hash(of: &Expr, env: &EventEnv<'_>) -> Option<u64> {
    const NUMBERS: u64 = 1;
    let of_number = |number: f64| xxhash_rust::xxh3::xxh3_64_with_seed(&number.to_bits().to_le_bytes(), NUMBERS);
    match of {
        Expr::Number(_) => number(of, env).map(of_number),
        Expr::Text(expr) => expr.eval(env).map(|text| text_hash(&text)),
        Expr::Untyped(slot) => match env.field(*slot) {
            FieldValue::Number(number) => Some(of_number(number + 0.0)),
            FieldValue::Text(text) | FieldValue::Cell(text) => Some(text_hash(text)),
            _ => None,
        },
        Expr::Bool(_) => None,
    }
}
