//! Rows to a record batch: one pass over the rows per column, into an array of exactly their number.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BinaryBuilder, BooleanBuilder, ListArray, PrimitiveBuilder, RecordBatch, StringBuilder, StructArray,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{ArrowPrimitiveType, Float64Type, Int64Type, TimestampMicrosecondType},
    error::ArrowError,
};

use super::{list_item, struct_fields};
use crate::{
    error::SchemaError,
    table::{ColumnType, Row, TableSchema},
    value::Value,
};

/// Bytes of text, or structs of lists, that one column of a batch can hold: Arrow's offsets are `i32`.
const OFFSET_MAX: usize = i32::MAX as usize;

/// Lays rows out as a record batch of [`TableSchema::to_arrow`]'s schema.
///
/// # Errors
/// [`SchemaError::RowLength`] and [`SchemaError::ValueMisfit`] where a row is not of the table,
/// [`SchemaError::BatchTooLarge`] where a column's texts, bytes or lists exceed Arrow's offsets.
pub fn rows_to_batch(table: &TableSchema, rows: &[Row]) -> Result<RecordBatch, SchemaError> {
    if let Some(row) = rows.iter().position(|row| row.values.len() != table.columns.len()) {
        let (values, columns) = (rows[row].values.len(), table.columns.len());
        return Err(SchemaError::RowLength { table: table.name, row, values, columns });
    }
    let columns = table.columns.iter().enumerate().map(|(index, column)| {
        let values: Vec<&Value> = rows.iter().map(|row| &row.values[index]).collect();
        let place = Place { table: table.name, column: column.name.clone(), nullable: column.nullable };
        place.array(&column.kind, &values)
    });
    let columns = columns.collect::<Result<_, _>>()?;
    RecordBatch::try_new(table.to_arrow(), columns).map_err(|source| SchemaError::Arrow { table: table.name, source })
}

/// Where values go, for errors, and whether they may be null.
struct Place {
    table: &'static str,
    column: String,
    nullable: bool,
}

impl Place {
    fn array(&self, kind: &ColumnType, values: &[&Value]) -> Result<ArrayRef, SchemaError> {
        match kind {
            ColumnType::Bool => self.bools(values),
            ColumnType::Int => self.primitives::<Int64Type>(kind, values, Value::as_int),
            ColumnType::Number => self.primitives::<Float64Type>(kind, values, Value::as_number),
            ColumnType::Time => self.primitives::<TimestampMicrosecondType>(kind, values, Value::as_time),
            ColumnType::Text => self.texts(values),
            ColumnType::Bytes => self.bytes(values),
            ColumnType::List(fields) => self.lists(kind, fields, values),
        }
    }

    fn bools(&self, values: &[&Value]) -> Result<ArrayRef, SchemaError> {
        let mut builder = BooleanBuilder::with_capacity(values.len());
        self.each(&ColumnType::Bool, values, Value::as_bool, |truth| builder.append_option(truth))?;
        Ok(Arc::new(builder.finish()))
    }

    fn primitives<T: ArrowPrimitiveType>(
        &self,
        kind: &ColumnType,
        values: &[&Value],
        take: fn(&Value) -> Option<T::Native>,
    ) -> Result<ArrayRef, SchemaError> {
        // The type is given for the time zone of times; for the others it is what the builder has anyway.
        let mut builder = PrimitiveBuilder::<T>::with_capacity(values.len()).with_data_type(kind.to_arrow());
        self.each(kind, values, take, |number| builder.append_option(number))?;
        Ok(Arc::new(builder.finish()))
    }

    fn texts(&self, values: &[&Value]) -> Result<ArrayRef, SchemaError> {
        let bytes = values.iter().filter_map(|value| value.as_text()).map(str::len).sum();
        self.check_offset(bytes)?;
        let mut builder = StringBuilder::with_capacity(values.len(), bytes);
        self.each(&ColumnType::Text, values, Value::as_text, |text| builder.append_option(text))?;
        Ok(Arc::new(builder.finish()))
    }

    fn bytes(&self, values: &[&Value]) -> Result<ArrayRef, SchemaError> {
        let bytes = values.iter().filter_map(|value| value.as_bytes()).map(<[u8]>::len).sum();
        self.check_offset(bytes)?;
        let mut builder = BinaryBuilder::with_capacity(values.len(), bytes);
        self.each(&ColumnType::Bytes, values, Value::as_bytes, |bytes| builder.append_option(bytes))?;
        Ok(Arc::new(builder.finish()))
    }

    fn lists(
        &self,
        kind: &ColumnType,
        fields: &[(&'static str, ColumnType)],
        values: &[&Value],
    ) -> Result<ArrayRef, SchemaError> {
        let (mut lengths, mut valid, mut structs) = (Vec::new(), Vec::new(), Vec::new());
        self.each(kind, values, Value::as_list, |list| {
            lengths.push(list.map_or(0, <[_]>::len));
            valid.push(list.is_some());
            structs.extend(list.into_iter().flatten());
        })?;
        let is_other =
            |value: &Value| value.as_list().is_some_and(|list| list.iter().any(|of| of.len() != fields.len()));
        if let Some(row) = values.iter().position(|value| is_other(value)) {
            return Err(self.misfit(kind, row, values[row]));
        }
        self.check_offset(structs.len())?;
        let children = fields.iter().enumerate().map(|(index, (name, kind))| {
            let values: Vec<&Value> = structs.iter().map(|values| &values[index]).collect();
            let place = Place { table: self.table, column: format!("{}.{name}", self.column), nullable: true };
            place.array(kind, &values)
        });
        let children = children.collect::<Result<_, _>>()?;
        let failed = |source: ArrowError| SchemaError::Arrow { table: self.table, source };
        let structs = StructArray::try_new_with_length(struct_fields(fields), children, None, structs.len());
        let structs = Arc::new(structs.map_err(failed)?);
        let offsets = OffsetBuffer::from_lengths(lengths);
        let lists = ListArray::try_new(Arc::new(list_item(fields)), offsets, structs, Some(NullBuffer::from(valid)));
        Ok(Arc::new(lists.map_err(failed)?))
    }

    /// Hands each value to `put`, or fails at the first that `take` does not know, or that is null where none may be.
    fn each<'v, T>(
        &self,
        kind: &ColumnType,
        values: &[&'v Value],
        take: fn(&'v Value) -> Option<T>,
        mut put: impl FnMut(Option<T>),
    ) -> Result<(), SchemaError> {
        for (row, value) in values.iter().enumerate() {
            match take(value) {
                None if !(self.nullable && **value == Value::Null) => return Err(self.misfit(kind, row, value)),
                taken => put(taken),
            }
        }
        Ok(())
    }

    fn misfit(&self, kind: &ColumnType, row: usize, value: &Value) -> SchemaError {
        let (expected, found) = (kind.word(), value.word());
        SchemaError::ValueMisfit { table: self.table, column: self.column.clone(), row, expected, found }
    }

    fn check_offset(&self, end: usize) -> Result<(), SchemaError> {
        if end > OFFSET_MAX {
            return Err(SchemaError::BatchTooLarge { table: self.table, column: self.column.clone() });
        }
        Ok(())
    }
}
