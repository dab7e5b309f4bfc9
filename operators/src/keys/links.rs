//! Links between ids: kept with the key whose events have spoken of them, in effect once the global watermark has passed their time.
//!
//! ```text
//! record ──▶ ledger of the key            statements in the order of effect: what a restore needs
//!        └─▶ pending ──watermark──▶ in effect ──▶ facts (link, +1 / -1)
//! ```
//! A statement takes effect at its event time, a late one at the watermark that it was late against: the global watermark never exceeds
//! that, so it has passed no statement that is still to come, and what is in effect when it stands somewhere is a function of the log.
//! Statements about one other id are told by the same key, each in its turn: an event takes back what events of its own user have said.

use std::collections::BTreeMap;

use compact_str::CompactString;
use hashbrown::HashMap;
use smallvec::SmallVec;
use whisperer_schemas::{KeyHash, Micros};

use super::{Outputs, Turn};
use crate::{
    cells::{count_of, first_word},
    job::{EffectOrder, Identity, STATEMENTS_MAX},
    record::Record,
    spec::Entity,
    views::{Fact, IdHash, Link},
};

/// Words of a statement's cell.
const WIDTH: usize = 5;

/// A statement's cell, but for its first word: effect time, partition, offset, the other id's number. Before it what its low bits say.
type Entry = (u64, [u64; WIDTH - 1]);

/// Whether a statement takes a link back, in the lowest of its bits; its place among those of its event is in the others.
const UNLINKS: u64 = 1;

/// The links that the keys of one worker have spoken of.
#[derive(Debug)]
pub(super) struct Links {
    /// What the watermark has not passed.
    pending: BTreeMap<EffectOrder, Statement>,
    /// Links in effect, each with the time since when: by the hash of the key that said so, and the other's.
    standing: HashMap<(IdHash, IdHash), EffectOrder>,
    /// What takes effect before this has.
    passed: Micros,
}

#[derive(Debug)]
struct Statement {
    link: Link,
    unlinks: bool,
}

/// The hash of an id.
pub(super) fn id_hash(key: KeyHash) -> IdHash {
    [(key.0 >> 64) as u64, key.0 as u64]
}

impl Default for Links {
    fn default() -> Links {
        Links { pending: BTreeMap::new(), standing: HashMap::new(), passed: Micros::MIN }
    }
}

impl Links {
    /// The global watermark has come to here: what takes effect before is in effect.
    pub(super) fn pass(&mut self, watermark: Micros, outputs: &mut Outputs) {
        self.passed = self.passed.max(watermark);
        while let Some(entry) = self.pending.first_entry().filter(|entry| entry.key().0 < self.passed) {
            let statement = entry.remove();
            self.take_effect(statement, outputs);
        }
    }

    /// No statement comes any more.
    pub(super) fn end(&mut self, outputs: &mut Outputs) {
        for (_, statement) in std::mem::take(&mut self.pending) {
            self.take_effect(statement, outputs);
        }
    }

    /// Goes on from a cut at which the global watermark stood here.
    pub(super) fn restore(&mut self, watermark: Micros) {
        self.passed = watermark;
    }

    /// Takes a statement in; one that the watermark has passed, which a restore brings again, is in effect at once.
    fn add(&mut self, statement: Statement, outputs: &mut Outputs) {
        if statement.link.since.0 < self.passed {
            self.take_effect(statement, outputs);
        } else {
            self.pending.insert(statement.link.since, statement);
        }
    }

    fn take_effect(&mut self, Statement { mut link, unlinks }: Statement, outputs: &mut Outputs) {
        let pair = (link.hashes[0], link.hashes[1]);
        match (self.standing.get(&pair), unlinks) {
            (None, false) => {
                self.standing.insert(pair, link.since);
                outputs.facts.push((Fact::Link(Box::new(link)), 1));
            }
            (Some(since), true) => {
                link.since = *since;
                self.standing.remove(&pair);
                outputs.facts.push((Fact::Link(Box::new(link)), -1));
            }
            // Said again.
            (Some(_), false) | (None, true) => {}
        }
    }
}

impl Turn<'_> {
    /// Notes what an event that was applied says about links, and that its key was seen.
    pub(super) fn identify(&mut self, record: &Record, pw: Micros) {
        let job = self.job;
        let Some(identity) = &job.identity else { return };
        let effect = record.time.max(pw);
        if self.engine.cells(job, self.state).cells(identity.first_seen).next().is_none() {
            self.state.cells.edit(&mut self.engine.starts, &job.layout).keep_first(identity.first_seen, effect);
            self.outputs.facts.push((Fact::FirstSeen { id: id_hash(self.state.key), time: effect }, 1));
        }
        if record.lanes & identity.lanes == 0 {
            return;
        }
        for (place, of) in (0..).zip(&identity.statements).filter(|(_, of)| record.lanes >> of.lane & 1 == 1) {
            let other = record.texts[of.text].as_ref().filter(|other| !other.is_empty() && **other != record.user_id);
            if let Some(other) = other {
                let other = u64::from(self.engine.texts.number(other));
                let words = [effect as u64, u64::from(record.partition), record.offset, other];
                self.state_link(identity, (place << 1 | u64::from(of.unlinks), words), pw);
            }
        }
    }

    /// Takes a statement into the ledger, which is kept short: what watermarks have passed is left as what it comes to.
    fn state_link(&mut self, identity: &Identity, entry: Entry, pw: Micros) {
        let mut entries = self.entries(identity);
        // By the key's own watermark, which is the same however the input is cut; the global one may lag behind.
        let standing = entries.iter().copied().collect::<SmallVec<_>>();
        if standing_at(standing, pw).len() >= STATEMENTS_MAX {
            self.engine.counts.statements_refused += 1;
            return;
        }
        let place = entries.partition_point(|other| order(other) < order(&entry));
        entries.insert(place, entry);
        let entries = standing_at(entries, self.engine.links.passed);
        let cell = |(low, words): &Entry| {
            let mut cell = [first_word(identity.ledger, 0, *low); WIDTH];
            cell[1..].copy_from_slice(words);
            cell
        };
        let cells: Vec<u64> = entries.iter().flat_map(cell).collect();
        self.state.cells.edit(&mut self.engine.starts, &self.job.layout).replace(identity.ledger, &cells);
        let statement = self.statement(&entry);
        self.engine.links.add(statement, self.outputs);
    }

    /// Says after a restore what the key has said.
    pub(super) fn say_links_again(&mut self) {
        let job = self.job;
        let Some(identity) = &job.identity else { return };
        if let Some(cell) = self.engine.cells(job, self.state).cells(identity.first_seen).next() {
            let time = cell[1] as Micros;
            self.outputs.facts.push((Fact::FirstSeen { id: id_hash(self.state.key), time }, 1));
        }
        for entry in self.entries(identity) {
            let statement = self.statement(&entry);
            self.engine.links.add(statement, self.outputs);
        }
    }

    /// Takes back what the key has said.
    pub(super) fn take_links_back(&mut self) {
        let job = self.job;
        let Some(identity) = &job.identity else { return };
        if let Some(cell) = self.engine.cells(job, self.state).cells(identity.first_seen).next() {
            let time = cell[1] as Micros;
            self.outputs.facts.push((Fact::FirstSeen { id: id_hash(self.state.key), time }, -1));
        }
        for entry in self.entries(identity) {
            let Statement { mut link, .. } = self.statement(&entry);
            let links = &mut self.engine.links;
            links.pending.remove(&link.since);
            if let Some(since) = links.standing.remove(&(link.hashes[0], link.hashes[1])) {
                link.since = since;
                self.outputs.facts.push((Fact::Link(Box::new(link)), -1));
            }
        }
    }

    fn entries(&self, identity: &Identity) -> SmallVec<[Entry; 4]> {
        let cells = self.engine.cells(self.job, self.state).cells(identity.ledger);
        let entry = |cell: &[u64]| (count_of(cell[0]), [cell[1], cell[2], cell[3], cell[4]]);
        cells.map(entry).collect()
    }

    fn statement(&self, entry: &Entry) -> Statement {
        let app = self.engine.apps.get(self.state.app);
        let other = self.engine.texts.get(entry.1[3] as u32);
        let key = match self.job.entity {
            Entity::AppUser => KeyHash::of(&[app, other]),
            Entity::User => KeyHash::of(&[other]),
        };
        let link = Link {
            since: order(entry),
            app: app.into(),
            ids: [self.state.user_id.clone(), CompactString::new(other)],
            hashes: [id_hash(self.state.key), id_hash(key)],
        };
        Statement { link, unlinks: entry.0 & UNLINKS != 0 }
    }
}

fn order((low, words): &Entry) -> EffectOrder {
    (words[0] as Micros, words[1] as u32, words[2], (low >> 1) as u16)
}

/// What statements come to: of those that took effect before a time the first one of each link that stands, of later ones all.
fn standing_at(entries: SmallVec<[Entry; 4]>, passed: Micros) -> SmallVec<[Entry; 4]> {
    let mut standing: SmallVec<[Entry; 4]> = SmallVec::new();
    for entry in entries {
        if order(&entry).0 >= passed {
            standing.push(entry);
            continue;
        }
        // Nothing later stands before what has been passed, so whatever is known of the other id is a link.
        let known = standing.iter().position(|other| other.1[3] == entry.1[3]);
        match (known, entry.0 & UNLINKS != 0) {
            (None, false) => standing.push(entry),
            (Some(at), true) => drop(standing.remove(at)),
            (Some(_), false) | (None, true) => {}
        }
    }
    standing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(time: u64, other: u64, unlinks: bool) -> Entry {
        (u64::from(unlinks), [time, 0, time, other])
    }

    #[test]
    fn a_ledger_keeps_what_stands_and_what_is_to_come() {
        // Goal: a link that is said again is kept once, as it was said first; one that was taken back is gone, unless said again since.
        // What has not been passed is kept whole.
        let (link, unlink) = (|time, other| entry(time, other, false), |time, other| entry(time, other, true));
        let said = [link(1, 7), link(2, 8), link(3, 7), unlink(4, 8), link(5, 9), unlink(6, 9), link(7, 9), link(9, 7)];
        let kept = |passed| standing_at(said.iter().copied().collect(), passed).to_vec();
        assert_eq!(kept(0), said);
        assert_eq!(kept(7), [link(1, 7), link(7, 9), link(9, 7)]);
        assert_eq!(kept(8), [link(1, 7), link(7, 9), link(9, 7)]);
        assert_eq!(kept(10), [link(1, 7), link(7, 9)]);
        assert_eq!(kept(4), [link(1, 7), link(2, 8), unlink(4, 8), link(5, 9), unlink(6, 9), link(7, 9), link(9, 7)]);
    }
}
