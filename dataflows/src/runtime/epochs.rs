//! Epochs as a worker sees them come to their end: how long each took from its end on the clock to the end of its work.
//!
//! ```text
//! live      epoch e ends when the wall clock says e + 1, whether anybody read it; its work has, when the frontier has passed e
//! bounded   epoch e ends when the reader goes on to the next one
//! ```
//! Of a live source all epochs count, also those that a worker which was held up has passed over: what came meanwhile has waited as long.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tracing::Span;

use super::coordinator::wall_clock;
use crate::operations::traces;

/// Epochs that one look counts at most: beyond ten seconds at the usual length, a gap is an outage and no latency any more.
const EPOCHS_MAX: u64 = 1_000;

/// How often an epoch gets a span of its own.
const SPAN_EVERY: Duration = Duration::from_secs(1);

/// The epochs of one worker.
pub(super) struct Epochs {
    /// The length of an epoch of a live source, in microseconds.
    live: Option<u64>,
    /// The epoch at which the run began.
    began: u64,
    /// The least live epoch that has not been counted.
    next: u64,
    /// The frontier at the last look.
    passed: u64,
    /// The epoch that was being read at the last look.
    reading: u64,
    /// Epochs of a bounded source that have ended, and when.
    ended: VecDeque<(u64, Instant)>,
    worker: usize,
    /// The span of the run; off where nobody takes spans.
    run: Span,
    /// The epoch that has a span, until its work has ended.
    span: Option<(u64, Span)>,
    spanned: Option<Instant>,
}

impl Epochs {
    /// Epochs from `first` on; `live` is their length where they follow the wall clock.
    pub(super) fn new(live: Option<Duration>, first: u64, (run, worker): (Span, usize)) -> Epochs {
        let live = live.map(|interval| (interval.as_micros() as u64).max(1));
        // What ended before the run began is none of its latencies.
        let began = live.map_or(first, |interval| first.max(now_micros() / interval));
        Epochs {
            live,
            began,
            next: began,
            passed: began,
            reading: first,
            ended: VecDeque::new(),
            worker,
            run,
            span: None,
            spanned: None,
        }
    }

    /// Looks what has ended: `reading` is the epoch that is being read, `frontier` the least one whose work has not ended, none where all
    /// has. Gives each latency to `done`.
    pub(super) fn look(&mut self, reading: u64, frontier: Option<u64>, done: &mut dyn FnMut(Duration)) {
        if reading > self.reading {
            self.end(reading);
        }
        let frontier = frontier.unwrap_or(reading);
        match self.live {
            Some(interval) => self.done_live(interval, frontier, done),
            None => self.done_bounded(frontier, done),
        }
        if self.span.as_ref().is_some_and(|(epoch, _)| *epoch < frontier) {
            self.span = None;
        }
    }

    fn end(&mut self, reading: u64) {
        let now = Instant::now();
        let last = reading - 1;
        if self.live.is_none() {
            self.ended.push_back((last, now));
        }
        let due = self.spanned.is_none_or(|spanned| now.duration_since(spanned) >= SPAN_EVERY);
        if due && self.span.is_none() && !self.run.is_disabled() {
            self.span = Some((last, traces::epoch(&self.run, last, self.worker)));
            self.spanned = Some(now);
        }
        self.reading = reading;
    }

    fn done_live(&mut self, interval: u64, frontier: u64, done: &mut dyn FnMut(Duration)) {
        let now = now_micros();
        // An epoch counts once the clock has ended it. Its work may have ended before: it is whole as soon as it is read.
        let past = frontier.min(now / interval);
        for epoch in self.next.max(past.saturating_sub(EPOCHS_MAX))..past {
            let behind = now.saturating_sub((epoch + 1) * interval);
            done(Duration::from_micros(if epoch < self.passed { 0 } else { behind }));
        }
        self.next = past.max(self.next);
        self.passed = frontier.max(self.passed);
    }

    fn done_bounded(&mut self, frontier: u64, done: &mut dyn FnMut(Duration)) {
        while let Some((_, ended)) = self.ended.front().filter(|(epoch, _)| *epoch < frontier) {
            done(ended.elapsed());
            self.ended.pop_front();
        }
    }

    /// How far a frontier lies behind the wall clock; none where epochs do not follow it, or no worker has read yet.
    pub(super) fn delay(&self, frontier: u64) -> Option<Duration> {
        let interval = self.live.filter(|_| frontier >= self.began)?;
        Some(Duration::from_micros(now_micros().saturating_sub(frontier * interval)))
    }
}

fn now_micros() -> u64 {
    wall_clock().unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(live: Option<Duration>, first: u64) -> Epochs {
        Epochs::new(live, first, (Span::none(), 0))
    }

    fn latencies(epochs: &mut Epochs, reading: u64, frontier: Option<u64>) -> Vec<Duration> {
        let mut latencies = Vec::new();
        epochs.look(reading, frontier, &mut |latency| latencies.push(latency));
        latencies
    }

    #[test]
    fn every_epoch_of_the_clock_counts_once() {
        // Goal: epochs that were passed over while a worker was held up have waited since their own end; none is counted twice, and none
        // that the clock has not ended.
        const LONG: Duration = Duration::from_millis(20);
        let mut live = epochs(Some(LONG), 0);
        let began = live.next;
        assert_eq!(latencies(&mut live, began, Some(0)), []);
        std::thread::sleep(5 * LONG);
        let held_up = latencies(&mut live, began + 5, Some(began + 4));
        assert_eq!(held_up.len(), 4);
        assert!(held_up.is_sorted_by(|one, next| *one == *next + LONG), "{held_up:?}");
        assert_eq!(latencies(&mut live, began + 5, Some(began + 4)), []);
        let ahead = latencies(&mut live, began + 1_000_000, Some(began + 1_000_000));
        assert!((1..1_000).contains(&ahead.len()), "{}", ahead.len());
    }

    #[test]
    fn an_epoch_whose_work_ends_before_its_tick_took_no_time() {
        // Goal: a worker that is always done with the epoch at hand counts each epoch once the clock has ended it, and none as late.
        const LONG: Duration = Duration::from_millis(20);
        let mut live = epochs(Some(LONG), 0);
        let mut counted = Vec::new();
        for _ in 0..30 {
            let next = now_micros() / LONG.as_micros() as u64 + 1;
            counted.extend(latencies(&mut live, next, Some(next)));
            std::thread::sleep(LONG / 4);
        }
        assert!(counted.len() >= 5, "{counted:?}");
        let late = counted.iter().filter(|latency| !latency.is_zero()).count();
        assert!(late * 2 < counted.len(), "{counted:?}");
    }

    #[test]
    fn an_epoch_of_a_bounded_source_ends_when_the_next_begins() {
        // Goal: the wait of an epoch for the frontier is measured from then on, that of the last one included.
        let mut bounded = epochs(None, 7);
        assert_eq!(latencies(&mut bounded, 7, Some(7)), []);
        assert_eq!(latencies(&mut bounded, 8, Some(7)), []);
        std::thread::sleep(Duration::from_millis(15));
        let done = latencies(&mut bounded, 9, Some(8));
        assert!(done.len() == 1 && done[0] >= Duration::from_millis(15), "{done:?}");
        assert_eq!(latencies(&mut bounded, 9, None).len(), 1);
        assert_eq!(bounded.delay(9), None);
    }

    #[test]
    fn a_frontier_lies_behind_the_clock() {
        // Goal: the delay of a worker is told in time, and not before anything was read.
        const LONG: Duration = Duration::from_secs(100);
        let mut live = epochs(Some(LONG), 0);
        assert_eq!(live.delay(0), None);
        assert_eq!(live.delay(live.began - 1), None);
        live.began -= 2;
        let delay = live.delay(live.began).expect("live");
        assert!((2 * LONG..4 * LONG).contains(&delay), "{delay:?}");
        assert_eq!(live.delay(live.next + 5), Some(Duration::ZERO));
    }
}
