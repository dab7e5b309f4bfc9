//! Events to send, made beforehand: lines of the bench's input, of which only what must differ is written anew for every sending.
//!
//! A line's id, its time and its `properties.value` have fixed places and lengths, so an event costs a copy of its line and a few
//! digits, and the generator leaves the cores to what is measured. One event in [`MARKED_EVERY`] is marked by its value: the job's
//! trigger fires when a user's latest value begins to be a mark, and the decision names the event as its cause.

use std::{collections::HashMap, ops::Range};

use memchr::memmem;
use whisperer_schemas::{
    Micros,
    time::{HOUR, SECOND, format_micros},
};

use crate::input::{InputOptions, write};

/// One event in so many is marked: as many decisions an event as the engagement job makes of the input of `throughput`.
pub const MARKED_EVERY: u64 = 100;

/// The value of a marked event; all others lie below. Two digits, a point, two digits, as all are.
const MARK: &[u8; 5] = b"99.00";

/// A line whose changing parts have fixed places.
#[derive(Clone, Debug)]
struct Template {
    line: Range<usize>,
    user: Range<usize>,
    /// The user's number: users are counted as they come up.
    number: u32,
    /// Places of the 16 letters of the id, of the time and of the value, if there is one.
    id: usize,
    time: usize,
    value: Option<usize>,
    clock: Clock,
}

/// How a client writes the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    /// `….123Z`
    Milliseconds,
    /// `….123456+00:00`
    Microseconds,
    /// `….123000+01:00`, an hour on.
    Ahead,
}

/// An event that is to be sent.
#[derive(Debug)]
pub struct Event<'a> {
    /// The record's key.
    pub user: &'a [u8],
    /// The record's value: JSON in the native format.
    pub line: &'a [u8],
    /// Whether a decision will name it as its cause: it is marked, and the value of its user before it was none.
    pub decides: bool,
}

/// Events to send.
#[derive(Debug)]
pub struct Pool {
    text: Vec<u8>,
    templates: Vec<Template>,
    /// Of each user whether the last value was a mark.
    held: Vec<bool>,
    line: Vec<u8>,
    /// A second, and how it is written in each of the two time zones.
    second: (Micros, [String; 2]),
}

impl Pool {
    /// Lines of the bench's input.
    #[must_use]
    pub fn new(options: InputOptions) -> Pool {
        let mut lines = Vec::new();
        write(&mut lines, options).expect("memory takes everything");
        let mut pool = Pool {
            text: Vec::with_capacity(lines.len()),
            templates: Vec::new(),
            held: Vec::new(),
            line: Vec::new(),
            second: (Micros::MIN, Default::default()),
        };
        let mut users: HashMap<Vec<u8>, u32> = HashMap::new();
        for (number, line) in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
            let line = with_fixed_value(line, number);
            // One in a thousand falls on a whole second, and its time is written shorter.
            let Some(mut template) = template(&line) else { continue };
            let next = users.len() as u32;
            template.number = *users.entry(line[template.user.clone()].to_vec()).or_insert(next);
            template.line = pool.text.len()..pool.text.len() + line.len();
            pool.text.extend_from_slice(&line);
            pool.templates.push(template);
        }
        pool.held = vec![false; users.len()];
        pool
    }

    /// How many users there are.
    #[must_use]
    pub fn users(&self) -> usize {
        self.held.len()
    }

    /// Begins anew: for an engine that knows none of the users.
    pub fn forget(&mut self) {
        self.held.fill(false);
    }

    /// The event with this number, which happened at `time`. Numbers are to be asked for in their order.
    pub fn event(&mut self, number: u64, time: Micros) -> Event<'_> {
        let template = &self.templates[(number % self.templates.len() as u64) as usize];
        let line = &mut self.line;
        line.clear();
        line.extend_from_slice(&self.text[template.line.clone()]);
        set_digits(&mut line[template.id..template.id + 16], number);
        if time.div_euclid(SECOND) != self.second.0 {
            let text = |time: Micros| format_micros(time).to_string()[..19].to_owned();
            self.second = (time.div_euclid(SECOND), [text(time), text(time + HOUR)]);
        }
        let text = &self.second.1[usize::from(template.clock == Clock::Ahead)];
        line[template.time..template.time + 19].copy_from_slice(text.as_bytes());
        let micros = time.rem_euclid(SECOND) as u64;
        let fraction = template.time + 20;
        match template.clock {
            Clock::Microseconds => set_digits(&mut line[fraction..fraction + 6], micros),
            Clock::Milliseconds | Clock::Ahead => set_digits(&mut line[fraction..fraction + 3], micros / 1_000),
        }
        let mut decides = false;
        if let Some(at) = template.value {
            let marked = number.is_multiple_of(MARKED_EVERY);
            if marked {
                line[at..at + MARK.len()].copy_from_slice(MARK);
            }
            let held = std::mem::replace(&mut self.held[template.number as usize], marked);
            decides = marked && !held;
        }
        Event { user: &line[template.user.clone()], line, decides }
    }
}

/// The number of the event in its id.
#[must_use]
pub fn number_of(id: &str) -> Option<u64> {
    id.strip_prefix("evt_")?.parse().ok()
}

/// The line with a value of five letters, below that of a mark, in the place of its own.
fn with_fixed_value(line: &[u8], number: usize) -> Vec<u8> {
    let Some(start) = after(line, b"\"value\":") else { return line.to_vec() };
    let end = line[start..].iter().position(|byte| b",} ".contains(byte)).map_or(line.len(), |length| start + length);
    let value = 10.0 + (number * 7_919 % 8_900) as f64 / 100.0;
    [&line[..start], format!("{value:05.2}").as_bytes(), &line[end..]].concat()
}

fn template(line: &[u8]) -> Option<Template> {
    let text = |name: &[u8]| {
        let start = after(line, name)? + 1;
        Some(start..start + memchr::memchr(b'"', &line[start..])?)
    };
    let (id, user, time) = (text(b"\"event_id\":")?, text(b"\"user_id\":")?, text(b"\"timestamp\":")?);
    let clock = match &line[time.clone()] {
        [.., b'Z'] => Clock::Milliseconds,
        [.., b'+', b'0', b'0', b':', b'0', b'0'] => Clock::Microseconds,
        _ => Clock::Ahead,
    };
    let digits = if clock == Clock::Milliseconds { 3 } else { 6 };
    let whole = id.len() == 20 && time.len() > 20 + digits && line[time.start + 19] == b'.';
    let value = after(line, b"\"value\":");
    whole.then(|| Template { line: 0..0, user, number: 0, id: id.start + 4, time: time.start, value, clock })
}

/// Where the value of a member begins.
fn after(line: &[u8], name: &[u8]) -> Option<usize> {
    let end = memmem::find(line, name)? + name.len();
    Some(end + line[end..].iter().take_while(|byte| **byte == b' ').count())
}

/// Writes a number, with zeros before it.
fn set_digits(text: &mut [u8], mut number: u64) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use serde_json::Value;
    use whisperer_schemas::time::{MILLISECOND, parse_rfc3339};

    use super::*;

    #[test]
    fn events_are_what_they_are_said_to_be() {
        // Goal: every event is whole JSON with its number, its time and its user; and that a decision is due is what a second, plain
        // reading of the lines says.
        let mut pool = Pool::new(InputOptions { events: 3_000, users: 50, seed: 7 });
        let start: Micros = 1_790_000_000 * SECOND - 3_000;
        let (mut ids, mut marked) = (HashSet::new(), HashMap::new());
        let mut decisions = 0;
        for number in 0..10_000 {
            let time = start + number as Micros * 10;
            let event = pool.event(number, time);
            let line: Value = serde_json::from_slice(event.line).expect("JSON");
            assert_eq!(line["user_id"].as_str().map(str::as_bytes), Some(event.user));
            let id = line["event_id"].as_str().expect("an id");
            assert_eq!(number_of(id), Some(number));
            assert!(ids.insert(id.to_owned()) && id.len() == 20, "{id}");
            let read = line["timestamp"].as_str().and_then(|text| parse_rfc3339(text.as_bytes())).expect("a time");
            assert!(time - read < MILLISECOND && read <= time, "{time} became {read}");
            let Some(value) = line["properties"]["value"].as_f64() else {
                assert!(!event.decides);
                continue;
            };
            assert_eq!(value >= 99.0, number.is_multiple_of(MARKED_EVERY), "{value}");
            let before = marked.insert(event.user.to_vec(), value >= 99.0).unwrap_or(false);
            assert_eq!(event.decides, value >= 99.0 && !before, "event {number}");
            decisions += u64::from(event.decides);
        }
        assert!((80..=100).contains(&decisions), "{decisions}");
        assert!((20..=50).contains(&pool.users()));
    }
}
