//! A record batch back to rows, for `explain` and for tests.

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Float64Type, Int64Type, TimestampMicrosecondType},
};

use crate::{
    error::SchemaError,
    ids::{Epoch, PartitionId, Position},
    table::{Column, ColumnType, Row, TableSchema},
    value::Value,
};

/// Reads the rows of a batch: the inverse of [`super::rows_to_batch`].
///
/// Columns are found by name, so their order is free; a nullable column may be missing, as in a file of an older
/// version, and others that the table does not know are left out.
///
/// # Errors
/// [`SchemaError::ColumnMissing`], [`SchemaError::ColumnType`], [`SchemaError::ValueMisfit`] or [`SchemaError::Position`] where the
/// batch is not of the table.
pub fn batch_to_rows(batch: &RecordBatch, table: &TableSchema) -> Result<Vec<Row>, SchemaError> {
    let mut rows: Vec<Vec<Value>> = Vec::new();
    rows.resize_with(batch.num_rows(), || Vec::with_capacity(table.columns.len()));
    for column in &table.columns {
        let values = column_values(batch, table.name, column)?;
        rows.iter_mut().zip(values).for_each(|(row, value)| row.push(value));
    }
    let origins = Origins::of(table);
    rows.into_iter().map(|values| origins.row(values)).collect()
}

fn column_values(batch: &RecordBatch, table: &'static str, column: &Column) -> Result<Vec<Value>, SchemaError> {
    let Some(array) = batch.column_by_name(&column.name) else {
        if column.nullable {
            return Ok(vec![Value::Null; batch.num_rows()]);
        }
        return Err(SchemaError::ColumnMissing { table, column: column.name.clone() });
    };
    let expected = column.kind.to_arrow();
    if !array.data_type().equals_datatype(&expected) {
        let (expected, found) = (expected.to_string().into(), array.data_type().to_string().into());
        return Err(SchemaError::ColumnType { table, column: column.name.clone(), expected, found });
    }
    if !column.nullable
        && let Some(row) = (0..array.len()).find(|row| array.is_null(*row))
    {
        let (expected, found) = (column.kind.word(), Value::Null.word());
        return Err(SchemaError::ValueMisfit { table, column: column.name.clone(), row, expected, found });
    }
    Ok(array_values(array, &column.kind))
}

/// The values of an array that is of the column's Arrow type.
fn array_values(array: &dyn Array, kind: &ColumnType) -> Vec<Value> {
    match kind {
        ColumnType::Bool => values(array.as_boolean(), Value::Bool),
        ColumnType::Int => values(array.as_primitive::<Int64Type>(), Value::Int),
        ColumnType::Number => values(array.as_primitive::<Float64Type>(), Value::number),
        ColumnType::Time => values(array.as_primitive::<TimestampMicrosecondType>(), Value::Time),
        ColumnType::Text => values(array.as_string::<i32>(), Value::text),
        ColumnType::Bytes => values(array.as_binary::<i32>(), |bytes| Value::Bytes(bytes.into())),
        ColumnType::List(fields) => list_values(array, fields),
    }
}

fn values<T>(array: impl IntoIterator<Item = Option<T>>, present: impl Fn(T) -> Value) -> Vec<Value> {
    array.into_iter().map(|value| value.map_or(Value::Null, &present)).collect()
}

fn list_values(array: &dyn Array, fields: &[(&'static str, ColumnType)]) -> Vec<Value> {
    let lists = array.as_list::<i32>();
    let structs = lists.values().as_struct();
    let mut children: Vec<Vec<Value>> =
        structs.columns().iter().zip(fields).map(|(array, (_, kind))| array_values(array, kind)).collect();
    let mut structure = |at: usize| children.iter_mut().map(|values| std::mem::take(&mut values[at])).collect();
    let list = |row: usize| {
        let range = lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize;
        if lists.is_null(row) { Value::Null } else { Value::List(range.map(&mut structure).collect()) }
    };
    (0..lists.len()).map(list).collect()
}

/// The columns that say where a row came from.
struct Origins {
    epoch: Option<usize>,
    position: Option<usize>,
    partition: Option<usize>,
    offset: Option<usize>,
}

impl Origins {
    fn of(table: &TableSchema) -> Origins {
        Origins {
            epoch: table.column_index("_epoch"),
            position: table.column_index("_position"),
            partition: table.column_index("partition"),
            offset: table.column_index("offset"),
        }
    }

    fn row(&self, values: Vec<Value>) -> Result<Row, SchemaError> {
        let int = |column: Option<usize>| match values.get(column?) {
            Some(Value::Int(number)) => u64::try_from(*number).ok(),
            _ => None,
        };
        let position = match self.position.map(|column| &values[column]) {
            Some(Value::Text(text)) => Some(text.parse()?),
            Some(_) => None,
            // Dead letters have their position in columns of their own.
            None => int(self.partition).zip(int(self.offset)).and_then(|(partition, offset)| {
                Some(Position { partition: PartitionId(u32::try_from(partition).ok()?), offset })
            }),
        };
        let epoch = Epoch(int(self.epoch).unwrap_or_default());
        Ok(Row { values, epoch, position })
    }
}
