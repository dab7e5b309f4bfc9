//! Traces: the spans in a job's life, and their way to an OpenTelemetry collector.
//!
//! ```text
//! run ─┬─ recovery ─── load       each worker: its share of the checkpoint
//!      ├─ epoch                   each worker, one a second: from its end to the end of its work
//!      └─ checkpoint ─┬─ cut      each worker: states encoded, sinks at what belongs to the cut ─── flush, each sink
//!                     ├─ write    each worker: the delta file, durable
//!                     ├─ commit   the coordinator: the manifest
//!                     └─ publish  what waited for the commit ─── flush, each sink
//! ```
//! Spans are made here and nowhere else, so that names and fields stand in one place; workers on other threads name their parent. Every
//! process has a run of its own. Where nobody takes spans, asking for one costs the look at a flag.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tracing::{Span, info_span};

use super::OperationsError;

/// The target of all spans that are exported. An HTTP client or a sink may have spans of its own: they stay here.
pub(super) const TARGET: &str = "whisperer::spans";

/// The spans of a run that several threads work in; off until a run begins, and where nobody takes spans.
#[derive(Debug)]
pub struct Spans(Mutex<Open>);

#[derive(Debug)]
struct Open {
    run: Span,
    /// Checkpoints under way, by epoch.
    checkpoints: BTreeMap<u64, Span>,
}

impl Default for Spans {
    fn default() -> Spans {
        Spans(Mutex::new(Open { run: Span::none(), checkpoints: BTreeMap::new() }))
    }
}

impl Spans {
    /// Begins the run; it ends with what is given.
    pub fn begin(&self, job: &str, workers: usize) -> RunSpan<'_> {
        self.locked().run = run(job, workers);
        RunSpan(self)
    }

    /// The run.
    #[must_use]
    pub fn run(&self) -> Span {
        self.locked().run.clone()
    }

    /// The checkpoint at an epoch; whoever asks first begins it.
    #[must_use]
    pub fn checkpoint(&self, epoch: u64) -> Span {
        let open = &mut *self.locked();
        if open.run.is_disabled() {
            return Span::none();
        }
        open.checkpoints.entry(epoch).or_insert_with(|| checkpoint(&open.run, epoch)).clone()
    }

    /// Says that a checkpoint is committed: it ends when those who work on it let go of it.
    pub fn committed(&self, epoch: u64, number: u64, bytes: u64) {
        if let Some(span) = self.locked().checkpoints.remove(&epoch) {
            span.record("number", number);
            span.record("bytes", bytes);
        }
    }

    fn locked(&self) -> MutexGuard<'_, Open> {
        // Spans are whole at any moment: a thread that panicked elsewhere does not spoil them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run while it lasts.
#[must_use]
#[derive(Debug)]
pub struct RunSpan<'a>(&'a Spans);

impl Drop for RunSpan<'_> {
    fn drop(&mut self) {
        *self.0.locked() = Open { run: Span::none(), checkpoints: BTreeMap::new() };
    }
}

/// A whole run.
#[must_use]
pub fn run(job: &str, workers: usize) -> Span {
    info_span!(target: TARGET, parent: None, "run", job, workers)
}

/// From the search for a checkpoint to the first record.
#[must_use]
pub fn recovery(run: &Span) -> Span {
    info_span!(target: TARGET, parent: run, "recovery", checkpoint = tracing::field::Empty)
}

/// A worker's share of a checkpoint being loaded.
#[must_use]
pub fn load(recovery: &Span, worker: usize) -> Span {
    info_span!(target: TARGET, parent: recovery, "load", worker, keys = tracing::field::Empty)
}

/// From an epoch's end to the end of its work.
#[must_use]
pub fn epoch(run: &Span, epoch: u64, worker: usize) -> Span {
    info_span!(target: TARGET, parent: run, "epoch", epoch, worker)
}

/// A checkpoint, from its cut to its publication.
#[must_use]
pub fn checkpoint(run: &Span, epoch: u64) -> Span {
    info_span!(target: TARGET, parent: run, "checkpoint", epoch, number = tracing::field::Empty, bytes = tracing::field::Empty)
}

/// A worker's states being encoded.
#[must_use]
pub fn cut(checkpoint: &Span, worker: usize) -> Span {
    info_span!(target: TARGET, parent: checkpoint, "cut", worker)
}

/// A worker's delta file being written.
#[must_use]
pub fn write(checkpoint: &Span, worker: usize) -> Span {
    info_span!(target: TARGET, parent: checkpoint, "write", worker, bytes = tracing::field::Empty)
}

/// The manifest being created.
#[must_use]
pub fn commit(checkpoint: &Span, number: u64) -> Span {
    info_span!(target: TARGET, parent: checkpoint, "commit", number)
}

/// What waited for the commit being made visible.
#[must_use]
pub fn publish(checkpoint: &Span, number: u64) -> Span {
    info_span!(target: TARGET, parent: checkpoint, "publish", number)
}

/// A sink making durable or visible what it has taken, within the span that the thread is in.
#[must_use]
pub fn flush(sink: &str) -> Span {
    info_span!(target: TARGET, "flush", sink)
}

#[cfg(feature = "otel")]
pub(super) use otlp::{Exporting, exporting};

#[cfg(not(feature = "otel"))]
pub(super) use without::{Exporting, exporting};

/// Traces in a build that has them.
#[cfg(feature = "otel")]
mod otlp {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
    use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
    use tracing::{Subscriber, level_filters::LevelFilter};
    use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

    use super::{OperationsError, TARGET};

    /// Where a collector takes traces, below its base URL.
    const PATH: &str = "v1/traces";

    /// Sends the last spans when it is dropped.
    #[derive(Debug)]
    pub(in crate::operations) struct Exporting(SdkTracerProvider);

    impl Drop for Exporting {
        fn drop(&mut self) {
            // A collector that is away costs its spans, nothing else.
            if let Err(error) = self.0.shutdown() {
                tracing::warn!(%error, "the last spans did not reach the collector");
            }
        }
    }

    /// A layer that exports the spans of this module, in the background, in batches.
    pub(in crate::operations) fn exporting<S>(
        collector: &str,
        service: &str,
    ) -> Result<(Box<dyn Layer<S> + Send + Sync>, Exporting), OperationsError>
    where
        S: Subscriber + for<'s> LookupSpan<'s> + Send + Sync,
    {
        let endpoint = format!("{}/{PATH}", collector.trim_end_matches('/'));
        let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).with_endpoint(endpoint);
        let exporter = exporter.build();
        let exporter =
            exporter.map_err(|error| OperationsError::Telemetry { what: "traces", detail: error.to_string() })?;
        let resource = Resource::builder().with_service_name(service.to_owned()).build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("whisperer")).with_location(false);
        let ours = Targets::new().with_target(TARGET, LevelFilter::INFO);
        Ok((layer.with_filter(ours).boxed(), Exporting(provider)))
    }
}

/// Traces in a build that has none: the job file says so first.
#[cfg(not(feature = "otel"))]
mod without {
    use tracing_subscriber::Layer;

    use super::OperationsError;

    /// Nothing is exported.
    #[derive(Debug)]
    pub(in crate::operations) struct Exporting;

    /// Says that this build has no traces.
    pub(in crate::operations) fn exporting<S: tracing::Subscriber>(
        _collector: &str,
        _service: &str,
    ) -> Result<(Box<dyn Layer<S> + Send + Sync>, Exporting), OperationsError> {
        let detail = "this build lacks the feature \"otel\"".to_owned();
        Err(OperationsError::Telemetry { what: "traces", detail })
    }
}
