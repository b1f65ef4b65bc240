/// Asking: an open shop over loopback, a closed one by opening its file.
pub mod ask;
/// Which wrong keys sales came with.
pub mod audit;
/// What queues gave up.
pub mod dead_letters;
/// The shops' keys.
pub mod keys;
/// What is looked at all the time: the latest, within bounds.
pub mod look;
/// Who is plugged in.
mod plugged;
/// What would become of rejected sales.
pub mod preview;
/// Sending on what came to no end.
pub mod reconcile;
/// Rejected sales, and putting them through again.
pub mod rejected;
/// Asking a shop that is open in another process.
mod remote;
/// Answers as people read them.
pub mod render;
/// Answers about what is to go its way again, as people read them.
pub mod render_again;
/// Which tills may sign.
pub mod tills;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use kassa_bus::notify::Notice;
use kassa_bus::registry::Registry;
use kassa_bus::table::{Readable, TableError};
use kassa_bus::tills::EnrolError;
use kassa_bus::{Documents, PublishError, Retry, SaleId, ShopId, TraceContext};
use kassa_pipeline::check::{Check, check};
use kassa_pipeline::contained::Changes;
use kassa_pipeline::event::{StoredEvent, USED};
use kassa_pipeline::event_store::{EventStore, Page, Scan};
use kassa_pipeline::read_model::ReadModel;
use kassa_pipeline::rebuild::{Rebuilt, rebuild};
use kassa_pipeline::row::ReadRow;
use kassa_pipeline::settlement::{SaleFold, Settlement};
use kassa_pipeline::unsettled::Finder;
use kassa_subscribers::warehouse_webhook::{self, WebhookState};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dead_letters::DeadLetterOffice;
use crate::embedded::OUTBOX;
use crate::rotation::RotationError;

/// A shop's events and what was made of them, wherever they are kept.
#[derive(Clone)]
pub struct Books {
    pub events: EventStore,
    pub registry: Registry,
    pub read_model: ReadModel,
    pub changes: Arc<dyn Changes>,
    /// Parts in which the events are scanned side by side.
    pub segments: i32,
    /// Of subscribers, and of the outbox, by their names.
    pub documents: HashMap<&'static str, Documents>,
    pub dead_letters: Arc<dyn DeadLetterOffice>,
}

/// Answers questions about the sales in some books. Reads only, but for rebuilding, and for tills and keys that come and go.
pub struct Questions {
    books: Books,
    /// Rebuilds do not run side by side.
    rebuilding: tokio::sync::Mutex<()>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    #[error("{0:?} is not a sale's id: {1}")]
    NotASaleId(String, kassa_bus::ids::InvalidId),
    #[error("{0:?} is not a shop's id: {1}")]
    NotAShopId(String, kassa_bus::ids::InvalidId),
    #[error("{0:?} is not a day; write it as 2026-11-22")]
    NotADay(String),
    #[error("there is no shop {0}; there are: {1}")]
    NoSuchShop(ShopId, String),
    #[error("no shop has a sale {0}")]
    NoSuchSale(SaleId),
    #[error("sale {0} exists in more than one shop ({1}); say which with --shop")]
    Ambiguous(SaleId, String),
    #[error(
        "there is no {0} here: a subscriber may be switched off by its parameters, and the outbox is only where \
         nothing is sent; on AWS, notices go to phones and to the topic alerts"
    )]
    NoDocuments(&'static str),
    #[error("{0}")]
    NotSent(Retry),
    #[error(transparent)]
    NotPublished(#[from] PublishError),
    #[error("the shop is closed: open it with kassa up, which sends on by itself what came to no end")]
    Closed,
    #[error(transparent)]
    Tills(#[from] EnrolError),
    #[error(transparent)]
    Rotation(#[from] RotationError),
    #[error("the shop's tables cannot be read")]
    Table(#[from] TableError),
    #[error("{0}")]
    Refused(String),
}

impl From<Retry> for QuestionError {
    fn from(why: Retry) -> Self {
        Self::NotSent(why)
    }
}

/// `?shop=`
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ShopFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shop: Option<String>,
}

/// `?shop=&day=`
#[derive(Debug, Serialize, Deserialize)]
pub struct DayFilter {
    pub shop: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub day: Option<String>,
}

/// A notice that would have gone to somebody, on a machine that sends none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    pub at: Timestamp,
    #[serde(flatten)]
    pub notice: Notice,
}

impl Sent {
    /// Where in the outbox's documents they are, by time.
    pub const GROUP: &str = "sent";
}

/// `?after=`
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct OutboxFilter {
    /// The name of the last one that was seen.
    #[serde(default)]
    pub after: String,
}

/// Where a sale stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pending,
    Recorded,
    Rejected,
}

impl Status {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Recorded => "recorded",
            Self::Rejected => "rejected",
        }
    }
}

/// An event as answers show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownEvent {
    pub stream: String,
    pub event: String,
    pub kind: String,
    pub version: u32,
    pub at: Timestamp,
    pub sale_id: SaleId,
    pub shop_id: ShopId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
    pub body: Value,
}

impl From<StoredEvent> for ShownEvent {
    fn from(event: StoredEvent) -> Self {
        Self {
            stream: event.key.stream,
            event: event.key.event,
            kind: event.kind,
            version: event.version,
            at: event.at,
            sale_id: event.sale_id,
            shop_id: event.shop_id,
            trace: event.trace,
            // A body that is not JSON is shown as the text it is.
            body: serde_json::from_str(&event.body).unwrap_or(Value::String(event.body)),
        }
    }
}

/// One sale's events in the order they came about, and where that leaves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaleHistory {
    pub sale_id: SaleId,
    pub shop_id: ShopId,
    pub status: Status,
    pub events: Vec<ShownEvent>,
    /// There are more events, which are left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

impl SaleHistory {
    /// Why an envelope of this hash was rejected after it had been tried so often, if it was.
    #[must_use]
    pub fn rejected_since(&self, envelope: &str, attempt: u32) -> Option<String> {
        let later = |event: &&ShownEvent| {
            event.body["envelope"] == *envelope
                && event.body["attempt"].as_u64().is_some_and(|tried| tried > attempt.into())
        };
        let again = self.events.iter().rfind(later)?;
        let text = |name: &str| again.body[name].as_str().unwrap_or_default().to_owned();
        Some(format!("{}: {}", text("reason"), text("detail")))
    }
}

impl From<Settlement> for Status {
    fn from(settlement: Settlement) -> Self {
        match settlement {
            Settlement::Pending => Self::Pending,
            Settlement::Recorded => Self::Recorded,
            Settlement::Rejected => Self::Rejected,
        }
    }
}

/// Called with how many events were read so far, and of about how many.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

impl Questions {
    #[must_use]
    pub fn new(books: Books) -> Self {
        Self { books, rebuilding: tokio::sync::Mutex::new(()) }
    }

    /// The shop of this name, or all shops.
    async fn shops(&self, shop: Option<&str>) -> Result<Vec<ShopId>, QuestionError> {
        let all = self.books.registry.shops().await?;
        let Some(text) = shop else { return Ok(all) };
        let shop: ShopId = text.parse().map_err(|e| QuestionError::NotAShopId(text.to_owned(), e))?;
        if all.contains(&shop) { Ok(vec![shop]) } else { Err(QuestionError::NoSuchShop(shop, names(&all))) }
    }

    /// A sale's history.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn sale(&self, sale_id: &str, shop: Option<&str>) -> Result<SaleHistory, QuestionError> {
        let id: SaleId = sale_id.parse().map_err(|e| QuestionError::NotASaleId(sale_id.to_owned(), e))?;
        let mut found = Vec::new();
        for shop in self.shops(shop).await? {
            found.extend(self.history(shop, &id).await?);
        }
        match (found.pop(), found.is_empty()) {
            (None, _) => Err(QuestionError::NoSuchSale(id)),
            (Some(sale), true) => Ok(sale),
            (Some(sale), false) => {
                let shops: Vec<_> = found.into_iter().map(|s| s.shop_id).chain([sale.shop_id]).collect();
                Err(QuestionError::Ambiguous(id, names(&shops)))
            }
        }
    }

    async fn history(&self, shop_id: ShopId, sale: &SaleId) -> Result<Option<SaleHistory>, QuestionError> {
        let (events, more) = self.books.events.sale(&shop_id, sale).await?;
        let Some(first) = events.first() else { return Ok(None) };
        let mut fold = SaleFold::new(first);
        events.iter().skip(1).for_each(|event| fold.take(event));
        let status = if more && fold.recorded == 0 {
            let finder = Finder { store: self.books.events.clone() };
            finder.settlement(&shop_id, sale).await?
        } else {
            fold.judged().ok().filter(|judged| judged.accepted > 0).map(|judged| judged.settlement())
        };
        let status = status.map_or(Status::Pending, Status::from);
        let mut events: Vec<ShownEvent> = events.into_iter().map(ShownEvent::from).collect();
        events.sort_by_key(|event| event.at);
        Ok(Some(SaleHistory { sale_id: sale.clone(), shop_id, status, events, more }))
    }

    /// The rows of stock and turnover.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn stock(&self, shop: Option<&str>) -> Result<Readable<ReadRow>, QuestionError> {
        let mut rows = Readable::default();
        for shop in self.shops(shop).await? {
            rows.append(self.books.read_model.rows(&shop).await?);
        }
        Ok(rows)
    }

    /// A shop's events, of one day (the UTC date of the sales' ids) or of all, one by one. Ends early
    /// once `each` says that nobody listens.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn events<F>(
        &self,
        filter: &DayFilter,
        mut each: impl FnMut(Value) -> F,
    ) -> Result<(), QuestionError>
    where
        F: Future<Output = bool>,
    {
        let shop = self.shops(Some(&filter.shop)).await?.remove(0);
        let day = filter.day.as_deref();
        let day: Option<Date> =
            day.map(|d| d.parse().map_err(|_| QuestionError::NotADay(d.to_owned()))).transpose()?;
        let mut cursor = None;
        loop {
            let Page { events, next, .. } = match day {
                Some(day) => self.books.events.day(&shop, day, cursor).await?,
                None => self.books.events.scan(Scan::default(), cursor).await?,
            };
            // What an envelope was used for is no sale's event, and in no day.
            let of_sales = |event: &StoredEvent| event.shop_id == shop && event.kind != USED;
            for event in events.into_iter().filter(of_sales) {
                let shown = serde_json::to_value(ShownEvent::from(event)).unwrap_or_default();
                if !each(shown).await {
                    return Ok(());
                }
            }
            cursor = next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    /// Whether the books balance.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn check(&self, progress: Progress<'_>) -> Result<Check, QuestionError> {
        let Books { events, read_model, registry, changes, .. } = &self.books;
        let of = events.approximate_count().await?;
        Ok(check(events, read_model, registry, &**changes, &|read| progress(read, of)).await?)
    }

    /// Makes the read models anew.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn rebuild(&self, progress: Progress<'_>) -> Result<Rebuilt, QuestionError> {
        let _one = self.rebuilding.lock().await;
        let Books { events, read_model, registry, changes, segments, .. } = &self.books;
        let of = events.approximate_count().await?;
        let progress = |read| progress(read, of);
        Ok(rebuild(events, read_model, registry, &**changes, *segments, &progress).await?)
    }
}

impl Questions {
    /// How it goes with the warehouse.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn webhook(&self) -> Result<WebhookState, QuestionError> {
        Ok(warehouse_webhook::status(self.documents(warehouse_webhook::ENTRY.name)?).await?)
    }

    /// Has the next run try the warehouse again.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn resume_webhook(&self) -> Result<WebhookState, QuestionError> {
        Ok(warehouse_webhook::resume(self.documents(warehouse_webhook::ENTRY.name)?).await?)
    }

    fn documents(&self, owner: &'static str) -> Result<&Documents, QuestionError> {
        self.books.documents.get(owner).ok_or(QuestionError::NoDocuments(owner))
    }

    /// What the outbox has, each with its name, by time; only what came after the one so named.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn outbox(&self, filter: &OutboxFilter) -> Result<Vec<(String, Sent)>, QuestionError> {
        let mut sent = self.documents(OUTBOX)?.list(Sent::GROUP, &filter.after).await?.logged();
        sent.retain(|(name, _): &(String, Sent)| *name != filter.after);
        Ok(sent)
    }
}

fn names(shops: &[ShopId]) -> String {
    shops.iter().map(ShopId::as_str).collect::<Vec<_>>().join(", ")
}
