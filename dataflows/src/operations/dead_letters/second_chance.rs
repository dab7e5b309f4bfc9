//! Whether a dead letter is an event by now, and the record that is put out for it.

use std::sync::Arc;

use serde_json::Value;
use whisperer_connectors::{
    RawRecord, SourceError,
    format::{FormatOptions, Ids, Parsed, Parser, mapping::From},
    source::Payload,
};
use whisperer_operators::intake::Intake;
use whisperer_schemas::{
    Micros, PartitionId, Position,
    event::{EVENT_ID_PREFIX, NATIVE_ID_CHARS},
};

use super::DeadLetter;

/// What becomes of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chance {
    /// It is an event: the record to put out, on one line.
    Event(Vec<u8>),
    /// It still is none, for this reason.
    Rejected(&'static str),
    /// The table holds only its beginning.
    Cut,
}

/// Tries dead letters with the job as it is now.
#[derive(Debug)]
pub struct SecondChances {
    parser: Parser,
    /// The member that holds the event's id; none where an id cannot be added.
    id_member: Option<String>,
    ids: Ids,
    /// When the records come to their source again.
    now: Micros,
}

impl SecondChances {
    /// Tries records as `format` describes them; `now` is their new ingest time.
    ///
    /// # Errors
    /// A format that cannot be.
    pub fn new(format: &FormatOptions, intake: Arc<Intake>, now: Micros) -> Result<SecondChances, SourceError> {
        let id_member = id_member(format);
        Ok(SecondChances { parser: Parser::new(format.clone(), intake)?, id_member, ids: format.ids, now })
    }

    /// Tries one.
    pub fn of(&mut self, letter: &DeadLetter) -> Chance {
        if !letter.is_whole() {
            return Chance::Cut;
        }
        if let Some(reason) = self.rejected(letter, &letter.raw) {
            return Chance::Rejected(reason);
        }
        let plain = one_line(&letter.raw);
        let named = self.with_id(letter, &plain);
        // An id that the job does not admit after all is left out: the record then gets its new position.
        match named.filter(|record| self.rejected(letter, record).is_none()) {
            Some(record) => Chance::Event(record),
            None => Chance::Event(plain),
        }
    }

    fn rejected(&mut self, letter: &DeadLetter, bytes: &[u8]) -> Option<&'static str> {
        let raw = RawRecord {
            position: Position { partition: PartitionId(letter.partition), offset: letter.offset },
            chunk: 0,
            ingest_time: Some(self.now),
            headers: &[],
            payload: Payload::Json(bytes),
        };
        match self.parser.parse(&raw, Micros::MIN) {
            Parsed::Record(_) => None,
            Parsed::Blank => Some("blank"),
            Parsed::Rejected(rejection) => Some(rejection.reason.as_str()),
            // A registry that does not answer now may do so the next time.
            Parsed::Failed(_) => Some("registry"),
        }
    }

    /// The record with an id made from its position, where it has none.
    fn with_id(&self, letter: &DeadLetter, record: &[u8]) -> Option<Vec<u8>> {
        let member = self.id_member.as_deref()?;
        let tree: Value = serde_json::from_slice(record).ok()?;
        let members = tree.as_object()?;
        if members.get(member).is_some_and(|id| !id.is_null()) {
            return None;
        }
        let id = match self.ids {
            Ids::Any => format!("{}:{}", letter.partition, letter.offset),
            Ids::Strict => native_id(letter),
        };
        // At the end, since of repeated members the last one counts: there may be a null before.
        let end = record.iter().rposition(|byte| *byte == b'}')?;
        let comma = if members.is_empty() { "" } else { "," };
        let added = format!("{comma}{}:{}", Value::from(member), Value::from(id));
        Some([&record[..end], added.as_bytes(), &record[end..]].concat())
    }
}

/// The name of the top-level member that feeds `event_id`.
fn id_member(format: &FormatOptions) -> Option<String> {
    let from = format.format.mapping().and_then(|mapping| mapping.event_id.as_ref());
    match from {
        None => Some("event_id".to_owned()),
        Some(From::Member(member)) => match &member.path[..] {
            [name] => Some(name.clone()),
            _ => None,
        },
        Some(From::Value(_)) => None,
    }
}

/// An id in the pattern of the native format, the same for the same letter.
fn native_id(letter: &DeadLetter) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    // The position is hashed in, so that two records with the same bytes stay two.
    let mut rest = letter.id().2.0 ^ (u128::from(letter.partition) << 64 | u128::from(letter.offset));
    let mut id = EVENT_ID_PREFIX.to_owned();
    for _ in 0..NATIVE_ID_CHARS {
        id.push(char::from(DIGITS[(rest % 36) as usize]));
        rest /= 36;
    }
    id
}

/// The record on one line: no JSON text holds a line end inside a string.
fn one_line(raw: &[u8]) -> Vec<u8> {
    raw.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}
