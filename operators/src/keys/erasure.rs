//! Keys that are erased: their states and timers go, what they said to views is taken back, and their covered events do nothing any more.
//!
//! An event that erases its user does so at its place in the log. An erasure that was asked for otherwise is applied by a start, to the states
//! that it has restored ([`Keys::erase_restored`]).

use std::collections::BTreeMap;

use compact_str::CompactString;
use whisperer_schemas::{
    Epoch, KeyHash, PartitionId, Position, Row, TableSchema,
    erasure::{ERASURE_VERSION, Entry, Erasures, Noted, Request},
};

use super::{BLOCK, ColdFailed, KeyState, Keys, Outputs, Turn};
use crate::{job::CompiledJob, record::Record};

/// A key whose state was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The application of the user.
    pub app_id: CompactString,
    /// The user.
    pub user_id: CompactString,
}

impl Keys {
    /// Says whose events are suppressed; before states are restored, which hold what stands before these positions.
    pub fn suppress(&mut self, erasures: Erasures, restored: BTreeMap<u32, u64>) {
        (self.erasures, self.restored_at) = (erasures, restored);
    }

    /// Whether the events of some user are suppressed.
    #[must_use]
    pub fn suppresses(&self) -> bool {
        !self.erasures.is_empty()
    }

    /// Looks whether an event is suppressed, or erases its user; true if nothing else is to be done with it.
    pub(super) fn erase(&mut self, record: &Record, epoch: Epoch, outputs: &mut Outputs) -> bool {
        let at = Position { partition: PartitionId(record.partition), offset: record.offset };
        if self.erasures.cover((&record.app_id, &record.user_id), at, record.time) {
            self.engine.counts.erased += 1;
            return true;
        }
        if !record.erases {
            return false;
        }
        let noted = self.note(record, at, epoch);
        self.erasures.insert(noted.entry.clone());
        self.engine.counts.erased += 1;
        if let Some(at) = self.index.find(record.key as u64, |at| self.state(*at).key.0 == record.key).copied() {
            self.drop_state(at, outputs);
        }
        // What the key made in this epoch has not left yet; earlier epochs are for whoever goes through the tables.
        let joined = self.job.intake.joins_applications();
        let app = (!joined).then_some(record.app_id.as_str());
        outputs.decisions.retain(|row| !is_theirs(&self.job.decisions, row, (app, &record.user_id)));
        outputs.profiles.retain(|row| !is_theirs(&self.job.profiles, row, (app, &record.user_id)));
        outputs.noted.push(noted);
        true
    }

    /// The erasure that an event asks for. Its name is a function of the log, so that a replay asks for the same.
    fn note(&self, record: &Record, at: Position, epoch: Epoch) -> Noted {
        let (app, user) = (record.app_id.as_str(), record.user_id.as_str());
        let everywhere = self.job.intake.joins_applications();
        let secret = self.erasures.secret();
        let subject = if everywhere { secret.subject(&[user]) } else { secret.subject(&[app, user]) };
        let name = secret.hash(format!("event {} {at}", String::from(subject)).as_bytes());
        let id = String::from(name);
        let entry = Entry {
            version: ERASURE_VERSION,
            id: id.clone(),
            subject,
            everywhere,
            up_to: record.time,
            positions: BTreeMap::from([(record.partition, record.offset + 1)]),
            before: epoch,
        };
        let request = Request {
            version: ERASURE_VERSION,
            id,
            app: (!everywhere).then(|| app.to_owned()),
            user: user.to_owned(),
            up_to: Some(record.time),
            requested: record.time,
        };
        Noted { request, entry }
    }

    /// Notes a restored state that an erasure covers as a whole.
    pub(super) fn note_doomed(&mut self, state: &KeyState) {
        if self.erasures.is_empty() {
            return;
        }
        let mut entries = self.erasures.of(self.engine.apps.get(state.app), &state.user_id);
        if entries.any(|entry| entry.covers_all_before(&self.restored_at)) {
            self.doomed.push(state.key);
        }
    }

    /// Has views begin anew with the epoch of the checkpoint that is restored next, by their tables. All states are written again with the next
    /// cut then, as where the job has changed: what views are is a part of their layout.
    pub fn begin_views(&mut self, begins: &dyn Fn(&TableSchema) -> bool) {
        self.beginning = self.job.views.tables().map(|table| begins(table)).collect();
    }

    /// Whether some view begins anew.
    pub(super) fn begins_views(&self) -> bool {
        self.beginning.contains(&true)
    }

    /// Removes the restored states that erasures cover, and takes back what they have said.
    ///
    /// # Errors
    /// A cold store that fails.
    pub fn erase_restored(&mut self, outputs: &mut Outputs) -> Result<Vec<Removed>, ColdFailed> {
        let doomed = std::mem::take(&mut self.doomed);
        let cold: Vec<KeyHash> = doomed.iter().copied().filter(|key| !self.is_hot(key.0)).collect();
        self.fetch(&cold)?;
        let mut removed = Vec::new();
        for key in doomed {
            if let Some(at) = self.index.find(key.0 as u64, |at| self.state(*at).key == key).copied() {
                let state = self.state(at);
                let app_id = CompactString::new(self.engine.apps.get(state.app));
                removed.push(Removed { app_id, user_id: state.user_id.clone() });
                self.drop_state(at, outputs);
            }
        }
        Ok(removed)
    }

    /// Removes a state in memory.
    fn drop_state(&mut self, at: u32, outputs: &mut Outputs) {
        let state = &mut self.blocks[at as usize / BLOCK][at as usize % BLOCK];
        if !self.job.stages.is_empty() {
            outputs.stages.push((state.stage, -1));
        }
        if !self.job.views.is_empty() {
            let (job, engine): (&CompiledJob, _) = (&self.job, &mut self.engine);
            let mut turn = Turn { job, engine, state, at, epoch: Epoch::default(), outputs, found: false };
            turn.find_starts();
            turn.say_all(-1);
            turn.take_part_back(self.parts.take(at));
        }
        self.forget(at);
    }

    /// Notes the removed keys in the cut that has just begun; those that have come again are in it with their new states.
    pub(super) fn cut_removed(&mut self) {
        let Some(cuts) = &mut self.cuts else { return };
        let removed = std::mem::take(&mut cuts.removed);
        let mut gone: Vec<KeyHash> = removed.into_iter().filter(|key| !cuts.pending_cold.contains(key)).collect();
        gone.retain(|key| !self.is_hot(key.0));
        if let Some(cuts) = &mut self.cuts {
            gone.into_iter().for_each(|key| cuts.push_removed(key));
        }
    }
}

/// Whether a row is a user's, of an application or of any.
fn is_theirs(schema: &TableSchema, row: &Row, (app, user): (Option<&str>, &str)) -> bool {
    let text = |name: &str| schema.column_index(name).and_then(|at| row.values.get(at)?.as_text());
    text("user_id") == Some(user) && app.is_none_or(|app| text("app_id") == Some(app))
}
