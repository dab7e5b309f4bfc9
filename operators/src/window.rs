//! Windows are panes: a sliding window of N panes holds the pane of `now` and the N - 1 before it.
//!
//! Panes are aligned to the Unix epoch in UTC. A window's pane is the finest of a minute, an hour, six hours and a day of
//! which the window has at most [`PANES_MAX`]; past [`PANES_MAX`] days the pane stays a day, up to [`DAYS_MAX`] of them.

use whisperer_schemas::time::{DAY, HOUR, MINUTE, Micros};

use crate::cells::floor_div;

/// Most panes of a window whose pane is shorter than a day.
pub const PANES_MAX: i64 = 60;
/// Longest window, in days: a year and a leap day.
pub const DAYS_MAX: i64 = 366;

const PANE_LENGTHS: [Micros; 4] = [MINUTE, HOUR, 6 * HOUR, DAY];

/// A sliding window cut into panes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    /// Length of one pane, in microseconds.
    pub pane: Micros,
    /// Panes in the window.
    pub panes: i64,
}

/// Why a length cannot be a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowError {
    /// Not longer than nothing.
    Empty,
    /// Longer than [`DAYS_MAX`] days.
    TooLong,
    /// Not a whole number of its panes; the nearest lengths that are.
    Ragged {
        /// The next shorter one; none below the shortest pane.
        below: Option<Micros>,
        /// The next longer one.
        above: Micros,
    },
}

impl Window {
    /// The window of this length.
    ///
    /// # Errors
    /// Where the length is no whole number of panes, empty or too long.
    ///
    /// ```
    /// use whisperer_operators::window::Window;
    /// use whisperer_schemas::time::{DAY, HOUR};
    /// assert_eq!(Window::of(7 * DAY), Ok(Window { pane: 6 * HOUR, panes: 28 }));
    /// ```
    pub fn of(length: Micros) -> Result<Window, WindowError> {
        if length <= 0 {
            return Err(WindowError::Empty);
        }
        if length > DAYS_MAX * DAY {
            return Err(WindowError::TooLong);
        }
        let pane = PANE_LENGTHS.into_iter().find(|pane| length <= pane * PANES_MAX).unwrap_or(DAY);
        if length % pane == 0 {
            return Ok(Window { pane, panes: length / pane });
        }
        let below = length / pane * pane;
        Err(WindowError::Ragged { below: (below > 0).then_some(below), above: below + pane })
    }

    /// The pane that holds an event time.
    #[inline]
    #[must_use]
    pub fn pane_of(&self, time: Micros) -> i64 {
        floor_div(time, self.pane)
    }

    /// The oldest pane of the window whose newest pane is `newest`.
    #[inline]
    #[must_use]
    pub fn oldest(&self, newest: i64) -> i64 {
        newest - self.panes + 1
    }

    /// The instant at which a pane leaves the window.
    #[inline]
    #[must_use]
    pub fn leaves_at(&self, pane: i64) -> Micros {
        (pane.saturating_add(self.panes)).saturating_mul(self.pane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panes_follow_the_rule() {
        // The four windows that the contract names, and the borders between pane lengths.
        for (length, pane, panes) in [
            (HOUR, MINUTE, 60),
            (DAY, HOUR, 24),
            (7 * DAY, 6 * HOUR, 28),
            (30 * DAY, DAY, 30),
            (2 * HOUR, HOUR, 2),
            (60 * HOUR, HOUR, 60),
            (3 * DAY, 6 * HOUR, 12),
            (15 * DAY, 6 * HOUR, 60),
            (16 * DAY, DAY, 16),
            (366 * DAY, DAY, 366),
        ] {
            assert_eq!(Window::of(length), Ok(Window { pane, panes }), "{length}");
        }
    }

    #[test]
    fn ragged_lengths_name_the_nearest_two() {
        // 90 minutes has hour panes, so it lies between one hour and two.
        assert_eq!(Window::of(90 * MINUTE), Err(WindowError::Ragged { below: Some(HOUR), above: 2 * HOUR }));
        assert_eq!(Window::of(MINUTE / 2), Err(WindowError::Ragged { below: None, above: MINUTE }));
        assert_eq!(Window::of(367 * DAY), Err(WindowError::TooLong));
        assert_eq!(Window::of(0), Err(WindowError::Empty));
    }
}
