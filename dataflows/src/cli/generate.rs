//! `whisperer generate`: synthetic users' events as NDJSON, one file per partition.

use std::{
    fs::{self, File},
    io::{BufWriter, Write, stdout},
    path::PathBuf,
};

use anyhow::Context;
use whisperer_connectors::generator::{GeneratorOptions, Summary, write_ndjson};
use whisperer_schemas::time::{format_micros, parse_duration, parse_rfc3339};

use super::{Exit, Failure};

/// Arguments of `generate`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Write `events-N.ndjson` into this folder, one file per partition; `-` writes one partition to stdout.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Lines to write over all partitions.
    #[arg(long, default_value_t = GeneratorOptions::default().events)]
    events: u64,
    /// Users there are.
    #[arg(long, default_value_t = GeneratorOptions::default().users)]
    users: u64,
    /// Everything follows from it.
    #[arg(long, default_value_t = GeneratorOptions::default().seed)]
    seed: u64,
    /// Partitions; a user is always in one.
    #[arg(long, default_value_t = GeneratorOptions::default().partitions)]
    partitions: u32,
    /// Event time of the first session, as RFC 3339.
    #[arg(long, default_value_t = format_micros(GeneratorOptions::default().start).to_string())]
    start: String,
    /// Event time that the events are spread over, such as `30d`.
    #[arg(long, default_value = "30d")]
    span: String,
    /// Exponent of the users' activity.
    #[arg(long, default_value_t = GeneratorOptions::default().zipf)]
    zipf: f64,
    /// Rate of repeated lines.
    #[arg(long, default_value_t = GeneratorOptions::default().duplicates)]
    duplicates: f64,
    /// Rate of lines up to 30 s out of order.
    #[arg(long, default_value_t = GeneratorOptions::default().disorder)]
    disorder: f64,
    /// Rate of lines later than that.
    #[arg(long, default_value_t = GeneratorOptions::default().late)]
    late: f64,
    /// Rate of lines that are no valid event.
    #[arg(long, default_value_t = GeneratorOptions::default().malformed)]
    malformed: f64,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let options = options(arguments).map_err(|error| Failure::Other(Exit::Invalid, error))?;
    write(arguments, &options).map_err(|error| Failure::Other(Exit::Failed, error))
}

fn options(arguments: &Arguments) -> anyhow::Result<GeneratorOptions> {
    let start = parse_rfc3339(arguments.start.as_bytes());
    Ok(GeneratorOptions {
        seed: arguments.seed,
        users: arguments.users,
        events: arguments.events,
        partitions: arguments.partitions,
        start: start.with_context(|| format!("--start: \"{}\" is no RFC 3339 time", arguments.start))?,
        span: parse_duration(&arguments.span).context("--span")?,
        zipf: arguments.zipf,
        duplicates: arguments.duplicates,
        disorder: arguments.disorder,
        late: arguments.late,
        malformed: arguments.malformed,
        ..GeneratorOptions::default()
    })
}

fn write(arguments: &Arguments, options: &GeneratorOptions) -> anyhow::Result<()> {
    let mut summary = Summary::default();
    let bar = indicatif::ProgressBar::new(options.events);
    let mut progress = |lines| bar.inc(lines);
    if arguments.output.as_os_str() == "-" {
        anyhow::ensure!(options.partitions == 1, "stdout takes one partition: say --partitions 1");
        let mut out = BufWriter::new(stdout().lock());
        summary.add(&write_ndjson(options, 0, &mut out, &mut progress)?);
        out.flush()?;
    } else {
        fs::create_dir_all(&arguments.output)
            .with_context(|| format!("cannot create \"{}\"", arguments.output.display()))?;
        for partition in 0..options.partitions {
            let path = arguments.output.join(format!("events-{partition}.ndjson"));
            let cannot = || format!("cannot write \"{}\"", path.display());
            let mut out = BufWriter::new(File::create(&path).with_context(cannot)?);
            summary.add(&write_ndjson(options, partition, &mut out, &mut progress).with_context(cannot)?);
            out.flush().with_context(cannot)?;
        }
    }
    bar.finish_and_clear();
    let malformed: u64 = summary.malformed.values().sum();
    eprintln!(
        "{} lines, {} bytes: {} events, {} duplicates, {} malformed",
        summary.lines,
        summary.bytes,
        summary.events(),
        summary.duplicates,
        malformed
    );
    Ok(())
}
