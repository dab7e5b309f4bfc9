//! When a partition is idle, and how far its clock may then advance: a rule over facts, without a clock or a broker.

use whisperer_schemas::{Micros, time::SECOND};

/// Advances come in steps of this length, so that an idle partition writes one tick a second.
const STEP: Micros = SECOND;

/// The silence of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quiet {
    /// When a broker was first asked and said that there is nothing to read, without a record or a failure since.
    since: Option<Micros>,
    /// The largest advance so far; new ones lie beyond it.
    advanced: Micros,
}

impl Quiet {
    /// The silence of a partition whose clock was last advanced to `advanced`, `Micros::MIN` if never.
    pub(super) fn new(advanced: Micros) -> Quiet {
        Quiet { since: None, advanced }
    }

    /// There is something to read, or nobody knows: a record came, or a broker did not answer.
    pub(super) fn broken(&mut self) {
        self.since = None;
    }

    /// A broker was asked at `asked_at`, on the wall clock, and the reader stands at the end that it named. Gives the advance that is due.
    pub(super) fn at_end(&mut self, asked_at: Micros, idle_timeout: Micros) -> Option<Micros> {
        let since = *self.since.get_or_insert(asked_at);
        if asked_at.saturating_sub(since) < idle_timeout {
            return None;
        }
        // Not the time at which the answer came: what was written in between may be older than that.
        let step = asked_at - asked_at.rem_euclid(STEP);
        if step <= self.advanced {
            return None;
        }
        self.advanced = step;
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Micros = 1_000 * SECOND + 300_000;

    #[test]
    fn the_clock_follows_in_steps_once_the_silence_is_long_enough() {
        // Goal: no advance before the timeout, then one a second, each a whole second that is not in the future.
        let mut quiet = Quiet::new(Micros::MIN);
        let asked = (0..60).map(|tenths| START + tenths * (SECOND / 10));
        let advances: Vec<_> =
            asked.filter_map(|at| quiet.at_end(at, 2 * SECOND).map(|to| (at - START, to / SECOND))).collect();
        let expected =
            [(2_000_000, 1_002), (2_700_000, 1_003), (3_700_000, 1_004), (4_700_000, 1_005), (5_700_000, 1_006)];
        assert_eq!(advances, expected);
    }

    #[test]
    fn a_record_or_a_failure_breaks_the_silence() {
        // Goal: an outage is not silence; it begins anew after it.
        let mut quiet = Quiet::new(Micros::MIN);
        assert_eq!(quiet.at_end(START, 2 * SECOND), None);
        quiet.broken();
        assert_eq!(quiet.at_end(START + 5 * SECOND, 2 * SECOND), None);
        assert_eq!(quiet.at_end(START + 7 * SECOND, 2 * SECOND), Some(1_007 * SECOND));
    }

    #[test]
    fn the_clock_never_goes_back() {
        // Goal: after a restart, and when the wall clock is set back, advances lie beyond the recorded ones.
        let mut quiet = Quiet::new(1_003 * SECOND);
        assert_eq!(quiet.at_end(START, 0), None);
        assert_eq!(quiet.at_end(START - 500 * SECOND, 0), None);
        assert_eq!(quiet.at_end(START + 3 * SECOND, 0), None);
        assert_eq!(quiet.at_end(START + 4 * SECOND, 0), Some(1_004 * SECOND));
    }
}
