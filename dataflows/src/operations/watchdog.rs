//! The watchdog: ends the process when one of its workers gives no sign of life. A hung process would hold up its whole cluster; a
//! dead one is restarted.
//!
//! Workers only set a flag, without looking at a clock. The watchdog looks for flags in short steps and counts the steps in which a
//! worker has set none: a process that was stopped as a whole and goes on later is not mistaken for one with a hung worker.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// Looks within the limit: more make the limit sharper, and cost more.
const STEPS: u32 = 20;

/// The worker is not watched.
const RESTING: u8 = 0;
/// The worker has given a sign since the last look.
const FED: u8 = 1;
/// It has given none yet.
const HUNGRY: u8 = 2;

/// A worker without a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hang {
    /// The worker, as [`Watchdog::feed`] numbers them.
    pub worker: usize,
    /// For how long at least.
    pub silent: Duration,
}

/// Watches the workers of this process until it is dropped.
#[derive(Debug)]
pub struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    workers: Vec<Watched>,
    step: Duration,
    /// Set to [`RESTING`] to end the watch.
    running: AtomicU8,
}

#[derive(Debug)]
struct Watched {
    sign: AtomicU8,
    /// Looks in a row that found no sign.
    missed: AtomicU32,
}

impl Watchdog {
    /// Watches `workers`, each from its first sign on, and aborts the process when one gives none for `limit`.
    #[must_use]
    pub fn start(workers: usize, limit: Duration) -> Watchdog {
        Watchdog::start_with(workers, limit, |hang| {
            let silent_ms = hang.silent.as_millis() as u64;
            tracing::error!(worker = hang.worker, silent_ms, "a worker gives no sign of life: the process ends itself");
            std::process::abort()
        })
    }

    /// [`Watchdog::start`] with something else to do about the first worker that hangs.
    pub fn start_with(workers: usize, limit: Duration, on_hang: impl FnOnce(Hang) + Send + 'static) -> Watchdog {
        let watched = || Watched { sign: AtomicU8::new(RESTING), missed: AtomicU32::new(0) };
        let workers = (0..workers).map(|_| watched()).collect();
        let step = (limit / STEPS).max(Duration::from_millis(1));
        let shared = Arc::new(Shared { workers, step, running: AtomicU8::new(FED) });
        let watching = shared.clone();
        let thread = std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            if let Some(hang) = watching.watch() {
                on_hang(hang);
            }
        });
        // Without memory for one more thread the job will soon say so itself; it then runs without a watchdog.
        Watchdog { shared, thread: thread.ok() }
    }

    /// A sign of life of a worker of this process, numbered from 0; one store.
    pub fn feed(&self, worker: usize) {
        self.shared.workers[worker].sign.store(FED, Ordering::Relaxed);
    }

    /// The worker gives no signs until it is fed again: it has ended, or does something long that is bounded otherwise.
    pub fn rest(&self, worker: usize) {
        self.shared.workers[worker].sign.store(RESTING, Ordering::Relaxed);
    }

    /// Whether all workers that are watched give signs of life.
    ///
    /// # Errors
    /// The one that has been silent for longest, if for more than half the limit.
    pub fn alive(&self) -> Result<(), Hang> {
        let hangs = (0..self.shared.workers.len()).map(|worker| self.shared.hang(worker));
        let longest = hangs.max_by_key(|hang| hang.silent);
        longest.filter(|hang| hang.silent > self.shared.step * STEPS / 2).map_or(Ok(()), Err)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.running.store(RESTING, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A watchdog that came down has nothing to tell.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Looks until the watch ends, or a worker hangs.
    fn watch(&self) -> Option<Hang> {
        loop {
            std::thread::park_timeout(self.step);
            if self.running.load(Ordering::Relaxed) == RESTING {
                return None;
            }
            for (worker, watched) in self.workers.iter().enumerate() {
                if watched.look() > STEPS {
                    return Some(self.hang(worker));
                }
            }
        }
    }

    fn hang(&self, worker: usize) -> Hang {
        let missed = self.workers[worker].missed.load(Ordering::Relaxed);
        Hang { worker, silent: self.step * missed }
    }
}

impl Watched {
    /// Looks for a sign; gives the looks in a row that found none.
    fn look(&self) -> u32 {
        // A sign that comes between the load and the exchange stays, and is found next time.
        let seen = self.sign.compare_exchange(FED, HUNGRY, Ordering::Relaxed, Ordering::Relaxed);
        match seen {
            Err(HUNGRY) => self.missed.fetch_add(1, Ordering::Relaxed) + 1,
            _ => {
                self.missed.store(0, Ordering::Relaxed);
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Instant};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(100);

    #[test]
    fn a_worker_that_hangs_is_found() {
        // Goal: of two workers the one that stops giving signs is named, not before the limit; the other one goes on.
        let (tell, told) = mpsc::channel();
        let watchdog = Watchdog::start_with(2, LIMIT, move |hang| tell.send(hang).expect("the test waits"));
        watchdog.feed(1);
        let silent_since = Instant::now();
        let hang = loop {
            watchdog.feed(0);
            if let Ok(hang) = told.try_recv() {
                break hang;
            }
            assert!(silent_since.elapsed() < Duration::from_secs(20), "nothing was found");
            std::thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(hang.worker, 1);
        assert!(hang.silent >= LIMIT && silent_since.elapsed() >= LIMIT, "{hang:?}");
        assert_eq!(watchdog.alive(), Err(hang));
    }

    #[test]
    fn a_worker_that_rests_is_not_watched() {
        // Goal: a worker is watched from its first sign on, and not while it rests.
        let (tell, told) = mpsc::channel();
        let watchdog = Watchdog::start_with(2, LIMIT, move |hang| tell.send(hang).expect("the test waits"));
        watchdog.feed(0);
        watchdog.rest(0);
        assert!(told.recv_timeout(3 * LIMIT).is_err());
        assert_eq!(watchdog.alive(), Ok(()));
    }
}
