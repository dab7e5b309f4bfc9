//! Digests: proof that two tables hold the same rows, in any order.
//!
//! The hash of a row is xxh3-128 over its values in column order, columns beginning with `_` left out. Each value
//! is preceded by a byte (0 null, 1 present); numbers and times are eight bytes, little-endian, truth values one byte,
//! text and bytes are preceded by their length as `u32`, lists by their count as `u32`, and hold their structs' values
//! in the same form. A table's digest is the sum of its rows' hashes modulo 2^128, so it can be kept
//! incrementally, added up over workers, and corrected by retractions.

use std::fmt;

use xxhash_rust::xxh3::xxh3_128;

use serde::{Deserialize, Serialize};

use crate::{table::TableSchema, value::Value};

/// The digest of a table: the sum of its row hashes modulo 2^128, with diffs as multiplicities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub u128);

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Digest, String> {
        let digest = u128::from_str_radix(&text, 16).map_err(|error| format!("\"{text}\" is no digest: {error}"))?;
        Ok(Digest(digest))
    }
}

impl Digest {
    /// Adds a row's hash `diff` times.
    pub fn update(&mut self, hash: u128, diff: i64) {
        self.0 = self.0.wrapping_add(hash.wrapping_mul(diff as i128 as u128));
    }

    /// Takes the digest of a part away.
    pub fn take_out(&mut self, part: Digest) {
        self.0 = self.0.wrapping_sub(part.0);
    }

    /// Adds the digest of a disjoint part of the same table.
    pub fn merge(&mut self, other: Digest) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Hashes the values of a row, leaving out the columns of `table` that begin with `_`.
#[must_use]
pub fn row_hash(table: &TableSchema, values: &[Value]) -> u128 {
    debug_assert_eq!(table.columns.len(), values.len(), "a row of table {:?} has a value per column", table.name);
    // One hash over one buffer: hashing value by value costs four times as much.
    let mut bytes = Vec::with_capacity(VALUE_BYTES_USUAL * values.len());
    for (column, value) in table.columns.iter().zip(values) {
        if !column.is_internal() {
            encode(&mut bytes, value);
        }
    }
    xxh3_128(&bytes)
}

/// Bytes that a value usually takes: a number and its presence, or a short text.
const VALUE_BYTES_USUAL: usize = 16;

fn encode(out: &mut Vec<u8>, value: &Value) {
    out.push(u8::from(!matches!(value, Value::Null)));
    match value {
        Value::Null => {}
        Value::Bool(truth) => out.push(u8::from(*truth)),
        Value::Int(number) | Value::Time(number) => out.extend_from_slice(&number.to_le_bytes()),
        // Negative zero equals zero, so it must hash like it; the sum of the two is the positive one.
        Value::Number(number) => out.extend_from_slice(&(number + 0.0).to_le_bytes()),
        Value::Text(text) => encode_bytes(out, text.as_bytes()),
        Value::Bytes(bytes) => encode_bytes(out, bytes),
        Value::List(structs) => {
            out.extend_from_slice(&(structs.len() as u32).to_le_bytes());
            structs.iter().flatten().for_each(|value| encode(out, value));
        }
    }
}

fn encode_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::table::{Column, ColumnType};

    fn table(kinds: &[(&str, ColumnType)]) -> TableSchema {
        let columns = kinds.iter().map(|(name, kind)| Column::optional(name, kind.clone(), "", "")).collect();
        TableSchema { name: "test", version: 1, columns, partition_by: None, key: 0 }
    }

    fn wide() -> TableSchema {
        use ColumnType::{Bool, Bytes, Int, List, Number, Text, Time};
        table(&[
            ("text", Text),
            ("number", Number),
            ("int", Int),
            ("bool", Bool),
            ("time", Time),
            ("bytes", Bytes),
            ("list", List(vec![("name", Text), ("value", Number)])),
            ("_epoch", Int),
        ])
    }

    fn wide_row(number: f64, epoch: i64) -> Vec<Value> {
        vec![
            Value::text("grüß"),
            Value::Number(number),
            Value::Int(-1),
            Value::Bool(true),
            Value::Time(1_700_000_000_000_000),
            Value::Bytes(Box::new([0, 255])),
            Value::List(vec![vec![Value::text("a"), Value::Number(0.5)], vec![Value::text("b"), Value::Null]]),
            Value::Int(epoch),
        ]
    }

    fn hex(table: &TableSchema, values: &[Value]) -> String {
        Digest(row_hash(table, values)).to_string()
    }

    #[test]
    fn row_hashes_do_not_change() {
        // Fixed vectors: digests of runs years apart are compared.
        assert_eq!(hex(&wide(), &wide_row(0.0, 7)), "1339edd81bf2edfd4f62dfcb953eefde");
        assert_eq!(hex(&wide(), &vec![Value::Null; 8]), "10c3b38808feb67121630b6dfa675bc8");
        assert_eq!(hex(&table(&[("t", ColumnType::Text)]), &[Value::text("")]), "624d00ca1a5816e84487fda79cc1828d");
        assert_eq!(
            hex(&table(&[("t", ColumnType::Text)]), &[Value::text("Whisperer")]),
            "36845a2adcaec4bfcf3a192d76d49959"
        );
        assert_eq!(
            hex(&table(&[("n", ColumnType::Number)]), &[Value::Number(-1.5)]),
            "6592fe01567f53bbdcd3ca1b6c48df5b"
        );
        assert_eq!(hex(&table(&[]), &[]), "99aa06d3014798d86001c324468d497f");
    }

    #[test]
    fn the_hashed_bytes_are_those_of_the_docs() {
        // The form of the module docs, written out by hand.
        let mut bytes = Vec::new();
        bytes.extend([1, 6, 0, 0, 0]);
        bytes.extend("grüß".as_bytes());
        bytes.push(1);
        bytes.extend(0.0_f64.to_le_bytes());
        bytes.push(1);
        bytes.extend((-1_i64).to_le_bytes());
        bytes.extend([1, 1, 1]);
        bytes.extend(1_700_000_000_000_000_i64.to_le_bytes());
        bytes.extend([1, 2, 0, 0, 0, 0, 255]);
        bytes.extend([1, 2, 0, 0, 0, 1, 1, 0, 0, 0, b'a', 1]);
        bytes.extend(0.5_f64.to_le_bytes());
        bytes.extend([1, 1, 0, 0, 0, b'b', 0]);
        assert_eq!(row_hash(&wide(), &wide_row(0.0, 7)), xxh3_128(&bytes));
    }

    #[test]
    fn zeros_are_equal_and_underscored_columns_do_not_count() {
        // -0.0 hashes like 0.0, and another `_epoch` gives the same hash; another number does not.
        let hash = |number, epoch| row_hash(&wide(), &wide_row(number, epoch));
        assert_eq!(hash(0.0, 7), hash(-0.0, 7));
        assert_eq!(hash(0.0, 7), hash(0.0, 8));
        assert_ne!(hash(0.0, 7), hash(f64::MIN_POSITIVE, 7));
    }

    #[test]
    fn neighbours_do_not_run_together() {
        // Moving a letter between columns, or between null and empty, changes the hash.
        let two = table(&[("a", ColumnType::Text), ("b", ColumnType::Text)]);
        let rows = [("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", "")];
        let mut hashes: Vec<u128> = rows.map(|(a, b)| row_hash(&two, &[Value::text(a), Value::text(b)])).to_vec();
        hashes.push(row_hash(&two, &[Value::Null, Value::text("abc")]));
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 5);
    }

    #[test]
    fn a_retraction_undoes_its_row() {
        // A diff of -1 takes one copy away, and a changelog's digest is that of the table it adds up to.
        let (old, new) = (row_hash(&wide(), &wide_row(1.0, 0)), row_hash(&wide(), &wide_row(2.0, 0)));
        let mut changelog = Digest::default();
        for (hash, diff) in [(old, 1), (new, 2), (old, -1), (new, -1)] {
            changelog.update(hash, diff);
        }
        let mut rows = Digest::default();
        rows.update(new, 1);
        assert_eq!(changelog, rows);
        rows.update(new, -1);
        assert_eq!(rows, Digest::default());
    }

    proptest! {
        #[test]
        fn order_and_parts_do_not_matter(
            updates in prop::collection::vec((any::<u128>(), -3_i64..=3), 0..40),
            seed in any::<u64>(),
            parts in 1_usize..5,
        ) {
            // Any order, split over any number of workers, gives the digest of the plain sequence.
            let mut whole = Digest::default();
            updates.iter().for_each(|(hash, diff)| whole.update(*hash, *diff));
            let mut shuffled = updates.clone();
            shuffled.sort_by_key(|(hash, _)| (*hash as u64).wrapping_mul(seed | 1));
            let mut workers = vec![Digest::default(); parts];
            for (index, (hash, diff)) in shuffled.iter().enumerate() {
                workers[index % parts].update(*hash, *diff);
            }
            let mut merged = Digest::default();
            workers.into_iter().for_each(|part| merged.merge(part));
            prop_assert_eq!(merged, whole);
        }
    }
}
