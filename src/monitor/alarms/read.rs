//! `dashboards/alarms.json` as it is written.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Alarm, Alarms, Comparison, Composite, Missing, Severity, Watch};
use crate::monitor::placeholders::Placeholders;
use crate::monitor::{MetricId, Query, Stat, What};

/// The file, embedded: what is deployed and what is watched here are the same.
pub const FILE: &str = include_str!("../../../dashboards/alarms.json");

impl Alarms {
    /// The alarms of `dashboards/alarms.json`, for one deployment.
    ///
    /// # Errors
    /// Says what in the file is wrong.
    pub fn of(with: &Placeholders<'_>) -> Result<Self, String> {
        Self::read(FILE, with).map_err(|why| format!("dashboards/alarms.json: {why}"))
    }

    /// # Errors
    /// Says what in the text is wrong, and in which alarm.
    pub fn read(text: &str, with: &Placeholders<'_>) -> Result<Self, String> {
        let file: Value = serde_json::from_str(text).map_err(|why| why.to_string())?;
        let file: File = serde_json::from_value(with.fill_all(file)?).map_err(|why| why.to_string())?;
        let alarm = |entry: Entry| {
            let name = entry.name.clone();
            Alarm::try_from(entry).map_err(|why| format!("{name}: {why}"))
        };
        let alarms = file.alarms.into_iter().map(alarm).collect::<Result<_, _>>()?;
        let all = Self { alarms, composites: file.composites.into_iter().map(Composite::from).collect() };
        all.known().map(|()| all)
    }

    /// That every name is one's own, and every name that is named is there.
    fn known(&self) -> Result<(), String> {
        let names = || self.alarms.iter().map(|a| &a.name).chain(self.composites.iter().map(|c| &c.name));
        if let Some(twice) = names().find(|name| names().filter(|other| other == name).count() > 1) {
            return Err(format!("{twice} is there twice"));
        }
        let mentioned = |composite: &Composite| {
            composite.any.iter().chain(&composite.suppressed_by).cloned().collect::<Vec<_>>()
        };
        match self.composites.iter().flat_map(mentioned).find(|name| !names().any(|known| known == name)) {
            Some(unknown) => Err(format!("a composite names {unknown}, which is no alarm")),
            None => Ok(()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    alarms: Vec<Entry>,
    composites: Vec<CompositeEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    severity: Severity,
    title: String,
    meaning: String,
    run: String,
    // Where it is deployed: only with a warehouse. Here its metrics are missing without one, which is all well.
    #[serde(rename = "when")]
    _when: Option<When>,
    metric: Option<Measured>,
    metrics: Option<BTreeMap<String, Measured>>,
    expression: Option<String>,
    comparison: Comparison,
    threshold: f64,
    period: u32,
    evaluation_periods: u32,
    datapoints_to_alarm: u32,
    missing: Missing,
    why_missing: String,
    actions: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum When {
    Warehouse,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Measured {
    namespace: String,
    name: String,
    dimensions: BTreeMap<String, String>,
    stat: Stat,
}

impl Measured {
    fn parts(self) -> (MetricId, Stat) {
        let Self { namespace, name, dimensions, stat } = self;
        (MetricId { namespace, name, dimensions }, stat)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CompositeEntry {
    name: String,
    severity: Severity,
    title: String,
    meaning: String,
    run: String,
    any: Vec<String>,
    suppressed_by: Option<String>,
    #[serde(default)]
    wait: u32,
    #[serde(default)]
    extension: u32,
}

impl TryFrom<Entry> for Alarm {
    type Error = String;

    fn try_from(entry: Entry) -> Result<Self, String> {
        let query = |(id, measured): (String, Measured)| {
            let (metric, stat) = measured.parts();
            Query { id, what: What::Metric(metric, stat), label: None, period: entry.period, shown: false }
        };
        let what = match (entry.metric, entry.metrics, entry.expression) {
            (Some(metric), None, None) => {
                let (metric, stat) = metric.parts();
                Watch::Metric(metric, stat)
            }
            (None, Some(metrics), Some(expression)) => {
                Watch::Math { metrics: metrics.into_iter().map(query).collect(), expression }
            }
            _ => return Err("has a metric, or metrics and an expression".to_owned()),
        };
        if !(1..=entry.evaluation_periods).contains(&entry.datapoints_to_alarm) {
            return Err("datapoints_to_alarm are 1 to evaluation_periods".to_owned());
        }
        Ok(Self {
            name: entry.name,
            severity: entry.severity,
            title: entry.title,
            meaning: entry.meaning,
            run: entry.run,
            what,
            comparison: entry.comparison,
            threshold: entry.threshold,
            period: entry.period,
            evaluation_periods: entry.evaluation_periods,
            datapoints_to_alarm: entry.datapoints_to_alarm,
            missing: entry.missing,
            why_missing: entry.why_missing,
            actions: entry.actions,
        })
    }
}

impl From<CompositeEntry> for Composite {
    fn from(entry: CompositeEntry) -> Self {
        let CompositeEntry { name, severity, title, meaning, run, any, suppressed_by, wait, extension } =
            entry;
        Self { name, severity, title, meaning, run, any, suppressed_by, wait, extension }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(change: impl FnOnce(&mut Value)) -> Result<Alarms, String> {
        let mut file = json!({
            "alarms": [{
                "name": "a", "severity": "warning", "title": "", "meaning": "", "run": "", "actions": true,
                "metric": {"namespace": "${stack}", "name": "failed", "dimensions": {}, "stat": "Sum"},
                "comparison": ">=", "threshold": 1, "period": 60, "evaluation_periods": 3, "datapoints_to_alarm": 2,
                "missing": "notBreaching", "why_missing": "",
            }],
            "composites": [{"name": "c", "severity": "critical", "title": "", "meaning": "", "run": "", "any": ["a"]}],
        });
        change(&mut file);
        Alarms::read(&file.to_string(), &Placeholders::of("kassa-local", "kassa-local"))
    }

    #[test]
    fn an_alarm_is_read_with_its_placeholders_filled_in() {
        let alarms = read(|_| ()).unwrap();
        let Watch::Metric(metric, stat) = &alarms.alarms[0].what else { panic!("a metric") };
        assert_eq!((metric.namespace.as_str(), *stat), ("kassa-local", Stat::Sum));
        assert_eq!(alarms.alarms[0].comparison, Comparison::AtLeast);
        assert_eq!(alarms.composites[0].any, ["a"]);
    }

    #[test]
    fn what_cannot_be_an_alarm_is_refused_by_name() {
        let refused = |change: fn(&mut Value)| read(change).unwrap_err();
        assert!(refused(|f| f["alarms"][0]["expression"] = json!("a")).contains("a: has a metric, or"));
        assert!(
            refused(|f| f["alarms"][0]["datapoints_to_alarm"] = json!(4)).contains("1 to evaluation_periods")
        );
        assert!(refused(|f| f["alarms"][0]["surprise"] = json!(1)).contains("surprise"));
        assert!(refused(|f| f["composites"][0]["any"] = json!(["b"])).contains("names b"));
        assert!(refused(|f| f["composites"][0]["name"] = json!("a")).contains("twice"));
    }
}
