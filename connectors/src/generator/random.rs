//! Seeded randomness that is the same on every machine: SplitMix64 and integer hashing, logarithms from `libm`.
//!
//! SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014. Its state is one word and
//! its output function a bijection, which also makes distinct ids of distinct numbers.

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// A bijection of the 64-bit words that leaves no pattern of its argument.
pub(super) const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// A hash of `word` that is another one for every `salt`, and a bijection for each of them.
pub(super) const fn salted(word: u64, salt: u64) -> u64 {
    mix(mix(word.wrapping_add(GOLDEN)) ^ mix(salt.wrapping_mul(GOLDEN)))
}

/// A number below `bound` from the upper half of `bits`.
pub(super) const fn scaled(bits: u64, bound: u32) -> u32 {
    (((bits >> 32) * bound as u64) >> 32) as u32
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64, stream: u64) -> Random {
        Random(salted(seed, stream))
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// Below `bound`.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        scaled(self.bits(), bound)
    }

    /// From 0 up to, but not, 1: 53 random bits.
    pub(super) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// True with probability `p`.
    pub(super) fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Exponentially distributed with mean 1.
    pub(super) fn exponential(&mut self) -> f64 {
        -libm::log(1.0 - self.unit())
    }
}
