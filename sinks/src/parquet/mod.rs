//! Tables as Parquet files: Hive-partitioned by date, ZSTD, with what a file came from in its metadata.
//!
//! The partition's folder is named after the column it comes from: `as_of` gives `as_of_date=2026-01-03`, `event_time`
//! gives `event_date=2026-01-03`. The date is not a column of the file, so a reader that takes it from the path
//! (DuckDB: `read_parquet('<lake>/profiles/*/*.parquet', hive_partitioning = true)`) has it once.
//!
//! | metadata key | holds |
//! |---|---|
//! | `job`, `job_version` | who made it |
//! | `run`, `worker` | when and where |
//! | `table`, `table_version` | whose rows, in which layout |
//! | `epoch` | the last epoch that the commit covers |
//! | `source_positions` | JSON object from partition to the offset at which reading would go on |
//! | `generation`, `checkpoint` | in runs with checkpoints: the incarnation that wrote it, and the number of the manifest that lists it |

mod file;
mod read;
mod rewrite;
mod schema;
mod whole;
mod write;

use std::path::{Path, PathBuf};

use whisperer_schemas::TableSchema;

pub use read::{Scan, TextEquals, read_table, read_where, scan};
pub use schema::read_schema;
pub use whole::write_rows;
pub use write::ParquetTable;

#[cfg(feature = "delta")]
pub(crate) use read::rows_of;
pub(crate) use read::{files_of_job, parquet_files, run_of, written_file};
pub(crate) use rewrite::{each_row, rewrite};

/// Rows of a file, at most: so many profile rows are roughly 100 MB, what readers like to get as one file.
pub const FILE_ROWS_MAX: u64 = 1 << 20;

/// Bytes at which a file is closed; it may end one batch longer.
pub const FILE_BYTES_MAX: u64 = 512 << 20;

/// Rows of a row group, at most: what readers skip, spread over their threads, and hold in memory at once.
pub const ROW_GROUP_ROWS_MAX: usize = 1 << 17;

/// Rows of one date that are gathered before they are converted: enough to spread a batch's fixed costs per column, and few enough to
/// stay in a core's cache, through which a conversion goes once per column.
pub const BATCH_ROWS_MAX: usize = 1 << 10;

/// Bytes of one date's rows at which they are converted, however few: dead letters may be a megabyte each.
pub const BATCH_BYTES_MAX: usize = 32 << 20;

/// Bytes of gathered rows of all dates; beyond it, the date with the most is converted.
pub const PENDING_BYTES_MAX: usize = 64 << 20;

/// Bytes of row groups in the making, of all files; beyond it, the largest is written out.
pub const ENCODING_BYTES_MAX: usize = 128 << 20;

/// Bytes of rows that checkpoints keep for a table until its files are closed; of rows, as many as make a row group. Beyond either the rows
/// are worth files, and are staged with the next checkpoint: it is these rows that a start after a crash reads again.
pub const HELD_BYTES_MAX: usize = 32 << 20;

/// Files that a writer keeps open at once: dates may be hundreds, and a process is often held to 1,024 files.
pub const OPEN_FILES_MAX: usize = 32;

/// The folder of the rows of one date in the folder of their table; none for a table without partitions.
pub(crate) fn partition_folder(schema: &TableSchema, date: Option<&str>) -> PathBuf {
    let (Some(index), Some(date)) = (schema.partition_by, date) else { return PathBuf::new() };
    let column = &schema.columns[index].name;
    let mut name = format!("{}_date", column.strip_suffix("_time").unwrap_or(column));
    // A job may call a feature so. DuckDB does not tell upper from lower case.
    while schema.columns.iter().any(|column| column.name.eq_ignore_ascii_case(&name)) {
        name.push('_');
    }
    PathBuf::from(format!("{name}={date}"))
}

/// The folder of a table.
fn table_folder(lake: &Path, table: &str) -> PathBuf {
    lake.join(table)
}

#[cfg(test)]
mod tests {
    use whisperer_schemas::{Column, ColumnType};

    use super::*;

    /// Goal: a partition's name is that of no column, whatever a job calls its features.
    #[test]
    fn partition_name_is_no_column() {
        let feature = |name: &str| Column::optional(name, ColumnType::Number, "1", "");
        let plain = partition_folder(&TableSchema::profiles(vec![]), Some("2026-01-03"));
        assert_eq!(plain, Path::new("as_of_date=2026-01-03"));
        let taken = TableSchema::decisions(vec![feature("Event_Date"), feature("event_date_")]);
        assert_eq!(partition_folder(&taken, Some("2026-01-03")), Path::new("event_date__=2026-01-03"));
        assert_eq!(partition_folder(&TableSchema::dead_letters(), None), Path::new(""));
    }
}
