//! Silence: when the clock of a partition advances by itself, and that a replay finds the same clocks.

use std::time::Duration;

use whisperer_connectors::{
    kafka::KafkaOptions,
    ticks::{Tick, TickLog},
};
use whisperer_schemas::{PartitionId, time::SECOND};

use crate::{
    brokers::Brokers,
    run::{NOW, Run, World},
};

fn options(brokers: &Brokers, topic: &str) -> KafkaOptions {
    // The watch asks every quarter of it, so that the test need not wait for long.
    KafkaOptions { idle_timeout: SECOND / 10, ..KafkaOptions::new(&brokers.address(), topic) }
}

#[test]
fn an_idle_partition_follows_the_clock_and_a_replay_repeats_it() {
    // Goal: advances are durable when they are handed out, and any replay applies each before the same record.
    for brokers in Brokers::all() {
        let (topic, world) = (brokers.topic(2), World::default());
        let mut run = world.open(options(&brokers, &topic), &[]);
        brokers.write_texts(&topic, 0, &["a", "b"]);
        run.until_records(2);
        // The clock stands: no advance, however long the silence is.
        run.during(Duration::from_millis(300));
        assert_eq!(run.advances(0), []);
        for seconds in [3, 4] {
            let step = NOW + seconds * SECOND;
            let both = |run: &Run| [0, 1].iter().all(|p| run.advances(*p).iter().any(|(_, to)| *to == step));
            world.creep_until(&mut run, step, "an advance", both);
            let tick = Tick { partition: PartitionId(0), offset: 2, time: step };
            assert!(world.ticks.ticks().unwrap().contains(&tick), "handed out before it was durable");
        }
        brokers.write_texts(&topic, 0, &["c", "d"]);
        run.until_records(4);
        world.creep_until(&mut run, NOW + 9 * SECOND, "the last advance", |run| run.advances(0).len() == 3);
        assert_eq!(run.log(0), ["a", "b", ">3", ">4", "c", "d", ">9"]);
        assert!(run.advances(1).iter().all(|(offset, _)| *offset == 0));

        // Of the advances at one place a replay needs the last; from a position at such a place, that one again.
        let mut replay = world.open(options(&brokers, &topic), &[]);
        replay.until("the replay", |run| run.texts(0).len() == 4 && !run.advances(1).is_empty());
        replay.during(Duration::from_millis(50));
        assert_eq!(replay.log(0), ["a", "b", ">4", "c", "d", ">9"]);
        let mut rest = world.open(options(&brokers, &topic), &[(0, 2), (1, 0)]);
        rest.until("the rest", |run| run.texts(0).len() == 2);
        rest.during(Duration::from_millis(50));
        assert_eq!(rest.log(0), [">4", "c", "d", ">9"]);
        // New advances lie beyond the replayed ones, also where the wall clock was set back.
        world.set_clock(NOW + 5 * SECOND);
        rest.during(Duration::from_millis(300));
        let last = (4, NOW + 12 * SECOND);
        world.creep_until(&mut rest, last.1, "an advance", |run| run.advances(0).last() == Some(&last));
        assert_eq!(rest.log(0), [">4", "c", "d", ">9", ">12"]);
    }
}

#[test]
fn a_partition_that_speaks_is_not_idle() {
    // Goal: records that come more often than the timeout keep the clock where the log has it.
    let brokers = Brokers::mock();
    let (topic, world) = (brokers.topic(1), World::default());
    let options = KafkaOptions { idle_timeout: 2 * SECOND, ..options(&brokers, &topic) };
    let mut run = world.open(options, &[]);
    for second in 0..5 {
        world.set_clock(NOW + second * SECOND);
        brokers.write_texts(&topic, 0, &["x"]);
        run.until_records(second as usize + 1);
        run.during(Duration::from_millis(600));
    }
    assert_eq!(run.advances(0), []);
    for second in 5..9 {
        world.set_clock(NOW + second * SECOND);
        run.during(Duration::from_millis(600));
    }
    assert!(!run.advances(0).is_empty());
}

#[test]
fn an_outage_is_not_silence() {
    // Goal: brokers that are away let no clock advance; when they are back, the silence begins anew, and nothing was lost.
    let brokers = Brokers::mock();
    let (topic, world) = (brokers.topic(1), World::default());
    let mut run = world.open(options(&brokers, &topic), &[]);
    brokers.write_texts(&topic, 0, &["a"]);
    run.until_records(1);
    run.during(Duration::from_millis(200));
    brokers.cluster().broker_down(-1).unwrap();
    run.during(Duration::from_millis(300));
    for second in 1..5 {
        world.set_clock(NOW + second * SECOND);
        run.during(Duration::from_millis(300));
    }
    assert_eq!(run.advances(0), []);
    brokers.cluster().broker_up(-1).unwrap();
    brokers.write_texts(&topic, 0, &["b"]);
    run.until_records(2);
    world.creep_until(&mut run, NOW + 20 * SECOND, "an advance", |run| !run.advances(0).is_empty());
    assert_eq!(run.log(0), ["a", "b", ">20"]);
}
