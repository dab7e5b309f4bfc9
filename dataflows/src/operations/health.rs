//! Health: whether the job has recovered and caught up; what `/readyz` answers from.
//!
//! A lag counts as what it was when it was last measured, plus the time since: a reader or worker that hangs lets it grow by itself.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;

/// What the job is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Phase {
    /// It opens its sources and sinks.
    Starting = 0,
    /// It loads a checkpoint.
    Recovering = 1,
    /// It works on its input.
    Running = 2,
    /// It drains, and ends.
    Stopping = 3,
}

/// Whose lag it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// A partition: how long its oldest record waits that was not read.
    Partition(u32),
    /// A worker: how far its frontier lies behind the wall clock.
    Worker(usize),
}

/// Why a job is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Unready {
    /// It is not running yet, or no longer.
    Phase {
        /// What it is about instead.
        phase: Phase,
    },
    /// It does not know yet how far it is behind.
    Unmeasured {
        /// Of what.
        part: Part,
    },
    /// It is behind.
    Lag {
        /// What is furthest behind.
        part: Part,
        /// How far.
        lag_ms: u64,
        /// How far it may be.
        lag_ms_max: u64,
    },
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |part: &Part| match part {
            Part::Partition(partition) => format!("partition {partition}"),
            Part::Worker(worker) => format!("worker {worker}"),
        };
        match self {
            Unready::Phase { phase: Phase::Starting } => f.write_str("starting"),
            Unready::Phase { phase: Phase::Recovering } => f.write_str("recovering"),
            Unready::Phase { phase: Phase::Stopping } => f.write_str("stopping"),
            Unready::Phase { phase: Phase::Running } => f.write_str("running"),
            Unready::Unmeasured { part } => write!(f, "the lag of {} is not known yet", name(part)),
            Unready::Lag { part, lag_ms, lag_ms_max } => {
                write!(f, "{} is {lag_ms} ms behind, more than {lag_ms_max}", name(part))
            }
        }
    }
}

/// A lag that was never measured.
const UNMEASURED: u64 = u64::MAX;

/// How often lags are measured at least.
const MEASURED_EVERY: Duration = Duration::from_millis(250);

/// The health of a process; shared by its workers and the server.
#[derive(Debug)]
pub struct Health {
    phase: AtomicU8,
    lag_ms_max: u64,
    origin: Instant,
    lags: Mutex<BTreeMap<Part, Arc<LagCell>>>,
}

#[derive(Debug)]
struct LagCell {
    /// In microseconds, or [`UNMEASURED`].
    lag: AtomicU64,
    /// When, in microseconds since the origin.
    measured: AtomicU64,
}

/// Where a lag is noted; when it is dropped, the lag counts no longer.
#[derive(Debug)]
pub struct LagGauge {
    health: Arc<Health>,
    part: Part,
    cell: Arc<LagCell>,
}

impl Health {
    /// The health of a job that is starting and may lag by `lag_ms_max` when it calls itself ready.
    #[must_use]
    pub fn new(lag_ms_max: u64) -> Arc<Health> {
        Arc::new(Health {
            phase: AtomicU8::new(Phase::Starting as u8),
            lag_ms_max,
            origin: Instant::now(),
            lags: Mutex::default(),
        })
    }

    /// Notes what the job is about now.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// What the job is about.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Recovering,
            2 => Phase::Running,
            _ => Phase::Stopping,
        }
    }

    /// Adds a part whose lag decides whether the job is ready; not ready before it was measured. A bounded source has none.
    #[must_use]
    pub fn lag_of(self: &Arc<Health>, part: Part) -> LagGauge {
        let cell = Arc::new(LagCell { lag: AtomicU64::new(UNMEASURED), measured: AtomicU64::new(0) });
        self.locked().insert(part, cell.clone());
        LagGauge { health: self.clone(), part, cell }
    }

    /// How often lags have to be measured lest their age counts for much.
    #[must_use]
    pub fn measured_every(&self) -> Duration {
        MEASURED_EVERY.min(Duration::from_millis(self.lag_ms_max) / 4)
    }

    /// Whether the job runs and has caught up.
    ///
    /// # Errors
    /// Why it is not ready: of several lags, the largest.
    pub fn ready(&self) -> Result<(), Unready> {
        let phase = self.phase();
        if phase != Phase::Running {
            return Err(Unready::Phase { phase });
        }
        let now = self.now();
        let mut worst: Option<(u64, Part)> = None;
        for (part, cell) in self.locked().iter() {
            let lag = cell.lag.load(Ordering::Relaxed);
            if lag == UNMEASURED {
                return Err(Unready::Unmeasured { part: *part });
            }
            let age = now.saturating_sub(cell.measured.load(Ordering::Relaxed));
            worst = worst.max(Some((lag.saturating_add(age) / 1000, *part)));
        }
        match worst {
            Some((lag_ms, part)) if lag_ms > self.lag_ms_max => {
                Err(Unready::Lag { part, lag_ms, lag_ms_max: self.lag_ms_max })
            }
            _ => Ok(()),
        }
    }

    fn now(&self) -> u64 {
        self.origin.elapsed().as_micros() as u64
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<Part, Arc<LagCell>>> {
        // The map is whole at any moment: a thread that panicked elsewhere does not spoil it.
        self.lags.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LagGauge {
    /// Notes a lag that was measured just now.
    pub fn measured(&self, lag: Duration) {
        let lag = u64::try_from(lag.as_micros()).unwrap_or(UNMEASURED - 1);
        self.cell.lag.store(lag, Ordering::Relaxed);
        self.cell.measured.store(self.health.now(), Ordering::Relaxed);
    }
}

impl Drop for LagGauge {
    fn drop(&mut self) {
        let mut lags = self.health.locked();
        // Another worker may have taken the partition over already.
        if lags.get(&self.part).is_some_and(|cell| Arc::ptr_eq(cell, &self.cell)) {
            lags.remove(&self.part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_running_and_caught_up() {
        // Goal: each reason for not being ready is told, the largest lag first, and goes when its cause does.
        let health = Health::new(5_000);
        assert_eq!(health.ready(), Err(Unready::Phase { phase: Phase::Starting }));
        health.enter(Phase::Recovering);
        assert_eq!(health.ready().map_err(|why| why.to_string()), Err("recovering".to_owned()));
        health.enter(Phase::Running);
        assert_eq!(health.ready(), Ok(()));
        let (one, two) = (health.lag_of(Part::Partition(1)), health.lag_of(Part::Partition(2)));
        one.measured(Duration::from_secs(6));
        assert_eq!(health.ready(), Err(Unready::Unmeasured { part: Part::Partition(2) }));
        two.measured(Duration::from_secs(60));
        let Err(Unready::Lag { part, lag_ms, .. }) = health.ready() else { panic!("{:?}", health.ready()) };
        assert_eq!(part, Part::Partition(2));
        assert!((60_000..61_000).contains(&lag_ms), "{lag_ms}");
        drop(two);
        assert!(matches!(health.ready(), Err(Unready::Lag { part: Part::Partition(1), .. })));
        one.measured(Duration::ZERO);
        assert_eq!(health.ready(), Ok(()));
        health.enter(Phase::Stopping);
        assert_eq!(health.ready(), Err(Unready::Phase { phase: Phase::Stopping }));
    }

    #[test]
    fn a_lag_that_nobody_measures_grows() {
        // Goal: a reader that hangs at lag 0 makes the job unready after `lag_ms_max`.
        let health = Health::new(20);
        health.enter(Phase::Running);
        let worker = health.lag_of(Part::Worker(0));
        worker.measured(Duration::ZERO);
        std::thread::sleep(Duration::from_millis(40));
        assert!(matches!(health.ready(), Err(Unready::Lag { part: Part::Worker(0), .. })));
    }

    #[test]
    fn the_reason_is_told_to_programs() {
        // Goal: the JSON form is stable, since supervisors may look into it.
        let why = Unready::Lag { part: Part::Partition(3), lag_ms: 7000, lag_ms_max: 5000 };
        let told = serde_json::to_string(&why).expect("plain data");
        assert_eq!(told, r#"{"reason":"lag","part":{"partition":3},"lag_ms":7000,"lag_ms_max":5000}"#);
    }
}
