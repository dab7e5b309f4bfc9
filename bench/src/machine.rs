//! What numbers are of: the commit, the machine, and how busy it was.

use std::{fs, path::Path, process::Command, time::Duration};

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

/// Time that cores have spent since the machine started; none of it where `/proc` is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CoreTime {
    /// On whatever there was to do.
    pub busy: Duration,
    /// Taken away by other machines on the same hardware.
    pub stolen: Duration,
}

impl CoreTime {
    /// Up to now.
    #[must_use]
    pub fn now() -> CoreTime {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let first = text.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = first.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
        // user, nice, system, idle, waiting for disks, two kinds of interrupts, stolen
        let of = |fields: &[usize]| duration(fields.iter().filter_map(|at| ticks.get(*at)).sum());
        CoreTime { busy: of(&[0, 1, 2, 5, 6]), stolen: of(&[7]) }
    }
}

/// Time that a process has spent on the cores, user and system; none where `/proc` is missing.
#[must_use]
pub fn cpu_time_of(process: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the command in parentheses, which may hold spaces; user and system time are fields 14 and 15.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(duration(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?))
}

/// Linux counts the time of cores in hundredths of a second on every architecture.
fn duration(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 10)
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
