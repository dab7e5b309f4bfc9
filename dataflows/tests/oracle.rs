//! The oracle: on random jobs and random logs, and on the engagement job, the engine makes exactly the rows that the naive
//! `reference` makes, which recomputes everything from the list of events.
//!
//! Numbers are compared by their shortest texts that read back, that is bit for bit: the documents fix the order of every sum.

mod support;

use std::{path::Path, sync::Arc};

use proptest::prelude::*;
use support::{compile, difference, jobs, logs, native, property, reference, run, sorted};
use whisperer_connectors::{
    format::FormatOptions,
    generator::{GeneratorOptions, write_ndjson},
    memory::MemoryPartition,
};
use whisperer_dataflows::job_file::{self, Overrides};
use whisperer_operators::{
    job::CompiledJob,
    reference::{NamedRow, Outcome},
    spec::JobSpec,
};
use whisperer_schemas::{Value, time::DAY};

/// Whether engine and oracle agree on everything.
fn agree(spec: &JobSpec, partitions: &[MemoryPartition], workers: usize, format: &FormatOptions) -> Result<(), String> {
    let job = Arc::new(CompiledJob::new(spec).map_err(|errors| format!("the job is wrong: {errors:#?}"))?);
    let engine = run(&job, partitions, workers, format);
    let oracle = reference(spec, partitions, format);
    difference("decisions", &engine.decisions, &sorted(oracle.decisions.clone()))?;
    difference("profiles", &engine.profiles, &sorted(oracle.profiles.clone()))?;
    let dead: Vec<NamedRow> =
        engine.dead_letters.iter().map(|row| part(row, &["partition", "offset", "reason"])).collect();
    difference("dead letters", &sorted(dead), &sorted(oracle.dead_letters.iter().map(dead_row).collect()))?;
    counts_agree(&engine.report, &oracle, &job)
}

fn part(row: &NamedRow, columns: &[&str]) -> NamedRow {
    columns.iter().map(|name| ((*name).to_owned(), row[*name].clone())).collect()
}

fn dead_row((partition, offset, reason): &(u32, u64, &'static str)) -> NamedRow {
    let columns = [
        ("partition", Value::Int(i64::from(*partition))),
        ("offset", Value::Int(*offset as i64)),
        ("reason", Value::text(reason)),
    ];
    columns.map(|(name, value)| (name.to_owned(), value)).into()
}

fn counts_agree(
    report: &whisperer_dataflows::runtime::RunReport,
    oracle: &Outcome,
    job: &CompiledJob,
) -> Result<(), String> {
    let suppressed = |at: usize| oracle.counts.suppressed.get(&job.triggers[at].name).copied().unwrap_or(0);
    let ours = (
        report.read,
        report.accepted(),
        report.counts.duplicates,
        report.counts.late,
        &report.dead,
        report.clamped,
        report.counts.suppressed.clone(),
        report.counts.decisions.iter().sum::<u64>(),
    );
    let theirs = (
        oracle.counts.read,
        oracle.counts.accepted,
        oracle.counts.duplicate,
        oracle.counts.late,
        &oracle.counts.dead,
        oracle.counts.clamped,
        (0..job.triggers.len()).map(suppressed).collect::<Vec<_>>(),
        oracle.decisions.len() as u64,
    );
    if ours == theirs { Ok(()) } else { Err(format!("counts differ: {ours:?} against {theirs:?}")) }
}

#[test]
fn random_jobs_on_random_logs() {
    // Goal: every field of every row and every count agrees, for jobs over all aggregates and logs with all kinds of dirt.
    let format = FormatOptions { event_bytes_max: logs::EVENT_BYTES_MAX, ..native() };
    let strategy = (jobs::job(), logs::log(60), logs::cuts(), 1..=3_usize);
    let show = |(job, log, _, workers): &(jobs::Job, logs::Log, Vec<Vec<Vec<usize>>>, usize)| {
        format!("{workers} workers\n{}{}", job.show(), log.show())
    };
    property::check(400, &strategy, show, |(job, log, cuts, workers)| {
        agree(&job.spec(), &log.partitions(cuts), *workers, &format)
    });
}

#[test]
fn the_engagement_job_on_generated_events() {
    // Goal: the main job agrees with the oracle as it stands in its file, on small logs of the generator, in several partitions.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/jobs/engagement.toml");
    let (file, _) = job_file::load_with(&path, &Overrides::default(), CompiledJob::new)
        .unwrap_or_else(|errors| panic!("{}", errors.render()));
    for seed in [1, 2, 3] {
        let options = GeneratorOptions {
            seed,
            users: 24,
            events: 900,
            partitions: 3,
            span: 40 * DAY,
            late: 0.02,
            duplicates: 0.04,
            malformed: 0.02,
            ..GeneratorOptions::default()
        };
        let partitions: Vec<MemoryPartition> = (0..3).map(|partition| generated(&options, partition)).collect();
        agree(&file.spec, &partitions, 2, &file.format).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

/// A partition of the generator's log in epochs of three chunks.
fn generated(options: &GeneratorOptions, partition: u32) -> MemoryPartition {
    let mut text = Vec::new();
    write_ndjson(options, partition, &mut text, &mut |_| {}).expect("memory can be written");
    let lines: Vec<Vec<u8>> = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let cuts = vec![vec![5, 3, 9]; lines.len() / 17];
    support::partition(lines, cuts)
}

#[test]
fn the_whole_vocabulary_is_tried() {
    // Goal: the random jobs do reach what they are meant to reach: decisions, suppressed ones, snapshots, late events, duplicates.
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let strategy = (jobs::job(), logs::log(60), logs::cuts());
    let format = FormatOptions { event_bytes_max: logs::EVENT_BYTES_MAX, ..native() };
    let mut seen = [0_u64; 7];
    for _ in 0..60 {
        let (job, log, cuts) = strategy.new_tree(&mut runner).expect("the strategy rejects nothing").current();
        let ran = run(&compile(&job.spec()), &log.partitions(&cuts), 1, &format);
        let counts = &ran.report.counts;
        let some = [
            counts.decisions.iter().sum(),
            counts.suppressed.iter().sum(),
            counts.snapshots,
            counts.timers,
            counts.late,
            counts.duplicates,
            ran.report.clamped,
        ];
        seen.iter_mut().zip(some).for_each(|(sum, more)| *sum += more);
    }
    assert!(
        seen.iter().all(|count| *count > 0),
        "decisions, suppressed, snapshots, timers, late, duplicates, clamped: {seen:?}"
    );
}
