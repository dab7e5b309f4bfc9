//! Sinks with their metrics and spans around them: how many rows each takes, and how long it is waited for.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use whisperer_schemas::Row;
use whisperer_sinks::{
    CommitFacts, LogSink, OutboxEncoder, OutboxSink, Removal, SinkError, StagedFile, TableSink, WrittenFile,
};

use super::tables::Way;
use crate::operations::{Metrics, SinkMetrics, traces};

/// The same way, measured under a name.
pub(super) fn measured(way: Way, name: &str, metrics: &Metrics) -> Way {
    let (metrics, label) = (metrics.sink(name), name.to_owned());
    match way {
        Way::Staged { sink } => Way::Staged { sink: Box::new(Measured { sink, metrics, label }) },
        Way::Lake { sink, lake, filing } => {
            Way::Lake { sink: Box::new(Measured { sink, metrics, label }), lake, filing }
        }
        Way::Log { name, sink } => Way::Log { name, sink: Box::new(Measured { sink, metrics, label }) },
        Way::Outbox { name, sink, encoder, identity, rows, removals, identities } => {
            let encoder = Arc::new(Measured { sink: encoder, metrics: metrics.clone(), label: label.clone() });
            let sink = match Arc::try_unwrap(sink) {
                Ok(sink) => {
                    let sink = sink.into_inner().unwrap_or_else(PoisonError::into_inner);
                    Arc::new(Mutex::new(Box::new(Measured { sink, metrics, label }) as Box<dyn OutboxSink>))
                }
                // Somebody publishes through it already, unmeasured.
                Err(shared) => shared,
            };
            Way::Outbox { name, sink, encoder, identity, rows, removals, identities }
        }
    }
}

struct Measured<S> {
    sink: S,
    metrics: SinkMetrics,
    label: String,
}

impl<S> Measured<S> {
    fn takes<T>(&mut self, rows: usize, take: impl FnOnce(&mut S) -> T) -> T {
        let started = Instant::now();
        let taken = take(&mut self.sink);
        self.metrics.wrote(rows as u64, started.elapsed());
        taken
    }

    fn flushes<T>(&mut self, flush: impl FnOnce(&mut S) -> T) -> T {
        let _span = traces::flush(&self.label).entered();
        let started = Instant::now();
        let flushed = flush(&mut self.sink);
        self.metrics.waited(started.elapsed());
        flushed
    }
}

impl TableSink for Measured<Box<dyn TableSink>> {
    fn write(&mut self, rows: Vec<Row>) -> Result<(), SinkError> {
        self.takes(rows.len(), |sink| sink.write(rows))
    }

    fn stage(&mut self, facts: &CommitFacts) -> Result<Vec<StagedFile>, SinkError> {
        self.flushes(|sink| sink.stage(facts))
    }

    fn hold(&mut self, hold: bool) {
        self.sink.hold(hold);
    }

    fn held(&mut self) -> Result<Option<Vec<u8>>, SinkError> {
        self.flushes(|sink| sink.held())
    }

    fn publish(&mut self, staged: &[StagedFile]) -> Result<Vec<WrittenFile>, SinkError> {
        self.flushes(|sink| sink.publish(staged))
    }
}

impl LogSink for Measured<Box<dyn LogSink>> {
    fn recover(&mut self, positions: &[String]) -> Result<(), SinkError> {
        self.sink.recover(positions)
    }

    fn write(&mut self, rows: Vec<Row>) -> Result<(), SinkError> {
        self.takes(rows.len(), |sink| sink.write(rows))
    }

    fn remove(&mut self, keys: &[Removal]) -> Result<(), SinkError> {
        self.takes(keys.len(), |sink| sink.remove(keys))
    }

    fn flush(&mut self) -> Result<String, SinkError> {
        self.flushes(|sink| sink.flush())
    }

    fn caught_up(&mut self) {
        self.sink.caught_up();
    }

    fn passed_over(&self) -> u64 {
        self.sink.passed_over()
    }
}

impl OutboxEncoder for Measured<Arc<dyn OutboxEncoder>> {
    fn encode(&self, rows: &[Row], outbox: &mut Vec<u8>) -> Result<(), SinkError> {
        let started = Instant::now();
        let encoded = self.sink.encode(rows, outbox);
        self.metrics.wrote(rows.len() as u64, started.elapsed());
        encoded
    }

    fn encode_removals(&self, keys: &[Removal], outbox: &mut Vec<u8>) -> Result<(), SinkError> {
        self.sink.encode_removals(keys, outbox)
    }
}

impl OutboxSink for Measured<Box<dyn OutboxSink>> {
    fn recover(&mut self, earlier: &[String]) -> Result<BTreeMap<String, u64>, SinkError> {
        self.sink.recover(earlier)
    }

    fn identity(&self) -> String {
        self.sink.identity()
    }

    fn encoder(&self) -> Arc<dyn OutboxEncoder> {
        self.sink.encoder()
    }

    fn publish(&mut self, maker: &str, number: u64, outbox: &[u8]) -> Result<(), SinkError> {
        self.flushes(|sink| sink.publish(maker, number, outbox))
    }

    fn forget(&mut self) -> Result<(), SinkError> {
        self.sink.forget()
    }
}
