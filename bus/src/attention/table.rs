//! The list's rows in the shops table, and how many there are.

use std::collections::BTreeSet;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use jiff::civil::Date;

use super::{DAYS, NeedsAttention, PLACES, Unbooked, together};
use crate::message::SealedWith;
use crate::shops_table::{ShopsTable, key};
use crate::table::{Item, Readable, TableError, n, s, text};
use crate::{SaleId, ShopId};

const ROW: &str = "a-";

/// Under which partition key, that no shop can have, each shop's list stands that ever had a sale on it.
const LISTS: &str = "#attention";

/// The row there, no shop's, that says that the lists were made: a table of before there were any has none.
const MADE: &str = "#made";

/// Where the rows are.
#[derive(Clone)]
pub struct Attention {
    table: ShopsTable,
}

/// A shop's list, without what is on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    /// Sales that have a place.
    pub taken: u64,
    /// Days, of ids, with sales that may be missing. There may be more of them than are kept.
    pub days: BTreeSet<Date>,
    /// Whether there are more days than are kept: only a rebuild finds those.
    pub all_days: bool,
    /// How often days were added.
    changed: u64,
}

impl List {
    /// Whether sales may be missing on it.
    #[must_use]
    pub fn lacks(&self) -> bool {
        self.all_days || !self.days.is_empty()
    }
}

impl Attention {
    #[must_use]
    pub fn new(client: Client, table: impl Into<Arc<str>>) -> Self {
        Self { table: ShopsTable::new(client, table) }
    }

    /// In this table.
    #[must_use]
    pub fn in_table(table: ShopsTable) -> Self {
        Self { table }
    }

    /// What needs attention of a shop.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn of_shop(&self, shop: &ShopId) -> Result<NeedsAttention, TableError> {
        let list = self.list(shop).await?;
        self.of_list(shop, &list).await
    }

    /// What needs attention of which shop, by their ids; none of those of whom nothing does.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn of_all(&self) -> Result<Vec<NeedsAttention>, TableError> {
        let mut all = Vec::new();
        for (shop, list) in self.lists().await? {
            let needs = self.of_list(&shop, &list).await?;
            all.extend((!needs.is_empty()).then_some(needs));
        }
        Ok(all)
    }

    async fn of_list(&self, shop: &ShopId, list: &List) -> Result<NeedsAttention, TableError> {
        let sales = if list.taken > 0 { self.sales(shop).await?.logged() } else { Vec::new() };
        Ok(NeedsAttention { shop_id: shop.clone(), sales: together(shop, sales), more: list.lacks() })
    }

    /// Each shop's list that ever had a sale on it.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn lists(&self) -> Result<Vec<(ShopId, List)>, TableError> {
        let rows = self.table.rows(LISTS).await?;
        Ok(rows.iter().filter_map(|row| Some((text(row, "record_type")?.parse().ok()?, list(row)))).collect())
    }

    /// A shop's list.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn list(&self, shop: &ShopId) -> Result<List, TableError> {
        Ok(self.table.row(LISTS, shop.as_str()).await?.as_ref().map(list).unwrap_or_default())
    }

    /// What is on a shop's list: one query, of a bounded number of rows.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn sales(&self, shop: &ShopId) -> Result<Readable<Unbooked>, TableError> {
        let rows = self.table.rows_like(shop.as_str(), ROW).await?;
        Ok(rows.iter().map(|row| from_item(shop, row)).collect())
    }
}

/// What became of a sale that was to have a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// It has one.
    Yes,
    /// All are taken.
    Full,
}

impl Attention {
    /// Puts a sale on its shop's list, or brings it up to date. When it came there stays.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn put(&self, shop: &ShopId, sale: &Unbooked) -> Result<Placed, TableError> {
        let row = key(shop.as_str(), &row_of(&sale.sale_id));
        let there = self.table.row(shop.as_str(), &row_of(&sale.sale_id)).await?;
        if let Some(there) = there {
            let since = from_item(shop, &there).map_or(sale.since, |there| there.since);
            let item = to_item(row, &Unbooked { since, ..sale.clone() });
            // Junk under a sale's id is mostly rejected for the same reason, and then costs no write.
            if item != there {
                let put = self.table.client.put_item().table_name(&*self.table.name).set_item(Some(item));
                put.send().await.map_err(TableError::unavailable("write what needs attention"))?;
            }
            return Ok(Placed::Yes);
        }
        // The place first: what dies in between leaves one too few, until the list is next counted.
        if !self.take(shop).await? {
            return Ok(Placed::Full);
        }
        if !self.table.put_if(to_item(row, sale), "attribute_not_exists(shop_id)", Item::new()).await? {
            self.give_back(shop).await?;
        }
        Ok(Placed::Yes)
    }

    /// Takes a sale off its shop's list.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn remove(&self, shop: &ShopId, sale: &SaleId) -> Result<(), TableError> {
        let row = key(shop.as_str(), &row_of(sale));
        let delete = self.table.client.delete_item().table_name(&*self.table.name).set_key(Some(row));
        let deleted = delete.return_values(ReturnValue::AllOld).send().await;
        let deleted = deleted.map_err(TableError::unavailable("take a sale off the list"))?;
        if deleted.attributes.is_some() {
            self.give_back(shop).await?;
        }
        Ok(())
    }

    async fn take(&self, shop: &ShopId) -> Result<bool, TableError> {
        let values = Item::from([(":one".into(), n(1)), (":places".into(), n(PLACES))]);
        let free = "attribute_not_exists(taken) OR taken < :places";
        self.update(shop, "ADD taken :one", free, values).await
    }

    async fn give_back(&self, shop: &ShopId) -> Result<(), TableError> {
        let values = Item::from([(":back".into(), n(-1)), (":none".into(), n(0))]);
        self.update(shop, "ADD taken :back", "taken > :none", values).await.map(drop)
    }

    /// Sets how many places are taken right, if it is still what the list says.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn counted(&self, shop: &ShopId, list: &List, taken: u64) -> Result<(), TableError> {
        let values = Item::from([(":taken".into(), n(taken)), (":before".into(), n(list.taken))]);
        self.update(shop, "SET taken = :taken", "taken = :before", values).await.map(drop)
    }

    /// Says of days, by sales' ids, that sales of them may be missing on the list.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn look_through(&self, shop: &ShopId, days: &BTreeSet<Date>) -> Result<(), TableError> {
        for day in days {
            let values =
                Item::from([(":day".into(), set(*day)), (":one".into(), n(1)), (":most".into(), n(DAYS))]);
            let room = "attribute_not_exists(days) OR size(days) < :most OR contains(days, :name)";
            let values = values.into_iter().chain([(":name".into(), s(day.to_string()))]).collect();
            if !self.update(shop, "ADD days :day, changed :one", room, values).await? {
                let values =
                    Item::from([(":one".into(), n(1)), (":true".into(), AttributeValue::Bool(true))]);
                self.update(shop, "SET all_days = :true ADD changed :one", "", values).await?;
            }
        }
        Ok(())
    }

    /// Says that a day was looked through, as of when the list was read.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn looked_through(&self, shop: &ShopId, day: Date, list: &List) -> Result<(), TableError> {
        let values = Item::from([(":day".into(), set(day)), (":changed".into(), n(list.changed))]);
        // Where days were added meanwhile, it may be this one, and is looked through again.
        self.update(shop, "DELETE days :day", "changed = :changed", values).await.map(drop)
    }

    /// Says that all days there are were looked through, as of when the list was read.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn all_looked_through(&self, shop: &ShopId, list: &List) -> Result<(), TableError> {
        let values = Item::from([(":changed".into(), n(list.changed))]);
        self.update(shop, "REMOVE days, all_days", "changed = :changed", values).await.map(drop)
    }

    /// Rows of a shop's list that cannot be read, by their names.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn unreadable(&self, shop: &ShopId) -> Result<Vec<String>, TableError> {
        let rows = self.table.rows_like(shop.as_str(), ROW).await?;
        let wrong = rows.iter().filter(|row| from_item(shop, row).is_err());
        Ok(wrong.filter_map(|row| text(row, "record_type").map(str::to_owned)).collect())
    }

    /// Deletes such a row.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn discard(&self, shop: &ShopId, row: &str) -> Result<(), TableError> {
        let row = key(shop.as_str(), row);
        let delete = self.table.client.delete_item().table_name(&*self.table.name).set_key(Some(row));
        delete.send().await.map(drop).map_err(TableError::unavailable("delete a row"))
    }

    /// Whether the lists were ever made from the events.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn is_made(&self) -> Result<bool, TableError> {
        Ok(self.table.row(LISTS, MADE).await?.is_some())
    }

    /// Says that they were.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn made(&self) -> Result<(), TableError> {
        let put = self.table.client.put_item().table_name(&*self.table.name);
        let put = put.set_item(Some(key(LISTS, MADE))).send().await;
        put.map(drop).map_err(TableError::unavailable("write what needs attention"))
    }

    async fn update(
        &self,
        shop: &ShopId,
        expression: &str,
        condition: &str,
        values: Item,
    ) -> Result<bool, TableError> {
        let update = self
            .table
            .client
            .update_item()
            .table_name(&*self.table.name)
            .set_key(Some(key(LISTS, shop.as_str())))
            .update_expression(expression)
            .set_condition_expression((!condition.is_empty()).then(|| condition.to_owned()))
            .set_expression_attribute_values(Some(values));
        let Err(error) = update.send().await else { return Ok(true) };
        match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(_)) => Ok(false),
            _ => Err(TableError::unavailable("write what needs attention")(error)),
        }
    }
}

fn row_of(sale: &SaleId) -> String {
    format!("{ROW}{sale}")
}

fn set(day: Date) -> AttributeValue {
    AttributeValue::Ss(vec![day.to_string()])
}

fn list(row: &Item) -> List {
    let number = |name| text(row, name).and_then(|number| number.parse().ok()).unwrap_or_default();
    let days = row.get("days").and_then(|days| days.as_ss().ok());
    List {
        taken: number("taken"),
        days: days.into_iter().flatten().filter_map(|day| day.parse().ok()).collect(),
        all_days: row.contains_key("all_days"),
        changed: number("changed"),
    }
}

fn to_item(mut row: Item, sale: &Unbooked) -> Item {
    let sealed_with = sale.sealed_with.as_ref();
    let attributes = [
        ("reason", Some(sale.reason.to_string())),
        ("since", Some(sale.since.to_string())),
        ("till", sale.till.as_ref().map(ToString::to_string)),
        ("kid", sealed_with.map(|key| key.kid.to_string())),
        ("key_of", sealed_with.and_then(|key| Some(key.shop_id.as_ref()?.to_string()))),
    ];
    row.extend(attributes.into_iter().filter_map(|(name, value)| Some((name.to_owned(), s(value?)))));
    row
}

fn from_item(shop: &ShopId, row: &Item) -> Result<Unbooked, TableError> {
    let name = text(row, "record_type").unwrap_or_default();
    let wrong = |attribute| TableError::Attribute { row: format!("{shop} {name}"), attribute };
    let required = |attribute| text(row, attribute).ok_or_else(|| wrong(attribute));
    let kid = text(row, "kid").map(str::parse).transpose().map_err(|_| wrong("kid"))?;
    let shop_id = text(row, "key_of").map(str::parse).transpose().map_err(|_| wrong("key_of"))?;
    Ok(Unbooked {
        sale_id: name.strip_prefix(ROW).and_then(|id| id.parse().ok()).ok_or_else(|| wrong("record_type"))?,
        reason: required("reason")?.parse().map_err(|_| wrong("reason"))?,
        till: text(row, "till").map(str::parse).transpose().map_err(|_| wrong("till"))?,
        sealed_with: kid.map(|kid| SealedWith { kid, shop_id }),
        since: required("since")?.parse().map_err(|_| wrong("since"))?,
    })
}
