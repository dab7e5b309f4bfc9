//! What cannot be read is said at once, and why.

use std::time::Duration;

use whisperer_connectors::{Source, SourceError, kafka::KafkaOptions};

use crate::{
    brokers::{Brokers, Written},
    run::{World, positions},
};

fn property(mut options: KafkaOptions, name: &str, value: &str) -> KafkaOptions {
    options.properties.insert(name.to_owned(), value.to_owned());
    options
}

#[test]
fn wrong_settings_are_errors_at_the_opening() {
    // Goal: properties that are ours, unknown or wrong, topics that are not there, brokers that are not there: each says what it is.
    let brokers = Brokers::mock();
    let topic = brokers.topic(1);
    let options = KafkaOptions::new(&brokers.address(), &topic);
    let open = |options| World::default().source(options).map(drop).unwrap_err();
    for (name, value) in [("group.id", "g"), ("fetch.wait", "1"), ("fetch.wait.max.ms", "soon")] {
        let error = open(property(options.clone(), name, value));
        assert!(matches!(error, SourceError::Settings(_)) && error.to_string().contains(name), "{error}");
    }
    let nowhere = KafkaOptions { open_timeout: Duration::from_millis(300), ..KafkaOptions::new("127.0.0.1:1", "t") };
    let error = open(nowhere);
    assert!(matches!(error, SourceError::Brokers { .. }), "{error}");
    assert!(error.to_string().contains("Connection refused"), "{error}");

    let Some(real) = Brokers::real() else { return };
    let error = open(KafkaOptions::new(&real.address(), "source-test-no-such-topic"));
    assert!(matches!(&error, SourceError::Topic { topic, .. } if topic == "source-test-no-such-topic"), "{error}");
    assert!(error.to_string().contains("do not have it"), "{error}");
    // A broker that speaks no SASL refuses a client that does.
    let mut sasl = property(KafkaOptions::new(&real.address(), "t"), "security.protocol", "SASL_PLAINTEXT");
    sasl.open_timeout = Duration::from_secs(5);
    for (name, value) in [("sasl.mechanism", "PLAIN"), ("sasl.username", "u"), ("sasl.password", "p")] {
        sasl.properties.insert(name.to_owned(), value.to_owned());
    }
    assert!(matches!(open(sasl), SourceError::Brokers { .. }));
}

#[test]
fn positions_that_the_topic_does_not_have_are_errors() {
    // Goal: beyond the end, and of partitions that are not there: the topic was made anew or lost records.
    for brokers in Brokers::all() {
        let topic = brokers.topic(2);
        brokers.write_texts(&topic, 0, &["a", "b"]);
        let source = World::default().source(KafkaOptions::new(&brokers.address(), &topic)).unwrap();
        let open = |at: &[(u32, u64)]| source.open(0, 1, &positions(at)).map(drop);
        assert!(open(&[(0, 2), (1, 0)]).is_ok());
        assert!(matches!(open(&[(0, 3), (1, 0)]), Err(SourceError::NoSuchOffset { offset: 3, .. })));
        assert!(matches!(open(&[(0, 0), (1, 0), (2, 5)]), Err(SourceError::NoSuchOffset { offset: 5, .. })));
    }
}

#[test]
fn an_offset_that_is_gone_is_fatal_and_explained() {
    // Goal: what the broker removed before it was read is never skipped, not at the opening and not later.
    let Some(brokers) = Brokers::real() else { return };
    let topic = brokers.topic(1);
    brokers.write_texts(&topic, 0, &["a", "b", "c", "d"]);
    let options = KafkaOptions::new(&brokers.address(), &topic);
    let source = World::default().source(options.clone()).unwrap();
    brokers.delete_before(&topic, 0, 3);
    let error = source.open(0, 1, &positions(&[(0, 1)])).map(drop).unwrap_err();
    assert!(matches!(error, SourceError::NoSuchOffset { offset: 1, .. }), "{error}");
    assert!(error.to_string().contains("holds 3 to 4") && error.to_string().contains("retention"), "{error}");
    // Without a position the reading begins at the oldest record that is there. That a topic is gone is believed after a while.
    let options = property(options, "topic.metadata.propagation.max.ms", "1000");
    let options = property(options, "topic.metadata.refresh.interval.ms", "200");
    let mut run = World::default().open(options, &[]);
    run.until_records(1);
    assert_eq!(run.texts(0), ["d"]);
    brokers.delete_topic(&topic);
    let error = run.until_error();
    assert!(matches!(error, SourceError::Topic { .. } | SourceError::NoSuchOffset { .. }), "{error}");
}

#[test]
fn records_without_a_key_are_refused_where_they_could_be_anywhere() {
    // Goal: a topic that nothing keeps in order per user is an error, unless it has one partition or the job promises.
    let brokers = Brokers::mock();
    let (one, two) = (brokers.topic(1), brokers.topic(2));
    for topic in [&one, &two] {
        brokers.write(topic, &[Written { key: None, ..Written::new(0, "a") }]);
    }
    let options = |topic: &str| KafkaOptions::new(&brokers.address(), topic);
    World::default().open(options(&one), &[]).until_records(1);
    World::default().open(KafkaOptions { keyed: false, ..options(&two) }, &[]).until_records(1);
    let error = World::default().open(options(&two), &[]).until_error();
    assert!(matches!(error, SourceError::Topic { .. }) && error.to_string().contains("0:0 has no key"), "{error}");
}
