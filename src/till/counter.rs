use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::Till;
use super::answer::Answered;
use super::drain::{Drain, Step, settle};
use super::goods::Goods;
use super::journal::{Journal, JournalError};
use super::sell::{Pace, SellError, Sold, Summary, Tally, wait_for_turn};

/// A till as it stands in a shop: what it sells is in its journal before the shop hears of it, and it sells on whether
/// the shop answers or not.
pub struct Counter {
    pub till: Till,
    pub journal: Journal,
    /// Sales a second, at most, that are sent of those that waited.
    pub drain_rate: f64,
    /// Sales are only written down, and what waits is sent in order, until nothing does.
    behind: AtomicBool,
    /// Nothing more is rung up.
    rung_up: AtomicBool,
}

impl Counter {
    #[must_use]
    pub fn new(till: Till, journal: Journal, drain_rate: f64) -> Self {
        till.count_on(journal.next_seq());
        let behind = AtomicBool::new(journal.waiting() > 0);
        Self { till, journal, drain_rate, behind, rung_up: AtomicBool::new(false) }
    }

    /// Rings up the sales and sends them, and says how it went. What the shop has not answered by the end, and for as long as the
    /// till has patience, stays in the journal.
    ///
    /// # Errors
    /// [`SellError::NoKey`].
    pub async fn sell(
        self: &Arc<Self>,
        goods: Arc<Goods>,
        pace: Pace,
        bar: ProgressBar,
    ) -> Result<Sold, SellError> {
        // A till that was never online can seal nothing.
        self.till.ready().await.map_err(SellError::NoKey)?;
        let (begun, tally) = (Instant::now(), Arc::new(Tally::new()));
        bar.set_length(pace.count);
        let next = Arc::new(AtomicU64::new(0));
        let draining = tokio::spawn(Arc::clone(self).drain(Arc::clone(&tally), bar.clone()));
        let workers: Vec<_> = (0..pace.concurrency.max(1))
            .map(|_| {
                let (counter, goods, tally, next, bar) =
                    (Arc::clone(self), goods.clone(), tally.clone(), next.clone(), bar.clone());
                tokio::spawn(async move {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= pace.count {
                            return Ok::<_, JournalError>(());
                        }
                        wait_for_turn(begun, n, pace.rate).await;
                        counter.one(&goods, &tally, &bar).await?;
                    }
                })
            })
            .collect();
        let mut outcome = Ok(());
        for worker in workers {
            let ended = worker.await.map_err(SellError::from).and_then(|sold| Ok(sold?));
            outcome = outcome.and(ended);
        }
        self.rung_up.store(true, Ordering::SeqCst);
        let drained = draining.await.map_err(SellError::from).and_then(|drained| Ok(drained?));
        bar.finish_with_message(tally.so_far(begun));
        Ok(Sold {
            summary: Summary { waiting: self.journal.waiting(), ..tally.summary(begun) },
            some: tally.some(),
            ended: outcome.and(drained),
        })
    }

    /// Rings one sale up, and posts it at once unless others wait before it.
    async fn one(&self, goods: &Goods, tally: &Tally, bar: &ProgressBar) -> Result<(), JournalError> {
        let sale = match self.till.ring_up(goods.basket(self.till.format)).await {
            Ok(sale) => sale,
            Err(error) => {
                tally.failed(&error.to_string());
                return Ok(());
            }
        };
        self.journal.ring_up(&sale).await?;
        if self.behind.load(Ordering::SeqCst) {
            return Ok(());
        }
        let begun = Instant::now();
        match self.till.post_once(&sale).await {
            Ok(answered) => {
                let took = begun.elapsed();
                // It may have been sent with those that waited, meanwhile.
                if settle(&self.journal, &sale.sale_id, &answered).await? {
                    match answered {
                        Answered::Accepted => tally.accepted(&sale.sale_id, took),
                        Answered::Refused(refused) => tally.refused(&refused),
                        Answered::Later => {}
                    }
                    bar.inc(1);
                }
            }
            Err(away) => {
                (self.till.told)(&away);
                tally.went_away(&away.why);
                self.behind.store(true, Ordering::SeqCst);
            }
        }
        Ok(())
    }

    /// Sends what waits whenever something does, until all is rung up and nothing waits, or patience is over.
    async fn drain(self: Arc<Self>, tally: Arc<Tally>, bar: ProgressBar) -> Result<(), JournalError> {
        let drain = Drain { till: &self.till, journal: &self.journal, rate: self.drain_rate };
        let (mut last, mut not_before, mut over) = (Instant::now(), Instant::now(), false);
        loop {
            if !over && self.rung_up.load(Ordering::SeqCst) {
                (over, last) = (true, Instant::now());
                self.behind.store(true, Ordering::SeqCst);
            }
            if !self.behind.load(Ordering::SeqCst) {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let wait = not_before.saturating_duration_since(Instant::now());
            if over && last.elapsed() + wait > self.till.patience {
                return Ok(());
            }
            if !wait.is_zero() {
                tokio::time::sleep(wait.min(AGAIN)).await;
                continue;
            }
            match drain.step().await? {
                Step::Empty if over => return Ok(()),
                Step::Empty => {
                    self.behind.store(false, Ordering::SeqCst);
                    // Whoever rang up in between may have left it to us.
                    self.behind.store(self.journal.waiting() > 0, Ordering::SeqCst);
                }
                Step::Sent(sent) => {
                    last = Instant::now();
                    tally.drained(&sent);
                    bar.inc(sent.count() as u64);
                }
                Step::Away(away) => {
                    (self.till.told)(&away);
                    tally.went_away(&away.why);
                    not_before = Instant::now() + away.at_least.max(AGAIN);
                }
            }
        }
    }
}

/// How often it is looked whether something waits.
const LOOK: Duration = Duration::from_millis(20);

/// How long a shop that does not answer is left alone.
const AGAIN: Duration = Duration::from_millis(500);
