//! `whisperer explain`: a user's profile, what made its scores, its timers and its decisions so far, from a finished run's tables.

use std::{fmt::Write, path::PathBuf};

use anyhow::Context;
use serde_json::json;
use whisperer_operators::job::CompiledJob;
use whisperer_schemas::{Row, TableSchema, Value, time::format_micros};
use whisperer_sinks::{TextEquals, manifest, ndjson, read_where};

use crate::job_file::{JobFile, LakeTable, Overrides, SinkSettings};

use super::{Exit, Failure, Form, JobArgument, load};

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    job: JobArgument,
    /// The user's id.
    user: String,
    /// The application, where the id is not enough.
    #[arg(long)]
    app: Option<String>,
    /// The lake that the run wrote to, if not the job's own.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// The form of the explanation.
    #[arg(long, value_enum, default_value_t = Form::Text)]
    format: Form,
}

/// What the tables hold of one user.
struct Found {
    profiles: Vec<Row>,
    decisions: Vec<Row>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let overrides = Overrides { output: arguments.output.clone(), ..Overrides::default() };
    let (file, job) = load(&arguments.job.job, &overrides)?;
    let found = find(arguments, &file, &job).map_err(|error| Failure::Other(Exit::Failed, error))?;
    if found.profiles.is_empty() {
        let error = anyhow::anyhow!(
            "the run has no user \"{}\": it read no valid event of theirs (rejected records are in the table dead_letters)",
            arguments.user
        );
        return Err(Failure::Other(Exit::Failed, error));
    }
    match arguments.format {
        Form::Json => {
            let explained = as_json(&job, &found).map_err(|error| Failure::Other(Exit::Failed, error))?;
            println!("{explained:#}");
        }
        Form::Text | Form::Mermaid => print!("{}", as_text(&job, &found)),
    }
    Ok(())
}

fn find(arguments: &Arguments, file: &JobFile, job: &CompiledJob) -> anyhow::Result<Found> {
    let rows = |wanted: LakeTable, schema: &TableSchema| -> anyhow::Result<Vec<Row>> {
        let lake = file.sinks.iter().find_map(|sink| match sink {
            SinkSettings::Parquet { table, path, .. } if *table == wanted => Some(path),
            _ => None,
        });
        let Some(lake) = lake else { return Ok(Vec::new()) };
        let run = manifest::latest(lake, &job.name)?;
        run.with_context(|| format!("no run of \"{}\" has ended in \"{}\": run it first", job.name, lake.display()))?;
        let mut conditions = vec![TextEquals { column: "user_id", value: &arguments.user }];
        conditions.extend(arguments.app.as_deref().map(|value| TextEquals { column: "app_id", value }));
        Ok(read_where(lake, &job.name, schema, &conditions)?)
    };
    let mut profiles = rows(LakeTable::Profiles, &job.profiles)?;
    let last = job.profiles.column_index("final").context("profiles have a column `final`")?;
    profiles.retain(|row| row.values[last].as_bool() == Some(true));
    let mut decisions = rows(LakeTable::Decisions, &job.decisions)?;
    let time = job.decisions.column_index("event_time").context("decisions have a column `event_time`")?;
    decisions.sort_by_key(|row| row.values[time].as_time());
    Ok(Found { profiles, decisions })
}

fn as_json(job: &CompiledJob, found: &Found) -> anyhow::Result<serde_json::Value> {
    let rows = |table: &TableSchema, rows: &[Row]| -> anyhow::Result<Vec<serde_json::Value>> {
        rows.iter().map(|row| Ok(serde_json::from_slice(&ndjson::line(table, row)?)?)).collect()
    };
    Ok(json!({
        "profiles": rows(&job.profiles, &found.profiles)?,
        "decisions": rows(&job.decisions, &found.decisions)?,
    }))
}

fn as_text(job: &CompiledJob, found: &Found) -> String {
    let mut text = String::new();
    for row in &found.profiles {
        profile(&mut text, &job.profiles, row);
    }
    // Writing to a string cannot fail.
    let _ = writeln!(text, "decisions: {}", found.decisions.len());
    for row in &found.decisions {
        decision(&mut text, job, row);
    }
    text
}

fn profile(text: &mut String, table: &TableSchema, row: &Row) {
    for (column, value) in table.columns.iter().zip(&row.values) {
        if column.is_internal() || column.name == "final" {
            continue;
        }
        let unit = if matches!(column.unit.as_str(), "" | "1" | "us") { "" } else { &column.unit };
        match value {
            Value::List(structs) => {
                let _ = writeln!(text, "{}:", column.name);
                for fields in structs {
                    let fields: Vec<String> = fields.iter().map(shown).collect();
                    let _ = writeln!(text, "    {}", fields.join("  "));
                }
            }
            value => {
                let _ = writeln!(text, "{:<32} {} {unit}", column.name, shown(value));
            }
        }
    }
}

/// One line: when, which trigger, what caused it, and the scores then.
fn decision(text: &mut String, job: &CompiledJob, row: &Row) {
    let at = |name: &str| job.decisions.column_index(name).map_or(String::new(), |at| shown(&row.values[at]));
    let scores: Vec<String> = job.scores.iter().map(|score| format!("{} {}", score.name, at(&score.name))).collect();
    let _ = writeln!(
        text,
        "  {}  {}  cause {}  stage {}  {}",
        at("event_time"),
        at("trigger"),
        at("cause"),
        at("lifecycle_stage"),
        scores.join(", ")
    );
}

pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Number(number) => format!("{number:.4}"),
        Value::Text(text) => text.to_string(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Time(time) => format_micros(*time).to_string(),
        Value::List(items) => format!("{} items", items.len()),
    }
}
