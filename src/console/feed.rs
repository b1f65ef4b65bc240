/// Order, bounds, repeats.
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kassa_bus::message::RejectedSale;
use kassa_bus::{Clock, SaleId, ShopId, Totals};
use kassa_pipeline::event::{RECORDED, REJECTED, Rejected, StoredEvent};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::sync::watch;

use crate::questions::{QuestionError, Questions};

/// The latest sales and rejections, and word of each change.
///
/// The shop on this machine puts in what it records and rejects, of each batch the last few; of a shop on AWS
/// [`Feed::follow`] asks for the latest as long as somebody looks.
pub struct Feed {
    latest: Mutex<Latest>,
    changes: watch::Sender<Change>,
    /// Whether somebody looked since the shop was last asked.
    looked: AtomicBool,
}

/// Word that there is something new, or that there will be nothing more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub number: u64,
    pub closed: bool,
}

/// What of each kind is kept.
pub const KEPT: usize = 100;

/// Of a batch of recorded sales, as many are looked at as anybody could read.
const OF_A_BATCH: usize = 25;

#[derive(Default)]
struct Latest {
    sold: VecDeque<Sold>,
    turned_away: VecDeque<TurnedAway>,
    last: BTreeMap<ShopId, Timestamp>,
}

/// A recorded sale. Has no `Debug`: its till and total are the sale's.
#[derive(Clone)]
pub struct Sold {
    pub shop_id: ShopId,
    pub sale_id: SaleId,
    pub at: Timestamp,
    pub till: Option<String>,
    pub lines: usize,
    pub totals: Totals,
}

/// A rejected sale.
#[derive(Debug, Clone)]
pub struct TurnedAway {
    pub shop_id: ShopId,
    pub sale_id: SaleId,
    pub at: Timestamp,
    pub reason: String,
    pub detail: String,
    /// Where it came from, if that is known.
    pub source: Option<String>,
}

/// What the feed shows of a recorded event's body.
#[derive(Deserialize)]
struct Shown {
    lines: Vec<IgnoredAny>,
    #[serde(default)]
    totals: Totals,
    till: Option<String>,
}

impl Sold {
    fn of(event: &StoredEvent) -> Option<Self> {
        let Shown { lines, totals, till } = serde_json::from_str(&event.body).ok()?;
        let (shop_id, sale_id) = (event.shop_id.clone(), event.sale_id.clone());
        Some(Self { shop_id, sale_id, at: event.at, till, lines: lines.len(), totals })
    }
}

impl TurnedAway {
    fn of(event: &StoredEvent) -> Option<Self> {
        let Rejected { reason, detail, .. } = serde_json::from_str(&event.body).ok()?;
        let (shop_id, sale_id) = (event.shop_id.clone(), event.sale_id.clone());
        let reason = reason.as_str().to_owned();
        Some(Self { shop_id, sale_id, at: event.at, reason, detail, source: None })
    }
}

impl From<&RejectedSale> for TurnedAway {
    fn from(sale: &RejectedSale) -> Self {
        Self {
            shop_id: sale.shop_id.clone(),
            sale_id: sale.sale_id.clone(),
            at: sale.rejected_at,
            reason: sale.reason.as_str().to_owned(),
            detail: sale.detail.clone(),
            source: Some(sale.origin.source.clone()),
        }
    }
}

impl Latest {
    /// Puts it in its place by time, unless it is there or older than all that is kept.
    fn sold(&mut self, sale: Sold) -> bool {
        let there = |other: &Sold| other.sale_id == sale.sale_id && other.shop_id == sale.shop_id;
        if self.sold.iter().any(there) {
            return false;
        }
        insert(&mut self.sold, sale, |sale| sale.at)
    }

    fn turned_away(&mut self, sale: TurnedAway) -> bool {
        let there = |other: &TurnedAway| {
            (&other.sale_id, &other.shop_id, other.at) == (&sale.sale_id, &sale.shop_id, sale.at)
        };
        if self.turned_away.iter().any(there) {
            return false;
        }
        insert(&mut self.turned_away, sale, |sale| sale.at)
    }

    fn sold_at(&mut self, shop: &ShopId, at: Timestamp) {
        match self.last.get_mut(shop) {
            Some(last) => *last = at.max(*last),
            None => drop(self.last.insert(shop.clone(), at)),
        }
    }
}

fn insert<T>(kept: &mut VecDeque<T>, new: T, at: impl Fn(&T) -> Timestamp) -> bool {
    let place = kept.partition_point(|other| at(other) > at(&new));
    kept.insert(place, new);
    kept.truncate(KEPT);
    place < KEPT
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            latest: Mutex::default(),
            changes: watch::Sender::new(Change::default()),
            looked: AtomicBool::new(true),
        }
    }
}

impl Feed {
    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest recorded sales, the last first.
    #[must_use]
    pub fn sold(&self, limit: usize) -> Vec<Sold> {
        self.looked.store(true, Ordering::Relaxed);
        self.latest().sold.iter().take(limit).cloned().collect()
    }

    /// The latest rejected sales, the last first.
    #[must_use]
    pub fn turned_away(&self, limit: usize) -> Vec<TurnedAway> {
        self.latest().turned_away.iter().take(limit).cloned().collect()
    }

    /// When a shop's last sale was recorded, as far as was seen.
    #[must_use]
    pub fn last(&self, shop: &ShopId) -> Option<Timestamp> {
        self.latest().last.get(shop).copied()
    }

    /// Takes in events as they were committed.
    pub fn recorded<'a>(&self, events: impl DoubleEndedIterator<Item = &'a StoredEvent>) {
        let mut latest = self.latest();
        for (n, event) in events.rev().filter(|event| event.kind == RECORDED).enumerate() {
            latest.sold_at(&event.shop_id, event.at);
            if n < OF_A_BATCH {
                Sold::of(event).map(|sale| latest.sold(sale));
            }
        }
        drop(latest);
        self.changed();
    }

    /// Takes in what was rejected.
    pub fn rejected(&self, sale: &RejectedSale) {
        if self.latest().turned_away(sale.into()) {
            self.changed();
        }
    }

    /// Says that there is something new.
    pub fn changed(&self) {
        self.changes.send_modify(|change| change.number += 1);
    }

    /// Says that there will be nothing more, so that nobody waits for it.
    pub fn close(&self) {
        self.changes.send_modify(|change| change.closed = true);
    }

    pub(super) fn changes(&self) -> watch::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Asks for the latest sales of every shop.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn ask(&self, questions: &Questions, now: Timestamp) -> Result<(), QuestionError> {
        let mut new = false;
        for shop in questions.registered().await?.rows {
            let events = questions.latest(&shop.shop_id, now, EVENTS).await?;
            let mut latest = self.latest();
            for event in &events {
                new |= match event.kind.as_str() {
                    RECORDED => {
                        latest.sold_at(&event.shop_id, event.at);
                        Sold::of(event).is_some_and(|sale| latest.sold(sale))
                    }
                    REJECTED => TurnedAway::of(event).is_some_and(|sale| latest.turned_away(sale)),
                    _ => false,
                };
            }
        }
        // Among the latest there may be no rejected ones, and still many that need attention.
        for (shop, sale) in questions.unbooked(KEPT).await? {
            new |= self.latest().turned_away(TurnedAway {
                shop_id: shop,
                sale_id: sale.sale_id,
                at: sale.since,
                reason: sale.reason.to_string(),
                detail: String::new(),
                source: None,
            });
        }
        if new {
            self.changed();
        }
        Ok(())
    }

    /// Asks for the latest again and again while somebody looks, for as long as the feed is open.
    pub async fn follow(self: Arc<Self>, questions: Arc<Questions>, clock: Clock, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.changes.borrow().closed {
            ticks.tick().await;
            let looked = self.looked.swap(false, Ordering::Relaxed);
            if !looked && self.changes.receiver_count() == 0 {
                continue;
            }
            if let Err(error) = self.ask(&questions, clock.now()).await {
                tracing::warn!(%error, "the latest sales cannot be read");
            }
        }
    }
}

/// Events asked for per shop: each sale has two.
const EVENTS: i32 = 60;
