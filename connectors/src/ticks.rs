//! The tick log: advances of idle partitions, the one input that stands in no source.
//!
//! The clock of a partition that is silent follows the wall clock. So that a replay sees the same clocks, every such advance is written
//! here, with the place in the partition at which it happened, before it takes effect.
//!
//! Invariants: a tick that [`TickWriter::append`] returned for is found by every later reading, until it is forgotten; each writer has
//! files of its own, so nobody waits for anybody; what a dead generation still writes after the next one has begun is read by no one.

mod file;
mod memory;

use std::collections::BTreeMap;

use whisperer_schemas::{Micros, PartitionId};

pub use self::{file::FileTickLog, memory::MemoryTickLog};
use crate::source::{Positions, SourceError};

/// An advance of a partition's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick {
    /// The partition.
    pub partition: PartitionId,
    /// It takes effect before the record at this offset and after all those before it.
    pub offset: u64,
    /// Counts as the event time of a record; `Micros::MIN` where a new partition was announced and its clock is not known yet.
    pub time: Micros,
}

/// A durable log of ticks, shared by the workers of a process.
pub trait TickLog: Send + Sync {
    /// All ticks that were appended and not forgotten, by whatever writer, in order of partition, offset and time.
    ///
    /// # Errors
    /// Where the log cannot be read.
    fn ticks(&self) -> Result<Vec<Tick>, SourceError>;

    /// The log of one worker, counted over all processes.
    ///
    /// # Errors
    /// Where it cannot be created.
    fn writer(&self, worker: usize) -> Result<Box<dyn TickWriter>, SourceError>;

    /// Lets go of the ticks that no restart can need any more: those that the oldest retained checkpoint, with these positions and
    /// clocks, already holds. Others may go later; asking twice does no harm. To be asked of one process of a generation only.
    ///
    /// # Errors
    /// Where the log cannot be read or shortened.
    fn forget_before(&self, positions: &Positions, clocks: &BTreeMap<PartitionId, Micros>) -> Result<(), SourceError>;
}

/// Where one worker appends.
pub trait TickWriter: Send {
    /// Appends; the ticks are durable when this returns.
    ///
    /// # Errors
    /// Where that cannot be had. The writer must not be used again.
    fn append(&mut self, ticks: &[Tick]) -> Result<(), SourceError>;
}

/// Whether a checkpoint with these positions and clocks holds the tick already, so that no replay from it needs the tick.
fn is_held(tick: &Tick, positions: &Positions, clocks: &BTreeMap<PartitionId, Micros>) -> bool {
    let Some(position) = positions.get(&tick.partition) else { return false };
    // Of the ticks at the position itself the clock tells which came before the checkpoint.
    tick.offset < *position
        || tick.offset == *position && clocks.get(&tick.partition).is_some_and(|clock| tick.time <= *clock)
}

#[cfg(test)]
mod tests;
