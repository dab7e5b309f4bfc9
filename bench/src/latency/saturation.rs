//! Saturation: a backlog, read as fast as the engine can, with and without checkpoints.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;
use serde::Serialize;

use super::{
    broker::{Broker, Topics, prefix},
    engine::{self, Delivery, Job, Place, Setting},
    load::{Clock, Load, Sent},
    pool::Pool,
    reader::{Reader, cause},
    row::PARTITIONS,
    schedule::Schedule,
};
use crate::machine::{cpu_time_of, load};

/// Event times of the backlog are as if it had come at this rate.
const BACKLOG_RATE: u64 = 100_000;

/// How long the engine may take for a second's worth of the backlog: far more than it does.
const PATIENCE: u32 = 20;

/// One reading of the backlog.
#[derive(Clone, Debug, Serialize)]
pub struct Reading {
    /// How the engine was run.
    #[serde(flatten)]
    pub setting: Setting,
    /// Which repetition; in a round each setting is run once.
    pub round: u32,
    /// Processes that wanted to run when it began, mean of a minute.
    pub load_before: Option<f64>,
    /// Events read.
    pub events: u64,
    /// From the start of the process to the last decision.
    pub seconds: f64,
    /// Time on the cores up to then.
    pub cpu_seconds: f64,
}

impl Reading {
    /// Events a second of wall-clock time.
    #[must_use]
    pub fn events_per_second(&self) -> f64 {
        self.events as f64 / self.seconds
    }

    /// Microseconds on the cores an event.
    #[must_use]
    pub fn cpu_us_per_event(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.events as f64
    }
}

/// Events that lie in a topic.
pub struct Backlog {
    prefix: String,
    topics: Topics,
    sent: Sent,
}

impl Backlog {
    /// Fills a topic; gives the pool back.
    ///
    /// # Errors
    /// A broker that does not take them.
    pub fn fill(broker: &Broker, events: u64, pool: Pool) -> anyhow::Result<(Backlog, Pool)> {
        let prefix = prefix();
        let topics = Topics::create(broker, &prefix, PARTITIONS)?;
        let load = Load::new(broker, &topics.events, pool)?;
        let (sent, pool) = load.fill(Schedule { rate: BACKLOG_RATE }, events, Clock::now());
        if sent.failed > 0 {
            bail!("the broker did not take {} events of the backlog", sent.failed);
        }
        Ok((Backlog { prefix, topics, sent }, pool))
    }

    /// Removes it.
    ///
    /// # Errors
    /// What the broker answers.
    pub fn remove(self, broker: &Broker) -> anyhow::Result<()> {
        broker.remove(&self.prefix)
    }

    /// Lets an engine read it all.
    ///
    /// # Errors
    /// An engine that fails, or does not come to the end.
    pub fn read(
        &self,
        broker: &Broker,
        (job, checkpoint_ms): (Job, Option<u64>),
        round: u32,
        place: &Place,
    ) -> anyhow::Result<Reading> {
        let load_before = load();
        let setting = Setting { job, checkpoint_ms, delivery: Delivery::Idempotent };
        let number = format!("{}.{}.{}.{round}", self.prefix, job.name(), checkpoint_ms.unwrap_or_default());
        let topics = Topics { decisions: number, ..self.topics.clone() };
        broker.create(&topics.decisions, PARTITIONS)?;
        let decisions = Reader::start(broker, &topics.decisions, PARTITIONS, cause)?;
        let started = Instant::now();
        let mut engine = engine::start(broker, &topics, setting, place)?;
        let expected = self.sent.deciding.len() as u64;
        let patience = Schedule { rate: BACKLOG_RATE }.time_of(self.sent.events) * PATIENCE + Duration::from_secs(60);
        while decisions.seen.get() < expected {
            if !engine.live.runs() || started.elapsed() > patience {
                let seen = decisions.seen.get();
                bail!("the engine stands still after {seen} of {expected} decisions: {:?}", engine.stop());
            }
            thread::sleep(Duration::from_millis(5));
        }
        let cpu_seconds = cpu_time_of(engine.live.id()).unwrap_or_default().as_secs_f64();
        let last = decisions.end().into_iter().map(|(_, at)| at).max().unwrap_or(started);
        let (report, _) = engine.stop()?;
        if report.count("read") != self.sent.events || report.count("dead") + report.count("late") > 0 {
            bail!("the engine read something else than the backlog: {report:?}");
        }
        broker.remove(&topics.decisions)?;
        let seconds = (last - started).as_secs_f64();
        Ok(Reading { setting, round, load_before, events: self.sent.events, seconds, cpu_seconds })
    }
}
