//! Avro: a writer's schema, compiled to a flat list of types, and the messages that it describes.
//!
//! The schema's text is parsed by the crate of the Avro project. Messages are read here, into the slots and nowhere else: that crate
//! builds a tree of each message, without a bound on its depth, so that a message of a recursive schema could end the process.
//!
//! There is no reader's schema: a field that the writer's schema lacks is missing, one that it has more is there by its name.

mod datum;

use std::collections::HashMap;

use apache_avro::schema::{InnerDecimalSchema, Schema, UuidSchema};

use super::filling::Filling;
use datum::Datum;

/// A compiled schema.
#[derive(Debug)]
pub(super) struct AvroSchema {
    types: Vec<Type>,
    root: usize,
}

/// A type; others in it are places in the list.
#[derive(Debug)]
enum Type {
    Null,
    Boolean,
    Integer(Integer),
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    /// The scale, and the size where it is fixed.
    Decimal(usize, Option<usize>),
    /// 16 bytes, with their length before them or without.
    Uuid {
        sized: bool,
    },
    Enum(Vec<String>),
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    Record(Vec<(String, usize)>),
}

/// What an integer is.
#[derive(Clone, Copy, Debug)]
enum Integer {
    Number,
    Date,
    /// An instant, and how many of its units a microsecond has, or nanoseconds are in one.
    Instant(Unit),
    /// A time without an offset.
    Local(Unit),
}

#[derive(Clone, Copy, Debug)]
enum Unit {
    Millis,
    Micros,
    Nanos,
}

impl AvroSchema {
    /// Compiles a schema. `references` are texts of the schemas that it names.
    pub(super) fn new(text: &str, references: &[(String, String)]) -> Result<AvroSchema, String> {
        let others = references.iter().map(|(_, text)| text);
        let (schema, others) = Schema::parse_str_with_list(text, others).map_err(|error| error.to_string())?;
        let mut compiler = Compiler { others: &others, names: HashMap::new(), types: Vec::new() };
        let root = compiler.add(&schema)?;
        match &compiler.types[root] {
            Type::Record(_) | Type::Map(_) => Ok(AvroSchema { types: compiler.types, root }),
            _ => Err("it is neither a record nor a map".to_owned()),
        }
    }

    /// Fills the slots from a message.
    ///
    /// # Errors
    /// Where it is no message of this schema: what is wrong.
    pub(super) fn read<'a>(&self, message: &'a [u8], filling: &mut Filling<'_, 'a>) -> Result<(), String> {
        Datum::new(&self.types, message).read(self.root, filling)
    }
}

struct Compiler<'s> {
    others: &'s [Schema],
    /// Places of named types.
    names: HashMap<String, usize>,
    types: Vec<Type>,
}

impl<'s> Compiler<'s> {
    fn add(&mut self, schema: &'s Schema) -> Result<usize, String> {
        if let Schema::Ref { name } = schema {
            return self.find(&name.fullname(None));
        }
        // A type's place is known before what it holds, which may be the type itself.
        let place = self.types.len();
        self.types.push(Type::Null);
        if let Some(name) = schema.name() {
            self.names.insert(name.fullname(None), place);
        }
        let compiled = match schema {
            Schema::Array(array) => Type::Array(self.add(&array.items)?),
            Schema::Map(map) => Type::Map(self.add(&map.types)?),
            Schema::Union(union) => {
                Type::Union(union.variants().iter().map(|variant| self.add(variant)).collect::<Result<_, _>>()?)
            }
            Schema::Record(record) => {
                let fields = record.fields.iter().map(|field| Ok((field.name.clone(), self.add(&field.schema)?)));
                Type::Record(fields.collect::<Result<_, String>>()?)
            }
            leaf => simple(leaf),
        };
        self.types[place] = compiled;
        Ok(place)
    }

    fn find(&mut self, name: &str) -> Result<usize, String> {
        if let Some(place) = self.names.get(name) {
            return Ok(*place);
        }
        let others = self.others;
        let other = others.iter().find(|other| other.name().is_some_and(|other| other.fullname(None) == name));
        self.add(other.ok_or_else(|| format!("it names \"{name}\", which is not defined"))?)
    }
}

/// A type that holds no others. Logical types that events have no use for are what they are written as.
fn simple(schema: &Schema) -> Type {
    match schema {
        Schema::Boolean => Type::Boolean,
        Schema::Int | Schema::Long | Schema::TimeMillis | Schema::TimeMicros => Type::Integer(Integer::Number),
        Schema::Float => Type::Float,
        Schema::Double => Type::Double,
        Schema::Bytes | Schema::BigDecimal => Type::Bytes,
        Schema::String | Schema::Uuid(UuidSchema::String) => Type::Text,
        Schema::Uuid(UuidSchema::Bytes) => Type::Uuid { sized: true },
        Schema::Uuid(UuidSchema::Fixed(_)) => Type::Uuid { sized: false },
        Schema::Fixed(fixed) | Schema::Duration(fixed) => Type::Fixed(fixed.size),
        Schema::Decimal(decimal) => Type::Decimal(
            decimal.scale,
            match &decimal.inner {
                InnerDecimalSchema::Bytes => None,
                InnerDecimalSchema::Fixed(fixed) => Some(fixed.size),
            },
        ),
        Schema::Enum(symbols) => Type::Enum(symbols.symbols.clone()),
        Schema::Date => Type::Integer(Integer::Date),
        Schema::TimestampMillis => Type::Integer(Integer::Instant(Unit::Millis)),
        Schema::TimestampMicros => Type::Integer(Integer::Instant(Unit::Micros)),
        Schema::TimestampNanos => Type::Integer(Integer::Instant(Unit::Nanos)),
        Schema::LocalTimestampMillis => Type::Integer(Integer::Local(Unit::Millis)),
        Schema::LocalTimestampMicros => Type::Integer(Integer::Local(Unit::Micros)),
        Schema::LocalTimestampNanos => Type::Integer(Integer::Local(Unit::Nanos)),
        Schema::Null
        | Schema::Array(_)
        | Schema::Map(_)
        | Schema::Union(_)
        | Schema::Record(_)
        | Schema::Ref { .. } => Type::Null,
    }
}
