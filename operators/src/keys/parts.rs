//! What the states of ids hold, for persons of several: said when it has changed, in place of what was said before.
//!
//! A part is as large as the state, so it is not said with every event: [`Keys::say_parts`] says what many events of a key have come to. It
//! has to be called before a key may leave memory, and before a cut.

use hashbrown::HashMap;
use whisperer_schemas::{Epoch, Micros};

use super::{BLOCK, Keys, Outputs, Turn, codec::encode_cells, links::id_hash};
use crate::views::{Fact, Part};

/// The parts that keys had said before they were worked on, by the keys' indexes.
#[derive(Debug, Default)]
pub(super) struct Parts {
    said: HashMap<u32, Said>,
}

/// What a key had said, if it had said anything.
pub(super) type Said = Option<Box<Part>>;

impl Parts {
    /// Notes what a key has said, before its state changes.
    pub(super) fn note(&mut self, turn: &mut Turn<'_>) {
        if turn.says_parts() && !self.said.contains_key(&turn.at) {
            self.said.insert(turn.at, turn.part());
        }
    }
}

impl Parts {
    /// What was noted of a key that goes.
    pub(super) fn take(&mut self, at: u32) -> Option<Said> {
        self.said.remove(&at)
    }
}

impl Keys {
    /// Says the parts of the keys that were worked on.
    pub fn say_parts(&mut self, outputs: &mut Outputs) {
        for (at, before) in self.parts.said.drain() {
            let state = &mut self.blocks[at as usize / BLOCK][at as usize % BLOCK];
            let (job, engine, epoch) = (&self.job, &mut self.engine, Epoch::default());
            Turn { job, engine, state, at, epoch, outputs, found: false }.say_part(before);
        }
    }
}

impl Turn<'_> {
    fn says_parts(&self) -> bool {
        self.job.identity.as_ref().is_some_and(|identity| identity.profiles)
    }

    /// What the key holds; none before its first event, and where no view asks.
    fn part(&mut self) -> Option<Box<Part>> {
        if !self.says_parts() || self.state.key_clock == Micros::MIN {
            return None;
        }
        self.find_starts();
        // Behind the slots of features come those of what the key alone has done.
        let words = &self.state.cells.words()[..self.engine.starts[self.job.firings] as usize];
        let mut cells = Vec::new();
        encode_cells(&self.engine.texts, &self.job.state_layout, words, &mut cells);
        Some(Box::new(Part { id: id_hash(self.state.key), now: self.state.floor, cells }))
    }

    /// Takes back what the key has said that it holds: what was noted, or what it holds still.
    pub(super) fn take_part_back(&mut self, noted: Option<Said>) {
        let part = noted.unwrap_or_else(|| self.part());
        self.outputs.facts.extend(part.map(|part| (Fact::Part(part), -1)));
    }

    /// Says what the key holds now instead of what it had said.
    pub(super) fn say_part(&mut self, before: Option<Box<Part>>) {
        let after = self.part();
        if before != after {
            self.outputs.facts.extend(before.map(|part| (Fact::Part(part), -1)));
            self.outputs.facts.extend(after.map(|part| (Fact::Part(part), 1)));
        }
    }
}
