//! Jobs of the repository, changed for a measurement.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use toml::{Table, Value};

use crate::throughput::repository;

/// Job J.
pub const J: &str = "bench/jobs/j.toml";

/// The engagement job.
pub const ENGAGEMENT: &str = "config/jobs/engagement.toml";

/// Questions about all users beside the job of each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Views {
    /// As the file has them.
    Kept,
    /// None, nor their tables: what remains is what happens to each user alone.
    Dropped,
    /// So many: first those that the file has, then each of them once more by application.
    Some(usize),
}

/// A job file as a table whose paths hold wherever it is written to.
///
/// # Errors
/// A file that cannot be read, or is no job.
pub fn read(path: &str, views: Views) -> anyhow::Result<Table> {
    let path = repository().join(path);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read \"{}\"", path.display()))?;
    let mut job: Table = text.parse().with_context(|| format!("cannot read \"{}\"", path.display()))?;
    let near = path.parent().unwrap_or(Path::new("."));
    for score in sections(&mut job, "score") {
        if let Some(Value::String(model)) = score.get_mut("model") {
            *model = near.join(&*model).display().to_string();
        }
    }
    match views {
        Views::Kept => {}
        Views::Dropped | Views::Some(0) => {
            job.remove("view");
            sections(&mut job, "sink").retain(|sink| !is_of_view(sink));
        }
        Views::Some(count) => {
            let views = sections(&mut job, "view");
            let again: Vec<Value> = views.iter().filter_map(by_application).collect();
            views.extend(again);
            if views.len() < count {
                bail!("there are {} views, not {count}", views.len());
            }
            views.truncate(count);
        }
    }
    Ok(job)
}

/// Writes a job into a folder; gives the path of the file.
///
/// # Errors
/// A folder that cannot be written.
pub fn write(job: &Table, folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    let text = toml::to_string(job).context("cannot write a job")?;
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, text))
        .with_context(|| format!("cannot write \"{}\"", path.display()))?;
    Ok(path)
}

/// The sections of an array of a job, made where there is none.
pub fn sections<'a>(job: &'a mut Table, name: &str) -> &'a mut Vec<Value> {
    let array = job.entry(name).or_insert_with(|| Value::Array(Vec::new()));
    if !array.is_array() {
        *array = Value::Array(Vec::new());
    }
    array.as_array_mut().expect("it was made one")
}

/// The same view under another name, for each application.
fn by_application(view: &Value) -> Option<Value> {
    let mut view = view.as_table()?.clone();
    let name = format!("{}_by_app", view.get("name")?.as_str()?);
    view.insert("name".to_owned(), name.into());
    let names = view.entry("group_by").or_insert_with(|| Value::Array(Vec::new()));
    names.as_array_mut()?.insert(0, "app_id".into());
    Some(Value::Table(view))
}

fn is_of_view(sink: &Value) -> bool {
    sink.get("table").and_then(Value::as_str).is_some_and(|table| table.starts_with("views/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_views_as_asked_for() {
        // Goal: as many as wanted, each under its own name, and an error where there are not so many.
        for count in [1, 10, 20] {
            let mut job = read(ENGAGEMENT, Views::Some(count)).expect("a job");
            let names = sections(&mut job, "view").iter().map(|view| view["name"].to_string());
            assert_eq!(names.collect::<std::collections::BTreeSet<_>>().len(), count);
        }
        assert!(read(ENGAGEMENT, Views::Some(21)).is_err());
    }

    #[test]
    fn views_and_their_tables_are_dropped() {
        // Goal: the job as it is has views and a table of them, and without them everything else.
        let mut whole = read(ENGAGEMENT, Views::Kept).expect("a job");
        let mut rest = read(ENGAGEMENT, Views::Dropped).expect("a job");
        assert!(!sections(&mut whole, "view").is_empty());
        assert!(!rest.contains_key("view"));
        assert!(sections(&mut whole, "sink").iter().any(is_of_view));
        assert!(!sections(&mut rest, "sink").iter().any(is_of_view));
        for same in ["feature", "score", "trigger"] {
            assert_eq!(whole.get(same), rest.get(same), "{same}");
        }
    }
}
