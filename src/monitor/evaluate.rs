//! Which state an alarm is in, by `CloudWatch`'s documented evaluation
//! (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html>).
//!
//! Two things are not documented and taken to be so: more periods than N are looked at, namely `MORE`; and values
//! are there as soon as their minute is over, whereas on AWS some come a minute or two later. Percentiles are evaluated
//! however few values there were, which is `CloudWatch`'s default (`EvaluateLowSampleCountPercentile`).

use jiff::Timestamp;

use super::alarms::{Alarm, Comparison, Missing, Watch};
use super::math::{Ask, Data, Range, answer};
use super::store::{MINUTE, beginning};
use super::{MonitorError, Query, State, What};

/// Periods beyond N that are looked at: the documentation's examples look at five for an N of three.
const MORE: u32 = 2;

/// What an alarm's watch comes to in the periods that are looked at, the oldest first. Periods end with the last whole
/// minute.
///
/// # Errors
/// [`MonitorError`], if what is watched cannot be said.
pub fn watched(alarm: &Alarm, now: Timestamp, data: &dyn Data) -> Result<Vec<Option<f64>>, MonitorError> {
    let to = beginning(now.as_second(), MINUTE);
    let from = to - i64::from(alarm.evaluation_periods + MORE) * i64::from(alarm.period);
    let range = Range { from, to, period: alarm.period };
    let points = match &alarm.what {
        Watch::Metric(metric, stat) => data.points(metric, *stat, range),
        Watch::Math { metrics, expression } => {
            let hidden = |query: &Query| Query { shown: false, period: alarm.period, ..query.clone() };
            let mut queries: Vec<Query> = metrics.iter().map(hidden).collect();
            queries.push(Query {
                id: "watched".into(),
                what: What::Expression(expression.clone()),
                label: None,
                period: alarm.period,
                shown: true,
            });
            let wrong = |why| MonitorError::Query { query: alarm.name.clone(), why };
            let time = |at| Timestamp::from_second(at).map_err(|error| wrong(error.to_string()));
            let ask = Ask { queries: &queries, from: time(from)?, to: time(to)?, rounded: false };
            let mut lines = answer(ask, data)?;
            match (lines.pop(), lines.pop()) {
                (Some(line), None) => line.points.into_iter().map(|(at, v)| (at.as_second(), v)).collect(),
                _ => return Err(wrong("an alarm watches one series, and this is none or several".into())),
            }
        }
    };
    Ok(range.times().map(|time| points.get(&time).copied()).collect())
}

/// The state that these values, the oldest first, put an alarm into that is in `state`.
#[must_use]
pub fn judge(alarm: &Alarm, values: &[Option<f64>], state: State) -> State {
    let (n, m) = (count(alarm.evaluation_periods), count(alarm.datapoints_to_alarm));
    // The newest first.
    let wrong = |value: &Option<f64>| value.map(|value| alarm.comparison.breaches(value, alarm.threshold));
    let points: Vec<Option<bool>> = values.iter().rev().map(wrong).collect();
    let there: Vec<bool> = points.iter().copied().flatten().take(n).collect();
    let breaching = there.iter().filter(|wrong| **wrong).count();
    let lacking = n - there.len();
    let by = |breaching: usize| if breaching >= m { State::Alarm } else { State::Ok };
    if lacking == 0 || breaching >= m {
        return by(breaching);
    }
    match missing(alarm) {
        Missing::Breaching => by(breaching + lacking),
        Missing::NotBreaching => State::Ok,
        Missing::Missing | Missing::Ignore if breaching < there.len() => State::Ok,
        Missing::Ignore => state,
        Missing::Missing => {
            // A value that is wrong and old enough is not going to be outvoted by those to come. One that came just
            // now may be.
            let oldest = points.iter().rposition(Option::is_some);
            if oldest.is_some_and(|at| at + 1 >= m) { State::Alarm } else { State::InsufficientData }
        }
    }
}

fn count(periods: u32) -> usize {
    usize::try_from(periods).unwrap_or(usize::MAX)
}

/// What a period without data counts as. For `DynamoDB`'s metrics `CloudWatch` does not ask: the state stays.
fn missing(alarm: &Alarm) -> Missing {
    let dynamodb = match &alarm.what {
        Watch::Metric(metric, _) => metric.namespace == "AWS/DynamoDB",
        Watch::Math { metrics, .. } => metrics.iter().any(
            |query| matches!(&query.what, What::Metric(metric, _) if metric.namespace == "AWS/DynamoDB"),
        ),
    };
    if dynamodb { Missing::Ignore } else { alarm.missing }
}

/// The values in a sentence, for people: those of the last periods, the oldest first.
#[must_use]
pub fn reason(alarm: &Alarm, values: &[Option<f64>]) -> String {
    let Alarm { evaluation_periods: n, datapoints_to_alarm: m, period, .. } = alarm;
    let values = &values[values.len().saturating_sub(count(*n))..];
    let show = |value: &Option<f64>| value.map_or_else(|| "nothing".to_owned(), short);
    let measured: Vec<String> = values.iter().map(show).collect();
    let measured =
        if values.iter().all(Option::is_none) { "nothing".to_owned() } else { measured.join(", ") };
    let threshold = short(alarm.threshold);
    let wrong = match alarm.comparison {
        Comparison::AtLeast => format!("{threshold} or more"),
        Comparison::Above => format!("more than {threshold}"),
        Comparison::AtMost => format!("{threshold} or less"),
        Comparison::Below => format!("less than {threshold}"),
    };
    let times = match (n, m) {
        (1, _) => String::new(),
        (n, m) if n == m => ", each time".to_owned(),
        (_, m) => format!(", {m} times of these"),
    };
    let nothing = if missing(alarm) == Missing::Breaching { ", or of nothing" } else { "" };
    format!(
        "Measured in the last {}: {measured}. It goes off at {wrong}{nothing}{times}.",
        lasting(*n, *period)
    )
}

/// So many periods.
fn lasting(n: u32, period: u32) -> String {
    let (unit, each) =
        if period.is_multiple_of(3600) { ("hour", period / 3600) } else { ("minute", period / 60) };
    match (n, each) {
        (1, 1) => unit.to_owned(),
        (n, 1) | (1, n) => format!("{n} {unit}s"),
        (n, each) => format!("{n} times {each} {unit}s"),
    }
}

/// To a hundredth.
fn short(value: f64) -> String {
    ((value * 100.0).round() / 100.0).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::alarms::Severity;
    use super::super::{MetricId, Stat};
    use super::*;

    fn alarm(m: u32, n: u32, missing: Missing) -> Alarm {
        let metric =
            MetricId { namespace: "kassa-local".into(), name: "failed".into(), dimensions: BTreeMap::new() };
        Alarm {
            name: "a".into(),
            severity: Severity::Warning,
            title: String::new(),
            meaning: String::new(),
            run: String::new(),
            what: Watch::Metric(metric, Stat::Sum),
            comparison: Comparison::AtLeast,
            threshold: 10.0,
            period: 60,
            evaluation_periods: n,
            datapoints_to_alarm: m,
            missing,
            why_missing: String::new(),
            actions: true,
        }
    }

    /// As the documentation writes it: 0 is fine, X is wrong, - is missing; the newest is last.
    fn values(points: &str) -> Vec<Option<f64>> {
        let value = |c| match c {
            'X' => Some(10.0),
            '0' => Some(9.0),
            _ => None,
        };
        points.split(' ').map(|point| value(point.chars().next().unwrap())).collect()
    }

    /// One row of the documentation's tables: missing, ignore, breaching, notBreaching. `None` keeps the state.
    #[track_caller]
    fn row(m: u32, points: &str, expected: [Option<State>; 4]) {
        let treatments = [Missing::Missing, Missing::Ignore, Missing::Breaching, Missing::NotBreaching];
        for (missing, expected) in treatments.into_iter().zip(expected) {
            for state in [State::Ok, State::Alarm, State::InsufficientData] {
                let judged = judge(&alarm(m, 3, missing), &values(points), state);
                assert_eq!(judged, expected.unwrap_or(state), "{m} of 3: {points}, {missing:?} in {state:?}");
            }
        }
    }

    const OK: Option<State> = Some(State::Ok);
    const ALARM: Option<State> = Some(State::Alarm);
    const UNKNOWN: Option<State> = Some(State::InsufficientData);
    const AS_IT_IS: Option<State> = None;

    #[test]
    fn the_documentations_table_for_three_out_of_three() {
        row(3, "0 - X - X", [OK, OK, OK, OK]);
        row(3, "0 - - - -", [OK, OK, OK, OK]);
        row(3, "- - - - 0", [OK, OK, OK, OK]);
        row(3, "- - - - -", [UNKNOWN, AS_IT_IS, ALARM, OK]);
        row(3, "0 X X - X", [ALARM, ALARM, ALARM, ALARM]);
        row(3, "- - X - -", [ALARM, AS_IT_IS, ALARM, OK]);
        row(3, "X - - - -", [ALARM, AS_IT_IS, ALARM, OK]);
    }

    #[test]
    fn the_documentations_table_for_two_out_of_three() {
        row(2, "0 - X - X", [ALARM, ALARM, ALARM, ALARM]);
        row(2, "0 0 X 0 X", [ALARM, ALARM, ALARM, ALARM]);
        row(2, "0 - X - -", [OK, OK, ALARM, OK]);
        row(2, "- - - - 0", [OK, OK, ALARM, OK]);
        row(2, "- - - X -", [ALARM, AS_IT_IS, ALARM, OK]);
    }

    #[test]
    fn one_value_that_has_just_come_is_not_yet_an_alarm() {
        row(3, "- - - - X", [UNKNOWN, AS_IT_IS, ALARM, OK]);
        row(3, "- - - X -", [UNKNOWN, AS_IT_IS, ALARM, OK]);
        row(2, "- - - - X", [UNKNOWN, AS_IT_IS, ALARM, OK]);
    }

    #[test]
    fn of_more_than_n_values_the_newest_count() {
        row(3, "X X X 0 0", [OK, OK, OK, OK]);
        row(3, "0 0 X X X", [ALARM, ALARM, ALARM, ALARM]);
        row(1, "X - - - -", [ALARM, ALARM, ALARM, ALARM]);
    }

    #[test]
    fn dynamodbs_metrics_keep_the_state_whatever_the_alarm_says() {
        let mut throttles = alarm(1, 1, Missing::NotBreaching);
        let Watch::Metric(metric, _) = &mut throttles.what else { panic!() };
        metric.namespace = "AWS/DynamoDB".into();
        assert_eq!(judge(&throttles, &values("- - -"), State::Alarm), State::Alarm);
    }

    #[test]
    fn the_reason_shows_the_last_values() {
        let reason = reason(&alarm(2, 3, Missing::Ignore), &values("0 - X - X"));
        assert_eq!(
            reason,
            "Measured in the last 3 minutes: 10, nothing, 10. It goes off at 10 or more, 2 times of these."
        );
    }

    #[test]
    fn the_reason_says_what_was_measured_for_how_long_and_what_is_wrong() {
        let one = Alarm { period: 300, comparison: Comparison::Above, ..alarm(1, 1, Missing::NotBreaching) };
        assert_eq!(
            reason(&one, &[Some(12.345)]),
            "Measured in the last 5 minutes: 12.35. It goes off at more than 10."
        );
        let silent = Alarm { comparison: Comparison::Below, ..alarm(3, 3, Missing::Breaching) };
        assert_eq!(
            reason(&silent, &values("- - -")),
            "Measured in the last 3 minutes: nothing. It goes off at less than 10, or of nothing, each time."
        );
        let hour = Alarm { period: 3600, ..alarm(1, 1, Missing::NotBreaching) };
        assert_eq!(reason(&hour, &[]), "Measured in the last hour: nothing. It goes off at 10 or more.");
    }
}
