//! `state`: states that do not fit into memory, and how long a job takes to come back with those that do.
//!
//! * Larger than memory: the engagement job over generated users, once with all states in memory and once under a budget; the digests of
//!   both must be equal.
//! * Recovery: the same job is stopped amid its input, and started again; measured is the time from the start of the process to the
//!   moment at which `/readyz` says that it is at work.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use toml::{Table as JobTable, Value};
use whisperer_dataflows::cli::grouped;

use crate::{
    child::{Cost, EngineReport, Live, Program, empty_folder, measure},
    jobs::{self, Views},
    machine::{Machine, commit, load},
    metrics::get,
    results,
    throughput::repository,
};

/// Where the job that is restarted tells about itself.
const LISTEN: &str = "127.0.0.1:19484";

/// How long a job may take to be at work.
const READY_PATIENCE: Duration = Duration::from_secs(300);

/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(5);

/// The floor: a million users in so many seconds.
const RECOVERY_SECONDS_MAX: f64 = 10.0;

/// Counted up when a file of results gets another form.
const RESULTS_VERSION: u32 = 1;

/// Arguments of `state`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Users of the runs under a budget; 0 leaves them out.
    #[arg(long, default_value_t = 10_000_000)]
    pub users: u64,
    /// Their events, which come in sessions of several: with two for each user, a third of the users come up.
    #[arg(long, default_value_t = 20_000_000)]
    pub events: u64,
    /// Exponent of the Zipf distribution of their activity; 0 makes all alike, so that hardly any state is still in memory when its user
    /// comes again: the worst case.
    #[arg(long, default_value_t = 0.0)]
    pub zipf: f64,
    /// The budget.
    #[arg(long, default_value = "1GiB")]
    pub memory: String,
    /// Users of the job that is started again; 0 leaves it out.
    #[arg(long, default_value_t = 1_000_000)]
    pub recovery_users: u64,
    /// Worker threads.
    #[arg(long, default_value_t = 2)]
    pub workers: u16,
    /// Where outputs and states come and go.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub work: PathBuf,
    /// Where the results go.
    #[arg(long, value_name = "DIR", default_value = "bench/results")]
    pub results: PathBuf,
    /// What the file of results is called.
    #[arg(long, default_value = "state")]
    pub name: String,
    /// Fail where a floor is broken.
    #[arg(long)]
    pub check: bool,
}

/// A run to the end.
#[derive(Clone, Debug, Serialize)]
struct Whole {
    /// The budget; none where all states are in memory.
    memory: Option<String>,
    users: u64,
    events: u64,
    load_before: Option<f64>,
    #[serde(flatten)]
    cost: Cost,
    digests: BTreeMap<String, String>,
}

/// A start from a checkpoint.
#[derive(Clone, Debug, Serialize)]
struct Recovery {
    /// Users that the checkpoint holds.
    users: u64,
    /// Bytes of its state folder.
    state_bytes: u64,
    load_before: Option<f64>,
    /// From the start of the process until it is at work.
    seconds: f64,
}

#[derive(Serialize)]
struct Results<'a> {
    version: u32,
    name: &'a str,
    command: String,
    commit: String,
    machine: Machine,
    workers: u16,
    runs: &'a [Whole],
    recovery: &'a Option<Recovery>,
}

/// Measures, prints the table, writes the results; gives the floors that are broken, where they shall be checked.
///
/// # Errors
/// A run that fails, digests that differ, or a folder that cannot be written.
pub fn run(options: &Options) -> anyhow::Result<Vec<String>> {
    // Of the sources as they are at the start: what is measured.
    let commit = commit(&repository());
    let mut runs = Vec::new();
    if options.users > 0 {
        for memory in [None, Some(options.memory.clone())] {
            let whole = whole(options, memory)?;
            eprintln!("{}: {:.0} s", name(&whole), whole.cost.seconds);
            runs.push(whole);
        }
        if runs[0].digests != runs[1].digests {
            bail!("a budget changes the outputs: {:?} and {:?}", runs[0].digests, runs[1].digests);
        }
    }
    let recovery = if options.recovery_users > 0 { Some(recovery(options)?) } else { None };
    println!("{}", table(&runs, recovery.as_ref()));
    write(options, commit, &runs, &recovery)?;
    let slow = recovery.as_ref().filter(|recovery| options.check && recovery.seconds > RECOVERY_SECONDS_MAX);
    let told = |slow: &Recovery| format!("recovery takes {:.1} s, more than {RECOVERY_SECONDS_MAX}", slow.seconds);
    Ok(slow.map(told).into_iter().collect())
}

fn name(whole: &Whole) -> String {
    whole.memory.as_ref().map_or("all states in memory".to_owned(), |memory| format!("at most {memory} of them"))
}

/// The engagement job without its views, changed, in an empty folder.
fn job(folder: &Path, edit: impl FnOnce(&mut JobTable)) -> anyhow::Result<PathBuf> {
    empty_folder(folder)?;
    let mut job = jobs::read(jobs::ENGAGEMENT, Views::Dropped)?;
    edit(&mut job);
    jobs::write(&job, folder, "job.toml")
}

/// A job whose generator's users differ so much in their activity.
fn with_zipf(job: &mut JobTable, zipf: f64) {
    if let Some(Value::Table(source)) = job.get_mut("source") {
        source.insert("zipf".to_owned(), zipf.into());
    }
}

fn arguments(job: &Path, folder: &Path, (users, events): (u64, u64), workers: u16) -> Vec<OsString> {
    let flags = ["--users", &users.to_string(), "--events", &events.to_string(), "--workers", &workers.to_string()];
    let mut arguments: Vec<OsString> = vec!["run".into(), job.into(), "--json".into()];
    arguments.extend(flags.map(OsString::from));
    arguments.extend(["--output".into(), folder.join("output").into()]);
    arguments
}

fn whole(options: &Options, memory: Option<String>) -> anyhow::Result<Whole> {
    let folder = absolute(&options.work.join("state"))?;
    let path = job(&folder, |job| {
        with_zipf(job, options.zipf);
        if let Some(memory) = &memory {
            job.insert(
                "state".to_owned(),
                Value::Table(JobTable::from_iter([("memory_bytes_max".to_owned(), memory.as_str().into())])),
            );
        }
    })?;
    let load_before = load();
    let arguments = arguments(&path, &folder, (options.users, options.events), options.workers);
    let (report, cost) = measure::<EngineReport>(Program::Engine, &arguments)?;
    fs::remove_dir_all(&folder).context("cannot remove a run's output")?;
    Ok(Whole {
        memory,
        users: report.count("users"),
        events: report.count("read"),
        load_before,
        cost,
        digests: report.digests,
    })
}

/// Runs the job until it has seen most of its users, stops it, and starts it again.
fn recovery(options: &Options) -> anyhow::Result<Recovery> {
    let folder = absolute(&options.work.join("recovery"))?;
    let state = folder.join("state");
    // A uniform crowd: most of its users have come up when half of so many events are read.
    let path = job(&folder, |job| {
        with_zipf(job, 0.0);
        job.insert("server".to_owned(), Value::Table(JobTable::from_iter([("listen".to_owned(), LISTEN.into())])));
        job.insert("checkpoint".to_owned(), Value::Table(toml::toml! { interval_ms = 10000 }));
    })?;
    let events = options.recovery_users * 8;
    let mut arguments = arguments(&path, &folder, (options.recovery_users, events), options.workers);
    arguments.extend(["--state".into(), state.clone().into()]);
    let first = Live::start(&arguments)?;
    until(|| read_records().is_some_and(|read| read > events / 2))?;
    let (report, _) = first.stop::<EngineReport>()?;
    let load_before = load();
    let started = Instant::now();
    let second = Live::start(&arguments)?;
    until(|| get(LISTEN, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")))?;
    let seconds = started.elapsed().as_secs_f64();
    second.stop::<EngineReport>()?;
    let state_bytes = bytes_of(&state);
    fs::remove_dir_all(&folder).context("cannot remove a run's state")?;
    Ok(Recovery { users: report.count("users"), state_bytes, load_before, seconds })
}

/// A path that a child finds from wherever it starts.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).context("cannot find the folder of a run")
}

/// Waits for something that happens in time, or never.
fn until(done: impl Fn() -> bool) -> anyhow::Result<()> {
    let started = Instant::now();
    while !done() {
        if started.elapsed() > READY_PATIENCE {
            bail!("a job was not at work within {} s", READY_PATIENCE.as_secs());
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Records that it has applied.
fn read_records() -> Option<u64> {
    let answer = get(LISTEN, "/metrics")?;
    let line = answer.lines().find_map(|line| line.strip_prefix("whisperer_accepted_records_total "))?;
    line.trim().parse().ok()
}

fn bytes_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_of(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}

fn table(runs: &[Whole], recovery: Option<&Recovery>) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["run", "users", "events", "seconds", "events/s", "CPU us/event", "resident, MB"]);
    for whole in runs {
        let events = whole.events as f64;
        table.add_row([
            name(whole),
            grouped(whole.users),
            grouped(whole.events),
            format!("{:.1}", whole.cost.seconds),
            grouped((events / whole.cost.seconds) as u64),
            format!("{:.2}", whole.cost.cpu_seconds * 1e6 / events),
            grouped(whole.cost.resident_peak_bytes / 1_000_000),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let recovered = recovery.map_or(String::new(), |recovery| {
        let (users, megabytes) = (grouped(recovery.users), recovery.state_bytes / 1_000_000);
        format!("\nrecovery of {users} users ({megabytes} MB of state): {:.2} s\n", recovery.seconds)
    });
    format!("{table}\n{recovered}")
}

fn write(options: &Options, commit: String, runs: &[Whole], recovery: &Option<Recovery>) -> anyhow::Result<()> {
    let Options { users, events, zipf, memory, recovery_users, workers, name, .. } = options;
    let command = format!(
        "whisperer-bench state --users {users} --events {events} --zipf {zipf} --memory {memory} --recovery-users {recovery_users} \
         --workers {workers} --name {name}"
    );
    let machine = Machine::this();
    let results =
        Results { version: RESULTS_VERSION, name, command, commit, machine, workers: *workers, runs, recovery };
    results::write(&options.results, name, &results)
}
