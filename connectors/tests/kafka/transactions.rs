//! Transactions: what is taken back is never read, and their markers, which are no records, leave no trace but a gap.

use std::time::Duration;

use rdkafka::producer::Producer;
use whisperer_connectors::kafka::KafkaOptions;
use whisperer_schemas::time::SECOND;

use crate::{
    brokers::{Brokers, Written, send},
    run::{NOW, World},
};

const TIMEOUT: Duration = Duration::from_secs(20);

#[test]
fn only_committed_transactions_are_read() {
    // Goal: records of an aborted transaction do not come, those of an open one wait, and positions pass the markers.
    let Some(brokers) = Brokers::real() else { return };
    let (topic, world) = (brokers.topic(1), World::default());
    let producer = brokers.producer(&[("transactional.id", &topic)]);
    producer.init_transactions(TIMEOUT).unwrap();
    let write = |text| {
        producer.begin_transaction().unwrap();
        send(&producer, &topic, &[Written::new(0, text)]);
        producer.flush(TIMEOUT).unwrap();
    };
    let options = KafkaOptions { idle_timeout: SECOND / 10, ..KafkaOptions::new(&brokers.address(), &topic) };
    let mut run = world.open(options.clone(), &[]);
    write("a");
    producer.commit_transaction(TIMEOUT).unwrap();
    write("taken back");
    producer.abort_transaction(TIMEOUT).unwrap();
    write("b");
    run.until_records(1);
    // An open transaction: its records are on their way, so this is no silence.
    for second in 1..4 {
        world.set_clock(NOW + second * SECOND);
        run.during(Duration::from_millis(200));
    }
    assert_eq!((run.texts(0), run.advances(0)), (vec!["a"], vec![]));
    producer.commit_transaction(TIMEOUT).unwrap();
    run.until_records(2);
    assert_eq!(run.texts(0), ["a", "b"]);
    // Offsets 0 to 5 are: a, marker, taken back, marker, b, marker.
    run.until("the last marker is passed", |run| run.position(0) == Some(6));
    let last = (6, NOW + 9 * SECOND);
    world.creep_until(&mut run, last.1, "an advance", |run| run.advances(0).last() == Some(&last));

    // The same from any position, markers included, and as a bounded job.
    for (position, expected) in [(0, vec!["a", "b"]), (1, vec!["b"]), (3, vec!["b"]), (5, vec![]), (6, vec![])] {
        let bounded = KafkaOptions { until_end: true, ..options.clone() };
        let mut rest = World::default().open(bounded, &[(0, position)]);
        while rest.step().unwrap() {}
        assert_eq!(rest.texts(0), expected, "from {position}");
        assert!(rest.chunks.last().unwrap().1.ended);
    }
    write("c");
    let uncommitted =
        KafkaOptions { properties: [("isolation.level".to_owned(), "read_uncommitted".to_owned())].into(), ..options };
    let mut dirty = World::default().open(uncommitted, &[]);
    dirty.until_records(4);
    assert_eq!(dirty.texts(0), ["a", "taken back", "b", "c"]);
    producer.abort_transaction(TIMEOUT).unwrap();
}
