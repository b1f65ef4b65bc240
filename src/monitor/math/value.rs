//! What an expression comes to, and what is done with it.

use std::collections::BTreeMap;

use super::parse::Op;

/// Values by the beginnings of their periods, in seconds since 1970.
pub type Points = BTreeMap<i64, f64>;

/// A metric's values over time, or what was made of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub label: String,
    /// In seconds.
    pub period: u32,
    pub points: Points,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Number(f64),
    One(Series),
    Many(Vec<Series>),
}

impl Series {
    /// The points changed; those that are no number any more are left out.
    fn map(self, change: impl Fn(f64) -> f64) -> Self {
        let points = self.points.into_iter().map(|(at, value)| (at, change(value)));
        Self { points: points.filter(|(_, value)| value.is_finite()).collect(), ..self }
    }

    /// Each point with the one before it.
    pub fn steps(self, step: impl Fn((i64, f64), (i64, f64)) -> f64) -> Self {
        let pairs = self.points.iter().zip(self.points.iter().skip(1));
        let points = pairs.map(|((t0, v0), (t1, v1))| (*t1, step((*t0, *v0), (*t1, *v1)))).collect();
        Self { points, ..self }
    }
}

impl Value {
    pub fn map(self, change: impl Fn(f64) -> f64 + Copy) -> Self {
        match self {
            Self::Number(number) => Self::Number(change(number)),
            Self::One(series) => Self::One(series.map(change)),
            Self::Many(many) => Self::Many(many.into_iter().map(|series| series.map(change)).collect()),
        }
    }

    /// Each series changed.
    pub fn each(self, change: impl Fn(Series) -> Series) -> Result<Self, String> {
        match self {
            Self::Number(_) => Err("a series is needed, not a number".into()),
            Self::One(series) => Ok(Self::One(change(series))),
            Self::Many(many) => Ok(Self::Many(many.into_iter().map(change).collect())),
        }
    }

    pub fn into_series(self) -> Result<Vec<Series>, String> {
        match self {
            Self::Number(_) => Err("a series is needed, not a number".into()),
            Self::One(series) => Ok(vec![series]),
            Self::Many(many) => Ok(many),
        }
    }

    pub fn number(self) -> Result<f64, String> {
        match self {
            Self::Number(number) => Ok(number),
            Self::One(_) | Self::Many(_) => Err("a number is needed, not a series".into()),
        }
    }
}

/// Does an operation. Between series, a value that only one of them has meets a zero, as `CloudWatch` documents it;
/// what divides by zero is left out.
pub fn operate(op: Op, left: Value, right: Value) -> Result<Value, String> {
    let apply = |a, b| apply(op, a, b);
    Ok(match (left, right) {
        (Value::Number(a), Value::Number(b)) => Value::Number(apply(a, b)),
        (left, Value::Number(b)) => left.map(|a| apply(a, b)),
        (Value::Number(a), right) => right.map(|b| apply(a, b)),
        (Value::One(a), Value::One(b)) => Value::One(join(a, &b, apply)),
        (Value::Many(many), Value::One(b)) => {
            Value::Many(many.into_iter().map(|a| join(a, &b, apply)).collect())
        }
        (Value::One(a), Value::Many(many)) => {
            Value::Many(many.into_iter().map(|b| join(b, &a, |b, a| apply(a, b))).collect())
        }
        (Value::Many(_), Value::Many(_)) => return Err("two lists of series cannot be put together".into()),
    })
}

fn join(a: Series, b: &Series, apply: impl Fn(f64, f64) -> f64) -> Series {
    let times = a.points.keys().chain(b.points.keys());
    let at = |points: &Points, time| points.get(time).copied().unwrap_or_default();
    let points = times.map(|time| (*time, apply(at(&a.points, time), at(&b.points, time))));
    Series { points: points.filter(|(_, value)| value.is_finite()).collect(), ..a }
}

fn apply(op: Op, a: f64, b: f64) -> f64 {
    let truth = |is: bool| f64::from(u8::from(is));
    let is = |value: f64| value != 0.0;
    #[expect(clippy::float_cmp, reason = "this is what the operator asks")]
    match op {
        Op::Or => truth(is(a) || is(b)),
        Op::And => truth(is(a) && is(b)),
        Op::Equal => truth(a == b),
        Op::NotEqual => truth(a != b),
        Op::LessOrEqual => truth(a <= b),
        Op::GreaterOrEqual => truth(a >= b),
        Op::Less => truth(a < b),
        Op::Greater => truth(a > b),
        Op::Plus => a + b,
        Op::Minus => a - b,
        Op::Times => a * b,
        Op::Over => a / b,
        Op::Power => a.powf(b),
    }
}

/// What makes one of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduce {
    Sum,
    Average,
    Minimum,
    Maximum,
}

impl Reduce {
    /// `among` is how many an average is of: who is not there is a zero to it.
    fn of(self, values: impl Iterator<Item = f64>, among: usize) -> f64 {
        match self {
            Self::Sum => values.sum(),
            Self::Average => values.sum::<f64>() / count(among),
            Self::Minimum => values.fold(f64::INFINITY, f64::min),
            Self::Maximum => values.fold(f64::NEG_INFINITY, f64::max),
        }
    }

    /// Of a series, a number over all its points; of a list, a series with what its series have at each time.
    pub fn reduce(self, value: Value, period: u32) -> Result<Value, String> {
        match value {
            Value::Number(_) => Err("a series is needed, not a number".into()),
            Value::One(series) => {
                let of = self.of(series.points.values().copied(), series.points.len());
                // Of nothing.
                Ok(Value::Number(if of.is_finite() { of } else { f64::NAN }))
            }
            Value::Many(many) => {
                let mut at: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
                for (time, value) in many.iter().flat_map(|series| &series.points) {
                    at.entry(*time).or_default().push(*value);
                }
                let of = |values: Vec<f64>| self.of(values.into_iter(), many.len());
                let points = at.into_iter().map(|(time, values)| (time, of(values))).collect();
                let period = many.first().map_or(period, |series| series.period);
                Ok(Value::One(Series { label: String::new(), period, points }))
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 series or points")]
pub fn count(of: usize) -> f64 {
    of as f64
}

/// `IF`: at each time, by the condition's value there, the one or the other
/// (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html#using-IF-expressions>).
pub fn choose(condition: Value, yes: Value, no: Option<Value>) -> Result<Value, String> {
    let condition = match condition {
        Value::Number(number) if number != 0.0 => return Ok(yes),
        Value::Number(_) => {
            let nothing = |series: Series| Series { points: Points::new(), ..series };
            return no.map_or_else(|| yes.each(nothing), Ok);
        }
        Value::One(condition) => condition,
        Value::Many(_) => return Err("IF needs one series as its condition".into()),
    };
    let at = |value: &Value, time: i64| match value {
        Value::Number(number) => Ok(Some(*number)),
        Value::One(series) => Ok(series.points.get(&time).copied()),
        Value::Many(_) => Err("IF chooses between single series or numbers".to_owned()),
    };
    let mut points = Points::new();
    for (time, holds) in &condition.points {
        let value = if *holds == 0.0 {
            no.as_ref().map(|no| at(no, *time)).transpose()?.flatten()
        } else {
            Some(at(&yes, *time)?.unwrap_or_default())
        };
        points.extend(value.map(|value| (*time, value)));
    }
    let label = match yes {
        Value::One(series) => series.label,
        Value::Number(_) | Value::Many(_) => condition.label,
    };
    Ok(Value::One(Series { label, points, ..condition }))
}
