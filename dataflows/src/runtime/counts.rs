//! The numbers of a run by name, as manifests keep them, and back.

use std::collections::BTreeMap;

use whisperer_operators::{
    job::{CompiledJob, Trigger},
    keys::Counts,
};

use super::reading::ReadCounts;

/// The numbers of one worker by name.
pub(super) fn named(job: &CompiledJob, counts: &Counts, read: &ReadCounts, stages: &[i64]) -> BTreeMap<String, u64> {
    let mut named = BTreeMap::new();
    let mut add = |name: String, count: u64| {
        named.insert(name, count);
    };
    add("read".into(), read.read);
    add("clamped".into(), read.clamped);
    add("past_history".into(), read.past_history);
    add("on_time".into(), counts.on_time);
    add("late".into(), counts.late);
    add("duplicates".into(), counts.duplicates);
    add("events_suppressed".into(), counts.erased);
    add("expired".into(), counts.expired);
    add("timers".into(), counts.timers);
    add("snapshots".into(), counts.snapshots);
    add("nulls".into(), counts.nulls);
    add("warming".into(), counts.warming);
    add("statements_refused".into(), counts.statements_refused);
    read.dead.iter().for_each(|(reason, count)| add(format!("dead.{reason}"), *count));
    add("users".into(), counts.keys);
    add("cold_users".into(), counts.cold_keys);
    add("state_bytes".into(), counts.state_bytes);
    add("cold_bytes".into(), counts.cold_bytes);
    for (name, keys) in job.stage_names.iter().zip(stages) {
        // A key may enter a stage on one worker's view and leave it on another's: only the sum is no difference.
        add(format!("stage.{name}"), *keys as u64);
    }
    for (at, trigger) in job.triggers.iter().enumerate() {
        add(format!("decisions.{}", trigger.name), counts.decisions[at]);
        add(format!("suppressed.{}", trigger.name), counts.suppressed[at]);
    }
    named
}

/// What a run that goes on starts with.
pub(super) fn keyed(named: &BTreeMap<String, u64>, triggers: &[Trigger]) -> Counts {
    let get = |name: &str| named.get(name).copied().unwrap_or_default();
    Counts {
        on_time: get("on_time"),
        late: get("late"),
        duplicates: get("duplicates"),
        erased: get("events_suppressed"),
        expired: get("expired"),
        timers: get("timers"),
        snapshots: get("snapshots"),
        nulls: get("nulls"),
        warming: get("warming"),
        statements_refused: get("statements_refused"),
        decisions: triggers.iter().map(|trigger| get(&format!("decisions.{}", trigger.name))).collect(),
        suppressed: triggers.iter().map(|trigger| get(&format!("suppressed.{}", trigger.name))).collect(),
        ..Counts::default()
    }
}

/// What reading starts with. Reasons are those of the formats; one that this build does not know is left out.
pub(super) fn read(named: &BTreeMap<String, u64>) -> ReadCounts {
    let get = |name: &str| named.get(name).copied().unwrap_or_default();
    let dead = whisperer_connectors::format::Reason::ALL.iter().map(|reason| reason.as_str());
    let dead = dead.map(|reason| (reason, get(&format!("dead.{reason}")))).filter(|(_, count)| *count > 0);
    ReadCounts { read: get("read"), clamped: get("clamped"), past_history: get("past_history"), dead: dead.collect() }
}

/// Keys by stage, of all workers.
pub(super) fn stages(job: &CompiledJob, named: &BTreeMap<String, u64>) -> Vec<u64> {
    let get = |name: &String| named.get(&format!("stage.{name}")).copied().unwrap_or_default();
    job.stage_names.iter().map(get).collect()
}

/// The numbers of all workers at the end of a run.
pub(super) fn of_all(named: &BTreeMap<String, u64>, triggers: &[Trigger]) -> Counts {
    let get = |name: &str| named.get(name).copied().unwrap_or_default();
    Counts {
        keys: get("users"),
        cold_keys: get("cold_users"),
        state_bytes: get("state_bytes"),
        cold_bytes: get("cold_bytes"),
        ..keyed(named, triggers)
    }
}
