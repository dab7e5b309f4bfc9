//! `memory`: records held in memory per partition, cut into epochs and chunks by hand; the model of every other source.
//!
//! Chunk `i` of partition `p` is read by worker `(p + i) % workers`: so records of one partition and epoch reach the engine from
//! several workers, as they do from a shared file.

use std::{ops::Range, sync::Arc};

use whisperer_schemas::{Epoch, PartitionId, Position};

use crate::source::{Chunk, Payload, Positions, RawRecord, Reader, Size, Source, SourceError};

/// A partition: records and how they are cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryPartition {
    /// Offsets, in ascending order, and JSON texts.
    pub records: Vec<(u64, Vec<u8>)>,
    /// For every epoch, how many records each of its chunks has; an epoch has at least one chunk. What the cuts leave over is one more
    /// epoch of one chunk.
    pub cuts: Vec<Vec<usize>>,
}

/// Records in memory.
#[derive(Clone, Debug)]
pub struct MemorySource {
    partitions: Arc<[Cut]>,
}

#[derive(Debug)]
struct Cut {
    records: Vec<(u64, Vec<u8>)>,
    /// Ranges of records: of every epoch its chunks.
    epochs: Vec<Vec<Range<usize>>>,
}

impl MemorySource {
    /// A source of these partitions. Cuts past a partition's last record are empty.
    #[must_use]
    pub fn new(partitions: Vec<MemoryPartition>) -> MemorySource {
        MemorySource { partitions: partitions.into_iter().map(Cut::new).collect() }
    }
}

impl Cut {
    fn new(partition: MemoryPartition) -> Cut {
        let count = partition.records.len();
        let mut next: usize = 0;
        let mut range = |records: usize| {
            let start = next;
            next = count.min(next.saturating_add(records));
            start..next
        };
        let mut epochs: Vec<Vec<_>> =
            partition.cuts.iter().map(|cut| cut.iter().map(|n| range(*n)).collect()).collect();
        let rest = range(usize::MAX);
        if epochs.is_empty() || !rest.is_empty() {
            epochs.push(vec![rest]);
        }
        let mut end = 0;
        for chunks in &mut epochs {
            if chunks.is_empty() {
                chunks.push(end..end);
            }
            end = chunks.last().map_or(end, |last| last.end);
        }
        Cut { records: partition.records, epochs }
    }

    /// Where the record after the first `records` stands.
    fn offset(&self, records: usize) -> u64 {
        match self.records.get(records) {
            Some((offset, _)) => *offset,
            None => self.records.last().map_or(0, |(offset, _)| offset + 1),
        }
    }
}

impl Source for MemorySource {
    fn partitions(&self) -> u32 {
        self.partitions.len() as u32
    }

    fn size(&self) -> Option<Size> {
        Some(Size::Records(self.partitions.iter().map(|partition| partition.records.len() as u64).sum()))
    }

    fn open(&self, worker: usize, workers: usize, positions: &Positions) -> Result<Box<dyn Reader>, SourceError> {
        let mut places = Vec::with_capacity(self.partitions.len());
        for (index, cut) in self.partitions.iter().enumerate() {
            let start = positions.get(&PartitionId(index as u32)).copied().unwrap_or(0);
            let record = cut.records.partition_point(|(offset, _)| *offset < start);
            // The epoch that holds the record, or the last one where none is left: a partition has to say that it ends.
            let holds = |chunks: &[Range<usize>]| chunks.last().is_some_and(|last| last.end > record);
            let last = cut.epochs.len() - 1;
            let epoch = cut.epochs.iter().position(|chunks| holds(chunks)).unwrap_or(last);
            places.push(Place { record, epoch });
        }
        if let Some((partition, offset)) = positions.range(PartitionId(self.partitions())..).next() {
            let detail = format!("there are {} partitions", self.partitions());
            return Err(SourceError::NoSuchOffset { partition: *partition, offset: *offset, detail });
        }
        Ok(Box::new(MemoryReader { partitions: Arc::clone(&self.partitions), places, worker, workers }))
    }
}

struct MemoryReader {
    partitions: Arc<[Cut]>,
    places: Vec<Place>,
    worker: usize,
    workers: usize,
}

struct Place {
    /// Records before this one were read before a restart.
    record: usize,
    /// The epoch to read next.
    epoch: usize,
}

impl Reader for MemoryReader {
    fn read(
        &mut self,
        _epoch: Epoch,
        each: &mut dyn FnMut(RawRecord<'_>),
        chunks: &mut Vec<Chunk>,
    ) -> Result<bool, SourceError> {
        let mut goes_on = false;
        for (index, (cut, place)) in self.partitions.iter().zip(&mut self.places).enumerate() {
            let Some(epoch) = cut.epochs.get(place.epoch) else { continue };
            place.epoch += 1;
            let ended = place.epoch == cut.epochs.len();
            goes_on |= !ended;
            let partition = PartitionId(index as u32);
            let is_mine = |number: usize| (index + number) % self.workers == self.worker;
            for (number, range) in epoch.iter().enumerate().filter(|(number, _)| is_mine(*number)) {
                let range = range.start.max(place.record)..range.end.max(place.record);
                let chunk = number as u32;
                for (offset, json) in &cut.records[range.clone()] {
                    let position = Position { partition, offset: *offset };
                    each(RawRecord { position, chunk, ingest_time: None, headers: &[], payload: Payload::Json(json) });
                }
                chunks.push(Chunk { partition, chunk, next_offset: cut.offset(range.end), ended, advance_to: None });
            }
        }
        Ok(goes_on)
    }
}
