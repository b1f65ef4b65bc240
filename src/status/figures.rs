use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp, ToSpan};
use kassa_bus::metrics::Namespace;
use kassa_bus::{Dimension, Metric};

use super::{Hop, Queue};
use crate::monitor::{Line, MetricId, Query, Stat, What};

const MINUTE: i64 = 60;
const FIVE: u32 = 300;

/// Minutes of which hops are told.
pub(super) const WINDOW: i64 = 5;

/// Minutes of which the sales are told.
const HOUR: i64 = 60;

/// How old a number may be that says how much there is of something. `CloudWatch` has those of queues minutes late.
const CURRENT: SignedDuration = SignedDuration::from_mins(15);

/// What is asked of a monitor at once, and where in the answer each number will be.
pub(super) struct Figures {
    sheet: Sheet,
    hops: Vec<HopCells>,
    subscribers: Vec<HopCells>,
    pending: Cell,
    pending_age: Cell,
    recorded: Cell,
    recorded_in_five: Cell,
}

/// A query's place on the sheet.
#[derive(Clone, Copy)]
pub(super) struct Cell(usize);

impl Cell {
    /// What the query and its answer are called.
    pub(super) fn id(self) -> String {
        format!("q{}", self.0)
    }
}

struct HopCells {
    name: String,
    handled: Cell,
    failed: Vec<Cell>,
    /// In the metric's unit, which is milliseconds for all of them.
    p50: Cell,
    p99: Cell,
    queue: Option<QueueCells>,
}

struct QueueCells {
    waiting: Option<Cell>,
    oldest: Cell,
    /// What makes seconds of the oldest.
    to_seconds: f64,
    dead_letters: Cell,
}

/// Queries of one stack.
pub(super) struct Sheet {
    stack: String,
    /// In seconds.
    period: u32,
    pub(super) queries: Vec<Query>,
}

impl Sheet {
    pub(super) fn of(stack: &str, period: u32) -> Self {
        Self { stack: stack.to_owned(), period, queries: Vec::new() }
    }

    pub(super) fn ask(&mut self, metric: Metric, labels: &[(Dimension, &str)], stat: Stat) -> Cell {
        self.ask_each(self.period, metric, labels, stat)
    }

    fn ask_each(&mut self, period: u32, metric: Metric, labels: &[(Dimension, &str)], stat: Stat) -> Cell {
        let namespace = match metric.namespace() {
            Namespace::Kassa => self.stack.clone(),
            Namespace::Aws(namespace) => namespace.to_owned(),
        };
        let dimensions: BTreeMap<_, _> = labels
            .iter()
            .map(|(dimension, value)| (dimension.name().to_owned(), (*value).to_owned()))
            .collect();
        let id = MetricId { namespace, name: metric.name().to_owned(), dimensions };
        let cell = Cell(self.queries.len());
        let what = What::Metric(id, stat);
        self.queries.push(Query { id: cell.id(), what, label: None, period, shown: true });
        cell
    }

    /// What AWS calls a function or a queue of ours.
    pub(super) fn named(&self, name: &str) -> String {
        format!("{}-{name}", self.stack)
    }

    fn accept(&mut self, api: &str) -> HopCells {
        let api = &[(Dimension::ApiId, api)];
        HopCells {
            name: "accept".to_owned(),
            handled: self.ask(Metric::Requests, api, Stat::Sum),
            failed: vec![self.ask(Metric::ServerErrors, api, Stat::Sum)],
            p50: self.ask(Metric::AnswerLatency, api, Stat::Percentile(50.0)),
            p99: self.ask(Metric::AnswerLatency, api, Stat::Percentile(99.0)),
            queue: None,
        }
    }

    fn failures(&mut self, name: &str) -> Vec<Cell> {
        let function = self.named(name);
        vec![
            self.ask(Metric::Failed, &[(Dimension::Function, name)], Stat::Sum),
            self.ask(Metric::Errors, &[(Dimension::FunctionName, &function)], Stat::Sum),
        ]
    }

    fn depth(&mut self, queue: &str) -> Cell {
        let queue = self.named(queue);
        self.ask(Metric::QueueDepth, &[(Dimension::QueueName, &queue)], Stat::Maximum)
    }

    /// A function behind a queue.
    fn queued(&mut self, name: &str) -> HopCells {
        let function = &[(Dimension::Function, name)];
        let queue = self.named(name);
        HopCells {
            name: name.to_owned(),
            handled: self.ask(Metric::HopLatency, function, Stat::SampleCount),
            failed: self.failures(name),
            p50: self.ask(Metric::HopLatency, function, Stat::Percentile(50.0)),
            p99: self.ask(Metric::HopLatency, function, Stat::Percentile(99.0)),
            queue: Some(QueueCells {
                waiting: Some(self.depth(name)),
                oldest: self.ask(Metric::OldestMessage, &[(Dimension::QueueName, &queue)], Stat::Maximum),
                to_seconds: 1.0,
                dead_letters: self.depth(&format!("{name}-dead-letters")),
            }),
        }
    }

    /// project, which reads the stream, and whose dead letters are called otherwise.
    fn project(&mut self) -> HopCells {
        let name = "project";
        let function = self.named(name);
        HopCells {
            name: name.to_owned(),
            handled: self.ask(Metric::Projected, &[], Stat::Sum),
            failed: self.failures(name),
            p50: self.ask(Metric::ProjectionLag, &[], Stat::Percentile(50.0)),
            p99: self.ask(Metric::ProjectionLag, &[], Stat::Percentile(99.0)),
            queue: Some(QueueCells {
                waiting: None,
                oldest: self.ask(Metric::IteratorAge, &[(Dimension::FunctionName, &function)], Stat::Maximum),
                to_seconds: 0.001,
                dead_letters: self.depth("project-failures"),
            }),
        }
    }
}

impl Figures {
    /// Those of a stack, of its API, and of these subscribers.
    pub(super) fn of(stack: &str, api: &str, subscribers: &[&str]) -> Self {
        let mut sheet = Sheet::of(stack, 60);
        let hops = vec![sheet.accept(api), sheet.queued("decrypt"), sheet.queued("process"), sheet.project()];
        Self {
            hops,
            subscribers: subscribers.iter().map(|name| sheet.queued(name)).collect(),
            pending: sheet.ask(Metric::Pending, &[], Stat::Maximum),
            pending_age: sheet.ask(Metric::PendingAge, &[], Stat::Maximum),
            recorded: sheet.ask(Metric::Recorded, &[], Stat::Sum),
            recorded_in_five: sheet.ask_each(FIVE, Metric::Recorded, &[], Stat::Sum),
            sheet,
        }
    }

    pub(super) fn queries(&self) -> &[Query] {
        &self.sheet.queries
    }

    /// Which minutes to ask for: the last hour's, up to the minute that is told last.
    pub(super) fn range(now: Timestamp, told_until: Timestamp) -> (Timestamp, Timestamp) {
        (whole_minute(told_until) - (HOUR - 1).minutes(), now)
    }
}

/// The minute a time is in.
pub(super) fn whole_minute(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second().div_euclid(MINUTE) * MINUTE).unwrap_or(at)
}

/// What was answered.
pub(super) struct Answers<'a> {
    figures: &'a Figures,
    lines: HashMap<usize, Line>,
    now: Timestamp,
    /// The beginning of the last minute that is told. Those after it are not complete yet.
    last: Timestamp,
}

impl<'a> Answers<'a> {
    pub(super) fn new(figures: &'a Figures, lines: Vec<Line>, now: Timestamp, told_until: Timestamp) -> Self {
        let place = |line: &Line| line.id.strip_prefix('q')?.parse().ok();
        let lines = lines.into_iter().filter_map(|line| Some((place(&line)?, line))).collect();
        Self { figures, lines, now, last: whole_minute(told_until) }
    }

    pub(super) fn hops(&self) -> Vec<Hop> {
        self.figures.hops.iter().map(|cells| self.hop(cells)).collect()
    }

    pub(super) fn subscribers(&self) -> Vec<Hop> {
        self.figures.subscribers.iter().map(|cells| self.hop(cells)).collect()
    }

    pub(super) fn pending(&self) -> Option<f64> {
        self.current(self.figures.pending)
    }

    pub(super) fn pending_seconds(&self) -> Option<f64> {
        self.current(self.figures.pending_age)
    }

    /// Of a shop that was opened again, minutes before that are known by fives only: they share what those say.
    pub(super) fn recorded(&self) -> Vec<f64> {
        let minute = |at: Timestamp| (at.as_second() - self.last.as_second()).div_euclid(MINUTE);
        let told = 1 - HOUR..=0;
        let points = self.points(self.figures.recorded);
        let mut minutes: BTreeMap<i64, f64> =
            points.iter().map(|(at, value)| (minute(*at), *value)).collect();
        for (at, sum) in self.points(self.figures.recorded_in_five) {
            let five = minute(*at)..minute(*at) + i64::from(FIVE) / MINUTE;
            let known: f64 = minutes.range(five.clone()).map(|(_, value)| value).sum();
            let unknown: Vec<i64> =
                five.filter(|minute| told.contains(minute) && !minutes.contains_key(minute)).collect();
            #[expect(clippy::cast_precision_loss, reason = "five at most")]
            let each = (sum - known).max(0.0) / unknown.len() as f64;
            minutes.extend(unknown.into_iter().map(|minute| (minute, each)));
        }
        told.map(|minute| minutes.get(&minute).copied().unwrap_or(0.0)).collect()
    }

    fn points(&self, cell: Cell) -> &[(Timestamp, f64)] {
        self.lines.get(&cell.0).map(|line| line.points.as_slice()).unwrap_or_default()
    }

    /// The last minutes' values.
    fn window(&self, cell: Cell) -> Vec<f64> {
        let from = self.last - (WINDOW - 1).minutes();
        let within = |(at, _): &&(Timestamp, f64)| (from..=self.last).contains(at);
        self.points(cell).iter().filter(within).map(|(_, value)| *value).collect()
    }

    fn sum(&self, cell: Cell) -> f64 {
        self.window(cell).iter().sum()
    }

    fn current(&self, cell: Cell) -> Option<f64> {
        let (at, value) = self.points(cell).last()?;
        (self.now.duration_since(*at) <= CURRENT).then_some(*value)
    }

    /// How many minutes the window has, of which the last may not be over.
    fn minutes(&self) -> f64 {
        let end = self.now.min(self.last + 1.minute());
        end.duration_since(self.last - (WINDOW - 1).minutes()).as_secs_f64() / 60.0
    }

    fn hop(&self, cells: &HopCells) -> Hop {
        let minutes = self.minutes();
        let sorted = |cell| {
            let mut values = self.window(cell);
            values.sort_by(f64::total_cmp);
            values
        };
        let medians = sorted(cells.p50);
        Hop {
            name: cells.name.clone(),
            per_minute: self.sum(cells.handled) / minutes,
            failed: cells.failed.iter().map(|cell| self.sum(*cell)).sum(),
            p50: medians.get(medians.len() / 2).copied(),
            p99: sorted(cells.p99).last().copied(),
            queue: cells.queue.as_ref().map(|queue| Queue {
                waiting: queue.waiting.and_then(|cell| self.current(cell)),
                oldest_seconds: self.current(queue.oldest).map(|age| age * queue.to_seconds),
                dead_letters: self.current(queue.dead_letters),
            }),
        }
    }
}
