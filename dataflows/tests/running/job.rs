//! A job in a folder of its own, run as a process that can be ended.

use std::{
    collections::BTreeMap,
    fs,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use whisperer_dataflows::job_file::{self, Overrides};
use whisperer_operators::job::CompiledJob;
use whisperer_schemas::TableSchema;
use whisperer_sinks::digest_of_table;

/// Longest run of a job that is not ended.
const RUN_MAX: Duration = Duration::from_secs(300);

/// How a process came to its end.
pub enum Ended {
    /// The input was read to its end.
    Done,
    /// By a signal.
    Killed,
    /// By itself, with an exit code and what it said.
    Failed(i32, String),
}

/// A process, killed where a test ends before it.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended is not killed any more.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Process {
    /// Starts it.
    pub fn start(mut command: Command) -> Process {
        Process(command.spawn().expect("it starts"))
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "{name} was not sent");
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("it can be waited for").is_some()
    }
}

/// What a job has put out, in a form that does not depend on how often it was interrupted.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The digest of each table, taken from its rows.
    tables: BTreeMap<&'static str, String>,
    /// The digests that the run itself has kept.
    digests: BTreeMap<String, Value>,
    /// The ids in the file of decisions, sorted.
    pub decisions: Vec<String>,
}

impl Outcome {
    /// Compares it with that of an undisturbed job.
    pub fn assert_equals(&self, expected: &Outcome, what: &str) {
        assert_eq!(self.tables, expected.tables, "{what}: digests of the tables");
        assert!(self.digests.values().all(Value::is_string), "{what}: {:?}", self.digests);
        assert_eq!(self.digests, expected.digests, "{what}: digests in the manifest of the run");
        assert_eq!(self.decisions.len(), expected.decisions.len(), "{what}: decisions in the file");
        assert_eq!(self.decisions, expected.decisions, "{what}: ids of the decisions in the file");
        assert!(self.decisions.len() > 100, "there are decisions to be compared");
    }
}

/// A job that writes into its own folder.
pub struct Job {
    folder: TempDir,
}

impl Job {
    /// The engagement job over some generated events, in small epochs with a checkpoint every ten of them.
    pub fn new(name: &str) -> Job {
        Job::edited(name, |text| text)
    }

    /// The same with its file changed.
    pub fn edited(name: &str, edit: impl FnOnce(String) -> String) -> Job {
        let folder = tempfile::Builder::new().prefix(name).tempdir().expect("a temporary folder");
        let jobs = root().join("config/jobs");
        let text = fs::read_to_string(jobs.join("engagement.toml")).expect("the job is there");
        let text = text.replace("\"models/", &format!("\"{}/models/", jobs.display()));
        let text = text.replace("= 1000000\n", "= 40000\n").replace("= 100000\n", "= 4000\n");
        let text = format!("{text}\n[epoch]\nbytes = 16384\n\n[checkpoint]\ninterval_ms = 100\n");
        fs::write(folder.path().join("job.toml"), edit(text)).expect("the job is written");
        Job { folder }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it; what it logs goes to a file.
    pub fn start(&self, flags: &[&str], variables: &[(&str, &str)]) -> Process {
        self.start_command(self.command(flags, variables))
    }

    /// Starts it; its summary goes to a file too.
    pub fn start_json(&self, flags: &[&str]) -> Process {
        let mut command = self.command(flags, &[]);
        command.arg("--json").stdout(fs::File::create(self.folder().join("summary")).expect("a file"));
        self.start_command(command)
    }

    /// Waits until a process that was started for it has come to a good end; gives its summary.
    pub fn summary(&self, child: Process) -> Value {
        self.assert_done(child);
        let text = fs::read_to_string(self.folder().join("summary")).expect("a summary");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Starts a call of the binary, or of what calls it; what it logs goes to a file.
    pub fn start_command(&self, mut command: Command) -> Process {
        command.stderr(fs::File::create(self.folder().join("log")).expect("a log"));
        Process::start(command)
    }

    /// The call of the binary.
    pub fn command(&self, flags: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whisperer"));
        let (out, state) = (self.folder().join("out"), self.folder().join("state"));
        command.args(["run", "job.toml", "--no-pin"]);
        command.arg("--output").arg(out).arg("--state").arg(state).args(flags);
        command.current_dir(self.folder()).envs(variables.iter().copied());
        command.env("WHISPERER_LOG", "info").stdout(Stdio::null());
        command
    }

    /// Runs it, and kills it if it has not ended after a while.
    pub fn run_for(&self, flags: &[&str], variables: &[(&str, &str)], most: Duration) -> Ended {
        self.ended_within(self.start(flags, variables), most)
    }

    /// Waits for the end of a process of it, and kills it if it has not come after a while.
    pub fn ended_within(&self, mut child: Process, most: Duration) -> Ended {
        let started = Instant::now();
        while started.elapsed() < most && !child.has_ended() {
            thread::sleep(Duration::from_millis(2));
        }
        // One that has ended meanwhile is not killed any more.
        let _ = child.kill();
        match child.wait().expect("it can be waited for").code() {
            Some(0) => Ended::Done,
            None => Ended::Killed,
            Some(code) => Ended::Failed(code, self.log()),
        }
    }

    /// Waits for the end of a process of it.
    pub fn ended(&self, child: Process) -> Ended {
        self.ended_within(child, RUN_MAX)
    }

    /// What it has logged since it was started last.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }

    /// Runs it to the end of its input.
    pub fn finish(&self, flags: &[&str]) {
        self.assert_done(self.start(flags, &[]));
    }

    /// Waits until a process of it has come to a good end.
    pub fn assert_done(&self, child: Process) {
        match self.ended(child) {
            Ended::Done => {}
            Ended::Killed => panic!("it did not come to its end: {}", self.log()),
            Ended::Failed(code, told) => panic!("exit code {code}: {told}"),
        }
    }

    /// Runs it until it has taken a checkpoint, and kills it long before its end.
    pub fn begin(&self, flags: &[&str]) {
        let mut child = self.start(flags, &[]);
        let before = self.manifest_max();
        // A claim, the cut before the first record, and one more.
        while self.manifest_max() < before + 3 {
            assert!(!child.has_ended(), "it ended before its first checkpoint");
            thread::sleep(Duration::from_millis(1));
        }
        child.kill().expect("it runs");
        assert!(matches!(self.ended(child), Ended::Killed), "it was killed");
    }

    /// Whether there is a checkpoint to go on from.
    pub fn has_checkpoint(&self) -> bool {
        // The first manifest claims its turn; what follows is a checkpoint.
        self.manifest_max() > 1
    }

    /// Decisions that the newest checkpoint counts.
    pub fn decisions_committed(&self) -> u64 {
        let manifests = self.folder().join("state/manifests");
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> = fs::read_dir(&manifests).into_iter().flatten().flatten().map(name).collect();
        names.sort_by_key(|name| {
            std::cmp::Reverse(name.split('.').next().and_then(|number| number.parse::<u64>().ok()))
        });
        // A claim has no cut; the checkpoint that it goes on from stands before it.
        let cut = names.iter().find_map(|name| {
            let text = fs::read_to_string(manifests.join(name)).ok()?;
            // Behind it stands a checksum.
            let manifest: Value = serde_json::from_str(text.lines().next()?).ok()?;
            manifest.get("cut").filter(|cut| !cut.is_null()).cloned()
        });
        let counts = cut.and_then(|cut| cut["counts"].as_object().cloned()).unwrap_or_default();
        counts.iter().filter(|(name, _)| name.starts_with("decisions.")).filter_map(|(_, count)| count.as_u64()).sum()
    }

    /// The largest number of a manifest.
    pub fn manifest_max(&self) -> u64 {
        let Ok(manifests) = fs::read_dir(self.folder().join("state/manifests")) else { return 0 };
        let names = manifests.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter_map(|name| name.split('.').next()?.parse().ok()).max().unwrap_or(0)
    }

    /// Compares everything that it has put out with what another one has.
    pub fn assert_equals(&self, other: &Job, what: &str) {
        self.outcome().assert_equals(&other.outcome(), what);
    }

    /// What it has put out.
    pub fn outcome(&self) -> Outcome {
        Outcome { tables: self.tables(), digests: self.digests(), decisions: self.decisions() }
    }

    /// The digest of each table, taken from its rows.
    fn tables(&self) -> BTreeMap<&'static str, String> {
        let overrides = Overrides { output: Some(self.folder().join("out")), ..Overrides::default() };
        let file = job_file::load(&self.folder().join("job.toml"), &overrides).expect("the job is right");
        let job = CompiledJob::new(&file.spec).expect("it compiles");
        let mut tables = vec![(*job.decisions).clone(), (*job.profiles).clone(), TableSchema::dead_letters()];
        tables.extend(job.views.tables().map(|table| (**table).clone()));
        let digest = |table: &TableSchema| {
            digest_of_table(&self.folder().join("out"), &job.name, table).expect("the table is readable").to_string()
        };
        tables.iter().map(|table| (table.name, digest(table))).collect()
    }

    /// The rows of a view, as the command shows them, what is not the view's own left out.
    pub fn view(&self, name: &str) -> Vec<Value> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whisperer"));
        command.args(["views", "job.toml", name, "--format", "json", "--output", "out"]).current_dir(self.folder());
        let told = command.output().expect("it runs");
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        let row = |line: &str| {
            let mut row: Value = serde_json::from_str(line).expect("JSON");
            row.as_object_mut().expect("a row").retain(|name, _| !name.starts_with('_'));
            row
        };
        String::from_utf8_lossy(&told.stdout).lines().map(row).collect()
    }

    /// The digests that the run itself has kept, from its manifest.
    fn digests(&self) -> BTreeMap<String, Value> {
        let runs = fs::read_dir(self.folder().join("out/_runs")).expect("there is a manifest");
        let paths: Vec<PathBuf> = runs.map(|entry| entry.expect("listed").path()).collect();
        assert_eq!(paths.len(), 1, "one run, however often it went on");
        let text = fs::read_to_string(&paths[0]).expect("readable");
        let manifest: Value = serde_json::from_str(&text).expect("JSON");
        let digests = manifest["digests"].as_object().expect("digests").clone();
        digests.into_iter().collect()
    }

    /// The ids in the file of decisions, sorted.
    fn decisions(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder().join("out/decisions.ndjson")).unwrap_or_default();
        let id = |line: &str| {
            let row: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            row["decision_id"].as_str().expect("an id").to_owned()
        };
        // An erasure leaves white space.
        let mut ids: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(id).collect();
        ids.sort_unstable();
        ids
    }
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_owned()
}

/// Numbers that follow from a seed, which is new each time unless it is given.
pub struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// From `WHISPERER_CRASH_SEED`, or from the clock.
    pub fn new() -> Random {
        let given = std::env::var("WHISPERER_CRASH_SEED").ok().and_then(|seed| seed.parse().ok());
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let seed = given.unwrap_or(clock.as_nanos() as u64);
        eprintln!("WHISPERER_CRASH_SEED={seed}");
        Random { seed, state: seed | 1 }
    }

    /// What it follows from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}
