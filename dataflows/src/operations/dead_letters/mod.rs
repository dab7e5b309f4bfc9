//! Dead letters after the fact: reading them from the lake, and giving those that are events by now a second chance.
//!
//! ```text
//! lake/dead_letters ─▶ not in the ledger, and now an event ─▶ ledger entry N (durable) ─▶ put out as replay N ─▶ entry N done
//! ```
//! **Nothing is replayed twice.** A dead letter is known by its partition, its offset and its bytes. What a replay is about to put out is
//! first written, with the records themselves, into the ledger: from then on it counts, and a replay that was interrupted is carried out
//! by the next one before anything else. Putting out the same replay again does no harm ([`Target`]).
//!
//! **The copy is the same event.** A record without an id of its own gets one that is made from its position, so that two copies of it
//! are duplicates of each other. It comes late, and so counts, and decides nothing by itself.

mod ledger;
mod second_chance;

use std::{collections::BTreeMap, path::Path};

use whisperer_schemas::{ColumnType, Digest, Row, TableSchema, Value, row_hash, table::Column};
use whisperer_sinks::{Scan, SinkError, TextEquals, scan};

pub use ledger::{FileTarget, Ledger, Target};
pub use second_chance::{Chance, SecondChances};

/// A rejected record, as the table has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why it was rejected.
    pub reason: String,
    /// What exactly was wrong.
    pub detail: String,
    /// Its partition.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// The record, or its beginning.
    pub raw: Box<[u8]>,
    /// Its whole length.
    pub raw_bytes: u64,
}

/// What a dead letter is known by: partition, offset, and hash of its bytes. A topic that was made anew has other bytes at the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct LetterId(pub u32, pub u64, pub Digest);

impl DeadLetter {
    /// What it is known by.
    #[must_use]
    pub fn id(&self) -> LetterId {
        let column = Column::required("raw", ColumnType::Bytes, "bytes", "");
        let table = TableSchema { name: "dead_letters", version: 1, columns: vec![column], partition_by: None, key: 0 };
        LetterId(self.partition, self.offset, Digest(row_hash(&table, &[Value::Bytes(self.raw.clone())])))
    }

    /// Whether the table holds all of it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.raw.len() as u64 == self.raw_bytes
    }

    /// Reads a row of the table; none where it is no such row.
    fn read(row: &Row) -> Option<DeadLetter> {
        let [reason, detail, partition, offset, raw, raw_bytes, ..] = &row.values[..] else { return None };
        let Value::Bytes(raw) = raw else { return None };
        let whole = |value: &Value| match value {
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        };
        Some(DeadLetter {
            reason: reason.as_text()?.to_owned(),
            detail: detail.as_text()?.to_owned(),
            partition: u32::try_from(whole(partition)?).ok()?,
            offset: whole(offset)?,
            raw: raw.clone(),
            raw_bytes: whole(raw_bytes)?,
        })
    }
}

/// Which dead letters of a lake are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Letters<'a> {
    /// The lake.
    pub lake: &'a Path,
    /// The job whose they are.
    pub job: &'a str,
    /// Only those that were rejected for this reason.
    pub reason: Option<&'a str>,
}

impl Letters<'_> {
    /// Gives each row with what it says, holding one batch in memory at a time.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn visit(&self, mut visit: impl FnMut(&Row, DeadLetter)) -> Result<(), SinkError> {
        let conditions: Vec<_> = self.reason.map(|value| TextEquals { column: "reason", value }).into_iter().collect();
        let schema = TableSchema::dead_letters();
        let all = Scan { lake: self.lake, job: self.job, schema: &schema, conditions: &conditions };
        scan(all, |row| {
            if let Some(letter) = DeadLetter::read(&row) {
                visit(&row, letter);
            }
        })
    }

    /// How many there are, by reason.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn counts(&self) -> Result<BTreeMap<String, u64>, SinkError> {
        let mut counts = BTreeMap::new();
        self.visit(|_, letter| *counts.entry(letter.reason).or_default() += 1)?;
        Ok(counts)
    }
}
