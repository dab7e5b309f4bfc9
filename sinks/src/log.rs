//! What a sink into a log (a Kafka topic) can do: put rows out at once, or together with a checkpoint.
//!
//! ```text
//! idempotent     rows ─▶ write ──────────▶ readable at once; flush at a checkpoint gives the positions that its manifest keeps
//! exactly_once   rows ─▶ outbox of the checkpoint ─▶ manifest committed ─▶ publish, in one transaction that records its number
//! ```
//!
//! After an error only a new sink goes on: a broken one writes nothing more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use whisperer_schemas::{Micros, Row};

use crate::error::SinkError;

/// A key whose rows are to go: in a changelog it gets a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The application of the user.
    pub app_id: String,
    /// The user.
    pub user_id: String,
    /// When, in event time; not before the key's last row.
    pub at: Micros,
}

/// A sink whose rows are readable at once.
///
/// What a crash made the engine forget is made again after it, by whichever worker owns the key then, and row by row equal. So each writer
/// learns at its start what stands in the log after the checkpoint, whoever wrote it, and passes over those rows when they come.
/// Until all of them can have come, a checkpoint has to remember the place where that stretch began: [`LogSink::caught_up`].
pub trait LogSink: Send {
    /// Goes on where a checkpoint left off: `positions` is what [`LogSink::flush`] gave it, of this and all other writers of the topic.
    /// What stands in the log after it is not written again. Called once, before the first row; with nothing at a first start,
    /// or to repeat what is out.
    ///
    /// # Errors
    /// What the log answers.
    fn recover(&mut self, positions: &[String]) -> Result<(), SinkError>;

    /// Takes rows; waits while too much is on its way.
    ///
    /// # Errors
    /// Rows that were refused for good.
    fn write(&mut self, rows: Vec<Row>) -> Result<(), SinkError>;

    /// Takes the rows of keys out of a changelog; other logs keep what they have.
    ///
    /// # Errors
    /// Those of [`LogSink::write`].
    fn remove(&mut self, keys: &[Removal]) -> Result<(), SinkError>;

    /// Waits until everything is acknowledged; gives what a checkpoint has to remember. With nothing written it may be called too:
    /// the position before the first row lets a crash before the first checkpoint repeat nothing.
    ///
    /// # Errors
    /// Rows that were refused for good, or that the log does not acknowledge in time.
    fn flush(&mut self) -> Result<String, SinkError>;

    /// Says that every row which an earlier incarnation can have written has been handed over by now: the input is read to where it ended when
    /// [`LogSink::recover`] was called. The next [`LogSink::flush`] forgets what it passed over rows for. Without a recovery it does nothing.
    fn caught_up(&mut self);

    /// How many rows were passed over because the log has them.
    fn passed_over(&self) -> u64;
}

/// Encodes rows for the outbox of a checkpoint.
pub trait OutboxEncoder: Send + Sync {
    /// Appends rows.
    ///
    /// # Errors
    /// A row that does not fit the table.
    fn encode(&self, rows: &[Row], outbox: &mut Vec<u8>) -> Result<(), SinkError>;

    /// Appends that rows of keys go out of a changelog; other logs keep what they have.
    ///
    /// # Errors
    /// Those of [`OutboxEncoder::encode`].
    fn encode_removals(&self, keys: &[Removal], outbox: &mut Vec<u8>) -> Result<(), SinkError>;
}

/// A sink whose rows become readable with a checkpoint.
///
/// Each writer has an identity that its successors share. What an identity's writers have published is recorded under it, so that a later
/// generation with more or fewer workers finds out which outboxes of the last checkpoint are out: each is published under
/// the identity of the worker that filled it.
pub trait OutboxSink: Send {
    /// Fences the writers of earlier generations, of which `earlier` is what they gave as [`OutboxSink::identity`]. All workers are given the
    /// whole list, and each takes over its own share of it ([`taken_over`]). Gives, of each identity taken over, the number of the last
    /// checkpoint whose rows are out: 0 where there is none, as checkpoints count from 1.
    ///
    /// # Errors
    /// What the log answers.
    fn recover(&mut self, earlier: &[String]) -> Result<BTreeMap<String, u64>, SinkError>;

    /// What a later generation needs to fence this writer; stands in every manifest.
    fn identity(&self) -> String;

    /// What encodes rows for it: apart from the sink, which may be in the midst of a publication meanwhile.
    fn encoder(&self) -> Arc<dyn OutboxEncoder>;

    /// Puts out what the writer called `maker` encoded for checkpoint `number`, all or none, in one transaction that records the number.
    /// Does nothing where that number or a later one is recorded. `maker` is this writer's own identity, or one that it took over.
    ///
    /// # Errors
    /// What the log answers; being fenced is one of them.
    fn publish(&mut self, maker: &str, number: u64, outbox: &[u8]) -> Result<(), SinkError>;

    /// Forgets which checkpoints are out, for the identities that this writer took over: what it publishes next goes out, whatever its number.
    /// For a job that starts anew, or from an older checkpoint, and is to repeat its outputs.
    ///
    /// # Errors
    /// What the log answers.
    fn forget(&mut self) -> Result<(), SinkError>;
}

/// The identities that worker `worker` of `workers` takes over: its own, and of those in `earlier` that no worker has any more every
/// `workers`th. `identity_of` gives that of a worker by number.
#[must_use]
pub fn taken_over(
    earlier: &[String],
    worker: u32,
    workers: u32,
    identity_of: impl Fn(u32) -> String,
) -> BTreeSet<String> {
    let present: BTreeSet<String> = (0..workers).map(&identity_of).collect();
    let orphans: BTreeSet<&String> = earlier.iter().filter(|identity| !present.contains(*identity)).collect();
    let dealt = orphans.into_iter().zip((0..workers.max(1)).cycle());
    let own = dealt.filter(|(_, to)| *to == worker).map(|(identity, _)| identity.clone());
    own.chain([identity_of(worker)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: of the identities of any number of earlier workers each is taken over exactly once, whatever the new number.
    #[test]
    fn every_identity_is_taken_over_once() {
        let identity = |worker: u32| format!("w-{worker}");
        for (before, after) in [(4, 4), (4, 1), (1, 4), (5, 2), (0, 3)] {
            let earlier: Vec<String> = (0..before).map(identity).collect();
            let shares: Vec<_> = (0..after).flat_map(|worker| taken_over(&earlier, worker, after, identity)).collect();
            let distinct: BTreeSet<_> = shares.iter().cloned().collect();
            assert_eq!(shares.len(), distinct.len(), "{before} to {after}: none twice");
            assert_eq!(distinct, (0..before.max(after)).map(identity).collect(), "{before} to {after}: none missing");
        }
    }
}
