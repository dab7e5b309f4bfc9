//! The log is the same bytes whoever reads it, in epochs of any size, from any position on.

use whisperer_schemas::{Epoch, PartitionId, ids::text_hash};

use super::{
    super::{GeneratorOptions, GeneratorSource, line::write_line, simulation::Simulation, write_ndjson},
    lines, small,
};
use crate::conformance::{Seen, check};
use crate::source::{Chunk, EpochSize, Payload, Positions, Size, Source, SourceError};

/// What one reader hands out: its lines by partition, and its chunks.
fn read(
    source: &GeneratorSource,
    worker: usize,
    workers: usize,
    positions: &Positions,
) -> (Vec<Vec<u8>>, Vec<Vec<Chunk>>) {
    let mut texts = vec![Vec::new(); source.partitions() as usize];
    let mut next: Vec<u64> = (0..source.partitions())
        .map(|partition| positions.get(&PartitionId(partition)).copied().unwrap_or(0))
        .collect();
    let mut epochs = Vec::new();
    let mut reader = source.open(worker, workers, positions).unwrap();
    loop {
        let mut chunks = Vec::new();
        let mut each = |raw: crate::RawRecord<'_>| {
            let partition = raw.position.partition.0 as usize;
            assert_eq!((raw.position.offset, raw.chunk), (next[partition], 0));
            next[partition] += 1;
            let Payload::Json(text) = raw.payload else { panic!("a line is JSON") };
            texts[partition].extend_from_slice(text);
            texts[partition].push(b'\n');
        };
        let more = reader.read(Epoch(epochs.len() as u64), &mut each, &mut chunks).unwrap();
        for chunk in &chunks {
            assert_eq!(chunk.next_offset, next[chunk.partition.0 as usize]);
        }
        epochs.push(chunks);
        if !more {
            return (texts, epochs);
        }
    }
}

fn text(options: &GeneratorOptions, partition: u32) -> Vec<u8> {
    let mut text = Vec::new();
    write_ndjson(options, partition, &mut text, &mut |_| ()).unwrap();
    text
}

#[test]
fn the_first_lines_are_those_committed() {
    // Goal: the same seed gives the same bytes on every machine and in every version: a change of this hash is a change of
    // every benchmark and demo that names a seed. Method: a hash of the first 10,000 lines of the default log's partition 0.
    let mut simulation = Simulation::new(&GeneratorOptions::default(), 0);
    let mut first = Vec::new();
    for _ in 0..10_000 {
        let event = simulation.next().unwrap();
        write_line(&mut first, &event, &simulation.people().traits(event.user));
        first.push(b'\n');
    }
    assert_eq!(text_hash(&String::from_utf8_lossy(&first)), 1_641_067_877_675_510_547);
}

#[test]
fn a_log_depends_on_seed_and_partition_alone() {
    // Goal: workers and epoch sizes change nothing of a partition's bytes; seed and partition do.
    let options = GeneratorOptions { partitions: 3, events: 20_000, ..small() };
    let expected: Vec<Vec<u8>> = (0..3).map(|partition| text(&options, partition)).collect();
    assert_ne!(expected[0], expected[1]);
    assert_ne!(expected[0], text(&GeneratorOptions { seed: 43, ..options.clone() }, 0));
    for (workers, epoch_size) in [
        (1, EpochSize::Bytes(100_000)),
        (2, EpochSize::Records(777)),
        (3, EpochSize::Bytes(1)),
        (5, EpochSize::Records(1 << 40)),
    ] {
        let source = GeneratorSource::new(GeneratorOptions { epoch_size, ..options.clone() }).unwrap();
        assert_eq!(source.size(), Some(Size::Records(20_000)));
        let mut together = vec![Vec::new(); 3];
        for worker in 0..workers {
            let (texts, _) = read(&source, worker, workers, &Positions::new());
            for (partition, text) in texts.into_iter().enumerate().filter(|(_, text)| !text.is_empty()) {
                assert_eq!(partition % workers, worker);
                together[partition] = text;
            }
        }
        assert!(together == expected, "{workers} workers, {epoch_size:?}");
    }
}

#[test]
fn epochs_are_as_large_as_asked_for_and_every_partition_ends_once() {
    // Goal: chunks hold exactly so many records, or so many bytes and no line more than needed; the last one says so, once.
    for (epoch_size, most) in [(EpochSize::Records(500), 500), (EpochSize::Bytes(200_000), 600)] {
        let options = GeneratorOptions { partitions: 2, events: 10_001, malformed: 0.0, epoch_size, ..small() };
        let source = GeneratorSource::new(options).unwrap();
        let (_, epochs) = read(&source, 0, 1, &Positions::new());
        for partition in 0..2 {
            let chunks: Vec<Chunk> =
                epochs.iter().flatten().copied().filter(|chunk| chunk.partition == PartitionId(partition)).collect();
            let (last, before) = chunks.split_last().unwrap();
            assert!(last.ended && before.iter().all(|chunk| !chunk.ended));
            assert_eq!(last.next_offset, 5_001 - u64::from(partition));
            let mut from = 0;
            for chunk in before {
                let records = chunk.next_offset - from;
                assert!(
                    records <= most && records > most / 2 && (epoch_size != EpochSize::Records(500) || records == 500)
                );
                from = chunk.next_offset;
            }
        }
    }
}

#[test]
fn every_end_of_a_chunk_can_be_resumed_from() {
    // Goal: a reader opened where a chunk ended hands out exactly the rest, also at the end of the log, and nothing beyond it.
    let options = GeneratorOptions {
        partitions: 1,
        events: 3_000,
        epoch_size: EpochSize::Bytes(20_000),
        malformed: 0.01,
        ..small()
    };
    let source = GeneratorSource::new(options.clone()).unwrap();
    let (texts, epochs) = read(&source, 0, 1, &Positions::new());
    let ends: Vec<usize> = (0..texts[0].len()).filter(|&at| texts[0][at] == b'\n').map(|at| at + 1).collect();
    for chunk in epochs.iter().flatten() {
        let positions = Positions::from([(PartitionId(0), chunk.next_offset)]);
        let (rest, _) = read(&source, 0, 1, &positions);
        assert!(rest[0] == texts[0][ends[chunk.next_offset as usize - 1]..], "from {}", chunk.next_offset);
    }
    let beyond = source.open(0, 1, &Positions::from([(PartitionId(0), 3_001)]));
    assert!(matches!(beyond.err(), Some(SourceError::NoSuchOffset { offset: 3_001, .. })));
}

#[test]
fn the_source_keeps_the_rules_of_every_source() {
    // Goal: the conformance suite passes: with epochs by bytes and by records, and partitions that hold no line.
    for (epoch_size, events) in
        [(EpochSize::Bytes(50_000), 3_000), (EpochSize::Records(100), 3_001), (EpochSize::Records(1), 2)]
    {
        let options = GeneratorOptions { partitions: 3, events, epoch_size, malformed: 0.01, ..small() };
        let expected = |partition| {
            let lines = lines(&options, partition).into_iter();
            lines.enumerate().map(|(offset, line)| (offset as u64, line.text)).collect()
        };
        let expected: Vec<Vec<Seen>> = (0..3).map(expected).collect();
        check(&GeneratorSource::new(options.clone()).unwrap(), &expected);
    }
}

#[test]
fn a_worker_without_partitions_has_nothing_to_read() {
    // Goal: more workers than partitions are no mistake; the spare ones say at once that they are done.
    let source = GeneratorSource::new(GeneratorOptions { partitions: 2, ..small() }).unwrap();
    let mut chunks = Vec::new();
    let mut reader = source.open(2, 3, &Positions::new()).unwrap();
    assert!(!reader.read(Epoch(0), &mut |_| panic!("no record"), &mut chunks).unwrap());
    assert!(chunks.is_empty());
}
