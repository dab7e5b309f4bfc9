//! Tests of [`super`]: against jiff where both know the form, by hand where RFC 3339 and jiff differ.

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Option<Micros> {
    parse_rfc3339(text.as_bytes())
}

/// What jiff makes of a text, in microseconds, rounded down.
fn jiff_micros(text: &str) -> Option<Micros> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(time.as_nanosecond().div_euclid(1_000) as Micros)
}

#[test]
fn forms_of_the_standard_are_read() {
    // Each freedom of the form: separator, case, sign, length of the fraction.
    let second = 1_700_000_000 * SECOND;
    for (text, expected) in [
        ("2023-11-14T22:13:20Z", second),
        ("2023-11-14t22:13:20z", second),
        ("2023-11-14 22:13:20Z", second),
        ("2023-11-14T22:13:20+00:00", second),
        ("2023-11-14T22:13:20-00:00", second),
        ("2023-11-15T07:58:20+09:45", second),
        ("2023-11-13T22:14:20-23:59", second),
        ("2023-11-14T22:13:20.5Z", second + 500_000),
        ("2023-11-14T22:13:20.000001Z", second + 1),
        ("2023-11-14T22:13:20.1234569999999999999999Z", second + 123_456),
        ("0000-01-01T00:00:00Z", -62_167_219_200 * SECOND),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_800 * SECOND - 1),
        ("1969-12-31T23:59:59.9999999Z", -1),
    ] {
        assert_eq!(parse(text), Some(expected), "{text}");
    }
}

#[test]
fn what_is_no_date_time_is_refused() {
    // Every part out of its bounds, missing or followed by something.
    for text in [
        "",
        "2023-11-14",
        "2023-11-14T22:13Z",
        "2023-11-14T22:13:20",
        "2023-11-14T22:13:20.Z",
        "2023-11-14T22:13:20,5Z",
        "2023-11-14T22:13:20ZZ",
        "2023-11-14T22:13:20Z ",
        " 2023-11-14T22:13:20Z",
        "2023-11-14_22:13:20Z",
        "2023-11-14T22:13:20+0100",
        "2023-11-14T22:13:20+01",
        "2023-11-14T22:13:20+24:00",
        "2023-11-14T22:13:20+01:60",
        "2023-11-14T22:13:20+0/:00",
        "2023-00-14T22:13:20Z",
        "2023-13-14T22:13:20Z",
        "2023-11-00T22:13:20Z",
        "2023-11-31T22:13:20Z",
        "2023-02-29T22:13:20Z",
        "1900-02-29T22:13:20Z",
        "2023-11-14T24:00:00Z",
        "2023-11-14T22:60:20Z",
        "2023-11-14T22:13:61Z",
        "+2023-11-14T22:13:20Z",
        "2O23-11-14T22:13:20Z",
        "2023-11-14T22:13:2:Z",
        "２023-11-14T22:13:20Z",
        "1700000000",
    ] {
        assert_eq!(parse(text), None, "{text}");
    }
}

#[test]
fn leap_days_follow_the_calendar() {
    // Divisible by 4, but not by 100, but by 400.
    assert!(parse("2000-02-29T00:00:00Z").is_some());
    assert!(parse("0000-02-29T00:00:00Z").is_some());
    assert!(parse("2024-02-29T00:00:00Z").is_some());
    assert!(parse("2100-02-29T00:00:00Z").is_none());
    assert!(parse("2023-02-29T00:00:00Z").is_none());
}

#[test]
fn a_leap_second_counts_as_the_one_that_follows() {
    // Valid at 23:59:60 UTC alone, whatever the offset it is written in.
    let next = parse("2017-01-01T00:00:00Z");
    assert_eq!(parse("2016-12-31T23:59:60Z"), next);
    assert_eq!(parse("2016-12-31T15:59:60-08:00"), next);
    assert_eq!(parse("2017-01-01T05:44:60+05:45"), next);
    assert_eq!(parse("2016-12-31T23:59:60.25Z"), next.map(|time| time + SECOND / 4));
    assert_eq!(parse("2016-12-31T22:59:60Z"), None);
    assert_eq!(parse("2016-12-31T23:59:60-08:00"), None);
    assert_eq!(parse("2016-12-31T23:58:60Z"), None);
}

#[test]
fn years_outside_four_digits_are_written_with_a_sign() {
    // An offset can carry a valid time beyond the years that RFC 3339 knows; the largest spans do not panic.
    let before = parse("0000-01-01T00:00:00+00:01").unwrap();
    assert_eq!(format_micros(before).to_string(), "-0001-12-31T23:59:00Z");
    let after = parse("9999-12-31T23:59:00-00:01").unwrap();
    assert_eq!(format_micros(after).to_string(), "+10000-01-01T00:00:00Z");
    assert_eq!(format_micros(Micros::MAX).to_string(), "+294247-01-10T04:00:54.775807Z");
    assert_eq!(format_micros(Micros::MIN).to_string(), "-290308-12-21T19:59:05.224192Z");
}

/// Times between the years 0 and 9999.
fn any_time() -> impl Strategy<Value = Micros> {
    -62_167_219_200 * SECOND..253_402_300_800 * SECOND
}

/// Texts that are nearly date-times: each part a little wider than valid.
fn nearly_a_time() -> impl Strategy<Value = String> {
    let date = (0..=9998_u32, 0..=13_u32, 0..=32_u32);
    let clock = (0..=24_u32, 0..=60_u32, 0..=59_u32);
    let fraction = prop_oneof!["", "\\.[0-9]{1,9}"];
    let offset = prop_oneof!["Z", "z", "[+-](0[0-9]|1[0-9]|2[0-3]):[0-5][0-9]"];
    (date, "[Tt ]", clock, fraction, offset).prop_map(
        |((year, month, day), middle, (hour, minute, second), fraction, offset)| {
            format!("{year:04}-{month:02}-{day:02}{middle}{hour:02}:{minute:02}:{second:02}{fraction}{offset}")
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn times_agree_with_jiff(text in nearly_a_time()) {
        // jiff takes the same texts and gives the same instants.
        prop_assert_eq!(parse(&text), jiff_micros(&text), "{}", text);
    }

    #[test]
    fn what_is_written_is_read_back(time in any_time()) {
        // Written by us, it is read back by us; written by jiff, too.
        prop_assert_eq!(parse(&format_micros(time).to_string()), Some(time));
        if let Ok(theirs) = jiff::Timestamp::from_microsecond(time) {
            prop_assert_eq!(parse(&theirs.to_string()), Some(time));
            prop_assert_eq!(utc_date(time), theirs.strftime("%Y-%m-%d").to_string());
        }
    }

    #[test]
    fn changed_bytes_never_panic(time in any_time(), at in 0..32_usize, byte in any::<u8>()) {
        // Any byte at any place is read or refused, without a panic.
        let mut text = format_micros(time).to_string().into_bytes();
        let at = at % text.len();
        text[at] = byte;
        let _ = parse_rfc3339(&text);
        let _ = parse_rfc3339(&text[..at]);
    }
}

#[test]
fn every_day_of_the_calendar_is_its_own_inverse() {
    // All days of the years 0 to 9999, one by one: dates ascend and are read back.
    let mut last = String::new();
    for day in -719_528..2_932_897_i64 {
        let date = utc_date(day * DAY);
        assert!(date > last, "{last} {date}");
        assert_eq!(parse(&format!("{date}T00:00:00Z")), Some(day * DAY));
        last = date;
    }
    assert_eq!(last, "9999-12-31");
}
