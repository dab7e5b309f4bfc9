//! What the tests of formats share: an event, options, and records read into texts.

use whisperer_connectors::{
    RawRecord,
    format::{EventReader, EventTypes, Format, FormatOptions, Ids, ReadError, Reason, mapping::Member},
    source::Payload,
};
use whisperer_operators::intake::{EventView, Field, FieldValue, Group};
use whisperer_schemas::{
    PartitionId, Position,
    time::{HOUR, SECOND, format_micros},
};

pub const GOOD: &str = r#"{"event_id":"evt_0123456789abcdef","app_id":"app_0123456789abcdef","user_id":"usr_0123456789abcdef","session_id":"ses_0123456789abcdef","event_type":"feature_used","timestamp":"2024-05-01T12:00:00Z","properties":{"feature":"export","amount":12.5,"deep":{"er":true}},"context":{"os":"Linux"},"metadata":{"received_at":"2024-05-01T12:00:01Z","batch_id":7}}"#;

pub fn options() -> FormatOptions {
    FormatOptions {
        ids: Ids::Strict,
        event_types: EventTypes::Contract(vec!["own_type".into()]),
        event_bytes_max: 1 << 20,
        future_max: HOUR,
        clamp_after: 5 * SECOND,
        format: Format::Native,
        app_id: "job".into(),
    }
}

pub fn any_options() -> FormatOptions {
    FormatOptions { ids: Ids::Any, event_types: EventTypes::Any, ..options() }
}

pub fn fields() -> Vec<Field> {
    let field = |group, path: &str| Field { group, path: path.split('.').map(str::to_owned).collect() };
    vec![
        field(Group::Properties, "feature"),
        field(Group::Properties, "amount"),
        field(Group::Properties, "deep.er"),
        field(Group::Context, "os"),
        field(Group::Metadata, "batch_id"),
    ]
}

pub fn raw(payload: Payload<'_>) -> RawRecord<'_> {
    let position = Position { partition: PartitionId(3), offset: 77 };
    RawRecord { position, chunk: 0, ingest_time: None, headers: &[], payload }
}

/// An event as text, or a reason.
pub type Outcome = Result<Option<String>, Reason>;

/// An event as a text.
pub fn shown(event: &EventView<'_>) -> String {
    let values = event.fields.iter().map(|value| match value {
        FieldValue::Null => "-".to_owned(),
        FieldValue::Bool(truth) => truth.to_string(),
        FieldValue::Number(number) => number.to_string(),
        FieldValue::Text(text) => format!("{text:?}"),
        FieldValue::Cell(text) => format!("cell {text}"),
    });
    let values = values.collect::<Vec<_>>().join(" ");
    let (id, app, user, kind) = (event.event_id, event.app_id, event.user_id, event.event_type);
    let session = event.session_id.unwrap_or("-");
    format!("{id} {app} {user} {session} {kind} {} | {values}", format_micros(event.time))
}

pub fn read(options: FormatOptions, payload: Payload<'_>) -> Outcome {
    let mut reader = EventReader::new(options, &fields()).expect("the options are valid");
    outcome(reader.read(&raw(payload), shown))
}

/// What reading came to, without the detail of a rejection, which is one line.
pub fn outcome(read: Result<Option<String>, ReadError>) -> Outcome {
    read.map_err(|error| {
        let ReadError::Rejected(rejection) = error else { panic!("{error}") };
        assert!(!rejection.detail.is_empty() && !rejection.detail.contains('\n'), "{:?}", rejection.detail);
        rejection.reason
    })
}

pub fn json(options: FormatOptions, line: &str) -> Outcome {
    read(options, Payload::Json(line.as_bytes()))
}

/// `GOOD` with one part replaced.
pub fn with(part: &str, by: &str) -> String {
    assert!(GOOD.contains(part), "{part}");
    GOOD.replacen(part, by, 1)
}

pub fn reason(line: &str) -> Option<Reason> {
    json(options(), line).err()
}

/// A member at a path with dots.
pub fn member(path: &str) -> Member {
    Member { path: path.split('.').map(str::to_owned).collect(), ..Member::default() }
}
