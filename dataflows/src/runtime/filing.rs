//! When the files of a table are closed: not at every checkpoint, or there would be a small file for each.
//!
//! ```text
//! checkpoint     1      2      3      4      5         with a commit_interval of three of them
//! deltas         rows   rows          rows   rows      what a start after a crash writes again
//! lake                         files                   staged with checkpoint 3, published once it is committed
//! ```
//! Rows that are in no file yet are a part of the delta of their checkpoint, and its manifest lists the deltas that hold such rows. Each
//! worker closes the files of each of its tables by itself: nothing but their layout depends on it. The first checkpoint after a start
//! closes what was taken over, so that no manifest names a row delta of an earlier generation for long.

use std::{collections::BTreeSet, time::Duration};

use whisperer_connectors::{StateStore, state::resolve::parse_delta_name};
use whisperer_operators::keyed::CutPlan;
use whisperer_schemas::{
    Micros,
    checkpoint::{Cut, Delta, FileFacts},
};
use whisperer_sinks::SinkError;

use super::{RunError, checkpoints::sink_key, coordinator::wall_clock, outputs::WorkerTables};

/// What the rows of a table are called in deltas begins so.
const ROWS: &str = "rows/";

/// When the files of one table are closed on one worker.
pub(super) struct Filing {
    /// What its rows are called in deltas, and its last closing in checkpoints.
    name: String,
    every: Micros,
    clock: Clock,
    /// When its files were closed last.
    closed_at: Micros,
    /// The cut with which they were: rows of later ones are in no file.
    closed: u64,
    /// Whether there are such rows.
    waiting: bool,
    /// Whether there are rows of an earlier generation among them.
    taken_over: bool,
}

/// The cuts of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cuts {
    pub(super) plan: CutPlan,
    /// Whether the run goes on from no checkpoint, so that a cut comes before its first record.
    pub(super) fresh: bool,
    pub(super) clock: Clock,
}

/// What tells the time of a cut.
#[derive(Clone, Copy, Debug)]
pub(super) enum Clock {
    /// The epochs of a live source: they are so long, and the same for all workers.
    Epochs(Duration),
    /// The wall clock.
    Wall,
}

impl Clock {
    fn at(self, epoch: u64) -> Micros {
        match self {
            Clock::Epochs(interval) => (interval.as_micros() as Micros).saturating_mul(epoch as Micros),
            Clock::Wall => wall_clock(),
        }
    }
}

impl Filing {
    /// Closes the files of the table that is called so at the first cut that comes `every` after the last closing.
    pub(super) fn new(table: &str, every: Micros, cuts: Cuts) -> Filing {
        let Cuts { plan, clock, .. } = cuts;
        let closed = plan.after;
        let closed_at = clock.at(closed.max(plan.from));
        Filing { name: format!("{ROWS}{table}"), every, clock, closed_at, closed, waiting: false, taken_over: false }
    }

    /// What its rows are called in deltas.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the cut at an epoch closes its files. A wall clock only knows of the cut that is taken now.
    pub(super) fn is_due(&self, epoch: u64) -> bool {
        self.taken_over || self.clock.at(epoch) - self.closed_at >= self.every
    }

    /// Its files are closed with the cut at an epoch.
    pub(super) fn close(&mut self, epoch: u64) {
        (self.closed, self.closed_at) = (epoch, self.clock.at(epoch));
        (self.waiting, self.taken_over) = (false, false);
    }

    /// They stay open beyond the cut at an epoch, to whose delta rows were added.
    pub(super) fn keep_open(&mut self, epoch: u64, rows: bool) {
        self.waiting |= rows;
        if !self.waiting {
            self.closed = epoch;
        }
    }

    /// Rows of an earlier generation wait now.
    pub(super) fn take_over(&mut self) {
        (self.waiting, self.taken_over) = (true, true);
    }

    /// The cut after which rows are in no file, if there are any.
    pub(super) fn rows_after(&self) -> Option<u64> {
        self.waiting.then_some(self.closed)
    }

    /// What a checkpoint has to remember.
    pub(super) fn position(&self) -> String {
        self.closed.to_string()
    }
}

/// Hands the rows that a checkpoint keeps for the files of a table to `each`, encoded, oldest first.
///
/// # Errors
/// What the store answers, and a manifest that lists what is no delta.
pub fn rows_waiting(
    store: &dyn StateStore,
    cut: &Cut,
    table: &str,
    each: &mut dyn FnMut(&[u8]) -> Result<(), SinkError>,
) -> Result<(), RunError> {
    for file in &cut.rows {
        let delta = waiting_in(store, cut, (file, maker_of(file)?))?;
        let of_table = delta.parts.iter().filter(|(name, _)| name.rsplit('/').next() == Some(table));
        for (_, rows) in of_table {
            each(rows)?;
        }
    }
    Ok(())
}

/// Takes over a worker's share of the rows that a checkpoint keeps: those of every `workers`th worker of the generation that took it.
pub(super) fn take_over_rows(
    store: &dyn StateStore,
    cut: &Cut,
    (worker, workers): (usize, usize),
    tables: &WorkerTables,
) -> Result<(), RunError> {
    let mut unknown = BTreeSet::new();
    for file in &cut.rows {
        let maker = maker_of(file)?;
        if maker as usize % workers != worker {
            continue;
        }
        let mut delta = waiting_in(store, cut, (file, maker))?;
        for (_, table) in tables.all() {
            table.take_over(&mut delta)?;
        }
        unknown.extend(delta.parts.into_keys());
    }
    if !unknown.is_empty() {
        tracing::warn!(tables = ?unknown, "rows of tables that the job does not write any more are left out");
    }
    Ok(())
}

/// The worker that wrote a delta.
fn maker_of(file: &FileFacts) -> Result<u32, RunError> {
    let wrong = || RunError::Manifest(format!("\"{}\" is no delta that rows can be in", file.name));
    parse_delta_name(&file.name).map(|(_, _, maker)| maker).ok_or_else(wrong)
}

/// A delta with those of its rows that were in no file at a cut, and no other parts.
fn waiting_in(store: &dyn StateStore, cut: &Cut, (file, maker): (&FileFacts, u32)) -> Result<Delta, RunError> {
    let mut delta = store.read_rest(file)?;
    let epoch = delta.epoch.0;
    delta.parts.retain(|name, _| name.starts_with(ROWS) && waits(cut, name, (epoch, maker)));
    Ok(delta)
}

/// Whether the rows of a delta were in no file at a cut.
fn waits(cut: &Cut, name: &str, (epoch, maker): (u64, u32)) -> bool {
    let closed = cut.sinks.get(&sink_key(name.to_owned(), maker as usize));
    closed.and_then(|closed| closed.parse::<u64>().ok()).is_none_or(|closed| epoch > closed)
}
