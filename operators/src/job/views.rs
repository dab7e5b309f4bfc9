//! Views, compiled: what is kept with each key for them, and the tables that they become.

mod persons;

use std::sync::Arc;

use whisperer_schemas::{Column, ColumnType, Micros, TableSchema};

use super::{CompiledFeatures, JobNames, NameSlot, NameSlots, Step};
use crate::{
    cells::{Slot, SlotKind},
    expression::{self, BoolExpr, Kind, Names},
    record::LaneMask,
    spec::{JobError, JobSpec, Located, Period, SegmentSpec, ViewKind, ViewSpec},
    views::GROUP_MAX,
};

/// Segments of one view, at most: every two of them are compared.
pub const SEGMENTS_MAX: usize = 32;

/// The views of a job.
#[derive(Debug, Default)]
pub struct Views {
    /// Each view, in file order.
    pub each: Vec<View>,
    /// What a state keeps of its key's last evaluation, a slot each from `shown_slot` on.
    pub(crate) shown: Vec<Shown>,
    pub(crate) shown_slot: usize,
    /// The features that are read for it besides those that conditions read, and the scores, in order.
    pub(crate) features: Vec<usize>,
    pub(crate) steps: Vec<Step>,
    /// Lanes whose events change facts of history.
    pub(crate) ledger_lanes: LaneMask,
    /// The slot in which changes of the stage are counted, where a view asks for them.
    pub(crate) transitions_slot: Option<usize>,
    /// The same for decisions by trigger.
    pub(crate) decisions_slot: Option<usize>,
}

/// A compiled view.
#[derive(Debug)]
pub struct View {
    /// Its name.
    pub name: String,
    /// What it computes.
    pub plan: ViewPlan,
    /// Its table.
    pub table: Arc<TableSchema>,
    /// What the columns of the table hold, those that begin with `_` left out.
    pub words: Vec<Word>,
    /// Words of a group.
    pub width: usize,
    /// What users are grouped by.
    pub(crate) group_by: Vec<Dimension>,
    /// Whether a user counts: a place in what is shown.
    pub(crate) when: Option<usize>,
    /// The number that is taken of each user: a place in what is shown.
    pub(crate) of: Option<usize>,
    /// Everything shown that decides what a user adds, and whether the stage does.
    pub(crate) shown: Vec<usize>,
    pub(crate) by_stage: bool,
}

impl View {
    /// Whether it is about what has happened, not about users as they are.
    pub(crate) fn of_history(&self) -> bool {
        matches!(
            self.plan,
            ViewPlan::Transitions
                | ViewPlan::Decisions
                | ViewPlan::Cohorts { .. }
                | ViewPlan::Funnel { .. }
                | ViewPlan::Identities
                | ViewPlan::Profiles
        )
    }
}

/// What a view computes.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are those of the aggregates")]
pub enum ViewPlan {
    Count,
    Sum,
    Distinct,
    Top {
        /// Users of a group.
        limit: u32,
    },
    Percentiles {
        /// Which.
        at: Vec<f64>,
        /// Numbers are rounded to a multiple of it.
        resolution: f64,
    },
    Transitions,
    Segments {
        /// For each segment, whether a user is in it: a place in what is shown.
        members: Vec<usize>,
    },
    Members {
        /// The same.
        members: Vec<usize>,
    },
    Decisions,
    Cohorts {
        period: Period,
        /// The slot with the time of the beginning, and that with the periods of activity.
        begins: usize,
        active: usize,
    },
    Funnel {
        /// For each step, the slot with the times at which it was taken.
        steps: Vec<usize>,
        within: Micros,
    },
    Persons,
    Identities,
    Profiles,
}

impl ViewPlan {
    /// Columns behind those of the group that tell its rows from one another: a rank, which percentile, a user.
    fn ordinals(&self, words: usize, ids: usize) -> usize {
        match self {
            // Who it is stands before who they are.
            ViewPlan::Identities => words - 2,
            ViewPlan::Profiles => ids,
            ViewPlan::Top { .. } | ViewPlan::Percentiles { .. } => 1,
            ViewPlan::Members { .. } => 2,
            _ => 0,
        }
    }

    /// Columns that are no part of a group.
    fn values(&self, words: usize) -> usize {
        match self {
            ViewPlan::Top { .. } => 4,
            // All of its columns: it has no groups.
            ViewPlan::Identities | ViewPlan::Profiles => words,
            ViewPlan::Percentiles { .. } => 3,
            ViewPlan::Sum | ViewPlan::Members { .. } | ViewPlan::Funnel { .. } => 2,
            _ => 1,
        }
    }
}

/// What a word of an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// The hash of a text.
    Text,
    /// A text that the answer has with it.
    OwnText,
    /// The same where its word is not [`crate::views::NONE`].
    OptionalText,
    /// A truth value: 1 or 0.
    Flag,
    /// The bits of a number.
    Number,
    /// A place in a closed list.
    Choice(Arc<[String]>),
    /// A whole number.
    Count,
    /// An instant.
    Time,
}

/// What a group is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dimension {
    /// The application.
    App,
    /// The stage.
    Stage,
    /// A place in what is shown.
    Shown(usize),
}

/// What a state keeps of its key's last evaluation.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    /// A number.
    Number(NameSlot),
    /// A text of the worker's.
    Text(NameSlot),
    /// A place in a closed list.
    Choice(NameSlot),
    /// Whether a condition holds: 1 or 0.
    Condition(String, BoolExpr),
}

impl Views {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    /// The table of each.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<TableSchema>> {
        self.each.iter().map(|view| &view.table)
    }
}

pub(super) fn compile(
    spec: &JobSpec,
    features: &CompiledFeatures,
    names: &mut JobNames,
    errors: &mut Vec<JobError>,
) -> Views {
    let slots = NameSlots { features: spec.features.len(), scores: spec.scores.len() };
    let mut compiler = Compiler { spec, slots, features, names, errors, views: Views::default() };
    compiler.views.ledger_lanes = features.ledger_lanes;
    for (at, view) in spec.views.iter().enumerate() {
        compiler.view(at, view);
    }
    compiler.views
}

struct Compiler<'a> {
    spec: &'a JobSpec,
    slots: NameSlots,
    features: &'a CompiledFeatures,
    names: &'a mut JobNames,
    errors: &'a mut Vec<JobError>,
    views: Views,
}

/// The columns of a view in the making.
#[derive(Default)]
struct Columns {
    columns: Vec<Column>,
    words: Vec<Word>,
}

impl Columns {
    fn add(&mut self, column: Column, word: Word) {
        self.columns.push(column);
        self.words.push(word);
    }

    fn count(&mut self, doc: &str) {
        self.add(Column::required("users", ColumnType::Int, "users", doc), Word::Count);
    }

    fn number(&mut self, name: &str, unit: &str, doc: &str) {
        self.add(Column::required(name, ColumnType::Number, unit, doc), Word::Number);
    }

    fn choice(&mut self, name: &str, names: Arc<[String]>, doc: &str) {
        self.add(Column::required(name, ColumnType::Text, "", doc), Word::Choice(names));
    }

    fn user(&mut self, doc: &str) {
        self.add(Column::required("user_app_id", ColumnType::Text, "", "Application of the user"), Word::OwnText);
        self.add(Column::required("user_id", ColumnType::Text, "", doc), Word::OwnText);
    }

    fn id(&mut self, name: &str, doc: &str, is_there: bool) {
        if is_there {
            self.add(Column::required(name, ColumnType::Text, "", doc), Word::OwnText);
        }
    }

    fn time(&mut self, name: &str, doc: &str) {
        self.add(Column::required(name, ColumnType::Time, "us", doc), Word::Time);
    }
}

impl Compiler<'_> {
    fn view(&mut self, at: usize, spec: &ViewSpec) {
        let mut columns = Columns::default();
        let group_by: Vec<Dimension> =
            spec.group_by.iter().filter_map(|name| self.dimension(name, spec, &mut columns)).collect();
        let when = spec.when.as_ref().and_then(|when| self.condition(when));
        let (plan, of) = match &spec.kind {
            ViewKind::Count | ViewKind::Sum { .. } | ViewKind::Distinct | ViewKind::Persons => {
                self.tally(spec, &mut columns)
            }
            ViewKind::Identities => (self.identities(&mut columns), None),
            ViewKind::Profiles => (self.profiles(&mut columns), None),
            ViewKind::Top { of, limit } => {
                self.top_columns(&mut columns, &of.value);
                (ViewPlan::Top { limit: *limit }, self.number(of))
            }
            ViewKind::Percentiles { of, at, resolution } => {
                columns.number("percentile", "1", "Which one: 0.5 is the median");
                columns.count("Users of the group that have the number");
                columns.number("value", "", &format!("{} at that rank, rounded to {resolution}", of.value));
                (ViewPlan::Percentiles { at: at.clone(), resolution: *resolution }, self.number(of))
            }
            ViewKind::Transitions => (self.transitions(spec, &mut columns), None),
            ViewKind::Segments { segments } => (self.segments(segments, &mut columns), None),
            ViewKind::Members { segments } => (self.members(segments, &mut columns), None),
            ViewKind::Decisions => (self.decisions(spec, &mut columns), None),
            ViewKind::Cohorts { period, .. } => {
                columns.time("cohort", "Begin of the period in which the users began");
                columns.time("active", "Begin of a period in which they were active");
                columns.count("Users of the cohort active then");
                let ledger = &self.features.ledgers[at];
                (ViewPlan::Cohorts { period: *period, begins: slot(ledger, 0), active: slot(ledger, 1) }, None)
            }
            ViewKind::Funnel { steps, within } => {
                let names = steps.iter().map(|step| step.name.value.clone()).collect();
                columns.choice("step", names, "The step");
                columns.count("Users who came as far");
                columns.number("median_seconds", "s", "Median of the time from the first step to this one");
                (ViewPlan::Funnel { steps: self.features.ledgers[at].clone(), within: *within }, None)
            }
        };
        let Columns { columns, words } = columns;
        let width = words.len() - plan.values(words.len());
        if width > GROUP_MAX {
            let place = spec.group_by.last().map_or(spec.kind_span.clone(), |name| name.span.clone());
            self.error(place, format!("the view has groups of {width} names, and there are at most {GROUP_MAX}"), None);
        }
        self.check_columns(spec, &columns);
        let table =
            Arc::new(TableSchema::view(&spec.name.value, columns, width + plan.ordinals(words.len(), self.ids())));
        let places = group_by.iter().filter_map(|dimension| match dimension {
            Dimension::Shown(at) => Some(*at),
            Dimension::App | Dimension::Stage => None,
        });
        let mut shown: Vec<usize> = places.chain(when).chain(of).collect();
        if let ViewPlan::Segments { members } | ViewPlan::Members { members } = &plan {
            shown.extend(members);
        }
        let by_stage = group_by.contains(&Dimension::Stage);
        let name = spec.name.value.clone();
        self.views.each.push(View { name, plan, table, words, width, group_by, when, of, shown, by_stage });
    }

    /// Counts, sums and distinct counts, and the number that is taken of each user.
    fn tally(&mut self, spec: &ViewSpec, columns: &mut Columns) -> (ViewPlan, Option<usize>) {
        match &spec.kind {
            ViewKind::Sum { of } => {
                columns.count("Users of the group that have the number");
                columns.number("sum", "", &format!("Sum of {}, each to the nearest millionth", of.value));
                (ViewPlan::Sum, self.number(of))
            }
            ViewKind::Distinct => {
                columns.count("Different user ids in the group");
                (ViewPlan::Distinct, None)
            }
            ViewKind::Persons => {
                columns.count("Persons of whom an id is in the group");
                (ViewPlan::Persons, None)
            }
            _ => {
                columns.count("Users of the group");
                (ViewPlan::Count, None)
            }
        }
    }

    fn segments(&mut self, segments: &[SegmentSpec], columns: &mut Columns) -> ViewPlan {
        let names: Arc<[String]> = segments.iter().map(|segment| segment.name.value.clone()).collect();
        columns.choice("segment", names.clone(), "The segment");
        columns.choice("other", names, "Another one, or the same: the segment itself");
        columns.count("Users in both");
        ViewPlan::Segments { members: self.conditions(segments) }
    }

    fn members(&mut self, segments: &[SegmentSpec], columns: &mut Columns) -> ViewPlan {
        let names = segments.iter().map(|segment| segment.name.value.clone()).collect();
        columns.choice("segment", names, "The segment");
        columns.user("A user who is in it");
        ViewPlan::Members { members: self.conditions(segments) }
    }

    fn conditions(&mut self, segments: &[SegmentSpec]) -> Vec<usize> {
        segments.iter().filter_map(|segment| self.condition(&segment.when)).collect()
    }

    fn decisions(&mut self, spec: &ViewSpec, columns: &mut Columns) -> ViewPlan {
        if self.spec.triggers.is_empty() {
            let hint = Some("write a [[trigger]]".to_owned());
            self.error(spec.kind_span.clone(), "`decisions` needs triggers, and the job has none".into(), hint);
        }
        let triggers = self.spec.triggers.iter().map(|trigger| trigger.name.value.clone()).collect();
        columns.choice("trigger", triggers, "The trigger that fired");
        columns.time("day", "Begin of the UTC day of the firing time");
        columns.add(Column::required("decisions", ColumnType::Int, "", "Decisions"), Word::Count);
        ViewPlan::Decisions
    }

    /// A name that users are grouped by may be that of a column which the view has anyway.
    fn check_columns(&mut self, spec: &ViewSpec, columns: &[Column]) {
        for (at, column) in columns.iter().enumerate() {
            if columns[..at].iter().any(|other| other.name == column.name) {
                let place = spec.group_by.iter().rev().find(|name| name.value.replace('.', "_") == column.name);
                let place = place.map_or(spec.name.span.clone(), |name| name.span.clone());
                self.error(place, format!("the view has two columns \"{}\"", column.name), None);
            }
        }
    }

    fn top_columns(&self, columns: &mut Columns, of: &str) {
        columns.add(Column::required("rank", ColumnType::Int, "", "From 1; ties by user and application"), Word::Count);
        columns.number("value", "", of);
        columns.user("The user");
    }

    fn transitions(&mut self, spec: &ViewSpec, columns: &mut Columns) -> ViewPlan {
        if self.spec.stages.is_empty() {
            let hint = Some("write a [[stage]]".to_owned());
            self.error(spec.kind_span.clone(), "`transitions` needs stages, and the job has none".into(), hint);
        }
        columns.choice("from_stage", self.names.stages.clone(), "The stage before");
        columns.choice("to_stage", self.names.stages.clone(), "The stage after");
        columns.time("day", "Begin of the UTC day of the change, in event time");
        columns.count("Changes of users");
        ViewPlan::Transitions
    }

    /// A name that users are grouped by.
    fn dimension(&mut self, name: &Located<String>, spec: &ViewSpec, columns: &mut Columns) -> Option<Dimension> {
        let column = |kind, doc: &str| Column::optional(&name.value.replace('.', "_"), kind, "", doc);
        if name.value == "app_id" {
            columns.add(column(ColumnType::Text, "Application of the users"), Word::Text);
            return Some(Dimension::App);
        }
        if matches!(
            spec.kind,
            ViewKind::Transitions
                | ViewKind::Segments { .. }
                | ViewKind::Members { .. }
                | ViewKind::Decisions
                | ViewKind::Cohorts { .. }
                | ViewKind::Funnel { .. }
                | ViewKind::Identities
                | ViewKind::Profiles
        ) {
            let message = format!("a view of this kind cannot be grouped by \"{}\"", name.value);
            self.error(name.span.clone(), message, Some("it can by \"app_id\"".into()));
            return None;
        }
        let (slot, kind) = self.resolve(name, "app_id")?;
        let (shown, word, of) = match (slot, kind) {
            (NameSlot::Stage, Kind::Choice(names)) => {
                columns.add(column(ColumnType::Text, "Lifecycle stage"), Word::Choice(names));
                return Some(Dimension::Stage);
            }
            (NameSlot::Score(_), _) => {
                let message = format!("\"{}\" is a score: nearly every user would be a group", name.value);
                let hint = format!("give it levels and group by \"{}.level\"", name.value);
                self.error(name.span.clone(), message, Some(hint));
                return None;
            }
            (slot, Kind::Choice(names)) => (Shown::Choice(slot), Word::Choice(names), ColumnType::Text),
            (slot, Kind::Text) => (Shown::Text(slot), Word::Text, ColumnType::Text),
            (slot, _) => (Shown::Number(slot), Word::Number, ColumnType::Number),
        };
        columns.add(column(of, &name.value), word);
        Some(Dimension::Shown(self.show(shown)))
    }

    /// A number of each user.
    fn number(&mut self, name: &Located<String>) -> Option<usize> {
        match self.resolve(name, "")? {
            (slot @ (NameSlot::Feature(_) | NameSlot::Score(_)), Kind::Number) => Some(self.show(Shown::Number(slot))),
            _ => {
                self.error(name.span.clone(), format!("\"{}\" is a text, and a number is needed", name.value), None);
                None
            }
        }
    }

    fn condition(&mut self, text: &Located<String>) -> Option<usize> {
        match expression::compile_condition(text, self.names) {
            Ok(condition) => Some(self.show(Shown::Condition(text.value.clone(), condition))),
            Err(found) => {
                self.errors.extend(found);
                None
            }
        }
    }

    fn resolve(&mut self, name: &Located<String>, also: &str) -> Option<(NameSlot, Kind)> {
        let path: Vec<String> = name.value.split('.').map(str::to_owned).collect();
        if let Some(found) = self.names.resolve(&path) {
            return Some((self.slots.name(usize::from(found.slot)), found.kind));
        }
        let also = (!also.is_empty()).then(|| also.to_owned());
        let hint = expression::did_you_mean(&name.value, self.names.candidates().into_iter().chain(also));
        self.error(name.span.clone(), format!("there is no feature, score or level \"{}\"", name.value), hint);
        None
    }

    /// The place of a value in what is shown; all that is read for it is noted.
    fn show(&mut self, shown: Shown) -> usize {
        let key = shown.definition(self.slots);
        if let Some(at) = self.views.shown.iter().position(|other| other.definition(self.slots) == key) {
            return at;
        }
        self.views.shown.push(shown);
        self.views.shown.len() - 1
    }

    fn error(&mut self, span: crate::spec::Span, message: String, hint: Option<String>) {
        self.errors.push(JobError { span, message, hint });
    }
}

fn slot(ledger: &[usize], at: usize) -> usize {
    ledger.get(at).copied().unwrap_or_default()
}

impl Shown {
    /// What tells it from others.
    pub(super) fn definition(&self, slots: NameSlots) -> String {
        match self {
            Shown::Number(slot) | Shown::Text(slot) | Shown::Choice(slot) => format!("shown {}", slots.at(*slot)),
            Shown::Condition(text, _) => format!("shown when {text}"),
        }
    }
}

impl Views {
    /// What the slots of [`Views::add_slots`] keep, as texts. A stage is kept as its place among all.
    pub(crate) fn definitions(&self, spec: &JobSpec, stages: &[String]) -> Vec<String> {
        let slots = NameSlots { features: spec.features.len(), scores: spec.scores.len() };
        let name = |slot: &NameSlot| match slots.name(slots.at(*slot)) {
            NameSlot::Feature(at) => spec.features[at].name.value.clone(),
            NameSlot::Score(at) => spec.scores[at].name.value.clone(),
            NameSlot::Level(at) => format!("{} {:?}", spec.scores[at].name.value, spec.scores[at].levels.len()),
            NameSlot::Stage => String::new(),
        };
        let shown = self.shown.iter().map(|shown| match shown {
            Shown::Number(slot) | Shown::Text(slot) | Shown::Choice(slot) => format!("shown {}", name(slot)),
            Shown::Condition(text, _) => format!("shown when {text}"),
        });
        let changes = self.transitions_slot.map(|_| format!("changes of {stages:?}"));
        let triggers: Vec<&str> = spec.triggers.iter().map(|trigger| trigger.name.value.as_str()).collect();
        let decisions = self.decisions_slot.map(|_| format!("decisions of {triggers:?}"));
        shown.chain(changes).chain(decisions).collect()
    }

    /// Notes what is read for what is shown; `read` has the features and scores that conditions read.
    pub(super) fn note_reads(&mut self, features: Vec<usize>, steps: Vec<Step>) {
        (self.features, self.steps) = (features, steps);
    }

    /// Appends the slots of what states keep for views.
    pub(super) fn add_slots(&mut self, slots: &mut Vec<Slot>) {
        let slot = |kind, pane, text| Slot { kind, lane: usize::MAX, pane, panes: i64::MAX, value: 0, text };
        self.shown_slot = slots.len();
        slots.extend(self.shown.iter().map(|shown| slot(SlotKind::Shown, 0, matches!(shown, Shown::Text(_)))));
        let mut ledger = |plan: &ViewPlan| {
            self.each.iter().any(|view| view.plan == *plan).then(|| {
                slots.push(slot(SlotKind::Changes, whisperer_schemas::time::DAY, false));
                slots.len() - 1
            })
        };
        self.transitions_slot = ledger(&ViewPlan::Transitions);
        self.decisions_slot = ledger(&ViewPlan::Decisions);
    }
}
