use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::message::{Message, Topic};
use crate::metrics::{Metric, Metrics};
use crate::publish::{PublishError, Publisher};
use crate::subscriber::{Retry, Source, Subscription, isolated};

/// How a message that failed comes back.
#[derive(Debug, Clone, Copy)]
pub struct Redelivery {
    /// Receives after which a message goes to the dead letters.
    pub max_receives: u32,
    /// The wait before the second receive; it doubles each time.
    pub backoff: Duration,
}

impl Default for Redelivery {
    fn default() -> Self {
        Self { max_receives: 5, backoff: Duration::from_millis(500) }
    }
}

/// How much one queue holds, in KiB of bodies. Publishers wait beyond it, so memory is bounded.
const QUEUE_KIB: u32 = 32 * 1024;

/// A queue with less room than this turns new sales away at the door.
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
}

/// SNS and SQS on one machine, in memory: topics fan out to a bounded queue per subscription, with
/// batches, redelivery with backoff, and dead letters.
///
/// A crash loses what is queued. That is sound for the core stages, because an accepted sale that is
/// not settled is published again from the event store.
pub struct LocalBus {
    queues: OnceLock<Vec<Arc<Queue>>>,
    redelivery: Redelivery,
    metrics: Metrics,
    outstanding: Arc<Outstanding>,
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
    sender: mpsc::UnboundedSender<Delivery>,
    receiver: Mutex<mpsc::UnboundedReceiver<Delivery>>,
    room: Arc<Semaphore>,
}

struct Delivery {
    message: Message,
    receives: u32,
    slot: Slot,
}

/// A message's room in its queue, and its being counted, until it is done with.
struct Slot {
    _room: OwnedSemaphorePermit,
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
    pub fn new(redelivery: Redelivery, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { queues: OnceLock::new(), redelivery, metrics, outstanding: Arc::default() })
    }

    /// Starts the workers of every subscription to a topic, once. Stages need the bus to publish on
    /// and the bus needs the stages, hence the two steps.
    pub fn start(self: &Arc<Self>, subscriptions: Vec<Subscription>, dead_letters: &Arc<dyn DeadLetters>) {
        let queues = subscriptions.into_iter().filter_map(Queue::new).map(Arc::new).collect();
        for queue in self.queues.get_or_init(|| queues) {
            for _ in 0..queue.subscription.workers.max(1) {
                tokio::spawn(Arc::clone(self).work(Arc::clone(queue), Arc::clone(dead_letters)));
            }
        }
    }

    fn queues_of(&self, topic: Topic) -> impl Iterator<Item = &Arc<Queue>> {
        self.queues.get().into_iter().flatten().filter(move |q| q.topic == topic)
    }

    /// Whether the topic's queues can take new sales, or whoever asks should come back later.
    pub fn has_room(&self, topic: Topic) -> bool {
        self.queues_of(topic).all(|q| q.room.available_permits() >= RESERVE_KIB)
    }

    /// Messages published and not yet done with.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.outstanding.count.load(Ordering::SeqCst)
    }

    /// Waits until every message is done with.
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

    async fn work(self: Arc<Self>, queue: Arc<Queue>, dead_letters: Arc<dyn DeadLetters>) {
        let mut batch = Vec::new();
        loop {
            if queue.receiver.lock().await.recv_many(&mut batch, queue.subscription.batch).await == 0 {
                return;
            }
            let (messages, slots): (Vec<_>, Vec<_>) =
                batch.drain(..).map(|d| (d.message, (d.receives + 1, d.slot))).unzip();
            let verdicts = isolated(&*queue.subscription.subscriber, &messages).await;
            for ((message, verdict), (receives, slot)) in messages.into_iter().zip(verdicts).zip(slots) {
                if let Err(why) = verdict {
                    self.failed(&queue, &dead_letters, Delivery { message, receives, slot }, &why).await;
                }
            }
        }
    }

    async fn failed(
        &self,
        queue: &Arc<Queue>,
        dead_letters: &Arc<dyn DeadLetters>,
        delivery: Delivery,
        why: &Retry,
    ) {
        let name = queue.subscription.name;
        tracing::warn!(queue = name, id = delivery.message.id, receives = delivery.receives, %why, "delivery failed");
        if delivery.receives >= self.redelivery.max_receives {
            let letter = DeadLetter {
                queue: name,
                message: delivery.message.clone(),
                receives: delivery.receives,
                why: why.to_string(),
            };
            match dead_letters.keep(letter).await {
                Ok(()) => return self.metrics.count(Metric::DeadLetters, 1),
                Err(error) => {
                    tracing::error!(queue = name, %error, "cannot keep a dead letter, delivering on");
                }
            }
        }
        self.metrics.count(Metric::Redelivered, 1);
        let doublings = delivery.receives.saturating_sub(1).min(6);
        let wait = self.redelivery.backoff * 2u32.pow(doublings);
        let sender = queue.sender.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            // The receiver lives as long as the process.
            let _ = sender.send(delivery);
        });
    }
}

impl Queue {
    fn new(subscription: Subscription) -> Option<Self> {
        let Source::Topic(topic) = subscription.source else { return None };
        let (sender, receiver) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(QUEUE_KIB as usize));
        Some(Self { subscription, topic, sender, receiver: Mutex::new(receiver), room })
    }
}

#[async_trait]
impl Publisher for LocalBus {
    async fn publish(&self, topic: Topic, messages: Vec<Message>) -> Vec<Result<(), PublishError>> {
        let refused = |why: &str| Err(PublishError { topic: topic.name(), why: why.into() });
        let mut answers = Vec::with_capacity(messages.len());
        for message in messages {
            let mut answer =
                if self.queues.get().is_some() { Ok(()) } else { refused("the bus is not started") };
            let kib = u32::try_from(message.body.len() / 1024 + 1).unwrap_or(u32::MAX);
            if kib > QUEUE_KIB {
                answer = refused("the message is larger than a queue");
            }
            for queue in self.queues_of(topic).take_while(|_| kib <= QUEUE_KIB) {
                let Ok(room) = Arc::clone(&queue.room).acquire_many_owned(kib).await else {
                    answer = refused("the queue is closed");
                    break;
                };
                let slot = Slot { _room: room, _outstanding: OutstandingGuard::new(&self.outstanding) };
                let delivery = Delivery { message: message.clone(), receives: 0, slot };
                if queue.sender.send(delivery).is_err() {
                    answer = refused("the queue is closed");
                }
            }
            answers.push(answer);
        }
        answers
    }
}
