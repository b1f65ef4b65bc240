//! A busy quarter of a minute in the real shop on one machine: it counts and measures everything the catalogue has.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use flate2::read::GzDecoder;
use jiff::{SignedDuration, Timestamp};
use kassa::embedded::{OpenShop, Sync, Up};
use kassa::monitor::{Line as Answer, Monitor, Query, What};
use kassa::shops::Shops;
use kassa::till::{Format, Prepared, Till};
use kassa_bus::local::STACK;
use kassa_bus::message::Envelope;
use kassa_bus::{Clock, Dimension, Line, Metric, Settings};
use kassa_pipeline::event::{Accepted, Event, EventKey, Fact};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A warehouse that stumbles at first, does not want item 777, and takes the rest.
async fn warehouse() -> (String, JoinHandle<()>) {
    async fn answer(State(requests): State<Arc<AtomicUsize>>, body: Bytes) -> StatusCode {
        let mut sales = String::new();
        GzDecoder::new(&*body).read_to_string(&mut sales).unwrap();
        match requests.fetch_add(1, Ordering::SeqCst) {
            0..2 => StatusCode::INTERNAL_SERVER_ERROR,
            _ if sales.contains("\"777\"") => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::NO_CONTENT,
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/sales", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer).with_state(Arc::default());
    (url, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
}

/// A shop in which a minute takes a quarter of a second, it is never night, and a manager has one text message a month.
async fn shop(data: &Path, warehouse: &str) -> OpenShop {
    let mut shops = Shops::read(None).unwrap();
    shops.shops[0].sms_budget = 1;
    shops.shops[0].opening_hours = Some("mo-su 00:00-24:00".parse().unwrap());
    shops.shops[0].quiet_hours = None;
    let settings = [
        ("MINUTE", "250ms"),
        ("GROUP_WAIT", "500ms"),
        ("REPEAT_INTERVAL", "1s"),
        ("RESOLVE_AFTER", "3s"),
        ("WAREHOUSE_URL", warehouse),
        ("WAREHOUSE_SECRET", SECRET),
        ("WAREHOUSE_ALLOW_HTTP", "true"),
        ("WAREHOUSE_ALLOW_PRIVATE", "true"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let up = Up {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: data.to_owned(),
        shops,
        sync: Sync::Normal,
        clock: Clock::system(),
        settings: Settings::none().with(settings),
        tls: None,
    };
    OpenShop::open(up).await.unwrap()
}

fn till(shop: &OpenShop, of: &str, format: Format, clock: Clock) -> Till {
    Till::new(&shop.occupant.url, of.parse().unwrap(), "till-1", format, clock).unwrap()
}

fn lines(item: &str, number: &str, turnover: &str) -> Vec<Line> {
    vec![Line {
        item_no: item.parse().unwrap(),
        gross_number: number.parse().unwrap(),
        gross_turnover: turnover.parse().unwrap(),
    }]
}

async fn sells(till: &Till, item: &str, number: &str, turnover: &str) -> Prepared {
    let sale = till.ring_up(lines(item, number, turnover)).await.unwrap();
    till.post(&sale).await.unwrap();
    sale
}

/// Waits until so many were counted.
async fn counted(shop: &OpenShop, metric: Metric, least: u64) {
    let begun = Instant::now();
    while shop.metrics.get(metric) < least {
        assert!(begun.elapsed() < Duration::from_mins(1), "in a minute {metric:?} did not come to {least}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What nobody can read, where it will be looked at: an item's row, the event of a sale that is sold now, and an event
/// from the future.
async fn poison(shop: &OpenShop) {
    let s = |text: &str| AttributeValue::S(text.to_owned());
    let client = &shop.store.client;
    let row = client.update_item().table_name(&shop.store.tables.shops);
    let row = row.key("shop_id", s("AMIS1")).key("record_type", s("s-90001"));
    let row = row.update_expression("SET gross_number = :n").expression_attribute_values(":n", s("many"));
    row.send().await.unwrap();
    let events = &shop.store.tables.events;
    let till = till(shop, "AMIS1", Format::Sealed, Clock::system());
    let sale = till.ring_up(lines("98", "1", "18.95")).await.unwrap();
    let EventKey { stream, event } = EventKey::recorded(&"AMIS1".parse().unwrap(), &sale.sale_id);
    let put = Put::builder().table_name(events).item("stream", s(&stream)).item("event", s(&event));
    let write = TransactWriteItem::builder().put(put.build().unwrap()).build();
    client.transact_write_items().transact_items(write).send().await.unwrap();
    till.post(&sale).await.unwrap();
    let scan = client.scan().table_name(events).send().await.unwrap();
    let is_recorded = |item: &&HashMap<String, AttributeValue>| {
        item["event"].as_s().unwrap().ends_with("recorded") && item.contains_key("body")
    };
    let mut event = scan.items().iter().find(is_recorded).expect("a recorded sale").clone();
    // Beside the one it is a copy of.
    let key = event["event"].as_s().unwrap().replacen(|c: char| c.is_ascii_digit(), "7", 3);
    event.insert("event".into(), s(&key));
    event.insert("version".into(), AttributeValue::N("99".into()));
    let put = Put::builder().table_name(events).set_item(Some(event)).build().unwrap();
    let write = TransactWriteItem::builder().put(put).build();
    client.transact_write_items().transact_items(write).send().await.unwrap();
}

/// A sale that was accepted just before the shop died, and never published.
async fn left_behind(shop: &OpenShop) {
    let then = Timestamp::now();
    let sale = till(shop, "AMIS1", Format::Sealed, Clock::from_fn(move || then));
    let sale = sale.ring_up(lines("98", "1", "18.95")).await.unwrap();
    let body: Value = serde_json::from_str(&sale.body).unwrap();
    let sealed = body["sealed"].as_str().unwrap().to_owned();
    let envelope = Envelope::Sealed { sealed };
    let fact = Fact::Accepted(Accepted { envelope, source: "127.0.0.1".into(), revocations: None });
    let event =
        Event { shop_id: "AMIS1".parse().unwrap(), sale_id: sale.sale_id, at: then, trace: None, fact };
    shop.store.events.append(&event).await.unwrap();
}

/// All there is to do in a shop, and all that goes wrong.
async fn busy(shop: &OpenShop) {
    let sealed = till(shop, "AMIS1", Format::Sealed, Clock::system());
    let classic = till(shop, "AMIS1", Format::Classic, Clock::system());
    let sold = sells(&sealed, "12345", "3", "7.47").await;
    sealed.post(&sold).await.unwrap();
    sells(&sealed, "12345", "-1", "-2.49").await;
    sells(&sealed, "777", "1", "1").await;
    let first = sells(&classic, "98", "1", "18.95").await;
    counted(shop, Metric::Recorded, 4).await;
    // given another sale under the id of one
    let mut other = classic.ring_up(lines("98", "2", "37.90")).await.unwrap();
    let mut body: Value = serde_json::from_str(&other.body).unwrap();
    body["message_id"] = Value::from(first.sale_id.to_string());
    other.body = body.to_string();
    classic.post(&other).await.unwrap();
    // given a sale of last week, which is what today's are expected by
    let last_week = Clock::from_fn(|| Timestamp::now() - SignedDuration::from_hours(24 * 7));
    sells(&till(shop, "AMIS1", Format::Sealed, last_week), "98", "1", "18.95").await;
    // given a till from next year, one from last year, and a request that is none
    let next_year = Clock::from_fn(|| Timestamp::now() + SignedDuration::from_hours(24 * 400));
    sells(&till(shop, "AMIS2", Format::Sealed, next_year), "98", "1", "18.95").await;
    let last_year = Clock::from_fn(|| Timestamp::now() - SignedDuration::from_hours(24 * 400));
    sells(&till(shop, "AMIS2", Format::Sealed, last_year), "98", "1", "18.95").await;
    let none = Prepared { body: "{}".into(), ..sold };
    sealed.post(&none).await.unwrap_err();
    counted(shop, Metric::Projected, 7).await;
    // given tills with another shop's key, and what cannot be read where they are looked into
    poison(shop).await;
    let mut wrong = Vec::new();
    for (of, key_of) in [("AMIS1", "AMIS2"), ("AMIS2", "AMIS1")] {
        let mut till = till(shop, of, Format::Classic, Clock::system());
        till.key_of = key_of.parse().unwrap();
        wrong.push((of, sells(&till, "98", "1", "18.95").await.sale_id));
    }
    // given that the manager was told, and would have been told again; then the tills send these sales with the right key
    counted(shop, Metric::SmsOverBudget, 1).await;
    for (of, sale) in wrong {
        let till = till(shop, of, Format::Classic, Clock::system());
        let mut booked = till.ring_up(lines("90001", "1", "18.95")).await.unwrap();
        let mut body: Value = serde_json::from_str(&booked.body).unwrap();
        body["message_id"] = Value::from(sale.to_string());
        booked.body = body.to_string();
        till.post(&booked).await.unwrap();
    }
}

/// Every series of a metric under a set of dimensions, the last hour together.
async fn series(shop: &OpenShop, metric: Metric, set: &[Dimension], stat: &str) -> Vec<Answer> {
    let names = std::iter::once(STACK).chain(set.iter().map(|dimension| dimension.name()));
    let schema: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
    let search = format!("{{{}}} MetricName=\"{}\"", schema.join(","), metric.name());
    let what = What::Expression(format!("SEARCH('{search}', '{stat}', 3600)"));
    let query = Query { id: "e".into(), what, label: None, period: 3600, shown: true };
    let now = Timestamp::now();
    shop.monitor.data(&[query], now - SignedDuration::from_hours(1), now).await.unwrap()
}

/// What the catalogue has and the shop has not said.
async fn missing(shop: &OpenShop) -> Vec<String> {
    let mut missing = Vec::new();
    for metric in Metric::ours() {
        for set in metric.dimensions() {
            let said = series(shop, metric, set, "SampleCount").await;
            if said.iter().all(|line| line.points.is_empty()) {
                missing.push(format!("{} by {set:?}", metric.name()));
            }
        }
    }
    missing
}

/// What the series of a metric come to together.
async fn sum(shop: &OpenShop, metric: Metric, set: &[Dimension]) -> f64 {
    let lines = series(shop, metric, set, "Sum").await;
    lines.iter().flat_map(|line| &line.points).map(|(_, value)| value).sum()
}

fn same(a: f64, b: f64) -> bool {
    (a - b).abs() < 0.001
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_shop_says_everything_that_the_catalogue_has_and_its_books_balance() {
    // given everything that can happen
    let folder = tempfile::tempdir().unwrap();
    let (url, warehouse) = warehouse().await;
    let before = shop(folder.path(), &url).await;
    left_behind(&before).await;
    before.close().await;
    let shop = shop(folder.path(), &url).await;
    busy(&shop).await;

    // then each metric was there, by each of its sets of dimensions
    let begun = Instant::now();
    loop {
        let missing = missing(&shop).await;
        if missing.is_empty() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "never said: {missing:#?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    // and what they say adds up
    counted(&shop, Metric::Projected, 10).await;
    let mut counted = BTreeMap::new();
    let projected = Metric::Projected;
    for metric in [Metric::Accepted, Metric::Recorded, Metric::Rejected, projected] {
        let whole = sum(&shop, metric, &[]).await;
        for set in metric.dimensions() {
            let parts = sum(&shop, metric, set).await;
            assert!(same(whole, parts), "{metric:?} by {set:?}: {parts} of {whole}");
        }
        counted.insert(metric, whole);
    }
    assert_eq!((counted[&Metric::Recorded], counted[&Metric::Rejected]), (10.0, 3.0));
    // Of the one that was left behind, nobody saw that it was accepted; and one cannot be recorded.
    assert!(same(counted[&Metric::Accepted], counted[&Metric::Recorded] + counted[&Metric::Rejected]));
    assert!(same(counted[&projected], counted[&Metric::Recorded]));
    let by_class = sum(&shop, Metric::WrongKeys, &[Dimension::Class]).await;
    assert!(same(by_class, sum(&shop, Metric::WrongKeys, &[Dimension::Shop, Dimension::Class]).await));
    shop.close().await;
    warehouse.abort();
}
