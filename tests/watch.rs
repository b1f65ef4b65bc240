//! What is told once a minute: what is pending, which shop is silent, today against last week.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use aws_sdk_dynamodb::types::AttributeValue;
use common::{World, uuid};
use jiff::Timestamp;
use kassa_bus::shops_table::key;
use kassa_pipeline::row::{DayRow, ReadRow};

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
        let rows = self.questions.stock(Some("AMIS1")).await.unwrap();
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
