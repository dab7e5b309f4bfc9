//! Jobs at work, looked at through what they serve.

pub mod inside;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "otel")]
pub mod traces;

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How long a job, or a broker, may take for anything.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Looks until there is something to be seen.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(started.elapsed() < PATIENCE, "{what}: not in time");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A job file in a folder of its own.
pub struct Job(TempDir);

impl Job {
    pub fn new(text: &str) -> Job {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("job.toml"), text).expect("the job is written");
        Job(folder)
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    /// What it logs.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }

    /// Starts it with a server on a free port.
    pub fn start(&self, flags: &[&str]) -> Process<'_> {
        let log = fs::File::create(self.folder().join("log")).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_whisperer"));
        command.args(["run", "job.toml", "--no-pin", "--state", "state", "--listen", "127.0.0.1:0"]).args(flags);
        command.current_dir(self.folder()).env("WHISPERER_LOG", "info").stdout(Stdio::null()).stderr(log);
        Process { job: self, child: command.spawn().expect("the binary runs") }
    }
}

/// A job at work.
pub struct Process<'a> {
    job: &'a Job,
    child: Child,
}

impl Process<'_> {
    /// Where its server listens.
    pub fn address(&mut self) -> SocketAddr {
        until("a server", || {
            self.assert_alive();
            let log = self.job.log();
            let (_, rest) = log.split_once("\"address\":\"")?;
            rest.split_once('"')?.0.parse().ok()
        })
    }

    pub fn assert_alive(&mut self) {
        let ended = self.child.try_wait().expect("it can be waited for");
        assert!(ended.is_none(), "it ended with {ended:?}: {}", self.job.log());
    }

    /// Asks it to stop, and waits for its end; gives its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
        self.end()
    }

    /// Waits for its end; gives its exit code.
    pub fn end(&mut self) -> Option<i32> {
        until("its end", || self.child.try_wait().expect("it can be waited for")).code()
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        // One that has ended is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The samples of a text of metrics, by name and labels as they are written.
pub fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    lines.filter_map(sample).collect()
}

/// The sum of a metric over its labels; none where it has no sample.
pub fn sum(samples: &BTreeMap<String, f64>, name: &str) -> Option<f64> {
    let is_of = |sample: &str| sample == name || sample.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
    let mut of = samples.iter().filter(|(sample, _)| is_of(sample)).map(|(_, value)| *value).peekable();
    of.peek()?;
    Some(of.sum())
}
