//! The changes of a view as messages: what a row has become, by the columns that tell it from others.

use std::collections::BTreeMap;

use whisperer_schemas::{Row, TableSchema, time::MILLISECOND};

use super::message::{Message, append};
use crate::{error::SinkError, ndjson::Lines};

/// How the changes of a view are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChangeMode {
    /// The row as it is now; a tombstone where it is no more.
    #[default]
    Upsert,
    /// The envelope of Debezium: the row before and after; a tombstone follows where it is no more.
    Debezium,
}

/// Makes messages of a view's changes.
#[derive(Debug)]
pub(super) struct ChangeEncoder {
    key: Lines,
    /// What is part of the view.
    row: Lines,
    /// The same with what is told about it, the difference left out.
    whole: Lines,
    /// The columns of each.
    columns: [Vec<usize>; 3],
    diff: usize,
    as_of: Option<usize>,
    mode: ChangeMode,
    table: &'static str,
    job: String,
}

/// A row before and after.
#[derive(Default)]
struct Change<'r> {
    before: Option<&'r Row>,
    after: Option<&'r Row>,
}

impl ChangeEncoder {
    /// Of a view's table; none for one that is no view's.
    pub(super) fn new(schema: &TableSchema, job: &str, mode: ChangeMode) -> Option<ChangeEncoder> {
        let diff = schema.diff_index()?;
        let columns = [
            (0..schema.key).collect(),
            (0..schema.columns.len()).filter(|at| !schema.columns[*at].is_internal()).collect(),
            (0..schema.columns.len()).filter(|at| *at != diff).collect::<Vec<_>>(),
        ];
        let lines = |columns: &Vec<usize>| {
            let columns = columns.iter().map(|at| schema.columns[*at].clone()).collect();
            Lines::new(TableSchema { columns, ..schema.clone() })
        };
        let [key, row, whole] = columns.each_ref().map(lines);
        let as_of = schema.column_index("_as_of");
        Some(ChangeEncoder { key, row, whole, columns, diff, as_of, mode, table: schema.name, job: job.into() })
    }

    /// Appends the messages of the changes of one cut: of each key at most one row goes and one comes.
    pub(super) fn encode(&self, rows: &[Row], outbox: &mut Vec<u8>) -> Result<(), SinkError> {
        let mut changes: BTreeMap<Vec<u8>, Change<'_>> = BTreeMap::new();
        for row in rows {
            let diff = row.values.get(self.diff).and_then(|diff| diff.as_int());
            let change = changes.entry(self.part(&self.key, 0, row)?).or_default();
            match diff {
                Some(1) if change.after.is_none() => change.after = Some(row),
                Some(-1) if change.before.is_none() => change.before = Some(row),
                _ => {
                    let detail = "a key has two rows at once, or a row comes more than once".to_owned();
                    return Err(SinkError::Row { table: self.table.into(), detail });
                }
            }
        }
        for (key, change) in &changes {
            let message = |value: Option<&[u8]>, outbox: &mut Vec<u8>| {
                append(&Message { key: Some(key), value, headers: &[] }, outbox);
            };
            match (self.mode, change.after) {
                (ChangeMode::Upsert, Some(row)) => message(Some(&self.part(&self.whole, 2, row)?), outbox),
                (ChangeMode::Debezium, _) => message(Some(&self.envelope(change)?), outbox),
                _ => {}
            }
            if change.after.is_none() {
                message(None, outbox);
            }
        }
        Ok(())
    }

    /// <https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-change-events-value>, without its schema.
    fn envelope(&self, change: &Change<'_>) -> Result<Vec<u8>, SinkError> {
        let row = |row: Option<&Row>| row.map_or(Ok(b"null".to_vec()), |row| self.part(&self.row, 1, row));
        let op = match change {
            Change { before: None, .. } => "c",
            Change { after: Some(_), .. } => "u",
            Change { .. } => "d",
        };
        let newest = change.after.or(change.before);
        let as_of = newest.and_then(|row| row.values.get(self.as_of?)?.as_time());
        let millis = as_of.map(|as_of| as_of.div_euclid(MILLISECOND));
        let source = serde_json::json!({
            "connector": "whisperer",
            "version": env!("CARGO_PKG_VERSION"),
            "name": self.job,
            "db": self.job,
            "table": self.table,
            "snapshot": "false",
            "ts_ms": millis,
            "epoch": newest.map(|row| row.epoch.0),
        });
        let tail = format!(r#","source":{source},"op":"{op}","ts_ms":{}}}"#, serde_json::json!(millis));
        let (before, after) = (row(change.before)?, row(change.after)?);
        Ok([&br#"{"before":"#[..], &before, br#","after":"#, &after, tail.as_bytes()].concat())
    }

    fn part(&self, lines: &Lines, columns: usize, row: &Row) -> Result<Vec<u8>, SinkError> {
        let values = self.columns[columns].iter().filter_map(|at| row.values.get(*at).cloned()).collect();
        let mut line = Vec::new();
        lines.append(&Row { values, ..row.clone() }, &mut line)?;
        Ok(line)
    }
}
