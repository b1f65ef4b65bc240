use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::Notify;

use super::backlog::Tally;
use super::{DeadLetter, DeadLetters, LONGEST_WAIT, Redelivery, invoke};
use crate::clock::Clock;
use crate::message::Message;
use crate::metrics::{Dimension, Metric, Metrics};
use crate::subscriber::{Failure, Retry, Subscription};
use crate::trace::Tracer;
use crate::wake::Wakes;

/// A message in a durable queue.
#[derive(Debug, Clone)]
pub struct Queued {
    /// Where in the queue it is; queues are in the order of their places.
    pub place: String,
    pub message: Message,
    /// How often it failed.
    pub receives: u32,
}

/// Queues that outlive the process, for subscribers that must miss nothing whatever they or the process do.
#[async_trait]
pub trait Queues: Send + Sync {
    /// Puts them there, due after the wait. MUST have made them durable when it answers `Ok`.
    async fn put(&self, queue: &'static str, messages: &[Message], wait: Duration) -> Result<(), Retry>;

    /// Those that are due, the one that has been for longest first. One that is due later than [`LONGEST_WAIT`] from now
    /// was put there by a clock that has been set back since, and MUST be due as well.
    ///
    /// [`LONGEST_WAIT`]: super::LONGEST_WAIT
    async fn due(&self, queue: &'static str, most: usize) -> Result<Vec<Queued>, Retry>;

    /// Takes them out. What is not taken out MUST come again.
    async fn done(&self, queue: &'static str, dealt_with: &[Queued]) -> Result<(), Retry>;

    /// Has a message that failed once more come again after the wait.
    async fn later(&self, queue: &'static str, failed: Queued, wait: Duration) -> Result<(), Retry>;

    /// How many messages there are, due or not.
    async fn count(&self, queue: &'static str) -> Result<u64, Retry>;

    /// When the message was published that is due first.
    async fn oldest(&self, queue: &'static str) -> Result<Option<Timestamp>, Retry>;
}

/// Wakes a subscriber whose queue is durable.
pub struct QueueWakes {
    pub queues: Arc<dyn Queues>,
    pub queue: &'static str,
}

#[async_trait]
impl Wakes for QueueWakes {
    async fn wake(&self, about: &str, after: Duration) -> Result<(), Retry> {
        self.queues.put(self.queue, &[Message::wake_up(about)], after.min(LONGEST_WAIT)).await
    }
}

/// A subscription behind a durable queue: batch after batch, in the order they are due.
pub(super) struct Durable {
    pub subscription: Subscription,
    pub queues: Arc<dyn Queues>,
    pub dead_letters: Arc<dyn DeadLetters>,
    pub redelivery: Redelivery,
    pub clock: Clock,
    pub metrics: Metrics,
    pub tracer: Tracer,
    pub more: Notify,
    pub tally: Tally,
}

/// How often a queue is looked at for what has become due, and for what another process left.
const LOOK: Duration = Duration::from_secs(1);

impl Durable {
    pub async fn put(&self, messages: &[Message]) -> Result<(), Retry> {
        self.queues.put(self.subscription.name, messages, Duration::ZERO).await?;
        self.tally.add(messages.len());
        self.more.notify_one();
        Ok(())
    }

    pub async fn work(self: Arc<Self>) {
        loop {
            let wait = match self.batch().await {
                Ok(Next::Now) => continue,
                Ok(Next::More) => LOOK,
                Ok(Next::After(pause)) => {
                    tokio::time::sleep(pause).await;
                    continue;
                }
                Err(error) => {
                    tracing::error!(queue = self.subscription.name, %error, "cannot use the queue, trying on");
                    LOOK
                }
            };
            // Either is reason to look.
            let _ = tokio::time::timeout(wait, self.more.notified()).await;
        }
    }

    async fn batch(&self) -> Result<Next, Retry> {
        let name = self.subscription.name;
        let due = self.queues.due(name, self.subscription.batch).await?;
        if due.is_empty() {
            return Ok(Next::More);
        }
        let messages: Vec<Message> = due.iter().map(|queued| queued.message.clone()).collect();
        let again = due.iter().filter(|queued| queued.receives > 0).count();
        self.metrics.count_of(Metric::Redelivered, &[(Dimension::Function, name)], again as u64);
        let taken = invoke(&self.subscription, &self.metrics, &self.tracer, &self.clock, &messages);
        let verdicts = taken.await;
        let mut next = Next::Now;
        let mut done = Vec::new();
        for (queued, verdict) in due.into_iter().zip(verdicts) {
            let Err(failure) = verdict else {
                done.push(queued);
                continue;
            };
            let Queued { message, receives, .. } = &queued;
            match failure {
                Failure::Pause { until, .. } => {
                    let until = until.map(|until| self.clock.now().duration_until(until));
                    let wait = until.map_or(Ok(self.redelivery.minute), Duration::try_from);
                    // Somebody may say sooner that it is over.
                    next = Next::After(wait.unwrap_or_default().min(self.redelivery.minute));
                }
                Failure::Retry(_) if receives + 1 < self.redelivery.max_receives => {
                    let wait = self.redelivery.wait(receives + 1);
                    self.queues.later(name, queued, wait).await?;
                }
                Failure::Retry(_) | Failure::Refuse(_) => {
                    let receives = receives + 1;
                    let message = message.clone();
                    let letter = DeadLetter { queue: name, message, receives, why: failure.in_full() };
                    self.dead_letters.keep(letter).await?;
                    self.metrics.count_of(Metric::DeadLetters, &[(Dimension::Function, name)], 1);
                    done.push(queued);
                }
            }
        }
        self.queues.done(name, &done).await?;
        self.tally.remove(done.len());
        Ok(next)
    }
}

/// When to look at the queue again.
enum Next {
    Now,
    /// When there is more.
    More,
    /// Not before this time is over.
    After(Duration),
}
