use std::collections::VecDeque;
use std::time::Duration;

use kassa_bus::{Failure, Metric, Metrics, Verdict};
use rand::Rng;
use tokio::time::{Instant, sleep};

use super::answer::Meaning;
use super::delivery::Delivery;
use super::post::{Letter, Post};
use super::state::{End, Outcome};

/// What a blip is waited for, at most, before the second attempt; twice that before the third.
const BACKOFF: Duration = Duration::from_millis(250);

/// No attempt begins later than this after its batch came. With an attempt's ten seconds it fits into what a
/// function has left for its last batch, and the queue does not hand out the batch again meanwhile.
const LONGEST: Duration = Duration::from_secs(5);

/// Brings a batch's deliveries one after the other.
pub struct Courier {
    pub post: Post,
    pub metrics: Metrics,
}

impl Courier {
    /// Gives a verdict for every sale that was taken or refused, and none for what is to wait. Each delivery
    /// is attempted so often, until the warehouse has answered one: from then on all is well.
    pub async fn bring(
        &self,
        mut deliveries: VecDeque<Delivery>,
        mut attempts: u32,
        verdicts: &mut [Option<Verdict>],
    ) -> Outcome {
        let last = Instant::now() + LONGEST;
        let mut outcome = Outcome::default();
        while Instant::now() < last
            && let Some(delivery) = deliveries.pop_front()
        {
            match self.attempt(&delivery, attempts, last).await {
                Meaning::Taken => {
                    outcome.delivered += delivery.sales();
                    self.metrics.count(Metric::WebhookDelivered, delivery.sales());
                    delivery.places().for_each(|place| verdicts[place] = Some(Ok(())));
                }
                Meaning::Refused { why, divisible } => {
                    // The sale at fault is looked for, so that its neighbours are delivered.
                    if let Some([first, second]) = delivery.halves().filter(|_| divisible) {
                        deliveries.push_front(second);
                        deliveries.push_front(first);
                    } else {
                        self.metrics.count(Metric::WebhookRefused, delivery.sales());
                        let refuse = || Some(Err(Failure::Refuse(why.clone())));
                        delivery.places().for_each(|place| verdicts[place] = refuse());
                    }
                }
                Meaning::Down(down) => {
                    outcome.end = Some(End::Down(down));
                    break;
                }
                Meaning::Gone => {
                    outcome.end = Some(End::Gone);
                    break;
                }
            }
            outcome.answered = true;
            attempts = super::ATTEMPTS;
        }
        outcome
    }

    async fn attempt(&self, delivery: &Delivery, attempts: u32, last: Instant) -> Meaning {
        let letter = Letter::of(delivery);
        let mut attempt = 1;
        loop {
            let meaning = self.post.post(&letter).await;
            let failed = matches!(meaning, Meaning::Down(_) | Meaning::Gone);
            self.metrics.count(Metric::WebhookFailed, u64::from(failed));
            match meaning {
                Meaning::Down(down) if down.blip && attempt < attempts && Instant::now() < last => {
                    sleep(jitter(attempt)).await;
                }
                meaning => return meaning,
            }
            attempt += 1;
        }
    }
}

/// Full jitter, so that those who failed together do not come back together.
fn jitter(attempt: u32) -> Duration {
    rand::rng().random_range(Duration::ZERO..=BACKOFF * 2u32.pow(attempt - 1))
}
