//! The list of what needs attention, kept: a sale is on it from its rejection until it is recorded or given up.
//!
//! `AttentionList::expect` puts it there before it is said anywhere, and whoever records a sale that was put through again, or
//! gives one up, takes it off. Rows are hints: `AttentionList::tend` compares them with the events each minute.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use kassa_bus::attention::{Attention, List, PLACES, Placed, Unbooked};
use kassa_bus::message::Reason;
use kassa_bus::table::TableError;
use kassa_bus::{SaleId, ShopId};
use tokio::sync::Mutex;

use crate::event::{DROPPED, Event, EventKey, Fact, RECORDED, REJECTED, StoredEvent};
use crate::event_store::{Cursor, EventStore};
use crate::shared_write::SharedWrite;

/// Days, by sales' ids, on which shops have rejected sales.
pub type Days = BTreeMap<ShopId, BTreeSet<Date>>;

/// Keeps the list. Clones share what they have looked through.
#[derive(Clone)]
pub struct AttentionList {
    store: EventStore,
    rows: Attention,
    looking: Arc<Mutex<Option<Looking>>>,
    /// Days of full lists that are noted. Under a flood of junk, one write notes all that waits.
    noted: SharedWrite<(ShopId, Date)>,
}

/// A day that is being looked through.
struct Looking {
    shop: ShopId,
    day: Date,
    /// As it was when this began.
    list: List,
    sales: Rejections,
    cursor: Cursor,
}

/// Pages of events that are looked through in a minute.
const PAGES: usize = 100;

impl AttentionList {
    #[must_use]
    pub fn new(store: EventStore, rows: Attention) -> Self {
        Self { store, rows, looking: Arc::default(), noted: SharedWrite::default() }
    }

    /// Puts a sale on the list that is about to be rejected: whoever is stopped before the event is appended is asked again.
    /// Safe to repeat, and in any order.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn expect(&self, shop: &ShopId, sale: &Unbooked) -> Result<Listed, TableError> {
        if !sale.reason.needs_attention() {
            return Ok(Listed::AsItShouldBe);
        }
        let [recorded, given_up] = ends(shop, &sale.sale_id);
        let there = self.store.there(&[recorded.clone(), given_up.clone()]).await?;
        if there.contains(&recorded) {
            return Ok(Listed::AsItShouldBe);
        }
        if there.contains(&given_up) {
            // It depends on whether this is news.
            return Ok(Listed::NotYet);
        }
        Ok(match self.rows.put(shop, sale).await? {
            Placed::Yes => Listed::AsItShouldBe,
            Placed::Full => Listed::Full,
        })
    }

    /// Brings the list up to date with a sale's rejection, as it was appended.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn rejected(&self, shop: &ShopId, sale: &Unbooked, listed: Listed) -> Result<(), TableError> {
        let is_full = match listed {
            Listed::AsItShouldBe => false,
            Listed::Full => true,
            Listed::NotYet if self.is_settled(shop, &sale.sale_id, sale.since).await? => false,
            Listed::NotYet => self.rows.put(shop, sale).await? == Placed::Full,
        };
        let day = sale.sale_id.utc_date();
        if is_full {
            self.noted.make((shop.clone(), day), self.rows.look_through(shop, &[day].into())).await?;
        }
        Ok(())
    }

    /// Takes a sale off that was recorded or given up.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn ended(&self, shop: &ShopId, sale: &SaleId) -> Result<(), TableError> {
        self.rows.remove(shop, sale).await
    }

    /// Compares the rows with the events, takes off what is recorded or given up, and looks for what may be missing. What
    /// of one shop cannot be read stops no other's.
    ///
    /// # Errors
    /// [`TableError::Unavailable`].
    pub async fn tend(&self) -> Result<(), TableError> {
        let mut pages = PAGES;
        for (shop, list) in self.rows.lists().await? {
            match self.tend_list(&shop, list, &mut pages).await {
                Err(error) if error.is_unreadable() => {
                    tracing::error!(%shop, %error, "its list of what needs attention may lack sales");
                }
                done => done?,
            }
        }
        Ok(())
    }

    async fn tend_list(&self, shop: &ShopId, list: List, pages: &mut usize) -> Result<(), TableError> {
        let left = if list.taken > 0 { self.compare(shop, &list).await? } else { 0 };
        match list.days.first() {
            Some(day) if left < PLACES => self.look_through(shop, *day, list.clone(), pages).await.map(drop),
            _ => Ok(()),
        }
    }

    /// Takes off what is recorded or given up. Says how many are left.
    async fn compare(&self, shop: &ShopId, list: &List) -> Result<usize, TableError> {
        let listed = self.rows.sales(shop).await?;
        let rows = listed.rows.len() + listed.unreadable.len();
        if rows as u64 != list.taken {
            self.rows.counted(shop, list, rows as u64).await?;
        }
        let sales: Vec<_> = listed.logged().into_iter().map(|sale| (sale.sale_id, sale.since)).collect();
        let settled = self.settled(shop, &sales).await?;
        for sale in &settled {
            self.rows.remove(shop, sale).await?;
        }
        Ok(rows - settled.len())
    }

    /// Which of these sales, rejected then, are recorded, or were given up since.
    async fn settled(
        &self,
        shop: &ShopId,
        sales: &[(SaleId, Timestamp)],
    ) -> Result<HashSet<SaleId>, TableError> {
        let keys: Vec<EventKey> = sales.iter().flat_map(|(sale, _)| ends(shop, sale)).collect();
        let there = self.store.there(&keys).await?;
        let mut settled = HashSet::new();
        for (sale, since) in sales {
            let [recorded, given_up] = ends(shop, sale);
            let is_recorded = there.contains(&recorded);
            if is_recorded
                || there.contains(&given_up) && self.store.given_up_at((shop, sale)).await? >= Some(*since)
            {
                settled.insert(sale.clone());
            }
        }
        Ok(settled)
    }

    async fn is_settled(&self, shop: &ShopId, sale: &SaleId, since: Timestamp) -> Result<bool, TableError> {
        Ok(!self.settled(shop, &[(sale.clone(), since)]).await?.is_empty())
    }

    /// Puts a day's sales on the list that belong there, as far as there are places and pages left. Says whether it came to
    /// the end of the day, and everything has its place.
    async fn look_through(
        &self,
        shop: &ShopId,
        day: Date,
        list: List,
        pages: &mut usize,
    ) -> Result<bool, TableError> {
        let mut looking = self.looking.lock().await;
        if *pages == 0 || looking.as_ref().is_some_and(|there| there.shop != *shop || there.day != day) {
            // Another day is in hand.
            return Ok(false);
        }
        let begin = || Looking { shop: shop.clone(), day, list, sales: Rejections::default(), cursor: None };
        let mut at = looking.take().unwrap_or_else(begin);
        while *pages > 0 {
            *pages -= 1;
            let page = self.store.between(shop, day, ("0", ":"), at.cursor.take()).await?;
            let mut complete: Vec<_> = page.events.iter().filter_map(|event| at.sales.take(event)).collect();
            at.cursor = page.next;
            if at.cursor.is_none() {
                complete.extend(std::mem::take(&mut at.sales).rest());
            }
            for sale in complete {
                if self.put_if_unbooked(&sale).await? == Placed::Full {
                    return Ok(false);
                }
            }
            if at.cursor.is_none() {
                return self.rows.looked_through(shop, day, &at.list).await.map(|()| true);
            }
        }
        *looking = Some(at);
        Ok(false)
    }

    async fn put_if_unbooked(&self, sale: &RejectedSale) -> Result<Placed, TableError> {
        let Some(Ok(event)) = self.store.get(std::slice::from_ref(&sale.last.1)).await?.pop() else {
            return Ok(Placed::Yes);
        };
        match unbooked(&event.read()?, sale.since) {
            Some(unbooked) => self.rows.put(&event.shop_id, &unbooked).await,
            None => Ok(Placed::Yes),
        }
    }

    /// Makes the lists anew, from the days on which there are rejected sales: for a rebuild, or rows of before there were
    /// any.
    ///
    /// # Errors
    /// [`TableError`]; what was listed by then is right.
    pub async fn make(&self, days: Days) -> Result<(), TableError> {
        let mut all: Days = days;
        for (shop, list) in self.rows.lists().await? {
            all.entry(shop).or_default().extend(list.days);
        }
        for (shop, days) in all {
            let before = self.rows.list(&shop).await?;
            for row in self.rows.unreadable(&shop).await? {
                self.rows.discard(&shop, &row).await?;
            }
            self.compare(&shop, &before).await?;
            let mut left = days.clone();
            for day in days {
                let begun = self.rows.list(&shop).await?;
                *self.looking.lock().await = None;
                if self.look_through(&shop, day, begun, &mut usize::MAX.clone()).await? {
                    left.remove(&day);
                } else {
                    break;
                }
            }
            if left.is_empty() {
                self.rows.all_looked_through(&shop, &before).await?;
            } else {
                self.rows.look_through(&shop, &left).await?;
            }
        }
        self.rows.made().await
    }

    /// Whether the lists were ever made: a table of before there were any has none.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn is_made(&self) -> Result<bool, TableError> {
        self.rows.is_made().await
    }
}

/// How a sale stands on the list before its rejection is appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Listed {
    AsItShouldBe,
    /// There is no place for it.
    Full,
    /// It was given up before.
    NotYet,
}

/// What ends a rejected sale: that it is recorded, or given up.
fn ends(shop: &ShopId, sale: &SaleId) -> [EventKey; 2] {
    [EventKey::recorded(shop, sale), EventKey::given_up(shop, sale, 1)]
}

/// Notes the day of a rejected event.
pub fn note(days: &mut Days, event: &StoredEvent) {
    if event.kind == REJECTED {
        days.entry(event.shop_id.clone()).or_default().insert(event.sale_id.utc_date());
    }
}

/// What the list says of a rejection.
fn unbooked(event: &Event, since: Timestamp) -> Option<Unbooked> {
    let Fact::Rejected(rejected) = &event.fact else { return None };
    rejected.reason.needs_attention().then(|| Unbooked {
        sale_id: event.sale_id.clone(),
        reason: rejected.reason,
        till: rejected.till.clone(),
        sealed_with: rejected.sealed_with.clone(),
        since,
    })
}

/// A sale that was rejected and is neither recorded nor given up.
struct RejectedSale {
    shop_id: ShopId,
    sale_id: SaleId,
    /// When it was rejected first.
    since: Timestamp,
    /// Its last rejection, and when that was.
    last: (Timestamp, EventKey),
}

/// Finds those among events that come sale by sale. However many one sale has, no more than its last rejection is kept: one
/// that needs no attention hides none that does, as anybody can post what was posted before under the id of another sale.
#[derive(Default)]
struct Rejections {
    /// The sale whose events come now.
    current: Option<(String, SaleId)>,
    rejected: Option<RejectedSale>,
    /// When it was given up last. What is rejected after that is not.
    given_up_at: Option<Timestamp>,
    has_ended: bool,
}

impl Rejections {
    /// Takes the next event, and gives the sale that it shows to be complete.
    fn take(&mut self, event: &StoredEvent) -> Option<RejectedSale> {
        let of = |(stream, sale): &(String, SaleId)| *stream == event.key.stream && *sale == event.sale_id;
        let complete = if self.current.as_ref().is_some_and(of) {
            None
        } else {
            let current = Some((event.key.stream.clone(), event.sale_id.clone()));
            std::mem::replace(self, Self { current, ..Self::default() }).rest()
        };
        self.has_ended |= event.kind == RECORDED;
        if is_given_up(event) {
            self.given_up_at = self.given_up_at.max(Some(event.at));
        }
        // In the order of their keys, events by which a sale is given up come before those by which it is rejected.
        if event.kind == REJECTED
            && self.given_up_at < Some(event.at)
            && reason(event).is_none_or(Reason::needs_attention)
        {
            let last = (event.at, event.key.clone());
            let sale = self.rejected.get_or_insert_with(|| RejectedSale {
                shop_id: event.shop_id.clone(),
                sale_id: event.sale_id.clone(),
                since: event.at,
                last: last.clone(),
            });
            sale.since = sale.since.min(event.at);
            if sale.last < last {
                sale.last = last;
            }
        }
        complete
    }

    /// The last sale, once there are no more events.
    fn rest(self) -> Option<RejectedSale> {
        self.rejected.filter(|_| !self.has_ended)
    }
}

/// What a rejection is for. Of before a reason stood beside the body, the body tells, if it is there.
fn reason(event: &StoredEvent) -> Option<Reason> {
    event.reason.or_else(|| match event.read().ok()?.fact {
        Fact::Rejected(rejected) => Some(rejected.reason),
        _ => None,
    })
}

/// Whether the event says that its sale was given up, and not just a dead letter.
#[must_use]
pub fn is_given_up(event: &StoredEvent) -> bool {
    let first = EventKey::given_up(&event.shop_id, &event.sale_id, 1);
    let again = |rest: &str| rest.strip_prefix('#').is_some_and(|times| times.parse::<u32>().is_ok());
    let rest = event.key.event.strip_prefix(&first.event);
    event.kind == DROPPED && rest.is_some_and(|rest| rest.is_empty() || again(rest))
}

/// Sales that ought to be on a list, as a check finds them.
#[derive(Default)]
pub(crate) struct Expected {
    sales: Vec<RejectedSale>,
    /// When the last event was appended.
    last: Timestamp,
    rejections: Rejections,
}

/// Sales that are looked up, at most: one that is missing is enough to have the lists made anew.
const EXPECTED: usize = 1_000;

/// How long a sale that was rejected may take to be on the list.
const SOON: SignedDuration = SignedDuration::from_mins(2);

impl Expected {
    /// Takes the next event. They come sale by sale.
    pub fn take(&mut self, event: &StoredEvent) {
        self.last = self.last.max(event.at);
        let complete = self.rejections.take(event);
        self.sales.extend(complete.filter(|_| self.sales.len() < EXPECTED));
    }
}

impl AttentionList {
    /// What is wrong with the lists, in words: rows that cannot be read, sales that are missing.
    pub(crate) async fn mismatches(&self, mut expected: Expected) -> Result<Vec<String>, TableError> {
        expected.sales.extend(std::mem::take(&mut expected.rejections).rest());
        if !self.is_made().await? {
            return Ok(Vec::new());
        }
        let mut wrong = Vec::new();
        let mut lists = HashMap::new();
        for (shop, list) in self.rows.lists().await? {
            let sales = self.rows.sales(&shop).await?;
            wrong.extend(sales.unreadable);
            let sales: HashSet<SaleId> = sales.rows.into_iter().map(|sale| sale.sale_id).collect();
            lists.insert(shop, (list.lacks(), sales));
        }
        for RejectedSale { shop_id: shop, sale_id: sale, last: (at, _), .. } in expected.sales {
            let (lacks, listed) = lists.get(&shop).map_or((false, false), |(l, s)| (*l, s.contains(&sale)));
            // It may have been put through meanwhile.
            if !lacks
                && !listed
                && expected.last.duration_since(at) > SOON
                && !self.is_settled(&shop, &sale, at).await?
            {
                wrong.push(format!(
                    "{shop} {sale} is rejected and not on the list of what needs attention; kassa rebuild makes it anew"
                ));
            }
        }
        Ok(wrong)
    }
}
