use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::{LocalBus, STACK};
use crate::metrics::{Dimension, Metric, Metrics};
use crate::subscriber::Retry;

/// What a queue in memory holds: how many messages wait in it, and since when those are there that are not done with.
#[derive(Default)]
pub(super) struct Backlog {
    /// Neither in anybody's hands nor held back until they come again, as SQS counts the visible ones.
    visible: AtomicI64,
    /// How many were published in which second. Few seconds, however many messages.
    published: Mutex<BTreeMap<i64, u32>>,
}

/// A message's being there.
pub(super) struct Present {
    backlog: Arc<Backlog>,
    second: i64,
}

impl Backlog {
    pub fn enter(self: &Arc<Self>, sent: Timestamp) -> Present {
        let second = sent.as_second();
        *self.published.lock().unwrap_or_else(PoisonError::into_inner).entry(second).or_default() += 1;
        Present { backlog: Arc::clone(self), second }
    }

    pub fn comes(&self) {
        self.visible.fetch_add(1, Ordering::Relaxed);
    }

    pub fn taken(&self, messages: usize) {
        self.visible.fetch_sub(i64::try_from(messages).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    fn visible(&self) -> u64 {
        u64::try_from(self.visible.load(Ordering::Relaxed)).unwrap_or_default()
    }

    fn oldest(&self) -> Option<Timestamp> {
        let published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        published.keys().next().and_then(|second| Timestamp::from_second(*second).ok())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut published = self.backlog.published.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = published.get_mut(&self.second) {
            *n -= 1;
            if *n == 0 {
                published.remove(&self.second);
            }
        }
    }
}

/// How many messages a durable queue holds, about, without counting a million of them each minute: counted once, then
/// followed, and counted again whenever that is cheap.
pub(super) struct Tally(AtomicI64);

/// So few are counted.
const CHEAP: i64 = 1_000;

impl Default for Tally {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN / 2))
    }
}

impl Tally {
    pub fn add(&self, messages: usize) {
        self.0.fetch_add(i64::try_from(messages).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    pub fn remove(&self, messages: usize) {
        self.0.fetch_sub(i64::try_from(messages).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    async fn of(&self, count: impl Future<Output = Result<u64, Retry>>) -> Result<u64, Retry> {
        let followed = self.0.load(Ordering::Relaxed);
        if followed >= CHEAP {
            return Ok(u64::try_from(followed)?);
        }
        let counted = count.await?;
        self.0.store(i64::try_from(counted)?, Ordering::Relaxed);
        Ok(counted)
    }
}

impl LocalBus {
    /// Says of the queues what SQS says of them
    /// (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html>):
    /// how many messages wait, how long the oldest has been there, and how many dead letters there are. (SQS leaves
    /// out of the age what was received more than three times; and it tells the dead letters' age.)
    ///
    /// # Errors
    /// [`Retry`], if a queue cannot be read. The others are told.
    pub async fn measure(&self) -> Result<(), Retry> {
        let Some(wired) = self.wired.get() else { return Ok(()) };
        let now = wired.clock.now();
        let mut outcome = Ok(());
        for queue in &wired.core {
            let name = queue.subscription.name;
            tell(&self.metrics, name, queue.backlog.visible(), age(now, queue.backlog.oldest()));
        }
        for (_, durable) in &wired.plugged {
            let (name, queues) = (durable.subscription.name, &durable.queues);
            let told = async {
                let waiting = durable.tally.of(queues.count(name)).await?;
                let oldest = if waiting > 0 { queues.oldest(name).await? } else { None };
                Ok((waiting, age(now, oldest)))
            };
            match told.await {
                Ok((waiting, age)) => tell(&self.metrics, name, waiting, age),
                Err(error) => outcome = Err(error),
            }
        }
        let plugged = wired.plugged.iter().map(|(_, durable)| durable.subscription.name);
        for name in wired.core.iter().map(|queue| queue.subscription.name).chain(plugged) {
            match wired.dead_letters.count(name).await {
                Ok(letters) => depth(&self.metrics, &format!("{name}-dead-letters"), letters),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }
}

fn age(now: Timestamp, since: Option<Timestamp>) -> Duration {
    since.and_then(|since| Duration::try_from(now.duration_since(since)).ok()).unwrap_or_default()
}

fn tell(metrics: &Metrics, name: &str, waiting: u64, age: Duration) {
    depth(metrics, name, waiting);
    let queue = format!("{STACK}-{name}");
    metrics.observe(Metric::OldestMessage, &[(Dimension::QueueName, &queue)], age.as_secs_f64());
}

#[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 messages")]
fn depth(metrics: &Metrics, name: &str, waiting: u64) {
    let queue = format!("{STACK}-{name}");
    metrics.observe(Metric::QueueDepth, &[(Dimension::QueueName, &queue)], waiting as f64);
}
