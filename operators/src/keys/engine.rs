//! What all keys of a worker share: texts, values of the evaluation at hand, numbers, and where the cells of the key at hand begin.

use hashbrown::HashMap;
use whisperer_schemas::Micros;

use super::{Counts, KeyState, links::Links, views::Told};
use crate::{
    cells::{Cells, Layout},
    evaluate::Values,
    features::CellsView,
    interner::Interner,
    job::CompiledJob,
};

/// What is shared by all keys of a worker.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) texts: Interner,
    pub(crate) apps: Interner,
    pub(crate) values: Values,
    pub(crate) counts: Counts,
    /// Triggers whose edge is set silently where a key has not been evaluated since the job changed, as bits.
    pub(super) silent: u64,
    /// By trigger, until when it is suppressed because a window that it reads has not filled; empty where none is.
    pub(super) warming: Vec<Micros>,
    pub(super) starts: Vec<u32>,
    /// The same of keys with many cells, by key: to walk those for every event would be most of its work.
    pub(super) kept_starts: HashMap<u32, Box<[u32]>>,
    /// Texts that views know.
    pub(super) told: Told,
    /// Links that keys have spoken of.
    pub(super) links: Links,
}

/// Words of cells from which on a key's starts are kept: a walk over fewer costs less than the memory.
const KEPT_FROM: usize = 96;

impl Engine {
    pub(super) fn find_starts(&mut self, layout: &Layout, at: u32, cells: &Cells) {
        if cells.words().len() >= KEPT_FROM
            && let Some(kept) = self.kept_starts.get(&at)
        {
            self.starts.clear();
            self.starts.extend_from_slice(kept);
        } else {
            cells.starts(layout, &mut self.starts);
        }
    }

    /// Keeps the starts, which are those of the key, if it has many cells. Every turn that changes cells ends here, so what is kept of a
    /// key that has many is always up to date; of one that has had many it is not read.
    pub(super) fn keep_starts(&mut self, at: u32, cells: &Cells) {
        if cells.words().len() >= KEPT_FROM {
            let starts = &self.starts;
            let kept = self.kept_starts.entry(at).or_insert_with(|| starts.as_slice().into());
            kept.copy_from_slice(starts);
        }
    }

    /// The cells of a key; the starts must be those of the key.
    pub(crate) fn cells<'a>(&'a self, job: &'a CompiledJob, state: &'a KeyState) -> CellsView<'a> {
        CellsView { words: state.cells.words(), starts: &self.starts, layout: &job.layout }
    }

    /// Reads features of a key as of `now`.
    pub(crate) fn read(&mut self, job: &CompiledJob, features: &[usize], state: &KeyState, now: Micros) {
        let cells = CellsView { words: state.cells.words(), starts: &self.starts, layout: &job.layout };
        self.values.read(job, features, cells, now);
    }
}
