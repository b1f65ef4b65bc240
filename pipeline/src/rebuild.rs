use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;

use crate::event::{EventKey, RECORDED};
use crate::event_store::{EventStore, Scan};
use crate::posting::{Position, Sequence, Sums, add, postings};
use crate::read_model::ReadModel;
use crate::registry::Registry;
use crate::table::TableError;

/// The event store's stream, read by whoever must know what the projection has not seen yet.
#[async_trait]
pub trait Changes: Send + Sync {
    /// Keys of events appended after `from` (all, if there is no `from`), and where to go on.
    ///
    /// An adapter MUST return every event whose append was over before the call, in order.
    async fn after(&self, from: Option<&Sequence>) -> Result<(Vec<EventKey>, Option<Sequence>), TableError>;
}

/// The recorded sales that come after a checkpoint: the projection will count those itself.
pub struct Later<'a> {
    changes: &'a dyn Changes,
    from: Option<Sequence>,
    keys: HashSet<EventKey>,
}

impl<'a> Later<'a> {
    #[must_use]
    pub fn new(changes: &'a dyn Changes, from: Option<&Position>) -> Self {
        Self { changes, from: from.map(|p| p.sequence.clone()), keys: HashSet::new() }
    }

    /// Learns of every event appended so far. Called after a page was read, so that whatever of the
    /// page came after the checkpoint is known.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn catch_up(&mut self) -> Result<(), TableError> {
        loop {
            let (keys, upto) = self.changes.after(self.from.as_ref()).await?;
            let Some(upto) = upto else { return Ok(()) };
            self.keys.extend(keys.into_iter().filter(|key| key.event.ends_with(RECORDED)));
            self.from = Some(upto);
        }
    }

    #[must_use]
    pub fn contains(&self, key: &EventKey) -> bool {
        self.keys.contains(key)
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
    shard: &str,
    segments: i32,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Rebuilt, TableError> {
    read_model.hold().await?;
    let position = read_model.checkpoint(shard).await?;
    let later = Mutex::new(Later::new(changes, position.as_ref()));
    let scanned = Arc::new(AtomicU64::new(0));
    let folds = (0..segments).map(|segment| {
        let scan = Scan { segment, segments, ..Scan::default() };
        fold(store, scan, &later, &scanned, progress)
    });
    let mut total = Sums::new();
    let mut sales = 0;
    for (sums, folded) in try_join_all(folds).await? {
        add(&mut total, sums);
        sales += folded;
    }
    read_model.replace(&registry.shops().await?, &total).await?;
    read_model.release(shard, position.as_ref()).await?;
    Ok(Rebuilt { events: scanned.load(Ordering::Relaxed), sales, rows: total.len() as u64 })
}

async fn fold(
    store: &EventStore,
    scan: Scan,
    later: &Mutex<Later<'_>>,
    scanned: &AtomicU64,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(Sums, u64), TableError> {
    let mut sums = Sums::new();
    let mut sales = 0;
    let mut cursor = None;
    loop {
        let page = store.scan(scan, cursor).await?;
        let mut later = later.lock().await;
        later.catch_up().await?;
        let count = page.events.len() as u64;
        for event in page.events.into_iter().filter(|e| e.kind == RECORDED && !later.contains(&e.key)) {
            add(&mut sums, postings(&event.shop_id, &event.recorded()?));
            sales += 1;
        }
        drop(later);
        progress(scanned.fetch_add(count, Ordering::Relaxed) + count);
        cursor = page.next;
        if cursor.is_none() {
            return Ok((sums, sales));
        }
    }
}
