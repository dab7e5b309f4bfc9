//! Sources of events, and the formats that they are written in.
//!
//! Invariant: a source resumes from its checkpointed positions; nothing skipped, nothing twice.

pub mod conformance;
pub mod file;
pub mod format;
pub mod generator;
pub mod history;
pub mod kafka;
pub mod memory;
pub mod source;
pub mod state;
pub mod ticks;

pub use source::{Chunk, EpochSize, Positions, RawRecord, Reader, Source, SourceError};
pub use state::{StateStore, StoreError};
