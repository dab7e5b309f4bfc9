//! `whisperer export`: everything that is held on one user, as JSON and Parquet.
//!
//! ```text
//! tables of the lakes      ─┐
//! rows that wait for files ─┼─▶ export.json, profiles.parquet, decisions.parquet, dead_letters.parquet, state.parquet
//! state of the checkpoint  ─┘
//! ```
//! Topics and files of decisions hold the same rows once more; where they are is said and not read.

use std::{
    collections::{BTreeSet, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use serde_json::{Value as Json, json};
use whisperer_connectors::state::{Loading, StateStore};
use whisperer_operators::{
    job::CompiledJob,
    keyed::KeyedSetup,
    keys::Outputs,
    layout::StateLayout,
    spec::{Entity, JobSpec},
};
use whisperer_schemas::{Epoch, KeyHash, Row, TableSchema, checkpoint::Cut, row_hash, time::format_micros};
use whisperer_sinks::{Scan, SinkError, TextEquals, bytes_to_rows, ndjson, scan, write_rows};

use crate::{
    job_file::{JobFile, LakeTable, Overrides, SinkSettings},
    operations::checkpoints,
    runtime::rows_waiting,
};

use super::{Exit, Failure, JobArgument, load, state::open_state, wall_clock};

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    job: JobArgument,
    /// The user's id.
    user: String,
    /// The application, where the id is not enough.
    #[arg(long)]
    app: Option<String>,
    /// The lake that the job writes to, if not its own.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// The state folder, if not the job's own.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// A folder for the JSON and a Parquet file of each table; without one the JSON goes to stdout.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

/// What is held on a user.
struct Held {
    /// Rows by what they are of: the tables, and the state of the checkpoint as a profile.
    tables: Vec<(&'static str, TableSchema, Vec<Row>)>,
    /// The checkpoint that was looked into.
    checkpoint: Option<u64>,
    /// Places that hold rows of theirs once more.
    elsewhere: Vec<String>,
}

/// Whose rows and states are looked for.
struct Search<'a> {
    file: &'a JobFile,
    job: Arc<CompiledJob>,
    user: &'a str,
    app: Option<&'a str>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (output, state) = (arguments.output.clone(), arguments.state.clone());
    let (file, job) = load(&arguments.job.job, &Overrides { output, state, ..Overrides::default() })?;
    let store = match &file.operations.checkpoint.dir {
        Some(dir) if dir.is_dir() || arguments.state.is_some() => Some(open_state(&file.operations.checkpoint)?),
        _ => None,
    };
    let search = Search { file: &file, job: Arc::new(job), user: &arguments.user, app: arguments.app.as_deref() };
    let failed = |error| Failure::Other(Exit::Failed, error);
    let held = search.all(store.as_deref()).map_err(failed)?;
    if held.tables.iter().all(|(_, _, rows)| rows.is_empty()) {
        return Err(failed(anyhow::anyhow!("nothing is held on the user \"{}\"", arguments.user)));
    }
    let json = search.as_json(&held).map_err(|error| failed(error.into()))?;
    match &arguments.to {
        None => println!("{json:#}"),
        Some(folder) => write(folder, &held, &json).map_err(failed)?,
    }
    Ok(())
}

impl Search<'_> {
    fn all(&self, store: Option<&dyn StateStore>) -> anyhow::Result<Held> {
        // The checkpoint first: rows whose files are closed meanwhile are found in those.
        let newest = store.map(checkpoints::newest).transpose()?.flatten();
        let checkpoint = newest.as_ref().map(|(manifest, _)| manifest.number);
        let cut = newest.map(|(_, cut)| cut);
        let waits = store.zip(cut.as_ref());
        let tables = [
            (LakeTable::Profiles, (*self.job.profiles).clone()),
            (LakeTable::Decisions, (*self.job.decisions).clone()),
            (LakeTable::DeadLetters, TableSchema::dead_letters()),
        ];
        let mut held = Held { tables: Vec::new(), checkpoint, elsewhere: self.elsewhere() };
        for (table, schema) in tables {
            let rows = self.rows(table, &schema, waits)?;
            held.tables.push((schema.name, schema, rows));
        }
        let apps = self.apps(&held.tables);
        let states = match waits {
            Some((store, cut)) => self.states(store, cut, &apps)?,
            None => Vec::new(),
        };
        held.tables.push(("state", (*self.job.profiles).clone(), states));
        Ok(held)
    }

    /// The user's rows of a table: those in files, and those that wait for them.
    fn rows(
        &self,
        table: LakeTable,
        schema: &TableSchema,
        waits: Option<(&dyn StateStore, &Cut)>,
    ) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        let lakes = self.file.sinks.iter().filter_map(|sink| match sink {
            SinkSettings::Parquet { table: of, path, .. } if *of == table => Some(path),
            _ => None,
        });
        for lake in lakes.collect::<BTreeSet<_>>().into_iter().filter(|lake| lake.is_dir()) {
            // A record that is no event has no columns to be found by.
            let user = schema.column_index("user_id").map(|_| TextEquals { column: "user_id", value: self.user });
            let all = Scan { lake, job: &self.job.name, schema, conditions: user.as_slice() };
            scan(all, |row| rows.extend(Some(row).filter(|row| self.is_theirs(schema, row))))?;
        }
        let mut seen: HashSet<u128> = rows.iter().map(|row| row_hash(schema, &row.values)).collect();
        if let Some((store, cut)) = waits {
            rows_waiting(store, cut, schema.name, &mut |bytes| {
                let waiting = bytes_to_rows(schema, bytes)?.into_iter().filter(|row| self.is_theirs(schema, row));
                rows.extend(waiting.filter(|row| seen.insert(row_hash(schema, &row.values))));
                Ok(())
            })?;
        }
        Ok(rows)
    }

    fn is_theirs(&self, schema: &TableSchema, row: &Row) -> bool {
        let text = |name: &str| schema.column_index(name).and_then(|at| row.values.get(at)?.as_text());
        match schema.column_index("raw").and_then(|at| row.values.get(at)) {
            Some(raw) => raw.as_bytes().is_some_and(|raw| mentions(raw, self.user.as_bytes())),
            None => text("user_id") == Some(self.user) && self.app.is_none_or(|app| text("app_id") == Some(app)),
        }
    }

    /// The applications in which the user is known.
    fn apps(&self, tables: &[(&'static str, TableSchema, Vec<Row>)]) -> BTreeSet<String> {
        let mut apps: BTreeSet<String> = self.app.map(str::to_owned).into_iter().collect();
        for (_, schema, rows) in tables {
            let Some(at) = schema.column_index("app_id") else { continue };
            apps.extend(rows.iter().filter_map(|row| row.values[at].as_text().map(str::to_owned)));
        }
        apps
    }

    /// The states of a checkpoint under which the user is kept, as profiles.
    fn states(&self, store: &dyn StateStore, cut: &Cut, apps: &BTreeSet<String>) -> anyhow::Result<Vec<Row>> {
        let JobSpec { entity, .. } = self.file.spec;
        let keys: BTreeSet<KeyHash> = match entity {
            Entity::User => BTreeSet::from([KeyHash::of(&[self.user])]),
            Entity::AppUser => apps.iter().map(|app| KeyHash::of(&[app, self.user])).collect(),
        };
        store.prepare(Some(cut))?;
        let mut loading = Loading::open(store, cut)?;
        if loading.layout().is_empty() || keys.is_empty() {
            return Ok(Vec::new());
        }
        let old = StateLayout::from_bytes(loading.layout())?;
        let mut setup = KeyedSetup::new(self.job.clone(), 0);
        setup.clocks.restore(cut.clocks.clone(), cut.ended.iter().copied());
        setup.clocks.hold(cut.watermark);
        let (watermark, mut outputs) = (setup.clocks.watermark(), Outputs::default());
        let mut restoring = setup.keys.restore(old, &self.file.spec, (watermark, cut.epoch.0));
        let groups: BTreeSet<u64> = keys.iter().map(|key| key.group()).collect();
        let mut restored = Ok(());
        loading.states(&|group| groups.contains(&group), &mut |key, bytes| {
            if keys.contains(&key) && restored.is_ok() {
                restored = restoring.state(key, bytes, &mut outputs);
            }
        })?;
        restored?;
        setup.keys.finish(watermark, (0, usize::MAX), Epoch(cut.epoch.0), &mut outputs);
        Ok(outputs.profiles)
    }

    fn elsewhere(&self) -> Vec<String> {
        let place = |sink: &SinkSettings| match sink {
            SinkSettings::Parquet { .. } | SinkSettings::Stdout => None,
            SinkSettings::File { path } => Some(format!("file {}", path.display())),
            SinkSettings::Kafka(kafka) => Some(format!("topic {}", kafka.topic)),
        };
        self.file.sinks.iter().filter_map(place).collect()
    }

    fn as_json(&self, held: &Held) -> Result<Json, SinkError> {
        let mut json = json!({
            "job": self.job.name,
            "user_id": self.user,
            "app_id": self.app,
            "exported": format_micros(wall_clock()).to_string(),
            "checkpoint": held.checkpoint,
            "elsewhere": held.elsewhere,
        });
        for (name, schema, rows) in &held.tables {
            json[*name] = rows.iter().map(|row| as_json(schema, row)).collect::<Result<Json, _>>()?;
        }
        Ok(json)
    }
}

fn as_json(schema: &TableSchema, row: &Row) -> Result<Json, SinkError> {
    let line = ndjson::line(schema, row)?;
    Ok(serde_json::from_slice(&line).expect("a line is a JSON object"))
}

/// Whether an id stands in a record as a whole, and not as a part of a longer one.
fn mentions(record: &[u8], id: &[u8]) -> bool {
    let part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(byte));
    let whole =
        |at: usize| !part(at.checked_sub(1).and_then(|before| record.get(before))) && !part(record.get(at + id.len()));
    !id.is_empty() && (0..record.len().saturating_sub(id.len() - 1)).any(|at| record[at..].starts_with(id) && whole(at))
}

fn write(folder: &Path, held: &Held, json: &Json) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create \"{}\"", folder.display()))?;
    for (name, schema, rows) in &held.tables {
        write_rows(&folder.join(format!("{name}.parquet")), schema, rows)?;
    }
    let path = folder.join("export.json");
    whisperer_sinks::durable::write_whole(&path, format!("{json:#}\n").as_bytes())?;
    let counts: Vec<String> = held.tables.iter().map(|(name, _, rows)| format!("{name} {}", rows.len())).collect();
    eprintln!("{}: {}", path.display(), counts.join(", "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_as_a_whole() {
        // Goal: an id in quotes, in a cell or at an end is found; a part of another one is not.
        for record in ["{\"user_id\":\"ann\"}", "ann,5", "5,ann", "x=ann;", "ann"] {
            assert!(mentions(record.as_bytes(), b"ann"), "{record}");
        }
        for record in ["channel", "ann_2", "joann", "ann-marie", "an", ""] {
            assert!(!mentions(record.as_bytes(), b"ann"), "{record}");
        }
    }
}
