//! The Protobuf files: they compile, carry the contract and the tables' columns, and old bytes stay readable.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, ReflectMessage, prost::Message};
use protox::{
    Compiler, Error,
    file::{ChainFileResolver, File, FileResolver, GoogleFileResolver},
};
use whisperer_schemas::{
    ColumnType, TableSchema,
    event::{ContractType, FIELDS, Group},
    wire::PROTO_FILES,
};

/// The files as they are part of the crate.
struct Embedded;

impl FileResolver for Embedded {
    fn open_file(&self, name: &str) -> Result<File, Error> {
        let file = PROTO_FILES.iter().find(|file| file.path == name);
        file.map_or_else(|| Err(Error::file_not_found(name)), |file| File::from_source(file.path, file.text))
    }
}

fn pool() -> DescriptorPool {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Embedded);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_files(PROTO_FILES.map(|file| file.path)).unwrap();
    compiler.descriptor_pool()
}

fn message(name: &str) -> MessageDescriptor {
    pool().get_message_by_name(&format!("whisperer.v1.{name}")).unwrap()
}

/// The fields of a message by name, with the words for their types.
fn fields(message: &MessageDescriptor) -> BTreeMap<String, String> {
    message.fields().map(|field| (field.name().to_owned(), word(&field))).collect()
}

fn word(field: &prost_reflect::FieldDescriptor) -> String {
    let word = match field.kind() {
        Kind::Message(message) => message.name().to_owned(),
        kind => format!("{kind:?}").to_lowercase(),
    };
    if field.is_map() {
        "map".into()
    } else if field.is_list() {
        format!("repeated {word}")
    } else {
        word
    }
}

#[test]
fn every_file_is_embedded() {
    // The constants and the folder hold the same files.
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/proto/whisperer/v1");
    let mut paths: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| format!("whisperer/v1/{}", entry.unwrap().file_name().to_str().unwrap()))
        .collect();
    paths.sort();
    let mut embedded = PROTO_FILES.map(|file| file.path);
    embedded.sort_unstable();
    assert_eq!(paths, embedded);
}

#[test]
fn the_event_carries_every_field_of_the_contract() {
    // Names and types of the event and of its groups, with `other` for what the contract does not know.
    let event = message("Event");
    let names: Vec<String> = event.fields().map(|field| field.name().to_owned()).collect();
    assert_eq!(names, FIELDS);
    for (group, name) in Group::ALL.iter().zip(["Properties", "Context", "Metadata"]) {
        let mut expected: BTreeMap<String, String> = BTreeMap::from([("other".into(), "map".into())]);
        for (field, kind) in group.fields() {
            let word = match (*field, kind) {
                ("received_at" | "processed_at", _) => "Timestamp",
                (_, ContractType::Number) => "double",
                (_, ContractType::Text) => "string",
            };
            expected.insert((*field).to_owned(), word.to_owned());
        }
        assert_eq!(fields(&message(name)), expected);
    }
}

/// The Protobuf type of a column.
fn column_word(kind: &ColumnType, list: &str) -> String {
    let word = match kind {
        ColumnType::Bool => "bool",
        ColumnType::Int => "int64",
        ColumnType::Number => "double",
        ColumnType::Text => "string",
        ColumnType::Bytes => "bytes",
        ColumnType::Time => "Timestamp",
        ColumnType::List(_) => return format!("repeated {list}"),
    };
    word.to_owned()
}

#[test]
fn outputs_carry_the_columns_of_their_tables() {
    // Every fixed column is a field of the same type, without the underscore; besides, the version and the job's maps.
    let maps: &[&str] = &["scores", "features"];
    let tables = [
        ("Decision", TableSchema::decisions(Vec::new()), maps),
        ("Profile", TableSchema::profiles(Vec::new()), maps),
        ("DeadLetter", TableSchema::dead_letters(), &[]),
    ];
    for (name, table, maps) in tables {
        let mut expected = BTreeMap::from([("table_version".to_owned(), "uint32".to_owned())]);
        expected.extend(maps.iter().map(|map| ((*map).to_owned(), "map".to_owned())));
        for column in &table.columns {
            let list = if column.name == "triggers" { "TriggerState" } else { "Timer" };
            if let ColumnType::List(columns) = &column.kind {
                let columns = columns.iter().map(|(name, kind)| ((*name).to_owned(), column_word(kind, "")));
                assert_eq!(fields(&message(list)), columns.collect());
            }
            expected.insert(column.name.trim_start_matches('_').to_owned(), column_word(&column.kind, list));
        }
        assert_eq!(fields(&message(name)), expected);
    }
}

/// A message's name, a text of it, and the bytes of version 1 for it, in hexadecimal.
const FIXTURES: [(&str, &str, &str); 4] = [
    ("Event", include_str!("fixtures/v1/event.textproto"), include_str!("fixtures/v1/event.hex")),
    ("Decision", include_str!("fixtures/v1/decision.textproto"), include_str!("fixtures/v1/decision.hex")),
    ("Profile", include_str!("fixtures/v1/profile.textproto"), include_str!("fixtures/v1/profile.hex")),
    ("DeadLetter", include_str!("fixtures/v1/dead_letter.textproto"), include_str!("fixtures/v1/dead_letter.hex")),
];

#[test]
fn fixtures_round_trip_and_old_bytes_stay_readable() {
    // The committed bytes are read as the message of the text, and the text still makes those bytes.
    for (name, text, hex) in FIXTURES {
        let descriptor = message(name);
        let expected = DynamicMessage::parse_text_format(descriptor.clone(), text).unwrap();
        let old = DynamicMessage::decode(descriptor, bytes(hex).as_slice()).unwrap();
        assert!(old == expected, "{name} is read as {old}");
        assert_eq!(expected.encode_to_vec(), bytes(hex), "the bytes of {name} have changed");
    }
}

/// The bytes of hexadecimal lines.
fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]).collect()
}

#[test]
fn the_fixtures_leave_no_field_out() {
    // Every field of the four messages is set, except the false and zero ones that proto3 does not write.
    for (name, text, _) in FIXTURES {
        let message = DynamicMessage::parse_text_format(message(name), text).unwrap();
        let unset: Vec<String> = message
            .descriptor()
            .fields()
            .filter(|field| !message.has_field(field))
            .map(|field| field.name().to_owned())
            .collect();
        assert!(unset.is_empty(), "{name}: {unset:?}");
    }
}
