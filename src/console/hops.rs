use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kassa_bus::error::chain;
use kassa_bus::metrics::Namespace;
use kassa_bus::{Dimension, Metric};
use kassa_pipeline::accept::Accept;
use kassa_pipeline::decrypt::Decrypt;
use kassa_pipeline::process::Process;
use kassa_pipeline::project::Project;
use maud::{Markup, html};

use super::text::{count, measured, rough, took};
use super::{Sight, page};
use crate::monitor::{Line, MetricId, Monitor, Query, Stat, What};

/// What the hops did lately, or why that is not known.
pub(super) type Found = Result<Vec<Hop>, String>;

/// How far back is looked.
const WINDOW: SignedDuration = SignedDuration::from_mins(15);

/// One function's last minutes. What nothing was said of is not there.
pub(super) struct Hop {
    name: &'static str,
    what: &'static str,
    handled: Option<f64>,
    /// In milliseconds: of the middle minute, and of the worst.
    p50: Option<f64>,
    p99: Option<f64>,
    failed: Option<f64>,
    waiting: Option<f64>,
    /// In seconds.
    oldest: Option<f64>,
}

/// The core's functions, and what each is for.
const CORE: [(&str, &str); 4] = [
    (Accept::NAME, "takes envelopes"),
    (Decrypt::NAME, "opens them"),
    (Process::NAME, "records sales"),
    (Project::NAME, "adds them up"),
];

/// What of a hop a query asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Figure {
    Handled,
    P50,
    P99,
    Failed,
    Waiting,
    Oldest,
}

fn figures(name: &str) -> Vec<(Figure, Metric, Option<Dimension>, Stat)> {
    use Dimension::{ApiId, Function, FunctionName, QueueName};
    use Figure::{Failed, Handled, Oldest, P50, P99, Waiting};
    if name == Accept::NAME {
        return vec![
            (Handled, Metric::Requests, Some(ApiId), Stat::Sum),
            (P50, Metric::AnswerLatency, Some(ApiId), Stat::Percentile(50.0)),
            (P99, Metric::AnswerLatency, Some(ApiId), Stat::Percentile(99.0)),
            (Failed, Metric::ServerErrors, Some(ApiId), Stat::Sum),
        ];
    }
    // The projection lives on a stream, which has an age and no length, and no till waits for it.
    if name == Project::NAME {
        return vec![
            (Handled, Metric::Projected, None, Stat::Sum),
            (P50, Metric::ProjectionLag, None, Stat::Percentile(50.0)),
            (P99, Metric::ProjectionLag, None, Stat::Percentile(99.0)),
            (Failed, Metric::Failed, Some(Function), Stat::Sum),
            (Oldest, Metric::IteratorAge, Some(FunctionName), Stat::Maximum),
        ];
    }
    vec![
        (Handled, Metric::HopLatency, Some(Function), Stat::SampleCount),
        (P50, Metric::HopLatency, Some(Function), Stat::Percentile(50.0)),
        (P99, Metric::HopLatency, Some(Function), Stat::Percentile(99.0)),
        (Failed, Metric::Failed, Some(Function), Stat::Sum),
        (Waiting, Metric::QueueDepth, Some(QueueName), Stat::Maximum),
        (Oldest, Metric::OldestMessage, Some(QueueName), Stat::Maximum),
    ]
}

fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    CORE.into_iter().chain(kassa_subscribers::all().into_iter().map(|entry| (entry.name, "")))
}

fn queries(monitor: &dyn Monitor) -> Vec<Query> {
    let mut queries = Vec::new();
    for (n, (name, _)) in names().enumerate() {
        for (figure, metric, dimension, stat) in figures(name) {
            let value = |dimension| match dimension {
                Dimension::ApiId => monitor.api().to_owned(),
                Dimension::Function => name.to_owned(),
                _ => format!("{}-{name}", monitor.stack()),
            };
            let namespace = match metric.namespace() {
                Namespace::Kassa => monitor.stack().to_owned(),
                Namespace::Aws(namespace) => namespace.to_owned(),
            };
            let labelled = |dimension: Dimension| (dimension.name().to_owned(), value(dimension));
            let dimensions = dimension.map(labelled).into_iter().collect();
            let metric = MetricId { namespace, name: metric.name().to_owned(), dimensions };
            let what = What::Metric(metric, stat);
            queries.push(Query { id: id(n, figure), what, label: None, period: 60, shown: true });
        }
    }
    queries
}

fn id(hop: usize, figure: Figure) -> String {
    format!("hop{hop}_{figure:?}").to_lowercase()
}

/// Asks for the last minutes of every hop.
pub(super) async fn look(sight: &Sight) -> Found {
    let now = sight.clock.now();
    let lines = sight.monitor.data(&queries(&*sight.monitor), now - WINDOW, now).await;
    let lines = lines.map_err(|error| chain(&error))?;
    let lines: BTreeMap<&str, &Line> = lines.iter().map(|line| (line.id.as_str(), line)).collect();
    let hops = names().enumerate().map(|(n, (name, what))| {
        let points = |figure| lines.get(id(n, figure).as_str()).map_or(&[][..], |line| &line.points);
        let sum = |figure| points(figure).iter().map(|(_, value)| *value).reduce(|sum, more| sum + more);
        let most = |figure| points(figure).iter().map(|(_, value)| *value).reduce(f64::max);
        // Of a queue only what is there now counts.
        let last =
            |figure| points(figure).last().filter(|(at, _)| is_recent(now, *at)).map(|(_, value)| *value);
        let milliseconds = if name == Project::NAME { 1_000.0 } else { 1.0 };
        Hop {
            name,
            what,
            handled: sum(Figure::Handled),
            p50: middle(points(Figure::P50)),
            p99: most(Figure::P99),
            // Where something was handled and nothing is said of failures, there were none.
            failed: sum(Figure::Failed).or(sum(Figure::Handled).map(|_| 0.0)),
            waiting: last(Figure::Waiting),
            oldest: last(Figure::Oldest).map(|age| age / milliseconds),
        }
    });
    Ok(hops.collect())
}

fn middle(points: &[(Timestamp, f64)]) -> Option<f64> {
    let mut values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn is_recent(now: Timestamp, at: Timestamp) -> bool {
    now.duration_since(at) <= SignedDuration::from_mins(3)
}

/// The hops as a table.
pub(super) fn table(found: &Found) -> Markup {
    let hops = match found {
        Ok(hops) => hops,
        Err(why) => return page::unavailable("What each step does", why),
    };
    html! {
        table.hops {
            caption.unseen { "What each step did in the last 15 minutes" }
            thead { tr {
                th scope="col" { "Step" }
                th.number scope="col" { "Handled" }
                th.number.wide scope="col" { "p50" }
                th.number scope="col" { "p99" }
                th.number scope="col" { "Failed" }
                th.number scope="col" { "Waiting" }
                th.number.wide scope="col" { "Oldest" }
            } }
            tbody { @for hop in hops { (row(hop)) } }
        }
    }
}

fn row(hop: &Hop) -> Markup {
    let whole = |value: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let whole = value.max(0.0).round() as u64;
        count(whole)
    };
    let millis = |value: f64| took(SignedDuration::from_secs_f64((value / 1_000.0).clamp(0.0, 1e9)));
    let failed = hop.failed.is_some_and(|failed| failed > 0.0);
    html! {
        tr data-key=(hop.name) {
            th scope="row" { (hop.name) @if !hop.what.is_empty() { span.aside { (hop.what) } } }
            (cell("number", hop.handled.map(whole)))
            (cell("number wide", hop.p50.map(millis)))
            (cell("number", hop.p99.map(millis)))
            (cell(if failed { "number bad" } else { "number" }, hop.failed.map(whole)))
            (cell("number", hop.waiting.map(measured)))
            (cell("number wide", hop.oldest.map(|age| rough(SignedDuration::from_secs_f64(age.clamp(0.0, 1e9))))))
        }
    }
}

fn cell(class: &str, value: Option<String>) -> Markup {
    html! { td class=(class) { @match value {
        Some(value) => (value),
        None => { span.none aria-label="nothing" { "–" } },
    } } }
}
