use std::collections::{HashMap, HashSet};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, Put, TransactWriteItem};
use jiff::SignedDuration;
use rand::Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::Clock;
use crate::table::{Item, PAGE, Readable, TableError, n, s, text};
use crate::trace;

/// A subscriber's own table: JSON documents by group and name, each with the version it was written in.
///
/// Whatever is changed is changed in the version that was read, or read again, so any number of functions
/// may work on one document at once. One that cannot be read keeps no other from being read; whoever changes it sets
/// it aside under `#unreadable <group>`, and begins anew.
///
/// ```text
/// group (partition key)  name (sort key)   version  document  expires
/// incidents              AMIS1#wrong-key   7        {"count":3,…}
/// #seen <group> <id>     AMIS1#wrong-key                      1734652800   that message was folded into it
/// ```
#[derive(Clone)]
pub struct Documents {
    client: Client,
    table: String,
    clock: Clock,
}

/// How long it is remembered that a message was folded in: a day longer than a queue keeps one.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(15 * 24);

/// Messages folded in one transaction, and so by one call of `change`: what one takes, less one for the document.
pub const FOLDED: usize = 99;

/// How often a document that others write as well is tried.
const TRIES: u32 = 12;

/// A document as read, and the version a write of it must find, as it stands there.
type Read<T> = (Option<T>, Option<AttributeValue>);

impl Documents {
    #[must_use]
    pub fn new(client: Client, table: impl Into<String>, clock: Clock) -> Self {
        Self { client, table: table.into(), clock }
    }

    /// A document.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn get<T: DeserializeOwned>(&self, group: &str, name: &str) -> Result<Option<T>, TableError> {
        self.item(group, name).await?.map(|item| parse(group, name, &item)).transpose()
    }

    /// A group's documents by name, beginning with the first that is `from` or comes after it.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn list<T: DeserializeOwned>(
        &self,
        group: &str,
        from: &str,
    ) -> Result<Readable<(String, T)>, TableError> {
        // DynamoDB refuses an empty key, and a blank comes before every name.
        let from = if from.is_empty() { " " } else { from };
        let mut documents = Readable::default();
        let mut cursor = None;
        loop {
            let query = self
                .client
                .query()
                .table_name(&self.table)
                .consistent_read(true)
                .limit(PAGE)
                .set_exclusive_start_key(cursor)
                .key_condition_expression("#group = :group AND #name >= :from")
                .expression_attribute_names("#group", "group")
                .expression_attribute_names("#name", "name")
                .expression_attribute_values(":group", s(group))
                .expression_attribute_values(":from", s(from));
            let page = query.send().await.map_err(TableError::unavailable("list documents"))?;
            page.items().iter().for_each(|item| documents.push(named(group, item)));
            cursor = page.last_evaluated_key;
            if cursor.is_none() {
                return Ok(documents);
            }
        }
    }

    /// A group's last documents by name, the last first.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn last<T: DeserializeOwned>(
        &self,
        group: &str,
        limit: i32,
    ) -> Result<Readable<(String, T)>, TableError> {
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .limit(limit)
            .scan_index_forward(false)
            .key_condition_expression("#group = :group")
            .expression_attribute_names("#group", "group")
            .expression_attribute_values(":group", s(group));
        let page = query.send().await.map_err(TableError::unavailable("list documents"))?;
        Ok(page.items().iter().map(|item| named(group, item)).collect())
    }

    /// Changes a document, and answers what `change` answered. `change` gives the new one, or `None` to
    /// leave it as it is; it sees the document anew if somebody else wrote it in between.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn update<T, R>(
        &self,
        group: &str,
        name: &str,
        mut change: impl FnMut(Option<T>) -> (Option<T>, R),
    ) -> Result<R, TableError>
    where
        T: Serialize + DeserializeOwned,
    {
        for attempt in 0..TRIES {
            let (document, version) = self.read_to_change(group, name).await?;
            let (changed, answer) = change(document);
            let Some(changed) = changed else { return Ok(answer) };
            if self.write(self.put(group, name, &changed, version.as_ref())?, Vec::new()).await? {
                return Ok(answer);
            }
            give_way(attempt).await;
        }
        Err(contended(group, name))
    }

    /// Changes a document by messages, each of which counts once, however often it comes: `change` sees
    /// those of `ids` that were not folded into this document before. It answers `None` if there were none.
    ///
    /// # Errors
    /// [`TableError`]. What was folded until then stays folded.
    pub async fn fold<T, R>(
        &self,
        group: &str,
        name: &str,
        ids: &[String],
        mut change: impl FnMut(Option<T>, &[&str]) -> (T, R),
    ) -> Result<Option<R>, TableError>
    where
        T: Serialize + DeserializeOwned,
    {
        let mut answer = None;
        for ids in ids.chunks(FOLDED) {
            if let Some(folded) = self.fold_some(group, name, ids, &mut change).await? {
                answer = Some(folded);
            }
        }
        Ok(answer)
    }

    async fn fold_some<T, R>(
        &self,
        group: &str,
        name: &str,
        ids: &[String],
        change: &mut impl FnMut(Option<T>, &[&str]) -> (T, R),
    ) -> Result<Option<R>, TableError>
    where
        T: Serialize + DeserializeOwned,
    {
        for attempt in 0..TRIES {
            let mut fresh: HashSet<&str> = ids.iter().map(String::as_str).collect();
            for seen in self.seen(group, name, &fresh).await? {
                fresh.remove(seen.as_str());
            }
            // In the order given, each once.
            let fresh: Vec<&str> = ids.iter().map(String::as_str).filter(|id| fresh.remove(id)).collect();
            if fresh.is_empty() {
                return Ok(None);
            }
            let (document, version) = self.read_to_change(group, name).await?;
            let (changed, answer) = change(document, &fresh);
            let put = self.put(group, name, &changed, version.as_ref())?;
            let marks = fresh.iter().map(|id| self.mark(group, name, id)).collect::<Result<_, _>>()?;
            if self.write(put, marks).await? {
                return Ok(Some(answer));
            }
            give_way(attempt).await;
        }
        Err(contended(group, name))
    }

    /// What cannot be read is set aside, and there is none.
    async fn read_to_change<T: DeserializeOwned>(
        &self,
        group: &str,
        name: &str,
    ) -> Result<Read<T>, TableError> {
        let Some(item) = self.item(group, name).await? else { return Ok((None, None)) };
        let version = item.get("version").cloned();
        match parse(group, name, &item) {
            Ok(document) => Ok((Some(document), version)),
            Err(error) => {
                tracing::error!(%error, "the document is set aside, and a new one is begun");
                let aside = item.into_iter().chain([("group".to_owned(), s(format!("#unreadable {group}")))]);
                let put = self.client.put_item().table_name(&self.table).set_item(Some(aside.collect()));
                put.send().await.map_err(TableError::unavailable("set a document aside"))?;
                Ok((None, version))
            }
        }
    }

    async fn item(&self, group: &str, name: &str) -> Result<Option<Item>, TableError> {
        let key = Some(key(group, name));
        let get = self.client.get_item().table_name(&self.table).consistent_read(true).set_key(key);
        let span = trace::table("GetItem", &self.table);
        let item = get.send().await.map_err(TableError::unavailable("read a document"));
        Ok(span.ends("table", item)?.item)
    }

    /// Which of these messages were folded into the document.
    async fn seen(&self, group: &str, name: &str, ids: &HashSet<&str>) -> Result<Vec<String>, TableError> {
        let doing = "look for messages folded before";
        let mut seen = Vec::new();
        let keys = ids.iter().map(|id| key(&seen_group(group, id), name)).collect();
        let keys = KeysAndAttributes::builder().consistent_read(true).set_keys(Some(keys)).build();
        let mut wanted = HashMap::from([(self.table.clone(), keys.map_err(TableError::unavailable(doing))?)]);
        while !wanted.is_empty() {
            let get = self.client.batch_get_item().set_request_items(Some(wanted));
            let answer = get.send().await.map_err(TableError::unavailable(doing))?;
            let prefix = seen_group(group, "");
            for item in answer.responses.unwrap_or_default().into_values().flatten() {
                seen.extend(text(&item, "group").and_then(|g| g.strip_prefix(&prefix)).map(str::to_owned));
            }
            // Throttled in part: the rest is asked for again.
            wanted = answer.unprocessed_keys.unwrap_or_default();
        }
        Ok(seen)
    }

    /// The document, if it is still in that version.
    fn put<T: Serialize>(
        &self,
        group: &str,
        name: &str,
        document: &T,
        version: Option<&AttributeValue>,
    ) -> Result<Put, TableError> {
        let unwritable =
            |e: serde_json::Error| TableError::Unreadable(format!("document {group} {name}: {e}"));
        let before: u64 = version.and_then(|is| is.as_n().ok()?.parse().ok()).unwrap_or_default();
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(key(group, name)))
            .item("version", n(before.wrapping_add(1)))
            .item("document", s(serde_json::to_string(document).map_err(unwritable)?))
            .expression_attribute_names("#version", "version");
        let put = match version {
            None => put.condition_expression("attribute_not_exists(#version)"),
            Some(version) => put
                .condition_expression("#version = :version")
                .expression_attribute_values(":version", version.clone()),
        };
        put.build().map_err(TableError::unavailable("write a document"))
    }

    /// That a message was folded in, if it was not.
    fn mark(&self, group: &str, name: &str, id: &str) -> Result<Put, TableError> {
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(key(&seen_group(group, id), name)))
            .item("expires", n((self.clock.now() + REMEMBERED).as_second()))
            .condition_expression("attribute_not_exists(#name)")
            .expression_attribute_names("#name", "name");
        put.build().map_err(TableError::unavailable("write a document"))
    }

    /// Whether it was written, or somebody else was first.
    async fn write(&self, document: Put, marks: Vec<Put>) -> Result<bool, TableError> {
        let puts = std::iter::once(document).chain(marks);
        let puts = puts.map(|put| TransactWriteItem::builder().put(put).build()).collect();
        let span = trace::table("TransactWriteItems", &self.table);
        let write = self.client.transact_write_items().set_transact_items(Some(puts)).send().await;
        let written = match write {
            Ok(_) => Ok(true),
            Err(error) => match error.as_service_error() {
                Some(TransactWriteItemsError::TransactionCanceledException(cancelled))
                    if cancelled.cancellation_reasons().iter().any(|reason| {
                        matches!(reason.code(), Some("ConditionalCheckFailed" | "TransactionConflict"))
                    }) =>
                {
                    Ok(false)
                }
                _ => Err(TableError::unavailable("write a document")(error)),
            },
        };
        span.ends("table", written)
    }
}

fn key(group: &str, name: &str) -> HashMap<String, AttributeValue> {
    HashMap::from([("group".to_owned(), s(group)), ("name".to_owned(), s(name))])
}

/// A partition of its own for each message, so that none is busy.
fn seen_group(group: &str, id: &str) -> String {
    format!("#seen {group} {id}")
}

fn parse<T: DeserializeOwned>(group: &str, name: &str, item: &Item) -> Result<T, TableError> {
    let wrong = |why: &str| TableError::Unreadable(format!("document {group} {name}: {why}"));
    let document = text(item, "document").ok_or_else(|| wrong("it has none"))?;
    // What serde says may quote the document, which may name people.
    let not_its = |e: serde_json::Error| {
        wrong(&format!("it is not in its form (line {}, column {})", e.line(), e.column()))
    };
    let document = serde_json::from_str(document).map_err(not_its)?;
    let version = text(item, "version").and_then(|v| v.parse::<u64>().ok());
    version.map(|_| document).ok_or_else(|| wrong("it has no version"))
}

fn named<T: DeserializeOwned>(group: &str, item: &Item) -> Result<(String, T), TableError> {
    let name = text(item, "name").unwrap_or_default().to_owned();
    parse(group, &name, item).map(|document| (name, document))
}

fn contended(group: &str, name: &str) -> TableError {
    TableError::unavailable("write a document")(std::io::Error::other(format!(
        "{group} {name} was written by others {TRIES} times in a row"
    )))
}

/// Full jitter, so that those who met do not meet again.
async fn give_way(attempt: u32) {
    let most = 10 * 2u64.pow(attempt.min(6));
    let wait = rand::rng().random_range(0..=most);
    tokio::time::sleep(Duration::from_millis(wait)).await;
}
