//! `peers`: job J in other engines, on the same file in the same run.
//!
//! Their programs are in `bench/peers`: each is what a user of that engine would write, and comes from its public package. Flink and Bytewax
//! make every decision that the engine makes, row by row; Pathway reads a file in no order and DuckDB computes by the hour, so
//! theirs are counted, not compared. What counts is the time on the cores, process start included.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use whisperer_schemas::{Micros, time::parse_rfc3339};

use crate::{
    child::{Cost, empty_folder},
    decisions::{self, Decision},
    figures::Spread,
    input::{InputOptions, cached},
    jobs,
    machine::{Machine, commit, load},
    results,
    throughput::{measure_baseline, measure_engine, repository},
};

/// The input is the same for everybody.
const SEED: u64 = 42;

/// Scores may differ by what exponentials of other libraries do.
const TOLERANCE: f64 = 1e-12;

/// What ran job J.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    /// This engine.
    Whisperer,
    /// The program written by hand.
    ByHand,
    /// Apache Flink's DataStream API.
    Flink,
    /// Bytewax.
    Bytewax,
    /// Pathway.
    Pathway,
    /// DuckDB: a batch query for hourly panes and crossings.
    Duckdb,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Peer::Whisperer => "Whisperer",
            Peer::ByHand => "by hand, in Rust",
            Peer::Flink => "Flink DataStream",
            Peer::Bytewax => "Bytewax",
            Peer::Pathway => "Pathway",
            Peer::Duckdb => "DuckDB, batch, by the hour",
        }
    }

    /// Whether its decisions are those of the job, all of them.
    fn is_exact(self) -> bool {
        !matches!(self, Peer::Pathway | Peer::Duckdb)
    }
}

/// Arguments of `peers`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Who runs; Whisperer always does.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["by-hand", "flink", "bytewax", "pathway", "duckdb"])]
    pub peers: Vec<Peer>,
    /// Lines of the input.
    #[arg(long, default_value_t = 2_000_000)]
    pub events: u64,
    /// Users of the input.
    #[arg(long, default_value_t = 200_000)]
    pub users: u32,
    /// How often each runs.
    #[arg(long, default_value_t = 1)]
    pub runs: u32,
    /// Where inputs and packages are kept and outputs come and go; packages take 1.5 GB.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub work: PathBuf,
    /// Where the results go.
    #[arg(long, value_name = "DIR", default_value = "bench/results")]
    pub results: PathBuf,
    /// What the file of results is called.
    #[arg(long, default_value = "peers")]
    pub name: String,
    /// Print the table as Markdown.
    #[arg(long)]
    pub markdown: bool,
}

/// One run of one of them.
#[derive(Debug, Serialize)]
struct Run {
    peer: Peer,
    round: u32,
    load_before: Option<f64>,
    seconds: f64,
    cpu_seconds: f64,
    resident_peak_bytes: u64,
    decisions: usize,
    /// Where its decisions have to be those of the engine: whether they are.
    agrees: Option<bool>,
}

/// A file of results.
#[derive(Debug, Serialize)]
struct Results<'a> {
    version: u32,
    name: &'a str,
    command: String,
    commit: String,
    machine: Machine,
    packages: Vec<String>,
    events: u64,
    runs: &'a [Run],
}

/// Counted up when a file of results gets another form.
const RESULTS_VERSION: u32 = 1;

/// Measures, prints the table, writes the results; gives what does not agree.
///
/// # Errors
/// A package that cannot be had, a run that fails, or a folder that cannot be written.
pub fn run(options: &Options) -> anyhow::Result<Vec<String>> {
    if options.runs == 0 || options.events == 0 {
        bail!("nothing to run: events and runs are at least 1");
    }
    let commit = commit(&repository());
    let bench = Bench::prepare(options)?;
    let mut runs: Vec<Run> = Vec::new();
    for round in 0..options.runs {
        let ours = bench.run(Peer::Whisperer, round, None)?;
        let expected = bench.decisions(Peer::Whisperer)?;
        runs.push(ours);
        for peer in &options.peers {
            runs.push(bench.run(*peer, round, Some(&expected))?);
        }
    }
    let results = Results {
        version: RESULTS_VERSION,
        name: &options.name,
        command: command(options),
        commit,
        machine: Machine::this(),
        packages: bench.packages.clone(),
        events: options.events,
        runs: &runs,
    };
    results::write(&options.results, &options.name, &results)?;
    print!("{}", table(&runs, options.events, options.markdown));
    let differs = runs.iter().filter(|run| run.agrees == Some(false));
    Ok(differs.map(|run| format!("{} made other decisions", run.peer.name())).collect())
}

fn command(options: &Options) -> String {
    let Options { events, users, runs, name, .. } = options;
    format!("whisperer-bench peers --events {events} --users {users} --runs {runs} --name {name}")
}

struct Bench {
    input: PathBuf,
    /// The last event time of the input: up to there silence goes on.
    end: Micros,
    work: PathBuf,
    programs: PathBuf,
    packages: Vec<String>,
}

impl Bench {
    fn prepare(options: &Options) -> anyhow::Result<Bench> {
        let work = std::path::absolute(&options.work).context("cannot find the folder of the runs")?;
        let input = InputOptions { events: options.events, users: options.users, seed: SEED };
        let input = cached(&work.join("input"), input).context("cannot write the input")?;
        let programs = repository().join("bench/peers");
        let listed = fs::read_to_string(programs.join("requirements.txt")).context("cannot read the packages")?;
        let bench = Bench {
            end: end_of(&input)?,
            input,
            packages: listed.lines().map(str::to_owned).collect(),
            programs,
            work: work.join("peers"),
        };
        if options.peers.iter().any(|peer| !matches!(peer, Peer::Whisperer | Peer::ByHand)) {
            bench.install(&listed)?;
        }
        if options.peers.contains(&Peer::Flink) {
            bench.compile()?;
        }
        Ok(bench)
    }

    /// Installs the packages into a virtual environment, once for a list of them.
    fn install(&self, listed: &str) -> anyhow::Result<()> {
        let (venv, installed) = (self.work.join("venv"), self.work.join("installed.txt"));
        if fs::read_to_string(&installed).is_ok_and(|installed| installed == listed) {
            return Ok(());
        }
        eprintln!("installing {}", self.packages.join(", "));
        fs::create_dir_all(&self.work).context("cannot create a folder for the packages")?;
        must(Command::new("python3").args(["-m", "venv"]).arg(&venv), "python3 -m venv")?;
        let list = self.programs.join("requirements.txt");
        must(Command::new(self.python()).args(["-m", "pip", "install", "-q", "-r"]).arg(list), "pip install")?;
        fs::write(installed, listed).context("cannot note what is installed")
    }

    fn python(&self) -> PathBuf {
        self.work.join("venv/bin/python")
    }

    fn compile(&self) -> anyhow::Result<()> {
        let classes = self.work.join("classes");
        empty_folder(&classes)?;
        let mut javac = Command::new("javac");
        javac.arg("-nowarn").arg("-cp").arg(self.jars()?).arg("-d").arg(classes);
        must(javac.arg(self.programs.join("FlinkJ.java")), "javac, of a JDK from 17 on,")
    }

    /// Flink's own.
    fn jars(&self) -> anyhow::Result<String> {
        let told = "import os, pyflink; print(os.path.dirname(pyflink.__file__))";
        // Its Python part is another package; the folder is there all the same.
        let fallback = "import sysconfig; print(sysconfig.get_paths()['purelib'] + '/pyflink')";
        for program in [told, fallback] {
            let output = Command::new(self.python()).args(["-c", program]).stderr(Stdio::null()).output();
            let folder = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
            if let Some(folder) = folder.ok().filter(|folder| Path::new(folder).join("lib").is_dir()) {
                return Ok(format!("{folder}/lib/*"));
            }
        }
        bail!("the jars of Flink are not where its package puts them")
    }

    fn run(&self, peer: Peer, round: u32, expected: Option<&[Decision]>) -> anyhow::Result<Run> {
        let output = self.output(peer);
        empty_folder(&output)?;
        let load_before = load();
        let cost = self.measure(peer, &output).with_context(|| peer.name().to_owned())?;
        let lines = decision_files(&output)?.iter().map(|file| lines_of(file)).sum::<anyhow::Result<usize>>()?;
        let agrees = match expected.filter(|_| peer.is_exact()) {
            Some(expected) => Some(agree(&self.decisions(peer)?, expected)),
            None => None,
        };
        eprintln!(
            "round {}: {}: {:.1} s, {:.1} s on the cores, {lines} decisions{}",
            round + 1,
            peer.name(),
            cost.seconds,
            cost.cpu_seconds,
            if agrees == Some(false) { ", OTHERS THAN THE ENGINE'S" } else { "" }
        );
        Ok(Run {
            peer,
            round,
            load_before,
            seconds: cost.seconds,
            cpu_seconds: cost.cpu_seconds,
            resident_peak_bytes: cost.resident_peak_bytes,
            decisions: lines,
            agrees,
        })
    }

    fn measure(&self, peer: Peer, output: &Path) -> anyhow::Result<Cost> {
        let mut program = Command::new(self.python());
        program.arg(self.programs.join("measured.py"));
        match peer {
            Peer::Whisperer | Peer::ByHand => {
                let figures = match peer {
                    Peer::Whisperer => measure_engine(&repository().join(jobs::J), 1, &self.input, output)?,
                    _ => measure_baseline(&self.input, output)?,
                };
                return Ok(Cost {
                    seconds: figures.seconds,
                    cpu_seconds: figures.cpu_seconds,
                    resident_peak_bytes: figures.resident_peak_bytes,
                });
            }
            Peer::Flink => {
                let path = format!("{}:{}", self.work.join("classes").display(), self.jars()?);
                program.args(["java", "--add-opens=java.base/java.util=ALL-UNNAMED", "-cp", &path, "FlinkJ"]);
            }
            Peer::Bytewax => _ = program.arg(self.python()).args(["-m", "bytewax.run", "bytewax_j"]),
            Peer::Pathway => _ = program.arg(self.python()).arg("pathway_j.py"),
            Peer::Duckdb => _ = program.arg(self.python()).arg("duckdb_j.py"),
        }
        program.current_dir(&self.programs).env("PYTHONDONTWRITEBYTECODE", "1");
        program.env("J_INPUT", &self.input).env("J_OUTPUT", output.join("decisions.ndjson"));
        program.env("J_WORKERS", "1").env("J_END", self.end.to_string());
        let ended = program.output().context("cannot start it")?;
        let said = String::from_utf8_lossy(&ended.stdout);
        if !ended.status.success() {
            bail!("it failed ({}): {}", ended.status, String::from_utf8_lossy(&ended.stderr).trim_end());
        }
        serde_json::from_str(said.trim()).with_context(|| format!("it told no cost, but: {said}"))
    }

    fn output(&self, peer: Peer) -> PathBuf {
        self.work.join("output").join(format!("{peer:?}").to_lowercase())
    }

    fn decisions(&self, peer: Peer) -> anyhow::Result<Vec<Decision>> {
        let mut all = Vec::new();
        for file in decision_files(&self.output(peer))? {
            all.extend(decisions::read(&file)?);
        }
        all.sort_by(|one, other| (&one.user_id, &one.event_time).cmp(&(&other.user_id, &other.event_time)));
        Ok(all)
    }
}

/// Runs a command that prepares something.
fn must(command: &mut Command, name: &str) -> anyhow::Result<()> {
    let ended = command.output().with_context(|| format!("cannot start {name}"))?;
    if !ended.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&ended.stderr).trim_end());
    }
    Ok(())
}

/// The files that a run has left; parallel sinks write one each.
fn decision_files(output: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(output).context("cannot read a run's output")?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
    let is_decisions =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("decisions.ndjson"));
    Ok(paths.context("cannot read a run's output")?.into_iter().filter(is_decisions).collect())
}

fn lines_of(file: &Path) -> anyhow::Result<usize> {
    let text = fs::read(file).with_context(|| format!("cannot read \"{}\"", file.display()))?;
    Ok(memchr::memchr_iter(b'\n', &text).count())
}

/// The greatest event time of an input.
fn end_of(input: &Path) -> anyhow::Result<Micros> {
    let text = fs::read(input).context("cannot read the input")?;
    let times = text.split(|byte| *byte == b'\n').filter_map(|line| {
        let at = memchr::memmem::find(line, b"\"timestamp\":")? + b"\"timestamp\":".len();
        let rest = line.get(at..)?;
        let begin = memchr::memchr(b'"', rest)? + 1;
        let end = begin + memchr::memchr(b'"', rest.get(begin..)?)?;
        parse_rfc3339(rest.get(begin..end)?)
    });
    times.max().context("the input has no time")
}

fn agree(made: &[Decision], expected: &[Decision]) -> bool {
    let near = |one: f64, other: f64| (one - other).abs() <= TOLERANCE * other.abs().max(1.0);
    let same = |(one, other): (&Decision, &Decision)| {
        near(one.risk, other.risk) && Decision { risk: other.risk, ..one.clone() } == *other
    };
    made.len() == expected.len() && made.iter().zip(expected).all(same)
}

fn table(runs: &[Run], events: u64, markdown: bool) -> String {
    let mut table = Table::new();
    table.load_style(if markdown { presets::ASCII_MARKDOWN } else { presets::NOTHING });
    table.set_header([
        "engine",
        "thousand events/s",
        "CPU us/event",
        "x Whisperer",
        "peak MB",
        "decisions",
        "the same",
    ]);
    let mut peers: Vec<Peer> = Vec::new();
    runs.iter().for_each(|run| {
        if !peers.contains(&run.peer) {
            peers.push(run.peer);
        }
    });
    let of = |peer: Peer| runs.iter().filter(move |run| run.peer == peer);
    let cpu = |peer: Peer| Spread::of(of(peer).map(|run| run.cpu_seconds).collect()).median;
    let ours = cpu(Peer::Whisperer);
    for peer in peers {
        let seconds = Spread::of(of(peer).map(|run| run.seconds).collect()).median;
        let Some(last) = of(peer).next_back() else { continue };
        table.add_row([
            peer.name().to_owned(),
            format!("{:.0}", events as f64 / seconds / 1e3),
            format!("{:.2}", cpu(peer) * 1e6 / events as f64),
            format!("{:.1}", cpu(peer) / ours),
            format!("{:.0}", last.resident_peak_bytes as f64 / 1e6),
            last.decisions.to_string(),
            last.agrees.map_or("-", |agrees| if agrees { "yes" } else { "NO" }).to_owned(),
        ]);
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(risk: f64, events_total: f64) -> Decision {
        Decision {
            user_id: "usr".to_owned(),
            event_time: "2024-12-01T00:00:00Z".to_owned(),
            risk,
            events_total,
            duration_total: 1.0,
            errors_24h: 0.0,
            logins_24h: 0.0,
            features_24h: 0.0,
            tickets_24h: 0.0,
            payment_failures_24h: 0.0,
        }
    }

    #[test]
    fn scores_may_differ_by_a_rounding_and_nothing_else_may() {
        // Goal: another library's exponential is no other decision; another count, score or number of rows is.
        let expected = [decision(0.75, 3.0)];
        assert!(agree(&[decision(0.75 + 1e-15, 3.0)], &expected));
        assert!(!agree(&[decision(0.75 + 1e-9, 3.0)], &expected));
        assert!(!agree(&[decision(0.75, 4.0)], &expected));
        assert!(!agree(&[], &expected));
    }
}
