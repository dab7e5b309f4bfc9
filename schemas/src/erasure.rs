//! Erasure: who is to be forgotten, and which events are suppressed for it.
//!
//! ```text
//! request   the ids, as they were asked for                        goes when the erasure is final
//! entry     a keyed hash of the ids, and which events it covers    stays: whoever reads the log again leaves those events out
//! applied   what was taken out, and what checkpoints still count   stays with the entry
//! ```
//! A suppressed event moves the watermark and does nothing else, as if the record held a position and an event time alone. So results after
//! an erasure are those of a log in which the person's records were blanked.
//!
//! Entries know a person by SipHash-2-4-128 of the hashed ids under a secret of the state folder: without it nobody can try ids out.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use siphasher::sip128::SipHasher24;

use crate::{
    digest::Digest,
    ids::{Epoch, KeyHash, Position},
    time::Micros,
};

/// The version of requests, entries and what was applied.
pub const ERASURE_VERSION: u32 = 1;

/// The event type that erases its user up to its event time.
pub const USER_ERASED: &str = "user_erased";

/// What keyed hashes are made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Secret(pub [u8; 16]);

/// A person, or a person in one application, as a keyed hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subject(pub u128);

impl From<Subject> for String {
    fn from(subject: Subject) -> String {
        format!("{:032x}", subject.0)
    }
}

impl TryFrom<String> for Subject {
    type Error = String;

    fn try_from(text: String) -> Result<Subject, String> {
        let parsed = u128::from_str_radix(&text, 16);
        parsed.map(Subject).map_err(|error| format!("\"{text}\" is no keyed hash: {error}"))
    }
}

impl Secret {
    /// The keyed hash of ids: of an application and a user, or of a user alone.
    #[must_use]
    pub fn subject(&self, ids: &[&str]) -> Subject {
        self.hash(&KeyHash::of(ids).0.to_le_bytes())
    }

    /// The keyed hash of bytes.
    #[must_use]
    pub fn hash(&self, bytes: &[u8]) -> Subject {
        Subject(SipHasher24::new_with_key(&self.0).hash(bytes).as_u128())
    }
}

/// Someone asks for an erasure. It names the person, so it goes when the erasure is final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`ERASURE_VERSION`].
    pub version: u32,
    /// What it is called; its entry has the same name.
    pub id: String,
    /// The application; none where the person is to be erased in all.
    pub app: Option<String>,
    /// The user.
    pub user: String,
    /// Event time up to which events are suppressed; none for what is usual.
    pub up_to: Option<Micros>,
    /// When it was asked for, by the wall clock.
    pub requested: Micros,
}

/// Which events an erasure suppresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// [`ERASURE_VERSION`].
    pub version: u32,
    /// What it is called.
    pub id: String,
    /// The person.
    pub subject: Subject,
    /// Whether the subject is a user in all applications.
    pub everywhere: bool,
    /// Events up to this time are suppressed, wherever they stand.
    pub up_to: Micros,
    /// For partitions the offset below which all are, whatever their time.
    pub positions: BTreeMap<u32, u64>,
    /// Rows of earlier epochs are to go; those of this one and later ones are of events that are not covered.
    pub before: Epoch,
}

impl Entry {
    /// Whether an event of the person is suppressed.
    #[must_use]
    pub fn covers(&self, at: Position, time: Micros) -> bool {
        time <= self.up_to || self.covers_position(at)
    }

    /// Whether every record of the person at this place is.
    #[must_use]
    pub fn covers_position(&self, at: Position) -> bool {
        self.positions.get(&at.partition.0).is_some_and(|below| at.offset < *below)
    }

    /// Whether a state that was made by what stands before `positions` is of covered events alone.
    #[must_use]
    pub fn covers_all_before(&self, positions: &BTreeMap<u32, u64>) -> bool {
        let read = |partition: &u32| positions.get(partition).copied().unwrap_or(0);
        !self.positions.is_empty() && self.positions.iter().all(|(partition, below)| read(partition) <= *below)
    }
}

/// What an erasure took out of a job's tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// [`ERASURE_VERSION`].
    pub version: u32,
    /// The erasure.
    pub id: String,
    /// The checkpoint that it was applied to, 0 for none: this one and earlier ones hold the person.
    pub checkpoint: u64,
    /// For each of those, what its digests still count, by table.
    pub corrections: BTreeMap<u64, BTreeMap<String, Digest>>,
    /// Rows that went, by table.
    pub rows: BTreeMap<String, u64>,
    /// Files that were replaced.
    pub files: u64,
    /// When, by the wall clock.
    pub at: Micros,
}

/// An erasure that an event in the log asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// What was asked for.
    pub request: Request,
    /// What it covers.
    pub entry: Entry,
}

/// The erasures of a job, to be asked for each event.
#[derive(Clone, Debug, Default)]
pub struct Erasures {
    secret: Secret,
    of: HashMap<Subject, Vec<Entry>>,
    /// Whether some are of users in one application, and some of users in all.
    in_one: bool,
    in_all: bool,
}

impl Erasures {
    /// No erasures yet.
    #[must_use]
    pub fn new(secret: Secret) -> Erasures {
        Erasures { secret, ..Erasures::default() }
    }

    /// Adds one.
    pub fn insert(&mut self, entry: Entry) {
        self.in_all |= entry.everywhere;
        self.in_one |= !entry.everywhere;
        self.of.entry(entry.subject).or_default().push(entry);
    }

    /// Whether there is none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// What keyed hashes are made with.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The erasures of a user of an application.
    pub fn of<'a>(&'a self, app: &str, user: &str) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let in_one = self.in_one.then(|| self.secret.subject(&[app, user]));
        let in_all = self.in_all.then(|| self.secret.subject(&[user]));
        let found = |(subject, everywhere): (Option<Subject>, bool)| {
            let entries = subject.and_then(|subject| self.of.get(&subject)).map_or(&[][..], Vec::as_slice);
            entries.iter().filter(move |entry| entry.everywhere == everywhere)
        };
        [(in_one, false), (in_all, true)].into_iter().flat_map(found)
    }

    /// Whether an event is suppressed.
    #[must_use]
    pub fn cover(&self, (app, user): (&str, &str), at: Position, time: Micros) -> bool {
        self.of(app, user).any(|entry| entry.covers(at, time))
    }

    /// The erasures of persons who are named in a record that is no event, of which `words` are the texts: an application is any of them.
    pub fn of_words<'a>(&'a self, words: &[&str]) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let pairs = words.iter().flat_map(|app| words.iter().map(|user| (*app, *user)));
        let mut subjects: Vec<(Subject, bool)> = Vec::new();
        if self.in_one {
            subjects.extend(pairs.map(|(app, user)| (self.secret.subject(&[app, user]), false)));
        }
        if self.in_all {
            subjects.extend(words.iter().map(|user| (self.secret.subject(&[user]), true)));
        }
        let entries =
            subjects.into_iter().filter_map(|(subject, everywhere)| Some((self.of.get(&subject)?, everywhere)));
        entries.flat_map(|(entries, everywhere)| entries.iter().filter(move |entry| entry.everywhere == everywhere))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PartitionId;

    fn at(partition: u32, offset: u64) -> Position {
        Position { partition: PartitionId(partition), offset }
    }

    fn entry(subject: Subject, everywhere: bool) -> Entry {
        let positions = BTreeMap::from([(0, 100), (1, 10)]);
        Entry { version: 1, id: "x".into(), subject, everywhere, up_to: 1_000, positions, before: Epoch(7) }
    }

    #[test]
    fn keyed_hashes_do_not_change() {
        // Goal: entries of years ago are found. The vector is the first one of the reference implementation: no bytes, under the key 0 to 15.
        let secret = Secret(std::array::from_fn(|at| at as u8));
        assert_eq!(secret.hash(&[]).0.to_le_bytes(), 0xa3817f04ba25a8e66df67214c7550293_u128.to_be_bytes());
        assert_ne!(secret.subject(&["ann"]), Secret::default().subject(&["ann"]));
        assert_ne!(secret.subject(&["ann"]), secret.subject(&["a", "nn"]));
    }

    #[test]
    fn an_erasure_covers_what_stands_before_it_and_what_happened_before_it() {
        // Goal: by offset below its position, by time up to its time, the bounds as documented; another partition has its own position.
        let entry = entry(Subject(1), false);
        assert!(entry.covers(at(0, 99), 5_000) && !entry.covers(at(0, 100), 1_001));
        assert!(entry.covers(at(0, 100), 1_000) && entry.covers(at(9, 1), 1_000));
        assert!(!entry.covers(at(1, 10), 1_001) && entry.covers(at(1, 9), 1_001) && !entry.covers(at(9, 1), 1_001));
        let before = |zero, one| entry.covers_all_before(&BTreeMap::from([(0, zero), (1, one)]));
        assert!(before(100, 10) && before(5, 0) && !before(101, 10) && !before(100, 11));
        assert!(entry.covers_all_before(&BTreeMap::new()), "nothing has been read");
    }

    #[test]
    fn users_are_found_in_one_application_or_in_all() {
        // Goal: an erasure in one application leaves the others alone; one everywhere does not, and words of a broken record find both.
        let secret = Secret([9; 16]);
        let mut erasures = Erasures::new(secret);
        assert!(erasures.is_empty());
        erasures.insert(entry(secret.subject(&["shop", "ann"]), false));
        let count = |erasures: &Erasures, app: &str, user: &str| erasures.of(app, user).count();
        assert_eq!([count(&erasures, "shop", "ann"), count(&erasures, "web", "ann")], [1, 0]);
        assert_eq!(erasures.of_words(&["x", "ann"]).count(), 0);
        erasures.insert(entry(secret.subject(&["ann"]), true));
        assert_eq!([count(&erasures, "shop", "ann"), count(&erasures, "web", "ann")], [2, 1]);
        assert_eq!(erasures.of_words(&["x", "ann"]).count(), 1);
        assert_eq!(erasures.of_words(&["shop", "ann"]).count(), 2);
        assert!(!erasures.cover(("web", "bob"), at(0, 0), 0) && erasures.cover(("web", "ann"), at(0, 0), 2_000));
    }
}
