//! Watches for requests while a job runs.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use whisperer_connectors::{StateStore, StoreError};

use super::{APPLIED, REQUEST};

/// How often it is looked for requests: a listing of one folder.
const EVERY: Duration = Duration::from_secs(1);

/// How much longer a job works than it took to apply erasures, before it does so again: that reads all tables.
const WORKED: u32 = 10;

/// A thread that looks for requests which nobody has applied.
pub(crate) struct Watch {
    found: Arc<AtomicBool>,
    /// Ends the thread when it goes.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to look; a job whose start took so long to apply erasures works ten times as long before it starts again.
    pub(crate) fn start(store: Arc<dyn StateStore>, took: Duration) -> Watch {
        let (stop, stopped) = mpsc::channel::<()>();
        let found = Arc::new(AtomicBool::new(false));
        let tell = found.clone();
        let thread = thread::spawn(move || {
            let mut pause = EVERY.max(WORKED * took);
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                pause = EVERY;
                match waits(&*store) {
                    Ok(true) => return tell.store(true, Ordering::SeqCst),
                    Ok(false) => {}
                    // The job does not depend on it; the next look may succeed.
                    Err(error) => tracing::warn!(%error, "the control log cannot be read for now"),
                }
            }
        });
        Watch { found, stop: Some(stop), thread: Some(thread) }
    }

    /// Whether a request waits.
    pub(crate) fn found(&self) -> bool {
        self.found.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        // A thread that panicked has aborted the process.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Whether there are requests that nobody has applied.
pub(crate) fn waits(store: &dyn StateStore) -> Result<bool, StoreError> {
    let names = store.control()?;
    let applied: BTreeSet<&str> = names.iter().filter_map(|name| name.strip_prefix(APPLIED)).collect();
    Ok(names.iter().filter_map(|name| name.strip_prefix(REQUEST)).any(|id| !applied.contains(id)))
}
