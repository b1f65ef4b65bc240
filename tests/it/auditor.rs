//! The bad-key auditor, given what the shop really rejects: whose key it was, what it looks like, what to do.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aws_lc_rs::rsa::{KeyPair, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::KeyPair as _;
use futures::future::join_all;
use jiff::{SignedDuration, ToSpan};
use kassa::questions::audit::AuditFilter;
use kassa::questions::render;
use kassa_bus::keys::PublicKey;
use kassa_bus::registry::{Shop, ShopKey};
use kassa_bus::{Clock, Failure, Message, Metric, Subscriber, Verdict};
use kassa_subscribers::bad_key_auditor::{Audit, AuditedKey, ENTRY, Key, LooksLike};
use serde_json::{Value, json};

use crate::common::process::{Up, kassa};
use crate::common::world::{NOON, World, content, encrypting, sales, sealer, uuid, wrap};

const LINES: &[(&str, &str, &str)] = &[("98", "2", "37.90")];

/// An auditor in this world, as one of any number of functions.
fn auditor_with(world: &World, settings: &[(&str, &str)]) -> Arc<dyn Subscriber> {
    (ENTRY.make)(&world.host(settings)).unwrap().expect("it is on").subscriber
}

fn auditor(world: &World) -> Arc<dyn Subscriber> {
    auditor_with(world, &[])
}

/// What the shop published of the sales it rejected.
fn rejections(world: &World) -> Vec<Message> {
    world.rejections().iter().map(Message::of).collect()
}

async fn hear(auditor: &Arc<dyn Subscriber>, batch: &[Message]) {
    for verdict in auditor.handle(batch).await {
        verdict.unwrap();
    }
}

async fn audit_of(world: &World, shop: Option<&str>) -> Audit {
    let to = *world.now.lock().unwrap();
    let filter = AuditFilter { from: to - 24.hours(), to, shop: shop.map(str::to_owned) };
    world.questions.audit_keys(&filter).await.unwrap()
}

async fn audit(world: &World) -> Vec<AuditedKey> {
    audit_of(world, None).await.keys
}

/// The one key that was wrong.
async fn only(world: &World) -> AuditedKey {
    let mut keys = audit(world).await;
    assert_eq!(keys.len(), 1, "{keys:?}");
    keys.remove(0)
}

async fn post_sealed(world: &World, shop: &str, key_of: &str, from: i64, count: i64) {
    for n in from..from + count {
        let id = uuid(n);
        world.posts(world.seal_for(shop, key_of, &id, &content(&id, NOON, LINES)).await).await;
    }
    world.settle().await;
}

async fn post_classic(world: &World, key_of: &str, n: u32) {
    let content = json!({"sales": sales(LINES)}).to_string();
    let id = format!("{n}-20261122");
    world.posts(world.classic_for("AMIS1", key_of, Some(&id), &content).await).await;
    world.settle().await;
}

/// A key of its own, that no shop here knows of.
fn foreign_key() -> PublicKey {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let components = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
    PublicKey::new(&components.n, &components.e).unwrap()
}

async fn post_with(world: &World, shop: &str, key: &PublicKey, n: i64) {
    let id = uuid(n);
    let sealed = sealer(key.kid(), &encrypting(key)).seal(content(&id, NOON, LINES).as_bytes()).unwrap();
    world.posts(json!({"shop_id": shop, "message_id": id, "sealed": sealed}).to_string()).await;
    world.settle().await;
}

/// A shop had this key from March until it got the present one.
async fn retire(world: &World, shop: &str, key: &PublicKey) {
    let registered = world.store.registry.shop(&shop.parse().unwrap()).await.unwrap().unwrap();
    let march = ShopKey::new(key.kid().clone(), "2026-03-02T08:00:00Z".parse().unwrap());
    let keys = [march].into_iter().chain(registered.keys.clone()).collect();
    world.store.registry.register(&Shop { keys, ..(*registered).clone() }).await.unwrap();
}

fn names<K: ToString>(bounded: &kassa_subscribers::bad_key_auditor::Bounded<K, u64>) -> Vec<String> {
    bounded.named.iter().map(|(name, count)| format!("{}: {count}", name.to_string())).collect()
}

#[tokio::test]
async fn a_till_with_another_shops_key_is_named_with_what_to_load() {
    // given
    let world = World::open().await;
    post_sealed(&world, "AMIS1", "AMIS2", 0, 3).await;
    let asked = world.keys.asked.load(Ordering::SeqCst);
    // when
    hear(&auditor(&world), &rejections(&world)).await;
    // then
    let key = only(&world).await;
    assert_eq!((key.shop_id.as_str(), key.told.as_str()), ("AMIS1", "AMIS2's key"));
    assert_eq!(key.seen.count, 3);
    assert_eq!(names(&key.seen.tills), ["till-7: 3"]);
    assert_eq!(names(&key.seen.sources), ["192.0.2.0/24: 3"]);
    assert_eq!((key.seen.first, key.seen.last), (NOON.parse().unwrap(), NOON.parse().unwrap()));
    assert_eq!(key.looks_like, LooksLike::Misconfiguration);
    assert!(
        key.what_to_do.starts_with("till-7 at 192.0.2.0/24 of AMIS1 has AMIS2's key"),
        "{}",
        key.what_to_do
    );
    assert!(key.what_to_do.contains("GET /shop/AMIS1/key"), "{}", key.what_to_do);
    assert_eq!(world.counted_as(Metric::WrongKeys, "known"), 3);
    // and the till was looked up in each of the three sessions
    assert_eq!(world.keys.asked.load(Ordering::SeqCst) - asked, 3);
}

#[tokio::test]
async fn a_tills_session_is_opened_once_however_many_sales_it_has() {
    let world = World::open().await;
    let (kid, key) = world.public_key("AMIS2").await;
    let session = sealer(&kid, &key);
    for n in 0..20 {
        let id = uuid(n);
        let sealed = session.seal(content(&id, NOON, LINES).as_bytes()).unwrap();
        world.posts(json!({"shop_id": "AMIS1", "message_id": id, "sealed": sealed}).to_string()).await;
    }
    world.settle().await;
    let asked = world.keys.asked.load(Ordering::SeqCst);
    hear(&auditor(&world), &rejections(&world)).await;
    assert_eq!(world.keys.asked.load(Ordering::SeqCst) - asked, 1);
    assert_eq!(names(&only(&world).await.seen.tills), ["till-7: 20"]);
}

#[tokio::test]
async fn a_retired_key_is_told_with_its_time() {
    let world = World::open().await;
    let march = foreign_key();
    retire(&world, "AMIS1", &march).await;
    // when a till of AMIS1 was not restarted, and one of AMIS2 has that key too
    post_with(&world, "AMIS1", &march, 0).await;
    post_with(&world, "AMIS2", &march, 1).await;
    hear(&auditor(&world), &rejections(&world)).await;
    // then
    let [own, other] = audit(&world).await.try_into().unwrap();
    for key in [&own, &other] {
        assert_eq!(key.told, "AMIS1's key of 2 March 2026, retired on 22 November 2026");
        assert_eq!(key.looks_like, LooksLike::Misconfiguration);
    }
    assert!(own.what_to_do.starts_with("restart the till at 192.0.2.0/24"), "{}", own.what_to_do);
    assert!(other.what_to_do.contains("GET /shop/AMIS2/key"), "{}", other.what_to_do);
}

#[tokio::test]
async fn a_key_nobody_has_is_told_by_its_thumbprint_and_several_are_an_attack() {
    let world = World::open().await;
    let first = foreign_key();
    post_with(&world, "AMIS1", &first, 0).await;
    hear(&auditor(&world), &rejections(&world)).await;
    // then one looks like a till of somebody else
    let key = only(&world).await;
    assert_eq!(key.key, Key::Unknown { kid: first.kid().clone() });
    assert!(key.told.ends_with(first.kid().as_str()), "{}", key.told);
    assert_eq!(key.looks_like, LooksLike::Misconfiguration);
    // when two more come to another shop
    for n in 1..3 {
        post_with(&world, "AMIS2", &foreign_key(), n).await;
    }
    hear(&auditor(&world), &rejections(&world)).await;
    // then all three are an attack, also for who asks about one shop
    assert!(audit(&world).await.iter().all(|key| key.looks_like == LooksLike::Attack));
    let amis1 = audit_of(&world, Some("AMIS1")).await.keys;
    assert_eq!(amis1.len(), 1);
    assert_eq!(amis1[0].looks_like, LooksLike::Attack);
    assert_eq!(world.counted_as(Metric::WrongKeys, "unknown"), 3);
}

#[tokio::test]
async fn a_stranger_who_makes_up_keys_makes_no_more_rows_and_loses_us_no_count() {
    let world = World::open().await;
    let rejected = {
        post_with(&world, "AMIS1", &foreign_key(), 0).await;
        world.rejections().remove(0)
    };
    // given a sale each under two hundred keys
    let made_up = |n: i64| {
        let mut sale = rejected.clone();
        sale.sale_id = uuid(n).parse().unwrap();
        sale.sealed_with.as_mut().unwrap().kid = format!("{n:0>43}").parse().unwrap();
        Message::of(&sale)
    };
    let batch: Vec<Message> = (1..=200).map(made_up).collect();
    hear(&auditor(&world), &batch).await;
    // then
    let keys = audit(&world).await;
    assert_eq!(keys.len(), 17);
    assert_eq!(keys.iter().map(|key| key.seen.count).sum::<u64>(), 200);
    assert_eq!(keys.last().unwrap().told, "more keys");
    assert_eq!(world.counted_as(Metric::WrongKeys, "unknown"), 200);
}

#[tokio::test]
async fn a_classic_sale_with_another_shops_key_is_found_by_trial() {
    let world = World::open().await;
    post_classic(&world, "AMIS2", 1).await;
    hear(&auditor(&world), &rejections(&world)).await;
    let key = only(&world).await;
    assert_eq!(key.key, Key::Tried { shop_id: "AMIS2".parse().unwrap() });
    assert_eq!((key.told.as_str(), key.looks_like), ("AMIS2's key", LooksLike::Misconfiguration));
    assert_eq!(world.counted_as(Metric::WrongKeys, "known"), 1);
}

#[tokio::test]
async fn a_classic_sale_that_no_key_opens_stays_untold() {
    let world = World::open().await;
    let key = encrypting(&foreign_key());
    let content_base64 = {
        use base64::Engine;
        base64::prelude::BASE64_STANDARD.encode(wrap(&key, b"{}"))
    };
    world.posts(json!({"shop_id": "AMIS1", "content_base64": content_base64}).to_string()).await;
    world.settle().await;
    hear(&auditor(&world), &rejections(&world)).await;
    let key = only(&world).await;
    assert_eq!((key.key, key.looks_like), (Key::Untold, LooksLike::Unclear));
    assert_eq!(world.counted_as(Metric::WrongKeys, "untold"), 1);
}

#[tokio::test]
async fn with_trials_off_no_key_is_asked() {
    let world = World::open().await;
    post_classic(&world, "AMIS2", 1).await;
    let asked = world.keys.asked.load(Ordering::SeqCst);
    hear(&auditor_with(&world, &[("AUDIT_TRIALS", "0")]), &rejections(&world)).await;
    assert_eq!(world.keys.asked.load(Ordering::SeqCst), asked);
    assert_eq!(only(&world).await.key, Key::Untold);
}

#[tokio::test]
async fn an_hours_trials_are_shared_by_all_functions_and_the_next_hour_has_its_own() {
    // given two functions and fifteen classic sales an hour with AMIS2's key, of which ten may be tried
    let world = World::open().await;
    let functions: Vec<_> = (0..2).map(|_| auditor_with(&world, &[("AUDIT_TRIAL_RATE", "10")])).collect();
    let mut heard = 0;
    for hour in 1..=2 {
        for n in 0..15 {
            post_classic(&world, "AMIS2", hour * 100 + n).await;
        }
        let asked = world.keys.asked.load(Ordering::SeqCst);
        let sales = rejections(&world).split_off(heard);
        heard += sales.len();
        // when
        join_all(sales.chunks(8).zip(&functions).map(|(batch, function)| hear(function, batch))).await;
        // then
        let tried = world.keys.asked.load(Ordering::SeqCst) - asked;
        assert!((1..=10).contains(&tried), "{tried} trials");
        world.passes(SignedDuration::from_hours(1));
    }
    let keys = audit(&world).await;
    assert_eq!(keys.iter().map(|key| key.seen.count).sum::<u64>(), 30);
}

#[tokio::test]
async fn a_sale_that_may_be_told_once_the_keys_are_back_is_heard_again() {
    let world = World::open().await;
    post_classic(&world, "AMIS2", 1).await;
    post_sealed(&world, "AMIS1", "AMIS2", 0, 1).await;
    let auditor = auditor(&world);
    // given that no key can be used
    world.keys.unavailable.store(true, Ordering::SeqCst);
    let verdicts = auditor.handle(&rejections(&world)).await;
    // then what its envelope tells is counted, and the classic one comes again
    assert!(matches!(verdicts[..], [Err(Failure::Retry(_)), Ok(())]), "{verdicts:?}");
    assert_eq!(only(&world).await.told, "AMIS2's key");
    // when they are back
    world.keys.unavailable.store(false, Ordering::SeqCst);
    hear(&auditor, &rejections(&world)).await;
    // then
    let keys = audit(&world).await;
    assert_eq!(keys.iter().map(|key| key.seen.count).collect::<Vec<_>>(), [1, 1]);
}

#[tokio::test]
async fn a_message_counts_once_however_often_it_comes_and_by_however_many_functions() {
    let world = World::open().await;
    post_sealed(&world, "AMIS1", "AMIS2", 0, 30).await;
    post_sealed(&world, "AMIS2", "AMIS1", 100, 10).await;
    let sales = rejections(&world);
    // when four functions get all of them, twice in one batch, in orders of their own
    let functions: Vec<_> = (0..4).map(|_| auditor(&world)).collect();
    let batches: Vec<Vec<Message>> = (0..4)
        .map(|turn| {
            let mut batch = [sales.clone(), sales.clone()].concat();
            batch.rotate_left(turn * 11);
            batch
        })
        .collect();
    join_all(functions.iter().zip(&batches).map(|(function, batch)| hear(function, batch))).await;
    // then
    let counts: Vec<_> = audit(&world).await.iter().map(|key| key.seen.count).collect();
    assert_eq!(counts, [30, 10]);
    assert_eq!(world.counted_as(Metric::WrongKeys, "known"), 40);
}

#[tokio::test]
async fn a_sale_counts_once_even_if_its_key_is_told_otherwise_the_second_time() {
    let world = World::open().await;
    post_classic(&world, "AMIS2", 1).await;
    hear(&auditor_with(&world, &[("AUDIT_TRIALS", "0")]), &rejections(&world)).await;
    hear(&auditor(&world), &rejections(&world)).await;
    assert_eq!(only(&world).await.seen.count, 1);
}

#[tokio::test]
async fn a_sale_that_is_put_through_again_is_not_counted_again() {
    let world = World::open().await;
    post_sealed(&world, "AMIS1", "AMIS2", 0, 2).await;
    let auditor = auditor(&world);
    hear(&auditor, &rejections(&world)).await;
    let again = world.rejections().into_iter().map(|mut sale| {
        sale.origin.attempt = 2;
        Message::of(&sale)
    });
    hear(&auditor, &again.collect::<Vec<_>>()).await;
    assert_eq!(only(&world).await.seen.count, 2);
    assert_eq!(world.counted(Metric::WrongKeys), 2);
}

#[tokio::test]
async fn what_is_not_about_a_wrong_key_is_let_pass_and_what_is_not_ours_is_refused() {
    let world = World::open().await;
    // given a sale that is no sale inside
    world.posts(world.seal_for("AMIS1", "AMIS1", &uuid(0), "{}").await).await;
    world.settle().await;
    let mut batch = rejections(&world);
    batch.push(Message { body: "{}".to_owned().into(), ..batch[0].clone() });
    let verdicts: Vec<Verdict> = auditor(&world).handle(&batch).await;
    assert!(matches!(verdicts[..], [Ok(()), Err(Failure::Refuse(_))]), "{verdicts:?}");
    assert!(audit(&world).await.is_empty());
}

#[tokio::test]
async fn days_are_counted_apart_and_what_is_long_over_is_not_shown() {
    let world = World::open().await;
    post_sealed(&world, "AMIS1", "AMIS2", 0, 1).await;
    world.passes(SignedDuration::from_hours(20));
    post_sealed(&world, "AMIS1", "AMIS2", 1, 1).await;
    hear(&auditor(&world), &rejections(&world)).await;
    // then a day later both are one key's
    let key = only(&world).await;
    assert_eq!((key.seen.count, key.seen.last.duration_since(key.seen.first).as_hours()), (2, 20));
    // and much later none is
    world.passes(SignedDuration::from_hours(45));
    assert!(audit(&world).await.is_empty());
}

#[tokio::test]
async fn nothing_of_a_sale_is_kept_but_its_till() {
    let world = World::open().await;
    post_sealed(&world, "AMIS1", "AMIS2", 0, 1).await;
    post_classic(&world, "AMIS2", 1).await;
    hear(&auditor(&world), &rejections(&world)).await;
    let day: Vec<(String, Value)> =
        world.store.documents(ENTRY.name, Clock::system()).list("day#2026-11-22", "").await.unwrap().rows;
    let kept = json!(day).to_string();
    assert!(kept.contains("till-7"));
    assert!(!kept.contains("37.9") && !kept.contains("\"98\""), "{kept}");
}

#[tokio::test]
async fn people_get_a_table_and_what_to_do() {
    let world = World::open().await;
    assert_eq!(
        render::audit(&audit_of(&world, None).await),
        "No sale came with a wrong key since 2026-11-21.\n"
    );
    post_sealed(&world, "AMIS1", "AMIS2", 0, 2).await;
    hear(&auditor(&world), &rejections(&world)).await;
    let text = render::audit(&audit_of(&world, None).await);
    for told in [
        "AMIS2's key",
        "till-7",
        "192.0.2.0/24",
        "2026-11-22 13:00:00",
        "misconfiguration",
        "What to do\n  - till-7",
    ] {
        assert!(text.contains(told), "no {told} in\n{text}");
    }
}

fn asked(folder: &str, more: &[&str]) -> String {
    let output = kassa(&[&["audit", "keys", "--data", folder], more].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_command_tells_it_of_an_open_shop_and_of_a_closed_one() {
    // given a real shop and a real till with another shop's key
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let up = Up::start(folder.path());
    let sold = kassa(&["sell", "--url", &up.url, "--shop", "AMIS1", "--key-of", "AMIS2", "--count", "3"]);
    assert!(String::from_utf8(sold.stdout).unwrap().contains("3 rejected as wrong-key"));
    let json = |more: &[&str]| -> Value {
        serde_json::from_str(&asked(data, &[&["--json"], more].concat())).unwrap()
    };
    let begun = Instant::now();
    while json(&[])["keys"][0]["count"] != 3 {
        assert!(begun.elapsed() < Duration::from_secs(30), "not audited: {}", json(&[]));
        std::thread::sleep(Duration::from_millis(50));
    }
    // then the open shop
    let open = json(&[]);
    let key = &open["keys"][0];
    assert_eq!((&key["shop_id"], &key["told"]), (&json!("AMIS1"), &json!("AMIS2's key")));
    assert_eq!((&key["key"]["class"], &key["key"]["shop_id"]), (&json!("known"), &json!("AMIS2")));
    assert_eq!(key["tills"]["named"], json!([["till-1", 3]]));
    assert_eq!(key["looks_like"], "misconfiguration");
    assert!(asked(data, &[]).contains("What to do\n  - till-1 at 127.0.0.0/24 of AMIS1 has AMIS2's key"));
    // and of one shop only, of a time to come back to, and of a wrong time
    assert_eq!(json(&["--shop", "AMIS2", "--since", "7d"])["keys"], json!([]));
    assert!(!kassa(&["audit", "keys", "--data", data, "--since", "yesterday"]).status.success());
    assert!(!kassa(&["audit", "keys", "--data", data, "--shop", "NOWHERE"]).status.success());
    // and the closed one say the same
    assert!(up.terminate().success());
    assert_eq!(json(&[])["keys"], open["keys"]);
}
