//! Any number of envelopes under one sale's id: a stranger keeps no till out, costs a bounded share, and changes nothing of how a
//! sale stands. And sales that were left behind where nobody looks.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::{Put, TransactWriteItem};
use futures::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use kassa::questions::Status;
use kassa::questions::reconcile::ReconcileFilter;
use kassa_bus::message::{Envelope, Reason};
use kassa_bus::table::{n, s};
use kassa_bus::{Clock, Metric, Network, SaleId, Settings, ShopId, Subscriber, Topic};
use kassa_pipeline::envelope_limit::UNJUDGED;
use kassa_pipeline::event::{Accepted, Event, EventKey, Fact, Rejected, StoredEvent, envelope_hash};
use kassa_pipeline::event_store::{SHOWN_OF_A_KIND, Scan, to_item};
use kassa_pipeline::reconcile::Reconcile;
use kassa_pipeline::settlement::MAX_ENVELOPES;
use kassa_pipeline::unsettled::Finder;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::common::world::{NOON, World, content, is, uuid};

const SECOND: SignedDuration = SignedDuration::from_secs(1);
const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const LINES: &[(&str, &str, &str)] = &[("98", "1", "18.95")];

fn ids(id: &str) -> (ShopId, SaleId) {
    ("AMIS1".parse().unwrap(), id.parse().unwrap())
}

impl World {
    /// Another envelope that does not open.
    async fn junk(&self, id: &str) -> String {
        self.seal_for("AMIS1", "AMIS2", id, "junk").await
    }

    fn on_their_way(&self) -> usize {
        self.post.waiting.lock().unwrap().len()
    }

    async fn outcome_of(&self, id: &str) -> Value {
        serde_json::from_str(&self.accept.outcome("AMIS1", id, "192.0.2.1".into()).await.body).unwrap()
    }

    /// What is lost on its way.
    fn lost(&self) {
        self.post.waiting.lock().unwrap().clear();
    }

    /// `pending` and `given_up`, after so many minutes.
    async fn after_minutes(&self, count: u32) -> (f64, f64) {
        for _ in 0..count {
            self.passes(MINUTE);
            self.minute().await;
        }
        let [pending, given_up] =
            [Metric::Pending, Metric::GivenUp].map(|metric| self.measured(metric, None).unwrap());
        (pending, given_up)
    }

    /// Puts items as nobody's code does.
    async fn puts(&self, items: Vec<StoredEvent>) {
        for item in items {
            let put = Put::builder().table_name(&self.store.tables.events).set_item(Some(to_item(item)));
            let put = TransactWriteItem::builder().put(put.build().unwrap()).build();
            self.store.client.transact_write_items().transact_items(put).send().await.unwrap();
        }
    }

    /// A reconcile of a process that begins now.
    fn reconcile_anew(&self) -> Reconcile {
        let now = self.now.clone();
        let clock = Clock::from_fn(move || *now.lock().unwrap());
        let finder = Finder { store: self.store.events.clone() };
        let told = (clock, self.metrics.clone());
        Reconcile::told(&Settings::none(), finder, self.store.shops(), self.post.clone(), told).unwrap()
    }

    /// How many rows say that a sale is there.
    async fn rows(&self) -> usize {
        self.store.shops().rows("#pending").await.unwrap().len()
    }
}

#[tokio::test]
async fn eight_envelopes_of_a_sale_are_unjudged_at_once_and_its_till_gets_in_with_its_second_try() {
    let world = World::open().await;
    let id = uuid(1);
    // given a stranger who posts a hundred under its id
    let mut junk = Vec::new();
    for _ in 0..50 {
        let request: Value = serde_json::from_str(&world.junk(&id).await).unwrap();
        junk.push(json!({"message_id": id, "sealed": request["sealed"]}));
    }
    let batch = json!({"shop_id": "AMIS1", "sales": junk}).to_string();
    for round in 0..2 {
        let answer = world.posts(&batch).await;
        let answered: Value = serde_json::from_str(&answer.body).unwrap();
        let taken = answered["sales"].as_array().unwrap().iter().filter(|sale| sale["status"] == "accepted");
        assert_eq!((answer.status, answer.retry_after, taken.count()), (207, Some(1), UNJUDGED), "{round}");
    }
    assert_eq!(world.on_their_way(), UNJUDGED);
    // then its till is told to come again, as another sale is not
    let sale = world.sealed(&id, LINES).await;
    let answer = world.posts(&sale).await;
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((answer.status, answer.retry_after, &problem["status"]), (429, Some(1), &json!(429)));
    assert_eq!(world.posts(world.sealed(&uuid(2), LINES).await).await.status, 202);
    // and is let in when it does, before what comes first, though nothing of all that is judged
    world.passes(SECOND);
    assert_eq!(world.posts(world.junk(&id).await).await.status, 429);
    assert_eq!(world.posts(&sale).await.status, 202);
    assert_eq!(world.on_their_way(), UNJUDGED + 2);
    world.settle().await;
    is(&world.sale(&id).await, Status::Recorded);
    // and once they are judged they keep nobody out
    world.passes(SECOND);
    assert_eq!(world.posts(world.junk(&id).await).await.status, 202);
    world.settle().await;
    assert_eq!(world.outcome_of(&id).await["status"], "recorded");
    assert_eq!(world.balanced().await.recorded, 2);
}

/// What happens between a till's tries.
#[derive(Debug, Clone)]
enum Step {
    Junk(usize),
    /// So many of what waits are handled.
    Deliver(usize),
    /// One of what waits is lost.
    Lose,
    Passes(i64),
    Minute,
}

async fn interleaved(steps: &[Step], first: usize) -> Result<(), TestCaseError> {
    let world = World::open().await;
    let id = uuid(1);
    let sale = world.sealed(&id, LINES).await;
    let (mut tries, mut next, mut let_in) = (0, world.now.lock().unwrap().to_owned(), false);
    for (n, step) in steps.iter().enumerate() {
        match step {
            Step::Junk(count) => {
                for _ in 0..*count {
                    world.posts(world.junk(&id).await).await;
                }
            }
            Step::Deliver(count) => {
                for _ in 0..*count {
                    let Some((topic, message)) = world.post.waiting.lock().unwrap().pop_front() else {
                        break;
                    };
                    world.deliver(topic, &[message]).await.pop().unwrap().unwrap();
                }
            }
            Step::Lose => drop(world.post.waiting.lock().unwrap().pop_front()),
            Step::Passes(millis) => world.passes(SignedDuration::from_millis(*millis)),
            Step::Minute => world.minute().await,
        }
        let now = *world.now.lock().unwrap();
        if n >= first && !let_in && now >= next {
            (tries, next) = (tries + 1, now + SECOND);
            let_in = world.posts(&sale).await.status == 202;
            prop_assert!(let_in || tries < 2, "{} tries", tries);
        }
    }
    for _ in 0..2 {
        world.passes(SECOND);
        let_in = let_in || world.posts(&sale).await.status == 202;
    }
    prop_assert!(let_in);
    // What was lost on its way is sent again.
    let all = ReconcileFilter::default();
    world.questions.reconcile(&all, Some(&*world.post), &|_, _| {}).await.unwrap();
    world.settle().await;
    let check = world.balanced().await;
    prop_assert_eq!((check.accepted, check.recorded, check.pending), (1, 1, 0));
    Ok(())
}

#[test]
fn whatever_a_stranger_posts_under_its_id_a_sale_is_recorded_within_two_tries_of_its_till() {
    let step = prop_oneof![
        4 => (1usize..12).prop_map(Step::Junk),
        3 => (1usize..20).prop_map(Step::Deliver),
        1 => Just(Step::Lose),
        4 => (1i64..900).prop_map(Step::Passes),
        1 => Just(Step::Minute),
    ];
    let steps = (prop::collection::vec(step, 1..24), 0usize..12);
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    runner.run(&steps, |(steps, first)| runtime.block_on(interleaved(&steps, first))).unwrap();
}

#[tokio::test]
async fn what_repeats_is_answered_at_once_and_published_again_only_while_it_is_not_settled() {
    let world = World::open().await;
    let good = world.sealed(&uuid(1), LINES).await;
    let bad = world.junk(&uuid(2)).await;
    let classic = world.classic(Some("7-20261122"), LINES).await;
    let all = [(&good, 202), (&bad, 202), (&classic, 200)];
    let post = async || {
        for (body, yes) in all {
            assert_eq!(world.posts(body).await.status, yes);
        }
        world.on_their_way()
    };
    // given three sales on their way, whose tills come again at once
    assert_eq!((post().await, post().await), (3, 3));
    // and again when they should have come to their ends
    world.passes(SignedDuration::from_secs(11));
    assert_eq!((post().await, post().await), (6, 6));
    world.settle().await;
    // then once they are settled nothing is sent on its way, now or later
    for minutes in [0, 1, 24 * 60] {
        world.passes(MINUTE * minutes);
        assert_eq!(post().await, 0);
    }
    assert_eq!(world.counted(Metric::Accepted), 3);
    let check = world.balanced().await;
    assert_eq!((check.recorded, check.rejected), (2, 1));
}

#[tokio::test]
async fn a_sale_that_is_stuck_beside_a_strangers_rejected_rubbish_is_pending_to_everybody() {
    let world = World::open().await;
    let id = uuid(1);
    // given rubbish that was rejected, and the till's own envelope that got lost
    world.posts(world.junk(&id).await).await;
    world.settle().await;
    is(&world.sale(&id).await, Status::Rejected);
    assert_eq!(world.outcome_of(&id).await["status"], "rejected");
    world.posts(world.sealed(&id, LINES).await).await;
    world.lost();
    // then it is pending, whether rejections say whose they are in their keys or, as before, in their bodies
    for rejected_of_old in [false, true] {
        if rejected_of_old {
            of_old(&world, &id).await;
        }
        is(&world.sale(&id).await, Status::Pending);
        assert_eq!(world.outcome_of(&id).await["status"], "pending");
        let check = world.balanced().await;
        assert_eq!((check.accepted, check.rejected, check.pending), (1, 0, 1));
        assert_eq!(world.after_minutes(2).await, (1.0, 0.0));
    }
    // and is sent on its way like any other
    assert_eq!(world.after_minutes(2).await.0.to_string(), "1");
    world.settle().await;
    is(&world.sale(&id).await, Status::Recorded);
    assert_eq!(world.outcome_of(&id).await["status"], "recorded");
    assert_eq!(world.after_minutes(1).await, (0.0, 0.0));
    assert_eq!(world.balanced().await.recorded, 1);
}

/// Has a sale's one rejection stand where rejections stood before their keys had hashes.
async fn of_old(world: &World, id: &str) {
    let (shop, sale) = ids(id);
    let (events, _) = world.store.events.sale(&shop, &sale).await.unwrap();
    let mut rejected = events.into_iter().find(|event| event.kind == "rejected").unwrap();
    let EventKey { stream, event } = rejected.key.clone();
    rejected.key.event = format!("{id}#rejected#1");
    world.puts(vec![rejected]).await;
    let delete = world.store.client.delete_item().table_name(&world.store.tables.events);
    delete.key("stream", s(stream)).key("event", s(event)).send().await.unwrap();
}

/// Envelopes of one sale, enough for several pages and more than are kept at once.
const CROWD: usize = MAX_ENVELOPES + 44;

#[tokio::test]
async fn of_a_sale_with_hundreds_of_envelopes_little_is_read_at_once_and_the_truth_is_told() {
    let world = World::open().await;
    let id = uuid(1);
    let (shop_id, sale_id) = ids(&id);
    let event = |fact| Event {
        shop_id: shop_id.clone(),
        sale_id: sale_id.clone(),
        at: NOON.parse::<Timestamp>().unwrap(),
        trace: None,
        fact,
    };
    let sealed = |n: usize| Envelope::Sealed { sealed: format!("junk {n}") };
    let accepted = |n| {
        event(Fact::Accepted(Accepted { envelope: sealed(n), source: Network::default(), revocations: None }))
    };
    let rejected = |n| {
        event(Fact::Rejected(Rejected {
            reason: Reason::Malformed,
            detail: "junk".into(),
            sealed_with: None,
            till: None,
            envelope: envelope_hash(&sealed(n)),
            attempt: 1,
        }))
    };
    let store = &world.store.events;
    let append = |event: Event| async move { store.append(&event).await.map(drop) };
    // given all but one of them rejected
    try_join_all((0..CROWD).map(accepted).map(append)).await.unwrap();
    try_join_all((1..CROWD).map(rejected).map(append)).await.unwrap();
    // then no page is large, however large events are
    let (mut pages, mut read, mut cursor) = (0, 0, None);
    loop {
        let page = world.store.events.scan(Scan::default(), cursor).await.unwrap();
        assert!(page.events.len() <= 32);
        (pages, read, cursor) = (pages + 1, read + page.events.len(), page.next);
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((pages, read), ((2 * CROWD - 1) / 32 + 1, 2 * CROWD - 1));
    // and it is pending for the one, which alone is sent on its way
    let check = world.balanced().await;
    assert_eq!((check.accepted, check.rejected, check.pending), (1, 0, 1));
    let sale = world.sale(&id).await;
    is(&sale, Status::Pending);
    assert_eq!((sale.events.len(), sale.more), (2 * SHOWN_OF_A_KIND, true));
    assert_eq!(world.outcome_of(&id).await["status"], "pending");
    world.passes(MINUTE * 5);
    assert_eq!(world.after_minutes(1).await, (1.0, 0.0));
    assert_eq!(world.on_their_way(), 1);
    world.lost();
    // and once that is rejected as well, all of it is
    append(rejected(0)).await.unwrap();
    is(&world.sale(&id).await, Status::Rejected);
    assert_eq!(
        (world.balanced().await.rejected, world.after_minutes(1).await.0.to_string()),
        (1, "0".into())
    );
    let done = world.questions.reconcile(&ReconcileFilter::default(), Some(&*world.post), &|_, _| {}).await;
    assert_eq!((done.unwrap().unsettled, world.on_their_way()), (0, 0));
    // and its till still gets in, and is told so from behind all that
    world.posts(world.sealed(&id, LINES).await).await;
    world.settle().await;
    is(&world.sale(&id).await, Status::Recorded);
    assert_eq!(world.outcome_of(&id).await["status"], "recorded");
    assert_eq!(world.balanced().await.recorded, 1);
}

#[tokio::test]
async fn a_stuck_sale_of_whatever_day_is_found_and_stays_given_up_when_the_process_begins_anew() {
    let world = World::open().await;
    // given sales that were lost, of long ago, of days to come, and of the day before by a till of the old kind
    let of = |at: &str| SaleId::new(at.parse().unwrap()).to_string();
    let sealed = [of("2024-03-01T12:00:00Z"), of("2031-01-01T12:00:00Z")];
    for id in &sealed {
        let body = world.seal_for("AMIS1", "AMIS1", id, &content(id, NOON, LINES)).await;
        assert_eq!(world.posts(body).await.status, 202);
    }
    let classic = ["1-20251122", "2-20261121", "3-20261123"];
    for id in classic {
        assert_eq!(world.posts(world.classic(Some(id), LINES).await).await.status, 200);
    }
    world.lost();
    // then they are pending
    assert_eq!(world.rows().await, 5);
    assert_eq!(world.after_minutes(2).await, (5.0, 0.0));
    // and sent on their way after five minutes, also by a process that begins then
    assert_eq!(world.on_their_way(), 0);
    world.passes(MINUTE * 4);
    world.reconcile_anew().tick().await.unwrap();
    let sent: BTreeSet<String> =
        world.post.waiting.lock().unwrap().iter().map(|(_, m)| m.id.clone()).collect();
    assert_eq!(sent, sealed.iter().cloned().chain(classic.map(str::to_owned)).collect());
    world.settle().await;
    assert_eq!((world.after_minutes(1).await, world.rows().await), ((0.0, 0.0), 0));
    assert_eq!(world.balanced().await.recorded, 5);
    // given one of today and one of long ago that are lost however often they are sent
    let late = of("2024-03-02T12:00:00Z");
    world.posts(world.seal_for("AMIS1", "AMIS1", &late, &content(&late, NOON, LINES)).await).await;
    world.posts(world.classic(Some("4-20261122"), LINES).await).await;
    world.after_minutes(2).await;
    for minutes in [5, 10, 20, 40, 80, 10] {
        world.passes(MINUTE * minutes);
        world.after_minutes(1).await;
        world.lost();
    }
    assert_eq!(world.after_minutes(1).await, (2.0, 2.0));
    // when all processes begin anew, days later
    world.passes(MINUTE * 60 * 80);
    world.reconcile_anew().tick().await.unwrap();
    // then they are still given up, until somebody sends them
    assert_eq!(world.measured(Metric::GivenUp, None), Some(2.0));
    let all = ReconcileFilter::default();
    world.questions.reconcile(&all, Some(&*world.post), &|_, _| {}).await.unwrap();
    world.settle().await;
    assert_eq!((world.after_minutes(1).await, world.rows().await), ((0.0, 0.0), 0));
    assert_eq!(world.balanced().await.recorded, 7);
}

#[tokio::test]
async fn what_cannot_be_read_of_one_shop_keeps_no_sale_of_another_waiting() {
    let world = World::open().await;
    // given a shop among whose events are some that nobody can read, of late and of today's sales
    let events = |id: &str| {
        let (shop_id, sale_id) = ids(id);
        let fact = Fact::Accepted(Accepted {
            envelope: Envelope::Sealed { sealed: format!("x{id}") },
            source: Network::default(),
            revocations: None,
        });
        Event { shop_id, sale_id, at: NOON.parse().unwrap(), trace: None, fact }.to_stored()
    };
    for (at, id) in [uuid(1), uuid(2), uuid(3), "1-20261122".to_owned()].into_iter().enumerate() {
        let event = events(&id);
        let event = if at == 0 { StoredEvent { body: "{".into(), ..event } } else { event };
        let mut item = to_item(event);
        match at {
            1 => drop(item.insert("at".into(), s("tomorrow"))),
            2 => drop(item.insert("version".into(), n(99))),
            3 => drop(item.insert("sale_id".into(), s("?"))),
            _ => {}
        }
        let put = Put::builder().table_name(&world.store.tables.events).set_item(Some(item)).build().unwrap();
        let put = TransactWriteItem::builder().put(put).build();
        world.store.client.transact_write_items().transact_items(put).send().await.unwrap();
    }
    let mut row = kassa_bus::shops_table::key("#pending", "AMIS1#?");
    row.insert("accepted_at".into(), s("?"));
    world.store.shops().put_if(row, "attribute_not_exists(record_type)", [].into()).await.unwrap();
    // and a sale of another that was left behind
    let id = uuid(4);
    world.posts(world.seal_for("AMIS2", "AMIS2", &id, &content(&id, NOON, LINES)).await).await;
    world.lost();
    // then that is sent on its way
    world.after_minutes(6).await;
    let sent: Vec<String> = world.post.waiting.lock().unwrap().iter().map(|(_, m)| m.id.clone()).collect();
    assert_eq!(sent, [id]);
    assert_eq!(world.post.waiting.lock().unwrap()[0].0, Topic::ToDecrypt);
}
