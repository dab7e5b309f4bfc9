//! Event time: microseconds since the Unix epoch, and its text forms.
//!
//! Every event's time is read by [`parse_rfc3339`], so it works on bytes at fixed places, without tables or
//! allocation. The calendar is the proleptic Gregorian one; the day numbers follow Howard Hinnant, "chrono-compatible
//! low-level date algorithms" (years begin in March, so that the leap day is the last one).

use std::fmt;

mod duration;

pub use duration::{format_duration, parse_duration};

/// Event time, or a span of it, in microseconds; event times count from the Unix epoch in UTC.
pub type Micros = i64;

/// Microseconds in a millisecond.
pub const MILLISECOND: Micros = 1_000;
/// Microseconds in a second.
pub const SECOND: Micros = 1_000_000;
/// Microseconds in a minute.
pub const MINUTE: Micros = 60 * SECOND;
/// Microseconds in an hour.
pub const HOUR: Micros = 60 * MINUTE;
/// Microseconds in a day.
pub const DAY: Micros = 24 * HOUR;

/// Reads an RFC 3339 date-time: `T`, `t` or a space in the middle, years 0000 to 9999, and an offset (`Z`, `z`, `+hh:mm` or
/// `-hh:mm`), which must be there. A fraction may have any number of digits and is cut to microseconds.
///
/// A leap second is valid where it can occur, at 23:59:60 UTC, and counts as the second that follows it.
///
/// ```
/// use whisperer_schemas::time::{SECOND, parse_rfc3339};
/// assert_eq!(parse_rfc3339(b"1970-01-01T01:00:01.5+01:00"), Some(SECOND + SECOND / 2));
/// assert_eq!(parse_rfc3339(b"1970-01-01T01:00:01"), None);
/// ```
#[inline]
#[must_use]
pub fn parse_rfc3339(text: &[u8]) -> Option<Micros> {
    let (head, tail) = text.split_first_chunk::<19>()?;
    let civil = Civil::parse(head)?;
    let (fraction, tail) = parse_fraction(tail)?;
    let offset_minutes = parse_offset(tail)?;
    let minutes = civil.days() * MINUTES_IN_DAY + i64::from(civil.hour * 60 + civil.minute) - offset_minutes;
    if civil.second == 60 && minutes.rem_euclid(MINUTES_IN_DAY) != MINUTES_IN_DAY - 1 {
        return None;
    }
    Some((minutes * 60 + i64::from(civil.second)) * SECOND + fraction)
}

const MINUTES_IN_DAY: i64 = 24 * 60;

/// Days from 0000-03-01 to 1970-01-01.
const UNIX_EPOCH_DAY: i64 = 719_468;

/// Years after which the calendar repeats, and their days.
const ERA_YEARS: i64 = 400;
const ERA_DAYS: i64 = 146_097;

/// The day of the month, from 1, of an instant in UTC.
/// ```
/// use whisperer_schemas::time::{day_of_month, parse_rfc3339};
///
/// assert_eq!(parse_rfc3339(b"2024-02-29T23:59:59Z").map(day_of_month), Some(29));
/// ```
#[must_use]
pub fn day_of_month(time: Micros) -> u32 {
    Civil::at(time).day
}

/// `YYYY-MM-DDThh:mm:ss`, each part within its bounds; seconds go to 60.
struct Civil {
    year: i64,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
}

impl Civil {
    #[inline]
    fn parse(text: &[u8; 19]) -> Option<Civil> {
        // One test at the end instead of one per digit: well-formed times are the rule.
        let mut largest = 0;
        let mut pair = |at: usize| {
            let (tens, ones) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
            largest = largest.max(tens).max(ones);
            u32::from(tens) * 10 + u32::from(ones)
        };
        let civil = Civil {
            year: i64::from(pair(0) * 100 + pair(2)),
            month: pair(5),
            day: pair(8),
            hour: pair(11),
            minute: pair(14),
            second: pair(17),
        };
        let marks = text[4] == b'-' && text[7] == b'-' && text[13] == b':' && text[16] == b':';
        let middle = matches!(text[10], b'T' | b't' | b' ');
        (largest <= 9 && marks && middle && civil.is_within_bounds()).then_some(civil)
    }

    #[inline]
    fn is_within_bounds(&self) -> bool {
        (1..=12).contains(&self.month)
            && (1..=days_in_month(self.year, self.month)).contains(&self.day)
            && self.hour <= 23
            && self.minute <= 59
            && self.second <= 60
    }

    /// Days since 1970-01-01, for years from 0.
    #[inline]
    fn days(&self) -> i64 {
        // One era more keeps January of the year 0 positive, so that all divisions are the cheap unsigned ones.
        let year = (self.year + ERA_YEARS - i64::from(self.month <= 2)) as u32;
        let day_of_year = (153 * ((self.month + 9) % 12) + 2) / 5 + self.day - 1;
        let day = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
        i64::from(day) - ERA_DAYS - UNIX_EPOCH_DAY
    }

    /// The inverse of [`Civil::days`], with the time of day.
    fn at(time: Micros) -> Civil {
        let seconds = time.div_euclid(SECOND);
        let day = seconds.div_euclid(MINUTES_IN_DAY * 60) + UNIX_EPOCH_DAY;
        let second_of_day = seconds.rem_euclid(MINUTES_IN_DAY * 60);
        let era = day.div_euclid(ERA_DAYS);
        let day_of_era = day.rem_euclid(ERA_DAYS);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Civil {
            year: era * ERA_YEARS + year_of_era + i64::from(month <= 2),
            month: month as u32,
            day: (day_of_year - (153 * march_month + 2) / 5 + 1) as u32,
            hour: (second_of_day / 3_600) as u32,
            minute: (second_of_day / 60 % 60) as u32,
            second: (second_of_day % 60) as u32,
        }
    }
}

#[inline]
fn days_in_month(year: i64, month: u32) -> u32 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + u32::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Reads `.` and one or more digits, if they are there; gives the microseconds and what follows.
#[inline]
fn parse_fraction(text: &[u8]) -> Option<(Micros, &[u8])> {
    let Some((b'.', digits)) = text.split_first() else { return Some((0, text)) };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = digits.split_at(count);
    // Digits past the sixth have no unit: they are cut.
    let micros = digits.iter().zip(FRACTION_UNITS).map(|(digit, unit)| i64::from(digit - b'0') * unit).sum();
    (count > 0).then_some((micros, rest))
}

/// Microseconds of each digit of a fraction.
const FRACTION_UNITS: [Micros; 6] = [100_000, 10_000, 1_000, 100, 10, 1];

/// Reads the offset from UTC, in minutes, which must be all that is left.
#[inline]
fn parse_offset(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text {
        [b'Z' | b'z'] => return Some(0),
        [b'+', h1, h2, b':', m1, m2] => (1, [h1, h2, m1, m2]),
        [b'-', h1, h2, b':', m1, m2] => (-1, [h1, h2, m1, m2]),
        _ => return None,
    };
    let digits = digits.map(|byte| i64::from(byte.wrapping_sub(b'0')));
    let (hours, minutes) = (digits[0] * 10 + digits[1], digits[2] * 10 + digits[3]);
    let valid = digits.iter().all(|digit| *digit <= 9) && hours <= 23 && minutes <= 59;
    valid.then_some(sign * (hours * 60 + minutes))
}

/// Writes a time as RFC 3339 in UTC, with six digits of fraction, or none where they would be zero. Years outside 0000 to
/// 9999, which RFC 3339 does not know, have a sign and at least four digits.
///
/// ```
/// use whisperer_schemas::time::format_micros;
/// assert_eq!(format_micros(0).to_string(), "1970-01-01T00:00:00Z");
/// assert_eq!(format_micros(-1).to_string(), "1969-12-31T23:59:59.999999Z");
/// ```
#[must_use]
pub fn format_micros(time: Micros) -> impl fmt::Display {
    Rfc3339(time)
}

struct Rfc3339(Micros);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let civil = Civil::at(self.0);
        write_date(&civil, f)?;
        write!(f, "T{:02}:{:02}:{:02}", civil.hour, civil.minute, civil.second)?;
        match self.0.rem_euclid(SECOND) {
            0 => f.write_str("Z"),
            fraction => write!(f, ".{fraction:06}Z"),
        }
    }
}

/// The UTC date of a time, as `YYYY-MM-DD`.
///
/// ```
/// use whisperer_schemas::time::{DAY, utc_date};
/// assert_eq!(utc_date(DAY - 1), "1970-01-01");
/// ```
#[must_use]
pub fn utc_date(time: Micros) -> String {
    let mut date = String::with_capacity(10);
    write_date(&Civil::at(time), &mut date).expect("a string takes any text");
    date
}

fn write_date(civil: &Civil, out: &mut impl fmt::Write) -> fmt::Result {
    match civil.year {
        0..=9999 => write!(out, "{:04}", civil.year)?,
        year => write!(out, "{year:+05}")?,
    }
    write!(out, "-{:02}-{:02}", civil.month, civil.day)
}

#[cfg(test)]
mod tests;
