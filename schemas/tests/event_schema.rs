//! The JSON Schema of the event: it carries the whole contract, takes what is valid and refuses what is not.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;

use serde_json::Value;
use whisperer_schemas::{
    event::{
        APP_ID_PREFIX, ContractType, DEVICE_TYPES, EVENT_ID_PREFIX, EVENT_TYPES, EVENT_VERSION, FIELDS, Group, PLANS,
        REQUIRED_FIELDS, SESSION_ID_PREFIX, SOURCES, USER_ID_PREFIX,
    },
    wire::EVENT_JSON_SCHEMA,
};

fn schema() -> Value {
    serde_json::from_str(EVENT_JSON_SCHEMA).unwrap()
}

fn validator() -> jsonschema::Validator {
    jsonschema::draft7::options().should_validate_formats(true).build(&schema()).unwrap()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

fn members(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_schema_is_one_of_draft_07_and_carries_its_version() {
    // It validates against the meta-schema, and its id ends with the version and names no host.
    let schema = schema();
    jsonschema::draft7::meta::validate(&schema).unwrap();
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    assert_eq!(schema["$id"], format!("urn:whisperer:event:v{EVENT_VERSION}"));
}

#[test]
fn the_schema_carries_every_field_of_the_contract() {
    // Names, required members, id patterns, enumerations and types equal the constants, none more and none fewer.
    let schema = schema();
    assert_eq!(members(&schema["properties"]), BTreeSet::from(FIELDS));
    assert_eq!(texts(&schema["required"]), REQUIRED_FIELDS);
    assert_eq!(texts(&schema["properties"]["event_type"]["enum"]), EVENT_TYPES);
    let prefixes = [EVENT_ID_PREFIX, APP_ID_PREFIX, USER_ID_PREFIX, SESSION_ID_PREFIX];
    for (member, prefix) in ["event_id", "app_id", "user_id", "session_id"].iter().zip(prefixes) {
        assert_eq!(schema["properties"][member]["pattern"], format!("^{prefix}[A-Za-z0-9]{{16}}$"));
    }
    for group in Group::ALL {
        let fields = &schema["definitions"][group.name()]["properties"];
        assert_eq!(members(fields), group.fields().iter().map(|(name, _)| *name).collect());
        for (name, kind) in group.fields() {
            // A field with an enumeration has no type, but texts.
            let is_number = fields[name]["type"] == "number";
            assert_eq!(is_number, *kind == ContractType::Number, "{name}");
            assert!(is_number || fields[name]["type"] == "string" || !texts(&fields[name]["enum"]).is_empty());
        }
    }
    let enumeration =
        |group: Group, field: &str| schema["definitions"][group.name()]["properties"][field]["enum"].clone();
    assert_eq!(texts(&enumeration(Group::Properties, "plan")), PLANS);
    assert_eq!(texts(&enumeration(Group::Context, "device_type")), DEVICE_TYPES);
    assert_eq!(texts(&enumeration(Group::Metadata, "source")), SOURCES);
}

#[test]
fn valid_events_are_taken() {
    // Events with the required members only, with every field of the contract, and with members it does not know.
    let events: Vec<Value> = serde_json::from_str(include_str!("fixtures/v1/event.valid.json")).unwrap();
    let validator = validator();
    for event in &events {
        if let Err(error) = validator.validate(event) {
            panic!("{}: {error}", error.instance_path());
        }
    }
    let full = &events[1];
    assert!(FIELDS.iter().all(|field| full.get(field).is_some()));
    for group in Group::ALL {
        assert!(group.fields().iter().all(|(name, _)| full[group.name()].get(name).is_some()), "{}", group.name());
    }
}

#[test]
fn invalid_events_are_refused_where_they_are_wrong() {
    // Each event has one mistake; the one error points at it.
    let cases: Vec<Value> = serde_json::from_str(include_str!("fixtures/v1/event.invalid.json")).unwrap();
    let validator = validator();
    for case in &cases {
        let places: Vec<String> =
            validator.iter_errors(&case["event"]).map(|error| error.instance_path().to_string()).collect();
        assert_eq!(places, [case["at"].as_str().unwrap()], "{}", case["why"]);
    }
}
