//! The closing table of a run.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets::NOTHING};
use serde_json::{Value, json};
use whisperer_operators::job::CompiledJob;

use crate::runtime::{RunReport, resident_bytes};

/// The summary for people.
pub(super) fn table(job: &CompiledJob, report: &RunReport) -> String {
    let mut text = String::new();
    let mut section = |title: &str, rows: Vec<(String, String)>| {
        if rows.is_empty() {
            return;
        }
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.add_rows(rows.into_iter().map(|(name, value)| [format!("  {name}"), value]));
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{title}\n{table}");
    };
    section(&format!("events of job \"{}\"", job.name), events(report));
    section("users by lifecycle stage", stages(job, report));
    section("decisions by trigger (suppressed by cooldown)", decisions(job, report));
    section("cost", cost(report));
    let digests = report.digests.iter().map(|(name, digest)| ((*name).to_owned(), digest.to_string()));
    section("digests", digests.collect());
    text
}

fn row(name: &str, count: u64) -> (String, String) {
    (name.to_owned(), grouped(count))
}

fn events(report: &RunReport) -> Vec<(String, String)> {
    let mut rows = vec![
        row("read", report.read),
        row("accepted", report.accepted()),
        row("  of these late", report.counts.late),
        row("duplicate", report.counts.duplicates),
        row("dead", report.dead_total()),
    ];
    rows.extend(report.dead.iter().map(|(reason, count)| row(&format!("  {reason}"), *count)));
    if report.clamped > 0 {
        rows.push(row("clamped to ingest time", report.clamped));
    }
    if report.counts.erased > 0 {
        rows.push(row("of erased users", report.counts.erased));
    }
    if report.past_history > 0 {
        rows.push(row("of history, left to the topic", report.past_history));
    }
    if report.counts.expired > 0 {
        rows.push(row("states expired", report.counts.expired));
    }
    rows.push(row("timers fired", report.counts.timers));
    rows
}

fn stages(job: &CompiledJob, report: &RunReport) -> Vec<(String, String)> {
    let mut rows = vec![row("all users", report.counts.keys)];
    if !job.stages.is_empty() {
        let stages = job.stage_names.iter().zip(&report.stages);
        rows.extend(stages.map(|(stage, count)| row(stage, *count)));
    }
    rows
}

fn decisions(job: &CompiledJob, report: &RunReport) -> Vec<(String, String)> {
    let counts = report.counts.decisions.iter().zip(&report.counts.suppressed);
    let of_trigger = |(name, (fired, suppressed)): (&String, (&u64, &u64))| {
        (name.clone(), format!("{} ({})", grouped(*fired), grouped(*suppressed)))
    };
    job.triggers.iter().map(|trigger| &trigger.name).zip(counts).map(of_trigger).collect()
}

fn cost(report: &RunReport) -> Vec<(String, String)> {
    let seconds = report.elapsed.as_secs_f64();
    let mut rows = vec![
        ("workers".to_owned(), report.workers.to_string()),
        ("seconds".to_owned(), format!("{seconds:.2}")),
        ("events/s".to_owned(), grouped((report.read as f64 / seconds) as u64)),
    ];
    if let Some(cpu) = report.cpu_ns_per_event() {
        rows.push(("CPU ns/event".to_owned(), grouped(cpu as u64)));
    }
    if let Some(bytes) = report.bytes_per_user() {
        rows.push(("bytes of state/user".to_owned(), grouped(bytes as u64)));
    }
    rows
}

/// A number with its thousands apart.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The summary for programs.
pub(super) fn json(job: &CompiledJob, report: &RunReport) -> Value {
    let manifest = report.manifest(job, "");
    json!({
        "job": job.name,
        "counts": manifest.counts,
        "digests": manifest.digests,
        "workers": report.workers,
        "seconds": report.elapsed.as_secs_f64(),
        "cpu_ns_per_event": report.cpu_ns_per_event(),
        "bytes_per_user": report.bytes_per_user(),
        "resident_bytes": resident_bytes(),
    })
}
