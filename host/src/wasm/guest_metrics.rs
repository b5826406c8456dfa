//! Metrics of an operator's own. What a call counts waits until the call has returned ok.

use super::env::Violation;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_core::limits::GuestLimits;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

impl MetricKind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Upper bounds of the buckets of every guest histogram: powers of ten from a millionth to a million, halved once in between.
pub const BUCKETS: [f64; 25] = [
    1e-6, 5e-6, 1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1e3, 5e3, 1e4, 5e4, 1e5,
    5e5, 1e6,
];

#[derive(Debug, Clone, PartialEq)]
pub enum MetricValue {
    Counter(u64),
    Gauge(f64),
    Histogram { buckets: Box<[u64; BUCKETS.len() + 1]>, sum: f64 },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    pub name: String,
    pub value: MetricValue,
}

/// What the metrics page reads.
pub type SharedMetrics = Arc<Mutex<Vec<Metric>>>;

#[derive(Debug, Default)]
pub struct GuestMetrics {
    ids: HashMap<String, (u32, MetricKind)>,
    shared: SharedMetrics,
    pending: Vec<(u32, Change)>,
    observations: u32,
}

#[derive(Debug)]
enum Change {
    Add(u64),
    Set(f64),
    Observe(Vec<f64>),
}

impl GuestMetrics {
    pub fn shared(&self) -> SharedMetrics {
        Arc::clone(&self.shared)
    }

    /// The same name again is the same metric.
    pub fn declare(&mut self, name: &str, kind: MetricKind, limits: &GuestLimits) -> Result<u32, Violation> {
        if let Some((id, declared)) = self.ids.get(name) {
            if *declared != kind {
                return Err(Violation(format!("metric `{name}` is a {}, not a {}", declared.name(), kind.name())));
            }
            return Ok(*id);
        }
        let well_formed = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && name.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
        if !well_formed || name.len() > limits.name_bytes_max {
            let limit = limits.name_bytes_max;
            return Err(Violation(format!(
                "a metric's name has letters, digits and `_`, starts with a letter and has at most {limit} bytes (name_bytes_max): {name:.100?}"
            )));
        }
        if self.ids.len() as u32 >= limits.metrics_max {
            return Err(Violation(format!("metric `{name}` would exceed the limit of {} metrics (metrics_max)", limits.metrics_max)));
        }
        let value = match kind {
            MetricKind::Counter => MetricValue::Counter(0),
            MetricKind::Gauge => MetricValue::Gauge(0.0),
            MetricKind::Histogram => MetricValue::Histogram { buckets: Box::new([0; BUCKETS.len() + 1]), sum: 0.0 },
        };
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let id = shared.len() as u32;
        shared.push(Metric { name: name.to_owned(), value });
        self.ids.insert(name.to_owned(), (id, kind));
        Ok(id)
    }

    pub fn add(&mut self, id: u32, n: u64) {
        self.pending.push((id, Change::Add(n)));
    }

    pub fn set(&mut self, id: u32, value: f64) {
        self.pending.push((id, Change::Set(value)));
    }

    pub fn observe(&mut self, id: u32, values: Vec<f64>, limits: &GuestLimits) -> Result<(), Violation> {
        self.observations = self.observations.saturating_add(values.len() as u32);
        if self.observations > limits.observations_per_call_max {
            let limit = limits.observations_per_call_max;
            return Err(Violation(format!("a call made {} observations, the limit is {limit} (observations_per_call_max)", self.observations)));
        }
        self.pending.push((id, Change::Observe(values)));
        Ok(())
    }

    /// Changes of one call are bounded like its observations.
    pub fn check_pending(&self, limits: &GuestLimits) -> Result<(), Violation> {
        if self.pending.len() > limits.observations_per_call_max as usize {
            let limit = limits.observations_per_call_max;
            return Err(Violation(format!("a call changed metrics more than {limit} times (observations_per_call_max)")));
        }
        Ok(())
    }

    pub fn apply_pending(&mut self) {
        self.observations = 0;
        if self.pending.is_empty() {
            return;
        }
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, change) in self.pending.drain(..) {
            match (&mut shared[id as usize].value, change) {
                (MetricValue::Counter(total), Change::Add(n)) => *total = total.saturating_add(n),
                (MetricValue::Gauge(now), Change::Set(value)) => *now = value,
                (MetricValue::Histogram { buckets, sum }, Change::Observe(values)) => {
                    for value in values {
                        buckets[BUCKETS.partition_point(|bound| *bound < value)] += 1;
                        *sum += value;
                    }
                }
                (value, change) => unreachable!("BUG: {change:?} for {value:?}"),
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
    fn nothing_counts_before_the_call_does() {
        let limits = GuestLimits::default();
        let mut metrics = GuestMetrics::default();
        let hits = metrics.declare("hits", MetricKind::Counter, &limits).unwrap();
        let sizes = metrics.declare("sizes", MetricKind::Histogram, &limits).unwrap();
        metrics.add(hits, 2);
        metrics.drop_pending();
        metrics.add(hits, 3);
        metrics.observe(sizes, vec![0.2, 7.0, 1e9], &limits).unwrap();
        assert_eq!(metrics.shared().lock().unwrap()[0].value, MetricValue::Counter(0));
        metrics.apply_pending();
        let shared = metrics.shared();
        let shared = shared.lock().unwrap();
        assert_eq!(shared[0].value, MetricValue::Counter(3));
        let MetricValue::Histogram { buckets, .. } = &shared[1].value else { panic!("a histogram") };
        assert_eq!((buckets.iter().sum::<u64>(), buckets[BUCKETS.len()]), (3, 1));
    }

    #[test]
    fn a_name_keeps_its_kind_and_the_number_of_metrics_is_bounded() {
        let limits = GuestLimits { metrics_max: 1, ..GuestLimits::default() };
        let mut metrics = GuestMetrics::default();
        assert!(metrics.declare("a b", MetricKind::Counter, &limits).is_err());
        assert_eq!(metrics.declare("hits", MetricKind::Counter, &limits).unwrap(), 0);
        assert_eq!(metrics.declare("hits", MetricKind::Counter, &limits).unwrap(), 0);
        assert!(metrics.declare("hits", MetricKind::Gauge, &limits).unwrap_err().0.contains("is a counter"));
        assert!(metrics.declare("misses", MetricKind::Counter, &limits).unwrap_err().0.contains("metrics_max"));
    }
}
