//! SNS and SQS on one machine.

/// How much waits in which queue.
mod backlog;
/// Queues that outlive the process.
mod durable;
/// Queues in which shops take turns.
mod turns;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backlog::{Backlog, Present, Tally};
use durable::Durable;
pub use durable::{QueueWakes, Queued, Queues};
use jiff::Timestamp;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use turns::Turns;

use crate::clock::Clock;
use crate::ids::ShopId;
use crate::limits::MAX_MESSAGE;
use crate::message::{Message, Topic};
use crate::metrics::{Dimension, Metric, Metrics};
use crate::publish::{PublishError, Publisher};
use crate::shares::{Share, Shares};
use crate::subscriber::{Failure, Retry, Source, Subscription, Verdict, dealt_with, traced};
use crate::trace::{Publishing, Tracer};

/// How a message that failed comes back.
#[derive(Debug, Clone, Copy)]
pub struct Redelivery {
    /// Receives after which a message goes to the dead letters.
    pub max_receives: u32,
    /// The wait before the second receive; it doubles each time.
    pub backoff: Duration,
    /// How long a queue is left alone, at most, whose subscriber says [`Failure::Pause`].
    pub minute: Duration,
}

/// No message waits longer than this for its next receive.
pub const LONGEST_WAIT: Duration = Duration::from_mins(1);

impl Redelivery {
    /// The wait after so many receives.
    fn wait(&self, receives: u32) -> Duration {
        (self.backoff * 2u32.pow(receives.saturating_sub(1).min(6))).min(LONGEST_WAIT)
    }
}

impl Default for Redelivery {
    fn default() -> Self {
        Self { max_receives: 5, backoff: Duration::from_millis(500), minute: Duration::from_mins(1) }
    }
}

/// How much one queue holds, in KiB of bodies. Publishers wait beyond it, so memory is bounded.
const QUEUE_KIB: u32 = 16 * 1024;

/// A queue with less room than this for a shop turns its new sales away at the door.
const RESERVE_KIB: usize = 1024;

/// A message that failed its last receive.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    pub queue: &'static str,
    pub message: Message,
    pub receives: u32,
    pub why: String,
}

/// Where dead letters are kept until somebody decides.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// MUST have made the letter durable when it answers `Ok`.
    ///
    /// # Errors
    /// When the letter could not be kept; the bus then goes on delivering the message.
    async fn keep(&self, letter: DeadLetter) -> Result<(), Retry>;

    /// How many there are of that queue, or some ten thousand if there are more.
    ///
    /// # Errors
    /// If they cannot be counted.
    async fn count(&self, queue: &'static str) -> Result<u64, Retry>;
}

/// SNS and SQS on one machine: topics fan out to a queue per subscription, with batches, redelivery with
/// backoff, and dead letters.
///
/// The core stages' queues are in memory and bounded. A crash loses what is in them, which is sound because
/// an accepted sale that is not settled is published again from the event store. Everybody else's are
/// durable, so that whoever is slow or down keeps nobody waiting and misses nothing.
pub struct LocalBus {
    wired: OnceLock<Wired>,
    redelivery: Redelivery,
    metrics: Metrics,
    tracer: Tracer,
    outstanding: Arc<Outstanding>,
}

/// Who hangs on the topics.
struct Wired {
    core: Vec<Arc<Queue>>,
    plugged: Vec<(Topic, Arc<Durable>)>,
    dead_letters: Arc<dyn DeadLetters>,
    clock: Clock,
}

/// What the bus keeps where it outlives the process.
#[derive(Clone)]
pub struct Kept {
    pub queues: Arc<dyn Queues>,
    pub dead_letters: Arc<dyn DeadLetters>,
    pub clock: Clock,
}

/// Nobody's in particular counts as one shop's.
fn shop_of(message: &Message) -> String {
    message.attributes.get("shop_id").cloned().unwrap_or_default()
}

/// Messages published and not yet done with, over all queues.
#[derive(Default)]
struct Outstanding {
    count: AtomicUsize,
    none: Notify,
}

struct Queue {
    subscription: Subscription,
    topic: Topic,
    waiting: Turns<Delivery>,
    room: Arc<Semaphore>,
    /// Whose messages the room is taken by.
    shops: Arc<Shares<String>>,
    backlog: Arc<Backlog>,
}

struct Delivery {
    message: Message,
    receives: u32,
    slot: Slot,
}

/// A message's room in its queue, and its being counted, until it is done with.
struct Slot {
    _room: OwnedSemaphorePermit,
    _share: Share<String>,
    _present: Present,
    _outstanding: OutstandingGuard,
}

struct OutstandingGuard(Arc<Outstanding>);

impl OutstandingGuard {
    fn new(of: &Arc<Outstanding>) -> Self {
        of.count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(of))
    }
}

impl Drop for OutstandingGuard {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

impl LocalBus {
    #[must_use]
    pub fn new(redelivery: Redelivery, metrics: Metrics, tracer: Tracer) -> Arc<Self> {
        Arc::new(Self { wired: OnceLock::new(), redelivery, metrics, tracer, outstanding: Arc::default() })
    }

    /// Starts the workers of every subscription to a topic, once: the core stages' and those plugged in.
    /// Stages need the bus to publish on and the bus needs the stages, hence the two steps. The workers end when what
    /// is returned is dropped.
    #[must_use = "dropped, it ends the workers"]
    pub fn start(
        self: &Arc<Self>,
        core: Vec<Subscription>,
        plugged: Vec<Subscription>,
        kept: &Kept,
    ) -> JoinSet<()> {
        let durable = |subscription: Subscription| {
            let Source::Topic(topic) = subscription.source else { return None };
            let durable = Durable {
                subscription,
                queues: Arc::clone(&kept.queues),
                dead_letters: Arc::clone(&kept.dead_letters),
                redelivery: self.redelivery,
                clock: kept.clock.clone(),
                metrics: self.metrics.clone(),
                tracer: self.tracer.clone(),
                more: Notify::new(),
                tally: Tally::default(),
            };
            Some((topic, Arc::new(durable)))
        };
        let core = core.into_iter().filter_map(Queue::new).map(Arc::new).collect();
        let plugged = plugged.into_iter().filter_map(durable).collect();
        let Kept { clock, dead_letters, .. } = kept.clone();
        let wired = self.wired.get_or_init(|| Wired { core, plugged, dead_letters, clock });
        let Wired { core, plugged, .. } = wired;
        let mut workers = JoinSet::new();
        for queue in core {
            for _ in 0..queue.subscription.workers.max(1) {
                workers.spawn(Arc::clone(self).work(Arc::clone(queue), kept.clone()));
            }
        }
        for (_, durable) in plugged {
            workers.spawn(Arc::clone(durable).work());
        }
        workers
    }

    fn queues_of(&self, topic: Topic) -> impl Iterator<Item = &Arc<Queue>> {
        let core = self.wired.get().into_iter().flat_map(|wired| &wired.core);
        core.filter(move |queue| queue.topic == topic)
    }

    fn plugged_into(&self, topic: Topic) -> impl Iterator<Item = &Arc<Durable>> {
        let plugged = self.wired.get().into_iter().flat_map(|wired| &wired.plugged);
        plugged.filter(move |(of, _)| *of == topic).map(|(_, durable)| durable)
    }

    /// Messages published and not yet done with by the core.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.outstanding.count.load(Ordering::SeqCst)
    }

    /// Waits until the core is done with every message.
    pub async fn drained(&self) {
        loop {
            let none = self.outstanding.none.notified();
            tokio::pin!(none);
            none.as_mut().enable();
            if self.outstanding() == 0 {
                return;
            }
            none.await;
        }
    }

    async fn work(self: Arc<Self>, queue: Arc<Queue>, kept: Kept) {
        let function = &[(Dimension::Function, queue.subscription.name)];
        loop {
            let batch = queue.waiting.take(queue.subscription.batch).await;
            queue.backlog.taken(batch.len());
            let (messages, slots): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|d| (d.message, (d.receives + 1, d.slot))).unzip();
            let again = slots.iter().filter(|(receives, _)| *receives > 1).count();
            self.metrics.count_of(Metric::Redelivered, function, again as u64);
            let taken = invoke(&queue.subscription, &self.metrics, &self.tracer, &kept.clock, &messages);
            let verdicts = taken.await;
            for ((message, verdict), (receives, slot)) in messages.into_iter().zip(verdicts).zip(slots) {
                if let Err(failure) = verdict {
                    let delivery = Delivery { message, receives, slot };
                    self.failed(&queue, &kept.dead_letters, delivery, &failure).await;
                }
            }
        }
    }

    async fn failed(
        &self,
        queue: &Arc<Queue>,
        dead_letters: &Arc<dyn DeadLetters>,
        delivery: Delivery,
        failure: &Failure,
    ) {
        let name = queue.subscription.name;
        let refused = matches!(failure, Failure::Refuse(_));
        if refused || delivery.receives >= self.redelivery.max_receives {
            let letter = DeadLetter {
                queue: name,
                message: delivery.message.clone(),
                receives: delivery.receives,
                why: failure.in_full(),
            };
            match dead_letters.keep(letter).await {
                Ok(()) => {
                    return self.metrics.count_of(Metric::DeadLetters, &[(Dimension::Function, name)], 1);
                }
                Err(error) => {
                    tracing::error!(queue = name, %error, "cannot keep a dead letter, delivering on");
                }
            }
        }
        let wait = self.redelivery.wait(delivery.receives);
        let queue = Arc::clone(queue);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            queue.comes(delivery);
        });
    }
}

/// What things are called here that on AWS are called after the stack, as `<service>-<stage>-decrypt`.
pub const STACK: &str = "kassa-local";

/// What brings messages here, where it says so.
pub const SYSTEM: &str = "kassa";

/// Has a subscriber take a batch, and says of it what Lambda and we would say.
pub async fn invoke(
    subscription: &Subscription,
    metrics: &Metrics,
    tracer: &Tracer,
    clock: &Clock,
    batch: &[Message],
) -> Vec<Verdict> {
    let begun = Instant::now();
    let verdicts = traced(tracer, SYSTEM, subscription, batch, None).await;
    invoked(metrics, subscription.name, begun.elapsed(), true);
    dealt_with(metrics, subscription.name, clock.now(), batch, &verdicts);
    verdicts
}

/// Says of a function what Lambda says of it
/// (<https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html>).
pub fn invoked(metrics: &Metrics, name: &str, took: Duration, answered: bool) {
    let function = format!("{STACK}-{name}");
    let function = &[(Dimension::FunctionName, function.as_str())];
    metrics.count_of(Metric::Invocations, function, 1);
    metrics.count_of(Metric::Errors, function, u64::from(!answered));
    metrics.observe(Metric::Duration, function, took.as_secs_f64() * 1_000.0);
}

impl Queue {
    fn new(subscription: Subscription) -> Option<Self> {
        let Source::Topic(topic) = subscription.source else { return None };
        let room = Arc::new(Semaphore::new(QUEUE_KIB as usize));
        let shops = Shares::of_what_is_left(QUEUE_KIB as usize);
        let (waiting, backlog) = (Turns::default(), Arc::default());
        Some(Self { subscription, topic, waiting, room, shops, backlog })
    }

    fn comes(&self, delivery: Delivery) {
        self.backlog.comes();
        self.waiting.put(shop_of(&delivery.message), delivery);
    }
}

#[async_trait]
impl Publisher for LocalBus {
    async fn publish(&self, topic: Topic, messages: Vec<Message>) -> Vec<Result<(), PublishError>> {
        let refused = |why: &str| Err(PublishError { topic: topic.name(), why: why.into() });
        let Some(wired) = self.wired.get() else {
            return messages.iter().map(|_| refused("the bus is not started")).collect();
        };
        let sent = wired.clock.now();
        let mut messages: Vec<Message> =
            messages.into_iter().map(|message| Message { sent: Some(sent), ..message }).collect();
        let publishing = Publishing::begin(SYSTEM, topic, &mut messages);
        let answers = self.enqueue(topic, messages, sent).await;
        publishing.answered(&answers);
        answers
    }

    fn has_room(&self, topic: Topic, shop: &ShopId) -> bool {
        self.queues_of(topic).all(|queue| queue.shops.has_room(&shop.to_string(), RESERVE_KIB))
    }
}

impl LocalBus {
    async fn enqueue(
        &self,
        topic: Topic,
        messages: Vec<Message>,
        sent: Timestamp,
    ) -> Vec<Result<(), PublishError>> {
        let refused = |why: &str| Err(PublishError { topic: topic.name(), why: why.into() });
        // What SNS would not take is not taken here either.
        let mut answers = vec![refused("the message is larger than SNS takes"); messages.len()];
        let fits = messages.into_iter().enumerate().filter(|(_, message)| message.size() <= MAX_MESSAGE);
        let (places, messages): (Vec<usize>, Vec<Message>) = fits.unzip();
        for durable in self.plugged_into(topic) {
            if let Err(error) = durable.put(&messages).await {
                answers.fill(refused(&error.to_string()));
                return answers;
            }
        }
        for (place, message) in places.into_iter().zip(messages) {
            answers[place] = Ok(());
            for queue in self.queues_of(topic) {
                if let Err(why) = self.deliver(queue, message.clone(), sent).await {
                    answers[place] = refused(why);
                    break;
                }
            }
        }
        answers
    }

    async fn deliver(
        &self,
        queue: &Arc<Queue>,
        message: Message,
        sent: Timestamp,
    ) -> Result<(), &'static str> {
        // A letter of an older version may be larger than a message is today.
        let kib = u32::try_from(message.body.len() / 1024 + 1).unwrap_or(u32::MAX).min(QUEUE_KIB);
        let closed = "the queue is closed";
        let room = Arc::clone(&queue.room).acquire_many_owned(kib).await.map_err(|_| closed)?;
        let slot = Slot {
            _room: room,
            _share: queue.shops.enter(&shop_of(&message), kib as usize),
            _present: queue.backlog.enter(sent),
            _outstanding: OutstandingGuard::new(&self.outstanding),
        };
        queue.comes(Delivery { message, receives: 0, slot });
        Ok(())
    }

    /// Hands a message to one queue again, and to no other of its topic.
    ///
    /// # Errors
    /// [`Retry`] if the queue is not here, or could not take it.
    pub async fn redeliver(&self, queue: &str, message: Message) -> Result<(), Retry> {
        let other = io::Error::other;
        let wired = self.wired.get().ok_or("the bus is not started").map_err(other)?;
        let sent = wired.clock.now();
        let message = Message { sent: Some(sent), ..message };
        if let Some(core) = wired.core.iter().find(|core| core.subscription.name == queue) {
            return Ok(self.deliver(core, message, sent).await.map_err(other)?);
        }
        let durable = wired.plugged.iter().find(|(_, durable)| durable.subscription.name == queue);
        let (_, durable) = durable.ok_or("whoever reads this queue is switched off").map_err(other)?;
        durable.put(&[message]).await
    }
}
