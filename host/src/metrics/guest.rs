//! Metrics that guests make: `tidegate_guest_<name>`, by job and operator.
//!
//! Invariants:
//! * a name has one kind within an operator; two operators that disagree are shown as two families;
//! * names are what Prometheus allows, and their number is bounded by the operator's `metrics_max`;
//! * counts arrive here when the guest's call has taken effect: whoever calls a guest holds them back until then.

use super::text::{Kind, Page};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// Upper bounds of a histogram's buckets: guests do not choose them, and these fit from microseconds to hours in seconds.
pub const BUCKETS: [f64; 22] = [
    1e-6, 1e-5, 1e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 1e3, 1e4,
    1e5,
];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuestMetricError {
    #[error("metric `{name}` has a name that is not allowed: a letter or `_` first, then letters, digits, `_`, `-` and `.`")]
    BadName { name: String },
    #[error("metric name of {bytes} bytes exceeds the limit of {max} (name_bytes_max)")]
    LongName { bytes: usize, max: usize },
    #[error("metric `{name}` is a {existing} already and can't be a {wanted} too")]
    OtherKind { name: String, existing: &'static str, wanted: &'static str },
    #[error("metric `{name}` would be one more than the limit of {max} (metrics_max)")]
    TooMany { name: String, max: u32 },
}

#[derive(Debug, Default)]
pub struct GuestCounter(AtomicU64);

impl GuestCounter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }
}

#[derive(Debug, Default)]
pub struct GuestGauge(AtomicU64);

impl GuestGauge {
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }
}

#[derive(Debug, Default)]
pub struct GuestHistogram {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    sum: AtomicU64,
}

impl GuestHistogram {
    /// Values that are no numbers, or infinite, would spoil the sum for ever and are left out.
    pub fn observe(&self, values: &[f64]) {
        let mut sum = 0.0;
        for value in values.iter().copied().filter(|v| v.is_finite()) {
            self.buckets[BUCKETS.partition_point(|bound| *bound < value)].fetch_add(1, Relaxed);
            sum += value;
        }
        let _ = self.sum.fetch_update(Relaxed, Relaxed, |bits| Some((f64::from_bits(bits) + sum).to_bits()));
    }
}

#[derive(Clone)]
enum Metric {
    Counter(Arc<GuestCounter>),
    Gauge(Arc<GuestGauge>),
    Histogram(Arc<GuestHistogram>),
}

impl Metric {
    fn kind(&self) -> Kind {
        match self {
            Self::Counter(_) => Kind::Counter,
            Self::Gauge(_) => Kind::Gauge,
            Self::Histogram(_) => Kind::Histogram,
        }
    }
}

/// Of one operator, shared by its tasks.
#[derive(Default)]
pub struct GuestMetrics {
    metrics: Mutex<BTreeMap<String, Metric>>,
}

/// How many metrics with how long names. From the operator's `GuestLimits`.
#[derive(Debug, Clone, Copy)]
pub struct GuestMetricLimits {
    pub metrics_max: u32,
    pub name_bytes_max: usize,
}

impl GuestMetrics {
    pub fn counter(&self, name: &str, limits: GuestMetricLimits) -> Result<Arc<GuestCounter>, GuestMetricError> {
        match self.metric(name, Kind::Counter, limits)? {
            Metric::Counter(counter) => Ok(counter),
            other => Err(other_kind(name, &other, Kind::Counter)),
        }
    }

    pub fn gauge(&self, name: &str, limits: GuestMetricLimits) -> Result<Arc<GuestGauge>, GuestMetricError> {
        match self.metric(name, Kind::Gauge, limits)? {
            Metric::Gauge(gauge) => Ok(gauge),
            other => Err(other_kind(name, &other, Kind::Gauge)),
        }
    }

    pub fn histogram(&self, name: &str, limits: GuestMetricLimits) -> Result<Arc<GuestHistogram>, GuestMetricError> {
        match self.metric(name, Kind::Histogram, limits)? {
            Metric::Histogram(histogram) => Ok(histogram),
            other => Err(other_kind(name, &other, Kind::Histogram)),
        }
    }

    fn metric(&self, name: &str, kind: Kind, limits: GuestMetricLimits) -> Result<Metric, GuestMetricError> {
        if name.len() > limits.name_bytes_max {
            return Err(GuestMetricError::LongName { bytes: name.len(), max: limits.name_bytes_max });
        }
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !first || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.')) {
            return Err(GuestMetricError::BadName { name: name.into() });
        }
        // What other languages like to write in names and Prometheus does not allow.
        let shown = name.replace(['-', '.'], "_");
        let mut metrics = self.metrics.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(metric) = metrics.get(&shown) {
            return Ok(metric.clone());
        }
        if metrics.len() >= limits.metrics_max as usize {
            return Err(GuestMetricError::TooMany { name: name.into(), max: limits.metrics_max });
        }
        let metric = match kind {
            Kind::Counter => Metric::Counter(Arc::default()),
            Kind::Gauge => Metric::Gauge(Arc::default()),
            Kind::Histogram => Metric::Histogram(Arc::default()),
        };
        metrics.insert(shown, metric.clone());
        Ok(metric)
    }
}

fn other_kind(name: &str, existing: &Metric, wanted: Kind) -> GuestMetricError {
    GuestMetricError::OtherKind { name: name.into(), existing: existing.kind().name(), wanted: wanted.name() }
}

pub(super) fn render<'a>(operators: impl Iterator<Item = (&'a str, &'a str, &'a GuestMetrics)>, page: &mut Page) {
    // By name and kind: job, operator and metric.
    type Samples<'a> = Vec<(&'a str, &'a str, Metric)>;
    let mut families: BTreeMap<(String, Kind), Samples<'_>> = BTreeMap::new();
    for (job, operator, metrics) in operators {
        for (name, metric) in metrics.metrics.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).iter() {
            families.entry((name.clone(), metric.kind())).or_default().push((job, operator, metric.clone()));
        }
    }
    let mut shown = BTreeSet::new();
    for ((name, kind), samples) in families {
        // A family has one kind. Where operators disagree the later kinds carry theirs in the name.
        let mut family = format!("tidegate_guest_{name}");
        if !shown.insert(family.clone()) {
            family = format!("{family}_{}", kind.name());
            shown.insert(family.clone());
        }
        page.family(&family, "Of the operator's own.", kind);
        for (job, operator, metric) in samples {
            let labels = [("job", job), ("operator", operator)];
            match metric {
                Metric::Counter(counter) => page.sample("", &labels, counter.0.load(Relaxed) as f64),
                Metric::Gauge(gauge) => page.sample("", &labels, f64::from_bits(gauge.0.load(Relaxed))),
                Metric::Histogram(histogram) => render_histogram(&histogram, labels, page),
            }
        }
    }
}

fn render_histogram(histogram: &GuestHistogram, labels: [(&str, &str); 2], page: &mut Page) {
    let mut count = 0;
    for (bucket, bound) in histogram.buckets.iter().zip(BUCKETS.iter().map(f64::to_string).chain(["+Inf".to_owned()])) {
        count += bucket.load(Relaxed);
        page.sample("_bucket", &[labels[0], labels[1], ("le", &bound)], count as f64);
    }
    page.sample("_sum", &labels, f64::from_bits(histogram.sum.load(Relaxed)));
    page.sample("_count", &labels, count as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: GuestMetricLimits = GuestMetricLimits { metrics_max: 2, name_bytes_max: 16 };

    #[test]
    fn names_kinds_and_numbers_of_guest_metrics_are_checked() {
        let metrics = GuestMetrics::default();
        metrics.counter("late-records", LIMITS).unwrap().add(1);
        metrics.counter("late_records", LIMITS).unwrap().add(1);
        assert!(matches!(metrics.gauge("late-records", LIMITS), Err(GuestMetricError::OtherKind { .. })));
        assert!(matches!(metrics.gauge("0", LIMITS), Err(GuestMetricError::BadName { .. })));
        assert!(matches!(metrics.gauge("", LIMITS), Err(GuestMetricError::BadName { .. })));
        assert!(matches!(metrics.gauge("a{b}", LIMITS), Err(GuestMetricError::BadName { .. })));
        assert!(matches!(metrics.gauge(&"a".repeat(17), LIMITS), Err(GuestMetricError::LongName { .. })));
        metrics.gauge("b", LIMITS).unwrap();
        assert!(matches!(metrics.gauge("c", LIMITS), Err(GuestMetricError::TooMany { max: 2, .. })));
    }

    #[test]
    fn histograms_are_cumulative_and_skip_what_is_no_number() {
        let metrics = GuestMetrics::default();
        metrics.histogram("delay", LIMITS).unwrap().observe(&[0.5, 0.5, 3.0, f64::NAN, f64::INFINITY, 1e9]);
        let mut page = Page::default();
        render([("flights", "delays", &metrics)].into_iter(), &mut page);
        let page = page.finish();
        for line in [
            "tidegate_guest_delay_bucket{job=\"flights\",operator=\"delays\",le=\"0.25\"} 0",
            "tidegate_guest_delay_bucket{job=\"flights\",operator=\"delays\",le=\"0.5\"} 2",
            "tidegate_guest_delay_bucket{job=\"flights\",operator=\"delays\",le=\"5\"} 3",
            "tidegate_guest_delay_bucket{job=\"flights\",operator=\"delays\",le=\"+Inf\"} 4",
            "tidegate_guest_delay_count{job=\"flights\",operator=\"delays\"} 4",
            "tidegate_guest_delay_sum{job=\"flights\",operator=\"delays\"} 1000000004",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} in\n{page}");
        }
    }

    #[test]
    fn two_operators_that_disagree_about_a_kind_are_two_families() {
        let (a, b) = (GuestMetrics::default(), GuestMetrics::default());
        a.counter("seen", LIMITS).unwrap().add(2);
        b.gauge("seen", LIMITS).unwrap().set(0.5);
        let mut page = Page::default();
        render([("j", "a", &a), ("j", "b", &b)].into_iter(), &mut page);
        let page = page.finish();
        assert!(page.contains("tidegate_guest_seen{job=\"j\",operator=\"a\"} 2\n"), "{page}");
        assert!(page.contains("tidegate_guest_seen_gauge{job=\"j\",operator=\"b\"} 0.5\n"), "{page}");
    }
}
