//! The input edge: reads a worker's share of the source epoch by epoch, and parses it where it is read.
//!
//! Of a bounded source an epoch is a chunk of it, and epochs are counted. Of a live one the epoch *is* the wall clock, in units of the
//! job's interval: workers agree on it without talking, and an idle source still advances. What does not fit waits in the source.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        Scope, StreamVec,
        operators::{
            Capability,
            generic::{OutputBuilder, builder_rc::OperatorBuilder},
            probe::Handle,
        },
    },
};
use whisperer_connectors::{
    Chunk, Positions, RawRecord, Reader, SourceError,
    format::{Parsed, Parser, RegistryError, Rejection},
    source::Payload,
};
use whisperer_operators::{keyed::CutPlan, record::Record, watermark::ChunkFacts};
use whisperer_schemas::{Epoch, Micros, PartitionId, Row, Value};

use super::{erasures::Matching, progress::Progress, telling::ReadTelling};

/// Epochs that may be on their way through the dataflow: with them the memory of a bounded input is bounded, and workers that read
/// ahead of others still find work.
const EPOCHS_IN_FLIGHT_MAX: u64 = 4;

/// Records of a container: small enough that the allocator keeps its memory instead of asking the system for fresh pages every time.
const CONTAINER_RECORDS: usize = 512;

/// How long a reader waits when that many epochs are on their way.
const WAIT: Duration = Duration::from_micros(200);

/// How long a live reader waits before it looks at the clock again: a fraction of the shortest epoch that makes sense.
const WAIT_LIVE: Duration = Duration::from_micros(500);

/// What a worker's readers counted.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadCounts {
    /// Records, blank lines left out.
    pub(super) read: u64,
    /// Rejected records by reason.
    pub(super) dead: BTreeMap<&'static str, u64>,
    /// Event times that were clamped to their ingest time.
    pub(super) clamped: u64,
    /// Events of history that were left to the source which follows it.
    pub(super) past_history: u64,
}

/// When a worker's reader reads.
pub(super) struct Pace {
    /// The length of an epoch of a live source; none of a bounded one.
    pub(super) live: Option<Duration>,
    /// The first epoch.
    pub(super) first: u64,
    /// When cuts are taken.
    pub(super) plan: Option<CutPlan>,
}

/// What reading had come to at a cut.
#[derive(Clone, Debug, Default)]
pub(super) struct SourceCut {
    /// The next offsets of the partitions that were read here.
    pub(super) positions: BTreeMap<u32, u64>,
    /// What was read.
    pub(super) counts: ReadCounts,
    /// Whether everything has been read that was there when the run began.
    pub(super) caught_up: bool,
}

/// What reading shares with its worker.
#[derive(Clone, Default)]
pub(super) struct Shared {
    cuts: Rc<RefCell<BTreeMap<u64, SourceCut>>>,
    /// What reading came to, once it has come to an end.
    end: Rc<RefCell<Option<SourceCut>>>,
    failed: Rc<RefCell<Option<SourceError>>>,
    /// No epoch up to this one is read any more; the capability goes above it.
    stop_at: Rc<Cell<Option<u64>>>,
    /// Nothing is read for now.
    held: Rc<Cell<bool>>,
    /// The stream ends now, whatever the source still holds.
    ended: Rc<Cell<bool>>,
    /// Positions that a checkpoint has committed, for the reader to pass on.
    committed: Rc<RefCell<Option<Positions>>>,
    epoch: Rc<Cell<u64>>,
    /// How far above the epoch that this worker reads another one can have come that shares partitions with it.
    ahead: u64,
}

impl Shared {
    /// Takes what reading had come to at a cut, once it is past it.
    pub(super) fn take_cut(&self, epoch: u64) -> Option<SourceCut> {
        let mut cuts = self.cuts.borrow_mut();
        let found = cuts.remove(&epoch);
        cuts.retain(|other, _| *other > epoch);
        found.or_else(|| self.end.borrow().clone())
    }

    /// Stops reading at the first cut at or after an epoch; the cut can be taken nearly at once.
    pub(super) fn stop_at(&self, epoch: u64) {
        self.stop_at.set(Some(epoch));
    }

    /// Holds reading up, or lets it go on: rows that wait for a cut that waits for a sink would fill the memory.
    pub(super) fn hold(&self, held: bool) {
        self.held.set(held);
    }

    /// Ends the stream.
    pub(super) fn end(&self) {
        self.ended.set(true);
    }

    /// The epoch that is being read.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    /// The epoch at which all workers can stop.
    pub(super) fn stop_epoch(&self) -> u64 {
        self.epoch.get() + self.ahead
    }

    /// Tells the reader what is committed.
    pub(super) fn committed(&self, positions: Positions) {
        *self.committed.borrow_mut() = Some(positions);
    }

    /// Why reading ended, if it failed.
    pub(super) fn take_failure(&self) -> Option<SourceError> {
        self.failed.borrow_mut().take()
    }

    /// What was read, once reading has ended.
    pub(super) fn counts(&self) -> ReadCounts {
        self.end.borrow().as_ref().map(|end| end.counts.clone()).unwrap_or_default()
    }
}

/// The streams that reading gives.
pub(super) struct Streams<'scope> {
    pub(super) records: StreamVec<'scope, u64, Record>,
    pub(super) facts: StreamVec<'scope, u64, ChunkFacts>,
    pub(super) dead_letters: StreamVec<'scope, u64, Row>,
}

/// A worker's reader and parser at work.
pub(super) struct Reading {
    reader: Box<dyn Reader>,
    progress: Arc<Progress>,
    pace: Pace,
    /// Event times that were clamped before the checkpoint.
    clamped_before: u64,
    shared: Shared,
    /// The next offsets of the partitions read here.
    positions: BTreeMap<u32, u64>,
    /// Live epochs that hold records and are on their way.
    in_flight: VecDeque<u64>,
    /// The epoch at which reading stopped.
    stopped: Option<u64>,
    /// When an epoch was read last.
    last_read: Option<Instant>,
    batch: Batch,
    chunks: Vec<Chunk>,
    telling: Option<ReadTelling>,
}

/// What one epoch gave.
struct Batch {
    parser: Parser,
    epoch: Epoch,
    read: u64,
    /// The same by partition, as far as chunks are finished.
    read_of: Vec<(PartitionId, u64)>,
    read_before: u64,
    dead: BTreeMap<&'static str, u64>,
    records: Vec<Record>,
    /// Containers that are full.
    full: Vec<Vec<Record>>,
    dead_letters: Vec<Row>,
    /// The chunk that is being read, and its largest event time so far.
    chunk: (PartitionId, u32),
    time_max: Micros,
    /// Events of history from this time on are not taken, and how many those were.
    history_until: Micros,
    past_history: u64,
    /// Whose rejected records are left out.
    erased: Matching,
    /// Why a record could not be judged; the run ends.
    failed: Option<RegistryError>,
    /// The same of the chunks before it.
    done: Vec<((PartitionId, u32), Micros)>,
}

impl Reading {
    pub(super) fn new(
        reader: Box<dyn Reader>,
        parser: Parser,
        progress: Arc<Progress>,
        (pace, before): (Pace, ReadCounts),
    ) -> Reading {
        let batch = Batch {
            parser,
            epoch: Epoch(0),
            read: 0,
            read_of: Vec::new(),
            read_before: before.read,
            dead: before.dead,
            records: Vec::new(),
            full: Vec::new(),
            dead_letters: Vec::new(),
            chunk: (PartitionId(0), 0),
            time_max: Micros::MIN,
            history_until: Micros::MAX,
            past_history: before.past_history,
            erased: Matching::default(),
            failed: None,
            done: Vec::new(),
        };
        let ahead = if pace.live.is_some() { 0 } else { EPOCHS_IN_FLIGHT_MAX };
        let shared = Shared { ahead, ..Shared::default() };
        shared.epoch.set(pace.first);
        let in_flight = VecDeque::new();
        let clamped_before = before.clamped;
        let positions = reader.positions().into_iter().map(|(partition, offset)| (partition.0, offset)).collect();
        let (chunks, stopped, telling) = (Vec::new(), None, None);
        let reading = Reading {
            reader,
            progress,
            pace,
            clamped_before,
            shared,
            positions,
            in_flight,
            stopped,
            last_read: None,
            batch,
            chunks,
            telling,
        };
        if reading.pace.plan.is_some_and(|plan| plan.after == 0) {
            // The cut before the first record.
            reading.shared.cuts.borrow_mut().insert(0, reading.cut());
        }
        reading
    }

    /// Leaves events of history from a time on to the source that follows it.
    pub(super) fn until(mut self, history_until: Option<Micros>) -> Reading {
        self.batch.history_until = history_until.unwrap_or(Micros::MAX);
        self
    }

    /// Leaves records out that name an erased person and are no events.
    pub(super) fn leave_out(&mut self, erased: Matching) {
        self.batch.erased = erased;
    }

    /// Has somebody told of what is read.
    pub(super) fn tell(&mut self, telling: Option<ReadTelling>) {
        self.telling = telling;
    }

    pub(super) fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// Reads this worker's share of an epoch; false at the end of the input, and after an error.
    fn read(&mut self, epoch: Epoch) -> bool {
        self.last_read = Some(Instant::now());
        let batch = &mut self.batch;
        batch.epoch = epoch;
        self.chunks.clear();
        if let Some(positions) = self.shared.committed.borrow_mut().take() {
            self.reader.committed(&positions);
        }
        let result = self.reader.read(epoch, &mut |raw| batch.take(&raw), &mut self.chunks);
        let result = match batch.failed.take() {
            Some(error) => Err(error.into()),
            None => result,
        };
        batch.finish_chunk();
        batch.read_before += batch.read;
        self.progress.add(epoch, std::mem::take(&mut batch.read), &self.chunks);
        for chunk in &self.chunks {
            let next = self.positions.entry(chunk.partition.0).or_default();
            *next = chunk.next_offset.max(*next);
        }
        if let Some(telling) = &mut self.telling {
            telling.read(&*self.reader, &self.chunks, &self.batch.read_of, &self.batch.dead);
        }
        self.batch.read_of.clear();
        result.unwrap_or_else(|error| {
            *self.shared.failed.borrow_mut() = Some(error);
            false
        })
    }

    /// Notes what reading has come to for every cut from epoch `from` on and before `to`: nothing is read in between any more.
    fn pass(&self, from: u64, to: u64) {
        self.shared.epoch.set(to);
        let Some(plan) = self.pace.plan else { return };
        let mut cut = plan.next_after(from.saturating_sub(1));
        while cut < to {
            if cut > plan.after {
                self.shared.cuts.borrow_mut().insert(cut, self.cut());
            }
            cut += plan.every;
        }
    }

    fn cut(&self) -> SourceCut {
        let caught_up = self.reader.caught_up();
        SourceCut { positions: self.positions.clone(), counts: self.counts(), caught_up }
    }

    fn counts(&self) -> ReadCounts {
        let Batch { dead, parser, read_before, past_history, .. } = &self.batch;
        let clamped = self.clamped_before + parser.clamped();
        ReadCounts { dead: dead.clone(), clamped, read: *read_before, past_history: *past_history }
    }

    /// Whether there is room for more records on their way.
    fn has_room(&mut self, epoch: u64, probe: &Handle<u64>) -> bool {
        if self.shared.held.get() {
            return false;
        }
        if self.pace.live.is_none() {
            return epoch < EPOCHS_IN_FLIGHT_MAX || !probe.less_equal(&(epoch - EPOCHS_IN_FLIGHT_MAX));
        }
        while self.in_flight.front().is_some_and(|oldest| !probe.less_equal(oldest)) {
            self.in_flight.pop_front();
        }
        self.in_flight.len() < EPOCHS_IN_FLIGHT_MAX as usize
    }

    /// The facts of the chunks that were read.
    fn facts(&mut self) -> Vec<ChunkFacts> {
        let done = std::mem::take(&mut self.batch.done);
        let fact = |chunk: &Chunk| {
            let same = |(of, _): &&((PartitionId, u32), Micros)| *of == (chunk.partition, chunk.chunk);
            let records_max = done.iter().find(same).map_or(Micros::MIN, |(_, time_max)| *time_max);
            ChunkFacts {
                partition: chunk.partition.0,
                chunk: chunk.chunk,
                time_max: records_max.max(chunk.advance_to.unwrap_or(Micros::MIN)),
                ended: chunk.ended,
            }
        };
        self.chunks.iter().map(fact).collect()
    }

    fn finish(&self) {
        *self.shared.end.borrow_mut() = Some(self.cut());
    }
}

impl Batch {
    fn take(&mut self, raw: &RawRecord<'_>) {
        let chunk = (raw.position.partition, raw.chunk);
        if chunk != self.chunk {
            self.finish_chunk();
            self.chunk = chunk;
        }
        match self.parser.parse(raw, self.time_max) {
            Parsed::Record(record) if record.time >= self.history_until && raw.position.partition.is_history() => {
                self.past_history += 1;
            }
            Parsed::Record(record) => {
                self.time_max = self.time_max.max(record.time);
                if self.records.len() >= CONTAINER_RECORDS {
                    let room = Vec::with_capacity(CONTAINER_RECORDS);
                    self.full.push(std::mem::replace(&mut self.records, room));
                }
                self.records.push(record);
            }
            Parsed::Blank => return,
            Parsed::Rejected(rejection) => self.reject(raw, &rejection),
            Parsed::Failed(error) => {
                self.failed.get_or_insert(*error);
                return;
            }
        }
        self.read += 1;
    }

    fn reject(&mut self, raw: &RawRecord<'_>, rejection: &Rejection) {
        let (bytes, length) = match raw.payload {
            Payload::Json(bytes) | Payload::Csv { raw: bytes, .. } => (bytes, bytes.len() as u64),
            Payload::TooLarge { head, bytes } => (head, bytes),
        };
        if !self.erased.is_empty() && self.erased.names(bytes, raw.position) {
            return;
        }
        *self.dead.entry(rejection.reason.as_str()).or_default() += 1;
        let values = vec![
            Value::text(rejection.reason.as_str()),
            Value::text(&rejection.detail),
            Value::Int(i64::from(raw.position.partition.0)),
            Value::Int(raw.position.offset as i64),
            Value::Bytes(bytes.into()),
            Value::Int(length as i64),
            Value::Int(self.epoch.0 as i64),
        ];
        self.dead_letters.push(Row { values, epoch: self.epoch, position: Some(raw.position) });
    }

    /// Whether nothing came in.
    fn is_empty(&self) -> bool {
        self.full.is_empty() && self.records.is_empty() && self.dead_letters.is_empty()
    }

    fn finish_chunk(&mut self) {
        let counted: u64 = self.read_of.iter().map(|(_, read)| read).sum();
        if self.read > counted {
            self.read_of.push((self.chunk.0, self.read - counted));
        }
        if self.time_max != Micros::MIN {
            self.done.push((self.chunk, std::mem::replace(&mut self.time_max, Micros::MIN)));
        }
    }
}

/// Reads the source into the dataflow, a few epochs ahead of what `probe` has seen come out of it.
pub(super) fn read_source<'scope>(
    scope: Scope<'scope, u64>,
    mut reading: Reading,
    probe: Handle<u64>,
) -> Streams<'scope> {
    let mut builder = OperatorBuilder::new("Read".to_owned(), scope);
    let (records, record_stream) = builder.new_output::<Vec<Record>>();
    let (facts, fact_stream) = builder.new_output::<Vec<ChunkFacts>>();
    let (dead_letters, dead_letter_stream) = builder.new_output::<Vec<Row>>();
    let mut records = OutputBuilder::<_, CapacityContainerBuilder<Vec<Record>>>::from(records);
    let mut facts = OutputBuilder::<_, CapacityContainerBuilder<Vec<ChunkFacts>>>::from(facts);
    let mut dead_letters = OutputBuilder::<_, CapacityContainerBuilder<Vec<Row>>>::from(dead_letters);
    let activator = scope.activator_for(builder.operator_info().address);
    builder.build(move |mut capabilities| {
        let mut epoch = reading.pace.first;
        capabilities.iter_mut().for_each(|capability| capability.downgrade(&epoch));
        let mut held: Option<Vec<Capability<u64>>> = Some(capabilities);
        move |_frontiers| {
            let Some(capabilities) = &mut held else { return };
            if reading.shared.ended.get() {
                reading.finish();
                held = None;
                return;
            }
            let next = reading.next_epoch(epoch);
            if next > epoch {
                reading.pass(epoch, next);
                epoch = next;
                capabilities.iter_mut().for_each(|capability| capability.downgrade(&epoch));
            }
            if reading.shared.stop_at.get().is_some() && !reading.reads_on(epoch) {
                return activator.activate_after(WAIT_LIVE);
            }
            if !reading.is_due(epoch) || !reading.has_room(epoch, &probe) {
                return activator.activate_after(if reading.pace.live.is_some() { WAIT_LIVE } else { WAIT });
            }
            let more = reading.read(Epoch(epoch));
            if reading.shared.failed.borrow().is_some() {
                // The run ends before this epoch: what was read of it is not handed on, and no input seems to have ended.
                return;
            }
            if reading.pace.live.is_some() && !reading.batch.is_empty() {
                reading.in_flight.push_back(epoch);
            }
            let mut records = records.activate();
            let mut session = records.session(&capabilities[0]);
            session.give_containers(reading.batch.full.iter_mut());
            session.give_container(&mut reading.batch.records);
            drop(session);
            reading.batch.full.clear();
            facts.activate().session(&capabilities[1]).give_iterator(reading.facts().into_iter());
            dead_letters.activate().session(&capabilities[2]).give_iterator(reading.batch.dead_letters.drain(..));
            if more {
                // There is one chunk of a partition in an epoch: this one is whole now, and need not wait for the clock's next tick.
                reading.pass(epoch, epoch + 1);
                epoch += 1;
                capabilities.iter_mut().for_each(|capability| capability.downgrade(&epoch));
            }
            match (more, reading.pace.live) {
                (true, None) => activator.activate(),
                (true, Some(_)) => activator.activate_after(WAIT_LIVE),
                (false, _) => {
                    reading.finish();
                    held = None;
                }
            }
        }
    });
    Streams { records: record_stream, facts: fact_stream, dead_letters: dead_letter_stream }
}

impl Reading {
    /// The epoch to go on with, where everything before `epoch` has been read.
    fn next_epoch(&mut self, epoch: u64) -> u64 {
        if let (Some(at), Some(plan)) = (self.shared.stop_at.get(), self.pace.plan) {
            if self.reads_on(epoch) {
                return epoch;
            }
            // Above the first cut at or after `at`, and after what has been read of a live source, whose partitions nobody shares.
            let read = if self.pace.live.is_some() { at.max(epoch) } else { at };
            return epoch.max(*self.stopped.get_or_insert_with(|| plan.next_after(read.saturating_sub(1)) + 1));
        }
        match self.pace.live {
            None => epoch,
            Some(interval) => epoch.max(wall_clock_epoch(interval)),
        }
    }

    /// Whether a worker that is to stop reads this epoch still. Workers share the partitions of a bounded source, chunk by chunk, so all of
    /// them stop after the same epoch, which none can have passed when the first one heard of it.
    fn reads_on(&self, epoch: u64) -> bool {
        self.pace.live.is_none() && self.shared.stop_at.get().is_some_and(|at| epoch <= at)
    }

    /// Whether an epoch may be read: any of a bounded source, one of a live source when it has begun.
    fn is_due(&self, epoch: u64) -> bool {
        self.pace.live.is_none_or(|interval| {
            has_begun(epoch, wall_clock_epoch(interval), (interval, self.last_read.map(|at| at.elapsed())))
        })
    }
}

/// Whether an epoch has begun by the clock, or by what has passed since the last one was read. A run goes on from a cut that may lie ahead
/// of the clock: a job that stops takes its last one at once. It then reads at half the pace, until the clock has come up.
fn has_begun(epoch: u64, clock: u64, (interval, since_last): (Duration, Option<Duration>)) -> bool {
    clock >= epoch || since_last.is_none_or(|since| since >= 2 * interval)
}

/// The wall clock in units of the interval.
pub(super) fn wall_clock_epoch(interval: Duration) -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_millis() / interval.as_millis().max(1)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ahead_of_the_clock_goes_on_and_lets_it_come_up() {
        // Goal: a job that was stopped just now reads on at once, never two epochs in the time of one, and is by the clock again later.
        let interval = Duration::from_millis(10);
        let at =
            |epoch, clock, since: Option<u64>| has_begun(epoch, clock, (interval, since.map(Duration::from_millis)));
        assert!(at(7, 7, Some(0)) && at(7, 9, None), "by the clock");
        assert!(!at(8, 7, Some(19)), "one epoch ahead of the clock waits for it");
        let (mut epoch, mut last) = (1_000, None);
        let mut read = 0;
        for millis in 0..30_000_u64 {
            let clock = millis / 10;
            epoch = epoch.max(clock);
            if at(epoch, clock, last.map(|last| millis - last)) {
                (epoch, last, read) = (epoch + 1, Some(millis), read + 1);
            }
        }
        assert_eq!(epoch, 3_000, "by the clock again");
        assert_eq!(read, 1_000 + 1_000, "half the pace for twice the 10 s ahead, then the whole");
    }
}
