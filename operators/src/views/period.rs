//! Periods of the UTC calendar.

use whisperer_schemas::time::{DAY, Micros, day_of_month};

use crate::spec::Period;

/// Days from the Monday before 1970 to its first day, a Thursday.
const MONDAY_BEFORE: i64 = 3;

/// The day, since the Unix epoch, on which the period of an instant begins.
/// ```
/// use whisperer_operators::{spec::Period, views::first_day_of};
/// use whisperer_schemas::time::DAY;
///
/// // 2026-01-01 is a Thursday, and day 20,454.
/// let time = 20_454 * DAY + 5;
/// let first = [Period::Day, Period::Week, Period::Month].map(|period| first_day_of(period, time));
/// assert_eq!(first, [20_454, 20_451, 20_454]);
/// ```
#[must_use]
pub fn first_day_of(period: Period, time: Micros) -> i64 {
    let day = time.div_euclid(DAY);
    match period {
        Period::Day => day,
        Period::Week => day - (day + MONDAY_BEFORE).rem_euclid(7),
        Period::Month => day + 1 - i64::from(day_of_month(time)),
    }
}

#[cfg(test)]
mod tests {
    use jiff::{ToSpan, civil::date};

    use super::*;

    #[test]
    fn periods_are_those_of_the_calendar() {
        // Goal: every day of nine centuries, leap years and those that are none among them, against the calendar of a library.
        let (zero, mut day) = (date(1970, 1, 1), date(1590, 1, 1));
        while day.year() < 2_490 {
            let since = |day: jiff::civil::Date| i64::from((day - zero).get_days());
            let time = since(day) * DAY + DAY - 1;
            let monday = day - i64::from(day.weekday().to_monday_zero_offset()).days();
            assert_eq!(first_day_of(Period::Month, time), since(day.first_of_month()), "{day}");
            assert_eq!(first_day_of(Period::Week, time), since(monday), "{day}");
            day += 1.day();
        }
    }
}
