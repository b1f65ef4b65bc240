use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::monitor::{MetricId, Query, What};

/// A row of a metric widget: a metric, or an expression over others, and how it is drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub query: Query,
    pub side: Side,
    /// `#rrggbb`.
    pub color: Option<String>,
}

/// The axis it is measured by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Side {
    #[default]
    Left,
    Right,
}

/// What may stand at a row's end.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Options {
    expression: Option<String>,
    id: Option<String>,
    label: Option<String>,
    stat: Option<String>,
    period: Option<u32>,
    visible: Option<bool>,
    #[serde(default)]
    y_axis: Side,
    color: Option<String>,
}

/// Rows as a body has them: `[namespace, name, dimension, value, …, {options}]`, where `.` is what the metric above has
/// in the same place, or `[{expression, …}]`.
pub(super) fn read(rows: Vec<Vec<Value>>, stat: Option<&str>, period: u32) -> Result<Vec<Row>, String> {
    let mut above: Vec<String> = Vec::new();
    let mut read = Vec::new();
    for (n, mut row) in rows.into_iter().enumerate() {
        let options: Options = match row.pop_if(|last| last.is_object()) {
            Some(options) => super::read(options)?,
            None => Options::default(),
        };
        let what = match (&options.expression, row.is_empty()) {
            (Some(expression), true) => What::Expression(expression.clone()),
            (None, false) => {
                above = written_out(&row, &above)?;
                let stat = options.stat.as_deref().or(stat).ok_or("a metric without a statistic")?;
                What::Metric(metric(&above)?, stat.parse()?)
            }
            _ => return Err(format!("row {n} is a metric or an expression, and one of them")),
        };
        read.push(Row {
            query: Query {
                id: options.id.unwrap_or_else(|| format!("row{n}")),
                what,
                label: options.label,
                period: options.period.unwrap_or(period),
                shown: options.visible.unwrap_or(true),
            },
            side: options.y_axis,
            color: options.color,
        });
    }
    let ids: BTreeSet<_> = read.iter().map(|row| &row.query.id).collect();
    if ids.len() < read.len() { Err("two rows have one id".to_owned()) } else { Ok(read) }
}

fn written_out(row: &[Value], above: &[String]) -> Result<Vec<String>, String> {
    let text = |(n, value): (usize, &Value)| match value.as_str() {
        Some(".") => {
            above.get(n).cloned().ok_or_else(|| format!("a dot with nothing above it, in place {n}"))
        }
        Some("...") => Err("three dots are not read: write a dot for each".to_owned()),
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("{value} where a text belongs")),
    };
    row.iter().enumerate().map(text).collect()
}

fn metric(parts: &[String]) -> Result<MetricId, String> {
    let [namespace, name, dimensions @ ..] = parts else {
        return Err("a metric has a namespace and a name".into());
    };
    let (pairs, []) = dimensions.as_chunks::<2>() else {
        return Err(format!("{name}: a dimension without its value"));
    };
    let dimensions: BTreeMap<_, _> = pairs.iter().map(|[of, value]| (of.clone(), value.clone())).collect();
    if dimensions.len() < pairs.len() {
        return Err(format!("{name}: a dimension twice"));
    }
    Ok(MetricId { namespace: namespace.clone(), name: name.clone(), dimensions })
}
