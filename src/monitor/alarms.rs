//! The alarms, as `dashboards/alarms.json` has them: what is watched, when it is wrong, and what to do then.

/// The file as it is written.
mod read;

use serde::{Deserialize, Serialize};

use super::{MetricId, Query, Stat};
pub use read::FILE;

/// Where each alarm has its section.
pub const RUNBOOK: &str = "docs/runbook.md";

/// All there are, in the file's order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Alarms {
    pub alarms: Vec<Alarm>,
    pub composites: Vec<Composite>,
}

/// One that watches a metric, or what metric math makes of several.
#[derive(Debug, Clone, PartialEq)]
pub struct Alarm {
    /// Without the stack's name. Its section in `docs/runbook.md` is called so.
    pub name: String,
    pub severity: Severity,
    pub title: String,
    /// What it means, in one line.
    pub meaning: String,
    /// What to run first.
    pub run: String,
    pub what: Watch,
    pub comparison: Comparison,
    pub threshold: f64,
    /// In seconds.
    pub period: u32,
    /// N: so many periods are looked at.
    pub evaluation_periods: u32,
    /// M: so many of them must be wrong.
    pub datapoints_to_alarm: u32,
    pub missing: Missing,
    pub why_missing: String,
    /// Whether it tells people itself. One that only a composite speaks for does not.
    pub actions: bool,
}

/// What an alarm looks at.
#[derive(Debug, Clone, PartialEq)]
pub enum Watch {
    Metric(MetricId, Stat),
    /// The expression calls the metrics by their ids, and gives one number for each period.
    Math {
        metrics: Vec<Query>,
        expression: String,
    },
}

/// One that watches other alarms: it is on while any of them is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composite {
    pub name: String,
    pub severity: Severity,
    pub title: String,
    pub meaning: String,
    pub run: String,
    /// Alarms or composites, by name.
    pub any: Vec<String>,
    /// While this one is on, this one's actions wait
    /// (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-suppression.html>).
    pub suppressed_by: Option<String>,
    /// For how many seconds its actions wait for the suppressor to come on.
    pub wait: u32,
    /// For how many seconds they still wait when the suppressor is off again.
    pub extension: u32,
}

/// How soon somebody must look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// Within a working day.
    Warning,
    /// Now.
    Critical,
}

/// The value is wrong when it is this, compared with the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub enum Comparison {
    #[serde(rename = ">=")]
    AtLeast,
    #[serde(rename = ">")]
    Above,
    #[serde(rename = "<=")]
    AtMost,
    #[serde(rename = "<")]
    Below,
}

/// What a period without data counts as
/// (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/AlarmThatSendsEmail.html#alarms-and-missing-data>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Missing {
    /// With no data in the whole range, nothing is known.
    Missing,
    /// The alarm stays as it is.
    Ignore,
    Breaching,
    NotBreaching,
}

impl Comparison {
    /// Whether the value is wrong.
    #[must_use]
    pub fn breaches(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::AtLeast => value >= threshold,
            Self::Above => value > threshold,
            Self::AtMost => value <= threshold,
            Self::Below => value < threshold,
        }
    }
}

impl Alarm {
    /// What people are told: what it means, what to run, where there is more. As in the deployment.
    #[must_use]
    pub fn description(&self) -> String {
        description(&self.name, &self.title, &self.meaning, &self.run)
    }
}

impl Composite {
    /// As [`Alarm::description`].
    #[must_use]
    pub fn description(&self) -> String {
        description(&self.name, &self.title, &self.meaning, &self.run)
    }
}

fn description(name: &str, title: &str, meaning: &str, run: &str) -> String {
    format!("{title}. {meaning}\n\nRun: {run}\nMore: {RUNBOOK}#{name}")
}
