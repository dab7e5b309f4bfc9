//! Identities: which ids are one person, and which of them stands for all.
//!
//! ```text
//! links ──▶ components ──▶ (id, label) ─┬─ join ──▶ (label, link) ──────────┐
//!                                       └─ join ──▶ (label, first seen) ────┴──▶ assemble ──▶ identities
//! first seen ───────────────────────────┘
//! ```
//! What hangs together by links of any kind is found by [`Components`]; what of it is one person is a function of the links that are in
//! effect, their times and those at which ids were first seen: no history and no order of arrival is in it. So a link that goes is
//! as if it had never been, and a restart has nothing to remember but the links.

use std::collections::BTreeMap;

use compact_str::CompactString;
use differential_dataflow::VecCollection;
use serde::{Deserialize, Serialize};
use whisperer_schemas::Micros;

use super::{Components, IdHash, Link};

/// An id that is linked to another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The application.
    pub app: CompactString,
    /// The id, and its hash.
    pub id: CompactString,
    /// Its hash.
    pub hash: IdHash,
    /// The id that stands for its person.
    pub canonical: CompactString,
    /// The hash of that.
    pub canonical_hash: IdHash,
    /// When the id was first seen.
    pub first_seen: Micros,
    /// Links of the id that do not count, since its person would have too many ids.
    pub refused: u32,
}

/// The identities of a collection of links.
pub trait Identities<'scope> {
    /// Says of every linked id which person it is. `first_seen` has a time for ids, and `ids_max` is how many a person has at most.
    ///
    /// Links are taken in the order in which they took effect; one that would make a person of more than `ids_max` ids does not count, for as
    /// long as it would. The id that was first seen stands for its person, the least one of several; an id is seen when it is linked,
    /// too.
    ///
    /// ```
    /// use differential_dataflow::input::Input;
    /// use timely::dataflow::operators::capture::{Capture, Extract};
    /// use whisperer_operators::views::{Identities, Link};
    ///
    /// let link = |at: i64, one: u64, other: u64| Link {
    ///     since: (at, 0, at as u64, 0),
    ///     app: "shop".into(),
    ///     ids: [one, other].map(|id| format!("id{id}").into()),
    ///     hashes: [[0, one], [0, other]],
    /// };
    /// // Ann's phone, then her laptop; a third device would be one too many.
    /// let identities = timely::example(move |scope| {
    ///     let (_, links) = scope.new_collection_from(vec![link(20, 1, 7), link(30, 1, 8), link(40, 1, 9)]);
    ///     let (_, first_seen) = scope.new_collection_from(vec![([0, 8], 10), ([0, 1], 15)]);
    ///     links.identities(first_seen, 3).inner.capture()
    /// });
    /// let mut all: Vec<_> = identities.extract().into_iter().flat_map(|(_, updates)| updates).collect();
    /// all.sort();
    /// let all: Vec<_> = all.iter().map(|(it, _, _)| (it.id.as_str(), it.canonical.as_str(), it.refused)).collect();
    /// assert_eq!(all, [("id1", "id8", 1), ("id7", "id8", 0), ("id8", "id8", 0), ("id9", "id9", 1)]);
    /// ```
    fn identities(
        self,
        first_seen: VecCollection<'scope, u64, (IdHash, Micros)>,
        ids_max: usize,
    ) -> VecCollection<'scope, u64, Identity>;
}

/// What is known of a component.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Piece {
    Link(Link),
    FirstSeen(IdHash, Micros),
}

impl<'scope> Identities<'scope> for VecCollection<'scope, u64, Link> {
    fn identities(
        self,
        first_seen: VecCollection<'scope, u64, (IdHash, Micros)>,
        ids_max: usize,
    ) -> VecCollection<'scope, u64, Identity> {
        let labels = self.clone().map(|link| (link.hashes[0], link.hashes[1])).components().arrange_by_key();
        let links = self.map(|link| (link.hashes[0], Piece::Link(link))).arrange_by_key();
        let first_seen = first_seen.map(|(id, time)| (id, Piece::FirstSeen(id, time))).arrange_by_key();
        let by_label = |_: &IdHash, piece: &Piece, label: &IdHash| Some((*label, piece.clone()));
        let pieces = links.join_core(labels.clone(), by_label).concat(first_seen.join_core(labels, by_label));
        let persons = pieces.reduce_named("Assemble", move |_, pieces, identities| {
            let pieces = pieces.iter().map(|(piece, _)| *piece);
            identities.extend(assemble(pieces, ids_max).into_iter().map(|identity| (identity, 1)));
        });
        persons.map(|(_, identity)| identity)
    }
}

/// A linked id, as it is put together with others.
struct Member<'a> {
    app: &'a CompactString,
    id: &'a CompactString,
    first_seen: Micros,
    refused: u32,
    /// Another member of the same person, or itself.
    leads_to: usize,
    /// Ids of the person, where it leads to itself.
    ids: usize,
}

/// Makes persons of the links of a component.
fn assemble<'a>(pieces: impl Iterator<Item = &'a Piece>, ids_max: usize) -> Vec<Identity> {
    let (mut links, mut seen) = (Vec::new(), BTreeMap::new());
    for piece in pieces {
        match piece {
            Piece::Link(link) => links.push(link),
            Piece::FirstSeen(id, time) => drop(seen.insert(*id, *time)),
        }
    }
    links.sort_unstable_by_key(|link| link.since);
    let mut places: BTreeMap<IdHash, usize> = BTreeMap::new();
    let mut members: Vec<Member<'_>> = Vec::new();
    for link in links {
        let [one, other] = [0, 1].map(|side| {
            *places.entry(link.hashes[side]).or_insert_with(|| {
                let first_seen = seen.get(&link.hashes[side]).map_or(link.since.0, |time| link.since.0.min(*time));
                let leads_to = members.len();
                members.push(Member { app: &link.app, id: &link.ids[side], first_seen, refused: 0, leads_to, ids: 1 });
                leads_to
            })
        });
        join(&mut members, (one, other), ids_max);
    }
    let mut canonical: BTreeMap<usize, IdHash> = BTreeMap::new();
    let rank = |hash: &IdHash| (members[places[hash]].first_seen, members[places[hash]].id);
    for (hash, place) in &places {
        let least = canonical.entry(root(&members, *place)).or_insert(*hash);
        if rank(hash) < rank(least) {
            *least = *hash;
        }
    }
    let identity = |(hash, place): (&IdHash, &usize)| {
        let canonical_hash = canonical[&root(&members, *place)];
        let Member { app, id, first_seen, refused, .. } = &members[*place];
        let canonical = members[places[&canonical_hash]].id.clone();
        Identity {
            app: (*app).clone(),
            id: (*id).clone(),
            hash: *hash,
            canonical,
            canonical_hash,
            first_seen: *first_seen,
            refused: *refused,
        }
    };
    places.iter().map(identity).collect()
}

/// The member that stands at the end of where another leads. Ways are short: a smaller person is put under a larger one.
fn root(members: &[Member<'_>], mut at: usize) -> usize {
    while members[at].leads_to != at {
        at = members[at].leads_to;
    }
    at
}

fn join(members: &mut [Member<'_>], (one, other): (usize, usize), ids_max: usize) {
    let (a, b) = (root(members, one), root(members, other));
    if a == b {
        return;
    }
    if members[a].ids + members[b].ids > ids_max {
        members[one].refused += 1;
        members[other].refused += 1;
        return;
    }
    let (under, over) = if members[a].ids < members[b].ids { (a, b) } else { (b, a) };
    members[under].leads_to = over;
    members[over].ids += members[under].ids;
}
