//! The rules that every source keeps, as checks for tests: `memory` first, then all others.
//!
//! 1. Every record comes exactly once, in the order of offsets inside its chunk, whatever the number of workers.
//! 2. The chunks of a partition in an epoch are numbered from 0 without gaps, are consecutive ranges of offsets, and agree on
//!    whether the partition has ended; a partition ends exactly once and is silent afterwards.
//! 3. A reader says that it goes on as long as it has something to say.
//! 4. From the end of any chunk, any number of workers reads exactly what comes after it.

use std::collections::BTreeMap;

use whisperer_schemas::{Epoch, PartitionId};

use crate::source::{Chunk, Payload, Positions, RawRecord, Reader, Source};

/// Epochs after which a source that is still going on is taken to go on for ever.
const EPOCHS_MAX: u64 = 1_000_000;

/// A record as the checks compare it: its offset and its bytes; of a record that is too large, its head.
pub type Seen = (u64, Vec<u8>);

/// Checks a bounded source against the records that its partitions hold.
///
/// # Panics
/// Where the source breaks a rule.
pub fn check(source: &dyn Source, expected: &[Vec<Seen>]) {
    assert_eq!(source.partitions() as usize, expected.len(), "number of partitions");
    for workers in 1..=4 {
        let epochs = read(source, workers, &Positions::new());
        assert_eq!(records(&epochs, expected.len()), expected, "records read by {workers} workers");
        check_resumption(source, workers, &epochs, expected);
    }
}

/// Rule 4, from up to this many chunk ends of a run.
const RESUMED_MAX: usize = 24;

fn check_resumption(source: &dyn Source, workers: usize, epochs: &[EpochLog], expected: &[Vec<Seen>]) {
    let ends: Vec<(PartitionId, u64)> = epochs
        .iter()
        .flat_map(|epoch| epoch.iter().flat_map(|(id, chunks)| chunks.iter().map(|chunk| (*id, chunk.end.next_offset))))
        .collect();
    for (partition, offset) in ends.iter().step_by(ends.len().div_ceil(RESUMED_MAX).max(1)) {
        let positions = Positions::from([(*partition, *offset)]);
        let rest = read(source, workers % 3 + 1, &positions);
        let mut left = expected.to_vec();
        left[partition.0 as usize].retain(|(at, _)| at >= offset);
        assert_eq!(records(&rest, expected.len()), left, "records after {offset} of partition {partition}");
    }
}

/// All chunks of an epoch, by partition, in order.
type EpochLog = BTreeMap<PartitionId, Vec<ChunkLog>>;

struct ChunkLog {
    end: Chunk,
    records: Vec<Seen>,
}

/// Reads a source to its end and checks rules 1 to 3 on the way.
fn read(source: &dyn Source, workers: usize, positions: &Positions) -> Vec<EpochLog> {
    let open = |worker| source.open(worker, workers, positions).expect("the source opens");
    let mut readers: Vec<(Box<dyn Reader>, bool)> = (0..workers).map(|worker| (open(worker), true)).collect();
    let mut epochs = Vec::new();
    let mut offsets = positions.clone();
    let mut ended = vec![false; source.partitions() as usize];
    while readers.iter().any(|(_, goes_on)| *goes_on) {
        let mut epoch = EpochLog::new();
        for (reader, goes_on) in readers.iter_mut().filter(|(_, goes_on)| *goes_on) {
            *goes_on = read_epoch(reader.as_mut(), Epoch(epochs.len() as u64), &mut epoch);
        }
        for (partition, chunks) in &mut epoch {
            assert!(!ended[partition.0 as usize], "partition {partition} speaks after its end");
            ended[partition.0 as usize] = check_chunks(chunks, offsets.entry(*partition).or_insert(0));
        }
        epochs.push(epoch);
        assert!((epochs.len() as u64) < EPOCHS_MAX, "the source does not end");
    }
    assert!(ended.iter().all(|ended| *ended), "a partition did not say that it ended");
    epochs
}

fn read_epoch(reader: &mut dyn Reader, epoch: Epoch, log: &mut EpochLog) -> bool {
    let (mut seen, mut chunks) = (BTreeMap::<(PartitionId, u32), Vec<Seen>>::new(), Vec::new());
    let mut each = |raw: RawRecord<'_>| {
        let records = seen.entry((raw.position.partition, raw.chunk)).or_default();
        records.push((raw.position.offset, content(&raw.payload)));
    };
    let goes_on = reader.read(epoch, &mut each, &mut chunks).expect("the source is readable");
    for end in chunks {
        let records = seen.remove(&(end.partition, end.chunk)).unwrap_or_default();
        log.entry(end.partition).or_default().push(ChunkLog { end, records });
    }
    assert!(seen.is_empty(), "records of chunks that were not reported: {:?}", seen.keys());
    goes_on
}

/// Rule 2 for one partition in one epoch; gives whether it ended.
fn check_chunks(chunks: &mut [ChunkLog], next_offset: &mut u64) -> bool {
    chunks.sort_by_key(|chunk| chunk.end.chunk);
    let ended = chunks[0].end.ended;
    for (number, chunk) in chunks.iter().enumerate() {
        assert_eq!(chunk.end.chunk as usize, number, "chunks are numbered from 0");
        assert_eq!(chunk.end.ended, ended, "chunks disagree on the end");
        assert!(chunk.end.next_offset >= *next_offset, "chunks go backwards");
        for (offset, _) in &chunk.records {
            assert!((*next_offset..chunk.end.next_offset).contains(offset), "a record outside of its chunk");
        }
        assert!(chunk.records.is_sorted_by(|left, right| left.0 < right.0), "offsets do not ascend");
        *next_offset = chunk.end.next_offset;
    }
    ended
}

fn records(epochs: &[EpochLog], partitions: usize) -> Vec<Vec<Seen>> {
    let mut records = vec![Vec::new(); partitions];
    for (partition, chunk) in epochs
        .iter()
        .flat_map(|epoch| epoch.iter().flat_map(|(id, chunks)| chunks.iter().map(move |chunk| (id, chunk))))
    {
        records[partition.0 as usize].extend_from_slice(&chunk.records);
    }
    records
}

fn content(payload: &Payload<'_>) -> Vec<u8> {
    match payload {
        Payload::Json(bytes) | Payload::Csv { raw: bytes, .. } | Payload::TooLarge { head: bytes, .. } => {
            bytes.to_vec()
        }
    }
}
