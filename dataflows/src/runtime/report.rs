//! What a run came to: counts, digests, costs; what its manifest and its closing table are made of.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use whisperer_operators::keys::Counts;
use whisperer_schemas::{Digest, Micros};
use whisperer_sinks::{RunManifest, WrittenFile, manifest::MANIFEST_VERSION};

use super::{Run, WorkerOutcome, counts, reading::ReadCounts};

/// What a run came to.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// What the keyed operators counted.
    pub counts: Counts,
    /// Keys by lifecycle stage, as the job numbers stages.
    pub stages: Vec<u64>,
    /// Records read, blank lines left out.
    pub read: u64,
    /// Rejected records by reason.
    pub dead: BTreeMap<&'static str, u64>,
    /// Event times that were clamped to their ingest time.
    pub clamped: u64,
    /// Events of history past its end, which were left to the topic.
    pub past_history: u64,
    /// The watermark at the end: the largest event time.
    pub watermark: Option<Micros>,
    /// Digests of decisions, profiles, dead letters and the views.
    pub digests: BTreeMap<&'static str, Digest>,
    /// Files that were written.
    pub files: Vec<WrittenFile>,
    /// The last epoch.
    pub epoch: u64,
    /// For each partition the offset at which reading would go on.
    pub positions: BTreeMap<u32, u64>,
    /// What names the run in its files.
    pub name: String,
    /// Whether the input has come to its end; if not, the run was stopped.
    pub finished: bool,
    /// Workers that ran it.
    pub workers: usize,
    /// When it started, on the wall clock.
    pub started: Micros,
    /// How long it took.
    pub elapsed: Duration,
    /// How much time the process spent on its cores meanwhile, where the system tells.
    pub cpu: Option<Duration>,
}

/// The moment at which a run started.
pub(super) struct Started {
    wall: Micros,
    at: Instant,
    cpu: Option<Duration>,
}

impl Started {
    pub(super) fn now() -> Started {
        Started { wall: wall_clock(), at: Instant::now(), cpu: cpu_time() }
    }
}

impl RunReport {
    pub(super) fn new(run: &Run, outcomes: Vec<WorkerOutcome>, files: Vec<WrittenFile>, started: Started) -> RunReport {
        let mut counts = Counts::default();
        let mut read = ReadCounts::default();
        let names: Vec<&'static str> =
            run.tables().iter().chain(run.job.views.tables()).map(|table| table.name).collect();
        let mut digests = vec![Digest::default(); names.len()];
        let mut watermark = None;
        let mut stages = vec![0; run.job.stage_names.len()];
        let mut workers = outcomes.len();
        let mut last = None;
        let finished = outcomes.iter().all(|outcome| outcome.finished);
        let name = outcomes.first().map_or_else(|| run.name.clone(), |outcome| outcome.name.clone());
        for outcome in outcomes {
            last = last.or(outcome.last);
            counts.merge(&outcome.keyed.counts);
            stages.iter_mut().zip(outcome.stages).for_each(|(sum, part)| *sum += part);
            watermark = watermark.max(outcome.keyed.watermark);
            read.read += outcome.read.read;
            read.clamped += outcome.read.clamped;
            read.past_history += outcome.read.past_history;
            for (reason, count) in outcome.read.dead {
                *read.dead.entry(reason).or_default() += count;
            }
            digests.iter_mut().zip(outcome.digests).for_each(|(sum, part)| sum.merge(part));
        }
        let facts = run.progress.facts();
        // Every key that left a stage had entered it.
        let mut stages = stages.into_iter().map(|keys: i64| keys.unsigned_abs()).collect();
        if let Some(cut) = last.filter(|cut| run.cluster.is_some() || cut.finished) {
            // What other processes, or an earlier one, did stands in the checkpoint only.
            counts = counts::of_all(&cut.counts, &run.job.triggers);
            read = counts::read(&cut.counts);
            stages = counts::stages(&run.job, &cut.counts);
            workers = cut.workers as usize;
            let of_table = |name: &&str| cut.digests.get(*name).copied().unwrap_or_default();
            digests = names.iter().map(of_table).collect();
        }
        RunReport {
            counts,
            stages,
            read: read.read,
            dead: read.dead,
            clamped: read.clamped,
            past_history: read.past_history,
            watermark,
            digests: names.into_iter().zip(digests).collect(),
            files,
            epoch: facts.epoch.0,
            positions: facts.positions.into_iter().map(|(partition, offset)| (partition.0, offset)).collect(),
            name,
            finished,
            workers,
            started: started.wall,
            elapsed: started.at.elapsed(),
            cpu: cpu_time().zip(started.cpu).map(|(now, before)| now.saturating_sub(before)),
        }
    }

    /// Rejected records.
    #[must_use]
    pub fn dead_total(&self) -> u64 {
        self.dead.values().sum()
    }

    /// Events that were applied, late ones included.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.counts.on_time + self.counts.late
    }

    /// Time on the cores per record read, in nanoseconds.
    #[must_use]
    pub fn cpu_ns_per_event(&self) -> Option<f64> {
        self.cpu.filter(|_| self.read > 0).map(|cpu| cpu.as_nanos() as f64 / self.read as f64)
    }

    /// Bytes of state per user.
    #[must_use]
    pub fn bytes_per_user(&self) -> Option<f64> {
        (self.counts.keys > 0).then(|| self.counts.state_bytes as f64 / self.counts.keys as f64)
    }

    /// The manifest of the run.
    #[must_use]
    pub fn manifest(&self, job: &whisperer_operators::job::CompiledJob, fingerprint: &str) -> RunManifest {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let plain = [
            ("read", self.read),
            ("accepted", self.accepted()),
            ("on_time", self.counts.on_time),
            ("late", self.counts.late),
            ("duplicate", self.counts.duplicates),
            ("dead", self.dead_total()),
            ("clamped", self.clamped),
            ("users", self.counts.keys),
            ("timers", self.counts.timers),
            ("nulls", self.counts.nulls),
        ];
        counts.extend(plain.map(|(name, count)| (name.to_owned(), count)));
        if self.counts.erased > 0 {
            counts.insert("events_suppressed".to_owned(), self.counts.erased);
        }
        if self.past_history > 0 {
            counts.insert("past_history".to_owned(), self.past_history);
        }
        counts.extend(self.dead.iter().map(|(reason, count)| (format!("dead.{reason}"), *count)));
        for (at, trigger) in job.triggers.iter().enumerate() {
            counts.insert(format!("decisions.{}", trigger.name), self.counts.decisions[at]);
            counts.insert(format!("suppressed.{}", trigger.name), self.counts.suppressed[at]);
        }
        for (stage, count) in job.stage_names.iter().zip(&self.stages) {
            counts.insert(format!("stage.{stage}"), *count);
        }
        RunManifest {
            version: MANIFEST_VERSION,
            run: self.name.clone(),
            job: job.name.clone(),
            job_version: job.version,
            fingerprint: fingerprint.to_owned(),
            started: self.started,
            ended: self.started + self.elapsed.as_micros() as Micros,
            workers: self.workers as u32,
            epoch: self.epoch,
            positions: self.positions.clone(),
            watermark: self.watermark,
            counts,
            digests: self.digests.iter().map(|(name, digest)| ((*name).to_owned(), digest.to_string())).collect(),
            files: self.files.clone(),
        }
    }
}

fn wall_clock() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as Micros
}

/// Time that this process has spent on its cores, user and system, to a hundredth of a second; none where `/proc` is missing.
#[must_use]
pub fn cpu_time() -> Option<Duration> {
    /// Linux counts these fields in hundredths of a second on every architecture.
    const TICKS_PER_SECOND: u64 = 100;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the command in parentheses, which may hold spaces; user and system time are fields 14 and 15.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Bytes of memory that this process has resident; none where `/proc` is missing.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}
