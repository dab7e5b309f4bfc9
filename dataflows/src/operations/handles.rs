//! Handles on metrics, looked up once by whoever updates them: a partition's reader, a worker, a sink.

use std::time::Duration;

use prometheus_client::metrics::{counter::Counter, family::Family, histogram::Histogram};
use whisperer_operators::keys::Counts;

use super::metrics::{CountGauge, SecondsCounter, SecondsGauge};

type Labels = [(&'static str, String); 1];

/// The metrics of a partition; held by the worker that reads it.
#[derive(Debug)]
pub struct PartitionMetrics {
    read: Counter,
    /// Only partitions whose lag is known have them.
    lag: Option<CountGauge>,
    lag_seconds: Option<SecondsGauge>,
    lags: (Family<Labels, CountGauge>, Family<Labels, SecondsGauge>),
    labels: Labels,
}

impl PartitionMetrics {
    pub(super) fn new(
        read: Counter,
        lag: Family<Labels, CountGauge>,
        lag_seconds: Family<Labels, SecondsGauge>,
        labels: Labels,
    ) -> PartitionMetrics {
        PartitionMetrics { read, lag: None, lag_seconds: None, lags: (lag, lag_seconds), labels }
    }

    /// Counts records that were read.
    pub fn read(&self, records: u64) {
        self.read.inc_by(records);
    }

    /// Notes how many records wait in the source, and for how long the oldest of them has, where the source tells.
    pub fn lag(&mut self, records: u64, waiting: Option<Duration>) {
        let (counts, seconds) = &self.lags;
        self.lag.get_or_insert_with(|| counts.get_or_create_owned(&self.labels)).set(records);
        if let Some(waiting) = waiting {
            let gauge = self.lag_seconds.get_or_insert_with(|| seconds.get_or_create_owned(&self.labels));
            gauge.set(waiting.as_secs_f64());
        }
    }
}

impl Drop for PartitionMetrics {
    /// A partition that another worker or process reads from now on has no lag here.
    fn drop(&mut self) {
        if self.lag.is_some() {
            self.lags.0.remove(&self.labels);
            self.lags.1.remove(&self.labels);
        }
    }
}

/// The metrics of a worker.
#[derive(Debug)]
pub struct WorkerMetrics {
    pub(super) accepted: Counter,
    pub(super) late: Counter,
    pub(super) duplicate: Counter,
    pub(super) erased: Counter,
    pub(super) timers: Counter,
    pub(super) nulls: Counter,
    pub(super) decisions: Vec<Counter>,
    pub(super) suppressed: Vec<Counter>,
    pub(super) warming: Counter,
    /// Hot states and cold ones.
    pub(super) state: [TierMetrics; 2],
    /// Only workers that read a live source have one.
    pub(super) frontier_delay: Option<SecondsGauge>,
    pub(super) frontier_delays: Family<Labels, SecondsGauge>,
    pub(super) labels: Labels,
    pub(super) epoch_latency: Histogram,
    /// The counts that are in the counters already.
    pub(super) seen: Counts,
}

/// A worker's share of a tier of the state.
#[derive(Debug)]
pub(super) struct TierMetrics {
    pub(super) keys: CountGauge,
    pub(super) bytes: CountGauge,
}

impl TierMetrics {
    fn set(&self, keys: u64, bytes: u64) {
        self.keys.set(keys);
        self.bytes.set(bytes);
    }
}

impl WorkerMetrics {
    /// Takes counts that a checkpoint brought back as known: they are no news of this process.
    pub fn start_from(&mut self, counts: &Counts) {
        self.seen = counts.clone();
    }

    /// Brings the counters up to what the worker's keyed operator has counted; called once for an epoch or a few.
    pub fn follow(&mut self, counts: &Counts) {
        let seen = &self.seen;
        let accepted = |counts: &Counts| counts.on_time + counts.late;
        advance(&self.accepted, accepted(counts), accepted(seen));
        advance(&self.late, counts.late, seen.late);
        advance(&self.duplicate, counts.duplicates, seen.duplicates);
        advance(&self.erased, counts.erased, seen.erased);
        advance(&self.timers, counts.timers, seen.timers);
        advance(&self.nulls, counts.nulls, seen.nulls);
        advance(&self.warming, counts.warming, seen.warming);
        advance_each(&self.decisions, &counts.decisions, &seen.decisions);
        advance_each(&self.suppressed, &counts.suppressed, &seen.suppressed);
        let [hot, cold] = &self.state;
        hot.set(counts.keys.saturating_sub(counts.cold_keys), counts.state_bytes);
        cold.set(counts.cold_keys, counts.cold_bytes);
        self.seen.clone_from(counts);
    }

    /// Notes how far the worker's frontier lies behind the wall clock.
    pub fn frontier_delay(&mut self, delay: Duration) {
        let create = || self.frontier_delays.get_or_create_owned(&self.labels);
        self.frontier_delay.get_or_insert_with(create).set(delay.as_secs_f64());
    }

    /// Notes that the work of an epoch has ended so long after the epoch itself.
    pub fn epoch_done(&self, latency: Duration) {
        self.epoch_latency.observe(latency.as_secs_f64());
    }
}

fn advance(counter: &Counter, now: u64, before: u64) {
    let news = now.saturating_sub(before);
    if news > 0 {
        counter.inc_by(news);
    }
}

fn advance_each(counters: &[Counter], now: &[u64], before: &[u64]) {
    let before = before.iter().chain(std::iter::repeat(&0));
    for ((counter, now), before) in counters.iter().zip(now).zip(before) {
        advance(counter, *now, *before);
    }
}

/// The metrics of a sink.
#[derive(Clone, Debug)]
pub struct SinkMetrics {
    pub(super) rows: Counter,
    pub(super) wait: SecondsCounter,
}

impl SinkMetrics {
    /// Counts rows that the sink took, and how long that took.
    pub fn wrote(&self, rows: u64, took: Duration) {
        self.rows.inc_by(rows);
        self.wait.inc_by(took.as_secs_f64());
    }

    /// Adds time spent waiting for the sink: a flush, a staging, a commit.
    pub fn waited(&self, took: Duration) {
        self.wait.inc_by(took.as_secs_f64());
    }
}
