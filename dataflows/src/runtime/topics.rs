//! Opening sinks into topics.

use whisperer_schemas::TableSchema;
use whisperer_sinks::{LogSink, OutboxSink, SinkError};

use crate::job_file::{Delivery, KafkaSink};

/// Who writes.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The job's name.
    pub job: &'a str,
    /// The worker, over all processes.
    pub worker: u32,
    /// How many workers there are, over all processes.
    pub workers: u32,
    /// What dead letters say they come from: the source's topic, or what stands for it.
    pub source: &'a str,
}

/// A sink that is open, by the way in which it delivers.
pub enum TopicSink {
    /// Rows are readable at once.
    Log(Box<dyn LogSink>),
    /// Rows are readable with their checkpoint.
    Outbox(Box<dyn OutboxSink>),
}

/// Opens `sink` for rows of `schema`. Each worker has its own.
///
/// # Errors
/// Settings that cannot work, or what Kafka answers.
#[cfg(feature = "kafka")]
pub fn open(sink: &KafkaSink, schema: TableSchema, writer: Writer<'_>) -> Result<TopicSink, SinkError> {
    use whisperer_sinks::{CreateTopic, KafkaLog, KafkaOptions, KafkaOutbox};
    let create = sink.create.map(|shape| CreateTopic { partitions: shape.partitions, replication: shape.replication });
    let options = KafkaOptions {
        brokers: sink.brokers.clone(),
        topic: sink.topic.clone(),
        properties: sink.properties.clone(),
        create,
        job: writer.job.into(),
        // One sink a topic: the job file sees to that.
        sink: sink.topic.clone(),
        worker: writer.worker,
        workers: writer.workers,
        source: writer.source.into(),
    };
    Ok(match sink.delivery {
        Delivery::Idempotent => TopicSink::Log(Box::new(KafkaLog::open(schema, &options)?)),
        Delivery::ExactlyOnce => TopicSink::Outbox(Box::new(KafkaOutbox::open(schema, &options)?)),
    })
}

/// Opens nothing: a job file that asks for Kafka is refused in a build without it.
///
/// # Errors
/// Always.
#[cfg(not(feature = "kafka"))]
pub fn open(sink: &KafkaSink, _schema: TableSchema, _writer: Writer<'_>) -> Result<TopicSink, SinkError> {
    Err(SinkError::Topic {
        doing: "open",
        topic: sink.topic.clone(),
        detail: "this build of whisperer has no Kafka".into(),
        hint: "build with --features kafka",
        fault: whisperer_sinks::Fault::User,
        retry: false,
    })
}
