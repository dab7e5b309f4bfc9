//! Keys that expire: so long after its last event a key's state is dropped, as if the user had never been there.
//!
//! That is a timer of the key like any other, due at its clock plus `[retention] idle`, the last of its instant. It fires by the watermark, or
//! before the key's next event at or after it; that event then finds a new user. So it does not matter which of the two comes first.

use whisperer_schemas::Micros;

use super::{BLOCK, KeyState, Keys, Turn};
use crate::record::Record;

impl Turn<'_> {
    /// When the state expires.
    pub(super) fn expiry(&self) -> Micros {
        match self.job.retention_idle {
            Micros::MAX => Micros::MAX,
            // No event has come yet.
            _ if self.state.key_clock == Micros::MIN => Micros::MAX,
            idle => self.state.key_clock.saturating_add(idle),
        }
    }

    /// Drops what is known of the key, and takes back what it has said to views; the starts of the slots' cells must be those of the state.
    pub(super) fn expire(&mut self) {
        self.engine.counts.expired += 1;
        if !self.job.stages.is_empty() {
            self.outputs.stages.push((self.state.stage, -1));
        }
        if !self.job.views.is_empty() {
            self.say_all(-1);
        }
        let KeyState { key, app, stamp, used, .. } = *self.state;
        let user_id = std::mem::take(&mut self.state.user_id);
        *self.state = KeyState { stamp, used, gone: true, ..KeyState::empty(key, user_id, app) };
        self.engine.kept_starts.remove(&self.at);
        self.found = false;
    }

    /// An event has come for a state that expired before it: the user is new.
    pub(super) fn begin_anew(&mut self, record: &Record, pw: Micros) {
        if !std::mem::take(&mut self.state.gone) {
            return;
        }
        self.state.app = self.engine.apps.number(&record.app_id);
        self.state.floor = pw;
        if !self.job.stages.is_empty() {
            self.outputs.stages.push((0, 1));
        }
        if !self.job.views.is_empty() {
            self.appear();
        }
    }
}

impl Keys {
    /// Gives the place of a state free that has expired.
    pub(super) fn forget(&mut self, at: u32) {
        let state = &self.blocks[at as usize / BLOCK][at as usize % BLOCK];
        let (key, bytes) = (state.key, state.hot_bytes());
        if let Some(cold) = &mut self.cold {
            cold.hot_bytes = cold.hot_bytes.saturating_sub(bytes);
        }
        // What a cut that is being encoded has of it is encoded first.
        self.remove(at);
        if let Some(cuts) = &mut self.cuts {
            cuts.dirty_cold.remove(&key);
            cuts.removed.insert(key);
        }
    }
}
