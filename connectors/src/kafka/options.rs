//! What a Kafka source is told: plain settings, known to builds without Kafka too, so that they can say what they lack.

use std::{collections::BTreeMap, time::Duration};

use whisperer_schemas::{
    Micros,
    time::{MINUTE, SECOND},
};

use crate::source::EpochSize;

/// Settings of a [`KafkaSource`](super::KafkaSource).
#[derive(Clone, Debug, PartialEq)]
pub struct KafkaOptions {
    /// Addresses of brokers to begin with, separated by commas.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// The group that offsets are committed to, for outside observers only.
    pub group: String,
    /// Properties of librdkafka: SASL, TLS, sizes.
    pub properties: BTreeMap<String, String>,
    /// Where a partition begins that has no position.
    pub start: Start,
    /// How long a partition must have had nothing to read until its clock follows the wall clock.
    pub idle_timeout: Micros,
    /// Whether partitions that are added later are read; they are an error otherwise.
    pub allow_repartition: bool,
    /// Whether every record of a topic of several partitions must have a key; one that has none is an error then.
    pub keyed: bool,
    /// Reads up to where the partitions ended at the opening, and ends: a bounded source.
    pub until_end: bool,
    /// Whether the records' headers are read. Their names must be UTF-8, as the protocol says: the library stops the process over one
    /// that is not, so they are left alone where nobody wants them.
    pub headers: bool,
    /// About how much of each partition is an epoch, where the source is bounded.
    pub epoch_size: EpochSize,
    /// Longer records are handed out as too large.
    pub event_bytes_max: u64,
    /// How far event times may lie behind the largest before them; a new partition's clock begins so far ahead of the watermark.
    pub out_of_orderness: Micros,
    /// How long the opening waits for brokers that do not answer.
    pub open_timeout: Duration,
}

/// Where a partition begins that has no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record that the broker has.
    Earliest,
    /// After the newest.
    Latest,
    /// At the first record that was taken in at this time or later.
    Time(Micros),
}

impl KafkaOptions {
    /// The settings of a topic, everything else at its default.
    #[must_use]
    pub fn new(brokers: &str, topic: &str) -> KafkaOptions {
        KafkaOptions {
            brokers: brokers.to_owned(),
            topic: topic.to_owned(),
            group: "whisperer".to_owned(),
            properties: BTreeMap::new(),
            start: Start::Earliest,
            idle_timeout: 10 * SECOND,
            allow_repartition: false,
            keyed: true,
            until_end: false,
            headers: true,
            epoch_size: EpochSize::Bytes(4 << 20),
            event_bytes_max: 1 << 20,
            out_of_orderness: MINUTE / 2,
            open_timeout: Duration::from_secs(30),
        }
    }
}

/// Why a property of librdkafka is not for a job to set; none where it may.
#[must_use]
pub fn owner_of_property(name: &str) -> Option<&'static str> {
    Some(match name {
        "bootstrap.servers" | "metadata.broker.list" => "write \"brokers\"",
        "group.id" => "write \"group\"",
        "auto.offset.reset" => "write \"start\"; an offset that is gone is an error",
        "enable.auto.commit" | "auto.commit.enable" | "auto.commit.interval.ms" | "enable.auto.offset.store" => {
            "positions are kept in the checkpoints"
        }
        "enable.partition.eof" => "the source needs to know where a partition ends",
        "group.instance.id"
        | "group.protocol"
        | "group.protocol.type"
        | "group.remote.assignor"
        | "partition.assignment.strategy" => "partitions are dealt to workers without a group",
        _ => return None,
    })
}
