//! Framed messages: those that Confluent's own client writes, broken ones, and a registry that knows nothing or does not answer.

mod broken;
mod messages;
mod outages;
pub mod stand_in;

use whisperer_connectors::{
    format::{Encoding, EventReader, Format, FormatOptions, Mapping, RegistryOptions},
    source::Payload,
};
use whisperer_operators::intake::{Field, Group};

use crate::support::{Outcome, any_options, outcome, raw, shown};

pub fn framed(encoding: Encoding, registry: RegistryOptions, mapping: Option<Mapping>) -> FormatOptions {
    FormatOptions { format: Format::Framed { encoding, registry, mapping }, ..any_options() }
}

/// Bytes in the frame of a schema id.
pub fn frame(id: u32, message: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], message].concat()
}

fn read_with(reader: &mut EventReader, bytes: &[u8]) -> Outcome {
    outcome(reader.read(&raw(Payload::Json(bytes)), shown))
}

fn property(path: &str) -> Field {
    Field { group: Group::Properties, path: path.split('.').map(str::to_owned).collect() }
}
