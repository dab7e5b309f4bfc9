//! Faults of brokers, injected through the mock cluster: reading goes on, nothing is lost, nothing comes twice.

use std::{thread, time::Duration};

use rdkafka::{
    producer::Producer,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use whisperer_connectors::kafka::KafkaOptions;

use crate::{
    brokers::{Brokers, Written},
    run::{Run, World},
};

const ROUNDS: usize = 12;
const EACH: usize = 24;

/// Writes rounds of records while `fault` does its worst before each, and reads them.
fn endure(fault: impl Fn(&Brokers, &str, usize)) -> Run {
    let brokers = Brokers::mock();
    let topic = brokers.topic(2);
    let mut run = World::default().open(KafkaOptions::new(&brokers.address(), &topic), &[]);
    let texts: Vec<String> = (0..ROUNDS * EACH).map(|n| n.to_string()).collect();
    let producer = brokers.producer(&[("enable.idempotence", "true")]);
    for round in 0..ROUNDS {
        fault(&brokers, &topic, round);
        let records: Vec<_> = texts[round * EACH..(round + 1) * EACH]
            .iter()
            .enumerate()
            .map(|(n, text)| Written::new(n as i32 % 2, text))
            .collect();
        crate::brokers::send(&producer, &topic, &records);
        run.during(Duration::from_millis(50));
        producer.poll(Duration::from_millis(10));
    }
    brokers.cluster().broker_up(-1).unwrap();
    producer.flush(Duration::from_secs(30)).unwrap();
    run.until_records(ROUNDS * EACH);
    run.during(Duration::from_millis(200));
    let mut read: Vec<usize> = run.records.iter().map(|(.., read)| read.text.parse().unwrap()).collect();
    for partition in 0..2 {
        let offsets = run.records.iter().filter(|(.., read)| read.partition == partition).map(|(.., read)| read.offset);
        assert!(offsets.eq(0..(ROUNDS * EACH / 2) as u64), "offsets of partition {partition}");
    }
    read.sort_unstable();
    assert!(read.into_iter().eq(0..ROUNDS * EACH), "every record once");
    run
}

#[test]
fn request_errors_pass() {
    // Goal: whatever a broker answers to fetches, also by hanging up, is retried.
    use RDKafkaRespErr as Error;
    let errors = [
        Error::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        Error::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        Error::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
        Error::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        Error::RD_KAFKA_RESP_ERR__TRANSPORT,
        Error::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
    ];
    endure(|brokers, _, round| {
        brokers.cluster().request_errors(RDKafkaApiKey::Fetch, &[errors[round % errors.len()]; 3]);
        brokers.cluster().request_errors(RDKafkaApiKey::ListOffsets, &[errors[round % errors.len()]]);
    });
}

#[test]
fn leaders_may_change() {
    // Goal: the reading follows the leaders of the partitions.
    endure(|brokers, topic, round| {
        for partition in 0..2 {
            let leader = (round as i32 + partition) % 3 + 1;
            brokers.cluster().partition_leader(topic, partition, Some(leader)).unwrap();
        }
    });
}

#[test]
fn brokers_may_go_and_come() {
    // Goal: one broker after the other goes away for some rounds, then all of them.
    endure(|brokers, _, round| match round % 4 {
        0 => brokers.cluster().broker_down(round as i32 / 4 % 3 + 1).unwrap(),
        2 => brokers.cluster().broker_down(-1).unwrap(),
        _ => brokers.cluster().broker_up(-1).unwrap(),
    });
}

#[test]
fn slow_answers_do_not_block() {
    // Goal: a reading returns at once with what is there, however slow the brokers are.
    let run = endure(|brokers, _, round| {
        brokers.cluster().broker_round_trip_time(-1, Duration::from_millis(40 * (round as u64 % 3))).unwrap();
    });
    let brokers = Brokers::mock();
    let topic = brokers.topic(1);
    let mut slow = World::default().open(KafkaOptions::new(&brokers.address(), &topic), &[]);
    brokers.cluster().broker_round_trip_time(-1, Duration::from_millis(900)).unwrap();
    thread::sleep(Duration::from_millis(100));
    let start = std::time::Instant::now();
    for _ in 0..200 {
        slow.step().unwrap();
    }
    assert!(start.elapsed() < Duration::from_millis(800), "{:?} for 200 epochs", start.elapsed());
    assert!(run.epoch > 0);
}

/// Calls bin/broker for a broker that no other test uses; gives what it prints.
fn broker(command: &[&str]) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../bin/broker");
    let output = std::process::Command::new(path).args(command).env("WHISPERER_BROKER_PORT", "29092").output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Takes the broker down however the test ends.
struct Down;

impl Drop for Down {
    fn drop(&mut self) {
        broker(&["down", "--wipe"]);
    }
}

#[test]
fn a_real_broker_may_restart() {
    // Goal: a broker that goes away and comes back, with what it has on disk, is an outage and nothing else.
    if Brokers::real().is_none() {
        return;
    }
    let _down = Down;
    let brokers = Brokers::Real(broker(&["up", "--fresh"]));
    let (topic, world) = (brokers.topic(2), World::default());
    let mut run = world.open(KafkaOptions::new(&brokers.address(), &topic), &[]);
    for round in 0..2 {
        brokers.write_texts(&topic, 0, &["a", "b"]);
        run.until_records(4 * round + 2);
        broker(&["down"]);
        run.during(Duration::from_millis(1_500));
        broker(&["up"]);
        brokers.write_texts(&topic, 1, &["c", "d"]);
        run.until_records(4 * round + 4);
    }
    assert_eq!((run.texts(0), run.texts(1)), (vec!["a", "b", "a", "b"], vec!["c", "d", "c", "d"]));
}
