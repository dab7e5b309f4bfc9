//! From topic to topic: the same with a real broker (`WHISPERER_KAFKA=host:port`), or librdkafka's mock cluster where there is none.

use std::time::Duration;

use crate::{
    rounds,
    running::{
        broker::{self, Broker},
        job::{Ended, Random},
        topics::{Told, VIEWS, Wiring, job},
    },
};

fn topics_survive_crashes(delivery: &str) {
    let broker = Broker::new();
    let events = broker.topic("events");
    let feed = broker.producer();
    feed.send(&events, &broker::events(40_000));
    feed.flush();
    let wiring = Wiring { delivery, views: true, ..Wiring::default() };
    let (undisturbed, topics) = job(&broker, &events, &wiring);
    undisturbed.finish(&["--until-end"]);
    let expected = Told::read(&broker, &topics);
    for ((view, _), told) in VIEWS.iter().zip(&expected.views) {
        let mut told: Vec<String> = told.values().map(ToString::to_string).collect();
        let mut lake: Vec<String> = undisturbed.view(view).iter().map(ToString::to_string).collect();
        told.sort();
        lake.sort();
        assert!(told.len() >= 5, "{view}: there is something to compare");
        assert_eq!(told, lake, "{view}: the topic adds up to the table in the lake");
    }
    let mut random = Random::new();
    let mut kills = 0;
    while kills < rounds().div_ceil(2) {
        let (job, topics) = job(&broker, &events, &wiring);
        let (mut workers, mut attempts) = (0, 0);
        loop {
            workers = workers % 3 + 1;
            let flags = ["--until-end", "--workers", &workers.to_string()];
            // Each time a little later: to fence the writers of the run before takes seconds.
            let most = Duration::from_millis(500 + random.below(2500) + 500 * attempts);
            attempts += 1;
            match job.run_for(&flags, &[], most) {
                Ended::Done => break,
                Ended::Killed => kills += 1,
                Ended::Failed(code, told) => panic!("seed {}: exit code {code}: {told}", random.seed()),
            }
        }
        let what = format!("seed {}, {kills} kills", random.seed());
        Told::read(&broker, &topics).assert_equals(&expected, &what);
    }
}

#[test]
fn a_topic_that_is_readable_at_once_holds_each_decision_once() {
    // Goal: with `delivery = "idempotent"`, kill -9 leaves each decision in the topic once, and the changelogs add up to the same
    // tables, those of views included.
    topics_survive_crashes("idempotent");
}

#[test]
fn a_topic_that_waits_for_checkpoints_holds_each_decision_once() {
    // Goal: the same with `delivery = "exactly_once"`, for a reader who waits for commits.
    topics_survive_crashes("exactly_once");
}
