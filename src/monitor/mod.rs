//! What is known of a shop's health: its metrics over time, its alarms, its dashboards. On AWS `CloudWatch` knows
//! it, on this machine the shop itself does, in the same terms, so that one dashboard and one alarm do for both.

/// The alarms there are.
pub mod alarms;
/// What people read of an alarm.
mod alert;
/// `CloudWatch`.
#[cfg(feature = "aws")]
mod aws;
/// The shop on one machine watching itself.
pub mod collect;
/// The dashboards' bodies, read.
pub mod dashboard;
/// Which state an alarm is in.
pub mod evaluate;
/// Metrics over a restart.
mod history;
/// A monitor that is not asked twice for the same.
pub mod kept;
/// What queries and expressions come to.
pub mod math;
/// What differs between deployments.
pub mod placeholders;
/// Percentiles of what was measured in parts.
mod spread;
/// How alarms stand, and what people are told.
pub mod standing;
/// What was counted and measured, kept by whoever records it.
pub mod store;

use std::collections::BTreeMap;
use std::str::FromStr;

use async_trait::async_trait;
#[cfg(feature = "aws")]
pub use aws::CloudWatch;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A metric as `CloudWatch` tells it from others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MetricId {
    pub namespace: String,
    pub name: String,
    pub dimensions: BTreeMap<String, String>,
}

/// What is made of the values within a period
/// (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Statistics-definitions.html>).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Stat {
    Sum,
    Average,
    Minimum,
    Maximum,
    SampleCount,
    /// In percent: 50.0 is the median.
    Percentile(f64),
}

/// What of a metric is wanted, as `GetMetricData` asks it
/// (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDataQuery.html>).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Query {
    /// By which expressions call it: a small letter, then letters, digits and underscores.
    pub id: String,
    pub what: What,
    pub label: Option<String>,
    /// In seconds.
    pub period: u32,
    /// Whether it is wanted itself, or only by expressions.
    pub shown: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum What {
    Metric(MetricId, Stat),
    /// Metric math, `SEARCH` included.
    Expression(String),
}

/// A query's answer. One that searches has any number of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub id: String,
    pub label: String,
    /// By the beginnings of their periods, in order; a period without data is not there.
    pub points: Vec<(Timestamp, f64)>,
}

/// An alarm's state, by `CloudWatch`'s names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    Alarm,
    InsufficientData,
    Ok,
}

/// An alarm as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmStatus {
    /// As in `dashboards/alarms.json`, without the stack's name.
    pub name: String,
    pub state: State,
    /// When it came into this state.
    pub since: Timestamp,
    /// Which values made it so.
    pub why: String,
    /// What it means and what to run.
    pub description: String,
}

/// Why nothing is known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MonitorError {
    /// The query's own fault.
    #[error("{query}: {why}")]
    Query { query: String, why: String },
    #[error("the metrics cannot be read: {0}")]
    Unavailable(String),
}

/// What is asked of a monitor in another process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataRequest {
    pub queries: Vec<Query>,
    pub from: Timestamp,
    pub to: Timestamp,
}

/// Whoever knows a shop's health.
#[async_trait]
pub trait Monitor: Send + Sync {
    /// What comes before the names of functions, queues and tables, and what the metrics' namespace is:
    /// `<service>-<stage>`.
    fn stack(&self) -> &str;

    /// The API's id, as AWS's metrics have it.
    fn api(&self) -> &str;

    /// What the queries that are shown come to, of periods that begin in `from..to`.
    ///
    /// # Errors
    /// [`MonitorError`].
    async fn data(
        &self,
        queries: &[Query],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Line>, MonitorError>;

    /// Every alarm of `dashboards/alarms.json`, in its order.
    ///
    /// # Errors
    /// [`MonitorError`].
    async fn alarms(&self) -> Result<Vec<AlarmStatus>, MonitorError>;
}

impl FromStr for Stat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let percentile =
            |text: &str| text.strip_prefix('p')?.parse().ok().filter(|p| (0.0..=100.0).contains(p));
        match text {
            "Sum" => Ok(Self::Sum),
            "Average" => Ok(Self::Average),
            "Minimum" => Ok(Self::Minimum),
            "Maximum" => Ok(Self::Maximum),
            "SampleCount" => Ok(Self::SampleCount),
            _ => percentile(text).map(Self::Percentile).ok_or_else(|| {
                format!("{text:?} is no statistic: Sum, Average, Minimum, Maximum, SampleCount or p0 to p100")
            }),
        }
    }
}

impl TryFrom<String> for Stat {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Stat> for String {
    fn from(stat: Stat) -> Self {
        match stat {
            Stat::Percentile(p) => format!("p{p}"),
            other => format!("{other:?}"),
        }
    }
}
