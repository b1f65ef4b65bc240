//! Many sales in one request: each is answered for itself.

use std::sync::atomic::Ordering;

use kassa::questions::Status;
use kassa_bus::Metric;

use serde_json::{Value, json};

use crate::common::world::{World, is, uuid};

/// What of a sale's request goes into a batch.
async fn member(world: &World, n: i64) -> Value {
    let alone: Value = serde_json::from_str(&world.sealed(&uuid(n), &[("98", "1", "18.95")]).await).unwrap();
    json!({"message_id": alone["message_id"], "sealed": alone["sealed"]})
}

async fn members(world: &World, of: impl IntoIterator<Item = i64>) -> Vec<Value> {
    let mut members = Vec::new();
    for n in of {
        members.push(member(world, n).await);
    }
    members
}

async fn posts(world: &World, sales: &[Value]) -> (u16, Value) {
    let answer = world.posts(json!({"shop_id": "AMIS1", "sales": sales}).to_string()).await;
    (answer.status, serde_json::from_str(&answer.body).unwrap())
}

#[tokio::test]
async fn a_hundred_sales_are_taken_at_once_and_each_counts_once() {
    let world = World::open().await;
    let sales = members(&world, 0..100).await;
    // when they are posted, and posted again by a till that did not hear the answer
    for _ in 0..2 {
        let (status, said) = posts(&world, &sales).await;
        assert_eq!(status, 202, "{said}");
        for (n, sale) in said["sales"].as_array().unwrap().iter().enumerate() {
            assert_eq!(sale, &json!({"sale_id": uuid(n.try_into().unwrap()), "status": "accepted"}));
        }
    }
    world.settle().await;
    // then
    assert_eq!((world.counted(Metric::Accepted), world.counted(Metric::Recorded)), (100, 100));
    assert_eq!(world.stock("AMIS1", "s-00098").await.1, "100");
    world.balanced().await;
    // and one more than that is refused, with none of them taken
    let (status, said) = posts(&world, &members(&world, 100..201).await).await;
    assert_eq!((status, &said["field"]), (400, &json!("sales")));
    assert_eq!(world.counted(Metric::Accepted), 100);
}

#[tokio::test]
async fn what_is_wrong_with_one_is_said_of_it_and_the_others_are_taken() {
    let world = World::open().await;
    let mut sales = members(&world, 0..4).await;
    sales[1]["sealed"] = json!("rubbish");
    sales[2]["message_id"] = json!("7-20261122");
    sales.push(json!({"content_base64": "AAAA"}));
    let (status, said) = posts(&world, &sales).await;
    assert_eq!(status, 207);
    let said = said["sales"].as_array().unwrap();
    let statuses: Vec<_> = said.iter().map(|sale| sale["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["accepted", "refused", "refused", "accepted", "refused"]);
    assert_eq!((&said[1]["sale_id"], &said[1]["problem"]["field"]), (&json!(uuid(1)), &json!("sealed")));
    assert_eq!(said[2]["problem"]["field"], "message_id");
    world.settle().await;
    for n in [0, 3] {
        is(&world.sale(&uuid(n)).await, Status::Recorded);
    }
    assert_eq!((world.counted(Metric::Accepted), world.counted(Metric::Refused)), (2, 3));
    // and a shop that is not there has none of them
    let body = json!({"shop_id": "NOWHERE", "sales": sales}).to_string();
    assert_eq!(world.posts(body).await.status, 404);
}

#[tokio::test]
async fn what_cannot_be_passed_on_is_not_said_to_be_taken() {
    let world = World::open().await;
    let sales = members(&world, 0..3).await;
    // given a bus that loses all, and then one
    world.post.refuse.store(3, Ordering::SeqCst);
    let answer = world.posts(json!({"shop_id": "AMIS1", "sales": sales}).to_string()).await;
    assert_eq!((answer.status, answer.retry_after.is_some()), (503, true));
    world.post.refuse.store(1, Ordering::SeqCst);
    let (status, said) = posts(&world, &sales).await;
    let statuses: Vec<_> =
        said["sales"].as_array().unwrap().iter().map(|sale| sale["status"].as_str().unwrap()).collect();
    assert_eq!((status, statuses), (207, vec!["unavailable", "accepted", "accepted"]));
    // when the till sends them again
    assert_eq!(posts(&world, &sales).await.0, 202);
    world.settle().await;
    assert_eq!(world.counted(Metric::Recorded), 3);
}
