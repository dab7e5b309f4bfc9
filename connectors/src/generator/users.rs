//! Who the users of a partition are: what never changes (a function of the seed), what does, and when they leave for good.
//!
//! A user leaves at a known hazard per day ([`User::hazard`]): it grows with errors, failed payments and support tickets and
//! shrinks with the number of features that the user has taken up. The time of leaving is drawn anew whenever a visit
//! ends; since an exponential time has no memory, that is the same as a hazard which changes at those instants.

use whisperer_schemas::time::{DAY, HOUR, Micros};

use super::{
    random::{Random, mix, salted, scaled},
    texts::{DEVICES, FEATURES, PLACES},
};

/// Share of a partition's users who have signed up before the log begins.
const ESTABLISHED: f64 = 0.55;

const SALT_USER_ID: u64 = 1;
const SALT_TRAITS: u64 = 2;

/// Digits of ids: 5 bits each, letters that are read alike left out.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The 16 alphanumerics of an id. The first 13 hold `word` whole, so distinct words give distinct ids.
pub(super) fn id_digits(word: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    let mut rest = word;
    for digit in &mut digits[..13] {
        *digit = DIGITS[(rest & 31) as usize];
        rest >>= 5;
    }
    rest = mix(word);
    for digit in &mut digits[13..] {
        *digit = DIGITS[(rest & 31) as usize];
        rest >>= 5;
    }
    digits
}

/// Which client library a user's events come from; each writes its members in an order of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sdk {
    Web,
    Mobile,
    Server,
}

/// What never changes of a user: a pure function of seed, partition and index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traits {
    /// The 16 digits of the user id.
    pub(super) id: [u8; 16],
    /// The app that the user is a user of.
    pub(super) app: u8,
    pub(super) sdk: Sdk,
    /// Row of [`DEVICES`].
    pub(super) device: u8,
    /// Row of [`PLACES`]: time zone, locale and currency.
    pub(super) place: u8,
    /// The local hour around which visits lie.
    pub(super) hour: u8,
    /// The features that the user comes for, as a set of bits.
    pub(super) favourites: u16,
    /// Errors in 1,000 of the user's actions.
    pub(super) flakiness: u32,
    /// More of the same randomness, for whatever else must be constant for a user.
    pub(super) rest: u64,
}

/// Names the users of one partition and knows their traits.
#[derive(Clone, Debug)]
pub(super) struct People {
    seed: u64,
    partition: u32,
}

impl People {
    pub(super) fn new(seed: u64, partition: u32) -> People {
        People { seed, partition }
    }

    fn key(&self, user: u32) -> u64 {
        (u64::from(self.partition) << 32 | u64::from(user)) ^ mix(self.seed)
    }

    pub(super) fn traits(&self, user: u32) -> Traits {
        let key = self.key(user);
        let a = salted(key, SALT_TRAITS);
        let b = mix(a ^ key);
        let sdk = match scaled(a << 8, 100) {
            0..56 => Sdk::Web,
            56..88 => Sdk::Mobile,
            _ => Sdk::Server,
        };
        let favourites = 1 << (b % 12) | 1 << ((b >> 8) % 12) | 1 << ((b >> 16) % 12) | 1 << ((b >> 24) % 12);
        let troubled = (b >> 32).is_multiple_of(5);
        Traits {
            id: id_digits(salted(key, SALT_USER_ID)),
            app: [0, 0, 0, 0, 0, 0, 1, 1, 1, 2][(a % 10) as usize],
            sdk,
            device: (DEVICES.of(sdk) + ((b >> 40) % DEVICES.rows(sdk) as u64) as usize) as u8,
            place: ((a >> 32) % PLACES.len() as u64) as u8,
            hour: [8, 9, 9, 10, 11, 13, 14, 15, 16, 19, 20, 22][((a >> 40) % 12) as usize],
            favourites,
            flakiness: if troubled { 110 } else { 12 + (b >> 48) as u32 % 40 },
            rest: mix(b),
        }
    }
}

impl Traits {
    /// How likely the user is to come at this time of day and week, from 0 to 1.
    pub(super) fn appetite(&self, time: Micros) -> f64 {
        const BY_HOURS_AWAY: [f64; 13] = [1.0, 0.95, 0.8, 0.55, 0.35, 0.2, 0.12, 0.08, 0.06, 0.05, 0.04, 0.03, 0.03];
        let local = time + PLACES[usize::from(self.place)].offset();
        let hour = local.div_euclid(HOUR).rem_euclid(24);
        let apart = (hour - i64::from(self.hour)).rem_euclid(24);
        let by_hour = BY_HOURS_AWAY[apart.min(24 - apart) as usize];
        // The epoch was a Thursday. Half of the users work with the product and rest at the weekend.
        let weekend = (local.div_euclid(DAY) + 3).rem_euclid(7) >= 5;
        if weekend && self.rest & 1 == 0 { 0.35 * by_hour } else { by_hour }
    }

    /// What an established user pays for when the log begins: half of them nothing.
    fn first_plan(&self) -> u8 {
        match scaled(self.rest, 100) {
            0..50 => 0,
            50..75 => 1,
            75..93 => 2,
            _ => 3,
        }
    }

    /// The features that an established user has taken up already: the favourites and perhaps some more.
    fn first_features(&self) -> u16 {
        self.favourites | (self.rest >> 8) as u16 & (self.rest >> 20) as u16 & 0xFFF
    }
}

/// What changes of a user.
#[derive(Clone, Debug)]
pub(super) struct User {
    /// From here on the user is silent; `Micros::MAX` while a visit lasts and before the first.
    pub(super) churned_at: Micros,
    /// When the last visit ended; `Micros::MIN` before the first.
    pub(super) seen: Micros,
    /// Errors in a visit, averaged over the latest ones.
    pub(super) errors: f32,
    /// Failed payments and tickets, fading within weeks.
    pub(super) trouble: f32,
    /// Features taken up, as a set of bits.
    pub(super) features: u16,
    /// Visits going on.
    pub(super) visits: u16,
    /// 0 free, 1 basic, 2 pro, 3 enterprise.
    pub(super) plan: u8,
    /// Onboarding steps completed, of [`ONBOARDING_STEPS`].
    pub(super) onboarded: u8,
    /// True once the user exists: from the start, or since signing up.
    pub(super) signed_up: bool,
    /// True for the one who never leaves, so that a log never runs out of users.
    loyal: bool,
}

/// Steps of the onboarding.
pub(super) const ONBOARDING_STEPS: u8 = 5;

impl User {
    pub(super) fn established(traits: &Traits, loyal: bool) -> User {
        let plan = traits.first_plan();
        let features = traits.first_features();
        User { plan, features, onboarded: ONBOARDING_STEPS, signed_up: true, loyal, ..User::to_come() }
    }

    pub(super) fn to_come() -> User {
        User {
            churned_at: Micros::MAX,
            seen: Micros::MIN,
            errors: 0.0,
            trouble: 0.0,
            features: 0,
            visits: 0,
            plan: 0,
            onboarded: 0,
            signed_up: false,
            loyal: false,
        }
    }

    /// True where the user can act at `time`.
    pub(super) fn is_there(&self, time: Micros) -> bool {
        self.signed_up && time < self.churned_at
    }

    /// Days since the last visit, at most a week; three where none is known.
    pub(super) fn days_away(&self, time: Micros) -> f64 {
        if self.seen == Micros::MIN { 3.0 } else { ((time - self.seen) as f64 / DAY as f64).clamp(0.0, 7.0) }
    }

    /// The share of the product's features that the user has taken up.
    pub(super) fn adoption(&self) -> f64 {
        f64::from(self.features.count_ones()) / FEATURES.len() as f64
    }

    /// The expected number of times this user leaves for good in a day.
    pub(super) fn hazard(&self) -> f64 {
        let pains = 0.8 * f64::from(self.errors).min(3.0) + 1.1 * f64::from(self.trouble).min(3.0);
        let unsettled = if self.onboarded < 3 { 1.8 } else { 1.0 };
        (0.012 * unsettled * libm::exp(pains - 3.0 * self.adoption())).clamp(0.0003, 0.6)
    }

    /// Ends a visit: ages what fades and draws the time at which the user leaves for good.
    pub(super) fn leave(&mut self, time: Micros, errors: u16, cancelled: bool, random: &mut Random) {
        let days = self.days_away(time);
        self.errors = 0.75 * self.errors + 0.25 * f32::from(errors);
        self.trouble /= 1.0 + days as f32 / 14.0;
        self.seen = time;
        let stays = random.exponential() / self.hazard() * DAY as f64;
        self.churned_at = match (self.loyal, cancelled) {
            (true, _) => Micros::MAX,
            (false, true) => time + 1,
            (false, false) => time.saturating_add(1 + stays as Micros),
        };
    }
}

/// Who comes how often: rank `r` (from 0) with a weight of `1 / (r + 1)^exponent`.
#[derive(Clone, Debug)]
pub(super) struct Activity {
    /// Sums of the weights up to each rank.
    sums: Vec<f64>,
    stride: u64,
}

impl Activity {
    pub(super) fn new(users: u32, exponent: f64) -> Activity {
        let mut sum = 0.0;
        let weights = (1..=users).map(|rank| libm::pow(f64::from(rank), -exponent));
        let sums = weights.map(|weight| {
            sum += weight;
            sum
        });
        let sums = sums.collect();
        Activity { sums, stride: coprime_stride(users) }
    }

    /// A user, drawn by weight. The ranks are scattered over the users by a permutation.
    pub(super) fn draw(&self, random: &mut Random) -> u32 {
        let total = self.sums.last().copied().unwrap_or(0.0);
        let at = random.unit() * total;
        let rank = self.sums.partition_point(|&sum| sum <= at).min(self.sums.len() - 1);
        self.user_of_rank(rank as u32)
    }

    pub(super) fn user_of_rank(&self, rank: u32) -> u32 {
        ((u64::from(rank) * self.stride + 1) % self.sums.len() as u64) as u32
    }
}

/// A step near the golden section of `n` that has no divisor in common with it: its multiples visit every residue.
fn coprime_stride(n: u32) -> u64 {
    let n = u64::from(n);
    let near = (n as f64 * 0.618_033_988_75) as u64;
    (near..).find(|&stride| gcd(stride, n) == 1).expect("a prime lies beyond every number")
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The users of a partition who have signed up before the log begins: at least one.
pub(super) fn established(users: u32) -> u32 {
    ((f64::from(users) * ESTABLISHED) as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hazard_is_that_of_the_habits() {
        // Goal: errors, trouble and an unfinished onboarding raise the hazard, adoption lowers it; it stays within its bounds.
        let calm = User { onboarded: ONBOARDING_STEPS, features: 0b1111, ..User::to_come() };
        assert!(User { errors: 1.0, ..calm.clone() }.hazard() > calm.hazard());
        assert!(User { trouble: 1.0, ..calm.clone() }.hazard() > calm.hazard());
        assert!(User { onboarded: 0, ..calm.clone() }.hazard() > calm.hazard());
        assert!(User { features: 0b1111_1111, ..calm.clone() }.hazard() < calm.hazard());
        let worst = User { errors: 1e9, trouble: 1e9, ..User::to_come() };
        assert!((0.0003..=0.6).contains(&worst.hazard()));
    }

    #[test]
    fn ranks_are_a_permutation_of_the_users() {
        // Goal: every user has a rank of activity, whatever the number of users.
        for count in [1, 2, 3, 10, 4_096, 25_000] {
            let activity = Activity::new(count, 1.0);
            let mut users: Vec<u32> = (0..count).map(|rank| activity.user_of_rank(rank)).collect();
            users.sort_unstable();
            assert!(users.into_iter().eq(0..count));
        }
    }

    #[test]
    fn ids_of_different_words_differ() {
        // Goal: the digits hold the word whole.
        for bit in 0..64 {
            assert_ne!(id_digits(0)[..13], id_digits(1 << bit)[..13]);
        }
    }
}
