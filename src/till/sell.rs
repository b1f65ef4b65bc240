use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use kassa_bus::Line;
use kassa_bus::amount::{Amount, Total};
use kassa_pipeline::content;
use kassa_pipeline::read_model::DeclaredItem;
use rand::Rng;
use rand::seq::IndexedRandom;
use serde::Serialize;

use super::journal::Refusal;
use super::{Format, Till, TillError};

/// What to sell.
pub enum Goods {
    /// This sale, each time.
    Lines(Vec<Line>),
    /// Random lines of these items.
    Random(Vec<DeclaredItem>),
}

/// How to sell it.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub count: u64,
    /// Sales a second, at most.
    pub rate: Option<f64>,
    pub concurrency: usize,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub accepted: u64,
    /// Refused by the shop or given up.
    pub failed: u64,
    pub retries: u64,
    pub seconds: f64,
    pub per_second: f64,
    /// From the first try to the yes, in milliseconds.
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// The first few reasons of failure.
    pub errors: Vec<String>,
    /// Rung up, and not answered yet: they are in the till's journal.
    #[serde(default)]
    pub waiting: u64,
    /// The last sale that was accepted: something to ask about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sale: Option<String>,
}

/// Reads a sale from a file: the content as formats have it, `{"sales":[…]}`.
///
/// # Errors
/// What is wrong with the file, in words.
pub fn read_sale(file: &Path) -> Result<Vec<Line>, String> {
    let json = std::fs::read(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    let content = content::parse(&json).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(content.lines)
}

impl Goods {
    /// Most sales are of a few items, one in fifty is a refund. A classic sale has room for one line.
    pub(super) fn lines(&self, format: Format) -> Vec<Line> {
        let items = match self {
            Self::Lines(lines) => return lines.clone(),
            Self::Random(items) => items,
        };
        let mut random = rand::rng();
        let lines = if format == Format::Classic { 1 } else { random.random_range(1..=5) };
        let sign = if random.random_ratio(1, 50) { -1 } else { 1 };
        let chosen = items.choose_multiple(&mut random, lines).collect::<Vec<_>>();
        chosen
            .into_iter()
            .map(|item| {
                let pieces: i64 = sign * random.random_range(1..=4);
                let price = (0..pieces.abs()).map(|_| item.price).sum::<Total>();
                // Four of what a till may send are far from being more than an amount can be.
                let price = price.amount().unwrap_or(item.price);
                let gross_turnover = if sign < 0 { -price } else { price };
                Line { item_no: item.item_no, gross_number: Amount::from(pieces), gross_turnover }
            })
            .collect()
    }
}

/// A microsecond to an hour, to three digits.
#[expect(clippy::expect_used, reason = "constants, and in range")]
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("bounds in range")
}

pub(super) struct Tally {
    accepted: AtomicU64,
    failed: AtomicU64,
    retries: AtomicU64,
    microseconds: Mutex<Histogram<u64>>,
    errors: Mutex<Vec<String>>,
    last: Mutex<Option<String>>,
}

/// Sells until the count is reached, and says how it went.
pub async fn sell(till: Arc<Till>, goods: Arc<Goods>, pace: Pace, bar: ProgressBar) -> Summary {
    let begun = Instant::now();
    let tally = Arc::new(Tally::new());
    bar.set_length(pace.count);
    let next = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..pace.concurrency.max(1))
        .map(|_| {
            let (till, goods, tally, next, bar) =
                (till.clone(), goods.clone(), tally.clone(), next.clone(), bar.clone());
            tokio::spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= pace.count {
                        return;
                    }
                    wait_for_turn(begun, n, pace.rate).await;
                    tally.take(one(&till, &goods).await);
                    if n.is_multiple_of(64) {
                        bar.set_message(tally.so_far(begun));
                    }
                    bar.inc(1);
                }
            })
        })
        .collect();
    for worker in workers {
        let _ = worker.await;
    }
    bar.finish_with_message(tally.so_far(begun));
    tally.summary(begun)
}

/// The n-th sale is due at its own time, however long those before it took.
pub(super) async fn wait_for_turn(begun: Instant, n: u64, rate: Option<f64>) {
    #[expect(clippy::cast_precision_loss, reason = "a schedule, not an amount")]
    if let Some(rate) = rate {
        tokio::time::sleep_until((begun + Duration::from_secs_f64(n as f64 / rate)).into()).await;
    }
}

async fn one(till: &Till, goods: &Goods) -> Result<(String, super::Posted), TillError> {
    let sale = till.ring_up(&goods.lines(till.format)).await?;
    let posted = till.post(&sale).await?;
    Ok((sale.sale_id.to_string(), posted))
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            accepted: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            microseconds: Mutex::new(histogram()),
            errors: Mutex::default(),
            last: Mutex::default(),
        }
    }

    fn take(&self, outcome: Result<(String, super::Posted), TillError>) {
        match outcome {
            Ok((sale, posted)) => {
                self.retries.fetch_add(posted.retries.into(), Ordering::Relaxed);
                self.accepted(&sale, posted.took);
            }
            Err(error) => self.failed(&error.to_string()),
        }
    }

    pub(super) fn accepted(&self, sale: &str, took: Duration) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(sale.to_owned());
    }

    pub(super) fn failed(&self, why: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.note(why);
    }

    /// The shop did not answer, and is tried again.
    pub(super) fn went_away(&self, why: &str) {
        self.retries.fetch_add(1, Ordering::Relaxed);
        self.note(why);
    }

    /// So many of those that waited were answered for good, some of them with no.
    pub(super) fn drained(&self, count: u64, refused: &[Refusal]) {
        self.accepted.fetch_add(count - (refused.len() as u64).min(count), Ordering::Relaxed);
        for Refusal { status, detail, .. } in refused {
            self.failed(&format!("the shop refused the sale: {status} {detail}"));
        }
    }

    fn note(&self, why: &str) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.len() < 5 && !errors.iter().any(|error| error == why) {
            errors.push(why.to_owned());
        }
    }

    pub(super) fn so_far(&self, begun: Instant) -> String {
        let Summary { per_second, p50_ms, p99_ms, .. } = self.summary(begun);
        format!("{per_second:.0}/s  p50 {p50_ms:.1} ms  p99 {p99_ms:.1} ms")
    }

    #[expect(clippy::cast_precision_loss, reason = "for people to read")]
    pub(super) fn summary(&self, begun: Instant) -> Summary {
        let seconds = begun.elapsed().as_secs_f64();
        let accepted = self.accepted.load(Ordering::Relaxed);
        let micros = self.microseconds.lock().unwrap_or_else(PoisonError::into_inner);
        Summary {
            accepted,
            failed: self.failed.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            seconds,
            per_second: accepted as f64 / seconds,
            waiting: 0,
            p50_ms: micros.value_at_quantile(0.5) as f64 / 1000.0,
            p99_ms: micros.value_at_quantile(0.99) as f64 / 1000.0,
            errors: self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            last_sale: self.last.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// A bar for one till; draws nothing where stderr is no terminal.
#[must_use]
pub fn progress_bar(name: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>16} {bar:30.green} {pos:>7}/{len:7} {msg}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style).with_prefix(name.to_owned())
}
