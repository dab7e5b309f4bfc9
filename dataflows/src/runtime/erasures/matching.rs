//! Which rows are of a person who was erased.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use whisperer_schemas::{
    PartitionId, Position, Row, TableSchema,
    erasure::{Entry, Erasures},
};

/// Tells whose rows go, by keyed hashes of the ids that stand in them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matching {
    erasures: Erasures,
}

impl Matching {
    pub(crate) fn new(erasures: Erasures) -> Matching {
        Matching { erasures }
    }

    /// Whether no row goes.
    pub(crate) fn is_empty(&self) -> bool {
        self.erasures.is_empty()
    }

    /// Whether a row goes.
    pub(crate) fn goes(&self, schema: &TableSchema, row: &Row) -> bool {
        let mut any = false;
        self.each(schema, row, &mut |_| any = true);
        any
    }

    /// Gives the erasures for which a row goes.
    pub(crate) fn each<'a>(&'a self, schema: &TableSchema, row: &Row, each: &mut dyn FnMut(&'a Entry)) {
        let value = |name: &str| schema.column_index(name).and_then(|at| row.values.get(at));
        let text = |name: &str| value(name).and_then(|value| value.as_text());
        if let Some(raw) = value("raw").and_then(|raw| raw.as_bytes()) {
            let number = |name: &str| value(name).and_then(|value| value.as_int()).unwrap_or_default();
            let partition = PartitionId(number("partition") as u32);
            self.in_record(raw, Position { partition, offset: number("offset") as u64 }, each);
            return;
        }
        // What a view has shown until now is obsolete: it begins anew.
        let is_view = schema.diff_index().is_some();
        let app = text("user_app_id").or_else(|| text("app_id")).unwrap_or_default();
        // One who stands in two columns is one all the same.
        let users: BTreeSet<&str> = schema.user_columns().filter_map(|at| row.values.get(at)?.as_text()).collect();
        for user in users {
            self.erasures.of(app, user).filter(|entry| is_view || row.epoch < entry.before).for_each(&mut *each);
        }
    }

    /// Whether a record that is no event names somebody who was erased at its place or later.
    pub(crate) fn names(&self, raw: &[u8], at: Position) -> bool {
        let mut any = false;
        self.in_record(raw, at, &mut |_| any = true);
        any
    }

    /// Gives the erasures of persons who are named in a record that is no event.
    pub(crate) fn in_record<'a>(&'a self, raw: &[u8], at: Position, each: &mut dyn FnMut(&'a Entry)) {
        if self.erasures.is_empty() {
            return;
        }
        let words = words(raw);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.erasures.of_words(&words).filter(|entry| entry.covers_position(at)).for_each(each);
    }

    /// Whether a line of NDJSON is a row that goes.
    pub(crate) fn goes_line(&self, line: &[u8]) -> bool {
        let Ok(row) = serde_json::from_slice::<Json>(line) else { return false };
        let text = |name: &str| row.get(name).and_then(Json::as_str);
        let Some(user) = text("user_id") else { return false };
        let epoch = row.get("_epoch").and_then(Json::as_u64).unwrap_or_default();
        self.erasures.of(text("app_id").unwrap_or_default(), user).any(|entry| epoch < entry.before.0)
    }
}

/// The texts that an id can be among: all strings of a JSON document, the words of anything else. Numbers count as their digits.
fn words(raw: &[u8]) -> Vec<String> {
    let mut words = Vec::new();
    match serde_json::from_slice::<Json>(raw) {
        Ok(json) => strings(&json, &mut words),
        Err(_) => {
            let text = String::from_utf8_lossy(raw);
            let part = |c: char| c.is_alphanumeric() || "_-.@+:".contains(c);
            let found = text.split(|c: char| !part(c)).filter(|word| !word.is_empty());
            words.extend(found.map(str::to_owned));
        }
    }
    words.sort_unstable();
    words.dedup();
    words
}

fn strings(json: &Json, words: &mut Vec<String>) {
    match json {
        Json::String(text) => words.push(text.clone()),
        Json::Number(number) => words.push(number.to_string()),
        Json::Array(items) => items.iter().for_each(|item| strings(item, words)),
        Json::Object(members) => members.values().for_each(|value| strings(value, words)),
        Json::Null | Json::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use whisperer_schemas::{Column, ColumnType, Epoch, Value, erasure::Secret};

    use super::*;

    fn matching(ids: &[&str]) -> Matching {
        let secret = Secret([7; 16]);
        let mut erasures = Erasures::new(secret);
        erasures.insert(Entry {
            version: 1,
            id: "e".into(),
            subject: secret.subject(ids),
            everywhere: ids.len() == 1,
            up_to: 0,
            positions: BTreeMap::from([(0, 100)]),
            before: Epoch(5),
        });
        Matching::new(erasures)
    }

    fn names(matching: &Matching, raw: &str, offset: u64) -> bool {
        matching.names(raw.as_bytes(), Position { partition: PartitionId(0), offset })
    }

    #[test]
    fn broken_records_are_told_by_the_ids_in_them() {
        // Goal: an id counts as a whole, as a value of JSON, a number or a word of anything else, with the application where it was asked for so,
        // and only below the erasure's position.
        let one = matching(&["shop", "ann"]);
        assert!(names(&one, r#"{"app_id":"shop","user":{"id":"ann"}}"#, 99));
        assert!(!names(&one, r#"{"app_id":"shop","user":{"id":"ann"}}"#, 100), "it stands after the erasure");
        assert!(names(&one, r#"{"app_id":"shop","user_id":"ann","#, 1), "cut off");
        assert!(!names(&one, r#"{"app_id":"web","user_id":"ann"}"#, 1));
        assert!(!names(&one, r#"{"app_id":"shop","user_id":"joann"}"#, 1));
        assert!(names(&matching(&["17"]), "a;17;b", 1) && names(&matching(&["17"]), "[17]", 1));
    }

    #[test]
    fn rows_of_earlier_epochs_go() {
        // Goal: a decision that was made of events after the erasure stays.
        let schema = TableSchema::decisions(Vec::new());
        let mut values = vec![Value::Null; schema.columns.len()];
        (values[3], values[4]) = (Value::text("shop"), Value::text("ann"));
        let row = |epoch| Row { values: values.clone(), epoch: Epoch(epoch), position: None };
        let goes = |epoch| matching(&["shop", "ann"]).goes(&schema, &row(epoch));
        assert!(goes(4) && !goes(5));
        assert!(matching(&["ann"]).goes(&schema, &row(4)) && !matching(&["web", "ann"]).goes(&schema, &row(4)));
        let line = |epoch| format!(r#"{{"app_id":"shop","user_id":"ann","_epoch":{epoch}}}"#);
        assert!(matching(&["ann"]).goes_line(line(4).as_bytes()) && !matching(&["ann"]).goes_line(line(5).as_bytes()));
    }

    #[test]
    fn a_view_s_row_goes_by_any_id_that_it_shows() {
        // Goal: who stands for a person, or is in a list, is found there, once, whenever the row was made; counts by group stay.
        let text = |name: &str| Column::optional(name, ColumnType::Text, "", "");
        let columns = ["app_id", "user_id", "canonical_id"].map(text);
        let schema = TableSchema::view("identities", columns.into(), 2);
        let row = |user: &str, canonical: &str| Row {
            values: ["shop", user, canonical].map(Value::text).into(),
            epoch: Epoch(9),
            position: None,
        };
        let found = |row: &Row| {
            let mut found = 0;
            matching(&["shop", "ann"]).each(&schema, row, &mut |_| found += 1);
            found
        };
        let rows = [row("ann", "phone"), row("phone", "ann"), row("ann", "ann"), row("bob", "phone")];
        assert_eq!(rows.map(|row| found(&row)), [1, 1, 1, 0]);
        let counts = TableSchema::view("by_app", vec![text("app_id")], 1);
        let ann = Row { values: vec![Value::text("ann")], epoch: Epoch(1), position: None };
        assert!(!matching(&["ann"]).goes(&counts, &ann));
    }
}
