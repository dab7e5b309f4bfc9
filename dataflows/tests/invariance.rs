//! Batch invariance: results are a function of the log. How it is cut into epochs and chunks and how many workers read it and
//! apply it makes no difference to any row or digest.

mod support;

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use support::{Ran, difference, jobs, logs, native, property, run, run_source};
use whisperer_connectors::{
    EpochSize, Source,
    file::{FileOptions, FileSource},
    format::FormatOptions,
    generator::{GeneratorOptions, write_ndjson},
};
use whisperer_dataflows::{
    job_file::{self, JobFile, Overrides},
    runtime::{Outputs, Run, RunReport},
};
use whisperer_operators::job::CompiledJob;
use whisperer_schemas::{Row, TableSchema, row_hash, time::HOUR};

fn format() -> FormatOptions {
    FormatOptions { event_bytes_max: logs::EVENT_BYTES_MAX, ..native() }
}

fn same(one: &Ran, other: &Ran) -> Result<(), String> {
    difference("decisions", &one.decisions, &other.decisions)?;
    difference("profiles", &one.profiles_with_timers, &other.profiles_with_timers)?;
    difference("dead letters", &one.dead_letters, &other.dead_letters)?;
    same_report(&one.report, &other.report)
}

fn same_report(one: &RunReport, other: &RunReport) -> Result<(), String> {
    let facts = |report: &RunReport| {
        // Bytes of state depend on how many maps there are to hold it.
        let counts = whisperer_operators::keys::Counts { state_bytes: 0, ..report.counts.clone() };
        let (read, clamped, watermark) = (report.read, report.clamped, report.watermark);
        (report.digests.clone(), counts, read, report.dead.clone(), clamped, watermark, report.positions.clone())
    };
    let (one, other) = (facts(one), facts(other));
    if one == other { Ok(()) } else { Err(format!("reports differ:\n{one:?}\n{other:?}")) }
}

/// Whether the digests are those of the rows.
fn digests_hold(job: &CompiledJob, ran: &Ran) -> Result<(), String> {
    let tables = [job.decisions.clone(), job.profiles.clone(), Arc::new(TableSchema::dead_letters())];
    for (table, rows) in tables.iter().zip(&ran.rows) {
        let sum = |sum: u128, row: &Row| sum.wrapping_add(row_hash(table, &row.values));
        let expected = rows.iter().fold(0, sum);
        if ran.report.digests[table.name].0 != expected {
            return Err(format!("the digest of {} is not that of its rows", table.name));
        }
    }
    Ok(())
}

#[test]
fn random_cuts_and_workers() {
    // Goal: with 1 to 5 partitions whose watermarks drift apart, random cuts give the rows and digests of one epoch on one worker, at 1
    // to 4 workers.
    let strategy = (jobs::job(), logs::log(80), [logs::cuts(), logs::cuts(), logs::cuts(), logs::cuts()]);
    property::check(
        120,
        &strategy,
        |(job, log, cuts)| format!("{}{}{cuts:?}", job.show(), log.show()),
        |(job, log, cuts)| {
            let job = support::compile(&job.spec());
            let whole = run(&job, &log.partitions(&vec![vec![]; 5]), 1, &format());
            digests_hold(&job, &whole)?;
            for (workers, cuts) in (1..).zip(cuts) {
                let cut = run(&job, &log.partitions(cuts), workers, &format());
                same(&whole, &cut).map_err(|error| format!("{workers} workers: {error}"))?;
            }
            Ok(())
        },
    );
}

#[test]
fn one_record_an_epoch() {
    // Goal: the finest cut there is, on every number of workers.
    let strategy = (jobs::job(), logs::log(40));
    property::check(
        40,
        &strategy,
        |(job, log)| format!("{}{}", job.show(), log.show()),
        |(job, log)| {
            let job = support::compile(&job.spec());
            let whole = run(&job, &log.partitions(&vec![vec![]; 5]), 1, &format());
            for workers in 1..=4 {
                let fine = run(&job, &log.partitions(&vec![vec![vec![1]; 40]; 5]), workers, &format());
                same(&whole, &fine).map_err(|error| format!("{workers} workers: {error}"))?;
            }
            Ok(())
        },
    );
}

#[test]
fn partitions_matter_only_through_lateness() {
    // Goal: where disorder stays below `out_of_orderness` nothing is late, and then the number of partitions makes no difference either.
    let strategy = (jobs::job(), logs::steps(60), logs::cuts());
    let log = |steps: &Vec<logs::Step>, partitions| logs::Log {
        partitions,
        drift: 0,
        steps: steps.clone(),
        back_max: Some(HOUR),
        one_clock: true,
    };
    property::check(
        60,
        &strategy,
        |(job, steps, _)| format!("{}{}", job.show(), log(steps, 1).show()),
        |(job, steps, cuts)| {
            let mut spec = job.spec();
            spec.out_of_orderness = 100 * 365 * 24 * HOUR;
            let job = support::compile(&spec);
            let one = run(&job, &log(steps, 1).partitions(cuts), 1, &format());
            for partitions in 2..=5 {
                let many = run(&job, &log(steps, partitions).partitions(cuts), usize::from(partitions) - 1, &format());
                difference("decisions", &one.decisions, &many.decisions)?;
                difference("profiles", &one.profiles_with_timers, &many.profiles_with_timers)?;
            }
            Ok(())
        },
    );
}

// ---- The generated million --------------------------------------------------------------------------------------------

fn engagement() -> (JobFile, Arc<CompiledJob>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/jobs/engagement.toml");
    let loaded = job_file::load_with(&path, &Overrides::default(), CompiledJob::new);
    let (file, job) = loaded.unwrap_or_else(|errors| panic!("{}", errors.render()));
    (file, Arc::new(job))
}

/// Writes a generated log of one partition.
fn write(path: &Path, events: u64, users: u64) {
    let options = GeneratorOptions { events, users, partitions: 1, ..GeneratorOptions::default() };
    let mut file = BufWriter::new(File::create(path).expect("the file is made"));
    write_ndjson(&options, 0, &mut file, &mut |_| {}).expect("the log is written");
    file.flush().expect("the log is written");
}

/// Writes the same bytes as consecutive files, cut at line borders of very different lengths.
fn write_pieces(whole: &Path, folder: &Path) {
    fs::create_dir(folder).expect("the folder is made");
    let bytes = fs::read(whole).expect("the log is read");
    let mut begin = 0;
    for (number, share) in [0.001, 0.3, 0.301, 0.75, 1.0].into_iter().enumerate() {
        let near = ((bytes.len() as f64 * share) as usize).min(bytes.len());
        let end = bytes[..near].iter().rposition(|byte| *byte == b'\n').map_or(near, |at| at + 1);
        // Natural order: 9 comes before 10.
        fs::write(folder.join(format!("part-{}.ndjson", number + 8)), &bytes[begin..end]).expect("a piece is written");
        begin = end;
    }
    assert_eq!(begin, bytes.len());
}

fn files(path: &Path, epoch_size: EpochSize) -> Arc<dyn Source> {
    let path = path.to_str().expect("the path is text").to_owned();
    let options = FileOptions { path, root: PathBuf::new(), partitioned: false, epoch_size, event_bytes_max: 1 << 20 };
    Arc::new(FileSource::new(options).expect("the files are there"))
}

/// Runs without keeping rows: the digests say all.
fn report(file: &JobFile, job: &Arc<CompiledJob>, source: Arc<dyn Source>, workers: usize) -> RunReport {
    let run = Run { workers, ..Run::new(job.clone(), source, file.format.clone(), Outputs::default()) };
    run.execute().unwrap_or_else(|error| panic!("the run failed: {error}")).0
}

#[test]
fn the_generated_million() {
    // Goal: the engagement job over a million generated lines has the same digests at 1 and 2 workers, from one file and from consecutive
    // ones, in epochs of 1,000 and of 100,000 records and of bytes.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (whole, pieces) = (folder.path().join("million.ndjson"), folder.path().join("pieces"));
    write(&whole, 1_000_000, 100_000);
    write_pieces(&whole, &pieces);
    let (file, job) = engagement();
    let first = report(&file, &job, files(&whole, EpochSize::Bytes(4 << 20)), 1);
    assert_eq!(first.read, 1_000_000);
    assert!(first.counts.decisions.iter().sum::<u64>() > 1_000, "{:?}", first.counts);
    assert!(first.counts.late > 100 && first.counts.duplicates > 1_000 && first.dead_total() > 100);
    let others = [
        (files(&whole, EpochSize::Bytes(300_000)), 2),
        (files(&pieces, EpochSize::Bytes(4 << 20)), 2),
        (files(&pieces, EpochSize::Records(1_000)), 2),
        (files(&whole, EpochSize::Records(100_000)), 1),
    ];
    for (number, (source, workers)) in others.into_iter().enumerate() {
        let other = report(&file, &job, source, workers);
        same_report(&first, &other).unwrap_or_else(|error| panic!("run {number}: {error}"));
    }
}

#[test]
fn single_records_as_epochs() {
    // Goal: the same in epochs of one record each and of a few bytes, on a shorter log: every row, not only digests.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let whole = folder.path().join("short.ndjson");
    write(&whole, 20_000, 500);
    let (file, job) = engagement();
    let first = run_source(&job, files(&whole, EpochSize::Bytes(1 << 30)), 1, &file.format);
    for (epoch_size, workers) in [(EpochSize::Records(1), 1), (EpochSize::Records(1), 2), (EpochSize::Bytes(1_000), 3)]
    {
        let other = run_source(&job, files(&whole, epoch_size), workers, &file.format);
        same(&first, &other).unwrap_or_else(|error| panic!("{epoch_size:?}: {error}"));
    }
}
