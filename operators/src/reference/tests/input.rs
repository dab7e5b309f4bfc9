//! Records one by one: what is rejected, and why.

use super::*;

const ID: &str = "0123456789abcdef";

/// A valid strict record with one member replaced (or, with an empty text, taken away).
fn record(member: &str, value: &str) -> String {
    let mut members = vec![
        ("event_id".to_owned(), format!("\"evt_{ID}\"")),
        ("app_id".to_owned(), format!("\"app_{ID}\"")),
        ("user_id".to_owned(), format!("\"usr_{ID}\"")),
        ("event_type".to_owned(), "\"page_viewed\"".to_owned()),
        ("timestamp".to_owned(), "\"2024-01-01T00:00:00Z\"".to_owned()),
    ];
    members.retain(|(name, _)| name != member);
    if !value.is_empty() {
        members.push((member.to_owned(), value.to_owned()));
    }
    let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

fn reasons(options: &Options, lines: &[String]) -> Vec<Option<&'static str>> {
    let reason = |line: &String| {
        let partition = raw(std::slice::from_ref(line));
        let outcome = run(&job(vec![]), options, &[partition]).expect("the job is valid");
        outcome.dead_letters.first().map(|(_, _, reason)| *reason)
    };
    lines.iter().map(reason).collect()
}

#[test]
fn strict_records() {
    // Goal: every reason, with the first that applies where several do.
    let ahead = |time: &str| format!("{{\"received_at\":\"{time}\"}}");
    let id = |text: String| format!("\"{text}\"");
    for (member, value, reason) in [
        ("event_id", "", None),
        ("event_id", "null", None),
        ("event_id", "7", Some("schema")),
        ("event_id", "\"\"", Some("schema")),
        ("session_id", "\"ses_1\"", Some("schema")),
        ("session_id", "null", None),
        ("app_id", "", Some("missing_field")),
        ("user_id", "null", Some("missing_field")),
        ("user_id", &id(format!("usr_{ID}0")), Some("schema")),
        ("user_id", &id(format!("app_{ID}")), Some("schema")),
        ("user_id", "\"usr_0123456789abcdeé\"", Some("schema")),
        ("event_type", "\"teleported\"", Some("schema")),
        ("event_type", "3", Some("schema")),
        ("timestamp", "", Some("missing_field")),
        ("timestamp", "\"yesterday\"", Some("bad_time")),
        ("timestamp", "1700000000", Some("bad_time")),
        ("properties", "[]", Some("schema")),
        ("properties", "null", None),
        ("properties", "{\"amount\":\"many\"}", None),
        ("context", "\"\"", Some("schema")),
        ("metadata", "1", Some("schema")),
        ("metadata", "{\"received_at\":7}", None),
        ("metadata", &ahead("2023-12-31T23:00:00Z"), None),
        ("metadata", &ahead("2023-12-31T22:59:59.999999Z"), Some("future")),
        ("properties", "{\"value\":1e400}", Some("invalid_json")),
        ("properties", "{\"value\":NaN}", Some("invalid_json")),
        ("properties", "{\"page\":\"\\ud800\"}", Some("invalid_json")),
        ("properties", "{\"page\":\"\\ud83d\\ude00\"}", None),
    ] {
        assert_eq!(reasons(&Options::default(), &[record(member, value)]), [reason], "{member} {value}");
    }
    for text in ["[]", "{", "1", "{}x", "{\"a\":1,}"] {
        assert_eq!(reasons(&Options::default(), &[text.to_owned()]), [Some("invalid_json")], "{text}");
    }
    let spare = Options { event_bytes_max: record("", "").len() as u64, ..Options::default() };
    assert_eq!(reasons(&spare, &[record("", ""), record("", "") + " "]), [None, Some("too_large")]);
}

#[test]
fn any_ids_and_types() {
    // Goal: foreign ids of 1 to 128 bytes and integers pass when the job says so; extra event types too.
    let long = format!("\"{}\"", "x".repeat(128));
    let longer = format!("\"{}\"", "x".repeat(129));
    let lines = ["17", "-3", "1.5", "\"\"", "true", &long, &longer].map(|id| record("user_id", id));
    let bad = Some("schema");
    assert_eq!(reasons(&any(), &lines), [None, None, bad, bad, bad, None, bad]);
    let kinds = ["\"teleported\"", "\"\"", "5"].map(|kind| record("event_type", kind));
    assert_eq!(reasons(&any(), &kinds), [None, bad, bad]);
    let extra = Options { extra_event_types: vec!["teleported".into()], ..Options::default() };
    assert_eq!(reasons(&extra, &kinds), [None, bad, bad]);
}

#[test]
fn counts_add_up() {
    // Goal: blank lines are no records, rejected ones do not move the watermark, the last of repeated members counts.
    let mut lines = vec![
        plain("e0", "k", 0),
        "  \t\r".to_owned(),
        plain("e1", "k", 100 * DAY).replace("\"a\"", "7.5"),
        plain("e0", "k", 1),
        plain("e2", "k", DAY),
        plain("e3", "k", 0),
    ];
    lines.push(plain("e4", "k", 0).replace("{\"app_id\":\"a\"", "{\"user_id\":\"lost\",\"app_id\":\"a\""));
    let outcome = outcome(&job(vec![]), &lines);
    let counts = &outcome.counts;
    assert_eq!((counts.read, counts.accepted, counts.duplicate, counts.late), (6, 4, 1, 2));
    assert_eq!(outcome.dead_letters, [(0, 2, "schema")]);
    assert_eq!(counts.dead["schema"], 1);
    assert_eq!(outcome.profiles.len(), 1);
    assert_eq!(outcome.profiles[0]["as_of"], Value::Time(DAY));
}

#[test]
fn a_clock_that_runs_ahead_is_clamped() {
    // Goal: exactly 5 s ahead stays, more is set to the ingest time and counted.
    let ahead = |seconds: f64| {
        let time = (seconds * 1e6) as Micros;
        plain("e", "k", time)
            .replace("{\"app_id\"", "{\"metadata\":{\"received_at\":\"1970-01-01T00:00:00Z\"},\"app_id\"")
    };
    for (seconds, clock, clamped) in [(5.0, 5 * SECOND, 0), (5.000001, 0, 1), (3600.0, 0, 1)] {
        let outcome = outcome(&job(vec![]), &[ahead(seconds)]);
        assert_eq!(last_row(&outcome, "k")["key_clock"], Value::Time(clock));
        assert_eq!(outcome.counts.clamped, clamped);
    }
}

#[test]
fn a_record_without_an_id_is_named_by_its_position() {
    // Goal: the cause of a decision is `partition:offset` where the record has no id.
    let mut spec = job(vec![feature("n", Aggregate::Count)]);
    spec.triggers = vec![trigger("t", "n >= 1")];
    let line = RawLine { offset: 77, bytes: record("event_id", "").into_bytes() };
    let outcome = run(&spec, &Options::default(), &[vec![], vec![line]]).expect("the job is valid");
    assert_eq!(outcome.decisions[0]["cause"], Value::text("1:77"));
}

#[test]
fn numbers_are_read_to_the_nearest() {
    // Goal: 2,000 numbers of any size, written in the shortest form that reads back, read back as they were.
    let bits = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some(f64::from_bits(*state)).filter(|number| number.is_finite())
    };
    let mut state = 7;
    let numbers: Vec<f64> = (0..2000).filter_map(|_| bits(&mut state)).collect();
    let spec = job(vec![of("last", Aggregate::Last, "properties.amount")]);
    for (index, number) in numbers.into_iter().enumerate() {
        let text = plain("e", "k", index as Micros).replace("{}", &format!("{{\"amount\":{number:e}}}"));
        assert_eq!(last_row(&outcome(&spec, &[text]), "k")["last"], Value::Number(number));
    }
}
