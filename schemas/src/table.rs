//! The tables that Whisperer writes, column by column; what becomes their Arrow schema.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    ids::{Epoch, Position},
    value::Value,
};

/// Names of the fixed columns of all tables that have columns of a job's own, sorted: no feature or score may have one of them.
const RESERVED_NAMES: [&str; 19] = [
    "_epoch",
    "_historical",
    "_position",
    "action",
    "app_id",
    "as_of",
    "cause",
    "decision_id",
    "event_time",
    "final",
    "job",
    "job_version",
    "key_clock",
    "lifecycle_stage",
    "priority",
    "timers",
    "trigger",
    "triggers",
    "user_id",
];

/// What a column holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// `Value::Bool`
    Bool,
    /// `Value::Int`
    Int,
    /// `Value::Number`
    Number,
    /// `Value::Text`
    Text,
    /// `Value::Bytes`
    Bytes,
    /// `Value::Time`, UTC
    Time,
    /// `Value::List` of structs with these fields, in order.
    List(Vec<(&'static str, ColumnType)>),
}

impl ColumnType {
    /// The word for it in messages.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            ColumnType::Bool => "a truth value",
            ColumnType::Int => "a whole number",
            ColumnType::Number => "a number",
            ColumnType::Text => "text",
            ColumnType::Bytes => "bytes",
            ColumnType::Time => "a time",
            ColumnType::List(_) => "a list of structs of its fields",
        }
    }
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The column's name; one that begins with `_` is not part of the table's digest.
    pub name: String,
    /// What it holds.
    pub kind: ColumnType,
    /// Whether a row may have none.
    pub nullable: bool,
    /// The unit of its numbers, such as `days` or `1` for a ratio; empty where none makes sense.
    pub unit: String,
    /// One sentence of what it is.
    pub doc: String,
}

/// A table: its name, the version of its layout, and its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSchema {
    /// `decisions`, `profiles`, `dead_letters` or `views/NAME`.
    pub name: &'static str,
    /// Version of the fixed columns' layout.
    pub version: u32,
    /// The columns, in order.
    pub columns: Vec<Column>,
    /// The `Time` column whose UTC date is the Hive partition of a row.
    pub partition_by: Option<usize>,
    /// Of a table of changes, how many columns tell a row from all others: the first ones. 0 for other tables.
    pub key: usize,
}

/// A row of a table and what it came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// A value for each column, in order.
    pub values: Vec<Value>,
    /// The epoch in which the row was made.
    pub epoch: Epoch,
    /// The record that made it, if a record did.
    pub position: Option<Position>,
}

/// A column of a job's own: a feature or a score's part, to be placed among the fixed ones.
pub type JobColumn = Column;

impl Column {
    /// A column that always has a value.
    #[must_use]
    pub fn required(name: &str, kind: ColumnType, unit: &str, doc: &str) -> Column {
        Column { name: name.into(), kind, nullable: false, unit: unit.into(), doc: doc.into() }
    }

    /// A column that may have none.
    #[must_use]
    pub fn optional(name: &str, kind: ColumnType, unit: &str, doc: &str) -> Column {
        Column { nullable: true, ..Column::required(name, kind, unit, doc) }
    }

    /// Whether it tells how a row came about, and is no part of what the row says: its name begins with `_`.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.name.starts_with('_')
    }
}

impl TableSchema {
    /// Decisions: `head`, then the job's columns (scores, features), then `_position`, `_epoch`, `_historical`.
    #[must_use]
    pub fn decisions(job: Vec<JobColumn>) -> TableSchema {
        use ColumnType::{Bool, Int, Text, Time};
        let mut columns = vec![
            Column::required(
                "decision_id",
                Text,
                "",
                "128-bit hash of job, trigger, key, firing time and ordinal, in hex",
            ),
            Column::required("job", Text, "", "Name of the job"),
            Column::required("job_version", Int, "", "Version of the job, as its file states it"),
            Column::required("app_id", Text, "", "Application of the user"),
            Column::required("user_id", Text, "", "The user"),
            Column::required("trigger", Text, "", "Name of the trigger that fired"),
            Column::required("event_time", Time, "us", "Firing time, in event time"),
            Column::required("cause", Text, "", "Id of the event that fired it, or `timer`"),
            Column::required("priority", Int, "", "Priority of the trigger; higher goes first"),
            Column::optional("action", Text, "", "The trigger's action, as JSON"),
        ];
        columns.extend(job);
        columns.push(Column::optional(
            "lifecycle_stage",
            Text,
            "",
            "Lifecycle stage at that instant; null if the job has none",
        ));
        columns.push(Column::optional(
            "_position",
            Text,
            "",
            "`partition:offset` of the causing event; null for a timer",
        ));
        columns.push(Column::required("_epoch", Int, "", "Epoch in which it was made"));
        columns.push(Column::optional(
            "_historical",
            Bool,
            "",
            "True if it was no news when it was made, and nobody got it; null in rows older than the column",
        ));
        TableSchema { name: "decisions", version: 1, columns, partition_by: Some(6), key: 0 }
    }

    /// Profiles as of an instant: the key, the job's columns, and what explains the key's next steps.
    #[must_use]
    pub fn profiles(job: Vec<JobColumn>) -> TableSchema {
        use ColumnType::{Bool, Int, List, Text, Time};
        let mut columns = vec![
            Column::required(
                "as_of",
                Time,
                "us",
                "The boundary in event time; an event at exactly this time belongs to the next row",
            ),
            Column::required("job", Text, "", "Name of the job"),
            Column::required("job_version", Int, "", "Version of the job, as its file states it"),
            Column::required("app_id", Text, "", "Application of the user"),
            Column::required("user_id", Text, "", "The user"),
            Column::required("key_clock", Time, "us", "Largest event time applied for the user"),
            Column::required("final", Bool, "", "True in the rows written at the end of the input"),
        ];
        columns.extend(job);
        columns.push(Column::optional(
            "lifecycle_stage",
            Text,
            "",
            "Stage at the user's last evaluation; null if the job has none",
        ));
        columns.push(Column::optional(
            "triggers",
            List(vec![("trigger", Text), ("holds", Bool), ("armed", Bool), ("last_fired", Time), ("suppressed", Int)]),
            "",
            "State of every trigger; in final rows only",
        ));
        columns.push(Column::optional(
            "timers",
            List(vec![("due", Time), ("reason", Text)]),
            "",
            "Pending timers, earliest first; in final rows only",
        ));
        columns.push(Column::required("_epoch", Int, "", "Epoch in which the row was made"));
        TableSchema { name: "profiles", version: 1, columns, partition_by: Some(0), key: 0 }
    }

    /// The names that no feature or score of a job may have: the fixed columns of decisions and profiles.
    ///
    /// Names that begin with `_` are reserved as a whole, since a digest leaves their columns out.
    #[must_use]
    pub fn reserved_names() -> &'static [&'static str] {
        &RESERVED_NAMES
    }

    /// A view: its columns, then `_epoch`, `_as_of`, `_since` and `_diff`. Its rows are changes; those of one row with the greatest
    /// `_since` add up to how often it is there.
    #[must_use]
    pub fn view(name: &str, mut columns: Vec<Column>, key: usize) -> TableSchema {
        use ColumnType::{Int, Time};
        columns.push(Column::required("_epoch", Int, "", "Last epoch that the change is part of"));
        columns.push(Column::optional("_as_of", Time, "us", "Global watermark then, in event time"));
        let doc = "Epoch of the checkpoint at which a change of the job began the view anew, 0 for the first start";
        columns.push(Column::required("_since", Int, "", doc));
        columns.push(Column::required("_diff", Int, "", "1 for a row that came, -1 for one that went"));
        TableSchema { name: name_of_view(name), version: 1, columns, partition_by: None, key }
    }

    /// The place of the column with how often a row comes or goes; none where each row is there once.
    #[must_use]
    pub fn diff_index(&self) -> Option<usize> {
        self.name.starts_with(VIEWS).then(|| self.column_index("_diff")).flatten()
    }

    /// The places of the columns that hold ids of users: whoever is erased may stand in any of them.
    pub fn user_columns(&self) -> impl Iterator<Item = usize> {
        ["user_id", "canonical_id"].into_iter().filter_map(|name| self.column_index(name))
    }

    /// The place of the column with this name.
    #[must_use]
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// Dead letters: every rejected record, with its reason and where it stood.
    #[must_use]
    pub fn dead_letters() -> TableSchema {
        use ColumnType::{Bytes, Int, Text};
        let columns = vec![
            Column::required(
                "reason",
                Text,
                "",
                "`too_large`, `invalid_json`, `missing_field`, `bad_time`, `schema` or `future`",
            ),
            Column::required("detail", Text, "", "What exactly was wrong"),
            Column::required("partition", Int, "", "Partition of the record"),
            Column::required("offset", Int, "", "Offset of the record in its partition"),
            Column::required(
                "raw",
                Bytes,
                "bytes",
                "The record as it came; cut at `event_bytes_max` when it is too large",
            ),
            Column::required("raw_bytes", Int, "bytes", "Length of the record as it came"),
            Column::required("_epoch", Int, "", "Epoch in which it was read"),
        ];
        TableSchema { name: "dead_letters", version: 1, columns, partition_by: None, key: 0 }
    }
}

/// What the names of views' tables begin with, which is the folder that they lie in.
pub const VIEWS: &str = "views/";

/// The name of a view's table. It lives as long as the process, once for each name.
fn name_of_view(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let name = format!("{VIEWS}{name}");
    // A set is whole at any moment.
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    match names.get(name.as_str()) {
        Some(known) => known,
        None => {
            let kept: &'static str = name.leak();
            names.insert(kept);
            kept
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_are_the_fixed_columns() {
        // The list equals what the tables without job columns hold, in ascending order.
        let fixed: BTreeSet<String> = [TableSchema::decisions(Vec::new()), TableSchema::profiles(Vec::new())]
            .into_iter()
            .flat_map(|table| table.columns)
            .map(|column| column.name)
            .collect();
        assert_eq!(TableSchema::reserved_names(), fixed.iter().map(String::as_str).collect::<Vec<_>>());
    }

    #[test]
    fn tables_are_partitioned_by_a_required_time() {
        // A row without its partition's date could not be placed.
        for table in [TableSchema::decisions(Vec::new()), TableSchema::profiles(Vec::new())] {
            let column = &table.columns[table.partition_by.unwrap()];
            assert_eq!((&column.kind, column.nullable), (&ColumnType::Time, false), "{}", column.name);
        }
    }
}
