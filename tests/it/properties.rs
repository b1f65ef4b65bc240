//! What must hold always: any interleaving, repetition, loss and retry of deliveries, and any crash between two effects,
//! gives the same events, stock and turnover, and no sale is ever lost or counted twice.
//!
//! `PROPTEST_CASES=1000 cargo nextest run --all-features --test it properties::` tries more than the usual twelve.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use jiff::{SignedDuration, Timestamp};
use kassa::questions::reconcile::ReconcileFilter;
use kassa::questions::rejected::RejectedFilter;
use kassa_bus::{Message, Topic};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use crate::common::world::{NOON, World, content, uuid};

/// What a till posts.
#[derive(Debug, Clone)]
enum Post {
    Good {
        id: i64,
    },
    /// The same id again, with other content.
    Conflict {
        id: i64,
    },
    WrongKey {
        id: i64,
    },
    Rubbish {
        id: i64,
    },
    /// One of a few classic envelopes, under one of a few ids.
    Classic {
        envelope: usize,
        id: i64,
    },
}

/// What was posted so far, and kept.
struct Posted {
    sealed: BTreeMap<i64, Vec<Post>>,
    /// The classic requests, before they have their ids.
    envelopes: Vec<String>,
    /// Which of them under which ids.
    classic: BTreeSet<(usize, i64)>,
}

impl Posted {
    async fn nothing(world: &World) -> Self {
        let mut envelopes = Vec::new();
        for pieces in ["1", "2", "3"] {
            envelopes.push(world.classic(Some("ID"), &[("98", pieces, "9.50")]).await);
        }
        Self { sealed: BTreeMap::new(), envelopes, classic: BTreeSet::new() }
    }
}

/// What can happen to messages, to the keys and to the projection.
#[derive(Debug, Clone)]
enum Step {
    Post(Post),
    /// Delivers a batch of what waits, from anywhere in the queue; perhaps keeps copies in it, as an
    /// at-least-once queue does.
    Deliver {
        from: usize,
        most: usize,
        again: bool,
    },
    /// Whoever handles a batch dies, after so many steps of its work; the batch comes again.
    Crash {
        from: usize,
        most: usize,
        after: usize,
    },
    /// Messages on their way are lost.
    Lose {
        from: usize,
        most: usize,
    },
    /// Minutes pass, each with what is done once a minute.
    Minutes(u32),
    /// Somebody puts what was rejected through again, and sends on what came to no end.
    Redrive,
    /// The next publishes fail.
    RefusePublishes(u32),
    KeysUnavailable(bool),
    /// Projects from any earlier place in the stream.
    Project {
        back: u64,
        most: usize,
    },
    Rebuild,
    /// The clock goes to so many seconds after noon: back, too, as from one function's to another's.
    Clock(i64),
}

fn posts() -> impl Strategy<Value = Post> {
    let id = 0i64..8;
    prop_oneof![
        6 => id.clone().prop_map(|id| Post::Good { id }),
        1 => id.clone().prop_map(|id| Post::Conflict { id }),
        1 => id.clone().prop_map(|id| Post::WrongKey { id }),
        1 => id.prop_map(|id| Post::Rubbish { id }),
        3 => (0usize..3, 0i64..4).prop_map(|(envelope, id)| Post::Classic { envelope, id }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => posts().prop_map(Step::Post),
        6 => (any::<usize>(), 1usize..5, any::<bool>()).prop_map(|(from, most, again)| Step::Deliver { from, most, again }),
        3 => (any::<usize>(), 1usize..5, 0usize..60).prop_map(|(from, most, after)| Step::Crash { from, most, after }),
        1 => (any::<usize>(), 1usize..5).prop_map(|(from, most)| Step::Lose { from, most }),
        1 => (1u32..25).prop_map(Step::Minutes),
        1 => Just(Step::Redrive),
        1 => (1u32..4).prop_map(Step::RefusePublishes),
        1 => any::<bool>().prop_map(Step::KeysUnavailable),
        2 => (0u64..4, 1usize..4).prop_map(|(back, most)| Step::Project { back, most }),
        1 => Just(Step::Rebuild),
        2 => (0i64..600).prop_map(Step::Clock),
    ];
    prop::collection::vec(step, 1..60)
}

async fn body(world: &World, envelopes: &[String], post: &Post) -> String {
    let seal = |key_of: &'static str, id: i64, text: String| async move {
        world.seal_for("AMIS1", key_of, &uuid(id), &text).await
    };
    let sale = |id: i64, item: u8, pieces: i64| {
        let item = ["98", "12345", "90001", "777"][usize::from(item)];
        content(&uuid(id), NOON, &[(item, &pieces.to_string(), &format!("{pieces}.25"))])
    };
    match post {
        // A till keeps its sale: the same id is the same lines, however often it is posted.
        Post::Good { id } => seal("AMIS1", *id, sale(*id, u8::try_from(id % 4).unwrap(), id % 5 + 1)).await,
        Post::Conflict { id } => seal("AMIS1", *id, sale(*id, 3, -40)).await,
        Post::WrongKey { id } => seal("AMIS2", *id, sale(*id, 0, 1)).await,
        Post::Rubbish { id } => seal("AMIS1", *id, json!({"rubbish": id}).to_string()).await,
        Post::Classic { envelope, id } => {
            envelopes[*envelope].replace("\"ID\"", &format!("\"{id}-20261122\""))
        }
    }
}

async fn take(world: &World, step: &Step, posted: &mut Posted) {
    match step {
        Step::Post(post) => {
            let answer = world.posts(body(world, &posted.envelopes, post).await).await;
            // Kept, whether the till heard a yes or that it was not published; not, if eight of its id are not judged.
            assert!([200, 202, 429, 503].contains(&answer.status), "{}", answer.body);
            if answer.status == 429 {
                return;
            }
            match post {
                Post::Classic { envelope, id } => drop(posted.classic.insert((*envelope, *id))),
                Post::Good { id } | Post::Conflict { id } | Post::WrongKey { id } | Post::Rubbish { id } => {
                    posted.sealed.entry(*id).or_default().push(post.clone());
                }
            }
        }
        Step::Deliver { from, most, again } => deliver(world, *from, *most, *again).await,
        Step::Crash { from, most, after } => crash(world, *from, *most, *after).await,
        Step::Lose { from, most } => drop(some(world, *from, *most)),
        Step::Minutes(count) => {
            for _ in 0..*count {
                world.passes(SignedDuration::from_mins(1));
                world.try_minute().await;
            }
        }
        Step::Redrive => {
            let filter = RejectedFilter { shop: Some("AMIS1".into()), ..RejectedFilter::default() };
            let _ = world.questions.retry(&filter, &*world.post, &|_, _| {}).await;
            let all = ReconcileFilter::default();
            let _ = world.questions.reconcile(&all, Some(&*world.post), &|_, _| {}).await;
        }
        Step::RefusePublishes(times) => world.post.refuse.store(*times, Ordering::SeqCst),
        Step::KeysUnavailable(now) => world.keys.unavailable.store(*now, Ordering::SeqCst),
        Step::Project { back, most } => {
            let seen = world.store.read_model.checkpoint(kassa::embedded::SHARD).await.unwrap();
            let from: u64 =
                seen.position().unwrap().map_or(0, |position| position.sequence.0.parse().unwrap());
            let batch = world.stream(from.saturating_sub(back * 1000), *most).await;
            world.project_batch(&batch).await.into_iter().for_each(Result::unwrap);
        }
        Step::Rebuild => drop(world.questions.rebuild(&|_, _| {}).await.unwrap()),
        Step::Clock(seconds) => {
            let noon: Timestamp = NOON.parse().unwrap();
            *world.now.lock().unwrap() = noon + SignedDuration::from_secs(*seconds);
        }
    }
}

/// Delivers some of the waiting messages; those that fail go back, as a queue would have it.
async fn deliver(world: &World, from: usize, most: usize, again: bool) {
    let Some((topic, batch)) = some(world, from, most) else { return };
    let verdicts = world.deliver(topic, &batch).await;
    let mut waiting = world.post.waiting.lock().unwrap();
    for (message, verdict) in batch.into_iter().zip(verdicts) {
        if verdict.is_err() || again {
            waiting.push_back((topic, message));
        }
    }
}

/// Takes messages of one topic out of what waits.
fn some(world: &World, from: usize, most: usize) -> Option<(Topic, Vec<Message>)> {
    let mut waiting = world.post.waiting.lock().unwrap();
    let from = from.checked_rem(waiting.len())?;
    waiting.rotate_left(from);
    let topic = waiting[0].0;
    let mut batch: Vec<Message> = Vec::new();
    while batch.len() < most && waiting.front().is_some_and(|(t, _)| *t == topic) {
        batch.extend(waiting.pop_front().map(|(_, message)| message));
    }
    Some((topic, batch))
}

/// Begins to deliver, and stops wherever the work is by then. What was begun in the store may still come to its end.
async fn crash(world: &World, from: usize, most: usize, after: usize) {
    let Some((topic, batch)) = some(world, from, most) else { return };
    {
        let mut work = std::pin::pin!(world.deliver(topic, &batch));
        for _ in 0..after {
            if futures::poll!(work.as_mut()).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    world.post.waiting.lock().unwrap().extend(batch.into_iter().map(|message| (topic, message)));
}

/// Lets everything end: no more faults, what came to no end sent on, each message delivered, the stream projected.
async fn calm(world: &World) {
    world.post.refuse.store(0, Ordering::SeqCst);
    world.keys.unavailable.store(false, Ordering::SeqCst);
    let all = ReconcileFilter::default();
    world.questions.reconcile(&all, Some(&*world.post), &|_, _| {}).await.unwrap();
    // What waits for another's end fails until that one's turn has come.
    let waiting = || world.post.waiting.lock().unwrap().len();
    let turns = 3 * waiting() + 3;
    for _ in 0..turns {
        world.pass_on().await;
    }
    assert_eq!(waiting(), 0, "not everything comes to an end");
    let seen = world.store.read_model.checkpoint(kassa::embedded::SHARD).await.unwrap();
    let rest =
        world.stream(seen.position().unwrap().map_or(0, |p| p.sequence.0.parse().unwrap()), 10_000).await;
    world.project_batch(&rest).await.into_iter().for_each(Result::unwrap);
}

/// An envelope is recorded once at most, and once for certain if one of its ids was no other's.
async fn classics_count_once(world: &World, posted: &Posted) -> Result<(), TestCaseError> {
    let mut recorded: BTreeMap<String, u32> = BTreeMap::new();
    for id in posted.classic.iter().map(|(_, id)| id).collect::<BTreeSet<_>>() {
        let history = world.sale(&format!("{id}-20261122")).await;
        let of: Vec<_> = history.events.iter().filter(|event| event.kind == "recorded").collect();
        prop_assert!(of.len() <= 1, "{}: {:?}", id, posted.classic);
        for event in of {
            *recorded
                .entry(event.body["totals"]["gross_number"].as_str().unwrap().to_owned())
                .or_default() += 1;
        }
    }
    for (envelope, id) in &posted.classic {
        let times = recorded.get(&(envelope + 1).to_string()).copied().unwrap_or_default();
        let its_own = posted.classic.iter().filter(|(_, other)| other == id).count() == 1;
        prop_assert!(
            times == 1 || (times == 0 && !its_own),
            "{}: {} in {:?}",
            envelope,
            times,
            posted.classic
        );
    }
    Ok(())
}

async fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let world = World::open().await;
    let mut posted = Posted::nothing(&world).await;
    for step in steps {
        take(&world, step, &mut posted).await;
        let check = world.questions.check(&|_, _| {}).await.unwrap();
        prop_assert_eq!(check.accepted, check.recorded + check.rejected + check.pending);
        prop_assert_eq!(check.mismatches, Vec::<String>::new(), "after {:?}", step);
    }
    calm(&world).await;
    let check = world.balanced().await;
    prop_assert_eq!(check.pending, 0);
    for (id, posts) in &posted.sealed {
        let history = world.sale(&uuid(*id)).await;
        let opens = |post: &Post| matches!(post, Post::Good { .. } | Post::Conflict { .. });
        let recorded = history.events.iter().filter(|e| e.kind == "recorded").count();
        prop_assert_eq!(recorded, usize::from(posts.iter().any(opens)), "sale {}: {:?}", id, posts);
    }
    classics_count_once(&world, &posted).await?;
    // Rebuilt from the events, the read models are what they are.
    let before = world.questions.stock(None).await.unwrap();
    world.questions.rebuild(&|_, _| {}).await.unwrap();
    prop_assert_eq!(before, world.questions.stock(None).await.unwrap());
    Ok(())
}

#[test]
fn any_interleaving_repetition_and_retry_gives_the_same_books() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    runner.run(&steps(), |steps| runtime.block_on(run(&steps))).unwrap();
}

#[tokio::test]
async fn the_order_of_deliveries_does_not_show_in_the_books() {
    let mut books = Vec::new();
    for reversed in [false, true] {
        let world = World::open().await;
        for id in 0..6 {
            world.posts(body(&world, &[], &Post::Good { id }).await).await;
        }
        if reversed {
            world.post.waiting.lock().unwrap().make_contiguous().reverse();
        }
        let decrypts: Vec<_> = world.post.waiting.lock().unwrap().drain(..).map(|(_, m)| m).collect();
        assert!(world.deliver(Topic::ToDecrypt, &decrypts).await.iter().all(Result::is_ok));
        world.settle().await;
        books.push((world.questions.stock(None).await.unwrap(), world.balanced().await));
    }
    assert_eq!(books[0], books[1]);
}
