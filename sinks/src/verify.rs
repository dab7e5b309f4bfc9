//! A table's digest, computed from its files: proof that what readers see is what the engine made.

use std::{collections::BTreeMap, path::Path};

use whisperer_schemas::{Digest, TableSchema, row_hash};

use crate::{
    error::SinkError,
    parquet::{Scan, scan},
};

/// The digest of all rows of a job's table in the lake; of a view, that of what its changes add up to since it was begun last.
///
/// # Errors
/// A file that cannot be read, or that has other columns than `schema`.
pub fn digest_of_table(lake: &Path, job: &str, schema: &TableSchema) -> Result<Digest, SinkError> {
    let mut digests: BTreeMap<Option<i64>, Digest> = BTreeMap::new();
    let all = Scan { lake, job, schema, conditions: &[] };
    let (diff, since) = (schema.diff_index(), schema.diff_index().and_then(|_| schema.column_index("_since")));
    scan(all, |row| {
        let number = |at: Option<usize>| row.values[at?].as_int();
        let digest = digests.entry(number(since)).or_default();
        digest.update(row_hash(schema, &row.values), number(diff).unwrap_or(1));
    })?;
    Ok(digests.into_values().next_back().unwrap_or_default())
}
