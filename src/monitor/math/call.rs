//! The functions that there are.

use super::parse::Expr;
use super::search::Search;
use super::value::{Points, Reduce, Series, Value, choose, count};
use super::{Evaluation, What};

impl Evaluation<'_> {
    pub(super) fn call(&mut self, function: &str, arguments: &[Expr], period: u32) -> Result<Value, String> {
        match (function, arguments) {
            ("METRICS", []) => self.metrics(""),
            ("METRICS", [Expr::Text(part)]) => self.metrics(part),
            ("SEARCH", [Expr::Text(search), Expr::Text(stat)]) => self.search(search, stat, period),
            ("SEARCH", [Expr::Text(search), Expr::Text(stat), Expr::Number(every)]) => {
                self.search(search, stat, whole(*every)?)
            }
            ("SUM", [of]) => Reduce::Sum.reduce(self.tree(of, period)?, period),
            ("AVG", [of]) => Reduce::Average.reduce(self.tree(of, period)?, period),
            ("MIN", [of]) => Reduce::Minimum.reduce(self.tree(of, period)?, period),
            ("MAX", [of]) => Reduce::Maximum.reduce(self.tree(of, period)?, period),
            ("FILL", [of, Expr::Word(word)]) if word == "REPEAT" => {
                let of = self.tree(of, period)?;
                self.fill(of, None)
            }
            ("FILL", [of, with]) => {
                let (of, with) = (self.tree(of, period)?, self.tree(with, period)?.number()?);
                self.fill(of, Some(with))
            }
            ("IF", [condition, yes]) => choose(self.tree(condition, period)?, self.tree(yes, period)?, None),
            ("IF", [condition, yes, no]) => {
                let (condition, yes) = (self.tree(condition, period)?, self.tree(yes, period)?);
                choose(condition, yes, Some(self.tree(no, period)?))
            }
            // Nobody here has a quota.
            ("SERVICE_QUOTA", [of]) => {
                self.tree(of, period)?.each(|series| Series { points: Points::new(), ..series })
            }
            ("PERIOD", [of]) => match self.tree(of, period)? {
                Value::One(series) => Ok(Value::Number(series.period.into())),
                Value::Number(_) | Value::Many(_) => Err("a metric is needed".into()),
            },
            ("TIME_SERIES", [of]) => {
                let number = self.tree(of, period)?.number()?;
                let points = self.range(period)?.times().map(|time| (time, number));
                let points = points.filter(|(_, number)| number.is_finite()).collect();
                Ok(Value::One(Series { label: String::new(), period, points }))
            }
            ("ABS", [of]) => Ok(self.tree(of, period)?.map(f64::abs)),
            ("CEIL", [of]) => Ok(self.tree(of, period)?.map(f64::ceil)),
            ("FLOOR", [of]) => Ok(self.tree(of, period)?.map(f64::floor)),
            ("DIFF", [of]) => self.tree(of, period)?.each(|series| series.steps(|a, b| b.1 - a.1)),
            ("RATE", [of]) => self.tree(of, period)?.each(|series| {
                #[expect(clippy::cast_precision_loss, reason = "seconds between two points")]
                series.steps(|a, b| (b.1 - a.1) / (b.0 - a.0) as f64)
            }),
            ("RUNNING_SUM", [of]) => self.tree(of, period)?.each(running_sum),
            ("METRIC_COUNT", [of]) => Ok(Value::Number(count(self.tree(of, period)?.into_series()?.len()))),
            ("REMOVE_EMPTY", [of]) => {
                let mut many = self.tree(of, period)?.into_series()?;
                many.retain(|series| !series.points.is_empty());
                Ok(Value::Many(many))
            }
            ("SORT", [of, Expr::Word(by), Expr::Word(order)]) => {
                sort(self.tree(of, period)?.into_series()?, by, order, None)
            }
            ("SORT", [of, Expr::Word(by), Expr::Word(order), most]) => {
                let (of, most) = (self.tree(of, period)?, self.tree(most, period)?.number()?);
                sort(of.into_series()?, by, order, Some(most))
            }
            (known, _) if KNOWN.contains(&known) => Err("these are not its arguments".into()),
            _ => Err(format!("there is no such function here; there are {}", KNOWN.join(", "))),
        }
    }

    /// The metrics that are asked for, of whose ids that is a part. Expressions are none.
    fn metrics(&mut self, part: &str) -> Result<Value, String> {
        let queries = self.ask.queries;
        let wanted = queries.iter().filter(|q| matches!(q.what, What::Metric(..)) && q.id.contains(part));
        let mut many = Vec::new();
        for query in wanted {
            many.extend(self.query(query)?.into_series()?);
        }
        Ok(Value::Many(many))
    }

    fn search(&self, search: &str, stat: &str, period: u32) -> Result<Value, String> {
        let (search, stat) = (Search::parse(search)?, stat.parse()?);
        let found = self.data.search(&search);
        let series = found.iter().map(|metric| {
            let told_apart: Vec<&str> = metric.dimensions.values().map(String::as_str).collect();
            let label = if told_apart.is_empty() { metric.name.clone() } else { told_apart.join(" ") };
            self.metric(metric, stat, period, label)
        });
        Ok(Value::Many(series.collect::<Result<_, _>>()?))
    }

    /// With the number, or with the last value there was, in every period that has none.
    fn fill(&self, value: Value, with: Option<f64>) -> Result<Value, String> {
        let single = matches!(value, Value::One(_));
        let many = value.into_series()?;
        let mut out = Vec::with_capacity(many.len());
        for mut series in many {
            let mut last = None;
            for time in self.range(series.period)?.times() {
                match (series.points.get(&time), with.or(last)) {
                    (Some(value), _) => last = Some(*value),
                    (None, Some(value)) => drop(series.points.insert(time, value)),
                    (None, None) => {}
                }
            }
            out.push(series);
        }
        Ok(if single { Value::One(out.remove(0)) } else { Value::Many(out) })
    }
}

const KNOWN: &[&str] = &[
    "ABS",
    "AVG",
    "CEIL",
    "DIFF",
    "FILL",
    "FLOOR",
    "IF",
    "MAX",
    "METRICS",
    "METRIC_COUNT",
    "MIN",
    "PERIOD",
    "RATE",
    "REMOVE_EMPTY",
    "RUNNING_SUM",
    "SEARCH",
    "SERVICE_QUOTA",
    "SORT",
    "SUM",
    "TIME_SERIES",
];

fn running_sum(mut series: Series) -> Series {
    let mut sum = 0.0;
    for value in series.points.values_mut() {
        sum += *value;
        *value = sum;
    }
    series
}

fn sort(mut many: Vec<Series>, by: &str, order: &str, most: Option<f64>) -> Result<Value, String> {
    let by = match by {
        "SUM" => Reduce::Sum,
        "AVG" => Reduce::Average,
        "MIN" => Reduce::Minimum,
        "MAX" => Reduce::Maximum,
        _ => return Err(format!("{by} is no order: SUM, AVG, MIN or MAX")),
    };
    // Those without data come last, whatever the order.
    let key = |series: &Series| {
        let of = by.reduce(Value::One(series.clone()), series.period).and_then(Value::number);
        of.ok().filter(|number| !number.is_nan())
    };
    let backwards = match order {
        "ASC" => false,
        "DESC" => true,
        _ => return Err(format!("{order} is neither ASC nor DESC")),
    };
    many.sort_by(|a, b| match (key(a), key(b)) {
        (Some(a), Some(b)) if backwards => b.total_cmp(&a),
        (Some(a), Some(b)) => a.total_cmp(&b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    });
    if let Some(most) = most {
        many.truncate(usize::try_from(whole(most)?).unwrap_or(usize::MAX));
    }
    Ok(Value::Many(many))
}

/// A whole number that is not negative.
fn whole(number: f64) -> Result<u32, String> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within the bounds")]
    if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) {
        Ok(number as u32)
    } else {
        Err(format!("{number} is not a whole number from 0 on"))
    }
}
