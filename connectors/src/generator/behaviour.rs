//! What users do: a visit unfolds event by event, each decided when its time has come.
//!
//! ```text
//! sign up | log in ─▶ pages, features, buttons, errors, … and what is on the agenda ─▶ log out | just go
//! e-mail, push, SMS, notification sent ─▶ delivered | opened ─▶ clicked
//! ```

use whisperer_schemas::{
    event::PLANS,
    time::{HOUR, MINUTE, Micros, SECOND},
};

use super::{
    kind::{Kind, Kinds},
    random::{Random, scaled},
    texts::FEATURES,
    users::{ONBOARDING_STEPS, Sdk, Traits, User},
};

/// Mean time between two events of a visit.
const PACE: f64 = 32.0 * SECOND as f64;

/// What a user does when nothing particular is on the agenda, in 1,024ths.
const HABITS: [(Kind, u16); 11] = [
    (Kind::PageViewed, 360),
    (Kind::FeatureUsed, 360),
    (Kind::ButtonClicked, 160),
    (Kind::FormSubmitted, 50),
    (Kind::SettingsChanged, 24),
    (Kind::DataExported, 18),
    (Kind::CollaborationInvited, 14),
    (Kind::DataImported, 12),
    (Kind::TutorialViewed, 10),
    (Kind::CollaborationAccepted, 8),
    (Kind::NotificationOpened, 8),
];

/// Where a visit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Arrive(Kind),
    Act,
    Go,
    /// Not a visit of the user but a message to the user: the kind that comes next.
    Reach(Kind),
}

/// A visit that goes on, or a message on its way.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    /// When its next event happens.
    pub(super) time: Micros,
    /// Number of the visit in its partition: breaks ties of time.
    pub(super) serial: u64,
    pub(super) user: u32,
    /// Errors met so far.
    pub(super) errors: u16,
    /// True once the subscription was cancelled in it.
    pub(super) cancelled: bool,
    /// True where it is one of the regular arrivals, false for a debut.
    pub(super) usual: bool,
    /// Events left to do.
    left: u16,
    agenda: Kinds,
    stage: Stage,
    /// The feature that was used for the first time, for `feature_discovery`.
    discovered: u8,
    /// Days since the user's visit before, at most a week.
    days_away: f32,
    /// Event times are multiples of it: browsers and phones count milliseconds.
    tick: Micros,
}

/// What happens at one step of a visit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) kind: Kind,
    /// Which feature, plan or onboarding step, where the kind has one.
    pub(super) which: u8,
    /// When the visit goes on; none where this was its last event.
    pub(super) next: Option<Micros>,
}

/// How long a visit is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// The first visit of many a user, so that all of them appear in a log that is not too short.
    Short,
    Usual,
}

impl Visit {
    /// A user comes, or signs up.
    pub(super) fn arrive(at: &Arrival, user: &mut User, traits: &Traits, random: &mut Random, length: Length) -> Visit {
        let first = if user.signed_up { Kind::UserLogin } else { Kind::UserSignup };
        let left = match length {
            Length::Short => 1 + random.below(4),
            Length::Usual => 3 + (7.0 * random.exponential()).min(200.0) as u32,
        };
        let mut visit = Visit::new(at, Stage::Arrive(first), if traits.sdk == Sdk::Server { 1 } else { 1_000 });
        visit.left = left as u16;
        visit.usual = length == Length::Usual;
        visit.days_away = user.days_away(at.time) as f32;
        if first == Kind::UserSignup {
            user.signed_up = true;
            if random.chance(0.3) {
                visit.agenda.insert(Kind::TrialStarted);
            }
        } else {
            visit.plan_ahead(user, random);
        }
        user.visits += 1;
        user.churned_at = Micros::MAX;
        visit
    }

    /// The company writes to a user.
    pub(super) fn reach(at: &Arrival, random: &mut Random) -> Visit {
        let first = match random.below(10) {
            0..4 => Kind::EmailSent,
            4..7 => Kind::PushSent,
            7..9 => Kind::NotificationSent,
            _ => Kind::SmsSent,
        };
        Visit::new(at, Stage::Reach(first), 1)
    }

    fn new(at: &Arrival, stage: Stage, tick: Micros) -> Visit {
        Visit {
            // Rounded up: events must not be made for a time that the simulation has passed.
            time: at.time + (-at.time).rem_euclid(tick),
            serial: at.serial,
            user: at.user,
            errors: 0,
            cancelled: false,
            usual: true,
            left: 0,
            agenda: Kinds::default(),
            stage,
            discovered: 0,
            days_away: 0.0,
            tick,
        }
    }

    /// True for a message to the user.
    pub(super) fn is_message(&self) -> bool {
        matches!(self.stage, Stage::Reach(_))
    }

    /// Puts on the agenda what does not happen in every visit. These come at rates per day, not per visit, so that
    /// those who visit often do not fail to pay more often.
    fn plan_ahead(&mut self, user: &User, random: &mut Random) {
        let days = f64::from(self.days_away);
        let (trouble, errors) = (f64::from(user.trouble).min(3.0), f64::from(user.errors).min(3.0));
        let pays = f64::from(user.plan > 0);
        let rates = [
            (Kind::PaymentFailed, 0.008 * pays),
            (Kind::SupportTicketCreated, 0.006 + 0.012 * errors),
            (Kind::SubscriptionUpgraded, if user.plan < 3 { 0.016 * user.adoption() } else { 0.0 }),
            (Kind::SubscriptionDowngraded, if user.plan > 1 { 0.003 * (1.0 + 2.0 * trouble) } else { 0.0 }),
            (Kind::SubscriptionCancelled, 0.002 * pays * (1.0 + 3.0 * trouble + errors)),
            (Kind::TutorialViewed, if user.onboarded < ONBOARDING_STEPS { 0.1 } else { 0.0 }),
        ];
        for (kind, per_day) in rates {
            if random.chance((per_day * days).min(0.4)) {
                self.agenda.insert(kind);
            }
        }
    }

    /// Does what comes next.
    pub(super) fn step(&mut self, user: &mut User, traits: &Traits, random: &mut Random) -> Step {
        if let Stage::Reach(kind) = self.stage {
            return self.pass_on(kind, random);
        }
        let (kind, which) = match self.stage {
            Stage::Arrive(kind) => (kind, user.plan),
            Stage::Go => (Kind::UserLogout, 0),
            _ => self.act(user, traits, random),
        };
        let goes_on = match self.stage {
            Stage::Go => false,
            Stage::Arrive(_) => true,
            _ => {
                self.left = self.left.saturating_sub(1);
                self.left > 0 || random.chance(0.6)
            }
        };
        self.stage = if self.left > 0 { Stage::Act } else { Stage::Go };
        Step { kind, which, next: goes_on.then(|| self.after(PACE, random)) }
    }

    /// A message is sent, delivered, opened, clicked, as far as it comes.
    fn pass_on(&mut self, kind: Kind, random: &mut Random) -> Step {
        let follows = match kind {
            Kind::EmailSent => Some((Kind::EmailOpened, 0.45, 40 * MINUTE)),
            Kind::EmailOpened => Some((Kind::EmailClicked, 0.35, 30 * SECOND)),
            Kind::NotificationSent => Some((Kind::NotificationOpened, 0.5, 10 * MINUTE)),
            Kind::NotificationOpened => Some((Kind::NotificationClicked, 0.5, 8 * SECOND)),
            Kind::SmsSent => Some((Kind::SmsDelivered, 0.97, 4 * SECOND)),
            Kind::PushSent => Some((Kind::PushOpened, 0.3, 15 * MINUTE)),
            _ => None,
        };
        let follows = follows.filter(|&(_, odds, _)| random.chance(odds));
        let next = follows.map(|(kind, _, mean)| {
            self.stage = Stage::Reach(kind);
            self.after(mean as f64, random)
        });
        Step { kind, which: 0, next }
    }

    /// The time of the event after this one. The gap of an exponential distribution is cut at two hours or 20 minutes in
    /// a visit, so that a visit is one session.
    fn after(&self, mean: f64, random: &mut Random) -> Micros {
        let longest = if self.is_message() { 2 * HOUR } else { 20 * MINUTE };
        let gap = ((random.exponential() * mean) as Micros).min(longest);
        let time = self.time + gap.max(40_000);
        time - time.rem_euclid(self.tick)
    }

    /// One action between arriving and leaving, and what it does to the user.
    fn act(&mut self, user: &mut User, traits: &Traits, random: &mut Random) -> (Kind, u8) {
        let bits = random.bits();
        let due = u32::from(self.left) <= self.agenda.len() || bits & 3 == 0;
        let on_agenda = if due { self.agenda.pop() } else { None };
        let kind = on_agenda.unwrap_or_else(|| self.choose(user, traits, bits >> 2));
        let which = match kind {
            Kind::FeatureUsed => choose_feature(traits, bits),
            Kind::FeatureDiscovery => self.discovered,
            Kind::OnboardingStepCompleted => user.onboarded,
            Kind::TrialStarted => 2,
            Kind::SubscriptionUpgraded => (user.plan + 1).min(PLANS.len() as u8 - 1),
            Kind::SubscriptionDowngraded => user.plan.saturating_sub(1),
            _ => user.plan,
        };
        self.leave_traces(kind, which, user, bits);
        (kind, which)
    }

    fn choose(&self, user: &User, traits: &Traits, bits: u64) -> Kind {
        let odds = scaled(bits << 10, 1_000);
        if odds < traits.flakiness {
            return if traits.sdk == Sdk::Mobile && odds.is_multiple_of(6) {
                Kind::AppCrashed
            } else {
                Kind::ErrorEncountered
            };
        }
        // Half of the actions of a newcomer are onboarding, as long as there is some left.
        if user.onboarded < ONBOARDING_STEPS && odds.is_multiple_of(2) {
            return Kind::OnboardingStepCompleted;
        }
        let mut at = (bits & 1_023) as u16;
        for (kind, share) in HABITS {
            if at < share {
                return kind;
            }
            at -= share;
        }
        Kind::PageViewed
    }

    fn leave_traces(&mut self, kind: Kind, which: u8, user: &mut User, bits: u64) {
        match kind {
            Kind::FeatureUsed if user.features & 1 << which == 0 => {
                user.features |= 1 << which;
                self.discovered = which;
                self.agenda.insert(Kind::FeatureDiscovery);
            }
            Kind::ErrorEncountered | Kind::AppCrashed => {
                self.errors += 1;
                // One error in four leads to a ticket, for one who was not here a moment ago.
                if bits >> 61 < 2 && self.days_away > 0.2 {
                    self.agenda.insert(Kind::SupportTicketCreated);
                }
            }
            Kind::OnboardingStepCompleted => user.onboarded += 1,
            Kind::SubscriptionUpgraded | Kind::SubscriptionDowngraded => user.plan = which,
            Kind::PaymentFailed => user.trouble += 1.0,
            Kind::SupportTicketCreated => user.trouble += 0.6,
            Kind::SubscriptionCancelled => {
                user.plan = 0;
                self.cancelled = true;
            }
            _ => {}
        }
    }
}

/// Three of four times one of the favourites, else any.
fn choose_feature(traits: &Traits, bits: u64) -> u8 {
    let any = scaled(bits << 7, FEATURES.len() as u32) as u8;
    if bits >> 62 == 0 {
        return any;
    }
    (0..12).map(|step| (any + step) % 12).find(|&at| traits.favourites & 1 << at != 0).unwrap_or(any)
}

/// Who comes when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) time: Micros,
    pub(super) user: u32,
    pub(super) serial: u64,
}
