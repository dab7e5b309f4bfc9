//! Tests of [`super`]: what is written is read back, and what does not fit is refused with its place.

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use compact_str::CompactString;
use proptest::prelude::*;

use super::*;
use crate::{
    error::SchemaError,
    ids::{Epoch, PartitionId, Position},
    table::Row,
    value::Value,
};

fn contributions() -> ColumnType {
    ColumnType::List(vec![("feature", ColumnType::Text), ("contribution", ColumnType::Number)])
}

/// Decisions of a job with a score, its level and contributions, a feature and its flag.
fn decisions() -> TableSchema {
    TableSchema::decisions(vec![
        Column::optional("churn_risk", ColumnType::Number, "1", "A score"),
        Column::optional("churn_risk_level", ColumnType::Text, "", "Its level"),
        Column::optional("churn_risk_contributions", contributions(), "", "What made it"),
        Column::optional("pages_capped", ColumnType::Bool, "", "Whether values were refused"),
    ])
}

fn row(values: Vec<Value>) -> Row {
    Row { values, epoch: Epoch(0), position: None }
}

/// A value that a column of this type can hold.
fn any_value(kind: &ColumnType) -> BoxedStrategy<Value> {
    match kind {
        ColumnType::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        ColumnType::Int => any::<i64>().prop_map(Value::Int).boxed(),
        ColumnType::Number => {
            any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::Number).boxed()
        }
        ColumnType::Text => ".{0,40}".prop_map(Value::text).boxed(),
        ColumnType::Bytes => any::<Vec<u8>>().prop_map(|bytes| Value::Bytes(bytes.into())).boxed(),
        ColumnType::Time => any::<i64>().prop_map(Value::Time).boxed(),
        ColumnType::List(fields) => {
            let structure: Vec<_> = fields.iter().map(|(_, kind)| nullable(kind)).collect();
            prop::collection::vec(structure, 0..4).prop_map(Value::List).boxed()
        }
    }
}

fn nullable(kind: &ColumnType) -> BoxedStrategy<Value> {
    prop_oneof![1 => Just(Value::Null), 3 => any_value(kind)].boxed()
}

/// A row of a table; the columns that say where it came from agree with what it says itself.
fn any_row(table: &TableSchema) -> BoxedStrategy<Row> {
    let values: Vec<_> = table
        .columns
        .iter()
        .map(|column| if column.nullable { nullable(&column.kind) } else { any_value(&column.kind) })
        .collect();
    let place = |name| table.column_index(name);
    let (epoch_at, position_at) = (place("_epoch"), place("_position"));
    let dead_letter_at = place("partition").zip(place("offset"));
    let position = prop::option::of((any::<u32>(), 0..=i64::MAX as u64));
    (values, 0..=i64::MAX as u64, position)
        .prop_map(move |(mut values, epoch, position)| {
            let position = position.map(|(partition, offset)| Position { partition: PartitionId(partition), offset });
            values[epoch_at.expect("every table has it")] = Value::Int(epoch as i64);
            if let Some(at) = position_at {
                values[at] = position.map_or(Value::Null, |position| Value::text(position.to_string()));
            }
            let dead_letter = dead_letter_at.map(|(partition_at, offset_at)| {
                let position = position.unwrap_or_default();
                values[partition_at] = Value::Int(position.partition.0.into());
                values[offset_at] = Value::Int(position.offset as i64);
                position
            });
            let position = if position_at.is_some() { position } else { dead_letter };
            Row { values, epoch: Epoch(epoch), position }
        })
        .boxed()
}

fn rows_of(table: &TableSchema) -> BoxedStrategy<(TableSchema, Vec<Row>)> {
    let table = table.clone();
    prop::collection::vec(any_row(&table), 0..12).prop_map(move |rows| (table.clone(), rows)).boxed()
}

fn any_rows() -> impl Strategy<Value = (TableSchema, Vec<Row>)> {
    let profiles = TableSchema::profiles(vec![Column::optional("errors_24h", ColumnType::Number, "1", "A feature")]);
    prop_oneof![rows_of(&decisions()), rows_of(&profiles), rows_of(&TableSchema::dead_letters())]
}

proptest! {
    #[test]
    fn rows_are_read_back((table, rows) in any_rows(), from in 0..12_usize) {
        // Random rows of every table, nulls and lists among them, survive; so does any slice of their batch.
        let batch = rows_to_batch(&table, &rows).unwrap();
        prop_assert_eq!(batch.schema(), table.to_arrow());
        prop_assert_eq!(&batch_to_rows(&batch, &table).unwrap(), &rows);
        let from = from.min(rows.len());
        let slice = batch.slice(from, rows.len() - from);
        prop_assert_eq!(&batch_to_rows(&slice, &table).unwrap(), &rows[from..]);
    }
}

/// A table with one column `x`.
fn narrow(kind: ColumnType, is_nullable: bool) -> TableSchema {
    let column = if is_nullable { Column::optional } else { Column::required };
    TableSchema { name: "narrow", version: 1, columns: vec![column("x", kind, "", "")], partition_by: None, key: 0 }
}

fn refusal(kind: ColumnType, is_nullable: bool, values: Vec<Value>) -> String {
    let rows: Vec<Row> = values.into_iter().map(|value| row(vec![value])).collect();
    rows_to_batch(&narrow(kind, is_nullable), &rows).unwrap_err().to_string()
}

#[test]
fn misfits_are_refused_with_their_place() {
    // Null where none may be, another type, another struct, another length: each names table, column and row.
    assert_eq!(
        refusal(ColumnType::Text, false, vec![Value::text("a"), Value::Null]),
        r#"column "x" of table "narrow" holds text, but row 1 has no value"#
    );
    assert_eq!(
        refusal(ColumnType::Number, true, vec![Value::Null, Value::Int(1)]),
        r#"column "x" of table "narrow" holds a number, but row 1 has a whole number"#
    );
    assert_eq!(
        refusal(contributions(), true, vec![Value::List(vec![vec![Value::Null]])]),
        r#"column "x" of table "narrow" holds a list of structs of its fields, but row 0 has a list of other structs"#
    );
    assert_eq!(
        refusal(contributions(), true, vec![Value::List(vec![vec![Value::Null, Value::text("a")]])]),
        r#"column "x.contribution" of table "narrow" holds a number, but row 0 has text"#
    );
    let error = rows_to_batch(&narrow(ColumnType::Int, true), &[row(Vec::new())]).unwrap_err();
    assert_eq!(error.to_string(), r#"row 0 of table "narrow" has 0 values for 1 columns"#);
}

#[test]
fn every_type_refuses_every_other() {
    // The whole matrix of column types and values.
    let kinds = [
        (ColumnType::Bool, Value::Bool(true)),
        (ColumnType::Int, Value::Int(1)),
        (ColumnType::Number, Value::Number(1.0)),
        (ColumnType::Text, Value::text("1")),
        (ColumnType::Bytes, Value::Bytes(Box::new([1]))),
        (ColumnType::Time, Value::Time(1)),
        (contributions(), Value::List(Vec::new())),
    ];
    for (column, (kind, _)) in kinds.iter().enumerate() {
        for (other, (_, value)) in kinds.iter().enumerate() {
            let result = rows_to_batch(&narrow(kind.clone(), true), &[row(vec![value.clone()])]);
            assert_eq!(result.is_ok(), column == other, "{kind:?} {value:?}");
        }
    }
}

#[test]
fn older_files_may_lack_nullable_columns() {
    // A batch with other columns gives null where it may, and an error where it may not or the type differs.
    let array: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    let batch = RecordBatch::try_from_iter_with_nullable([("y", array, true)]).unwrap();
    let read = |table: TableSchema| batch_to_rows(&batch, &table);
    assert_eq!(read(narrow(ColumnType::Text, true)).unwrap(), [row(vec![Value::Null]), row(vec![Value::Null])]);
    assert!(matches!(read(narrow(ColumnType::Text, false)), Err(SchemaError::ColumnMissing { .. })));
    let mut table = narrow(ColumnType::Int, true);
    table.columns[0].name = "y".into();
    assert_eq!(read(table.clone()).unwrap(), [row(vec![Value::Int(1)]), row(vec![Value::Null])]);
    table.columns[0].nullable = false;
    assert!(matches!(read(table.clone()), Err(SchemaError::ValueMisfit { row: 1, .. })));
    table.columns[0].kind = ColumnType::Number;
    assert!(matches!(read(table), Err(SchemaError::ColumnType { .. })));
}

#[test]
fn a_wrong_position_is_refused() {
    // `_position` is read back into the row, so it must be one.
    let mut table = narrow(ColumnType::Text, true);
    table.columns[0].name = "_position".into();
    let batch = |text: &str| rows_to_batch(&table, &[row(vec![Value::text(text)])]).unwrap();
    let expected = Position { partition: PartitionId(3), offset: 17 };
    assert_eq!(batch_to_rows(&batch("3:17"), &table).unwrap()[0].position, Some(expected));
    let error = batch_to_rows(&batch("3"), &table).unwrap_err();
    assert!(matches!(error, SchemaError::Position { text } if text == CompactString::new("3")));
}

#[test]
fn the_schema_carries_versions_units_and_docs() {
    // Metadata of the schema and of a field with and without a unit.
    let schema = decisions().to_arrow();
    assert_eq!(schema.metadata()[TABLE_KEY], "decisions");
    assert_eq!(schema.metadata()[TABLE_VERSION_KEY], "1");
    let event_time = schema.field_with_name("event_time").unwrap();
    assert_eq!(event_time.metadata()[UNIT_KEY], "us");
    assert_eq!(event_time.metadata()[DOC_KEY], "Firing time, in event time");
    assert!(!schema.field_with_name("job").unwrap().metadata().contains_key(UNIT_KEY));
}
