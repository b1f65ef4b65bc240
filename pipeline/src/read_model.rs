use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{ConditionCheck, Delete, TransactWriteItem, Update};
use kassa_bus::amount::Amount;
use kassa_bus::{ItemNo, ShopId};

use crate::posting::{Position, Row, RowKey, Sequence, Sum, Sums};
use crate::row::{ReadRow, from_item};
use crate::table::{Item, PAGE, TableError, n, s, text};

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredItem {
    pub item_no: ItemNo,
    pub description: String,
    pub price: Amount,
    pub opening_stock: Amount,
}

/// What declaring an item did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declared {
    Created,
    Changed,
    AsItWas,
}

/// The read models, in the shops table: stock and turnover per shop.
#[derive(Clone)]
pub struct ReadModel {
    client: Client,
    table: Arc<str>,
}

/// Partition of rows about projecting itself; no shop can have this id.
const PROJECTION: &str = "#projection";
const HOLD: &str = "rebuild";

/// Rows one step may change: a transaction takes 100 writes, two are the checkpoint and the hold.
pub const STEP_ROWS: usize = 98;

impl ReadModel {
    #[must_use]
    pub fn new(client: Client, table: impl Into<Arc<str>>) -> Self {
        Self { client, table: table.into() }
    }

    /// All of a shop's rows, by record type.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn rows(&self, shop: &ShopId) -> Result<Vec<ReadRow>, TableError> {
        let mut rows = Vec::new();
        let mut cursor = None;
        loop {
            let query = self
                .client
                .query()
                .table_name(&*self.table)
                .consistent_read(true)
                .limit(PAGE)
                .set_exclusive_start_key(cursor)
                .key_condition_expression("shop_id = :shop")
                .expression_attribute_values(":shop", s(shop.as_str()));
            let page = query.send().await.map_err(TableError::unavailable("read the shops table"))?;
            for item in page.items() {
                rows.extend(from_item(shop, item)?);
            }
            cursor = page.last_evaluated_key;
            if cursor.is_none() {
                return Ok(rows);
            }
        }
    }

    /// Whether somebody declared the item.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn is_declared(&self, key: &RowKey) -> Result<bool, TableError> {
        let row = self.get(key.shop_id.as_str(), &key.row.to_string()).await?;
        Ok(row.is_some_and(|row| row.contains_key("item_description")))
    }

    /// How far a shard of the event stream has come.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn checkpoint(&self, shard: &str) -> Result<Option<Position>, TableError> {
        let wrong = |attribute| TableError::Attribute {
            row: format!("{PROJECTION} {}", shard_row(shard)),
            attribute,
        };
        let Some(row) = self.get(PROJECTION, &shard_row(shard)).await? else { return Ok(None) };
        let sequence = text(&row, "sequence").ok_or_else(|| wrong("sequence"))?;
        let partial = text(&row, "partial").map(|t| t.parse().map_err(|_| wrong("partial"))).transpose()?;
        Ok(Some(Position { sequence: Sequence(sequence.to_owned()), partial }))
    }

    /// Adds sums to their rows and moves the shard's checkpoint, both or neither.
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
        let mut writes = Vec::with_capacity(sums.len() + 2);
        writes.push(self.unless_held().map_err(StepError::Table)?);
        writes.push(self.move_checkpoint(shard, from, to)?);
        for (key, sum) in sums {
            writes.push(self.add(key, sum)?);
        }
        let written = self.client.transact_write_items().set_transact_items(Some(writes)).send().await;
        written.map(|_| ()).map_err(step_error)
    }

    fn unless_held(&self) -> Result<TransactWriteItem, TableError> {
        let check = ConditionCheck::builder()
            .table_name(&*self.table)
            .set_key(Some(key(PROJECTION, HOLD)))
            .condition_expression("attribute_not_exists(record_type)")
            .build()
            .map_err(TableError::unavailable("check for a rebuild"))?;
        Ok(TransactWriteItem::builder().condition_check(check).build())
    }

    fn move_checkpoint(
        &self,
        shard: &str,
        from: Option<&Position>,
        to: &Position,
    ) -> Result<TransactWriteItem, TableError> {
        let mut update = Update::builder()
            .table_name(&*self.table)
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
            .table_name(&*self.table)
            .set_key(Some(key(at.shop_id.as_str(), &at.row.to_string())))
            .expression_attribute_values(":number", n(sum.number))
            .expression_attribute_values(":turnover", n(sum.turnover));
        update = match at.row {
            Row::Day(_) => update.update_expression("ADD sales :number, turnover :turnover"),
            Row::Item(_) => update
                .update_expression("ADD gross_number :number, gross_turnover :turnover, stock :stock")
                .expression_attribute_values(":stock", n(-sum.number)),
        };
        let update = update.build().map_err(TableError::unavailable("add to a row"))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    /// Stops projecting until [`ReadModel::release`], also across a crash.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn hold(&self) -> Result<(), TableError> {
        let put = self.client.put_item().table_name(&*self.table).set_item(Some(key(PROJECTION, HOLD)));
        put.send().await.map(|_| ()).map_err(TableError::unavailable("hold the projection"))
    }

    /// Lets projecting go on after a rebuild up to `position`, whose event the rows now contain whole.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn release(&self, shard: &str, position: Option<&Position>) -> Result<(), TableError> {
        let mut writes = vec![self.delete(PROJECTION, HOLD)?];
        if let Some(position) = position {
            let whole = Position { partial: None, ..position.clone() };
            writes.push(self.move_checkpoint(shard, Some(position), &whole)?);
        }
        let write = self.client.transact_write_items().set_transact_items(Some(writes));
        write.send().await.map(|_| ()).map_err(TableError::unavailable("release the projection"))
    }

    /// Whether a rebuild began and did not end.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn is_held(&self) -> Result<bool, TableError> {
        Ok(self.get(PROJECTION, HOLD).await?.is_some())
    }

    /// Makes the shops' rows what the sums say, whatever they were. Only while held.
    ///
    /// # Errors
    /// [`TableError`]; some rows may have been written, writing them again is safe.
    pub async fn replace(&self, shops: &[ShopId], sums: &Sums) -> Result<(), TableError> {
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
            let write = self.client.transact_write_items().set_transact_items(Some(chunk.to_vec()));
            write.send().await.map_err(TableError::unavailable("replace rows"))?;
        }
        Ok(())
    }

    fn set(&self, at: &RowKey, sum: &Sum) -> Result<TransactWriteItem, TableError> {
        let mut update = Update::builder()
            .table_name(&*self.table)
            .set_key(Some(key(at.shop_id.as_str(), &at.row.to_string())))
            .expression_attribute_values(":number", n(sum.number))
            .expression_attribute_values(":turnover", n(sum.turnover));
        update = match at.row {
            Row::Day(_) => update.update_expression("SET sales = :number, turnover = :turnover"),
            Row::Item(_) => update
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
            .table_name(&*self.table)
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
    pub async fn declare(&self, shop: &ShopId, item: &DeclaredItem) -> Result<Declared, TableError> {
        let record_type = Row::Item(item.item_no).to_string();
        let before = self.get(shop.as_str(), &record_type).await?;
        let stored = |name| before.as_ref().and_then(|row| text(row, name));
        let amount = |name| stored(name).and_then(|t| Amount::from_stored(t).ok());
        let opening = amount("opening_stock");
        if stored("item_description") == Some(&item.description)
            && amount("selling_price") == Some(item.price)
            && opening == Some(item.opening_stock)
        {
            return Ok(Declared::AsItWas);
        }
        let update = self
            .client
            .update_item()
            .table_name(&*self.table)
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
            .map_err(TableError::unavailable::<SdkError<UpdateItemError>>("declare an item"))?;
        Ok(if opening.is_some() { Declared::Changed } else { Declared::Created })
    }

    async fn get(&self, shop: &str, record_type: &str) -> Result<Option<Item>, TableError> {
        let get = self
            .client
            .get_item()
            .table_name(&*self.table)
            .consistent_read(true)
            .set_key(Some(key(shop, record_type)));
        Ok(get.send().await.map_err(TableError::unavailable("read the shops table"))?.item)
    }
}

/// The first two writes of a step are the hold and the checkpoint; a refusal names them by place.
fn step_error(error: SdkError<TransactWriteItemsError>) -> StepError {
    let refused = |place: usize| match error.as_service_error() {
        Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => cancelled
            .cancellation_reasons()
            .get(place)
            .is_some_and(|r| r.code() == Some("ConditionalCheckFailed")),
        _ => false,
    };
    if refused(0) {
        StepError::Held
    } else if refused(1) {
        StepError::Moved
    } else {
        StepError::Table(TableError::unavailable("write a projection step")(error))
    }
}

fn shard_row(shard: &str) -> String {
    format!("shard#{shard}")
}

fn key(shop: &str, record_type: &str) -> Item {
    HashMap::from([("shop_id".into(), s(shop)), ("record_type".into(), s(record_type))])
}
