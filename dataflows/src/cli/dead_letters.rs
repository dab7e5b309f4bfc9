//! `whisperer dead-letters`: shows rejected records, and gives those that are events by now a second chance.

use std::{collections::BTreeMap, io::Write, path::PathBuf};

use anyhow::Context;
use clap::Subcommand;
use whisperer_connectors::format::Reason;
use whisperer_operators::job::CompiledJob;
use whisperer_schemas::TableSchema;
use whisperer_sinks::ndjson;

use crate::{
    job_file::{JobFile, LakeTable, Overrides, SinkSettings},
    operations::dead_letters::{Chance, FileTarget, Ledger, Letters, SecondChances, Target},
};

use super::{Exit, Failure, Form, JobArgument, grouped, load, wall_clock};

/// Records of one replay, and their bytes: what fits into memory beside the job's own. A second call takes the next ones.
const REPLAY_RECORDS_MAX: usize = 100_000;
const REPLAY_BYTES_MAX: usize = 256 << 20;

/// Arguments of `dead-letters`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    job: JobArgument,
    /// The lake, if not the job's own.
    #[arg(long, value_name = "DIR", global = true)]
    output: Option<PathBuf>,
    /// Only records that were rejected for this reason.
    #[arg(long, global = true, value_parser = Reason::ALL.map(Reason::as_str))]
    reason: Option<String>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show them.
    List {
        /// Show so many; 0 for all.
        #[arg(long, default_value_t = 20)]
        limit: u64,
        /// text, or json: a row of the table on each line.
        #[arg(long, value_enum, default_value_t = Form::Text)]
        format: Form,
    },
    /// Put out those that are events by now, each once and never again.
    Replay {
        /// A file that is not there yet: the records, one on each line.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// Only say what would be put out.
        #[arg(long)]
        dry_run: bool,
    },
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let overrides = Overrides { output: arguments.output.clone(), ..Overrides::default() };
    let (file, job) = load(&arguments.job.job, &overrides)?;
    let lake = lake_of(&file)?;
    let letters = Letters { lake: &lake, job: &job.name, reason: arguments.reason.as_deref() };
    match &arguments.action {
        Action::List { limit, format } => list(letters, *limit, *format),
        Action::Replay { to, dry_run } => replay(&file, &job, letters, to, *dry_run),
    }
}

fn lake_of(file: &JobFile) -> Result<PathBuf, Failure> {
    let lake = file.sinks.iter().find_map(|sink| match sink {
        SinkSettings::Parquet { table: LakeTable::DeadLetters, path, .. } => Some(path.clone()),
        _ => None,
    });
    lake.ok_or_else(|| {
        let error =
            "the job keeps no dead letters: give it a [[sink]] with connector = \"parquet\", table = \"dead_letters\"";
        Failure::Other(Exit::Invalid, anyhow::anyhow!(error))
    })
}

fn list(letters: Letters<'_>, limit: u64, format: Form) -> Result<(), Failure> {
    let schema = TableSchema::dead_letters();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut shown = 0;
    let mut failed = None;
    letters.visit(|row, letter| {
        *counts.entry(letter.reason.clone()).or_default() += 1;
        if (limit > 0 && shown >= limit) || failed.is_some() {
            return;
        }
        shown += 1;
        if format == Form::Json {
            match ndjson::line(&schema, row) {
                // A reader that has seen enough closes the pipe.
                Ok(line) => drop(std::io::stdout().write_all(&line)),
                Err(error) => failed = Some(error),
            }
        } else {
            println!("{}:{}  {}  {}", letter.partition, letter.offset, letter.reason, letter.detail);
            println!("    {}", excerpt(&letter.raw));
        }
    })?;
    failed.map_or(Ok(()), Err)?;
    let all: u64 = counts.values().sum();
    let reasons: Vec<String> = counts.iter().map(|(reason, count)| format!("{reason} {}", grouped(*count))).collect();
    let of = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) };
    eprintln!("{} of {} dead letters shown{of}", grouped(shown), grouped(all));
    Ok(())
}

/// The beginning of a record, on one line.
fn excerpt(raw: &[u8]) -> String {
    const CHARS_MAX: usize = 160;
    let text = String::from_utf8_lossy(raw);
    let mut excerpt: String = text.chars().take(CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        excerpt.push('…');
    }
    excerpt
}

/// What a replay came to.
#[derive(Debug, Default)]
struct Tally {
    events: usize,
    replayed_before: u64,
    cut: u64,
    rejected: BTreeMap<&'static str, u64>,
    /// Whether there is more than one replay takes.
    more: bool,
}

fn replay(
    file: &JobFile,
    job: &CompiledJob,
    letters: Letters<'_>,
    to: &std::path::Path,
    dry_run: bool,
) -> Result<(), Failure> {
    let invalid = |error: anyhow::Error| Failure::Other(Exit::Invalid, error);
    let ledger = Ledger::open(letters.lake, letters.job)?;
    let mut ledger = ledger.context("another replay of this job is at work").map_err(invalid)?;
    carry_out(&ledger)?;
    if to.exists() {
        let error = anyhow::anyhow!("\"{}\" is there already: a replay makes a file of its own", to.display());
        return Err(invalid(error));
    }
    let mut chances = SecondChances::new(&file.format, job.intake.clone(), wall_clock())?;
    let replayed = ledger.replayed();
    let (mut tally, mut ids, mut records, mut bytes) = (Tally::default(), Vec::new(), Vec::new(), 0);
    let mut seen = std::collections::HashSet::new();
    letters.visit(|_, letter| {
        let id = letter.id();
        if replayed.contains(&id) || !seen.insert(id) {
            tally.replayed_before += 1;
        } else if records.len() >= REPLAY_RECORDS_MAX || bytes >= REPLAY_BYTES_MAX {
            tally.more = true;
        } else {
            match chances.of(&letter) {
                Chance::Event(record) => {
                    bytes += record.len();
                    ids.push(id);
                    records.push((letter.partition, record));
                }
                Chance::Rejected(reason) => *tally.rejected.entry(reason).or_default() += 1,
                Chance::Cut => tally.cut += 1,
            }
        }
    })?;
    tally.events = records.len();
    if !dry_run && !records.is_empty() {
        let mut target = FileTarget { path: absolute(to).map_err(invalid)? };
        let number = ledger.begin(&target, wall_clock(), ids, &records)?;
        ledger.finish(number, &mut target)?;
    }
    report(&tally, to, dry_run);
    Ok(())
}

/// A replay that was interrupted comes first: it counts already.
fn carry_out(ledger: &Ledger) -> Result<(), Failure> {
    while let Some(entry) = ledger.unfinished() {
        let mut target = FileTarget { path: PathBuf::from(&entry.target) };
        let records = ledger.finish(entry.number, &mut target)?;
        eprintln!("replay {} had been interrupted: its {records} records are in {} now", entry.number, target.name());
    }
    Ok(())
}

/// The ledger names files for whoever looks into it later, from wherever.
fn absolute(path: &std::path::Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("\"{}\" is no path", path.display()))
}

fn report(tally: &Tally, to: &std::path::Path, dry_run: bool) {
    let would = if dry_run { "would be put into" } else { "are in" };
    eprintln!("{} records {would} {}", grouped(tally.events as u64), to.display());
    let left = |what: &str, count: u64| {
        if count > 0 {
            eprintln!("{:>12} {what}", grouped(count));
        }
    };
    left("were replayed before", tally.replayed_before);
    left("are cut: the table holds only their beginning", tally.cut);
    for (reason, count) in &tally.rejected {
        left(&format!("are still no events: {reason}"), *count);
    }
    if tally.more {
        eprintln!("there are more: replay again, into another file");
    }
}
