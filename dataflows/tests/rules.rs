//! The rules of SEMANTICS and JOBS, one test each, named after them; each with the smallest log that would break it.

mod support;

use std::sync::Arc;

use support::{Event, Ran, compile, d, event, event_id, h, m, native, number, partition, run, s, text, time, user_id};
use whisperer_connectors::memory::MemoryPartition;
use whisperer_operators::{
    job::CompiledJob,
    reference::NamedRow,
    spec::{
        Aggregate, FeatureSpec, JobSpec, Located, ModelSpec, ModelTerm, ModelValue, ScoreBody, ScoreSpec, SnapshotSpec,
        StageSpec, Transform, TriggerSpec,
    },
};
use whisperer_schemas::{
    Digest, KeyHash, Micros, TableSchema,
    decision::decision_id,
    row_hash,
    time::{DAY, HOUR, MINUTE, SECOND},
};

/// A feature over all events.
fn feature(name: &str, aggregate: Aggregate, window: Option<Micros>) -> FeatureSpec {
    let mut feature = FeatureSpec::new(name, aggregate);
    feature.window = window.map(Located::nowhere);
    feature
}

/// The same of a property.
fn feature_of(name: &str, aggregate: Aggregate, of: &str, window: Option<Micros>) -> FeatureSpec {
    FeatureSpec { of: Some(of.into()), ..feature(name, aggregate, window) }
}

fn trigger(name: &str, when: &str, rearm: Option<&str>, cooldown: Micros) -> TriggerSpec {
    TriggerSpec { rearm: rearm.map(Into::into), cooldown, ..TriggerSpec::new(name, when) }
}

/// A job of these features and triggers.
fn job(features: Vec<FeatureSpec>, triggers: Vec<TriggerSpec>) -> JobSpec {
    JobSpec { features, triggers, ..JobSpec::default() }
}

/// Runs a job over one partition, each line an epoch of its own.
fn run_log(spec: &JobSpec, log: &[Event]) -> Ran {
    run_partitions(spec, &[log.to_vec()])
}

fn lines(log: &[Event]) -> Vec<Vec<u8>> {
    log.iter().map(Event::line).collect()
}

/// Runs a job over partitions, and makes sure that neither cuts nor workers matter.
fn run_partitions(spec: &JobSpec, logs: &[Vec<Event>]) -> Ran {
    let job = compile(spec);
    let cut = |cuts: &[Vec<usize>]| -> Vec<MemoryPartition> {
        logs.iter().map(|log| partition(lines(log), cuts.to_vec())).collect()
    };
    let each = run(&job, &cut(&vec![vec![1]; 64]), 1, &native());
    for (cuts, workers) in [(vec![], 1), (vec![vec![1, 1, 1]; 32], 3), (vec![vec![0, 2, 1]; 32], 2)] {
        let other = run(&job, &cut(&cuts), workers, &native());
        support::difference("decisions", &each.decisions, &other.decisions).expect("cuts and workers do not matter");
        support::difference("profiles", &each.profiles, &other.profiles).expect("cuts and workers do not matter");
    }
    each
}

/// Trigger, seconds after the zero of the clocks, and cause of every decision.
fn fired(ran: &Ran) -> Vec<(String, f64, String)> {
    let one = |row: &NamedRow| {
        let seconds = (time(row, "event_time") - s(0)) as f64 / SECOND as f64;
        (text(row, "trigger").to_owned(), seconds, text(row, "cause").to_owned())
    };
    ran.decisions.iter().map(one).collect()
}

fn firing(trigger: &str, seconds: i64, cause: &str) -> (String, f64, String) {
    (trigger.into(), seconds as f64, cause.into())
}

/// The row at the end of the input of a user.
fn last_row(ran: &Ran, user: u32) -> &NamedRow {
    let is = |row: &&NamedRow| row["final"].as_bool() == Some(true) && text(row, "user_id") == user_id(user);
    ran.profiles.iter().find(is).expect("every user has a final row")
}

fn value(ran: &Ran, feature: &str) -> Option<f64> {
    number(last_row(ran, 1), feature)
}

// ---- Order ------------------------------------------------------------------------------------------------------------

#[test]
fn order_1_log_order_per_key() {
    // A sum of floats tells the order in which events were applied: that of the log, not of event times.
    let spec = job(vec![feature_of("total", Aggregate::Sum, "properties.amount", None)], vec![]);
    let amounts = [(10, "1e16"), (5, "1"), (7, "-1e16"), (6, "1")];
    let log: Vec<Event> =
        (0..).zip(amounts).map(|(id, (at, x))| event(id, 1, s(at)).with(&format!(r#""amount":{x}"#))).collect();
    assert_eq!(value(&run_log(&spec, &log), "total"), Some(1e16 + 1.0 - 1e16 + 1.0));
}

#[test]
fn order_1_epochs_apply_in_the_order_of_partition_and_offset() {
    // Chunks of one epoch that three workers read arrive in any order, and are applied in that of the log.
    let spec = job(
        vec![feature_of("last", Aggregate::Last, "properties.plan", None)],
        vec![trigger("two", "last = 'b'", None, 0)],
    );
    let log: Vec<Event> = (0..60)
        .map(|id| event(id, 1, s(9)).with(if id % 2 == 0 { r#""plan":"a""# } else { r#""plan":"b""# }))
        .collect();
    let ran = run_log(&spec, &log);
    assert_eq!(ran.decisions.len(), 30);
    assert_eq!(text(last_row(&ran, 1), "last"), "b");
}

#[test]
fn order_2_every_event_carries_pw() {
    // `pw` comes from earlier offsets only: an event far ahead is not late by itself, and makes the next ones late.
    let spec = job(vec![feature("n", Aggregate::Count, None)], vec![trigger("any", "n >= 1", None, 0)]);
    let ran = run_log(&spec, &[event(1, 1, s(1000)), event(2, 2, s(970)), event(3, 3, s(969)), event(4, 4, s(970))]);
    // 1000 - 30 = 970 is not late, 969 is.
    assert_eq!(ran.report.counts.late, 1);
    assert_eq!(ran.report.counts.on_time, 3);
    let users: Vec<&str> = ran.decisions.iter().map(|row| text(row, "user_id")).collect();
    assert_eq!(users.len(), 3);
    assert!(!users.contains(&user_id(3).as_str()));
}

#[test]
fn order_2_pw_belongs_to_the_partition() {
    // A partition that is far ahead makes nothing late in another.
    let spec = job(vec![feature("n", Aggregate::Count, None)], vec![]);
    let ran = run_partitions(&spec, &[vec![event(1, 1, d(9))], vec![event(2, 2, s(0)), event(3, 2, s(5))]]);
    assert_eq!(ran.report.counts.late, 0);
}

#[test]
fn order_2_late_updates_but_decides_nothing() {
    // A late event counts; the edge that it makes shows at the next evaluation, with that one's cause.
    let spec = job(vec![feature("n", Aggregate::Count, None)], vec![trigger("two", "n >= 2", None, 0)]);
    let log = [event(1, 1, s(10)), event(2, 2, s(1000)), event(3, 1, s(20))];
    let ran = run_log(&spec, &log);
    assert!(ran.decisions.is_empty());
    assert_eq!(value(&ran, "n"), Some(2.0));
    let mut more = log.to_vec();
    more.push(event(4, 1, s(1001)));
    assert_eq!(fired(&run_log(&spec, &more)), [firing("two", 1001, &event_id(4))]);
}

#[test]
fn order_2_a_late_first_event_makes_a_key_without_a_decision() {
    // The key exists from then on; its first evaluation is that of the next event.
    let spec = job(vec![feature("n", Aggregate::Count, None)], vec![trigger("any", "n >= 1", None, 0)]);
    let log = [event(1, 2, s(1000)), event(2, 1, s(10))];
    let ran = run_log(&spec, &log);
    assert_eq!(ran.decisions.len(), 1);
    assert_eq!(time(last_row(&ran, 1), "key_clock"), s(10));
}

#[test]
fn order_2_what_a_later_event_undoes_is_never_seen() {
    // A late event makes the condition hold and the next event on time undoes it before it is looked at.
    let spec = job(
        vec![feature_of("plan", Aggregate::Last, "properties.plan", None)],
        vec![trigger("pro", "plan = 'pro'", None, 0)],
    );
    let log = [
        event(1, 1, s(10)).with(r#""plan":"free""#),
        event(2, 2, s(1000)),
        event(3, 1, s(20)).with(r#""plan":"pro""#),
        event(4, 1, s(1000)).with(r#""plan":"free""#),
    ];
    assert!(run_log(&spec, &log).decisions.is_empty());
}

#[test]
fn order_3_timers_first() {
    // The timer at a day after the event comes before the event at that very instant, which would have prevented it.
    let spec = job(vec![feature("since", Aggregate::Recency, None)], vec![trigger("gone", "since >= 1", None, 0)]);
    let log = [event(1, 1, s(10)), event(2, 1, d(1) + 10 * SECOND)];
    assert_eq!(fired(&run_log(&spec, &log)), [firing("gone", 86_410, "timer")]);
    // One microsecond earlier the event does prevent it.
    let log = [event(1, 1, s(10)), event(2, 1, d(1) + 10 * SECOND - 1)];
    assert!(run_log(&spec, &log).decisions.is_empty());
}

#[test]
fn order_3_timers_due_at_pw_come_before_a_late_event() {
    // `pw` reaches the due time through another key; the late event is applied after the timer fired.
    let spec = job(
        vec![feature("since", Aggregate::Recency, None), feature("n", Aggregate::Count, None)],
        vec![trigger("gone", "since >= 1.0 / 1440", None, 0)],
    );
    let log = [event(1, 1, s(10)), event(2, 2, s(100)), event(3, 1, s(60))];
    let ran = run_log(&spec, &log);
    // pw = 70 = 10 + 60: due, and fires with one event; 60 is late.
    assert_eq!(ran.report.counts.late, 1);
    let of_first: Vec<_> = ran.decisions.iter().filter(|row| text(row, "user_id") == user_id(1)).collect();
    assert_eq!(of_first.len(), 1);
    assert_eq!((time(of_first[0], "event_time"), number(of_first[0], "n")), (s(70), Some(1.0)));
}

#[test]
fn order_3_timers_of_one_instant_are_one_evaluation() {
    // At one midnight a pane leaves one window and a recency reaches its bound: one evaluation sees both, or `half` would fire too.
    let spec = job(
        vec![feature("n", Aggregate::Count, Some(DAY)), feature("since", Aggregate::Recency, None)],
        vec![trigger("half", "n = 1 and since >= 1", None, 0), trigger("whole", "n = 0 and since >= 1", None, 0)],
    );
    let ran = run_log(&spec, &[event(1, 1, s(0)), event(2, 2, d(3))]);
    assert_eq!(fired(&ran), [firing("whole", 24 * 3600, "timer")]);
    // The other way round: the recency's timer alone, a second before the pane leaves.
    let spec = job(
        vec![feature("n", Aggregate::Count, Some(DAY)), feature("since", Aggregate::Recency, None)],
        vec![trigger("half", "n = 1 and since >= 86399.0 / 86400", None, 0), trigger("whole", "n = 0", None, 0)],
    );
    let ran = run_log(&spec, &[event(1, 1, s(0)), event(2, 2, d(3))]);
    assert_eq!(fired(&ran), [firing("half", 24 * 3600 - 1, "timer"), firing("whole", 24 * 3600, "timer")]);
}

#[test]
fn order_3_due_order() {
    // One silent day makes timers of many instants due at once: they fire one after the other, each with its own `now`.
    let spec = job(
        vec![feature("n", Aggregate::Count, Some(HOUR))],
        vec![
            trigger("below_3", "n < 3", None, 0),
            trigger("below_2", "n < 2", None, 0),
            trigger("none", "n = 0", None, 0),
        ],
    );
    let log = [event(1, 1, m(0)), event(2, 1, m(1)), event(3, 1, m(2)), event(4, 1, d(1))];
    let ran = run_log(&spec, &log);
    let timers: Vec<_> = fired(&ran).into_iter().filter(|firing| firing.2 == "timer").collect();
    let expected =
        [firing("below_3", 60 * 60, "timer"), firing("below_2", 61 * 60, "timer"), firing("none", 62 * 60, "timer")];
    assert_eq!(timers, expected);
    // Made in this order, not only sorted into it.
    let made: Vec<Micros> = ran.rows[0].iter().filter_map(|row| row.values[6].as_time()).collect();
    assert!(made.is_sorted());
}

#[test]
fn order_3_snapshots_last() {
    // At one instant the evaluation comes first: the snapshot shows the stage that it found.
    let mut spec = job(vec![feature("n", Aggregate::Count, Some(HOUR))], vec![]);
    spec.stages = vec![StageSpec { name: "active".into(), when: "n >= 1".into() }];
    spec.snapshot = SnapshotSpec { every: Some(HOUR), full_every: None };
    let ran = run_log(&spec, &[event(1, 1, m(0)), event(2, 2, m(200))]);
    let first = &ran.profiles[0];
    assert_eq!((time(first, "as_of"), text(first, "lifecycle_stage")), (h(1), "unknown"));
}

#[test]
fn order_3_an_event_at_the_boundary_belongs_to_the_next_snapshot() {
    // Snapshot as of T is taken before the event at T.
    let mut spec = job(vec![feature("n", Aggregate::Count, None)], vec![]);
    spec.snapshot = SnapshotSpec { every: Some(HOUR), full_every: None };
    let ran = run_log(&spec, &[event(1, 1, m(0)), event(2, 1, h(1)), event(3, 2, h(3))]);
    let rows: Vec<_> = ran.profiles.iter().filter(|row| row["final"].as_bool() == Some(false)).collect();
    let seen: Vec<_> = rows.iter().map(|row| (time(row, "as_of"), number(row, "n"))).collect();
    assert_eq!(seen, [(h(1), Some(1.0)), (h(2), Some(2.0))]);
}

#[test]
fn order_4_windows_move_with_the_key_clock() {
    // Another key's events, however far ahead, take nothing out of a window; the key's own do.
    let spec = job(vec![feature("n", Aggregate::Count, Some(HOUR))], vec![trigger("three", "n >= 3", None, 0)]);
    let log = [event(1, 1, m(0)), event(2, 2, m(59)), event(3, 1, m(59)), event(4, 1, m(59))];
    assert_eq!(fired(&run_log(&spec, &log)), [firing("three", 59 * 60, &event_id(4))]);
    let log = [event(1, 1, m(0)), event(3, 1, m(60)), event(4, 1, m(60))];
    assert!(run_log(&spec, &log).decisions.is_empty());
}

#[test]
fn order_4_an_event_outside_the_window_does_not_count() {
    // A late event older than the window at the key clock touches no windowed feature; lifetime it does.
    let spec = job(vec![feature("hour", Aggregate::Count, Some(HOUR)), feature("all", Aggregate::Count, None)], vec![]);
    let ran = run_log(&spec, &[event(1, 1, m(100)), event(2, 1, m(40)), event(3, 1, m(41))]);
    assert_eq!((value(&ran, "hour"), value(&ran, "all")), (Some(2.0), Some(3.0)));
}

#[test]
fn order_6_sums_pane_by_pane() {
    // In log order the sum would be 0; pane by pane it is (1e16 + 1) - 1e16 with the 1 lost, or kept, by its pane.
    let spec = job(vec![feature_of("total", Aggregate::Sum, "properties.amount", Some(HOUR))], vec![]);
    let amount = |id, at, x: &str| event(id, 1, at).with(&format!(r#""amount":{x}"#));
    // Log order: 1, 1e16, 1, -1e16. Panes: minute 0 has 1 + 1 = 2, minute 1 has 1e16 - 1e16 = 0.
    let log = [amount(1, s(0), "1"), amount(2, s(60), "1e16"), amount(3, s(50), "1"), amount(4, s(61), "-1e16")];
    assert_eq!(value(&run_log(&spec, &log), "total"), Some(2.0));
    // And oldest to newest: 1 + 1e16 in minute order loses the 1.
    let log = [amount(1, s(0), "1"), amount(2, s(60), "1e16"), amount(3, s(120), "-1e16")];
    assert_eq!(value(&run_log(&spec, &log), "total"), Some(0.0));
}

#[test]
fn order_6_leaving_panes_are_not_subtracted() {
    // 0.1 + 0.2 + 0.3 less 0.1 is not 0.2 + 0.3: the window is summed anew.
    let spec = job(vec![feature_of("total", Aggregate::Sum, "properties.amount", Some(HOUR))], vec![]);
    let amount = |id, at, x: &str| event(id, 1, at).with(&format!(r#""amount":{x}"#));
    let log = [amount(1, m(0), "0.1"), amount(2, m(1), "0.2"), amount(3, m(60), "0.3")];
    assert_eq!(value(&run_log(&spec, &log), "total"), Some(0.2 + 0.3));
    assert_ne!(0.1 + 0.2 + 0.3 - 0.1, 0.2 + 0.3);
}

#[test]
fn the_known_trap() {
    // A timer due at 130 for one key; its partition then holds another key at 1000; then the first key again, late, at 120. The timer
    // fires with the state before the late event, however the log is cut.
    let spec = job(
        vec![feature("since", Aggregate::Recency, None), feature("n", Aggregate::Count, None)],
        vec![trigger("gone", "since >= 1.0 / 1440", None, 0)],
    );
    let log = [event(1, 1, s(70)), event(2, 2, s(1000)), event(3, 1, s(120))];
    let job = compile(&spec);
    for workers in 1..=4 {
        for cuts in [
            vec![],
            vec![vec![1], vec![1], vec![1]],
            vec![vec![2], vec![1]],
            vec![vec![1], vec![2]],
            vec![vec![1, 1, 1]],
        ] {
            let ran = run(&job, &[partition(lines(&log), cuts.clone())], workers, &native());
            assert_eq!(fired(&ran), [firing("gone", 130, "timer")], "{cuts:?}");
            assert_eq!(number(&ran.decisions[0], "n"), Some(1.0), "{cuts:?}");
            assert_eq!(value(&ran, "n"), Some(2.0));
        }
    }
}

// ---- Watermarks and clocks --------------------------------------------------------------------------------------------

#[test]
fn watermarks_clamp_and_future() {
    // Ahead of ingest by 5 s: as it is; by more: clamped; by an hour: clamped; by more: a dead letter that does not move `pw`.
    let spec = job(vec![feature("n", Aggregate::Count, None)], vec![]);
    let ahead = |id, user, by: Micros| event(id, user, s(100) + by).received(s(100));
    let log = [
        ahead(1, 1, 5 * SECOND),
        ahead(2, 2, 5 * SECOND + 1),
        ahead(3, 3, HOUR),
        ahead(4, 4, HOUR + 1),
        ahead(5, 5, 300 * DAY),
        event(6, 6, s(75)),
    ];
    let ran = run_log(&spec, &log);
    let clock = |user| time(last_row(&ran, user), "key_clock");
    assert_eq!((clock(1), clock(2), clock(3)), (s(105), s(100), s(100)));
    assert_eq!(ran.report.clamped, 2);
    assert_eq!(ran.dead_letters.iter().map(|row| text(row, "reason")).collect::<Vec<_>>(), ["future"; 2]);
    // pw = 105 - 30 = 75: the last event is on time.
    assert_eq!(ran.report.counts.late, 0);
}

#[test]
fn watermarks_nothing_is_checked_without_an_ingest_time() {
    // Without `received_at` the reader's clock is not asked.
    let spec = job(vec![feature("n", Aggregate::Count, None)], vec![]);
    let ran = run_log(&spec, &[event(1, 1, d(300_000))]);
    assert_eq!((ran.report.accepted(), ran.report.clamped), (1, 0));
}

#[test]
fn bounded_input_ends_at_largest_event_time() {
    // Timers due at the largest event time fire, one microsecond later they do not; the final row is as of that time.
    let spec = job(vec![feature("since", Aggregate::Recency, None)], vec![trigger("gone", "since >= 1", None, 0)]);
    let end = |last| run_partitions(&spec, &[vec![event(1, 1, s(0))], vec![event(2, 2, last)]]);
    let ran = end(d(1));
    assert_eq!(fired(&ran), [firing("gone", 86_400, "timer")]);
    assert_eq!(time(last_row(&ran, 1), "as_of"), d(1));
    assert_eq!(ran.report.watermark, Some(d(1)));
    let ran = end(d(1) - 1);
    assert!(ran.decisions.is_empty());
    assert_eq!(value(&ran, "since"), Some((DAY - 1) as f64 / DAY as f64));
}

#[test]
fn a_timer_at_or_below_the_key_clock_or_pw_is_not_set() {
    // The late event asks for a timer at 80, which `pw` (970) has passed: it never fires, at the end neither.
    let spec = job(
        vec![feature("n", Aggregate::Count, None), feature("since", Aggregate::Recency, None)],
        vec![trigger("gone", "since >= 1.0 / 1440", None, 0)],
    );
    let ran = run_log(&spec, &[event(1, 2, s(1000)), event(2, 1, s(20)), event(3, 2, s(1010))]);
    assert!(ran.decisions.is_empty());
    assert_eq!(value(&ran, "n"), Some(1.0));
}

// ---- Duplicates -------------------------------------------------------------------------------------------------------

#[test]
fn dedup_horizon_exact_boundary() {
    // Applied at clock 0: exactly an hour later still a duplicate, a microsecond more and it is not.
    let spec = job(vec![feature("n", Aggregate::Count, None)], vec![]);
    let again = |at: Micros| value(&run_log(&spec, &[event(1, 1, s(0)), event(1, 1, at)]), "n");
    assert_eq!(again(h(1)), Some(1.0));
    assert_eq!(again(h(1) + 1), Some(2.0));
    // The event's own time counts, and so does the largest time before it.
    let between = |clock: Micros, at: Micros| {
        value(&run_log(&spec, &[event(1, 1, s(0)), event(2, 1, clock), event(1, 1, at)]), "n")
    };
    assert_eq!(between(h(1), s(0)), Some(2.0));
    assert_eq!(between(h(1) + 1, s(0)), Some(3.0));
}

#[test]
fn dedup_goes_by_the_clock_at_which_the_id_was_applied() {
    // An event that comes out of order is remembered from the key clock of its arrival on, not from its own time.
    let spec = job(vec![feature("n", Aggregate::Count, None)], vec![]);
    let log = [event(1, 1, h(1)), event(2, 1, s(0)), event(2, 1, h(2)), event(2, 1, h(2) + 1)];
    assert_eq!(value(&run_log(&spec, &log), "n"), Some(3.0));
}

#[test]
fn duplicates_change_nothing_but_move_pw() {
    // The duplicate's far time makes what follows late; it neither counts nor moves the key clock, nor is its id remembered anew.
    let mut spec = job(vec![feature("n", Aggregate::Count, None)], vec![]);
    spec.dedup_horizon = 10 * DAY;
    let log = [event(1, 1, s(0)), event(1, 1, d(9)), event(2, 2, h(1))];
    let ran = run_log(&spec, &log);
    assert_eq!((ran.report.counts.duplicates, ran.report.counts.late), (1, 1));
    assert_eq!((value(&ran, "n"), time(last_row(&ran, 1), "key_clock")), (Some(1.0), s(0)));
    assert_eq!(ran.report.watermark, Some(d(9)));
}

#[test]
fn a_duplicate_is_first_late_second() {
    // Tested in this order: rejected, duplicate, late, on time.
    let spec = job(vec![feature("n", Aggregate::Count, None)], vec![]);
    let ran = run_log(&spec, &[event(1, 1, s(0)), event(2, 2, m(30)), event(1, 1, s(0))]);
    assert_eq!((ran.report.counts.duplicates, ran.report.counts.late), (1, 0));
}

#[test]
fn ids_of_other_keys_are_no_duplicates() {
    // Dedup is kept with the key.
    let spec = job(vec![feature("n", Aggregate::Count, None)], vec![]);
    let ran = run_log(&spec, &[event(1, 1, s(0)), event(1, 2, s(0))]);
    assert_eq!(ran.report.counts.duplicates, 0);
}

#[test]
fn an_event_without_an_id_is_its_position() {
    // Two equal lines without an id are two events; the cause is `partition:offset`.
    let spec = job(vec![feature("n", Aggregate::Count, None)], vec![trigger("two", "n >= 2", None, 0)]);
    let line: Vec<u8> =
        String::from_utf8(event(1, 1, s(0)).line()).expect("lines are text").replace("event_id", "no_id").into();
    let ran = run(&compile(&spec), &[partition(vec![line.clone(), line], vec![])], 1, &native());
    assert_eq!(fired(&ran), [firing("two", 0, "0:17")]);
}

// ---- Firing -----------------------------------------------------------------------------------------------------------

#[test]
fn firing_on_the_edge_once() {
    // As long as the condition holds nothing more happens; when it begins to hold again it fires again.
    let spec = job(
        vec![feature_of("x", Aggregate::Last, "properties.amount", None)],
        vec![trigger("high", "x >= 5", None, 0)],
    );
    let x = |id, at, x: i32| event(id, 1, s(at)).with(&format!(r#""amount":{x}"#));
    let log = [x(1, 0, 5), x(2, 1, 9), x(3, 2, 4), x(4, 3, 6)];
    assert_eq!(fired(&run_log(&spec, &log)), [firing("high", 0, &event_id(1)), firing("high", 3, &event_id(4))]);
}

#[test]
fn firing_needs_rearm() {
    // An edge while unarmed is lost; `rearm` is looked at first, so one evaluation may arm and fire.
    let spec = job(
        vec![feature_of("x", Aggregate::Last, "properties.amount", None)],
        vec![trigger("high", "x >= 5", Some("x < 1 or x > 100"), 0)],
    );
    let x = |id, x: i32| event(id, 1, s(i64::from(id))).with(&format!(r#""amount":{x}"#));
    let log = [x(1, 5), x(2, 3), x(3, 6), x(4, 0), x(5, 7), x(6, 3), x(7, 101)];
    let expected = [firing("high", 1, &event_id(1)), firing("high", 5, &event_id(5)), firing("high", 7, &event_id(7))];
    assert_eq!(fired(&run_log(&spec, &log)), expected);
}

#[test]
fn firing_rearm_counts_only_after_the_last_firing() {
    // `rearm` holds in the evaluation that fires: it was looked at before the firing, so the trigger is unarmed afterwards.
    let spec = job(
        vec![feature_of("x", Aggregate::Last, "properties.amount", None)],
        vec![trigger("high", "x >= 5", Some("x = 7"), 0)],
    );
    let x = |id, x: i32| event(id, 1, s(i64::from(id))).with(&format!(r#""amount":{x}"#));
    let log = [x(1, 7), x(2, 3), x(3, 8), x(4, 3), x(5, 7)];
    assert_eq!(fired(&run_log(&spec, &log)), [firing("high", 1, &event_id(1)), firing("high", 5, &event_id(5))]);
}

#[test]
fn firing_cooldown_exact_boundary() {
    // Less than the cooldown after the last firing is suppressed and counted; exactly the cooldown fires. A suppressed edge does not
    // prolong it, and leaves the trigger armed.
    let spec = job(
        vec![feature_of("x", Aggregate::Last, "properties.amount", None)],
        vec![trigger("high", "x >= 5", None, MINUTE)],
    );
    let x = |id, at: Micros, x: i32| event(id, 1, at).with(&format!(r#""amount":{x}"#));
    let edges = |at: Micros| [x(1, s(0), 5), x(2, s(1), 0), x(3, at, 5), x(4, at, 0), x(5, s(61), 6)];
    let ran = run_log(&spec, &edges(s(60) - 1));
    assert_eq!(fired(&ran), [firing("high", 0, &event_id(1)), firing("high", 61, &event_id(5))]);
    assert_eq!(ran.report.counts.suppressed, [1]);
    let ran = run_log(&spec, &edges(s(60)));
    assert_eq!(fired(&ran), [firing("high", 0, &event_id(1)), firing("high", 60, &event_id(3))]);
    assert_eq!(ran.report.counts.suppressed, [1]);
}

#[test]
fn firing_ordinals_count_within_one_instant() {
    // Three edges at one event time are three decisions with different ids; the next instant begins at 0 again.
    let spec = job(
        vec![feature_of("x", Aggregate::Last, "properties.amount", None)],
        vec![trigger("high", "x >= 5", None, 0)],
    );
    let x = |id, at, x: i32| event(id, 1, s(at)).with(&format!(r#""amount":{x}"#));
    let log = [x(1, 0, 5), x(2, 0, 0), x(3, 0, 5), x(4, 0, 0), x(5, 0, 5), x(6, 0, 0), x(7, 1, 5)];
    let ran = run_log(&spec, &log);
    let key = KeyHash::of(&[&support::app_id(0), &user_id(1)]);
    let mut expected: Vec<String> =
        [(0, 0), (0, 1), (0, 2), (1, 0)].map(|(at, ordinal)| decision_id("job", "high", key, s(at), ordinal)).into();
    let mut ids: Vec<String> = ran.decisions.iter().map(|row| text(row, "decision_id").to_owned()).collect();
    ids.sort_unstable();
    expected.sort_unstable();
    assert_eq!(ids, expected);
}

#[test]
fn firing_time_is_the_key_clock() {
    // An event out of order, not late, is evaluated with `now` = the key clock.
    let spec = job(vec![feature("n", Aggregate::Count, None)], vec![trigger("two", "n >= 2", None, 0)]);
    let ran = run_log(&spec, &[event(1, 1, s(20)), event(2, 1, s(5))]);
    assert_eq!(fired(&ran), [firing("two", 20, &event_id(2))]);
}

#[test]
fn stages_have_no_memory_and_the_first_that_holds_wins() {
    // Each evaluation finds the stage anew; without one it is `unknown`.
    let mut spec = job(
        vec![feature_of("x", Aggregate::Last, "properties.amount", None)],
        vec![trigger("moved", "lifecycle_stage = 'low'", None, 0)],
    );
    spec.features[0].value_type = None;
    spec.stages = vec![
        StageSpec { name: "high".into(), when: "x > 5".into() },
        StageSpec { name: "low".into(), when: "x > 1".into() },
    ];
    let x = |id, x: i32| event(id, 1, s(i64::from(id))).with(&format!(r#""amount":{x}"#));
    let ran = run_log(&spec, &[x(1, 9), x(2, 3), x(3, 9), x(4, 2), x(5, 0)]);
    assert_eq!(fired(&ran), [firing("moved", 2, &event_id(2)), firing("moved", 4, &event_id(4))]);
    assert_eq!(text(last_row(&ran, 1), "lifecycle_stage"), "unknown");
}

#[test]
fn a_null_condition_does_not_hold() {
    // A mean of nothing is null; so is its negation.
    let spec = job(
        vec![feature_of("x", Aggregate::Mean, "properties.amount", None)],
        vec![trigger("low", "x < 5", None, 0), trigger("not_low", "not (x < 5)", None, 0)],
    );
    assert!(run_log(&spec, &[event(1, 1, s(0)), event(2, 1, s(1)).with(r#""amount":"3""#)]).decisions.is_empty());
}

// ---- Timers -----------------------------------------------------------------------------------------------------------

#[test]
fn timers_a_recency_changes_at_its_first_microsecond() {
    // `>=` at the bound itself, `>` one microsecond later.
    let spec = job(
        vec![feature("since", Aggregate::Recency, None)],
        vec![trigger("at", "since >= 7", None, 0), trigger("after", "7 < since", None, 0)],
    );
    let ran = run_log(&spec, &[event(1, 1, s(5)), event(2, 2, d(8))]);
    let times: Vec<_> =
        ran.decisions.iter().map(|row| (text(row, "trigger").to_owned(), time(row, "event_time"))).collect();
    assert_eq!(times, [("at".to_owned(), d(7) + 5 * SECOND), ("after".to_owned(), d(7) + 5 * SECOND + 1)]);
}

#[test]
fn timers_a_pane_leaves_its_window() {
    // 1 h = 60 panes of a minute: the pane of 0:00:30 leaves at 1:00:00.
    let spec = job(vec![feature("n", Aggregate::Count, Some(HOUR))], vec![trigger("none", "n = 0", None, 0)]);
    assert_eq!(fired(&run_log(&spec, &[event(1, 1, s(30)), event(2, 2, h(1))])), [firing("none", 3600, "timer")]);
}

#[test]
fn timers_a_sessions_content_is_where_it_began() {
    // A session from 0:50 to 1:10 leaves a window of 24 h when the hour in which it began does.
    let spec = job(vec![feature("n", Aggregate::Sessions, Some(DAY))], vec![trigger("none", "n = 0", None, 0)]);
    let ran = run_log(&spec, &[event(1, 1, m(50)), event(2, 1, m(70)), event(3, 2, d(2))]);
    let own: Vec<_> = fired(&ran).into_iter().filter(|firing| firing.2 == "timer").collect();
    assert_eq!(own, [firing("none", 24 * 3600, "timer")]);
}

#[test]
fn timers_the_midnight_that_ends_a_streak() {
    // Active on day 0: on day 1 the streak still stands, at the midnight of day 2 it ends.
    let spec = job(vec![feature("streak", Aggregate::Streak, None)], vec![trigger("over", "streak = 0", None, 0)]);
    let ran = run_log(&spec, &[event(1, 1, h(5)), event(2, 2, d(4))]);
    assert_eq!(fired(&ran), [firing("over", 2 * 86_400, "timer")]);
}

#[test]
fn timers_a_trend_moves_at_every_pane_boundary() {
    // One event in a window of 3 panes of a minute: as the window moves on, the event goes from newest to oldest.
    let spec = job(
        vec![feature("slope", Aggregate::Trend, Some(3 * MINUTE))],
        vec![trigger("flat", "slope = 0", None, 0), trigger("falling", "slope < 0", None, 0)],
    );
    let ran = run_log(&spec, &[event(1, 1, s(10)), event(2, 2, m(9))]);
    let own: Vec<_> = ran.decisions.iter().filter(|row| text(row, "user_id") == user_id(1)).collect();
    let seen: Vec<_> = own.iter().map(|row| (text(row, "trigger"), time(row, "event_time"))).collect();
    // Newest pane until 0:01, middle until 0:02, oldest until 0:03, gone then.
    assert_eq!(seen, [("flat", m(1)), ("falling", m(2)), ("flat", m(3))]);
}

#[test]
fn timers_drifting_values_are_looked_at_each_midnight() {
    // An ewma without `of` falls; it is seen at the first midnight after it has passed the bound, up to `decay_days` after the clock.
    let mut decayed = feature("recent", Aggregate::Ewma, None);
    decayed.half_life = Some(DAY);
    let mut spec = job(vec![decayed], vec![trigger("faded", "recent < 0.2", None, 0)]);
    let log = [event(1, 1, h(12)), event(2, 2, d(20))];
    // 2^-x < 0.2 from x = 2.32 days on: after 2.82 days; the midnight of day 3.
    assert_eq!(fired(&run_log(&spec, &log)), [firing("faded", 3 * 86_400, "timer")]);
    spec.decay_days = 2;
    assert!(run_log(&spec, &log).decisions.is_empty());
}

#[test]
fn timers_do_not_move_the_key_clock() {
    // After a timer at a day, an event out of order (not late) is still inside the window of the key clock.
    let mut spec = job(
        vec![feature("since", Aggregate::Recency, None), feature("n", Aggregate::Count, Some(HOUR))],
        vec![trigger("gone", "since >= 1.0 / 1440", None, 0)],
    );
    spec.out_of_orderness = 10 * SECOND;
    let ran = run_log(&spec, &[event(1, 1, s(0)), event(2, 2, s(75)), event(3, 1, s(30))]);
    assert_eq!(fired(&ran)[0], firing("gone", 60, "timer"));
    assert_eq!(time(last_row(&ran, 1), "key_clock"), s(30));
    assert_eq!(value(&ran, "n"), Some(2.0));
}

// ---- Snapshots --------------------------------------------------------------------------------------------------------

fn boundaries(ran: &Ran, user: u32) -> Vec<i64> {
    let own = ran
        .profiles
        .iter()
        .filter(|row| row["final"].as_bool() == Some(false) && text(row, "user_id") == user_id(user));
    own.map(|row| (time(row, "as_of") - s(0)) / HOUR).collect()
}

#[test]
fn snapshots_of_the_keys_that_changed() {
    // A silent key has no row; one that a late event touched has, at the next boundary above what it has seen.
    let mut spec = job(vec![feature("n", Aggregate::Count, None)], vec![]);
    spec.snapshot = SnapshotSpec { every: Some(HOUR), full_every: None };
    let log = [event(1, 1, m(10)), event(2, 2, m(200)), event(3, 1, m(20)), event(4, 2, h(6))];
    let ran = run_log(&spec, &log);
    assert_eq!(boundaries(&ran, 1), [1, 4]);
    assert_eq!(boundaries(&ran, 2), [4]);
}

#[test]
fn snapshots_of_every_key() {
    // `full_every` writes silent keys too, once per boundary where both fall together.
    let mut spec = job(vec![feature("n", Aggregate::Count, None)], vec![]);
    spec.snapshot = SnapshotSpec { every: Some(HOUR), full_every: Some(2 * HOUR) };
    let ran = run_log(&spec, &[event(1, 1, m(10)), event(2, 2, h(7))]);
    assert_eq!(boundaries(&ran, 1), [1, 2, 4, 6]);
}

#[test]
fn snapshots_after_a_change_of_stage() {
    // A stage that changes by a timer makes the key changed.
    let mut spec = job(vec![feature("n", Aggregate::Count, Some(3 * HOUR))], vec![]);
    spec.stages = vec![StageSpec { name: "active".into(), when: "n > 0".into() }];
    spec.snapshot = SnapshotSpec { every: Some(HOUR), full_every: None };
    let ran = run_log(&spec, &[event(1, 1, m(10)), event(2, 2, h(9))]);
    // 3 h are three panes of an hour: that of 0:10 leaves at 3:00, and the row of that boundary comes after.
    assert_eq!(boundaries(&ran, 1), [1, 3]);
}

#[test]
fn snapshots_values_are_as_of_the_boundary() {
    // Features are read with `now` = T, the stage is that of the last evaluation.
    let mut spec = job(vec![feature("since", Aggregate::Recency, None)], vec![]);
    spec.stages = vec![StageSpec { name: "here".into(), when: "since < 10".into() }];
    spec.snapshot = SnapshotSpec { every: Some(HOUR), full_every: None };
    let ran = run_log(&spec, &[event(1, 1, m(15)), event(2, 2, h(2))]);
    let row = &ran.profiles[0];
    assert_eq!((number(row, "since"), text(row, "lifecycle_stage")), (Some(45.0 / 1440.0), "here"));
}

#[test]
fn final_rows_include_all_events() {
    // An event at the very end of the input is in the final row, late ones too; the row is as of the largest event time of all.
    let spec = job(vec![feature("n", Aggregate::Count, None)], vec![]);
    let ran = run_log(&spec, &[event(1, 1, s(0)), event(2, 2, h(9)), event(3, 1, s(1))]);
    assert_eq!((value(&ran, "n"), time(last_row(&ran, 1), "as_of")), (Some(2.0), h(9)));
    assert_eq!(ran.profiles.len(), 2);
}

// ---- Scores -----------------------------------------------------------------------------------------------------------

#[test]
fn scores_and_contributions() {
    // A logistic model by its formula; contributions are terms less their references, the largest first, five at most, zeros left out.
    let feature = |at: usize| feature_of(&format!("x{at}"), Aggregate::Sum, &format!("properties.x{at}"), None);
    let weights = [1.0, -3.0, 2.0, 0.5, 0.25, 4.0, 0.0];
    let mut spec = job((0..7).map(feature).collect(), vec![]);
    let term = |(at, weight): (usize, &f64)| ModelTerm {
        name: format!("x{at}").as_str().into(),
        weight: *weight,
        transform: Transform::Identity,
        null: None,
        reference: (at == 5).then_some(ModelValue::Number(1.0)),
    };
    let terms = weights.iter().enumerate().map(term).collect();
    let body = ScoreBody::Model(ModelSpec { intercept: 0.5, terms });
    spec.scores =
        vec![ScoreSpec { name: "risk".into(), body, levels: vec![("low".into(), 0.0), ("high".into(), 0.5)] }];
    let properties = (0..7).map(|at| format!(r#""x{at}":1"#)).collect::<Vec<_>>().join(",");
    let ran = run_log(&spec, &[event(1, 1, s(0)).with(&properties)]);
    let row = last_row(&ran, 1);
    let z = 0.5 + 1.0 - 3.0 + 2.0 + 0.5 + 0.25 + 4.0 + 0.0;
    // The standard library's `exp` may differ from the documented one in the last bit.
    assert!((number(row, "risk").expect("a score") - 1.0 / (1.0 + f64::exp(-z))).abs() < 1e-15);
    assert_eq!(text(row, "risk_level"), "high");
    let list = row["risk_contributions"].as_list().expect("a list");
    let names: Vec<_> = list.iter().map(|pair| (pair[0].as_text(), pair[1].as_number())).collect();
    // x5 stands at its reference, x6 weighs nothing.
    let expected = [("x1", -3.0), ("x2", 2.0), ("x0", 1.0), ("x3", 0.5), ("x4", 0.25)];
    assert_eq!(names, expected.map(|(name, part)| (Some(name), Some(part))));
}

// ---- Bounds -----------------------------------------------------------------------------------------------------------

#[test]
fn distinct_is_bounded_and_says_so() {
    // Past `distinct_max` values are refused and the row says so; one that comes again when there is room counts.
    let mut spec = job(vec![feature_of("v", Aggregate::Distinct, "properties.feature", Some(HOUR))], vec![]);
    spec.distinct_max = 2;
    let v = |id, at: Micros, v: &str| event(id, 1, at).with(&format!(r#""feature":"{v}""#));
    let log = [v(1, m(0), "a"), v(2, m(1), "b"), v(3, m(2), "c")];
    let ran = run_log(&spec, &log);
    assert_eq!((value(&ran, "v"), last_row(&ran, 1)["v_capped"].as_bool()), (Some(2.0), Some(true)));
    let more = [&log[..], &[v(4, m(60), "c")]].concat();
    let ran = run_log(&spec, &more);
    assert_eq!((value(&ran, "v"), last_row(&ran, 1)["v_capped"].as_bool()), (Some(2.0), Some(true)));
    let more = [&more[..], &[v(5, m(62), "b")]].concat();
    let ran = run_log(&spec, &more);
    assert_eq!((value(&ran, "v"), last_row(&ran, 1)["v_capped"].as_bool()), (Some(2.0), Some(false)));
}

#[test]
fn distinct_tells_texts_from_numbers() {
    // "1" differs from 1; 1 equals 1.0; -0 equals 0; a truth value does not count.
    let spec = job(vec![feature_of("v", Aggregate::Distinct, "properties.custom", None)], vec![]);
    let values = [r#""1""#, "1", "1.0", "0", "-0.0", "true", "null", "[1]"];
    let log: Vec<_> = (0..).zip(values).map(|(id, v)| event(id, 1, s(0)).with(&format!(r#""custom":{v}"#))).collect();
    assert_eq!(value(&run_log(&spec, &log), "v"), Some(3.0));
}

// ---- Digests ----------------------------------------------------------------------------------------------------------

#[test]
fn digest_is_the_sum_of_row_hashes() {
    // Modulo 2^128, over all columns but those that begin with `_`, whatever the order of rows.
    let mut spec = job(vec![feature("n", Aggregate::Count, None)], vec![trigger("odd", "n % 2 = 1", None, 0)]);
    spec.snapshot = SnapshotSpec { every: Some(HOUR), full_every: None };
    let mut log: Vec<Event> = (0..40).map(|id| event(id, id % 5, m(i64::from(id) * 7))).collect();
    log[3].user = "nobody".into();
    let ran = run_log(&spec, &log);
    let job: Arc<CompiledJob> = compile(&spec);
    let tables = [job.decisions.clone(), job.profiles.clone(), Arc::new(TableSchema::dead_letters())];
    for (table, rows) in tables.iter().zip(&ran.rows) {
        assert!(!rows.is_empty());
        let sum = rows.iter().fold(0_u128, |sum, row| sum.wrapping_add(row_hash(table, &row.values)));
        assert_eq!(ran.report.digests[table.name], Digest(sum), "{}", table.name);
        let mut moved = rows[0].values.clone();
        let epoch = table.column_index("_epoch").expect("every table has it");
        moved[epoch] = whisperer_schemas::Value::Int(99);
        assert_eq!(row_hash(table, &moved), row_hash(table, &rows[0].values));
    }
}
