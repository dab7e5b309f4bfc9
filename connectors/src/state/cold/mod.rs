//! Cold stores: where a worker keeps the states for which memory has no room.

pub mod conformance;
#[cfg(feature = "rocksdb")]
mod rocks;

pub use whisperer_operators::cold::MemoryCold;

#[cfg(feature = "rocksdb")]
pub use self::rocks::RocksCold;
