//! The output edge on one worker: where the rows of each table go, and what of them belongs to a cut.
//!
//! Rows come with the epoch that they were made in. Those that belong to the cut which is taken next are handed on at once; later ones wait
//! until it has been taken. So what a sink has when the cut is taken is what belongs to it, and nothing else.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
};

use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        StreamVec,
        channels::pact::{Exchange as ExchangePact, Pipeline},
        operators::{Probe, generic::Operator, probe::Handle},
    },
};
use whisperer_operators::keyed::CutPlan;
use whisperer_schemas::{Digest, Micros, Row, TableSchema, Value, checkpoint::Delta, row_hash};
use whisperer_sinks::{
    CommitFacts, Lake, LogSink, OutboxEncoder, OutboxSink, Removal, SinkError, StagedFile, TableSink, bytes_to_rows,
};

use super::{
    News,
    coordinator::wall_clock,
    erasures::Matching,
    filing::{Cuts, Filing},
};

/// Where rows of one table go, on one worker.
pub(super) struct Outlet {
    pub(super) to: Way,
    /// Whether it takes the rows of all workers, in the order of event time inside an epoch.
    pub(super) whole: bool,
    /// Whether it takes decisions that are not news.
    pub(super) historical: bool,
}

/// How rows leave.
pub(super) enum Way {
    /// Staged at a cut, published once it is committed.
    Staged {
        /// The sink.
        sink: Box<dyn TableSink>,
    },
    /// Staged at the cuts that close files, published with the rest of the lake.
    Lake {
        /// The table.
        sink: Box<dyn TableSink>,
        /// Where it is.
        lake: Arc<Lake>,
        /// At which cuts; at the end alone where there are none.
        filing: Option<Filing>,
    },
    /// Out at once.
    Log {
        /// What the sink is called in checkpoints.
        name: String,
        /// The sink.
        sink: Box<dyn LogSink>,
    },
    /// Out when the cut is committed.
    #[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "only topics wait so"))]
    Outbox {
        /// What the sink is called in checkpoints.
        name: String,
        /// The sink; shared with the thread that publishes.
        sink: SharedOutbox,
        /// What encodes for it, and what its writer is called.
        encoder: Arc<dyn OutboxEncoder>,
        identity: String,
        /// Rows since the last cut.
        rows: Vec<Row>,
        /// Users whose rows are to go with the next cut, before others come.
        removals: Vec<Removal>,
        /// What the writers of all workers are called.
        identities: Vec<String>,
    },
}

/// A sink that one thread recovers and another publishes through.
pub(super) type SharedOutbox = Arc<Mutex<Box<dyn OutboxSink>>>;

/// What a worker has staged of one sink.
pub(super) struct Staged {
    pub(super) sink: Box<dyn TableSink>,
    pub(super) lake: Option<Arc<Lake>>,
    pub(super) files: Vec<StagedFile>,
}

/// The outlets of one table on one worker, shared with the operators that write to them.
#[derive(Clone)]
pub(super) struct TableSinks(Rc<RefCell<Sinks>>);

struct Sinks {
    table: Arc<TableSchema>,
    /// Which decisions are news; none in other tables.
    news: Option<News>,
    outlets: Vec<Outlet>,
    plan: Option<CutPlan>,
    /// The cut that rows belong to now.
    open_until: u64,
    /// Rows of later epochs, by epoch and by whether they are of all workers.
    waiting: BTreeMap<(u64, bool), Vec<Row>>,
    digest: Digest,
    failed: Option<SinkError>,
}

/// What a cut has of a table.
#[derive(Default)]
pub(super) struct TableCut {
    /// The table's name.
    pub(super) name: &'static str,
    pub(super) digest: Digest,
    /// Staged files as JSON, by lake.
    pub(super) staged: BTreeMap<String, Vec<String>>,
    /// What sinks need to go on, by name.
    pub(super) sinks: BTreeMap<String, String>,
    /// Encoded rows that wait for the commit, by name.
    pub(super) outbox: BTreeMap<String, Vec<u8>>,
    /// Encoded rows whose files are not closed yet, by name.
    pub(super) rows: BTreeMap<String, Vec<u8>>,
    /// Whether there are some in this cut, where they have been handed on.
    pub(super) holds_rows: bool,
    /// The cut after which there are such rows, if there are any.
    pub(super) rows_after: Option<u64>,
}

impl TableSinks {
    pub(super) fn new(table: Arc<TableSchema>, cuts: Option<Cuts>) -> TableSinks {
        TableSinks(Rc::new(RefCell::new(Sinks {
            table,
            news: None,
            outlets: Vec::new(),
            plan: cuts.map(|cuts| cuts.plan),
            open_until: cuts.map_or(u64::MAX, Cuts::first),
            waiting: BTreeMap::new(),
            digest: Digest::default(),
            failed: None,
        })))
    }

    /// The table's name.
    pub(super) fn name(&self) -> &'static str {
        self.0.borrow().table.name
    }

    pub(super) fn add(&self, outlet: Outlet) {
        self.0.borrow_mut().outlets.push(outlet);
    }

    /// Says which rows are news: only those go to outlets that do not take history.
    pub(super) fn tell_news(&self, news: News) {
        self.0.borrow_mut().news = Some(news);
    }

    /// The digest of all rows so far; that of a run that goes on starts from an earlier one.
    pub(super) fn digest(&self) -> Digest {
        self.0.borrow().digest
    }

    pub(super) fn start_digest(&self, digest: Digest) {
        self.0.borrow_mut().digest = digest;
    }

    /// Takes the rows of users out of changelogs.
    pub(super) fn remove(&self, users: &[Removal]) -> Result<(), SinkError> {
        self.each(|way| match way {
            Way::Log { sink, .. } => sink.remove(users),
            Way::Outbox { removals, .. } => {
                removals.extend_from_slice(users);
                Ok(())
            }
            Way::Staged { .. } | Way::Lake { .. } => Ok(()),
        })
    }

    /// Why rows cannot be written, if so.
    pub(super) fn take_failure(&self) -> Option<SinkError> {
        self.0.borrow_mut().failed.take()
    }

    /// Does something with each outlet; the first error ends it.
    pub(super) fn each(&self, mut each: impl FnMut(&mut Way) -> Result<(), SinkError>) -> Result<(), SinkError> {
        self.0.borrow_mut().outlets.iter_mut().try_for_each(|outlet| each(&mut outlet.to))
    }

    /// Takes the cut at an epoch, all rows up to which are here; then hands on the rows that waited for it. The last one closes all files.
    pub(super) fn cut(&self, facts: &CommitFacts, last: bool) -> Result<TableCut, SinkError> {
        let sinks = &mut *self.0.borrow_mut();
        let mut cut = TableCut { name: sinks.table.name, digest: sinks.digest, ..TableCut::default() };
        sinks.open_until = sinks.plan.map_or(u64::MAX, |plan| plan.next_after(facts.epoch.0));
        for outlet in &mut sinks.outlets {
            outlet.to.cut(facts, (last, sinks.open_until), &mut cut)?;
        }
        while let Some(entry) = sinks.waiting.first_entry().filter(|entry| entry.key().0 <= sinks.open_until) {
            let (_, whole) = *entry.key();
            let rows = entry.remove();
            sinks.write(rows, whole);
        }
        sinks.failed.take().map_or(Ok(cut), Err)
    }

    /// Publishes what was staged outside of lakes: the cut is committed.
    pub(super) fn committed(&self) -> Result<(), SinkError> {
        self.each(|way| match way {
            Way::Staged { sink } => sink.publish(&[]).map(drop),
            _ => Ok(()),
        })
    }

    /// Tells logs that everything which an earlier incarnation can have written has been handed over.
    pub(super) fn caught_up(&self) -> Result<(), SinkError> {
        self.each(|way| {
            if let Way::Log { sink, .. } = way {
                sink.caught_up();
            }
            Ok(())
        })
    }

    /// Stages everything, for the one commit of a run without checkpoints.
    pub(super) fn stage(&self, facts: &CommitFacts) -> Result<Vec<Staged>, SinkError> {
        let sinks = &mut *self.0.borrow_mut();
        if let Some(error) = sinks.failed.take() {
            return Err(error);
        }
        let mut staged = Vec::new();
        for outlet in sinks.outlets.drain(..) {
            match outlet.to {
                Way::Staged { mut sink } => {
                    let files = sink.stage(facts)?;
                    staged.push(Staged { sink, lake: None, files });
                }
                Way::Lake { mut sink, lake, .. } => {
                    let files = sink.stage(facts)?;
                    staged.push(Staged { sink, lake: Some(lake), files });
                }
                Way::Log { mut sink, .. } => drop(sink.flush()?),
                Way::Outbox { sink, encoder, identity, rows, .. } => {
                    let sink = &mut *sink.lock().unwrap_or_else(PoisonError::into_inner);
                    let mut outbox = Vec::new();
                    encoder.encode(&rows, &mut outbox)?;
                    sink.publish(&identity, 1, &outbox)?;
                }
            }
        }
        Ok(staged)
    }

    /// Writes rows again that an earlier generation kept for files, and takes them out of its delta. The digest has them.
    pub(super) fn take_over(&self, delta: &mut Delta, matching: &Matching) -> Result<(), SinkError> {
        let Sinks { table, outlets, .. } = &mut *self.0.borrow_mut();
        for outlet in outlets {
            let Way::Lake { sink, filing: Some(filing), .. } = &mut outlet.to else { continue };
            if let Some(bytes) = delta.parts.remove(filing.name()) {
                filing.take_over();
                // The next cut closes its files.
                sink.hold(false);
                let mut rows = bytes_to_rows(table, &bytes)?;
                rows.retain(|row| !matching.goes(table, row));
                sink.write(rows)?;
            }
        }
        Ok(())
    }

    pub(super) fn accept(&self, epoch: u64, rows: &mut Vec<Row>, whole: bool) {
        let sinks = &mut *self.0.borrow_mut();
        if rows.is_empty() {
            return;
        }
        if epoch > sinks.open_until {
            sinks.waiting.entry((epoch, whole)).or_default().append(rows);
        } else {
            sinks.write(std::mem::take(rows), whole);
        }
    }
}

impl Way {
    fn cut(&mut self, facts: &CommitFacts, (last, next): (bool, u64), cut: &mut TableCut) -> Result<(), SinkError> {
        match self {
            Way::Staged { sink } => drop(sink.stage(facts)?),
            Way::Lake { sink, lake, filing } => {
                let (sink, epoch) = (&mut **sink, facts.epoch.0);
                let due = filing.as_ref().is_none_or(|filing| last || filing.is_due(epoch));
                match if due { None } else { sink.held()? } {
                    Some(rows) => cut.keep_open(filing, epoch, rows),
                    None => {
                        let files = sink.stage(facts)?;
                        filing.iter_mut().for_each(|filing| filing.close(epoch, &files));
                        let json = |file: &StagedFile| serde_json::to_string(file).expect("a file is plain data");
                        let staged = cut.staged.entry(lake.root().display().to_string()).or_default();
                        staged.extend(lake.listed(&files).iter().map(json));
                    }
                }
                if let Some(filing) = filing {
                    cut.sinks.insert(filing.name().to_owned(), filing.position());
                    cut.rows_after = cut.rows_after.into_iter().chain(filing.rows_after()).min();
                    sink.hold(filing.holds_until(next));
                }
            }
            Way::Log { name, sink } => drop(cut.sinks.insert(name.clone(), sink.flush()?)),
            Way::Outbox { name, encoder, identity, rows, removals, .. } => {
                let mut outbox = Vec::new();
                encoder.encode_removals(removals, &mut outbox)?;
                removals.clear();
                encoder.encode(rows, &mut outbox)?;
                rows.clear();
                cut.sinks.insert(name.clone(), identity.clone());
                cut.outbox.insert(name.clone(), outbox);
            }
        }
        Ok(())
    }

    fn write(&mut self, rows: Vec<Row>) -> Result<(), SinkError> {
        match self {
            Way::Staged { sink } | Way::Lake { sink, .. } => sink.write(rows),
            Way::Log { sink, .. } => sink.write(rows),
            Way::Outbox { rows: all, .. } => {
                all.extend(rows);
                Ok(())
            }
        }
    }
}

impl TableCut {
    /// Rows of a lake's table wait for a later cut to close its files.
    fn keep_open(&mut self, filing: &mut Option<Filing>, epoch: u64, rows: Vec<u8>) {
        let Some(filing) = filing else { return };
        filing.keep_open(epoch, !rows.is_empty());
        if !rows.is_empty() {
            self.rows.insert(filing.name().to_owned(), rows);
        }
    }
}

impl Sinks {
    fn write(&mut self, mut rows: Vec<Row>, whole: bool) {
        if let Some(from) = self.news.and_then(News::from) {
            rows.iter_mut().filter(|row| row.values[FIRING_TIME].as_time() < Some(from)).for_each(mark_historical);
        }
        if !whole {
            let diff = self.table.diff_index();
            for row in &rows {
                let diff = diff.and_then(|at| row.values[at].as_int()).unwrap_or(1);
                self.digest.update(row_hash(&self.table, &row.values), diff);
            }
        }
        if self.failed.is_some() {
            return;
        }
        let mut rows = Some(rows);
        let mut outlets = self.outlets.iter_mut().filter(|outlet| outlet.whole == whole).peekable();
        while let Some(outlet) = outlets.next() {
            // The last outlet takes the rows themselves.
            let own = if outlets.peek().is_some() { rows.clone() } else { rows.take() };
            let mut own = own.unwrap_or_default();
            if self.news.is_some() && !outlet.historical {
                own.retain(|row| !is_historical(row));
            }
            if let Err(error) = outlet.to.write(own) {
                self.failed = Some(error);
                return;
            }
        }
    }
}

/// Writes streams of rows to sinks.
pub(super) trait WriteTo {
    /// Hands every row to `sinks`; `probe` follows what they have taken. With `gathered`, some of them take the rows of all workers.
    fn write_to(self, sinks: &TableSinks, gathered: bool, probe: &Handle<u64>);
}

impl WriteTo for StreamVec<'_, u64, Row> {
    fn write_to(self, sinks: &TableSinks, gathered: bool, probe: &Handle<u64>) {
        if gathered {
            gather(self.clone(), sinks.clone(), probe);
        }
        let sinks = sinks.clone();
        self.unary::<CapacityContainerBuilder<Vec<Row>>, _, _, _>(Pipeline, "Write", move |_, _| {
            move |input, _output| {
                input.for_each(|capability, rows| sinks.accept(*capability.time(), rows, false));
            }
        })
        .probe_with(probe);
    }
}

/// Brings the rows of all workers together and writes those of an epoch, once it is whole, in the order of their event times.
fn gather(rows: StreamVec<'_, u64, Row>, sinks: TableSinks, probe: &Handle<u64>) {
    let mut stash: BTreeMap<u64, Vec<Row>> = BTreeMap::new();
    let to_first = ExchangePact::new(|_: &Row| 0);
    rows.unary_frontier::<CapacityContainerBuilder<Vec<Row>>, _, _, _>(to_first, "Gather", move |capability, _| {
        // Held so that the probe waits for the rows to be written; let go of epoch by epoch.
        let mut held = Some(capability);
        move |(input, frontier), _output| {
            input.for_each(|capability, rows| stash.entry(*capability.time()).or_default().append(rows));
            let next = frontier.frontier().first().copied();
            while let Some(entry) = stash.first_entry().filter(|entry| next.is_none_or(|next| *entry.key() < next)) {
                let (epoch, mut rows) = entry.remove_entry();
                // By firing time, and column 0, the decision id.
                rows.sort_by(|a, b| order(a).cmp(&order(b)));
                sinks.accept(epoch, &mut rows, true);
            }
            match (next, &mut held) {
                (Some(next), Some(held)) if *held.time() < next => held.downgrade(&next),
                (None, held) => *held = None,
                _ => {}
            }
        }
    })
    .probe_with(probe);
}

fn order(row: &Row) -> (Option<Micros>, Option<&str>) {
    (row.values[FIRING_TIME].as_time(), row.values[0].as_text())
}

/// The column of a decision's firing time; its last column says whether it was no news when it was made.
const FIRING_TIME: usize = 6;

fn mark_historical(row: &mut Row) {
    if let Some(mark) = row.values.last_mut() {
        *mark = Value::Bool(true);
    }
}

fn is_historical(row: &Row) -> bool {
    row.values.last() == Some(&Value::Bool(true))
}

impl News {
    /// The event time from which on decisions are news now.
    fn from(self) -> Option<Micros> {
        let expired = self.expires_after.map(|after| wall_clock().saturating_sub(after));
        self.deliver_from.max(expired)
    }
}
