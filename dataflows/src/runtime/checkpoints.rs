//! Checkpoints on one worker: the parts of a cut are gathered, written as a delta file, and acknowledged.
//!
//! ```text
//! source ── positions ─┐
//! keyed ── states ─────┼─▶ delta ── writer thread ──▶ file ── Ack ──▶ coordinator ──▶ manifest ── Committed ──▶ all
//! tables ── outbox ────┘                                                                     outboxes, offsets ◀┘
//! ```
//! The worker never waits: states are encoded in slices, files are written by a thread, and what a commit brings is done when it is told.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::{
        Arc, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, Thread},
};

use timely::dataflow::operators::probe::Handle;
use tracing::Span;
use whisperer_connectors::StateStore;
use whisperer_operators::{job::CompiledJob, keyed::KeyedCut};
use whisperer_schemas::{
    Epoch, Micros, PartitionId,
    checkpoint::{Delta, FileFacts},
    erasure::Noted,
};
use whisperer_sinks::{CommitFacts, SinkError};

use super::{
    RunError,
    control::{Ack, Committed, Control, Message},
    coordinator::wall_clock,
    counts, erasures,
    outputs::WorkerTables,
    reading::{Shared, SourceCut},
    tables::{SharedOutbox, TableCut, Way},
};
use crate::operations::{Operations, Spans, traces};

/// Committed outboxes that may wait to be published: fewer than the checkpoints that are kept at least.
const OUTBOXES_MAX: usize = 2;

/// The coordinator is a part of this worker.
pub(super) const COORDINATOR: usize = 0;

/// What a worker's checkpoints need.
pub(super) struct Parts {
    pub(super) job: Arc<CompiledJob>,
    pub(super) worker: usize,
    /// Whether the coordinator is a part of another process.
    pub(super) coordinates_elsewhere: bool,
    pub(super) generation: u64,
    /// The number of the next manifest: every cut becomes one.
    pub(super) number: u64,
    pub(super) store: Arc<dyn StateStore>,
    /// Whether the first delta has to hold all states.
    pub(super) full: bool,
    pub(super) keyed: Rc<RefCell<VecDeque<KeyedCut>>>,
    pub(super) reading: Shared,
    /// Keys by stage, as this worker's view has them.
    pub(super) stages: Rc<RefCell<Vec<i64>>>,
    pub(super) probe: Handle<u64>,
    pub(super) operations: Option<Arc<Operations>>,
    pub(super) spans: Arc<Spans>,
}

/// Checkpoints on one worker.
pub(super) struct Checkpoints {
    parts: Parts,
    /// Cuts that have not been handed over, as the keyed operator has them.
    begun: VecDeque<Begun>,
    /// What the oldest cut has of its tables, once they have everything that belongs to it.
    cut: Option<(SourceCut, Vec<TableCut>)>,
    /// Cuts that are being written, oldest first.
    writing: VecDeque<Pending>,
    writer: Writer,
    /// What waits for a commit, oldest first.
    waiting: VecDeque<Waiting>,
    /// The epoch from which on a cut is the last one.
    stop: Option<u64>,
    publisher: Publisher,
}

/// What waits until the cut of an epoch is committed.
struct Waiting {
    epoch: u64,
    outbox: BTreeMap<String, Vec<u8>>,
    positions: BTreeMap<u32, u64>,
    checkpoint: Span,
}

/// A cut that was taken.
struct Begun {
    taken: Micros,
    checkpoint: Span,
    /// Until it is handed over.
    cut: Span,
}

/// A cut whose delta is being written.
struct Pending {
    taken: Micros,
    keyed: KeyedCut,
    source: SourceCut,
    tables: Vec<TableCut>,
}

impl Checkpoints {
    pub(super) fn new(parts: Parts, tables: &WorkerTables) -> Checkpoints {
        let writer = Writer::start(parts.store.clone(), parts.generation);
        let publisher = Publisher::start(outboxes_of(tables));
        let (begun, writing, waiting) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        Checkpoints { parts, begun, cut: None, writing, writer, waiting, stop: None, publisher }
    }

    /// The first cut at or after an epoch is the last one.
    pub(super) fn stop_at(&mut self, epoch: u64) {
        self.stop = Some(epoch);
    }

    /// Does what can be done now.
    pub(super) fn turn(&mut self, tables: &WorkerTables, control: &mut Control) -> Result<(), RunError> {
        self.note_begun();
        self.gather(tables)?;
        while let Some(file) = self.writer.written().inspect_err(|_| self.parts.failed())? {
            let pending = self.writing.pop_front().expect("files are written in the order of the cuts");
            control.send(COORDINATOR, &Message::Ack(Box::new(self.ack(pending, file))));
        }
        while let Some(number) = self.publisher.published()? {
            control.send(COORDINATOR, &Message::Published { worker: self.parts.worker, number });
        }
        Ok(())
    }

    /// Notes when the cuts were taken that have come since the last turn.
    fn note_begun(&mut self) {
        for keyed in self.parts.keyed.borrow().iter().skip(self.begun.len()) {
            let checkpoint = self.parts.spans.checkpoint(keyed.epoch);
            let cut = traces::cut(&checkpoint, self.parts.worker);
            self.begun.push_back(Begun { taken: wall_clock(), checkpoint, cut });
        }
    }

    /// Takes the cut of the tables once all rows that belong to it have come, and hands it over once its states have.
    fn gather(&mut self, tables: &WorkerTables) -> Result<(), RunError> {
        let mut cuts = self.parts.keyed.borrow_mut();
        self.parts.reading.hold(!cuts.is_empty() && self.publisher.waiting >= OUTBOXES_MAX);
        // What is committed and not out has to be found among the checkpoints that are kept: a sink that lags holds up the next cut.
        while let Some(keyed) = cuts.front().filter(|_| self.publisher.waiting < OUTBOXES_MAX) {
            if self.cut.is_none() {
                if self.parts.probe.less_equal(&keyed.epoch) {
                    return Ok(());
                }
                let _cut = self.begun.front().map(|begun| begun.cut.enter());
                let source = self.parts.reading.take_cut(keyed.epoch).unwrap_or_default();
                let watermark = Some(keyed.clocks.watermark()).filter(|watermark| *watermark != Micros::MIN);
                tables.write_views(keyed.epoch, watermark);
                let last = keyed.last || self.stop.is_some_and(|stop| keyed.epoch >= stop);
                let of_tables = cut_tables(tables, (keyed.epoch, self.parts.number), (&source, last))?;
                self.cut = Some((source, of_tables));
            }
            if keyed.states.is_none() {
                return Ok(());
            }
            let (Some(keyed), Some((source, tables))) = (cuts.pop_front(), self.cut.take()) else { return Ok(()) };
            let Some(Begun { taken, checkpoint, .. }) = self.begun.pop_front() else { return Ok(()) };
            let pending = Pending { taken, keyed, source, tables };
            let (delta, mut pending) = self.parts.delta(pending);
            self.parts.full = false;
            self.parts.number += 1;
            let positions = pending.source.positions.clone();
            let (epoch, outbox) = (pending.keyed.epoch, delta.outbox.clone());
            let write = traces::write(&checkpoint, self.parts.worker);
            self.waiting.push_back(Waiting { epoch, outbox, positions, checkpoint });
            self.writer.write(delta, std::mem::take(&mut pending.keyed.noted), write);
            self.writing.push_back(pending);
        }
        Ok(())
    }

    fn ack(&self, pending: Pending, file: FileFacts) -> Ack {
        let Pending { taken, keyed, source, tables } = pending;
        let mut ack = Ack {
            epoch: keyed.epoch,
            worker: self.parts.worker,
            file,
            taken,
            positions: source.positions,
            clocks: keyed.clocks.times().collect(),
            watermark: Some(keyed.clocks.watermark()).filter(|watermark| *watermark != Micros::MIN),
            ended: keyed.clocks.ended().collect(),
            staged: BTreeMap::new(),
            sinks: BTreeMap::new(),
            digests: BTreeMap::new(),
            counts: counts::named(&self.parts.job, &keyed.counts, &source.counts, &self.parts.stages.borrow()),
            last: keyed.last,
            caught_up: source.caught_up,
            holds_rows: false,
            rows_after: None,
        };
        for table in tables {
            ack.digests.insert(table.name.to_owned(), table.digest);
            for (lake, files) in table.staged {
                ack.staged.entry(lake).or_default().extend(files);
            }
            ack.holds_rows |= table.holds_rows;
            ack.rows_after = ack.rows_after.into_iter().chain(table.rows_after).min();
            let own = |(name, position)| (sink_key(name, self.parts.worker), position);
            ack.sinks.extend(table.sinks.into_iter().map(own));
        }
        ack
    }

    /// A checkpoint is committed: what waited for it goes out.
    pub(super) fn committed(&mut self, committed: Committed, tables: &WorkerTables) -> Result<(), SinkError> {
        self.parts.note_committed(committed);
        while self.waiting.front().is_some_and(|waiting| waiting.epoch <= committed.epoch)
            && let Some(waiting) = self.waiting.pop_front()
        {
            let publish = traces::publish(&waiting.checkpoint, committed.number);
            self.publisher.publish(committed.number, waiting.outbox, publish);
            let positions = waiting.positions.into_iter().map(|(partition, offset)| (PartitionId(partition), offset));
            self.parts.reading.committed(positions.collect());
        }
        for (_, table) in tables.all() {
            table.committed()?;
            if committed.caught_up {
                table.caught_up()?;
            }
        }
        Ok(())
    }

    /// Waits until everything that is committed is out.
    pub(super) fn finish(self) -> Result<(), SinkError> {
        self.publisher.finish()
    }
}

impl Parts {
    /// A checkpoint cannot be written.
    fn failed(&self) {
        self.operations.iter().for_each(|operations| operations.metrics.checkpoint_failed());
    }

    /// Tells of a checkpoint; the process that coordinates has told more of it.
    fn note_committed(&self, committed: Committed) {
        if self.coordinates_elsewhere {
            self.spans.committed(committed.epoch, committed.number, 0);
            self.operations.iter().for_each(|operations| operations.metrics.checkpoint_elsewhere(committed.number));
        }
    }

    fn delta(&self, mut pending: Pending) -> (Delta, Pending) {
        let (mut outbox, mut parts) = (BTreeMap::new(), BTreeMap::new());
        for table in &mut pending.tables {
            outbox.append(&mut table.outbox);
            table.holds_rows = !table.rows.is_empty();
            parts.append(&mut table.rows);
        }
        let delta = Delta {
            epoch: Epoch(pending.keyed.epoch),
            worker: self.worker as u32,
            layout: pending.keyed.layout.to_bytes(),
            full: self.full,
            states: pending.keyed.states.take().unwrap_or_default(),
            parts,
            outbox,
        };
        (delta, pending)
    }
}

/// What a sink of one worker is called in a checkpoint.
pub(super) fn sink_key(name: String, worker: usize) -> String {
    format!("{name}#{worker}")
}

fn cut_tables(
    tables: &WorkerTables,
    (epoch, checkpoint): (u64, u64),
    (source, last): (&SourceCut, bool),
) -> Result<Vec<TableCut>, SinkError> {
    let positions = source.positions.iter().map(|(partition, offset)| (PartitionId(*partition), *offset)).collect();
    let facts = CommitFacts { epoch: Epoch(epoch), positions, checkpoint };
    tables.all().map(|(_, table)| table.cut(&facts, last)).collect()
}

fn outboxes_of(tables: &WorkerTables) -> BTreeMap<String, SharedOutbox> {
    let mut outboxes = BTreeMap::new();
    for (_, table) in tables.all() {
        let each = table.each(|way| {
            if let Way::Outbox { name, sink, .. } = way {
                outboxes.insert(name.clone(), sink.clone());
            }
            Ok(())
        });
        each.expect("looking at an outlet does not fail");
    }
    outboxes
}

/// Writes delta files, one after the other.
struct Writer {
    deltas: Sender<(Delta, Vec<Noted>, Span)>,
    files: Receiver<Result<FileFacts, RunError>>,
}

impl Writer {
    fn start(store: Arc<dyn StateStore>, generation: u64) -> Writer {
        let (deltas, received) = mpsc::channel::<(Delta, Vec<Noted>, Span)>();
        let (tell, files) = mpsc::channel();
        let worker: Thread = thread::current();
        thread::spawn(move || {
            for (delta, noted, span) in received {
                // The checkpoint that suppresses events comes after what says so.
                let written = erasures::note(&*store, &noted);
                let written = written.and_then(|()| Ok(span.in_scope(|| store.write_delta(&delta, generation))?));
                if let Ok(file) = &written {
                    span.record("bytes", file.bytes);
                }
                drop(span);
                if tell.send(written).is_err() {
                    return;
                }
                worker.unpark();
            }
        });
        Writer { deltas, files }
    }

    fn write(&self, delta: Delta, noted: Vec<Noted>, span: Span) {
        // A writer that came down has said why, or the run is over.
        let _ = self.deltas.send((delta, noted, span));
    }

    fn written(&self) -> Result<Option<FileFacts>, RunError> {
        self.files.try_recv().ok().transpose()
    }
}

/// Publishes outboxes, one after the other.
struct Publisher {
    waiting: usize,
    outboxes: Sender<(u64, BTreeMap<String, Vec<u8>>, Span)>,
    published: Receiver<Result<u64, SinkError>>,
    thread: thread::JoinHandle<()>,
}

impl Publisher {
    fn start(sinks: BTreeMap<String, SharedOutbox>) -> Publisher {
        let (outboxes, received) = mpsc::channel::<(u64, BTreeMap<String, Vec<u8>>, Span)>();
        let (tell, published) = mpsc::channel();
        let worker = thread::current();
        let thread = thread::spawn(move || {
            for (number, outbox, span) in received {
                let done = span.in_scope(|| publish(&sinks, number, &outbox)).map(|()| number);
                drop(span);
                let failed = done.is_err();
                if tell.send(done).is_err() || failed {
                    return;
                }
                worker.unpark();
            }
        });
        Publisher { waiting: 0, outboxes, published, thread }
    }

    fn publish(&mut self, number: u64, outbox: BTreeMap<String, Vec<u8>>, span: Span) {
        self.waiting += 1;
        // A publisher that came down has said why.
        let _ = self.outboxes.send((number, outbox, span));
    }

    fn published(&mut self) -> Result<Option<u64>, SinkError> {
        let published = self.published.try_recv().ok().transpose()?;
        self.waiting -= usize::from(published.is_some());
        Ok(published)
    }

    fn finish(self) -> Result<(), SinkError> {
        drop(self.outboxes);
        // A thread that panicked has aborted the process.
        let _ = self.thread.join();
        self.published.try_iter().collect::<Result<Vec<u64>, _>>().map(drop)
    }
}

/// Publishes what one checkpoint has for each sink.
fn publish(
    sinks: &BTreeMap<String, SharedOutbox>,
    number: u64,
    outbox: &BTreeMap<String, Vec<u8>>,
) -> Result<(), SinkError> {
    for (name, bytes) in outbox {
        if let Some(sink) = sinks.get(name) {
            let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
            let maker = sink.identity();
            sink.publish(&maker, number, bytes)?;
        }
    }
    Ok(())
}
