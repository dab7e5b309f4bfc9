//! What a sink into a log (a Kafka topic) can do: put rows out at once, or together with a checkpoint.
//!
//! ```text
//! idempotent     rows ─▶ write ──────────▶ readable at once; flush at a checkpoint gives the positions that its manifest keeps
//! exactly_once   rows ─▶ outbox of the checkpoint ─▶ manifest committed ─▶ publish, in one transaction that records its number
//! ```

use whisperer_schemas::Row;

use crate::error::SinkError;

/// A sink whose rows are readable at once.
pub trait LogSink: Send {
    /// Goes on where a checkpoint left off: `positions` is what [`LogSink::flush`] gave it, of this and all other writers of the topic.
    /// What stands in the log after it is not written again. Called once, before the first row; with nothing at a first start.
    ///
    /// # Errors
    /// What the log answers.
    fn recover(&mut self, positions: &[String]) -> Result<(), SinkError>;

    /// Takes rows; waits while too much is on its way.
    ///
    /// # Errors
    /// Rows that were refused for good.
    fn write(&mut self, rows: Vec<Row>) -> Result<(), SinkError>;

    /// Waits until everything is acknowledged; gives what a checkpoint has to remember.
    ///
    /// # Errors
    /// Rows that were refused for good, or that the log does not acknowledge in time.
    fn flush(&mut self) -> Result<String, SinkError>;
}

/// A sink whose rows become readable with a checkpoint.
pub trait OutboxSink: Send {
    /// Fences the writers of earlier generations, of which `earlier` is what they gave as [`OutboxSink::identity`]; gives the number of
    /// the last checkpoint whose rows are out, if any.
    ///
    /// # Errors
    /// What the log answers.
    fn recover(&mut self, earlier: &[String]) -> Result<Option<u64>, SinkError>;

    /// What a later generation needs to fence this writer; stands in every manifest.
    fn identity(&self) -> String;

    /// Encodes rows for the outbox of a checkpoint.
    ///
    /// # Errors
    /// A row that does not fit the table.
    fn encode(&self, rows: &[Row], outbox: &mut Vec<u8>) -> Result<(), SinkError>;

    /// Puts out the rows of checkpoint `number`, all or none, in one transaction that records the number. Doing it twice does no harm.
    ///
    /// # Errors
    /// What the log answers; being fenced is one of them.
    fn publish(&mut self, number: u64, outbox: &[u8]) -> Result<(), SinkError>;
}
