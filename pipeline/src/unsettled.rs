//! Finds sales that are pending, and says how a sale stands where its first page of events does not tell. However many envelopes
//! a stranger posts under one id, what is kept of them at once is bounded, and each event is read once.

use std::collections::HashSet;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use kassa_bus::table::TableError;
use kassa_bus::{SaleId, ShopId};

use crate::event::{ACCEPTED, EventKey, RECORDED, REJECTED, StoredEvent};
use crate::event_store::{Bodies, Cursor, EventStore};
use crate::settlement::{Judged, SaleFold, Sales, Settlement, Unclear, Unjudged, unjudged};

/// Finds what was accepted and is not settled, for whoever tells of it or publishes it again:
/// [`accept::republished`](crate::accept::republished) makes the message of the accepted event.
#[derive(Clone)]
pub struct Finder {
    pub store: EventStore,
}

/// Envelopes of one sale that are not judged, at most; the others are found once these are. As one a second is let in while
/// none is judged, these are hours.
const MAX_UNJUDGED: usize = 10_000;

/// What a look found.
#[derive(Debug, Default)]
pub struct Found {
    /// The envelopes that keep their sales pending.
    pub unsettled: Vec<Unjudged>,
    /// Events read.
    pub events: usize,
    /// Where it stopped because it had read enough.
    pub stopped_at: Option<Timestamp>,
}

impl Finder {
    /// What the events of a sale say of it.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn judged(&self, sale: SaleFold) -> Result<Judged, TableError> {
        let (shop_id, sale_id) = (sale.shop_id.clone(), sale.sale_id.clone());
        match sale.judged() {
            Ok(judged) => Ok(judged),
            Err(Unclear { old }) => self.read((&shop_id, &sale_id), old).await,
        }
    }

    /// How a sale stands, if it was accepted.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn settlement(&self, shop: &ShopId, sale: &SaleId) -> Result<Option<Settlement>, TableError> {
        let judged = self.read((shop, sale), true).await?;
        Ok((judged.accepted > 0).then(|| judged.settlement()))
    }

    /// A sale's envelopes of which nothing tells what became of them. Of one that is recorded there may be repeats, of which no
    /// event tells, and one that is to be told as a conflict.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn unjudged(&self, sale: SaleFold) -> Result<Vec<Unjudged>, TableError> {
        let (shop_id, sale_id) = (sale.shop_id.clone(), sale.sale_id.clone());
        match (sale.recorded, sale.accepted) {
            (0, _) => Ok(self.judged(sale).await?.unjudged),
            (_, 0 | 1) => Ok(Vec::new()),
            _ => {
                let mut unjudged = self.read((&shop_id, &sale_id), true).await?.unjudged;
                if let Some(from) = self.recorded_from((&shop_id, &sale_id)).await? {
                    unjudged.retain(|open| open.key != EventKey::accepted(&shop_id, &sale_id, &from));
                }
                Ok(unjudged)
            }
        }
    }

    /// Whether nothing tells what became of one of a sale's envelopes.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn is_unjudged(&self, sale: (&ShopId, &SaleId), envelope: &str) -> Result<bool, TableError> {
        let judged = !self.store.has(sale, &format!("{ACCEPTED}#{envelope}")).await?
            || self.store.is_rejected(sale, envelope).await?
            || self.recorded_from(sale).await?.as_deref() == Some(envelope)
            || self.judged_of_old(sale).await?.contains(envelope);
        Ok(!judged)
    }

    /// The envelope that a sale is recorded from. Of one whose event cannot be read nobody knows, and to send its envelopes on
    /// once more does no harm.
    async fn recorded_from(&self, (shop, sale): (&ShopId, &SaleId)) -> Result<Option<String>, TableError> {
        match self.store.recorded(shop, sale).await {
            Err(error) if error.is_unreadable() => Ok(None),
            recorded => Ok(recorded?.map(|recorded| recorded.envelope)),
        }
    }

    /// Reads a sale's envelopes and its rejections side by side, both in the order of the envelopes' hashes.
    async fn read(&self, sale: (&ShopId, &SaleId), old: bool) -> Result<Judged, TableError> {
        let recorded = self.store.has(sale, RECORDED).await?;
        let old = if old { self.judged_of_old(sale).await? } else { HashSet::new() };
        let mut judged = Judged { recorded, ..Judged::default() };
        let mut accepted = Events::new(&self.store, sale, ACCEPTED, Bodies::Without);
        let mut rejected = Events::new(&self.store, sale, REJECTED, Bodies::Without);
        let mut rejection = rejected.next().await?;
        while let Some(event) = accepted.next().await? {
            judged.accepted += 1;
            let envelope = event.envelope().unwrap_or_default();
            // Without a body, one of before keys had the hash says nothing here, and is passed over.
            while rejection.as_ref().is_some_and(|it| it.envelope().is_none_or(|hash| hash < envelope)) {
                rejection = rejected.next().await?;
            }
            let is_judged = rejection.as_ref().and_then(StoredEvent::envelope).as_ref() == Some(&envelope);
            if !is_judged && !old.contains(&envelope) && judged.unjudged.len() < MAX_UNJUDGED {
                judged.unjudged.push(unjudged(&event));
            }
        }
        Ok(judged)
    }

    /// The envelopes that rejections of before their keys had a hash say in their bodies.
    async fn judged_of_old(&self, sale: (&ShopId, &SaleId)) -> Result<HashSet<String>, TableError> {
        let mut envelopes = HashSet::new();
        let of_old = |event: &StoredEvent| event.key.event.matches('#').count() == 2;
        // The first had the number 1, which sorts before any hash that begins so.
        let first = Events::new(&self.store, sale, &format!("{REJECTED}#1"), Bodies::Without).next().await?;
        if !first.is_some_and(|event| of_old(&event)) {
            return Ok(envelopes);
        }
        // A number is shorter than a hash, and begins with a digit as some hashes do.
        for digit in '1'..='9' {
            let beginning = format!("{REJECTED}#{digit}");
            let mut rejected = Events::new(&self.store, sale, &beginning, Bodies::With);
            while let Some(event) = rejected.next().await? {
                envelopes.extend(event.envelope().filter(|_| of_old(&event)));
            }
        }
        Ok(envelopes)
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
            for row in &page.unreadable {
                tracing::error!(row, "skipped, since it cannot be read");
            }
            let complete = page.events.iter().filter_map(|event| sales.take(event));
            for sale in complete.collect::<Vec<_>>() {
                found.unsettled.extend(self.judged(sale).await?.pending());
            }
            cursor = page.next;
            if cursor.is_none() {
                if let Some(sale) = sales.rest() {
                    found.unsettled.extend(self.judged(sale).await?.pending());
                }
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

/// One sale's events of one kind, page by page.
struct Events<'a> {
    store: &'a EventStore,
    sale: (&'a ShopId, &'a SaleId),
    beginning: String,
    bodies: Bodies,
    page: std::vec::IntoIter<StoredEvent>,
    /// Where the next page begins; nothing, once there is none.
    next: Option<Cursor>,
}

impl<'a> Events<'a> {
    fn new(store: &'a EventStore, sale: (&'a ShopId, &'a SaleId), beginning: &str, bodies: Bodies) -> Self {
        let page = Vec::new().into_iter();
        Self { store, sale, beginning: beginning.to_owned(), bodies, page, next: Some(None) }
    }

    async fn next(&mut self) -> Result<Option<StoredEvent>, TableError> {
        loop {
            if let Some(event) = self.page.next() {
                return Ok(Some(event));
            }
            let Some(cursor) = self.next.take() else { return Ok(None) };
            let page = self.store.of_sale(self.sale, &self.beginning, self.bodies, cursor).await?;
            self.next = page.next.map(Some);
            self.page = page.events.into_iter();
        }
    }
}
