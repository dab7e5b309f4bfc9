//! A partition's log as NDJSON, and what it holds: for the CLI verb `generate`, and for tests that count.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use super::{GeneratorOptions, line::write_line, simulation::Simulation};
use crate::format::Reason;

/// Text is handed to the writer in pieces of about this many bytes.
const PIECE_BYTES: usize = 1 << 16;

/// What a log holds. How many of its lines are late is a property of the log that the reader finds out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines, those of dirt included.
    pub lines: u64,
    /// Bytes, ends of lines included.
    pub bytes: u64,
    /// Lines that repeat an earlier one.
    pub duplicates: u64,
    /// Lines that are no valid event, by the reason for which they are rejected; reasons that do not occur are left out.
    pub malformed: BTreeMap<Reason, u64>,
}

impl Summary {
    /// Valid events that are no repetition.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.lines - self.duplicates - self.malformed.values().sum::<u64>()
    }

    /// Adds the counts of another partition.
    pub fn add(&mut self, other: &Summary) {
        self.lines += other.lines;
        self.bytes += other.bytes;
        self.duplicates += other.duplicates;
        for (&reason, count) in &other.malformed {
            *self.malformed.entry(reason).or_default() += count;
        }
    }
}

/// Writes the log of one partition, line by line; `progress` is called now and then with the lines written since its last call.
///
/// # Errors
/// Where an option is out of its range, the partition does not exist, or `out` fails.
pub fn write_ndjson(
    options: &GeneratorOptions,
    partition: u32,
    out: &mut impl Write,
    progress: &mut dyn FnMut(u64),
) -> io::Result<Summary> {
    let invalid = |detail: String| io::Error::new(io::ErrorKind::InvalidInput, detail);
    options.check().map_err(|error| invalid(error.to_string()))?;
    if partition >= options.partitions {
        return Err(invalid(format!("there is no partition {partition}: there are {}", options.partitions)));
    }
    let mut simulation = Simulation::new(options, partition);
    let mut summary = Summary::default();
    let mut text = Vec::with_capacity(PIECE_BYTES + 4_096);
    let mut told = 0;
    while let Some(event) = simulation.next() {
        write_line(&mut text, &event, &simulation.people().traits(event.user));
        text.push(b'\n');
        summary.lines += 1;
        summary.duplicates += u64::from(event.again);
        if let Some(reason) = event.fault {
            *summary.malformed.entry(reason).or_default() += 1;
        }
        if text.len() >= PIECE_BYTES || simulation.ended() {
            out.write_all(&text)?;
            summary.bytes += text.len() as u64;
            text.clear();
            progress(summary.lines - told);
            told = summary.lines;
        }
    }
    Ok(summary)
}
