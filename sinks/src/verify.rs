//! A table's digest, computed from its files: proof that what readers see is what the engine made.

use std::path::Path;

use whisperer_schemas::{Digest, TableSchema, row_hash};

use crate::{
    error::SinkError,
    parquet::{Scan, scan},
};

/// The digest of all rows of a job's table in the lake.
///
/// # Errors
/// A file that cannot be read, or that has other columns than `schema`.
pub fn digest_of_table(lake: &Path, job: &str, schema: &TableSchema) -> Result<Digest, SinkError> {
    let mut digest = Digest::default();
    let all = Scan { lake, job, schema, conditions: &[] };
    scan(all, |row| digest.update(row_hash(schema, &row.values), 1))?;
    Ok(digest)
}
