//! What the engine's tests share: events as lines, runs in memory, and rows by column name.

#![allow(dead_code, reason = "every test binary uses its part of this")]

pub mod jobs;
pub mod logs;
pub mod property;
pub mod viewed;
pub mod views;

use std::{fmt::Write as _, sync::Arc};

use whisperer_connectors::{
    Source,
    format::{EventTypes, Format, FormatOptions, Ids},
    memory::{MemoryPartition, MemorySource},
};
use whisperer_dataflows::runtime::{Outputs, Run, RunReport};
use whisperer_operators::{
    job::CompiledJob,
    reference::{self, NamedRow, RawLine},
    spec::JobSpec,
};
use whisperer_schemas::{
    Row, TableSchema, Value,
    time::{HOUR, MINUTE, Micros, SECOND, format_micros},
};
use whisperer_sinks::MemoryTable;

/// 2026-01-01T00:00:00Z: the zero of the tests' clocks, a midnight and a multiple of every pane.
pub const ZERO: Micros = 1_767_225_600 * SECOND;

/// Seconds after [`ZERO`].
pub fn s(seconds: i64) -> Micros {
    ZERO + seconds * SECOND
}

/// Minutes after [`ZERO`].
pub fn m(minutes: i64) -> Micros {
    ZERO + minutes * MINUTE
}

/// Hours after [`ZERO`].
pub fn h(hours: i64) -> Micros {
    ZERO + hours * HOUR
}

/// Days after [`ZERO`].
pub fn d(days: i64) -> Micros {
    h(24 * days)
}

/// An event to be written as a line of the native format.
#[derive(Clone, Debug)]
pub struct Event {
    pub id: String,
    pub app: String,
    pub user: String,
    pub kind: String,
    pub time: Micros,
    /// Members of `properties`, as JSON.
    pub properties: String,
    /// Further members of the record, as JSON that begins with a comma.
    pub more: String,
    pub received: Option<Micros>,
}

/// A log-in of a user.
pub fn event(id: u32, user: u32, time: Micros) -> Event {
    Event {
        id: event_id(id),
        app: app_id(0),
        user: user_id(user),
        kind: "user_login".into(),
        time,
        properties: String::new(),
        more: String::new(),
        received: None,
    }
}

pub fn event_id(id: u32) -> String {
    format!("evt_{id:016}")
}

pub fn app_id(app: u32) -> String {
    format!("app_{app:016}")
}

pub fn user_id(user: u32) -> String {
    format!("usr_{user:016}")
}

impl Event {
    pub fn kind(mut self, kind: &str) -> Event {
        self.kind = kind.into();
        self
    }

    pub fn with(mut self, properties: &str) -> Event {
        self.properties = properties.into();
        self
    }

    pub fn received(mut self, time: Micros) -> Event {
        self.received = Some(time);
        self
    }

    pub fn line(&self) -> Vec<u8> {
        let Event { id, app, user, kind, time, properties, more, received } = self;
        let time = format_micros(*time);
        let mut line = format!(
            r#"{{"event_id":"{id}","app_id":"{app}","user_id":"{user}","event_type":"{kind}","timestamp":"{time}""#
        );
        if !properties.is_empty() {
            write!(line, r#","properties":{{{properties}}}"#).expect("a string takes what is written");
        }
        if let Some(received) = received {
            write!(line, r#","metadata":{{"received_at":"{}"}}"#, format_micros(*received))
                .expect("a string takes what is written");
        }
        line.push_str(more);
        line.push('}');
        line.into()
    }
}

/// The native strict format.
pub fn native() -> FormatOptions {
    FormatOptions {
        ids: Ids::Strict,
        event_types: EventTypes::Contract(Vec::new()),
        event_bytes_max: 1 << 20,
        future_max: HOUR,
        clamp_after: 5 * SECOND,
        format: Format::Native,
        app_id: "job".into(),
    }
}

/// Lines of one partition, at offsets that are neither dense nor from 0.
pub fn partition(lines: Vec<Vec<u8>>, cuts: Vec<Vec<usize>>) -> MemoryPartition {
    MemoryPartition { records: (0..).map(|at| 7 + 10 * at).zip(lines).collect(), cuts }
}

/// What a run made.
pub struct Ran {
    /// Rows without the columns that begin with `_` and without the profiles' `timers`, in the order of their texts.
    pub decisions: Vec<NamedRow>,
    pub profiles: Vec<NamedRow>,
    /// The same with `timers`.
    pub profiles_with_timers: Vec<NamedRow>,
    pub dead_letters: Vec<NamedRow>,
    /// All rows as they came: decisions, profiles, dead letters.
    pub rows: [Vec<Row>; 3],
    pub report: RunReport,
}

pub fn compile(spec: &JobSpec) -> Arc<CompiledJob> {
    Arc::new(CompiledJob::new(spec).unwrap_or_else(|errors| panic!("the job is wrong: {errors:#?}")))
}

/// Runs a job over partitions in memory.
pub fn run(job: &Arc<CompiledJob>, partitions: &[MemoryPartition], workers: usize, format: &FormatOptions) -> Ran {
    run_source(job, Arc::new(MemorySource::new(partitions.to_vec())), workers, format)
}

pub fn run_source(job: &Arc<CompiledJob>, source: Arc<dyn Source>, workers: usize, format: &FormatOptions) -> Ran {
    let tables: [MemoryTable; 3] = Default::default();
    let run = Run { workers, ..Run::new(job.clone(), source, format.clone(), Outputs::in_memory(tables.clone())) };
    let (report, _) = run.execute().unwrap_or_else(|error| panic!("the run failed: {error}"));
    let rows = tables.map(|table| table.rows());
    let named = |table: &TableSchema, rows: &[Row], without: &str| named(table, rows, without);
    Ran {
        decisions: named(&job.decisions, &rows[0], ""),
        profiles: named(&job.profiles, &rows[1], "timers"),
        profiles_with_timers: named(&job.profiles, &rows[1], ""),
        dead_letters: named(&TableSchema::dead_letters(), &rows[2], ""),
        rows,
        report,
    }
}

/// Rows by column name, without some columns, sorted.
fn named(table: &TableSchema, rows: &[Row], without: &str) -> Vec<NamedRow> {
    let kept = |name: &str| !name.starts_with('_') && name != without;
    let one = |row: &Row| {
        assert_eq!(row.values.len(), table.columns.len(), "a row of {} fits its table", table.name);
        let cells = table.columns.iter().zip(&row.values).filter(|(column, _)| kept(&column.name));
        cells.map(|(column, value)| (column.name.clone(), value.clone())).collect()
    };
    sorted(rows.iter().map(one).collect())
}

/// Rows in the order of their texts. Debug texts tell every different `f64` apart; but negative zero becomes zero, to which it is
/// equal in every comparison, set and digest.
pub fn sorted(mut rows: Vec<NamedRow>) -> Vec<NamedRow> {
    rows.iter_mut().flat_map(|row| row.values_mut()).for_each(without_negative_zero);
    rows.sort_by_cached_key(order_of);
    rows
}

fn without_negative_zero(value: &mut Value) {
    match value {
        Value::Number(number) => *number += 0.0,
        Value::List(items) => items.iter_mut().flatten().for_each(without_negative_zero),
        _ => {}
    }
}

fn order_of(row: &NamedRow) -> String {
    let first = ["as_of", "event_time", "user_id", "app_id", "trigger", "final"].map(|name| row.get(name));
    format!("{first:?} {row:?}")
}

/// What differs between two lists of rows, or nothing. Compared by their texts, so bit for bit.
pub fn difference(what: &str, ours: &[NamedRow], theirs: &[NamedRow]) -> Result<(), String> {
    let mut text = String::new();
    let (mut left, mut right) = (ours.iter().peekable(), theirs.iter().peekable());
    let mut found = 0;
    while left.peek().is_some() || right.peek().is_some() {
        let (a, b) = (left.peek().map(|row| order_of(row)), right.peek().map(|row| order_of(row)));
        if a == b {
            left.next();
            right.next();
            continue;
        }
        found += 1;
        if found > 4 {
            break;
        }
        let identity = |row: &NamedRow| {
            let names = ["as_of", "event_time", "app_id", "user_id", "trigger", "final", "reason", "offset"];
            names.iter().filter_map(|name| Some(format!("{name}={:?}", row.get(*name)?))).collect::<Vec<_>>().join(" ")
        };
        match (left.peek(), right.peek()) {
            (Some(ours), Some(theirs)) if identity(ours) == identity(theirs) => {
                let _ = writeln!(text, "differs: {}", identity(ours));
                for name in ours.keys().chain(theirs.keys().filter(|name| !ours.contains_key(*name))) {
                    let (x, y) = (format!("{:?}", ours.get(name)), format!("{:?}", theirs.get(name)));
                    if x != y {
                        let _ = writeln!(text, "  {name}: {x} against {y}");
                    }
                }
                left.next();
                right.next();
            }
            (Some(ours), theirs) if theirs.is_none() || a < b => {
                let _ = writeln!(text, "only in the first: {} {ours:?}", identity(ours));
                left.next();
            }
            (_, Some(theirs)) => {
                let _ = writeln!(text, "only in the second: {} {theirs:?}", identity(theirs));
                right.next();
            }
            _ => break,
        }
    }
    if found == 0 { Ok(()) } else { Err(format!("{what} differ ({} and {} rows):\n{text}", ours.len(), theirs.len())) }
}

/// The oracle's view of the same partitions.
pub fn reference(spec: &JobSpec, partitions: &[MemoryPartition], format: &FormatOptions) -> reference::Outcome {
    let options = reference::Options {
        ids_any: format.ids == Ids::Any,
        event_types_any: format.event_types == EventTypes::Any,
        extra_event_types: Vec::new(),
        event_bytes_max: format.event_bytes_max,
        future_max: format.future_max,
        clamp_after: format.clamp_after,
    };
    let lines = |partition: &MemoryPartition| {
        let line = |(offset, bytes): &(u64, Vec<u8>)| RawLine { offset: *offset, bytes: bytes.clone() };
        partition.records.iter().map(line).collect::<Vec<_>>()
    };
    let partitions: Vec<Vec<RawLine>> = partitions.iter().map(lines).collect();
    reference::run(spec, &options, &partitions).unwrap_or_else(|error| panic!("the oracle: {error}"))
}

/// The text of a column.
pub fn text<'a>(row: &'a NamedRow, column: &str) -> &'a str {
    row[column].as_text().unwrap_or_else(|| panic!("{column} is a text: {row:?}"))
}

/// The number of a column; none where it is null.
pub fn number(row: &NamedRow, column: &str) -> Option<f64> {
    match &row[column] {
        Value::Null => None,
        value => Some(value.as_number().unwrap_or_else(|| panic!("{column} is a number: {row:?}"))),
    }
}

/// The time of a column.
pub fn time(row: &NamedRow, column: &str) -> Micros {
    row[column].as_time().unwrap_or_else(|| panic!("{column} is a time: {row:?}"))
}
