//! Stock and turnover anew from the events, exactly, while sales go on.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::attention::{self, AttentionList, Days};
use crate::contained::{Changes, Contained, Later, end, positions};
use crate::event_store::{EventStore, Scan};
use crate::hold::Hold;
use crate::posting::{Position, Sums, add};
use crate::read_model::ReadModel;
use kassa_bus::registry::Registry;
use kassa_bus::table::TableError;

/// What a rebuild did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuilt {
    /// Events read.
    pub events: u64,
    /// Recorded sales counted.
    pub sales: u64,
    /// Rows written.
    pub rows: u64,
    /// Events that could not be read, and rows that could not be made right, each with why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
}

/// Makes the read models anew from the events, exactly, while sales go on.
///
/// The projection is held at its checkpoint; the rows become the sum of all events up to there; then it is released and
/// goes on from the same checkpoint with what came meanwhile. Each row is right as soon as it is written, so that a
/// rebuild that fails releases, and one that dies is waited for only until its lease is over.
///
/// # Errors
/// [`TableError`]; what was written by then is right.
pub async fn rebuild(
    store: &EventStore,
    (read_model, attention): (&ReadModel, &AttentionList),
    registry: &Registry,
    changes: &dyn Changes,
    segments: i32,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Rebuilt, TableError> {
    let hold = read_model.holds.hold().await?;
    let scanned = AtomicU64::new(0);
    let work = Box::pin(async {
        begin_where_unknown(read_model, &hold, changes).await?;
        let positions = positions(&read_model.checkpoints().await?, changes).await?;
        let later = Mutex::new(Later::than(&positions, changes).await?);
        let folds = (0..segments).map(|segment| {
            let scan = Scan { segment, segments, ..Scan::default() };
            fold(store, scan, &later, &scanned, progress)
        });
        let mut total = Folded::default();
        for folded in try_join_all(folds).await? {
            add(&mut total.sums, folded.sums);
            total.sales += folded.sales;
            total.skipped.extend(folded.skipped);
            folded
                .rejected
                .into_iter()
                .for_each(|(shop, days)| total.rejected.entry(shop).or_default().extend(days));
        }
        for event in later.into_inner().settled(store).await? {
            total.take(&event);
        }
        let Folded { sums, sales, rejected, mut skipped } = total;
        attention.make(rejected).await?;
        skipped.extend(read_model.replace(&hold, &registry.shops().await?, &sums).await?);
        Ok(Rebuilt { events: scanned.load(Ordering::Relaxed), sales, rows: sums.len() as u64, skipped })
    });
    let outcome = tokio::select! {
        outcome = work => outcome,
        lost = read_model.holds.renew(&hold) => Err(lost),
    };
    if let Err(error) = read_model.holds.release(&hold).await {
        tracing::warn!(%error, "projecting goes on once the lease is over");
    }
    outcome
}

/// A shard whose checkpoint cannot be read begins anew at its end: the rows come to contain all that was before, and
/// what comes after was not projected, since projecting is held.
async fn begin_where_unknown(
    read_model: &ReadModel,
    hold: &Hold,
    changes: &dyn Changes,
) -> Result<(), TableError> {
    let checkpoints = read_model.checkpoints().await?;
    let unreadable = checkpoints.iter().filter(|(_, checkpoint)| checkpoint.position().is_err());
    let shards = changes.shards().await?;
    for (shard, checkpoint) in unreadable {
        tracing::warn!(shard, "the checkpoint cannot be read; the shard begins anew at its end");
        let end = if shards.contains(shard) { end(changes, shard).await? } else { None };
        let position = end.map(|sequence| Position { sequence, partial: None });
        read_model.begin_after(hold, (shard, checkpoint), position.as_ref()).await?;
    }
    Ok(())
}

/// What sales add up to.
#[derive(Default)]
struct Folded {
    sums: Sums,
    sales: u64,
    /// Days with rejected sales.
    rejected: Days,
    skipped: Vec<String>,
}

impl Folded {
    fn take(&mut self, event: &Contained) {
        match event.postings() {
            Ok(postings) => {
                add(&mut self.sums, postings);
                self.sales += 1;
            }
            Err(error) => self.skipped.push(error.to_string()),
        }
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
        folded.skipped.extend(page.unreadable);
        page.events.iter().for_each(|event| attention::note(&mut folded.rejected, event));
        for event in later.lock().await.contained(page.events).await? {
            folded.take(&event);
        }
        progress(scanned.fetch_add(count, Ordering::Relaxed) + count);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(folded);
        }
    }
}
