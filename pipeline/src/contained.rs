//! Which recorded sales the read models contain: those of the event store that its stream does not bring later.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use kassa_bus::table::TableError;

use crate::checkpoint::Checkpoint;
use crate::event::{EventKey, RECORDED, StoredEvent, Unreadable};
use crate::event_store::EventStore;
use crate::posting::{Position, RowKey, Sequence, Sum, postings};

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

    /// The key of the event that has this place in a shard; nothing if the shard does not have it any more.
    async fn at(&self, shard: &str, place: &Sequence) -> Result<Option<EventKey>, TableError>;

    /// How long after its own time an event may come to the stream: zero where an event that can be
    /// read is in the stream already.
    fn lag(&self) -> SignedDuration;
}

/// The end of a shard, as far as it has any events.
pub(crate) async fn end(changes: &dyn Changes, shard: &str) -> Result<Option<Sequence>, TableError> {
    let mut end = None;
    while let (_, Some(upto)) = changes.after(shard, end.as_ref()).await? {
        end = Some(upto);
    }
    Ok(end)
}

/// Where each shard stands. Of one whose checkpoint cannot be read nobody knows, and it counts as read to its end.
///
/// # Errors
/// [`TableError`].
pub(crate) async fn positions(
    checkpoints: &BTreeMap<String, Checkpoint>,
    changes: &dyn Changes,
) -> Result<BTreeMap<String, Position>, TableError> {
    let shards = changes.shards().await?;
    let mut positions = BTreeMap::new();
    for (shard, checkpoint) in checkpoints {
        let position = match checkpoint.position() {
            Ok(position) => position,
            // A shard that is no more brings nothing.
            Err(_) if !shards.contains(shard) => None,
            Err(_) => end(changes, shard).await?.map(|sequence| Position { sequence, partial: None }),
        };
        positions.extend(position.map(|position| (shard.clone(), position)));
    }
    Ok(positions)
}

/// A recorded sale that the read models contain.
pub struct Contained {
    event: StoredEvent,
    /// If not all of it: the last of its postings that they contain.
    partial: Option<usize>,
}

impl Contained {
    /// What it has added to which rows.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn postings(&self) -> Result<Vec<(RowKey, Sum)>, Unreadable> {
        let StoredEvent { shop_id, at, .. } = &self.event;
        let mut postings = postings(shop_id, *at, &self.event.recorded()?);
        postings.truncate(self.partial.map_or(usize::MAX, |last| last + 1));
        Ok(postings)
    }
}

/// Tells the recorded sales that the read models contain from those that the projection will count yet.
///
/// What is in the stream after a shard's checkpoint comes later. What is too young to be sure of is put
/// aside until the stream must have it.
pub struct Later<'a> {
    changes: &'a dyn Changes,
    reached: HashMap<String, Sequence>,
    keys: HashSet<EventKey>,
    /// Of sales in whose midst a checkpoint is, the last posting that the read models contain.
    partial: HashMap<EventKey, usize>,
    /// When the stream was last read to its end.
    caught_up: Timestamp,
    aside: Vec<(Timestamp, EventKey)>,
}

impl<'a> Later<'a> {
    /// Reads the stream from where its shards stand to its end.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn than(
        positions: &BTreeMap<String, Position>,
        changes: &'a dyn Changes,
    ) -> Result<Self, TableError> {
        let reached = positions.iter().map(|(shard, at)| (shard.clone(), at.sequence.clone())).collect();
        let (keys, aside, caught_up) = (HashSet::new(), Vec::new(), Timestamp::now());
        let (mut partial, shards) = (HashMap::new(), changes.shards().await?);
        for (shard, Position { sequence, partial: last }) in positions {
            if let Some(last) = last.filter(|_| shards.contains(shard)) {
                // What the stream does not have any more it will not bring either, so that all of it is contained.
                partial.extend(changes.at(shard, sequence).await?.map(|key| (key, last)));
            }
        }
        let mut this = Self { changes, reached, keys, partial, caught_up, aside };
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
    pub async fn contained(&mut self, page: Vec<StoredEvent>) -> Result<Vec<Contained>, TableError> {
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
                contained.push(Contained { partial: self.partial.get(&event.key).copied(), event });
            }
        }
        Ok(contained)
    }

    /// Of those put aside, the ones that the read models contain. Waits until that is sure.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn settled(mut self, store: &EventStore) -> Result<Vec<Contained>, TableError> {
        let Some(youngest) = self.aside.iter().map(|(at, _)| *at).max() else { return Ok(Vec::new()) };
        let sure = youngest + self.changes.lag();
        let wait = Duration::try_from(sure.duration_since(Timestamp::now())).unwrap_or_default();
        tokio::time::sleep(wait).await;
        self.catch_up().await?;
        let keys = self.aside.into_iter().map(|(_, key)| key);
        let contained: Vec<EventKey> = keys.filter(|key| !self.keys.contains(key)).collect();
        let contained = store.get(&contained).await?.into_iter();
        // They could be read before.
        Ok(contained.filter_map(Result::ok).map(|event| Contained { event, partial: None }).collect())
    }
}
