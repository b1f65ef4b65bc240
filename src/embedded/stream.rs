use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use kassa_bus::{Message, Subscription};
use kassa_pipeline::event::EventKey;
use kassa_pipeline::event_store::EventStore;
use kassa_pipeline::read_model::{ReadModel, Sequence};
use kassa_pipeline::rebuild::Changes;
use kassa_pipeline::table::{Item, TableError, s, text};
use tokio::sync::watch;

use super::dynamodb::Tables;

/// The embedded event store is one shard.
pub const SHARD: &str = "embedded";

/// Stream rows read at once.
const ROWS: i32 = 20;

/// Recorded sales in one row at most: a transaction takes 100 writes.
const PER_ROW: u64 = 1000;

/// The embedded event store's stream: the keys of recorded sales, in the order they were committed.
///
/// It is never trimmed. A row is some 80 bytes per sale, a few percent of the events themselves.
#[derive(Clone)]
pub struct LocalStream {
    client: Client,
    tables: Tables,
    committed: watch::Receiver<u64>,
}

impl LocalStream {
    #[must_use]
    pub fn new(client: Client, tables: Tables, committed: watch::Receiver<u64>) -> Self {
        Self { client, tables, committed }
    }

    /// Keys with their sequence numbers, of events after `from`.
    async fn read(&self, from: u64) -> Result<Vec<(u64, EventKey)>, TableError> {
        let page = self
            .client
            .query()
            .table_name(&self.tables.changes)
            .limit(ROWS)
            .key_condition_expression("#table = :table AND #sequence >= :from")
            .expression_attribute_names("#table", "table")
            .expression_attribute_names("#sequence", "sequence")
            .expression_attribute_values(":table", s(&self.tables.events))
            .expression_attribute_values(":from", s(sort_key(from / PER_ROW)));
        let page = page.send().await.map_err(TableError::unavailable("read the stream"))?;
        let mut keys = Vec::new();
        for row in page.items() {
            let first = sequence(row)? * PER_ROW;
            let wrong = || TableError::Attribute { row: format!("stream {first}"), attribute: "keys" };
            let row: Vec<(String, String)> =
                serde_json::from_str(text(row, "keys").unwrap_or_default()).map_err(|_| wrong())?;
            let events = row.into_iter().map(|(stream, event)| EventKey { stream, event });
            keys.extend((first..).zip(events).filter(|(sequence, _)| *sequence > from));
        }
        Ok(keys)
    }

    /// Feeds a subscriber of the stream until `closing`, then until the stream is at its end.
    pub async fn run(
        mut self,
        subscription: Subscription,
        store: EventStore,
        read_model: ReadModel,
        mut closing: watch::Receiver<bool>,
    ) {
        let mut position = None;
        let mut failures = 0u32;
        loop {
            self.committed.borrow_and_update();
            match self.feed(&subscription, &store, &read_model, &mut position).await {
                Ok(true) => failures = 0,
                Ok(false) if *closing.borrow() => return,
                Ok(false) => {
                    tokio::select! {
                        _ = self.committed.changed() => {}
                        _ = closing.changed() => {}
                    }
                }
                Err(why) => {
                    failures += 1;
                    if *closing.borrow() && failures > 5 {
                        return;
                    }
                    // While a rebuild holds the read models, this is what waiting for it looks like.
                    tracing::warn!(subscriber = subscription.name, %why, failures, "stream batch failed");
                    tokio::time::sleep(Duration::from_millis(50 * u64::from(failures.min(20)))).await;
                }
            }
        }
    }

    /// Feeds one batch, and says whether there was one.
    async fn feed(
        &self,
        subscription: &Subscription,
        store: &EventStore,
        read_model: &ReadModel,
        position: &mut Option<u64>,
    ) -> Result<bool, kassa_bus::Retry> {
        let from = match *position {
            Some(from) => from,
            None => read_model.checkpoint(SHARD).await?.map_or(0, |p| number(&p.sequence)),
        };
        // The checkpoint's own event may be half written, so it comes again.
        let from = if position.is_none() { from.saturating_sub(1) } else { from };
        let mut changes = self.read(from).await?;
        changes.truncate(subscription.batch);
        let Some(last) = changes.last().map(|(sequence, _)| *sequence) else { return Ok(false) };
        let (sequences, keys): (Vec<_>, Vec<_>) = changes.into_iter().unzip();
        let events = store.get(&keys).await?;
        let batch: Vec<Message> = sequences
            .into_iter()
            .zip(events)
            .map(|(sequence, event)| event.into_message(sequence.to_string(), SHARD))
            .collect();
        for verdict in subscription.subscriber.handle(&batch).await {
            if let Err(why) = verdict {
                *position = None;
                return Err(why);
            }
        }
        *position = Some(last);
        Ok(true)
    }

    /// The stream as a port for rebuild and check.
    #[must_use]
    pub fn changes(&self) -> Arc<dyn Changes> {
        Arc::new(self.clone())
    }
}

#[async_trait]
impl Changes for LocalStream {
    async fn after(&self, from: Option<&Sequence>) -> Result<(Vec<EventKey>, Option<Sequence>), TableError> {
        let changes = self.read(from.map_or(0, number)).await?;
        let upto = changes.last().map(|(sequence, _)| Sequence(sequence.to_string()));
        Ok((changes.into_iter().map(|(_, key)| key).collect(), upto))
    }
}

fn number(sequence: &Sequence) -> u64 {
    sequence.0.parse().unwrap_or(0)
}

/// Rows sort as texts.
pub(super) fn sort_key(sequence: u64) -> String {
    format!("{sequence:020}")
}

fn sequence(row: &Item) -> Result<u64, TableError> {
    let wrong = || TableError::Attribute { row: "of the stream".into(), attribute: "sequence" };
    text(row, "sequence").and_then(|t| t.parse().ok()).ok_or_else(wrong)
}

/// The newest row's sequence number, or 0.
pub(super) async fn last_sequence(client: &Client, changes: &str, events: &str) -> Result<u64, TableError> {
    let last = client
        .query()
        .table_name(changes)
        .limit(1)
        .scan_index_forward(false)
        .key_condition_expression("#table = :table")
        .expression_attribute_names("#table", "table")
        .expression_attribute_values(":table", s(events));
    let last = last.send().await.map_err(TableError::unavailable("read the end of the stream"))?;
    last.items().first().map_or(Ok(0), sequence)
}
