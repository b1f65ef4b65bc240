//! Declaring items.

use aws_sdk_dynamodb::types::{TransactWriteItem, Update};
use kassa_bus::ShopId;
use kassa_bus::shops_table::key;
use kassa_bus::table::{TableError, n, s};

use super::shared::{self, Revision};
use super::{DeclaredItem, ReadModel, TRIES, refused, room};
use crate::posting::Row;

impl ReadModel {
    /// Declares an item: description, price, and the stock the shop opened with. Sales counted so far
    /// stay counted, also if the opening stock changes. Answers whether they stay in the row that items share until a
    /// rebuild, because that is where the item's were.
    ///
    /// # Errors
    /// [`TableError`]; [`TableError::Unreadable`] if what was counted is no number that can be gone on from.
    pub async fn declare(&self, shop: &ShopId, item: &DeclaredItem) -> Result<bool, TableError> {
        for _ in 0..TRIES {
            let other = self.other(shop).await?;
            let is = self.table.row(shop.as_str(), &Row::Item(item.item_no).to_string()).await?;
            let is_new = is.is_none_or(|row| !row.contains_key("item_description"));
            let shared = is_new && shared::above(other.as_ref()).is_some_and(|above| item.item_no > above);
            let mut writes = vec![self.declaration(shop, item)?];
            if is_new {
                writes.push(self.declares(shop, &Revision::from_item(other.as_ref()), shared)?);
            }
            let write = self.table.client.transact_write_items().set_transact_items(Some(writes));
            let Err(error) = write.send().await else { return Ok(shared) };
            match refused(&error).first() {
                Some(0) => {
                    let row = format!("{shop} {}", Row::Item(item.item_no));
                    return Err(TableError::Attribute { row, attribute: "gross_number" });
                }
                // Which items have rows changed meanwhile.
                Some(_) => {}
                None => return Err(TableError::unavailable("declare an item")(error)),
            }
        }
        let why = std::io::Error::other("which items have rows of their own changes all the time");
        Err(TableError::unavailable("declare an item")(why))
    }

    fn declaration(&self, shop: &ShopId, item: &DeclaredItem) -> Result<TransactWriteItem, TableError> {
        let record_type = Row::Item(item.item_no).to_string();
        let (least, most) = room(-item.opening_stock);
        let update = Update::builder()
            .table_name(&*self.table.name)
            .set_key(Some(key(shop.as_str(), &record_type)))
            .update_expression(
                "SET item_description = :description, selling_price = :price, opening_stock = :opening, \
                 stock = :opening - if_not_exists(gross_number, :none), \
                 gross_number = if_not_exists(gross_number, :none), \
                 gross_turnover = if_not_exists(gross_turnover, :none)",
            )
            .condition_expression(
                "attribute_not_exists(gross_number) OR gross_number BETWEEN :least AND :most",
            )
            .expression_attribute_values(":description", s(&item.description))
            .expression_attribute_values(":price", n(item.price))
            .expression_attribute_values(":opening", n(item.opening_stock))
            .expression_attribute_values(":least", n(least))
            .expression_attribute_values(":most", n(most))
            .expression_attribute_values(":none", n(0));
        let update = update.build().map_err(TableError::unavailable("declare an item"))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}
