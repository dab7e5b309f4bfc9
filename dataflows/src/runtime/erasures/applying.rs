//! Applying erasures before a run goes on from its checkpoint, by the process that coordinates.
//!
//! ```text
//! 1  each request gets its entry: what is read by now is suppressed, and so is what happened until now
//! 2  the tables are searched for the person's rows, and the rows that wait in the checkpoint
//! 3  what the digests count of them is written down, as applied: from here on the digests are right whatever happens
//! 4  the files that hold them give way to files without them
//! 5  every worker drops the states, takes back what they said to views, and leaves the waiting rows out
//! ```
//! A crash before the next checkpoint leads back here. Then 1 and 3 find what was written down, 2 and 4 what is left to do.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use whisperer_connectors::{StateStore, state::resolve::History};
use whisperer_schemas::{
    Digest, Epoch, Micros, Row, TableSchema,
    checkpoint::Cut,
    erasure::{Applied, ERASURE_VERSION, Entry, Noted, Request, Secret},
    row_hash,
};
use whisperer_sinks::{Found, Lake, blank_lines, bytes_to_rows};

use super::{APPLIED, ControlLog, ENTRY, Erasing, Matching, create, of_entries, secret};
use crate::runtime::{
    Run, RunError, StateSettings, coordinator::Origin, coordinator::wall_clock, filing::rows_waiting_in,
};

/// Applies what is due, and says what the workers have to know.
pub(in crate::runtime) fn apply(run: &Run, state: &StateSettings, origin: &Origin) -> Result<Erasing, RunError> {
    let store = &*state.store;
    let secret = secret(store)?;
    let mut log = ControlLog::read(store)?;
    let checkpoint = origin.start.restored.unwrap_or(0);
    let applies = log.due(checkpoint);
    let cut = origin.cut.clone().unwrap_or_default();
    for request in log.requests.values().filter(|request| !log.entries.contains_key(&request.id)) {
        let entry = entry_of(request, &cut, (run, &secret));
        create(store, &format!("{ENTRY}{}", entry.id), &entry)?;
    }
    log.entries = ControlLog::read(store)?.entries;
    if !applies.is_empty() {
        let due = log.entries.values().filter(|entry| applies.contains(&entry.id));
        let matching = Matching::new(of_entries(secret, due));
        take_out(run, (store, &log), (origin, &cut), &matching)?;
        log.applied = ControlLog::read(store)?.applied;
        tracing::info!(erasures = applies.len(), checkpoint, "erasures applied");
    }
    let clears = !log.requests.is_empty();
    let users = log.requests.values().filter(|request| applies.contains(&request.id));
    let users = users.filter_map(|request| {
        let app = request.app.clone().or_else(|| run.job.intake.joins_applications().then(String::new));
        Some((app?, request.user.clone()))
    });
    Ok(Erasing {
        users: users.collect(),
        corrections: log.corrections(checkpoint),
        entries: log.entries.into_values().collect(),
        applies,
        clears,
    })
}

/// Takes the rows that go out of all tables, once it is written down what they are.
fn take_out(
    run: &Run,
    (store, log): (&dyn StateStore, &ControlLog),
    (origin, cut): (&Origin, &Cut),
    matching: &Matching,
) -> Result<(), RunError> {
    let checkpoint = origin.start.restored.unwrap_or(0);
    let mut search = Search::new(matching, log, &origin.history, checkpoint);
    let found = search.all(run, store, cut)?;
    let files = found.iter().map(|(_, found)| found.files() as u64).sum();
    for applied in search.applied(&log.due(checkpoint), files) {
        create(store, &format!("{APPLIED}{}", applied.id), &applied)?;
    }
    rewrite(run, found, (matching, origin.start.claim))
}

fn rewrite(run: &Run, found: Vec<(&Lake, Found)>, (matching, number): (&Matching, u64)) -> Result<(), RunError> {
    let goes = |schema: &TableSchema, row: &Row| matching.goes(schema, row);
    for (lake, found) in found {
        lake.take_out(&found, &goes, number)?;
    }
    for path in run.outputs.texts().filter(|path| path.is_file()) {
        blank_lines(path, &|line| matching.goes_line(line))?;
    }
    Ok(())
}

/// Takes out of the tables of a run without checkpoints, which are published, what events in its log asked for; gives what its digests still
/// count.
pub(in crate::runtime) fn after_run(run: &Run, noted: &[Noted]) -> Result<BTreeMap<String, Digest>, RunError> {
    if noted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let matching = Matching::new(of_entries(Secret::default(), noted.iter().map(|noted| &noted.entry)));
    let (log, history) = (ControlLog::default(), History::default());
    let mut search = Search::new(&matching, &log, &history, 0);
    let found = search.in_lakes(run)?;
    rewrite(run, found, (&matching, 0))?;
    Ok(search.sums)
}

fn entry_of(request: &Request, cut: &Cut, (run, secret): (&Run, &Secret)) -> Entry {
    let everywhere = request.app.is_none() || run.job.intake.joins_applications();
    let subject = match &request.app {
        Some(app) if !everywhere => secret.subject(&[app, &request.user]),
        _ => secret.subject(&[&request.user]),
    };
    // A bounded input has no now but the end of what was read.
    let read = cut.clocks.values().copied().max().unwrap_or(Micros::MIN);
    let usual = if run.source.live() { request.requested } else { read };
    Entry {
        version: ERASURE_VERSION,
        id: request.id.clone(),
        subject,
        everywhere,
        up_to: request.up_to.unwrap_or(usual),
        positions: cut.positions.clone(),
        before: Epoch(cut.epoch.0 + 1),
    }
}

/// Looks for rows that go, and adds up what digests count of them.
struct Search<'a> {
    matching: &'a Matching,
    log: &'a ControlLog,
    /// The checkpoints that may count rows, with their epochs, up to the one that is restored.
    checkpoints: Vec<(u64, Epoch)>,
    checkpoint: u64,
    /// By erasure.
    of: BTreeMap<String, Applied>,
    /// What all rows come to, by table.
    sums: BTreeMap<String, Digest>,
    /// The lake whose rows of a table count; another one has them once more.
    counted: BTreeMap<String, PathBuf>,
}

impl<'a> Search<'a> {
    fn new(matching: &'a Matching, log: &'a ControlLog, history: &History, checkpoint: u64) -> Search<'a> {
        let live = history.live().into_iter().filter(|number| *number <= checkpoint);
        let epoch = |number: u64| Some((number, history.manifest(number)?.cut.as_ref()?.epoch));
        let checkpoints = live.filter_map(epoch).collect();
        let (of, sums, counted) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Search { matching, log, checkpoints, checkpoint, of, sums, counted }
    }

    fn all(&mut self, run: &'a Run, store: &dyn StateStore, cut: &Cut) -> Result<Vec<(&'a Lake, Found)>, RunError> {
        let found = self.in_lakes(run)?;
        for lake in run.outputs.lakes() {
            for table in run.tables().iter().chain(run.job.views.tables()) {
                let name = format!("{}/{}", lake.root().display(), table.name);
                rows_waiting_in(store, cut, &name, &mut |bytes| {
                    for row in bytes_to_rows(table, bytes)?.iter().filter(|row| self.matching.goes(table, row)) {
                        self.count(lake, table, row);
                    }
                    Ok(())
                })?;
            }
        }
        Ok(found)
    }

    fn in_lakes<'r>(&mut self, run: &'r Run) -> Result<Vec<(&'r Lake, Found)>, RunError> {
        let mut all = Vec::new();
        for lake in run.outputs.lakes() {
            let matching = self.matching;
            let goes = |schema: &TableSchema, row: &Row| matching.goes(schema, row);
            let found = lake.find_rows(&goes, &mut |schema, row| self.count(lake, schema, row))?;
            all.push((&**lake, found));
        }
        Ok(all)
    }

    fn count(&mut self, lake: &Lake, schema: &TableSchema, row: &Row) {
        let counted = self.counted.entry(schema.name.to_owned()).or_insert_with(|| lake.root().to_owned());
        // A view begins anew, and its digest with it.
        if counted != lake.root() || schema.diff_index().is_some() {
            return;
        }
        let (mut known, mut new) = (false, None);
        self.matching.each(schema, row, &mut |entry| match self.log.applied.contains_key(&entry.id) {
            true => known = true,
            false => new = new.or(Some(entry)),
        });
        let (false, Some(entry)) = (known, new) else { return };
        let hash = row_hash(schema, &row.values);
        self.sums.entry(schema.name.to_owned()).or_default().update(hash, 1);
        let applied = self.of.entry(entry.id.clone()).or_default();
        *applied.rows.entry(schema.name.to_owned()).or_default() += 1;
        for (number, _) in self.checkpoints.iter().filter(|(_, epoch)| row.epoch <= *epoch) {
            let of_table = applied.corrections.entry(*number).or_default();
            of_table.entry(schema.name.to_owned()).or_default().update(hash, 1);
        }
    }

    /// What was applied for the first time.
    fn applied(&mut self, applies: &BTreeSet<String>, files: u64) -> Vec<Applied> {
        let new = applies.iter().filter(|id| !self.log.applied.contains_key(*id));
        let (checkpoint, at) = (self.checkpoint, wall_clock());
        let each = new.map(|id| Applied {
            version: ERASURE_VERSION,
            id: id.clone(),
            checkpoint,
            files,
            at,
            ..self.of.remove(id).unwrap_or_default()
        });
        each.collect()
    }
}
