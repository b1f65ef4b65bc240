//! Why an alarm of `CloudWatch` is in its state, in our words instead of `CloudWatch`'s.
//!
//! What it has measured stands in its `StateReasonData`, which is JSON
//! (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricAlarm.html>). Where there is none, as where somebody
//! set the state by hand, its own reason must do.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use crate::monitor::alarms::Alarm;
use crate::monitor::evaluate;
use crate::monitor::standing::because_of;

/// Of an alarm that watches a metric.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    /// The end of what was looked at.
    query_date: String,
    recent_datapoints: Vec<f64>,
    #[serde(default)]
    evaluated_datapoints: Vec<Datapoint>,
}

#[derive(Deserialize)]
struct Datapoint {
    timestamp: String,
    value: Option<f64>,
}

/// Of a composite alarm.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Triggered {
    triggering_alarms: Vec<Triggering>,
}

#[derive(Deserialize)]
struct Triggering {
    arn: String,
    state: TriggeringState,
}

#[derive(Deserialize)]
struct TriggeringState {
    value: String,
}

/// What a metric's alarm has measured.
pub(super) fn of_metric(alarm: &Alarm, data: &str) -> Option<String> {
    let measured: Measured = serde_json::from_str(data).ok()?;
    Some(evaluate::reason(alarm, &measured.values(alarm)))
}

impl Measured {
    /// By period, the oldest first; where `CloudWatch` does not say which are missing, those it has.
    fn values(&self, alarm: &Alarm) -> Vec<Option<f64>> {
        // `2026-11-22T13:50:00.000+0000`, which has no colon in its offset.
        let at =
            |text: &str| jiff::fmt::strtime::parse("%Y-%m-%dT%H:%M:%S%.f%z", text).ok()?.to_timestamp().ok();
        let place = |point: &Datapoint| Some((at(&point.timestamp)?, point.value?));
        let points: BTreeMap<Timestamp, f64> = self.evaluated_datapoints.iter().filter_map(place).collect();
        let Some(asked) = at(&self.query_date).filter(|_| !points.is_empty()) else {
            return self.recent_datapoints.iter().copied().map(Some).collect();
        };
        let period = i64::from(alarm.period);
        let end = asked.as_second().div_euclid(period) * period;
        let begins = (1..=i64::from(alarm.evaluation_periods)).rev().map(|back| end - back * period);
        let value = |begin: i64| {
            let within = |(at, _): &(&Timestamp, &f64)| (begin..begin + period).contains(&at.as_second());
            points.iter().find(within).map(|(_, value)| *value)
        };
        begins.map(value).collect()
    }
}

/// Which alarms a composite is on for.
pub(super) fn of_composite(data: &str, prefix: &str) -> Option<String> {
    let Triggered { triggering_alarms } = serde_json::from_str(data).ok()?;
    let on = triggering_alarms.iter().filter(|alarm| alarm.state.value == "ALARM");
    let name = |arn: &'_ Triggering| arn.arn.rsplit(':').next().map(str::to_owned);
    let names: Vec<String> = on.filter_map(name).collect();
    let names: Vec<&str> = names.iter().map(|name| name.strip_prefix(prefix).unwrap_or(name)).collect();
    Some(because_of(&names))
}
