//! What tells a terminal from a pipe: colours and progress.

use std::{
    io::{IsTerminal, stderr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use whisperer_connectors::source::Size;

use crate::runtime::Progress;

/// How often progress is shown on a terminal.
const SHOWN_EVERY: Duration = Duration::from_millis(200);
/// How often it is logged elsewhere.
const LOGGED_EVERY: Duration = Duration::from_secs(10);

/// Whether messages may be coloured.
pub(super) fn coloured() -> bool {
    stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Shows how far a run has come until it is dropped.
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches a run over a source of this size.
    pub(super) fn start(progress: Arc<Progress>, size: Option<Size>) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || match stderr().is_terminal() {
            true => draw(&progress, size, &stopped),
            false => log(&progress, &stopped),
        });
        Watch { stop, thread: Some(thread) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A watch that came down has nothing to tell about the run.
            let _ = thread.join();
        }
    }
}

fn draw(progress: &Progress, size: Option<Size>, stop: &AtomicBool) {
    let (length, template) = match size {
        Some(Size::Bytes(bytes)) => (Some(bytes), "{bar:30} {bytes}/{total_bytes}, {msg}, {eta} left"),
        Some(Size::Records(records)) => (Some(records), "{bar:30} {human_pos}/{human_len} events, {msg}, {eta} left"),
        None => (None, "{spinner} {msg}"),
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new).with_style(style);
    let started = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let rate = progress.records() as f64 / started.elapsed().as_secs_f64().max(0.001);
        bar.set_message(format!("{rate:.0} events/s"));
        bar.set_position(match size {
            Some(Size::Bytes(_)) => progress.position_sum(),
            _ => progress.records(),
        });
        std::thread::park_timeout(SHOWN_EVERY);
    }
    bar.finish_and_clear();
}

fn log(progress: &Progress, stop: &AtomicBool) {
    let started = Instant::now();
    let mut next = LOGGED_EVERY;
    while !stop.load(Ordering::Relaxed) {
        if started.elapsed() >= next {
            next += LOGGED_EVERY;
            let events = progress.records();
            let rate = events as f64 / started.elapsed().as_secs_f64();
            tracing::info!(events, events_per_second = rate.round(), "reading");
        }
        std::thread::park_timeout(SHOWN_EVERY);
    }
}
