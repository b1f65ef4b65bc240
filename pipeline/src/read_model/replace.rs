//! What a rebuild writes: each row anew, whatever it was, for as long as it holds.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, Delete, TransactWriteItem, Update};
use jiff::civil::Date;
use kassa_bus::shops_table::key;
use kassa_bus::table::{Item, TableError, n, text};
use kassa_bus::{ItemNo, ShopId};

use super::shared::Revision;
use super::{ReadModel, STEP_ROWS, TRIES, Writes, stored};
use crate::checkpoint::{self, Checkpoint, PROJECTION};
use crate::hold::Hold;
use crate::own_rows::RowSums;
use crate::posting::{Position, Row, RowKey, Sum};
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

    /// Makes a shop's rows what the sums say, whatever they were, while held, as of a revision of the row that items share.
    /// Each row is then right for the checkpoints, so that projecting may go on whenever this ends; but where items share
    /// one, the shop needs another rebuild until all are written, and says so. Says which rows could not be made right, or
    /// not wholly.
    ///
    /// # Errors
    /// [`TableError`], also if another rebuild took the hold over, or if items were declared since the revision; some rows
    /// may have been written, writing them again is safe.
    pub async fn replace(
        &self,
        hold: &Hold,
        (shop, revision): (&ShopId, &Revision),
        rows: &RowSums,
    ) -> Result<Vec<String>, TableError> {
        let key = |row| RowKey { shop_id: shop.clone(), row };
        let other = rows.sums.get(&key(Row::Other));
        let was = self.other(shop).await?;
        let shares = other.is_some() || was.is_some_and(|was| was.len() > OTHER_EMPTY);
        if shares {
            let expression = "SET revision = :next, #rebuild = :rebuild";
            self.write_other(hold, shop, revision, expression, &[(":rebuild", AttributeValue::Bool(true))])
                .await?
                .map_err(|_| changed())?;
        }
        let mut told = self.replace_rows(hold, shop, rows).await?;
        if shares {
            let above = rows.own.get(shop).and_then(|own| own.above);
            told.extend(self.replace_other(hold, shop, &revision.next(), other.copied(), above).await?);
        }
        Ok(told)
    }

    async fn replace_rows(
        &self,
        hold: &Hold,
        shop: &ShopId,
        rows: &RowSums,
    ) -> Result<Vec<String>, TableError> {
        let (mut told, mut cursor) = (Vec::new(), None);
        let mut undeclared: HashMap<Row, Vec<&str>> = HashMap::new();
        loop {
            let (page, next) = self.items(shop, "", cursor).await?;
            let (mut deletes, mut empty) = (Vec::new(), Vec::new());
            for item in page {
                let record_type = text(&item, "record_type").unwrap_or_default();
                let Some(row) = Row::parse(record_type) else {
                    if Row::is_meant_by(record_type) {
                        deletes.push(self.delete(shop, record_type)?);
                    }
                    continue;
                };
                let key = RowKey { shop_id: shop.clone(), row };
                if row == Row::Other {
                    continue;
                }
                let declared = matches!(row, Row::Item(_)) && item.contains_key("item_description");
                let wrong = wrong_declaration(&item);
                if declared && !wrong.is_empty() {
                    told.push(format!(
                        "{shop} {row}: {} could not be read and was removed",
                        wrong.join(", ")
                    ));
                }
                match (rows.sums.contains_key(&key), declared) {
                    (true, _) if wrong.is_empty() => {}
                    (true, _) => drop(undeclared.insert(row, wrong)),
                    (false, true) => empty.push(self.set(&key, &Sum::default(), &wrong)?),
                    (false, false) => deletes.push(self.delete(shop, record_type)?),
                }
            }
            // What was declared meanwhile stays.
            self.write_all(hold, deletes).await?;
            told.extend(left(self.write_all(hold, empty).await?));
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        let first = RowKey { shop_id: shop.clone(), row: Row::Day(Date::MIN) };
        let of_shop = rows.sums.range(first..).take_while(|(key, _)| key.shop_id == *shop);
        let of_shop = of_shop.filter(|(key, _)| key.row != Row::Other);
        let set = |(key, sum): (&RowKey, &Sum)| {
            let wrong = undeclared.get(&key.row).map(Vec::as_slice).unwrap_or_default();
            self.set(key, sum, wrong)
        };
        let sets = of_shop.map(set).collect::<Result<Vec<_>, _>>()?;
        told.extend(left(self.write_all(hold, sets).await?));
        Ok(told)
    }

    /// Writes rows while held, as many at once as a transaction takes. Answers those that could not be written.
    async fn write_all(&self, hold: &Hold, mut rows: Vec<Writes>) -> Result<Vec<RowKey>, TableError> {
        let (condition, mut skipped) = (self.holds.while_holding(hold)?, Vec::new());
        while !rows.is_empty() {
            let mut some = rows.split_off(rows.len().saturating_sub(STEP_ROWS));
            let written = self.write(std::slice::from_ref(&condition), &mut some).await?;
            skipped.extend(written.map_err(|_| lost())?);
        }
        Ok(skipped)
    }

    /// What the row that items share is to say. If items were declared since the rebuild began, another is needed.
    async fn replace_other(
        &self,
        hold: &Hold,
        shop: &ShopId,
        begun: &Revision,
        sum: Option<Sum>,
        above: Option<ItemNo>,
    ) -> Result<Option<String>, TableError> {
        let sum = sum.unwrap_or_default();
        let (Some(number), Some(turnover), Some(sold)) =
            (sum.number.amount(), sum.turnover.amount(), (-sum.number).amount())
        else {
            return Ok(left([RowKey { shop_id: shop.clone(), row: Row::Other }]).next());
        };
        for _ in 0..TRIES {
            let revision = Revision::from_item(self.other(shop).await?.as_ref());
            let mut remove = Vec::from_iter((revision == *begun).then_some("#rebuild"));
            let mut values: Vec<(&str, AttributeValue)> = Vec::new();
            let mut expression = "SET revision = :next".to_owned();
            if let Some(above) = above {
                expression.push_str(
                    ", above = :above, gross_number = :number, gross_turnover = :turnover, stock = :sold",
                );
                values = [(":number", n(number)), (":turnover", n(turnover)), (":sold", n(sold))].into();
                values.push((":above", n(above)));
            } else {
                remove.extend(["above", "gross_number", "gross_turnover", "stock"]);
            }
            if !remove.is_empty() {
                expression.push_str(&format!(" REMOVE {}", remove.join(", ")));
            }
            if self.write_other(hold, shop, &revision, &expression, &values).await?.is_ok() {
                return Ok(None);
            }
        }
        Err(changed())
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
            Row::Item(_) | Row::Other => {
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
        Ok(Writes { key: row, ways: vec![TransactWriteItem::builder().update(update).build().into()] })
    }

    /// Deletes a row: an item's only if nobody declared it.
    fn delete(&self, shop: &ShopId, record_type: &str) -> Result<Writes, TableError> {
        let undeclared = Row::parse(record_type).map(|_| "attribute_not_exists(item_description)".to_owned());
        let delete = Delete::builder()
            .table_name(&*self.table.name)
            .set_key(Some(key(shop.as_str(), record_type)))
            .set_condition_expression(undeclared)
            .build()
            .map_err(TableError::unavailable("delete a row"))?;
        // What it is called is told of what cannot be written, which a deletion always can.
        let row = Row::parse(record_type).unwrap_or(Row::Day(Date::MIN));
        let key = RowKey { shop_id: shop.clone(), row };
        Ok(Writes { key, ways: vec![TransactWriteItem::builder().delete(delete).build().into()] })
    }
}

fn left(rows: impl IntoIterator<Item = RowKey>) -> impl Iterator<Item = String> {
    rows.into_iter().map(|RowKey { shop_id, row }| {
        format!("{shop_id} {row}: it cannot hold what the events add up to, and is left as it was")
    })
}

fn lost() -> TableError {
    TableError::unavailable("write rows")(std::io::Error::other("another rebuild took over"))
}

fn changed() -> TableError {
    let why = std::io::Error::other("items were declared since the rebuild began: run it again");
    TableError::unavailable("write rows")(why)
}

/// Attributes of the row that items share while there are none: its key and revision.
const OTHER_EMPTY: usize = 3;

const OPENING: &str = "opening_stock";

/// Which attributes of an item's row that a declaration wrote cannot be read.
fn wrong_declaration(item: &Item) -> Vec<&'static str> {
    let amounts = [OPENING, "selling_price"].into_iter();
    amounts.filter(|name| amount(item, name).is_some_and(|amount| amount.is_err())).collect()
}
