//! Tables as Arrow: the schema of a table, its rows as record batches, and back.
//!
//! ```text
//! TableSchema ──to_arrow──▶ Schema       metadata whisperer.table, whisperer.table_version
//!                             └ Field    metadata unit, doc
//! [Row]  ──rows_to_batch──▶ RecordBatch ──batch_to_rows──▶ [Row]
//! ```
//! Reading goes by column name, so that a table may gain nullable columns from one version to the next.

mod read;
mod write;

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

pub use read::batch_to_rows;
pub use write::rows_to_batch;

use crate::table::{Column, ColumnType, TableSchema};

/// Metadata key of a field: the unit of its numbers.
pub const UNIT_KEY: &str = "unit";
/// Metadata key of a field: one sentence of what it is.
pub const DOC_KEY: &str = "doc";
/// Metadata key of a schema: the table's name.
pub const TABLE_KEY: &str = "whisperer.table";
/// Metadata key of a schema: the version of the table's layout.
pub const TABLE_VERSION_KEY: &str = "whisperer.table_version";

/// The time zone of all times.
const UTC: &str = "UTC";

impl TableSchema {
    /// The table's Arrow schema.
    #[must_use]
    pub fn to_arrow(&self) -> SchemaRef {
        let fields: Fields = self.columns.iter().map(Column::to_arrow).collect();
        let metadata = [(TABLE_KEY, self.name.to_owned()), (TABLE_VERSION_KEY, self.version.to_string())];
        Arc::new(Schema::new_with_metadata(fields, owned(metadata)))
    }
}

impl Column {
    fn to_arrow(&self) -> Field {
        let metadata = [(UNIT_KEY, self.unit.clone()), (DOC_KEY, self.doc.clone())];
        let stated = metadata.into_iter().filter(|(_, text)| !text.is_empty());
        Field::new(&self.name, self.kind.to_arrow(), self.nullable).with_metadata(owned(stated))
    }
}

impl ColumnType {
    /// The Arrow type of a column. The fields of a list's structs may be null, the structs may not.
    #[must_use]
    pub fn to_arrow(&self) -> DataType {
        match self {
            ColumnType::Bool => DataType::Boolean,
            ColumnType::Int => DataType::Int64,
            ColumnType::Number => DataType::Float64,
            ColumnType::Text => DataType::Utf8,
            ColumnType::Bytes => DataType::Binary,
            ColumnType::Time => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
            ColumnType::List(fields) => DataType::List(Arc::new(list_item(fields))),
        }
    }
}

/// The field of a list's elements: structs.
fn list_item(fields: &[(&'static str, ColumnType)]) -> Field {
    Field::new(Field::LIST_FIELD_DEFAULT_NAME, DataType::Struct(struct_fields(fields)), false)
}

fn struct_fields(fields: &[(&'static str, ColumnType)]) -> Fields {
    fields.iter().map(|(name, kind)| Field::new(*name, kind.to_arrow(), true)).collect()
}

fn owned<'a>(metadata: impl IntoIterator<Item = (&'a str, String)>) -> HashMap<String, String> {
    metadata.into_iter().map(|(key, text)| (key.to_owned(), text)).collect()
}

#[cfg(test)]
mod tests;
