//! The largest sale there may be goes through whole, wherever it comes through; what is larger is told so at the door.

use std::time::{Duration, Instant};

use futures::future::join_all;
use kassa::embedded::{Store, Sync};
use kassa::questions::Status;
use kassa::questions::rejected::RejectedFilter;
use kassa_bus::limits::{
    MAX_BATCH_BODY, MAX_BODY, MAX_ENVELOPE, MAX_INLINE, MAX_LINE, MAX_LINES, MAX_MESSAGE,
};
use kassa_bus::message::{AcceptedSale, Carried, DecryptedSale, Envelope, Origin, Reason};
use kassa_bus::{Clock, Message, Topic};
use kassa_pipeline::event::{Accepted, Event, Fact};
use kassa_pipeline::event_store::Appended;
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::common::cloud::{Cloud, SOON};
use crate::common::postgres::Postgres;
use crate::common::process::{Up, json};
use crate::common::road::Receiving;
use crate::common::warehouse::SECRET;
use crate::common::world::{World, is, sealer, uuid};

/// The largest legal form of an item's number and of an amount.
const ITEM: u64 = 999_999_999_999_999_999;
const NUMBER: &str = "-123456789012.123456";
const TURNOVER: &str = "-0.12345678901234567";

/// A sale of so many lines, each of another item and as large as it may be.
fn largest(id: &str, lines: usize) -> String {
    let line = |n: u64| json!({"item_no": (ITEM - n).to_string(), "gross_number": NUMBER, "gross_turnover": TURNOVER});
    let lines: Vec<Value> = (0..).take(lines).map(line).collect();
    let till = "\"".repeat(100);
    json!({"sale_id": id, "till": till, "seq": u64::MAX, "sold_at": "2026-11-22T12:00:00.123456789Z", "sales": lines})
        .to_string()
}

/// An envelope in its form, as large as it is said to be, that nothing opens.
async fn rubbish(world: &World, key_of: &str, bytes: usize) -> String {
    let (kid, key) = world.public_key(key_of).await;
    let session = sealer(&kid, &key);
    let empty = session.seal(b"").unwrap().len();
    let sealed = session.seal(&vec![b' '; (bytes - empty) * 3 / 4]).unwrap();
    assert!(bytes - sealed.len() < 2, "{} for {bytes}", sealed.len());
    sealed
}

fn request(id: &str, sealed: &str) -> String {
    json!({"shop_id": "AMIS1", "message_id": id, "sealed": sealed}).to_string()
}

/// What waits to be delivered first.
fn waiting(world: &World) -> Message {
    world.post.waiting.lock().unwrap()[0].1.clone()
}

#[tokio::test]
async fn every_message_of_the_largest_sale_is_one_that_sns_takes() {
    let world = World::open().await;
    let posted = world.seal_for("AMIS1", "AMIS1", &uuid(0), &largest(&uuid(0), MAX_LINES)).await;
    assert_eq!(world.posts(posted).await.status, 202);
    // on to-decrypt it goes by its event's key
    let message = waiting(&world);
    assert!(message.size() < 2_000, "{}", message.size());
    assert!(matches!(message.read::<AcceptedSale<Carried>>().unwrap().envelope, Carried::Accepted { .. }));
    // on to-process it fits, and every line keeps to the bound
    world.deliver(Topic::ToDecrypt, &[message]).await[0].as_ref().unwrap();
    let message = world.post.waiting.lock().unwrap().back().unwrap().1.clone();
    assert!(message.size() <= MAX_MESSAGE - 16 * 1024, "{}", message.size());
    let sale: DecryptedSale = message.read().unwrap();
    let line = serde_json::to_vec(&sale.lines[0]).unwrap().len() + 1;
    assert!((100..=MAX_LINE).contains(&line), "{line}");
    assert_eq!(sale.lines.len(), MAX_LINES);
    // and it is recorded and projected
    world.settle().await;
    is(&world.sale(&uuid(0)).await, Status::Recorded);
    assert_ne!(world.stock("AMIS1", "s-other").await.1, "0");
    world.balanced().await;
}

#[tokio::test]
async fn a_line_too_many_is_rejected_and_a_byte_too_many_is_refused_and_both_say_what_is_allowed() {
    let world = World::open().await;
    let posted = world.seal_for("AMIS1", "AMIS1", &uuid(0), &largest(&uuid(0), MAX_LINES + 1)).await;
    assert_eq!(world.posts(posted).await.status, 202);
    world.settle().await;
    is(&world.sale(&uuid(0)).await, Status::Rejected);
    assert!(world.rejections()[0].detail.contains("1 to 2000 lines"), "{}", world.rejections()[0].detail);
    // when an envelope is as large as it may be, and when it is larger
    let sealed = rubbish(&world, "AMIS1", MAX_ENVELOPE).await;
    assert_eq!(world.posts(request(&uuid(1), &sealed)).await.status, 202);
    let answer = world.posts(request(&uuid(2), &format!("{sealed}AAAA"))).await;
    assert_eq!(answer.status, 413);
    assert!(answer.body.contains("an envelope is at most 327680 bytes"), "{}", answer.body);
    // a batch takes it as well, and says the same of the other
    let member = |n, sealed: &str| json!({"message_id": uuid(n), "sealed": sealed});
    let batch = |members: &[Value]| json!({"shop_id": "AMIS1", "sales": members}).to_string();
    assert_eq!(world.posts(batch(&[member(3, &sealed)])).await.status, 202);
    let answer = world.posts(batch(&[member(4, &format!("{sealed}AAAA"))])).await;
    assert!(answer.status == 207 && answer.body.contains("327680"), "{}", answer.body);
    // and so is a body that is too large around a small envelope
    let padded = |bytes: usize| format!("{}{}", request(&uuid(5), "x"), " ".repeat(bytes));
    assert_eq!(world.posts(padded(MAX_BODY)).await.status, 413);
    assert_eq!(world.posts(padded(MAX_BATCH_BODY)).await.status, 413);
}

#[tokio::test]
async fn the_event_store_has_room_for_the_largest_envelope_and_all_that_stands_beside_it() {
    let world = World::open().await;
    let long: kassa_bus::ShopId = "S".repeat(64).parse().unwrap();
    let sealed = rubbish(&world, "AMIS1", MAX_ENVELOPE).await;
    let lines = format!("AAAA{}", "\n".repeat(MAX_ENVELOPE / 2 - 2));
    let id = format!("{}-20261122", "9".repeat(20));
    for (envelope, id) in
        [(Envelope::Sealed { sealed }, uuid(0)), (Envelope::Classic { content_base64: lines }, id)]
    {
        let event = Event {
            shop_id: long.clone(),
            sale_id: id.parse().unwrap(),
            at: "2026-11-22T12:00:00.123456789Z".parse().unwrap(),
            trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().ok(),
            fact: Fact::Accepted(Accepted {
                envelope,
                source: "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255".into(),
                revocations: None,
            }),
        };
        assert!(matches!(world.store.events.append(&event).await.unwrap(), Appended::New));
    }
}

#[tokio::test]
async fn what_went_by_its_key_before_is_read_and_what_has_no_event_is_tried_again() {
    let world = World::open().await;
    let posted = world.seal_for("AMIS1", "AMIS1", &uuid(0), &largest(&uuid(0), MAX_LINES)).await;
    let sealed = serde_json::from_str::<Value>(&posted).unwrap()["sealed"].as_str().unwrap().to_owned();
    // given a message as the version before wrote it, and one whose event is not there
    let old = |id: &str, envelope: Value| Message {
        id: id.to_owned(),
        attributes: [("shop_id".to_owned(), "AMIS1".to_owned())].into(),
        body: json!({"shop_id": "AMIS1", "sale_id": id, "envelope": envelope,
            "origin": {"source": "192.0.2.7", "accepted_at": "2026-11-22T12:00:00Z", "attempt": 1}})
        .to_string()
        .into(),
        sent: None,
    };
    let inline = old(&uuid(0), json!({"format": "sealed", "sealed": sealed}));
    let missing = old(&uuid(1), json!({"accepted": "A".repeat(43)}));
    // when both come in one batch
    let verdicts = world.deliver(Topic::ToDecrypt, &[inline, missing.clone()]).await;
    // then the one goes on, the other comes again, and nothing is rejected
    assert!(verdicts[0].is_ok());
    assert!(matches!(&verdicts[1], Err(kassa_bus::Failure::Retry(_))), "{:?}", verdicts[1]);
    let said = format!("{:?}", verdicts[1]);
    assert!(said.contains(&uuid(1)), "{said}");
    assert!(world.rejections().is_empty());
}

#[tokio::test]
async fn a_large_sale_that_was_left_behind_or_rejected_goes_again_by_its_key() {
    let world = World::open().await;
    // given a large sale whose message was lost, and one that was rejected
    let posted = world.seal_for("AMIS1", "AMIS1", &uuid(0), &largest(&uuid(0), MAX_LINES)).await;
    assert_eq!(world.posts(posted).await.status, 202);
    world.post.waiting.lock().unwrap().clear();
    let rejected = world.seal_for("AMIS1", "AMIS1", &uuid(1), &largest(&uuid(1), MAX_LINES + 1)).await;
    assert_eq!(world.posts(rejected).await.status, 202);
    world.settle().await;
    // when time passes, and somebody has the other put through again
    world.passes(jiff::SignedDuration::from_mins(10));
    world.minute().await;
    let retried = world.questions.retry(&RejectedFilter::default(), &*world.post, &|_, _| {}).await.unwrap();
    assert_eq!(retried.len(), 1);
    // then both went by their keys
    let sizes: Vec<usize> = world.post.waiting.lock().unwrap().iter().map(|(_, m)| m.size()).collect();
    assert!(sizes.len() == 2 && sizes.iter().all(|size| *size < 2_000), "{sizes:?}");
    world.settle().await;
    is(&world.sale(&uuid(0)).await, Status::Recorded);
    is(&world.sale(&uuid(1)).await, Status::Rejected);
}

#[tokio::test]
async fn a_large_envelope_of_a_wrong_key_is_told_without_it() {
    let world = World::open().await;
    for (n, bytes) in [(0, MAX_INLINE), (1, MAX_ENVELOPE)] {
        let sealed = rubbish(&world, "AMIS2", bytes).await;
        assert_eq!(world.posts(request(&uuid(n), &sealed)).await.status, 202);
    }
    world.settle().await;
    let rejections = world.rejections();
    assert_eq!([rejections[0].reason, rejections[1].reason], [Reason::WrongKey; 2]);
    assert!(rejections[0].closed.is_some() && rejections[1].closed.is_none());
    for rejected in &rejections {
        assert!(Message::of(rejected).size() <= MAX_MESSAGE);
        assert!(rejected.sealed_with.as_ref().unwrap().shop_id.is_some());
    }
    // what is told anew of a sale is the same
    world.balanced().await;
}

/// An event with a body of so many bytes.
fn event(n: usize, bytes: usize) -> Event {
    let envelope = Envelope::Sealed { sealed: "x".repeat(bytes) };
    Event {
        shop_id: "AMIS1".parse().unwrap(),
        sale_id: format!("{n}-20261122").parse().unwrap(),
        at: Clock::system().now(),
        trace: None,
        fact: Fact::Accepted(Accepted { envelope, source: "192.0.2.7".into(), revocations: None }),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_large_appends_at_once_are_written_and_one_that_cannot_be_fails_alone() {
    let store = Store::open(None, Sync::Normal).await.unwrap();
    // given 20 MB of large events at once, small ones among them, and one that no item has room for
    let sizes = (0..128).map(|n| {
        if n == 77 {
            500_000
        } else if n % 2 == 0 {
            MAX_ENVELOPE
        } else {
            100
        }
    });
    let events: Vec<Event> = sizes.enumerate().map(|(n, bytes)| event(n, bytes)).collect();
    // when
    let appended = join_all(events.iter().map(|event| store.events.append(event))).await;
    // then
    for (n, appended) in appended.iter().enumerate() {
        assert_eq!(matches!(appended, Ok(Appended::New)), n != 77, "{n}");
    }
    assert!(matches!(store.events.append(&events[1]).await.unwrap(), Appended::Exists(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_queue_takes_a_whole_batch_of_the_largest_messages() {
    let store = Store::open(None, Sync::Normal).await.unwrap();
    let queues = store.kept(&Clock::system()).queues;
    let message = |n: usize| Message {
        id: n.to_string(),
        attributes: [("shop_id".to_owned(), "AMIS1".to_owned())].into(),
        body: "x".repeat(MAX_MESSAGE - 100).into(),
        sent: None,
    };
    let messages: Vec<Message> = (0..100).map(message).collect();
    queues.put("warehouse-webhook", &messages, Duration::ZERO).await.unwrap();
    assert_eq!(queues.count("warehouse-webhook").await.unwrap(), 100);
}

/// Seals the largest sale for whoever serves this shop, and posts it.
async fn posts_largest(url: &str, id: &str) {
    let http = reqwest::Client::new();
    let jwk: Value = http.get(format!("{url}/shop/AMIS1/key")).send().await.unwrap().json().await.unwrap();
    let key: kassa_bus::keys::PublicKey = serde_json::from_value(jwk).unwrap();
    let session = sealer(key.kid(), &crate::common::world::encrypting(&key));
    let sealed = session.seal(largest(id, MAX_LINES).as_bytes()).unwrap();
    let answer = http.post(format!("{url}/shop")).body(request(id, &sealed)).send().await.unwrap();
    assert_eq!(answer.status(), 202);
}

/// Then the warehouse has the largest sale, whole.
async fn has_largest(client: &Client, id: &str) {
    let question = "select count(*), sum(gross_number)::text, sum(gross_turnover)::text
        from fact_sale_line join dim_item using (item_key) where sale_id = $1";
    let begun = Instant::now();
    loop {
        // The receiver makes its tables when it is first there.
        let row = client.query_one(question, &[&id]).await.ok();
        if let Some(row) = row.filter(|row| row.get::<_, i64>(0) > 0) {
            let (lines, number, turnover): (i64, String, String) = (row.get(0), row.get(1), row.get(2));
            assert_eq!(
                (lines, &*number, &*turnover),
                (2_000, "-246913578024246.912000", "-246.91357802469134000")
            );
            return;
        }
        assert!(begun.elapsed() < Duration::from_mins(2), "it is not there after two minutes");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_sale_goes_from_the_door_to_the_warehouse_on_one_machine() {
    let postgres = Postgres::start();
    let receiver = Receiving::start(&postgres.url());
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        format!("WAREHOUSE_URL={}/sales", receiver.url),
        format!("WAREHOUSE_SECRET={SECRET}"),
        "WAREHOUSE_ALLOW_HTTP=true".to_owned(),
        "WAREHOUSE_ALLOW_PRIVATE=true".to_owned(),
    ];
    let set: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let up = Up::start_with(folder.path(), &set);
    posts_largest(&up.url, &uuid(0)).await;
    up.settled();
    has_largest(&postgres.client().await, &uuid(0)).await;
    let asked =
        |args: &[&str]| json(&[args, &["--json", "--data", folder.path().to_str().unwrap()]].concat());
    let check = asked(&["check"]);
    assert_eq!((&check["recorded"], &check["mismatches"]), (&json!(1), &json!([])));
    let sale = asked(&["sale", &uuid(0)]);
    assert_eq!(
        sale["events"].as_array().unwrap().last().unwrap()["body"]["lines"].as_array().unwrap().len(),
        2_000
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn on_aws_the_largest_sale_goes_from_the_door_to_the_warehouse() {
    let postgres = Postgres::start();
    let receiver = Receiving::start(&postgres.url());
    let cloud = Cloud::deployed_with(&[SOON, &format!("--param=warehouseUrl={}/sales", receiver.url)]).await;
    let secret = format!(
        "aws('secretsmanager').put_secret_value(SecretId='kassa-local-warehouse', SecretString='{SECRET}'); print('null')"
    );
    cloud.boto(&secret).await;
    posts_largest(&cloud.url, &uuid(0)).await;
    let right = |check: &Value| check["recorded"] == 1 && check["mismatches"] == json!([]);
    cloud.until("it is in the rows", &["check"], right).await;
    has_largest(&postgres.client().await, &uuid(0)).await;
    let dead = cloud.ask(&["dead-letters"]).await;
    assert!(dead.as_array().unwrap().iter().all(|queue| queue["letters"] == 0), "{dead}");
}

#[test]
fn a_message_has_room_beside_an_envelope_that_goes_in_it() {
    let sale = AcceptedSale {
        shop_id: "S".repeat(64).parse().unwrap(),
        sale_id: uuid(0).parse().unwrap(),
        envelope: Envelope::Sealed { sealed: "x".repeat(MAX_INLINE) },
        origin: Origin {
            source: "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255".into(),
            accepted_at: "2026-11-22T12:00:00.123456789Z".parse().unwrap(),
            attempt: u32::MAX,
            opened_with: None,
            trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().ok(),
        },
    };
    let message = kassa_pipeline::claim_check::message(&sale);
    assert!((MAX_INLINE..=MAX_MESSAGE - 8 * 1024).contains(&message.size()), "{}", message.size());
}
