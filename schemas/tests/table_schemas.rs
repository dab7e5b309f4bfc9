//! The Arrow schema of every table equals the committed one of its version: names, types and units.
//!
//! A change that old readers would notice needs a new version of the table and a new folder of fixtures; a new nullable column
//! does not, and is added to the fixture.

use arrow::datatypes::{DataType, Field, Fields, Schema};
use whisperer_schemas::{
    Column, ColumnType, TableSchema,
    arrow::{TABLE_KEY, TABLE_VERSION_KEY, UNIT_KEY},
};

/// One column of each form that a job can add.
fn job_columns() -> Vec<Column> {
    let contributions = ColumnType::List(vec![("feature", ColumnType::Text), ("contribution", ColumnType::Number)]);
    vec![
        Column::optional("churn_risk", ColumnType::Number, "1", "A score"),
        Column::optional("churn_risk_level", ColumnType::Text, "", "Its level"),
        Column::optional("churn_risk_contributions", contributions, "", "What made it"),
        Column::optional("days_since_last_activity", ColumnType::Number, "days", "A number feature"),
        Column::optional("last_plan", ColumnType::Text, "", "A text feature"),
        Column::optional("last_plan_capped", ColumnType::Bool, "", "A flag"),
    ]
}

fn shown(schema: &Schema) -> String {
    let metadata = schema.metadata();
    let head = format!("{} version {}\n", metadata[TABLE_KEY], metadata[TABLE_VERSION_KEY]);
    head + &schema.fields().iter().map(|field| line(field)).collect::<String>()
}

fn line(field: &Field) -> String {
    let presence = if field.is_nullable() { "nullable" } else { "required" };
    let unit = field.metadata().get(UNIT_KEY).map(|unit| format!(" [{unit}]")).unwrap_or_default();
    format!("{}: {} {presence}{unit}\n", field.name(), type_of(field.data_type()))
}

fn type_of(kind: &DataType) -> String {
    match kind {
        DataType::List(item) => format!("List<{}>", type_of(item.data_type())),
        DataType::Struct(fields) => format!("Struct<{}>", struct_of(fields)),
        DataType::Timestamp(unit, zone) => format!("Timestamp({unit:?}, {})", zone.as_deref().unwrap_or("none")),
        plain => format!("{plain:?}"),
    }
}

fn struct_of(fields: &Fields) -> String {
    let fields: Vec<String> =
        fields.iter().map(|field| format!("{}: {}", field.name(), type_of(field.data_type()))).collect();
    fields.join(", ")
}

#[test]
fn tables_are_as_committed() {
    // Each table's schema, written as text, is the fixture of version 1.
    let tables = [
        (TableSchema::decisions(job_columns()), include_str!("fixtures/v1/decisions.schema.txt")),
        (TableSchema::profiles(job_columns()), include_str!("fixtures/v1/profiles.schema.txt")),
        (TableSchema::dead_letters(), include_str!("fixtures/v1/dead_letters.schema.txt")),
    ];
    for (table, expected) in tables {
        let actual = shown(&table.to_arrow());
        assert_eq!(actual, expected, "table {} is now:\n{actual}", table.name);
    }
}

#[test]
fn every_column_says_what_it_is() {
    // A doc on every fixed column, and a unit on every time and count of bytes.
    for table in [TableSchema::decisions(Vec::new()), TableSchema::profiles(Vec::new()), TableSchema::dead_letters()] {
        for column in &table.columns {
            assert!(!column.doc.is_empty(), "{}", column.name);
            let is_measured = column.kind == ColumnType::Time || column.name.ends_with("_bytes");
            assert!(!is_measured || !column.unit.is_empty(), "{}", column.name);
        }
    }
}
