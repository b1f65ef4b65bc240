use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use jiff::Timestamp;

use crate::error::chain;
use crate::host::Host;
use crate::message::{Message, Topic};
use crate::metrics::{Dimension, Metric, Metrics};
use crate::settings::SettingError;
use crate::trace::{self, Call, Tracer, of_message};

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

/// What is to be done with a message that was not dealt with. The variants are what the bus can do.
#[derive(Debug)]
pub enum Failure {
    /// A dependency failed: the message comes again, and after five receives goes to the dead letters.
    Retry(Retry),
    /// It can never work and there is nobody to tell: to the dead letters now, with why. Lambda, which hands a
    /// pushed message to its queue's own dead letters, knows only "again": there it takes five receives, and why
    /// stands in the log.
    Refuse(Refusal),
    /// Whoever takes these messages is down: none of this queue before then, or for a minute where no time
    /// is given or it is further away, since it may be over sooner. It is not the message's fault, so it may
    /// happen to it for as long as its queue keeps it.
    Pause { until: Option<Timestamp>, why: String },
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Retry(error.into())
    }
}

impl From<Retry> for Failure {
    fn from(retry: Retry) -> Self {
        Self::Retry(retry)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry(retry) => retry.fmt(f),
            Self::Refuse(refusal) => f.write_str(refusal.as_str()),
            Self::Pause { why, .. } => f.write_str(why),
        }
    }
}

impl Failure {
    /// With what somebody else answered: for the dead letters, where the message itself is kept.
    #[must_use]
    pub fn in_full(&self) -> String {
        match self {
            Self::Refuse(Refusal { why, answer: Some(answer) }) => format!("{why}: {answer}"),
            _ => self.to_string(),
        }
    }
}

/// Why a message can never work.
///
/// What somebody else answered to it may repeat it, and it may be a sale in plaintext. So the answer is kept with the
/// dead letter only, and is in no log, no span and no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Refusal {
    why: String,
    answer: Option<String>,
}

impl Refusal {
    #[must_use]
    pub fn answered(why: impl Into<String>, answer: impl Into<String>) -> Self {
        Self { why: why.into(), answer: Some(answer.into()) }
    }

    /// In our own words.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.why
    }
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self { why, answer: None }
    }
}

impl From<&str> for Refusal {
    fn from(why: &str) -> Self {
        why.to_owned().into()
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

/// What became of one message: done with, or not.
pub type Verdict = Result<(), Failure>;

/// A stage or a subscriber, written once and driven by Lambda and by the in-process bus alike.
#[async_trait]
pub trait Subscriber: Send + Sync {
    /// Takes a batch and answers for each message, in the batch's order.
    ///
    /// Delivery is at least once and in any order, so a message that was taken before must change
    /// nothing. `Err` says what is to be done with that message; its neighbours are not held up, unless
    /// it is [`Failure::Pause`].
    async fn handle(&self, batch: &[Message]) -> Vec<Verdict>;

    /// What is due by time and not by message: called once a minute where the [`Subscription`] asks for it,
    /// by any number of processes at once.
    ///
    /// # Errors
    /// [`Retry`] is logged and counted; the next minute tries again.
    async fn tick(&self) -> Result<(), Retry> {
        Ok(())
    }
}

/// Handles a batch's messages side by side, each on its own.
pub async fn each<'a, F, Fut>(batch: &'a [Message], mut handle: F) -> Vec<Verdict>
where
    F: FnMut(&'a Message) -> Fut,
    Fut: Future<Output = Verdict>,
{
    futures::future::join_all(batch.iter().map(|message| of_message(message, handle(message)))).await
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
        verdicts.push(verdict.unwrap_or_else(|| Err(Retry::because("the subscriber panicked").into())));
    }
    verdicts
}

/// Has a subscriber take a batch as [`isolated`] does, within the batch's spans and its messages'.
pub async fn traced(
    tracer: &Tracer,
    system: &'static str,
    subscription: &Subscription,
    batch: &[Message],
    call: Option<&Call>,
) -> Vec<Verdict> {
    let spans = trace::Batch::begin(tracer, system, subscription, batch, call);
    let verdicts = spans.within(batch, isolated(&*subscription.subscriber, batch)).await;
    spans.ended(&verdicts);
    verdicts
}

async fn attempt(subscriber: &dyn Subscriber, batch: &[Message]) -> Option<Vec<Verdict>> {
    let verdicts = AssertUnwindSafe(subscriber.handle(batch)).catch_unwind().await.ok()?;
    (verdicts.len() == batch.len()).then_some(verdicts)
}

/// Notes what became of a batch, as every driver does: how long its messages took from their publication, what failed,
/// and why.
pub fn dealt_with(
    metrics: &Metrics,
    name: &'static str,
    now: Timestamp,
    batch: &[Message],
    verdicts: &[Verdict],
) {
    let function = &[(Dimension::Function, name)];
    let mut failed = 0;
    for (message, verdict) in batch.iter().zip(verdicts) {
        let took = message.sent.map(|sent| (now.duration_since(sent).as_secs_f64() * 1_000.0).max(0.0));
        let said = |attribute: &str| message.attributes.get(attribute).map(String::as_str);
        let trace_id = || message.trace().map(|trace| tracing::field::display(trace.trace_id()));
        match verdict {
            Ok(()) => {
                tracing::debug!(
                    function = name,
                    id = message.id,
                    sale_id = said("sale_id"),
                    shop_id = said("shop_id"),
                    trace_id = trace_id(),
                    waited_ms = took.map(f64::round),
                    "delivered"
                );
                // A wake-up waited because it was to.
                if let Some(took) = took.filter(|_| message.woken().is_none()) {
                    metrics.observe(Metric::HopLatency, function, took);
                }
            }
            Err(why) => {
                failed += 1;
                tracing::warn!(
                    function = name,
                    id = message.id,
                    sale_id = said("sale_id"),
                    shop_id = said("shop_id"),
                    trace_id = trace_id(),
                    waited_ms = took.map(f64::round),
                    %why,
                    "delivery failed"
                );
            }
        }
    }
    metrics.count_of(Metric::Failed, function, failed);
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
    /// None come: it is only [called once a minute](Subscriber::tick).
    Minute,
}

/// How a topic's messages get from the subscriber's queue to the subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intake {
    /// As they come. What the subscriber answers is for each message alone.
    Pushed,
    /// By the subscriber's own hand, batch after batch, until the queue is empty or it says
    /// [`Failure::Pause`]; on Lambda once a minute. For those who depend on somebody who may be down for
    /// days: while that lasts the queue is left alone but for one batch a minute.
    Drained,
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
    pub intake: Intake,
    /// Whether [`Subscriber::tick`] is wanted.
    pub every_minute: bool,
    pub subscriber: Arc<dyn Subscriber>,
}

/// A subscriber that can be plugged in: its name, and how it is made where it is to run.
#[derive(Clone, Copy)]
pub struct Entry {
    /// The function's, the handler's, the queue's and the table's.
    pub name: &'static str,
    /// `None` if its settings switch it off.
    pub make: fn(&dyn Host) -> Result<Option<Subscription>, SettingError>,
}

impl Entry {
    /// A subscription as most are: on a topic, a few messages at a time, as they come. What is to be
    /// otherwise is said with `Subscription { …, ..ENTRY.on(topic, subscriber) }`.
    #[must_use]
    pub fn on(&self, topic: Topic, subscriber: Arc<dyn Subscriber>) -> Subscription {
        Subscription {
            name: self.name,
            source: Source::Topic(topic),
            batch: 10,
            workers: 1,
            intake: Intake::Pushed,
            every_minute: false,
            subscriber,
        }
    }
}
