//! Reads framed messages: takes the frame off, finds the schema by its id, decodes the message with it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{
    Encoding, RegistryOptions,
    avro::AvroSchema,
    client::{Client, Fetched, Lookup},
    filling::Filling,
    json_schema::JsonSchema,
    protobuf::ProtobufSchema,
};
use crate::{
    format::{
        capture::{Captured, empty},
        decode::Unread,
        members::Members,
    },
    source::SourceError,
};

/// Schemas that a worker keeps; when it knows so many, it forgets all of them and asks again. A topic has a few, each of some KiB.
const SCHEMAS_MAX: usize = 1_000;

/// How long an id that the registry does not know is taken for unknown: long enough that a stream of bad records does not flood the
/// registry, short enough for one that learns of new schemas late.
const UNKNOWN_FOR: Duration = Duration::from_secs(1);

/// Reads framed messages of one encoding.
#[derive(Debug)]
pub(in crate::format) struct Framed {
    encoding: Encoding,
    client: Client,
    schemas: HashMap<u32, Known>,
}

/// What is known of a schema id.
#[derive(Debug)]
enum Known {
    Schema(Schema),
    /// There is one, but nothing can be read with it.
    Unusable(String),
    /// There was none at this time.
    Unknown(String, Instant),
}

#[derive(Debug)]
enum Schema {
    Avro(AvroSchema),
    Protobuf(ProtobufSchema),
    Json(JsonSchema),
}

impl Framed {
    /// A reader of framed messages, whose registry answers.
    pub(in crate::format) fn new(encoding: Encoding, registry: &RegistryOptions) -> Result<Framed, SourceError> {
        Ok(Framed { encoding, client: Client::connect(registry)?, schemas: HashMap::new() })
    }

    /// Fills the slots from a framed message.
    pub(in crate::format) fn fill<'a>(
        &mut self,
        bytes: &'a [u8],
        members: &Members,
        slots: &mut Vec<Captured<'a>>,
        scratch: &mut String,
    ) -> Result<(), Unread> {
        let (id, message) = unframe(bytes)?;
        let schema = self.schema(id)?;
        empty(members, slots, scratch);
        let mut filling = Filling { members, slots, scratch };
        let read = match schema {
            Schema::Avro(schema) => schema.read(message, &mut filling),
            Schema::Protobuf(schema) => schema.read(message, &mut filling),
            Schema::Json(schema) => return schema.read(message, members, slots, scratch),
        };
        read.map_err(|detail| Unread::Invalid(format!("no message of schema {id}: {detail}")))
    }

    fn schema(&mut self, id: u32) -> Result<&Schema, Unread> {
        let known = self.schemas.get(&id);
        let is_news = match known {
            None => true,
            Some(Known::Unknown(_, since)) => since.elapsed() >= UNKNOWN_FOR,
            Some(Known::Schema(_) | Known::Unusable(_)) => false,
        };
        if is_news {
            let news = self.ask(id)?;
            if self.schemas.len() >= SCHEMAS_MAX {
                self.schemas.clear();
            }
            self.schemas.insert(id, news);
        }
        match &self.schemas[&id] {
            Known::Schema(schema) => Ok(schema),
            Known::Unusable(detail) | Known::Unknown(detail, _) => Err(Unread::NoSchema(detail.clone())),
        }
    }

    fn ask(&mut self, id: u32) -> Result<Known, Unread> {
        let fetched = match self.client.schema(id) {
            Ok(fetched) => fetched,
            Err(Lookup::Unknown(detail)) => return Ok(Known::Unknown(detail, Instant::now())),
            Err(Lookup::Failed(error)) => return Err(Unread::Failed(error)),
        };
        Ok(match compile(self.encoding, &fetched) {
            Ok(schema) => Known::Schema(schema),
            Err(detail) => {
                Known::Unusable(format!("schema {id} cannot be used: {}", detail.replace(['\n', '\r'], " ")))
            }
        })
    }
}

fn compile(encoding: Encoding, fetched: &Fetched) -> Result<Schema, String> {
    if fetched.encoding != Some(encoding) {
        let found = fetched.encoding.map_or("of an unknown kind".to_owned(), |found| format!("\"{found}\""));
        return Err(format!("it is {found}, and the job's format is \"{encoding}\""));
    }
    let Fetched { text, references, .. } = fetched;
    match encoding {
        Encoding::Avro => AvroSchema::new(text, references).map(Schema::Avro),
        Encoding::Protobuf => ProtobufSchema::new(text, references).map(Schema::Protobuf),
        Encoding::JsonSchema => JsonSchema::new(text, references).map(Schema::Json),
    }
}

/// The schema id and what follows it.
fn unframe(bytes: &[u8]) -> Result<(u32, &[u8]), String> {
    match bytes.split_first_chunk::<5>() {
        Some(([0, id @ ..], message)) => Ok((u32::from_be_bytes(*id), message)),
        Some(([first, ..], _)) => Err(format!("not framed with a schema id: the first byte is {first}, not 0")),
        None => Err(format!("not framed with a schema id: {} bytes, and a frame has 5", bytes.len())),
    }
}
