//! The engine's own parser agrees with the generator about every line.

use whisperer_schemas::{
    Position,
    time::{HOUR, SECOND},
};

use super::{super::GeneratorOptions, lines, small};
use crate::{
    format::{EventReader, EventTypes, Format, FormatOptions, Ids, ReadError},
    source::{Payload, RawRecord},
};

#[test]
fn lines_are_rejected_for_the_reason_that_they_were_spoilt_for() {
    // Goal: the counts of the summary are those of a job's dead letters. Method: every line through the native format with
    // the defaults of a job; those that are not spoilt must give user, type and time back.
    let options = GeneratorOptions { malformed: 0.1, events: 50_000, ..small() };
    let format = FormatOptions {
        ids: Ids::Strict,
        event_types: EventTypes::Contract(Vec::new()),
        event_bytes_max: 1 << 20,
        future_max: HOUR,
        clamp_after: 5 * SECOND,
        format: Format::Native,
        app_id: "test".to_owned(),
    };
    let mut reader = EventReader::new(format, &[]).unwrap();
    for line in lines(&options, 0) {
        let record = RawRecord {
            position: Position::default(),
            chunk: 0,
            ingest_time: None,
            headers: &[],
            payload: Payload::Json(&line.text),
        };
        let read = reader.read(&record, |event| (event.event_type.to_owned(), event.time));
        let expected = (line.event.kind.name().to_owned(), line.event.time);
        let shown = || String::from_utf8_lossy(&line.text[..line.text.len().min(2_000)]).into_owned();
        match (line.event.fault, read) {
            (None, Ok(event)) => assert_eq!(event, Some(expected), "{}", shown()),
            (Some(reason), Err(ReadError::Rejected(rejection))) => {
                assert_eq!(rejection.reason, reason, "{rejection:?} {}", shown())
            }
            (fault, read) => panic!("{fault:?}, but {read:?}: {}", shown()),
        }
    }
}
