//! What every sink into a log must do; the model in memory passes first.

use std::ops::Range;

use serde_json::Value as Json;
use whisperer_schemas::Row;

use super::sample_row;
use crate::{
    error::SinkError,
    log::{LogSink, OutboxSink},
};

/// A log under test, for rows of [`super::sample_schema`] that are readable at once.
pub trait LogHarness {
    /// Writer `worker` of `workers`, as after a start of the job.
    fn open(&mut self, worker: u32, workers: u32) -> Box<dyn LogSink>;

    /// What readers see, as JSON.
    fn visible(&self) -> Vec<String>;
}

/// A log under test, for rows of [`super::sample_schema`] that are readable with their checkpoint.
pub trait OutboxHarness {
    /// Writer `worker` of `workers`, as after a start of the job.
    fn open(&mut self, worker: u32, workers: u32) -> Box<dyn OutboxSink>;

    /// What readers see who wait for commits, as JSON.
    fn visible(&self) -> Vec<String>;

    /// Whether what is under test refuses writers of an earlier generation; some stand-ins for a log do not.
    fn fences(&self) -> bool {
        true
    }
}

/// Puts a log through all tests, each with a fresh harness.
pub fn run_logs(mut fresh: impl FnMut() -> Box<dyn LogHarness>) {
    let tests: [fn(&mut dyn LogHarness); 7] = [
        flushed_rows_are_readable,
        a_crash_repeats_nothing,
        a_crash_before_the_first_checkpoint_repeats_nothing,
        rows_of_other_workers_are_known,
        a_crash_while_catching_up_repeats_nothing,
        what_is_caught_up_is_forgotten,
        without_positions_everything_is_written,
    ];
    tests.into_iter().for_each(|test| test(fresh().as_mut()));
}

/// Puts a log that takes outboxes through all tests, each with a fresh harness.
pub fn run_outboxes(mut fresh: impl FnMut() -> Box<dyn OutboxHarness>) {
    let tests: [fn(&mut dyn OutboxHarness); 6] = [
        encoded_rows_are_invisible,
        publishing_twice_does_no_harm,
        recorded_numbers_are_found_again,
        outboxes_of_vanished_workers_go_out_once,
        earlier_generations_are_fenced,
        forgotten_numbers_go_out_again,
    ];
    tests.into_iter().for_each(|test| test(fresh().as_mut()));
}

fn rows(numbers: impl IntoIterator<Item = u64>) -> Vec<Row> {
    numbers.into_iter().map(sample_row).collect()
}

/// Every id of `numbers` is seen exactly `times` times, and nothing else is.
fn assert_seen(visible: Vec<String>, numbers: Range<u64>, times: usize, when: &str) {
    let mut seen: Vec<String> = visible.iter().map(|line| id_of(line)).collect();
    seen.sort();
    let expected: Vec<String> =
        numbers.flat_map(|number| std::iter::repeat_n(format!("{number:032x}"), times)).collect();
    assert_eq!(seen.len(), expected.len(), "number of rows {when}");
    assert_eq!(seen, expected, "ids {when}");
}

fn id_of(line: &str) -> String {
    let json: Json = serde_json::from_str(line).expect("a row is a JSON object");
    json["decision_id"].as_str().expect("a decision has an id").to_owned()
}

fn start(harness: &mut dyn LogHarness, workers: u32, positions: &[String]) -> Vec<Box<dyn LogSink>> {
    let open = |worker| {
        let mut sink = harness.open(worker, workers);
        sink.recover(positions).expect("a log recovers");
        sink
    };
    (0..workers).map(open).collect()
}

/// Each row is written by one of `sinks`, as keys are dealt to workers.
fn write(sinks: &mut [Box<dyn LogSink>], numbers: Range<u64>) {
    let count = sinks.len() as u64;
    for (worker, sink) in sinks.iter_mut().enumerate() {
        let own = numbers.clone().filter(|number| number % count == worker as u64);
        sink.write(rows(own)).expect("a log takes rows");
    }
}

fn flush(sinks: &mut [Box<dyn LogSink>]) -> Vec<String> {
    sinks.iter_mut().map(|sink| sink.flush().expect("a log acknowledges")).collect()
}

/// Rows can be read once they are flushed.
pub fn flushed_rows_are_readable(harness: &mut dyn LogHarness) {
    let mut sinks = start(harness, 1, &[]);
    write(&mut sinks, 0..1_000);
    flush(&mut sinks);
    assert_seen(harness.visible(), 0..1_000, 1, "after the flush");
}

/// What was written after a checkpoint is not written again after a crash, and what is missing is.
pub fn a_crash_repeats_nothing(harness: &mut dyn LogHarness) {
    let mut sinks = start(harness, 1, &[]);
    write(&mut sinks, 0..50);
    let positions = flush(&mut sinks);
    write(&mut sinks, 50..100);
    flush(&mut sinks);
    drop(sinks);
    let mut sinks = start(harness, 1, &positions);
    write(&mut sinks, 50..150);
    flush(&mut sinks);
    assert_eq!(sinks[0].passed_over(), 50);
    assert_seen(harness.visible(), 0..150, 1, "after the crash");
}

/// A position that was taken before the first row is as good as any.
pub fn a_crash_before_the_first_checkpoint_repeats_nothing(harness: &mut dyn LogHarness) {
    let mut sinks = start(harness, 1, &[]);
    let positions = flush(&mut sinks);
    write(&mut sinks, 0..30);
    flush(&mut sinks);
    drop(sinks);
    let mut sinks = start(harness, 1, &positions);
    write(&mut sinks, 0..40);
    flush(&mut sinks);
    assert_seen(harness.visible(), 0..40, 1, "after the crash");
}

/// Rows that another worker wrote are passed over as well: after a change of the number of workers keys have other owners.
pub fn rows_of_other_workers_are_known(harness: &mut dyn LogHarness) {
    let mut sinks = start(harness, 2, &[]);
    write(&mut sinks, 0..40);
    let positions = flush(&mut sinks);
    write(&mut sinks, 40..80);
    flush(&mut sinks);
    drop(sinks);
    let mut sinks = start(harness, 3, &positions);
    write(&mut sinks, 40..120);
    flush(&mut sinks);
    assert_eq!(sinks.iter().map(|sink| sink.passed_over()).sum::<u64>(), 40);
    assert_seen(harness.visible(), 0..120, 1, "with another number of workers");
}

/// A checkpoint that is taken before everything is made again lets the next recovery find what is still to come.
pub fn a_crash_while_catching_up_repeats_nothing(harness: &mut dyn LogHarness) {
    let mut sinks = start(harness, 1, &[]);
    write(&mut sinks, 0..10);
    let positions = flush(&mut sinks);
    write(&mut sinks, 10..60);
    flush(&mut sinks);
    drop(sinks);
    let mut sinks = start(harness, 2, &positions);
    write(&mut sinks, 10..30);
    let positions = flush(&mut sinks);
    drop(sinks);
    let mut sinks = start(harness, 1, &positions);
    write(&mut sinks, 30..80);
    flush(&mut sinks);
    assert_seen(harness.visible(), 0..80, 1, "after two crashes");
}

/// Once everything has come again, the stretch is forgotten: memory and the next recovery are bounded by one checkpoint.
pub fn what_is_caught_up_is_forgotten(harness: &mut dyn LogHarness) {
    let mut sinks = start(harness, 1, &[]);
    let positions = flush(&mut sinks);
    write(&mut sinks, 0..20);
    flush(&mut sinks);
    drop(sinks);
    let mut sinks = start(harness, 2, &positions);
    write(&mut sinks, 0..20);
    sinks.iter_mut().for_each(|sink| sink.caught_up());
    let positions = flush(&mut sinks);
    drop(sinks);
    assert_seen(harness.visible(), 0..20, 1, "when everything came again");
    let mut sinks = start(harness, 1, &positions);
    write(&mut sinks, 0..20);
    flush(&mut sinks);
    assert_eq!(sinks[0].passed_over(), 0);
    assert_seen(harness.visible(), 0..20, 2, "written anew after what was caught up");
}

/// Without positions nothing is passed over: a first start, or a wish to repeat.
pub fn without_positions_everything_is_written(harness: &mut dyn LogHarness) {
    for _ in 0..2 {
        let mut sinks = start(harness, 1, &[]);
        write(&mut sinks, 0..25);
        flush(&mut sinks);
    }
    assert_seen(harness.visible(), 0..25, 2, "written twice");
}

type Outboxes = Vec<Box<dyn OutboxSink>>;

fn generation(harness: &mut dyn OutboxHarness, workers: u32, earlier: &[String]) -> Outboxes {
    let open = |worker| {
        let mut sink = harness.open(worker, workers);
        sink.recover(earlier).expect("a log recovers");
        sink
    };
    (0..workers).map(open).collect()
}

fn identities(sinks: &Outboxes) -> Vec<String> {
    sinks.iter().map(|sink| sink.identity()).collect()
}

fn encoded(sink: &dyn OutboxSink, numbers: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let mut outbox = Vec::new();
    for row in numbers {
        sink.encoder().encode(&rows([row]), &mut outbox).expect("a row that fits");
    }
    outbox
}

fn publish(sink: &mut dyn OutboxSink, number: u64, outbox: &[u8]) {
    let own = sink.identity();
    sink.publish(&own, number, outbox).expect("a log takes an outbox");
}

/// Encoding shows nothing; publishing shows everything.
pub fn encoded_rows_are_invisible(harness: &mut dyn OutboxHarness) {
    let mut sinks = generation(harness, 1, &[]);
    let outbox = encoded(sinks[0].as_ref(), 0..500);
    assert_seen(harness.visible(), 0..0, 1, "before it is published");
    publish(sinks[0].as_mut(), 1, &outbox);
    assert_seen(harness.visible(), 0..500, 1, "once it is published");
    publish(sinks[0].as_mut(), 2, &[]);
    assert_seen(harness.visible(), 0..500, 1, "after an empty outbox");
}

/// A number that is out stays out, in the same generation and in the next.
pub fn publishing_twice_does_no_harm(harness: &mut dyn OutboxHarness) {
    let mut sinks = generation(harness, 1, &[]);
    let outboxes = [encoded(sinks[0].as_ref(), 0..10), encoded(sinks[0].as_ref(), 10..20)];
    for _ in 0..2 {
        publish(sinks[0].as_mut(), 4, &outboxes[0]);
        publish(sinks[0].as_mut(), 7, &outboxes[1]);
    }
    let earlier = identities(&sinks);
    drop(sinks);
    let mut sinks = generation(harness, 1, &earlier);
    publish(sinks[0].as_mut(), 7, &outboxes[1]);
    let next = encoded(sinks[0].as_ref(), 20..30);
    publish(sinks[0].as_mut(), 8, &next);
    assert_seen(harness.visible(), 0..30, 1, "after publishing again");
}

/// A new generation learns what is out; without a list of earlier identities, what its own have put out.
pub fn recorded_numbers_are_found_again(harness: &mut dyn OutboxHarness) {
    let mut sink = harness.open(0, 1);
    let none = [(sink.identity(), 0)].into();
    assert_eq!(sink.recover(&[]).expect("a log recovers"), none, "nothing is recorded at first");
    for number in 1..=5 {
        let outbox = encoded(sink.as_ref(), [number]);
        publish(sink.as_mut(), number, &outbox);
    }
    let own = sink.identity();
    drop(sink);
    for earlier in [vec![], vec![own.clone()]] {
        let numbers = harness.open(0, 1).recover(&earlier).expect("a log recovers");
        assert_eq!(numbers, [(own.clone(), 5)].into());
    }
}

/// Outboxes of workers that are no more are published by others, those that are out already are not.
pub fn outboxes_of_vanished_workers_go_out_once(harness: &mut dyn OutboxHarness) {
    let mut sinks = generation(harness, 4, &[]);
    let earlier = identities(&sinks);
    let outbox = |sinks: &Outboxes, at: usize| encoded(sinks[at].as_ref(), at as u64 * 10..at as u64 * 10 + 10);
    let outboxes: Vec<Vec<u8>> = (0..4).map(|at| outbox(&sinks, at)).collect();
    // A crash after two of four.
    publish(sinks[1].as_mut(), 3, &outboxes[1]);
    publish(sinks[3].as_mut(), 3, &outboxes[3]);
    drop(sinks);
    let mut handled = 0;
    for worker in 0..2 {
        let mut sink = harness.open(worker, 2);
        let numbers = sink.recover(&earlier).expect("a log recovers");
        for (identity, outbox) in earlier.iter().zip(&outboxes) {
            match sink.publish(identity, 3, outbox) {
                Ok(()) => handled += 1,
                Err(_) => {
                    // It belongs to the other worker's share, and this writer is of no more use.
                    assert!(!numbers.contains_key(identity));
                    sink = harness.open(worker, 2);
                    sink.recover(&earlier).expect("a log recovers");
                }
            }
        }
    }
    assert_eq!(handled, 4, "each is published by one worker");
    assert_seen(harness.visible(), 0..40, 1, "with fewer workers");
}

/// A writer whose identity was taken over publishes nothing more, whether or not its successor has the same number.
pub fn earlier_generations_are_fenced(harness: &mut dyn OutboxHarness) {
    if !harness.fences() {
        eprintln!("this stand-in for a log fences nobody: fencing is NOT tested here");
        return;
    }
    let mut zombies = generation(harness, 2, &[]);
    let earlier = identities(&zombies);
    let outboxes: Vec<_> = zombies.iter().map(|sink| encoded(sink.as_ref(), 0..10)).collect();
    let mut sinks = generation(harness, 1, &earlier);
    for (zombie, outbox) in zombies.iter_mut().zip(&outboxes) {
        let own = zombie.identity();
        let error = zombie.publish(&own, 1, outbox).expect_err("a zombie is refused");
        assert!(matches!(error, SinkError::TakenOver { .. }), "{error}");
    }
    assert_seen(harness.visible(), 0..0, 1, "of zombies");
    publish(sinks[0].as_mut(), 1, &outboxes[0]);
    assert_seen(harness.visible(), 0..10, 1, "of the new generation");
}

/// What is forgotten goes out again, also where numbers begin anew.
pub fn forgotten_numbers_go_out_again(harness: &mut dyn OutboxHarness) {
    let mut sinks = generation(harness, 1, &[]);
    let outbox = encoded(sinks[0].as_ref(), 0..10);
    publish(sinks[0].as_mut(), 9, &outbox);
    drop(sinks);
    let mut sinks = generation(harness, 1, &[]);
    sinks[0].forget().expect("a log forgets");
    publish(sinks[0].as_mut(), 1, &outbox);
    assert_seen(harness.visible(), 0..10, 2, "published anew");
    let own = sinks[0].identity();
    drop(sinks);
    let numbers = harness.open(0, 1).recover(&[]).expect("a log recovers");
    assert_eq!(numbers, [(own, 1)].into(), "the last number counts, not the largest");
}
