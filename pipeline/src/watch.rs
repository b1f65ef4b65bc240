use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use kassa_bus::business_date::last_bookable;
use kassa_bus::registry::{Registry, Shop};
use kassa_bus::table::TableError;
use kassa_bus::{
    Clock, Dimension, Failure, Intake, Message, Metric, Metrics, Retry, ShopId, Source, Subscriber,
    Subscription, Verdict,
};
use tokio::sync::Mutex;

use crate::last_at::believed;
use crate::overdue::{Selling, overdue};
use crate::pending::Pending;
use crate::pending_rows::PendingRows;
use crate::read_model::ReadModel;
use crate::row::DayRow;
use crate::unsettled::Finder;

/// Tells once a minute what no message tells: which sales are pending, how a shop's day compares with last week's, and
/// whether a shop has fallen silent. Changes nothing.
pub struct Watch {
    registry: Registry,
    read_model: ReadModel,
    finder: Finder,
    rows: PendingRows,
    clock: Clock,
    metrics: Metrics,
    pending: Mutex<HashMap<ShopId, Pending>>,
}

/// Shops looked at side by side.
const AT_ONCE: usize = 8;

impl Watch {
    pub const NAME: &str = "watch";

    #[must_use]
    pub fn new(
        registry: Registry,
        read_model: ReadModel,
        (finder, rows): (Finder, PendingRows),
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        Self { registry, read_model, finder, rows, clock, metrics, pending: Mutex::default() }
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

    /// What is pending of a shop is handed in, and handed back whatever went wrong. Says how many of its days cannot be
    /// read.
    async fn shop(
        &self,
        (id, shop): (ShopId, Option<Arc<Shop>>),
        mut pending: Pending,
        now: Timestamp,
    ) -> (ShopId, Pending, Result<usize, TableError>) {
        let day = match &shop {
            Some(shop) => self.day(shop, now).await,
            None => Ok(0),
        };
        // One that is listed and cannot be read has sales all the same.
        let zone = shop.map_or(TimeZone::UTC, |shop| shop.zone());
        let looked = pending.look((&self.finder, &self.rows), (&id, zone), now).await.and(day);
        (id, pending, looked)
    }

    /// How the shop's day compares with that of last week, as far as these can be read.
    async fn day(&self, shop: &Shop, now: Timestamp) -> Result<usize, TableError> {
        let today = now.to_zoned(shop.zone()).date();
        let last_week = today.saturating_sub(1.week());
        let days = self.read_model.days(&shop.shop_id, last_week, last_bookable(today)).await?;
        let unreadable = days.unreadable.len();
        let days: BTreeMap<Date, DayRow> =
            days.logged().into_iter().filter_map(|row| Some((row.date()?, row))).collect();
        let of = &[(Dimension::Shop, shop.shop_id.as_str())];
        let sold = |date: Date| days.get(&date).map_or((0.0, 0.0), sold);
        let (sales, turnover) = sold(today);
        self.metrics.observe(Metric::SalesToday, of, sales);
        self.metrics.observe(Metric::TurnoverToday, of, turnover);
        let (sales, turnover) = sold(last_week);
        self.metrics.observe(Metric::SalesLastWeek, of, sales);
        self.metrics.observe(Metric::TurnoverLastWeek, of, turnover);
        if let Some(overdue) = silence(shop, &days, today, sales, now) {
            self.metrics.observe(Metric::OverdueSales, of, overdue);
        }
        Ok(unreadable)
    }
}

/// Sales and turnover.
fn sold(day: &DayRow) -> (f64, f64) {
    (day.sales.nearest(), day.turnover.nearest())
}

fn silence(
    shop: &Shop,
    days: &BTreeMap<Date, DayRow>,
    today: Date,
    last_week: f64,
    now: Timestamp,
) -> Option<f64> {
    let hours = shop.opening_hours.as_ref()?;
    // A till whose clock is ahead sells today, and is booked on a day still to come.
    let days = days.range(today.saturating_sub(1.day())..=last_bookable(today));
    let last_at = days.filter_map(|(_, day)| believed(day.last_at, now)).max();
    overdue(&Selling { hours, zone: shop.zone(), last_week, last_at }, now)
}

#[async_trait]
impl Subscriber for Watch {
    async fn handle(&self, batch: &[Message]) -> Vec<Verdict> {
        batch.iter().map(|_| Err(Failure::Refuse("watch takes no messages".into()))).collect()
    }

    async fn tick(&self) -> Result<(), Retry> {
        let now = self.clock.now();
        let mut known = self.pending.lock().await;
        let shops = self.registry.registered().await?;
        let mut rows = shops.unreadable.len();
        let mut shops: HashMap<ShopId, Arc<Shop>> =
            shops.logged().into_iter().map(|shop| (shop.shop_id.clone(), shop)).collect();
        let looks = self.registry.shops().await?.into_iter().map(|id| {
            let pending = known.remove(&id).unwrap_or_else(|| Pending::new(now));
            let shop = shops.remove(&id);
            self.shop((id, shop), pending, now)
        });
        let looks: Vec<_> = stream::iter(looks).buffer_unordered(AT_ONCE).collect().await;
        let (mut count, mut longest, mut outcome) = (0, SignedDuration::ZERO, Ok(()));
        for (id, pending, looked) in looks {
            let (more, waited) = pending.waiting(now);
            (count, longest) = (count + more, longest.max(waited));
            outcome = outcome.and(looked.map(|unreadable| rows += unreadable));
            known.insert(id, pending);
        }
        #[expect(clippy::cast_precision_loss, reason = "there are a few, at most")]
        self.metrics.observe(Metric::UnreadableRows, &[], rows as f64);
        // Nothing is better than a number that leaves a shop out.
        outcome?;
        #[expect(clippy::cast_precision_loss, reason = "there are a few million, at most")]
        self.metrics.observe(Metric::Pending, &[], count as f64);
        self.metrics.observe(Metric::PendingAge, &[], longest.as_secs_f64());
        Ok(())
    }
}
