//! Rebuilds that fail, die or come in the midst of a sale.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use kassa::embedded::SHARD;
use kassa::questions::{Books, Questions};
use kassa_bus::table::TableError;
use kassa_pipeline::contained::Changes;
use kassa_pipeline::event::EventKey;
use kassa_pipeline::hold::LEASE;
use kassa_pipeline::posting::Sequence;
use kassa_pipeline::read_model::shared::Revision;

use crate::common::world::{World, uuid};
use crate::rows::{s, tampers};

/// The stream, which fails or hangs after so many questions.
struct Faulty {
    inner: Arc<dyn Changes>,
    left: AtomicU32,
    hangs: bool,
}

#[async_trait]
impl Changes for Faulty {
    async fn shards(&self) -> Result<Vec<String>, TableError> {
        self.inner.shards().await
    }

    async fn after(
        &self,
        shard: &str,
        from: Option<&Sequence>,
    ) -> Result<(Vec<EventKey>, Option<Sequence>), TableError> {
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
            if self.hangs {
                std::future::pending::<()>().await;
            }
            return Err(TableError::unavailable("read the stream")(std::io::Error::other("by the test")));
        }
        self.inner.after(shard, from).await
    }

    async fn at(&self, shard: &str, place: &Sequence) -> Result<Option<EventKey>, TableError> {
        self.inner.at(shard, place).await
    }

    fn lag(&self) -> SignedDuration {
        // So that it asks again and again.
        SignedDuration::from_millis(1)
    }
}

fn faulty(world: &World, left: u32, hangs: bool) -> Questions {
    let books = world.store.books();
    let changes = Arc::new(Faulty { inner: books.changes.clone(), left: left.into(), hangs });
    Questions::new(Books { changes, ..books })
}

/// The time a hold lasts is over.
async fn expires(world: &World) {
    let over = (Timestamp::now() - SignedDuration::from_secs(1)).to_string();
    tampers(&world.store, ("#projection", "rebuild"), "until", Some(s(&over))).await;
}

#[tokio::test]
async fn a_rebuild_that_fails_holds_nothing_and_sales_are_projected() {
    for left in 0..2 {
        let world = World::open().await;
        world.sells_in("AMIS1", 1, &[("98", "1", "18.95")]).await;
        // when a rebuild fails in the midst of it
        let failed = faulty(&world, left, false).rebuild(&|_, _| {}).await;
        assert!(failed.is_err(), "after {left}");
        // then the next sale is projected as ever
        assert!(!world.store.read_model.needs_rebuild(&[]).await.unwrap());
        world.sells_in("AMIS1", 2, &[("98", "1", "18.95")]).await;
        assert_eq!(world.stock("AMIS1", "s-00098").await.1, "2");
        world.balanced().await;
    }
}

#[tokio::test]
async fn a_rebuild_that_dies_holds_for_as_long_as_its_lease_and_projecting_goes_on_by_itself() {
    // given a rebuild that is dropped in the midst of it, as by a kill
    let world = World::open().await;
    world.sells_in("AMIS1", 1, &[("98", "1", "18.95")]).await;
    let hangs = faulty(&world, 1, true);
    assert!(tokio::time::timeout(Duration::from_millis(200), hangs.rebuild(&|_, _| {})).await.is_err());
    assert!(world.store.read_model.needs_rebuild(&[]).await.unwrap());

    // when something is sold, then it waits
    world.posts(world.sealed(&uuid(2), &[("98", "1", "18.95")]).await).await;
    world.pass_on().await;
    let batch = world.stream(0, 50).await;
    assert!(world.project_batch(&batch).await.iter().all(Result::is_err));
    assert_eq!(LEASE, SignedDuration::from_mins(1));

    // and once the lease is over it is projected
    expires(&world).await;
    world.project().await;
    assert_eq!(world.stock("AMIS1", "s-00098").await.1, "2");
    assert!(!world.store.read_model.needs_rebuild(&[]).await.unwrap());
    world.balanced().await;
}

#[tokio::test]
async fn a_rebuild_whose_lease_ran_out_while_it_lived_gives_up_and_writes_nothing_more() {
    // given a rebuild that holds, and was thought dead
    let world = World::open().await;
    world.sells_in("AMIS1", 1, &[("98", "1", "18.95")]).await;
    let read_model = &world.store.read_model;
    let hold = read_model.holds.hold().await.unwrap();
    expires(&world).await;
    world.sells_in("AMIS1", 2, &[("98", "1", "18.95")]).await;
    // when it goes on to write what it had added up
    let nothing = kassa_pipeline::own_rows::RowSums::default();
    let shop = "AMIS1".parse().unwrap();
    let written = read_model.replace(&hold, (&shop, &Revision::default()), &nothing).await;
    // then it cannot
    assert!(written.is_err());
    assert_eq!(world.stock("AMIS1", "s-00098").await.1, "2");
    world.balanced().await;
}

#[tokio::test]
async fn a_rebuild_within_a_sale_of_many_steps_counts_what_the_checkpoint_says_and_the_rest_comes() {
    // given a sale of more rows than a step takes, of which the first step was written
    let world = World::open().await;
    let items: Vec<String> = (1000..1250).map(|item| item.to_string()).collect();
    let lines: Vec<(&str, &str, &str)> = items.iter().map(|item| (item.as_str(), "1", "1")).collect();
    world.sells_in("AMIS1", 1, &[("98", "1", "18.95")]).await;
    world.posts(world.sealed(&uuid(2), &lines).await).await;
    world.pass_on().await;
    let before = world.stream(0, 50).await;
    let books = world.store.books();
    let (event, _) = books.events.sale(&"AMIS1".parse().unwrap(), &uuid(2).parse().unwrap()).await.unwrap();
    let recorded = event.iter().find(|event| event.kind == "recorded").unwrap();
    let postings =
        kassa_pipeline::posting::postings(&recorded.shop_id, recorded.at, &recorded.recorded().unwrap());
    let mut sums = kassa_pipeline::posting::Sums::new();
    kassa_pipeline::posting::add(&mut sums, postings[..50].to_vec());
    let from = world.store.read_model.checkpoint(SHARD).await.unwrap();
    let sequence = Sequence(before.last().unwrap().id.clone());
    let to = kassa_pipeline::posting::Position { sequence, partial: Some(49) };
    world.store.read_model.step(SHARD, (&from, &to), &sums, &HashMap::new(), recorded.at).await.unwrap();

    // then check finds nothing wrong, nor after a rebuild, nor once the rest was projected
    world.balanced().await;
    world.questions.rebuild(&|_, _| {}).await.unwrap();
    world.balanced().await;
    assert_eq!(world.store.read_model.checkpoint(SHARD).await.unwrap().position().unwrap(), Some(to));
    world.project().await;
    assert_eq!(world.stock("AMIS1", "s-01249").await.1, "1");
    world.balanced().await;
}
