//! Quantities as job files write them: durations such as `"30s"`, sizes such as `"1GiB"`, and instants; with what was probably meant.

use whisperer_schemas::{
    Micros,
    time::{DAY, parse_duration, parse_rfc3339},
};

/// What is wrong with a quantity.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub message: String,
    pub hint: Option<String>,
}

/// What people write for a unit, by the unit.
const SPELLINGS: [(&str, &[&str]); 5] = [
    ("d", &["d", "day", "days", "D"]),
    ("h", &["h", "hour", "hours", "hr", "hrs", "H"]),
    ("m", &["m", "minute", "minutes", "min", "mins", "M"]),
    ("s", &["s", "second", "seconds", "sec", "secs", "S"]),
    ("ms", &["ms", "millisecond", "milliseconds", "millis"]),
];

/// Ten thousand years; with longer ones, sums with an instant would overflow.
const LONGEST: Micros = 3_652_500 * DAY;

/// Reads `"30s"`: a whole number and a unit, nothing between.
pub(super) fn duration(text: &str) -> Result<Micros, Mistake> {
    match parse_duration(text) {
        Ok(micros) if micros <= LONGEST => Ok(micros),
        Ok(_) => Err(Mistake {
            message: format!("\"{text}\" is too long a duration"),
            hint: Some("at most 3652500d".into()),
        }),
        Err(_) => Err(not_a_duration(text)),
    }
}

fn not_a_duration(text: &str) -> Mistake {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let meant = SPELLINGS.iter().find(|(_, spellings)| spellings.contains(&unit.trim()));
    let hint = match meant {
        Some((name, _)) if !count.is_empty() => format!("did you mean \"{count}{name}\"?"),
        _ => "a whole number and ms, s, m, h or d, such as \"30s\", \"24h\" or \"7d\"".into(),
    };
    Mistake { message: format!("\"{text}\" is not a duration"), hint: Some(hint) }
}

/// Reads an RFC 3339 instant, or a date, which stands for its midnight in UTC.
pub(super) fn instant(text: &str) -> Result<Micros, Mistake> {
    let midnight = || parse_rfc3339(format!("{text}T00:00:00Z").as_bytes());
    parse_rfc3339(text.as_bytes()).or_else(midnight).ok_or_else(|| Mistake {
        message: format!("\"{text}\" is not an instant"),
        hint: Some("RFC 3339 with an offset, such as \"2026-01-01T00:00:00Z\"".into()),
    })
}

/// Bytes by unit; `B` alone is left out where a plain number says it.
const BYTES: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// Reads `"1GiB"`: a whole number and a unit, nothing between.
pub(super) fn bytes(text: &str) -> Result<u64, Mistake> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let factor = BYTES.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let bytes = factor.and_then(|factor| count.parse::<u64>().ok()?.checked_mul(factor));
    bytes.ok_or_else(|| {
        let unit = unit.trim().trim_end_matches(['b', 'B', 'i', 'I']);
        let meant = BYTES.iter().take(4).find(|(name, _)| !unit.is_empty() && name[..1].eq_ignore_ascii_case(unit));
        let hint = match meant {
            Some((name, _)) if digits > 0 && factor.is_none() => format!("did you mean \"{count}{name}\"?"),
            _ => "a whole number and KiB, MiB or GiB, such as \"1GiB\"".into(),
        };
        Mistake { message: format!("\"{text}\" is not a number of bytes"), hint: Some(hint) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_durations_are_answered_with_what_was_meant() {
        // Goal: a wrong duration is an error, and where the unit is only misspelt the hint is the right one.
        for (text, meant) in [("7 days", "7d"), ("30sec", "30s"), ("24 h", "24h"), ("5min", "5m")] {
            let mistake = duration(text).expect_err(text);
            assert_eq!(mistake.hint, Some(format!("did you mean \"{meant}\"?")));
        }
        for text in ["", "7", "d", "-7d", "1.5h", "1h30m", "7w", "é", "99999999999999999999d", "9999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration("7d"), Ok(7 * DAY));
    }

    #[test]
    fn sizes_have_units_of_both_kinds() {
        // Goal: powers of two and of ten are told apart, what is wrong is an error with what was probably meant.
        let sizes = [("1GiB", 1 << 30), ("512MiB", 512 << 20), ("2GB", 2_000_000_000), ("10kB", 10_000), ("7B", 7)];
        for (text, expected) in sizes {
            assert_eq!(bytes(text), Ok(expected));
        }
        for (text, meant) in [("1G", "1GiB"), ("1 gb", "1GiB"), ("20m", "20MiB"), ("3gib", "3GiB")] {
            let mistake = bytes(text).expect_err(text);
            assert_eq!(mistake.hint, Some(format!("did you mean \"{meant}\"?")));
        }
        for text in ["", "1", "GiB", "-1GiB", "1.5GiB", "99999999999TiB", "é"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn instants_are_dates_or_rfc_3339() {
        // Goal: both forms give microseconds in UTC; a time without an offset is refused.
        assert_eq!(instant("1970-01-02"), Ok(DAY));
        assert_eq!(instant("1970-01-01T01:00:00+01:00"), Ok(0));
        assert!(instant("2026-01-01T00:00:00").is_err());
        assert!(instant("soon").is_err());
    }
}
