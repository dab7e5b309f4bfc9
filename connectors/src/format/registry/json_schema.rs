//! JSON with a JSON Schema: read like any JSON, and held against its schema.

use jsonschema::{Draft, Registry, Validator};
use serde_json::Value;

use crate::format::{
    capture::{Captured, capture_plain},
    decode::Unread,
    members::Members,
};

/// Where schemas stand that have no address of their own; what they refer to is relative to it.
const HOME: &str = "registry:///";

/// Characters of a breach that a dead letter shows; what a validator says can be as long as the record.
const DETAIL_CHARS_MAX: usize = 300;

/// A compiled schema.
#[derive(Debug)]
pub(super) struct JsonSchema {
    validator: Validator,
}

impl JsonSchema {
    /// Compiles a schema. Nothing is fetched: it may refer to itself and to `references`.
    pub(super) fn new(text: &str, references: &[(String, String)]) -> Result<JsonSchema, String> {
        let parse = |text: &str| serde_json::from_str::<Value>(text).map_err(|error| error.to_string());
        let schema = parse(text)?;
        // A schema's own address is what its references are relative to.
        let own =
            schema.get("$id").and_then(Value::as_str).and_then(|id| id.rfind('/').map(|end| id[..=end].to_owned()));
        let mut registry = Registry::new();
        for (name, text) in references {
            for home in own.iter().map(String::as_str).chain([HOME]) {
                let address = if name.contains("://") { name.clone() } else { format!("{home}{name}") };
                registry = registry.add(address, parse(text)?).map_err(|error| error.to_string())?;
            }
        }
        let registry = registry.prepare().map_err(|error| error.to_string())?;
        let options = jsonschema::options().with_draft(Draft::Draft7.detect(&schema)).with_registry(&registry);
        let options = options.with_base_uri(format!("{HOME}schema.json"));
        let validator = options.build(&schema).map_err(|error| error.to_string())?;
        Ok(JsonSchema { validator })
    }

    /// Fills the slots from a message.
    pub(super) fn read<'a>(
        &self,
        message: &'a [u8],
        members: &Members,
        slots: &mut Vec<Captured<'a>>,
        scratch: &mut String,
    ) -> Result<(), Unread> {
        capture_plain(message, members, slots, scratch)?;
        let value: Value = serde_json::from_slice(message).map_err(|error| Unread::Invalid(error.to_string()))?;
        self.validator.validate(&value).map_err(|error| {
            let place = error.instance_path().to_string();
            let what: String = error.to_string().replace(['\n', '\r'], " ").chars().take(DETAIL_CHARS_MAX).collect();
            Unread::BreaksSchema(format!("\"{place}\" breaks the schema: {what}"))
        })
    }
}
