use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use kassa_bus::attention::Attention;
use kassa_bus::registry::Registry;
use kassa_bus::shops_table::ShopsTable;
use kassa_bus::{
    Clock, Dimension, Failure, Intake, Message, Metric, Metrics, Publisher, Retry, SaleId, SettingError,
    Settings, ShopId, Source, Subscriber, Subscription, Topic, Verdict,
};
use tokio::sync::Mutex;

use crate::accept;
use crate::attention::AttentionList;
use crate::claim_check;
use crate::event::StoredEvent;
use crate::event_store::Scan;
use crate::pending::Pending;
use crate::progress_row::ProgressRow;
use crate::standing::{Sales, Unsettled};
use crate::tries::Tries;
use crate::unsettled::Finder;

/// Sends accepted sales that came to no end on their way again, once a minute, the oldest first; and keeps the list of what
/// needs attention true.
///
/// That one may be on its way all the same does no harm: each stage bears repeats, and an append is a no-op where the
/// event is there. So nothing is locked, and of two runs at once the worst is that a sale is published twice.
pub struct Reconcile {
    registry: Registry,
    finder: Finder,
    attention: AttentionList,
    reached: ProgressRow,
    publisher: Arc<dyn Publisher>,
    clock: Clock,
    metrics: Metrics,
    tries: Tries,
    /// Sales published in one run, at most. The rest is left to the next.
    most: usize,
    pending: Mutex<HashMap<ShopId, Pending>>,
}

/// When a sale is tried first: well after a message that failed has come again.
const FIRST_TRY: Duration = Duration::from_mins(5);

/// Sales published in one run, at most: fifty a second. A backlog of an outage should not become the next one.
const MOST: u64 = 3_000;

/// Looks and publishes at once.
const AT_ONCE: usize = 8;

/// How far back a first run looks for what was due, which knows of none before it.
const BACK: SignedDuration = SignedDuration::from_hours(6);

/// How far functions' clocks may be apart, and nobody looks back for that.
const APART: SignedDuration = SignedDuration::from_mins(1);

/// How sales are sent on their way, and where that is counted.
pub type Way<'a> = (&'a dyn Publisher, &'a Metrics);

/// A sale that is due.
struct Due {
    at: Timestamp,
    shop: ShopId,
    sale: SaleId,
}

impl Reconcile {
    pub const NAME: &str = "reconcile";

    /// With the settings `RECONCILE_AFTER`, when a sale is tried first, and `RECONCILE_MOST`, how many sales a run
    /// publishes.
    ///
    /// # Errors
    /// [`SettingError`].
    pub fn told(
        settings: &Settings,
        finder: Finder,
        shops: ShopsTable,
        publisher: Arc<dyn Publisher>,
        (clock, metrics): (Clock, Metrics),
    ) -> Result<Self, SettingError> {
        let first = settings.duration("RECONCILE_AFTER", FIRST_TRY)?;
        Ok(Self {
            registry: Registry::of(shops.clone()),
            attention: AttentionList::new(finder.store.clone(), Attention::in_table(shops.clone())),
            finder,
            reached: ProgressRow { table: shops, name: "#reconcile" },
            publisher,
            clock,
            metrics,
            tries: Tries { first: first.try_into().unwrap_or(SignedDuration::MAX) },
            most: usize::try_from(settings.count("RECONCILE_MOST", MOST)?).unwrap_or(usize::MAX),
            pending: Mutex::default(),
        })
    }

    #[must_use]
    pub fn subscription(self) -> Subscription {
        let subscriber = Arc::new(self);
        Subscription {
            name: Self::NAME,
            source: Source::Minute,
            batch: 1,
            workers: 1,
            intake: Intake::Pushed,
            every_minute: true,
            subscriber,
        }
    }

    /// Brings up to date what is known to be pending.
    async fn look(&self, known: &mut HashMap<ShopId, Pending>, now: Timestamp) -> Result<(), Retry> {
        let looks = self.registry.shops().await?.into_iter().map(|id| {
            let mut pending = known.remove(&id).unwrap_or_else(|| Pending::new(now));
            async move {
                // One that is listed and cannot be read has sales all the same.
                let looked = match self.registry.readable_shop(&id).await {
                    Ok(shop) => {
                        let zone = shop.map_or(TimeZone::UTC, |shop| shop.zone());
                        pending.look(&self.finder, (&id, zone), now).await
                    }
                    Err(error) => Err(error),
                };
                (id, pending, looked)
            }
        });
        let looks: Vec<_> = stream::iter(looks).buffer_unordered(AT_ONCE).collect().await;
        let mut outcome = Ok(());
        for (id, pending, looked) in looks {
            known.insert(id, pending);
            outcome = outcome.and(looked);
        }
        Ok(outcome?)
    }

    async fn publish(&self, Due { shop, sale, .. }: &Due) -> Result<(), Retry> {
        let found = self.finder.again(shop, sale).await?;
        let unsettled = found.unsettled.into_iter().filter(|found| !found.recorded);
        publish(&self.finder, (&*self.publisher, &self.metrics), shop, unsettled).await.map(drop)
    }

    /// How many were tried for the last time and have still come to no end.
    #[expect(clippy::cast_precision_loss, reason = "there are a hundred thousand, at most")]
    fn tell_given_up(&self, known: &HashMap<ShopId, Pending>, now: Timestamp) {
        let over =
            |pending: &Pending| pending.known().filter(|(_, known)| self.tries.are_over(*known, now)).count();
        let count: usize = known.values().map(over).sum();
        self.metrics.observe(Metric::GivenUp, &[], count as f64);
    }
}

#[async_trait]
impl Subscriber for Reconcile {
    async fn handle(&self, batch: &[Message]) -> Vec<Verdict> {
        batch.iter().map(|_| Err(Failure::Refuse("reconcile takes no messages".into()))).collect()
    }

    async fn tick(&self) -> Result<(), Retry> {
        let now = self.clock.now();
        let tended = self.attention.tend().await;
        let mut known = self.pending.lock().await;
        self.look(&mut known, now).await?;
        let reached = self.reached.read().await?;
        // What is still to come was reached by a clock that was ahead, and has been set right since.
        let from = reached.upto.filter(|reached| *reached <= now + APART).unwrap_or(now - BACK);
        let mut due: Vec<Due> = Vec::new();
        for (shop, pending) in known.iter() {
            due.extend(pending.known().filter_map(|(sale, known)| {
                let at = self.tries.due(known, from, now)?;
                Some(Due { at, shop: shop.clone(), sale: sale.clone() })
            }));
        }
        due.sort_by(|a, b| (a.at, &a.sale).cmp(&(b.at, &b.sale)));
        let upto = bound(&mut due, self.most, now);
        // What was published by then when one fails is published again, which does no harm.
        stream::iter(&due)
            .map(|due| Ok(self.publish(due)))
            .try_for_each_concurrent(AT_ONCE, |sent| sent)
            .await?;
        self.reached.write(reached, upto).await?;
        self.tell_given_up(&known, now);
        Ok(tended?)
    }
}

/// Leaves what is too much for one run to the next, and says up to when all that was due is done.
fn bound(due: &mut Vec<Due>, most: usize, now: Timestamp) -> Timestamp {
    let Some(first_left) = due.get(most).map(|due| due.at) else { return now };
    let last = due[most.saturating_sub(1)].at;
    // Those that were due at the same moment cannot be told apart later.
    due.retain(|due| due.at < first_left || due.at == last);
    last
}

async fn publish(
    finder: &Finder,
    (publisher, metrics): Way<'_>,
    shop: &ShopId,
    unsettled: impl IntoIterator<Item = Unsettled>,
) -> Result<u64, Retry> {
    let keys: Vec<_> = unsettled.into_iter().map(|found| found.key).collect();
    let mut messages = Vec::new();
    for event in finder.store.get(&keys).await? {
        match event.and_then(|event| Ok(event.read()?)) {
            Ok(event) => {
                messages.extend(accept::republished(event, 1).map(|sale| claim_check::message(&sale)));
            }
            // It keeps no other from going its way; the sale stays pending.
            Err(error) if error.is_unreadable() => {
                tracing::error!(%error, "cannot be sent on its way again");
                metrics.count(Metric::UnreadableEvents, 1);
            }
            Err(error) => return Err(error.into()),
        }
    }
    let count = messages.len() as u64;
    for published in publisher.publish(Topic::ToDecrypt, messages).await {
        published?;
    }
    metrics.count_of(Metric::Republished, &[(Dimension::Shop, shop.as_str())], count);
    Ok(count)
}

/// Every sale that came to no end, whenever it was accepted and however often it was tried: what a shop that opens, or
/// somebody who has mended something, sends on its way. Reads the whole table, and shows each event to `see`.
///
/// With no way to send them, it only says how many there are.
///
/// # Errors
/// [`Retry`].
pub async fn reconcile_all(
    finder: &Finder,
    way: Option<Way<'_>>,
    meant: &(dyn Fn(&ShopId) -> bool + Sync),
    mut see: impl FnMut(&StoredEvent),
) -> Result<u64, Retry> {
    let scan = Scan { without_bodies: true, ..Scan::default() };
    let (mut count, mut sales, mut cursor) = (0, Sales::default(), None);
    let settle = async |sale: &[StoredEvent]| -> Result<u64, Retry> {
        let Some(shop) = sale.first().map(|event| &event.shop_id).filter(|shop| meant(shop)) else {
            return Ok(0);
        };
        let unsettled = finder.of(sale).await?;
        match way {
            Some(way) => publish(finder, way, shop, unsettled).await,
            None => Ok(unsettled.len() as u64),
        }
    };
    loop {
        let page = finder.store.scan(scan, cursor).await?;
        for event in page.events {
            see(&event);
            if let Some(sale) = sales.take(event) {
                count += settle(&sale).await?;
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(count + settle(&sales.rest()).await?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_for_one_run_is_left_to_the_next_and_nothing_is_left_out() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let due = |seconds: &[i64]| -> Vec<Due> {
            let due = |(n, second): (usize, &i64)| Due {
                at: at(*second),
                shop: "A".parse().unwrap(),
                sale: format!("{n}-20261122").parse().unwrap(),
            };
            seconds.iter().enumerate().map(due).collect()
        };
        for (seconds, most, done, upto) in [
            (&[1, 2, 3][..], 5, 3, 9),
            (&[1, 2, 3], 3, 3, 9),
            (&[1, 2, 3], 2, 2, 2),
            (&[1, 2, 2, 2, 3], 2, 4, 2),
            (&[], 1, 0, 9),
        ] {
            let mut all = due(seconds);
            assert_eq!((bound(&mut all, most, at(9)), all.len()), (at(upto), done), "{seconds:?}");
        }
    }
}
