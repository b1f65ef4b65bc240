//! What is counted: each thing once, whatever fails on its way and however often it comes again.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use jiff::SignedDuration;
use kassa_bus::metrics::Values;
use kassa_bus::shops_table::key;
use kassa_bus::{Metric, Verdict};

use crate::common::world::{NOON, World, content, uuid};

impl World {
    /// What was counted since this was last asked.
    fn counts(&self) -> BTreeMap<Metric, String> {
        let mut counts: BTreeMap<Metric, u64> = BTreeMap::new();
        for series in self.metrics.take() {
            if let Values::Sum(sum) = series.values {
                *counts.entry(series.metric).or_default() += sum;
            }
        }
        counts.into_iter().map(|(metric, sum)| (metric, sum.to_string())).collect()
    }

    #[track_caller]
    fn has_counted(&self, expected: &[(Metric, &str)]) {
        let expected = expected.iter().map(|(metric, sum)| (*metric, (*sum).to_owned())).collect();
        assert_eq!(self.counts(), expected);
    }

    /// Whether a rebuild holds the read models, so that the projection must wait.
    async fn is_rebuilding(&self, is: bool) {
        if is {
            self.store.read_model.holds.hold().await.unwrap();
        } else {
            let (client, table) = (&self.store.client, &self.store.tables.shops);
            let hold = Some(key("#projection", "rebuild"));
            client.delete_item().table_name(table).set_key(hold).send().await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_comes_again_is_counted_as_a_repeat_and_as_nothing_else() {
    // given a sale of two lines, a refund, a sale with another shop's key, and one of the old kind
    let world = World::open().await;
    let refused = content(&uuid(3), NOON, &[("98", "1", "18.95")]);
    let posts = [
        world.sealed(&uuid(1), &[("98", "1", "18.95"), ("12345", "3", "7.47")]).await,
        world.sealed(&uuid(2), &[("12345", "-1", "-2.49")]).await,
        world.seal_for("AMIS1", "AMIS2", &uuid(3), &refused).await,
        world.classic(Some("1-20261122"), &[("98", "2", "37.90")]).await,
    ];
    for post in &posts {
        world.posts(post).await;
    }
    world.settle().await;
    world.has_counted(&[
        (Metric::Accepted, "4"),
        (Metric::Recorded, "3"),
        (Metric::Rejected, "1"),
        (Metric::Lines, "4"),
        (Metric::Refunds, "1"),
        (Metric::Projected, "3"),
        (Metric::KeyUnwraps, "3"),
    ]);

    // when their tills send them again, and the stream brings everything once more
    for post in &posts {
        world.posts(post).await;
    }
    world.settle().await;
    for verdict in world.project_batch(&world.stream(0, 50).await).await {
        verdict.unwrap();
    }

    // then accept found each there, and nobody else heard of them
    world.has_counted(&[(Metric::Duplicates, "4")]);
}

#[tokio::test]
async fn what_fails_half_way_is_counted_once() {
    // given a sale that was kept and not passed on, and that its till sends again
    let world = World::open().await;
    let sale = world.sealed(&uuid(1), &[("98", "1", "18.95")]).await;
    world.post.refuse.store(1, Ordering::SeqCst);
    assert_eq!(world.posts(&sale).await.status, 503);
    assert_eq!(world.posts(&sale).await.status, 202);
    world.has_counted(&[(Metric::Accepted, "1"), (Metric::Duplicates, "1")]);
    // when it is opened and not passed on, and comes again two seconds later
    world.passes(SignedDuration::from_secs(2));
    world.post.refuse.store(1, Ordering::SeqCst);
    world.settle().await;
    world.settle().await;
    // then it is recorded once, two seconds after it was accepted, and its key was asked for once
    world.has_counted(&[
        (Metric::Recorded, "1"),
        (Metric::Lines, "1"),
        (Metric::Projected, "1"),
        (Metric::KeyUnwraps, "1"),
        (Metric::KeyCacheHits, "1"),
    ]);

    // given a sale that is rejected, of which nobody could be told at first
    let wrong = content(&uuid(2), NOON, &[("98", "1", "18.95")]);
    world.posts(world.seal_for("AMIS1", "AMIS2", &uuid(2), &wrong).await).await;
    world.post.refuse.store(1, Ordering::SeqCst);
    world.settle().await;
    world.settle().await;
    // then it was rejected once
    world.has_counted(&[(Metric::Accepted, "1"), (Metric::Rejected, "1"), (Metric::Duplicates, "1")]);
}

#[tokio::test]
async fn the_time_to_be_recorded_begins_with_the_first_yes() {
    let world = World::open().await;
    world.posts(world.sealed(&uuid(1), &[("98", "1", "18.95")]).await).await;
    world.passes(SignedDuration::from_millis(2_500));
    world.settle().await;
    assert_eq!(world.measured(Metric::Latency, None), Some(2_500.0));
}

#[tokio::test]
async fn lines_of_unknown_items_and_unreadable_events_are_counted_once_however_often_their_batch_fails() {
    // given two sales with three lines of an item nobody declared, and an event from the future
    let world = World::open().await;
    for (n, lines) in
        [(1, &[("777", "1", "1"), ("777", "2", "2"), ("98", "1", "18.95")][..]), (2, &[("777", "1", "1")])]
    {
        world.posts(world.sealed(&uuid(n), lines).await).await;
    }
    world.is_rebuilding(true).await;
    world.pass_on().await;
    let mut batch = world.stream(0, 50).await;
    let mut newer = batch.last().unwrap().clone();
    newer.attributes.insert("version".into(), "99".into());
    newer.id = "1000".into();
    batch.push(newer);
    world.counts();

    // when the projection fails twice, since a rebuild holds it up
    for _ in 0..2 {
        assert!(world.project_batch(&batch).await.iter().all(Verdict::is_err));
    }
    // then nothing was counted
    world.has_counted(&[]);

    // and when it works, each is counted
    world.is_rebuilding(false).await;
    assert!(world.project_batch(&batch).await.iter().all(Verdict::is_ok));
    world.has_counted(&[
        (Metric::Projected, "2"),
        (Metric::UnknownItems, "3"),
        (Metric::UnreadableEvents, "1"),
    ]);
}

#[tokio::test]
async fn an_event_that_comes_again_is_no_lag_of_the_projection() {
    // given a projection that is an hour old
    let world = World::open().await;
    world.posts(world.sealed(&uuid(1), &[("98", "1", "18.95")]).await).await;
    world.settle().await;
    world.counts();
    world.passes(SignedDuration::from_hours(1));

    // when it is handed what it has seen, as whenever the shop is opened
    let seen = world.stream(0, 50).await;
    assert!(world.project_batch(&seen).await.iter().all(Verdict::is_ok));
    // then nothing is behind
    assert_eq!(world.measured(Metric::ProjectionLag, None), None);

    // and when a new sale is behind it two seconds later
    world.posts(world.sealed(&uuid(2), &[("98", "1", "18.95")]).await).await;
    world.pass_on().await;
    world.passes(SignedDuration::from_secs(2));
    assert!(world.project_batch(&world.stream(0, 50).await).await.iter().all(Verdict::is_ok));
    assert_eq!(world.measured(Metric::ProjectionLag, None), Some(2_000.0));
}
