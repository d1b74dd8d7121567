//! Sends spans to a collector by OTLP over gRPC: `[telemetry]`.
//!
//! Requests put what they have to tell into a bounded queue and go on; a task in the background
//! takes it out in batches. A collector that is slow, hangs or is gone costs spans, which are
//! counted, and nothing else.

use super::metrics::Metrics;
use super::spans::Finished;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use prometheus::IntCounter;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

/// How long spans wait for others to go along with.
const INTERVAL: Duration = Duration::from_secs(1);

/// Exchanges whose spans are sent together.
const BATCH: usize = 512;

/// What is read out of `[telemetry]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The collector's URL.
    pub endpoint: String,
    /// What the gateway is called.
    pub service_name: String,
    /// The share of new traces that is recorded, 0 to 1.
    pub sample: f64,
    /// How long the collector may take for a batch.
    pub timeout: Duration,
    /// Exchanges that may wait.
    pub queue: usize,
}

/// Where exchanges leave their spans.
#[derive(Debug)]
pub struct Spans {
    queue: mpsc::Sender<Finished>,
    /// Tells the exporter that the queue fills up.
    due: Arc<Notify>,
    sample: f64,
    dropped: IntCounter,
}

/// The task that sends spans, to end it in order.
#[derive(Debug)]
pub struct Exporter {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    patience: Duration,
}

/// Why spans cannot be sent. Only what is wrong here counts: a collector that is away does not.
#[derive(Debug)]
pub struct SetupError(ExporterBuildError);

/// The exporter at work.
struct Work {
    queue: mpsc::Receiver<Finished>,
    due: Arc<Notify>,
    collector: SpanExporter,
    scope: InstrumentationScope,
    settings: Settings,
    exported: IntCounter,
    dropped: IntCounter,
    outage: Option<Outage>,
}

/// A time without a collector.
struct Outage {
    /// What the counter of dropped spans said before.
    dropped_before: u64,
}

/// Starts sending spans, on the present runtime.
///
/// # Errors
/// [`SetupError`] if the endpoint cannot be used, or no authority is known for TLS.
pub fn start(settings: &Settings, metrics: &Metrics) -> Result<(Spans, Exporter), SetupError> {
    let collector = collector(settings)?;
    let (sender, receiver) = mpsc::channel(settings.queue);
    let due = Arc::new(Notify::new());
    let (stop, stopped) = oneshot::channel();
    let dropped = metrics.trace_spans_dropped_total.clone();
    let spans = Spans {
        queue: sender,
        due: Arc::clone(&due),
        sample: settings.sample,
        dropped: dropped.clone(),
    };
    let work = Work {
        queue: receiver,
        due,
        collector,
        scope: InstrumentationScope::builder("bonterra-gateway")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
        settings: settings.clone(),
        exported: metrics.trace_spans_exported_total.clone(),
        dropped,
        outage: None,
    };
    let exporter = Exporter {
        stop,
        task: tokio::spawn(work.run(stopped)),
        patience: settings.timeout,
    };
    Ok((spans, exporter))
}

fn collector(settings: &Settings) -> Result<SpanExporter, SetupError> {
    let mut builder = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&settings.endpoint)
        .with_timeout(settings.timeout);
    if settings.endpoint.starts_with("https:") {
        builder = builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
    }
    let mut collector = builder.build().map_err(SetupError)?;
    // Adds what OTEL_RESOURCE_ATTRIBUTES says: how clusters tell one process from another.
    let resource = Resource::builder()
        .with_service_name(settings.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    collector.set_resource(&resource);
    Ok(collector)
}

// === impl Spans ===

impl Spans {
    /// The share of new traces that is recorded, 0 to 1.
    pub fn sample(&self) -> f64 {
        self.sample
    }

    /// Leaves the spans of an exchange to be sent. Never waits: a full queue drops them.
    pub fn send(&self, finished: Finished) {
        match self.queue.try_send(finished) {
            Ok(()) if self.queue.capacity() <= self.queue.max_capacity() / 2 => {
                self.due.notify_one();
            }
            Ok(()) => {}
            Err(TrySendError::Full(lost) | TrySendError::Closed(lost)) => {
                self.dropped.inc_by(lost.count());
            }
        }
    }
}

// === impl Exporter ===

impl Exporter {
    /// Sends what still waits, as far as the collector takes it within `timeout`.
    pub async fn end(mut self) {
        // It is gone only if it has ended already.
        let _ = self.stop.send(());
        if tokio::time::timeout(self.patience, &mut self.task)
            .await
            .is_err()
        {
            self.task.abort();
            tracing::warn!("the last spans were not delivered: the collector did not take them");
        }
    }
}

// === impl Work ===

impl Work {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            let last = tokio::select! {
                () = self.turn() => false,
                _ = &mut stopped => true,
            };
            while let Some((batch, count)) = self.batch() {
                self.deliver(batch, count).await;
                // What did not reach it once will not do so at once; more may come together.
                if self.outage.is_some() && !last {
                    break;
                }
            }
            if last {
                return;
            }
        }
    }

    /// Waits until it is time for a batch: soon, or when the queue is half full. During an outage the
    /// queue may fill as it likes.
    async fn turn(&self) {
        let pause = tokio::time::sleep(INTERVAL);
        if self.outage.is_some() {
            return pause.await;
        }
        tokio::select! {
            () = pause => {}
            () = self.due.notified() => {}
        }
    }

    /// The spans that go together, and how many they are. `None`: nothing waits.
    fn batch(&mut self) -> Option<(Vec<SpanData>, u64)> {
        let mut batch = Vec::new();
        for _ in 0..BATCH {
            let Ok(finished) = self.queue.try_recv() else {
                break;
            };
            batch.extend(finished.spans(&self.scope));
        }
        let count = batch.len() as u64;
        (count > 0).then_some((batch, count))
    }

    /// Sends a batch, and says so once if the collector has gone away or is back.
    async fn deliver(&mut self, batch: Vec<SpanData>, count: u64) {
        let patience = self.settings.timeout;
        let sent = tokio::time::timeout(patience, self.collector.export(batch)).await;
        let why = match sent {
            Ok(Ok(())) => {
                self.exported.inc_by(count);
                if let Some(Outage { dropped_before }) = self.outage.take() {
                    let lost = self.dropped.get().saturating_sub(dropped_before);
                    tracing::info!(lost, "the collector takes spans again");
                }
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer in {patience:?}"),
        };
        if self.outage.is_none() {
            let dropped_before = self.dropped.get();
            self.outage = Some(Outage { dropped_before });
            let endpoint = &self.settings.endpoint;
            tracing::warn!(%endpoint, %why, "the collector does not take spans; they are dropped until it does, requests go on");
        }
        self.dropped.inc_by(count);
    }
}

// === impl SetupError ===

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "otlp_endpoint: {}", self.0)
    }
}

impl std::error::Error for SetupError {}
