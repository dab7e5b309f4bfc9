//! Runs inside the test, for what is over before anybody could ask for it.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use whisperer_connectors::{
    Positions, Reader, Source, SourceError, StateStore,
    memory::MemorySource,
    source::Size,
    state::{
        BaseKind, FolderStore, Role,
        fault::{BrokenDisk, Failure, PowerDisk},
        resolve::Retention,
    },
};
use whisperer_dataflows::{
    operations::{Health, Operations, Phase},
    runtime::{Outputs, Run, RunError, RunReport, StateSettings},
};
use whisperer_operators::spec::{Aggregate, FeatureSpec, JobSpec, TriggerSpec};
use whisperer_sinks::MemoryTable;

use super::{PATIENCE, samples, sum};
use crate::{operations_of, support};

/// Records of each partition.
const RECORDS: u32 = 4_000;

/// A source that notes what the job is about when a worker opens it.
struct Observed {
    source: MemorySource,
    health: Arc<Health>,
    phases: Arc<Mutex<Vec<Phase>>>,
}

impl Source for Observed {
    fn partitions(&self) -> u32 {
        self.source.partitions()
    }

    fn size(&self) -> Option<Size> {
        self.source.size()
    }

    fn open(&self, worker: usize, workers: usize, positions: &Positions) -> Result<Box<dyn Reader>, SourceError> {
        self.phases.lock().expect("whole").push(self.health.phase());
        self.source.open(worker, workers, positions)
    }
}

fn source() -> MemorySource {
    let lines = |partition: u32| {
        let event = |at: u32| support::event(partition * RECORDS + at, at % 500, support::s(i64::from(at)));
        let lines = (0..RECORDS).map(|at| event(at).line()).collect();
        support::partition(lines, vec![vec![40]; RECORDS as usize / 40])
    };
    MemorySource::new(vec![lines(0), lines(1)])
}

/// What a run came to: its report, its metrics as text, and the phases in which its source was opened.
struct Ran {
    report: Result<RunReport, RunError>,
    metrics: String,
    phases: Vec<Phase>,
    operations: Arc<Operations>,
}

/// Runs a job whose state lies on `disk`, with a checkpoint every five epochs.
fn run(disk: &BrokenDisk<PowerDisk>) -> Ran {
    let mut spec = JobSpec::default();
    spec.features.push(FeatureSpec::new("events", Aggregate::Count));
    spec.triggers.push(TriggerSpec::new("second_event", "events >= 2"));
    let job = support::compile(&spec);
    let (operations, phases) = (Arc::new(operations_of(2, PATIENCE)), Arc::<Mutex<Vec<Phase>>>::default());
    let source = Observed { source: source(), health: operations.health.clone(), phases: phases.clone() };
    let store = FolderStore::over(Path::new("state"), Role::Coordinator, Arc::new(disk.clone()), BaseKind::Sorted);
    let store: Arc<dyn StateStore> = Arc::new(store.expect("a store"));
    let state = StateSettings {
        store,
        spec: Arc::new(spec),
        every: 5,
        retention: Retention { checkpoints: 3, merge_from: 4 },
        restore: None,
        repeat_outputs: false,
        ticks: None,
    };
    let tables: [MemoryTable; 3] = Default::default();
    let run = Run {
        state: Some(state),
        workers: 2,
        operations: Some(operations.clone()),
        ..Run::new(job, Arc::new(source), support::native(), Outputs::in_memory(tables))
    };
    let report = run.execute().map(|(report, _)| report);
    let phases = std::mem::take(&mut *phases.lock().expect("whole"));
    Ran { report, metrics: operations.metrics.text(), phases, operations }
}

#[test]
fn a_checkpoint_that_fails_is_counted_and_a_recovery_is_told() {
    // Goal: a disk that fills up makes a checkpoint fail, which is counted; the next run says that it recovers, and its counters begin at 0 and
    // not at what the checkpoint brings back. Method: a whole run first, to know how many operations of the disk it takes.
    let healthy = BrokenDisk::new(PowerDisk::default(), Failure::Full(u64::MAX));
    let whole = run(&healthy);
    let report = whole.report.expect("the disk is healthy");
    assert_eq!(whole.phases, [Phase::Starting; 2]);
    assert_eq!(whole.operations.health.phase(), Phase::Stopping);
    let all = samples(&whole.metrics);
    assert_eq!(sum(&all, "whisperer_accepted_records_total"), Some(report.accepted() as f64));
    assert_eq!(sum(&all, "whisperer_read_records_total"), Some(2.0 * f64::from(RECORDS)));
    assert!(sum(&all, "whisperer_checkpoints_total") > Some(10.0), "{}", whole.metrics);
    assert!(sum(&all, "whisperer_epoch_latency_seconds_count") > Some(50.0), "{}", whole.metrics);
    assert_eq!(sum(&all, "whisperer_frontier_delay_seconds"), None, "a bounded source has no clock to be behind");
    assert_eq!(sum(&all, "whisperer_lag_records"), None, "nor a lag");

    let disk = PowerDisk::default();
    let full = run(&BrokenDisk::new(disk.clone(), Failure::Full(healthy.operations() / 2)));
    let error = full.report.expect_err("the disk is full");
    assert!(matches!(error, RunError::Store(_)), "{error}");
    let before = samples(&full.metrics);
    assert!(sum(&before, "whisperer_checkpoint_failures_total") > Some(0.0), "{}", full.metrics);
    assert!(sum(&before, "whisperer_checkpoints_total") > Some(2.0), "{}", full.metrics);

    let rest = run(&BrokenDisk::new(disk, Failure::Full(u64::MAX)));
    let rested = rest.report.expect("the disk is healthy");
    assert_eq!(rest.phases, [Phase::Recovering; 2]);
    assert_eq!(rested.accepted(), report.accepted(), "the checkpoint brought the rest");
    let own = sum(&samples(&rest.metrics), "whisperer_accepted_records_total").expect("a counter");
    assert!(own > 0.0 && own < report.accepted() as f64, "{own} of {}", report.accepted());
}
