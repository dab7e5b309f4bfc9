//! What can go wrong with plain data.

use arrow::error::ArrowError;
use compact_str::CompactString;

/// Why a text or a table could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// A span of time that cannot be read.
    #[error(
        "\"{text}\" is not a duration: {problem} (write a whole number and a unit: \"500ms\", \"30s\", \"10m\", \"24h\", \"7d\")"
    )]
    Duration {
        /// The text, cut where it is long.
        text: CompactString,
        /// What is wrong with it.
        problem: &'static str,
    },

    /// A row with more or fewer values than its table has columns.
    #[error("row {row} of table \"{table}\" has {values} values for {columns} columns")]
    RowLength {
        /// The table.
        table: &'static str,
        /// The row's place in its batch.
        row: usize,
        /// Values it has.
        values: usize,
        /// Columns of the table.
        columns: usize,
    },

    /// A value that its column cannot hold.
    #[error("column \"{column}\" of table \"{table}\" holds {expected}, but row {row} has {found}")]
    ValueMisfit {
        /// The table.
        table: &'static str,
        /// The column; a field of a list's structs follows a dot.
        column: String,
        /// The row's place in its batch; in a list's field, the struct's place among all of the batch.
        row: usize,
        /// What the column holds.
        expected: &'static str,
        /// What the row has.
        found: &'static str,
    },

    /// A batch whose texts or lists are too long for Arrow's 32-bit offsets.
    #[error("column \"{column}\" of table \"{table}\" is larger than 2 GiB in one batch (write fewer rows at once)")]
    BatchTooLarge {
        /// The table.
        table: &'static str,
        /// The column.
        column: String,
    },

    /// A batch that lacks a column which every row must have.
    #[error("table \"{table}\" has no column \"{column}\"")]
    ColumnMissing {
        /// The table.
        table: &'static str,
        /// The column.
        column: String,
    },

    /// A batch in which a column has another type than its table says.
    #[error("column \"{column}\" of table \"{table}\" is of type {found}, not {expected}")]
    ColumnType {
        /// The table.
        table: &'static str,
        /// The column.
        column: String,
        /// The type that it should have.
        expected: Box<str>,
        /// The type that it has.
        found: Box<str>,
    },

    /// A text that is no position.
    #[error("\"{text}\" is not a position (\"partition:offset\")")]
    Position {
        /// The text.
        text: CompactString,
    },

    /// A delta file that is not as it was written, or that cannot be written.
    #[error("the delta file is damaged: {detail}")]
    Delta {
        /// What is wrong.
        detail: String,
    },

    /// A delta file of a later release.
    #[error(
        "the delta file has version {found}; this release reads up to {known}. Read it with the release that wrote it"
    )]
    DeltaVersion {
        /// Its version.
        found: u32,
        /// The newest version that is understood here.
        known: u32,
    },

    /// Arrow refused.
    #[error("table \"{table}\" could not be laid out in Arrow")]
    Arrow {
        /// The table.
        table: &'static str,
        /// Why.
        #[source]
        source: ArrowError,
    },
}
