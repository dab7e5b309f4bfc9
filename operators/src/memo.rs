//! What evaluations came to, by what they read: an evaluation is a function of its readings, and most users of a job read the same
//! few small numbers just after an event.
//!
//! A fixed number of places, each of which keeps the last outcome that fell into it; the readings are compared in full, so a hit is the
//! outcome that a computation would give, bit by bit. Outcomes in which an operation gave no value are not kept, since those are counted.

/// Room of a worker's memo: it should stay in a cache that is the core's own.
const BYTES_MAX: usize = 128 << 10;

/// Bits of a hash below those that make a place; there are never as many places as the others could tell apart.
const PLACE_SHIFT: u32 = 48;

/// What an evaluation says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The stage, as the job numbers stages.
    pub(crate) stage: u16,
    /// Triggers whose condition holds, as bits.
    pub(crate) holds: u64,
    /// Triggers whose `rearm` holds, as bits; of those that have none, 0.
    pub(crate) rearms: u64,
}

/// Outcomes by readings.
#[derive(Debug)]
pub(crate) struct Memo {
    /// Readings of an evaluation.
    width: usize,
    readings: Vec<u64>,
    outcomes: Vec<Option<Outcome>>,
}

impl Memo {
    /// A memo of evaluations with so many readings.
    pub(crate) fn new(width: usize) -> Memo {
        let each = width * size_of::<u64>() + size_of::<Option<Outcome>>();
        // A power of two, so that a place is some bits of a hash.
        let places = (BYTES_MAX / each / 2 + 1).next_power_of_two();
        Memo { width, readings: vec![0; places * width], outcomes: vec![None; places] }
    }

    /// The place of these readings.
    #[inline]
    pub(crate) fn place(&self, readings: &[u64]) -> usize {
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        // Small numbers differ in the upper bits of their f64 only, and a product carries upwards only: its uppermost bits are those
        // that all of them reach.
        let hash = readings.iter().fold(0_u64, |hash, word| (hash.rotate_left(23) ^ word).wrapping_mul(FACTOR));
        (hash >> PLACE_SHIFT) as usize & (self.outcomes.len() - 1)
    }

    /// The outcome that is kept there, if it is that of these readings.
    #[inline]
    pub(crate) fn get(&self, place: usize, readings: &[u64]) -> Option<Outcome> {
        let kept = &self.readings[place * self.width..][..self.width];
        if kept == readings { self.outcomes[place] } else { None }
    }

    /// Keeps an outcome.
    pub(crate) fn put(&mut self, place: usize, readings: &[u64], outcome: Outcome) {
        self.readings[place * self.width..][..self.width].copy_from_slice(readings);
        self.outcomes[place] = Some(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_is_the_outcome_of_the_same_readings() {
        // Goal: whatever shares a place, what comes out was put in under exactly these readings; and small numbers spread.
        let mut memo = Memo::new(3);
        let readings = |n: u64| [(n % 5) as f64, (n / 5 % 7) as f64, (n / 35) as f64].map(f64::to_bits);
        let mut places = Vec::new();
        for n in 0..700 {
            let place = memo.place(&readings(n));
            assert_eq!(memo.get(place, &readings(n)), None);
            memo.put(place, &readings(n), Outcome { stage: n as u16, holds: n, rearms: 0 });
            places.push(place);
        }
        let hits = (0..700).filter_map(|n| {
            let outcome = memo.get(places[n as usize], &readings(n))?;
            assert_eq!(outcome.holds, n);
            Some(outcome)
        });
        assert!(hits.count() > 500);
    }

    #[test]
    fn a_job_that_reads_nothing_has_one_outcome() {
        // Goal: no readings are readings, too.
        let mut memo = Memo::new(0);
        let place = memo.place(&[]);
        assert_eq!(memo.get(place, &[]), None);
        memo.put(place, &[], Outcome::default());
        assert_eq!(memo.get(place, &[]), Some(Outcome::default()));
    }
}
