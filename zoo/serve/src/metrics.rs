//! Counters in the text format of Prometheus.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Upper bounds of request and batch times, in seconds.
const SECONDS: [f64; 12] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
/// Upper bounds of batch sizes.
const INPUTS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    endpoint: String,
    status: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EndpointLabels {
    endpoint: String,
}

/// Counters of the server. Clones count together.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<EndpointLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    batch_inputs: Histogram,
    batch_seconds: Histogram,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("laps_zoo");
        let requests = Family::default();
        registry.register("http_requests", "Answered requests", requests.clone());
        let seconds = || Histogram::new(SECONDS);
        let request_seconds = Family::new_with_constructor(seconds as fn() -> Histogram);
        registry.register("http_request_seconds", "Time to answer a request", request_seconds.clone());
        let in_flight = Gauge::default();
        registry.register("http_requests_in_flight", "Requests that are read or answered", in_flight.clone());
        let batch_inputs = Histogram::new(INPUTS);
        registry.register("batch_inputs", "Texts and images of a batch", batch_inputs.clone());
        let batch_seconds = Histogram::new(SECONDS);
        registry.register("batch_seconds", "Time to encode and answer a batch", batch_seconds.clone());
        Self { registry: Arc::new(registry), requests, request_seconds, in_flight, batch_inputs, batch_seconds }
    }

    /// Counts a request as in flight until the guard is dropped.
    pub(crate) fn begin(&self) -> impl Drop + Send + use<> {
        struct InFlight(Gauge);
        impl Drop for InFlight {
            fn drop(&mut self) {
                self.0.dec();
            }
        }
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    pub(crate) fn request(&self, endpoint: &str, status: u16, time: Duration) {
        let endpoint = endpoint.to_owned();
        let labels = RequestLabels { endpoint: endpoint.clone(), status: status.to_string() };
        self.requests.get_or_create(&labels).inc();
        self.request_seconds.get_or_create(&EndpointLabels { endpoint }).observe(time.as_secs_f64());
    }

    pub(crate) fn batch(&self, inputs: usize, time: Duration) {
        self.batch_inputs.observe(inputs as f64);
        self.batch_seconds.observe(time.as_secs_f64());
    }

    /// The text format of OpenMetrics, which Prometheus reads.
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut encoded = String::new();
        text::encode(&mut encoded, &self.registry)?;
        Ok(encoded)
    }
}
