//! `views`: what views cost: the engagement job without them, and with more and more of them.
//!
//! Round by round every number of views is run once, beginning with another one each time, so that what disturbs the machine for a while
//! disturbs all of them. How soon a view follows a user is measured by `latency --jobs engagement-views`: the time from an epoch's end to
//! the end of its work.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::{
    child::empty_folder,
    figures::{RunFigures, Spread},
    input::{InputOptions, cached},
    jobs::{self, Views},
    machine::{Machine, commit, load},
    results,
    throughput::{measure_engine, repository},
};

/// The input is the same for everybody.
const SEED: u64 = 42;

/// Share of the throughput that [`FLOOR_VIEWS`] views may take.
const FLOOR_COST: f64 = 0.4;
const FLOOR_VIEWS: usize = 10;

/// Arguments of `views`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Numbers of views; 0 is always among them. There are ten in the job, and as many more by application.
    #[arg(long, value_delimiter = ',', default_values_t = [5, 10, 20])]
    pub views: Vec<usize>,
    /// Lines of the input.
    #[arg(long, default_value_t = 2_000_000)]
    pub events: u64,
    /// Users of the input.
    #[arg(long, default_value_t = 200_000)]
    pub users: u32,
    /// Worker threads of the engine.
    #[arg(long, default_value_t = 1)]
    pub workers: u16,
    /// How often each case is run.
    #[arg(long, default_value_t = 3)]
    pub runs: u32,
    /// Where inputs are kept and outputs come and go.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub work: PathBuf,
    /// Where the results go.
    #[arg(long, value_name = "DIR", default_value = "bench/results")]
    pub results: PathBuf,
    /// What the file of results is called.
    #[arg(long, default_value = "views")]
    pub name: String,
    /// Print the table as Markdown.
    #[arg(long)]
    pub markdown: bool,
    /// Fail where a floor is broken.
    #[arg(long)]
    pub check: bool,
}

/// A run with so many views.
#[derive(Debug, Serialize)]
struct Run {
    views: usize,
    events_per_second: f64,
    cpu_ns_per_event: f64,
    load_before: Option<f64>,
    bytes_per_user: f64,
    users: u64,
    resident_peak_bytes: u64,
}

/// All runs with so many views.
#[derive(Clone, Debug, Serialize)]
struct Summary {
    views: usize,
    events_per_second: Spread,
    cpu_ns_per_event: Spread,
    bytes_per_user: f64,
    resident_peak_bytes: u64,
    /// Share of the throughput that they take: of the medians.
    throughput_lost: f64,
    /// Bytes that one of them takes of each user.
    bytes_per_user_and_view: f64,
}

/// A file of results.
#[derive(Debug, Serialize)]
struct Results<'a> {
    version: u32,
    name: &'a str,
    command: String,
    commit: String,
    machine: Machine,
    summary: &'a [Summary],
    runs: &'a [Run],
}

/// Counted up when a file of results gets another form.
const RESULTS_VERSION: u32 = 1;

impl Options {
    /// The command as it is written down, without folders, which belong to a machine.
    fn command(&self) -> String {
        let views = self.views.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let Options { events, users, workers, runs, name, .. } = self;
        format!(
            "whisperer-bench views --views {views} --events {events} --users {users} --workers {workers} --runs {runs} \
             --name {name}"
        )
    }
}

/// Measures, prints the table, writes the results; gives the floors that are broken, where they shall be checked.
///
/// # Errors
/// A run that fails, more views than there are, or a folder that cannot be written.
pub fn run(options: &Options) -> anyhow::Result<Vec<String>> {
    if options.runs == 0 || options.events == 0 {
        bail!("nothing to run: events and runs are at least 1");
    }
    let commit = commit(&repository());
    let input = InputOptions { events: options.events, users: options.users, seed: SEED };
    let input = cached(&options.work.join("input"), input).context("cannot write the input")?;
    let mut cases = vec![0];
    cases.extend(options.views.iter().filter(|views| **views > 0));
    let mut runs = Vec::new();
    for round in 0..options.runs {
        for views in &cases {
            let run = measure(options, *views, &input)?;
            eprintln!(
                "round {}: {views} views: {:.0} thousand events/s, {:.0} ns/event, {:.0} B/user; load {:.1}",
                round + 1,
                run.events_per_second / 1e3,
                run.cpu_ns_per_event,
                run.bytes_per_user,
                run.load_before.unwrap_or_default()
            );
            runs.push(run);
        }
        cases.rotate_left(1);
    }
    let summary = summarize(&runs);
    let results = Results {
        version: RESULTS_VERSION,
        name: &options.name,
        command: options.command(),
        commit,
        machine: Machine::this(),
        summary: &summary,
        runs: &runs,
    };
    results::write(&options.results, &options.name, &results)?;
    print!("{}", table(&summary, options.markdown));
    Ok(if options.check { broken_floors(&summary) } else { Vec::new() })
}

fn measure(options: &Options, views: usize, input: &Path) -> anyhow::Result<Run> {
    let job = jobs::read(jobs::ENGAGEMENT, Views::Some(views))?;
    let job = jobs::write(&job, &options.work.join("jobs"), &format!("views-{views}.toml"))?;
    let output = options.work.join("output").join(format!("views-{views}"));
    empty_folder(&output)?;
    let load_before = load();
    let figures: RunFigures = measure_engine(&job, options.workers, input, &output)?;
    empty_folder(&output)?;
    Ok(Run {
        views,
        events_per_second: figures.events_per_second(),
        cpu_ns_per_event: figures.cpu_ns_per_event(),
        load_before,
        bytes_per_user: figures.bytes_per_user,
        users: figures.users,
        resident_peak_bytes: figures.resident_peak_bytes,
    })
}

/// In the order of the number of views.
fn summarize(runs: &[Run]) -> Vec<Summary> {
    let mut numbers: Vec<usize> = runs.iter().map(|run| run.views).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut summary: Vec<Summary> = Vec::new();
    for views in numbers {
        let of = || runs.iter().filter(|run| run.views == views);
        let spread = |figure: fn(&Run) -> f64| Spread::of(of().map(figure).collect());
        let (events_per_second, bytes) = (spread(|run| run.events_per_second), spread(|run| run.bytes_per_user).median);
        let without = summary.first().map_or((events_per_second.median, bytes), |without| {
            (without.events_per_second.median, without.bytes_per_user)
        });
        summary.push(Summary {
            views,
            events_per_second,
            cpu_ns_per_event: spread(|run| run.cpu_ns_per_event),
            bytes_per_user: bytes,
            resident_peak_bytes: of().map(|run| run.resident_peak_bytes).max().unwrap_or_default(),
            throughput_lost: 1.0 - events_per_second.median / without.0,
            bytes_per_user_and_view: (bytes - without.1) / views.max(1) as f64,
        });
    }
    summary
}

fn broken_floors(summary: &[Summary]) -> Vec<String> {
    let over = |found: &&Summary| found.views == FLOOR_VIEWS && found.throughput_lost > FLOOR_COST;
    let told = |found: &Summary| {
        let (lost, most) = (found.throughput_lost * 100.0, FLOOR_COST * 100.0);
        format!("{FLOOR_VIEWS} views take {lost:.1} % of the throughput, and at most {most} % are theirs")
    };
    summary.iter().filter(over).map(told).collect()
}

fn table(summary: &[Summary], markdown: bool) -> String {
    let mut table = Table::new();
    table.load_style(if markdown { presets::ASCII_MARKDOWN } else { presets::NOTHING });
    table.set_header([
        "views",
        "thousand events/s",
        "throughput lost %",
        "CPU ns/event",
        "state B/user",
        "B/user and view",
        "peak MB",
    ]);
    for found in summary {
        table.add_row([
            found.views.to_string(),
            format!("{:.0}", found.events_per_second.median / 1e3),
            format!("{:.1}", found.throughput_lost * 100.0),
            format!("{:.0}", found.cpu_ns_per_event.median),
            format!("{:.0}", found.bytes_per_user),
            format!("{:.0}", found.bytes_per_user_and_view),
            format!("{:.0}", found.resident_peak_bytes as f64 / 1e6),
        ]);
    }
    table.column_iter_mut().for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(views: usize, rate: f64, bytes: f64) -> Run {
        Run {
            views,
            events_per_second: rate,
            cpu_ns_per_event: 1e9 / rate,
            load_before: None,
            bytes_per_user: bytes,
            users: 1,
            resident_peak_bytes: 1,
        }
    }

    #[test]
    fn costs_are_those_of_medians_beside_none() {
        // Goal: what views take is compared with the runs without, and a floor that is broken is told.
        let runs = [run(10, 500.0, 300.0), run(0, 990.0, 200.0), run(0, 1010.0, 200.0), run(10, 500.0, 300.0)];
        let summary = summarize(&runs);
        assert_eq!((summary[0].views, summary[0].throughput_lost), (0, 0.0));
        assert_eq!((summary[1].throughput_lost, summary[1].bytes_per_user_and_view), (0.5, 10.0));
        assert_eq!(broken_floors(&summary).len(), 1);
        assert!(broken_floors(&summarize(&[run(0, 1000.0, 1.0), run(10, 700.0, 1.0)])).is_empty());
    }
}
