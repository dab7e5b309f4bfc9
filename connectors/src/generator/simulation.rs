//! A partition's log as a sequence of events in the order in which they arrive, without their text.
//!
//! ```text
//! arrivals ──▶ visits, by the time of their next event ──▶ event ─┬─ at once ────────────────▶ log
//!                                                                 └─ delayed, or sent again ──▶ later in the log
//! ```
//! Everything is drawn in the order of event time from one stream of random numbers, so the log is a function of the
//! options and the partition alone. Skipping to a position is simulating up to it.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, binary_heap::PeekMut},
};

use whisperer_schemas::time::{HOUR, MINUTE, Micros, SECOND};

use super::{
    GeneratorOptions,
    behaviour::{Arrival, Length, Step, Visit},
    calendar::{Calendar, Coming, Plan},
    dirt,
    kind::Kind,
    random::{Random, salted},
    users::{People, Sdk, Traits, User},
};
use crate::format::Reason;

/// From an action to its arrival. It is the same for all events that are not delayed, so that a log without dirt is in
/// the order of its event times.
pub(super) const TRANSIT: Micros = 120_000;

/// Lines that count as out of order arrive at most so long after their event: less than the `out_of_orderness` of jobs by
/// default, so that none of them is late.
pub(super) const DISORDER_MAX: Micros = 30 * SECOND;

/// Late lines arrive between these times after their event.
const LATE_MIN: Micros = 2 * MINUTE;
const LATE_MAX: Micros = 6 * HOUR;

/// A line is sent again within this time: less than a dedup horizon of an hour, less what the line itself was delayed.
const RESENT_MAX: Micros = 55 * MINUTE;

/// One regular arrival in so many is a message to a user.
const MESSAGES: f64 = 0.1;

const SALT_EVENT: u64 = 11;
const SALT_VISIT: u64 = 12;
const SALT_PARTITION: u64 = 13;

/// One line of the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    /// What its `event_id` is made from.
    pub(super) id: u64,
    /// What its `session_id` is made from; 0 is none.
    pub(super) session: u64,
    /// Event time.
    pub(super) time: Micros,
    /// When it arrived (for the first time).
    pub(super) received: Micros,
    /// Where all the rest of its content comes from.
    pub(super) bits: u64,
    pub(super) user: u32,
    pub(super) kind: Kind,
    /// Which feature, plan or onboarding step, where the kind has one.
    pub(super) which: u8,
    /// True for a message to the user, which no client library wrote.
    pub(super) message: bool,
    /// True where the line was in the log before.
    pub(super) again: bool,
    /// What the line is to be rejected for, where it is to be spoilt.
    pub(super) fault: Option<Reason>,
}

/// The log of one partition, event by event.
#[derive(Debug)]
pub(super) struct Simulation {
    plan: Plan,
    partition: u32,
    seed: u64,
    odds: Odds,
    random: Random,
    calendar: Calendar,
    visits: BinaryHeap<Turn>,
    delayed: BinaryHeap<Delayed>,
    visits_begun: u64,
    /// Events made, not counting repetitions.
    made: u64,
    /// Lines given out.
    given: u64,
}

/// Probabilities of what may befall an event.
#[derive(Clone, Copy, Debug)]
struct Odds {
    malformed: f64,
    late: f64,
    disorder: f64,
    again: f64,
    /// Lines that an event makes on average.
    lines: f64,
}

impl Simulation {
    pub(super) fn new(options: &GeneratorOptions, partition: u32) -> Simulation {
        let plan = options.plan(partition);
        let mut random = Random::new(options.seed, salted(SALT_PARTITION, u64::from(partition)));
        let people = People::new(options.seed, partition);
        let calendar = Calendar::new(&plan, people, &mut random);
        Simulation {
            odds: Odds::new(options),
            partition,
            seed: options.seed,
            random,
            calendar,
            visits: BinaryHeap::new(),
            delayed: BinaryHeap::new(),
            visits_begun: 0,
            made: 0,
            given: 0,
            plan,
        }
    }

    pub(super) fn people(&self) -> &People {
        &self.calendar.people
    }

    pub(super) fn users(&self) -> &[User] {
        &self.calendar.users
    }

    /// Lines given out so far: the offset of the next.
    pub(super) fn offset(&self) -> u64 {
        self.given
    }

    /// True where no line is left.
    pub(super) fn ended(&self) -> bool {
        self.given == self.plan.lines
    }

    /// The next line; none at the end of the log.
    pub(super) fn next(&mut self) -> Option<Event> {
        if self.ended() {
            return None;
        }
        self.given += 1;
        loop {
            let (arrival, coming) = self.calendar.peek();
            let now = self.visits.peek().map_or(arrival, |turn| turn.0.time.min(arrival));
            if let Some(first) = self.delayed.peek_mut()
                && first.arrival <= now + TRANSIT
            {
                return Some(PeekMut::pop(first).event);
            }
            if arrival <= now {
                self.arrive(arrival, coming);
            } else if let Some(event) = self.take_turn() {
                return Some(event);
            }
        }
    }

    fn arrive(&mut self, time: Micros, coming: Coming) {
        let (user, length, message) = match coming {
            Coming::Regular => {
                let lines = (self.plan.lines - self.given) as f64 / self.odds.lines;
                self.calendar.schedule_regular(lines, self.visits.len(), &mut self.random);
                let message = self.random.chance(MESSAGES);
                let user = self.calendar.regular(time, message, &mut self.random);
                self.calendar.regular_visits += 1;
                (user, Length::Usual, message)
            }
            _ => match self.calendar.debut(coming, &self.plan, &mut self.random) {
                Some(user) => (user, Length::Short, false),
                None => return,
            },
        };
        self.visits_begun += 1;
        let at = Arrival { time, user, serial: self.visits_begun };
        let visit = if message {
            Visit::reach(&at, &mut self.random)
        } else {
            let traits = self.calendar.people.traits(user);
            let state = &mut self.calendar.users[user as usize];
            Visit::arrive(&at, state, &traits, &mut self.random, length)
        };
        self.visits.push(Turn(visit));
    }

    /// Lets the visit whose time has come go on by an event; none where its user has left for good, or the event is delayed.
    fn take_turn(&mut self) -> Option<Event> {
        let mut turn = self.visits.peek_mut()?;
        let visit = &mut turn.0;
        let user = &mut self.calendar.users[visit.user as usize];
        let time = visit.time;
        if time >= user.churned_at {
            user.visits -= u16::from(!visit.is_message());
            PeekMut::pop(turn);
            return None;
        }
        let traits = self.calendar.people.traits(visit.user);
        let message = visit.is_message();
        let Step { kind, which, next } = visit.step(user, &traits, &mut self.random);
        self.calendar.regular_events += u64::from(visit.usual);
        let (index, serial, errors, cancelled) = (visit.user, visit.serial, visit.errors, visit.cancelled);
        match next {
            Some(next) => {
                visit.time = next;
                drop(turn);
            }
            None => {
                if !message {
                    user.visits -= 1;
                    user.leave(time, errors, cancelled, &mut self.random);
                }
                PeekMut::pop(turn);
            }
        }
        let session = if message { 0 } else { self.session(serial, &traits) };
        self.send(Event {
            id: 0,
            session,
            time,
            received: time + TRANSIT,
            bits: 0,
            user: index,
            kind,
            which,
            message,
            again: false,
            fault: None,
        })
    }

    /// Two of three users of the server SDK have no sessions.
    fn session(&self, serial: u64, traits: &Traits) -> u64 {
        if traits.sdk == Sdk::Server && !traits.rest.is_multiple_of(3) {
            return 0;
        }
        salted(u64::from(self.partition) << 40 | serial, self.seed ^ SALT_VISIT)
    }
}

impl Simulation {
    /// Gives an event its id and its fate: returned where it arrives at once, else kept until its time has come.
    fn send(&mut self, mut event: Event) -> Option<Event> {
        self.made += 1;
        event.id = salted(u64::from(self.partition) << 40 | self.made, self.seed ^ SALT_EVENT);
        event.bits = self.random.bits();
        let mut fate = self.random.unit() - self.odds.malformed;
        if fate < 0.0 {
            event.fault = Some(dirt::draw(self.random.bits()));
            return Some(event);
        }
        fate -= self.odds.late;
        if fate < 0.0 {
            let part = self.random.unit();
            event.received += LATE_MIN + ((LATE_MAX - LATE_MIN) as f64 * part * part * part) as Micros;
            self.delayed.push(Delayed { arrival: event.received, event });
            return None;
        }
        fate -= self.odds.disorder;
        let in_order = fate >= 0.0;
        if !in_order {
            event.received += 1 + self.random.below((DISORDER_MAX - TRANSIT) as u32) as Micros;
            self.delayed.push(Delayed { arrival: event.received, event });
        }
        if self.random.chance(self.odds.again) {
            let part = self.random.unit();
            let arrival = event.received + 1_000 + (RESENT_MAX as f64 * part * part * part) as Micros;
            self.delayed.push(Delayed { arrival, event: Event { again: true, ..event } });
        }
        in_order.then_some(event)
    }
}

impl Odds {
    /// The options' rates are fractions of the lines; those of events are larger, since some lines repeat an event.
    fn new(options: &GeneratorOptions) -> Odds {
        let lines = 1.0 / (1.0 - options.duplicates);
        let (malformed, late, disorder) = (options.malformed * lines, options.late * lines, options.disorder * lines);
        // Only lines that are neither malformed nor late are sent again.
        let again = options.duplicates * lines / (1.0 - malformed - late);
        Odds { malformed, late, disorder, again, lines }
    }
}

/// A visit in the order of turns: the earliest is the greatest, as a heap wants it.
#[derive(Debug)]
struct Turn(Visit);

impl Turn {
    fn rank(&self) -> (Micros, u64) {
        (self.0.time, self.0.serial)
    }
}

impl Ord for Turn {
    fn cmp(&self, other: &Turn) -> Ordering {
        other.rank().cmp(&self.rank())
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Turn) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Turn) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Turn {}

/// An event that arrives later than it would; the earliest arrival is the greatest.
#[derive(Debug)]
struct Delayed {
    arrival: Micros,
    event: Event,
}

impl Delayed {
    /// Ids are distinct but for a line and its repetition.
    fn rank(&self) -> (Micros, u64, bool) {
        (self.arrival, self.event.id, self.event.again)
    }
}

impl Ord for Delayed {
    fn cmp(&self, other: &Delayed) -> Ordering {
        other.rank().cmp(&self.rank())
    }
}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Delayed) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Delayed) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Delayed {}
