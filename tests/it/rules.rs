//! Every rule of the pipeline, from the till's request to the read models.

use std::sync::atomic::Ordering;

use aws_lc_rs::digest::{SHA256, digest};
use aws_sdk_dynamodb::types::{Put, TransactWriteItem};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL64;
use kassa::questions::Status;
use kassa_bus::message::{AcceptedSale, Carried, Envelope, Reason};
use kassa_bus::registry::{Shop, ShopKey};
use kassa_bus::{Metric, ShopId, Topic};
use kassa_pipeline::event::{EventKey, StoredEvent, envelope_hash};
use kassa_pipeline::event_store::to_item;
use serde_json::{Value, json};

use crate::common::unopenable;
use crate::common::world::{NOON, World, content, is, sales, sealer, uuid};

fn owned(values: (&str, &str, &str)) -> (String, String, String) {
    (values.0.into(), values.1.into(), values.2.into())
}

fn pair(values: (&str, &str)) -> (String, String) {
    (values.0.into(), values.1.into())
}

#[tokio::test]
async fn a_classic_sale_is_answered_ok_and_recorded() {
    let world = World::open().await;
    let answer = world.posts(world.classic(Some("1-20261122"), &[("98", "2", "37.90")]).await).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "\"OK\""));
    world.settle().await;
    let sale = world.sale("1-20261122").await;
    is(&sale, Status::Recorded);
    assert_eq!(sale.events.iter().map(|e| e.kind.as_str()).collect::<Vec<_>>(), ["accepted", "recorded"]);
    assert_eq!(world.stock("AMIS1", "s-00098").await, owned(("99998", "2", "37.9")));
    assert_eq!(world.day("AMIS1", "d-2026-11-22").await.unwrap(), pair(("1", "37.9")));
    assert_eq!(world.stock("AMIS2", "s-00098").await.0, "100000");
    assert_eq!(world.balanced().await.recorded, 1);
}

#[tokio::test]
async fn a_sealed_sale_of_three_products_is_accepted_and_recorded() {
    let world = World::open().await;
    let id = uuid(1);
    let lines = [("98", "1", "18.95"), ("12345", "3", "7.47"), ("91279", "0.250", "3.725")];
    let answer = world.posts(world.sealed(&id, &lines).await).await;
    assert_eq!(answer.status, 202);
    assert_eq!(
        serde_json::from_str::<Value>(&answer.body).unwrap(),
        json!({"sale_id": id, "status": "accepted"})
    );
    world.settle().await;
    let sale = world.sale(&id).await;
    is(&sale, Status::Recorded);
    let recorded = &sale.events[1].body;
    assert_eq!(recorded["totals"], json!({"gross_number": "4.25", "gross_turnover": "30.145"}));
    assert_eq!((&recorded["till"], &recorded["seq"]), (&json!("till-7"), &json!(1)));
    assert_eq!(recorded["key"], json!(world.public_key("AMIS1").await.0));
    assert_eq!(world.stock("AMIS1", "s-91279").await, owned(("49999.75", "0.25", "3.725")));
}

#[tokio::test]
async fn a_sale_posted_again_counts_once() {
    let world = World::open().await;
    for body in [
        world.sealed(&uuid(1), &[("98", "1", "18.95")]).await,
        world.classic(Some("7-20261122"), &[("98", "1", "18.95")]).await,
    ] {
        for _ in 0..3 {
            assert!([200, 202].contains(&world.posts(&body).await.status));
            world.settle().await;
        }
    }
    assert_eq!(world.stock("AMIS1", "s-00098").await.1, "2");
    assert_eq!(world.balanced().await.accepted, 2);
}

#[tokio::test]
async fn the_same_sale_sealed_anew_under_its_id_is_a_repeat() {
    let world = World::open().await;
    let id = uuid(1);
    for _ in 0..2 {
        world.posts(world.sealed(&id, &[("98", "1", "18.95")]).await).await;
        world.settle().await;
    }
    is(&world.sale(&id).await, Status::Recorded);
    assert!(world.rejections().is_empty());
    assert_eq!(world.stock("AMIS1", "s-00098").await.1, "1");
}

#[tokio::test]
async fn a_classic_sale_without_an_id_is_a_new_sale_each_time() {
    let world = World::open().await;
    let body = world.classic(None, &[("98", "1", "18.95")]).await;
    world.posts(&body).await;
    world.posts(&body).await;
    world.settle().await;
    assert_eq!(world.balanced().await.recorded, 2);
    assert_eq!(world.stock("AMIS1", "s-00098").await.1, "2");
}

#[tokio::test]
async fn two_shops_may_use_the_same_classic_id() {
    let world = World::open().await;
    let content = json!({"sales": sales(&[("98", "1", "18.95")])}).to_string();
    for shop in ["AMIS1", "AMIS2"] {
        world.posts(world.classic_for(shop, shop, Some("1-20261122"), &content).await).await;
    }
    world.settle().await;
    assert_eq!(world.balanced().await.recorded, 2);
    let ambiguous = world.questions.sale("1-20261122", None).await.unwrap_err().to_string();
    assert!(ambiguous.contains("--shop"), "{ambiguous}");
    assert_eq!(world.questions.sale("1-20261122", Some("AMIS2")).await.unwrap().shop_id.as_str(), "AMIS2");
}

#[tokio::test]
async fn a_refund_gives_stock_back_and_lowers_turnover() {
    let world = World::open().await;
    world.posts(world.sealed(&uuid(1), &[("98", "2", "37.90")]).await).await;
    world.posts(world.sealed(&uuid(2), &[("98", "-1", "-18.95")]).await).await;
    world.settle().await;
    assert_eq!(world.stock("AMIS1", "s-00098").await, owned(("99999", "1", "18.95")));
    assert_eq!(world.day("AMIS1", "d-2026-11-22").await.unwrap(), pair(("2", "18.95")));
}

#[tokio::test]
async fn a_late_sale_is_booked_on_its_own_day_in_the_shops_time_zone() {
    let world = World::open().await;
    // given a till that was offline: sold half past midnight in Amsterdam, which is the day before in UTC
    let id = uuid(1);
    let late = content(&id, "2026-11-17T23:30:00Z", &[("98", "1", "18.95")]);
    world.posts(world.seal_for("AMIS1", "AMIS1", &id, &late).await).await;
    // and a classic till, whose id says the day
    world.posts(world.classic(Some("5-20261101"), &[("98", "1", "18.95")]).await).await;
    world.settle().await;
    assert_eq!(world.day("AMIS1", "d-2026-11-18").await.unwrap(), pair(("1", "18.95")));
    assert_eq!(world.day("AMIS1", "d-2026-11-01").await.unwrap(), pair(("1", "18.95")));
    assert_eq!(world.day("AMIS1", "d-2026-11-22").await, None);
    assert_eq!(world.counted(Metric::SuspiciousClocks), 0);
}

#[tokio::test]
async fn a_tills_clock_in_1970_is_believed_and_one_in_2099_is_not_and_both_are_counted_as_suspicious() {
    let world = World::open().await;
    for (n, at) in ["1970-01-01T00:00:00Z", "2099-12-31T12:00:00Z"].into_iter().enumerate() {
        let id = kassa_bus::SaleId::new(at.parse().unwrap()).to_string();
        let answer = world
            .posts(world.seal_for("AMIS1", "AMIS1", &id, &content(&id, at, &[("98", "1", "1")])).await)
            .await;
        assert_eq!(answer.status, 202);
        world.settle().await;
        assert_eq!(world.counted(Metric::SuspiciousClocks), n as u64 + 1);
    }
    assert_eq!(world.day("AMIS1", "d-1970-01-01").await.unwrap(), pair(("1", "1")));
    // the other is booked on the day it was accepted, and keeps its own time
    assert_eq!(world.day("AMIS1", "d-2026-11-22").await.unwrap(), pair(("1", "1")));
    assert_eq!(world.day("AMIS1", "d-2099-12-31").await, None);
    assert_eq!(world.balanced().await.recorded, 2);
}

#[tokio::test]
async fn an_item_nobody_declared_is_recorded_and_counted() {
    let world = World::open().await;
    world.posts(world.sealed(&uuid(1), &[("777", "2", "10")]).await).await;
    world.settle().await;
    assert_eq!(world.stock("AMIS1", "s-00777").await, owned(("-2", "2", "10")));
    assert_eq!(world.counted(Metric::UnknownItems), 1);
    world.balanced().await;
}

#[tokio::test]
async fn a_sale_of_more_items_than_a_transaction_holds_counts_whole() {
    let world = World::open().await;
    let id = uuid(1);
    let items: Vec<String> = (1..=300).map(|n| n.to_string()).collect();
    let lines: Vec<_> = items.iter().chain(&items).map(|item| (item.as_str(), "1", "0.10")).collect();
    let answer = world.posts(world.sealed(&id, &lines).await).await;
    assert_eq!(answer.status, 202);
    world.settle().await;
    assert_eq!(world.stock("AMIS1", "s-00300").await, owned(("-2", "2", "0.2")));
    assert_eq!(world.day("AMIS1", "d-2026-11-22").await.unwrap(), pair(("1", "60")));
    world.balanced().await;
}

#[tokio::test]
async fn a_sale_sealed_with_another_shops_key_is_rejected_and_the_key_named() {
    let world = World::open().await;
    let id = uuid(1);
    let body = world.seal_for("AMIS1", "AMIS2", &id, &content(&id, NOON, &[("98", "1", "1")])).await;
    assert_eq!(world.posts(body).await.status, 202);
    world.settle().await;
    let sale = world.sale(&id).await;
    is(&sale, Status::Rejected);
    let kid = world.public_key("AMIS2").await.0;
    let hash = sale.events[0].event.strip_prefix(&format!("{id}#accepted#")).unwrap();
    assert_eq!(sale.events[1].event, format!("{id}#rejected#{hash}#1"));
    assert_eq!(sale.events[1].body["sealed_with"], json!({"kid": kid, "shop_id": "AMIS2"}));
    let told = &world.rejections()[0];
    assert_eq!((told.reason, told.detail.as_str()), (Reason::WrongKey, "sealed with AMIS2's key"));
    assert_eq!(told.origin.source.to_string(), "192.0.2.0/24");
    assert_eq!(
        world.keys.asked.load(Ordering::SeqCst),
        0,
        "the private key is not asked for what it cannot open"
    );
}

#[tokio::test]
async fn a_key_the_shop_no_longer_has_is_a_wrong_key_and_no_tampering() {
    // given a shop with a key before the present one
    let world = World::open().await;
    let registered = world.store.registry.shop(&"AMIS1".parse().unwrap()).await.unwrap().unwrap();
    let retired = ShopKey::new("A".repeat(43).parse().unwrap(), NOON.parse().unwrap());
    let keys = [retired.clone()].into_iter().chain(registered.keys.clone()).collect();
    world.store.registry.register(&Shop { keys, ..(*registered).clone() }).await.unwrap();
    // when a till still has that one
    let (_, other) = world.public_key("AMIS2").await;
    let sealed = sealer(&retired.kid, &other).seal(b"{}").unwrap();
    world.posts(json!({"shop_id": "AMIS1", "message_id": uuid(1), "sealed": sealed}).to_string()).await;
    world.settle().await;
    // then
    let told = &world.rejections()[0];
    assert_eq!(told.reason, Reason::WrongKey);
    let sealed_with = told.sealed_with.as_ref().map(|s| (&s.kid, s.shop_id.as_ref().map(ShopId::as_str)));
    assert_eq!(sealed_with, Some((&retired.kid, Some("AMIS1"))));
}

#[tokio::test]
async fn a_key_that_no_shop_has_is_told_by_its_thumbprint() {
    let world = World::open().await;
    let id = uuid(1);
    let (_, key) = world.public_key("AMIS1").await;
    let nobodys = "A".repeat(43).parse().unwrap();
    let sealed = sealer(&nobodys, &key).seal(b"{}").unwrap();
    world.posts(json!({"shop_id": "AMIS1", "message_id": id, "sealed": sealed}).to_string()).await;
    world.settle().await;
    let told = &world.rejections()[0];
    assert_eq!(told.reason, Reason::WrongKey);
    assert_eq!(told.sealed_with.as_ref().map(|s| (&s.kid, &s.shop_id)), Some((&nobodys, &None)));
}

#[tokio::test]
async fn classic_wrong_keys_and_rubbish_are_rejected() {
    let world = World::open().await;
    let content = json!({"sales": sales(&[("98", "1", "1")])}).to_string();
    world.posts(world.classic_for("AMIS1", "AMIS2", Some("1-20261122"), &content).await).await;
    let rubbish = json!({"shop_id": "AMIS1", "message_id": "2-20261122", "content_base64": unopenable()});
    world.posts(rubbish.to_string()).await;
    world.settle().await;
    let reasons: Vec<_> = world.rejections().iter().map(|r| (r.sale_id.to_string(), r.reason)).collect();
    let wrong_key = |id: &str| (id.to_owned(), Reason::WrongKey);
    assert_eq!(reasons, [wrong_key("1-20261122"), wrong_key("2-20261122")]);
    assert_eq!(world.balanced().await.rejected, 2);
}

#[tokio::test]
async fn a_sealed_sale_changed_on_its_way_is_rejected_as_tampered() {
    let world = World::open().await;
    let flip = |part: &str| {
        let mut bytes = part.as_bytes().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] = if bytes[middle] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    // encrypted key, iv, ciphertext, tag; the header names the key and is checked before
    for part in 1..5 {
        let id = uuid(part);
        let mut request: Value = serde_json::from_str(&world.sealed(&id, &[("98", "1", "1")]).await).unwrap();
        let mut parts: Vec<String> =
            request["sealed"].as_str().unwrap().split('.').map(str::to_owned).collect();
        let at = usize::try_from(part).unwrap();
        parts[at] = flip(&parts[at]);
        request["sealed"] = json!(parts.join("."));
        assert_eq!(world.posts(request.to_string()).await.status, 202);
        world.settle().await;
        is(&world.sale(&id).await, Status::Rejected);
    }
    assert!(world.rejections().iter().all(|r| r.reason == Reason::Tampered));
    assert_eq!(world.rejections().len(), 4);
}

#[tokio::test]
async fn a_sealed_sale_under_another_id_is_rejected_as_tampered() {
    let world = World::open().await;
    let (inside, outside) = (uuid(1), uuid(2));
    let body = world.seal_for("AMIS1", "AMIS1", &outside, &content(&inside, NOON, &[("98", "1", "1")])).await;
    world.posts(body).await;
    let without = json!({"sales": sales(&[("98", "1", "1")])}).to_string();
    world.posts(world.seal_for("AMIS1", "AMIS1", &inside, &without).await).await;
    world.settle().await;
    assert_eq!(world.rejections().iter().map(|r| r.reason).collect::<Vec<_>>(), [Reason::Tampered; 2]);
}

#[tokio::test]
async fn what_is_no_sale_inside_is_rejected_with_the_place() {
    let world = World::open().await;
    let id = uuid(1);
    for (n, (lines, says)) in [
        (vec![("98", "1", "-5")], "sales[0] has mixed signs"),
        (vec![("98", "1", "5"), ("abc", "1", "5")], "sales[1].item_no"),
        (vec![("98", "NaN", "5")], "gross_number is not a decimal number"),
        (vec![("98", "9999999999999999999999999999999999999999", "5")], "gross_number is out of range"),
        (vec![], "1 to 2000 lines"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = uuid(i64::try_from(n).unwrap());
        world.posts(world.sealed(&id, &lines).await).await;
        world.settle().await;
        let told = world.rejections().pop().unwrap();
        assert_eq!((told.sale_id.to_string(), told.reason), (id, Reason::InvalidSale));
        assert!(told.detail.contains(says), "{}", told.detail);
    }
    world.posts(world.seal_for("AMIS1", "AMIS1", &id, "not json").await).await;
    world.settle().await;
    assert_eq!(world.rejections().pop().unwrap().reason, Reason::InvalidSale);
}

#[tokio::test]
async fn another_sale_under_a_recorded_id_is_a_conflict_and_changes_nothing() {
    let world = World::open().await;
    let id = uuid(1);
    world.posts(world.sealed(&id, &[("98", "1", "18.95")]).await).await;
    world.settle().await;
    world.posts(world.sealed(&id, &[("98", "100", "1895")]).await).await;
    world.settle().await;
    let sale = world.sale(&id).await;
    is(&sale, Status::Recorded);
    assert_eq!(world.rejections()[0].reason, Reason::Conflict);
    assert_eq!(world.stock("AMIS1", "s-00098").await.1, "1");
    let check = world.balanced().await;
    assert_eq!((check.accepted, check.recorded, check.rejected), (1, 1, 0));
}

#[tokio::test]
async fn a_stranger_who_posts_rubbish_first_cannot_block_a_sale() {
    let world = World::open().await;
    let id = uuid(1);
    let rubbish = world.seal_for("AMIS1", "AMIS2", &id, "rubbish").await;
    world.posts(rubbish).await;
    world.settle().await;
    is(&world.sale(&id).await, Status::Rejected);
    world.posts(world.sealed(&id, &[("98", "1", "18.95")]).await).await;
    world.settle().await;
    is(&world.sale(&id).await, Status::Recorded);
    assert_eq!(world.balanced().await.recorded, 1);
}

#[tokio::test]
async fn each_rejected_envelope_of_a_sale_has_its_own_number_however_often_it_is_delivered() {
    let world = World::open().await;
    let id = uuid(1);
    for key_of in ["AMIS2", "AMIS1"] {
        world.posts(world.seal_for("AMIS1", key_of, &id, "rubbish").await).await;
    }
    let waiting: Vec<_> = world.post.waiting.lock().unwrap().iter().cloned().collect();
    world.settle().await;
    for (topic, message) in waiting {
        world.deliver(topic, &[message]).await.pop().unwrap().unwrap();
    }
    let events = world.sale(&id).await.events;
    let of =
        |kind: &str| events.iter().filter(|e| e.kind == kind).map(|e| e.event.clone()).collect::<Vec<_>>();
    let mut wanted: Vec<_> =
        of("accepted").iter().map(|event| event.replace("#accepted#", "#rejected#") + "#1").collect();
    let mut rejected = of("rejected");
    wanted.sort();
    rejected.sort();
    assert_eq!((rejected.len(), rejected), (2, wanted));
}

#[tokio::test]
async fn a_shop_nobody_registered_is_answered_404() {
    let world = World::open().await;
    let body = json!({"shop_id": "NOWHERE", "content_base64": unopenable()});
    let answer = world.posts(body.to_string()).await;
    assert_eq!((answer.status, answer.content_type), (404, "application/problem+json"));
    assert_eq!(serde_json::from_str::<Value>(&answer.body).unwrap()["field"], "shop_id");
    assert_eq!(world.balanced().await.accepted, 0);
}

#[tokio::test]
async fn while_the_key_is_unavailable_the_sale_waits_and_is_recorded_afterwards() {
    let world = World::open().await;
    let id = uuid(1);
    world.posts(world.sealed(&id, &[("98", "1", "18.95")]).await).await;
    world.posts(world.classic(Some("1-20261122"), &[("98", "1", "18.95")]).await).await;
    world.keys.unavailable.store(true, Ordering::SeqCst);
    let waiting: Vec<_> = world.post.waiting.lock().unwrap().iter().map(|(_, m)| m.clone()).collect();
    for verdict in world.deliver(Topic::ToDecrypt, &waiting).await {
        assert!(verdict.unwrap_err().to_string().contains("cannot be used now"));
    }
    is(&world.sale(&id).await, Status::Pending);
    assert_eq!(world.balanced().await.pending, 2);
    world.keys.unavailable.store(false, Ordering::SeqCst);
    world.settle().await;
    assert_eq!(world.balanced().await.recorded, 2);
}

#[tokio::test]
async fn a_sale_that_cannot_be_published_is_not_answered_yes_and_the_retry_counts_once() {
    let world = World::open().await;
    let id = uuid(1);
    let body = world.sealed(&id, &[("98", "1", "18.95")]).await;
    world.post.refuse.store(1, Ordering::SeqCst);
    let answer = world.posts(&body).await;
    assert_eq!((answer.status, answer.retry_after), (503, Some(1)));
    world.settle().await;
    is(&world.sale(&id).await, Status::Pending);
    assert_eq!(world.posts(&body).await.status, 202);
    world.settle().await;
    is(&world.sale(&id).await, Status::Recorded);
    assert_eq!(world.stock("AMIS1", "s-00098").await.1, "1");
}

#[tokio::test]
async fn a_poison_message_between_good_ones_delays_nobody() {
    let world = World::open().await;
    for n in 1..=3 {
        world.posts(world.sealed(&uuid(n), &[("98", "1", "18.95")]).await).await;
    }
    let mut batch: Vec<_> = world.post.waiting.lock().unwrap().drain(..).map(|(_, m)| m).collect();
    batch[1].body = "not ours".to_owned().into();
    let verdicts = world.deliver(Topic::ToDecrypt, &batch).await;
    assert_eq!(verdicts.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    world.settle().await;
    assert_eq!(world.balanced().await.recorded, 2);
}

#[tokio::test]
async fn a_tills_session_asks_for_the_private_key_once_however_many_sales_come_at_once() {
    let world = World::open().await;
    let (kid, key) = world.public_key("AMIS1").await;
    let session = sealer(&kid, &key);
    for n in 0..200 {
        let id = uuid(n);
        let sealed = session.seal(content(&id, NOON, &[("98", "1", "1")]).as_bytes()).unwrap();
        world.posts(json!({"shop_id": "AMIS1", "message_id": id, "sealed": sealed}).to_string()).await;
    }
    let batch: Vec<_> = world.post.waiting.lock().unwrap().drain(..).map(|(_, m)| m).collect();
    assert!(world.deliver(Topic::ToDecrypt, &batch).await.iter().all(Result::is_ok));
    world.settle().await;
    assert_eq!(world.keys.asked.load(Ordering::SeqCst), 1);
    assert_eq!(world.balanced().await.recorded, 200);
}

#[tokio::test]
async fn events_of_an_older_version_count_as_they_did() {
    let world = World::open().await;
    // given a sale recorded by version 1, which had neither totals nor a business date
    let sale_id: kassa_bus::SaleId = uuid(1).parse().unwrap();
    let row = |event: &str, kind: &str, body: Value| StoredEvent {
        key: EventKey { stream: "AMIS1#2026-11-22".into(), event: format!("{sale_id}#{event}") },
        kind: kind.into(),
        version: 1,
        at: NOON.parse().unwrap(),
        sale_id: sale_id.clone(),
        shop_id: "AMIS1".parse().unwrap(),
        trace: None,
        reason: None,
        body: body.to_string(),
    };
    let envelope = envelope_hash(&Envelope::Sealed { sealed: "…".into() });
    let lines = sales(&[("98", "2", "37.90"), ("12345", "1", "2.49")]);
    let content = URL64.encode(digest(&SHA256, format!("[{lines},null,null,null]").as_bytes()));
    let accepted = json!({"format": "sealed", "sealed": "…", "source": "192.0.2.1"});
    let rows = [
        row(&format!("accepted#{envelope}"), "accepted", accepted),
        row("recorded", "recorded", json!({"lines": lines, "content": content, "envelope": envelope})),
    ];
    let puts = rows.map(|row| {
        let put = Put::builder()
            .table_name(&world.store.tables.events)
            .set_item(Some(to_item(row)))
            .build()
            .unwrap();
        TransactWriteItem::builder().put(put).build()
    });
    world.store.client.transact_write_items().set_transact_items(Some(puts.into())).send().await.unwrap();
    // when the stream and a rebuild read it
    world.project().await;
    let projected = world.stock("AMIS1", "s-00098").await;
    world.questions.rebuild(&|_, _| {}).await.unwrap();
    // then it counts like one of today
    assert_eq!(projected, owned(("99998", "2", "37.9")));
    assert_eq!(world.stock("AMIS1", "s-00098").await, projected);
    assert_eq!(world.day("AMIS1", "d-2026-11-22").await.unwrap(), pair(("1", "40.39")));
    world.balanced().await;
}

#[tokio::test]
async fn the_check_tells_what_does_not_agree_and_a_rebuild_mends_it() {
    let world = World::open().await;
    world.posts(world.sealed(&uuid(1), &[("98", "1", "18.95"), ("777", "1", "1")]).await).await;
    world.settle().await;
    // given somebody who wrote into the rows by hand
    for (row, attribute) in [("s-00098", "stock"), ("d-2026-11-22", "turnover")] {
        let update = world.store.client.update_item().table_name(&world.store.tables.shops);
        update
            .key("shop_id", kassa_bus::table::s("AMIS1"))
            .key("record_type", kassa_bus::table::s(row))
            .update_expression("SET #a = :wrong")
            .expression_attribute_names("#a", attribute)
            .expression_attribute_values(":wrong", kassa_bus::table::n(5))
            .send()
            .await
            .unwrap();
    }
    let check = world.questions.check(&|_, _| {}).await.unwrap();
    assert_eq!(check.mismatches.len(), 2, "{:?}", check.mismatches);
    world.questions.rebuild(&|_, _| {}).await.unwrap();
    world.balanced().await;
    // and the projection goes on from where it was
    world.posts(world.sealed(&uuid(2), &[("98", "1", "18.95")]).await).await;
    world.settle().await;
    assert_eq!(world.stock("AMIS1", "s-00098").await, owned(("99998", "2", "37.9")));
    world.balanced().await;
}

#[tokio::test]
async fn a_message_says_which_envelope_it_is_and_nothing_of_the_sale_in_its_attributes() {
    let world = World::open().await;
    world.posts(world.sealed(&uuid(1), &[("98", "1", "18.95")]).await).await;
    let accepted: AcceptedSale<Carried> = world.post.waiting.lock().unwrap()[0].1.read().unwrap();
    assert_eq!(accepted.shop_id.as_str(), "AMIS1");
    world.settle().await;
    let delivered = world.post.delivered.lock().unwrap();
    let (_, process) = delivered.iter().find(|(topic, _)| *topic == Topic::ToProcess).unwrap();
    let mut attributes: Vec<_> = process.attributes.keys().collect();
    attributes.sort();
    assert_eq!(attributes, ["sale_id", "shop_id"]);
    assert!(!format!("{process:?}").contains("18.95"));
}
