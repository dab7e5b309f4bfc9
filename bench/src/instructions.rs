//! `instructions`: how many instructions an event costs, counted by valgrind: the one figure that is the same on a busy machine.
//!
//! A run over a longer and one over a shorter beginning of the same input are counted; the difference is what the events between cost,
//! without the start and the end of the process. With `--check` the figures are held against those that are kept with the sources, so that
//! the hot path does not grow unnoticed.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};
use whisperer_dataflows::cli::grouped;

use crate::{
    child::{EngineReport, Program, command_of, empty_folder, report_of},
    input::{InputOptions, cached},
    jobs::{self, Views},
    machine::commit,
    results,
    throughput::repository,
};

/// Lines of both runs, and the users of the longer one.
const EVENTS: [u64; 2] = [20_000, 60_000];
const USERS: u32 = 4_000;
const SEED: u64 = 42;

/// The jobs.
const JOBS: [(&str, &str, Views); 3] = [
    ("J", jobs::J, Views::Kept),
    ("engagement", jobs::ENGAGEMENT, Views::Dropped),
    ("engagement with views", jobs::ENGAGEMENT, Views::Kept),
];

/// The floor: what an event costs may grow by this share before it is an error.
const GROWTH_MAX: f64 = 0.05;

/// Counted up when the file of results gets another form.
const RESULTS_VERSION: u32 = 1;

/// What the file of results is called.
const NAME: &str = "instructions";

/// Arguments of `instructions`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where inputs are kept and outputs come and go.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub work: PathBuf,
    /// Where the results are kept.
    #[arg(long, value_name = "DIR", default_value = "bench/results")]
    pub results: PathBuf,
    /// Keep the results as they are, and fail where an event costs more than 5 % above them.
    #[arg(long)]
    pub check: bool,
}

/// The file of results.
#[derive(Debug, Serialize, Deserialize)]
struct Results {
    version: u32,
    command: String,
    commit: String,
    /// Another compiler makes other instructions.
    compiler: String,
    jobs: Vec<Figure>,
}

/// What an event of a job costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Figure {
    job: String,
    /// Of the process, for so many events each.
    counted: Vec<(u64, u64)>,
    instructions_per_event: f64,
}

/// Counts, prints the table, writes the results or compares with them; gives the jobs whose events cost too much more.
///
/// # Errors
/// No valgrind, a run that fails, or a folder that cannot be written or read.
pub fn run(options: &Options) -> anyhow::Result<Vec<String>> {
    let commit = commit(&repository());
    let compiler = compiler()?;
    let kept: Option<Results> = options.check.then(|| read(&options.results)).transpose()?;
    if let Some(kept) = kept.as_ref().filter(|kept| kept.compiler != compiler) {
        eprintln!("NOT CHECKED: the kept figures are of \"{}\", and this is \"{compiler}\"", kept.compiler);
        return Ok(Vec::new());
    }
    let inputs = inputs(&options.work)?;
    let mut figures = Vec::new();
    for (name, path, views) in JOBS {
        let path = jobs::write(&jobs::read(path, views)?, &options.work.join("jobs"), "counted.toml")?;
        figures.push(figure(options, (name, &path), &inputs)?);
    }
    let before = |job: &str| {
        let kept = kept.as_ref()?.jobs.iter().find(|kept| kept.job == job)?;
        Some(kept.instructions_per_event)
    };
    println!("{}", table(&figures, before));
    let Some(kept) = &kept else {
        let command = "cargo run --release -p whisperer-bench -- instructions".to_owned();
        let results = Results { version: RESULTS_VERSION, command, commit, compiler, jobs: figures };
        results::write(&options.results, NAME, &results)?;
        return Ok(Vec::new());
    };
    Ok(figures.iter().filter_map(|figure| grown(figure, &kept.jobs)).collect())
}

/// What is wrong with a figure beside those that are kept.
fn grown(figure: &Figure, kept: &[Figure]) -> Option<String> {
    let Figure { job, instructions_per_event: now, .. } = figure;
    let Some(before) = kept.iter().find(|kept| kept.job == *job).map(|kept| kept.instructions_per_event) else {
        return Some(format!("nothing is kept for job \"{job}\": run the command without --check"));
    };
    (*now > before * (1.0 + GROWTH_MAX)).then(|| {
        format!(
            "an event of job \"{job}\" costs {now:.0} instructions, {:.1} % more than the {before:.0} that are kept; what pays for them may raise \
             what is kept: run the command without --check",
            (now / before - 1.0) * 100.0
        )
    })
}

/// A beginning of the input for each number of lines.
fn inputs(work: &Path) -> anyhow::Result<Vec<(u64, PathBuf)>> {
    let folder = work.join("input");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create the folder \"{}\"", folder.display()))?;
    let whole = InputOptions { events: EVENTS[1], users: USERS, seed: SEED };
    let whole = cached(&folder, whole).context("cannot write the input")?;
    let short = folder.join(format!("{NAME}-{}.ndjson", EVENTS[0]));
    beginning(&whole, &short).context("cannot write the beginning of the input")?;
    Ok(vec![(EVENTS[0], short), (EVENTS[1], whole)])
}

fn beginning(whole: &Path, short: &Path) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(short)?);
    let lines = BufReader::new(File::open(whole)?).split(b'\n').take(EVENTS[0] as usize);
    for line in lines {
        out.write_all(&line?)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

fn figure(options: &Options, (name, job): (&str, &Path), inputs: &[(u64, PathBuf)]) -> anyhow::Result<Figure> {
    let mut counted = Vec::new();
    for (events, input) in inputs {
        let instructions = count(options, job, (*events, input)).with_context(|| format!("job \"{name}\""))?;
        counted.push((*events, instructions));
    }
    let [(fewer, less), (more, most)] = counted[..] else { bail!("two inputs give two figures") };
    let instructions_per_event = most.saturating_sub(less) as f64 / (more - fewer) as f64;
    Ok(Figure { job: name.to_owned(), counted, instructions_per_event })
}

/// Instructions of a run over an input, all threads together.
fn count(options: &Options, job: &Path, (events, input): (u64, &Path)) -> anyhow::Result<u64> {
    let output = options.work.join("output").join(NAME);
    empty_folder(&output)?;
    let log = output.join("valgrind.log");
    let flags = ["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"];
    let mut valgrind: Vec<OsString> = flags.map(OsString::from).into();
    valgrind.push(format!("--log-file={}", log.display()).into());
    let arguments: Vec<OsString> = vec![
        "run".into(),
        job.into(),
        "--input".into(),
        input.into(),
        "--output".into(),
        output.join("run").into(),
        "--workers".into(),
        "1".into(),
        "--no-pin".into(),
        "--json".into(),
    ];
    let mut command = command_of(Program::Engine, &arguments, Some(("valgrind", &valgrind)))?;
    let ended = command.output().context("cannot start valgrind, which counts: bin/setup --tests installs it")?;
    let (report, _) = report_of::<EngineReport>(&ended)?;
    let read = report.count("read");
    if read != events {
        bail!("{read} of {events} events were read");
    }
    let told = fs::read_to_string(&log).context("cannot read what valgrind says")?;
    fs::remove_dir_all(&output).context("cannot remove a run's output")?;
    counted(&told).with_context(|| format!("valgrind counted nothing: {told}"))
}

/// The number in valgrind's line `==1== I   refs:      3,409,063,823`, or `I refs:` in later versions.
fn counted(told: &str) -> Option<u64> {
    let lines = told.lines().filter_map(|line| line.split_once("refs:"));
    let mut of_instructions = lines.filter(|(before, _)| before.trim_end().ends_with('I'));
    let (_, number) = of_instructions.next()?;
    number.trim().replace(',', "").parse().ok()
}

/// The compiler as it calls itself.
fn compiler() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("--version").output().context("cannot ask rustc for its version")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn read(folder: &Path) -> anyhow::Result<Results> {
    let path = folder.join(format!("{NAME}.json"));
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read \"{}\"", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("\"{}\" is no file of results", path.display()))
}

fn table(jobs: &[Figure], before: impl Fn(&str) -> Option<f64>) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["job", "instructions per event", "kept", "grown by, %"]);
    for Figure { job, instructions_per_event: now, .. } in jobs {
        let kept = before(job);
        table.add_row([
            job.clone(),
            grouped(*now as u64),
            kept.map_or(String::new(), |kept| grouped(kept as u64)),
            kept.map_or(String::new(), |kept| format!("{:.1}", (now / kept - 1.0) * 100.0)),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valgrind_is_understood() {
        // Goal: the line of every version of valgrind, and no other one.
        assert_eq!(counted("==12== D refs: 5\n==12== I   refs:      3,409,063,823\n"), Some(3_409_063_823));
        assert_eq!(counted("==1== I refs:        17\n"), Some(17));
        assert_eq!(counted("==1== Command: I\n"), None);
    }

    #[test]
    fn growth_above_the_floor_is_told() {
        // Goal: up to 5 % passes, more is told, and so is a job of which nothing is kept.
        let figure = |instructions_per_event| Figure { job: "J".into(), counted: Vec::new(), instructions_per_event };
        let kept = [figure(1_000.0)];
        assert_eq!(grown(&figure(1_049.0), &kept), None);
        assert_eq!(grown(&figure(500.0), &kept), None);
        assert!(grown(&figure(1_051.0), &kept).is_some_and(|told| told.contains("5.1 % more")));
        assert!(grown(&figure(1.0), &[]).is_some());
    }
}
