//! The command line: one binary, a verb for everything. Data goes to stdout, everything else to stderr.

mod check;
mod checkpoints;
mod dead_letters;
mod erase;
mod explain;
mod export;
mod generate;
mod launch;
mod plan;
mod run;
mod state;
mod summary;
mod terminal;
mod views;

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::{Parser, Subcommand, ValueEnum};
use whisperer_connectors::{
    Source, SourceError, file::FileSource, generator::GeneratorSource, kafka::KafkaOptions, source::GlobalWatermark,
};
use whisperer_operators::job::CompiledJob;
use whisperer_schemas::Micros;
use whisperer_sinks::SinkError;

pub use summary::grouped;

use crate::{
    job_file::{self, JobFile, JobFileErrors, Overrides, SourceSettings},
    operations::{
        OperationsError,
        logs::{self, Telling},
    },
    runtime::{GenerationTicks, RunError},
};

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// All was done.
    Done = 0,
    /// Something failed on the way.
    Failed = 1,
    /// The arguments or the job are wrong.
    Invalid = 2,
}

/// Incremental stream processing for customer behaviour.
#[derive(Debug, Parser)]
#[command(name = "whisperer", version, max_term_width = 110)]
struct Arguments {
    /// What is logged: error, warn, info, debug, trace, or directives.
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a job to the end of its input.
    Run(Box<run::Arguments>),
    /// Validate a job: all its mistakes, each with file, line, column and the nearest name.
    Check(check::Arguments),
    /// Show the compiled dataflow: operators, exchanges, timers, state per user.
    Plan(plan::Arguments),
    /// Write synthetic users' events as NDJSON.
    Generate(generate::Arguments),
    /// List, inspect, verify and restore checkpoints.
    Checkpoints(checkpoints::Arguments),
    /// List rejected records, and replay those that are events by now.
    DeadLetters(dead_letters::Arguments),
    /// Have a job forget a user, tell how far that is, and check receipts.
    Erase(erase::Arguments),
    /// Explain a user: profile, scores and what made them, timers, decisions so far.
    Explain(explain::Arguments),
    /// Show what is known of all users at once: the contents of a job's views, or their changes.
    Views(views::Arguments),
    /// Write down everything that is held on a user, as JSON and Parquet.
    Export(export::Arguments),
}

/// A form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
    Mermaid,
}

/// Why a verb did not do what was asked.
#[derive(Debug)]
enum Failure {
    /// The job is wrong.
    Job(JobFileErrors),
    /// Anything else; the exit code says whose fault it is.
    Other(Exit, anyhow::Error),
}

impl From<JobFileErrors> for Failure {
    fn from(errors: JobFileErrors) -> Self {
        Failure::Job(errors)
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Failure::Other(Exit::Invalid, error.into())
    }
}

impl From<SinkError> for Failure {
    fn from(error: SinkError) -> Self {
        Failure::Other(Exit::Failed, error.into())
    }
}

impl From<OperationsError> for Failure {
    fn from(error: OperationsError) -> Self {
        // Addresses, hosts and levels are arguments or parts of the job.
        Failure::Other(Exit::Invalid, error.into())
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        Failure::Other(Exit::Failed, error.into())
    }
}

/// Parses the arguments of this process and does what they say.
#[must_use]
pub fn main() -> ExitCode {
    abort_on_panic();
    let arguments = Arguments::parse();
    let exit = match perform(&arguments) {
        Ok(()) => Exit::Done,
        Err(Failure::Job(errors)) => {
            eprint!("{}", if terminal::coloured() { errors.render_styled() } else { errors.render() });
            Exit::Invalid
        }
        Err(Failure::Other(exit, error)) => {
            eprintln!("error: {}", chain(&error));
            exit
        }
    };
    ExitCode::from(exit as u8)
}

fn perform(arguments: &Arguments) -> Result<(), Failure> {
    let telling = Telling { flag: arguments.log.clone(), ..Telling::default() };
    if let Verb::Run(arguments) = &arguments.verb {
        // The job says where its logs and traces go.
        return run::run(arguments, telling);
    }
    let _telemetry = logs::start(&telling)?;
    match &arguments.verb {
        Verb::Run(_) => Ok(()),
        Verb::Check(arguments) => check::run(arguments),
        Verb::Plan(arguments) => plan::run(arguments),
        Verb::Generate(arguments) => generate::run(arguments),
        Verb::Checkpoints(arguments) => checkpoints::run(arguments),
        Verb::DeadLetters(arguments) => dead_letters::run(arguments),
        Verb::Erase(arguments) => erase::run(arguments),
        Verb::Explain(arguments) => explain::run(arguments),
        Verb::Views(arguments) => views::run(arguments),
        Verb::Export(arguments) => export::run(arguments),
    }
}

/// The time of this machine.
fn wall_clock() -> Micros {
    jiff::Timestamp::now().as_microsecond()
}

/// A worker thread that panics would leave the others waiting for it for ever.
fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}

/// An error and what it came from, on one line.
fn chain(error: &anyhow::Error) -> String {
    let parts: Vec<String> = error.chain().map(ToString::to_string).collect();
    parts.join(": ")
}

/// Reads and compiles a job.
fn load(path: &std::path::Path, overrides: &Overrides) -> Result<(JobFile, CompiledJob), JobFileErrors> {
    job_file::load_with(path, overrides, CompiledJob::new)
}

/// Opens the source of a job.
/// What a source is opened with, besides its settings: whether it ends where it ends now, its tick log, and the global watermark.
type Surroundings = (bool, Option<Arc<GenerationTicks>>, Arc<GlobalWatermark>);

fn open_source(settings: &SourceSettings, surroundings: Surroundings) -> Result<Arc<dyn Source>, SourceError> {
    Ok(match settings {
        SourceSettings::File(options) => Arc::new(FileSource::new(options.clone())?),
        SourceSettings::Generator(options) => Arc::new(GeneratorSource::new(options.clone())?),
        SourceSettings::Kafka(options) => open_kafka(options, surroundings)?,
    })
}

#[cfg(feature = "kafka")]
fn open_kafka(options: &KafkaOptions, surroundings: Surroundings) -> Result<Arc<dyn Source>, SourceError> {
    use whisperer_connectors::kafka::KafkaSource;
    let (until_end, ticks, watermark) = surroundings;
    let options = KafkaOptions { until_end: options.until_end || until_end, ..options.clone() };
    let mut around = whisperer_connectors::kafka::Surroundings { watermark, ..Default::default() };
    if let Some(ticks) = ticks {
        around.ticks = ticks;
    }
    Ok(Arc::new(KafkaSource::new(options, around)?))
}

/// Reading the job file has refused it already.
#[cfg(not(feature = "kafka"))]
fn open_kafka(options: &KafkaOptions, _: Surroundings) -> Result<Arc<dyn Source>, SourceError> {
    Err(SourceError::Settings(format!("the topic \"{}\" needs a build with `--features kafka`", options.topic)))
}

/// The job file that a verb is about.
#[derive(Debug, clap::Args)]
struct JobArgument {
    /// The job file.
    job: PathBuf,
}
