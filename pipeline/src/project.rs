//! Stage four: stock and turnover, from the event store's stream, each event exactly once.

/// Which of a batch's postings go to which rows.
mod routing;

use async_trait::async_trait;
use jiff::Timestamp;
use kassa_bus::attention::Attention;
use kassa_bus::{
    Clock, Intake, Message, Metric, Metrics, Retry, SaleId, ShopId, Source, Subscriber, Subscription, Verdict,
};
use std::sync::Arc;

use self::routing::{Placed, Routing, Step, steps};
use crate::checkpoint::Checkpoint;
use crate::event::{RECORDED, REJECTED, StoredEvent, Unreadable};
use crate::last_at::believe;
use crate::posting::{Position, RowKey, Sequence, postings};
use crate::read_model::{ReadModel, STEP_ROWS, StepError, TRIES};
use kassa_bus::table::TableError;

/// Keeps stock and turnover from the event store's stream, each event exactly once.
///
/// What the shard's checkpoint has seen is dropped; the rest is summed per row and written in one
/// transaction with the checkpoint, so a batch that comes again, or cut differently, changes nothing.
pub struct Project {
    read_model: ReadModel,
    attention: Attention,
    metrics: Metrics,
    clock: Clock,
    routing: Routing,
}

impl Project {
    pub const NAME: &str = "project";

    #[must_use]
    pub fn new(read_model: ReadModel, attention: Attention, metrics: Metrics, clock: Clock) -> Self {
        Self { routing: Routing::new(read_model.clone()), read_model, attention, metrics, clock }
    }

    #[must_use]
    pub fn subscription(self) -> Subscription {
        let subscriber = Arc::new(self);
        Subscription {
            name: Self::NAME,
            source: Source::EventStream,
            batch: 1000,
            workers: 1,
            intake: Intake::Pushed,
            every_minute: false,
            subscriber,
        }
    }

    async fn project(&self, batch: &[Message]) -> Result<(), Retry> {
        let shard = batch.first().and_then(|m| m.attributes.get("shard")).map_or("", String::as_str);
        let now = self.clock.now();
        let Readable { events, again, unreadable } = readable(batch, &self.attention, now);
        let mut checkpoint = self.read_model.checkpoint(shard).await?;
        let before = checkpoint.position().unwrap_or_else(|error| {
            // Nobody knows what rows contain, and sales that were not projected come here: better than to stop for good.
            tracing::error!(%error, "the checkpoint begins anew with this batch; run kassa rebuild");
            None
        });
        let (mut seen, mut tries) = (before.clone(), 0);
        while let Err(error) = self.write(shard, &mut checkpoint, &mut seen, &events).await {
            tries += 1;
            if !matches!(error, StepError::Stale) || tries == TRIES {
                return Err(TableError::from(error).into());
            }
        }
        for (shop, sale) in &again {
            self.attention.remove(shop, sale).await?;
        }
        // Not before the batch is done with, which comes again as often as it fails.
        self.metrics.count(Metric::UnreadableEvents, unreadable);
        // What comes again was in time.
        let new =
            batch.iter().filter(|message| before.as_ref().is_none_or(|before| whole(message) > *before));
        if let Some(oldest) = new.filter_map(recorded_at).min() {
            let behind = self.clock.now().duration_since(oldest).as_secs_f64() * 1_000.0;
            self.metrics.observe(Metric::ProjectionLag, &[], behind.max(0.0));
        }
        Ok(())
    }

    /// Writes what was not seen, step by step.
    async fn write(
        &self,
        shard: &str,
        checkpoint: &mut Checkpoint,
        seen: &mut Option<Position>,
        events: &[Placed],
    ) -> Result<(), StepError> {
        let now = self.clock.now();
        let mut routed = self.routing.route(events, seen.as_ref()).await?;
        for step in steps(&routed.events(events, seen.as_ref()), STEP_ROWS) {
            let guards = routed.guards(&step);
            let moved = (&*checkpoint, &step.upto);
            let skipped = self.read_model.step(shard, moved, &step.sums, &guards, now).await?;
            self.metrics.count(Metric::Projected, step.events);
            self.metrics.count(Metric::UnknownItems, step.undeclared);
            self.skipped(&step, &skipped);
            routed.written(&step, guards);
            *checkpoint = step.upto.clone().into();
            *seen = Some(step.upto);
        }
        // Only what was written whole is what the next batch finds.
        self.routing.keep(routed).await;
        Ok(())
    }

    /// Rows that could not take what a step adds to them.
    fn skipped(&self, step: &Step, skipped: &[RowKey]) {
        for RowKey { shop_id, row } in skipped {
            tracing::error!(%shop_id, %row, "the row cannot be added to, and is left as it is; run kassa check");
        }
        let postings = step.rows.iter().filter(|row| skipped.contains(row)).count();
        self.metrics.count(Metric::SkippedPostings, postings as u64);
    }
}

/// A batch's recorded sales, and how many there are that this code cannot read. Such a one must not hold up the shard:
/// it stays in the event store, `check` tells of it, and a rebuild by code that can read it counts it.
fn readable(batch: &[Message], attention: &Attention, now: Timestamp) -> Readable {
    let mut readable = Readable::default();
    for message in batch {
        // On one machine, whose stream has recorded sales only, whoever rejects one has said so.
        if is_of(message, REJECTED)
            && let Ok(event) = StoredEvent::from_message(message)
        {
            attention.hear(&event.shop_id, &event.sale_id);
        }
        if !is_of(message, RECORDED) {
            continue;
        }
        match read(message, now) {
            Ok((placed, sale, is_again)) => {
                readable.events.push(placed);
                if is_again || attention.has_heard(&sale) {
                    readable.again.push(sale);
                }
            }
            Err(error) => {
                readable.unreadable += 1;
                tracing::error!(%error, "left out of the read models");
            }
        }
    }
    readable
}

#[derive(Default)]
struct Readable {
    events: Vec<Placed>,
    /// Sales that had been rejected, and are recorded: put through again, or from another envelope. They need no attention any
    /// more.
    again: Vec<(ShopId, SaleId)>,
    unreadable: u64,
}

#[async_trait]
impl Subscriber for Project {
    async fn handle(&self, batch: &[Message]) -> Vec<Verdict> {
        // A stream is taken in order: if one fails, so does what comes after it.
        match self.project(batch).await {
            Ok(()) => batch.iter().map(|_| Ok(())).collect(),
            Err(why) => {
                let why = why.to_string();
                batch.iter().map(|_| Err(Retry::because(why.clone()).into())).collect()
            }
        }
    }
}

/// The place in the stream at which a message is done with.
fn whole(message: &Message) -> Position {
    Position { sequence: Sequence(message.id.clone()), partial: None }
}

/// When a stream's record was appended to the event store.
#[must_use]
pub fn recorded_at(message: &Message) -> Option<Timestamp> {
    message.attributes.get("at")?.parse().ok()
}

fn is_of(message: &Message, kind: &str) -> bool {
    message.attributes.get("kind").is_some_and(|is| is == kind)
}

/// What is projected, of which sale, and whether that was put through again.
fn read(message: &Message, now: Timestamp) -> Result<(Placed, (ShopId, SaleId), bool), Unreadable> {
    let event = StoredEvent::from_message(message)?;
    let recorded = event.recorded()?;
    let mut postings = postings(&event.shop_id, event.at, &recorded);
    believe(&mut postings, now);
    let placed = (Sequence(message.id.clone()), postings);
    Ok((placed, (event.shop_id, event.sale_id), recorded.attempt.is_some()))
}

impl From<StepError> for TableError {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Table(error) => error,
            other => TableError::unavailable("write a projection step")(other),
        }
    }
}
