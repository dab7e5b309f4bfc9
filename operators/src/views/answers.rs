//! Answers: the rows of all views of a job, from the facts that the keyed operator says.

use std::sync::Arc;

use compact_str::CompactString;
use differential_dataflow::{AsCollection, VecCollection, collection::concatenate};
use timely::{
    container::CapacityContainerBuilder,
    dataflow::{StreamVec, operators::core::Partition},
};

use super::{
    DistinctCounts, Fact, FactUpdate, Group, IdHash, Identities, Identity, Quantile, Quantiles, Tallies, Tally, Top,
    epochs::Combine, facts::from_descending, persons::person_profiles,
};
use crate::job::{CompiledJob, View, ViewPlan, Word};

/// A row of a view, its values as words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Answer {
    /// The view, as the job numbers them.
    pub view: u16,
    /// A word for each column that is no text of its own, in order.
    pub words: Vec<u64>,
    /// What stands in the columns that are texts of their own, in order.
    pub texts: Vec<CompactString>,
}

/// A group of a view: what all views of one kind are arranged by.
type Place = (u16, Group);

/// A user in the ranks of a group: order, user, application.
type Ranked = (u64, CompactString, CompactString);

/// The answers to a job's views.
pub trait AnswerViews<'scope> {
    /// Follows the facts; gives the rows of all views.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use timely::dataflow::operators::{ToStream, capture::{Capture, Extract}};
    /// use whisperer_operators::{
    ///     job::CompiledJob,
    ///     spec::{JobSpec, ViewKind, ViewSpec},
    ///     views::{AnswerViews, Fact},
    /// };
    ///
    /// let views = vec![ViewSpec::new("users", ViewKind::Count)];
    /// let job = CompiledJob::new(&JobSpec { views, ..JobSpec::default() }).expect("the job is valid");
    /// let answers = timely::example(|scope| {
    ///     // Two users appear, one of them in a later epoch.
    ///     let fact = Fact::Tally { view: 0, group: [0; 4], amount: 0 };
    ///     [(fact.clone(), 0, 1), (fact, 3, 1)].to_stream(scope).answer_views(Arc::new(job)).inner.capture()
    /// });
    /// let answers: Vec<_> = answers.extract().into_iter().flat_map(|(_, updates)| updates).collect();
    /// let counts: Vec<_> = answers.iter().map(|(answer, epoch, diff)| (answer.words[0], *epoch, *diff)).collect();
    /// assert_eq!(counts, [(1, 0, 1), (1, 3, -1), (2, 3, 1)]);
    /// ```
    fn answer_views(self, job: Arc<CompiledJob>) -> VecCollection<'scope, u64, Answer>;
}

impl<'scope> AnswerViews<'scope> for StreamVec<'scope, u64, FactUpdate> {
    fn answer_views(self, job: Arc<CompiledJob>) -> VecCollection<'scope, u64, Answer> {
        let scope = self.scope();
        let by_kind = self.partition::<CapacityContainerBuilder<Vec<FactUpdate>>, _, _>(6, |update| match update.0 {
            Fact::Tally { .. } => (0, update),
            Fact::Member { .. } => (1, update),
            Fact::Valued { .. } => (2, update),
            Fact::Ranked(_) => (3, update),
            Fact::Listed(_) => (4, update),
            Fact::Person { .. } | Fact::FirstSeen { .. } | Fact::Link(_) | Fact::Part(_) => (5, update),
        });
        let asked = |kind: usize| job.views.each.iter().any(|view| kind_of_facts(&view.plan) == kind);
        let kinds = by_kind.into_iter().zip([tallied, distinct, valued, ranked, listed, linked]).enumerate();
        // What nobody asks for costs nothing.
        let kinds = kinds.filter(|(kind, _)| asked(*kind));
        concatenate(scope, kinds.map(|(_, (facts, answers))| answers(facts.as_collection(), job.clone())))
    }
}

/// The kind of the facts that users add to a view, as they are divided.
fn kind_of_facts(plan: &ViewPlan) -> usize {
    match plan {
        ViewPlan::Distinct => 1,
        ViewPlan::Percentiles { .. } | ViewPlan::Funnel { .. } => 2,
        ViewPlan::Top { .. } => 3,
        ViewPlan::Members { .. } => 4,
        ViewPlan::Persons | ViewPlan::Identities | ViewPlan::Profiles => 5,
        _ => 0,
    }
}

impl View {
    fn answer(&self, view: u16, group: &Group) -> Answer {
        Answer { view, words: group[..self.width].to_vec(), texts: Vec::new() }
    }
}

type Facts<'scope> = VecCollection<'scope, u64, Fact>;
type Answers<'scope> = VecCollection<'scope, u64, Answer>;

fn tallied<'scope>(facts: Facts<'scope>, job: Arc<CompiledJob>) -> Answers<'scope> {
    let tallies = facts.flat_map(|fact| match fact {
        Fact::Tally { view, group, amount } => Some(((view, group), amount)),
        _ => None,
    });
    tallies.tallies().map(move |((number, group), tally): (Place, Tally)| {
        let view = &job.views.each[usize::from(number)];
        let mut answer = view.answer(number, &group);
        answer.words.push(tally.users as u64);
        if matches!(view.plan, ViewPlan::Sum) {
            answer.words.push((tally.sum as f64 / super::FIXED_POINT).to_bits());
        }
        answer
    })
}

fn distinct<'scope>(facts: Facts<'scope>, job: Arc<CompiledJob>) -> Answers<'scope> {
    let members = facts.flat_map(|fact| match fact {
        Fact::Member { view, group, user } => Some(((view, group), user)),
        _ => None,
    });
    counted(members.distinct_counts(), job)
}

fn counted<'scope>(counts: VecCollection<'scope, u64, (Place, isize)>, job: Arc<CompiledJob>) -> Answers<'scope> {
    counts.map(move |((number, group), users)| {
        let mut answer = job.views.each[usize::from(number)].answer(number, &group);
        answer.words.push(users as u64);
        answer
    })
}

/// Who is who, and how many persons there are in groups.
fn linked<'scope>(facts: Facts<'scope>, job: Arc<CompiledJob>) -> Answers<'scope> {
    let links = facts.clone().flat_map(|fact| if let Fact::Link(link) = fact { Some(*link) } else { None });
    let first_seen = facts.clone().flat_map(|fact| match fact {
        Fact::FirstSeen { id, time } => Some((id, time)),
        _ => None,
    });
    let ids_max = job.identity.as_ref().map_or(1, |identity| identity.component_ids_max);
    let identities = links.identities(first_seen, ids_max);
    let parts = facts.clone().flat_map(|fact| if let Fact::Part(part) = fact { Some(*part) } else { None }).combine();
    let ids = facts.flat_map(|fact| match fact {
        Fact::Person { view, group, id } => Some(((view, group), id)),
        _ => None,
    });
    let persons = persons(ids, identities.clone()).distinct_counts();
    let profiles = person_profiles(parts, identities.clone(), job.clone());
    counted(persons, job.clone()).concatenate([profiles, who_is_who(identities, job)])
}

/// Ids in groups, of which each stands for its person.
fn persons<'scope>(
    ids: VecCollection<'scope, u64, (Place, IdHash)>,
    identities: VecCollection<'scope, u64, Identity>,
) -> VecCollection<'scope, u64, (Place, IdHash)> {
    let moved = identities
        .flat_map(|Identity { hash, canonical_hash, .. }| (hash != canonical_hash).then_some((hash, canonical_hash)));
    let by_id = ids.clone().map(|(place, id)| (id, place));
    let moved = by_id.join_map(moved, |id, place, canonical| (*place, *id, *canonical));
    let gone = moved.clone().map(|(place, id, _)| (place, id)).negate();
    ids.concatenate([gone, moved.map(|(place, _, canonical)| (place, canonical))])
}

/// The rows of views that list identities.
fn who_is_who<'scope>(identities: VecCollection<'scope, u64, Identity>, job: Arc<CompiledJob>) -> Answers<'scope> {
    identities.flat_map(move |Identity { app, id, canonical, refused, .. }| {
        let lists = |view: &View| matches!(view.plan, ViewPlan::Identities);
        let views = (0..).zip(&job.views.each).filter(|(_, view)| lists(view)).map(|(number, _)| number);
        let columns = |view: u16| job.views.each[usize::from(view)].words.iter().filter(|word| **word == Word::OwnText);
        let texts = [app, id, canonical];
        // Where users are not told apart by application, its column is not there.
        let own = |view| texts[texts.len() - columns(view).count()..].to_vec();
        let answer = |view| Answer { view, words: vec![u64::from(refused)], texts: own(view) };
        views.map(answer).collect::<Vec<_>>()
    })
}

fn valued<'scope>(facts: Facts<'scope>, job: Arc<CompiledJob>) -> Answers<'scope> {
    let values = facts.flat_map(|fact| match fact {
        Fact::Valued { view, group, value } => Some(((view, group), value)),
        _ => None,
    });
    let asking = job.clone();
    let asked = move |(view, _): &Place, ask: &mut dyn FnMut(&[f64])| match &asking.views.each[usize::from(*view)].plan
    {
        ViewPlan::Percentiles { at, .. } => ask(at),
        _ => ask(&[0.5]),
    };
    values.quantiles(asked).map(move |((number, group), quantile): (Place, Quantile)| {
        let view = &job.views.each[usize::from(number)];
        let mut answer = view.answer(number, &group);
        match &view.plan {
            ViewPlan::Percentiles { at, resolution, .. } => {
                let value = quantile.value as f64 * resolution;
                answer.words.extend([at[usize::from(quantile.at)].to_bits(), quantile.count as u64, value.to_bits()]);
            }
            _ => answer.words.extend([quantile.count as u64, (quantile.value as f64 / super::FIXED_POINT).to_bits()]),
        }
        answer
    })
}

fn ranked<'scope>(facts: Facts<'scope>, job: Arc<CompiledJob>) -> Answers<'scope> {
    let users = facts.flat_map(|fact| match fact {
        Fact::Ranked(fact) => Some(((fact.view, fact.group), (fact.order, fact.user, fact.app))),
        _ => None,
    });
    let limiting = job.clone();
    let limit = move |(view, _): &Place| match limiting.views.each[usize::from(*view)].plan {
        ViewPlan::Top { limit, .. } => limit as usize,
        _ => 0,
    };
    users.top(limit).map(move |((number, group), (rank, (order, user, app))): (Place, (u32, Ranked))| {
        let mut answer = job.views.each[usize::from(number)].answer(number, &group);
        answer.words.extend([u64::from(rank), from_descending(order).to_bits()]);
        answer.texts = vec![app, user];
        answer
    })
}

fn listed<'scope>(facts: Facts<'scope>, job: Arc<CompiledJob>) -> Answers<'scope> {
    facts.flat_map(move |fact| match fact {
        Fact::Listed(fact) => {
            let mut answer = job.views.each[usize::from(fact.view)].answer(fact.view, &fact.group);
            answer.texts = vec![fact.app, fact.user];
            Some(answer)
        }
        _ => None,
    })
}
