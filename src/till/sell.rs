use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use kassa_bus::SaleId;
use rand::Rng;
use serde::Serialize;

use super::answer::Refused;
use super::drain::Sent;
use super::goods::Goods;
use super::journal::JournalError;
use super::outcome::Outcomes;
use super::post::Posted;
use super::{Till, TillError};

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
    /// What became of those that were accepted, as far as the shop was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcomes: Option<Outcomes>,
    /// The last sale that was accepted: something to ask about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sale: Option<SaleId>,
}

/// How selling went, also where it ended before its time.
pub struct Sold {
    pub summary: Summary,
    /// Some of the sales that were accepted.
    pub some: Vec<SaleId>,
    pub ended: Result<(), SellError>,
}

/// Why selling ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum SellError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("nothing was rung up: {0}")]
    NoKey(TillError),
    #[error("a part of the till died, which is a mistake in it ({0}); what was rung up is in the journal")]
    Died(#[from] tokio::task::JoinError),
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
    sample: Mutex<Sample>,
}

/// Some of the accepted sales, each as likely as any other.
#[derive(Default)]
struct Sample {
    of: u64,
    sales: Vec<SaleId>,
    last: Option<SaleId>,
}

/// So many sales are asked about in the end, at most.
const ASKED: usize = 1_000;

impl Sample {
    fn take(&mut self, sale: &SaleId) {
        self.of += 1;
        if self.sales.len() < ASKED {
            self.sales.push(sale.clone());
        } else if let Some(place) =
            usize::try_from(rand::rng().random_range(0..self.of)).ok().and_then(|n| self.sales.get_mut(n))
        {
            *place = sale.clone();
        }
        self.last = Some(sale.clone());
    }
}

/// Sells until the count is reached, and says how it went.
///
/// # Errors
/// [`SellError::Died`].
pub async fn sell(
    till: Arc<Till>,
    goods: Arc<Goods>,
    pace: Pace,
    bar: ProgressBar,
) -> Result<Summary, SellError> {
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
        worker.await?;
    }
    bar.finish_with_message(tally.so_far(begun));
    Ok(tally.summary(begun))
}

/// The n-th sale is due at its own time, however long those before it took.
pub(super) async fn wait_for_turn(begun: Instant, n: u64, rate: Option<f64>) {
    #[expect(clippy::cast_precision_loss, reason = "a schedule, not an amount")]
    let due = rate.and_then(|rate| Duration::try_from_secs_f64(n as f64 / rate).ok());
    // What is due when no clock goes that far is due never, and a slow till has no such many.
    if let Some(due) = due.and_then(|due| begun.checked_add(due)) {
        tokio::time::sleep_until(due.into()).await;
    }
}

async fn one(till: &Till, goods: &Goods) -> Result<(SaleId, Posted), TillError> {
    let sale = till.ring_up(goods.basket(till.format)).await?;
    let posted = till.post(&sale).await?;
    Ok((sale.sale_id, posted))
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            accepted: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            microseconds: Mutex::new(histogram()),
            errors: Mutex::default(),
            sample: Mutex::default(),
        }
    }

    fn take(&self, outcome: Result<(SaleId, Posted), TillError>) {
        match outcome {
            Ok((sale, posted)) => {
                self.retries.fetch_add(posted.retries.into(), Ordering::Relaxed);
                self.accepted(&sale, posted.took);
            }
            Err(error) => self.failed(&error.to_string()),
        }
    }

    pub(super) fn accepted(&self, sale: &SaleId, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
        self.took(sale);
    }

    fn took(&self, sale: &SaleId) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.sample().take(sale);
    }

    fn sample(&self) -> MutexGuard<'_, Sample> {
        self.sample.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sales to ask about.
    pub(super) fn some(&self) -> Vec<SaleId> {
        self.sample().sales.clone()
    }

    pub(super) fn refused(&self, Refused { status, detail }: &Refused) {
        self.failed(&format!("the shop refused the sale: {status} {detail}"));
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

    /// Some of those that waited were answered for good.
    pub(super) fn drained(&self, sent: &Sent) {
        sent.accepted.iter().for_each(|sale| self.took(sale));
        sent.refused.iter().for_each(|refused| self.refused(refused));
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
            outcomes: None,
            last_sale: self.sample().last.clone(),
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
