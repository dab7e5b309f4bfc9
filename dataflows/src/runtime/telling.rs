//! What a worker and its reader tell about themselves as they work: metrics, lags, signs of life. Nothing is told for a record; per epoch it is
//! an atomic or two for each partition.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use timely::dataflow::operators::probe::Handle;
use whisperer_connectors::{Chunk, Reader};
use whisperer_operators::{keyed::KeyedReport, keys::Counts};
use whisperer_schemas::PartitionId;

use super::{Run, epochs::Epochs, reading::ReadCounts};
use crate::operations::{LagGauge, Operations, Part, PartitionMetrics, Phase, WorkerMetrics};

/// How often the numbers of the keyed operator are taken over.
const FOLLOWED_EVERY: Duration = Duration::from_millis(250);

/// What a worker tells.
pub(super) struct Telling {
    operations: Arc<Operations>,
    /// The worker among those of this process.
    local: usize,
    metrics: WorkerMetrics,
    epochs: Epochs,
    /// How far the worker is behind, where the source is live.
    delay: Option<LagGauge>,
    measured: Option<Instant>,
    followed: Instant,
}

/// Where a worker begins.
pub(super) struct Beginning<'a> {
    pub(super) worker: usize,
    /// Its first epoch.
    pub(super) epoch: u64,
    /// What a checkpoint has brought back.
    pub(super) counts: &'a Counts,
}

impl Telling {
    /// None where nobody listens.
    pub(super) fn new(run: &Run, beginning: &Beginning<'_>) -> Option<Telling> {
        let operations = run.operations.clone()?;
        let Beginning { worker, epoch, counts } = *beginning;
        let live = run.source.live().then_some(run.epoch_interval);
        let mut metrics = operations.metrics.worker(worker);
        metrics.start_from(counts);
        Some(Telling {
            local: worker % run.workers,
            epochs: Epochs::new(live, epoch, (operations.spans.run(), worker)),
            delay: live.map(|_| operations.health.lag_of(Part::Worker(worker))),
            metrics,
            measured: None,
            followed: Instant::now(),
            operations,
        })
    }

    /// The worker begins to work.
    pub(super) fn begin(&self) {
        self.operations.health.enter(Phase::Running);
    }

    /// The worker is to drain.
    pub(super) fn stop(&self) {
        self.operations.health.enter(Phase::Stopping);
    }

    /// The worker waits for its sinks, which bound that themselves: for longer, where brokers are away, than the watchdog would.
    pub(super) fn wait_for_sinks(&self) {
        self.operations.watchdog.rest(self.local);
    }

    /// A turn of the worker is over; `reading` is the epoch that its reader is at.
    pub(super) fn turn(&mut self, reading: u64, probe: &Handle<u64>, keyed: &KeyedReport) {
        self.operations.watchdog.feed(self.local);
        let frontier = probe.with_frontier(|frontier| frontier.first().copied());
        let metrics = &self.metrics;
        self.epochs.look(reading, frontier, &mut |latency| metrics.epoch_done(latency));
        let now = Instant::now();
        if let (Some(delay), Some(frontier)) = (&self.delay, frontier)
            && is_due(&mut self.measured, now, self.operations.health.measured_every())
            && let Some(behind) = self.epochs.delay(frontier)
        {
            delay.measured(behind);
            self.metrics.frontier_delay(behind);
        }
        if now.duration_since(self.followed) >= FOLLOWED_EVERY {
            self.followed = now;
            self.follow(keyed);
        }
    }

    /// The worker has ended.
    pub(super) fn finish(mut self, keyed: &KeyedReport) {
        self.follow(keyed);
        self.stop();
        self.operations.watchdog.rest(self.local);
    }

    fn follow(&mut self, keyed: &KeyedReport) {
        self.metrics.follow(&keyed.counts);
        if let Some(watermark) = keyed.watermark {
            self.operations.metrics.watermark(watermark);
        }
    }
}

/// What a worker's reader tells.
pub(super) struct ReadTelling {
    operations: Arc<Operations>,
    live: bool,
    partitions: BTreeMap<PartitionId, OfPartition>,
    /// Rejected records that are counted already.
    dead: BTreeMap<&'static str, u64>,
    measured: Option<Instant>,
}

struct OfPartition {
    metrics: PartitionMetrics,
    /// Only partitions of a live source have one.
    lag: Option<LagGauge>,
}

impl ReadTelling {
    /// None where nobody listens; `before` was counted before a checkpoint.
    pub(super) fn new(run: &Run, before: &ReadCounts) -> Option<ReadTelling> {
        let operations = run.operations.clone()?;
        let (live, dead) = (run.source.live(), before.dead.clone());
        Some(ReadTelling { operations, live, partitions: BTreeMap::new(), dead, measured: None })
    }

    /// An epoch was read: so many records by partition, and so many were rejected by reason since the beginning.
    pub(super) fn read(
        &mut self,
        reader: &dyn Reader,
        chunks: &[Chunk],
        records: &[(PartitionId, u64)],
        dead: &BTreeMap<&'static str, u64>,
    ) {
        for chunk in chunks {
            let of = self.of(chunk.partition);
            if chunk.ended {
                // What is read to its end holds up nobody, whether its lag was ever known.
                of.lag = None;
            }
        }
        for (partition, records) in records {
            self.of(*partition).metrics.read(*records);
        }
        for (reason, count) in dead {
            let told = self.dead.entry(reason).or_default();
            if count > told {
                self.operations.metrics.dead_letters(reason, count - *told);
                *told = *count;
            }
        }
        if self.live && is_due(&mut self.measured, Instant::now(), self.operations.health.measured_every()) {
            self.measure(reader);
        }
    }

    fn measure(&mut self, reader: &dyn Reader) {
        let partitions = &mut self.partitions;
        reader.lags(&mut |partition, lag| {
            let Some(of) = partitions.get_mut(&partition) else { return };
            of.metrics.lag(lag.records, lag.waiting);
            if let (Some(gauge), Some(waiting)) = (&of.lag, lag.waiting) {
                gauge.measured(waiting);
            }
        });
    }

    fn of(&mut self, partition: PartitionId) -> &mut OfPartition {
        let ReadTelling { operations, live, partitions, .. } = self;
        partitions.entry(partition).or_insert_with(|| OfPartition {
            metrics: operations.metrics.partition(partition.0),
            lag: live.then(|| operations.health.lag_of(Part::Partition(partition.0))),
        })
    }
}

/// Whether something that is done every so often is to be done now; it is the first time.
fn is_due(last: &mut Option<Instant>, now: Instant, every: Duration) -> bool {
    let due = last.is_none_or(|last| now.duration_since(last) >= every);
    if due {
        *last = Some(now);
    }
    due
}
