use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::event::{EventKey, RECORDED, StoredEvent};
use crate::event_store::{EventStore, Scan};
use crate::posting::{Position, Sequence, Sums, add, postings};
use crate::read_model::ReadModel;
use kassa_bus::registry::Registry;
use kassa_bus::table::TableError;

/// The event store's stream, read by whoever must know what the projection has not seen yet.
#[async_trait]
pub trait Changes: Send + Sync {
    /// The shards there are now, as checkpoints name them.
    async fn shards(&self) -> Result<Vec<String>, TableError>;

    /// Keys of events in a shard after `from` (all, if there is no `from`), in order, and where to go on;
    /// nowhere, once there are no more.
    ///
    /// An adapter MUST return every event that was stamped longer than [`Changes::lag`] before the call.
    async fn after(
        &self,
        shard: &str,
        from: Option<&Sequence>,
    ) -> Result<(Vec<EventKey>, Option<Sequence>), TableError>;

    /// How long after its own time an event may come to the stream: zero where an event that can be
    /// read is in the stream already.
    fn lag(&self) -> SignedDuration;
}

/// Tells the recorded sales that the read models contain from those that the projection will count yet.
///
/// What is in the stream after a shard's checkpoint comes later. What is too young to be sure of is put
/// aside until the stream must have it.
pub struct Later<'a> {
    changes: &'a dyn Changes,
    reached: HashMap<String, Sequence>,
    keys: HashSet<EventKey>,
    /// When the stream was last read to its end.
    caught_up: Timestamp,
    aside: Vec<(Timestamp, EventKey)>,
}

impl<'a> Later<'a> {
    /// Reads the stream from the checkpoints to its end.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn than(
        checkpoints: &BTreeMap<String, Position>,
        changes: &'a dyn Changes,
    ) -> Result<Self, TableError> {
        let reached = checkpoints.iter().map(|(shard, at)| (shard.clone(), at.sequence.clone())).collect();
        let (keys, aside, caught_up) = (HashSet::new(), Vec::new(), Timestamp::now());
        let mut this = Self { changes, reached, keys, caught_up, aside };
        this.catch_up().await?;
        Ok(this)
    }

    async fn catch_up(&mut self) -> Result<(), TableError> {
        let now = Timestamp::now();
        for shard in self.changes.shards().await? {
            while let (more, Some(upto)) = self.changes.after(&shard, self.reached.get(&shard)).await? {
                self.keys.extend(more.into_iter().filter(|key| key.event.ends_with(RECORDED)));
                self.reached.insert(shard.clone(), upto);
            }
        }
        self.caught_up = now;
        Ok(())
    }

    /// The recorded sales of a page that the read models contain for sure.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn contained(&mut self, page: Vec<StoredEvent>) -> Result<Vec<StoredEvent>, TableError> {
        let lag = self.changes.lag();
        if Timestamp::now().duration_since(self.caught_up) >= lag {
            self.catch_up().await?;
        }
        let mut contained = Vec::with_capacity(page.len());
        for event in page.into_iter().filter(|event| event.kind == RECORDED) {
            if self.keys.contains(&event.key) {
                continue;
            }
            if !lag.is_zero() && self.caught_up.duration_since(event.at) <= lag {
                self.aside.push((event.at, event.key));
            } else {
                contained.push(event);
            }
        }
        Ok(contained)
    }

    /// Of those put aside, the ones that the read models contain. Waits until that is sure.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn settled(mut self, store: &EventStore) -> Result<Vec<StoredEvent>, TableError> {
        let Some(youngest) = self.aside.iter().map(|(at, _)| *at).max() else { return Ok(Vec::new()) };
        let sure = youngest + self.changes.lag();
        let wait = Duration::try_from(sure.duration_since(Timestamp::now())).unwrap_or_default();
        tokio::time::sleep(wait).await;
        self.catch_up().await?;
        let keys = self.aside.into_iter().map(|(_, key)| key);
        let contained: Vec<EventKey> = keys.filter(|key| !self.keys.contains(key)).collect();
        store.get(&contained).await
    }
}

/// What a rebuild did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuilt {
    /// Events read.
    pub events: u64,
    /// Recorded sales counted.
    pub sales: u64,
    /// Rows written.
    pub rows: u64,
}

/// Makes the read models anew from the events, exactly, while sales go on.
///
/// The projection is held at its checkpoint; the rows become the sum of all events up to there; then
/// it is released and goes on from the same checkpoint with what came meanwhile. Interrupted, it
/// leaves the hold behind, and running it again completes it.
///
/// # Errors
/// [`TableError`].
pub async fn rebuild(
    store: &EventStore,
    read_model: &ReadModel,
    registry: &Registry,
    changes: &dyn Changes,
    segments: i32,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Rebuilt, TableError> {
    let hold = read_model.hold().await?;
    let checkpoints = read_model.checkpoints().await?;
    let later = Mutex::new(Later::than(&checkpoints, changes).await?);
    let scanned = AtomicU64::new(0);
    let folds = (0..segments).map(|segment| {
        let scan = Scan { segment, segments, ..Scan::default() };
        fold(store, scan, &later, &scanned, progress)
    });
    let mut total = Folded::default();
    for folded in try_join_all(folds).await? {
        add(&mut total.sums, folded.sums);
        total.sales += folded.sales;
    }
    for event in later.into_inner().settled(store).await? {
        total.take(&event)?;
    }
    read_model.replace(&hold, &registry.shops().await?, &total.sums).await?;
    read_model.release(&hold, &checkpoints).await?;
    let Folded { sums, sales } = total;
    Ok(Rebuilt { events: scanned.load(Ordering::Relaxed), sales, rows: sums.len() as u64 })
}

/// What sales add up to.
#[derive(Default)]
struct Folded {
    sums: Sums,
    sales: u64,
}

impl Folded {
    fn take(&mut self, event: &StoredEvent) -> Result<(), TableError> {
        add(&mut self.sums, postings(&event.shop_id, event.at, &event.recorded()?));
        self.sales += 1;
        Ok(())
    }
}

async fn fold(
    store: &EventStore,
    scan: Scan,
    later: &Mutex<Later<'_>>,
    scanned: &AtomicU64,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Folded, TableError> {
    let mut folded = Folded::default();
    let mut cursor = None;
    loop {
        let page = store.scan(scan, cursor).await?;
        let count = page.events.len() as u64;
        for event in later.lock().await.contained(page.events).await? {
            folded.take(&event)?;
        }
        progress(scanned.fetch_add(count, Ordering::Relaxed) + count);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(folded);
        }
    }
}
