//! What is told once a minute: what is pending, which shop is silent, today against last week.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::AttributeValue;
use futures::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use kassa::embedded::{OpenShop, Sync, Up};
use kassa::shops::Shops;
use kassa_bus::message::Envelope;
use kassa_bus::metrics::{Series, Values};
use kassa_bus::shops_table::key;
use kassa_bus::{Clock, Metric, Settings};
use kassa_pipeline::event::{Accepted, Event, Fact};
use kassa_pipeline::row::{DayRow, ReadRow};
use kassa_pipeline::unsettled::Finder;

use crate::common::world::{NOON, World, content, uuid};

const TODAY: &str = "d-2026-11-22";

impl World {
    fn is_now(&self, time: &str) {
        *self.now.lock().unwrap() = at(time);
    }

    /// Sells one thing, up to the read models.
    async fn sells(&self, id: i64) {
        self.posts(self.sealed(&uuid(id), &[("98", "1", "18.95")]).await).await;
        self.settle().await;
    }

    async fn day_row(&self, day: &str) -> DayRow {
        let rows = self.questions.stock(Some("AMIS1")).await.unwrap().rows;
        let day = rows.into_iter().find_map(|row| match row {
            ReadRow::Day(row) if row.record_type == day => Some(row),
            _ => None,
        });
        day.expect("the day's row")
    }

    /// Changes a day's row by hand.
    async fn tampers(&self, expression: &str, last_at: Option<&str>) {
        let at = last_at.map(|at| (":at".to_owned(), AttributeValue::S(at.to_owned())));
        let update = self.store.client.update_item().table_name(&self.store.tables.shops);
        let update = update.set_key(Some(key("AMIS1", TODAY))).update_expression(expression);
        update.set_expression_attribute_values(at.map(|at| [at].into())).send().await.unwrap();
    }
}

fn at(time: &str) -> Timestamp {
    format!("2026-11-22T{time}Z").parse().unwrap()
}

#[tokio::test]
async fn a_days_row_says_when_its_last_sale_was_recorded_whatever_order_they_come_in() {
    // given a sale at five past, and one by a function whose clock is behind
    let world = World::open().await;
    world.is_now("12:05:00.1239");
    world.sells(1).await;
    world.is_now("12:04:59.9");
    world.sells(2).await;
    // then the later time stands, in whole milliseconds, and both are counted
    let row = world.day_row(TODAY).await;
    assert_eq!((row.last_at, row.sales.to_string().as_str()), (Some(at("12:05:00.123")), "2"));
    // and whole seconds, which are written no shorter, are later than what came before
    world.is_now("12:05:01");
    world.sells(3).await;
    assert_eq!(world.day_row(TODAY).await.last_at, Some(at("12:05:01")));
    // and a rebuild says the same
    world.questions.rebuild(&|_, _| {}).await.unwrap();
    assert_eq!(world.day_row(TODAY).await.last_at, Some(at("12:05:01")));
    world.balanced().await;
}

#[tokio::test]
async fn a_row_of_before_there_was_a_last_sale_is_read_and_gets_one_and_a_wrong_one_is_told() {
    let world = World::open().await;
    world.sells(1).await;
    // given a row of an older version
    world.tampers("REMOVE last_at", None).await;
    assert_eq!(world.day_row(TODAY).await.last_at, None);
    world.balanced().await;
    // when the next sale comes, then it has one
    world.is_now("12:01:00");
    world.sells(2).await;
    assert_eq!(world.day_row(TODAY).await.last_at, Some(at("12:01:00")));
    world.balanced().await;
    // and one that is not the events' is told, and mended by a rebuild
    world.tampers("SET last_at = :at", Some("2026-11-22T12:02:00.000Z")).await;
    let check = world.questions.check(&|_, _| {}).await.unwrap();
    assert!(
        check.mismatches[0].contains("last_at is 2026-11-22T12:02:00Z, the events say 2026-11-22T12:01:00Z")
    );
    world.questions.rebuild(&|_, _| {}).await.unwrap();
    world.balanced().await;
}

#[tokio::test]
async fn a_shop_that_sold_last_week_and_is_silent_is_overdue_while_it_is_open() {
    // given ten sales on Sunday last week, when it was open for five hours
    let world = World::open().await;
    let overdue = async |time: &str| {
        world.is_now(time);
        world.minute().await;
        world.measured(Metric::OverdueSales, Some("AMIS1"))
    };
    *world.now.lock().unwrap() = "2026-11-15T12:00:00Z".parse().unwrap();
    for n in 0..10 {
        let id = format!("{n}-20261115");
        world.posts(world.classic(Some(&id), &[("98", "1", "1.50")]).await).await;
    }
    world.settle().await;
    // then in the morning, before it opens, nothing is overdue
    assert_eq!(overdue("09:00:00").await, Some(0.0));
    assert_eq!(world.measured(Metric::OverdueSales, Some("AMIS2")), Some(0.0));
    // and two hours after twelve, by the shop's clock, four are
    assert_eq!(overdue("13:00:00").await, Some(4.0));
    // while of a shop that sold nothing last week nothing is said beyond the morning's
    assert_eq!(world.counted_as(Metric::OverdueSales, "AMIS2"), 1);
    // when one is sold, it begins anew
    world.sells(1).await;
    assert_eq!(overdue("13:00:00").await, Some(0.0));
    assert_eq!(overdue("13:45:00").await, Some(1.5));
    // and once it is closed, nothing is overdue
    assert_eq!(overdue("16:00:00").await, Some(0.0));
    // and its day is there beside last week's
    let said = |metric| world.measured(metric, Some("AMIS1"));
    assert_eq!((said(Metric::SalesToday), said(Metric::SalesLastWeek)), (Some(1.0), Some(10.0)));
    assert_eq!((said(Metric::TurnoverToday), said(Metric::TurnoverLastWeek)), (Some(18.95), Some(15.0)));
    // and tomorrow that is yesterday's
    *world.now.lock().unwrap() = "2026-11-22T23:30:00Z".parse().unwrap();
    world.minute().await;
    let said = |metric| world.measured(metric, Some("AMIS1"));
    assert_eq!((said(Metric::SalesToday), said(Metric::SalesLastWeek)), (Some(0.0), Some(0.0)));
}

impl World {
    /// `(sales, seconds)` that are pending, as the minute says.
    async fn pending(&self) -> (f64, f64) {
        self.minute().await;
        let said = [Metric::Pending, Metric::PendingAge].map(|metric| self.measured(metric, None).unwrap());
        (said[0], said[1])
    }
}

#[tokio::test]
async fn a_sale_that_was_not_passed_on_is_pending_until_its_till_comes_again() {
    // given a sale whose publication was refused
    let world = World::open().await;
    world.post.refuse.store(1, Ordering::SeqCst);
    let sale = world.sealed(&uuid(0), &[("98", "1", "18.95")]).await;
    assert_eq!(world.posts(&sale).await.status, 503);
    // then it is in its first minute like any other
    world.passes(SignedDuration::from_secs(59));
    assert_eq!(world.pending().await, (0.0, 0.0));
    // and from then on it is pending, and grows older
    world.passes(SignedDuration::from_secs(2));
    assert_eq!(world.pending().await, (1.0, 61.0));
    world.passes(SignedDuration::from_mins(5));
    assert_eq!(world.pending().await, (1.0, 361.0));
    // when the till comes again, then it is pending no more
    assert_eq!(world.posts(&sale).await.status, 202);
    world.settle().await;
    assert_eq!(world.pending().await, (0.0, 0.0));
    world.balanced().await;
}

#[tokio::test]
async fn what_is_rejected_is_not_pending_and_what_is_sent_anew_is() {
    let world = World::open().await;
    let content = content(&uuid(0), NOON, &[("98", "1", "18.95")]);
    // given a sale that was rejected for its key
    world.posts(world.seal_for("AMIS1", "AMIS2", &uuid(0), &content).await).await;
    world.settle().await;
    world.passes(SignedDuration::from_mins(2));
    assert_eq!(world.pending().await, (0.0, 0.0));
    // when it is sealed anew and gets stuck, then it is pending: its rejection was another envelope's
    world.posts(world.seal_for("AMIS1", "AMIS1", &uuid(0), &content).await).await;
    world.passes(SignedDuration::from_mins(20));
    assert_eq!(world.pending().await, (1.0, 1200.0));
    world.settle().await;
    assert_eq!(world.pending().await, (0.0, 0.0));
    // and a third envelope, of a sale that is recorded, is most likely a repeat
    world.posts(world.seal_for("AMIS1", "AMIS1", &uuid(0), &content).await).await;
    world.passes(SignedDuration::from_hours(7));
    assert_eq!(world.pending().await, (0.0, 0.0));
    let finder = Finder { store: world.store.events.clone() };
    let found = finder.again(&"AMIS1".parse().unwrap(), &uuid(0).parse().unwrap()).await.unwrap();
    assert_eq!((found.unsettled, found.events), (Vec::new(), 5));
}

#[tokio::test]
async fn late_sales_and_classic_ids_are_found_when_their_time_is_looked_at_again() {
    let world = World::open().await;
    world.minute().await;
    // given three sales that got stuck: of an hour ago, of a till of the old kind, and of one whose clock is ahead
    world.posts(world.sealed(&uuid(-3_600_000), &[("98", "1", "18.95")]).await).await;
    world.posts(world.sealed(&uuid(3_599_000), &[("98", "1", "18.95")]).await).await;
    world.posts(world.classic(Some("7-20261122"), &[("98", "1", "18.95")]).await).await;
    world.passes(SignedDuration::from_mins(2));
    // then what is classic is found at once, as the day has few of these
    assert_eq!(world.pending().await, (1.0, 120.0));
    world.passes(SignedDuration::from_mins(58));
    assert_eq!(world.pending().await, (1.0, 3600.0));
    // and the one of the future when its time has come
    world.passes(SignedDuration::from_mins(2));
    assert_eq!(world.pending().await, (2.0, 3720.0));
    // and the late one when its time is looked at the third time
    world.passes(SignedDuration::from_hours(4));
    assert_eq!(world.pending().await, (3.0, 5.0 * 3600.0 + 120.0));
    world.settle().await;
    assert_eq!(world.pending().await, (0.0, 0.0));
}

#[tokio::test]
async fn a_sale_that_came_late_has_a_minute_of_its_own() {
    // given a sale two minutes old that is accepted only now
    let world = World::open().await;
    world.posts(world.sealed(&uuid(-120_000), &[("98", "1", "18.95")]).await).await;
    // then it is not pending before it has had the time
    assert_eq!(world.pending().await, (0.0, 0.0));
    world.passes(SignedDuration::from_secs(61));
    assert_eq!(world.pending().await, (1.0, 61.0));
}

#[tokio::test]
async fn an_outage_of_many_is_counted_whole_and_is_over_when_it_is_over() {
    let world = World::open().await;
    for n in 0..150 {
        world.posts(world.sealed(&uuid(n * 100), &[("98", "1", "18.95")]).await).await;
    }
    world.passes(SignedDuration::from_mins(2));
    assert_eq!(world.pending().await, (150.0, 120.0));
    world.passes(SignedDuration::from_mins(1));
    assert_eq!(world.pending().await, (150.0, 180.0));
    world.settle().await;
    assert_eq!(world.pending().await, (0.0, 0.0));
}

#[tokio::test]
async fn a_look_that_has_read_enough_goes_on_where_it_stopped() {
    let world = World::open().await;
    let accepts = |n: i64| {
        let envelope = Envelope::Sealed { sealed: String::new() };
        let fact =
            Fact::Accepted(Accepted { envelope, source: kassa_bus::Network::default(), revocations: None });
        let (shop_id, sale_id) = ("AMIS1".parse().unwrap(), uuid(n * 10).parse().unwrap());
        let event = Event { shop_id, sale_id, at: at("12:00:00"), trace: None, fact };
        let events = world.store.events.clone();
        async move { events.append(&event).await.map(|_| ()) }
    };
    try_join_all((0..700).map(accepts)).await.unwrap();
    let finder = Finder { store: world.store.events.clone() };
    let (shop, to) = ("AMIS1".parse().unwrap(), at("13:00:00"));
    let (mut from, mut found, mut looks) = (at("11:00:00"), BTreeSet::new(), 0);
    loop {
        let look = finder.made(&shop, (from, to), 100).await.unwrap();
        found.extend(look.unsettled.into_iter().map(|unsettled| unsettled.key));
        looks += 1;
        let Some(stopped_at) = look.stopped_at else { break };
        from = stopped_at;
    }
    assert_eq!((found.len(), looks), (700, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_open_shop_says_it_every_minute() {
    let folder = tempfile::tempdir().unwrap();
    let minute = [("MINUTE".to_owned(), "100ms".to_owned())];
    let up = Up {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: folder.path().to_owned(),
        shops: Shops::read(None).unwrap(),
        sync: Sync::Normal,
        clock: Clock::system(),
        settings: Settings::none().with(minute),
        tls: None,
    };
    let shop = OpenShop::open(up).await.unwrap();
    let (begun, mut said) = (Instant::now(), Vec::new());
    let times = |said: &[Series], metric: Metric| {
        let of = said.iter().filter(|series| series.metric == metric);
        of.map(|series| if let Values::Each(values) = &series.values { values.len() } else { 0 })
            .sum::<usize>()
    };
    while times(&said, Metric::Pending) < 2 || times(&said, Metric::SalesToday) < 4 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{said:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        said.extend(shop.metrics.take());
    }
    assert_eq!(shop.close().await, 0);
}
