use jiff::Timestamp;
use jiff::civil::Date;
use kassa_bus::ShopId;
use kassa_bus::amount::{Amount, InvalidAmount};
use serde::{Deserialize, Serialize};

use crate::posting::{OTHER, Row, RowKey};
use kassa_bus::table::{Item, TableError, text};

/// An item's row as questions show it: the table's attributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemRow {
    pub shop_id: ShopId,
    pub record_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selling_price: Option<Amount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opening_stock: Option<Amount>,
    pub stock: Amount,
    pub gross_number: Amount,
    pub gross_turnover: Amount,
}

/// A day's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayRow {
    pub shop_id: ShopId,
    pub record_type: String,
    pub sales: Amount,
    pub turnover: Amount,
    /// When the last of them was recorded. Rows of before there was one have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<Timestamp>,
}

impl ItemRow {
    /// Whether it is that of the items that share one.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.record_type == OTHER
    }
}

impl DayRow {
    #[must_use]
    pub fn date(&self) -> Option<Date> {
        match Row::parse(&self.record_type)? {
            Row::Day(date) => Some(date),
            Row::Item(_) | Row::Other => None,
        }
    }
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ReadRow {
    Item(ItemRow),
    Day(DayRow),
}

impl ReadRow {
    #[must_use]
    pub fn shop_id(&self) -> &ShopId {
        match self {
            Self::Item(row) => &row.shop_id,
            Self::Day(row) => &row.shop_id,
        }
    }

    #[must_use]
    pub fn key(&self) -> Option<RowKey> {
        let (shop_id, record_type) = match self {
            Self::Item(row) => (&row.shop_id, &row.record_type),
            Self::Day(row) => (&row.shop_id, &row.record_type),
        };
        Some(RowKey { shop_id: shop_id.clone(), row: Row::parse(record_type)? })
    }
}

/// Whether a rebuild makes this row from the events alone: a day's, and that of an item that nobody declared.
#[must_use]
pub fn is_made_by_rebuild(item: &Item) -> bool {
    match text(item, "record_type").and_then(Row::parse) {
        Some(Row::Day(_) | Row::Other) => true,
        Some(Row::Item(_)) => !item.contains_key("item_description"),
        None => false,
    }
}

/// An attribute that is a number, as it must be to be added to. What a text says is no number's.
pub(crate) fn amount(item: &Item, name: &str) -> Option<Result<Amount, InvalidAmount>> {
    let amount = |number: &String| Amount::from_stored(number);
    Some(item.get(name)?.as_n().map_or(Err(InvalidAmount::NotANumber), amount))
}

/// Rows that are neither an item's nor a day's are not the read models'.
pub(crate) fn from_item(shop: &ShopId, item: &Item) -> Result<Option<ReadRow>, TableError> {
    let record_type = text(item, "record_type").unwrap_or_default().to_owned();
    let wrong = |attribute| TableError::Attribute { row: format!("{shop} {record_type}"), attribute };
    let optional =
        |attribute| amount(item, attribute).map(|amount| amount.map_err(|_| wrong(attribute))).transpose();
    let required = |attribute| optional(attribute)?.ok_or_else(|| wrong(attribute));
    let shop_id = shop.clone();
    Ok(match Row::parse(&record_type) {
        // It also says which items share it, from when there are none.
        Some(Row::Other) if !item.contains_key("gross_number") && !item.contains_key("above") => None,
        None if Row::is_meant_by(&record_type) => return Err(wrong("record_type")),
        None => None,
        Some(Row::Item(_) | Row::Other) => Some(ReadRow::Item(ItemRow {
            shop_id,
            item_description: text(item, "item_description").map(str::to_owned),
            selling_price: optional("selling_price")?,
            opening_stock: optional("opening_stock")?,
            stock: required("stock")?,
            gross_number: required("gross_number")?,
            gross_turnover: required("gross_turnover")?,
            record_type,
        })),
        Some(Row::Day(_)) => Some(ReadRow::Day(DayRow {
            shop_id,
            sales: required("sales")?,
            turnover: required("turnover")?,
            last_at: text(item, "last_at").map(|t| t.parse().map_err(|_| wrong("last_at"))).transpose()?,
            record_type,
        })),
    })
}
