//! A topic that grows under a running job.

use std::{sync::Arc, time::Duration};

use whisperer_connectors::{
    Source, SourceError,
    kafka::KafkaOptions,
    ticks::{Tick, TickLog},
};
use whisperer_schemas::{Epoch, Micros, PartitionId, time::SECOND};

use crate::{
    brokers::Brokers,
    run::{NOW, World, positions},
};

fn options(brokers: &Brokers, topic: &str, allow_repartition: bool) -> KafkaOptions {
    let properties = [("topic.metadata.refresh.interval.ms".to_owned(), "100".to_owned())].into();
    KafkaOptions { allow_repartition, properties, ..KafkaOptions::new(&brokers.address(), topic) }
}

#[test]
fn new_partitions_stop_the_job_unless_it_allows_them() {
    // Goal: keys have moved, so going on is for the job's author to say; after a restart too.
    let Some(brokers) = Brokers::real() else { return };
    let (topic, world) = (brokers.topic(1), World::default());
    let mut run = world.open(options(&brokers, &topic, false), &[]);
    run.during(Duration::from_millis(100));
    brokers.add_partitions(&topic, 3);
    let error = run.until_error();
    assert!(matches!(error, SourceError::Repartitioned { known: 1, found: 3, .. }), "{error}");
    assert!(error.to_string().contains("allow_repartition"), "{error}");
    let again = world.source(options(&brokers, &topic, false)).unwrap();
    let error = again.open(0, 1, &positions(&[(0, 0)])).map(drop).unwrap_err();
    assert!(matches!(error, SourceError::Repartitioned { known: 1, found: 3, .. }), "{error}");
    // A job that never ran has no keys to move.
    assert!(again.open(0, 1, &positions(&[])).is_ok());
}

#[test]
fn a_new_partition_begins_at_the_global_watermark() {
    // Goal: it is announced first, waits for the watermark of that epoch, then begins there, durably; no record comes earlier.
    let Some(brokers) = Brokers::real() else { return };
    let (topic, world) = (brokers.topic(1), World::default());
    let options = options(&brokers, &topic, true);
    let mut run = world.open(options.clone(), &[]);
    world.surroundings.watermark.set(Epoch(0), NOW);
    run.during(Duration::from_millis(100));
    brokers.add_partitions(&topic, 2);
    brokers.write_texts(&topic, 1, &["a"]);
    run.until("the announcement", |run| run.position(1).is_some());
    assert_eq!(run.source.partitions(), 2);
    let announced = run.chunks.iter().find(|(_, chunk)| chunk.partition == PartitionId(1)).unwrap().0;
    let tick = |time| Tick { partition: PartitionId(1), offset: 0, time };
    assert_eq!(world.ticks.ticks().unwrap(), [tick(Micros::MIN)]);
    // What is known of earlier epochs does not count: the watermark may have gone on since.
    world.surroundings.watermark.set(Epoch(announced - 1), NOW + SECOND);
    run.during(Duration::from_millis(300));
    assert_eq!((run.advances(1), run.texts(1)), (vec![], vec![]));

    // A crash here: the announcement is repeated by the next incarnation, whether its checkpoint knows the partition or not.
    for known in [vec![(0, 0)], vec![(0, 0), (1, 0)]] {
        let mut later = world.clone();
        later.surroundings.watermark = Arc::default();
        let mut next = later.open(options.clone(), &known);
        next.during(Duration::from_millis(200));
        assert_eq!((next.advances(1), next.texts(1)), (vec![], vec![]));
    }
    world.surroundings.watermark.set(Epoch(announced), NOW + 2 * SECOND);
    run.until_records(1);
    let begins = NOW + 2 * SECOND + options.out_of_orderness;
    assert_eq!(run.advances(1), [(0, begins)]);
    assert_eq!(run.log(1), [format!(">{}", (begins - NOW) / SECOND), "a".to_owned()]);
    assert!(world.ticks.ticks().unwrap().contains(&tick(begins)));

    // A replay from before the partition was there begins it at the same time, without waiting.
    let mut replay = world.open(options, &[(0, 0)]);
    replay.until_records(1);
    assert_eq!(replay.log(1), run.log(1));
}
