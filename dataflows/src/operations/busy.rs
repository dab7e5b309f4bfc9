//! How busy operators are, from timely's own log of when it schedules them.
//!
//! ```text
//! timely log ─▶ start(op) … stop(op), park … unpark ─▶ sums of this worker ─▶ counters, once for each flush of the log
//! ```
//! The time of a scope is its own: that of the operators inside is taken off. The log is flushed by timely once for each turn of the
//! scheduler, so the counters cost one atomic for each operator that ran in it.

use std::{collections::HashMap, time::Duration};

use timely::{
    logging::{ParkEvent, StartStop, TimelyEvent, TimelyEventBuilder},
    worker::Worker,
};

use super::metrics::{Metrics, SecondsCounter};

/// Feeds `metrics` from the log of `worker`. To be called before the worker builds a dataflow: operators that exist already are
/// not followed.
pub fn register_timely_logging(worker: &Worker, metrics: &std::sync::Arc<Metrics>) {
    let Some(mut register) = worker.log_register() else { return };
    let mut busy = Busy::new(worker.index(), metrics.clone());
    register.insert::<TimelyEventBuilder, _>("timely", move |_, events| match events {
        Some(events) => events.drain(..).for_each(|(at, event)| busy.take(at, &event)),
        None => busy.flush(),
    });
}

/// What one worker's log has said.
struct Busy {
    metrics: std::sync::Arc<Metrics>,
    operators: HashMap<usize, Operator>,
    /// Operators that have started and not stopped, outermost first; time since `resumed` is the last one's.
    running: Vec<usize>,
    resumed: Duration,
    /// Operators whose sum has grown since the last flush.
    changed: Vec<usize>,
    parked: SecondsCounter,
    parked_at: Option<Duration>,
}

struct Operator {
    counter: SecondsCounter,
    /// Busy since the last flush.
    sum: Duration,
}

impl Busy {
    fn new(worker: usize, metrics: std::sync::Arc<Metrics>) -> Busy {
        Busy {
            parked: metrics.parked(worker),
            metrics,
            operators: HashMap::new(),
            running: Vec::new(),
            resumed: Duration::ZERO,
            changed: Vec::new(),
            parked_at: None,
        }
    }

    fn take(&mut self, at: Duration, event: &TimelyEvent) {
        match event {
            TimelyEvent::Operates(operates) => {
                let counter = self.metrics.busy(&operates.name);
                self.operators.insert(operates.id, Operator { counter, sum: Duration::ZERO });
            }
            TimelyEvent::Schedule(schedule) => {
                self.charge(at);
                match schedule.start_stop {
                    StartStop::Start => self.running.push(schedule.id),
                    StartStop::Stop => drop(self.running.pop()),
                }
            }
            TimelyEvent::Park(ParkEvent::Park(_)) => self.parked_at = Some(at),
            TimelyEvent::Park(ParkEvent::Unpark) => {
                let slept = self.parked_at.take().map(|since| at.saturating_sub(since));
                self.parked.inc_by(slept.unwrap_or_default().as_secs_f64());
            }
            _ => {}
        }
    }

    /// Adds the time since the last start or stop to the innermost operator.
    fn charge(&mut self, at: Duration) {
        let passed = at.saturating_sub(self.resumed);
        self.resumed = at;
        let Some(id) = self.running.last() else { return };
        let Some(operator) = self.operators.get_mut(id) else { return };
        if operator.sum.is_zero() {
            self.changed.push(*id);
        }
        operator.sum += passed;
    }

    fn flush(&mut self) {
        for id in self.changed.drain(..) {
            if let Some(operator) = self.operators.get_mut(&id) {
                operator.counter.inc_by(std::mem::take(&mut operator.sum).as_secs_f64());
            }
        }
    }
}
