//! `whisperer run`: runs a job to the end of its input.

use std::{path::PathBuf, sync::Arc};

use whisperer_operators::job::CompiledJob;
use whisperer_sinks::Existing;

use crate::{
    job_file::Overrides,
    operations::{
        Cluster, RunFlags,
        logs::{self, Telling},
    },
    runtime::{Progress, RunError, RunReport},
};

use super::{
    Failure, JobArgument,
    launch::{Launch, run_name},
    load, summary,
    terminal::Watch,
};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    job: JobArgument,
    /// Worker threads.
    #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// Read these files instead of the job's source: a file, a folder or a glob.
    #[arg(long, value_name = "PATH")]
    input: Option<String>,
    /// Write all tables and decision files into this folder.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Events that the generator writes.
    #[arg(long)]
    events: Option<u64>,
    /// Users that the generator has.
    #[arg(long)]
    users: Option<u64>,
    /// This process's place in a cluster, from 0; needs --hosts.
    #[arg(long, value_name = "I", requires = "hosts")]
    process: Option<usize>,
    /// A file with the HOST:PORT of each process of the cluster, one on each line.
    #[arg(long, value_name = "FILE", requires = "process")]
    hosts: Option<PathBuf>,
    /// Keep checkpoints in this folder, and go on from them.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Start from this checkpoint, not from the newest one.
    #[arg(long, value_name = "NUMBER")]
    restore: Option<u64>,
    /// Start even if what was put out since the checkpoint comes again.
    #[arg(long)]
    repeat_outputs: bool,
    /// End where a live source ends now.
    #[arg(long)]
    until_end: bool,
    /// Serve /livez, /readyz and /metrics here.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Refuse to run where an earlier run of the job has left its output, instead of replacing it.
    #[arg(long)]
    keep: bool,
    /// Let the system choose the cores of the workers.
    #[arg(long)]
    no_pin: bool,
    /// Print the closing summary as JSON on stdout.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, telling: Telling) -> Result<(), Failure> {
    let overrides = Overrides {
        events: arguments.events,
        users: arguments.users,
        input: arguments.input.clone(),
        output: arguments.output.clone(),
        state: arguments.state.clone(),
        listen: arguments.listen.clone(),
    };
    let (file, job) = load(&arguments.job.job, &overrides)?;
    let telemetry = &file.operations.telemetry;
    let _telemetry = logs::start(&Telling {
        job: telemetry.log.map(str::to_owned),
        otlp: telemetry.otlp.clone(),
        service: format!("whisperer-{}", job.name),
        ..telling
    })?;
    let flags = flags(arguments)?;
    let fingerprint = file.spec.fingerprint();
    let job = Arc::new(job);
    let progress = Arc::new(Progress::default());
    let launch = Launch {
        file: &file,
        job: job.clone(),
        flags: &flags,
        name: run_name(),
        existing: if arguments.keep { Existing::Refuse } else { Existing::Replace },
        progress: progress.clone(),
    };
    let run = launch.run()?;
    let watch = Watch::start(progress, run.source.size());
    let done = run.execute();
    drop(watch);
    let (report, outputs) = match done {
        Err(error @ RunError::Finished { .. }) => {
            eprintln!("{error}");
            return Ok(());
        }
        done => done?,
    };
    if flags.cluster.as_ref().is_some_and(|cluster| cluster.process > 0) {
        // The first process tells of the whole run.
        return Ok(());
    }
    // A run that was stopped goes on some day: its manifest is that of its last checkpoint.
    let manifests = if report.finished { outputs.finish(&report.manifest(&job, &fingerprint))? } else { Vec::new() };
    show(arguments, &job, &report, &manifests);
    Ok(())
}

fn flags(arguments: &Arguments) -> Result<RunFlags, Failure> {
    let cluster = match (arguments.process, &arguments.hosts) {
        (Some(process), Some(hosts)) => Some(Cluster::read(process, hosts)?),
        _ => None,
    };
    Ok(RunFlags {
        workers: usize::from(arguments.workers),
        pin: !arguments.no_pin,
        cluster,
        restore: arguments.restore,
        repeat_outputs: arguments.repeat_outputs,
        until_end: arguments.until_end,
    })
}

fn show(arguments: &Arguments, job: &CompiledJob, report: &RunReport, manifests: &[PathBuf]) {
    if arguments.json {
        println!("{}", summary::json(job, report));
        return;
    }
    eprint!("{}", summary::table(job, report));
    for manifest in manifests {
        eprintln!("manifest: {}", manifest.display());
    }
}
