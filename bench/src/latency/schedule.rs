//! The open-loop schedule: when each event is to be sent, whatever became of those before it.
//!
//! A latency is counted from the time that the schedule says, not from the sending: a generator that is held up sends late, and what is
//! then measured holds the wait that a user would have had. (Counted from the sending, a system that stalls is asked less while it
//! stalls, and looks well: "coordinated omission".)

use std::{ops::Range, time::Duration};

const NANOS: u128 = 1_000_000_000;

/// Events at a steady rate from the start on.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Events a second; at least 1.
    pub rate: u64,
}

impl Schedule {
    /// When the event with this number, from 0, is to be sent, after the start; cut to nanoseconds.
    #[must_use]
    pub fn time_of(self, event: u64) -> Duration {
        let nanos = u128::from(event) * NANOS / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many events are to have been sent by then: those whose time is not later.
    #[must_use]
    pub fn due(self, elapsed: Duration) -> u64 {
        self.before(elapsed + Duration::from_nanos(1))
    }

    /// The events to be sent from `from` on and before `to`.
    #[must_use]
    pub fn between(self, from: Duration, to: Duration) -> Range<u64> {
        self.before(from)..self.before(to)
    }

    /// floor(n x 1e9 / rate) < t holds for all n < t x rate / 1e9, and no other.
    fn before(self, time: Duration) -> u64 {
        (time.as_nanos() * u128::from(self.rate)).div_ceil(NANOS) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_due_at_its_time_and_not_before() {
        // Goal: no event is left out, sent early or counted twice, at rates that do not divide a second as at those that do.
        for rate in [1, 3, 7, 1_000, 44_100, 200_000] {
            let schedule = Schedule { rate };
            for event in (0..1_000).chain([rate * 20 - 1, rate * 20, rate * 3_600 + 1]) {
                let time = schedule.time_of(event);
                assert_eq!(schedule.due(time), event + 1, "{rate}/s, event {event}");
                let before = time.checked_sub(Duration::from_nanos(1)).map_or(0, |before| schedule.due(before));
                assert_eq!(before, event, "{rate}/s, before event {event}");
            }
            let parts = [0, 5, 6, 25].map(Duration::from_secs);
            let ranges = parts.windows(2).map(|ends| schedule.between(ends[0], ends[1]));
            let mut next = 0;
            for range in ranges {
                assert_eq!(range.start, next, "stretches of time lie beside one another");
                next = range.end;
            }
            assert_eq!(next, 25 * rate);
        }
    }
}
