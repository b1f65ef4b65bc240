//! Stock and turnover, page by page: a shop may have thousands of rows.

use std::collections::{BTreeSet, HashMap};

use futures::{StreamExt, TryStreamExt, stream};
use kassa_bus::shops_table::key;
use kassa_bus::table::Readable;
use kassa_bus::{ItemNo, ShopId};
use kassa_pipeline::posting::{Row, RowKey};
use kassa_pipeline::row::{ItemRow, ReadRow};
use serde::{Deserialize, Serialize};

use super::{QuestionError, Questions};

/// `?shop=&page=`
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct StockFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shop: Option<String>,
    /// Where it begins, as the page before says; an empty one is the first. Who asks for none gets all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
}

/// Some rows, and where the next page begins.
#[derive(Debug, Serialize, Deserialize)]
pub struct StockPage {
    #[serde(flatten)]
    pub rows: Readable<ReadRow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Rows that are asked for at once.
const SIDE_BY_SIDE: usize = 16;

impl Questions {
    /// The rows of stock and turnover, all of them.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn stock(&self, shop: Option<&str>) -> Result<Readable<ReadRow>, QuestionError> {
        let mut all = Readable::default();
        let mut page = Some(String::new());
        while page.is_some() {
            let more = self.stock_page(&StockFilter { shop: shop.map(str::to_owned), page }).await?;
            all.append(more.rows);
            page = more.next;
        }
        Ok(all)
    }

    /// A page of them, of one shop.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn stock_page(&self, filter: &StockFilter) -> Result<StockPage, QuestionError> {
        let Some(page) = &filter.page else {
            let rows = Box::pin(self.stock(filter.shop.as_deref())).await?;
            return Ok(StockPage { rows, next: None });
        };
        let shops = self.shops(filter.shop.as_deref()).await?;
        let (from, after) = page.split_once(' ').unwrap_or((page, ""));
        let mut shops = shops.iter().skip_while(|shop| !from.is_empty() && shop.as_str() != from);
        let Some(shop) = shops.next() else {
            return Ok(StockPage { rows: Readable::default(), next: None });
        };
        let cursor = (!after.is_empty()).then(|| key(shop.as_str(), after));
        let (rows, cursor) = self.books.read_model.page(shop, "", cursor).await?;
        let after = cursor.as_ref().and_then(|cursor| kassa_bus::table::text(cursor, "record_type"));
        let next = match after {
            Some(after) => Some(format!("{shop} {after}")),
            None => shops.next().map(|shop| format!("{shop} ")),
        };
        Ok(StockPage { rows, next })
    }

    /// A shop's items, one by one. Answers those that cannot be read.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn items(
        &self,
        shop: &str,
        mut each: impl FnMut(ItemRow),
    ) -> Result<Vec<String>, QuestionError> {
        let shop = self.shops(Some(shop)).await?.remove(0);
        let (mut unreadable, mut cursor) = (Vec::new(), None);
        loop {
            let (page, next) = self.books.read_model.page(&shop, "s-", cursor).await?;
            unreadable.extend(page.unreadable);
            for row in page.rows {
                if let ReadRow::Item(item) = row {
                    each(item);
                }
            }
            cursor = next;
            if cursor.is_none() {
                return Ok(unreadable);
            }
        }
    }

    /// What these items are called, as far as somebody declared them.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn descriptions(
        &self,
        shop: &ShopId,
        items: BTreeSet<ItemNo>,
    ) -> Result<HashMap<ItemNo, String>, QuestionError> {
        let described = stream::iter(items).map(|item| async move {
            let key = RowKey { shop_id: shop.clone(), row: Row::Item(item) };
            let row = match self.books.read_model.row(&key).await {
                Err(error) if error.is_unreadable() => None,
                row => row?,
            };
            Ok(match row {
                Some(ReadRow::Item(row)) => row.item_description.map(|description| (item, description)),
                _ => None,
            })
        });
        described
            .buffer_unordered(SIDE_BY_SIDE)
            .try_filter_map(|found| async { Ok(found) })
            .try_collect()
            .await
    }
}
