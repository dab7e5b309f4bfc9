//! The input edge: reads a worker's share of the source epoch by epoch, and parses it where it is read.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

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
    Chunk, RawRecord, Reader, SourceError,
    format::{Parsed, Parser, RegistryError, Rejection},
    source::Payload,
};
use whisperer_operators::{record::Record, watermark::ChunkFacts};
use whisperer_schemas::{Epoch, Micros, PartitionId, Row, Value};

use super::progress::Progress;

/// Epochs that may be on their way through the dataflow: with them the memory of a bounded input is bounded, and workers that read
/// ahead of others still find work.
const EPOCHS_IN_FLIGHT_MAX: u64 = 4;

/// Records of a container: small enough that the allocator keeps its memory instead of asking the system for fresh pages every time.
const CONTAINER_RECORDS: usize = 512;

/// How long a reader waits when that many epochs are on their way.
const WAIT: Duration = Duration::from_micros(200);

/// What a worker's readers counted.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadCounts {
    /// Records, blank lines left out.
    pub(super) read: u64,
    /// Rejected records by reason.
    pub(super) dead: BTreeMap<&'static str, u64>,
    /// Event times that were clamped to their ingest time.
    pub(super) clamped: u64,
}

/// The streams that reading gives.
pub(super) struct Streams<'scope> {
    pub(super) records: StreamVec<'scope, u64, Record>,
    pub(super) facts: StreamVec<'scope, u64, ChunkFacts>,
    pub(super) dead_letters: StreamVec<'scope, u64, Row>,
}

/// What reading came to, shared with the worker.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome(Rc<RefCell<(ReadCounts, Option<SourceError>)>>);

impl Outcome {
    pub(super) fn take(&self) -> Result<ReadCounts, SourceError> {
        let (counts, error) = &mut *self.0.borrow_mut();
        error.take().map_or_else(|| Ok(counts.clone()), Err)
    }
}

/// A worker's reader and parser at work.
pub(super) struct Reading {
    reader: Box<dyn Reader>,
    progress: Arc<Progress>,
    outcome: Outcome,
    batch: Batch,
    chunks: Vec<Chunk>,
}

/// What one epoch gave.
struct Batch {
    parser: Parser,
    epoch: Epoch,
    read: u64,
    read_before: u64,
    dead: BTreeMap<&'static str, u64>,
    records: Vec<Record>,
    /// Containers that are full.
    full: Vec<Vec<Record>>,
    dead_letters: Vec<Row>,
    /// The chunk that is being read, and its largest event time so far.
    chunk: (PartitionId, u32),
    time_max: Micros,
    /// Why a record could not be judged; the run ends.
    failed: Option<RegistryError>,
    /// The same of the chunks before it.
    done: Vec<((PartitionId, u32), Micros)>,
}

impl Reading {
    pub(super) fn new(reader: Box<dyn Reader>, parser: Parser, progress: Arc<Progress>) -> Reading {
        let batch = Batch {
            parser,
            epoch: Epoch(0),
            read: 0,
            read_before: 0,
            dead: BTreeMap::new(),
            records: Vec::new(),
            full: Vec::new(),
            dead_letters: Vec::new(),
            chunk: (PartitionId(0), 0),
            time_max: Micros::MIN,
            failed: None,
            done: Vec::new(),
        };
        Reading { reader, progress, outcome: Outcome::default(), batch, chunks: Vec::new() }
    }

    pub(super) fn outcome(&self) -> Outcome {
        self.outcome.clone()
    }

    /// Reads this worker's share of an epoch; false at the end of the input, and after an error.
    fn read(&mut self, epoch: Epoch) -> bool {
        let batch = &mut self.batch;
        batch.epoch = epoch;
        self.chunks.clear();
        let result = self.reader.read(epoch, &mut |raw| batch.take(&raw), &mut self.chunks);
        let result = match batch.failed.take() {
            Some(error) => Err(error.into()),
            None => result,
        };
        batch.finish_chunk();
        batch.read_before += batch.read;
        self.progress.add(epoch, std::mem::take(&mut batch.read), &self.chunks);
        result.unwrap_or_else(|error| {
            self.outcome.0.borrow_mut().1 = Some(error);
            false
        })
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

    fn finish(&mut self) {
        let counts = &mut self.outcome.0.borrow_mut().0;
        counts.dead = std::mem::take(&mut self.batch.dead);
        counts.clamped = self.batch.parser.clamped();
        counts.read = self.batch.read_before;
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

    fn finish_chunk(&mut self) {
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
    builder.build(move |capabilities| {
        let mut held: Option<Vec<Capability<u64>>> = Some(capabilities);
        move |_frontiers| {
            let Some(capabilities) = &mut held else { return };
            let epoch = *capabilities[0].time();
            if epoch >= EPOCHS_IN_FLIGHT_MAX && probe.less_equal(&(epoch - EPOCHS_IN_FLIGHT_MAX)) {
                return activator.activate_after(WAIT);
            }
            let more = reading.read(Epoch(epoch));
            let mut records = records.activate();
            let mut session = records.session(&capabilities[0]);
            session.give_containers(reading.batch.full.iter_mut());
            session.give_container(&mut reading.batch.records);
            drop(session);
            reading.batch.full.clear();
            facts.activate().session(&capabilities[1]).give_iterator(reading.facts().into_iter());
            dead_letters.activate().session(&capabilities[2]).give_iterator(reading.batch.dead_letters.drain(..));
            if more {
                capabilities.iter_mut().for_each(|capability| capability.downgrade(&(epoch + 1)));
                activator.activate();
            } else {
                reading.finish();
                held = None;
            }
        }
    });
    Streams { records: record_stream, facts: fact_stream, dead_letters: dead_letter_stream }
}
