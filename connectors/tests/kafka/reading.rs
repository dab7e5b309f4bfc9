//! What is written to a topic is what is read, once, wherever the reading begins.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use whisperer_connectors::{
    EpochSize, Source,
    conformance::{Seen, check},
    kafka::{KafkaOptions, Start},
};
use whisperer_schemas::time::SECOND;

use crate::{
    brokers::{Brokers, Written},
    run::{NOW, World, positions},
};

#[test]
fn a_topic_conforms() {
    // Goal: the suite of all sources, on partitions of different lengths, one of them empty; tombstones, empty and long records.
    for brokers in Brokers::all() {
        let topic = brokers.topic(4);
        let texts: Vec<String> = (0..60).map(|n| format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(n % 23))).collect();
        let mut records: Vec<_> =
            texts.iter().enumerate().map(|(n, text)| Written::new([0, 0, 0, 1, 3][n % 5], text)).collect();
        records.push(Written { value: None, ..Written::new(1, "") });
        records.push(Written::new(1, ""));
        let long = "y".repeat(200);
        records.push(Written::new(3, &long));
        brokers.write(&topic, &records);

        let mut expected = vec![Vec::<Seen>::new(); 4];
        for record in &records {
            let partition = &mut expected[record.partition as usize];
            let text = record.value.unwrap_or(b"null");
            partition.push((partition.len() as u64, text[..text.len().min(100)].to_vec()));
        }
        for epoch_size in [EpochSize::Records(7), EpochSize::Bytes(64), EpochSize::Bytes(1 << 20)] {
            let options = KafkaOptions {
                until_end: true,
                epoch_size,
                event_bytes_max: 100,
                ..KafkaOptions::new(&brokers.address(), &topic)
            };
            let source = World::default().source(options).unwrap();
            assert_eq!(source.size(), Some(whisperer_connectors::source::Size::Records(63)));
            check(&source, &expected);
        }
    }
}

#[test]
fn a_live_topic_is_read_as_it_grows() {
    // Goal: content, headers, times and positions arrive; every partition reports every epoch; what comes later is read too.
    for brokers in Brokers::all() {
        let topic = brokers.topic(2);
        let millis = NOW / 1_000;
        let headers: &[(&str, Option<&[u8]>)] = &[("ce_id", Some(b"1")), ("empty", None)];
        brokers.write(&topic, &[Written { headers, millis: Some(millis), ..Written::new(1, "a") }]);
        let world = World::default();
        let options = KafkaOptions { event_bytes_max: 10, ..KafkaOptions::new(&brokers.address(), &topic) };
        let mut run = world.open(options.clone(), &[]);
        assert!(run.source.live() && run.source.partitions() == 2 && run.source.size().is_none());
        run.until_records(1);
        let read = run.records[0].2.clone();
        assert_eq!((read.partition, read.offset, read.text.as_str()), (1, 0, "a"));
        assert_eq!(read.ingest_time, Some(NOW));
        assert_eq!(read.headers, [("ce_id".to_owned(), b"1".to_vec()), ("empty".to_owned(), vec![])]);

        brokers.write_texts(&topic, 1, &["b", "longer than ten bytes"]);
        brokers.write_texts(&topic, 0, &["c"]);
        run.until_records(4);
        assert_eq!(run.texts(1), ["a", "b", "longer tha… 21"]);
        assert_eq!(run.texts(0), ["c"]);
        assert_eq!((run.position(0), run.position(1)), (Some(1), Some(3)));
        assert_eq!(run.chunks.len() as u64, 2 * run.epoch);
        run.until("the ends", |run| run.source.ends() == positions(&[(0, 1), (1, 3)]));

        // From a checkpoint's positions on, without headers where nobody wants them.
        let mut rest = world.open(KafkaOptions { headers: false, ..options }, &[(0, 0), (1, 2)]);
        rest.until_records(2);
        assert_eq!((rest.texts(0), rest.texts(1)), (vec!["c"], vec!["longer tha… 21"]));
    }
}

#[test]
fn partitions_are_dealt_to_workers() {
    // Goal: each partition is read by the worker whose number it has, modulo the workers, and by no other.
    let brokers = Brokers::mock();
    let topic = brokers.topic(5);
    for partition in 0..5 {
        brokers.write_texts(&topic, partition, &["x"]);
    }
    let options = KafkaOptions { until_end: true, ..KafkaOptions::new(&brokers.address(), &topic) };
    let source = World::default().source(options).unwrap();
    for worker in 0..3_usize {
        let mut reader = source.open(worker, 3, &positions(&[])).unwrap();
        let (mut seen, mut epoch) = (BTreeMap::<u32, u32>::new(), 0);
        while reader
            .read(
                whisperer_schemas::Epoch(epoch),
                &mut |raw| *seen.entry(raw.position.partition.0).or_default() += 1,
                &mut Vec::new(),
            )
            .unwrap()
        {
            epoch += 1;
        }
        let expected = (0..5).filter(|partition| partition % 3 == worker as u32).map(|partition| (partition, 1));
        assert_eq!(seen, expected.collect());
    }
}

#[test]
fn a_partition_without_a_position_begins_where_the_job_says() {
    // Goal: earliest, latest and a time; a position counts more than any of them.
    for brokers in Brokers::all() {
        let topic = brokers.topic(1);
        let at = |seconds: i64, text| Written { millis: Some(NOW / 1_000 + seconds * 1_000), ..Written::new(0, text) };
        brokers.write(&topic, &[at(0, "a"), at(10, "b"), at(20, "c")]);
        let options = |start| KafkaOptions { start, ..KafkaOptions::new(&brokers.address(), &topic) };
        let world = World::default();
        let mut latest = world.open(options(Start::Latest), &[]);
        latest.until("a chunk", |run| run.position(0) == Some(3));
        let mut timed = world.open(options(Start::Time(NOW + 5 * SECOND)), &[]);
        let mut ahead = world.open(options(Start::Time(NOW + 50 * SECOND)), &[]);
        let mut resumed = world.open(options(Start::Latest), &[(0, 2)]);
        brokers.write(&topic, &[at(30, "d")]);
        latest.until_records(1);
        resumed.until_records(2);
        assert_eq!((latest.texts(0), resumed.texts(0)), (vec!["d"], vec!["c", "d"]));
        // The mock cluster answers a question about times with the end.
        if matches!(brokers, Brokers::Real(_)) {
            timed.until_records(3);
            ahead.until_records(1);
            assert_eq!((timed.texts(0), ahead.texts(0)), (vec!["b", "c", "d"], vec!["d"]));
        }
    }
}

#[test]
fn offsets_are_committed_for_others_to_see() {
    // Goal: after a checkpoint the group shows its positions, those of this reader's partitions; nobody joins the group.
    for brokers in Brokers::all() {
        let topic = brokers.topic(2);
        brokers.write_texts(&topic, 0, &["a", "b", "c"]);
        let group = format!("group-of-{topic}");
        let options = KafkaOptions { group: group.clone(), ..KafkaOptions::new(&brokers.address(), &topic) };
        let mut run = World::default().open(options, &[]);
        run.until_records(3);
        run.reader.committed(&positions(&[(0, 2), (1, 0), (7, 9)]));
        let observer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", brokers.address()).set("group.id", &group).create().unwrap();
        let seen = || {
            let mut list = TopicPartitionList::new();
            list.add_partition_range(&topic, 0, 1);
            let list = observer.committed_offsets(list, Duration::from_secs(10)).unwrap();
            list.elements().iter().map(|element| element.offset()).collect::<Vec<_>>()
        };
        run.until("the group's offsets", |_| seen() == [Offset::Offset(2), Offset::Offset(0)]);
    }
}
