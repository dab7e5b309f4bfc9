//! How far the reader of a partition lags behind its end: a rule over facts, without a clock or a broker.
//!
//! The watch asks the brokers once a second where partitions end. What a reader is behind at a moment in between follows from that answer, from
//! whether the consumer was at the end since, and from when the last record that it took was written: nobody is asked for it.

use std::time::Duration;

use whisperer_schemas::{Micros, time::SECOND};

use super::{partition::Partition, watch::Ends};
use crate::source::Lag;

/// How old an answer may be. An older one says nothing: brokers that do not answer hold back what they have.
const ANSWER_AGE_MAX: Micros = 3 * SECOND;

/// The lag of a partition at `now`, on the clock of the watch; none where its end is not known any more, or not yet.
pub(super) fn of(partition: &Partition, ends: &Ends, now: Micros) -> Option<Lag> {
    let end = *ends.offsets.get(&partition.id.0)?;
    let age = now.saturating_sub(ends.asked_at).max(0);
    if age > ANSWER_AGE_MAX {
        return None;
    }
    // An end that only the consumer sees counts: markers of transactions lie beyond the last record, and open ones cannot be read.
    if partition.is_at_end {
        return Some(Lag { records: 0, waiting: Some(Duration::ZERO) });
    }
    let records = end.saturating_sub(partition.next_offset);
    // What comes after a record was written after it.
    let since_last = partition.last_written.map(|written| now.saturating_sub(written).max(0));
    let waiting = match records {
        // All that was there is read; what came since waits no longer than since then.
        0 => Some(since_last.map_or(age, |since| since.min(age))),
        _ => since_last,
    };
    Some(Lag { records, waiting: waiting.map(|micros| Duration::from_micros(micros.unsigned_abs())) })
}

#[cfg(test)]
mod tests {
    use whisperer_schemas::PartitionId;

    use super::*;

    const ASKED: Micros = 1_000 * SECOND;

    /// A partition at offset 70 of a log that ended at `end` when it was asked, half a second ago.
    fn lag(end: u64, change: impl FnOnce(&mut Partition)) -> Option<Lag> {
        let mut partition = Partition::new(PartitionId(2), 70, &[]);
        change(&mut partition);
        let ends = Ends { asked_at: ASKED, offsets: [(2, end)].into() };
        of(&partition, &ends, ASKED + SECOND / 2)
    }

    fn some(records: u64, waiting_ms: Option<u64>) -> Option<Lag> {
        Some(Lag { records, waiting: waiting_ms.map(Duration::from_millis) })
    }

    #[test]
    fn a_partition_at_its_end_has_no_lag() {
        // Goal: also where the log goes on with what holds no record, and however old the last record is.
        let at_end = |partition: &mut Partition| (partition.is_at_end, partition.last_written) = (true, Some(SECOND));
        assert_eq!(lag(70, at_end), some(0, Some(0)));
        assert_eq!(lag(73, at_end), some(0, Some(0)));
    }

    #[test]
    fn what_waits_has_waited_no_longer_than_the_last_record() {
        // Goal: a backlog is as old as what was read last, and of unknown age before that.
        assert_eq!(lag(100, |_| {}), some(30, None));
        assert_eq!(lag(100, |partition| partition.last_written = Some(ASKED - 9 * SECOND)), some(30, Some(9_500)));
    }

    #[test]
    fn a_reader_that_keeps_up_lags_less_than_the_answer_is_old() {
        // Goal: between two answers of a busy topic the lag is that of the records, not that of the questions.
        assert_eq!(lag(60, |_| {}), some(0, Some(500)));
        assert_eq!(lag(60, |partition| partition.last_written = Some(ASKED + SECOND / 2 - 2_000)), some(0, Some(2)));
        assert_eq!(lag(60, |partition| partition.last_written = Some(ASKED + SECOND)), some(0, Some(0)));
    }

    #[test]
    fn an_end_that_is_not_known_says_nothing() {
        // Goal: a broker that does not answer, or has not for long, is no sign of having caught up.
        let mut partition = Partition::new(PartitionId(2), 70, &[]);
        partition.is_at_end = true;
        assert_eq!(of(&partition, &Ends::default(), ASKED), None);
        let ends = Ends { asked_at: ASKED, offsets: [(2, 70)].into() };
        assert_eq!(of(&partition, &ends, ASKED + 4 * SECOND), None);
    }
}
