//! Lines that are no valid event: a well-formed one is written and then spoilt.
//!
//! A line is spoilt in one way only, so that it is rejected for exactly the [`Reason`] that it was spoilt for.

use whisperer_schemas::time::{DAY, MINUTE, Micros};

use super::{line::write_instant, random::scaled};
use crate::format::Reason;

/// Bytes of the longest record that a job takes by default.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// The least by which a time is ahead that lies in the future: more than jobs accept by default.
const AHEAD_MIN: Micros = 90 * MINUTE;

/// What to spoil a line for. Oversized lines are few: each is as long as 2,000 others.
pub(super) fn draw(bits: u64) -> Reason {
    match scaled(bits, 1_000) {
        0..4 => Reason::TooLarge,
        4..300 => Reason::InvalidJson,
        300..500 => Reason::MissingField,
        500..650 => Reason::BadTime,
        650..900 => Reason::Schema,
        _ => Reason::Future,
    }
}

/// Spoils a well-formed line, given without its end of line, that arrived at `received`.
pub(super) fn spoil(line: &mut Vec<u8>, reason: Reason, bits: u64, received: Micros) {
    match reason {
        Reason::TooLarge => {
            let bytes = EVENT_BYTES_MAX + 1 + (bits % 50_000) as usize;
            append(line, br#","note":""#);
            line.resize(bytes, b'x');
            line.extend_from_slice(b"\"}");
        }
        Reason::InvalidJson => break_json(line, bits),
        Reason::MissingField => leave_out(line, bits),
        Reason::BadTime => set(line, b"timestamp", BAD_TIMES[bits as usize % BAD_TIMES.len()]),
        Reason::Schema => break_schema(line, bits),
        Reason::Future => {
            // From an hour and a half to a year, short ones more often.
            let part = (bits >> 32) as f64 / (1_u64 << 32) as f64;
            let ahead = AHEAD_MIN + (365.0 * DAY as f64 * part * part * part) as Micros;
            let mut time = vec![b'"'];
            write_instant(&mut time, received + ahead, 3, 0);
            time.push(b'"');
            set(line, b"timestamp", &time);
        }
    }
}

const BAD_TIMES: [&[u8]; 10] = [
    b"\"\"",
    b"\"yesterday\"",
    b"\"2026-01-05\"",
    b"\"2026-01-05T10:00:00\"",
    b"\"2026-02-30T10:00:00Z\"",
    b"\"2026-13-01T10:00:00Z\"",
    b"\"2026-01-05T25:61:00Z\"",
    b"\"05/01/2026 10:00\"",
    b"\"1767607200000\"",
    b"\"2026-01-05T10:00:00 PST\"",
];

/// Makes a line that is no JSON object, or none of valid text and numbers.
fn break_json(line: &mut Vec<u8>, bits: u64) {
    let which = scaled(bits, 10);
    match which {
        0..3 => line.truncate(1 + (bits % (line.len() as u64 - 1)) as usize),
        3 => append(line, br#","value":NaN}"#),
        4 => append(line, br#","value":1e999}"#),
        5 => append(line, b",\"note\":\"caf\xe9\"}"),
        6 => append(line, br#","note":"\ud83d"}"#),
        7 => append(line, b",}"),
        8 => {
            line.insert(0, b'[');
            line.push(b']');
        }
        _ => {
            line.clear();
            line.extend_from_slice(b"ERROR 503 upstream timed out (request was not logged)");
        }
    }
}

/// Makes one of the required members null, or misspells its name. (A missing `event_id` is no fault of a log.)
fn leave_out(line: &mut Vec<u8>, bits: u64) {
    let name: &[u8] = [&b"app_id"[..], b"user_id", b"event_type", b"timestamp"][scaled(bits, 4) as usize];
    if bits & 1 == 0 {
        set(line, name, b"null");
    } else {
        let (start, _) = value_of(line, name);
        let at = name_before(line, start, name);
        line[at] = b'X';
    }
}

/// Gives a member a value that the contract does not admit.
fn break_schema(line: &mut Vec<u8>, bits: u64) {
    match scaled(bits, 10) {
        0 => set(line, b"event_type", b"\"page_teleported\""),
        1 => set(line, b"event_type", b"\"\""),
        2 => set(line, b"event_type", b"17"),
        3 => set(line, b"user_id", b"\"user-4711\""),
        4 => set(line, b"user_id", b"4711"),
        5 => set(line, b"user_id", b"\"usr_0123456789abcde\\u00e9\""),
        6 => set(line, b"app_id", b"\"\""),
        7 => set(line, b"app_id", b"\"app_0123456789abcdef0\""),
        8 => set(line, b"event_id", b"\"8c7d3f1e-5a0b-4d8e-9d55-7b2f6d1f0c11\""),
        // Of members that stand twice the last one counts.
        _ => append(line, br#","properties":["feature","search"]}"#),
    }
}

/// Puts `tail` in the place of the object's closing brace.
fn append(line: &mut Vec<u8>, tail: &[u8]) {
    line.pop();
    line.extend_from_slice(tail);
}

/// Replaces the value of the member `name`, a text without escapes.
fn set(line: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let (start, end) = value_of(line, name);
    line.splice(start..end, value.iter().copied());
}

/// Where the value of the member `name`, a text without escapes, begins and ends.
fn value_of(line: &[u8], name: &[u8]) -> (usize, usize) {
    let quoted = [b"\"", name, b"\":"].concat();
    let at = memchr::memmem::find(line, &quoted).expect("every line is written with the required members");
    let after = at + quoted.len();
    let start = after + memchr::memchr(b'"', &line[after..]).expect("the value is a text");
    let end = start + 1 + memchr::memchr(b'"', &line[start + 1..]).expect("the text ends");
    (start, end + 1)
}

/// Where the name of the member begins whose value begins at `value`.
fn name_before(line: &[u8], value: usize, name: &[u8]) -> usize {
    memchr::memmem::rfind(&line[..value], name).expect("the name stands before its value")
}
