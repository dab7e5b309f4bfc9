//! `whisperer checkpoints`: lists, inspects and verifies checkpoints, and sends a job back to one of them.

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use comfy_table::{CellAlignment, Table, presets::NOTHING};
use serde_json::json;
use whisperer_connectors::state::{StateStore, StoreError, resolve::Standing};
use whisperer_schemas::{checkpoint::Manifest, time::format_micros};

use crate::{
    job_file::{CheckpointSettings, Overrides},
    operations::checkpoints::{self, Listed, RestoreError},
};

use super::{Exit, Failure, Form, grouped, load, state::open_state, wall_clock};

/// Arguments of `checkpoints`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The job file, which names the state folder.
    #[arg(required_unless_present = "state")]
    job: Option<PathBuf>,
    /// The state folder, if not the job's own.
    #[arg(long, value_name = "DIR", global = true)]
    state: Option<PathBuf>,
    /// text or json.
    #[arg(long, value_enum, default_value_t = Form::Text, global = true)]
    format: Form,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// All manifests: checkpoints, and the claims of generations.
    List,
    /// What a manifest says.
    Inspect {
        /// Its number.
        number: u64,
    },
    /// Read everything that a checkpoint needs, and check it.
    Verify {
        /// Its number; the newest one if left out.
        number: Option<u64>,
    },
    /// Make the next run start from a checkpoint. A run that is alive stops.
    Restore {
        /// Its number.
        number: u64,
        /// Even if what was put out since comes again.
        #[arg(long)]
        repeat_outputs: bool,
    },
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let store = open(arguments)?;
    let done = match &arguments.action {
        Action::List => list(&*store, arguments.format),
        Action::Inspect { number } => inspect(&*store, *number, arguments.format),
        Action::Verify { number } => verify(&*store, *number, arguments.format),
        Action::Restore { number, repeat_outputs } => {
            return restore(&*store, *number, *repeat_outputs);
        }
    };
    done.map_err(|error| Failure::Other(Exit::Failed, error))
}

fn open(arguments: &Arguments) -> Result<Box<dyn StateStore>, Failure> {
    let settings = match (&arguments.job, &arguments.state) {
        (None, Some(state)) => CheckpointSettings::at(state.clone()),
        (job, state) => {
            let job = job.as_ref().expect("the arguments ask for one where no state folder is named");
            let overrides = Overrides { state: state.clone(), ..Overrides::default() };
            load(job, &overrides)?.0.operations.checkpoint
        }
    };
    open_state(&settings)
}

fn list(store: &dyn StateStore, format: Form) -> anyhow::Result<()> {
    let all = checkpoints::list(store)?;
    if format == Form::Json {
        let all: Vec<_> = all.iter().map(as_json).collect();
        println!("{:#}", json!(all));
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["number", "written", "generation", "epoch", "workers", "bytes", ""]);
    table.add_rows(all.iter().map(row));
    for column in [0, 2, 3, 4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{table}");
    Ok(())
}

fn row(listed: &Listed) -> [String; 7] {
    let of = |get: &dyn Fn(&Manifest) -> Option<String>| listed.manifest.as_ref().and_then(get).unwrap_or_default();
    [
        listed.number.to_string(),
        of(&|manifest| Some(format_micros(manifest.written).to_string())),
        of(&|manifest| Some(manifest.generation.to_string())),
        of(&|manifest| Some(manifest.cut.as_ref()?.epoch.0.to_string())),
        of(&|manifest| Some(manifest.cut.as_ref()?.workers.to_string())),
        if listed.bytes() > 0 { grouped(listed.bytes()) } else { String::new() },
        standing(listed),
    ]
}

fn standing(listed: &Listed) -> String {
    match listed.standing {
        Standing::Live => "checkpoint".to_owned(),
        Standing::Abandoned => "checkpoint, left behind by a restore".to_owned(),
        Standing::Damaged => "cannot be read".to_owned(),
        Standing::Claim => match listed.manifest.as_ref().and_then(|manifest| manifest.restored) {
            Some(number) => format!("start from {number}"),
            None => "first start".to_owned(),
        },
    }
}

fn as_json(listed: &Listed) -> serde_json::Value {
    let standing = match listed.standing {
        Standing::Live => "live",
        Standing::Abandoned => "abandoned",
        Standing::Damaged => "damaged",
        Standing::Claim => "claim",
    };
    json!({ "number": listed.number, "standing": standing, "bytes": listed.bytes(), "manifest": listed.manifest })
}

fn inspect(store: &dyn StateStore, number: u64, format: Form) -> anyhow::Result<()> {
    let all = checkpoints::list(store)?;
    let listed = all.iter().find(|listed| listed.number == number);
    let listed = listed.with_context(|| format!("there is no manifest {number}; `list` shows those that are there"))?;
    let Some(manifest) = &listed.manifest else { anyhow::bail!("manifest {number} cannot be read") };
    if format == Form::Json {
        println!("{:#}", as_json(listed));
        return Ok(());
    }
    println!("manifest {number}: {}", standing(listed));
    println!("job {:?}, version {}, fingerprint {}", manifest.job, manifest.job_version, manifest.fingerprint);
    println!("written {} by generation {}", format_micros(manifest.written), manifest.generation);
    let Some(cut) = &manifest.cut else { return Ok(()) };
    println!("epoch {}, taken by {} workers", cut.epoch.0, cut.workers);
    println!(
        "base up to epoch {}, {} files elsewhere; {} deltas",
        cut.base.epoch.0,
        cut.base.files.len(),
        cut.deltas.len()
    );
    for delta in &cut.deltas {
        println!("  {}  {} bytes", delta.name, grouped(delta.bytes));
    }
    if !cut.rows.is_empty() {
        println!("rows that wait for their files, in {} deltas", cut.rows.len());
        for delta in &cut.rows {
            println!("  {}", delta.name);
        }
    }
    println!("next offset by partition");
    for (partition, offset) in &cut.positions {
        let clock = cut.clocks.get(partition).map(|time| format!(", event time {}", format_micros(*time)));
        let ended = if cut.ended.contains(partition) { ", ended" } else { "" };
        println!("  {partition:>5}  {offset}{}{ended}", clock.unwrap_or_default());
    }
    for (table, digest) in &cut.digests {
        println!("digest of {table}  {digest}");
    }
    for (name, count) in &cut.counts {
        println!("{name}  {}", grouped(*count));
    }
    Ok(())
}

fn verify(store: &dyn StateStore, number: Option<u64>, format: Form) -> anyhow::Result<()> {
    let verified = checkpoints::verify(store, number)?.context("there is no checkpoint yet")?;
    match format {
        Form::Json => println!("{}", json!({ "number": verified.number, "states": verified.states, "whole": true })),
        _ => println!("checkpoint {} is whole: {} states", verified.number, grouped(verified.states)),
    }
    Ok(())
}

fn restore(store: &dyn StateStore, number: u64, repeat_outputs: bool) -> Result<(), Failure> {
    match checkpoints::restore(store, number, repeat_outputs, wall_clock()) {
        Ok(claim) => {
            eprintln!("manifest {claim}: the next run starts from checkpoint {number}");
            Ok(())
        }
        // A number that is none, or outputs that would come again, are the caller's to put right.
        Err(RestoreError::Store(error @ (StoreError::NotRestorable { .. } | StoreError::Repeats { .. }))) => {
            Err(Failure::Other(Exit::Invalid, error.into()))
        }
        Err(error) => Err(Failure::Other(Exit::Failed, error.into())),
    }
}
