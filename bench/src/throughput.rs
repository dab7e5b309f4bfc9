//! `throughput`: events per second, CPU per event and memory, from NDJSON to decisions.
//!
//! Round by round, every case runs once, beginning with another one each time: what disturbs the machine for a while disturbs all of
//! them, the baseline too. All decisions of job J are compared with the baseline's: a fast wrong answer is no result.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde::Serialize;

use crate::{
    baseline::BaselineReport,
    child::{EngineReport, Program, empty_folder, measure},
    decisions::{self, Decision},
    figures::{Case, Job, RunFigures, Summary, broken_floors, summarize, table},
    input::{InputOptions, cached},
    jobs::{self, Views},
    machine::{Machine, commit, load},
    results,
};

/// The input is the same for everybody.
const SEED: u64 = 42;

/// Arguments of `throughput`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Lines of each input.
    #[arg(long, default_value_t = 5_000_000)]
    pub events: u64,
    /// Users of each input.
    #[arg(long, value_delimiter = ',', default_values_t = [200_000, 1_000_000])]
    pub users: Vec<u32>,
    /// Worker threads of the engine.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    pub workers: Vec<u16>,
    /// How often each case is run.
    #[arg(long, default_value_t = 3)]
    pub runs: u32,
    /// Where inputs are kept and outputs come and go; 5 GB for the defaults.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub work: PathBuf,
    /// Where the results go.
    #[arg(long, value_name = "DIR", default_value = "bench/results")]
    pub results: PathBuf,
    /// What the file of results is called.
    #[arg(long, default_value = "throughput")]
    pub name: String,
    /// Print the table as Markdown.
    #[arg(long)]
    pub markdown: bool,
    /// Fail where a floor is broken.
    #[arg(long)]
    pub check: bool,
}

impl Options {
    /// The command as it is written down, without folders, which belong to a machine.
    fn command(&self) -> String {
        let list = |numbers: &[String]| numbers.join(",");
        let users = list(&self.users.iter().map(u32::to_string).collect::<Vec<_>>());
        let workers = list(&self.workers.iter().map(u16::to_string).collect::<Vec<_>>());
        let Options { events, runs, name, .. } = self;
        format!(
            "cargo run --release -p whisperer-bench -- throughput --events {events} --users {users} --workers {workers} \
             --runs {runs} --name {name}"
        )
    }
}

/// A file of results.
#[derive(Debug, Serialize)]
struct Results<'a> {
    version: u32,
    name: &'a str,
    command: String,
    commit: String,
    machine: Machine,
    input_bytes: BTreeMap<u32, u64>,
    summary: &'a [Summary],
    runs: &'a [RunFigures],
}

/// Counted up when a file of results gets another form.
const RESULTS_VERSION: u32 = 1;

/// Measures, prints the table, writes the results; gives the floors that are broken, where they shall be checked.
///
/// # Errors
/// A run that fails, decisions that differ from the baseline's, or a folder that cannot be written.
pub fn run(options: &Options) -> anyhow::Result<Vec<String>> {
    if options.runs == 0 || options.users.is_empty() || options.workers.is_empty() || options.events == 0 {
        bail!("nothing to run: events, users, workers and runs are at least 1");
    }
    let mut bench = Bench::new(options)?;
    for users in &options.users {
        bench.measure_input(*users)?;
    }
    let summary = summarize(&bench.runs);
    write_results(options, &bench, &summary)?;
    print!("{}", table(&summary, options.markdown));
    Ok(if options.check { broken_floors(&summary) } else { Vec::new() })
}

fn write_results(options: &Options, bench: &Bench<'_>, summary: &[Summary]) -> anyhow::Result<()> {
    let results = Results {
        version: RESULTS_VERSION,
        name: &options.name,
        command: options.command(),
        commit: bench.commit.clone(),
        machine: Machine::this(),
        input_bytes: bench.input_bytes.clone(),
        summary,
        runs: &bench.runs,
    };
    results::write(&options.results, &options.name, &results)
}

/// A benchmark under way.
struct Bench<'a> {
    options: &'a Options,
    /// Of the sources, taken at the start: what is measured.
    commit: String,
    /// The engagement job without its views.
    without_views: PathBuf,
    input_bytes: BTreeMap<u32, u64>,
    runs: Vec<RunFigures>,
}

impl<'a> Bench<'a> {
    fn new(options: &'a Options) -> anyhow::Result<Bench<'a>> {
        fs::create_dir_all(&options.work)
            .with_context(|| format!("cannot create the folder \"{}\"", options.work.display()))?;
        let job = jobs::read(jobs::ENGAGEMENT, Views::Dropped)?;
        let without_views = jobs::write(&job, &options.work.join("jobs"), "engagement.toml")?;
        let commit = commit(&repository());
        Ok(Bench { options, commit, without_views, input_bytes: BTreeMap::new(), runs: Vec::new() })
    }

    fn measure_input(&mut self, users: u32) -> anyhow::Result<()> {
        let input = self.input(users)?;
        let mut cases = vec![Case { input_users: users, job: Job::Baseline, workers: 1 }];
        for job in [Job::J, Job::Engagement, Job::EngagementViews] {
            cases.extend(self.options.workers.iter().map(|workers| Case {
                input_users: users,
                job,
                workers: *workers,
            }));
        }
        let mut agreed: Option<Vec<Decision>> = None;
        for round in 0..self.options.runs {
            for case in &cases {
                let run = self.measure(*case, round, &input)?;
                let rate = run.read as f64 / run.seconds / 1e3;
                eprintln!(
                    "round {}: {} users, {}, {} workers: {rate:.0} thousand events/s, {:.0} ns/event",
                    round + 1,
                    case.input_users,
                    case.job.name(),
                    case.workers,
                    run.cpu_seconds * 1e9 / run.read as f64
                );
                self.runs.push(run);
                self.agree(*case, &mut agreed)?;
            }
            cases.rotate_left(1);
        }
        Ok(())
    }

    /// The input, read once so that no run finds it on the disk alone.
    fn input(&mut self, users: u32) -> anyhow::Result<PathBuf> {
        let options = InputOptions { events: self.options.events, users, seed: SEED };
        eprintln!("input: {} events of {users} users", options.events);
        let path = cached(&self.options.work.join("input"), options).context("cannot write the input")?;
        let bytes = File::open(&path).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
        self.input_bytes.insert(users, bytes.context("cannot read the input")?);
        Ok(path)
    }

    fn measure(&self, case: Case, round: u32, input: &Path) -> anyhow::Result<RunFigures> {
        let output = self.output(case);
        empty_folder(&output)?;
        let load_before = load();
        let figures = match case.job {
            Job::Baseline => measure_baseline(input, &output),
            Job::J => measure_engine(&repository().join(jobs::J), case.workers, input, &output),
            Job::Engagement => measure_engine(&self.without_views, case.workers, input, &output),
            Job::EngagementViews => measure_engine(&repository().join(jobs::ENGAGEMENT), case.workers, input, &output),
        };
        let figures = figures.with_context(|| format!("job \"{}\"", case.job.name()))?;
        if is_engagement(case.job) {
            fs::remove_dir_all(&output).context("cannot remove a run's output")?;
        }
        Ok(RunFigures { case, round, load_before, ..figures })
    }

    fn output(&self, case: Case) -> PathBuf {
        let job = case.job.name().replace(' ', "-");
        self.options.work.join("output").join(format!("{job}-{}-workers-{}", case.input_users, case.workers))
    }

    /// Compares the decisions of job J with those of the run before it.
    fn agree(&self, case: Case, agreed: &mut Option<Vec<Decision>>) -> anyhow::Result<()> {
        if is_engagement(case.job) {
            return Ok(());
        }
        let made = decisions::read(&self.output(case).join("decisions.ndjson"))?;
        if let Some(difference) = agreed.as_ref().and_then(|agreed| decisions::difference(&made, agreed)) {
            bail!("\"{}\" does not agree with the run before it: {difference}", case.job.name());
        }
        *agreed = Some(made);
        Ok(())
    }
}

/// Figures with a case and a round to be filled in.
pub(crate) fn measure_baseline(input: &Path, output: &Path) -> anyhow::Result<RunFigures> {
    let arguments = [input.into(), output.join("decisions.ndjson").into()];
    let (report, cost) = measure::<BaselineReport>(Program::Baseline, &arguments)?;
    if report.dead > 0 {
        bail!("{} lines of the input are no events", report.dead);
    }
    Ok(RunFigures {
        case: Case { input_users: 0, job: Job::Baseline, workers: 1 },
        round: 0,
        load_before: None,
        read: report.read,
        duplicates: report.duplicates,
        users: report.users,
        decisions: report.decisions,
        timers: None,
        seconds: cost.seconds,
        cpu_seconds: cost.cpu_seconds,
        bytes_per_user: report.state_bytes as f64 / report.users.max(1) as f64,
        resident_peak_bytes: cost.resident_peak_bytes,
    })
}

fn is_engagement(job: Job) -> bool {
    matches!(job, Job::Engagement | Job::EngagementViews)
}

/// Figures of a job over an input that has nothing late and nothing dead; with a case and a round to be filled in.
pub(crate) fn measure_engine(job: &Path, workers: u16, input: &Path, output: &Path) -> anyhow::Result<RunFigures> {
    let arguments: [OsString; 9] = [
        "run".into(),
        job.into(),
        "--input".into(),
        input.into(),
        "--output".into(),
        output.into(),
        "--workers".into(),
        workers.to_string().into(),
        "--json".into(),
    ];
    let (report, cost) = measure::<EngineReport>(Program::Engine, &arguments)?;
    let count = |name: &str| report.count(name);
    if count("late") + count("dead") > 0 {
        bail!("{} late and {} dead lines of an input that has none", count("late"), count("dead"));
    }
    Ok(RunFigures {
        case: Case { input_users: 0, job: Job::J, workers },
        round: 0,
        load_before: None,
        read: count("read"),
        duplicates: count("duplicate"),
        users: count("users"),
        decisions: report.decisions(),
        timers: Some(count("timers")),
        seconds: cost.seconds,
        cpu_seconds: cost.cpu_seconds,
        bytes_per_user: report.bytes_per_user.unwrap_or_default(),
        resident_peak_bytes: cost.resident_peak_bytes,
    })
}

/// The repository, whose jobs are run.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}
