//! The parser: one record in, a record for the engine or a rejection out.

use std::{fmt::Write, sync::Arc};

use csv::ByteRecord;
use whisperer_operators::{
    intake::{EventView, Field, FieldValue, Intake, Place},
    record::Record,
};
use whisperer_schemas::{Micros, Position, time::parse_rfc3339};

use super::{
    FormatOptions, Reason, Rejection,
    capture::{Captured, Scratch},
    check::{Candidate, Identity, shown},
    decode::{Decoder, ReadError, Unread},
    mapping::From,
    plan::{Found, Plan},
    registry::RegistryError,
    time::TimeReader,
};
use crate::source::{Payload, RawRecord, SourceError};

/// Parses the records of one worker into what a job's state needs.
#[derive(Debug)]
pub struct Parser {
    events: EventReader,
    intake: Arc<Intake>,
}

/// What a record turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed {
    /// A valid event.
    Record(Record),
    /// A line of white space: not a record at all.
    Blank,
    /// A dead letter.
    Rejected(Rejection),
    /// Not to be judged without a schema registry that does not answer: the run has to end before this record.
    Failed(Box<RegistryError>),
}

impl Parser {
    /// A parser of the records that `options` describe, for a job with this intake.
    ///
    /// # Errors
    /// Where the mapping's time names an unknown zone or has an impossible format, and where the schema registry that the format needs
    /// does not answer.
    pub fn new(options: FormatOptions, intake: Arc<Intake>) -> Result<Parser, SourceError> {
        Ok(Parser { events: EventReader::new(options, intake.fields())?, intake })
    }

    /// How many event times were clamped to their ingest time so far.
    #[must_use]
    pub fn clamped(&self) -> u64 {
        self.events.clamped()
    }

    /// Parses one record. `chunk_time_max` is the largest event time of the valid records before it in its chunk, `Micros::MIN` where
    /// there is none; the caller keeps it.
    pub fn parse(&mut self, raw: &RawRecord<'_>, chunk_time_max: Micros) -> Parsed {
        let place = Place {
            partition: raw.position.partition.0,
            chunk: raw.chunk,
            offset: raw.position.offset,
            chunk_time_max,
        };
        match self.events.read(raw, |event| self.intake.record(event, place)) {
            Ok(Some(record)) => Parsed::Record(record),
            Ok(None) => Parsed::Blank,
            Err(ReadError::Rejected(rejection)) => Parsed::Rejected(rejection),
            Err(ReadError::Failed(error)) => Parsed::Failed(error),
        }
    }
}

/// Reads records as events. Its buffers are reused from record to record.
#[derive(Debug)]
pub struct EventReader {
    options: FormatOptions,
    plan: Plan,
    decoder: Decoder,
    times: TimeReader,
    columns: Columns,
    clamped: u64,
    slots: Vec<Captured<'static>>,
    values: Vec<FieldValue<'static>>,
    scratch: Scratch,
    own_id: String,
}

impl EventReader {
    /// A reader of the records that `options` describe, which extracts `fields`.
    ///
    /// # Errors
    /// Where the mapping's time names an unknown zone or has an impossible format, and where the schema registry that the format needs
    /// does not answer.
    pub fn new(options: FormatOptions, fields: &[Field]) -> Result<EventReader, SourceError> {
        let timestamp = options.format.mapping().and_then(|mapping| mapping.timestamp.as_ref());
        let times = match timestamp {
            Some(From::Member(member)) => TimeReader::mapped(member)?,
            Some(From::Value(_)) | None => TimeReader::default(),
        };
        let plan = Plan::new(&options.format, fields, &options.app_id);
        let decoder = Decoder::new(&options, &plan)?;
        Ok(EventReader {
            options,
            plan,
            decoder,
            times,
            columns: Columns::default(),
            clamped: 0,
            slots: Vec::new(),
            values: Vec::new(),
            scratch: Scratch::default(),
            own_id: String::new(),
        })
    }

    /// How many event times were clamped to their ingest time so far.
    #[must_use]
    pub fn clamped(&self) -> u64 {
        self.clamped
    }

    /// Hands the event of a record to `each`; gives none for a line of white space.
    ///
    /// # Errors
    /// Where the record is no valid event, or its schema cannot be had.
    pub fn read<R>(
        &mut self,
        raw: &RawRecord<'_>,
        each: impl FnOnce(&EventView<'_>) -> R,
    ) -> Result<Option<R>, ReadError> {
        let (bytes, length) = match raw.payload {
            Payload::Json(bytes) | Payload::Csv { raw: bytes, .. } => (bytes, bytes.len() as u64),
            Payload::TooLarge { head, bytes } => (head, bytes),
        };
        if length > self.options.event_bytes_max || matches!(raw.payload, Payload::TooLarge { .. }) {
            return Err(too_large(length, self.options.event_bytes_max).into());
        }
        if is_blank(bytes) && self.decoder.is_blank(raw) {
            return Ok(None);
        }
        // The slots borrow from this record, so their vector travels through under its lifetime.
        let mut slots = reuse(std::mem::take(&mut self.slots));
        let result = match self.fill(raw, bytes, &mut slots) {
            Ok(()) => self.checked(raw, &slots, each).map_err(ReadError::Rejected),
            Err(unread) => Err(self.unread(unread, &slots)),
        };
        self.slots = reuse(slots);
        result.map(Some)
    }

    /// `invalid_json`
    fn fill<'a>(&mut self, raw: &RawRecord<'a>, bytes: &'a [u8], slots: &mut Vec<Captured<'a>>) -> Result<(), Unread> {
        match raw.payload {
            Payload::Csv { header, cells, .. } => {
                self.columns.fill(&self.plan, header, cells, bytes, slots)?;
                self.decoder.complete(slots, &mut self.scratch.texts)
            }
            Payload::Json(_) | Payload::TooLarge { .. } => {
                self.decoder.fill(raw, bytes, &self.plan, slots, &mut self.scratch)
            }
        }
    }

    /// What is wrong with a record whose slots are not, or wrongly, filled. A missing field and a bad time come before the schema.
    #[cold]
    fn unread(&mut self, unread: Unread, slots: &[Captured<'_>]) -> ReadError {
        if let Unread::BreaksSchema(_) = unread {
            let candidate = Candidate { plan: &self.plan, options: &self.options, slots, scratch: &self.scratch.texts };
            let before = candidate.required().and_then(|()| event_time(&candidate, &mut self.times));
            if let Err(rejection) = before {
                return rejection.into();
            }
        }
        unread.into()
    }

    /// `missing_field`, `bad_time`, `schema`, `future`
    fn checked<R>(
        &mut self,
        raw: &RawRecord<'_>,
        slots: &[Captured<'_>],
        each: impl FnOnce(&EventView<'_>) -> R,
    ) -> Result<R, Rejection> {
        let candidate = Candidate { plan: &self.plan, options: &self.options, slots, scratch: &self.scratch.texts };
        candidate.required()?;
        let time = event_time(&candidate, &mut self.times)?;
        let identity = candidate.identity()?;
        let ingest_time = raw.ingest_time.or_else(|| received_at(&candidate));
        let (time, clamped) = clamp(time, ingest_time, &self.options)?;
        self.clamped += u64::from(clamped);

        let mut values = reuse(std::mem::take(&mut self.values));
        values.extend(self.plan.fields.iter().map(|feed| value(candidate.find(feed))));
        let event_id = match &identity.event_id {
            Some(event_id) => event_id,
            None => position_id(&mut self.own_id, raw.position),
        };
        let result = each(&view(&identity, event_id, time, &values));
        self.values = reuse(values);
        Ok(result)
    }
}

fn view<'a>(
    identity: &'a Identity<'_>,
    event_id: &'a str,
    time: Micros,
    fields: &'a [FieldValue<'a>],
) -> EventView<'a> {
    EventView {
        event_id,
        app_id: &identity.app_id,
        user_id: &identity.user_id,
        session_id: identity.session_id.as_deref(),
        event_type: identity.event_type,
        time,
        fields,
    }
}

#[cold]
fn too_large(bytes: u64, event_bytes_max: u64) -> Rejection {
    Rejection::new(Reason::TooLarge, format!("{bytes} bytes, more than {event_bytes_max}"))
}

fn is_blank(bytes: &[u8]) -> bool {
    // The first byte of nearly every record settles it.
    bytes.iter().all(u8::is_ascii_whitespace)
}

fn event_time(candidate: &Candidate<'_>, times: &mut TimeReader) -> Result<Micros, Rejection> {
    let found = candidate.find(&candidate.plan.timestamp);
    times
        .read(found)
        .ok_or_else(|| Rejection::new(Reason::BadTime, format!("timestamp {} is not a time", shown(found))))
}

/// When the event was taken in. What `metadata` holds is never wrong, so what is no time is no ingest time.
fn received_at(candidate: &Candidate<'_>) -> Option<Micros> {
    match candidate.find(&candidate.plan.received_at) {
        Found::Text(text) | Found::Cell(text) => parse_rfc3339(text.as_bytes()),
        _ => None,
    }
}

/// An event time no further ahead of its ingest time than allowed, and whether it was clamped for that.
fn clamp(time: Micros, ingest_time: Option<Micros>, options: &FormatOptions) -> Result<(Micros, bool), Rejection> {
    let Some(ingest_time) = ingest_time else { return Ok((time, false)) };
    let ahead = time.saturating_sub(ingest_time);
    if ahead > options.future_max {
        let seconds = ahead as f64 / 1e6;
        return Err(Rejection::new(Reason::Future, format!("timestamp is {seconds} s ahead of its ingest time")));
    }
    Ok(if ahead > options.clamp_after { (ingest_time, true) } else { (time, false) })
}

fn position_id(buffer: &mut String, position: Position) -> &str {
    buffer.clear();
    write!(buffer, "{position}").expect("a String takes every write");
    buffer
}

#[inline]
fn value(found: Found<'_>) -> FieldValue<'_> {
    match found {
        Found::Missing | Found::Nested => FieldValue::Null,
        Found::Bool(truth) => FieldValue::Bool(truth),
        Found::Unsigned(number) => FieldValue::Number(number as f64),
        Found::Signed(number) => FieldValue::Number(number as f64),
        // Parsed once before, to see that it is finite; so large integers are rare.
        Found::Integer(text) => text.parse().map_or(FieldValue::Null, FieldValue::Number),
        Found::Float(number) => FieldValue::Number(number),
        Found::Text(text) => FieldValue::Text(text),
        Found::Cell(text) => FieldValue::Cell(text),
    }
}

/// Empties a vector for items of another lifetime; its memory stays.
fn reuse<A, B>(mut items: Vec<A>) -> Vec<B> {
    items.clear();
    items.into_iter().map(|_| unreachable!("the vector is empty")).collect()
}

/// Which column of a CSV file feeds which slot. A column's name is the member's path, with dots; of columns with one name the last counts.
#[derive(Debug, Default)]
struct Columns {
    header: ByteRecord,
    /// The column of each slot.
    by_slot: Vec<Option<usize>>,
}

impl Columns {
    /// Fills the slots from a row. An empty cell is null.
    fn fill<'a>(
        &mut self,
        plan: &Plan,
        header: &ByteRecord,
        cells: &'a ByteRecord,
        raw: &[u8],
        slots: &mut Vec<Captured<'a>>,
    ) -> Result<(), String> {
        self.learn(plan, header);
        if cells.len() != header.len() {
            return Err(format!("a row of {} cells under a header of {}", cells.len(), header.len()));
        }
        std::str::from_utf8(raw).map_err(|error| error.to_string())?;
        slots.clear();
        for column in &self.by_slot {
            let cell = column.and_then(|column| cells.get(column)).unwrap_or_default();
            let text = std::str::from_utf8(cell).map_err(|error| error.to_string())?;
            slots.push(if text.is_empty() { Captured::Absent } else { Captured::Cell(text) });
        }
        Ok(())
    }

    fn learn(&mut self, plan: &Plan, header: &ByteRecord) {
        if self.by_slot.len() == plan.members.slots() && self.header == *header {
            return;
        }
        let column = |slot: u16| {
            let name = plan.members.path(slot).join(".");
            header.iter().rposition(|column| column == name.as_bytes())
        };
        self.by_slot =
            (0..plan.members.slots() as u16).map(|slot| if slot == 0 { None } else { column(slot) }).collect();
        self.header = header.clone();
    }
}
