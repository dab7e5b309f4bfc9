//! Each run is a process of its own: time on the cores and the peak of memory are then its own, process start and end included.
//!
//! The bench starts itself again with [`CHILD`] in the environment. As `engine` it *is* the command `whisperer`, with the very
//! arguments; as `baseline` it is the program written by hand. Either prints a line of JSON with what it did; the last line
//! is [`Cost`], what the process has used.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs,
    path::Path,
    process::{Child, Command, ExitCode, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use whisperer_dataflows::{cli, runtime::cpu_time};

use crate::baseline;

/// Names the program that the process shall be; not set, it is the bench.
const CHILD: &str = "WHISPERER_BENCH_CHILD";

/// What a child can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The command `whisperer`.
    Engine,
    /// Job J by hand: arguments are its input and its output.
    Baseline,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Program::Engine => "engine",
            Program::Baseline => "baseline",
        }
    }
}

/// What a process has used up to its end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Wall-clock time from the start of `main`.
    pub seconds: f64,
    /// Time on the cores, of all threads, user and system.
    pub cpu_seconds: f64,
    /// Most memory that was resident at a time.
    pub resident_peak_bytes: u64,
}

/// The part of `whisperer run --json` that is looked at.
#[derive(Clone, Debug, Deserialize)]
pub struct EngineReport {
    counts: BTreeMap<String, u64>,
    /// Digests of the tables, by name.
    #[serde(default)]
    pub digests: BTreeMap<String, String>,
    /// Bytes of state per user at the end.
    pub bytes_per_user: Option<f64>,
}

impl EngineReport {
    /// A number of the summary; 0 where it has none of that name.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or_default()
    }

    /// Decisions of all triggers.
    #[must_use]
    pub fn decisions(&self) -> u64 {
        self.counts.iter().filter(|(name, _)| name.starts_with("decisions.")).map(|(_, count)| count).sum()
    }
}

/// A folder for a run, which finds nothing in it.
///
/// # Errors
/// A folder that cannot be emptied or made.
pub fn empty_folder(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).context("cannot remove what an earlier run left")?;
    }
    fs::create_dir_all(folder).context("cannot create a folder for a run")
}

/// The program that this process shall be, where it is a child.
#[must_use]
pub fn asked_for() -> Option<Program> {
    let asked = env::var_os(CHILD)?;
    [Program::Engine, Program::Baseline].into_iter().find(|program| *program.name() == asked)
}

/// Is that program, then prints its cost.
#[must_use]
pub fn run(program: Program) -> ExitCode {
    let started = Instant::now();
    let done = match program {
        Program::Engine => cli::main(),
        Program::Baseline => run_baseline(),
    };
    match cost(started) {
        Some(cost) => println!("{}", serde_json::json!(cost)),
        None => eprintln!("error: this system has no /proc that tells what a process has used"),
    }
    done
}

fn run_baseline() -> ExitCode {
    let mut paths = env::args_os().skip(1);
    let (Some(input), Some(output)) = (paths.next(), paths.next()) else {
        eprintln!("error: the baseline takes an input and an output");
        return ExitCode::FAILURE;
    };
    match baseline::run(Path::new(&input), Path::new(&output)) {
        Ok(report) => {
            println!("{}", serde_json::json!(report));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn cost(started: Instant) -> Option<Cost> {
    let cpu_seconds = cpu_time()?.as_secs_f64();
    Some(Cost { seconds: started.elapsed().as_secs_f64(), cpu_seconds, resident_peak_bytes: resident_peak_bytes()? })
}

/// Most bytes of memory that this process has had resident; none where `/proc` is missing.
fn resident_peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Starts this program again as `program`, waits for its end and gives what it did and what it cost.
///
/// # Errors
/// A child that cannot be started, fails, or says something else; its own words are part of the error.
pub fn measure<R: DeserializeOwned>(program: Program, arguments: &[OsString]) -> anyhow::Result<(R, Cost)> {
    let output = command_of(program, arguments, None)?.output().context("cannot start a run")?;
    report_of(&output)
}

/// A child that goes on until it is told to stop, or until nobody holds it any more.
pub struct Live(Option<Child>);

/// How long a child may take to stop: a checkpoint, and what waits for it.
const STOP_PATIENCE: Duration = Duration::from_secs(120);

impl Live {
    /// Starts this program again as the engine.
    ///
    /// # Errors
    /// A child that cannot be started.
    pub fn start(arguments: &[OsString]) -> anyhow::Result<Live> {
        let mut command = command_of(Program::Engine, arguments, None)?;
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        child.map(|child| Live(Some(child))).context("cannot start a run")
    }

    /// Its number among the system's processes.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.as_ref().map_or(0, Child::id)
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.0.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Asks it to stop, and waits for its end; gives what it did and what it cost.
    ///
    /// # Errors
    /// A child that fails, says something else, or does not stop.
    pub fn stop<R: DeserializeOwned>(mut self) -> anyhow::Result<(R, Cost)> {
        if self.runs() {
            let id = self.id().to_string();
            Command::new("kill").args(["-TERM", &id]).status().context("cannot ask a run to stop")?;
        }
        let asked = Instant::now();
        while self.runs() && asked.elapsed() < STOP_PATIENCE {
            thread::sleep(Duration::from_millis(5));
        }
        let mut child = self.0.take().context("a run is stopped once")?;
        if matches!(child.try_wait(), Ok(None)) {
            child.kill().context("cannot end a run")?;
        }
        // What it has to say fits into a pipe.
        report_of(&child.wait_with_output().context("cannot hear what a run says")?)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // After an error nobody else ends it, and it would go on for ever.
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The command that starts this program again as `program`, by way of another program and its arguments where one is given.
///
/// # Errors
/// A system that does not tell where the program is.
pub fn command_of(
    program: Program,
    arguments: &[OsString],
    by_way_of: Option<(&str, &[OsString])>,
) -> anyhow::Result<Command> {
    let own = env::current_exe().context("cannot find the program itself")?;
    let mut command = match by_way_of {
        None => Command::new(own),
        Some((other, arguments)) => {
            let mut command = Command::new(other);
            command.args(arguments).arg(own);
            command
        }
    };
    command.args(arguments).env(CHILD, program.name()).env("WHISPERER_LOG", "warn").stdin(Stdio::null());
    Ok(command)
}

/// The last two lines that a child has written.
///
/// # Errors
/// A child that failed, or says something else.
pub fn report_of<R: DeserializeOwned>(output: &Output) -> anyhow::Result<(R, Cost)> {
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("a run failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let lines: Vec<&str> = said.lines().collect();
    let [.., report, cost] = lines[..] else { bail!("a run ended without a report: {said}") };
    let report = serde_json::from_str(report).with_context(|| format!("a run reported {report}"))?;
    let cost = serde_json::from_str(cost).with_context(|| format!("a run reported {cost}"))?;
    Ok((report, cost))
}
