//! Crashes, fenced writers, and brokers that refuse, stall or go away.

use std::{
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
    types::{RDKafkaApiKey as Api, RDKafkaRespErr as Answer},
};
use whisperer_schemas::Row;
use whisperer_sinks::{
    Fault, KafkaLog, KafkaOptions, KafkaOutbox, LogSink, OutboxSink, SinkError,
    conformance::{sample_row, sample_schema},
};

use super::broker::{Broker, PATIENCE};

fn rows(numbers: std::ops::Range<u64>) -> Vec<Row> {
    numbers.map(sample_row).collect()
}

fn log(options: &KafkaOptions) -> KafkaLog {
    KafkaLog::open(sample_schema(), options).expect("a log opens")
}

/// An outbox sink that has recovered, and an outbox with ten rows.
fn outbox(options: &KafkaOptions) -> (KafkaOutbox, Vec<u8>) {
    let mut sink = KafkaOutbox::open(sample_schema(), options).expect("a log opens");
    sink.recover(&[]).expect("recovers");
    let mut outbox = Vec::new();
    sink.encoder().encode(&rows(0..10), &mut outbox).expect("rows");
    (sink, outbox)
}

fn publish(sink: &mut KafkaOutbox, number: u64, outbox: &[u8]) -> Result<(), SinkError> {
    let own = sink.identity();
    sink.publish(&own, number, outbox)
}

fn with(mut options: KafkaOptions, properties: &[(&str, &str)]) -> KafkaOptions {
    options.properties.extend(properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    options
}

/// Goal: a crash between the beginning of a transaction and its commit leaves nothing visible, delays the next generation
/// no longer than fencing takes, and the outbox goes out once.
#[test]
fn a_crash_inside_a_transaction() {
    let broker = Broker::start();
    if !broker.is_real() {
        eprintln!("the mock cluster shows open transactions: crashes inside of one are NOT tested here");
        return;
    }
    let topic = broker.topic("decisions");
    let options = broker.options(&topic, 0, 1);
    let (mut sink, rows) = outbox(&options);
    publish(&mut sink, 1, &rows).expect("published");
    let identity = sink.identity();
    drop(sink);
    // The same writer, which dies with its rows sent and its number not committed.
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &broker.address).set("transactional.id", &identity);
    let dying: BaseProducer = config.create().expect("a producer");
    dying.init_transactions(PATIENCE).expect("an identity");
    dying.begin_transaction().expect("a transaction");
    for topic in [topic.clone(), format!("whisperer.engagement.{topic}.commits")] {
        let value = r#"{"number":2,"by":"x"}"#;
        dying.send(BaseRecord::to(&topic).key(&identity).payload(value)).expect("room");
    }
    dying.flush(PATIENCE).expect("delivered");
    std::mem::forget(dying);
    assert_eq!(broker.read(&topic).len(), 10, "an open transaction is not seen");
    let started = Instant::now();
    let mut next = KafkaOutbox::open(sample_schema(), &options).expect("a log opens");
    let numbers = next.recover(std::slice::from_ref(&identity)).expect("recovers");
    assert!(started.elapsed() < Duration::from_secs(20), "the open transaction is given up at once");
    assert_eq!(numbers, [(identity.clone(), 1)].into(), "what was not committed is not recorded");
    publish(&mut next, 2, &rows).expect("published");
    assert_eq!(broker.read(&topic).len(), 20);
}

/// Goal: errors that pass are survived without a word, and nothing is lost or doubled by them.
#[test]
fn passing_errors_heal() {
    let broker = Broker::mock();
    let mock = broker.mock.as_ref().expect("a mock");
    let topic = broker.topic("decisions");
    let mut sink = log(&broker.options(&topic, 0, 1));
    let passing = [
        Answer::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        Answer::RD_KAFKA_RESP_ERR__TRANSPORT,
        Answer::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    ];
    mock.request_errors(Api::Produce, &passing);
    mock.broker_round_trip_time(-1, Duration::from_millis(20)).expect("a slow broker");
    sink.write(rows(0..500)).expect("rows");
    sink.flush().expect("acknowledged");
    assert_eq!(broker.read(&topic).len(), 500);
    let topic = broker.topic("decisions");
    let (mut sink, outbox) = outbox(&broker.options(&topic, 0, 1));
    mock.request_errors(Api::AddPartitionsToTxn, &[Answer::RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS]);
    mock.request_errors(Api::EndTxn, &[Answer::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS]);
    publish(&mut sink, 1, &outbox).expect("published");
    assert_eq!(broker.read(&topic).len(), 10);
}

/// Goal: a message that is refused for good is an error of `write` or `flush` that says what to do, and the sink does nothing more.
#[test]
fn refused_messages_are_errors() {
    let broker = Broker::mock();
    let mock = broker.mock.as_ref().expect("a mock");
    let mut sink = log(&broker.options(&broker.topic("decisions"), 0, 1));
    mock.request_errors(Api::Produce, &[Answer::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED]);
    let error = sink.write(rows(0..1)).and_then(|()| sink.flush()).expect_err("refused");
    assert!(error.to_string().contains("right to write"), "{error}");
    assert_eq!((error.fault(), error.retry()), (Fault::User, false));
    assert!(matches!(sink.write(rows(1..2)), Err(SinkError::Broken { .. })));
    assert!(matches!(sink.flush(), Err(SinkError::Broken { .. })));
}

/// Goal: a row that is larger than the topic takes is named as such, both at once and in a transaction, which is not tried for ever.
#[test]
fn rows_that_are_too_large() {
    let broker = Broker::start();
    let small = [("message.max.bytes", "1000")];
    let mut row = sample_row(1);
    row.values[4] = whisperer_schemas::Value::text("u".repeat(2_000));
    let mut sink = log(&with(broker.options(&broker.topic("decisions"), 0, 1), &small));
    let error = sink.write(vec![row.clone()]).and_then(|()| sink.flush()).expect_err("too large");
    assert!(error.to_string().contains("message.max.bytes"), "{error}");
    let options = with(broker.options(&broker.topic("decisions"), 0, 1), &small);
    let (mut sink, _) = outbox(&options);
    let mut rows = Vec::new();
    sink.encoder().encode(&[row], &mut rows).expect("rows");
    let started = Instant::now();
    let error = publish(&mut sink, 1, &rows).expect_err("too large");
    assert!(error.to_string().contains("message.max.bytes"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10), "tried once");
    assert!(matches!(publish(&mut sink, 2, &rows), Err(SinkError::Broken { .. })));
}

/// Goal: while no broker answers, writing waits instead of filling memory; it goes on when they are back.
#[test]
fn brokers_that_come_back() {
    let broker = Broker::mock();
    let topic = broker.topic("decisions");
    let small = [("queue.buffering.max.messages", "100"), ("reconnect.backoff.max.ms", "500")];
    let mut sink = log(&with(broker.options(&topic, 0, 1), &small));
    let mock = broker.mock.as_ref().expect("a mock");
    mock.broker_down(-1).expect("brokers go");
    let outage = Duration::from_millis(1_500);
    let started = Instant::now();
    let writer = thread::spawn(move || {
        sink.write(rows(0..1_000)).expect("rows");
        let waited = started.elapsed();
        sink.flush().expect("acknowledged");
        waited
    });
    thread::sleep(outage);
    mock.broker_up(-1).expect("brokers come");
    let waited = writer.join().expect("no panic");
    assert!(waited >= outage, "writing waits for room: {waited:?}");
    assert_eq!(broker.read(&topic).len(), 1_000);
}

/// Goal: brokers that stay away end a write and a flush with an error that names them, after the time that the settings give.
#[test]
fn brokers_that_stay_away() {
    let broker = Broker::mock();
    let impatient = [("message.timeout.ms", "1500")];
    let mut sink = log(&with(broker.options(&broker.topic("decisions"), 0, 1), &impatient));
    broker.mock.as_ref().expect("a mock").broker_down(-1).expect("brokers go");
    sink.write(rows(0..10)).expect("room for ten");
    let error = sink.flush().expect_err("nobody answers");
    assert!(error.to_string().contains("are the brokers up"), "{error}");
    assert_eq!((error.fault(), error.retry()), (Fault::External, true));
}

/// Goal: a transaction that the coordinator gives up is made again; being fenced is told apart from it and final.
#[test]
fn transactions_that_are_given_up() {
    let broker = Broker::mock();
    let mock = broker.mock.as_ref().expect("a mock");
    let topic = broker.topic("decisions");
    let (mut sink, outbox) = outbox(&broker.options(&topic, 0, 1));
    mock.request_errors(Api::AddPartitionsToTxn, &[Answer::RD_KAFKA_RESP_ERR_OPERATION_NOT_ATTEMPTED]);
    publish(&mut sink, 1, &outbox).expect("published at the second attempt");
    assert_eq!(broker.read(&topic).len(), 10);
    mock.request_errors(Api::AddPartitionsToTxn, &[Answer::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED]);
    let error = publish(&mut sink, 2, &outbox).expect_err("no right to write");
    assert!(error.to_string().contains("right to write"), "{error}");
    let (mut sink, outbox) = self::outbox(&broker.options(&broker.topic("decisions"), 0, 1));
    mock.request_errors(Api::EndTxn, &[Answer::RD_KAFKA_RESP_ERR_PRODUCER_FENCED]);
    let error = publish(&mut sink, 1, &outbox).expect_err("fenced");
    assert!(matches!(error, SinkError::TakenOver { .. }), "{error}");
    assert!(error.to_string().contains("started twice"), "{error}");
}

/// Goal: a topic that is not there, and brokers that are not there, are errors at the start that say so.
#[test]
fn nothing_to_write_to() {
    let broker = Broker::start();
    let nowhere = KafkaOptions { brokers: "127.0.0.1:1".into(), ..broker.options("nowhere", 0, 1) };
    let nowhere = with(nowhere, &[("socket.timeout.ms", "2000"), ("socket.connection.setup.timeout.ms", "1000")]);
    let error = KafkaLog::open(sample_schema(), &KafkaOptions { create: None, ..nowhere }).expect_err("no broker");
    assert!(error.to_string().contains("are the brokers up"), "{error}");
    let wrong = with(broker.options("wrong", 0, 1), &[("linger.msec", "5")]);
    let error = KafkaLog::open(sample_schema(), &wrong).expect_err("no such property");
    assert!(error.to_string().contains("linger.msec"), "{error}");
}
