//! Signals: SIGTERM and SIGINT ask a job to stop; it drains, takes a checkpoint and ends with 0. A second one ends it at once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use super::OperationsError;

/// The exit code of a process that a second signal ended: it failed while running.
const ENDED: i32 = 1;

/// Whether the job is asked to stop; shared by its workers.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// A stop that SIGTERM and SIGINT request. A second signal ends the process.
    ///
    /// # Errors
    /// Where the system does not let signals be handled.
    pub fn on_signals() -> Result<Stop, OperationsError> {
        let stop = Stop::default();
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag unset, sets it, and only the second one ends the process.
            let ended = flag::register_conditional_shutdown(signal, ENDED, stop.0.clone());
            ended.and_then(|_| flag::register(signal, stop.0.clone())).map_err(OperationsError::Signals)?;
        }
        Ok(stop)
    }

    /// Asks the job to stop.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether the job is asked to stop.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
