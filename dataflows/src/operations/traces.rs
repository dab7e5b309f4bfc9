//! Traces: the spans in a job's life, and their way to an OpenTelemetry collector.
//!
//! ```text
//! run ─┬─ recovery
//!      └─ checkpoint ─┬─ cut       each worker: states encoded
//!                     ├─ write     each worker: the delta file, durable
//!                     ├─ commit    the coordinator: the manifest
//!                     └─ publish   what waited for the commit
//! ```
//! Spans are made here and nowhere else, so that names and fields stand in one place; workers on other threads name their parent.

use tracing::{Span, info_span};

use super::OperationsError;

/// The target of all spans that are exported. An HTTP client or a sink may have spans of its own: they stay here.
const TARGET: &str = "whisperer::spans";

/// A whole run.
#[must_use]
pub fn run(job: &str, workers: usize) -> Span {
    info_span!(target: TARGET, parent: None, "run", job, workers)
}

/// From the search for a checkpoint to the first record.
#[must_use]
pub fn recovery(run: &Span) -> Span {
    info_span!(target: TARGET, parent: run, "recovery", checkpoint = tracing::field::Empty, keys = tracing::field::Empty)
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
