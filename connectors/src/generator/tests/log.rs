//! What a log holds as a whole: its length, who is in it, how dirty it is.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use whisperer_schemas::{
    Micros,
    time::{DAY, HOUR, MINUTE, SECOND},
};

use super::{
    super::{
        GeneratorOptions, GeneratorSource, Summary,
        kind::Kind,
        simulation::{DISORDER_MAX, TRANSIT},
        write_ndjson,
    },
    Line, clean, instant, lines, small, tally,
};
use crate::source::{EpochSize, SourceError};

/// Asserts that a share of the lines is about what was asked for.
fn assert_share(name: &str, count: u64, of: u64, expected: f64) {
    let share = count as f64 / of as f64;
    let error = 4.0 * (expected / of as f64).sqrt();
    assert!((share - expected).abs() <= error, "{name}: {share}, not {expected}");
}

#[test]
fn rates_are_those_asked_for() {
    // Goal: duplicates, disorder, late and malformed lines come at their rates, within four standard deviations.
    let options = GeneratorOptions { late: 0.01, malformed: 0.02, ..small() };
    let lines = lines(&options, 0);
    let count = |what: &dyn Fn(&Line) -> bool| lines.iter().filter(|line| what(line)).count() as u64;
    let lag = |line: &Line| line.event.received - line.event.time;
    assert_share("duplicates", count(&|line| line.event.again), options.events, options.duplicates);
    assert_share("malformed", count(&|line| line.event.fault.is_some()), options.events, options.malformed);
    assert_share("late", count(&|line| lag(line) > DISORDER_MAX && !line.event.again), options.events, options.late);
    let disorder = count(&|line| lag(line) > TRANSIT && lag(line) <= DISORDER_MAX && !line.event.again);
    assert_share("disorder", disorder, options.events, options.disorder);
}

#[test]
fn lags_are_those_documented() {
    // Goal: a line arrives at once, within the out-of-orderness, or minutes to hours late, and the log is in order of arrival.
    let mut arrival = Micros::MIN;
    for line in lines(&small(), 0) {
        let lag = line.event.received - line.event.time;
        assert!((TRANSIT..=30 * SECOND).contains(&lag) || (2 * MINUTE..7 * HOUR).contains(&lag), "a lag of {lag} us");
        if !line.event.again {
            assert!(line.event.received >= arrival);
            arrival = line.event.received;
        }
    }
}

#[test]
fn only_late_lines_fall_behind_the_watermark() {
    // Goal: what counts as late to a job (30 s behind an earlier line) is nearly all of what was delayed for long, and nothing else.
    let options = GeneratorOptions { users: 20_000, events: 400_000, ..small() };
    let (mut newest, mut behind, mut delayed) = (Micros::MIN, 0_u32, 0_u32);
    for line in lines(&options, 0).iter().filter(|line| line.event.fault.is_none() && !line.event.again) {
        let is_delayed = line.event.received - line.event.time > DISORDER_MAX;
        let is_behind = newest > Micros::MIN && line.event.time < newest - DISORDER_MAX;
        assert!(is_delayed || !is_behind);
        delayed += u32::from(is_delayed);
        behind += u32::from(is_behind);
        newest = newest.max(line.event.time);
    }
    assert!(behind > 0 && f64::from(behind) > 0.95 * f64::from(delayed), "{behind} of {delayed}");
}

#[test]
fn a_log_without_dirt_is_clean_and_in_order() {
    // Goal: with all rates 0 each id occurs once, nothing is spoilt, and event times ascend as they are written.
    // A short span, so that many events lie within a millisecond.
    let (mut ids, mut newest) = (HashSet::new(), Micros::MIN);
    let lines = lines(&GeneratorOptions { span: 10 * MINUTE, ..clean() }, 0);
    assert_eq!(lines.len(), 100_000);
    for line in lines {
        let event = line.json();
        assert!(ids.insert(event["event_id"].as_str().unwrap().to_owned()));
        let time = instant(&event["timestamp"]);
        assert_eq!((time, instant(&event["metadata"]["received_at"])), (line.event.time, line.event.received));
        assert!(time >= newest);
        newest = time;
    }
}

#[test]
fn a_duplicate_is_the_same_bytes_within_the_horizon() {
    // Goal: a job with a dedup horizon of 1 h finds exactly the summary's duplicates. Method: the rule of dedup over the user's
    // largest event time, applied naively.
    let options = GeneratorOptions { duplicates: 0.05, late: 0.01, ..small() };
    let mut newest: HashMap<u32, Micros> = HashMap::new();
    let mut applied: HashMap<u64, (Micros, Vec<u8>)> = HashMap::new();
    let mut found = 0;
    for line in lines(&options, 0).into_iter().filter(|line| line.event.fault.is_none()) {
        let largest = newest.get(&line.event.user).copied().unwrap_or(Micros::MIN).max(line.event.time);
        if let Some((at, text)) = applied.get(&line.event.id) {
            assert!(line.event.again && *at >= largest - HOUR && *text == line.text);
            found += 1;
            continue;
        }
        assert!(!line.event.again);
        newest.insert(line.event.user, largest);
        applied.insert(line.event.id, (largest, line.text));
    }
    let summary = write_ndjson(&options, 0, &mut Vec::new(), &mut |_| ()).unwrap();
    assert_eq!(found, summary.duplicates);
}

#[test]
fn the_summary_counts_what_is_written() {
    // Goal: lines, bytes, duplicates and malformed lines by reason are those of the text, over all partitions.
    let options = GeneratorOptions { partitions: 3, malformed: 0.01, ..small() };
    let mut total = Summary::default();
    let mut expected = Summary::default();
    let mut told = 0;
    for partition in 0..3 {
        let mut text = Vec::new();
        total.add(&write_ndjson(&options, partition, &mut text, &mut |lines| told += lines).unwrap());
        let lines = lines(&options, partition);
        expected.lines += text.iter().filter(|&&byte| byte == b'\n').count() as u64;
        expected.bytes += text.len() as u64;
        expected.duplicates += lines.iter().filter(|line| line.event.again).count() as u64;
        for (reason, count) in tally(lines.iter().filter_map(|line| line.event.fault)) {
            *expected.malformed.entry(reason).or_default() += count;
        }
        let written: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
        assert!(lines.iter().map(|line| line.text.as_slice()).eq(written[..written.len() - 1].iter().copied()));
    }
    assert_eq!(total, expected);
    assert_eq!((total.lines, told), (options.events, options.events));
    assert_eq!(total.malformed.len(), 6);
}

#[test]
fn activity_is_skewed_and_everyone_appears() {
    // Goal: with 20 lines a user all users appear, in one partition each, and the most active hundredth has a large share.
    let options = GeneratorOptions { partitions: 2, ..small() };
    let mut counts = BTreeMap::new();
    for partition in 0..2 {
        for (user, count) in tally(lines(&options, partition).into_iter().map(|line| line.event.user)) {
            counts.insert((partition, user), count);
        }
    }
    assert_eq!(counts.len(), 5_000);
    let mut counts: Vec<u64> = counts.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let top: u64 = counts[..50].iter().sum();
    assert!((25_000..60_000).contains(&top), "{top} of 100,000 lines");
}

#[test]
fn without_skew_nobody_stands_out() {
    // Goal: the exponent is what makes the skew: with 0 the most active hundredth has a few times its share at most.
    let lines = lines(&GeneratorOptions { zipf: 0.0, ..small() }, 0);
    let mut counts: Vec<u64> = tally(lines.iter().map(|line| line.event.user)).into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    assert!(counts[..50].iter().sum::<u64>() < 6_000);
}

#[test]
fn those_who_churned_stay_silent() {
    // Goal: no event of a user happens after the truth says that the user has left, nor any message to the user.
    let options = small();
    let truth = GeneratorSource::new(options.clone()).unwrap().truth(0);
    let churned: HashMap<String, Option<Micros>> = truth.map(|user| (user.user_id, user.churned_at)).collect();
    let share = churned.values().filter(|at| at.is_some()).count() as f64 / churned.len() as f64;
    assert!((0.05..0.4).contains(&share), "{share} of the users churned");
    for line in lines(&options, 0).iter().filter(|line| line.event.fault.is_none()) {
        let user = line.json()["user_id"].as_str().unwrap().to_owned();
        assert!(churned[&user].is_none_or(|at| line.event.time < at));
    }
}

/// What the log shows of a user.
struct Habits {
    left: bool,
    events: u64,
    errors: u64,
    features: BTreeSet<u8>,
}

#[test]
fn the_hazard_grows_with_trouble_and_shrinks_with_adoption() {
    // Goal: those who churned differ from the others as the hazard says, so that a model has something to learn.
    // Method: active users only; the means over users of the share of errors, and of the features used, differ by more than four
    // standard errors of their difference.
    let options = GeneratorOptions { users: 20_000, events: 400_000, ..clean() };
    let mut churned: BTreeMap<String, bool> = BTreeMap::new();
    for user in GeneratorSource::new(options.clone()).unwrap().truth(0) {
        churned.insert(user.user_id, user.churned_at.is_some());
    }
    let mut users: BTreeMap<u32, Habits> = BTreeMap::new();
    for line in lines(&options, 0) {
        let user = users.entry(line.event.user).or_insert_with(|| {
            let left = churned[line.json()["user_id"].as_str().unwrap()];
            Habits { left, events: 0, errors: 0, features: BTreeSet::new() }
        });
        user.events += 1;
        user.errors += u64::from(matches!(line.event.kind, Kind::ErrorEncountered | Kind::PaymentFailed));
        if line.event.kind == Kind::FeatureUsed {
            user.features.insert(line.event.which);
        }
    }
    let standard_errors = |of: &dyn Fn(&Habits) -> f64| {
        let moments = |left: bool| {
            let chosen = users.values().filter(|user| user.events >= 10 && user.left == left).map(of);
            let chosen: Vec<f64> = chosen.collect();
            let count = chosen.len() as f64;
            let mean = chosen.iter().sum::<f64>() / count;
            (mean, chosen.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count / count)
        };
        let ((gone, a), (there, b)) = (moments(true), moments(false));
        (gone - there) / (a + b).sqrt()
    };
    let errors = standard_errors(&|user| user.errors as f64 / user.events as f64);
    let features = standard_errors(&|user| user.features.len() as f64);
    assert!(errors > 4.0 && features < -4.0, "{errors} {features}");
}

#[test]
fn lines_are_spread_over_the_span() {
    // Goal: each tenth of the span holds about a tenth of the lines, and the log ends about where the span does.
    let options = small();
    let tenths = tally(lines(&options, 0).iter().map(|line| (line.event.received - options.start) * 10 / options.span));
    for tenth in 0..10 {
        assert!((7_500..12_500).contains(&tenths[&tenth]), "{tenths:?}");
    }
    assert!(tenths.keys().all(|tenth| (0..=10).contains(tenth)), "{tenths:?}");
}

#[test]
fn odd_sizes_make_as_many_lines_as_asked_for() {
    // Goal: few users, few lines, one or many partitions, short and long spans: exactly `events` lines, users in habit or not.
    let cases =
        [(1, 5_000, 1, DAY), (3, 20_000, 3, HOUR), (10, 0, 4, DAY), (10, 3, 4, DAY), (50_000, 1_000, 2, 365 * DAY)];
    for (users, events, partitions, span) in cases {
        let options = GeneratorOptions { users, events, partitions, span, ..small() };
        let written: usize = (0..partitions).map(|partition| lines(&options, partition).len()).sum();
        assert_eq!(written as u64, events);
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    // Goal: what cannot be made is said at the start, and nothing panics later.
    let base = small();
    let wrong = [
        GeneratorOptions { duplicates: 0.6, ..base.clone() },
        GeneratorOptions { late: -0.1, ..base.clone() },
        GeneratorOptions { malformed: f64::NAN, ..base.clone() },
        GeneratorOptions { malformed: 0.5, disorder: 0.5, ..base.clone() },
        GeneratorOptions { partitions: 0, ..base.clone() },
        GeneratorOptions { users: 3, partitions: 4, ..base.clone() },
        GeneratorOptions { zipf: f64::INFINITY, ..base.clone() },
        GeneratorOptions { span: 0, ..base.clone() },
        GeneratorOptions { start: Micros::MAX, ..base.clone() },
        GeneratorOptions { events: u64::MAX, ..base.clone() },
        GeneratorOptions { epoch_size: EpochSize::Records(0), ..base.clone() },
    ];
    for options in wrong {
        assert!(matches!(GeneratorSource::new(options.clone()), Err(SourceError::Settings(_))), "{options:?}");
    }
    let error = write_ndjson(&base, 1, &mut Vec::new(), &mut |_| ()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}
