//! `whisperer views`: what is known of all users at once, from a run's tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use comfy_table::{Table, presets::NOTHING};
use whisperer_operators::{expression::did_you_mean, job::CompiledJob};
use whisperer_schemas::{Micros, Row, TableSchema, Value, time::parse_rfc3339};
use whisperer_sinks::{ndjson, read_table};

use super::{Exit, Failure, Form, JobArgument, load};
use crate::job_file::{JobFile, LakeTable, Overrides, SinkSettings};

/// How often `--follow` looks for new files.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Arguments of `views`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    job: JobArgument,
    /// The view; without one, all views and how many rows each has.
    name: Option<String>,
    /// The contents when the job's watermark stood at this event time, at the last checkpoint before it.
    #[arg(long, value_name = "TIME")]
    as_of: Option<String>,
    /// Print every change as a JSON object a line, and go on as checkpoints bring more.
    #[arg(long, conflicts_with = "as_of")]
    follow: bool,
    /// The lake that the run writes to, if not the job's own.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// The form of the contents.
    #[arg(long, value_enum, default_value_t = Form::Text)]
    format: Form,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let overrides = Overrides { output: arguments.output.clone(), ..Overrides::default() };
    let (file, job) = load(&arguments.job.job, &overrides)?;
    let done = match &arguments.name {
        None => list(&file, &job),
        Some(name) => show(arguments, (&file, &job), name),
    };
    done.map_err(|error| Failure::Other(Exit::Failed, error))
}

/// The lake in which a view's table is.
fn lake_of(file: &JobFile, view: usize) -> Option<&PathBuf> {
    file.sinks.iter().find_map(|sink| match sink {
        SinkSettings::Parquet { table: LakeTable::View(at), path, .. } if *at == view => Some(path),
        _ => None,
    })
}

fn list(file: &JobFile, job: &CompiledJob) -> anyhow::Result<()> {
    for (at, view) in job.views.each.iter().enumerate() {
        let rows = match lake_of(file, at) {
            Some(lake) => contents(&view.table, read_table(lake, &job.name, &view.table)?, None).len().to_string(),
            None => "no sink".to_owned(),
        };
        println!("{:<32} {rows}", view.name);
    }
    Ok(())
}

fn show(arguments: &Arguments, (file, job): (&JobFile, &CompiledJob), name: &str) -> anyhow::Result<()> {
    let Some(at) = job.views.each.iter().position(|view| view.name == name) else {
        let hint = did_you_mean(name, job.views.each.iter().map(|view| view.name.as_str()));
        let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        bail!("the job has no view \"{name}\"{hint}");
    };
    let table = &job.views.each[at].table;
    let lake =
        lake_of(file, at).with_context(|| format!("no [[sink]] of the job writes the table \"{}\"", table.name))?;
    if arguments.follow {
        return follow(lake, job, table);
    }
    let as_of = match &arguments.as_of {
        Some(text) => {
            let time = parse_rfc3339(text.as_bytes());
            Some(time.with_context(|| format!("--as-of: \"{text}\" is no time such as 2026-01-31T00:00:00Z"))?)
        }
        None => None,
    };
    let rows = contents(table, read_table(lake, &job.name, table)?, as_of);
    match arguments.format {
        Form::Json => print_lines(table, &rows)?,
        Form::Text | Form::Mermaid => println!("{}", as_text(table, &rows)),
    }
    Ok(())
}

/// What the changes of a table add up to, without those that came after `as_of`, in the order of their columns.
fn contents(table: &TableSchema, rows: Vec<Row>, as_of: Option<Micros>) -> Vec<Row> {
    let index = |name: &str| table.column_index(name);
    let (Some(diff), Some(since), Some(time)) = (table.diff_index(), index("_since"), index("_as_of")) else {
        return rows;
    };
    let early = |row: &Row| as_of.is_none_or(|as_of| row.values[time].as_time() <= Some(as_of));
    let rows: Vec<Row> = rows.into_iter().filter(early).collect();
    // A view that was begun anew has nothing to do with what it was before.
    let newest = rows.iter().filter_map(|row| row.values[since].as_int()).max();
    let mut sums: BTreeMap<String, (i64, Row)> = BTreeMap::new();
    for row in rows.into_iter().filter(|row| row.values[since].as_int() == newest) {
        let key = format!("{:?}", own(table, &row).collect::<Vec<_>>());
        let sum = sums.entry(key).or_insert((0, row.clone()));
        sum.0 += row.values[diff].as_int().unwrap_or_default();
    }
    let mut rows: Vec<Row> = sums.into_values().filter(|(count, _)| *count != 0).map(|(_, row)| row).collect();
    rows.sort_by(|one, other| {
        let pairs = own(table, one).zip(own(table, other));
        pairs.map(|(a, b)| order(a, b)).find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
    });
    rows
}

/// The values of the view's own columns.
fn own<'a>(table: &'a TableSchema, row: &'a Row) -> impl Iterator<Item = &'a Value> {
    table.columns.iter().zip(&row.values).filter(|(column, _)| !column.is_internal()).map(|(_, value)| value)
}

fn order(one: &Value, other: &Value) -> std::cmp::Ordering {
    match (one, other) {
        (Value::Int(a), Value::Int(b)) | (Value::Time(a), Value::Time(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => a.total_cmp(b),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        // What is missing comes first.
        (a, b) => (*b == Value::Null).cmp(&(*a == Value::Null)),
    }
}

fn as_text(table: &TableSchema, rows: &[Row]) -> String {
    let mut text = Table::new();
    text.load_style(NOTHING);
    let names = table.columns.iter().filter(|column| !column.is_internal()).map(|column| column.name.as_str());
    text.set_header(names);
    for row in rows {
        text.add_row(own(table, row).map(super::explain::shown));
    }
    text.trim_fmt()
}

fn print_lines(table: &TableSchema, rows: &[Row]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for row in rows {
        out.write_all(&ndjson::line(table, row)?)?;
    }
    Ok(out.flush()?)
}

/// Prints the changes that are there, and then those that come. A file that appears late belongs to an epoch that was printed in part, so
/// what was printed is known row by row.
fn follow(lake: &Path, job: &CompiledJob, table: &TableSchema) -> anyhow::Result<()> {
    let mut printed: BTreeSet<String> = BTreeSet::new();
    let places = ["_since", "_epoch"].map(|name| table.column_index(name));
    let commit = |row: &Row| places.map(|at| at.and_then(|at| row.values[at].as_int()));
    loop {
        let mut rows = read_table(lake, &job.name, table)?;
        rows.retain(|row| printed.insert(format!("{:?}", row.values)));
        rows.sort_by_key(commit);
        print_lines(table, &rows)?;
        thread::sleep(LOOK_EVERY);
    }
}
