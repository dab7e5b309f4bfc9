//! The engagement job from a topic into topics, and what it has told there.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    broker::{Broker, Seen},
    job::Job,
};

/// Where a job's tables go.
#[derive(Clone, Debug)]
pub struct Topics {
    pub decisions: String,
    pub profiles: String,
    pub dead_letters: String,
    /// Of each of [`VIEWS`], where there are sinks for them.
    pub views: Vec<String>,
}

/// The views that go to topics, and how: one with ranks that come and go, and one with numbers that change.
pub const VIEWS: [(&str, &str); 2] = [("call_them", "upsert"), ("churn_risk_by_stage", "debezium")];

impl Topics {
    /// Topics that no other job has.
    pub fn new(broker: &Broker, views: bool) -> Topics {
        let [decisions, profiles, dead_letters] =
            ["decisions", "profiles", "dead_letters"].map(|table| broker.topic(table));
        let views = VIEWS.iter().filter(|_| views).map(|(view, _)| broker.topic(view)).collect();
        Topics { decisions, profiles, dead_letters, views }
    }

    /// Waits until readers see all that is in them.
    pub fn await_committed(&self, broker: &Broker) {
        self.each().iter().for_each(|(_, topic)| broker.await_committed(topic));
        self.views.iter().for_each(|topic| broker.await_committed(topic));
    }

    fn each(&self) -> [(&str, &str); 3] {
        [("decisions", &self.decisions), ("profiles", &self.profiles), ("dead_letters", &self.dead_letters)]
    }
}

/// How a job is connected.
#[derive(Clone, Debug, Default)]
pub struct Wiring<'a> {
    pub delivery: &'a str,
    /// Further lines of `[source]`.
    pub source: &'a str,
    /// Lines of every sink's `properties`.
    pub properties: &'a str,
    /// Whether views go to topics too: they wait for commits, whatever the delivery.
    pub views: bool,
}

/// The engagement job from `events` into topics of its own.
pub fn job(broker: &Broker, events: &str, wiring: &Wiring<'_>) -> (Job, Topics) {
    let topics = Topics::new(broker, wiring.views);
    let Wiring { delivery, source, properties, .. } = wiring;
    let edited = Job::edited("topics", |text| {
        let (before, rest) = text.split_once("[source]").expect("a source");
        let after = &rest[rest.find("\n[").expect("a section behind it")..];
        let before = before.replace("[job]", "[job]\ndeliver_from = \"beginning\"");
        let from = format!("connector = \"kafka\"\nbrokers = \"{}\"\ntopic = \"{events}\"\n{source}\n", broker.address);
        let sink = |(table, topic)| {
            let to = format!("brokers = \"{}\"\ntopic = \"{topic}\"\ntable = \"{table}\"", broker.address);
            format!(
                "\n[[sink]]\nconnector = \"kafka\"\n{to}\ndelivery = \"{delivery}\"\n[sink.properties]\n{properties}\n"
            )
        };
        let view = |((view, mode), topic)| {
            let to = format!("brokers = \"{}\"\ntopic = \"{topic}\"\ntable = \"views/{view}\"", broker.address);
            format!("\n[[sink]]\nconnector = \"kafka\"\n{to}\nmode = \"{mode}\"\n[sink.properties]\n{properties}\n")
        };
        let sinks = topics.each().into_iter().map(sink).chain(VIEWS.into_iter().zip(&topics.views).map(view));
        let sinks: String = sinks.collect();
        format!("{before}[source]\n{from}{after}{sinks}")
    });
    (edited, topics)
}

/// What a job has told in its topics. Nothing in it depends on how often the job was interrupted.
#[derive(Clone, PartialEq)]
pub struct Told {
    /// Keys and rows, sorted; one that is there twice is here twice.
    pub decisions: Vec<(String, Value)>,
    /// The last row of each key.
    pub profiles: BTreeMap<String, Value>,
    /// Partition, offset, reason and record, sorted.
    pub dead_letters: Vec<(u32, u64, String, Vec<u8>)>,
    /// What compaction leaves of each view: the rows by their keys.
    pub views: Vec<BTreeMap<String, Value>>,
}

impl Told {
    pub fn read(broker: &Broker, topics: &Topics) -> Told {
        let mut decisions: Vec<_> = broker.read(&topics.decisions).iter().map(row).collect();
        decisions.sort_by(|one, other| one.0.cmp(&other.0));
        let profiles = broker.read(&topics.profiles).iter().map(row).collect();
        let mut dead_letters: Vec<_> = broker.read(&topics.dead_letters).into_iter().map(dead_letter).collect();
        dead_letters.sort();
        let views = topics.views.iter().map(|topic| compacted(&broker.read(topic))).collect();
        Told { decisions, profiles, dead_letters, views }
    }

    /// Compares it with what an undisturbed job has told.
    pub fn assert_equals(&self, expected: &Told, what: &str) {
        let counts = |told: &Told| (told.decisions.len(), told.profiles.len(), told.dead_letters.len());
        let (decisions, profiles, dead_letters) = counts(expected);
        assert!(decisions > 100 && profiles > 1000 && dead_letters > 0, "there is something to compare");
        assert_eq!(counts(self), counts(expected), "{what}: decisions, profiles and dead letters in the topics");
        assert!(self.decisions == expected.decisions, "{what}: other decisions");
        assert!(self.profiles == expected.profiles, "{what}: another table of profiles");
        assert!(self.dead_letters == expected.dead_letters, "{what}: other dead letters");
        assert_eq!(self.views, expected.views, "{what}: other views");
    }
}

/// Key and value, the engine's own columns left out.
fn row(seen: &Seen) -> (String, Value) {
    let key = String::from_utf8_lossy(seen.key.as_deref().unwrap_or_default()).into_owned();
    let mut value: Value = serde_json::from_slice(seen.value.as_deref().unwrap_or_default()).expect("JSON");
    value.as_object_mut().expect("a row").retain(|name, _| !name.starts_with('_'));
    (key, value)
}

/// The rows that a view's changes leave, by key.
fn compacted(changes: &[Seen]) -> BTreeMap<String, Value> {
    let mut rows = BTreeMap::new();
    for change in changes {
        let key = String::from_utf8_lossy(change.key.as_deref().unwrap_or_default()).into_owned();
        let value = change.value.as_deref().map(|value| serde_json::from_slice::<Value>(value).expect("JSON"));
        // Debezium's envelope says what the row is now; a tombstone follows where it is none.
        match value.map(|value| value.get("after").cloned().unwrap_or(value)) {
            Some(Value::Object(mut row)) => {
                row.retain(|name, _| !name.starts_with('_'));
                rows.insert(key, Value::Object(row));
            }
            _ => _ = rows.remove(&key),
        }
    }
    rows
}

fn dead_letter(seen: Seen) -> (u32, u64, String, Vec<u8>) {
    let header = |name: &str| seen.header(&format!("__connect.errors.{name}"));
    let number = |name| header(name).parse::<u64>().expect("a number");
    (
        number("partition") as u32,
        number("offset"),
        header("exception.class.name"),
        seen.value.clone().unwrap_or_default(),
    )
}
