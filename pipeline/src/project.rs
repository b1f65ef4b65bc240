use async_trait::async_trait;
use futures::future::try_join_all;
use jiff::Timestamp;
use kassa_bus::attention::Attention;
use kassa_bus::{
    Clock, Intake, Message, Metric, Metrics, Retry, SaleId, ShopId, Source, Subscriber, Subscription, Verdict,
};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::event::{RECORDED, StoredEvent, Unreadable};
use crate::posting::{Position, Row, RowKey, Sequence, Sum, Sums, add, postings};
use crate::read_model::{ReadModel, STEP_ROWS, StepError};
use kassa_bus::cache::Cache;
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
    declared: Cache<bool>,
}

impl Project {
    pub const NAME: &str = "project";

    #[must_use]
    pub fn new(read_model: ReadModel, attention: Attention, metrics: Metrics, clock: Clock) -> Self {
        let declared = Cache::new(100_000, Duration::from_mins(1));
        Self { read_model, attention, metrics, clock, declared }
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
        let Readable { events, again, unreadable } = readable(batch);
        let mut checkpoint = self.read_model.checkpoint(shard).await?;
        let before = checkpoint.position().unwrap_or_else(|error| {
            // Nobody knows what rows contain, and sales that were not projected come here: better than to stop for good.
            tracing::error!(%error, "the checkpoint begins anew with this batch; run kassa rebuild");
            None
        });
        for step in steps(&events, before.as_ref(), STEP_ROWS) {
            // Asked before the step is written: what fails comes again, and what was written never does.
            let unknown = self.of_unknown_items(&step).await?;
            let skipped = self.read_model.step(shard, &checkpoint, &step.upto, &step.sums).await?;
            self.metrics.count(Metric::Projected, step.events);
            self.metrics.count(Metric::UnknownItems, unknown as u64);
            self.skipped(&step, &skipped);
            checkpoint = step.upto.into();
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

    /// Rows that could not take what a step adds to them.
    fn skipped(&self, step: &Step<'_>, skipped: &[RowKey]) {
        for RowKey { shop_id, row } in skipped {
            tracing::error!(%shop_id, %row, "the row cannot be added to, and is left as it is; run kassa check");
        }
        let postings = step.rows.iter().filter(|row| skipped.contains(row)).count();
        self.metrics.count(Metric::SkippedPostings, postings as u64);
    }

    /// How many of a step's lines are of an item that nobody declared.
    async fn of_unknown_items(&self, step: &Step<'_>) -> Result<usize, TableError> {
        let items = step.sums.keys().filter(|key| matches!(key.row, Row::Item(_)));
        let undeclared = try_join_all(items.map(|key| async move {
            let declared = self.is_declared(key).await?;
            Ok::<_, TableError>((!declared).then_some(key))
        }));
        let undeclared: HashSet<&RowKey> = undeclared.await?.into_iter().flatten().collect();
        Ok(step.rows.iter().filter(|row| undeclared.contains(*row)).count())
    }

    async fn is_declared(&self, key: &RowKey) -> Result<bool, TableError> {
        let name = format!("{}#{}", key.shop_id, key.row).into_bytes();
        if let Some(known) = self.declared.get(&name).await {
            return Ok(known);
        }
        let declared = self.read_model.is_declared(key).await?;
        self.declared.insert(&name, declared).await;
        Ok(declared)
    }
}

/// A batch's recorded sales, and how many there are that this code cannot read. Such a one must not hold up the shard:
/// it stays in the event store, `check` tells of it, and a rebuild by code that can read it counts it.
fn readable(batch: &[Message]) -> Readable {
    let mut readable = Readable::default();
    for message in batch.iter().filter(|message| is_recorded(message)) {
        match read(message) {
            Ok((placed, again)) => {
                readable.events.push(placed);
                readable.again.extend(again);
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
    /// Sales that had been rejected and were put through again: they need no attention any more. Of others that had been,
    /// the next minute finds out.
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

fn is_recorded(message: &Message) -> bool {
    message.attributes.get("kind").is_some_and(|kind| kind == RECORDED)
}

/// An event's postings, with its place in the stream.
type Placed = (Sequence, Vec<(RowKey, Sum)>);

fn read(message: &Message) -> Result<(Placed, Option<(ShopId, SaleId)>), Unreadable> {
    let event = StoredEvent::from_message(message)?;
    let recorded = event.recorded()?;
    let placed = (Sequence(message.id.clone()), postings(&event.shop_id, event.at, &recorded));
    Ok((placed, recorded.attempt.map(|_| (event.shop_id, event.sale_id))))
}

impl From<StepError> for TableError {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Table(error) => error,
            other => TableError::unavailable("write a projection step")(other),
        }
    }
}

/// What one transaction writes.
#[derive(Debug, PartialEq, Eq)]
struct Step<'a> {
    sums: Sums,
    /// The row of each of its postings.
    rows: Vec<&'a RowKey>,
    upto: Position,
    /// Events that end in this step.
    events: u64,
}

/// Cuts a batch into transactions: what was seen is dropped, and a step ends before the posting that
/// would touch one row too many. A sale of more items than that spans steps.
fn steps<'a>(events: &'a [Placed], seen: Option<&Position>, max_rows: usize) -> Vec<Step<'a>> {
    let mut steps: Vec<Step<'a>> = Vec::new();
    for (sequence, postings) in events {
        for (posting, (row, sum)) in postings.iter().enumerate() {
            let whole = posting + 1 == postings.len();
            let position = Position { sequence: sequence.clone(), partial: (!whole).then_some(posting) };
            let last = steps.last().map(|step| &step.upto).or(seen);
            if last.is_some_and(|last| position <= *last) {
                continue;
            }
            if steps.last().is_none_or(|step| step.sums.len() == max_rows && !step.sums.contains_key(row)) {
                steps.push(Step { sums: Sums::new(), rows: Vec::new(), upto: position.clone(), events: 0 });
            }
            if let Some(step) = steps.last_mut() {
                add(&mut step.sums, [(row.clone(), *sum)]);
                step.rows.push(row);
                step.upto = position;
                step.events += u64::from(whole);
            }
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use jiff::civil::Date;
    use kassa_bus::amount::Amount;
    use proptest::prelude::*;

    fn event(sequence: u32, items: &[u32]) -> Placed {
        event_at(sequence, None, items)
    }

    fn event_at(sequence: u32, at: Option<i64>, items: &[u32]) -> Placed {
        let key = |row: Row| RowKey { shop_id: "A".parse().unwrap(), row };
        let one = Sum { number: Amount::from(1).into(), turnover: Amount::from(2).into(), last_at: None };
        let day = at.map(|at| Sum { last_at: Some(Timestamp::from_second(at).unwrap()), ..one });
        let day = day.map(|sum| (key(Row::Day(Date::constant(2026, 11, 22))), sum));
        let items = items.iter().map(|item| (key(Row::Item(item.to_string().parse().unwrap())), one));
        (Sequence(sequence.to_string()), day.into_iter().chain(items).collect())
    }

    fn total(events: &[Placed]) -> Sums {
        let mut sums = Sums::new();
        for (_, postings) in events {
            add(&mut sums, postings.clone());
        }
        sums
    }

    #[test]
    fn a_sale_of_more_rows_than_a_step_holds_is_written_in_steps() {
        let events = [event(1, &[1, 2, 3, 1, 2]), event(2, &[3, 4])];
        let cut = steps(&events, None, 2);
        let upto: Vec<_> =
            cut.iter().map(|s| (s.upto.sequence.0.as_str(), s.upto.partial, s.events)).collect();
        assert_eq!(upto, [("1", Some(1), 0), ("1", Some(3), 0), ("2", Some(0), 1), ("2", None, 1)]);
    }

    proptest! {
        /// Whatever way the stream is cut into batches, repeated and resumed from, each row ends up
        /// with each event once.
        #[test]
        fn any_cutting_and_repeating_of_the_stream_gives_the_same_rows(
            // Times in any order: whoever records first may have the later clock.
            sales in prop::collection::vec((0i64..99, prop::collection::vec(1u32..9, 1..7)), 1..12),
            cuts in prop::collection::vec((0usize..12, 1usize..12, 0usize..4), 1..12),
            max_rows in 1usize..5,
        ) {
            let events: Vec<Placed> =
                (7u32..).zip(&sales).map(|(n, (at, items))| event_at(n, Some(*at), items)).collect();
            let mut rows = Sums::new();
            let mut seen: Option<Position> = None;
            let mut project = |batch: &[Placed], crash_after: usize| {
                for step in steps(batch, seen.as_ref(), max_rows).into_iter().take(crash_after) {
                    add(&mut rows, step.sums);
                    seen = Some(step.upto);
                }
            };
            let mut reached = 0;
            for (back, length, crash_after) in cuts {
                // A stream never skips ahead of what was handled, but may go back any distance.
                let from = reached.min(events.len()).saturating_sub(back);
                let to = (from + length).min(events.len());
                project(&events[from..to], crash_after);
                if crash_after >= 4 { reached = reached.max(to); }
            }
            project(&events, usize::MAX);
            prop_assert_eq!(rows, total(&events));
        }
    }
}
