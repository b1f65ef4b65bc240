use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use kassa_bus::{Dimension, Metric};
use rust_decimal::Decimal;
use rust_decimal::prelude::FromPrimitive;

use super::figures::{Cell, Sheet};
use super::look::{StatusError, View};
use super::{Cost, Standing};
use crate::cost::{Counted, so_far};
use crate::monitor::{Line, Stat};

/// The core's functions, and how much memory each has, in MB.
pub(super) const MEMORY: [(&str, u32); 6] = [
    ("accept", 256),
    ("decrypt", 128),
    ("process", 128),
    ("project", 256),
    ("watch", 128),
    ("reconcile", 128),
];

/// What a subscriber's has.
pub(super) const SUBSCRIBERS_MEMORY: u32 = 128;

/// `CloudWatch` keeps hours for 455 days.
const HOUR: u32 = 3_600;

/// What the shop has cost today and this month (UTC, as AWS reckons), or would have on AWS.
pub(super) async fn spent(view: &View<'_>, shops: &[Standing], now: Timestamp) -> Result<Cost, StatusError> {
    let calendar = Calendar::of(now);
    let mut counted = [Counted::default(); 2];
    if let Some(monitor) = view.monitor.filter(|_| view.deployed) {
        let used = Used::of(monitor.stack(), monitor.api(), &view.questions.subscribers());
        let lines = monitor.data(&used.sheet.queries, calendar.month, now).await?;
        counted = [calendar.today, calendar.month].map(|from| used.since(from, &lines));
    }
    let sum = |of: fn(&Standing) -> u64| shops.iter().map(of).fold(0, u64::saturating_add);
    let sales = [sum(|shop| shop.today.sales), sum(|shop| shop.sales_this_month)];
    let cost = |period: usize| {
        let share = calendar.share([calendar.today, calendar.month][period], now);
        so_far(sales[period], &counted[period], shops.len() as u64, share).map_err(StatusError::Shipped)
    };
    let is_counted = counted[1] != Counted::default();
    Ok(Cost { today: cost(0)?, this_month: cost(1)?, counted: is_counted })
}

/// When the day and the month began, and when the month ends.
struct Calendar {
    today: Timestamp,
    month: Timestamp,
    end: Timestamp,
}

impl Calendar {
    fn of(now: Timestamp) -> Self {
        let date = now.to_zoned(TimeZone::UTC).date();
        let midnight = |date: jiff::civil::Date| {
            date.to_zoned(TimeZone::UTC).map_or(now, |midnight| midnight.timestamp())
        };
        let month = date.first_of_month();
        Self { today: midnight(date), month: midnight(month), end: midnight(month.saturating_add(1.month())) }
    }

    /// How much of the month went by since then.
    fn share(&self, from: Timestamp, now: Timestamp) -> Decimal {
        let seconds =
            |from: Timestamp, to: Timestamp| Decimal::from(to.duration_since(from).as_secs().max(0));
        seconds(from, now).checked_div(seconds(self.month, self.end)).unwrap_or_default()
    }
}

/// What AWS counts of what is paid for.
struct Used {
    sheet: Sheet,
    requests: Cell,
    invocations: Vec<Cell>,
    /// With the gigabytes that each was for.
    durations: Vec<(Cell, Decimal)>,
    /// Each is a request to KMS.
    unwraps: Cell,
    writes: Vec<Cell>,
    reads: Vec<Cell>,
}

impl Used {
    fn of(stack: &str, api: &str, subscribers: &[&'static str]) -> Self {
        let mut sheet = Sheet::of(stack, HOUR);
        let requests = sheet.ask(Metric::Requests, &[(Dimension::ApiId, api)], Stat::Sum);
        let functions = MEMORY.into_iter().chain(subscribers.iter().map(|name| (*name, SUBSCRIBERS_MEMORY)));
        let (mut invocations, mut durations) = (Vec::new(), Vec::new());
        for (name, memory) in functions {
            let named = sheet.named(name);
            let function = &[(Dimension::FunctionName, named.as_str())];
            invocations.push(sheet.ask(Metric::Invocations, function, Stat::Sum));
            let gigabytes = Decimal::from(memory) / Decimal::from(1024);
            durations.push((sheet.ask(Metric::Duration, function, Stat::Sum), gigabytes));
        }
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        for name in ["events", "shops"].iter().chain(subscribers) {
            let named = sheet.named(name);
            let table = &[(Dimension::TableName, named.as_str())];
            writes.push(sheet.ask(Metric::WriteUnits, table, Stat::Sum));
            reads.push(sheet.ask(Metric::ReadUnits, table, Stat::Sum));
        }
        let unwraps = sheet.ask(Metric::KeyUnwraps, &[], Stat::Sum);
        Self { sheet, requests, invocations, durations, unwraps, writes, reads }
    }

    fn since(&self, from: Timestamp, lines: &[Line]) -> Counted {
        let sum = |cell: &Cell| {
            let line = lines.iter().find(|line| line.id == cell.id())?;
            let since = line.points.iter().filter(|(at, _)| *at >= from);
            // Where there is nothing, AWS has counted nothing yet.
            since
                .map(|(_, value)| Decimal::from_f64(*value))
                .sum::<Option<Decimal>>()
                .filter(|_| !line.points.is_empty())
        };
        let all = |cells: &[Cell]| {
            let known: Vec<_> = cells.iter().filter_map(sum).collect();
            (!known.is_empty()).then(|| known.into_iter().sum::<Decimal>())
        };
        let milliseconds = |(cell, gigabytes): &(Cell, Decimal)| Some(sum(cell)? * gigabytes);
        let durations: Vec<_> = self.durations.iter().filter_map(milliseconds).collect();
        let seconds = |sum: Decimal| sum / Decimal::ONE_THOUSAND;
        Counted {
            api_requests: sum(&self.requests),
            lambda_invocations: all(&self.invocations),
            lambda_gb_seconds: (!durations.is_empty()).then(|| seconds(durations.into_iter().sum())),
            kms_requests: sum(&self.unwraps),
            dynamodb_wru: all(&self.writes),
            dynamodb_rru: all(&self.reads),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(used: &Used, cell: Cell, points: &[(&str, f64)]) -> Line {
        assert!(used.sheet.queries.iter().any(|query| query.id == cell.id()));
        let points = points.iter().map(|(at, value)| (at.parse().unwrap(), *value)).collect();
        Line { id: cell.id(), label: String::new(), points }
    }

    #[test]
    fn a_functions_time_counts_by_its_memory_and_what_has_no_data_is_not_counted() {
        let used = Used::of("kassa-dev", "a1", &["bad-key-auditor"]);
        let lines = [
            line(
                &used,
                used.durations[0].0,
                &[("2026-11-02T10:00:00Z", 4_000.0), ("2026-11-22T10:00:00Z", 8_000.0)],
            ),
            line(&used, used.durations[1].0, &[("2026-11-22T11:00:00Z", 8_000.0)]),
            line(&used, used.requests, &[("2026-11-02T10:00:00Z", 7.0)]),
            line(&used, used.writes[0], &[]),
        ];
        let month = used.since("2026-11-01T00:00:00Z".parse().unwrap(), &lines);
        assert_eq!(month.lambda_gb_seconds, Some(Decimal::from(4)));
        assert_eq!((month.api_requests, month.dynamodb_wru), (Some(Decimal::from(7)), None));
        let today = used.since("2026-11-22T00:00:00Z".parse().unwrap(), &lines);
        assert_eq!(today.lambda_gb_seconds, Some(Decimal::from(3)));
        assert_eq!(today.api_requests, Some(Decimal::ZERO));
    }

    #[test]
    fn a_share_of_the_month_is_of_its_own_length() {
        let now = "2026-11-16T00:00:00Z".parse().unwrap();
        let calendar = Calendar::of(now);
        assert_eq!(calendar.share(calendar.month, now), Decimal::new(5, 1));
        assert_eq!(calendar.share(calendar.today, now), Decimal::ZERO);
    }

    #[test]
    fn functions_have_the_memory_that_their_deployment_gives_them() {
        let pipeline = include_str!("../../pipeline/deploy.yml");
        let functions =
            pipeline.split("\nfunctions:\n").nth(1).unwrap().split("\nresources:").next().unwrap();
        let mut given = Vec::new();
        for line in functions.lines() {
            if let Some(name) = line.strip_prefix("  ").and_then(|line| line.strip_suffix(':')) {
                given.extend((!name.starts_with(' ')).then_some((name, 0)));
            } else if let Some((_, said)) = line.split_once("memorySize: ") {
                given.last_mut().unwrap().1 = said.split_whitespace().next().unwrap().parse().unwrap();
            }
        }
        assert_eq!(given, MEMORY);
        // Subscribers have what deploy.js gives those that say nothing.
        let subscribers = include_str!("../../subscribers/deploy.js");
        assert!(subscribers.contains(&format!("block.memory ?? {SUBSCRIBERS_MEMORY}")));
        assert!(!include_str!("../../subscribers/deploy.yml").contains("\n  memory:"));
    }
}
