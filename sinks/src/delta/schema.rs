//! Columns as Delta has them. All may be null, since a file from before a column came has none.

use std::path::Path;

use deltalake_core::kernel::{ArrayType, DataType, StructField, StructType};
use whisperer_schemas::{Column, ColumnType, TableSchema};

use super::state::TableState;
use crate::{error::SinkError, parquet};

/// The columns of a table with the one that its folders stand for, last.
pub(super) fn columns_of(schema: &TableSchema) -> Vec<StructField> {
    let mut columns: Vec<StructField> = schema.columns.iter().map(column).collect();
    if schema.partition_by.is_some() {
        let comment = "Date of the row, in UTC; the folder of its file";
        let partition = StructField::nullable(partition_name(schema), DataType::DATE);
        columns.push(partition.with_metadata([("comment", comment)]));
    }
    columns
}

/// The name of the column that a table's folders stand for.
pub(super) fn partition_name(schema: &TableSchema) -> String {
    let folder = parquet::partition_folder(schema, Some(""));
    folder.to_string_lossy().trim_end_matches('=').to_owned()
}

fn column(column: &Column) -> StructField {
    let facts = [("comment", column.doc.as_str()), ("unit", column.unit.as_str())];
    let stated = facts.into_iter().filter(|(_, text)| !text.is_empty());
    StructField::nullable(column.name.as_str(), kind(&column.kind)).with_metadata(stated)
}

fn kind(kind_of: &ColumnType) -> DataType {
    match kind_of {
        ColumnType::Bool => DataType::BOOLEAN,
        ColumnType::Int => DataType::LONG,
        ColumnType::Number => DataType::DOUBLE,
        ColumnType::Text => DataType::STRING,
        ColumnType::Bytes => DataType::BINARY,
        ColumnType::Time => DataType::TIMESTAMP,
        ColumnType::List(fields) => {
            let fields = fields.iter().map(|(name, field)| StructField::nullable(*name, kind(field)));
            let structs = StructType::try_new(fields).expect("the fields of a list have different names");
            ArrayType::new(DataType::from(structs), true).into()
        }
    }
}

/// The table's columns with those that come to it; none if it has them all.
///
/// # Errors
/// A column that has another type already.
pub(super) fn merged(
    folder: &Path,
    known: &StructType,
    columns: Vec<StructField>,
) -> Result<Option<StructType>, SinkError> {
    let mut new = Vec::new();
    for column in columns {
        match known.field(column.name()) {
            None => new.push(column),
            Some(field) if same_type(field.data_type(), column.data_type()) => {}
            Some(field) => {
                let (name, was, is) = (column.name(), field.data_type(), column.data_type());
                let detail = format!(
                    "column \"{name}\" is {was} in the table's log and {is} in the job. Give the column another name, or the job another folder"
                );
                return Err(SinkError::Schema { path: folder.into(), detail });
            }
        }
    }
    if new.is_empty() {
        return Ok(None);
    }
    let all = StructType::try_new(known.fields().cloned().chain(new));
    let bad = |error: String| SinkError::Log { doing: "write", path: folder.into(), detail: error };
    all.map(Some).map_err(|error| bad(error.to_string()))
}

/// Whether values of both are laid out alike, whatever may be null in them.
fn same_type(one: &DataType, other: &DataType) -> bool {
    match (one, other) {
        (DataType::Array(one), DataType::Array(other)) => same_type(one.element_type(), other.element_type()),
        (DataType::Struct(one), DataType::Struct(other)) => {
            let alike = |(one, other): (&StructField, &StructField)| {
                one.name() == other.name() && same_type(one.data_type(), other.data_type())
            };
            one.fields().len() == other.fields().len() && one.fields().zip(other.fields()).all(alike)
        }
        _ => one == other,
    }
}

/// # Errors
/// Folders of the table that stand for another column than those of the job.
pub(super) fn check_partition(folder: &Path, state: &TableState, partition: Option<&str>) -> Result<(), SinkError> {
    let known = state.metadata.partition_columns();
    if known.iter().map(String::as_str).eq(partition) {
        return Ok(());
    }
    let detail = format!("its log names the partitions {known:?}, the job {partition:?}");
    Err(SinkError::Schema { path: folder.into(), detail })
}
