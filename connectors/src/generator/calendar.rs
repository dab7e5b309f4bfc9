//! When somebody comes: as many visits as it takes to spread a partition's lines over the span.
//!
//! Two streams of arrivals are merged. *Debuts* come at times fixed beforehand: users who have to appear in the log, the
//! established ones in its first half, the others, who sign up, all along. *Regular* arrivals fill the rest: their rate is
//! set anew each time to what the lines left, the time left, the debuts and the length of the visits so far ask for.

use whisperer_schemas::time::Micros;

use super::{
    random::Random,
    users::{Activity, People, User, established},
};

/// Lines for each user who is to appear: below that, fewer do. A debut takes about half of it.
const LINES_PER_DEBUT: u64 = 8;

/// Events that a debut is expected to have.
const DEBUT_EVENTS: f64 = 4.3;

/// How often a user may be drawn who would not come now, before anyone is taken.
const DRAWS_MAX: u32 = 24;

/// Users of a partition, and when they come.
#[derive(Debug)]
pub(super) struct Calendar {
    pub(super) people: People,
    pub(super) users: Vec<User>,
    activity: Activity,
    start: Micros,
    span: Micros,
    /// Established users who have to appear: those below the first number have, or need not any more.
    veterans: Queue,
    newcomers: Queue,
    next_regular: Micros,
    /// Regular visits so far, and their events: tell how long a visit is.
    pub(super) regular_visits: u64,
    pub(super) regular_events: u64,
}

/// Users from `next` to `end`, debuting at even steps of `share` of the span, each at a random instant of its step.
#[derive(Debug)]
struct Queue {
    begin: u32,
    next: u32,
    end: u32,
    share: f64,
    at: Micros,
}

/// An arrival to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coming {
    Veteran,
    Newcomer,
    Regular,
}

impl Calendar {
    pub(super) fn new(plan: &Plan, people: People, random: &mut Random) -> Calendar {
        let veterans = established(plan.users);
        let users = (0..plan.users).map(|user| match user {
            _ if user < veterans => User::established(&people.traits(user), user == 0),
            _ => User::to_come(),
        });
        let users = users.collect();
        let debuts = (plan.lines / LINES_PER_DEBUT).min(u64::from(plan.users)) as f64 / f64::from(plan.users);
        let newcomers = f64::from(plan.users - veterans) * debuts;
        let mut calendar = Calendar {
            people,
            users,
            activity: Activity::new(plan.users, plan.zipf),
            start: plan.start,
            span: plan.span,
            veterans: Queue::new(0, (f64::from(veterans) * debuts) as u32, 0.5),
            newcomers: Queue::new(veterans, veterans + newcomers as u32, 0.98),
            next_regular: plan.start,
            regular_visits: 0,
            regular_events: 0,
        };
        calendar.veterans.schedule(plan, random);
        calendar.newcomers.schedule(plan, random);
        calendar
    }

    /// What comes next, and when.
    pub(super) fn peek(&self) -> (Micros, Coming) {
        let debut = match self.veterans.at <= self.newcomers.at {
            true => (self.veterans.at, Coming::Veteran),
            false => (self.newcomers.at, Coming::Newcomer),
        };
        if self.next_regular < debut.0 { (self.next_regular, Coming::Regular) } else { debut }
    }

    /// The user of a debut, unless an established one has been here already.
    pub(super) fn debut(&mut self, coming: Coming, plan: &Plan, random: &mut Random) -> Option<u32> {
        let queue = if coming == Coming::Veteran { &mut self.veterans } else { &mut self.newcomers };
        let user = queue.next;
        queue.next += 1;
        queue.schedule(plan, random);
        let new = &self.users[user as usize];
        (new.seen == Micros::MIN && new.visits == 0).then_some(user)
    }

    /// Draws the user of a regular arrival: by activity, among those who have signed up, have not left for good, are not here
    /// already (unless `anyone` may be) and like the hour.
    pub(super) fn regular(&self, time: Micros, anyone: bool, random: &mut Random) -> u32 {
        let mut found = None;
        for _ in 0..DRAWS_MAX {
            let user = self.activity.draw(random);
            let state = &self.users[user as usize];
            if !state.is_there(time) {
                continue;
            }
            found = Some(user);
            if anyone || state.visits == 0 && random.chance(self.people.traits(user).appetite(time)) {
                break;
            }
        }
        found.unwrap_or_else(|| self.somebody(time, random))
    }

    /// Anyone who is there; user 0 always is.
    fn somebody(&self, time: Micros, random: &mut Random) -> u32 {
        let count = self.users.len() as u32;
        let from = random.below(count);
        let mut near = (from..count).take(64);
        near.find(|&user| self.users[user as usize].is_there(time)).unwrap_or(0)
    }

    /// Sets the next regular arrival, where `lines` are still to be written and `open` visits go on.
    pub(super) fn schedule_regular(&mut self, lines: f64, open: usize, random: &mut Random) {
        let visit = (self.regular_events as f64 + 100.0) / (self.regular_visits as f64 + 10.0);
        let end = self.start.saturating_add(self.span);
        // At the very end the rate stays finite: the log then goes on a little beyond its span.
        let time_left = (end - self.next_regular).max(self.span / 256 + 1) as f64;
        let debuts = (self.veterans.pace(self.span) + self.newcomers.pace(self.span)) * DEBUT_EVENTS;
        let wanted = (lines - 0.5 * visit * open as f64) / time_left - debuts;
        let events_per_micro = wanted.max(lines.max(1.0) / time_left / 16.0);
        let gap = visit / events_per_micro * random.exponential();
        self.next_regular += (gap as Micros).clamp(1, self.span);
    }
}

impl Queue {
    fn new(begin: u32, end: u32, share: f64) -> Queue {
        Queue { begin, next: begin, end, share, at: Micros::MAX }
    }

    fn left(&self) -> u32 {
        self.end - self.next
    }

    /// Debuts in a microsecond, as long as some are left.
    fn pace(&self, span: Micros) -> f64 {
        if self.left() == 0 { 0.0 } else { f64::from(self.end - self.begin) / (self.share * span as f64) }
    }

    fn schedule(&mut self, plan: &Plan, random: &mut Random) {
        self.at = match self.left() {
            0 => Micros::MAX,
            _ => {
                let done = (f64::from(self.next - self.begin) + random.unit()) / f64::from(self.end - self.begin);
                plan.start + (done * self.share * plan.span as f64) as Micros
            }
        };
    }
}

/// What one partition has to hold.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) users: u32,
    pub(super) lines: u64,
    pub(super) start: Micros,
    pub(super) span: Micros,
    pub(super) zipf: f64,
}
