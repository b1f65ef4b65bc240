//! The bus on one machine: what each subscription may rely on, the core's and those plugged in.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use kassa::embedded::{Store, Sync};
use kassa_bus::limits::MAX_MESSAGE;
use kassa_bus::local::{DeadLetter, DeadLetters, Kept, LocalBus, QueueWakes, Redelivery, STACK};
use kassa_bus::metrics::{Series, Values};
use kassa_bus::wake::Wakes;
use kassa_bus::{
    Clock, Failure, Intake, Message, Metric, Metrics, Publisher, Retry, ShopId, Source, Subscriber,
    Subscription, Topic, Tracer, Verdict,
};
use tokio::task::JoinSet;

/// A subscriber that notes what it gets, and fails or panics where the test says.
#[derive(Default)]
struct Sink {
    got: Mutex<Vec<(String, usize)>>,
    failures: AtomicU32,
    panic_on: Mutex<Option<String>>,
    refused: Mutex<Option<String>>,
    stalled: AtomicBool,
    paused: AtomicBool,
    paused_until: Mutex<Option<Timestamp>>,
    asked: AtomicU32,
}

#[async_trait]
impl Subscriber for Sink {
    async fn handle(&self, batch: &[Message]) -> Vec<Verdict> {
        while self.stalled.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        let poison = self.panic_on.lock().unwrap().clone();
        assert!(!batch.iter().any(|m| Some(&m.id) == poison.as_ref()), "poisoned by the test");
        let refused = self.refused.lock().unwrap().clone();
        let one = |message: &Message| {
            if self.paused.load(Ordering::SeqCst) {
                let until = *self.paused_until.lock().unwrap();
                return Err(Failure::Pause { until, why: "down for the test".into() });
            }
            if Some(&message.id) == refused.as_ref() {
                return Err(Failure::Refuse("refused by the test".into()));
            }
            if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
                return Err(Retry::because("failed by the test").into());
            }
            self.got.lock().unwrap().push((message.id.clone(), batch.len()));
            Ok(())
        };
        batch.iter().map(one).collect()
    }
}

impl Sink {
    fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.got.lock().unwrap().iter().map(|(id, _)| id.clone()).collect();
        ids.sort();
        ids
    }
}

#[derive(Default)]
struct Letters(Mutex<Vec<DeadLetter>>);

#[async_trait]
impl DeadLetters for Letters {
    async fn keep(&self, letter: DeadLetter) -> Result<(), Retry> {
        self.0.lock().unwrap().push(letter);
        Ok(())
    }

    async fn count(&self, queue: &'static str) -> Result<u64, Retry> {
        Ok(self.0.lock().unwrap().iter().filter(|letter| letter.queue == queue).count() as u64)
    }
}

struct Rig {
    bus: Arc<LocalBus>,
    metrics: Metrics,
    sinks: Vec<Arc<Sink>>,
    letters: Arc<Letters>,
    _workers: JoinSet<()>,
}

/// A bus with so many core stages, and so many subscribers plugged in, on one topic.
async fn rig(core: usize, plugged: usize) -> Rig {
    let store = Store::open(None, Sync::Normal).await.unwrap();
    rig_on(&store, core, plugged)
}

fn rig_on(store: &Store, core: usize, plugged: usize) -> Rig {
    let wait = Duration::from_millis(1);
    let redelivery = Redelivery { max_receives: 5, backoff: wait, minute: Duration::from_millis(300) };
    let metrics = Metrics::default();
    let bus = LocalBus::new(redelivery, metrics.clone(), Tracer::default());
    let sinks: Vec<Arc<Sink>> = (0..core + plugged).map(|_| Arc::default()).collect();
    let subscription = |(name, sink): (&&'static str, &Arc<Sink>)| Subscription {
        name,
        source: Source::Topic(Topic::ToProcess),
        batch: 10,
        workers: 2,
        intake: Intake::Pushed,
        every_minute: false,
        subscriber: sink.clone(),
    };
    let letters = Arc::new(Letters::default());
    let kept = Kept { dead_letters: letters.clone(), ..store.kept(&Clock::system()) };
    let mut core_stages: Vec<_> = ["one", "two", "three"].iter().zip(&sinks).map(subscription).collect();
    let plugged = core_stages.split_off(core);
    let workers = bus.start(core_stages, plugged, &kept);
    Rig { bus, metrics, sinks, letters, _workers: workers }
}

impl Rig {
    /// Waits until everybody has had this many messages in all.
    async fn until_taken(&self, messages: usize) {
        let taken = || self.sinks.iter().all(|sink| sink.ids().len() >= messages);
        until("everybody has what was published", taken).await;
    }

    async fn until_buried(&self, letters: usize) {
        until("dead letters are kept", || self.letters.0.lock().unwrap().len() >= letters).await;
    }
}

/// What the bus says of a queue: how many messages wait, for how long, and how many dead letters there are.
async fn measured(rig: &Rig, queue: &str) -> (f64, f64, f64) {
    let _ = rig.metrics.take();
    rig.bus.measure().await.unwrap();
    let taken = rig.metrics.take();
    let value = |metric: Metric, queue: String| {
        let of = |series: &&Series| series.metric == metric && series.labels[0].1 == queue;
        match &taken.iter().find(of).expect("it is measured").values {
            Values::Each(values) if values.len() == 1 => values[0],
            other => panic!("one value, not {other:?}"),
        }
    };
    let (name, letters) = (format!("{STACK}-{queue}"), format!("{STACK}-{queue}-dead-letters"));
    (
        value(Metric::QueueDepth, name.clone()),
        value(Metric::OldestMessage, name),
        value(Metric::QueueDepth, letters),
    )
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_mins(1), "in a minute it did not come about that {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn message(id: &str) -> Message {
    Message {
        id: id.into(),
        attributes: std::collections::HashMap::new(),
        body: format!("\"{id}\"").into(),
        sent: None,
    }
}

fn messages(count: usize) -> (Vec<Message>, Vec<String>) {
    let ids: Vec<String> = (0..count).map(|n| format!("{n:04}")).collect();
    (ids.iter().map(|id| message(id)).collect(), ids)
}

#[tokio::test]
async fn a_message_that_sns_would_not_take_is_not_taken_and_its_neighbours_are() {
    let rig = rig(1, 1).await;
    let sized = |id: &str, bytes: usize| Message { body: "x".repeat(bytes).into(), ..message(id) };
    let batch = vec![sized("a", MAX_MESSAGE), sized("b", MAX_MESSAGE + 1), sized("c", 1)];
    let answers = rig.bus.publish(Topic::ToProcess, batch).await;
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert!(answers[1].as_ref().unwrap_err().to_string().contains("larger than SNS takes"));
    rig.until_taken(2).await;
    assert_eq!(rig.sinks[1].ids(), ["a", "c"]);
}

#[tokio::test]
async fn each_message_gets_to_every_subscription_in_batches() {
    let rig = rig(1, 1).await;
    let (all, ids) = messages(100);
    assert!(rig.bus.publish(Topic::ToProcess, all).await.iter().all(Result::is_ok));
    assert!(rig.bus.publish(Topic::DecryptErrors, vec![message("for nobody")]).await[0].is_ok());
    rig.until_taken(100).await;
    for sink in rig.sinks {
        assert_eq!(sink.ids(), ids);
        let largest = sink.got.lock().unwrap().iter().map(|(_, batch)| *batch).max();
        assert_eq!(largest, Some(10));
    }
}

#[tokio::test]
async fn what_fails_comes_again_and_after_five_receives_is_a_dead_letter() {
    for (core, plugged) in [(1, 0), (0, 1)] {
        let rig = rig(core, plugged).await;
        rig.sinks[0].failures.store(4, Ordering::SeqCst);
        rig.bus.publish(Topic::ToProcess, vec![message("patience")]).await;
        rig.until_taken(1).await;
        assert_eq!(
            (rig.sinks[0].ids(), rig.letters.0.lock().unwrap().len()),
            (vec!["patience".to_owned()], 0)
        );
        rig.sinks[0].failures.store(5, Ordering::SeqCst);
        rig.bus.publish(Topic::ToProcess, vec![message("hopeless")]).await;
        rig.until_buried(1).await;
        let letters = rig.letters.0.lock().unwrap();
        assert_eq!((letters[0].receives, letters[0].why.as_str()), (5, "failed by the test"));
        assert_eq!(rig.sinks[0].ids().len(), 1);
    }
}

#[tokio::test]
async fn a_message_that_panics_its_subscriber_takes_no_neighbour_with_it() {
    for (core, plugged) in [(1, 0), (0, 1)] {
        let rig = rig(core, plugged).await;
        *rig.sinks[0].panic_on.lock().unwrap() = Some("0005".into());
        let (all, mut ids) = messages(10);
        rig.bus.publish(Topic::ToProcess, all).await;
        rig.until_buried(1).await;
        ids.remove(5);
        assert_eq!(rig.sinks[0].ids(), ids);
        assert_eq!(rig.letters.0.lock().unwrap()[0].message.id, "0005");
    }
}

#[tokio::test]
async fn what_a_subscriber_refuses_is_a_dead_letter_at_once_with_why() {
    for (core, plugged) in [(1, 0), (0, 1)] {
        let rig = rig(core, plugged).await;
        *rig.sinks[0].refused.lock().unwrap() = Some("0001".into());
        rig.bus.publish(Topic::ToProcess, messages(3).0).await;
        rig.until_buried(1).await;
        rig.until_taken(2).await;
        let letters = rig.letters.0.lock().unwrap();
        assert_eq!((letters[0].message.id.as_str(), letters[0].receives), ("0001", 1));
        assert_eq!(letters[0].why, "refused by the test");
    }
}

#[tokio::test]
async fn a_pause_leaves_the_queue_alone_and_is_no_message_s_fault() {
    pauses(None).await;
}

#[tokio::test]
async fn whoever_pauses_for_long_may_be_back_sooner() {
    pauses(Some(Timestamp::now() + SignedDuration::from_hours(1))).await;
}

async fn pauses(until: Option<Timestamp>) {
    // given somebody who is down
    let rig = rig(0, 1).await;
    rig.sinks[0].paused.store(true, Ordering::SeqCst);
    *rig.sinks[0].paused_until.lock().unwrap() = until;
    // when there is more for them than they ever took, for longer than five tries
    rig.bus.publish(Topic::ToProcess, messages(25).0).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // then they were asked once a "minute", which is 300 ms here
    let asked = rig.sinks[0].asked.load(Ordering::SeqCst);
    assert!((3..=8).contains(&asked), "{asked}");
    // and get everything once they are back
    rig.sinks[0].paused.store(false, Ordering::SeqCst);
    rig.until_taken(25).await;
    assert_eq!(rig.letters.0.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn whoever_is_plugged_in_keeps_no_publisher_waiting_and_misses_nothing_over_a_restart() {
    // given a core stage that works and a subscriber that hangs
    let store = Store::open(None, Sync::Normal).await.unwrap();
    let rig = rig_on(&store, 1, 1);
    rig.sinks[1].stalled.store(true, Ordering::SeqCst);
    // when far more is published than a queue in memory holds
    let large = |n: usize| Message { body: "x".repeat(100 * 1024).into(), ..message(&format!("{n:04}")) };
    let published = async {
        for n in 0..500 {
            assert!(rig.bus.publish(Topic::ToProcess, vec![large(n)]).await[0].is_ok());
        }
    };
    tokio::time::timeout(Duration::from_mins(1), published).await.expect("nobody waits");
    rig.bus.drained().await;
    assert_eq!((rig.sinks[0].ids().len(), rig.sinks[1].ids().len()), (500, 0));
    // then another process that opens the same store delivers it
    let next = rig_on(&store, 0, 2);
    until("the next process delivered it", || next.sinks[1].ids().len() == 500).await;
}

#[tokio::test]
async fn the_core_s_queues_are_bounded_and_publishers_wait() {
    let rig = rig(1, 0).await;
    let Rig { bus, sinks, .. } = &rig;
    sinks[0].stalled.store(true, Ordering::SeqCst);
    let large = || Message { body: "x".repeat(100 * 1024).into(), ..message("large") };
    let mut published = 0;
    // when the subscriber is stalled, publishing goes on until the queue is full
    while tokio::time::timeout(Duration::from_millis(200), bus.publish(Topic::ToProcess, vec![large()]))
        .await
        .is_ok()
    {
        published += 1;
        assert!(published < 1000, "the queue has no bound");
    }
    let shop = "AMIS1".parse().unwrap();
    assert!(!bus.has_room(Topic::ToProcess, &shop), "and the door is told");
    assert!(bus.has_room(Topic::ToDecrypt, &shop), "of this topic alone");
    sinks[0].stalled.store(false, Ordering::SeqCst);
    bus.drained().await;
    assert!(bus.has_room(Topic::ToProcess, &shop));
    assert_eq!(sinks[0].ids().len(), published);
}

#[tokio::test]
async fn a_shop_that_fills_a_queue_leaves_as_much_to_another() {
    let rig = rig(1, 0).await;
    rig.sinks[0].stalled.store(true, Ordering::SeqCst);
    let [one, two] = ["AMIS1", "AMIS2"].map(|shop| shop.parse::<ShopId>().unwrap());
    let large = || {
        let attributes = [("shop_id".to_owned(), one.to_string())].into();
        Message { body: "x".repeat(100 * 1024).into(), attributes, ..message("large") }
    };
    let mut published = 0;
    while rig.bus.has_room(Topic::ToProcess, &one) {
        rig.bus.publish(Topic::ToProcess, vec![large()]).await.remove(0).unwrap();
        published += 1;
    }
    // then it has seven of the sixteen MiB, and the other as much room as it had
    assert_eq!(published, 7 * 1024 / 101 + 1);
    assert!(rig.bus.has_room(Topic::ToProcess, &two));
    rig.sinks[0].stalled.store(false, Ordering::SeqCst);
    rig.bus.drained().await;
    assert!(rig.bus.has_room(Topic::ToProcess, &one));
}

#[tokio::test]
async fn queues_say_how_much_waits_in_them_since_when_and_what_was_given_up() {
    // given a core stage and a subscriber that have one message each in hand, and two that wait behind it
    let rig = rig(1, 1).await;
    for sink in &rig.sinks {
        sink.stalled.store(true, Ordering::SeqCst);
    }
    for n in 0..4 {
        rig.bus.publish(Topic::ToProcess, vec![message(&n.to_string())]).await.remove(0).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;

    // then they say so: of the core's queue those that nobody has in hand, of a durable one all
    let (waiting, oldest, letters) = measured(&rig, "one").await;
    assert!((1.0..=2.0).contains(&waiting) && oldest >= 1.0, "{waiting} {oldest}");
    assert!(letters.abs() < f64::EPSILON, "{letters}");
    let (waiting, oldest, letters) = measured(&rig, "two").await;
    assert_eq!((waiting, letters), (4.0, 0.0));
    assert!(oldest >= 1.0, "{oldest}");

    // when one is given up, and the rest is dealt with
    *rig.sinks[0].refused.lock().unwrap() = Some("3".into());
    for sink in &rig.sinks {
        sink.stalled.store(false, Ordering::SeqCst);
    }
    rig.until_buried(1).await;
    until("all else is dealt with", || rig.sinks[1].ids().len() == 4 && rig.bus.outstanding() == 0).await;

    // then nothing waits any more
    for (queue, given_up) in [("one", 1.0), ("two", 0.0)] {
        let mut told = measured(&rig, queue).await;
        for _ in 0..100 {
            if told == (0.0, 0.0, given_up) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            told = measured(&rig, queue).await;
        }
        assert_eq!(told, (0.0, 0.0, given_up), "{queue}");
    }
}

#[tokio::test]
async fn a_clock_that_was_ahead_and_is_set_right_keeps_no_message_waiting() {
    // given a durable queue whose clock was three days ahead while one message came and another failed
    let store = Store::open(None, Sync::Normal).await.unwrap();
    let right = Timestamp::now();
    let now = Arc::new(Mutex::new(right + SignedDuration::from_hours(72)));
    let ticking = now.clone();
    let queues = store.kept(&Clock::from_fn(move || *ticking.lock().unwrap())).queues;
    queues.put("one", &[message("1"), message("2")], Duration::ZERO).await.unwrap();
    let failed = queues.due("one", 1).await.unwrap().remove(0);
    queues.later("one", failed, Duration::from_secs(8)).await.unwrap();

    // when it is set right
    *now.lock().unwrap() = right;

    // then both are due, and what fails now waits as long as it should
    let due = queues.due("one", 10).await.unwrap();
    assert_eq!(due.len(), 2);
    queues.later("one", due.into_iter().next().unwrap(), Duration::from_secs(8)).await.unwrap();
    assert_eq!(queues.due("one", 10).await.unwrap().len(), 1);
    *now.lock().unwrap() = right + SignedDuration::from_secs(8);
    assert_eq!(queues.due("one", 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_wake_up_comes_to_the_queue_it_was_sent_to_after_its_time_also_in_another_process() {
    // given two subscribers on a topic, of which one is to be woken
    let store = Store::open(None, Sync::Normal).await.unwrap();
    let now = Arc::new(Mutex::new(Timestamp::now() - SignedDuration::from_mins(2)));
    let ticking = now.clone();
    let clock = Clock::from_fn(move || *ticking.lock().unwrap());
    let woken = QueueWakes { queues: store.kept(&clock).queues, queue: "two" };
    woken.wake("AMIS1", Duration::from_secs(30)).await.unwrap();
    // and not later than in a minute, after which the minute does it
    woken.wake("AMIS2", Duration::from_hours(1)).await.unwrap();
    let queues = store.kept(&clock).queues;
    let due = async |seconds| {
        *now.lock().unwrap() += SignedDuration::from_secs(seconds);
        let due = queues.due("two", 10).await.unwrap();
        due.iter().map(|queued| queued.message.woken().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(due(29).await, []);
    assert_eq!(due(1).await, [Some("AMIS1".to_owned())]);
    assert_eq!(due(30).await.len(), 2);
    assert_eq!(queues.due("one", 10).await.unwrap().len(), 0);
    // when the bus is there, which looks by itself
    let rig = rig_on(&store, 0, 2);
    rig.bus.publish(Topic::ToProcess, vec![message("1")]).await;
    until("it is woken", || rig.sinks[1].ids().len() == 3).await;
    assert_eq!(
        (rig.sinks[0].ids(), rig.sinks[1].ids()),
        (vec!["1".to_owned()], vec!["1".to_owned(), "wake-up AMIS1".to_owned(), "wake-up AMIS2".to_owned(),])
    );
    // and what it was told to wait for is not how long a message takes
    let taken = rig.metrics.take();
    let latency = taken.iter().filter(|series| series.metric == Metric::HopLatency);
    assert!(
        latency
            .flat_map(|series| match &series.values {
                Values::Each(values) => values.clone(),
                Values::Sum(_) => Vec::new(),
            })
            .all(|took| took < 20_000.0)
    );
}
