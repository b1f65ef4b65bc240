//! `CloudWatch`, which knows a deployed shop's health. Asking needs the rights `cloudwatch:GetMetricData` and
//! `cloudwatch:DescribeAlarms`, neither of which can be had for some metrics or for one stage only.

/// Why alarms are in their states.
mod reason;
/// Queries in as many requests as they need.
mod requests;

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{
    AlarmType, CompositeAlarm, Dimension, MetricAlarm, MetricDataQuery, MetricDataResult, MetricStat, ScanBy,
    StateValue, StatusCode,
};
use jiff::Timestamp;
use kassa_bus::error::chain;

use super::alarms::Alarms;
use super::placeholders::Placeholders;
use super::{AlarmStatus, Line, Monitor, MonitorError, Query, State, What};

/// The health of one stage's stack.
pub struct CloudWatch {
    client: Client,
    stack: String,
    api: String,
}

impl CloudWatch {
    #[must_use]
    pub fn new(client: Client, stack: impl Into<String>, api: impl Into<String>) -> Self {
        Self { client, stack: stack.into(), api: api.into() }
    }

    /// What one request's queries come to, over all pages.
    async fn request(
        &self,
        queries: &[&Query],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Line>, MonitorError> {
        let mut lines = Lines::default();
        let mut more = None;
        loop {
            let request = self
                .client
                .get_metric_data()
                .set_metric_data_queries(Some(queries.iter().map(|query| asked(query)).collect()))
                .start_time(time(from))
                .end_time(time(to))
                .scan_by(ScanBy::TimestampAscending)
                .set_next_token(more);
            let page = request.send().await.map_err(|error| refused("cloudwatch:GetMetricData", &error))?;
            lines.page(page.metric_data_results.unwrap_or_default())?;
            more = page.next_token;
            if more.is_none() {
                return Ok(lines.0);
            }
        }
    }
}

impl CloudWatch {
    fn shipped(&self) -> Result<Alarms, MonitorError> {
        Alarms::of(&Placeholders::of(&self.stack, &self.api)).map_err(MonitorError::Unavailable)
    }

    /// Those of the file, in its order. Another stack's may begin with this one's name.
    fn ours(all: &Alarms, mut found: Vec<AlarmStatus>) -> Vec<AlarmStatus> {
        let names = all.alarms.iter().map(|a| &a.name).chain(all.composites.iter().map(|c| &c.name));
        let take = |name: &String| {
            let at = found.iter().position(|alarm| alarm.name == *name)?;
            Some(found.swap_remove(at))
        };
        names.filter_map(take).collect()
    }
}

#[async_trait]
impl Monitor for CloudWatch {
    fn stack(&self) -> &str {
        &self.stack
    }

    fn api(&self) -> &str {
        &self.api
    }

    async fn data(
        &self,
        queries: &[Query],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Line>, MonitorError> {
        let mut lines = Vec::new();
        for request in requests::split(queries)? {
            lines.extend(self.request(&request, from, to).await?);
        }
        let place: HashMap<&str, usize> =
            queries.iter().enumerate().map(|(n, query)| (query.id.as_str(), n)).collect();
        lines.sort_by_key(|line: &Line| place.get(line.id.as_str()).copied());
        Ok(lines)
    }

    async fn alarms(&self) -> Result<Vec<AlarmStatus>, MonitorError> {
        let (prefix, all) = (format!("{}-", self.stack), self.shipped()?);
        let mut alarms = Vec::new();
        let mut more = None;
        loop {
            let request = self
                .client
                .describe_alarms()
                .alarm_name_prefix(&prefix)
                .alarm_types(AlarmType::MetricAlarm)
                .alarm_types(AlarmType::CompositeAlarm)
                .max_records(100)
                .set_next_token(more);
            let page = request.send().await.map_err(|error| refused("cloudwatch:DescribeAlarms", &error))?;
            alarms.extend(page.metric_alarms().iter().filter_map(|alarm| of_metric(alarm, &prefix, &all)));
            alarms.extend(page.composite_alarms().iter().filter_map(|alarm| composite(alarm, &prefix)));
            more = page.next_token;
            if more.is_none() {
                return Ok(Self::ours(&all, alarms));
            }
        }
    }
}

fn time(at: Timestamp) -> DateTime {
    DateTime::from_millis(at.as_millisecond())
}

fn timestamp(at: &DateTime) -> Option<Timestamp> {
    Timestamp::from_millisecond(at.to_millis().ok()?).ok()
}

fn asked(query: &Query) -> MetricDataQuery {
    let period = i32::try_from(query.period).unwrap_or(i32::MAX);
    let asked = MetricDataQuery::builder().id(&query.id).set_label(query.label.clone());
    let asked = asked.return_data(query.shown);
    match &query.what {
        What::Expression(expression) => asked.expression(expression).period(period),
        What::Metric(metric, stat) => {
            let dimension = |(name, value)| Dimension::builder().name(name).value(value).build();
            let metric = aws_sdk_cloudwatch::types::Metric::builder()
                .namespace(&metric.namespace)
                .metric_name(&metric.name)
                .set_dimensions(Some(metric.dimensions.iter().map(dimension).collect()))
                .build();
            asked.metric_stat(
                MetricStat::builder().metric(metric).period(period).stat(String::from(*stat)).build(),
            )
        }
    }
    .build()
}

/// Lines as pages bring them: one that goes on in the next page is one line.
#[derive(Default)]
struct Lines(Vec<Line>);

impl Lines {
    fn page(&mut self, results: Vec<MetricDataResult>) -> Result<(), MonitorError> {
        let before = self.0.len();
        // Lines of one search may be called the same: they are told apart by their place among these.
        let mut called: HashMap<(String, String), usize> = HashMap::new();
        for result in results {
            let name = |text: Option<String>| text.unwrap_or_default();
            if let Some(why @ (StatusCode::InternalError | StatusCode::Forbidden)) = &result.status_code {
                return Err(untold(result.id(), why, &result));
            }
            let times = result.timestamps().iter().map(timestamp);
            let points = times.zip(result.values()).filter_map(|(at, value)| Some((at?, *value))).collect();
            let (id, label) = (name(result.id), name(result.label));
            let nth = called.entry((id.clone(), label.clone())).or_default();
            let same = |line: &&mut Line| line.id == id && line.label == label;
            match self.0[..before].iter_mut().filter(same).nth(*nth) {
                Some(line) => line.points.extend::<Vec<_>>(points),
                None => self.0.push(Line { id, label, points }),
            }
            *nth += 1;
        }
        Ok(())
    }
}

/// A line that `CloudWatch` did not tell.
fn untold(id: Option<&str>, code: &StatusCode, result: &MetricDataResult) -> MonitorError {
    let said = result.messages().iter().filter_map(|message| message.value()).collect::<Vec<_>>().join("; ");
    let why = if said.is_empty() { code.as_str().to_owned() } else { format!("{code}: {said}") };
    MonitorError::Query { query: id.unwrap_or_default().to_owned(), why }
}

/// Why `CloudWatch` does not answer, and what to do about it.
fn refused<E>(right: &str, error: &SdkError<E>) -> MonitorError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or_default();
    let said = error.as_service_error().and_then(ProvideErrorMetadata::message).unwrap_or_default();
    MonitorError::Unavailable(match code {
        // By what name depends on the protocol.
        _ if code.starts_with("Throttl") || code == "RequestLimitExceeded" => format!(
            "CloudWatch refuses further requests of this account for now ({code}); try again in a minute, and see \
             who else asks so often"
        ),
        _ if code.starts_with("AccessDenied") || code == "UnauthorizedOperation" => format!(
            "whoever asks has no right to {right}, which takes Resource \"*\"; add it to their policy ({said})"
        ),
        "ValidationError" | "InvalidParameterValue" | "InvalidParameterCombination" => {
            format!("CloudWatch does not take the question ({code}): {said}")
        }
        _ => format!(
            "CloudWatch cannot be asked (are AWS_REGION and AWS_ENDPOINT_URL as they should be?): {}",
            chain(error)
        ),
    })
}

fn of_metric(alarm: &MetricAlarm, prefix: &str, all: &Alarms) -> Option<AlarmStatus> {
    let times = [alarm.state_transitioned_timestamp(), alarm.state_updated_timestamp()];
    let name = alarm.alarm_name()?.strip_prefix(prefix)?;
    let shipped = all.alarms.iter().find(|alarm| alarm.name == name);
    let why =
        shipped.zip(alarm.state_reason_data()).and_then(|(shipped, data)| reason::of_metric(shipped, data));
    status(
        name,
        alarm.state_value(),
        times,
        why.as_deref().or(alarm.state_reason()),
        alarm.alarm_description(),
    )
}

fn composite(alarm: &CompositeAlarm, prefix: &str) -> Option<AlarmStatus> {
    let times = [alarm.state_transitioned_timestamp(), alarm.state_updated_timestamp()];
    let why = alarm.state_reason_data().and_then(|data| reason::of_composite(data, prefix));
    status(
        alarm.alarm_name()?.strip_prefix(prefix)?,
        alarm.state_value(),
        times,
        why.as_deref().or(alarm.state_reason()),
        alarm.alarm_description(),
    )
}

/// The first time is when the state began, the second when anything about it changed last.
fn status(
    name: &str,
    state: Option<&StateValue>,
    times: [Option<&DateTime>; 2],
    why: Option<&str>,
    description: Option<&str>,
) -> Option<AlarmStatus> {
    let state = match state? {
        StateValue::Alarm => State::Alarm,
        StateValue::Ok => State::Ok,
        _ => State::InsufficientData,
    };
    Some(AlarmStatus {
        name: name.to_owned(),
        state,
        since: times.into_iter().flatten().find_map(timestamp)?,
        why: why.unwrap_or_default().to_owned(),
        description: description.unwrap_or_default().to_owned(),
    })
}
