//! Job J by hand: one thread, a scanner made for its five members, a map of users, no engine. The yardstick.
//!
//! It makes the decisions of `bench/jobs/j.toml`, all of them and no other: where the job's condition can become true without an
//! event, when an hour leaves the window or a midnight adds to the silence, the score is looked at as well. It leaves out
//! whatever this job on this input does not need: late events, dead letters, other workers, other features, tables.
//!
//! ```text
//! block of lines ─▶ records ─▶ duplicate? ─▶ instants of the user since the last event ─▶ apply ─▶ score ─▶ above 0.7?
//! ```

mod scan;

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::Path,
};

use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};
use whisperer_schemas::{
    Micros,
    time::{DAY, HOUR, format_micros, parse_rfc3339},
};

use scan::{Members, scan};

/// Bytes that are parsed before they are applied: records of a block stay in the cache.
const BLOCK_BYTES: usize = 1 << 20;
/// Hours in the window.
const HOURS: i64 = 24;
/// A decision is made where the score comes to lie above.
const BOUND: f64 = 0.7;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BaselineReport {
    /// Lines read.
    pub read: u64,
    /// Lines whose event had been applied.
    pub duplicates: u64,
    /// Lines that are no event.
    pub dead: u64,
    /// Users seen.
    pub users: u64,
    /// Decisions made.
    pub decisions: u64,
    /// Bytes of the users' states, index included.
    pub state_bytes: u64,
}

/// Runs job J over the file `input` and writes its decisions to `output`.
///
/// # Errors
/// What the file system answers.
pub fn run(input: &Path, output: &Path) -> io::Result<BaselineReport> {
    let mut blocks = Blocks::new(File::open(input)?);
    let mut state = State::default();
    let mut records = Vec::new();
    while let Some(block) = blocks.next()? {
        let mut from = 0;
        for end in memchr::memchr_iter(b'\n', block) {
            match Record::parse(&block[from..end]) {
                Some(record) => records.push(record),
                None => state.report.dead += 1,
            }
            from = end + 1;
        }
        records.drain(..).for_each(|record| state.apply(&record));
    }
    state.finish();
    write(output, &state.decisions)?;
    Ok(state.report())
}

/// Blocks of whole lines of a file.
struct Blocks {
    file: File,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are filled.
    filled: usize,
    /// Bytes of the buffer that were given.
    given: usize,
}

impl Blocks {
    fn new(file: File) -> Blocks {
        Blocks { file, buffer: vec![0; BLOCK_BYTES], filled: 0, given: 0 }
    }

    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.buffer.copy_within(self.given..self.filled, 0);
        self.filled -= self.given;
        self.given = 0;
        loop {
            let read = self.file.read(&mut self.buffer[self.filled..])?;
            self.filled += read;
            if let Some(end) = memchr::memrchr(b'\n', &self.buffer[..self.filled]) {
                self.given = end + 1;
                return Ok(Some(&self.buffer[..self.given]));
            }
            if read == 0 {
                return Ok(None);
            }
            if self.filled == self.buffer.len() {
                self.buffer.resize(2 * self.filled, 0);
            }
        }
    }
}

/// The members of a line that the scanner has given up.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    user_id: Cow<'a, str>,
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    properties: Option<Properties>,
}

#[derive(Deserialize)]
struct Properties {
    duration: Option<f64>,
}

/// What is left of an event.
#[derive(Debug, PartialEq)]
struct Record {
    user: u128,
    event: u64,
    time: Micros,
    duration: f64,
    kind: Option<usize>,
}

/// The kinds of events that are counted, in the order of [`User::counts`].
const KINDS: [&str; 5] =
    ["error_encountered", "user_login", "support_ticket_created", "payment_failed", "feature_used"];
/// The first of them make the score, the last is only kept.
const SCORED: usize = 4;

impl Record {
    fn parse(line: &[u8]) -> Option<Record> {
        scan(line).and_then(Record::new).or_else(|| Record::parse_slowly(line))
    }

    fn parse_slowly(line: &[u8]) -> Option<Record> {
        let line: Line<'_> = serde_json::from_slice(line).ok()?;
        Record::new(Members {
            event_id: line.event_id.as_bytes(),
            user_id: line.user_id.as_bytes(),
            event_type: line.event_type.as_bytes(),
            timestamp: line.timestamp.as_bytes(),
            duration: line.properties.and_then(|properties| properties.duration).unwrap_or(0.0),
        })
    }

    fn new(members: Members<'_>) -> Option<Record> {
        Some(Record {
            user: letters(members.user_id, b"usr_")?,
            event: folded(letters(members.event_id, b"evt_")?),
            time: parse_rfc3339(members.timestamp)?,
            duration: members.duration,
            kind: KINDS.iter().position(|kind| kind.as_bytes() == members.event_type),
        })
    }
}

/// The 16 letters of an id, which are a number of 128 bits as they stand.
fn letters(id: &[u8], prefix: &[u8]) -> Option<u128> {
    Some(u128::from_le_bytes(id.strip_prefix(prefix)?.try_into().ok()?))
}

fn folded(number: u128) -> u64 {
    let low = number as u64 ^ 0x9E37_79B9_7F4A_7C15;
    let high = (number >> 64) as u64 ^ 0xD1B5_4A32_D192_ED03;
    let product = u128::from(low) * u128::from(high);
    product as u64 ^ (product >> 64) as u64
}

/// A decision.
struct Decision {
    user: u128,
    time: Micros,
    risk: f64,
    events: u64,
    duration: f64,
    counts: [u32; 5],
}

#[derive(Default)]
struct State {
    index: HashMap<u128, u32>,
    users: Vec<User>,
    recent: Recent,
    decisions: Vec<Decision>,
    time_max: Micros,
    report: BaselineReport,
}

impl State {
    fn apply(&mut self, record: &Record) {
        self.report.read += 1;
        self.time_max = self.time_max.max(record.time);
        if !self.recent.insert(record.event, record.time) {
            self.report.duplicates += 1;
            return;
        }
        let users = &mut self.users;
        let at = *self.index.entry(record.user).or_insert_with(|| {
            users.push(User::new(record));
            users.len() as u32 - 1
        });
        let user = &mut users[at as usize];
        user.wait(record.time, &mut self.decisions);
        user.apply(record, &mut self.decisions);
    }

    /// Lets all users wait until the last event of all.
    fn finish(&mut self) {
        for user in &mut self.users {
            user.wait(self.time_max, &mut self.decisions);
        }
    }

    fn report(&self) -> BaselineReport {
        let bytes = self.index.allocation_size() + self.users.capacity() * size_of::<User>() + self.recent.bytes();
        BaselineReport {
            read: self.report.read + self.report.dead,
            users: self.users.len() as u64,
            decisions: self.decisions.len() as u64,
            state_bytes: bytes as u64,
            ..self.report
        }
    }
}

/// Event ids of this hour and the one before; the input's duplicates come within half an hour.
#[derive(Default)]
struct Recent {
    now: HashSet<u64>,
    before: HashSet<u64>,
    hour: i64,
}

impl Recent {
    /// False where the event is a duplicate.
    fn insert(&mut self, event: u64, time: Micros) -> bool {
        let hour = time.div_euclid(HOUR);
        if hour > self.hour {
            std::mem::swap(&mut self.now, &mut self.before);
            self.now.clear();
            self.hour = hour;
        }
        !self.before.contains(&event) && self.now.insert(event)
    }

    fn bytes(&self) -> usize {
        self.now.allocation_size() + self.before.allocation_size()
    }
}

/// The state of a user.
struct User {
    id: u128,
    /// Largest event time.
    clock: Micros,
    /// The hour up to which the window is rolled.
    hour: i64,
    above: bool,
    events: u64,
    duration: f64,
    /// Counts of the window, by kind.
    counts: [u32; 5],
    /// Counts of each hour of the window, by kind. Narrow, as a program for this input may be: its busiest user has some thousand
    /// events an hour.
    hours: [[u16; 5]; HOURS as usize],
}

impl User {
    fn new(record: &Record) -> User {
        User {
            id: record.user,
            clock: record.time,
            hour: record.time.div_euclid(HOUR),
            above: false,
            events: 0,
            duration: 0.0,
            counts: [0; 5],
            hours: [[0; 5]; HOURS as usize],
        }
    }

    /// Goes through the instants up to `until` at which time alone can change the score: where an hour that counts leaves the window, and
    /// the midnights.
    fn wait(&mut self, until: Micros, decisions: &mut Vec<Decision>) {
        let last = until.div_euclid(HOUR);
        while self.hour < last {
            let empty = self.counts == [0; 5];
            // With nothing in the window only midnights are left.
            let next = if empty { (self.hour.div_euclid(HOURS) + 1) * HOURS } else { self.hour + 1 };
            if next > last {
                break;
            }
            let leaves = self.roll(next);
            if leaves || next % HOURS == 0 {
                self.evaluate(next * HOUR, decisions);
            }
        }
    }

    /// Rolls the window on to `hour`, at most one that is not empty; true where a scored count has left it.
    fn roll(&mut self, hour: i64) -> bool {
        let leaving = std::mem::take(&mut self.hours[hour.rem_euclid(HOURS) as usize]);
        self.counts.iter_mut().zip(leaving).for_each(|(count, left)| *count -= u32::from(left));
        self.hour = hour;
        leaving[..SCORED].iter().any(|count| *count > 0)
    }

    fn apply(&mut self, record: &Record, decisions: &mut Vec<Decision>) {
        let hour = record.time.div_euclid(HOUR);
        self.hour = self.hour.max(hour);
        self.clock = self.clock.max(record.time);
        self.events += 1;
        self.duration += record.duration;
        if let Some(kind) = record.kind {
            self.counts[kind] += 1;
            self.hours[hour.rem_euclid(HOURS) as usize][kind] += 1;
        }
        self.evaluate(self.clock, decisions);
    }

    fn evaluate(&mut self, now: Micros, decisions: &mut Vec<Decision>) {
        let [errors, logins, tickets, failures, _] = self.counts.map(f64::from);
        let days = (now - self.clock) as f64 / DAY as f64;
        let weighed = -2.0 + 0.25 * days + 0.5 * errors - 0.3 * logins + 0.8 * tickets + failures;
        let risk = 1.0 / (1.0 + libm::exp(-weighed));
        let above = risk > BOUND;
        if above && !self.above {
            let Self { id: user, events, duration, counts, .. } = *self;
            decisions.push(Decision { user, time: now, risk, events, duration, counts });
        }
        self.above = above;
    }
}

/// Writes decisions as NDJSON, with the names of the engine's columns.
fn write(path: &Path, decisions: &[Decision]) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    for decision in decisions {
        let id = decision.user.to_le_bytes();
        let [errors, logins, tickets, failures, features] = decision.counts;
        writeln!(
            out,
            "{{\"user_id\":\"usr_{}\",\"event_time\":\"{}\",\"risk\":{},\"events_total\":{},\"duration_total\":{},\
             \"errors_24h\":{errors},\"logins_24h\":{logins},\"features_24h\":{features},\"tickets_24h\":{tickets},\
             \"payment_failures_24h\":{failures}}}",
            String::from_utf8_lossy(&id),
            format_micros(decision.time),
            decision.risk,
            decision.events,
            decision.duration,
        )?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::{self, InputOptions};

    #[test]
    fn the_scanner_reads_what_the_parser_reads() {
        // Goal: on every line of the input, whichever client wrote it, the quick way gives what serde_json gives.
        let mut text = Vec::new();
        let options = InputOptions { events: 5_000, users: 500, seed: 7 };
        input::write(&mut text, options).expect("memory takes everything");
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let record = Record::parse_slowly(line);
            assert!(
                record.is_some() && scan(line).and_then(Record::new) == record,
                "{}",
                String::from_utf8_lossy(line)
            );
        }
    }

    #[test]
    fn time_alone_can_decide() {
        // Goal: a user who falls silent is decided upon at the midnight at which the silence weighs enough, once.
        let record = Record { user: 1, event: 1, time: 0, duration: 1.0, kind: None };
        let mut state = State::default();
        state.apply(&record);
        // -2 + 0.25 days > ln(0.7 / 0.3), which is so from 11.39 days on.
        state.time_max = 12 * DAY - 1;
        state.finish();
        assert!(state.decisions.is_empty());
        state.time_max = 20 * DAY;
        state.finish();
        assert_eq!(state.decisions.iter().map(|decision| decision.time).collect::<Vec<_>>(), [12 * DAY]);
    }

    #[test]
    fn the_window_rolls() {
        // Goal: three failed payments, an hour apart, fire; when they leave the window the trigger is ready for the next.
        let mut state = State::default();
        for (event, (hour, kind)) in [(0, 3), (1, 3), (2, 3), (40, 3), (41, 3), (42, 3)].into_iter().enumerate() {
            let record =
                Record { user: 1, event: event as u64, time: hour * HOUR + 1, duration: 0.0, kind: Some(kind) };
            state.apply(&record);
        }
        assert_eq!(
            state.decisions.iter().map(|decision| decision.time).collect::<Vec<_>>(),
            [2 * HOUR + 1, 42 * HOUR + 1]
        );
        assert_eq!(state.decisions[1].counts, [0, 0, 0, 3, 0]);
    }
}
