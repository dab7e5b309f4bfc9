//! What a key adds to the job's views: said when it comes, changed when an evaluation or an event changes it, said again after a restore.
//!
//! A view of users as they are shows each as of the user's last evaluation: what that came to is kept with the key, a word for each value, so
//! that it can be taken back. A view of history is a function of the facts of history that the key keeps, which every event changes at
//! once, a late one too. So what a key has said is a function of its state, whatever the cuts, the workers and the restarts.

use smallvec::SmallVec;
use whisperer_schemas::{Micros, ids::text_hash, time::DAY};

use super::{Engine, Outputs, Turn, links::id_hash};
use crate::{
    cells::{SlotKind, count_of, pane_of, session_of},
    interner::Interner,
    job::{Dimension, NameSlot, Shown, View, ViewPlan},
    record::Record,
    views::{Fact, Group, NONE, UserFact, descending, first_day_of, fixed_point},
};

/// Different changes of the stage that are kept of a key, by day and by what changed, and as many decisions: more than a year of one each
/// day.
pub const CHANGES_MAX: usize = 1 << 10;

/// What views need to know of a key, as words.
type Words = SmallVec<[u64; 16]>;

/// Texts that went out as hashes, by their numbers; those that have not are 0.
#[derive(Debug, Default)]
pub(crate) struct Told {
    texts: Vec<u64>,
    apps: Vec<u64>,
}

/// Facts of one key, view by view.
type Facts = Vec<Fact>;

impl Turn<'_> {
    /// Says what a key that has just come adds, before anything is known of it.
    pub(super) fn appear(&mut self) {
        let words = Words::from_elem(NONE, self.job.views.shown.len());
        let mut facts = Facts::new();
        self.shown_facts((0, &words), &|_| true, &mut facts);
        self.say(facts, 1);
        self.app_word();
    }

    /// Says everything that the key has said (1), after a restore, or takes it back (-1), its part left out; the starts of the slots' cells must
    /// be those of the state.
    pub(super) fn say_all(&mut self, diff: isize) {
        self.app_word();
        let words = self.kept_words();
        let mut facts = Facts::new();
        self.shown_facts((self.state.stage, &words), &|_| true, &mut facts);
        self.history_facts(&mut facts);
        self.say(facts, diff);
        self.say_all_changes(diff);
        if diff > 0 {
            self.say_links_again();
        } else {
            self.take_links_back();
        }
    }

    /// Follows an evaluation at `now`, before which the stage was another or the same.
    pub(super) fn follow(&mut self, stage_before: u16, now: Micros) {
        let (before, after) = (self.kept_words(), self.words_at(now));
        let stage = self.state.stage;
        if before == after && stage_before == stage {
            return;
        }
        let (mut gone, mut come) = (Facts::new(), Facts::new());
        let changed = |view: &View| {
            (view.by_stage && stage_before != stage) || view.shown.iter().any(|at| before[*at] != after[*at])
        };
        self.shown_facts((stage_before, &before), &changed, &mut gone);
        self.shown_facts((stage, &after), &changed, &mut come);
        self.replace(gone, come);
        self.keep_words(&before, &after);
        if stage_before != stage {
            let change = u64::from(stage_before) << 16 | u64::from(stage);
            self.note(self.job.views.transitions_slot, change, now);
        }
    }

    /// Takes over what the job shows now, where it is another job than that of the last evaluation.
    pub(super) fn show_anew(&mut self) {
        let now = self.state.floor.max(self.state.key_clock);
        let features = &self.job.condition_features;
        self.engine.read(self.job, features, self.state, now);
        let (before, after) = (self.kept_words(), self.words_at(now));
        self.keep_words(&before, &after);
    }

    /// What the facts of history add before an event that may change it; none where it cannot.
    pub(super) fn history_before(&self, record: &Record) -> Option<Facts> {
        let may_change = record.lanes & self.job.views.ledger_lanes != 0 && self.history_may_change(record);
        may_change.then(|| {
            let mut facts = Facts::new();
            self.history_facts(&mut facts);
            facts
        })
    }

    /// The same after it: the difference is said.
    pub(super) fn history_after(&mut self, gone: Facts) {
        let mut come = Facts::new();
        self.history_facts(&mut come);
        self.replace(gone, come);
    }

    fn replace(&mut self, gone: Facts, come: Facts) {
        // Both lists go view by view: most of what one has the other has at the same place.
        let same = gone.len() == come.len();
        let (gone, come) = match same {
            true => gone.into_iter().zip(come).filter(|(gone, come)| gone != come).unzip(),
            false => (gone, come),
        };
        self.say(gone, -1);
        self.say(come, 1);
    }

    fn say(&mut self, facts: Facts, diff: isize) {
        self.outputs.facts.extend(facts.into_iter().map(|fact| (fact, diff)));
    }

    // ---- Views of users as they are ----------------------------------------------------------------------------------------

    /// What is kept of the last evaluation.
    fn kept_words(&self) -> Words {
        let views = &self.job.views;
        let cells = self.engine.cells(self.job, self.state);
        let word = |at: usize| cells.cells(views.shown_slot + at).next().map_or(NONE, |cell| cell[1]);
        (0..views.shown.len()).map(word).collect()
    }

    fn keep_words(&mut self, before: &Words, after: &Words) {
        let views = &self.job.views;
        for (at, (before, after)) in before.iter().zip(after).enumerate() {
            if before != after {
                let mut editor = self.state.cells.edit(&mut self.engine.starts, &self.job.layout);
                editor.show(views.shown_slot + at, Some(*after).filter(|word| *word != NONE));
            }
        }
    }

    /// What the job shows of the key at `now`; the features that its conditions read must have been read.
    fn words_at(&mut self, now: Micros) -> Words {
        let (job, views) = (self.job, &self.job.views);
        self.engine.read(job, &views.features, self.state, now);
        let Engine { values, texts, .. } = &mut *self.engine;
        values.set_stage(self.state.stage);
        values.compute(job, &views.steps, texts);
        let env = values.env(job, texts);
        let number = |number: f64| if number.is_nan() { NONE } else { (number + 0.0).to_bits() };
        let place = |slot: &NameSlot| values.place(*slot).map_or(NONE, u64::from);
        let word = |shown: &Shown| match shown {
            Shown::Number(slot) => number(values.number(*slot)),
            Shown::Text(slot) | Shown::Choice(slot) => place(slot),
            // Of most users most conditions do not hold: that takes no room.
            Shown::Condition(_, condition) if condition.eval(&env) == Some(true) => number(1.0),
            Shown::Condition(..) => NONE,
        };
        let words = views.shown.iter().map(word).collect();
        // What gives no value is counted where conditions and rows come across it.
        values.take_nulls();
        words
    }

    /// What a key adds to some views whose last evaluation came to this stage and these words.
    fn shown_facts(&mut self, (stage, words): (u16, &Words), asked: &dyn Fn(&View) -> bool, facts: &mut Facts) {
        let job = self.job;
        for (number, view) in (0..).zip(&job.views.each) {
            if view.of_history() || !asked(view) || !view.when.is_none_or(|at| holds(words[at])) {
                continue;
            }
            let group = self.group(view, stage, words);
            let of = view.of.map(|at| words[at]).filter(|word| *word != NONE).map(f64::from_bits);
            match (&view.plan, of) {
                (ViewPlan::Count, _) => facts.push(Fact::Tally { view: number, group, amount: 0 }),
                (ViewPlan::Distinct, _) => {
                    facts.push(Fact::Member { view: number, group, user: text_hash(&self.state.user_id) });
                }
                (ViewPlan::Persons, _) => {
                    facts.push(Fact::Person { view: number, group, id: id_hash(self.state.key) });
                }
                (ViewPlan::Sum, Some(of)) => {
                    facts.push(Fact::Tally { view: number, group, amount: fixed_point(of) });
                }
                (ViewPlan::Percentiles { resolution, .. }, Some(of)) => {
                    facts.push(Fact::Valued { view: number, group, value: (of / resolution).round() as i64 });
                }
                (ViewPlan::Top { .. }, Some(of)) => {
                    facts.push(Fact::Ranked(Box::new(self.by_name(number, group, descending(of)))));
                }
                (ViewPlan::Members { members }, _) => {
                    let (mut group, at) = (group, view.group_by.len());
                    for segment in segments_of(members, words) {
                        group[at] = segment;
                        facts.push(Fact::Listed(Box::new(self.by_name(number, group, 0))));
                    }
                }
                (ViewPlan::Segments { members }, _) => overlaps(number, (view, group), members, words, facts),
                _ => {}
            }
        }
    }

    fn by_name(&self, view: u16, group: Group, order: u64) -> UserFact {
        let (user, app) = (self.state.user_id.clone(), self.engine.apps.get(self.state.app).into());
        UserFact { view, group, order, user, app }
    }

    fn group(&mut self, view: &View, stage: u16, words: &Words) -> Group {
        let mut group = Group::default();
        for (word, dimension) in group.iter_mut().zip(&view.group_by) {
            *word = match dimension {
                Dimension::App => self.app_word(),
                Dimension::Stage => u64::from(stage),
                Dimension::Shown(at) if words[*at] == NONE => NONE,
                Dimension::Shown(at) => match self.job.views.shown[*at] {
                    Shown::Text(_) => {
                        let Engine { told, texts, .. } = &mut *self.engine;
                        tell(&mut told.texts, texts, words[*at] as u32, self.outputs)
                    }
                    _ => words[*at],
                },
            };
        }
        group
    }

    fn app_word(&mut self) -> u64 {
        let Engine { told, apps, .. } = &mut *self.engine;
        tell(&mut told.apps, apps, self.state.app, self.outputs)
    }

    // ---- Views of history ------------------------------------------------------------------------------------------------

    /// The group of a view that can be grouped by the application alone, and where the rest of it begins.
    fn history_group(&self, view: &View) -> (Group, usize) {
        let mut group = Group::default();
        if !view.group_by.is_empty() {
            // Told when the key came.
            group[0] = text_hash(self.engine.apps.get(self.state.app));
        }
        (group, view.group_by.len())
    }

    /// Notes a decision of a trigger and says it to the views of decisions.
    pub(super) fn decided(&mut self, trigger: usize, now: Micros) {
        self.note(self.job.views.decisions_slot, trigger as u64, now);
    }

    /// Notes a change in a ledger of changes by day, if there is one, and says it to the views of that ledger.
    fn note(&mut self, ledger: Option<usize>, change: u64, now: Micros) {
        let (job, day) = (self.job, now.div_euclid(DAY));
        let Some(slot) = ledger else { return };
        let mut editor = self.state.cells.edit(&mut self.engine.starts, &job.layout);
        if editor.change(slot, day, change, CHANGES_MAX) {
            self.say_change(slot, day, change, 1);
        }
    }

    fn say_all_changes(&mut self, diff: isize) {
        let views = &self.job.views;
        for slot in views.transitions_slot.into_iter().chain(views.decisions_slot) {
            let cells = self.engine.cells(self.job, self.state).cells(slot);
            let changes: Vec<_> = cells.map(|cell| (pane_of(cell[0]), cell[1], count_of(cell[0]))).collect();
            for (day, change, count) in changes {
                self.say_change(slot, day, change, diff * count as isize);
            }
        }
    }

    fn say_change(&mut self, slot: usize, day: i64, change: u64, count: isize) {
        let (job, day) = (self.job, (day * DAY) as u64);
        for (number, view) in (0..).zip(&job.views.each) {
            let (mut group, at) = self.history_group(view);
            match view.plan {
                ViewPlan::Transitions if Some(slot) == job.views.transitions_slot => {
                    group[at..at + 3].copy_from_slice(&[change >> 16, change & 0xffff, day]);
                }
                ViewPlan::Decisions if Some(slot) == job.views.decisions_slot => {
                    group[at..at + 2].copy_from_slice(&[change, day]);
                }
                _ => continue,
            }
            self.outputs.facts.push((Fact::Tally { view: number, group, amount: 0 }, count));
        }
    }

    /// Whether an event may change what the facts of history add: most come after the first, in a period that has some, and are no step.
    fn history_may_change(&self, record: &Record) -> bool {
        let (cells, slots) = (self.engine.cells(self.job, self.state), self.job.layout.slots());
        let takes = |slot: usize| record.lanes & 1 << slots[slot].lane != 0;
        self.job.views.each.iter().any(|view| match &view.plan {
            ViewPlan::Cohorts { period, begins, active } => {
                let begin = cells.cells(*begins).next().map(|cell| cell[1] as Micros);
                let earlier = takes(*begins) && begin.is_none_or(|begin| record.time < begin);
                let day = first_day_of(*period, record.time);
                earlier || (takes(*active) && cells.cells(*active).all(|cell| pane_of(cell[0]) != day))
            }
            ViewPlan::Funnel { steps, within } => {
                let begin = cells.cells(steps[0]).next().map(|cell| session_of(cell).0);
                let earlier = takes(steps[0]) && begin.is_none_or(|begin| record.time < begin);
                // Where times are full, even one that is no step drives another out.
                let full = |step: usize| matches!(slots[step].kind, SlotKind::Times { max } if cells.cells(step).len() >= max as usize);
                let step = |begin: Micros, step: usize| {
                    takes(step) && ((begin..=begin.saturating_add(*within)).contains(&record.time) || full(step))
                };
                earlier || begin.is_some_and(|begin| steps[1..].iter().any(|at| step(begin, *at)))
            }
            _ => false,
        })
    }

    /// What the facts of history add to views.
    fn history_facts(&self, facts: &mut Facts) {
        let cells = self.engine.cells(self.job, self.state);
        for (number, view) in (0..).zip(&self.job.views.each) {
            let (mut group, at) = self.history_group(view);
            match &view.plan {
                ViewPlan::Cohorts { period, begins, active } => {
                    let Some(begin) = cells.cells(*begins).next() else { continue };
                    let cohort = first_day_of(*period, begin[1] as Micros);
                    for day in cells.cells(*active).map(|cell| pane_of(cell[0])).filter(|day| *day >= cohort) {
                        group[at..at + 2].copy_from_slice(&[(cohort * DAY) as u64, (day * DAY) as u64]);
                        facts.push(Fact::Tally { view: number, group, amount: 0 });
                    }
                }
                ViewPlan::Funnel { steps, within } => {
                    let times = |step: usize| cells.cells(steps[step]).map(|cell| session_of(cell).0);
                    let Some(begin) = times(0).next() else { continue };
                    let mut reached = begin;
                    for step in 0..steps.len() {
                        let next = if step == 0 { Some(begin) } else { times(step).find(|time| *time > reached) };
                        let Some(time) = next.filter(|time| time - begin <= *within) else { break };
                        reached = time;
                        group[at] = step as u64;
                        facts.push(Fact::Valued { view: number, group, value: time - begin });
                    }
                }
                _ => {}
            }
        }
    }
}

fn holds(word: u64) -> bool {
    word != NONE && f64::from_bits(word) == 1.0
}

/// The segments that the user is in.
fn segments_of(members: &[usize], words: &Words) -> impl Iterator<Item = u64> {
    (0..).zip(members).filter(|(_, at)| holds(words[**at])).map(|(segment, _)| segment)
}

/// Every two segments that the user is in, and each with itself.
fn overlaps(number: u16, (view, group): (&View, Group), members: &[usize], words: &Words, facts: &mut Facts) {
    let (mut group, at) = (group, view.group_by.len());
    for one in segments_of(members, words) {
        for other in segments_of(members, words).filter(|other| *other >= one) {
            group[at..at + 2].copy_from_slice(&[one, other]);
            facts.push(Fact::Tally { view: number, group, amount: 0 });
        }
    }
}

/// The hash of a text, which goes out with its text when it is used first.
fn tell(told: &mut Vec<u64>, texts: &Interner, number: u32, outputs: &mut Outputs) -> u64 {
    let at = number as usize;
    if told.len() <= at {
        told.resize(at + 1, 0);
    }
    if told[at] == 0 {
        let text = texts.get(number);
        told[at] = text_hash(text);
        outputs.texts.push((told[at], text.into()));
    }
    told[at]
}
