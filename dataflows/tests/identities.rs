//! Identities: which ids are one person is what a computation from scratch says, however links come, are taken back and come late,
//! whichever way the input was cut, on any number of workers, and across stops and restarts on another number of them.

mod support;

use std::{fs, path::Path, process::Command};

use support::{
    Event, compile, event, jobs, logs, number, partition, property, reference, run, s, text, user_id,
    viewed::{Interrupted, format, same, whole},
};
use whisperer_connectors::memory::MemoryPartition;
use whisperer_operators::{
    reference::NamedRow,
    spec::{Aggregate, FeatureSpec, IdentitySpec, JobSpec, StageSpec, ViewKind, ViewSpec},
};

/// An id for some values of a property.
fn id_of(property: &str, values: &[&str]) -> String {
    let each =
        values.iter().zip(0..).map(|(value, user)| format!("when {property} = '{value}' then '{}'", user_id(user)));
    format!("case {} end", each.collect::<Vec<_>>().join(" "))
}

/// The job with links by what random events have among their properties, and with views of persons.
fn with_identity(mut spec: JobSpec, component_ids_max: u32) -> JobSpec {
    let by_feature = id_of("properties.feature", &["f0", "f1", "f2", "f3", "f4", "f5", "f6"]);
    let by_plan = id_of("properties.plan", &["free", "pro", "enterprise"]);
    let identity = IdentitySpec { component_ids_max, ..IdentitySpec::default() };
    let identity = identity.link("user_login", &by_feature).link("payment_failed", &by_plan);
    let identity = identity.unlink("page_viewed", &by_feature).link("user_signup", "properties.custom");
    spec.identity = Some(identity.unlink("error_encountered", &by_plan));
    spec.features.push(FeatureSpec::new("events", Aggregate::Count));
    let views = [
        ("identities", ViewKind::Identities),
        ("persons", ViewKind::Persons),
        ("profiles", ViewKind::Profiles),
        ("users", ViewKind::Distinct),
    ];
    spec.views = views.map(|(name, kind)| ViewSpec::new(name, kind)).into();
    spec.views.push(ViewSpec::new("busy", ViewKind::Persons).by(&["app_id", "events"]).when("events > 1"));
    spec
}

#[test]
fn persons_equal_a_computation_from_scratch() {
    // Goal: for random links, links taken back, late ones and those said twice, who is who, how many persons there are, and
    // every feature, score and stage of a person equals the oracle's answer, at 1 to 4 workers and as many random cuts.
    let cuts = [logs::cuts(), logs::cuts(), logs::cuts(), logs::cuts()];
    let strategy = (jobs::job(), 1..6_u32, logs::log(80), cuts);
    property::check(
        250,
        &strategy,
        |(job, ids_max, log, _)| format!("at most {ids_max}\n{}{}", job.show(), log.show()),
        |(job, ids_max, log, cuts)| {
            let spec = with_identity(job.spec(), *ids_max);
            let oracle = reference(&spec, &log.partitions(&cuts[0]), &format());
            let job = compile(&spec);
            for (workers, cuts) in (1..).zip(cuts) {
                let ours = whole(&job, &log.partitions(cuts), workers)?;
                same(&ours, &oracle.views).map_err(|error| format!("{workers} workers: {error}"))?;
            }
            Ok(())
        },
    );
}

#[test]
fn persons_go_on_after_a_restart() {
    // Goal: the same where the run is stopped at a random record, and again, and goes on on another number of workers: tables and digests
    // are those of a run that was never stopped.
    let stops = ((1..=4_usize, 1..80_i64), (1..=4_usize, 1..50_i64), 1..=4_usize, 1..5_u64);
    let strategy = (jobs::job(), 1..6_u32, logs::log(80), logs::cuts(), stops);
    property::check(
        120,
        &strategy,
        |(job, ids_max, log, _, stops)| format!("{stops:?}, at most {ids_max}\n{}{}", job.show(), log.show()),
        |(job, ids_max, log, cuts, (first, second, last, every))| {
            let spec = with_identity(job.spec(), *ids_max);
            let partitions = log.partitions(cuts);
            let oracle = reference(&spec, &partitions, &format());
            let job = Interrupted::new(&spec, *every);
            let undisturbed = job.undisturbed(&partitions)?;
            let mut report = job.run(&partitions, first.0, first.1)?;
            for (workers, records) in [*second, (*last, i64::MAX)] {
                if !report.finished {
                    report = job.run(&partitions, workers, records)?;
                }
            }
            same(&job.tables.contents(&job.job, &report)?, &oracle.views)?;
            match report.digests == undisturbed {
                true => Ok(()),
                false => Err(format!("digests differ: {:?} and {undisturbed:?}", report.digests)),
            }
        },
    );
}

#[test]
fn random_logs_link_and_part() {
    // Goal: the random logs do reach what they are meant to reach: persons of several ids, refused links, and links that were taken back.
    use proptest::{
        strategy::{Strategy, ValueTree},
        test_runner::TestRunner,
    };
    let mut runner = TestRunner::deterministic();
    let strategy = (jobs::job(), logs::log(80), logs::cuts());
    let (mut persons, mut refused, mut parted) = (0, 0, 0);
    for _ in 0..60 {
        let (job, log, cuts) = strategy.new_tree(&mut runner).expect("the strategy rejects nothing").current();
        let rows = |spec: &JobSpec| reference(spec, &log.partitions(&cuts), &format()).views["identities"].clone();
        let spec = with_identity(job.spec(), 3);
        let linked = rows(&spec);
        persons += linked.iter().filter(|row| row["user_id"] != row["canonical_id"]).count();
        refused += linked.iter().filter(|row| row["refused_links"].as_int() > Some(0)).count();
        let mut stubborn = spec;
        stubborn.identity.iter_mut().for_each(|identity| identity.unlinks.clear());
        parted += usize::from(rows(&stubborn) != linked);
    }
    assert!([persons, refused, parted].iter().all(|count| *count > 10), "{persons}, {refused}, {parted}");
}

/// A job that links by `user_login` and parts by `user_logout`, three ids at most.
fn by_login() -> JobSpec {
    let identity = IdentitySpec { component_ids_max: 3, ..IdentitySpec::default() };
    let identity = identity.link("user_login", "properties.label").unlink("user_logout", "properties.label");
    let mut spec = JobSpec { identity: Some(identity), ..JobSpec::default() };
    spec.features.push(FeatureSpec::new("events", Aggregate::Count));
    spec.views = vec![ViewSpec::new("identities", ViewKind::Identities), ViewSpec::new("persons", ViewKind::Persons)];
    spec
}

/// A user logs in on a device, or out of it.
fn device(id: u32, user: u32, kind: &str, time: i64, device: u32) -> Event {
    event(id, user, s(time)).kind(kind).with(&format!(r#""label":"{}""#, user_id(device)))
}

fn run_lines(job: &JobSpec, partitions: Vec<Vec<Event>>) -> (Vec<(String, String, i64)>, i64) {
    let lines = |events: &Vec<Event>| partition(events.iter().map(Event::line).collect(), vec![vec![2]; events.len()]);
    let partitions: Vec<MemoryPartition> = partitions.iter().map(lines).collect();
    let views = whole(&compile(job), &partitions, 2).unwrap_or_else(|error| panic!("{error}"));
    let short =
        |row: &NamedRow, column: &str| text(row, column).trim_start_matches("usr_").trim_start_matches('0').to_owned();
    let row = |row: &NamedRow| {
        let refused = row["refused_links"].as_int().expect("a number");
        (short(row, "user_id"), short(row, "canonical_id"), refused)
    };
    let persons = views["persons"][0]["users"].as_int().expect("a number");
    (views["identities"].iter().map(row).collect(), persons)
}

fn rows(rows: &[(&str, &str, i64)]) -> Vec<(String, String, i64)> {
    rows.iter().map(|(id, canonical, refused)| ((*id).to_owned(), (*canonical).to_owned(), *refused)).collect()
}

#[test]
fn persons_part_as_they_came_together() {
    // Goal: sums, sets, sessions and the last value of two ids are those of one person while they are linked, and of nobody after; a link
    // that parts two others leaves what it does not concern.
    let mut spec = by_login();
    let feature = |name: &str, aggregate, of: Option<&str>| FeatureSpec {
        of: of.map(Into::into),
        ..FeatureSpec::new(name, aggregate)
    };
    spec.features = vec![
        feature("paid", Aggregate::Sum, Some("properties.amount")),
        feature("pages", Aggregate::Distinct, Some("properties.page")),
        feature("last_page", Aggregate::Last, Some("properties.page")),
        feature("visits", Aggregate::Sessions, None),
    ];
    spec.stages = vec![StageSpec { name: "buyer".into(), when: "paid > 4".into() }];
    spec.views = vec![ViewSpec::new("people", ViewKind::Profiles)];
    let page = |id, user, time, page: &str, amount: f64| {
        event(id, user, s(time)).kind("payment_failed").with(&format!(r#""page":"{page}","amount":{amount}"#))
    };
    let mut events = vec![
        page(1, 7, 0, "a", 1.0),
        page(2, 1, 600, "b", 4.0),
        page(3, 7, 700, "b", 0.5),
        device(4, 1, "user_login", 800, 7),
        page(5, 2, 5_000, "c", 9.0),
    ];
    let run = |events: &[Event]| {
        let lines = events.iter().map(Event::line).collect();
        let views = whole(&compile(&spec), &[partition(lines, vec![vec![1]; events.len()])], 2);
        views.unwrap_or_else(|error| panic!("{error}"))["people"].clone()
    };
    let rows = run(&events);
    assert_eq!(rows.len(), 1, "{rows:?}");
    let row = &rows[0];
    assert_eq!((text(row, "canonical_id"), row["user_ids"].as_int()), (user_id(7).as_str(), Some(2)));
    let numbers = ["paid", "pages", "visits"].map(|name| number(row, name));
    assert_eq!(numbers, [Some(5.5), Some(2.0), Some(1.0)]);
    assert_eq!((text(row, "last_page"), text(row, "lifecycle_stage")), ("b", "buyer"));
    events.push(device(6, 1, "user_logout", 6_000, 7));
    assert_eq!(run(&events), Vec::<NamedRow>::new());
}

#[test]
fn who_was_seen_first_stands_for_the_person() {
    // Goal: a visitor who signs up keeps the visitor's id, whatever partition that is in; of two who were seen at once the least id counts.
    let visitor = vec![event(1, 7, s(0)), event(2, 7, s(50))];
    let known = vec![event(3, 1, s(40)), device(4, 1, "user_login", 60, 7)];
    assert_eq!(run_lines(&by_login(), vec![visitor, known]), (rows(&[("1", "7", 0), ("7", "7", 0)]), 1));
    let at_once = vec![event(1, 8, s(0)), event(2, 3, s(0)), device(3, 8, "user_login", 60, 3)];
    assert_eq!(run_lines(&by_login(), vec![at_once]), (rows(&[("3", "3", 0), ("8", "3", 0)]), 1));
}

#[test]
fn a_shared_device_takes_no_more_than_it_may() {
    // Goal: of five who log in on one device two are taken for its person; when one of them logs out, the next in the order of time is.
    let log_in = |user: u32| device(user, user, "user_login", i64::from(user), 99);
    let mut events: Vec<Event> = (1..6).map(log_in).collect();
    let kiosk = [("1", "1", 0), ("2", "1", 0), ("3", "3", 1), ("4", "4", 1), ("5", "5", 1), ("99", "1", 3)];
    assert_eq!(run_lines(&by_login(), vec![events.clone()]), (rows(&kiosk), 4));
    events.push(device(9, 1, "user_logout", 10, 99));
    let parted = [("2", "2", 0), ("3", "2", 0), ("4", "4", 1), ("5", "5", 1), ("99", "2", 2)];
    assert_eq!(run_lines(&by_login(), vec![events]), (rows(&parted), 4));
}

#[test]
fn a_user_says_no_more_than_there_is_room_for() {
    // Goal: of a user who names ever new ids within the time that events may be late, so that none has taken effect, the first 1,024 are
    // kept and the rest counted; once the watermark has passed them, what was taken back makes room.
    let mut spec = by_login();
    spec.identity.iter_mut().for_each(|identity| identity.component_ids_max = 1_024);
    spec.views.clear();
    let mut events: Vec<Event> = (0..1_030).map(|at| device(at, 1, "user_login", 0, 10 + at)).collect();
    let refused = |events: &[Event]| {
        let partition = partition(events.iter().map(Event::line).collect(), vec![vec![100]; 20]);
        run(&compile(&spec), &[partition], 1, &format()).report.counts.statements_refused
    };
    assert_eq!(refused(&events), 6);
    let more = [
        event(2_000, 1, s(100)),
        device(2_001, 1, "user_logout", 101, 10),
        event(2_002, 1, s(200)),
        device(2_003, 1, "user_login", 201, 9_000),
        device(2_004, 1, "user_login", 202, 9_001),
    ];
    events.truncate(1_023);
    assert_eq!(refused(&events), 0);
    events.extend(more);
    assert_eq!(refused(&events), 0);
}

#[test]
fn a_late_link_takes_effect_at_the_watermark_it_was_late_against() {
    // Goal: of a link and its end, the one with the later effect counts, not the later event time: the late link takes effect when the
    // log had come to 70 s, after the log-out of 60 s, and the two ids are one person.
    let on_time = vec![device(1, 1, "user_logout", 60, 7), event(2, 1, s(100)), device(3, 1, "user_login", 50, 7)];
    assert_eq!(run_lines(&by_login(), vec![on_time]).1, 1);
    let early = vec![device(1, 1, "user_logout", 60, 7), device(3, 1, "user_login", 50, 7), event(2, 1, s(100))];
    assert_eq!(run_lines(&by_login(), vec![early]), (rows(&[]), 1));
}

#[test]
fn the_example_gives_what_the_page_shows() {
    // Goal: docs/identities.md shows what its example prints.
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let page = fs::read_to_string(docs.join("identities.md")).expect("the page");
    let lake = tempfile::tempdir().expect("a temporary folder");
    let whisperer = |verb: &str, more: &[&str]| {
        let job = docs.join("visitors/job.toml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_whisperer"));
        let output = command.arg(verb).arg(job).args(more).arg("--output").arg(lake.path()).output();
        let output = output.expect("the binary starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    whisperer("run", &["--no-pin"]);
    for view in ["identities", "persons"] {
        let shown = whisperer("views", &[view]);
        assert!(page.contains(shown.trim_end()), "{view} is:\n{shown}");
    }
}
