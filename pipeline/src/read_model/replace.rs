//! What a rebuild writes: each row anew, whatever it was, for as long as it holds.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{Delete, TransactWriteItem, Update};
use kassa_bus::ShopId;
use kassa_bus::shops_table::key;
use kassa_bus::table::{Item, TableError, n, text};

use super::{ReadModel, STEP_ROWS, Writes, stored};
use crate::checkpoint::{self, Checkpoint, PROJECTION};
use crate::hold::Hold;
use crate::posting::{Position, Row, RowKey, Sum, Sums};
use crate::row::amount;

impl ReadModel {
    /// Has a shard begin anew after a position, while held: up to there the rows are then written. Without one it begins
    /// at its beginning.
    ///
    /// # Errors
    /// [`TableError`], also if another rebuild took the hold over.
    pub async fn begin_after(
        &self,
        hold: &Hold,
        (shard, from): (&str, &Checkpoint),
        position: Option<&Position>,
    ) -> Result<(), TableError> {
        let checkpoint = match position {
            Some(position) => self.move_checkpoint(shard, from, position)?,
            None => self.forget_checkpoint(shard, from)?,
        };
        let writes = vec![self.holds.while_holding(hold)?, checkpoint];
        let write = self.table.client.transact_write_items().set_transact_items(Some(writes));
        write.send().await.map(drop).map_err(TableError::unavailable("set a checkpoint"))
    }

    fn forget_checkpoint(&self, shard: &str, from: &Checkpoint) -> Result<TransactWriteItem, TableError> {
        let (condition, values) = from.unchanged();
        let delete = Delete::builder()
            .table_name(&*self.table.name)
            .set_key(Some(key(PROJECTION, &checkpoint::row_of(shard))))
            .condition_expression(condition)
            .expression_attribute_names("#sequence", "sequence")
            .expression_attribute_names("#partial", "partial")
            .set_expression_attribute_values(Some(values).filter(|values| !values.is_empty()));
        let delete = delete.build().map_err(TableError::unavailable("forget a checkpoint"))?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }

    /// Makes the shops' rows what the sums say, whatever they were, while held. Each is then right for the checkpoints,
    /// so that projecting may go on whenever this ends. Says which rows could not be made right, or not wholly.
    ///
    /// # Errors
    /// [`TableError`], also if another rebuild took the hold over; some rows may have been written,
    /// writing them again is safe.
    pub async fn replace(
        &self,
        hold: &Hold,
        shops: &[ShopId],
        sums: &Sums,
    ) -> Result<Vec<String>, TableError> {
        let (mut rows, mut deletes, mut told) = (Vec::new(), Vec::new(), Vec::new());
        let mut undeclared: HashMap<RowKey, Vec<&str>> = HashMap::new();
        for shop in shops {
            for item in self.items(shop).await? {
                let record_type = text(&item, "record_type").unwrap_or_default();
                let Some(row) = Row::parse(record_type) else {
                    if Row::is_meant_by(record_type) {
                        deletes.push(self.delete(shop.as_str(), record_type)?);
                    }
                    continue;
                };
                let key = RowKey { shop_id: shop.clone(), row };
                let declared = matches!(row, Row::Item(_)) && item.contains_key("item_description");
                let wrong = wrong_declaration(&item);
                if declared && !wrong.is_empty() {
                    told.push(format!(
                        "{shop} {row}: {} could not be read and was removed",
                        wrong.join(", ")
                    ));
                }
                if !declared && !sums.contains_key(&key) {
                    deletes.push(self.delete(shop.as_str(), record_type)?);
                    continue;
                }
                if !sums.contains_key(&key) {
                    rows.push(self.set(&key, &Sum::default(), &wrong)?);
                }
                undeclared.insert(key, wrong);
            }
        }
        for (key, sum) in sums {
            let wrong = undeclared.get(key).map(Vec::as_slice).unwrap_or_default();
            rows.push(self.set(key, sum, wrong)?);
        }
        let condition = self.holds.while_holding(hold)?;
        for deletes in deletes.chunks(STEP_ROWS) {
            let before = [std::slice::from_ref(&condition), deletes].concat();
            self.write(&before, &mut Vec::new()).await?.map_err(|_| lost())?;
        }
        while !rows.is_empty() {
            let mut some = rows.split_off(rows.len().saturating_sub(STEP_ROWS));
            let skipped =
                self.write(std::slice::from_ref(&condition), &mut some).await?.map_err(|_| lost())?;
            let skipped = skipped.into_iter().map(|RowKey { shop_id, row }| {
                format!("{shop_id} {row}: it cannot hold what the events add up to, and is left as it was")
            });
            told.extend(skipped);
        }
        Ok(told)
    }

    /// What a row is to say, whatever it was; of what was declared, without what cannot be read.
    fn set(&self, at: &RowKey, sum: &Sum, wrong: &[&str]) -> Result<Writes, TableError> {
        let row = at.clone();
        let (Some(number), Some(turnover)) = (sum.number.amount(), sum.turnover.amount()) else {
            return Ok(Writes { key: row, ways: Vec::new() });
        };
        let mut update = Update::builder()
            .table_name(&*self.table.name)
            .set_key(Some(key(at.shop_id.as_str(), &at.row.to_string())))
            .expression_attribute_values(":number", n(number))
            .expression_attribute_values(":turnover", n(turnover));
        let mut expression = match at.row {
            Row::Day(_) => "SET sales = :number, turnover = :turnover".to_owned(),
            Row::Item(_) => {
                let opening =
                    if wrong.contains(&OPENING) { ":none" } else { "if_not_exists(opening_stock, :none)" };
                update = update.expression_attribute_values(":none", n(0));
                format!("SET gross_number = :number, gross_turnover = :turnover, stock = {opening} - :number")
            }
        };
        if let Some(last_at) = sum.last_at {
            expression.push_str(", last_at = :last_at");
            update = update.expression_attribute_values(":last_at", stored(last_at));
        }
        if matches!(at.row, Row::Item(_)) && !wrong.is_empty() {
            expression.push_str(&format!(" REMOVE {}", wrong.join(", ")));
        }
        let update =
            update.update_expression(expression).build().map_err(TableError::unavailable("replace a row"))?;
        Ok(Writes { key: row, ways: vec![TransactWriteItem::builder().update(update).build()] })
    }

    fn delete(&self, shop: &str, record_type: &str) -> Result<TransactWriteItem, TableError> {
        let delete = Delete::builder()
            .table_name(&*self.table.name)
            .set_key(Some(key(shop, record_type)))
            .build()
            .map_err(TableError::unavailable("delete a row"))?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }
}

fn lost() -> TableError {
    TableError::unavailable("write rows")(std::io::Error::other("another rebuild took over"))
}

const OPENING: &str = "opening_stock";

/// Which attributes of an item's row that a declaration wrote cannot be read.
fn wrong_declaration(item: &Item) -> Vec<&'static str> {
    let amounts = [OPENING, "selling_price"].into_iter();
    amounts.filter(|name| amount(item, name).is_some_and(|amount| amount.is_err())).collect()
}
