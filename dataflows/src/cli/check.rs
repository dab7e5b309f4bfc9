//! `whisperer check`: validates a job, and says what an edited job does to the state that it has left.

use std::path::PathBuf;

use anyhow::Context;
use comfy_table::{Table, presets::NOTHING};
use serde_json::json;
use whisperer_operators::{
    job::CompiledJob,
    layout::{Change, Fate, StateLayout},
};
use whisperer_schemas::time::format_duration;

use crate::{
    job_file::{CheckpointSettings, JobFile, Overrides},
    operations::checkpoints,
};

use super::{Exit, Failure, Form, JobArgument, load, state::open_state};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    job: JobArgument,
    /// Say what the job would keep of the state in this folder.
    #[arg(long, value_name = "STATE_DIR")]
    against: Option<PathBuf>,
    /// The form of that answer.
    #[arg(long, value_enum, default_value_t = Form::Text, requires = "against")]
    format: Form,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (file, job) = load(&arguments.job.job, &Overrides::default())?;
    if let Some(state) = &arguments.against {
        let settings = CheckpointSettings::at(state.clone());
        return against(&file, &job, &settings, arguments.format);
    }
    println!(
        "{}: job \"{}\" is valid: {} features, {} scores, {} stages, {} triggers",
        arguments.job.job.display(),
        job.name,
        job.features.len(),
        job.scores.len(),
        job.stages.len(),
        job.triggers.len(),
    );
    Ok(())
}

fn against(file: &JobFile, job: &CompiledJob, settings: &CheckpointSettings, form: Form) -> Result<(), Failure> {
    let store = open_state(settings)?;
    let failed = |error: anyhow::Error| Failure::Other(Exit::Failed, error);
    let newest = checkpoints::newest(&*store).map_err(|error| failed(error.into()))?;
    let Some((manifest, cut)) = newest else {
        eprintln!("there is no checkpoint yet: everything starts empty");
        return Ok(());
    };
    if manifest.job != job.name {
        let error = anyhow::anyhow!("the state is that of the job \"{}\", not of \"{}\"", manifest.job, job.name);
        return Err(Failure::Other(Exit::Invalid, error));
    }
    let layout = checkpoints::layout(&*store, &cut).map_err(|error| failed(error.into()))?;
    let old = StateLayout::from_bytes(&layout).context("the newest checkpoint").map_err(failed)?;
    let changes = job.state_layout.changes(&old, &file.spec);
    match form {
        Form::Json => println!("{:#}", as_json(manifest.number, &changes)),
        _ => println!("{}", table(&changes)),
    }
    Ok(())
}

/// A line for each change, for people.
fn table(changes: &[Change]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.add_rows(changes.iter().map(|change| [change.kind.to_owned(), change.name.clone(), told(change)]));
    table
}

fn told(change: &Change) -> String {
    let warming =
        change.warms_for.map(|window| format!(", then suppressed as warming for {}", format_duration(window)));
    match (change.fate, change.kind) {
        (Fate::Kept, _) => "kept".to_owned(),
        (Fate::Dropped, _) => "dropped".to_owned(),
        (Fate::StartsEmpty, "trigger") => format!("silent first edge{}", warming.unwrap_or_default()),
        (Fate::StartsEmpty, _) => "starts empty".to_owned(),
    }
}

fn as_json(checkpoint: u64, changes: &[Change]) -> serde_json::Value {
    let fate = |change: &Change| match (change.fate, change.kind) {
        (Fate::Kept, _) => "kept",
        (Fate::Dropped, _) => "dropped",
        (Fate::StartsEmpty, "trigger") => "silent_first_edge",
        (Fate::StartsEmpty, _) => "starts_empty",
    };
    let change = |change: &Change| {
        json!({ "kind": change.kind, "name": change.name, "fate": fate(change),
                "warms_for": change.warms_for.map(|span| format_duration(span).to_string()) })
    };
    json!({ "checkpoint": checkpoint, "changes": changes.iter().map(change).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use whisperer_schemas::time::DAY;

    use super::*;

    #[test]
    fn every_fate_is_told() {
        // Goal: features and triggers are told apart, and what is warming says for how long.
        let change = |kind, fate, warms_for| Change { kind, name: "name".to_owned(), fate, warms_for };
        let all = [
            (change("feature", Fate::Kept, None), "kept"),
            (change("feature", Fate::StartsEmpty, None), "starts empty"),
            (change("feature", Fate::Dropped, None), "dropped"),
            (change("trigger", Fate::Kept, None), "kept"),
            (change("trigger", Fate::StartsEmpty, None), "silent first edge"),
            (
                change("trigger", Fate::StartsEmpty, Some(7 * DAY)),
                "silent first edge, then suppressed as warming for 7d",
            ),
        ];
        for (change, expected) in &all {
            assert_eq!(told(change), *expected);
        }
        let told = as_json(5, &[all[5].0.clone()]);
        assert_eq!(told["changes"][0]["warms_for"], "7d");
        assert_eq!(told["changes"][0]["fate"], "silent_first_edge");
    }
}
