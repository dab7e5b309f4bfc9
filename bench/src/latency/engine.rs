//! The engine of a row: a job made of one in the repository, from topic to topic, and the process that runs it.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Serialize;
use toml::{Table, Value};

use super::broker::{Broker, Topics};
use crate::{
    child::{Cost, EngineReport, Live, empty_folder},
    jobs::{self, Views, sections},
    metrics::{self, Histogram},
};

/// The trigger that marked events fire.
pub const TRIGGER: &str = "marked";

/// Which job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// `bench/jobs/j.toml`
    J,
    /// `config/jobs/engagement.toml` without its views
    Engagement,
    /// The same with them
    EngagementViews,
}

/// When decisions become readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Delivery {
    /// At once.
    Idempotent,
    /// With their checkpoint.
    ExactlyOnce,
}

/// How the engine is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Setting {
    /// The job.
    pub job: Job,
    /// From one checkpoint to the next; none without checkpoints.
    pub checkpoint_ms: Option<u64>,
    /// When decisions become readable.
    pub delivery: Delivery,
}

/// How and where all engines of a benchmark run.
#[derive(Clone, Debug)]
pub struct Place {
    /// A folder for the job and its state.
    pub folder: PathBuf,
    /// Worker threads.
    pub workers: u16,
    /// Whether they stay on cores of their own.
    pub pin: bool,
}

impl Job {
    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Job::J => "J",
            Job::Engagement => "engagement",
            Job::EngagementViews => "engagement with views",
        }
    }

    fn source(self) -> (&'static str, Views) {
        match self {
            Job::J => (jobs::J, Views::Dropped),
            Job::Engagement => (jobs::ENGAGEMENT, Views::Dropped),
            Job::EngagementViews => (jobs::ENGAGEMENT, Views::Kept),
        }
    }

    /// The job from topic to topic, with one trigger more.
    ///
    /// # Errors
    /// A job file that cannot be read.
    pub fn file(self, broker: &Broker, topics: &Topics, setting: Setting, folder: &Path) -> anyhow::Result<String> {
        let (path, views) = self.source();
        let mut job = jobs::read(path, views)?;
        if let Some(Value::Table(of_job)) = job.get_mut("job") {
            of_job.insert("deliver_from".to_owned(), "beginning".into());
        }
        job.insert("source".to_owned(), Value::Table(source(broker, topics)));
        job.insert("sink".to_owned(), Value::Array(vec![Value::Table(sink(broker, topics, setting.delivery))]));
        let feature = toml::toml! {
            name = "latest_value"
            aggregate = "last"
            of = "properties.value"
        };
        sections(&mut job, "feature").push(Value::Table(feature));
        let mut trigger = toml::toml! { when = "latest_value >= 99" };
        trigger.insert("name".to_owned(), TRIGGER.into());
        sections(&mut job, "trigger").push(Value::Table(trigger));
        if let Some(interval) = setting.checkpoint_ms {
            let mut checkpoint = Table::new();
            checkpoint.insert("dir".to_owned(), folder.join("state").display().to_string().into());
            checkpoint.insert("interval_ms".to_owned(), Value::Integer(interval as i64));
            job.insert("checkpoint".to_owned(), Value::Table(checkpoint));
        }
        toml::to_string(&job).context("cannot write a job")
    }
}

/// Starts the engine on an empty state.
///
/// # Errors
/// A folder that cannot be written, or a process that cannot be started.
pub fn start(broker: &Broker, topics: &Topics, setting: Setting, place: &Place) -> anyhow::Result<Engine> {
    let folder = std::path::absolute(&place.folder).context("cannot find the folder of the engine")?;
    empty_folder(&folder)?;
    let path = folder.join("job.toml");
    fs::write(&path, setting.job.file(broker, topics, setting, &folder)?).context("cannot write a job")?;
    let workers = place.workers.to_string();
    let mut arguments: Vec<OsString> =
        vec!["run".into(), path.into(), "--workers".into(), workers.into(), "--json".into()];
    arguments.extend((!place.pin).then(|| "--no-pin".into()));
    let address = metrics::free_address()?;
    arguments.extend(["--listen".into(), address.as_str().into()]);
    Ok(Engine { live: Live::start(&arguments)?, folder, address })
}

/// An engine at work.
pub struct Engine {
    /// The process.
    pub live: Live,
    folder: PathBuf,
    /// Where it tells its metrics.
    address: String,
}

impl Engine {
    /// From the end of each epoch to the end of its work, that of the views included, so far.
    #[must_use]
    pub fn epochs(&self) -> Histogram {
        metrics::get(&self.address, "/metrics")
            .map(|told| Histogram::read(&told, "whisperer_epoch_latency_seconds"))
            .unwrap_or_default()
    }

    /// Stops it, and removes what it kept.
    ///
    /// # Errors
    /// An engine that fails.
    pub fn stop(self) -> anyhow::Result<(EngineReport, Cost)> {
        let ended = self.live.stop();
        fs::remove_dir_all(&self.folder).context("cannot remove the engine's state")?;
        ended
    }
}

fn source(broker: &Broker, topics: &Topics) -> Table {
    let mut source = toml::toml! {
        connector = "kafka"
        out_of_orderness = "30s"
    };
    source.insert("brokers".to_owned(), broker.address.clone().into());
    source.insert("topic".to_owned(), topics.events.clone().into());
    source
}

fn sink(broker: &Broker, topics: &Topics, delivery: Delivery) -> Table {
    let mut sink = toml::toml! { connector = "kafka" };
    let delivery = match delivery {
        Delivery::Idempotent => "idempotent",
        Delivery::ExactlyOnce => "exactly_once",
    };
    for (key, value) in [("brokers", &*broker.address), ("topic", &*topics.decisions), ("delivery", delivery)] {
        sink.insert(key.to_owned(), value.into());
    }
    sink
}
