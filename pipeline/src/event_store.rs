use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{KeysAndAttributes, ReturnValuesOnConditionCheckFailure as OnFailure, Select};
use futures::future::Either;
use jiff::Timestamp;
use jiff::civil::Date;
use kassa_bus::{SaleId, ShopId, trace};

use crate::event::{
    ACCEPTED, Accepted, DROPPED, Event, EventKey, Fact, RECORDED, REJECTED, Recorded, StoredEvent,
};
use crate::group_commit::GroupCommit;
use crate::last_at::latest;
use kassa_bus::table::{Item, PAGE, Readable, TableError, n, s, text};

/// What an append did. There is no third way: an event is never overwritten.
#[derive(Clone)]
pub enum Appended {
    New,
    /// The key was taken by this event, which stays as it is.
    Exists(Box<StoredEvent>),
}

/// How appends reach the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appends {
    /// One conditional put each: the cheapest on AWS, where a transaction costs twice.
    Single,
    /// Concurrent appends share a transaction of up to this many, and with it one fsync. For the
    /// embedded table, where the fsync is the price.
    Grouped(usize),
}

/// The append-only table of events (`<service>-<stage>-events`).
///
/// Appends are conditional on the event's key, so a repeat is a no-op: the append is the
/// deduplication.
#[derive(Clone)]
pub struct EventStore {
    client: Client,
    table: Arc<str>,
    group: Option<GroupCommit>,
}

/// Where a scan or query goes on.
pub type Cursor = Option<Item>;

/// A page of events, and where the next begins.
pub struct Page {
    pub events: Vec<StoredEvent>,
    /// Items that are no events, each with what is wrong with it.
    pub unreadable: Vec<String>,
    pub next: Cursor,
}

impl Page {
    fn of(items: Option<Vec<Item>>, next: Cursor) -> Self {
        let Readable { rows: events, unreadable } =
            items.unwrap_or_default().into_iter().map(from_item).collect();
        Self { events, unreadable, next }
    }
}

/// Whether a page has its events' bodies, in which are envelopes and what was sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bodies {
    With,
    Without,
}

/// Events of one kind of one sale that people are shown.
pub const SHOWN_OF_A_KIND: usize = 50;

/// One more tells that there are more.
const SHOWN: i32 = 51;

pub(crate) const ABSENT: &str = "attribute_not_exists(#event)";

/// Between which keys events are whose sale has a `UUIDv7`, until the year 2527.
const TELLING_TIME: (&str, &str) = ("0", "1");

/// Most others: a classic id begins with any digit.
const OTHERS: (&str, &str) = ("1", ":");

/// Events by which a sale was given up that are looked for at once. Hardly any has more than one.
const TIMES: usize = 3;

/// Keys one `BatchGetItem` takes.
const BATCH_GET: usize = 100;

impl EventStore {
    /// Must be called within a Tokio runtime if appends are grouped.
    #[must_use]
    pub fn new(client: Client, table: impl Into<Arc<str>>, appends: Appends) -> Self {
        let table = table.into();
        let group = match appends {
            Appends::Single => None,
            Appends::Grouped(size) => Some(GroupCommit::start(&client, &table, size)),
        };
        Self { client, table, group }
    }

    /// Appends an event unless its key is taken. Durable when it answers.
    ///
    /// # Errors
    /// [`TableError::Unavailable`]: whether it was appended is unknown, appending again is safe.
    pub async fn append(&self, event: &Event) -> Result<Appended, TableError> {
        let (operation, appended) = match &self.group {
            None => ("PutItem", Either::Left(self.put(event.to_stored()))),
            Some(group) => ("TransactWriteItems", Either::Right(group.append(event.to_stored()))),
        };
        trace::table(operation, &self.table).ends("table", appended.await)
    }

    async fn put(&self, event: StoredEvent) -> Result<Appended, TableError> {
        let put = self
            .client
            .put_item()
            .table_name(&*self.table)
            .set_item(Some(to_item(event)))
            .condition_expression(ABSENT)
            .expression_attribute_names("#event", "event")
            .return_values_on_condition_check_failure(OnFailure::AllOld);
        match put.send().await {
            Ok(_) => Ok(Appended::New),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(failed)) => exists(failed.item()),
                _ => Err(TableError::unavailable("append an event")(error)),
            },
        }
    }

    /// One sale's events as people are shown them, in the order of their keys, as far as they can be read: of each kind the
    /// first fifty, or what a page holds (1 MB). Whether there are more.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn sale(&self, shop: &ShopId, sale: &SaleId) -> Result<(Vec<StoredEvent>, bool), TableError> {
        let stream = EventKey::stream(shop, sale.utc_date());
        let (mut events, mut more) = (Vec::new(), false);
        for kind in [ACCEPTED, DROPPED, RECORDED, REJECTED] {
            let prefix = format!("{sale}#{kind}");
            let page = self.query((&stream, &prefix), Bodies::With, SHOWN, None).await?;
            more |= page.next.is_some();
            events.extend(page.events.into_iter().take(SHOWN_OF_A_KIND));
        }
        Ok((events, more))
    }

    /// A page of one sale's events whose keys begin so after its id, consistent and in their order.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn of_sale(
        &self,
        (shop, sale): (&ShopId, &SaleId),
        beginning: &str,
        bodies: Bodies,
        cursor: Cursor,
    ) -> Result<Page, TableError> {
        let stream = EventKey::stream(shop, sale.utc_date());
        self.query((&stream, &format!("{sale}#{beginning}")), bodies, PAGE, cursor).await
    }

    /// Whether one of a sale's events has a key that begins so after its id. Reads no more than one.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn has(&self, sale: (&ShopId, &SaleId), beginning: &str) -> Result<bool, TableError> {
        let stream = EventKey::stream(sale.0, sale.1.utc_date());
        let prefix = format!("{}#{beginning}", sale.1);
        let page = self.query((&stream, &prefix), Bodies::Without, 1, None).await?;
        Ok(!(page.events.is_empty() && page.unreadable.is_empty()))
    }

    /// Whether it was said of an envelope of a sale that it is rejected, by an event whose key has its hash.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn is_rejected(&self, sale: (&ShopId, &SaleId), envelope: &str) -> Result<bool, TableError> {
        self.has(sale, &format!("{REJECTED}#{envelope}#")).await
    }

    /// When a rejected sale was given up last, if it was. Each time has its number, so that it is found by its key.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn given_up_at(
        &self,
        (shop, sale): (&ShopId, &SaleId),
    ) -> Result<Option<Timestamp>, TableError> {
        let mut last = None;
        for first in (1..).step_by(TIMES) {
            let keys: Vec<_> =
                (first..).take(TIMES).map(|times| EventKey::given_up(shop, sale, times)).collect();
            let found: Vec<_> = self.get(&keys).await?.into_iter().flatten().collect();
            last = last.max(found.iter().map(|event| event.at).max());
            if found.len() < keys.len() {
                break;
            }
        }
        Ok(last)
    }

    /// What is recorded of a sale, if it is.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn recorded(&self, shop: &ShopId, sale: &SaleId) -> Result<Option<Recorded>, TableError> {
        let event = self.one(&EventKey::recorded(shop, sale)).await?;
        Ok(event.map(|event| event.recorded()).transpose()?)
    }

    /// What was accepted for a sale, by its envelope's hash.
    ///
    /// # Errors
    /// [`TableError`], also if it is not there.
    pub async fn accepted(
        &self,
        shop: &ShopId,
        sale: &SaleId,
        envelope: &str,
    ) -> Result<Accepted, TableError> {
        let key = EventKey::accepted(shop, sale, envelope);
        let event = self.one(&key).await?.map(|event| event.read()).transpose()?;
        match event.map(|event| event.fact) {
            Some(Fact::Accepted(accepted)) => Ok(accepted),
            _ => Err(TableError::Unreadable(format!("there is no event {} of {}", key.event, key.stream))),
        }
    }

    async fn one(&self, key: &EventKey) -> Result<Option<StoredEvent>, TableError> {
        let get = self.client.get_item().table_name(&*self.table).set_key(Some(to_key(key)));
        let span = trace::table("GetItem", &self.table);
        let got = get.consistent_read(true).send().await.map_err(TableError::unavailable("get an event"));
        span.ends("table", got)?.item.map(from_item).transpose()
    }

    /// What an envelope was used for, by its ciphertext's hash.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn uses(&self, shop: &ShopId, ciphertext: &str) -> Result<Vec<StoredEvent>, TableError> {
        let stream = EventKey::envelope(shop, ciphertext);
        Ok(self.query((&stream, ""), Bodies::With, PAGE, None).await?.events)
    }

    /// A page of the events of a shop's day (the UTC date of the sales' ids).
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn day(&self, shop: &ShopId, date: Date, cursor: Cursor) -> Result<Page, TableError> {
        self.query((&EventKey::stream(shop, date), ""), Bodies::With, PAGE, cursor).await
    }

    /// Events of a shop's day that belong to its latest sales: up to so many of sales whose ids tell the time, and
    /// up to so many of the others, whose ids are in no order. Those of tills whose clocks are ahead of `now` do not stand in
    /// place of those that are not: there are up to so many of both.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn latest(
        &self,
        shop: &ShopId,
        date: Date,
        now: Timestamp,
        limit: i32,
    ) -> Result<Vec<StoredEvent>, TableError> {
        let stream = EventKey::stream(shop, date);
        let mut events = Vec::new();
        let (from, to) = TELLING_TIME;
        let ahead = SaleId::made_from(latest(now)).min(to.to_owned());
        for (from, to) in [(from, &*ahead), (&*ahead, to), OTHERS] {
            let query = self
                .client
                .query()
                .table_name(&*self.table)
                .limit(limit)
                .scan_index_forward(false)
                .key_condition_expression("#stream = :stream AND #event BETWEEN :from AND :to")
                .expression_attribute_names("#stream", "stream")
                .expression_attribute_names("#event", "event")
                .expression_attribute_values(":stream", s(&stream))
                .expression_attribute_values(":from", s(from))
                .expression_attribute_values(":to", s(to));
            let page = query.send().await.map_err(TableError::unavailable("query the latest events"))?;
            events.extend(Page::of(page.items, None).events);
        }
        Ok(events)
    }

    async fn query(
        &self,
        (stream, prefix): (&str, &str),
        bodies: Bodies,
        limit: i32,
        cursor: Cursor,
    ) -> Result<Page, TableError> {
        let mut names = HashMap::from([("#stream".to_owned(), "stream".to_owned())]);
        let mut query = self
            .client
            .query()
            .table_name(&*self.table)
            .consistent_read(true)
            .limit(limit)
            .set_exclusive_start_key(cursor)
            .expression_attribute_values(":stream", s(stream));
        if bodies == Bodies::Without {
            names.extend(without_bodies());
            query = query.select(Select::SpecificAttributes).projection_expression(WITHOUT_BODIES);
        }
        query = if prefix.is_empty() {
            query.key_condition_expression("#stream = :stream")
        } else {
            names.insert("#event".into(), "event".into());
            query
                .key_condition_expression("#stream = :stream AND begins_with(#event, :prefix)")
                .expression_attribute_values(":prefix", s(prefix))
        };
        let page = query.set_expression_attribute_names(Some(names)).send().await;
        let page = page.map_err(TableError::unavailable("query events"))?;
        Ok(Page::of(page.items, page.last_evaluated_key))
    }

    /// A page of the events between two sort keys of a shop's day, without bodies and traces.
    ///
    /// What was appended within the last second may be missing: reads cost half as much for it.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn between(
        &self,
        shop: &ShopId,
        date: Date,
        (from, to): (&str, &str),
        cursor: Cursor,
    ) -> Result<Page, TableError> {
        let query = self
            .client
            .query()
            .table_name(&*self.table)
            .limit(PAGE)
            .set_exclusive_start_key(cursor)
            .key_condition_expression("#stream = :stream AND #event BETWEEN :from AND :to")
            .projection_expression(WITHOUT_BODIES)
            .set_expression_attribute_names(Some(without_bodies()))
            .expression_attribute_values(":stream", s(EventKey::stream(shop, date)))
            .expression_attribute_values(":from", s(from))
            .expression_attribute_values(":to", s(to));
        let page = query.send().await.map_err(TableError::unavailable("query events"))?;
        Ok(Page::of(page.items, page.last_evaluated_key))
    }

    /// A page of a whole-table scan.
    ///
    /// Events of one stream come together and in the order of their keys, because that is how the
    /// table keeps them.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn scan(&self, scan: Scan, cursor: Cursor) -> Result<Page, TableError> {
        let mut request = self
            .client
            .scan()
            .table_name(&*self.table)
            .consistent_read(true)
            .limit(PAGE)
            .set_exclusive_start_key(cursor);
        if scan.segments > 1 {
            request = request.segment(scan.segment).total_segments(scan.segments);
        }
        if let Some(kind) = scan.kind {
            request = request
                .filter_expression("#kind = :kind")
                .expression_attribute_names("#kind", "kind")
                .expression_attribute_values(":kind", s(kind));
        }
        if scan.without_bodies {
            request = request
                .projection_expression(WITHOUT_BODIES)
                .set_expression_attribute_names(Some(without_bodies()));
        }
        let page = request.send().await.map_err(TableError::unavailable("scan events"))?;
        Ok(Page::of(page.items, page.last_evaluated_key))
    }

    /// The events of these keys, in the keys' order; of one that is not there or cannot be read, why.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn get(&self, keys: &[EventKey]) -> Result<Vec<Result<StoredEvent, TableError>>, TableError> {
        let items = self.items(keys, None).await?;
        let mut found: HashMap<EventKey, Result<StoredEvent, TableError>> =
            items.into_iter().map(|item| (key_of(&item), from_item(item))).collect();
        let missing = |key: &EventKey| TableError::Attribute { row: key.event.clone(), attribute: "event" };
        Ok(keys.iter().map(|key| found.remove(key).unwrap_or_else(|| Err(missing(key)))).collect())
    }

    /// Which of these keys there are events of.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn there(&self, keys: &[EventKey]) -> Result<HashSet<EventKey>, TableError> {
        Ok(self.items(keys, Some("#stream, #event")).await?.iter().map(key_of).collect())
    }

    async fn items(&self, keys: &[EventKey], only: Option<&str>) -> Result<Vec<Item>, TableError> {
        let mut found = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(BATCH_GET) {
            let mut wanted: Vec<Item> = chunk.iter().map(to_key).collect();
            while !wanted.is_empty() {
                let names = only.map(names);
                let keys = KeysAndAttributes::builder()
                    .set_keys(Some(wanted))
                    .set_projection_expression(only.map(str::to_owned))
                    .set_expression_attribute_names(names)
                    .consistent_read(true)
                    .build()
                    .map_err(TableError::unavailable("get events"))?;
                let batch = self.client.batch_get_item().request_items(&*self.table, keys);
                let mut page = batch.send().await.map_err(TableError::unavailable("get events"))?;
                found
                    .extend(page.responses.as_mut().and_then(|r| r.remove(&*self.table)).unwrap_or_default());
                let unprocessed = page.unprocessed_keys.as_mut().and_then(|u| u.remove(&*self.table));
                wanted = unprocessed.map(|u| u.keys).unwrap_or_default();
            }
        }
        Ok(found)
    }

    /// About how many events there are: for a progress bar, up to six hours old on AWS.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn approximate_count(&self) -> Result<u64, TableError> {
        let described = self.client.describe_table().table_name(&*self.table).send().await;
        let described = described.map_err(TableError::unavailable("describe the events table"))?;
        let count = described.table.and_then(|t| t.item_count).unwrap_or_default();
        Ok(u64::try_from(count).unwrap_or_default())
    }
}

const WITHOUT_BODIES: &str = "#stream, #event, #kind, #version, #at, #sale_id, #shop_id, #reason";

fn without_bodies() -> HashMap<String, String> {
    names(WITHOUT_BODIES)
}

/// Some of the names are `DynamoDB`'s own words.
fn names(projection: &str) -> HashMap<String, String> {
    projection.split(", ").map(|name| (name.to_owned(), name[1..].to_owned())).collect()
}

fn key_of(item: &Item) -> EventKey {
    let name = |name| text(item, name).unwrap_or_default().to_owned();
    EventKey { stream: name("stream"), event: name("event") }
}

/// What of the table to scan.
#[derive(Debug, Clone, Copy)]
pub struct Scan {
    pub segment: i32,
    pub segments: i32,
    pub kind: Option<&'static str>,
    /// Leave out bodies and traces: for counting.
    pub without_bodies: bool,
}

impl Default for Scan {
    fn default() -> Self {
        Self { segment: 0, segments: 1, kind: None, without_bodies: false }
    }
}

pub(crate) fn exists(item: Option<&Item>) -> Result<Appended, TableError> {
    let item =
        item.cloned().ok_or(TableError::Attribute { row: "of the taken key".into(), attribute: "event" })?;
    from_item(item).map(|event| Appended::Exists(Box::new(event)))
}

fn to_key(key: &EventKey) -> Item {
    HashMap::from([("stream".into(), s(&key.stream)), ("event".into(), s(&key.event))])
}

/// The row of an event. Public for whoever writes rows of old versions, such as tests.
#[must_use]
pub fn to_item(event: StoredEvent) -> Item {
    let mut item = Item::with_capacity(10);
    item.insert("stream".into(), s(event.key.stream));
    item.insert("event".into(), s(event.key.event));
    item.insert("kind".into(), s(event.kind));
    item.insert("version".into(), n(event.version));
    item.insert("at".into(), s(event.at.to_string()));
    item.insert("sale_id".into(), s(event.sale_id));
    item.insert("shop_id".into(), s(event.shop_id));
    item.insert("body".into(), s(event.body));
    if let Some(trace) = event.trace {
        item.insert("trace".into(), s(trace.to_string()));
    }
    if let Some(reason) = event.reason {
        item.insert("reason".into(), s(reason.to_string()));
    }
    item
}

fn from_item(mut item: Item) -> Result<StoredEvent, TableError> {
    let row = format!("{} {}", text(&item, "stream").unwrap_or("?"), text(&item, "event").unwrap_or("?"));
    let wrong = |attribute| TableError::Attribute { row: row.clone(), attribute };
    let mut take = |attribute| match item.remove(attribute) {
        Some(
            aws_sdk_dynamodb::types::AttributeValue::S(t) | aws_sdk_dynamodb::types::AttributeValue::N(t),
        ) => Ok(t),
        _ => Err(wrong(attribute)),
    };
    Ok(StoredEvent {
        key: EventKey { stream: take("stream")?, event: take("event")? },
        kind: take("kind")?,
        version: take("version")?.parse().map_err(|_| wrong("version"))?,
        at: take("at")?.parse().map_err(|_| wrong("at"))?,
        sale_id: take("sale_id")?.parse().map_err(|_| wrong("sale_id"))?,
        shop_id: take("shop_id")?.parse().map_err(|_| wrong("shop_id"))?,
        trace: take("trace").ok().and_then(|trace| trace.parse().ok()),
        reason: take("reason").ok().and_then(|reason| reason.parse().ok()),
        // Left out where a scan left it out.
        body: take("body").unwrap_or_default(),
    })
}
