use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::Till;
use super::drain::{Answered, Drain, Step, settle};
use super::journal::{Journal, JournalError};
use super::sell::{Goods, Pace, Summary, Tally, wait_for_turn};

/// A till as it stands in a shop: what it sells is in its journal before the shop hears of it, and it sells on whether
/// the shop answers or not.
pub struct Counter {
    pub till: Till,
    pub journal: Journal,
    /// Sales a second, at most, that are sent of those that waited.
    pub drain_rate: f64,
    /// Sales are only written down, and what waits is sent in order, until nothing does.
    behind: AtomicBool,
}

impl Counter {
    #[must_use]
    pub fn new(till: Till, journal: Journal, drain_rate: f64) -> Self {
        till.count_on(journal.next_seq());
        let behind = AtomicBool::new(journal.waiting() > 0);
        Self { till, journal, drain_rate, behind }
    }

    /// Rings up the sales and sends them, and says how it went. What the shop has not answered by the end, and for as long
    /// as the till has patience, stays in the journal.
    ///
    /// # Errors
    /// [`JournalError`]; what was rung up by then stays in the journal.
    pub async fn sell(
        self: &Arc<Self>,
        goods: Arc<Goods>,
        pace: Pace,
        bar: ProgressBar,
    ) -> Result<Summary, JournalError> {
        let (begun, tally) = (Instant::now(), Arc::new(Tally::new()));
        bar.set_length(pace.count);
        let (next, rung_up) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let draining =
            tokio::spawn(Arc::clone(self).drain(Arc::clone(&rung_up), Arc::clone(&tally), bar.clone()));
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
            outcome = outcome.and(worker.await.unwrap_or(Ok(())));
        }
        rung_up.store(true, Ordering::SeqCst);
        outcome = outcome.and(draining.await.unwrap_or(Ok(())));
        bar.finish_with_message(tally.so_far(begun));
        outcome?;
        Ok(Summary { waiting: self.journal.waiting() as u64, ..tally.summary(begun) })
    }

    /// Rings one sale up, and posts it at once unless others wait before it.
    async fn one(&self, goods: &Goods, tally: &Tally, bar: &ProgressBar) -> Result<(), JournalError> {
        self.journal.reserve().await?;
        let sale = match self.till.ring_up(&goods.lines(self.till.format)).await {
            Ok(sale) => sale,
            Err(error) => {
                tally.failed(&error.to_string());
                return Ok(());
            }
        };
        self.journal.ring_up(sale.seq, &sale).await?;
        if self.behind.load(Ordering::SeqCst) {
            return Ok(());
        }
        let begun = Instant::now();
        match self.till.post_once(&sale).await {
            Ok(answered) => {
                let took = begun.elapsed();
                // It may have been sent with those that waited, meanwhile.
                if settle(&self.journal, &sale.sale_id, answered.clone()).await? {
                    tally.answered(sale.sale_id.as_str(), &answered, took);
                    bar.inc(1);
                }
            }
            Err(away) => {
                tally.went_away(&away.why);
                self.behind.store(true, Ordering::SeqCst);
            }
        }
        Ok(())
    }

    /// Sends what waits whenever something does, until all is rung up and nothing waits, or patience is over.
    async fn drain(
        self: Arc<Self>,
        rung_up: Arc<AtomicBool>,
        tally: Arc<Tally>,
        bar: ProgressBar,
    ) -> Result<(), JournalError> {
        let drain = Drain { till: &self.till, journal: &self.journal, rate: self.drain_rate };
        let (mut last, mut over) = (Instant::now(), false);
        loop {
            over |= rung_up.load(Ordering::SeqCst);
            if over {
                self.behind.store(true, Ordering::SeqCst);
            }
            if !self.behind.load(Ordering::SeqCst) {
                last = Instant::now();
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let refused = self.journal.refusals();
            match drain.step().await? {
                Step::Empty if over => return Ok(()),
                Step::Empty => {
                    self.behind.store(false, Ordering::SeqCst);
                    // Whoever rang up in between may have left it to us.
                    self.behind.store(self.journal.waiting() > 0, Ordering::SeqCst);
                }
                Step::Sent(count) => {
                    last = Instant::now();
                    tally.drained(count, &self.journal.refused_after(refused));
                    bar.inc(count);
                }
                Step::Away(away) => {
                    tally.went_away(&away.why);
                    if over && last.elapsed() >= self.till.patience {
                        return Ok(());
                    }
                    tokio::time::sleep(away.at_least.max(AGAIN)).await;
                }
            }
        }
    }
}

/// How often it is looked whether something waits.
const LOOK: Duration = Duration::from_millis(20);

/// How long a shop that does not answer is left alone.
const AGAIN: Duration = Duration::from_millis(500);

impl Tally {
    fn answered(&self, sale: &str, answered: &Answered, took: Duration) {
        match answered {
            Answered::Accepted => self.accepted(sale, took),
            Answered::Refused { status, detail } => {
                self.failed(&format!("the shop refused the sale: {status} {detail}"));
            }
            Answered::Later => {}
        }
    }
}
