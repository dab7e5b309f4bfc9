//! What the encoded states of a job mean, and what an edited job can keep of them.
//!
//! State is kept by definition: a slot whose accumulator, filter, value and pane length are the same in the edited job keeps its cells,
//! whatever the features that read it are called now; what nobody reads any more goes, and what is new starts empty. A trigger is
//! the same if its own text and everything that it reads, through scores and stages, is the same. One that is not sets its edge silently at
//! each key's first evaluation, and is *warming* until the windows that it newly reads have filled: deploying never fires for everyone.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use whisperer_schemas::{Micros, ids::text_hash};

use crate::{
    cells::{Slot, SlotKind},
    job::{Identity, Views},
    spec::{FeatureSpec, JobSpec, ScoreBody, ScoreSpec, TriggerSpec, ViewKind, ViewSpec},
};

/// The version of [`StateLayout`], and of the states encoded with it.
pub const LAYOUT_VERSION: u32 = 1;

/// The meaning of encoded states.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StateLayout {
    /// [`LAYOUT_VERSION`] when it was written.
    pub version: u32,
    /// Features, in file order.
    pub features: Vec<Named>,
    /// Slots, as cells number them.
    pub slots: Vec<SlotLayout>,
    /// Triggers, as the bits of a state number them.
    pub triggers: Vec<Named>,
    /// Stages, as a state numbers them.
    pub stages: Vec<String>,
    /// Triggers whose edge is set silently where a key has not been evaluated since the job changed.
    pub silent: BTreeSet<String>,
    /// Until when, in event time, a trigger is suppressed because a window that it reads has not filled.
    pub warming: BTreeMap<String, Micros>,
    /// Views, in file order.
    #[serde(default)]
    pub views: Vec<ViewLayout>,
}

/// A view, and since when it is what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewLayout {
    /// Its name.
    pub name: String,
    /// Hash of what it computes.
    pub definition: u64,
    /// The epoch of the checkpoint with which it was begun anew, because the job had changed; 0 for the first start.
    pub since: u64,
}

impl ViewLayout {
    /// Whether it is the same view.
    pub(crate) fn is_same(&self, other: &ViewLayout) -> bool {
        (&self.name, self.definition) == (&other.name, other.definition)
    }
}

/// Something with a name and a definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Hash of what it computes.
    pub definition: u64,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotLayout {
    /// Hash of what it accumulates.
    pub definition: u64,
    /// Panes that are kept.
    pub panes: i64,
    /// Words of a cell.
    pub words: u8,
    /// Whether the last word of a cell is a text.
    pub text: bool,
}

/// What becomes of something when a job is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on with the state that it has.
    Kept,
    /// It begins empty.
    StartsEmpty,
    /// It is not in the new job.
    Dropped,
}

/// What becomes of one feature or trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `feature` or `trigger`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What becomes of it.
    pub fate: Fate,
    /// For a trigger that is new or changed: the longest window that it reads and that begins empty.
    pub warms_for: Option<Micros>,
}

impl StateLayout {
    /// The layout of a job with these slots, of which `lanes` tells what their lanes take.
    pub(crate) fn new(
        spec: &JobSpec,
        slots: &[Slot],
        lanes: &[String],
        (stages, views, identity): (&[String], &Views, Option<&Identity>),
    ) -> StateLayout {
        let names = Names { spec };
        let firings = spec.triggers.iter().map(|trigger| format!("firing {}", trigger.name.value));
        let of_features = slots.iter().filter(|slot| slot.lane != usize::MAX);
        let of_views = views.definitions(spec, stages);
        let of_features = of_features.map(|slot| definition_of_slot(slot, &lanes[slot.lane], spec));
        let definitions = of_features.chain(firings).chain(of_views).chain(Identity::definitions(identity));
        let slot_layout = |(slot, definition): (&Slot, String)| SlotLayout {
            definition: text_hash(&definition),
            panes: slot.panes,
            words: 1 + slot.kind.width() as u8,
            text: slot.text
                && matches!(slot.kind, SlotKind::Last | SlotKind::First | SlotKind::Shown | SlotKind::Statements),
        };
        let named = |name: &str, definition: &str| Named { name: name.to_owned(), definition: text_hash(definition) };
        StateLayout {
            version: LAYOUT_VERSION,
            features: spec.features.iter().map(|f| named(&f.name.value, &definition_of_feature(f, spec))).collect(),
            slots: slots.iter().zip(definitions).map(slot_layout).collect(),
            triggers: spec.triggers.iter().map(|t| named(&t.name.value, &names.definition_of_trigger(t))).collect(),
            stages: stages.to_vec(),
            silent: BTreeSet::new(),
            warming: BTreeMap::new(),
            views: spec.views.iter().map(|view| names.layout_of_view(view)).collect(),
        }
    }

    /// Reads a layout from what [`StateLayout::to_bytes`] gave.
    ///
    /// # Errors
    /// Bytes that are no layout, or one of a later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<StateLayout, LayoutError> {
        let layout: StateLayout = serde_json::from_slice(bytes).map_err(LayoutError::Json)?;
        if layout.version > LAYOUT_VERSION {
            return Err(LayoutError::Version { found: layout.version });
        }
        Ok(layout)
    }

    /// The layout as a checkpoint keeps it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a layout is plain data with text keys")
    }

    /// Whether states encoded with `other` can be read as they are.
    #[must_use]
    pub fn reads(&self, other: &StateLayout) -> bool {
        self.slots == other.slots && self.stages == other.stages && self.triggers == other.triggers
    }

    /// What of states with the `old` layout this one keeps, by name; what is dropped comes last.
    #[must_use]
    pub fn changes(&self, old: &StateLayout, spec: &JobSpec) -> Vec<Change> {
        let kept = |all: &[Named], one: &Named| all.iter().any(|other| other.definition == one.definition);
        let fate = |kept: bool| if kept { Fate::Kept } else { Fate::StartsEmpty };
        let change = |kind, name: &Named, fate, warms_for| Change { kind, name: name.name.clone(), fate, warms_for };
        let mut changes: Vec<Change> = Vec::new();
        for feature in &self.features {
            changes.push(change("feature", feature, fate(kept(&old.features, feature)), None));
        }
        for trigger in &self.triggers {
            let same = old.triggers.iter().any(|other| other == trigger);
            let warms_for = if same { None } else { self.longest_new_window(old, spec, &trigger.name) };
            changes.push(change("trigger", trigger, fate(same), warms_for));
        }
        let gone = |kind: &'static str, olds: &[Named], news: &[Named]| {
            let gone = olds.iter().filter(|old| !news.iter().any(|new| new.name == old.name));
            gone.map(|old| change(kind, old, Fate::Dropped, None)).collect::<Vec<_>>()
        };
        changes.extend(gone("feature", &old.features, &self.features));
        changes.extend(gone("trigger", &old.triggers, &self.triggers));
        changes
    }

    /// Takes over from the `old` layout at a change of the job: which triggers are silent and warming from now on. `watermark` is the
    /// global watermark of the checkpoint.
    pub fn take_over(&mut self, old: &StateLayout, spec: &JobSpec, watermark: Micros) {
        for change in self.changes(old, spec).into_iter().filter(|change| change.kind == "trigger") {
            match change.fate {
                Fate::StartsEmpty => {
                    self.silent.insert(change.name.clone());
                    if let Some(window) = change.warms_for {
                        self.warming.insert(change.name, watermark.saturating_add(window));
                    }
                }
                Fate::Kept => {
                    if old.silent.contains(&change.name) {
                        self.silent.insert(change.name.clone());
                    }
                    if let Some(until) = old.warming.get(&change.name) {
                        self.warming.insert(change.name, *until);
                    }
                }
                Fate::Dropped => {}
            }
        }
    }

    /// For each of the `old` slots the one that goes on with its cells.
    pub(crate) fn slots_from(&self, old: &StateLayout) -> Vec<Option<usize>> {
        let same = |of: &SlotLayout| {
            self.slots.iter().position(|new| new.definition == of.definition && new.words == of.words)
        };
        old.slots.iter().map(same).collect()
    }

    fn longest_new_window(&self, old: &StateLayout, spec: &JobSpec, trigger: &str) -> Option<Micros> {
        let trigger = spec.triggers.iter().find(|other| other.name.value == trigger)?;
        let read = Names { spec }.read_by_trigger(trigger);
        let new = |feature: &&FeatureSpec| {
            let named = self.features.iter().find(|named| named.name == feature.name.value);
            named.is_some_and(|named| !old.features.iter().any(|other| other.definition == named.definition))
        };
        let read = spec.features.iter().filter(|feature| read.contains(feature.name.value.as_str()));
        read.filter(new).filter_map(|feature| feature.window.as_ref().map(|window| window.value)).max()
    }
}

/// Why the layout of a checkpoint cannot be understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// It is no layout.
    #[error("the layout of the states is damaged")]
    Json(#[source] serde_json::Error),
    /// It was written by a later version.
    #[error("the states are of version {found}, and this build reads versions up to {LAYOUT_VERSION}")]
    Version {
        /// The version found.
        found: u32,
    },
    /// A state that does not follow the layout.
    #[error("a state is damaged")]
    State,
}

fn definition_of_slot(slot: &Slot, lane: &str, spec: &JobSpec) -> String {
    // A session tells when it began, whatever the panes of the windows that count it.
    let pane = if matches!(slot.kind, SlotKind::Sessions { .. }) { 0 } else { slot.pane };
    format!("{:?} {pane} {lane} {:?}", slot.kind, spec.entity)
}

/// What a feature computes, whatever it is called.
fn definition_of_feature(feature: &FeatureSpec, spec: &JobSpec) -> String {
    let text = |text: &Option<crate::spec::Located<String>>| text.as_ref().map(|text| text.value.clone());
    let window = feature.window.as_ref().map(|window| window.value);
    let FeatureSpec { aggregate, half_life, gap, value_type, .. } = feature;
    let (of, filter) = (text(&feature.of), text(&feature.filter));
    format!("{aggregate:?} {of:?} {filter:?} {window:?} {half_life:?} {gap:?} {value_type:?} {}", spec.distinct_max)
}

/// The names of a job, and what stands behind them.
struct Names<'a> {
    spec: &'a JobSpec,
}

impl<'a> Names<'a> {
    fn definition_of_trigger(&self, trigger: &TriggerSpec) -> String {
        let rearm = trigger.rearm.as_ref().map_or("", |rearm| rearm.value.as_str());
        let mut definition = format!("{} | {rearm} | {}", trigger.when.value, trigger.cooldown);
        for name in self.read_by_trigger(trigger) {
            definition.push('\n');
            definition.push_str(&self.definition(name));
        }
        definition
    }

    fn layout_of_view(&self, view: &ViewSpec) -> ViewLayout {
        let mut plain = view.clone();
        plain.strip_places();
        let mut definition = format!("{plain:?}");
        if matches!(plain.kind, ViewKind::Identities | ViewKind::Persons | ViewKind::Profiles) {
            let most = self.spec.identity.as_ref().map(|identity| identity.component_ids_max);
            definition.push_str(&format!(" {most:?}"));
        }
        if plain.kind == ViewKind::Profiles {
            // Everything that the job computes is in it.
            definition.push_str(&self.spec.fingerprint());
        }
        let definition = text_hash(&definition);
        ViewLayout { name: view.name.value.clone(), definition, since: 0 }
    }

    /// Every feature, score and `lifecycle_stage` that a trigger reads, through one another too.
    fn read_by_trigger(&self, trigger: &'a TriggerSpec) -> BTreeSet<&'a str> {
        let mut open: Vec<&str> = words(&trigger.when.value).collect();
        open.extend(trigger.rearm.iter().flat_map(|rearm| words(&rearm.value)));
        let mut read = BTreeSet::new();
        while let Some(name) = open.pop() {
            if self.is_name(name) && read.insert(name) {
                open.extend(self.reads(name));
            }
        }
        read
    }

    fn is_name(&self, word: &str) -> bool {
        let features = self.spec.features.iter().map(|feature| &feature.name);
        let scores = self.spec.scores.iter().map(|score| &score.name);
        word == "lifecycle_stage" || features.chain(scores).any(|name| name.value == word)
    }

    fn reads(&self, name: &str) -> Vec<&'a str> {
        if name == "lifecycle_stage" {
            return self.spec.stages.iter().flat_map(|stage| words(&stage.when.value)).collect();
        }
        let score = self.spec.scores.iter().find(|score| score.name.value == name);
        match score.map(|score| &score.body) {
            Some(ScoreBody::Expr(text)) => words(&text.value).collect(),
            Some(ScoreBody::Model(model)) => model.terms.iter().map(|term| term.name.value.as_str()).collect(),
            None => Vec::new(),
        }
    }

    fn definition(&self, name: &str) -> String {
        if let Some(feature) = self.spec.features.iter().find(|feature| feature.name.value == name) {
            return format!("{name} = {} / {:?}", definition_of_feature(feature, self.spec), feature.divide_by);
        }
        if let Some(score) = self.spec.scores.iter().find(|score| score.name.value == name) {
            return format!("{name} = {}", definition_of_score(score));
        }
        let stages = self.spec.stages.iter().map(|stage| format!("{} when {}", stage.name.value, stage.when.value));
        stages.collect::<Vec<_>>().join("; ")
    }
}

fn definition_of_score(score: &ScoreSpec) -> String {
    let levels: Vec<_> = score.levels.iter().map(|(name, bound)| (&name.value, bound)).collect();
    match &score.body {
        ScoreBody::Expr(text) => format!("{} {levels:?}", text.value),
        ScoreBody::Model(model) => {
            let term = |term: &crate::spec::ModelTerm| {
                format!("{} {} {:?} {:?}", term.name.value, term.weight, term.transform, term.null)
            };
            let terms: Vec<String> = model.terms.iter().map(term).collect();
            format!("{} {terms:?} {levels:?}", model.intercept)
        }
    }
}

/// The identifiers in an expression, and some words that are none: they name nothing.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use whisperer_schemas::time::DAY;

    use super::*;
    use crate::{job::CompiledJob, spec::Aggregate};

    fn layout(features: &[(&str, Aggregate, i64)]) -> StateLayout {
        let feature = |(name, aggregate, days): &(&str, Aggregate, i64)| {
            let window = Some(crate::spec::Located::nowhere(days * DAY));
            FeatureSpec { window, ..FeatureSpec::new(name, *aggregate) }
        };
        let spec = JobSpec { features: features.iter().map(feature).collect(), ..JobSpec::default() };
        CompiledJob::new(&spec).expect("the job is valid").state_layout
    }

    #[test]
    fn a_feature_keeps_its_cells_whatever_is_added_beside_it() {
        // Goal: slots are shared between windows, and still a feature's slot is the same one in a job with shorter and longer windows
        // of the same events, and without them again.
        use Aggregate::{Count, Sessions, Streak, Trend};
        let many = [
            ("month", Count, 30),
            ("week", Count, 7),
            ("quarter", Count, 90),
            ("sessions_week", Sessions, 7),
            ("sessions_month", Sessions, 30),
            ("days_in_a_row", Streak, 30),
            ("slope", Trend, 14),
        ];
        for one in &many {
            let (alone, beside) = (layout(&[*one]), layout(&many));
            assert!(beside.slots_from(&alone).iter().all(Option::is_some), "{one:?} in the larger job");
            assert!(alone.slots_from(&beside).iter().any(Option::is_some), "{one:?} in the smaller job");
        }
    }
}
