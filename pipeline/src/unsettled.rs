use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use kassa_bus::table::TableError;
use kassa_bus::{SaleId, ShopId};

use crate::event::{StoredEvent, readable};
use crate::event_store::EventStore;
use crate::standing::{Sales, Standing, Unsettled, standing, unsettled};

/// Finds what was accepted and came to no end, for whoever tells of it or publishes it again:
/// [`accept::republished`](crate::accept::republished) makes the message of the accepted event.
#[derive(Clone)]
pub struct Finder {
    pub store: EventStore,
}

/// What a look found.
#[derive(Debug, Default)]
pub struct Found {
    pub unsettled: Vec<Unsettled>,
    /// Events read.
    pub events: usize,
    /// Where it stopped because it had read enough.
    pub stopped_at: Option<Timestamp>,
}

impl Finder {
    /// Of one sale whose events are these, with or without their bodies.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn of(&self, sale: &[StoredEvent]) -> Result<Vec<Unsettled>, TableError> {
        let Some(first) = sale.first() else { return Ok(Vec::new()) };
        match standing(sale) {
            Standing::Settled => Ok(Vec::new()),
            Standing::Unsettled(unsettled) => Ok(unsettled),
            Standing::Unclear => {
                let sale = self.store.sale(&first.shop_id, &first.sale_id).await?;
                Ok(unsettled(&readable(&sale)))
            }
        }
    }

    /// Of a shop's sales whose ids were made from one time to before another, until `enough` events are read. A classic
    /// id tells no time: of these, see [`Finder::of_classic_ids`].
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn made(
        &self,
        shop: &ShopId,
        (from, to): (Timestamp, Timestamp),
        enough: usize,
    ) -> Result<Found, TableError> {
        let mut found = Found::default();
        let keys = (&*SaleId::made_from(from), &*SaleId::made_from(to));
        let [mut date, last] = [from, to].map(|at| at.to_zoned(TimeZone::UTC).date());
        while date <= last && found.stopped_at.is_none() {
            self.look(shop, date, keys, (from, enough), &mut found).await?;
            date = date.tomorrow().unwrap_or(Date::MAX);
        }
        Ok(found)
    }

    /// Of a shop's sales with classic ids of a day. A sealed sale's are left out: those of one day stand side by side,
    /// so that what is before and after them is classic (and where one is among them, [`Finder::made`] sees it).
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn of_classic_ids(&self, shop: &ShopId, date: Date) -> Result<Found, TableError> {
        let mut found = Found::default();
        let begins = |days: i8| {
            let date = date.saturating_add(Span::new().days(days));
            date.to_zoned(TimeZone::UTC).map(|day| SaleId::made_from(day.timestamp())).unwrap_or_default()
        };
        // Ids begin with digits, which come after "0" and before ":".
        for keys in [("0", &*begins(0)), (&*begins(1), ":")] {
            self.look(shop, date, keys, (Timestamp::MIN, usize::MAX), &mut found).await?;
        }
        Ok(found)
    }

    /// Of one sale.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn again(&self, shop: &ShopId, sale: &SaleId) -> Result<Found, TableError> {
        let mut found = Found::default();
        // "$" is what comes after "#".
        let keys = (&*format!("{sale}#"), &*format!("{sale}$"));
        self.look(shop, sale.utc_date(), keys, (Timestamp::MIN, usize::MAX), &mut found).await?;
        Ok(found)
    }

    async fn look(
        &self,
        shop: &ShopId,
        date: Date,
        keys: (&str, &str),
        (from, enough): (Timestamp, usize),
        found: &mut Found,
    ) -> Result<(), TableError> {
        let mut sales = Sales::default();
        let mut cursor = None;
        loop {
            let page = self.store.between(shop, date, keys, cursor).await?;
            found.events += page.events.len();
            for sale in page.events.into_iter().filter_map(|event| sales.take(event)) {
                found.unsettled.extend(self.of(&sale).await?);
            }
            cursor = page.next;
            if cursor.is_none() {
                found.unsettled.extend(self.of(&sales.rest()).await?);
                return Ok(());
            }
            // To go on from the sale that is in hand, it must be one that tells its time, and not where this began.
            let reached = sales.current().and_then(SaleId::instant).filter(|at| *at > from);
            if found.events >= enough && reached.is_some() {
                found.stopped_at = reached;
                return Ok(());
            }
        }
    }
}
