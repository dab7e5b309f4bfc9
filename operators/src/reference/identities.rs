//! Identities from scratch: all that was ever said about links is listed, and at the end gone through in the order of effect.

use std::collections::{BTreeMap, BTreeSet};

use sqlparser::ast::Expr;
use whisperer_schemas::{time::Micros, value::Value};

use super::{
    NamedRow,
    expression::{self, Datum, Type},
    parse::Event,
};
use crate::spec::{Entity, JobSpec};

/// An id, with its application where that is a part of it.
pub(super) type Id = Vec<String>;

/// What events have said about ids.
pub(super) struct Identities<'a> {
    spec: &'a JobSpec,
    /// Event types, the expressions of other ids, and whether they take a link back.
    each: Vec<(String, Expr, bool)>,
    said: Vec<Said>,
    first_seen: BTreeMap<Id, Micros>,
}

struct Said {
    /// Effect time, partition, offset, and which of those that the event says.
    order: (Micros, u32, u64, usize),
    by: Id,
    of: Id,
    unlinks: bool,
}

/// The persons that ids are.
#[derive(Default)]
pub(super) struct Persons {
    /// When linked ids were first seen.
    first_seen: BTreeMap<Id, Micros>,
    canonical: BTreeMap<Id, Id>,
    refused: BTreeMap<Id, i64>,
}

impl<'a> Identities<'a> {
    pub fn new(spec: &'a JobSpec) -> Result<Identities<'a>, String> {
        let mut each = Vec::new();
        if let Some(identity) = &spec.identity {
            let links = identity.links.iter().map(|link| (link, false));
            for (link, unlinks) in links.chain(identity.unlinks.iter().map(|link| (link, true))) {
                each.push((link.event.value.clone(), expression::parse(&link.other.value)?, unlinks));
            }
        }
        Ok(Identities { spec, each, said: Vec::new(), first_seen: BTreeMap::new() })
    }

    /// The id of a user of an event's application.
    fn id(&self, event: &Event, user: &str) -> Id {
        match self.spec.entity {
            Entity::AppUser => vec![event.app_id.clone(), user.to_owned()],
            Entity::User => vec![user.to_owned()],
        }
    }

    /// Forgets what an id has said, and that it was seen.
    pub fn forget(&mut self, id: &Id) {
        self.said.retain(|said| said.by != *id);
        self.first_seen.remove(id);
    }

    /// Forgets the user of an event, who is a new one.
    pub fn forget_user_of(&mut self, event: &Event) {
        self.forget(&self.id(event, &event.user_id));
    }

    /// Notes an event that is applied.
    pub fn apply(&mut self, event: &Event, pw: Micros, (partition, offset): (u32, u64)) -> Result<(), String> {
        let effect = event.time.max(pw);
        let by = self.id(event, &event.user_id);
        self.first_seen.entry(by.clone()).or_insert(effect);
        for (place, (_, other, unlinks)) in self.each.iter().enumerate().filter(|(_, of)| of.0 == event.event_type) {
            let Datum::Text(other) = expression::eval(other, Some(Type::Text), event)? else { continue };
            if !other.is_empty() && other != event.user_id {
                let (by, of) = (by.clone(), self.id(event, &other));
                self.said.push(Said { order: (effect, partition, offset, place), by, of, unlinks: *unlinks });
            }
        }
        Ok(())
    }

    /// What is so when all that was said has taken effect.
    pub fn persons(mut self) -> Persons {
        let Some(identity) = &self.spec.identity else { return Persons::default() };
        self.said.sort_by_key(|said| said.order);
        let mut links = BTreeMap::new();
        for Said { order, by, of, unlinks } in &self.said {
            match unlinks {
                true => drop(links.remove(&(by, of))),
                false => drop(links.entry((by, of)).or_insert(*order)),
            }
        }
        let mut in_order: Vec<_> = links.into_iter().map(|(pair, since)| (since, pair)).collect();
        in_order.sort();
        let mut first_seen = self.first_seen.clone();
        let mut persons = Persons::default();
        let mut sets: Vec<BTreeSet<&Id>> = Vec::new();
        for ((time, ..), (one, other)) in in_order {
            for id in [one, other] {
                first_seen.entry(id.clone()).and_modify(|first| *first = time.min(*first)).or_insert(time);
                if !sets.iter().any(|set| set.contains(id)) {
                    sets.push(BTreeSet::from([id]));
                }
            }
            let (with_one, rest): (Vec<_>, Vec<_>) = sets.iter().cloned().partition(|set| set.contains(one));
            let (with_other, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(|set| set.contains(other));
            let both: BTreeSet<&Id> = with_one.into_iter().chain(with_other.iter().cloned()).flatten().collect();
            if both.len() <= identity.component_ids_max as usize {
                sets = rest;
                sets.push(both);
            } else if !with_other.is_empty() {
                *persons.refused.entry(one.clone()).or_default() += 1;
                *persons.refused.entry(other.clone()).or_default() += 1;
            }
        }
        for set in sets {
            let canonical = set.iter().min_by_key(|id| (first_seen[**id], id.last())).expect("no set is empty");
            persons.canonical.extend(set.iter().map(|id| ((*id).clone(), (*canonical).clone())));
        }
        persons.first_seen = first_seen;
        persons
    }
}

impl Persons {
    /// The persons of several ids: the one that stands for all, and all in the order in which they were seen.
    pub fn of_several(&self) -> Vec<(Id, Vec<Id>)> {
        let mut all: BTreeMap<&Id, Vec<Id>> = BTreeMap::new();
        for (id, canonical) in &self.canonical {
            all.entry(canonical).or_default().push(id.clone());
        }
        let several = all.into_iter().filter(|(_, ids)| ids.len() > 1);
        let sorted = |(canonical, mut ids): (&Id, Vec<Id>)| {
            ids.sort_by_key(|id| (self.first_seen[id], id.last().cloned()));
            (canonical.clone(), ids)
        };
        several.map(sorted).collect()
    }

    /// The id that stands for the person of an id.
    pub fn canonical(&self, id: &Id) -> Id {
        self.canonical.get(id).unwrap_or(id).clone()
    }

    /// The rows of the view of identities.
    pub fn rows(&self) -> Vec<NamedRow> {
        let row = |(id, canonical): (&Id, &Id)| {
            let last = |id: &Id| id.last().map_or(Value::Null, Value::text);
            let refused = Value::Int(self.refused.get(id).copied().unwrap_or_default());
            let columns = [("user_id", last(id)), ("canonical_id", last(canonical)), ("refused_links", refused)];
            let app = (id.len() == 2).then(|| ("app_id", Value::text(&id[0])));
            app.into_iter().chain(columns).map(|(name, value)| (name.to_owned(), value)).collect()
        };
        self.canonical.iter().map(row).collect()
    }
}
