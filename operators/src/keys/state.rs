//! The state of one key.

use compact_str::CompactString;
use whisperer_schemas::{KeyHash, Micros};

use super::cuts::CLEAN;
use crate::{cells::Cells, dedup::Recent, timers::KeyTimes};

/// The state of one key: a hot header, sparse cells and the recent ids.
#[derive(Debug)]
pub struct KeyState {
    pub(crate) key: KeyHash,
    /// Largest event time applied.
    pub(crate) key_clock: Micros,
    /// Timers at or below are not pending.
    pub(crate) floor: Micros,
    /// No timer is pending before this, the time of the key's entry in the wheel.
    pub(super) due: Micros,
    pub(crate) cells: Cells,
    pub(super) recent: Recent,
    pub(crate) user_id: CompactString,
    pub(crate) app: u32,
    pub(crate) stage: u16,
    pub(crate) changed: bool,
    /// Whether the job has changed since the last evaluation.
    pub(super) silent: bool,
    /// Whether the state was needed since the eviction's hand last passed.
    pub(super) used: bool,
    /// The interval between cuts in which it was last touched.
    pub(super) stamp: u16,
    /// Whether a timer is pending at `due`; if not, it was when `due` was set, and events have moved it since.
    pub(super) exact: bool,
    /// Whether it has expired: it is empty then, and goes unless an event comes at once.
    pub(super) gone: bool,
    /// Triggers whose condition held at the last evaluation, as bits.
    pub(crate) held: u64,
    /// Triggers that have fired and not been re-armed, as bits.
    pub(crate) disarmed: u64,
}

impl KeyState {
    pub(super) fn empty(key: KeyHash, user_id: CompactString, app: u32) -> KeyState {
        KeyState {
            key,
            key_clock: Micros::MIN,
            floor: Micros::MIN,
            due: Micros::MAX,
            cells: Cells::default(),
            recent: Recent::default(),
            user_id,
            app,
            stage: 0,
            changed: false,
            silent: false,
            used: false,
            stamp: CLEAN,
            exact: true,
            gone: false,
            held: 0,
            disarmed: 0,
        }
    }

    pub(crate) fn times(&self) -> KeyTimes {
        KeyTimes { key_clock: self.key_clock, floor: self.floor, changed: self.changed }
    }

    pub(super) fn first_word(&self) -> u64 {
        self.cells.words().first().map_or(self.due as u64, |word| word ^ self.due as u64)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let user_id = if self.user_id.is_heap_allocated() { self.user_id.capacity() } else { 0 };
        self.cells.heap_bytes() + self.recent.heap_bytes() + user_id
    }
}
