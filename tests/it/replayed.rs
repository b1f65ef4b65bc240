//! An envelope that names no sale is one sale, whoever posts it under whatever id.

use kassa::questions::Status;
use kassa::questions::preview::Would;
use kassa::questions::rejected::RejectedFilter;
use kassa_bus::Topic;
use kassa_bus::message::Reason;
use serde_json::{Value, json};

use crate::common::world::{World, is};

/// The same classic envelope under another id, or under none.
fn relabelled(request: &str, id: Option<&str>) -> String {
    let mut request: Value = serde_json::from_str(request).unwrap();
    request["message_id"] = json!(id);
    request.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    request.to_string()
}

#[tokio::test]
async fn a_classic_envelope_under_another_id_is_refused_and_counts_once() {
    let world = World::open().await;
    let sale = world.classic(Some("1-20261122"), &[("98", "1", "18.95")]).await;
    world.posts(&sale).await;
    world.settle().await;
    let before = world.post.delivered.lock().unwrap().len();
    // when whoever saw it posts it again: as another sale, on another day, without an id, in other base64, twice
    let broken_up = sale.replace("==", "").replacen("\"content_base64\":\"", "\"content_base64\":\"\\n", 1);
    for replay in [
        relabelled(&sale, Some("2-20261122")),
        relabelled(&sale, Some("1-20261121")),
        relabelled(&sale, None),
        relabelled(&broken_up, Some("3-20261122")),
        relabelled(&sale, Some("2-20261122")),
    ] {
        assert_eq!(world.posts(replay).await.status, 200);
        world.settle().await;
    }
    // then nobody but who listens for rejections hears of a sale
    let rejected = world.rejections();
    assert_eq!(rejected.iter().map(|sale| sale.reason).collect::<Vec<_>>(), [Reason::Replayed; 4]);
    assert!(rejected[0].detail.contains("sale 1-20261122"), "{}", rejected[0].detail);
    let passed_on = world.post.delivered.lock().unwrap().split_off(before);
    assert!(passed_on.iter().all(|(topic, _)| *topic == Topic::ToDecrypt));
    assert_eq!(world.stock("AMIS1", "s-00098").await.1, "1");
    let check = world.balanced().await;
    assert_eq!((check.accepted, check.recorded, check.rejected), (5, 1, 4));
    // and putting a replay through again would change nothing
    let (all, now) = (RejectedFilter::default(), *world.now.lock().unwrap());
    let opener = world.questions.opener(world.keys.clone());
    let preview = world.questions.preview(&all, &opener, &|_, _| {}, now).await.unwrap();
    let replayed = |would: &Would| matches!(would, Would::Rejected { reason: Reason::Replayed, .. });
    assert!(preview.sales.len() == 4 && preview.sales.iter().all(|sale| replayed(&sale.would)));
    // and the sale itself may come as often as it likes
    world.posts(&sale).await;
    world.settle().await;
    assert_eq!((world.balanced().await.recorded, world.rejections().len()), (1, 4));
}

#[tokio::test]
async fn a_replay_that_comes_while_the_sale_is_on_its_way_waits_for_what_becomes_of_it() {
    let world = World::open().await;
    let sale = world.classic(Some("1-20261122"), &[("98", "1", "18.95")]).await;
    world.posts(&sale).await;
    world.posts(relabelled(&sale, Some("2-20261122"))).await;
    let both: Vec<_> = world.post.waiting.lock().unwrap().drain(..).map(|(_, message)| message).collect();
    // when both are opened at once
    let verdicts = world.deliver(Topic::ToDecrypt, &both).await;
    // then one comes again, once the other is recorded
    let (first, second) = (verdicts[0].is_ok(), verdicts[1].is_ok());
    assert!(first != second, "{verdicts:?}");
    world.settle().await;
    let again = both[usize::from(first)].clone();
    world.post.waiting.lock().unwrap().push_back((Topic::ToDecrypt, again));
    world.settle().await;
    let check = world.balanced().await;
    assert_eq!((check.recorded, check.rejected, check.pending), (1, 1, 0));
    assert_eq!(world.rejections()[0].reason, Reason::Replayed);
}

#[tokio::test]
async fn who_posts_an_envelope_first_under_a_recorded_id_does_not_block_its_sale() {
    let world = World::open().await;
    world.posts(world.classic(Some("1-20261122"), &[("98", "1", "18.95")]).await).await;
    world.settle().await;
    // given a sale that was posted under the id of another before its till did
    let sale = world.classic(Some("2-20261122"), &[("98", "2", "37.90")]).await;
    for _ in 0..2 {
        world.posts(relabelled(&sale, Some("1-20261122"))).await;
        world.settle().await;
    }
    assert_eq!(world.rejections()[0].reason, Reason::Conflict);
    // when the till comes
    world.posts(&sale).await;
    world.settle().await;
    // then it is recorded, and from then on nobody can post it as another
    is(&world.sale("2-20261122").await, Status::Recorded);
    world.posts(relabelled(&sale, Some("3-20261122"))).await;
    world.settle().await;
    assert_eq!(world.rejections().pop().unwrap().reason, Reason::Replayed);
    assert_eq!(world.stock("AMIS1", "s-00098").await.1, "3");
    assert_eq!(world.balanced().await.recorded, 2);
}

#[tokio::test]
async fn an_envelope_that_came_without_an_id_belongs_to_no_id() {
    let world = World::open().await;
    let sale = world.classic(None, &[("98", "1", "18.95")]).await;
    world.posts(&sale).await;
    world.settle().await;
    world.posts(relabelled(&sale, Some("1-20261122"))).await;
    world.settle().await;
    assert_eq!(world.rejections()[0].reason, Reason::Replayed);
    assert_eq!(world.balanced().await.recorded, 1);
}

#[tokio::test]
async fn a_sale_that_its_till_encrypted_anew_is_no_other_sale_either() {
    // given a till that encrypts its sale once more for a second try
    let world = World::open().await;
    let [first, second] = [
        world.classic(Some("1-20261122"), &[("98", "1", "18.95")]).await,
        world.classic(Some("1-20261122"), &[("98", "1", "18.95")]).await,
    ];
    for sale in [&first, &second] {
        world.posts(sale).await;
        world.settle().await;
    }
    assert!(world.rejections().is_empty());
    // when whoever saw them posts both as others
    for (sale, id) in [(&first, "2-20261122"), (&second, "3-20261122")] {
        world.posts(relabelled(sale, Some(id))).await;
        world.settle().await;
        assert_eq!(world.rejections().pop().unwrap().reason, Reason::Replayed, "{id}");
    }
    // then it counts once, and another sale of the same goods counts as well
    world.posts(world.classic(Some("4-20261122"), &[("98", "1", "18.95")]).await).await;
    world.settle().await;
    assert_eq!(world.balanced().await.recorded, 2);
}
