//! `[[sink]] connector = "kafka"`.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};
use whisperer_operators::spec::ViewSpec;
use whisperer_schemas::VIEWS;

use super::{
    section::{Section, Value},
    shape,
    sink::{LakeTable, read_table, read_view},
};

/// Librdkafka settings that a sink chooses itself, since its promises rest on them.
const FIXED_PROPERTIES: [&str; 6] =
    ["acks", "bootstrap.servers", "enable.idempotence", "isolation.level", "request.required.acks", "transactional.id"];

/// The longest name that a topic may have.
const TOPIC_BYTES_MAX: usize = 249;

/// A topic that rows of a table go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSink {
    /// Which table.
    pub table: LakeTable,
    /// Brokers to begin with: `host:port`, with commas between them.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// When rows become readable.
    pub delivery: Delivery,
    /// How the changes of a view are written.
    pub changes: Changes,
    /// Creates the topic if it is missing.
    pub create: Option<TopicShape>,
    /// Further librdkafka settings by name.
    pub properties: BTreeMap<String, String>,
}

/// When rows in a topic become readable, and what is promised of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// `idempotent`: at once. A crash repeats nothing that is there.
    Idempotent,
    /// `exactly_once`: with their checkpoint, for readers who wait for commits.
    ExactlyOnce,
}

/// How the changes of a view are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Changes {
    /// `upsert`: the row as it is now, or a tombstone.
    #[default]
    Upsert,
    /// `debezium`: the row before and after, in Debezium's envelope.
    Debezium,
}

/// How a topic is made; what is left out is the broker's to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicShape {
    /// Its partitions.
    pub partitions: Option<u16>,
    /// Brokers that keep each partition.
    pub replication: Option<u16>,
}

/// Reads a sink whose connector is Kafka.
pub(super) fn read(section: &Section<'_>, views: &[ViewSpec]) -> Option<KafkaSink> {
    if cfg!(not(feature = "kafka")) {
        let connector = section.get("connector")?;
        let hint = "build it with `--features kafka`";
        connector.problem("the connector \"kafka\" is not in this build".into(), Some(hint));
        return None;
    }
    let table = section.get("table").map_or(Some(LakeTable::Decisions), |value| read_topics_table(&value, views));
    let brokers = section.require("brokers").and_then(|value| value.text());
    let topic = section.require("topic").and_then(|value| read_topic(&value));
    let name = section.get("table");
    let is_view = name.is_some_and(|name| name.raw().as_str().is_some_and(|name| name.starts_with(VIEWS)));
    let delivery = read_delivery(section, is_view);
    let modes = [("upsert", Changes::Upsert), ("debezium", Changes::Debezium)];
    let changes = section.get("mode").map_or(Some(Changes::Upsert), |value| {
        if !is_view {
            value.problem_at_key("\"mode\" is for the table of a view".into(), None);
        }
        value.choice(&modes)
    });
    let create = section.get("create").map_or(Some(None), |value| read_create(&value).map(Some));
    let properties = section.get("properties").map_or(Some(BTreeMap::new()), |value| read_properties(&value));
    Some(KafkaSink {
        table: table?,
        brokers: brokers?.value,
        topic: topic?,
        delivery: delivery?,
        changes: changes?,
        create: create?,
        properties: properties?,
    })
}

/// A view's changes are known at a checkpoint, and must not be seen before it: a run that goes on from the one before may sum up others.
fn read_delivery(section: &Section<'_>, is_view: bool) -> Option<Delivery> {
    let deliveries = [("idempotent", Delivery::Idempotent), ("exactly_once", Delivery::ExactlyOnce)];
    let default = if is_view { Delivery::ExactlyOnce } else { Delivery::Idempotent };
    let Some(value) = section.get("delivery") else { return Some(default) };
    let delivery = value.choice(&deliveries)?;
    if is_view && delivery == Delivery::Idempotent {
        value.problem("changes of a view leave with checkpoints".into(), Some("delivery = \"exactly_once\""));
    }
    Some(delivery)
}

/// A topic takes one table.
fn read_topics_table(value: &Value<'_>, views: &[ViewSpec]) -> Option<LakeTable> {
    match value.raw().as_str().and_then(|name| name.strip_prefix(VIEWS)) {
        Some("*") => {
            value.problem("a topic takes one table".into(), Some("write a sink for each view"));
            None
        }
        Some(view) => read_view(value, view, views),
        None => read_table(value),
    }
}

fn read_topic(value: &Value<'_>) -> Option<String> {
    let topic = value.text()?.value;
    let legal = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    if topic.len() > TOPIC_BYTES_MAX || !topic.chars().all(legal) {
        let hint = "at most 249 letters, digits, \".\", \"_\" and \"-\"";
        value.problem(format!("\"{topic}\" is no name of a topic"), Some(hint));
        return None;
    }
    Some(topic)
}

fn read_create(value: &Value<'_>) -> Option<TopicShape> {
    let section = value.section(&shape::CREATE)?;
    let number = |key: &str, largest: u64| match section.get(key) {
        None => Some(None),
        Some(value) => value.whole(1..=largest).map(|number| u16::try_from(number).ok()),
    };
    Some(TopicShape { partitions: number("partitions", 10_000)?, replication: number("replication", 100)? })
}

/// Settings by name. A dotted name may be quoted or not; values are texts, numbers or truth values. `"${NAME}"` is taken from the
/// environment, so that no secret stands in a job file.
fn read_properties(value: &Value<'_>) -> Option<BTreeMap<String, String>> {
    let section = value.section(&shape::PROPERTIES)?;
    let mut properties = BTreeMap::new();
    let mut right = true;
    for entry in section.entries() {
        if let Err(name) = flatten(entry.key(), entry.raw(), &mut properties) {
            entry.problem(format!("the property \"{name}\" must be a text, a number or true or false"), None);
            right = false;
        }
    }
    for property in properties.values_mut() {
        let variable = property.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        let Some(variable) = variable.map(str::to_owned) else { continue };
        match std::env::var(&variable) {
            Ok(text) => *property = text,
            Err(_) => {
                value.problem(format!("the environment has no variable \"{variable}\""), None);
                right = false;
            }
        }
    }
    for name in properties.keys().filter(|name| FIXED_PROPERTIES.contains(&name.as_str())) {
        let hint =
            if name == "bootstrap.servers" { "write it as \"brokers\"" } else { "it is the sink's own: leave it out" };
        value.problem_at_key(format!("the property \"{name}\" cannot be set"), Some(hint));
        right = false;
    }
    right.then_some(properties)
}

/// TOML makes tables of dotted names that are not quoted.
fn flatten(name: &str, value: &DeValue<'_>, into: &mut BTreeMap<String, String>) -> Result<(), String> {
    let text = match value {
        DeValue::String(text) => text.clone().into_owned(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Integer(digits) => match i64::from_str_radix(digits.as_str(), digits.radix()) {
            Ok(number) => number.to_string(),
            Err(_) => return Err(name.to_owned()),
        },
        DeValue::Float(digits) => digits.as_str().to_owned(),
        DeValue::Table(members) => return flatten_table(name, members, into),
        DeValue::Array(_) | DeValue::Datetime(_) => return Err(name.to_owned()),
    };
    into.insert(name.to_owned(), text);
    Ok(())
}

fn flatten_table(name: &str, members: &DeTable<'_>, into: &mut BTreeMap<String, String>) -> Result<(), String> {
    if members.is_empty() {
        return Err(name.to_owned());
    }
    members.iter().try_for_each(|(key, value)| flatten(&format!("{name}.{}", key.get_ref()), value.get_ref(), into))
}

#[cfg(all(test, feature = "kafka"))]
mod tests {
    use super::*;

    /// Goal: the list of properties that are refused in the file is that of the sink.
    #[test]
    fn fixed_properties_are_those_of_the_sink() {
        assert_eq!(FIXED_PROPERTIES, whisperer_sinks::KafkaOptions::fixed_properties());
    }
}
