//! Periods of the UTC calendar.

use whisperer_schemas::time::{DAY, Micros};

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
        Period::Month => day - (day_of_month(day) - 1),
    }
}

/// The day of the month, from 1, of a day since the Unix epoch.
///
/// Counts in eras of 400 years that begin on a first of March, so that a leap day is the last of its year (Howard Hinnant,
/// "chrono-compatible low-level date algorithms", `civil_from_days`).
fn day_of_month(day: i64) -> i64 {
    const DAYS_OF_ERA: i64 = 146_097;
    const MARCH_OF_0_TO_1970: i64 = 719_468;
    let of_era = (day + MARCH_OF_0_TO_1970).rem_euclid(DAYS_OF_ERA);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    of_year - (153 * month + 2) / 5 + 1
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
