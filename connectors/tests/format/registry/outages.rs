//! A registry that does not answer: an error at the start, patience and then the end of the run afterwards, and never a dead letter.

use std::time::{Duration, Instant};

use whisperer_connectors::{
    SourceError,
    format::{Encoding, EventReader, ReadError, Reason, RegistryOptions, registry::Secret},
    source::Payload,
};

use super::{
    frame, framed, read_with,
    stand_in::{Failure, StandIn},
};
use crate::support::raw;

const AVRO: &str = r#"{"type":"record","name":"E","fields":[{"name":"user_id","type":"string"}]}"#;

fn open(options: RegistryOptions) -> Result<EventReader, SourceError> {
    EventReader::new(framed(Encoding::Avro, options, None), &[])
}

/// What reading a message of schema 1 comes to: it lacks fields, so that a readable one is a dead letter for that.
fn read(reader: &mut EventReader) -> Result<Option<()>, ReadError> {
    reader.read(&raw(Payload::Json(&frame(1, b"\x02u"))), |_| ())
}

fn refusal(options: RegistryOptions) -> String {
    match open(options) {
        Err(error @ SourceError::Registry(_)) => error.to_string(),
        other => panic!("{:?}", other.map(drop)),
    }
}

#[test]
fn a_registry_that_is_not_there_at_the_start_is_an_error() {
    // Goal: nothing listens, something else listens, nobody lets us in: each told with the address and the cause, and no password.
    let registry = StandIn::of("AVRO", AVRO);
    let gone = StandIn::of("AVRO", AVRO).options();
    let error = refusal(gone.clone());
    assert!(error.contains(gone.url.trim_end_matches('/')) && error.contains("refused"), "{error}");

    let mut elsewhere = registry.options();
    elsewhere.url += "other/path";
    assert!(refusal(elsewhere).contains("404"));
    registry.fail(&[Failure::Status(503)]);
    assert!(refusal(registry.options()).contains("503"));

    registry.require("Basic a2V5OnNlY3JldA==");
    assert!(refusal(registry.options()).contains("401"));
    let wrong = RegistryOptions {
        user: Some("key".into()),
        password: Some(Secret::Value("hidden".into())),
        ..registry.options()
    };
    assert!(!format!("{wrong:?}").contains("hidden"));
    assert!(!refusal(wrong).contains("hidden"));
}

#[test]
fn a_user_and_a_password_open_the_registry() {
    // Goal: basic authentication on every request; a variable that is not set is an error of the settings.
    let registry = StandIn::of("AVRO", AVRO);
    registry.require("Basic a2V5OnNlY3JldA==");
    let options =
        |password| RegistryOptions { user: Some("key".into()), password: Some(password), ..registry.options() };
    let mut reader = open(options(Secret::Value("secret".into()))).unwrap();
    assert_eq!(read_with(&mut reader, &frame(1, b"\x02u")), Err(Reason::MissingField));
    let unset = open(options(Secret::Environment("WHISPERER_TEST_NO_SUCH_VARIABLE".into())));
    assert!(matches!(unset, Err(SourceError::Settings(text)) if text.contains("WHISPERER_TEST_NO_SUCH_VARIABLE")));
}

#[test]
fn an_outage_is_waited_for() {
    // Goal: whatever goes wrong on the way to a schema is tried again, and the record is read as if nothing had been.
    let registry = StandIn::of("AVRO", AVRO);
    let mut reader = open(registry.options()).unwrap();
    registry.fail(&[Failure::Closed, Failure::Status(500), Failure::Status(404)]);
    assert_eq!(read_with(&mut reader, &frame(1, b"\x02u")), Err(Reason::MissingField));
    // The question at the start, three failures, the answer.
    assert_eq!(registry.requests().len(), 5);
}

#[test]
fn an_outage_that_lasts_ends_the_run() {
    // Goal: after `retry_for` the record is neither an event nor a dead letter; later ones fail at once, known schemas are still read.
    let registry = StandIn::of("AVRO", AVRO);
    let options = RegistryOptions { retry_for: Duration::from_millis(300), ..registry.options() };
    let mut reader = open(options.clone()).unwrap();
    let mut other = open(options).unwrap();
    assert!(matches!(read(&mut other), Err(ReadError::Rejected(_))));
    drop(registry);
    let start = Instant::now();
    let Err(ReadError::Failed(error)) = read(&mut reader) else { panic!("the registry is gone") };
    assert_eq!(error.what, "schema 1");
    assert!(start.elapsed() < Duration::from_secs(5));
    let start = Instant::now();
    assert_eq!(read(&mut reader), Err(ReadError::Failed(error)));
    assert!(start.elapsed() < Duration::from_millis(100));
    assert!(matches!(read(&mut other), Err(ReadError::Rejected(_))));
}
