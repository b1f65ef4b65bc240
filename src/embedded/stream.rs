//! The event store's stream, of which `project` lives.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use jiff::SignedDuration;
use kassa_bus::local::{STACK, SYSTEM, invoked};
use kassa_bus::subscriber::dealt_with;
use kassa_bus::table::{Item, TableError, s, text};
use kassa_bus::{Clock, Dimension, Failure, Message, Metric, Metrics, Subscription, Tracer, Verdict, trace};
use kassa_pipeline::contained::Changes;
use kassa_pipeline::event::{EventKey, StoredEvent};
use kassa_pipeline::event_store::EventStore;
use kassa_pipeline::posting::{Position, Sequence};
use kassa_pipeline::project::recorded_at;
use kassa_pipeline::read_model::ReadModel;
use tokio::sync::{Notify, watch};

use super::dynamodb::Tables;
use crate::console::Feed;

/// The embedded event store is one shard.
pub const SHARD: &str = "embedded";

/// Stream rows read at once.
const ROWS: i32 = 20;

/// Recorded sales in one row at most: a transaction takes 100 writes.
const PER_ROW: u64 = 1000;

/// Rows there can be, which is more than any shop writes. Whatever has a larger number was not written by us.
const LAST_ROW: u64 = 1 << 50;

/// The embedded event store's stream: the keys of recorded sales, in the order they were committed.
///
/// It is never trimmed. A row is some 80 bytes per sale, a few percent of the events themselves.
#[derive(Clone)]
pub struct LocalStream {
    client: Client,
    tables: Tables,
    recent: Arc<Recent>,
}

/// A recorded event as it was put: its attributes.
pub(super) type Image = HashMap<String, String>;

/// What was committed last, so that a follower who keeps up need not read it back. Bounded: whoever
/// falls behind reads the tables.
#[derive(Default)]
pub struct Recent {
    rows: Mutex<Rows>,
    committed: Notify,
}

/// Events that are read back at once, and bytes after which there are enough for a batch: what Lambda takes in one.
const READ: usize = 100;
const BATCH_BYTES: usize = 6 * 1024 * 1024;

/// How long new events gather before they are projected.
const WINDOW: Duration = Duration::from_millis(10);

/// Rows kept for the follower, and bytes of them: sales differ much in size.
const RECENT_ROWS: usize = 256;
const RECENT_BYTES: usize = 16 * 1024 * 1024;

/// What was recorded with which row, and how many bytes that is in all.
#[derive(Default)]
struct Rows {
    kept: VecDeque<(u64, Vec<Image>)>,
    bytes: usize,
}

impl Rows {
    fn push(&mut self, sequence: u64, images: Vec<Image>) {
        self.bytes += bytes(&images);
        self.kept.push_back((sequence, images));
        while self.kept.len() > RECENT_ROWS || self.bytes > RECENT_BYTES && self.kept.len() > 1 {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some((_, images)) = self.kept.pop_front() {
            self.bytes -= bytes(&images);
        }
    }
}

fn bytes(images: &[Image]) -> usize {
    images.iter().flatten().map(|(name, value)| name.len() + value.len()).sum()
}

impl Recent {
    pub(super) fn push(&self, sequence: u64, images: Vec<Image>) {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).push(sequence, images);
        self.committed.notify_one();
    }

    /// Takes up to `batch` events after `from`, if none between is missing here.
    fn take(&self, from: u64, batch: usize) -> Vec<(u64, StoredEvent)> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        while rows.kept.front().is_some_and(|(row, images)| row * PER_ROW + images.len() as u64 <= from + 1) {
            rows.pop();
        }
        if rows.kept.front().is_none_or(|(row, _)| *row > from / PER_ROW + 1) {
            return Vec::new();
        }
        let mut events = Vec::new();
        while let Some((row, images)) = rows.kept.front()
            && events.len() + images.len() <= batch
        {
            let numbered = (row * PER_ROW..).zip(images).filter(|(sequence, _)| *sequence > from);
            let read: Option<Vec<_>> =
                numbered.map(|(n, image)| Some((n, StoredEvent::from_image(image).ok()?))).collect();
            let Some(read) = read else { break };
            events.extend(read);
            rows.pop();
        }
        events
    }
}

/// Says of the projection what Lambda and we say of it on AWS.
#[derive(Clone)]
pub struct Reporter {
    pub metrics: Metrics,
    pub tracer: Tracer,
    pub clock: Clock,
    /// Shows the console what was recorded.
    pub feed: Arc<Feed>,
}

impl Reporter {
    /// The event, if it can be read. One that cannot is skipped, counted and named.
    fn readable(&self, event: Result<StoredEvent, TableError>) -> Option<StoredEvent> {
        match event {
            Ok(event) => Some(event),
            Err(error) => {
                tracing::error!(%error, "left out of the read models");
                self.metrics.count(Metric::UnreadableEvents, 1);
                None
            }
        }
    }

    fn report(&self, name: &'static str, took: Duration, batch: &[Message], verdicts: &[Verdict]) {
        // One that fails fails the batch, as there.
        invoked(&self.metrics, name, took, verdicts.iter().all(Result::is_ok));
        let now = self.clock.now();
        if let Some(last) = batch.last().and_then(recorded_at) {
            let function = format!("{STACK}-{name}");
            let age = now.duration_since(last).as_secs_f64() * 1_000.0;
            self.metrics.observe(Metric::IteratorAge, &[(Dimension::FunctionName, &function)], age.max(0.0));
        }
        dealt_with(&self.metrics, name, now, batch, verdicts);
    }
}

impl LocalStream {
    #[must_use]
    pub fn new(client: Client, tables: Tables, recent: Arc<Recent>) -> Self {
        Self { client, tables, recent }
    }

    /// Keys with their sequence numbers, of events after `from`: up to some thousand.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn read(&self, from: u64) -> Result<Vec<(u64, EventKey)>, TableError> {
        let page = self
            .client
            .query()
            .table_name(&self.tables.changes)
            .limit(ROWS)
            .key_condition_expression(ROWS_FROM)
            .expression_attribute_names("#table", "table")
            .expression_attribute_names("#sequence", "sequence")
            .expression_attribute_values(":table", s(&self.tables.events))
            .expression_attribute_values(":from", s(sort_key(from / PER_ROW)))
            .expression_attribute_values(":last", s(sort_key(LAST_ROW)));
        let page = page.send().await.map_err(TableError::unavailable("read the stream"))?;
        let mut keys = Vec::new();
        for row in page.items() {
            let Ok(number) = sequence(row) else {
                let at = text(row, "sequence").unwrap_or_default();
                tracing::error!("row {at:?} of the stream is none of ours, and is skipped");
                continue;
            };
            let first = number * PER_ROW;
            let row = serde_json::from_str::<Vec<(String, String)>>(text(row, "keys").unwrap_or_default());
            let Ok(row) = row else {
                tracing::error!("row {first} of the stream cannot be read and is skipped; run kassa check");
                continue;
            };
            let events = row.into_iter().map(|(stream, event)| EventKey { stream, event });
            keys.extend((first..).zip(events).filter(|(sequence, _)| *sequence > from));
        }
        Ok(keys)
    }

    /// The newest row's number, or 0.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn last(&self) -> Result<u64, TableError> {
        let last = self
            .client
            .query()
            .table_name(&self.tables.changes)
            .limit(1)
            .scan_index_forward(false)
            .key_condition_expression(ROWS_FROM)
            .expression_attribute_names("#table", "table")
            .expression_attribute_names("#sequence", "sequence")
            .expression_attribute_values(":table", s(&self.tables.events))
            .expression_attribute_values(":from", s(sort_key(0)))
            .expression_attribute_values(":last", s(sort_key(LAST_ROW)));
        let last = last.send().await.map_err(TableError::unavailable("read the end of the stream"))?;
        last.items().first().map_or(Ok(0), sequence)
    }

    /// Feeds a subscriber of the stream until `closing`, then until the stream is at its end.
    pub async fn run(
        self,
        subscription: Subscription,
        store: EventStore,
        read_model: ReadModel,
        reporter: Reporter,
        mut closing: watch::Receiver<bool>,
    ) {
        let mut position = None;
        let mut failures = 0u32;
        loop {
            match self.feed(&subscription, &store, &read_model, &reporter, &mut position).await {
                Ok(true) => failures = 0,
                Ok(false) if *closing.borrow() => return,
                Ok(false) => {
                    tokio::select! {
                        // Batches fill up a little, as an event source's batching window lets them.
                        () = self.recent.committed.notified() => tokio::time::sleep(WINDOW).await,
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
        reporter: &Reporter,
        position: &mut Option<u64>,
    ) -> Result<bool, Failure> {
        let from = match *position {
            Some(from) => from,
            // One that cannot be read is put right by the rebuild that opening begins with.
            None => read_model.checkpoint(SHARD).await?.position()?.as_ref().map_or(0, whole),
        };
        let recent = self.recent.take(from, subscription.batch);
        let (events, last) = if let Some((last, _)) = recent.last() {
            let last = *last;
            (recent, last)
        } else {
            let mut changes = self.read(from).await?;
            changes.truncate(subscription.batch);
            let (first, last) = first_of(changes, store).await?;
            let Some(last) = last else { return Ok(false) };
            let readable = first.into_iter().filter_map(|(at, event)| Some((at, reporter.readable(event)?)));
            (readable.collect(), last)
        };
        if events.is_empty() {
            *position = Some(last);
            return Ok(true);
        }
        reporter.feed.recorded(events.iter().map(|(_, event)| event));
        let message = |(sequence, event): (u64, StoredEvent)| event.into_message(sequence.to_string(), SHARD);
        let batch: Vec<Message> = events.into_iter().map(message).collect();
        let begun = Instant::now();
        let spans = trace::Batch::begin(&reporter.tracer, SYSTEM, subscription, &batch, None);
        let verdicts = spans.within(&batch, subscription.subscriber.handle(&batch)).await;
        spans.ended(&verdicts);
        reporter.report(subscription.name, begun.elapsed(), &batch, &verdicts);
        for verdict in verdicts {
            if let Err(why) = verdict {
                *position = None;
                return Err(why);
            }
        }
        *position = Some(last);
        Ok(true)
    }
}

#[async_trait]
impl Changes for LocalStream {
    async fn shards(&self) -> Result<Vec<String>, TableError> {
        Ok(vec![SHARD.to_owned()])
    }

    async fn after(
        &self,
        _: &str,
        from: Option<&Sequence>,
    ) -> Result<(Vec<EventKey>, Option<Sequence>), TableError> {
        let changes = self.read(from.map_or(0, number)).await?;
        let upto = changes.last().map(|(sequence, _)| Sequence(sequence.to_string()));
        Ok((changes.into_iter().map(|(_, key)| key).collect(), upto))
    }

    async fn at(&self, _: &str, place: &Sequence) -> Result<Option<EventKey>, TableError> {
        let place = number(place);
        let changes = self.read(place.saturating_sub(1)).await?.into_iter();
        Ok(changes.take(1).find(|(sequence, _)| *sequence == place).map(|(_, key)| key))
    }

    /// An event and its place in the stream are one transaction.
    fn lag(&self) -> SignedDuration {
        SignedDuration::ZERO
    }
}

/// The events of these changes, or the first of them if they are many bytes, and the last one's number.
async fn first_of(
    changes: Vec<(u64, EventKey)>,
    store: &EventStore,
) -> Result<(Vec<(u64, Result<StoredEvent, TableError>)>, Option<u64>), TableError> {
    let (mut events, mut bytes, mut last) = (Vec::new(), 0, None);
    for some in changes.chunks(READ) {
        let (sequences, keys): (Vec<u64>, Vec<EventKey>) = some.iter().cloned().unzip();
        last = sequences.last().copied();
        let read = store.get(&keys).await?;
        bytes += read.iter().flatten().map(|event| event.body.len()).sum::<usize>();
        events.extend(sequences.into_iter().zip(read));
        if bytes > BATCH_BYTES {
            break;
        }
    }
    Ok((events, last))
}

/// The last event that was written whole: one that is half written comes again.
fn whole(checkpoint: &Position) -> u64 {
    number(&checkpoint.sequence).saturating_sub(checkpoint.partial.is_some().into())
}

/// The stream's row that a checkpoint stands in; nothing if there can be no such row.
pub(super) fn row(checkpoint: &Position) -> Option<u64> {
    let sequence: u64 = checkpoint.sequence.0.parse().ok()?;
    Some(sequence / PER_ROW).filter(|row| *row <= LAST_ROW)
}

fn number(sequence: &Sequence) -> u64 {
    sequence.0.parse().unwrap_or(0)
}

/// Nothing that somebody else put among the rows.
const ROWS_FROM: &str = "#table = :table AND #sequence BETWEEN :from AND :last";

/// Rows sort as texts.
pub(super) fn sort_key(sequence: u64) -> String {
    format!("{sequence:020}")
}

fn sequence(row: &Item) -> Result<u64, TableError> {
    let wrong = || TableError::Attribute { row: "of the stream".into(), attribute: "sequence" };
    text(row, "sequence").and_then(|t| t.parse().ok()).ok_or_else(wrong)
}
