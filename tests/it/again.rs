//! What came to no end is sent on its way again, and what was rejected is put through once it is mended.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::SignedDuration;
use kassa::questions::Status;
use kassa::questions::preview::Would;
use kassa::questions::reconcile::ReconcileFilter;
use kassa::questions::rejected::RejectedFilter;
use kassa::till::{Format, Till};
use kassa_bus::amount::Amount;
use kassa_bus::jws::Signer;
use kassa_bus::message::Reason;
use kassa_bus::{Clock, Line, Metric, Settings, Subscriber};
use kassa_pipeline::reconcile::Reconcile;
use kassa_pipeline::unsettled::Finder;
use serde_json::Value;

use crate::common::cloud::{Cloud, SOON};
use crate::common::process::{self, Up, accepted, json};
use crate::common::world::{NOON, World, content, is, uuid};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// Minutes pass, each with what is done once a minute.
async fn minutes(world: &World, count: u32) {
    for _ in 0..count {
        world.passes(MINUTE);
        world.minute().await;
    }
}

fn waiting(world: &World) -> Vec<String> {
    world.post.waiting.lock().unwrap().iter().map(|(_, message)| message.id.clone()).collect()
}

/// A sale that was appended and never published: the till gave up, or died.
async fn left_behind(world: &World, n: i64) -> String {
    world.post.refuse.store(1, Ordering::SeqCst);
    let id = uuid(n);
    let answer = world.posts(world.sealed(&id, &[("98", "1", "18.95")]).await).await;
    assert_eq!((answer.status, world.post.waiting.lock().unwrap().len()), (503, 0));
    id
}

#[tokio::test]
async fn a_sale_that_was_never_published_is_found_after_five_minutes_and_counts_once() {
    let world = World::open().await;
    let id = left_behind(&world, 1).await;
    // when less than five minutes have passed
    minutes(&world, 4).await;
    assert_eq!(waiting(&world), Vec::<String>::new());
    // and then more
    minutes(&world, 2).await;
    assert_eq!(waiting(&world), std::slice::from_ref(&id));
    world.settle().await;
    is(&world.sale(&id).await, Status::Recorded);
    // and when the till comes back after all, it is a repeat
    world.posts(world.sealed(&id, &[("98", "1", "18.95")]).await).await;
    world.settle().await;
    minutes(&world, 15).await;
    assert_eq!(waiting(&world), Vec::<String>::new());
    assert_eq!((world.balanced().await.recorded, world.stock("AMIS1", "s-00098").await.1), (1, "1".into()));
    assert_eq!(world.counted_as(Metric::Republished, "AMIS1"), 1);
}

#[tokio::test]
async fn it_is_tried_six_times_and_then_somebody_is_told() {
    let world = World::open().await;
    left_behind(&world, 1).await;
    let mut tried = Vec::new();
    for minute in 1..=240 {
        minutes(&world, 1).await;
        // whatever is published is lost again
        tried.extend(world.post.waiting.lock().unwrap().drain(..).map(|_| minute));
        let told = world.measured(Metric::GivenUp, None).unwrap();
        assert!((told - f64::from(u8::from(minute >= 165))).abs() < 1e-9, "{told} after {minute} minutes");
    }
    assert_eq!(tried, [5, 10, 20, 40, 80, 160]);
    // when it is mended, whoever was told sends it on its way
    let all = ReconcileFilter::default();
    let dry = ReconcileFilter { dry_run: true, ..all.clone() };
    let counted = world.questions.reconcile(&dry, Some(&*world.post), &|_, _| {});
    assert_eq!((counted.await.unwrap().unsettled, waiting(&world).len()), (1, 0));
    world.questions.reconcile(&all, Some(&*world.post), &|_, _| {}).await.unwrap();
    world.settle().await;
    assert_eq!(world.balanced().await.recorded, 1);
    minutes(&world, 1).await;
    assert!(world.measured(Metric::GivenUp, None).unwrap().abs() < 1e-9);
}

#[tokio::test]
async fn a_clock_that_was_days_ahead_and_is_set_right_keeps_no_sale_waiting_for_days() {
    // given a clock that is three days ahead for some minutes, in which two sales are left behind, of which one is found
    let world = World::open().await;
    minutes(&world, 1).await;
    world.passes(SignedDuration::from_hours(72));
    let found_ahead = left_behind(&world, 0).await;
    minutes(&world, 3).await;
    let ahead = left_behind(&world, 1).await;
    minutes(&world, 1).await;
    // when it is set right, and another is left behind
    world.passes(SignedDuration::from_hours(-72));
    let after = left_behind(&world, 2).await;
    // then all are found within minutes, as ever
    minutes(&world, 8).await;
    let mut found = waiting(&world);
    found.sort();
    assert_eq!(found, [found_ahead, ahead, after]);
    world.settle().await;
    assert_eq!(world.balanced().await.recorded, 3);
}

#[tokio::test]
async fn a_clock_that_was_hours_behind_when_a_sale_came_does_not_make_it_given_up() {
    // given a sale that was accepted and left behind while the shop's clock was a day behind
    let world = World::open().await;
    minutes(&world, 1).await;
    world.passes(SignedDuration::from_hours(-24));
    minutes(&world, 1).await;
    let behind = left_behind(&world, 1).await;
    // when the clock is set right, and the shop looks at that time
    world.passes(SignedDuration::from_hours(24));
    minutes(&world, 2).await;
    // then it is sent on its way
    assert_eq!(waiting(&world), [behind]);
    world.settle().await;
    assert_eq!(world.balanced().await.recorded, 1);
}

#[tokio::test]
async fn the_oldest_goes_first_and_what_is_too_much_for_a_minute_is_left_to_the_next() {
    let world = World::open().await;
    let now = world.now.clone();
    let reconcile = Reconcile::told(
        &Settings::none().with([("RECONCILE_MOST".into(), "2".into())]),
        Finder { store: world.store.events.clone() },
        world.store.shops(),
        world.post.clone(),
        (Clock::from_fn(move || *now.lock().unwrap()), world.metrics.clone()),
    );
    let reconcile = reconcile.unwrap();
    let mut left = Vec::new();
    for n in 1..=5 {
        left.push(left_behind(&world, n * 1000).await);
        world.passes(SignedDuration::from_secs(1));
    }
    let mut sent = Vec::new();
    for _ in 0..12 {
        world.passes(MINUTE);
        reconcile.tick().await.unwrap();
        let mut now: Vec<_> = world.post.waiting.lock().unwrap().drain(..).map(|(_, m)| m.id).collect();
        now.sort_unstable();
        assert!(now.len() <= 2, "{now:?}");
        sent.extend(now);
    }
    assert_eq!(sent[..5], left[..]);
}

#[tokio::test]
async fn a_run_that_fails_half_way_is_made_up_for_by_the_next() {
    let world = World::open().await;
    let ids = [left_behind(&world, 1).await, left_behind(&world, 2).await];
    minutes(&world, 4).await;
    // given that SNS takes one of the two
    world.post.refuse.store(1, Ordering::SeqCst);
    world.passes(MINUTE);
    let ticked = std::panic::AssertUnwindSafe(world.minute());
    assert!(futures::FutureExt::catch_unwind(ticked).await.is_err(), "the run fails, and says so");
    // when it takes both
    minutes(&world, 1).await;
    let sent = waiting(&world);
    assert!(ids.iter().all(|id| sent.contains(id)), "{sent:?}");
    world.settle().await;
    assert_eq!(world.balanced().await.recorded, 2);
}

#[tokio::test]
async fn a_rejected_sale_is_put_through_once_its_till_is_enrolled() {
    let world = World::open().await;
    let till = Signer::new(&"till-1".parse().unwrap(), &Signer::new_key().unwrap()).unwrap();
    let inside = |id: &str| {
        let content = content(id, NOON, &[("98", "2", "37.90")]).replacen('{', r#"{"shop_id":"AMIS1","#, 1);
        till.sign(content.replace("till-7", "till-1").as_bytes())
    };
    for n in [1, 2] {
        let body = world.seal_for("AMIS1", "AMIS1", &uuid(n), &inside(&uuid(n))).await;
        world.posts(body).await;
    }
    world.posts(world.seal_for("AMIS1", "AMIS2", &uuid(3), "{}").await).await;
    world.settle().await;
    // then they are listed, with why
    let nothing = &|_, _| {};
    let all = RejectedFilter { shop: Some("AMIS1".into()), ..RejectedFilter::default() };
    let listed = world.questions.rejected(&all, nothing).await.unwrap();
    let reasons: Vec<_> = listed.iter().map(|found| found.reason).collect();
    assert_eq!(reasons, [Reason::UnknownTill, Reason::UnknownTill, Reason::WrongKey]);
    let unknown = RejectedFilter { reason: Some(Reason::UnknownTill), ..all.clone() };
    let other = RejectedFilter { shop: Some("AMIS2".into()), ..RejectedFilter::default() };
    assert_eq!(world.questions.rejected(&other, nothing).await.unwrap(), []);

    // when they are put through and nothing was mended, they are rejected again, once each
    let again = world.questions.retry(&unknown, &*world.post, nothing).await.unwrap();
    assert_eq!(again.len(), 2);
    world.settle().await;
    let listed = world.questions.rejected(&unknown, nothing).await.unwrap();
    assert_eq!(listed.iter().map(|found| found.attempt).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(world.balanced().await.rejected, 3);

    // when the till is enrolled, it is shown what they would be
    let (shop, name) = ("AMIS1".parse().unwrap(), "till-1".parse().unwrap());
    let now = *world.now.lock().unwrap();
    world.store.registry.tills.enrol(&shop, &name, till.key(), now).await.unwrap();
    let before = (world.store.stream.read(0).await.unwrap().len(), world.metrics.get(Metric::KeyUnwraps));
    let opener = world.questions.opener(world.keys.clone());
    let preview = world.questions.preview(&all, &opener, nothing, now).await.unwrap();
    let come: Vec<_> =
        preview.sales.iter().map(|sale| matches!(sale.would, Would::Recorded { .. })).collect();
    assert_eq!(come, [true, true, false]);
    let rows: Vec<_> =
        preview.rows.iter().map(|row| (row.record_type.as_str(), row.number, row.turnover)).collect();
    let amount = |text: &str| text.parse::<Amount>().unwrap();
    assert_eq!(
        rows,
        [
            ("d-2026-11-22", [amount("0"), amount("2")], [amount("0"), amount("75.80")]),
            ("s-00098", [amount("100000"), amount("99996")], [amount("0"), amount("75.80")]),
        ]
    );
    // and nothing is changed, and nothing counted
    let after = (world.store.stream.read(0).await.unwrap().len(), world.metrics.get(Metric::KeyUnwraps));
    assert_eq!((after, waiting(&world).len()), (before, 0));

    // when they are put through twice at once, they count once
    for _ in 0..2 {
        world.questions.retry(&unknown, &*world.post, nothing).await.unwrap();
    }
    world.settle().await;
    let check = world.balanced().await;
    assert_eq!((check.recorded, check.rejected), (2, 1));
    assert_eq!(world.stock("AMIS1", "s-00098").await, ("99996".into(), "4".into(), "75.8".into()));
    assert_eq!(world.questions.rejected(&unknown, nothing).await.unwrap(), []);
    // and a sale can be named
    let named = RejectedFilter { sale: Some(uuid(3)), ..RejectedFilter::default() };
    assert_eq!(world.questions.rejected(&named, nothing).await.unwrap().len(), 1);
}

#[tokio::test]
async fn of_two_rejected_envelopes_each_has_its_own_tries() {
    let world = World::open().await;
    for content in ["one", "two"] {
        world.posts(world.seal_for("AMIS1", "AMIS1", &uuid(1), content).await).await;
        world.settle().await;
    }
    let nothing = &|_, _| {};
    for round in 1..4u32 {
        let listed = world.questions.rejected(&RejectedFilter::default(), nothing).await.unwrap();
        let mut tries: Vec<_> = listed.iter().map(|found| found.attempt).collect();
        tries.sort_unstable();
        assert_eq!(tries, [round, round]);
        world.questions.retry(&RejectedFilter::default(), &*world.post, nothing).await.unwrap();
        world.settle().await;
    }
    assert_eq!(world.balanced().await.rejected, 1);
}

#[test]
fn the_command_puts_sales_through_an_open_shop_and_says_what_became_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let up = Up::start(folder.path());
    let tills = folder.path().join("tills");
    let till = ["--shop", "AMIS1", "--till", "till-1", "--folder", tills.to_str().unwrap()];
    process::kassa(&[&["till", "enroll", "--print"], &till[..]].concat());
    process::kassa(&[&["sell", "--url", &up.url, "--count", "3"], &till[..]].concat());
    up.settled();
    let listed = json(&["rejected", "--reason", "unknown-till", "--json", "--data", data]);
    assert_eq!(listed.as_array().unwrap().len(), 3);
    let retry = ["retry", "--shop", "AMIS1", "--data", data, "--json"];
    let vain = process::kassa(&retry);
    assert!(!vain.status.success(), "they are rejected again");
    json(&[&["till", "enroll", "--json", "--data", data], &till[..]].concat());
    let preview = json(&[&retry[..], &["--dry-run"]].concat());
    assert_eq!(preview["sales"][0]["would"]["be"], "recorded");
    let came = json(&retry);
    assert_eq!(came["recorded"].as_array().unwrap().len(), 3, "{came}");
    let done = json(&["reconcile", "--json", "--data", data]);
    assert_eq!(done, serde_json::json!({"unsettled": 0, "published": true}));
    assert_eq!(json(&["check", "--json", "--data", data])["recorded"], 3);
    // closed, it can still be looked at
    drop(up);
    assert_eq!(json(&["rejected", "--json", "--data", data]), serde_json::json!([]));
    let closed = process::kassa(&retry);
    assert!(String::from_utf8(closed.stderr).unwrap().contains("open it with kassa up"));
}

fn line() -> Vec<Line> {
    vec![Line {
        item_no: "98".parse().unwrap(),
        gross_number: Amount::from(1),
        gross_turnover: "18.95".parse().unwrap(),
    }]
}

#[tokio::test(flavor = "multi_thread")]
async fn on_aws_a_sale_that_was_never_published_is_sent_on_its_way_and_a_rejected_one_put_through() {
    let cloud = Cloud::deployed_with(&["--param=reconcileAfter=1s", SOON]).await;
    let till =
        Till::new(&cloud.url, "AMIS1".parse().unwrap(), "till-1", Format::Sealed, Clock::system()).unwrap();
    let till = Arc::new(till);
    // given a sale of which accept could only do the first half
    cloud.proxy.throttle("sns.PublishBatch", 1.0, 1);
    let sale = till.ring_up(line()).await.unwrap();
    let post = reqwest::Client::new().post(format!("{}/shop", cloud.url)).body(sale.body.clone()).send();
    assert_eq!(post.await.unwrap().status(), 503);
    cloud.proxy.calm();
    // when a minute has passed
    let recorded = |found: &Value| found["status"] == "recorded";
    cloud.until("what was left behind", &["sale", sale.sale_id.as_str()], recorded).await;
    // then the function did that, which may do all that it is called for
    let invoked = "print(json.dumps(aws('lambda').invoke(FunctionName='kassa-local-reconcile', \
        Payload=json.dumps({'detail-type': 'Scheduled Event'})).get('FunctionError')))";
    assert_eq!(cloud.boto(invoked).await, Value::Null, "{}", cloud.log());
    // and given one that a till signed which nobody had enrolled
    let folder = tempfile::tempdir().unwrap();
    let enrolled = ["--shop", "AMIS2", "--till", "till-1", "--folder", folder.path().to_str().unwrap()];
    cloud.kassa(&[&["till", "enroll", "--print"], &enrolled[..]].concat()).await;
    let sold = cloud.kassa(&[&["sell", "--stage", "local", "--json"], &enrolled[..]].concat()).await;
    assert_eq!(accepted(&sold)["outcomes"]["rejected"]["unknown-till"], 1);
    cloud.until("a rejection", &["rejected"], |found| found.as_array().unwrap().len() == 1).await;
    cloud.ask(&[&["till", "enroll"], &enrolled[..]].concat()).await;
    let retry = ["retry", "--shop", "AMIS2"];
    let preview = cloud.ask(&[&retry[..], &["--dry-run"]].concat()).await;
    assert_eq!(preview["sales"][0]["would"]["be"], "recorded");
    assert_eq!(cloud.ask(&retry).await["recorded"].as_array().unwrap().len(), 1);
    let done = cloud.ask(&["reconcile"]).await;
    assert_eq!(done["unsettled"], 0);
    let right = |c: &Value| c["recorded"] == 2 && c["mismatches"] == serde_json::json!([]);
    cloud.until("the books", &["check"], right).await;
}
