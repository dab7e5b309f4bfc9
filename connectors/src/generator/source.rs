//! The generator as a source: a partition is read by the worker whose number it has, modulo the workers.

use whisperer_schemas::{Epoch, Micros, PartitionId, Position};

use super::{GeneratorOptions, line::write_line, simulation::Simulation, texts::APPS};
use crate::source::{Chunk, EpochSize, Payload, Positions, RawRecord, Reader, Size, Source, SourceError};

/// A bounded source of synthetic events. Offsets are numbers of lines in the partition.
///
/// ```
/// use whisperer_connectors::{Positions, Source, generator::{GeneratorOptions, GeneratorSource}};
/// use whisperer_schemas::Epoch;
/// let options = GeneratorOptions { users: 10, events: 100, partitions: 1, ..GeneratorOptions::default() };
/// let source = GeneratorSource::new(options)?;
/// let mut reader = source.open(0, 1, &Positions::new())?;
/// let (mut lines, mut chunks) = (0, Vec::new());
/// while reader.read(Epoch(0), &mut |_| lines += 1, &mut chunks)? {}
/// assert_eq!(lines, 100);
/// # Ok::<(), whisperer_connectors::SourceError>(())
/// ```
#[derive(Clone, Debug)]
pub struct GeneratorSource {
    options: GeneratorOptions,
}

/// What is known of a synthetic user beyond the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserTruth {
    /// The app that the user is a user of.
    pub app_id: String,
    /// The user.
    pub user_id: String,
    /// From when on the user would have been silent for good; none where that lies beyond the end of the log.
    pub churned_at: Option<Micros>,
}

impl GeneratorSource {
    /// A source of these options.
    ///
    /// # Errors
    /// Where an option is out of its range.
    pub fn new(options: GeneratorOptions) -> Result<GeneratorSource, SourceError> {
        options.check()?;
        Ok(GeneratorSource { options })
    }

    /// The users of a partition who appear in the simulation, by number, and when they left: simulates its whole log.
    pub fn truth(&self, partition: u32) -> impl Iterator<Item = UserTruth> + use<> {
        let mut simulation = Simulation::new(&self.options, partition);
        let mut end = Micros::MIN;
        while let Some(event) = simulation.next() {
            end = end.max(event.time);
        }
        let count = simulation.users().len() as u32;
        (0..count).filter_map(move |user| {
            let state = &simulation.users()[user as usize];
            let traits = simulation.people().traits(user);
            let digits = std::str::from_utf8(&traits.id).expect("the digits of ids are ASCII");
            (state.visits > 0 || state.seen != Micros::MIN).then(|| UserTruth {
                app_id: APPS[usize::from(traits.app)].to_owned(),
                user_id: format!("usr_{digits}"),
                churned_at: Some(state.churned_at).filter(|&time| time <= end),
            })
        })
    }
}

impl Source for GeneratorSource {
    fn partitions(&self) -> u32 {
        self.options.partitions
    }

    fn size(&self) -> Option<Size> {
        Some(Size::Records(self.options.events))
    }

    fn open(&self, worker: usize, workers: usize, positions: &Positions) -> Result<Box<dyn Reader>, SourceError> {
        let mine = (0..self.options.partitions).filter(|&partition| partition as usize % workers == worker);
        let logs = mine.map(|partition| {
            let offset = positions.get(&PartitionId(partition)).copied().unwrap_or(0);
            Log::open(&self.options, partition, offset)
        });
        let logs = logs.collect::<Result<_, _>>()?;
        Ok(Box::new(GeneratorReader { logs, epoch_size: self.options.epoch_size }))
    }
}

/// The partitions of one worker that have not ended.
struct GeneratorReader {
    logs: Vec<Log>,
    epoch_size: EpochSize,
}

impl Reader for GeneratorReader {
    fn read(
        &mut self,
        _: Epoch,
        each: &mut dyn FnMut(RawRecord<'_>),
        chunks: &mut Vec<Chunk>,
    ) -> Result<bool, SourceError> {
        for log in &mut self.logs {
            chunks.push(log.read(self.epoch_size, each));
        }
        self.logs.retain(|log| !log.simulation.ended());
        Ok(!self.logs.is_empty())
    }
}

/// One partition, and the line that is being handed out.
struct Log {
    partition: PartitionId,
    simulation: Simulation,
    line: Vec<u8>,
}

impl Log {
    fn open(options: &GeneratorOptions, partition: u32, offset: u64) -> Result<Log, SourceError> {
        let mut simulation = Simulation::new(options, partition);
        while simulation.offset() < offset {
            if simulation.next().is_none() {
                let detail = format!("the generator writes {} lines into it", simulation.offset());
                return Err(SourceError::NoSuchOffset { partition: PartitionId(partition), offset, detail });
            }
        }
        Ok(Log { partition: PartitionId(partition), simulation, line: Vec::with_capacity(4_096) })
    }

    /// Hands out the partition's part of an epoch.
    fn read(&mut self, size: EpochSize, each: &mut dyn FnMut(RawRecord<'_>)) -> Chunk {
        let (mut records, mut bytes) = (0, 0);
        let full = |records: u64, bytes: u64| match size {
            EpochSize::Bytes(most) => bytes >= most,
            EpochSize::Records(most) => records >= most,
        };
        while !full(records, bytes) {
            let offset = self.simulation.offset();
            let Some(event) = self.simulation.next() else { break };
            self.line.clear();
            write_line(&mut self.line, &event, &self.simulation.people().traits(event.user));
            records += 1;
            bytes += self.line.len() as u64 + 1;
            each(RawRecord {
                position: Position { partition: self.partition, offset },
                chunk: 0,
                // A line says itself when it was received, so that it means the same when it is read from a file.
                ingest_time: None,
                headers: &[],
                payload: Payload::Json(&self.line),
            });
        }
        let next_offset = self.simulation.offset();
        Chunk { partition: self.partition, chunk: 0, next_offset, ended: self.simulation.ended(), advance_to: None }
    }
}
