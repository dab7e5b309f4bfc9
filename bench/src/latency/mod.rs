//! `latency`: how long a decision takes and what checkpoints cost, from topic to topic through a real broker.
//!
//! ```text
//!            ┌─▶ events ─▶ whisperer run ─▶ decisions ─┐
//! generator ─┤           (a process)                   ├─▶ reader: now - scheduled time, by the event that a decision names
//!   probe ───┴─▶ echo ─────────────────────────────────┘
//! ```
//! * [`schedule`]: when events are to be sent, whatever became of those before
//! * [`pool`]: the events
//! * [`broker`], [`engine`]: what they go through
//! * [`load`], [`reader`]: who sends, and who reads
//! * [`row`], [`saturation`]: one measurement under a load, and one of a backlog
//! * [`figures`]: percentiles, tables, floors

pub mod broker;
pub mod engine;
pub mod figures;
pub mod load;
pub mod pool;
pub mod reader;
pub mod row;
pub mod saturation;
pub mod schedule;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use serde::Serialize;

use crate::{
    input::InputOptions,
    machine::{Machine, commit},
    results,
    throughput::repository,
};
use broker::Broker;
use engine::{Delivery, Job, Place, Setting};
use figures::{CheckpointCost, broken_floors, costs, costs_table, every, rows_table};
use pool::Pool;
use row::{Case, Row, Stretch, measure};
use saturation::{Backlog, Reading};

/// The events are the same for everybody.
const SEED: u64 = 42;

/// Lines that are sent again and again, each time as another event.
const POOL_LINES: u64 = 1 << 17;

/// Users of the pool, some of whom do not come up.
const POOL_USERS: u32 = 200_000;

/// Where decisions wait for checkpoints, one rate says it all.
const EXACTLY_ONCE_RATE: u64 = 100_000;

/// Arguments of `latency`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Jobs.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["engagement", "j"])]
    pub jobs: Vec<Job>,
    /// Events a second.
    #[arg(long, value_delimiter = ',', default_values_t = [50_000, 100_000, 200_000])]
    pub rates: Vec<u64>,
    /// Milliseconds from one checkpoint to the next; 0 is none at all.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 10_000, 1_000])]
    pub checkpoints: Vec<u64>,
    /// When decisions become readable; `exactly_once` is measured at 100,000 events/s, or the largest rate, alone.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["idempotent", "exactly_once"])]
    pub deliveries: Vec<Delivery>,
    /// Seconds that are measured of each row.
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
    /// Seconds of the same load before, which do not count.
    #[arg(long, default_value_t = 8)]
    pub warm_up: u64,
    /// Events of the backlog that is read as fast as possible; 0 leaves that out.
    #[arg(long, default_value_t = 3_000_000)]
    pub backlog: u64,
    /// How often the backlog is read in each setting.
    #[arg(long, default_value_t = 3)]
    pub runs: u32,
    /// Worker threads of the engine.
    #[arg(long, default_value_t = 1)]
    pub workers: u16,
    /// Let the system choose the cores of the workers.
    #[arg(long)]
    pub no_pin: bool,
    /// Librdkafka's mock cluster in place of a broker: shows that the benchmark works, and measures nothing.
    #[arg(long)]
    pub mock: bool,
    /// Where jobs and states come and go.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub work: PathBuf,
    /// Where the results go.
    #[arg(long, value_name = "DIR", default_value = "bench/results")]
    pub results: PathBuf,
    /// What the file of results is called.
    #[arg(long, default_value = "latency")]
    pub name: String,
    /// Print the tables as Markdown.
    #[arg(long)]
    pub markdown: bool,
    /// Fail where a floor is broken.
    #[arg(long)]
    pub check: bool,
}

/// A file of results.
#[derive(Debug, Serialize)]
struct Results<'a> {
    version: u32,
    name: &'a str,
    command: String,
    commit: String,
    machine: Machine,
    broker: &'a str,
    partitions: i32,
    users: usize,
    warm_up_seconds: u64,
    seconds: u64,
    rows: &'a [Row],
    readings: &'a [Reading],
    checkpoints: &'a [CheckpointCost],
}

/// Counted up when a file of results gets another form.
const RESULTS_VERSION: u32 = 1;

impl Options {
    /// The command as it is written down, without folders, which belong to a machine.
    fn command(&self) -> String {
        let list = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let Options { seconds, warm_up, backlog, runs, workers, name, .. } = self;
        let (rates, checkpoints) = (list(&self.rates), list(&self.checkpoints));
        let pin = if self.no_pin { " --no-pin" } else { "" };
        format!(
            "whisperer-bench latency --jobs {} --rates {rates} --checkpoints {checkpoints} --deliveries {} --seconds {seconds} \
             --warm-up {warm_up} --backlog {backlog} --runs {runs} --workers {workers}{pin} --name {name}",
            named(&self.jobs),
            named(&self.deliveries)
        )
    }

    fn intervals(&self) -> impl Iterator<Item = Option<u64>> {
        self.checkpoints.iter().map(|interval| Some(*interval).filter(|interval| *interval > 0))
    }

    /// All rows: rate by rate, so that rows which are compared are measured one after the other.
    fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        let largest = self.rates.iter().copied().max().unwrap_or_default();
        for job in &self.jobs {
            for rate in &self.rates {
                for delivery in &self.deliveries {
                    for checkpoint_ms in self.intervals() {
                        let setting = Setting { job: *job, checkpoint_ms, delivery: *delivery };
                        let waits = *delivery == Delivery::ExactlyOnce;
                        let once = checkpoint_ms.is_some() && *rate == EXACTLY_ONCE_RATE.min(largest);
                        cases.extend((!waits || once).then_some(Case { setting, rate: *rate }));
                    }
                }
            }
        }
        cases
    }
}

fn named<V: clap::ValueEnum>(values: &[V]) -> String {
    let names = values.iter().filter_map(|value| Some(value.to_possible_value()?.get_name().to_owned()));
    names.collect::<Vec<_>>().join(",")
}

/// Measures, prints the tables, writes the results; gives the floors that are broken, where they shall be checked.
///
/// # Errors
/// Where there is no broker, it or an engine fails, or a folder cannot be written.
pub fn run(options: &Options) -> anyhow::Result<Vec<String>> {
    if options.rates.contains(&0) || options.seconds == 0 {
        bail!("nothing to measure: rates and seconds are at least 1");
    }
    let commit = commit(&repository());
    let broker = Broker::find(options.mock, &repository())?;
    let pool = Pool::new(InputOptions { events: POOL_LINES, users: POOL_USERS, seed: SEED });
    let users = pool.users();
    let place = Place {
        folder: options.work.join(format!("latency-{}", std::process::id())),
        workers: options.workers,
        pin: !options.no_pin,
    };
    let (rows, pool) = measure_rows(options, &broker, pool, &place)?;
    let readings = measure_backlog(options, &broker, pool, &place)?;
    let checkpoints = costs(&readings);
    let results = Results {
        version: RESULTS_VERSION,
        name: &options.name,
        command: options.command(),
        commit,
        machine: Machine::this(),
        broker: broker.kind(),
        partitions: row::PARTITIONS,
        users,
        warm_up_seconds: options.warm_up,
        seconds: options.seconds,
        rows: &rows,
        readings: &readings,
        checkpoints: &checkpoints,
    };
    results::write(&options.results, &options.name, &results)?;
    print!("{}\n{}", rows_table(&rows, options.markdown), costs_table(&checkpoints, options.markdown));
    Ok(if options.check { broken_floors(&rows, &checkpoints) } else { Vec::new() })
}

fn measure_rows(options: &Options, broker: &Broker, mut pool: Pool, place: &Place) -> anyhow::Result<(Vec<Row>, Pool)> {
    let stretch =
        Stretch { warm_up: Duration::from_secs(options.warm_up), measured: Duration::from_secs(options.seconds) };
    let mut rows = Vec::new();
    for case in options.cases() {
        let (job, interval) = (case.setting.job.name(), every(case.setting.checkpoint_ms));
        let row;
        (row, pool) = measure(broker, case, stretch, pool, place)
            .with_context(|| format!("job {job} at {} events/s", case.rate))?;
        eprintln!(
            "{job} at {}/s, {:?}, checkpoints {interval}: p50 {:.1}, p99 {:.1}, p99.9 {:.1} ms; echo p99 {:.1}; load {:.1}{}",
            case.rate,
            case.setting.delivery,
            row.decision_ms.p50,
            row.decision_ms.p99,
            row.decision_ms.p999,
            row.echo_ms.p99,
            row.load_before.unwrap_or_default(),
            if row.fell_behind() { "; FELL BEHIND" } else { "" }
        );
        rows.push(row);
    }
    Ok((rows, pool))
}

fn measure_backlog(options: &Options, broker: &Broker, pool: Pool, place: &Place) -> anyhow::Result<Vec<Reading>> {
    let mut readings = Vec::new();
    if options.backlog == 0 || options.runs == 0 {
        return Ok(readings);
    }
    eprintln!("backlog: {} events", options.backlog);
    let (backlog, _) = Backlog::fill(broker, options.backlog, pool)?;
    let mut settings: Vec<_> =
        options.jobs.iter().flat_map(|job| options.intervals().map(|interval| (*job, interval))).collect();
    for round in 0..options.runs {
        for setting in &settings {
            let reading = backlog.read(broker, *setting, round, place)?;
            eprintln!(
                "round {}: {}, checkpoints {}: {:.0} thousand events/s, {:.2} us/event; load {:.1}",
                round + 1,
                setting.0.name(),
                every(setting.1),
                reading.events_per_second() / 1e3,
                reading.cpu_us_per_event(),
                reading.load_before.unwrap_or_default()
            );
            readings.push(reading);
        }
        // What disturbs the machine at one time of a round disturbs others the next time.
        settings.rotate_left(1);
    }
    backlog.remove(broker)?;
    Ok(readings)
}
