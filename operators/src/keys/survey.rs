//! How large the state of a worker is while it works: a slice of the keys is looked at for each epoch, and the others are taken to be like them.
//!
//! Counting at every change would cost every event, and looking at every key would hold up an epoch. A round over a million keys takes two
//! thousand epochs; until then, and between rounds, the mean of the keys that were seen stands for all. Where keys do not differ much this is
//! exact within a few percent. What a run ends with is counted ([`Keys::counts`]).

use super::{BLOCK, Cold, Counts, KeyState, Keys, VACANT};

/// Keys that are looked at for an epoch: they lie side by side, so that this takes some microseconds.
const SLICE_KEYS: usize = 512;

/// Epochs after which it is asked again what is no key's own: it takes a look at every text, and a question to the cold store.
const SHARED_EVERY: u32 = 16;

/// How far the looking has come.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The place that is looked at next.
    place: usize,
    /// What this round and the one before have seen.
    rounds: [Seen; 2],
    epochs: u32,
    shared_bytes: usize,
    cold_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    keys: usize,
    heap_bytes: usize,
}

impl Keys {
    /// Says how many keys and bytes there are, about, after one more slice; called once for an epoch.
    pub fn survey(&mut self, counts: &mut Counts) {
        if self.survey.epochs.is_multiple_of(SHARED_EVERY) {
            self.survey.shared_bytes = self.shared_bytes();
            self.survey.cold_bytes = self.cold.as_ref().map_or(0, Cold::bytes);
        }
        self.survey.epochs = self.survey.epochs.wrapping_add(1);
        self.look_at_slice();
        let [round, before] = &self.survey.rounds;
        let seen = (round.keys + before.keys).max(1);
        let heap_bytes = (round.heap_bytes + before.heap_bytes) as f64 / seen as f64 * self.index.len() as f64;
        let block_bytes = self.blocks.len() * BLOCK * size_of::<KeyState>();
        counts.keys = self.len() as u64;
        counts.cold_keys = self.cold_len();
        counts.state_bytes = (block_bytes + self.survey.shared_bytes) as u64 + heap_bytes as u64;
        counts.cold_bytes = self.survey.cold_bytes;
    }

    fn look_at_slice(&mut self) {
        let Survey { place, rounds: [round, before], .. } = &mut self.survey;
        let places = self.index.len() + self.free.len();
        if *place >= places {
            (*place, *before) = (0, std::mem::take(round));
        }
        let until = (*place + SLICE_KEYS).min(places);
        for at in *place..until {
            let state = &self.blocks[at / BLOCK][at % BLOCK];
            if state.due != VACANT {
                round.keys += 1;
                round.heap_bytes += state.heap_bytes();
            }
        }
        *place = until;
    }
}
