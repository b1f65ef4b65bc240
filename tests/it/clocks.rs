//! Clocks that are wrong, of tills and of the shop: today stays today, and what is told of a shop's last sale is so.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp, ToSpan};
use kassa::console::{Access, Feed, Sight, router};
use kassa::monitor::{AlarmStatus, Line, Monitor, MonitorError, Query};
use kassa::questions::reconcile::ReconcileFilter;
use kassa::questions::{Books, EventFilter, Questions, Status, render};
use kassa::status::{View, look};
use kassa_bus::shops_table::key;
use kassa_bus::{Clock, Metric, SaleId};
use kassa_pipeline::row::ReadRow;
use serde_json::{Value, json};

use crate::common::world::{NOON, World, content, is, uuid};

/// Knows of no alarm and no metric.
struct Quiet;

#[async_trait]
impl Monitor for Quiet {
    fn stack(&self) -> &'static str {
        "kassa-quiet"
    }

    fn api(&self) -> &'static str {
        "quiet"
    }

    async fn data(&self, _: &[Query], _: Timestamp, _: Timestamp) -> Result<Vec<Line>, MonitorError> {
        Ok(Vec::new())
    }

    async fn alarms(&self) -> Result<Vec<AlarmStatus>, MonitorError> {
        Ok(Vec::new())
    }
}

impl World {
    fn time(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }

    fn clock(&self) -> Clock {
        let now = self.now.clone();
        Clock::from_fn(move || *now.lock().unwrap())
    }

    /// Sells one thing by a till whose clock says this, up to the read models.
    async fn sells_at(&self, sold_at: Timestamp) -> String {
        let id = SaleId::new(sold_at).to_string();
        let inside = content(&id, &sold_at.to_string(), &[("98", "1", "18.95")]);
        let answer = self.posts(self.seal_for("AMIS1", "AMIS1", &id, &inside).await).await;
        assert_eq!(answer.status, 202);
        self.settle().await;
        id
    }

    /// What a page of the console says, without its elements.
    async fn page(&self, path: &str) -> String {
        let feed = Arc::new(Feed::default());
        feed.ask(&self.questions, self.time()).await.unwrap();
        let sight = Sight {
            questions: Arc::new(Questions::new(Books { clock: self.clock(), ..self.store.books() })),
            monitor: Arc::new(Quiet),
            feed,
            access: Access::Loopback,
            clock: self.clock(),
            reach: String::new(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}{path}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move { axum::serve(listener, router(sight)).await });
        let body = reqwest::get(url).await.unwrap().text().await.unwrap();
        serving.abort();
        let texts = body.split('<').filter_map(|part| part.split_once('>')).map(|(_, text)| text.trim());
        texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// AMIS1's sales of today and when it last sold, as `kassa status` has them.
    async fn status(&self) -> (u64, Option<Timestamp>) {
        let view = View { place: String::new(), questions: &self.questions, monitor: None, deployed: false };
        let status = look(&view, self.time()).await.unwrap();
        let shop = status.shops.iter().find(|shop| shop.shop_id.as_str() == "AMIS1").unwrap();
        (shop.today.sales, shop.last_sale)
    }

    async fn misdated(&self) -> Vec<Value> {
        let (filter, mut found) = (EventFilter { misdated: true, ..EventFilter::default() }, Vec::new());
        let each = |event| {
            found.push(event);
            std::future::ready(true)
        };
        self.questions.events(&filter, each).await.unwrap();
        found
    }

    async fn last_at(&self, day: &str) -> Option<Timestamp> {
        let rows = self.questions.stock(Some("AMIS1")).await.unwrap().rows;
        rows.into_iter().find_map(|row| match row {
            ReadRow::Day(row) if row.record_type == day => Some(row.last_at),
            _ => None,
        })?
    }
}

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

#[tokio::test]
async fn what_is_dated_in_days_to_come_hides_nothing_and_is_counted_and_listed() {
    let world = World::open().await;
    let now = world.time();
    for _ in 0..5 {
        world.sells_at(now).await;
    }
    // given rows of days to come as fc5a417 booked them, two months of them from tomorrow on
    for ahead in 1..=60 {
        let date = jiff::civil::date(2026, 11, 22) + ahead.days();
        let put = world.store.client.put_item().table_name(&world.store.tables.shops);
        let put = put.set_item(Some(key("AMIS1", &format!("d-{date}"))));
        let put = put
            .item("sales", AttributeValue::N("7".into()))
            .item("turnover", AttributeValue::N("777".into()));
        put.item("last_at", AttributeValue::S("2026-11-22T11:00:00.000Z".into())).send().await.unwrap();
    }
    // and a till whose clock is two years ahead, then one a day ahead, which is believed
    let mut ahead = Vec::new();
    for n in 0..3 {
        ahead.push(world.sells_at(now + days(730 + n)).await);
    }
    world.sells_at(now + days(1)).await;
    // then today is what was sold today and what nobody believes was sold later, wherever it is asked for
    assert_eq!(world.status().await, (8, Some(now)));
    let overview = world.page("/").await;
    assert!(overview.contains("Turnover today 151.60 Sales today 8"), "{overview}");
    let stock = world.page("/stock/AMIS1").await;
    assert!(stock.contains("2026-11-22 8 151.60") && !stock.contains("2026-12-22"), "{stock}");
    world.minute().await;
    assert_eq!(world.measured(Metric::SalesToday, Some("AMIS1")), Some(8.0));
    // and each of these is counted, and listed with the day it says and the till it is from
    assert_eq!(world.counted_as(Metric::Misdated, "AMIS1"), 3);
    let listed = world.misdated().await;
    let mut ids: Vec<&str> = listed.iter().map(|event| event["sale_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ahead);
    for event in &listed {
        let body = &event["body"];
        assert_eq!((&body["business_date"], &body["till"]), (&json!("2026-11-22"), &json!("till-7")));
        assert!(body["dated"].as_str().unwrap().starts_with("2028-11-2"), "{body}");
        assert!(body["sold_at"].as_str().unwrap().starts_with("2028-11-2"), "{body}");
    }
    // and each says so of itself
    let told = render::sale(&world.sale(&ahead[0]).await, &world.questions.zones().await.unwrap());
    assert!(told.contains("booked on 2026-11-22 though dated 2028-11-21"), "{told}");
    assert!(told.contains("when (Europe/Amsterdam)") && told.contains("2026-11-22 13:00:00.000"), "{told}");
    let page = world.page(&format!("/sales/AMIS1/{}", ahead[0])).await;
    assert!(page.contains("2028-11-21") && page.contains("is not believed"), "{page}");
}

#[tokio::test]
async fn a_till_that_is_hours_ahead_does_not_hide_what_is_sold_now() {
    // given a shop on AWS, whose console asks for the latest, and a till that is some hours ahead and sells much
    let world = World::open().await;
    let now = world.time();
    let sold = world.sells_at(now).await;
    let mut ahead = String::new();
    for n in 0..40 {
        ahead = world.sells_at(now + SignedDuration::from_hours(9) + SignedDuration::from_secs(n)).await;
    }
    let page = world.page("/sales").await;
    for id in [sold, ahead] {
        assert!(page.contains(&id[28..]), "{id} in {page}");
    }
}

#[tokio::test]
async fn a_sale_whose_id_is_of_days_to_come_settles_and_is_found_like_any_other() {
    let world = World::open().await;
    let id = world.sells_at(world.time() + days(400)).await;
    is(&world.sale(&id).await, Status::Recorded);
    let outcome = world.accept.outcome("AMIS1", &id, "192.0.2.7".into()).await;
    assert!(outcome.body.contains("recorded"), "{}", outcome.body);
    assert!(world.page(&format!("/sales/AMIS1/{id}")).await.contains("recorded"));
    // given one that was accepted and whose message was lost
    let lost = SaleId::new(world.time() + days(401)).to_string();
    let inside = content(&lost, NOON, &[("98", "1", "18.95")]);
    world.posts(world.seal_for("AMIS1", "AMIS1", &lost, &inside).await).await;
    world.post.waiting.lock().unwrap().clear();
    let outcome = world.accept.outcome("AMIS1", &lost, "192.0.2.7".into()).await;
    assert!(outcome.body.contains("pending"), "{}", outcome.body);
    // then it is sent on its way again, and is recorded
    let filter = ReconcileFilter { shop: None, dry_run: false };
    let publisher = &*world.post;
    world.questions.reconcile(&filter, Some(publisher), &|_, _| {}).await.unwrap();
    world.settle().await;
    is(&world.sale(&lost).await, Status::Recorded);
    assert_eq!(world.balanced().await.recorded, 2);
}

#[tokio::test]
async fn no_last_sale_is_still_to_come_when_the_shops_clock_was_ahead() {
    // given a shop whose clock was a day ahead for an hour, and has been set right since
    let world = World::open().await;
    let noon = world.time();
    world.passes(days(1));
    let ahead = world.time();
    world.sells_at(noon).await;
    assert_eq!(world.status().await.1, Some(ahead));
    world.passes(-days(1));
    // then nobody takes tomorrow for its last sale
    assert_eq!(world.status().await.1, None);
    let overview = world.page("/").await;
    assert!(overview.contains("Last sale 22 Nov 2026"), "{overview}");
    // and with the next sale the day's row says when that was, and says so after a rebuild, and nobody complains
    world.passes(SignedDuration::from_mins(5));
    world.sells_at(noon).await;
    let sold = world.time();
    assert_eq!((world.last_at("d-2026-11-22").await, world.status().await.1), (Some(sold), Some(sold)));
    world.balanced().await;
    world.questions.rebuild(&|_, _| {}).await.unwrap();
    assert_eq!(world.last_at("d-2026-11-22").await, Some(sold));
    world.balanced().await;
    // and on the day that was once to come likewise: what the row says is the time of one of its sales
    world.passes(days(2));
    world.balanced().await;
}

#[tokio::test]
async fn a_shop_whose_till_is_a_day_ahead_is_not_silent() {
    // given ten sales on Sunday last week, and a till that was set a day ahead since
    let world = World::open().await;
    *world.now.lock().unwrap() = "2026-11-15T12:00:00Z".parse().unwrap();
    for n in 0..10 {
        world.posts(world.classic(Some(&format!("{n}-20261115")), &[("98", "1", "1.50")]).await).await;
    }
    world.settle().await;
    *world.now.lock().unwrap() = "2026-11-22T13:00:00Z".parse().unwrap();
    world.sells_at(world.time() + days(1)).await;
    world.minute().await;
    // then it sells
    assert_eq!(world.measured(Metric::OverdueSales, Some("AMIS1")), Some(0.0));
    assert_eq!(world.status().await, (0, Some(world.time())));
}

#[tokio::test]
async fn every_time_of_rfc_3339_is_recorded_and_reads_back_and_what_is_none_is_named() {
    let world = World::open().await;
    let sells = async |n: i64, sold_at: &str| {
        let id = uuid(n);
        let inside = content(&id, sold_at, &[("98", "1", "18.95")]);
        world.posts(world.seal_for("AMIS1", "AMIS1", &id, &inside).await).await;
        world.settle().await;
        world.sale(&id).await.events.pop().unwrap().body
    };
    let forms = [
        ("2026-11-22T11:00:00.12345678901234567890Z", "2026-11-22T11:00:00.123456789Z"),
        ("2026-11-22t12:00:00+01:00", "2026-11-22T11:00:00Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
        ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59Z", "9999-12-30T22:00:00.999999999Z"),
        ("9999-12-29T23:59:59.9999999999-23:59", "9999-12-30T22:00:00.999999999Z"),
    ];
    for (n, (sold_at, kept)) in (1..).zip(forms) {
        assert_eq!(sells(n, sold_at).await["sold_at"], kept, "{sold_at}");
    }
    let rejected = sells(99, "2026-11-22T12:00:00").await;
    assert_eq!(rejected["reason"], "invalid-sale");
    let detail = rejected["detail"].as_str().unwrap();
    assert!(detail.contains("sold_at must be a date and time with offset (RFC 3339)"), "{detail}");
    // and all of it is read back
    world.questions.rebuild(&|_, _| {}).await.unwrap();
    let check = world.balanced().await;
    assert_eq!((check.recorded, check.rejected), (6, 1));
}
