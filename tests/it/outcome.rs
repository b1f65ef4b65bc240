//! What a till is told of what became of its sale: all it needs, and nothing of what was sold.

use aws_sdk_dynamodb::types::{Put, TransactWriteItem};
use kassa_bus::message::Reason;
use kassa_pipeline::event::StoredEvent;
use kassa_pipeline::event_store::to_item;
use kassa_pipeline::problem_type::ProblemType;
use serde_json::{Value, json};

use crate::common::world::{World, sales, uuid};

async fn told(world: &World, shop: &str, sale: &str) -> (u16, Value) {
    let answer = world.accept.outcome(shop, sale, "192.0.2.1".into()).await;
    (answer.status, serde_json::from_str(&answer.body).unwrap())
}

#[tokio::test]
async fn a_sale_is_pending_until_it_is_recorded_or_rejected_with_its_reason() {
    let world = World::open().await;
    let (good, bad) = (uuid(1), uuid(2));
    world.posts(world.sealed(&good, &[("98", "1", "18.95")]).await).await;
    let wrong = json!({"sale_id": bad, "till": "t", "seq": 1, "sold_at": "2026-11-22T12:00:00Z", "sales": sales(&[("98", "1", "18.95")])});
    world.posts(world.seal_for("AMIS1", "AMIS2", &bad, &wrong.to_string()).await).await;
    for sale in [&good, &bad] {
        assert_eq!(told(&world, "AMIS1", sale).await, (200, json!({"sale_id": sale, "status": "pending"})));
    }
    world.settle().await;
    assert_eq!(told(&world, "AMIS1", &good).await, (200, json!({"sale_id": good, "status": "recorded"})));
    let rejected = json!({"sale_id": bad, "status": "rejected", "reason": "wrong-key"});
    assert_eq!(told(&world, "AMIS1", &bad).await, (200, rejected));
    // and what is not there is a problem of ours
    for (shop, sale, problem) in [
        ("AMIS1", uuid(3), ProblemType::UnknownSale),
        ("AMIS2", good.clone(), ProblemType::UnknownSale),
        ("AMIS1", "x".to_owned(), ProblemType::UnknownSale),
        ("AMIS9", good.clone(), ProblemType::UnknownShop),
        ("a b", good, ProblemType::UnknownShop),
    ] {
        let (status, told) = told(&world, shop, &sale).await;
        assert_eq!((status, &told["type"]), (problem.status(), &json!(problem.uri())));
    }
}

#[tokio::test]
async fn a_rejection_of_before_reasons_stood_beside_bodies_is_told_without() {
    let world = World::open().await;
    let id = uuid(1);
    world.posts(world.seal_for("AMIS1", "AMIS2", &id, "x").await).await;
    world.settle().await;
    let (shop, sale) = ("AMIS1".parse().unwrap(), id.parse().unwrap());
    let (events, _) = world.store.events.sale(&shop, &sale).await.unwrap();
    let rejected = events.into_iter().find(|event| event.reason == Some(Reason::WrongKey)).unwrap();
    let old = to_item(StoredEvent { reason: None, ..rejected });
    let put = Put::builder().table_name(&world.store.tables.events).set_item(Some(old)).build().unwrap();
    let put = TransactWriteItem::builder().put(put).build();
    world.store.client.transact_write_items().transact_items(put).send().await.unwrap();
    assert_eq!(told(&world, "AMIS1", &id).await, (200, json!({"sale_id": id, "status": "rejected"})));
}
