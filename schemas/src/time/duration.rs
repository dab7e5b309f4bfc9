//! Spans of time as people write them: `30s`, `24h`, `7d`.

use std::fmt;

use compact_str::CompactString;

use super::{DAY, HOUR, MILLISECOND, MINUTE, Micros, SECOND};
use crate::error::SchemaError;

/// Units from the largest to the smallest.
const UNITS: [(&str, Micros); 6] =
    [("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND), ("ms", MILLISECOND), ("us", 1)];

/// Characters of a wrong duration that its error shows.
const SHOWN_CHARS_MAX: usize = 40;

/// Reads a whole number and a unit: `d`, `h`, `m`, `s`, `ms` or `us`.
///
/// # Errors
/// [`SchemaError::Duration`] where the text is anything else, or more microseconds than an `i64` holds.
///
/// ```
/// use whisperer_schemas::time::{DAY, parse_duration};
/// assert_eq!(parse_duration("24h").unwrap(), DAY);
/// let wrong = parse_duration("2 weeks").unwrap_err().to_string();
/// assert!(wrong.starts_with("\"2 weeks\" is not a duration: the unit must be one of d, h, m, s, ms, us"));
/// ```
pub fn parse_duration(text: &str) -> Result<Micros, SchemaError> {
    let fail = |problem| {
        let text = text.chars().take(SHOWN_CHARS_MAX).collect::<CompactString>();
        Err(SchemaError::Duration { text, problem })
    };
    let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    match (number, unit.chars().next()) {
        ("", Some('-')) => return fail("it must not be negative"),
        ("", _) => return fail("it must begin with a whole number"),
        (_, None) => return fail("it has no unit"),
        (_, Some('.' | ',')) => return fail("the number must be whole"),
        _ => {}
    }
    let Some((_, micros)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return fail("the unit must be one of d, h, m, s, ms, us, right after the number");
    };
    match number.parse::<Micros>().ok().and_then(|number| number.checked_mul(*micros)) {
        Some(span) => Ok(span),
        None => fail("it is too long"),
    }
}

/// Writes a span as a whole number of the largest unit that fits; what [`parse_duration`] reads, unless negative.
///
/// ```
/// use whisperer_schemas::time::{MINUTE, format_duration};
/// assert_eq!(format_duration(90 * MINUTE).to_string(), "90m");
/// assert_eq!(format_duration(0).to_string(), "0s");
/// ```
#[must_use]
pub fn format_duration(span: Micros) -> impl fmt::Display {
    Duration(span)
}

struct Duration(Micros);

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let fits = |(_, micros): &&(&str, Micros)| self.0 % micros == 0;
        let (name, micros) = UNITS.iter().find(fits).expect("a microsecond fits any span");
        write!(f, "{}{name}", self.0 / micros)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_written() {
        // Every unit, and zero.
        let cases = [
            ("30s", 30 * SECOND),
            ("24h", DAY),
            ("7d", 7 * DAY),
            ("10m", 10 * MINUTE),
            ("500ms", SECOND / 2),
            ("0s", 0),
        ];
        for (text, span) in cases {
            assert_eq!(parse_duration(text).unwrap(), span, "{text}");
        }
    }

    #[test]
    fn wrong_durations_say_what_is_wrong() {
        // Each kind of mistake has its own words.
        let cases = [
            ("", "begin with a whole number"),
            ("h", "begin with a whole number"),
            ("-5m", "negative"),
            ("30", "no unit"),
            ("1.5h", "whole"),
            ("30 s", "right after the number"),
            ("30S", "one of d, h, m, s, ms, us"),
            ("5é", "one of d, h, m, s, ms, us"),
            ("106751992d", "too long"),
            ("99999999999999999999us", "too long"),
        ];
        for (text, problem) in cases {
            let error = parse_duration(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_span_is_read_back(number in 0..100_000_i64, unit in 0..UNITS.len()) {
            // What is written is read back as the same span.
            let span = number * UNITS[unit].1;
            prop_assert_eq!(parse_duration(&format_duration(span).to_string()).unwrap(), span);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}") {
            // No text panics.
            let _ = parse_duration(&text);
        }
    }
}
