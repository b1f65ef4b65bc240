//! An event that somebody changed in the table is named by check, whatever was changed that a hash covers.

use aws_sdk_dynamodb::types::AttributeValue;
use kassa_bus::table::text;
use serde_json::{Value, json};

use crate::common::world::{NOON, World, uuid};

impl World {
    /// Changes the body of an event in its place.
    async fn rewrites(&self, name: &str, change: impl Fn(&mut Value)) {
        let (client, table) = (&self.store.client, &self.store.tables.events);
        let all = client.scan().table_name(table).send().await.unwrap();
        let row = all.items().iter().find(|row| text(row, "event").unwrap().contains(name)).unwrap();
        let mut body: Value = serde_json::from_str(text(row, "body").unwrap()).unwrap();
        change(&mut body);
        let update = client.update_item().table_name(table);
        let update = update.key("stream", row["stream"].clone()).key("event", row["event"].clone());
        let update = update.update_expression("SET body = :body");
        let update = update.expression_attribute_values(":body", AttributeValue::S(body.to_string()));
        update.send().await.unwrap();
    }

    async fn told(&self) -> Vec<String> {
        self.questions.check(&|_, _| {}).await.unwrap().mismatches
    }
}

#[tokio::test]
async fn check_names_a_changed_till_counter_time_amount_total_day_and_envelope() {
    let world = World::open().await;
    let sale = json!({
        "sale_id": uuid(1), "till": "till-1", "seq": 7, "sold_at": NOON,
        "sales": [{"item_no": "98", "gross_number": "1", "gross_turnover": "18.95"}],
    });
    world.posts(world.seal_for("AMIS1", "AMIS1", &uuid(1), &sale.to_string()).await).await;
    world.settle().await;
    world.balanced().await;
    let another = json!([{"item_no": "98", "gross_number": "1", "gross_turnover": "18.96"}]);
    let hash = "their hash is another";
    let changes = [
        ("recorded", "/till", json!("till-2"), hash),
        ("recorded", "/seq", json!(8), hash),
        ("recorded", "/sold_at", json!("2026-11-22T12:00:01Z"), hash),
        ("recorded", "/lines", another, hash),
        ("recorded", "/content", json!("c"), hash),
        ("recorded", "/totals/gross_turnover", json!("18.96"), "totals"),
        ("recorded", "/business_date", json!("2026-11-23"), "business_date is 2026-11-23"),
        ("recorded", "/envelope", json!("e"), "never accepted"),
        ("accepted", "/sealed", json!("a.b.c.d.e"), "its envelope is not the one"),
    ];
    for (event, place, value, says) in changes {
        let was = std::cell::RefCell::new(Value::Null);
        world
            .rewrites(event, |body| {
                *was.borrow_mut() = std::mem::replace(body.pointer_mut(place).unwrap(), value.clone());
            })
            .await;
        let told = world.told().await;
        let name = format!("event {}#{event}", uuid(1));
        assert!(told.iter().any(|told| told.contains(&name) && told.contains(says)), "{place}: {told:?}");
        world.rewrites(event, |body| *body.pointer_mut(place).unwrap() = was.borrow().clone()).await;
    }
    world.balanced().await;
}

#[tokio::test]
async fn a_stuck_sale_is_pending_also_once_rubbish_under_its_id_was_rejected() {
    // given a sale that waits, and rubbish of a stranger under its id
    let world = World::open().await;
    world.posts(world.sealed(&uuid(1), &[("98", "1", "18.95")]).await).await;
    world.post.waiting.lock().unwrap().clear();
    let rubbish = world.seal_for("AMIS1", "AMIS1", &uuid(1), "rubbish").await;
    assert_eq!(world.posts(rubbish).await.status, 202);
    world.settle().await;
    // then check counts it as what it is
    let check = world.balanced().await;
    assert_eq!((check.accepted, check.rejected, check.pending), (1, 0, 1));
}
