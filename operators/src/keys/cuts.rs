//! Cuts: which states a checkpoint has to write, and what they were when it was taken.
//!
//! A cut bumps a stamp and looks at no state. From then on the states that were touched in the interval before it are encoded in slices;
//! one that is touched again before its turn is encoded first. So the delta holds every state as it was at the cut, and the operator
//! never stops for more than a slice.
//!
//! ```text
//! state.stamp == stamp           touched since the cut: stands in `dirty`
//! state.stamp == stamp - 1       touched before the cut, not encoded yet: stands in `pending`
//! anything else                  nothing to do
//! ```

use bytes::{Bytes, BytesMut};
use hashbrown::HashSet;
use whisperer_schemas::KeyHash;

use super::{BLOCK, Engine, KeyState, codec};
use crate::job::CompiledJob;

/// States of a cut, encoded.
pub type EncodedStates = Vec<(KeyHash, Option<Bytes>)>;

/// Bytes of a block that encoded states share.
const BLOCK_BYTES: usize = 64 << 10;

/// The stamp of a state that is in no list.
pub(super) const CLEAN: u16 = 0;

#[derive(Debug)]
pub(super) struct Cuts {
    /// The interval at hand.
    pub(super) stamp: u16,
    /// States touched in it.
    dirty: Vec<u32>,
    /// States touched in the interval before, to be encoded.
    pending: Vec<u32>,
    encoded: EncodedStates,
    buffer: Vec<u8>,
    /// What is left of a block.
    block: BytesMut,
    /// The same of states that are cold.
    pub(super) dirty_cold: HashSet<KeyHash>,
    pub(super) pending_cold: HashSet<KeyHash>,
    /// Keys that were removed since the last cut.
    pub(super) removed: HashSet<KeyHash>,
}

impl Default for Cuts {
    fn default() -> Cuts {
        Cuts {
            stamp: 2,
            dirty: Vec::new(),
            pending: Vec::new(),
            encoded: Vec::new(),
            buffer: Vec::new(),
            block: BytesMut::new(),
            dirty_cold: HashSet::new(),
            pending_cold: HashSet::new(),
            removed: HashSet::new(),
        }
    }
}

impl Cuts {
    fn before(&self) -> u16 {
        self.stamp - 1
    }

    /// To be called before a state changes.
    #[inline]
    pub(super) fn touch(&mut self, job: &CompiledJob, engine: &Engine, state: &mut KeyState, at: u32) {
        if state.stamp != self.stamp {
            self.encode_pending(job, engine, state);
            state.stamp = self.stamp;
            self.dirty.push(at);
        }
    }

    /// Notes a state that came back and has changed since the last cut.
    pub(super) fn came_back_dirty(&mut self, state: &mut KeyState, at: u32) {
        state.stamp = self.stamp;
        self.dirty.push(at);
    }

    /// Encodes the state if the cut still waits for it.
    pub(super) fn encode_pending(&mut self, job: &CompiledJob, engine: &Engine, state: &mut KeyState) {
        if state.stamp == self.before() {
            self.buffer.clear();
            codec::encode(engine, &job.state_layout, state, &mut self.buffer);
            state.stamp = CLEAN;
            let bytes = shared(&mut self.block, &self.buffer);
            self.encoded.push((state.key, Some(bytes)));
        }
    }

    /// Takes a state of the cut that is encoded already.
    pub(super) fn push(&mut self, key: KeyHash, bytes: &[u8]) {
        let bytes = shared(&mut self.block, bytes);
        self.encoded.push((key, Some(bytes)));
    }

    /// Takes a key of the cut that is there no more.
    pub(super) fn push_removed(&mut self, key: KeyHash) {
        self.encoded.push((key, None));
    }

    /// Begins a cut; the one before must be complete. True if the stamps have come around: every state must be made clean then, the
    /// dirty ones put back by `pending`.
    pub(super) fn begin(&mut self) -> bool {
        debug_assert!(self.is_complete());
        self.pending = std::mem::take(&mut self.dirty);
        self.pending_cold = std::mem::take(&mut self.dirty_cold);
        let around = self.stamp == u16::MAX;
        self.stamp = if around { 2 } else { self.stamp + 1 };
        around
    }

    /// Stamps the states again after the stamps have come around.
    pub(super) fn restamp(&self, blocks: &mut [Vec<KeyState>]) {
        blocks.iter_mut().flatten().for_each(|state| state.stamp = CLEAN);
        for at in &self.pending {
            blocks[*at as usize / BLOCK][*at as usize % BLOCK].stamp = self.before();
        }
    }

    /// Encodes at most `limit` states that are in memory.
    pub(super) fn encode_slice(
        &mut self,
        job: &CompiledJob,
        engine: &Engine,
        blocks: &mut [Vec<KeyState>],
        limit: usize,
    ) {
        for _ in 0..limit {
            let Some(at) = self.pending.pop() else { return };
            self.encode_pending(job, engine, &mut blocks[at as usize / BLOCK][at as usize % BLOCK]);
        }
    }

    /// Whether every state of the cut is encoded.
    pub(super) fn is_complete(&self) -> bool {
        self.pending.is_empty() && self.pending_cold.is_empty()
    }

    /// The states of the cut, which must be complete, in the order of key groups and keys.
    pub(super) fn take(&mut self) -> EncodedStates {
        debug_assert!(self.is_complete());
        let mut encoded = std::mem::take(&mut self.encoded);
        encoded.sort_unstable_by_key(|(key, _)| (key.group(), *key));
        encoded
    }

    pub(super) fn bytes(&self) -> usize {
        (self.dirty.capacity() + self.pending.capacity()) * size_of::<u32>()
    }
}

/// The bytes, in a block.
fn shared(block: &mut BytesMut, bytes: &[u8]) -> Bytes {
    if block.capacity() < bytes.len() {
        *block = BytesMut::with_capacity(BLOCK_BYTES.max(bytes.len()));
    }
    block.extend_from_slice(bytes);
    block.split().freeze()
}
