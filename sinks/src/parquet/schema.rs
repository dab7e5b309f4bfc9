//! A table's schema, read back from one of its files.

use std::{fs::File, path::Path};

use ::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use whisperer_schemas::{
    Column, ColumnType, TableSchema, VIEWS,
    arrow::{DOC_KEY, TABLE_KEY, TABLE_VERSION_KEY, UNIT_KEY},
};

use crate::error::{SinkError, io, parquet};

/// The schema of the table that a Parquet file belongs to: names, types, units and sentences of its columns.
///
/// # Errors
/// No such file, no Parquet, or no table of Whisperer's.
pub fn read_schema(path: &Path) -> Result<TableSchema, SinkError> {
    let file = File::open(path).map_err(io("open", path))?;
    let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(parquet("read", path, ""))?;
    table_of(metadata.schema()).map_err(|detail| SinkError::Schema { path: path.into(), detail })
}

fn table_of(schema: &Schema) -> Result<TableSchema, String> {
    let table = schema.metadata().get(TABLE_KEY).ok_or("its metadata names no table")?;
    // The fixed columns and the partition are what the table's name stands for.
    let view = table.strip_prefix(VIEWS).map(|view| TableSchema::view(view, Vec::new(), 0));
    let fixed = fixed_tables().into_iter().chain(view).find(|fixed| fixed.name == table);
    let fixed = fixed.ok_or_else(|| format!("it belongs to a table \"{table}\" that is not known"))?;
    let version = schema.metadata().get(TABLE_VERSION_KEY).and_then(|version| version.parse().ok());
    let version = version.ok_or("its metadata names no version of the table")?;
    if version > fixed.version {
        let known = fixed.version;
        return Err(format!("version {version} of table \"{table}\" is newer than the {known} of this release"));
    }
    let columns = schema.fields().iter().map(|field| column_of(field)).collect::<Result<Vec<Column>, String>>()?;
    let partition = fixed.partition_by.map(|index| fixed.columns[index].name.as_str());
    let partition_by = partition.and_then(|name| columns.iter().position(|column| column.name == name));
    Ok(TableSchema { name: fixed.name, version, columns, partition_by, key: 0 })
}

fn fixed_tables() -> [TableSchema; 3] {
    [TableSchema::decisions(Vec::new()), TableSchema::profiles(Vec::new()), TableSchema::dead_letters()]
}

fn column_of(field: &Field) -> Result<Column, String> {
    let text = |key: &str| field.metadata().get(key).cloned().unwrap_or_default();
    Ok(Column {
        name: field.name().clone(),
        kind: kind_of(field.name(), field.data_type())?,
        nullable: field.is_nullable(),
        unit: text(UNIT_KEY),
        doc: text(DOC_KEY),
    })
}

fn kind_of(column: &str, kind: &DataType) -> Result<ColumnType, String> {
    Ok(match kind {
        DataType::Boolean => ColumnType::Bool,
        DataType::Int64 => ColumnType::Int,
        DataType::Float64 => ColumnType::Number,
        DataType::Utf8 => ColumnType::Text,
        DataType::Binary => ColumnType::Bytes,
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => ColumnType::Time,
        DataType::List(item) => match item.data_type() {
            DataType::Struct(fields) => {
                ColumnType::List(fields.iter().map(|field| struct_field(field)).collect::<Result<_, _>>()?)
            }
            _ => return Err(format!("column \"{column}\" is a list of {}", item.data_type())),
        },
        _ => return Err(format!("column \"{column}\" is of type {kind}")),
    })
}

/// Names of the fields in lists of structs, of all tables: a [`ColumnType`] holds them as constants.
const STRUCT_FIELDS: [&str; 9] =
    ["feature", "contribution", "trigger", "holds", "armed", "last_fired", "suppressed", "due", "reason"];

fn struct_field(field: &Field) -> Result<(&'static str, ColumnType), String> {
    let name = STRUCT_FIELDS.into_iter().find(|name| name == field.name());
    let name = name.ok_or_else(|| format!("a list has a field \"{}\" that is not known", field.name()))?;
    Ok((name, kind_of(name, field.data_type())?))
}
