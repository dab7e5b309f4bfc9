//! Protobuf: a schema compiled from its text, and the messages that it describes.

use std::collections::HashMap;

use protox::{
    Compiler,
    file::{ChainFileResolver, File, FileResolver, GoogleFileResolver},
    prost_reflect::{
        DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value,
    },
};

use super::filling::Filling;
use crate::format::{capture::Captured, members::UNWANTED};

/// The name of the schema itself; what it imports has other names.
const ROOT: &str = "__registry_root.proto";

/// Messages inside one another that a frame may point at; real ones are at the first or second level.
const INDEX_DEPTH_MAX: i64 = 16;

/// The package of the project's own schema, whose `other` maps hold the members that the contract does not know.
const OWN_PACKAGE: &str = "whisperer.v1";

/// A compiled schema.
#[derive(Debug)]
pub(super) struct ProtobufSchema {
    messages: Vec<MessageDescriptor>,
}

/// The texts of schemas, by the names under which they are imported.
struct Texts(HashMap<String, String>);

impl FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.get(name) {
            Some(text) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

impl ProtobufSchema {
    /// Compiles a schema. It may import `references` and Google's well-known types.
    pub(super) fn new(text: &str, references: &[(String, String)]) -> Result<ProtobufSchema, String> {
        let mut texts: HashMap<String, String> = references.iter().cloned().collect();
        texts.insert(ROOT.to_owned(), text.to_owned());
        let mut resolver = ChainFileResolver::new();
        resolver.add(Texts(texts));
        resolver.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(resolver);
        compiler.include_imports(true);
        compiler.open_file(ROOT).map_err(|error| error.to_string())?;
        let file = compiler.descriptor_pool().get_file_by_name(ROOT).ok_or("it compiles to nothing")?;
        Ok(ProtobufSchema { messages: file.messages().collect() })
    }

    /// Fills the slots from a message, which begins with its place in the schema.
    pub(super) fn read(&self, bytes: &[u8], filling: &mut Filling<'_, '_>) -> Result<(), String> {
        let (descriptor, content) = self.find(bytes)?;
        let message = DynamicMessage::decode(descriptor, content).map_err(|error| error.to_string())?;
        fill_message(&message, 0, filling)
    }

    /// The message that the frame's index names, and its content. The index is the number of its parts, then the place of the message among
    /// those of the file, of the message in that one, and so on; a single 0 stands for the first message.
    fn find<'b>(&self, mut bytes: &'b [u8]) -> Result<(MessageDescriptor, &'b [u8]), String> {
        let parts = varint(&mut bytes)?;
        if !(0..=INDEX_DEPTH_MAX).contains(&parts) {
            return Err(format!("a message index of {parts} parts"));
        }
        let mut index = (0..parts).map(|_| varint(&mut bytes)).collect::<Result<Vec<i64>, String>>()?;
        if index.is_empty() {
            index.push(0);
        }
        // Clients disagree on whether the messages that stand for maps and groups count. Those in Java, whose format it is, do not
        // count them.
        let message =
            self.at(&index, declared).or_else(|| self.at(&index, |message| message.child_messages().collect()));
        message.map(|message| (message, bytes)).ok_or_else(|| format!("the schema has no message {index:?}"))
    }

    fn at(&self, index: &[i64], below: fn(&MessageDescriptor) -> Vec<MessageDescriptor>) -> Option<MessageDescriptor> {
        let (first, rest) = index.split_first()?;
        let message = self.messages.get(usize::try_from(*first).ok()?)?.clone();
        rest.iter().try_fold(message, |message, place| below(&message).get(usize::try_from(*place).ok()?).cloned())
    }
}

/// The messages declared in a message: not those that stand for maps and groups.
fn declared(message: &MessageDescriptor) -> Vec<MessageDescriptor> {
    let groups: Vec<_> = message.fields().filter(FieldDescriptor::is_group).map(|field| field.kind()).collect();
    let is_group = |child: &MessageDescriptor| groups.iter().any(|kind| kind.as_message() == Some(child));
    message.child_messages().filter(|child| !child.is_map_entry() && !is_group(child)).collect()
}

/// A zigzag number of a message index.
fn varint(bytes: &mut &[u8]) -> Result<i64, String> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or("it ends in its message index")?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
        }
    }
    Err("a message index of more than 64 bits".to_owned())
}

/// A message: one of Google's well-known types as what it stands for, any other as an object.
///
/// The depth is bounded by the decoder, which refuses more than 100 messages inside one another.
fn fill_message(message: &DynamicMessage, slot: u16, filling: &mut Filling<'_, '_>) -> Result<(), String> {
    let descriptor = message.descriptor();
    match descriptor.full_name().strip_prefix("google.protobuf.") {
        Some("Timestamp") => filling.instant(slot, nanos(message).div_euclid(1_000)),
        Some("Duration") => return filling.float(slot, nanos(message) as f64 / 1e6),
        Some("Struct") => return fill_only_field(message, "fields", slot, filling),
        Some("ListValue") => return fill_only_field(message, "values", slot, filling),
        Some("Value") => match message.fields().next() {
            Some((field, value)) if field.name() != "null_value" => {
                return fill_value(value, &field.kind(), slot, filling);
            }
            _ => filling.set(slot, Captured::Null),
        },
        Some(name) if WRAPPERS.contains(&name) => return fill_only_field(message, "value", slot, filling),
        _ => return fill_fields(message, slot, filling),
    }
    Ok(())
}

const WRAPPERS: [&str; 9] = [
    "DoubleValue",
    "FloatValue",
    "Int64Value",
    "UInt64Value",
    "Int32Value",
    "UInt32Value",
    "BoolValue",
    "StringValue",
    "BytesValue",
];

/// The nanoseconds of a timestamp or duration.
fn nanos(message: &DynamicMessage) -> i128 {
    let part = |name| message.get_field_by_name(name);
    let seconds = part("seconds").and_then(|value| value.as_i64()).unwrap_or_default();
    let nanos = part("nanos").and_then(|value| value.as_i32()).unwrap_or_default();
    i128::from(seconds) * 1_000_000_000 + i128::from(nanos)
}

/// A message whose value is that of its one field.
fn fill_only_field(
    message: &DynamicMessage,
    name: &str,
    slot: u16,
    filling: &mut Filling<'_, '_>,
) -> Result<(), String> {
    let field = message.descriptor().get_field_by_name(name).ok_or("a well-known type that is not Google's")?;
    fill_value(&message.get_field(&field), &field.kind(), slot, filling)
}

fn fill_fields(message: &DynamicMessage, slot: u16, filling: &mut Filling<'_, '_>) -> Result<(), String> {
    filling.set(slot, Captured::Object);
    let descriptor = message.descriptor();
    let is_own = descriptor.package_name() == OWN_PACKAGE;
    for field in descriptor.fields().filter(|field| is_there(message, field)) {
        let value = message.get_field(&field);
        if is_own && field.is_map() && field.name() == "other" {
            fill_value(&value, &field.kind(), slot, filling)?;
            continue;
        }
        let child = match filling.child(slot, field.name()) {
            UNWANTED => filling.child(slot, field.json_name()),
            child => child,
        };
        fill_value(&value, &field.kind(), child, filling)?;
    }
    Ok(())
}

/// Whether a field is there. Where a message cannot tell, an empty text and the first symbol of an enum are not: the one is no id, the
/// other means "unspecified" by convention. Zero and false are values.
fn is_there(message: &DynamicMessage, field: &FieldDescriptor) -> bool {
    let is_silent =
        field.is_list() || field.is_map() || matches!(field.kind(), Kind::String | Kind::Bytes | Kind::Enum(_));
    message.has_field(field) || !(field.supports_presence() || is_silent)
}

fn fill_value(value: &Value, kind: &Kind, slot: u16, filling: &mut Filling<'_, '_>) -> Result<(), String> {
    match value {
        Value::Bool(truth) => filling.set(slot, Captured::Bool(*truth)),
        Value::I32(number) => filling.integer(slot, i64::from(*number)),
        Value::I64(number) => filling.integer(slot, *number),
        Value::U32(number) => filling.set(slot, Captured::Unsigned(u64::from(*number))),
        Value::U64(number) => filling.set(slot, Captured::Unsigned(*number)),
        Value::F32(number) => return filling.float(slot, f64::from(*number)),
        Value::F64(number) => return filling.float(slot, *number),
        Value::String(text) => filling.text(slot, format_args!("{text}")),
        Value::Bytes(bytes) => filling.bytes(slot, bytes),
        Value::EnumNumber(number) => fill_enum(*number, kind.as_enum(), slot, filling),
        Value::Message(message) => return fill_message(message, slot, filling),
        Value::List(items) => {
            filling.set(slot, Captured::Array);
            return items.iter().try_for_each(|item| fill_value(item, kind, UNWANTED, filling));
        }
        Value::Map(entries) => return fill_map(entries, kind, slot, filling),
    }
    Ok(())
}

fn fill_map(
    entries: &HashMap<MapKey, Value>,
    kind: &Kind,
    slot: u16,
    filling: &mut Filling<'_, '_>,
) -> Result<(), String> {
    filling.set(slot, Captured::Object);
    let value_kind = kind.as_message().map_or_else(|| kind.clone(), |entry| entry.map_entry_value_field().kind());
    for (key, value) in entries {
        let child = match key {
            MapKey::String(key) => filling.child(slot, key),
            MapKey::Bool(key) => filling.child(slot, &key.to_string()),
            MapKey::I32(key) => filling.child(slot, &key.to_string()),
            MapKey::I64(key) => filling.child(slot, &key.to_string()),
            MapKey::U32(key) => filling.child(slot, &key.to_string()),
            MapKey::U64(key) => filling.child(slot, &key.to_string()),
        };
        fill_value(value, &value_kind, child, filling)?;
    }
    Ok(())
}

/// A symbol's name, or its number where the schema has no name for it.
fn fill_enum(number: i32, symbols: Option<&EnumDescriptor>, slot: u16, filling: &mut Filling<'_, '_>) {
    match symbols.and_then(|symbols| symbols.get_value(number)) {
        Some(symbol) => filling.text(slot, format_args!("{}", symbol.name())),
        None => filling.integer(slot, i64::from(number)),
    }
}
