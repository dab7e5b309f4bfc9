//! Random logs: several users in several partitions, with disorder, duplicates, late events, ties and lines that are no events.

use std::fmt::Write as _;

use proptest::{collection::vec, prelude::*};
use whisperer_connectors::memory::MemoryPartition;
use whisperer_schemas::time::{DAY, HOUR, MINUTE, Micros, SECOND};

use super::{Event, ZERO, app_id, partition};

/// Longest record that the tests' format takes: small, so that a line beyond it is cheap.
pub const EVENT_BYTES_MAX: u64 = 2_000;

pub const EVENT_TYPES: [&str; 6] =
    ["feature_used", "page_viewed", "user_login", "error_encountered", "payment_failed", "user_signup"];

/// One line to be, as independent numbers, so that it shrinks well.
#[derive(Clone, Debug)]
pub struct Step {
    user: u8,
    app: u8,
    /// How far the clock of the partition moves on: unit and number.
    gap: (u8, u8),
    /// How far behind that clock the event is.
    back: (u8, u8),
    /// Whether the time is moved to a multiple of a minute, an hour, six hours or a day.
    snap: u8,
    kind: u8,
    properties: [u8; 6],
    /// Something out of the ordinary, if it is low.
    odd: u8,
    /// Which earlier line is repeated, or how it is broken.
    which: u8,
}

/// A log.
#[derive(Clone, Debug)]
pub struct Log {
    pub partitions: u8,
    /// By how many minutes the clock of each partition is ahead of that of the one before.
    pub drift: u16,
    pub steps: Vec<Step>,
    /// Disorder is kept below this, where it is said; so nothing is late.
    pub back_max: Option<Micros>,
    /// Whether all partitions share one clock, so that a user's events do not depend on how many there are.
    pub one_clock: bool,
}

pub fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let gap = (prop_oneof![Just(0_u8), 1..4_u8, 1..6_u8], any::<u8>());
    let back = (prop_oneof![4 => Just(0_u8), 2 => 1..3_u8, 1 => 3..6_u8], any::<u8>());
    let snap = prop_oneof![3 => Just(0_u8), 1 => 1..5_u8];
    let odd = prop_oneof![3 => Just(255_u8), 1 => 0..12_u8];
    let step = (
        0..5_u8,
        prop_oneof![4 => Just(0_u8), 1 => Just(1_u8)],
        gap,
        back,
        snap,
        0..6_u8,
        any::<[u8; 6]>(),
        odd,
        any::<u8>(),
    )
        .prop_map(|(user, app, gap, back, snap, kind, properties, odd, which)| Step {
            user,
            app,
            gap,
            back,
            snap,
            kind,
            properties,
            odd,
            which,
        });
    vec(step, 1..most)
}

pub fn log(most: usize) -> impl Strategy<Value = Log> {
    let drift = prop_oneof![Just(0_u16), 0..120_u16, 0..20_000_u16];
    (1..=5_u8, drift, steps(most)).prop_map(|(partitions, drift, steps)| Log {
        partitions,
        drift,
        steps,
        back_max: None,
        one_clock: false,
    })
}

/// Cuts of up to five partitions into epochs and chunks.
pub fn cuts() -> impl Strategy<Value = Vec<Vec<Vec<usize>>>> {
    vec(vec(vec(0..6_usize, 1..4), 0..20), 5)
}

fn span((unit, count): (u8, u8)) -> Micros {
    let count = Micros::from(count);
    match unit {
        0 => 0,
        1 => count % 4,
        2 => (count % 90) * SECOND,
        3 => (count % 90) * MINUTE,
        4 => (count % 60) * HOUR,
        _ => (count % 12) * DAY,
    }
}

impl Log {
    /// The lines of each partition.
    pub fn lines(&self) -> Vec<Vec<Vec<u8>>> {
        let count = usize::from(self.partitions);
        let mut clocks: Vec<Micros> =
            (0..count).map(|at| ZERO + at as Micros * Micros::from(self.drift) * MINUTE).collect();
        let mut lines: Vec<Vec<Vec<u8>>> = vec![Vec::new(); count];
        let mut events: Vec<Vec<Event>> = vec![Vec::new(); count];
        for (id, step) in (0..).zip(&self.steps) {
            let at = usize::from(step.user) % count;
            let clock = &mut clocks[if self.one_clock { 0 } else { at }];
            *clock = snapped(*clock + span(step.gap), step.snap);
            let back = span(step.back).min(self.back_max.unwrap_or(Micros::MAX));
            let event = step.event(id, *clock - back);
            let line = match self.one_clock {
                // Nothing that refers to the rest of its partition.
                true => event.line(),
                false => step.line(&event, &events[at], &lines[at]),
            };
            events[at].push(event);
            lines[at].push(line);
        }
        lines
    }

    /// The partitions, cut.
    pub fn partitions(&self, cuts: &[Vec<Vec<usize>>]) -> Vec<MemoryPartition> {
        let lines = self.lines().into_iter();
        lines.zip(cuts).map(|(lines, cuts)| partition(lines, cuts.clone())).collect()
    }

    pub fn show(&self) -> String {
        let mut text = String::new();
        for (at, lines) in self.lines().iter().enumerate() {
            let _ = writeln!(text, "partition {at}:");
            for line in lines {
                let shown = String::from_utf8_lossy(&line[..line.len().min(400)]).into_owned();
                let _ = writeln!(text, "  {shown}");
            }
        }
        text
    }
}

fn snapped(time: Micros, snap: u8) -> Micros {
    let unit = match snap {
        1 => MINUTE,
        2 => HOUR,
        3 => 6 * HOUR,
        4 => DAY,
        _ => return time,
    };
    (time + unit - 1).div_euclid(unit) * unit
}

impl Step {
    fn event(&self, id: u32, time: Micros) -> Event {
        let mut event = super::event(id, u32::from(self.user), time);
        event.app = app_id(u32::from(self.app));
        event.kind = EVENT_TYPES[usize::from(self.kind) % EVENT_TYPES.len()].into();
        event.properties = self.properties();
        if self.kind % 2 == 1 {
            event.more = format!(r#","session_id":"ses_{:016}","context":{{"device_type":"mobile"}}"#, self.which % 3);
        }
        event
    }

    /// Properties, of which each may be absent or of a wrong type.
    fn properties(&self) -> String {
        let [amount, plan, feature, score, custom, flag] = self.properties;
        let pick = |choices: &[&str], byte: u8| choices[usize::from(byte) % choices.len()].to_owned();
        let amount = match amount % 8 {
            0 => String::new(),
            1 => r#""amount":"12""#.into(),
            2 => r#""amount":null"#.into(),
            3 => r#""amount":0.1"#.into(),
            _ => format!(r#""amount":{}"#, f64::from(amount) * 0.3 - 20.0),
        };
        let plan = pick(&["", r#""plan":"free""#, r#""plan":"pro""#, r#""plan":"enterprise""#, r#""plan":7"#], plan);
        let feature = match feature % 8 {
            0 => String::new(),
            1 => r#""feature":"\u0073earch""#.into(),
            2 => r#""feature":true"#.into(),
            _ => format!(r#""feature":"f{}""#, feature % 7),
        };
        let score = match score % 6 {
            0 => String::new(),
            1 => r#""score":"3""#.into(),
            2 => r#""score":1e300"#.into(),
            _ => format!(r#""score":{}"#, score / 8),
        };
        let custom = pick(
            &["", r#""custom":"x""#, r#""custom":1"#, r#""custom":"1""#, r#""custom":-0.0"#, r#""custom":0"#],
            custom,
        );
        let flag = pick(&["", r#""flag":true"#, r#""flag":false"#, r#""flag":"true""#], flag);
        let all = [amount, plan, feature, score, custom, flag];
        all.into_iter().filter(|member| !member.is_empty()).collect::<Vec<_>>().join(",")
    }

    /// The line of the event, or what it is turned into.
    fn line(&self, event: &Event, events: &[Event], lines: &[Vec<u8>]) -> Vec<u8> {
        let earlier = |count: usize| count.checked_sub(1 + usize::from(self.which) % 8);
        let mut event = event.clone();
        match self.odd {
            // The same line again, and the same id with another time.
            0 | 1 => earlier(lines.len()).map_or_else(|| event.line(), |at| lines[at].clone()),
            2 | 3 => {
                event.id = earlier(events.len()).map_or(event.id, |at| events[at].id.clone());
                event.line()
            }
            4 => {
                let ahead = [5 * SECOND, 5 * SECOND + 1, 40 * SECOND, HOUR, HOUR + 1, 2 * DAY];
                event.received = Some(event.time - ahead[usize::from(self.which) % ahead.len()]);
                event.line()
            }
            5 => {
                let line = event.line();
                String::from_utf8(line).expect("lines are text").replacen(r#""event_id":"#, r#""no_id":"#, 1).into()
            }
            6 => self.broken(event),
            7 => {
                event.properties = r#""amount":1e16,"score":1e-3,"custom":"1""#.into();
                event.line()
            }
            _ => event.line(),
        }
    }

    fn broken(&self, mut event: Event) -> Vec<u8> {
        match self.which % 8 {
            0 => b"   ".to_vec(),
            1 => b"{\"user_id\":".to_vec(),
            2 => {
                event.user = "ada".into();
                event.line()
            }
            3 => {
                event.kind = "page_teleported".into();
                event.line()
            }
            4 => {
                event.more = format!(r#","note":"{}""#, "x".repeat(EVENT_BYTES_MAX as usize));
                event.line()
            }
            5 => {
                event.more = r#","timestamp":"yesterday""#.into();
                event.line()
            }
            6 => {
                event.more = r#","user_id":null"#.into();
                event.line()
            }
            _ => {
                event.more = r#","properties":[]"#.into();
                event.line()
            }
        }
    }
}
