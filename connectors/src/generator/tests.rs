//! What the generator promises: its logs are the same everywhere, hold what was asked for, and are dirty as stated.

mod contract;
mod log;
mod rejections;
mod resume;

use std::collections::BTreeMap;

use serde_json::Value;
use whisperer_schemas::Micros;

use super::{
    GeneratorOptions,
    line::write_line,
    simulation::{Event, Simulation},
};

/// A line with what the simulation knows of it.
struct Line {
    event: Event,
    text: Vec<u8>,
}

impl Line {
    /// The line parsed; only for one that is not spoilt.
    fn json(&self) -> Value {
        serde_json::from_slice(&self.text).unwrap()
    }
}

/// A whole partition.
fn lines(options: &GeneratorOptions, partition: u32) -> Vec<Line> {
    let mut simulation = Simulation::new(options, partition);
    let mut lines = Vec::new();
    while let Some(event) = simulation.next() {
        let mut text = Vec::new();
        write_line(&mut text, &event, &simulation.people().traits(event.user));
        lines.push(Line { event, text });
    }
    lines
}

/// A log of one partition that is small enough for every test.
fn small() -> GeneratorOptions {
    GeneratorOptions { users: 5_000, events: 100_000, partitions: 1, ..GeneratorOptions::default() }
}

/// A log without dirt.
fn clean() -> GeneratorOptions {
    GeneratorOptions { duplicates: 0.0, disorder: 0.0, late: 0.0, malformed: 0.0, ..small() }
}

/// A time of the contract, read by an independent parser.
fn instant(value: &Value) -> Micros {
    let timestamp: jiff::Timestamp = value.as_str().unwrap().parse().unwrap();
    timestamp.as_microsecond()
}

/// How often each of the items occurs.
fn tally<T: Ord>(items: impl Iterator<Item = T>) -> BTreeMap<T, u64> {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    counts
}
