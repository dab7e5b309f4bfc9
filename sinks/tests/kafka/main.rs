//! Sinks into Kafka, against the client library's mock cluster, and against a real broker where `WHISPERER_KAFKA` names one.
//!
//! The mock cluster neither hides transactions that are open or given up, nor fences; what needs that is tested on a real broker only,
//! and the tests say so.

mod broker;
mod faults;
mod tables;

use whisperer_sinks::{
    KafkaLog, KafkaOutbox, LogSink, OutboxSink,
    conformance::{
        log::{LogHarness, OutboxHarness, run_logs, run_outboxes},
        sample_schema,
    },
};

use self::broker::Broker;

struct Decisions {
    broker: Broker,
    topic: String,
}

impl Decisions {
    fn fresh() -> Decisions {
        let broker = Broker::start();
        let topic = broker.topic("decisions");
        Decisions { broker, topic }
    }
}

impl LogHarness for Decisions {
    fn open(&mut self, worker: u32, workers: u32) -> Box<dyn LogSink> {
        let options = self.broker.options(&self.topic, worker, workers);
        Box::new(KafkaLog::open(sample_schema(), &options).expect("a log opens"))
    }

    fn visible(&self) -> Vec<String> {
        self.broker.values(&self.topic)
    }
}

impl OutboxHarness for Decisions {
    fn open(&mut self, worker: u32, workers: u32) -> Box<dyn OutboxSink> {
        let options = self.broker.options(&self.topic, worker, workers);
        Box::new(KafkaOutbox::open(sample_schema(), &options).expect("a log opens"))
    }

    fn visible(&self) -> Vec<String> {
        self.broker.values(&self.topic)
    }

    fn fences(&self) -> bool {
        self.broker.is_real()
    }
}

/// Goal: rows that are readable at once are there once, whatever crashes and whoever makes them again.
#[test]
fn idempotent_logs() {
    run_logs(|| Box::new(Decisions::fresh()));
}

/// Goal: rows that are readable with their checkpoint are out once, and only by the newest generation.
#[test]
fn transactional_logs() {
    run_outboxes(|| Box::new(Decisions::fresh()));
}
