//! Lines that are not spoilt are events of the contract, of every type and every layout.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use whisperer_schemas::event::{
    APP_ID_PREFIX, ContractType, DEVICE_TYPES, EVENT_ID_PREFIX, EVENT_TYPES, FIELDS, Group, PLANS, SESSION_ID_PREFIX,
    SOURCES, USER_ID_PREFIX, is_native_id,
};

use super::{instant, lines, small};

#[test]
fn lines_that_are_not_spoilt_are_events_of_the_contract() {
    // Goal: every member of every such line has the form that the contract gives it. Method: a naive check with serde_json.
    for line in lines(&small(), 0).iter().filter(|line| line.event.fault.is_none()) {
        if let Err(wrong) = check(&line.json()) {
            panic!("{wrong}: {}", String::from_utf8_lossy(&line.text));
        }
    }
}

#[test]
fn every_event_type_of_the_contract_occurs() {
    // Goal: nothing that a job may ask for is missing from a log of ordinary length.
    let seen: BTreeSet<&str> = lines(&small(), 0).iter().map(|line| line.event.kind.name()).collect();
    assert_eq!(seen, EVENT_TYPES.into_iter().collect());
}

#[test]
fn layouts_escapes_and_gaps_occur() {
    // Goal: parsers meet three orders of members, each kind of escape, and optional members that are missing.
    let lines = lines(&small(), 0);
    let texts: Vec<&str> = lines.iter().filter_map(|line| std::str::from_utf8(&line.text).ok()).collect();
    let share =
        |what: &dyn Fn(&str) -> bool| texts.iter().filter(|text| what(text)).count() as f64 / texts.len() as f64;
    for first in ["{\"event_id\":", "{\"event_type\":", "{\"metadata\": "] {
        let share = share(&|text| text.starts_with(first));
        assert!(share > 0.05, "{share} of the lines begin with {first}");
    }
    for part in
        ["\\u00e9", "\\\"", "\\/", "\\\\", "\\n\\t", "\\ud83d\\ude80", "\u{fc}", "+05:30", ":null", ":{}", ".5e1"]
    {
        assert!(share(&|text| text.contains(part)) > 0.0, "no line contains {part}");
    }
    for member in ["session_id", "properties", "context"] {
        let share = share(&|text| !text.contains(&format!("\"{member}\"")));
        assert!(share > 0.01 && share < 0.2, "{member} is missing from {share} of the lines");
    }
    let mean = texts.iter().map(|text| text.len()).filter(|&bytes| bytes < 10_000).sum::<usize>() / texts.len();
    assert!((380..=520).contains(&mean), "lines of {mean} bytes");
}

/// What is wrong with an event.
fn check(event: &Value) -> Result<(), String> {
    let event = event.as_object().ok_or("no object")?;
    if let Some(unknown) = event.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        return Err(format!("unknown member {unknown}"));
    }
    for (name, prefix) in [("event_id", EVENT_ID_PREFIX), ("app_id", APP_ID_PREFIX), ("user_id", USER_ID_PREFIX)] {
        let id = event.get(name).and_then(Value::as_str).ok_or(format!("no {name}"))?;
        expect(is_native_id(prefix, id), name)?;
    }
    if let Some(id) = event.get("session_id") {
        expect(id.as_str().is_some_and(|id| is_native_id(SESSION_ID_PREFIX, id)), "session_id")?;
    }
    expect(
        event.get("event_type").and_then(Value::as_str).is_some_and(|kind| EVENT_TYPES.contains(&kind)),
        "event_type",
    )?;
    let (time, received) = (instant(&event["timestamp"]), instant(&event["metadata"]["received_at"]));
    expect(time <= received, "a time ahead of its arrival")?;
    for group in Group::ALL {
        match event.get(group.name()) {
            None | Some(Value::Null) => {}
            Some(Value::Object(members)) => check_group(group, members)?,
            Some(_) => return Err(format!("{} is no object", group.name())),
        }
    }
    Ok(())
}

fn check_group(group: Group, members: &Map<String, Value>) -> Result<(), String> {
    for (name, value) in members {
        let known = group.fields().iter().find(|(field, _)| field == name);
        match known.ok_or(format!("{name} is not in the contract"))?.1 {
            ContractType::Number => expect(value.is_number(), name)?,
            ContractType::Text => expect(value.is_string(), name)?,
        }
        let text = value.as_str().unwrap_or_default();
        let holds = match name.as_str() {
            "plan" => PLANS.contains(&text),
            "device_type" => DEVICE_TYPES.contains(&text),
            "source" => SOURCES.contains(&text),
            "currency" => text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase()),
            "screen_resolution" => {
                let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
                text.split_once('x').is_some_and(|(width, height)| number(width) && number(height))
            }
            "locale" => {
                let (language, country) = text.split_once('-').unwrap_or_default();
                language.len() == 2
                    && country.len() == 2
                    && language.bytes().all(|byte| byte.is_ascii_lowercase())
                    && country.bytes().all(|byte| byte.is_ascii_uppercase())
            }
            "ip" => text.parse::<std::net::Ipv4Addr>().is_ok(),
            "referrer" => text.starts_with("https://"),
            "timezone" => jiff::tz::TimeZone::get(text).is_ok(),
            _ => true,
        };
        expect(holds, name)?;
    }
    Ok(())
}

fn expect(holds: bool, name: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("wrong {name}")) }
}
