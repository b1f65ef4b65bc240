//! `DynamoDB` in this process: dynoxide behind the AWS SDK.

use std::cell::Cell;
use std::fmt;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use super::stream::{Image, Recent};
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Region, StalledStreamProtectionConfig};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use aws_sdk_dynamodb::{Client, Config};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use clap::ValueEnum;
use dynoxide::actions::transact_write_items::{TransactPut, TransactWriteItem, TransactWriteItemsRequest};
use dynoxide::{AttributeValue, Database, DynoxideError, Item};
use kassa_bus::table::TableError;
use kassa_pipeline::event::RECORDED;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

/// What a sale that was answered "yes" survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sync {
    /// Power loss: the disk has it before the till hears of it.
    Full,
    /// `kill -9`, but not power loss: the operating system has it.
    Normal,
}

/// The tables of one store.
#[derive(Debug, Clone)]
pub struct Tables {
    pub events: String,
    pub shops: String,
    /// The stream of `events`: one row per transaction that recorded sales.
    pub changes: String,
    pub dead_letters: String,
    /// The queues of what is plugged in.
    pub queues: String,
}

impl Tables {
    /// Named as the deployment names them: `<service>-<stage>-…`.
    #[must_use]
    pub fn local() -> Self {
        let name = |table| format!("kassa-local-{table}");
        Self {
            events: name("events"),
            shops: name("shops"),
            changes: name("changes"),
            dead_letters: name("dead-letters"),
            queues: name("queues"),
        }
    }

    /// The table of documents of a subscriber, or of the outbox.
    #[must_use]
    pub fn documents(owner: &str) -> String {
        format!("kassa-local-{owner}")
    }

    /// Each table with its partition and sort key, those of these owners' documents among them.
    fn keys(&self, owners: &[&str]) -> Vec<(String, &'static str, &'static str)> {
        let Self { events, shops, changes, dead_letters, queues } = self;
        let keys = [
            (events.clone(), "stream", "event"),
            (shops.clone(), "shop_id", "record_type"),
            (changes.clone(), "table", "sequence"),
            (dead_letters.clone(), "queue", "id"),
            (queues.clone(), "queue", "place"),
        ];
        let documents = owners.iter().map(|owner| (Self::documents(owner), "group", "name"));
        keys.into_iter().chain(documents).collect()
    }

    /// The names of all, those of these owners' documents among them.
    #[must_use]
    pub fn names(&self, owners: &[&str]) -> Vec<String> {
        self.keys(owners).into_iter().map(|(name, ..)| name).collect()
    }
}

/// Events of a page where whoever asks goes on with the next, which is everybody who asks for more than a few: fewer, where
/// pages turn out to be large.
const EVENTS_A_PAGE: RangeInclusive<usize> = 2..=32;
const FEW_EVENTS: usize = 64;

/// Bytes of a page, about.
const PAGE_BYTES: RangeInclusive<usize> = 128 * 1024..=512 * 1024;

/// `DynamoDB` in this process: answers the AWS SDK's requests with dynoxide, no socket in between.
///
/// It also keeps the event store's stream. dynoxide has streams of its own, but they cost a lookup per
/// written item that grows with the stream; here a transaction that records sales carries one more row
/// with their keys, so the stream is as durable and as ordered as the events, for one row per
/// transaction.
#[derive(Clone)]
pub struct Embedded(Arc<Inner>);

struct Inner {
    db: Database,
    tables: Tables,
    /// The stream's next sequence number. Held over the commit, so that numbers are in commit order.
    next: Mutex<u64>,
    /// What was committed last, for whoever follows the stream closely.
    recent: Arc<Recent>,
    /// Events of a page, at most.
    page: AtomicUsize,
    requests: mpsc::Sender<Asked>,
}

/// A request, and where its answer is waited for.
struct Asked {
    of: Arc<Inner>,
    request: HttpRequest,
    answer: oneshot::Sender<(u16, String)>,
}

/// Threads that answer requests, in the order these come. The database answers one after the other: more threads would only
/// wait for it, each with a few megabytes of the allocator's.
const THREADS: usize = 8;

/// Ends when the database is dropped. `SQLite` blocks the thread while the disk writes.
fn answer_all(queue: &Mutex<mpsc::Receiver<Asked>>) {
    loop {
        let asked = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Asked { of, request, answer }) = asked else { return };
        // One that panics is the only one without an answer.
        if let Ok(answered) = catch_unwind(AssertUnwindSafe(|| of.respond(&request))) {
            // Whoever asked may have gone away.
            let _ = answer.send(answered);
        }
    }
}

impl Embedded {
    /// Opens the file, or memory if there is none.
    ///
    /// # Errors
    /// If the file is not a database that can be used.
    pub fn open(file: Option<&Path>, sync: Sync, tables: Tables) -> Result<Self, DynoxideError> {
        let db = match file {
            Some(file) => Database::new(&file.to_string_lossy())?,
            None => Database::memory()?,
        };
        if sync == Sync::Normal {
            // dynoxide's name for PRAGMA synchronous = NORMAL; without it, it is FULL.
            db.disable_bulk_loading()?;
        }
        let (requests, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..THREADS {
            let queue = Arc::clone(&queue);
            let thread = std::thread::Builder::new().name("table".into());
            let spawned = thread.spawn(move || answer_all(&queue));
            spawned.map_err(|e| DynoxideError::InternalServerError(e.to_string()))?;
        }
        let (next, page) = (Mutex::new(1), AtomicUsize::new(*EVENTS_A_PAGE.end()));
        Ok(Self(Arc::new(Inner { db, tables, next, recent: Arc::default(), page, requests })))
    }

    /// An SDK client that asks this database.
    #[must_use]
    pub fn client(&self) -> Client {
        let connector = SharedHttpConnector::new(self.clone());
        let config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::from_static("local"))
            .endpoint_url("http://embedded.invalid")
            // There is nobody to sign for, no network to retry over, and no stream to stall.
            .allow_no_auth()
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .build();
        Client::from_conf(config)
    }

    /// Makes all tables, those for these owners' documents among them, where there is none yet.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn make_tables(&self, owners: &[&str]) -> Result<(), TableError> {
        let client = self.client();
        for (table, partition, sort) in self.0.tables.keys(owners) {
            create(&client, &table, partition, sort).await?;
        }
        Ok(())
    }

    /// Writes all there is into a file.
    ///
    /// # Errors
    /// If it cannot be written, or is there already.
    pub fn write_to(&self, file: &Path) -> Result<(), DynoxideError> {
        self.0.db.vacuum_into(&file.to_string_lossy())
    }

    /// Has the stream go on after this sequence number.
    pub fn goes_on_after(&self, last: u64) {
        *self.0.next.lock().unwrap_or_else(PoisonError::into_inner) = last + 1;
    }

    #[must_use]
    pub fn recent(&self) -> Arc<Recent> {
        Arc::clone(&self.0.recent)
    }
}

async fn create(client: &Client, table: &str, partition: &str, sort: &str) -> Result<(), TableError> {
    let doing = "create a table";
    let mut request = client.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
    for (name, role) in [(partition, KeyType::Hash), (sort, KeyType::Range)] {
        let attribute =
            AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
        let key = KeySchemaElement::builder().attribute_name(name).key_type(role);
        request = request
            .attribute_definitions(attribute.build().map_err(TableError::unavailable(doing))?)
            .key_schema(key.build().map_err(TableError::unavailable(doing))?);
    }
    request.send().await.map(|_| ()).map_err(TableError::unavailable(doing))
}

impl Inner {
    /// The status and the body that answer a request.
    fn respond(&self, request: &HttpRequest) -> (u16, String) {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default();
        match self.answer(operation, request.body().bytes().unwrap_or_default()) {
            Ok(body) => (200, body),
            Err(error) => (error.status_code(), error.to_json()),
        }
    }

    /// Answers one request of the `DynamoDB` JSON protocol.
    fn answer(&self, operation: &str, body: &[u8]) -> Result<String, DynoxideError> {
        let db = &self.db;
        match operation {
            "TransactWriteItems" => call(body, |request| self.transact(request)),
            "PutItem" => call(body, |request: dynoxide::actions::put_item::PutItemRequest| {
                if request.table_name == self.tables.events {
                    return Err(DynoxideError::ValidationException(
                        "events are put by TransactWriteItems here, so that their stream is kept".into(),
                    ));
                }
                db.put_item(request)
            }),
            "GetItem" => call(body, |request| db.get_item(request)),
            "BatchGetItem" => call(body, |request| db.batch_get_item(request)),
            "UpdateItem" => call(body, |request| db.update_item(request)),
            "DeleteItem" => call(body, |request| db.delete_item(request)),
            "Query" => self.page(|page| {
                call(body, |mut request: dynoxide::actions::query::QueryRequest| {
                    request.limit = self.bound(&request.table_name, request.limit, page);
                    db.query(request)
                })
            }),
            "Scan" => self.page(|page| {
                call(body, |mut request: dynoxide::actions::scan::ScanRequest| {
                    request.limit = self.bound(&request.table_name, request.limit, page);
                    db.scan(request)
                })
            }),
            "CreateTable" => call(body, |request| db.create_table(request)),
            "ListTables" => call(body, |request| db.list_tables(request)),
            "DescribeTable" => call(body, |request| db.describe_table(request)),
            other => Err(DynoxideError::ValidationException(format!(
                "{other} is not offered by the embedded table"
            ))),
        }
    }

    /// dynoxide loads a page's rows whole before it looks how much they are, and an event may have 320 KB.
    fn bound(&self, table: &str, limit: Option<usize>, page: &Cell<Option<usize>>) -> Option<usize> {
        if table != self.tables.events || limit.is_none_or(|limit| limit <= FEW_EVENTS) {
            return limit;
        }
        page.set(Some(self.page.load(Ordering::Relaxed)));
        page.get()
    }

    /// Answers with a page, and has the next be smaller or larger if that was of events.
    fn page(
        &self,
        answer: impl FnOnce(&Cell<Option<usize>>) -> Result<String, DynoxideError>,
    ) -> Result<String, DynoxideError> {
        let page = Cell::new(None);
        let answer = answer(&page)?;
        if let Some(events) = page.get() {
            let events = match answer.len() {
                bytes if bytes > *PAGE_BYTES.end() => events / 2,
                bytes if bytes < *PAGE_BYTES.start() => events * 2,
                _ => events,
            };
            self.page.store(events.clamp(*EVENTS_A_PAGE.start(), *EVENTS_A_PAGE.end()), Ordering::Relaxed);
        }
        Ok(answer)
    }

    fn transact(
        &self,
        mut request: TransactWriteItemsRequest,
    ) -> Result<dynoxide::actions::transact_write_items::TransactWriteItemsResponse, DynoxideError> {
        // The SDK's token guards against answers lost on a network. None is lost here, and dynoxide
        // would keep each for ten minutes.
        request.client_request_token = None;
        let images: Vec<Image> = self.recorded(&request).map(image).collect();
        if images.is_empty() {
            return self.db.transact_write_items(request);
        }
        let keys: Vec<_> = images.iter().map(|image| (image.get("stream"), image.get("event"))).collect();
        let keys =
            serde_json::to_string(&keys).map_err(|e| DynoxideError::InternalServerError(e.to_string()))?;
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        request.transact_items.push(self.change(*next, keys));
        let response = self.db.transact_write_items(request).map_err(without_last_reason)?;
        self.recent.push(*next, images);
        *next += 1;
        Ok(response)
    }

    /// The recorded sales that a transaction puts.
    fn recorded<'r>(&self, request: &'r TransactWriteItemsRequest) -> impl Iterator<Item = &'r Item> {
        let puts = request.transact_items.iter().filter_map(|item| item.put.as_ref());
        puts.filter(|put| put.table_name == self.tables.events).map(|put| &put.item).filter(
            |item| matches!(item.get("event"), Some(AttributeValue::S(event)) if event.ends_with(RECORDED)),
        )
    }

    fn change(&self, sequence: u64, keys: String) -> TransactWriteItem {
        let item = [
            ("table", self.tables.events.clone()),
            ("sequence", super::stream::sort_key(sequence)),
            ("keys", keys),
        ];
        let put = TransactPut {
            table_name: self.tables.changes.clone(),
            item: item.into_iter().map(|(name, value)| (name.to_owned(), AttributeValue::S(value))).collect(),
            ..TransactPut::default()
        };
        TransactWriteItem { put: Some(put), ..TransactWriteItem::default() }
    }
}

/// An event's attributes are all strings and numbers.
fn image(item: &Item) -> Image {
    let text = |(name, value): (&String, &AttributeValue)| match value {
        AttributeValue::S(text) | AttributeValue::N(text) => Some((name.clone(), text.clone())),
        _ => None,
    };
    item.iter().filter_map(text).collect()
}

/// A refused transaction gives a reason per item; ours is none of the caller's.
fn without_last_reason(error: DynoxideError) -> DynoxideError {
    match error {
        DynoxideError::TransactionCanceledException(message, mut reasons) => {
            reasons.pop();
            DynoxideError::TransactionCanceledException(message, reasons)
        }
        other => other,
    }
}

fn call<Request: DeserializeOwned, Response: Serialize>(
    body: &[u8],
    operation: impl FnOnce(Request) -> Result<Response, DynoxideError>,
) -> Result<String, DynoxideError> {
    let request = serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        match text.strip_prefix("VALIDATION:") {
            Some(message) => DynoxideError::ValidationException(message.to_owned()),
            None => DynoxideError::SerializationException(text),
        }
    })?;
    let response = operation(request)?;
    serde_json::to_string(&response).map_err(|e| DynoxideError::InternalServerError(e.to_string()))
}

impl HttpConnector for Embedded {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (answer, answered) = oneshot::channel();
        let sent = self.0.requests.send(Asked { of: Arc::clone(&self.0), request, answer });
        HttpConnectorFuture::new(async move {
            sent.map_err(|_| ConnectorError::other("the table's threads are gone".into(), None))?;
            let (status, body) = answered.await.map_err(|e| ConnectorError::other(Box::new(e), None))?;
            let status = status.try_into().map_err(|e| ConnectorError::other(Box::new(e), None))?;
            Ok(HttpResponse::new(status, SdkBody::from(body)))
        })
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Embedded")
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::Put;
    use futures::future::join_all;
    use kassa_bus::table::s;

    use super::*;

    #[test]
    fn however_many_ask_at_once_the_same_few_threads_answer() {
        // given a table, and a runtime that counts its threads
        let threads = Arc::new(AtomicUsize::new(0));
        let started = Arc::clone(&threads);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .on_thread_start(move || _ = started.fetch_add(1, Ordering::Relaxed))
            .build()
            .unwrap();
        let table = Embedded::open(None, Sync::Normal, Tables::local()).unwrap();
        let client = table.client();
        let get = || client.get_item().table_name(Tables::local().shops);
        let get = || get().key("shop_id", s("AMIS1")).key("record_type", s("settings")).send();
        let answered = runtime.block_on(async {
            table.make_tables(&[]).await.unwrap();
            // when many ask it at once
            join_all((0..200).map(|_| get())).await
        });
        // then all are answered, and nobody started a thread to wait on
        assert!(answered.iter().all(Result::is_ok));
        assert_eq!(threads.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_page_is_of_few_large_events_or_many_small_ones() {
        let (table, names) = (Embedded::open(None, Sync::Normal, Tables::local()).unwrap(), Tables::local());
        table.make_tables(&[]).await.unwrap();
        let client = table.client();
        // given small events, large ones, and small ones, in this order
        let large = 160..240;
        for n in 0..480 {
            let body = "x".repeat(if large.contains(&n) { 300 * 1024 } else { 1024 });
            let put = Put::builder().table_name(&names.events).item("stream", s("one")).item("body", s(body));
            let put = put.item("event", s(format!("{n:03}"))).build().unwrap();
            let put = aws_sdk_dynamodb::types::TransactWriteItem::builder().put(put).build();
            client.transact_write_items().transact_items(put).send().await.unwrap();
        }
        // when they are read page by page
        let (mut pages, mut cursor) = (Vec::new(), None);
        loop {
            let query = client.query().table_name(&names.events).limit(1_000).set_exclusive_start_key(cursor);
            let query = query.key_condition_expression("#stream = :stream");
            let query = query.expression_attribute_names("#stream", "stream");
            let page = query.expression_attribute_values(":stream", s("one")).send().await.unwrap();
            pages.push(page.items().len());
            cursor = page.last_evaluated_key;
            if cursor.is_none() {
                break;
            }
        }
        // then those of large events are of two before long, and those of small ones of 32 again
        assert_eq!(pages.iter().sum::<usize>(), 480);
        assert_eq!(pages[..5], [32; 5]);
        assert!(pages.iter().filter(|page| **page == 2).count() > 20, "{pages:?}");
        assert!(pages.iter().rev().skip(1).take(5).all(|page| *page == 32), "{pages:?}");
    }
}
