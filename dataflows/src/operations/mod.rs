//! Operations: what those who run a job see of it and do to it, as it runs and between runs.
//!
//! ```text
//! workers ──▶ Metrics, Health, Watchdog ──▶ Server: /metrics, /readyz, /livez
//! SIGTERM ──▶ Stop ──▶ workers              spans ──▶ logs, and a collector of traces
//! whisperer checkpoints ──▶ state folder    whisperer dead-letters ──▶ lake, files, topics
//! ```
//! Nothing here changes a result: a job runs the same without it.

mod busy;
pub mod checkpoints;
pub mod cluster;
pub mod dead_letters;
mod flags;
mod handles;
pub mod health;
pub mod logs;
mod metrics;
pub mod server;
mod signals;
pub mod traces;
pub mod watchdog;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

pub use busy::register_timely_logging;
pub use cluster::Cluster;
pub use flags::RunFlags;
pub use handles::{PartitionMetrics, SinkMetrics, WorkerMetrics};
pub use health::{Health, LagGauge, Part, Phase};
pub use metrics::{CheckpointFacts, JobNames, Metrics};
pub use server::Server;
pub use signals::Stop;
pub use traces::Spans;
pub use watchdog::Watchdog;

use crate::job_file::OperationsSettings;

/// Why a job cannot be operated as it is asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperationsError {
    /// The HTTP server cannot be started.
    #[error("cannot listen on \"{address}\"")]
    Listen {
        /// The address that was asked for.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Signals cannot be handled.
    #[error("signals cannot be handled")]
    Signals(#[source] io::Error),
    /// Logs or traces cannot be set up.
    #[error("cannot set up {what}: {detail}")]
    Telemetry {
        /// Logs or traces.
        what: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// The file that lists the processes of a cluster cannot be used.
    #[error("the hosts file \"{path}\" cannot be used: {detail}")]
    Hosts {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
}

/// What watches over a process and tells about it; handed to the runtime, which feeds it.
#[derive(Debug)]
pub struct Operations {
    /// What the job does, in numbers.
    pub metrics: Arc<Metrics>,
    /// Whether it has caught up.
    pub health: Arc<Health>,
    /// Whether its workers are alive.
    pub watchdog: Arc<Watchdog>,
    /// Whether it is asked to stop.
    pub stop: Stop,
    /// What takes how long.
    pub spans: Arc<Spans>,
    /// Ends with the job.
    server: Option<Server>,
}

impl Operations {
    /// Starts what the settings ask for, for a process with so many workers.
    ///
    /// # Errors
    /// Where the server's address cannot be had.
    pub fn start(
        settings: &OperationsSettings,
        names: JobNames,
        workers: usize,
        stop: Stop,
    ) -> Result<Operations, OperationsError> {
        let limit = Duration::from_millis(settings.cluster.watchdog_ms);
        let mut operations = Operations {
            metrics: Arc::new(Metrics::new(names)),
            health: Health::new(settings.ready.lag_ms_max),
            watchdog: Arc::new(Watchdog::start(workers, limit)),
            stop,
            spans: Arc::default(),
            server: None,
        };
        if let Some(listen) = &settings.server.listen {
            operations.server = Some(Server::start(listen, server::router(operations.served()))?);
        }
        Ok(operations)
    }

    /// What the routes of the server answer from.
    #[must_use]
    pub fn served(&self) -> server::Served {
        server::Served { metrics: self.metrics.clone(), health: self.health.clone(), watchdog: self.watchdog.clone() }
    }

    /// Whether anybody can ask for the metrics.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.server.is_some()
    }

    /// Where the server listens, if there is one.
    #[must_use]
    pub fn address(&self) -> Option<std::net::SocketAddr> {
        self.server.as_ref().map(Server::address)
    }
}
