//! Metrics of an operator's own, as one task's calls change them: what a call counts waits until the call has returned ok.

use super::env::Violation;
use crate::metrics::guest::{GuestCounter, GuestGauge, GuestHistogram, GuestMetricLimits, GuestMetrics};
use std::collections::HashMap;
use std::sync::Arc;
use tidegate_core::limits::GuestLimits;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

enum Metric {
    Counter(Arc<GuestCounter>),
    Gauge(Arc<GuestGauge>),
    Histogram(Arc<GuestHistogram>),
}

enum Change {
    Add(u64),
    Set(f64),
    Observe(Vec<f64>),
}

/// The metrics that the guest of one task has opened. A handle is an index into them.
#[derive(Default)]
pub struct TaskGuestMetrics {
    registry: Arc<GuestMetrics>,
    handles: HashMap<(MetricKind, String), u32>,
    metrics: Vec<Metric>,
    pending: Vec<(u32, Change)>,
    observations: u32,
}

impl TaskGuestMetrics {
    pub fn new(registry: Arc<GuestMetrics>) -> Self {
        Self { registry, ..Self::default() }
    }

    /// The same name again is the same metric.
    pub fn open(&mut self, name: String, kind: MetricKind, limits: &GuestLimits) -> Result<u32, Violation> {
        if let Some(handle) = self.handles.get(&(kind, name.clone())) {
            return Ok(*handle);
        }
        let bounds = GuestMetricLimits { metrics_max: limits.metrics_max, name_bytes_max: limits.name_bytes_max };
        let metric = match kind {
            MetricKind::Counter => self.registry.counter(&name, bounds).map(Metric::Counter),
            MetricKind::Gauge => self.registry.gauge(&name, bounds).map(Metric::Gauge),
            MetricKind::Histogram => self.registry.histogram(&name, bounds).map(Metric::Histogram),
        };
        let handle = self.metrics.len() as u32;
        self.metrics.push(metric.map_err(|e| Violation(e.to_string()))?);
        self.handles.insert((kind, name), handle);
        Ok(handle)
    }

    pub fn add(&mut self, handle: u32, n: u64, limits: &GuestLimits) -> Result<(), Violation> {
        self.change(handle, Change::Add(n), 1, limits)
    }

    pub fn set(&mut self, handle: u32, value: f64, limits: &GuestLimits) -> Result<(), Violation> {
        self.change(handle, Change::Set(value), 1, limits)
    }

    pub fn observe(&mut self, handle: u32, values: Vec<f64>, limits: &GuestLimits) -> Result<(), Violation> {
        let observations = u32::try_from(values.len()).unwrap_or(u32::MAX);
        self.change(handle, Change::Observe(values), observations.max(1), limits)
    }

    fn change(&mut self, handle: u32, change: Change, weight: u32, limits: &GuestLimits) -> Result<(), Violation> {
        self.observations = self.observations.saturating_add(weight);
        let limit = limits.observations_per_call_max;
        if self.observations > limit {
            return Err(Violation(format!("a call made more than {limit} observations (observations_per_call_max)")));
        }
        self.pending.push((handle, change));
        Ok(())
    }

    pub fn apply_pending(&mut self) {
        self.observations = 0;
        for (handle, change) in self.pending.drain(..) {
            match (&self.metrics[handle as usize], change) {
                (Metric::Counter(counter), Change::Add(n)) => counter.add(n),
                (Metric::Gauge(gauge), Change::Set(value)) => gauge.set(value),
                (Metric::Histogram(histogram), Change::Observe(values)) => histogram.observe(&values),
                _ => unreachable!("BUG: metric handle {handle} changed its kind"),
            }
        }
    }

    pub fn drop_pending(&mut self) {
        self.pending.clear();
        self.observations = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_of_a_call_are_bounded() {
        let limits = GuestLimits { observations_per_call_max: 3, ..GuestLimits::default() };
        let mut metrics = TaskGuestMetrics::default();
        let hits = metrics.open("hits".to_owned(), MetricKind::Counter, &limits).unwrap();
        let sizes = metrics.open("sizes".to_owned(), MetricKind::Histogram, &limits).unwrap();
        metrics.add(hits, 2, &limits).unwrap();
        let error = metrics.observe(sizes, vec![0.0; 3], &limits).unwrap_err();
        assert!(error.0.contains("observations_per_call_max"));
        metrics.drop_pending();
        metrics.observe(sizes, vec![0.0; 3], &limits).unwrap();
    }
}
