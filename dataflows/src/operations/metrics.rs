//! Metrics: what a running job tells Prometheus, named `whisperer_<noun>_<unit>[_total]`.
//!
//! Updating costs an atomic or two for each batch or epoch, never anything for a record: whoever updates holds handles that were
//! looked up once ([`PartitionMetrics`], [`WorkerMetrics`], [`SinkMetrics`]). No label holds a user's id; labels are partitions,
//! workers, triggers, reasons, sinks and operators, of which a job has few.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Metric, Registry, Unit},
};
use whisperer_schemas::Micros;

use super::handles::{PartitionMetrics, SinkMetrics, TierMetrics, WorkerMetrics};
use crate::runtime::{cpu_time, resident_bytes};

/// A counter of seconds.
pub(super) type SecondsCounter = Counter<f64, AtomicU64>;
/// A gauge of seconds.
pub(super) type SecondsGauge = Gauge<f64, AtomicU64>;
/// A gauge of a number of things or bytes.
pub(super) type CountGauge = Gauge<u64, AtomicU64>;
/// One label and its value.
type Labels = [(&'static str, String); 1];
/// The labels of a worker's share of a tier of the state.
type TierLabels = [(&'static str, String); 2];

/// Content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Bounds of latencies in seconds: from a tenth of an epoch to where nobody calls it live any more.
const LATENCY_BOUNDS: [f64; 15] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
/// Bounds of the durations of checkpoints in seconds.
const CHECKPOINT_BOUNDS: [f64; 12] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

/// What a job is called where its metrics are read.
#[derive(Clone, Debug, Default)]
pub struct JobNames {
    /// The job.
    pub job: String,
    /// The version of its file.
    pub version: u32,
    /// Its triggers, in file order.
    pub triggers: Vec<String>,
}

/// A checkpoint that was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointFacts {
    /// The number of its manifest.
    pub number: u64,
    /// Bytes that were written for it.
    pub bytes: u64,
    /// From the cut to the manifest.
    pub took: Duration,
}

/// All metrics of a process; shared by its workers, its coordinator and the server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    names: JobNames,
    started: Instant,
    pub(super) records: RecordCounters,
    read: Family<Labels, Counter>,
    lag: Family<Labels, CountGauge>,
    lag_seconds: Family<Labels, SecondsGauge>,
    dead_letters: Family<Labels, Counter>,
    frontier_delay: Family<Labels, SecondsGauge>,
    watermark: SecondsGauge,
    epoch_latency: Histogram,
    state_bytes: Family<TierLabels, CountGauge>,
    state_keys: Family<TierLabels, CountGauge>,
    sink_rows: Family<Labels, Counter>,
    sink_wait: Family<Labels, SecondsCounter>,
    busy: Family<Labels, SecondsCounter>,
    parked: Family<Labels, SecondsCounter>,
    checkpoints: CheckpointMetrics,
    process: ProcessMetrics,
}

/// What keyed operators count, over all workers of the process.
#[derive(Debug, Default)]
pub(super) struct RecordCounters {
    pub(super) accepted: Counter,
    pub(super) late: Counter,
    pub(super) duplicate: Counter,
    pub(super) erased: Counter,
    pub(super) timers: Counter,
    pub(super) nulls: Counter,
    pub(super) warming: Counter,
    pub(super) decisions: Family<Labels, Counter>,
    pub(super) suppressed: Family<Labels, Counter>,
}

#[derive(Debug)]
struct CheckpointMetrics {
    committed: Counter,
    failed: Counter,
    number: CountGauge,
    bytes: CountGauge,
    age: SecondsGauge,
    duration: Histogram,
    /// When the last one was committed, in microseconds since the start; 0 for none.
    last: AtomicU64,
}

#[derive(Debug, Default)]
struct ProcessMetrics {
    cpu: SecondsCounter,
    resident: CountGauge,
    started: SecondsGauge,
}

/// A registry that is being filled; every metric is described where it is made.
struct Filling(Registry);

impl Filling {
    /// Registers a metric that counts what its name says.
    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }

    /// Registers a metric of seconds or bytes; the unit is appended to the name.
    fn add_in<M: Metric + Clone>(&mut self, name: &str, unit: Unit, help: &str, metric: M) -> M {
        self.0.register_with_unit(name, help, unit, metric.clone());
        metric
    }
}

impl Metrics {
    /// The metrics of a job, all at zero.
    #[must_use]
    pub fn new(names: JobNames) -> Metrics {
        let mut filling = Filling(Registry::with_prefix("whisperer"));
        let info = vec![("name", names.job.clone()), ("version", names.version.to_string())];
        filling.0.register("job", "The job that runs", Info::new(info));
        let f = &mut filling;
        let records = RecordCounters::new(f);
        let read = f.add("read_records", "Records read, blank lines left out, by partition", Family::default());
        let lag = f.add("lag_records", "Records that wait in the source, by partition", Family::default());
        let lag_help = "Time since the oldest record that waits in the source came to be, by partition";
        let lag_seconds = f.add_in("lag", Unit::Seconds, lag_help, Family::default());
        let dead_letters = f.add("dead_letters", "Rejected records, by reason", Family::default());
        let delay_help = "How far a worker's frontier lies behind the wall clock";
        let frontier_delay = f.add_in("frontier_delay", Unit::Seconds, delay_help, Family::default());
        let watermark_help = "The global watermark, as seconds of event time since the Unix epoch";
        let watermark = f.add_in("watermark", Unit::Seconds, watermark_help, SecondsGauge::default());
        let latency_help = "From an epoch's end on the wall clock to the end of its work";
        let epoch_latency = f.add_in("epoch_latency", Unit::Seconds, latency_help, Histogram::new(LATENCY_BOUNDS));
        let state_help = "Bytes of state, by worker and tier: hot in memory, cold on disk";
        let state_bytes = f.add_in("state", Unit::Bytes, state_help, Family::default());
        let state_keys = f.add("state_keys", "Keys that have state, by worker and tier", Family::default());
        let sink_rows = f.add("sink_rows", "Rows that a sink has taken", Family::default());
        let sink_wait = f.add_in("sink_wait", Unit::Seconds, "Time spent waiting for a sink", Family::default());
        let busy_help = "Time that operators were busy, all workers together";
        let busy = f.add_in("operator_busy", Unit::Seconds, busy_help, Family::default());
        let parked_help = "Time that a worker slept because there was nothing to do";
        let parked = f.add_in("worker_parked", Unit::Seconds, parked_help, Family::default());
        let checkpoints = CheckpointMetrics::new(f);
        let process = ProcessMetrics::new(f);
        Metrics {
            registry: filling.0,
            names,
            started: Instant::now(),
            records,
            read,
            lag,
            lag_seconds,
            dead_letters,
            frontier_delay,
            watermark,
            epoch_latency,
            state_bytes,
            state_keys,
            sink_rows,
            sink_wait,
            busy,
            parked,
            checkpoints,
            process,
        }
    }

    /// The handles of a partition that this process reads.
    #[must_use]
    pub fn partition(&self, partition: u32) -> PartitionMetrics {
        let labels = [("partition", partition.to_string())];
        let read = self.read.get_or_create_owned(&labels);
        PartitionMetrics::new(read, self.lag.clone(), self.lag_seconds.clone(), labels)
    }

    /// The handles of a worker, numbered over all processes.
    #[must_use]
    pub fn worker(&self, worker: usize) -> WorkerMetrics {
        let tier = |tier: &str| [("worker", worker.to_string()), ("tier", tier.to_owned())];
        let triggers = |family: &Family<Labels, Counter>| {
            self.names.triggers.iter().map(|name| family.get_or_create_owned(&[("trigger", name.clone())])).collect()
        };
        WorkerMetrics {
            accepted: self.records.accepted.clone(),
            late: self.records.late.clone(),
            duplicate: self.records.duplicate.clone(),
            erased: self.records.erased.clone(),
            timers: self.records.timers.clone(),
            nulls: self.records.nulls.clone(),
            warming: self.records.warming.clone(),
            decisions: triggers(&self.records.decisions),
            suppressed: triggers(&self.records.suppressed),
            state: ["hot", "cold"].map(|name| TierMetrics {
                keys: self.state_keys.get_or_create_owned(&tier(name)),
                bytes: self.state_bytes.get_or_create_owned(&tier(name)),
            }),
            frontier_delay: None,
            frontier_delays: self.frontier_delay.clone(),
            labels: [("worker", worker.to_string())],
            epoch_latency: self.epoch_latency.clone(),
            seen: Default::default(),
        }
    }

    /// The handles of a sink on a worker; all workers share them.
    #[must_use]
    pub fn sink(&self, sink: &str) -> SinkMetrics {
        let labels = [("sink", sink.to_owned())];
        SinkMetrics {
            rows: self.sink_rows.get_or_create_owned(&labels),
            wait: self.sink_wait.get_or_create_owned(&labels),
        }
    }

    /// Counts rejected records; called once for a batch and reason.
    pub fn dead_letters(&self, reason: &'static str, records: u64) {
        self.dead_letters.get_or_create(&[("reason", reason.to_owned())]).inc_by(records);
    }

    /// Notes the global watermark.
    pub fn watermark(&self, watermark: Micros) {
        self.watermark.set(watermark as f64 / 1e6);
    }

    /// Counts a checkpoint that was committed.
    pub fn checkpoint_committed(&self, facts: CheckpointFacts) {
        let checkpoints = &self.checkpoints;
        checkpoints.committed.inc();
        checkpoints.bytes.set(facts.bytes);
        checkpoints.duration.observe(facts.took.as_secs_f64());
        checkpoints.newest(facts.number, self.started);
    }

    /// Notes a checkpoint that another process committed.
    pub fn checkpoint_elsewhere(&self, number: u64) {
        self.checkpoints.newest(number, self.started);
    }

    /// Counts a checkpoint that could not be committed.
    pub fn checkpoint_failed(&self) {
        self.checkpoints.failed.inc();
    }

    /// The counter of an operator's busy time.
    pub(super) fn busy(&self, operator: &str) -> SecondsCounter {
        self.busy.get_or_create_owned(&[("operator", operator.to_owned())])
    }

    /// The counter of a worker's sleep.
    pub(super) fn parked(&self, worker: usize) -> SecondsCounter {
        self.parked.get_or_create_owned(&[("worker", worker.to_string())])
    }

    /// All metrics in the text format of OpenMetrics, which Prometheus and its kin read; content type [`CONTENT_TYPE`].
    #[must_use]
    pub fn text(&self) -> String {
        self.refresh();
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes all text");
        text
    }

    /// Brings up to date what is only known when it is asked for.
    fn refresh(&self) {
        let last = self.checkpoints.last.load(Ordering::Relaxed);
        // Before the first checkpoint the age counts from the start: what a crash would lose grows all the same.
        let age = self.started.elapsed().saturating_sub(Duration::from_micros(last));
        self.checkpoints.age.set(age.as_secs_f64());
        if let Some(cpu) = cpu_time() {
            let counted = self.process.cpu.get();
            self.process.cpu.inc_by((cpu.as_secs_f64() - counted).max(0.0));
        }
        self.process.resident.set(resident_bytes().unwrap_or_default());
    }
}

impl RecordCounters {
    fn new(f: &mut Filling) -> RecordCounters {
        RecordCounters {
            accepted: f.add("accepted_records", "Events that were applied, late ones included", Counter::default()),
            late: f.add("late_records", "Events that were applied and late", Counter::default()),
            duplicate: f.add(
                "duplicate_records",
                "Events whose id was applied before, within the horizon",
                Counter::default(),
            ),
            erased: f.add("suppressed_events", "Events of erased users", Counter::default()),
            timers: f.add("fired_timers", "Timers that led to an evaluation", Counter::default()),
            nulls: f.add("null_results", "Operations in expressions that gave no value", Counter::default()),
            warming: f.add(
                "warming_edges",
                "Edges of triggers that read a window which has not filled since the job changed",
                Counter::default(),
            ),
            decisions: f.add("decisions", "Decisions, by trigger", Family::default()),
            suppressed: f.add("suppressed_decisions", "Edges within the cooldown, by trigger", Family::default()),
        }
    }
}

impl CheckpointMetrics {
    fn newest(&self, number: u64, started: Instant) {
        self.number.set(number);
        let now = started.elapsed().as_micros() as u64;
        self.last.store(now.max(1), Ordering::Relaxed);
    }

    fn new(f: &mut Filling) -> CheckpointMetrics {
        let duration = Histogram::new(CHECKPOINT_BOUNDS);
        CheckpointMetrics {
            committed: f.add("checkpoints", "Checkpoints that this process committed", Counter::default()),
            failed: f.add("checkpoint_failures", "Checkpoints that could not be committed", Counter::default()),
            number: f.add("checkpoint_number", "Number of the newest checkpoint of the job", CountGauge::default()),
            bytes: f.add_in(
                "checkpoint",
                Unit::Bytes,
                "Bytes that were written for the newest checkpoint",
                CountGauge::default(),
            ),
            age: f.add_in(
                "checkpoint_age",
                Unit::Seconds,
                "Time since the newest checkpoint, or since the start",
                SecondsGauge::default(),
            ),
            duration: f.add_in("checkpoint_duration", Unit::Seconds, "From a cut to its manifest", duration),
            last: AtomicU64::new(0),
        }
    }
}

impl ProcessMetrics {
    fn new(f: &mut Filling) -> ProcessMetrics {
        let process = ProcessMetrics {
            cpu: f.add_in(
                "process_cpu",
                Unit::Seconds,
                "Time that the process spent on its cores",
                SecondsCounter::default(),
            ),
            resident: f.add_in(
                "process_resident",
                Unit::Bytes,
                "Memory that the process has resident",
                CountGauge::default(),
            ),
            started: f.add_in(
                "process_start_time",
                Unit::Seconds,
                "When the process started, in seconds since the Unix epoch",
                SecondsGauge::default(),
            ),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        process.started.set(now.as_secs_f64());
        process
    }
}
