//! RFC 3339 times as microseconds since the Unix epoch, read digit by digit.

use whisperer_schemas::time::{DAY, HOUR, MINUTE, Micros, SECOND};

/// Reads `YYYY-MM-DDTHH:MM:SS[.digits](Z|±HH:MM)`; the `T` may be `t` or a space, the `Z` may be `z`. Digits past the
/// sixth are cut. A leap second is valid at 23:59:60 UTC, where it can occur, and counts as the second after it.
pub(super) fn parse(text: &str) -> Option<Micros> {
    let mut rest = Rest(text.as_bytes());
    let (year, ()) = (rest.number(4)?, rest.one_of(b"-")?);
    let (month, ()) = (rest.number(2)?, rest.one_of(b"-")?);
    let (day, ()) = (rest.number(2)?, rest.one_of(b"Tt ")?);
    let (hour, ()) = (rest.number(2)?, rest.one_of(b":")?);
    let (minute, ()) = (rest.number(2)?, rest.one_of(b":")?);
    let second = rest.number(2)?;
    let fraction = rest.fraction()?;
    let offset = rest.offset()?;
    let valid = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && (hour <= 23 && minute <= 59 && second <= 60)
        && rest.0.is_empty();
    let time = days_before(year, month, day) * DAY + hour * HOUR + minute * MINUTE + second * SECOND - offset;
    let misplaced_leap = second == 60 && time % DAY != 0;
    (valid && !misplaced_leap).then_some(time + fraction)
}

struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn number(&mut self, digits: usize) -> Option<i64> {
        let (head, tail) = self.0.split_at_checked(digits)?;
        self.0 = tail;
        let digit = |sum: i64, byte: &u8| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0'));
        head.iter().try_fold(0, digit)
    }

    fn one_of(&mut self, choices: &[u8]) -> Option<()> {
        let (first, tail) = self.0.split_first()?;
        self.0 = tail;
        choices.contains(first).then_some(())
    }

    fn fraction(&mut self) -> Option<Micros> {
        if self.0.first() != Some(&b'.') {
            return Some(0);
        }
        self.0 = &self.0[1..];
        let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let text = self.0[..digits].iter().map(|byte| i64::from(byte - b'0'));
        self.0 = &self.0[digits..];
        let micros = text.chain(std::iter::repeat(0)).take(6).fold(0, |sum, digit| sum * 10 + digit);
        (digits > 0).then_some(micros)
    }

    fn offset(&mut self) -> Option<Micros> {
        let sign = match self.0.first()? {
            b'Z' | b'z' => 0,
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        self.0 = &self.0[1..];
        if sign == 0 {
            return Some(0);
        }
        let (hours, ()) = (self.number(2)?, self.one_of(b":")?);
        let minutes = self.number(2)?;
        (hours <= 23 && minutes <= 59).then_some(sign * (hours * HOUR + minutes * MINUTE))
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from the Unix epoch to a date, counted year by year and month by month.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year_days = |year| if is_leap(year) { 366 } else { 365 };
    let years: i64 = (1970..year).map(year_days).sum::<i64>() - (year..1970).map(year_days).sum::<i64>();
    years + (1..month).map(|month| days_in_month(year, month)).sum::<i64>() + day - 1
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn valid_times() {
        // Goal: separators, fractions, offsets and dates before 1970 read as RFC 3339 says.
        assert_eq!(parse("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse("1970-01-02t00:00:01.5z"), Some(86_401_500_000));
        assert_eq!(parse("2011-12-09 12:50:00+00:00"), Some(1_323_435_000_000_000));
        assert_eq!(parse("2000-03-01T00:00:00-01:30"), Some(951_868_800_000_000 + 5_400_000_000));
        assert_eq!(parse("1969-12-31T23:59:59.9999999Z"), Some(-1));
        assert_eq!(parse("2024-02-29T00:00:00Z"), Some(1_709_164_800_000_000));
        assert_eq!(parse("1970-01-01T00:59:60.5+01:00"), Some(500_000));
    }

    #[test]
    fn invalid_times() {
        // Goal: what is near RFC 3339 but is not is refused.
        for text in [
            "",
            "2024-02-30T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00Z",
            "2024-01-01T12:00:60Z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00+0100",
            "2024-01-01T00:00:00Z ",
            "2024-1-01T00:00:00Z",
            "1700000000",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
