//! Metric math: what queries come to, as `GetMetricData` would answer them
//! (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html>).
//!
//! Not all of it, but what dashboards and alarms here need; what is not there says so.

/// Functions.
mod call;
/// From an expression's text to its tree.
mod parse;
/// `SEARCH`.
pub mod search;
/// What an expression comes to.
mod value;

use std::collections::HashMap;

use jiff::Timestamp;

use super::{Line, MetricId, MonitorError, Query, Stat, What};
use parse::{Expr, parse};
use search::Search;
pub use value::Points;
use value::{Series, Value, operate};

/// Where metrics are.
pub trait Data {
    /// A metric's values in the periods of a range. A period without data is not there.
    fn points(&self, metric: &MetricId, stat: Stat, range: Range) -> Points;

    /// Which metrics there are of those that are searched for, in order.
    fn search(&self, search: &Search) -> Vec<MetricId>;
}

/// Periods one after the other: `from`, `from + period` and so on, those that begin before `to`. In seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub from: i64,
    pub to: i64,
    pub period: u32,
}

impl Range {
    /// The beginnings of the periods.
    pub fn times(self) -> impl Iterator<Item = i64> {
        let step = usize::try_from(self.period.max(1)).unwrap_or(usize::MAX);
        (self.from..self.to).step_by(step)
    }
}

/// What is asked for, and of when.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub queries: &'a [Query],
    pub from: Timestamp,
    pub to: Timestamp,
    /// Whether periods begin with the hour, as dashboards have them, or with `from`, as alarms do.
    pub rounded: bool,
}

/// Periods that are answered for one query at most, as `GetMetricData` has a limit.
const MOST_PERIODS: i64 = 100_800;

/// What the queries that are shown come to.
///
/// # Errors
/// [`MonitorError::Query`].
pub fn answer(ask: Ask<'_>, data: &dyn Data) -> Result<Vec<Line>, MonitorError> {
    let mut evaluation = Evaluation { ask, data, known: HashMap::new(), under_way: Vec::new() };
    let mut lines = Vec::new();
    for query in ask.queries.iter().filter(|query| query.shown) {
        let wrong = |why| MonitorError::Query { query: query.id.clone(), why };
        let value = evaluation.query(query).map_err(wrong)?;
        lines.extend(told(query, value).map_err(wrong)?);
    }
    Ok(lines)
}

struct Evaluation<'a> {
    ask: Ask<'a>,
    data: &'a dyn Data,
    known: HashMap<&'a str, Value>,
    /// Whose value is being found out: who needs itself has none.
    under_way: Vec<&'a str>,
}

impl<'a> Evaluation<'a> {
    fn query(&mut self, query: &'a Query) -> Result<Value, String> {
        if let Some(known) = self.known.get(query.id.as_str()) {
            return Ok(known.clone());
        }
        let value = match &query.what {
            What::Metric(metric, stat) => {
                let label = query.label.clone().unwrap_or_else(|| metric.name.clone());
                Value::One(self.metric(metric, *stat, query.period, label)?)
            }
            What::Expression(text) => {
                if self.under_way.contains(&query.id.as_str()) {
                    return Err(format!("{} needs itself", query.id));
                }
                self.under_way.push(&query.id);
                let tree = parse(text).map_err(|error| format!("{text:?} {error}"))?;
                let value = self.tree(&tree, query.period)?;
                self.under_way.pop();
                value
            }
        };
        self.known.insert(&query.id, value.clone());
        Ok(value)
    }

    fn metric(&self, metric: &MetricId, stat: Stat, period: u32, label: String) -> Result<Series, String> {
        let points = self.data.points(metric, stat, self.range(period)?);
        Ok(Series { label, period, points })
    }

    fn range(&self, period: u32) -> Result<Range, String> {
        let (from, to) = (self.ask.from.as_second(), self.ask.to.as_second());
        let step = i64::from(period);
        if step < 1 || step % 60 != 0 {
            return Err(format!("a period of {period} seconds is no number of minutes"));
        }
        let from = if self.ask.rounded { from - from.rem_euclid(step) } else { from };
        if (to - from) / step > MOST_PERIODS {
            return Err(format!("more than {MOST_PERIODS} periods are asked for"));
        }
        Ok(Range { from, to, period })
    }

    fn tree(&mut self, tree: &Expr, period: u32) -> Result<Value, String> {
        match tree {
            Expr::Number(number) => Ok(Value::Number(*number)),
            Expr::Text(text) | Expr::Word(text) => Err(format!("{text:?} has no value")),
            Expr::Id(id) => {
                let query = self.ask.queries.iter().find(|query| query.id == *id);
                self.query(query.ok_or_else(|| format!("there is no {id}"))?)
            }
            Expr::Negative(of) => Ok(self.tree(of, period)?.map(|value| -value)),
            Expr::Operation(op, left, right) => {
                let (left, right) = (self.tree(left, period)?, self.tree(right, period)?);
                operate(*op, left, right)
            }
            Expr::Array(list) => {
                let mut all = Vec::new();
                for element in list {
                    all.extend(self.tree(element, period)?.into_series()?);
                }
                Ok(Value::Many(all))
            }
            Expr::Call { function, arguments } => {
                self.call(function, arguments, period).map_err(|why| format!("{function}: {why}"))
            }
        }
    }
}

/// As the query's answer.
fn told(query: &Query, value: Value) -> Result<Vec<Line>, String> {
    let label = query.label.as_deref();
    let line = |label: String, series: Series| Line {
        id: query.id.clone(),
        label,
        points: series
            .points
            .into_iter()
            .filter_map(|(at, value)| Some((Timestamp::from_second(at).ok()?, value)))
            .collect(),
    };
    match value {
        Value::Number(_) => {
            Err("it comes to one number, not to a series; TIME_SERIES makes one of it".into())
        }
        Value::One(series) => Ok(vec![line(label.unwrap_or(&query.id).to_owned(), series)]),
        Value::Many(many) => {
            let whole = |series: &Series| match label {
                Some(label) if !label.is_empty() => format!("{label} {}", series.label),
                _ => series.label.clone(),
            };
            Ok(many.into_iter().map(|series| line(whole(&series), series)).collect())
        }
    }
}

#[cfg(test)]
mod tests;
