use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ConditionCheck, Delete, TransactWriteItem, Update};
use jiff::Timestamp;
use jiff::civil::Date;
use kassa_bus::amount::Amount;
use kassa_bus::{ItemNo, ShopId, trace};
use serde::Serialize;

use crate::posting::{Position, Row, RowKey, Sequence, Sum, Sums};
use crate::row::{DayRow, ReadRow, from_item};
use kassa_bus::shops_table::{ShopsTable, key};
use kassa_bus::table::{Item, TableError, n, s, text};

/// Why a step was not written.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The checkpoint was moved by somebody else: read it anew.
    #[error("another projector moved the checkpoint")]
    Moved,
    /// A rebuild is writing the rows: wait for it.
    #[error("a rebuild holds the read models")]
    Held,
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
}

/// Partition of rows about projecting itself; no shop can have this id.
const PROJECTION: &str = "#projection";
const HOLD: &str = "rebuild";
const HOLDS: &str = "holder = :holder";
const SHARD: &str = "shard#";

/// The right to write rows while projecting is stopped.
pub struct Hold(String);

/// A step's writes before those of its rows: the hold and the checkpoint.
const BEFORE_ROWS: usize = 2;

/// Rows one step may change: a transaction takes 100 writes.
pub const STEP_ROWS: usize = 100 - BEFORE_ROWS;

impl ReadModel {
    #[must_use]
    pub fn new(client: Client, table: impl Into<Arc<str>>) -> Self {
        Self { table: ShopsTable::new(client, table) }
    }

    /// All of a shop's rows, by record type.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn rows(&self, shop: &ShopId) -> Result<Vec<ReadRow>, TableError> {
        let items = self.table.rows(shop.as_str()).await?;
        items.iter().filter_map(|item| from_item(shop, item).transpose()).collect()
    }

    /// A shop's days from one to another, both included, as far as they had sales.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn days(
        &self,
        shop: &ShopId,
        from: Date,
        to: Date,
    ) -> Result<BTreeMap<Date, DayRow>, TableError> {
        let [first, last] = [from, to].map(|date| Row::Day(date).to_string());
        let items = self.table.rows_between(shop.as_str(), &first, &last).await?;
        let day = |item| match from_item(shop, item) {
            Ok(Some(ReadRow::Day(row))) => Some(Ok((row.date()?, row))),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        };
        items.iter().filter_map(day).collect()
    }

    /// A shop's last days with sales, the last first.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn last_days(&self, shop: &ShopId, limit: i32) -> Result<Vec<DayRow>, TableError> {
        let items = self.table.last_like(shop.as_str(), "d-", limit).await?;
        let rows = items.iter().filter_map(|item| from_item(shop, item).transpose());
        rows.filter_map(|row| match row {
            Ok(ReadRow::Day(day)) => Some(Ok(day)),
            Ok(ReadRow::Item(_)) => None,
            Err(error) => Some(Err(error)),
        })
        .collect()
    }

    /// Whether somebody declared the item.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn is_declared(&self, key: &RowKey) -> Result<bool, TableError> {
        let row = self.table.row(key.shop_id.as_str(), &key.row.to_string()).await?;
        Ok(row.is_some_and(|row| row.contains_key("item_description")))
    }

    /// How far a shard of the event stream has come.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn checkpoint(&self, shard: &str) -> Result<Option<Position>, TableError> {
        self.table.row(PROJECTION, &shard_row(shard)).await?.as_ref().map(position).transpose()
    }

    /// How far each shard has come that has come anywhere.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn checkpoints(&self) -> Result<BTreeMap<String, Position>, TableError> {
        let rows = self.table.rows(PROJECTION).await?;
        let shards =
            rows.iter().filter_map(|row| Some((text(row, "record_type")?.strip_prefix(SHARD)?, row)));
        shards.map(|(shard, row)| Ok((shard.to_owned(), position(row)?))).collect()
    }

    /// Forgets how far each shard has come, and that a rebuild was going on: in a table that was restored beside another
    /// stream, they are of shards that there are none of. Says how many rows that were.
    ///
    /// # Errors
    /// [`TableError`]; some may be forgotten.
    pub async fn forget_positions(&self) -> Result<usize, TableError> {
        let rows = self.table.rows(PROJECTION).await?;
        for row in &rows {
            let row = key(PROJECTION, text(row, "record_type").unwrap_or_default());
            let delete = self.table.client.delete_item().table_name(&*self.table.name).set_key(Some(row));
            delete.send().await.map_err(TableError::unavailable("forget a position"))?;
        }
        Ok(rows.len())
    }

    /// Adds sums to their rows and moves the shard's checkpoint, both or neither.
    ///
    /// A row's `last_at` only grows: on the rare occasion that another shard, or an earlier batch, brought a later
    /// one, the step is written again without it.
    ///
    /// # Errors
    /// [`StepError`]; nothing was changed.
    pub async fn step(
        &self,
        shard: &str,
        from: Option<&Position>,
        to: &Position,
        sums: &Sums,
    ) -> Result<(), StepError> {
        let mut outdated: Vec<usize> = Vec::new();
        loop {
            let mut writes = Vec::with_capacity(sums.len() + BEFORE_ROWS);
            writes.push(self.unless_held().map_err(StepError::Table)?);
            writes.push(self.move_checkpoint(shard, from, to)?);
            for (place, (key, sum)) in (BEFORE_ROWS..).zip(sums) {
                let last_at = sum.last_at.filter(|_| !outdated.contains(&place));
                writes.push(self.add(key, &Sum { last_at, ..*sum })?);
            }
            let write = self.table.client.transact_write_items().set_transact_items(Some(writes));
            let span = trace::table("TransactWriteItems", &self.table.name);
            let Err(error) = write.send().await else { return Ok(()) };
            match &refused(&error)[..] {
                [0, ..] => return Err(StepError::Held),
                [1, ..] => return Err(StepError::Moved),
                [] => {
                    let failed = TableError::unavailable("write a projection step")(error);
                    return span.ends("table", Err(failed)).map_err(StepError::Table);
                }
                // Written without its condition, none of them is refused again.
                rows => outdated.extend(rows),
            }
        }
    }

    fn unless_held(&self) -> Result<TransactWriteItem, TableError> {
        let check = ConditionCheck::builder()
            .table_name(&*self.table.name)
            .set_key(Some(key(PROJECTION, HOLD)))
            .condition_expression("attribute_not_exists(record_type)")
            .build()
            .map_err(TableError::unavailable("check for a rebuild"))?;
        Ok(TransactWriteItem::builder().condition_check(check).build())
    }

    fn while_holding(&self, hold: &Hold) -> Result<TransactWriteItem, TableError> {
        let check = ConditionCheck::builder()
            .table_name(&*self.table.name)
            .set_key(Some(key(PROJECTION, HOLD)))
            .condition_expression(HOLDS)
            .expression_attribute_values(":holder", s(&hold.0))
            .build()
            .map_err(TableError::unavailable("check the hold"))?;
        Ok(TransactWriteItem::builder().condition_check(check).build())
    }

    fn move_checkpoint(
        &self,
        shard: &str,
        from: Option<&Position>,
        to: &Position,
    ) -> Result<TransactWriteItem, TableError> {
        let mut update = Update::builder()
            .table_name(&*self.table.name)
            .set_key(Some(key(PROJECTION, &shard_row(shard))))
            .expression_attribute_names("#sequence", "sequence")
            .expression_attribute_names("#partial", "partial")
            .expression_attribute_values(":sequence", s(&to.sequence.0));
        update = match to.partial {
            None => update.update_expression("SET #sequence = :sequence REMOVE #partial"),
            Some(posting) => update
                .update_expression("SET #sequence = :sequence, #partial = :partial")
                .expression_attribute_values(":partial", n(posting)),
        };
        update = match from {
            None => update.condition_expression("attribute_not_exists(#sequence)"),
            Some(Position { sequence, partial: None }) => update
                .condition_expression("#sequence = :from AND attribute_not_exists(#partial)")
                .expression_attribute_values(":from", s(&sequence.0)),
            Some(Position { sequence, partial: Some(posting) }) => update
                .condition_expression("#sequence = :from AND #partial = :from_partial")
                .expression_attribute_values(":from", s(&sequence.0))
                .expression_attribute_values(":from_partial", n(posting)),
        };
        let update = update.build().map_err(TableError::unavailable("move the checkpoint"))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    fn add(&self, at: &RowKey, sum: &Sum) -> Result<TransactWriteItem, TableError> {
        let mut update = Update::builder()
            .table_name(&*self.table.name)
            .set_key(Some(key(at.shop_id.as_str(), &at.row.to_string())))
            .expression_attribute_values(":number", n(sum.number))
            .expression_attribute_values(":turnover", n(sum.turnover));
        update = match (at.row, sum.last_at) {
            (Row::Day(_), None) => update.update_expression("ADD sales :number, turnover :turnover"),
            (Row::Day(_), Some(last_at)) => update
                .update_expression("ADD sales :number, turnover :turnover SET last_at = :last_at")
                .condition_expression("attribute_not_exists(last_at) OR last_at <= :last_at")
                .expression_attribute_values(":last_at", stored(last_at)),
            (Row::Item(_), _) => update
                .update_expression("ADD gross_number :number, gross_turnover :turnover, stock :stock")
                .expression_attribute_values(":stock", n(-sum.number)),
        };
        let update = update.build().map_err(TableError::unavailable("add to a row"))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    /// Stops projecting until [`ReadModel::release`], also across a crash. Whoever held it before has
    /// lost it: a rebuild that was cut off is begun anew, and of two at once the first gives up.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn hold(&self) -> Result<Hold, TableError> {
        let hold = Hold(uuid::Uuid::new_v4().to_string());
        let mut row = key(PROJECTION, HOLD);
        row.insert("holder".into(), s(&hold.0));
        let put = self.table.client.put_item().table_name(&*self.table.name).set_item(Some(row));
        put.send().await.map(|_| hold).map_err(TableError::unavailable("hold the projection"))
    }

    /// Lets projecting go on after a rebuild up to the checkpoints, whose events the rows now contain
    /// whole.
    ///
    /// # Errors
    /// [`TableError`], also if another rebuild took the hold over.
    pub async fn release(
        &self,
        hold: &Hold,
        checkpoints: &BTreeMap<String, Position>,
    ) -> Result<(), TableError> {
        let delete = Delete::builder()
            .table_name(&*self.table.name)
            .set_key(Some(key(PROJECTION, HOLD)))
            .condition_expression(HOLDS)
            .expression_attribute_values(":holder", s(&hold.0))
            .build()
            .map_err(TableError::unavailable("release the projection"))?;
        let mut writes = vec![TransactWriteItem::builder().delete(delete).build()];
        for (shard, position) in checkpoints.iter().filter(|(_, position)| position.partial.is_some()) {
            let whole = Position { partial: None, ..position.clone() };
            writes.push(self.move_checkpoint(shard, Some(position), &whole)?);
        }
        let write = self.table.client.transact_write_items().set_transact_items(Some(writes));
        write.send().await.map(|_| ()).map_err(TableError::unavailable("release the projection"))
    }

    /// Whether a rebuild began and did not end.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn is_held(&self) -> Result<bool, TableError> {
        Ok(self.table.row(PROJECTION, HOLD).await?.is_some())
    }

    /// Makes the shops' rows what the sums say, whatever they were, while held.
    ///
    /// # Errors
    /// [`TableError`], also if another rebuild took the hold over; some rows may have been written,
    /// writing them again is safe.
    pub async fn replace(&self, hold: &Hold, shops: &[ShopId], sums: &Sums) -> Result<(), TableError> {
        let mut writes = Vec::new();
        for shop in shops {
            for row in self.rows(shop).await? {
                let Some(key) = row.key().filter(|key| !sums.contains_key(key)) else { continue };
                let declared = matches!(&row, ReadRow::Item(item) if item.item_description.is_some());
                writes.push(if declared {
                    self.set(&key, &Sum::default())?
                } else {
                    self.delete(key.shop_id.as_str(), &key.row.to_string())?
                });
            }
        }
        for (key, sum) in sums {
            writes.push(self.set(key, sum)?);
        }
        for chunk in writes.chunks(STEP_ROWS) {
            let writes = [&[self.while_holding(hold)?], chunk].concat();
            let write = self.table.client.transact_write_items().set_transact_items(Some(writes));
            write.send().await.map_err(TableError::unavailable("replace rows"))?;
        }
        Ok(())
    }

    fn set(&self, at: &RowKey, sum: &Sum) -> Result<TransactWriteItem, TableError> {
        let mut update = Update::builder()
            .table_name(&*self.table.name)
            .set_key(Some(key(at.shop_id.as_str(), &at.row.to_string())))
            .expression_attribute_values(":number", n(sum.number))
            .expression_attribute_values(":turnover", n(sum.turnover));
        update = match (at.row, sum.last_at) {
            (Row::Day(_), None) => update.update_expression("SET sales = :number, turnover = :turnover"),
            (Row::Day(_), Some(last_at)) => update
                .update_expression("SET sales = :number, turnover = :turnover, last_at = :last_at")
                .expression_attribute_values(":last_at", stored(last_at)),
            (Row::Item(_), _) => update
                .update_expression(
                    "SET gross_number = :number, gross_turnover = :turnover, \
                     stock = if_not_exists(opening_stock, :none) - :number",
                )
                .expression_attribute_values(":none", n(0)),
        };
        let update = update.build().map_err(TableError::unavailable("replace a row"))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    fn delete(&self, shop: &str, record_type: &str) -> Result<TransactWriteItem, TableError> {
        let delete = Delete::builder()
            .table_name(&*self.table.name)
            .set_key(Some(key(shop, record_type)))
            .build()
            .map_err(TableError::unavailable("delete a row"))?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }

    /// Declares an item: description, price, and the stock the shop opened with. Sales counted so far
    /// stay counted, also if the opening stock changes.
    ///
    /// # Errors
    /// [`TableError`]; also if two do it at once, of whom one succeeded.
    pub async fn declare(&self, shop: &ShopId, item: &DeclaredItem) -> Result<(), TableError> {
        let record_type = Row::Item(item.item_no).to_string();
        let before = self.table.row(shop.as_str(), &record_type).await?;
        let opening = before.as_ref().and_then(|row| text(row, "opening_stock"));
        let opening = opening.and_then(|t| Amount::from_stored(t).ok());
        let update = self
            .table
            .client
            .update_item()
            .table_name(&*self.table.name)
            .set_key(Some(key(shop.as_str(), &record_type)))
            .update_expression(
                "SET item_description = :description, selling_price = :price, opening_stock = :opening, \
                 stock = if_not_exists(stock, :none) + :more, \
                 gross_number = if_not_exists(gross_number, :none), \
                 gross_turnover = if_not_exists(gross_turnover, :none)",
            )
            .condition_expression("opening_stock = :before OR attribute_not_exists(opening_stock)")
            .expression_attribute_values(":description", s(&item.description))
            .expression_attribute_values(":price", n(item.price))
            .expression_attribute_values(":opening", n(item.opening_stock))
            .expression_attribute_values(":before", n(opening.unwrap_or_default()))
            .expression_attribute_values(":more", n(item.opening_stock - opening.unwrap_or_default()))
            .expression_attribute_values(":none", n(0));
        update
            .send()
            .await
            .map(|_| ())
            .map_err(TableError::unavailable::<SdkError<UpdateItemError>>("declare an item"))
    }
}

/// Which of a transaction's writes were refused by their conditions, by their places.
fn refused(error: &SdkError<TransactWriteItemsError>) -> Vec<usize> {
    match error.as_service_error() {
        Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
            let reasons = cancelled.cancellation_reasons().iter().enumerate();
            let refused = reasons.filter(|(_, reason)| reason.code() == Some("ConditionalCheckFailed"));
            refused.map(|(place, _)| place).collect()
        }
        _ => Vec::new(),
    }
}

/// A time as the table compares it: as text, and so always as long.
fn stored(at: Timestamp) -> AttributeValue {
    s(format!("{at:.3}"))
}

fn shard_row(shard: &str) -> String {
    format!("{SHARD}{shard}")
}

fn position(row: &Item) -> Result<Position, TableError> {
    let name = text(row, "record_type").unwrap_or_default();
    let wrong = |attribute| TableError::Attribute { row: format!("{PROJECTION} {name}"), attribute };
    let sequence = text(row, "sequence").ok_or_else(|| wrong("sequence"))?;
    let partial = text(row, "partial").map(|t| t.parse().map_err(|_| wrong("partial"))).transpose()?;
    Ok(Position { sequence: Sequence(sequence.to_owned()), partial })
}
