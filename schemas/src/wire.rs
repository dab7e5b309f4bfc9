//! The wire forms as files: the JSON Schema (draft-07) of the event and the Protobuf of all that goes in or out.
//!
//! They are part of the binary, so that an API can hand them out and a checker needs no second copy.

/// The JSON Schema of the event, version [`crate::event::EVENT_VERSION`].
pub const EVENT_JSON_SCHEMA: &str = include_str!("../json/event.v1.schema.json");

/// A Protobuf file: the path under which others import it, and its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtoFile {
    /// Its import path.
    pub path: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// All Protobuf files, imported ones first.
pub const PROTO_FILES: [ProtoFile; 5] = [
    ProtoFile { path: "whisperer/v1/event.proto", text: include_str!("../proto/whisperer/v1/event.proto") },
    ProtoFile { path: "whisperer/v1/behaviour.proto", text: include_str!("../proto/whisperer/v1/behaviour.proto") },
    ProtoFile { path: "whisperer/v1/decision.proto", text: include_str!("../proto/whisperer/v1/decision.proto") },
    ProtoFile { path: "whisperer/v1/profile.proto", text: include_str!("../proto/whisperer/v1/profile.proto") },
    ProtoFile { path: "whisperer/v1/dead_letter.proto", text: include_str!("../proto/whisperer/v1/dead_letter.proto") },
];
