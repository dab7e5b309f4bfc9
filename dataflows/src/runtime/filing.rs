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
use whisperer_sinks::{
    SinkError, StagedFile,
    parquet::{HELD_BYTES_MAX, ROW_GROUP_ROWS_MAX},
};

use super::{RunError, checkpoints::sink_key, coordinator::wall_clock, erasures::Matching, outputs::WorkerTables};

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
    /// Cuts that have kept them open.
    open_cuts: u64,
    /// Whether the last cut alone had rows that are worth files: then those of the next one have them too, and are not kept twice.
    crowded: bool,
}

/// The cuts of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cuts {
    pub(super) plan: CutPlan,
    /// Whether the run goes on from no checkpoint, so that a cut comes before its first record.
    pub(super) fresh: bool,
    pub(super) clock: Clock,
}

impl Cuts {
    /// The epoch of the first cut.
    pub(super) fn first(self) -> u64 {
        if self.fresh { 0 } else { self.plan.next_after(self.plan.after) }
    }
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
        Filing {
            name: format!("{ROWS}{table}"),
            every,
            clock,
            closed_at,
            closed,
            waiting: false,
            taken_over: false,
            open_cuts: 0,
            crowded: false,
        }
    }

    /// What its rows are called in deltas.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the cut at an epoch closes its files. A wall clock only knows of the cut that is taken now.
    pub(super) fn is_due(&self, epoch: u64) -> bool {
        self.taken_over || self.clock.at(epoch) - self.closed_at >= self.every
    }

    /// Whether the rows up to the cut at an epoch are to be kept for its delta.
    pub(super) fn holds_until(&self, epoch: u64) -> bool {
        !self.crowded && !self.is_due(epoch)
    }

    /// Its files are closed with the cut at an epoch; so much is in them.
    pub(super) fn close(&mut self, epoch: u64, files: &[StagedFile]) {
        let (rows, bytes) = files.iter().fold((0, 0), |(rows, bytes), file| (rows + file.rows, bytes + file.bytes));
        self.crowded = self.open_cuts == 0 && (rows > ROW_GROUP_ROWS_MAX as u64 || bytes > HELD_BYTES_MAX as u64);
        (self.closed, self.closed_at, self.open_cuts) = (epoch, self.clock.at(epoch), 0);
        (self.waiting, self.taken_over) = (false, false);
    }

    /// They stay open beyond the cut at an epoch, to whose delta rows were added.
    pub(super) fn keep_open(&mut self, epoch: u64, rows: bool) {
        self.waiting |= rows;
        self.open_cuts += 1;
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

/// The same of a table in one lake, by what it is called.
pub(super) fn rows_waiting_in(
    store: &dyn StateStore,
    cut: &Cut,
    name: &str,
    each: &mut dyn FnMut(&[u8]) -> Result<(), SinkError>,
) -> Result<(), RunError> {
    for file in &cut.rows {
        let delta = waiting_in(store, cut, (file, maker_of(file)?))?;
        delta.parts.get(&format!("{ROWS}{name}")).map_or(Ok(()), |rows| each(rows))?;
    }
    Ok(())
}

/// Takes over a worker's share of the rows that a checkpoint keeps: those of every `workers`th worker of the generation that took it.
pub(super) fn take_over_rows(
    store: &dyn StateStore,
    cut: &Cut,
    (worker, workers): (usize, usize),
    (tables, matching): (&WorkerTables, &Matching),
) -> Result<(), RunError> {
    let mut unknown = BTreeSet::new();
    for file in &cut.rows {
        let maker = maker_of(file)?;
        if maker as usize % workers != worker {
            continue;
        }
        let mut delta = waiting_in(store, cut, (file, maker))?;
        for (_, table) in tables.all() {
            table.take_over(&mut delta, matching)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Epochs of 10 ms, and a cut each second.
    fn filing(every: Micros) -> Filing {
        let plan = CutPlan { every: 100, after: 0, from: 1_000 };
        let clock = Clock::Epochs(Duration::from_millis(10));
        Filing::new("lake/decisions", every, Cuts { plan, fresh: true, clock })
    }

    fn staged(rows: u64) -> StagedFile {
        let (path, text) = (std::path::PathBuf::new(), String::new);
        let (staged, place) = (path.clone(), path);
        StagedFile { staged, place, replaces: false, table: text(), rows, bytes: 1, xxh3: text(), checkpoint: 0 }
    }

    #[test]
    fn epochs_of_a_live_source_are_its_clock() {
        // Goal: files are closed a minute after they were closed last, and a start begins a minute.
        let mut filing = filing(60_000_000);
        assert_eq!([0, 1_100, 6_900, 7_000].map(|epoch| filing.is_due(epoch)), [false, false, false, true]);
        filing.close(7_100, &[]);
        assert_eq!([7_200, 13_000, 13_100].map(|epoch| filing.is_due(epoch)), [false, false, true]);
    }

    #[test]
    fn rows_wait_from_the_first_to_the_closing() {
        // Goal: the place after which rows are in no file stays while there are some, and moves while there are none.
        let mut filing = filing(60_000_000);
        filing.keep_open(1_100, false);
        assert_eq!((filing.rows_after(), filing.position().as_str()), (None, "1100"));
        filing.keep_open(1_200, true);
        filing.keep_open(1_300, false);
        assert_eq!(filing.rows_after(), Some(1_100));
        filing.close(1_400, &[staged(1)]);
        assert_eq!((filing.rows_after(), filing.position().as_str()), (None, "1400"));
        filing.take_over();
        assert!(filing.is_due(1_500), "what is taken over is closed at once");
    }

    #[test]
    fn rows_that_crowd_one_cut_are_not_kept_twice() {
        // Goal: after a cut that alone had rows worth files the next one is staged too; one that had them only together with others, or has
        // fewer again, ends that.
        let mut filing = filing(60_000_000);
        let many = [staged(ROW_GROUP_ROWS_MAX as u64), staged(1)];
        filing.keep_open(1_100, true);
        filing.close(1_200, &many);
        assert!(filing.holds_until(1_300));
        filing.close(1_300, &many);
        assert!(!filing.holds_until(1_400));
        filing.close(1_400, &many[1..]);
        assert!(filing.holds_until(1_500));
    }
}
