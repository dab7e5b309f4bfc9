//! Event times of records: RFC 3339, and what a mapping's `format`, `unit` and `zone` say.
//!
//! Digits beyond microseconds are cut, which for times before 1970 rounds towards the past, as it does in RFC 3339. Years go from
//! 0000 to 9999, as they do there.

use jiff::{fmt::strtime, tz::TimeZone};
use whisperer_schemas::time::{DAY, Micros, parse_rfc3339};

use super::{
    mapping::{Member, TimeUnit},
    plan::Found,
};
use crate::source::SourceError;

/// 0000-01-01T00:00:00Z
const TIME_MIN: Micros = -719_528 * DAY;
/// The last microsecond of 9999-12-31.
const TIME_MAX: Micros = 2_932_897 * DAY - 1;

/// Reads the event times of one parser.
#[derive(Debug, Default)]
pub(super) struct TimeReader {
    format: Option<Format>,
    unit: Option<TimeUnit>,
    /// Where times without an offset are at home; without `format`, only if the mapping names one.
    zone: Option<TimeZone>,
    /// The text read last: logs are full of equal times, and `strptime` costs a thousand instructions.
    last: Option<(String, Micros)>,
}

#[derive(Debug)]
struct Format {
    letters: String,
    /// `YYYY-MM-DD?hh:mm:ss` in UTC: such texts lack nothing but a `Z`.
    plain: bool,
}

impl TimeReader {
    /// A reader of the times of a mapped member.
    ///
    /// # Errors
    /// Where the zone is unknown or the format holds an unknown letter.
    pub(super) fn mapped(member: &Member) -> Result<TimeReader, SourceError> {
        let zone = member.zone.as_deref().map(find_zone).transpose()?;
        let utc = zone.as_ref().is_none_or(|zone| *zone == TimeZone::UTC);
        let format = member.format.as_ref().map(|letters| Format::new(letters, utc)).transpose()?;
        Ok(TimeReader { format, unit: member.unit, zone, last: None })
    }

    /// The time of a found value, or none where it is not one.
    #[inline]
    pub(super) fn read(&mut self, found: Found<'_>) -> Option<Micros> {
        match found {
            Found::Text(text) if self.is_native() => parse_rfc3339(text.as_bytes()),
            Found::Text(text) => self.text(text),
            Found::Cell(text) => self.number_text(text).or_else(|| self.text(text)),
            Found::Unsigned(number) => whole(i128::from(number), self.unit?),
            Found::Signed(number) => whole(i128::from(number), self.unit?),
            Found::Float(number) if number.abs() < 1e19 => decimal(&number.to_string(), self.unit?),
            Found::Integer(_) | Found::Float(_) | Found::Missing | Found::Bool(_) | Found::Nested => None,
        }
    }

    fn is_native(&self) -> bool {
        self.format.is_none() && self.zone.is_none()
    }

    /// A cell has no type: with a `unit`, it is a number if it looks like one.
    fn number_text(&self, text: &str) -> Option<Micros> {
        self.unit.and_then(|unit| decimal(text, unit))
    }

    fn text(&mut self, text: &str) -> Option<Micros> {
        if let Some((last, time)) = &self.last
            && last == text
        {
            return Some(*time);
        }
        let time = match &self.format {
            None => parse_rfc3339(text.as_bytes()).or_else(|| self.civil(text)),
            Some(format) if format.plain => plain_utc(text).or_else(|| self.strptime(&format.letters, text)),
            Some(format) => self.strptime(&format.letters, text),
        }?;
        self.remember(text, time);
        Some(time)
    }

    fn remember(&mut self, text: &str, time: Micros) {
        let (last, last_time) = self.last.get_or_insert_default();
        last.clear();
        last.push_str(text);
        *last_time = time;
    }

    /// `YYYY-MM-DDThh:mm:ss[.f]` without an offset, in a zone that the mapping names.
    fn civil(&self, text: &str) -> Option<Micros> {
        let zone = self.zone.as_ref()?;
        let separator = if text.as_bytes().get(10) == Some(&b' ') { ' ' } else { 'T' };
        let time = strtime::parse(format!("%Y-%m-%d{separator}%H:%M:%S%.f"), text).ok()?;
        let instant = zone.to_timestamp(time.to_datetime().ok()?).ok()?;
        in_range(instant.as_nanosecond().div_euclid(1_000))
    }

    fn strptime(&self, letters: &str, text: &str) -> Option<Micros> {
        let time = strtime::parse(letters, text).ok()?;
        let instant = if time.timestamp().is_some() || time.offset().is_some() {
            time.to_timestamp().ok()?
        } else if time.iana_time_zone().is_some() {
            time.to_zoned().ok()?.timestamp()
        } else {
            let zone = self.zone.as_ref().unwrap_or(const { &TimeZone::UTC });
            zone.to_timestamp(time.to_datetime().ok()?).ok()?
        };
        in_range(instant.as_nanosecond().div_euclid(1_000))
    }
}

impl Format {
    fn new(letters: &str, utc: bool) -> Result<Format, SourceError> {
        let probe = jiff::Zoned::new(jiff::Timestamp::UNIX_EPOCH, TimeZone::UTC);
        strtime::format(letters, &probe)
            .map_err(|error| SourceError::Settings(format!("\"{letters}\" is not a time format: {error}")))?;
        let plain = utc && matches!(letters, "%Y-%m-%d %H:%M:%S" | "%Y-%m-%dT%H:%M:%S" | "%F %T" | "%FT%T");
        Ok(Format { letters: letters.to_owned(), plain })
    }
}

fn find_zone(name: &str) -> Result<TimeZone, SourceError> {
    TimeZone::get(name).map_err(|error| SourceError::Settings(format!("\"{name}\" is not a time zone: {error}")))
}

/// A time that lacks only its offset, which is zero. Leap seconds are left to `strptime`.
fn plain_utc(text: &str) -> Option<Micros> {
    let civil: &[u8; 19] = text.as_bytes().try_into().ok()?;
    let mut whole = [b'Z'; 20];
    whole[..19].copy_from_slice(civil);
    if civil.ends_with(b":60") { None } else { parse_rfc3339(&whole) }
}

pub(super) fn in_range(micros: i128) -> Option<Micros> {
    Micros::try_from(micros).ok().filter(|micros| (TIME_MIN..=TIME_MAX).contains(micros))
}

fn whole(number: i128, unit: TimeUnit) -> Option<Micros> {
    in_range(match unit {
        TimeUnit::Seconds => number * 1_000_000,
        TimeUnit::Millis => number * 1_000,
        TimeUnit::Micros => number,
        TimeUnit::Nanos => number.div_euclid(1_000),
    })
}

/// The time of a decimal numeral. Its point is moved, not multiplied: `1285321830.123456` s is exact in digits, not in f64.
fn decimal(text: &str, unit: TimeUnit) -> Option<Micros> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 24 || !all_digits {
        return None;
    }
    let kept = match unit {
        TimeUnit::Seconds => whole.len() + 6,
        TimeUnit::Millis => whole.len() + 3,
        TimeUnit::Micros => whole.len(),
        TimeUnit::Nanos => whole.len().saturating_sub(3),
    };
    let digit = |byte: u8| i128::from(byte - b'0');
    let all = || whole.bytes().chain(fraction.bytes());
    let micros = all().chain(std::iter::repeat(b'0')).take(kept).fold(0, |sum, byte| sum * 10 + digit(byte));
    let cut = all().skip(kept).any(|byte| byte != b'0');
    in_range(if negative { -micros - i128::from(cut) } else { micros })
}
