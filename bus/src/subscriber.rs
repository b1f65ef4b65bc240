use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;

use crate::error::chain;
use crate::message::{Message, Topic};

/// Why a message is to be delivered again: a dependency failed, and may work later.
///
/// What can never work is not this: it is published as a fact, and the message is done.
#[derive(Debug)]
pub struct Retry(Box<dyn Error + Send + Sync>);

impl Retry {
    pub fn because(why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(&*self.0))
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Retry {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

/// What became of one message: done with, or to be delivered again.
pub type Verdict = Result<(), Retry>;

/// A stage or a subscriber, written once and driven by Lambda and by the in-process bus alike.
#[async_trait]
pub trait Subscriber: Send + Sync {
    /// Takes a batch and answers for each message, in the batch's order.
    ///
    /// Delivery is at least once and in any order, so a message that was taken before must change
    /// nothing. `Err` brings that message back later and, after five receives, to the dead letters;
    /// its neighbours are not held up.
    async fn handle(&self, batch: &[Message]) -> Vec<Verdict>;
}

/// Handles a batch's messages side by side, each on its own.
pub async fn each<'a, F, Fut>(batch: &'a [Message], handle: F) -> Vec<Verdict>
where
    F: FnMut(&'a Message) -> Fut,
    Fut: Future<Output = Verdict>,
{
    futures::future::join_all(batch.iter().map(handle)).await
}

/// Has a subscriber take a batch. One that panics is taken again message by message, so that the poison
/// is alone in failing.
pub async fn isolated(subscriber: &dyn Subscriber, batch: &[Message]) -> Vec<Verdict> {
    if let Some(verdicts) = attempt(subscriber, batch).await {
        return verdicts;
    }
    let mut verdicts = Vec::with_capacity(batch.len());
    for message in batch {
        let verdict = attempt(subscriber, std::slice::from_ref(message)).await.and_then(|mut v| v.pop());
        verdicts.push(verdict.unwrap_or_else(|| Err(Retry::because("the subscriber panicked"))));
    }
    verdicts
}

async fn attempt(subscriber: &dyn Subscriber, batch: &[Message]) -> Option<Vec<Verdict>> {
    let verdicts = AssertUnwindSafe(subscriber.handle(batch)).catch_unwind().await.ok()?;
    (verdicts.len() == batch.len()).then_some(verdicts)
}

/// Where a subscriber's messages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A topic, through a queue of the subscriber's own.
    Topic(Topic),
    /// The event store's stream: in order per shard, and a failed batch holds up the shard.
    ///
    /// Each message is one new event: its `id` the sequence number, its `body` the event's body,
    /// its `attributes` the item's other attributes, and `shard` the shard's name.
    EventStream,
}

/// A subscriber with its place in the system; the function of that name in `deploy.yml` is its twin.
#[derive(Clone)]
pub struct Subscription {
    pub name: &'static str,
    pub source: Source,
    /// Messages per batch, at most.
    pub batch: usize,
    /// Batches in flight at once on one machine. On Lambda the event source decides.
    pub workers: usize,
    pub subscriber: Arc<dyn Subscriber>,
}
