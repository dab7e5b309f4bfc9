//! `whisperer plan`: the compiled dataflow, for people and programs.

use std::fmt::Write;

use serde_json::{Value, json};
use whisperer_operators::{
    cells::{Slot, SlotKind},
    job::CompiledJob,
    keys::KeyState,
    spec::{JobSpec, LinkSpec},
};
use whisperer_schemas::{
    VIEWS,
    time::{format_duration, format_micros},
};

use crate::job_file::{JobFile, LakeTable, Overrides, SinkSettings, SourceSettings};

use super::{Failure, Form, JobArgument, load};

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    job: JobArgument,
    /// The form of the plan.
    #[arg(long, value_enum, default_value_t = Form::Text)]
    format: Form,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (file, job) = load(&arguments.job.job, &Overrides::default())?;
    match arguments.format {
        Form::Text => print!("{}", text(&file, &job)),
        Form::Json => println!("{:#}", plan(&file, &job)),
        Form::Mermaid => print!("{}", mermaid(&file, &job)),
    }
    Ok(())
}

/// The edges of the dataflow: from, how records travel, to.
fn edges(file: &JobFile) -> Vec<(&'static str, &'static str, String)> {
    let mut edges = vec![
        ("read", "exchange by key group", "apply_keyed".to_owned()),
        ("read", "broadcast chunk facts", "apply_keyed".to_owned()),
    ];
    if !file.spec.views.is_empty() {
        edges.push(("apply_keyed", "exchange facts by group", "views".to_owned()));
    }
    for sink in &file.sinks {
        let (from, how, to) = match sink {
            SinkSettings::Parquet { table, path, .. } => {
                let (from, how, name) = match table {
                    LakeTable::DeadLetters => ("read", "rows", "dead_letters".to_owned()),
                    LakeTable::View(at) => {
                        ("views", "net changes", format!("{VIEWS}{}", file.spec.views[*at].name.value))
                    }
                    table => ("apply_keyed", "rows", snake(&format!("{table:?}"))),
                };
                (from, how, format!("parquet {}/{name}", path.display()))
            }
            SinkSettings::File { path } => {
                ("apply_keyed", "exchange to one worker", format!("ndjson {}", path.display()))
            }
            SinkSettings::Stdout => ("apply_keyed", "exchange to one worker", "stdout".to_owned()),
            SinkSettings::Kafka(kafka) => {
                let from = if kafka.table == LakeTable::DeadLetters { "read" } else { "apply_keyed" };
                (from, "rows", format!("kafka {}", kafka.topic))
            }
        };
        edges.push((from, how, to));
    }
    edges
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

fn source(file: &JobFile) -> String {
    let then = source_itself(file);
    match &file.history {
        Some(history) => format!("files {} until {}, then {then}", history.files.path, format_micros(history.until)),
        None => then,
    }
}

fn source_itself(file: &JobFile) -> String {
    match &file.source {
        SourceSettings::File(options) => format!("file {}", options.path),
        SourceSettings::Kafka(options) => format!("kafka topic {} of {}", options.topic, options.brokers),
        SourceSettings::Generator(options) => {
            format!(
                "generator: {} events of {} users, {} partitions",
                options.events, options.users, options.partitions
            )
        }
    }
}

/// Bytes of one cell of a slot.
fn cell_bytes(slot: &Slot) -> usize {
    (1 + slot.kind.width()) * size_of::<u64>()
}

/// Most cells that a slot keeps for one key, where it has a bound; sets hold `distinct_max` values.
fn cells_max(slot: &Slot) -> Option<u64> {
    match slot.kind {
        SlotKind::Values { max } => Some(u64::from(max)),
        SlotKind::Sessions { .. } => None,
        _ if slot.pane == 0 => Some(1),
        _ => u64::try_from(slot.panes).ok().filter(|_| slot.panes != i64::MAX),
    }
}

fn panes(slot: &Slot) -> String {
    match (slot.pane, slot.panes) {
        (0, _) => "lifetime".to_owned(),
        (pane, i64::MAX) => format!("every {}", format_duration(pane)),
        (pane, panes) => format!("{panes} x {}", format_duration(pane)),
    }
}

fn text(file: &JobFile, job: &CompiledJob) -> String {
    let mut text = format!("job \"{}\", version {}\nread {}\n", job.name, job.version, source(file));
    let fields: Vec<String> =
        job.intake.fields().iter().map(|field| format!("{}.{}", field.group.name(), field.path.join("."))).collect();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "  fields extracted: {}", if fields.is_empty() { "none".into() } else { fields.join(", ") });
    for (from, how, to) in edges(file) {
        let _ = writeln!(text, "{from} --[{how}]--> {to}");
    }
    let _ = writeln!(text, "state per user: {} bytes of header, and sparse cells:", size_of::<KeyState>());
    for slot in &job.layout.slots()[..job.firings] {
        let most = cells_max(slot).map_or("unbounded".to_owned(), |cells| format!("at most {cells}"));
        let _ = writeln!(text, "  {:?} over {}: {} bytes a cell, {most}", slot.kind, panes(slot), cell_bytes(slot));
    }
    let _ = writeln!(text, "timers that its conditions ask for:");
    for ask in job.asks.describe(job.layout.slots()) {
        let _ = writeln!(text, "  {ask}");
    }
    for line in identity(&file.spec) {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// How ids are linked, a line for each way.
fn identity(spec: &JobSpec) -> Vec<String> {
    let Some(identity) = &spec.identity else { return Vec::new() };
    let way = |verb: &'static str| {
        move |link: &LinkSpec| format!("  {} {verb} its user and {}", link.event.value, link.other.value)
    };
    let head = format!("persons of at most {} ids, in effect at the global watermark:", identity.component_ids_max);
    let links = identity.links.iter().map(way("links"));
    [head].into_iter().chain(links).chain(identity.unlinks.iter().map(way("parts"))).collect()
}

fn plan(file: &JobFile, job: &CompiledJob) -> Value {
    let slot = |slot: &Slot| {
        json!({
            "kind": format!("{:?}", slot.kind),
            "panes": panes(slot),
            "cell_bytes": cell_bytes(slot),
            "cells_max": cells_max(slot),
        })
    };
    let edge = |(from, how, to): (&str, &str, String)| json!({ "from": from, "how": how, "to": to });
    json!({
        "job": job.name,
        "version": job.version,
        "fingerprint": file.spec.fingerprint(),
        "source": source(file),
        "edges": edges(file).into_iter().map(edge).collect::<Vec<_>>(),
        "state": {
            "header_bytes": size_of::<KeyState>(),
            "slots": job.layout.slots()[..job.firings].iter().map(slot).collect::<Vec<_>>(),
        },
        "timers": job.asks.describe(job.layout.slots()),
        "features": job.features.iter().map(|feature| &feature.name).collect::<Vec<_>>(),
        "scores": job.scores.iter().map(|score| &score.name).collect::<Vec<_>>(),
        "stages": job.stages.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "triggers": job.triggers.iter().map(|trigger| &trigger.name).collect::<Vec<_>>(),
        "views": job.views.each.iter().map(|view| &view.name).collect::<Vec<_>>(),
        "identity": identity(&file.spec),
    })
}

fn mermaid(file: &JobFile, job: &CompiledJob) -> String {
    let mut text = format!("flowchart LR\n  read[\"read<br/>{}\"]\n", source(file));
    let _ = writeln!(
        text,
        "  apply_keyed[\"apply_keyed<br/>{} features, {} scores, {} triggers\"]",
        job.features.len(),
        job.scores.len(),
        job.triggers.len()
    );
    for (at, (from, how, to)) in edges(file).into_iter().enumerate() {
        let target = if ["apply_keyed", "views"].contains(&to.as_str()) { to } else { format!("sink{at}[\"{to}\"]") };
        let _ = writeln!(text, "  {from} -- {how} --> {target}");
    }
    text
}
