//! What is counted and measured: one catalogue, and one recorder through which everything goes.

/// What there is to count and to measure.
mod catalogue;
/// The recorder's content as log lines that `CloudWatch` reads.
mod emf;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use catalogue::{Dimension, Kind, Metric, Namespace, Unit};
pub use emf::lines;

/// What a value is told apart by: the metric's dimensions and their values, in the catalogue's order. One that is no
/// dimension of the metric is a property of its line in the log.
pub type Labels<'a> = &'a [(Dimension, &'a str)];

/// What one process counted and measured since it was last taken. Shared by whoever counts.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<[Mutex<Recorded>]>);

/// One metric.
#[derive(Debug, Default)]
struct Recorded {
    /// Counted since the process began, whatever was taken meanwhile.
    ever: u64,
    /// By the labels' values.
    series: HashMap<Box<str>, Series>,
}

/// One metric with one set of labels, since it was last taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub metric: Metric,
    pub labels: Vec<(Dimension, String)>,
    pub values: Values,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Of a [`Kind::Sum`].
    Sum(u64),
    /// Of a [`Kind::Value`], in the order they came. `CloudWatch` takes no decimals: what is money in here is to be
    /// looked at, not to be added to.
    Each(Vec<f64>),
}

/// Series of one metric, at most: what is beyond is told apart as `other`. Each of them is a metric to pay for.
const SERIES: usize = 1_000;

/// Values kept of one series until it is taken, at most: what is beyond is dropped, of which a percentile among
/// thousands takes no notice.
const VALUES: usize = 100_000;

impl Default for Metrics {
    fn default() -> Self {
        Self(Metric::ALL.iter().map(|_| Mutex::default()).collect())
    }
}

impl Metrics {
    /// Records nothing: what recording costs is measured against it.
    #[must_use]
    pub fn none() -> Self {
        Self(Arc::new([]))
    }

    /// Counts what is not told apart by anything.
    pub fn count(&self, metric: Metric, n: u64) {
        self.count_of(metric, &[], n);
    }

    pub fn count_of(&self, metric: Metric, labels: Labels<'_>, n: u64) {
        if n > 0 {
            self.record(metric, labels, n, |values| values.add(n));
        }
    }

    /// Notes how much or how long, in the metric's unit.
    pub fn observe(&self, metric: Metric, labels: Labels<'_>, value: f64) {
        self.record(metric, labels, 0, |values| values.note(value));
    }

    fn record(&self, metric: Metric, labels: Labels<'_>, n: u64, into: impl FnOnce(&mut Values)) {
        // CloudWatch makes no metric of a line that lacks one, and says so nowhere that anybody looks.
        let lacks = |of: &&Dimension| !labels.iter().any(|(there, _)| there == *of);
        debug_assert_eq!(
            metric.dimensions().iter().copied().flatten().find(lacks),
            None,
            "{metric:?} lacks it"
        );
        let Some(mut recorded) = self.recorded(metric) else { return };
        recorded.ever += n;
        let mut key = key(labels);
        if !recorded.series.contains_key(&*key) && recorded.series.len() >= SERIES {
            key = Cow::Borrowed("other");
        }
        if let Some(series) = recorded.series.get_mut(&*key) {
            return into(&mut series.values);
        }
        let value = |value: &str| if key == "other" { "other".to_owned() } else { value.to_owned() };
        let labels = labels.iter().map(|(dimension, of)| (*dimension, value(of))).collect();
        let mut series = Series { metric, labels, values: Values::none(metric) };
        into(&mut series.values);
        recorded.series.insert(key.into(), series);
    }

    /// Counted since the process began.
    #[must_use]
    pub fn get(&self, metric: Metric) -> u64 {
        self.recorded(metric).map_or(0, |recorded| recorded.ever)
    }

    fn recorded(&self, metric: Metric) -> Option<MutexGuard<'_, Recorded>> {
        Some(self.0.get(metric as usize)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was recorded since it was last taken.
    #[must_use]
    pub fn take(&self) -> Vec<Series> {
        let taken = |recorded: &Mutex<Recorded>| {
            std::mem::take(&mut recorded.lock().unwrap_or_else(PoisonError::into_inner).series)
        };
        self.0.iter().flat_map(|recorded| taken(recorded).into_values()).collect()
    }
}

/// The labels' values in one text. Most have one value or none, which is text enough.
fn key(labels: Labels<'_>) -> Cow<'_, str> {
    match labels {
        [] => Cow::Borrowed(""),
        [(_, value)] => Cow::Borrowed(value),
        [..] => labels.iter().map(|(_, value)| *value).collect::<Vec<_>>().join("\u{1f}").into(),
    }
}

impl Values {
    fn none(metric: Metric) -> Self {
        match metric.kind() {
            Kind::Sum => Self::Sum(0),
            Kind::Value => Self::Each(Vec::new()),
        }
    }

    fn add(&mut self, n: u64) {
        match self {
            Self::Sum(sum) => *sum += n,
            // A count of something that is measured: `Metric::kind` says which is which.
            Self::Each(_) => debug_assert!(false, "values are observed, not added"),
        }
    }

    fn note(&mut self, value: f64) {
        match self {
            Self::Each(values) if values.len() < VALUES => values.push(value),
            Self::Each(_) => {}
            Self::Sum(_) => debug_assert!(false, "sums are added to, not observed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_what_was_recorded_since_and_the_count_goes_on() {
        let metrics = Metrics::default();
        let shop: Labels<'_> = &[(Dimension::Shop, "AMIS1")];
        metrics.count_of(Metric::Accepted, shop, 2);
        metrics.count_of(Metric::Accepted, shop, 1);
        metrics.observe(Metric::Latency, &[], 1.5);
        let mut taken = metrics.take();
        taken.sort_by_key(|series| series.metric);
        assert_eq!(taken[0].values, Values::Sum(3));
        assert_eq!(taken[0].labels, [(Dimension::Shop, "AMIS1".to_owned())]);
        assert_eq!(taken[1].values, Values::Each(vec![1.5]));
        assert_eq!(metrics.take(), []);
        assert_eq!(metrics.get(Metric::Accepted), 3);
    }

    #[test]
    fn what_is_told_apart_is_bounded_and_the_sum_is_whole() {
        let metrics = Metrics::default();
        for n in 0..2 * SERIES {
            metrics.count_of(Metric::Accepted, &[(Dimension::Shop, &format!("S{n}"))], 1);
        }
        let taken = metrics.take();
        assert_eq!(taken.len(), SERIES + 1);
        let other = taken.iter().find(|series| series.labels[0].1 == "other").unwrap();
        assert_eq!(other.values, Values::Sum(SERIES as u64));
        assert_eq!(metrics.get(Metric::Accepted), 2 * SERIES as u64);
    }
}
