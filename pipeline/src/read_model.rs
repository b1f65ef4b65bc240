//! Stock and turnover, rows of the shops table: reading them, adding sales to them, making them anew.

/// What a declaration writes.
mod declare;
/// Checkpoints.
mod positions;
/// What a rebuild writes.
mod replace;
/// The row that items share.
pub mod shared;

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem, Update};
use jiff::Timestamp;
use jiff::civil::Date;
use kassa_bus::amount::Amount;
use kassa_bus::business_date::last_bookable;
use kassa_bus::shops_table::{ShopsTable, key};
use kassa_bus::table::{Item, Readable, TableError, n, s};
use kassa_bus::{ItemNo, ShopId, trace};
use serde::Serialize;

use self::shared::Guard;
use crate::checkpoint::Checkpoint;
use crate::hold::Holds;
use crate::last_at::latest;
use crate::posting::{Position, Row, RowKey, Sum, Sums};
use crate::row::{DayRow, ReadRow, from_item};

/// Why a step was not written.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The checkpoint was moved by somebody else: read it anew.
    #[error("another projector moved the checkpoint")]
    Moved,
    /// A rebuild is writing the rows: wait for it.
    #[error("a rebuild holds the read models")]
    Held,
    /// Which items have rows is not what it was: read it anew.
    #[error("which items have rows of their own changed meanwhile")]
    Stale,
    #[error(transparent)]
    Table(#[from] TableError),
}

/// An item as a shop declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeclaredItem {
    pub item_no: ItemNo,
    pub description: String,
    pub price: Amount,
    pub opening_stock: Amount,
}

/// The read models, in the shops table: stock and turnover per shop.
#[derive(Clone)]
pub struct ReadModel {
    table: ShopsTable,
    /// Who keeps projecting from going on.
    pub holds: Holds,
}

/// A step's writes before those of its rows: the hold and the checkpoint.
const BEFORE_ROWS: usize = 2;

/// Where a page of rows begins.
pub type Cursor = Option<Item>;

/// How often a write is tried whose condition others take away.
pub(crate) const TRIES: u32 = 10;

/// Rows one step may change: a transaction takes 100 writes.
pub const STEP_ROWS: usize = 100 - BEFORE_ROWS;

/// A row that is to be written, and in what ways: the last is tried first, and the next if the row refuses it.
struct Writes {
    key: RowKey,
    ways: Vec<Way>,
}

struct Way {
    write: TransactWriteItem,
    /// Whether this leaves the row as it is.
    leaves_out: bool,
}

impl From<TransactWriteItem> for Way {
    fn from(write: TransactWriteItem) -> Self {
        Self { write, leaves_out: false }
    }
}

/// Why a transaction was not written: a place of what must go before the rows refused, or a row that items share moved.
enum NotWritten {
    Before(usize),
    Stale,
}

impl ReadModel {
    #[must_use]
    pub fn new(client: Client, table: impl Into<Arc<str>>) -> Self {
        let table = ShopsTable::new(client, table);
        Self { holds: Holds { table: table.clone() }, table }
    }

    /// A page of a shop's rows whose record type begins so, by record type, and where the next begins.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn page(
        &self,
        shop: &ShopId,
        beginning: &str,
        cursor: Cursor,
    ) -> Result<(Readable<ReadRow>, Cursor), TableError> {
        let (items, next) = self.items(shop, beginning, cursor).await?;
        Ok((items.iter().filter_map(|item| from_item(shop, item).transpose()).collect(), next))
    }

    /// The same as the table has them, the registry's as well.
    pub(crate) async fn items(
        &self,
        shop: &ShopId,
        beginning: &str,
        cursor: Cursor,
    ) -> Result<(Vec<Item>, Cursor), TableError> {
        self.table.page(shop.as_str(), beginning, cursor).await
    }

    /// One row, if it is there.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn row(&self, key: &RowKey) -> Result<Option<ReadRow>, TableError> {
        let item = self.table.row(key.shop_id.as_str(), &key.row.to_string()).await?;
        item.map_or(Ok(None), |item| from_item(&key.shop_id, &item))
    }

    /// A shop's days from one to another, both included, as far as they had sales.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn days(&self, shop: &ShopId, from: Date, to: Date) -> Result<Readable<DayRow>, TableError> {
        let [first, last] = [from, to].map(|date| Row::Day(date).to_string());
        let items = self.table.rows_between(shop.as_str(), &first, &last).await?;
        Ok(items.iter().filter_map(|item| day(shop, item)).collect())
    }

    /// A shop's last days with sales, the last first: so many up to today, and before them those few still to come that
    /// sales of today can be booked on. Whatever else is dated in days to come does not hide today.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn last_days(
        &self,
        shop: &ShopId,
        today: Date,
        limit: i32,
    ) -> Result<Readable<DayRow>, TableError> {
        let last = last_bookable(today);
        let ahead = last.since(today).map_or(0, |days| days.get_days());
        let rows = ("d-", &*Row::Day(last).to_string());
        let items = self.table.last_between(shop.as_str(), rows, limit.saturating_add(ahead)).await?;
        Ok(items.iter().filter_map(|item| day(shop, item)).collect())
    }

    /// Adds sums to their rows and moves the shard's checkpoint, all or nothing; but for rows that cannot take theirs,
    /// because they hold no numbers or the sum would be more than an [`Amount`] can be. Those stay as they are, and are
    /// answered.
    ///
    /// A row's `last_at` only grows, but for one that is still to come: on the rare occasion that another shard, or an earlier
    /// batch, brought a later one, the step is written again without it. What undeclared items have is added as of a revision
    /// of the shop's [`shared`] row, which then goes with the step.
    ///
    /// # Errors
    /// [`StepError`]; nothing was changed.
    pub async fn step(
        &self,
        shard: &str,
        (from, to): (&Checkpoint, &Position),
        sums: &Sums,
        guards: &HashMap<ShopId, Guard>,
        now: Timestamp,
    ) -> Result<Vec<RowKey>, StepError> {
        let before = [self.holds.unless_held()?, self.move_checkpoint(shard, from, to)?];
        let mut rows = Vec::with_capacity(sums.len());
        for (key, sum) in sums {
            let ways = match key.row {
                Row::Other => self.add_to_other(&key.shop_id, sum, guards.get(&key.shop_id))?,
                Row::Day(_) | Row::Item(_) => {
                    let mut ways = Vec::from_iter(self.add(key, &Sum { last_at: None, ..*sum }, now)?);
                    if sum.last_at.is_some() {
                        ways.extend(self.add(key, sum, now)?);
                    }
                    ways.into_iter().map(Way::from).collect()
                }
            };
            rows.push(Writes { key: key.clone(), ways });
        }
        loop {
            match self.write(&before, &mut rows).await? {
                Ok(skipped) => return Ok(skipped),
                Err(NotWritten::Before(0)) if self.holds.end_if_over().await? => {}
                Err(NotWritten::Before(0)) => return Err(StepError::Held),
                Err(NotWritten::Before(_)) => return Err(StepError::Moved),
                Err(NotWritten::Stale) => return Err(StepError::Stale),
            }
        }
    }

    /// Writes rows in one transaction with what must go before them, but for those whose every way is refused, which are
    /// answered; or why not, if that is refused which must go before them, or the row that items share moved.
    async fn write(
        &self,
        before: &[TransactWriteItem],
        rows: &mut Vec<Writes>,
    ) -> Result<Result<Vec<RowKey>, NotWritten>, TableError> {
        let mut skipped = Vec::new();
        loop {
            skipped.extend(rows.extract_if(.., |row| row.ways.is_empty()).map(|row| row.key));
            if skipped.iter().any(|key| key.row == Row::Other) {
                return Ok(Err(NotWritten::Stale));
            }
            let ways = || rows.iter().filter_map(|row| Some((&row.key, row.ways.last()?)));
            let writes = before.iter().chain(ways().map(|(_, way)| &way.write)).cloned().collect();
            let write = self.table.client.transact_write_items().set_transact_items(Some(writes));
            let span = trace::table("TransactWriteItems", &self.table.name);
            let Err(error) = write.send().await else {
                skipped.extend(ways().filter(|(_, way)| way.leaves_out).map(|(key, _)| key.clone()));
                return Ok(Ok(skipped));
            };
            let refused = refused(&error);
            match refused.first() {
                None => return span.ends("table", Err(TableError::unavailable("write rows")(error))),
                Some(place) if *place < before.len() => return Ok(Err(NotWritten::Before(*place))),
                Some(_) => {}
            }
            for place in refused {
                rows.get_mut(place - before.len()).and_then(|row| row.ways.pop());
            }
        }
    }

    /// Adds to a row that can take it; nothing, if none can.
    fn add(&self, at: &RowKey, sum: &Sum, now: Timestamp) -> Result<Option<TransactWriteItem>, TableError> {
        let (Some(number), Some(turnover), Some(sold)) =
            (sum.number.amount(), sum.turnover.amount(), (-sum.number).amount())
        else {
            return Ok(None);
        };
        let (mut update, mut conditions, mut values) = match at.row {
            Row::Day(_) => adding([("sales", number), ("turnover", turnover)]),
            Row::Item(_) | Row::Other => {
                adding([("gross_number", number), ("gross_turnover", turnover), ("stock", sold)])
            }
        };
        if let Some(last_at) = sum.last_at {
            update.push_str(" SET last_at = :last_at");
            conditions
                .push("(attribute_not_exists(last_at) OR last_at <= :last_at OR last_at > :latest)".into());
            values.insert(":last_at".into(), stored(last_at));
            values.insert(":latest".into(), stored(latest(now)));
        }
        let update = Update::builder()
            .table_name(&*self.table.name)
            .set_key(Some(key(at.shop_id.as_str(), &at.row.to_string())))
            .update_expression(update)
            .condition_expression(conditions.join(" AND "))
            .set_expression_attribute_values(Some(values));
        let update = update.build().map_err(TableError::unavailable("add to a row"))?;
        Ok(Some(TransactWriteItem::builder().update(update).build()))
    }
}

/// The expression that adds to attributes, on what conditions they have room for it, and the values that takes.
fn adding<const N: usize>(more: [(&str, Amount); N]) -> (String, Vec<String>, Item) {
    let (mut conditions, mut values) = (Vec::new(), Item::new());
    let adds = more.map(|(attribute, more)| {
        let (least, most) = room(more);
        let named = [("add", more), ("least", least), ("most", most)];
        values.extend(named.map(|(name, amount)| (format!(":{name}_{attribute}"), n(amount))));
        conditions.push(format!(
            "(attribute_not_exists({attribute}) OR {attribute} BETWEEN :least_{attribute} AND :most_{attribute})"
        ));
        format!("{attribute} :add_{attribute}")
    });
    (format!("ADD {}", adds.join(", ")), conditions, values)
}

/// Between which amounts one must be for this to be added to it.
fn room(more: Amount) -> (Amount, Amount) {
    let end = |bound: Amount, wrong_way: bool| {
        if wrong_way { bound.checked_add(-more).unwrap_or(bound) } else { bound }
    };
    (end(-Amount::MAX, more.is_negative()), end(Amount::MAX, more.is_positive()))
}

fn day(shop: &ShopId, item: &Item) -> Option<Result<DayRow, TableError>> {
    match from_item(shop, item) {
        Ok(Some(ReadRow::Day(day))) => Some(Ok(day)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    }
}

/// Which of a transaction's writes their rows refuse, by their places: by their conditions, or because they hold what
/// cannot be added to.
fn refused(error: &SdkError<TransactWriteItemsError>) -> Vec<usize> {
    match error.as_service_error() {
        Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
            let reasons = cancelled.cancellation_reasons().iter().enumerate();
            let by_row = [Some("ConditionalCheckFailed"), Some("ValidationError")];
            reasons.filter(|(_, reason)| by_row.contains(&reason.code())).map(|(place, _)| place).collect()
        }
        _ => Vec::new(),
    }
}

/// A time as the table compares it: as text, and so always as long.
fn stored(at: Timestamp) -> AttributeValue {
    s(format!("{at:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_amount() -> impl Strategy<Value = Amount> {
        let whole = prop_oneof![0u64..10, (u64::MAX - 9)..=u64::MAX];
        (whole, 0u32..10, any::<bool>()).prop_map(|(n, decimals, negative)| {
            let text = format!("{}{n}.{decimals}", if negative { "-" } else { "" });
            let near_the_end = Amount::MAX.to_string().replacen("99", "9", 1);
            let text = if decimals == 9 { near_the_end } else { text };
            Amount::from_stored(&text).unwrap()
        })
    }

    proptest! {
        /// A row is let through exactly if what it then holds is an amount.
        #[test]
        fn room_is_where_a_sum_is_an_amount(is in any_amount(), more in any_amount(), at_end in any::<bool>()) {
            let is = if at_end { if is.is_negative() { -Amount::MAX } else { Amount::MAX } } else { is };
            let (least, most) = room(more);
            prop_assert_eq!((least..=most).contains(&is), is.checked_add(more).is_some());
        }
    }
}
