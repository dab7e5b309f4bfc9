//! A live reader at work in a test, epoch by epoch, with clocks and ticks that the test holds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use whisperer_connectors::{
    Chunk, Positions, Reader, Source, SourceError,
    kafka::{KafkaOptions, KafkaSource, Surroundings},
    source::Payload,
    ticks::MemoryTickLog,
};
use whisperer_schemas::{Epoch, Micros, PartitionId, time::SECOND};

/// Longest that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// When the wall clock of a test begins.
pub const NOW: Micros = 1_700_000_000 * SECOND;

/// What a source has around it, with handles for the test.
#[derive(Clone)]
pub struct World {
    pub ticks: MemoryTickLog,
    pub surroundings: Surroundings,
    now: Arc<AtomicI64>,
}

impl Default for World {
    fn default() -> World {
        let (ticks, now) = (MemoryTickLog::default(), Arc::new(AtomicI64::new(NOW)));
        let clock = Arc::clone(&now);
        let surroundings = Surroundings {
            clock: Arc::new(move || clock.load(Ordering::Relaxed)),
            ticks: Arc::new(ticks.clone()),
            ..Surroundings::default()
        };
        World { ticks, surroundings, now }
    }
}

impl World {
    pub fn set_clock(&self, time: Micros) {
        self.now.store(time, Ordering::Relaxed);
    }

    /// Reads until something holds, while the wall clock goes on from `time` at a tenth of its speed, and stays within its second: so
    /// a short silence comes to pass, however busy the machine is.
    pub fn creep_until(&self, run: &mut Run, time: Micros, what: &str, holds: impl Fn(&Run) -> bool) {
        let start = Instant::now();
        run.until(what, |run| {
            let crept = start.elapsed().as_micros() as Micros / 10;
            self.set_clock(time + crept.min(SECOND - 1));
            holds(run)
        });
    }

    pub fn source(&self, options: KafkaOptions) -> Result<KafkaSource, SourceError> {
        KafkaSource::new(options, self.surroundings.clone())
    }

    /// One worker's reader of all partitions, from the positions on.
    pub fn open(&self, options: KafkaOptions, positions: &[(u32, u64)]) -> Run {
        let source = self.source(options).unwrap_or_else(|error| panic!("{error}"));
        let reader = source.open(0, 1, &self::positions(positions)).unwrap_or_else(|error| panic!("{error}"));
        Run { source, reader, epoch: 0, records: Vec::new(), chunks: Vec::new() }
    }
}

pub fn positions(positions: &[(u32, u64)]) -> Positions {
    positions.iter().map(|(partition, offset)| (PartitionId(*partition), *offset)).collect()
}

/// A record as a test compares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub partition: u32,
    pub offset: u64,
    pub text: String,
    pub ingest_time: Option<Micros>,
    pub headers: Vec<(String, Vec<u8>)>,
}

/// A reader, and everything that it has said.
pub struct Run {
    pub source: KafkaSource,
    pub reader: Box<dyn Reader>,
    pub epoch: u64,
    /// With the epoch and the chunk.
    pub records: Vec<(u64, u32, Read)>,
    pub chunks: Vec<(u64, Chunk)>,
}

impl Run {
    /// Reads one epoch; whether there may be more.
    pub fn step(&mut self) -> Result<bool, SourceError> {
        let (epoch, records) = (self.epoch, &mut self.records);
        let mut chunks = Vec::new();
        let more = self.reader.read(
            Epoch(epoch),
            &mut |raw| {
                let text = match raw.payload {
                    Payload::Json(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                    Payload::TooLarge { head, bytes } => format!("{}… {bytes}", String::from_utf8_lossy(head)),
                    Payload::Csv { .. } => panic!("a row in a topic"),
                };
                let headers = raw.headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
                let (partition, offset) = (raw.position.partition.0, raw.position.offset);
                let read = Read { partition, offset, text, ingest_time: raw.ingest_time, headers };
                records.push((epoch, raw.chunk, read));
            },
            &mut chunks,
        )?;
        self.chunks.extend(chunks.into_iter().map(|chunk| (epoch, chunk)));
        self.epoch += 1;
        Ok(more)
    }

    /// Reads epochs of a few milliseconds until something holds.
    pub fn until(&mut self, what: &str, holds: impl Fn(&Run) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < PATIENCE, "{what}: not in time; records {:?}", self.records.len());
            thread::sleep(Duration::from_millis(3));
            self.step().unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }

    /// Reads until there is an error.
    pub fn until_error(&mut self) -> SourceError {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < PATIENCE, "no error in time");
            thread::sleep(Duration::from_millis(3));
            if let Err(error) = self.step() {
                return error;
            }
        }
    }

    /// Reads for some time, whatever comes.
    pub fn during(&mut self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            thread::sleep(Duration::from_millis(3));
            self.step().unwrap_or_else(|error| panic!("{error}"));
        }
    }

    pub fn until_records(&mut self, count: usize) {
        self.until(&format!("{count} records"), |run| run.records.len() >= count);
    }

    /// The texts of a partition, in the order in which they came.
    pub fn texts(&self, partition: u32) -> Vec<&str> {
        let of = self.records.iter().filter(|(.., read)| read.partition == partition);
        of.map(|(.., read)| read.text.as_str()).collect()
    }

    /// Where a partition stands.
    pub fn position(&self, partition: u32) -> Option<u64> {
        let of = self.chunks.iter().rev().find(|(_, chunk)| chunk.partition == PartitionId(partition));
        of.map(|(_, chunk)| chunk.next_offset)
    }

    /// The advances of a partition: after which record's offset, and to when.
    pub fn advances(&self, partition: u32) -> Vec<(u64, Micros)> {
        let of = self.chunks.iter().filter(|(_, chunk)| chunk.partition == PartitionId(partition));
        of.filter_map(|(_, chunk)| Some((chunk.next_offset, chunk.advance_to?))).collect()
    }

    /// What a partition's log came to: its texts, and its advances as `>seconds`, in the order in which they take effect.
    pub fn log(&self, partition: u32) -> Vec<String> {
        let mut log = Vec::new();
        for (epoch, chunk) in self.chunks.iter().filter(|(_, chunk)| chunk.partition == PartitionId(partition)) {
            let is_in = |(of_epoch, of_chunk, read): &&(u64, u32, Read)| {
                of_epoch == epoch && *of_chunk == chunk.chunk && read.partition == partition
            };
            log.extend(self.records.iter().filter(is_in).map(|(.., read)| read.text.clone()));
            log.extend(chunk.advance_to.map(|time| format!(">{}", (time - NOW) / SECOND)));
        }
        log
    }
}
