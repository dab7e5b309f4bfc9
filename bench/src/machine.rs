//! What numbers are of: the commit, the machine, and how busy it was.

use std::{fs, path::Path, process::Command};

use serde::Serialize;

/// A machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// As the processor calls itself.
    pub cpu: String,
    /// Threads that can run at a time.
    pub cores: usize,
    /// Memory in all.
    pub memory_bytes: u64,
    /// Operating system and processor family.
    pub system: String,
}

impl Machine {
    /// This machine; what it does not tell is empty.
    #[must_use]
    pub fn this() -> Machine {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Machine {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: memory_bytes().unwrap_or_default(),
            system: format!("{} {} {}", std::env::consts::OS, kernel.trim(), std::env::consts::ARCH),
        }
    }
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

fn memory_bytes() -> Option<u64> {
    field("/proc/meminfo", "MemTotal")?.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Processes that wanted to run, mean of the last minute; none where `/proc` is missing.
#[must_use]
pub fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// The commit that `folder` is at, with `-dirty` where files differ from it; `unknown` outside a repository.
#[must_use]
pub fn commit(folder: &Path) -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "HEAD"]) else { return "unknown".to_owned() };
    // Results of the bench itself do not count as a change.
    match git(&["status", "--porcelain", "--", ".", ":!bench/results"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => format!("{commit}-dirty"),
    }
}
