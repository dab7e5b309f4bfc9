//! Files of results: what a command measured, as JSON.

use std::{fs, path::Path};

use anyhow::Context;
use serde::Serialize;

/// Writes `NAME.json` into a folder, and says where it is.
///
/// # Errors
/// A folder that cannot be written.
pub fn write(folder: &Path, name: &str, results: &impl Serialize) -> anyhow::Result<()> {
    let path = folder.join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(results).context("cannot write the results as JSON")?;
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, text + "\n"))
        .with_context(|| format!("cannot write the results to \"{}\"", path.display()))?;
    eprintln!("results: {}", path.display());
    Ok(())
}
