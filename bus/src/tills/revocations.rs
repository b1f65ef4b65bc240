//! How many tills' keys of a shop were revoked so far: what tells a sale that is taken before a revocation from one that is
//! taken after it, however clocks are set. It is a number in a row beside the shop's tills.
//!
//! Without that row nobody knows, and a sale is judged by the clock: so it is made with the first till, and once it was lost,
//! it begins again above what the tills say.

use std::time::Duration;

use crate::ShopId;
use crate::cache::Cache;
use crate::shops_table::{ShopsTable, key};
use crate::table::{Item, TableError, n, text};

/// The row's sort key. One of a backup is never put back by itself: it would count less than there were.
pub const ROW: &str = "revocations";

#[derive(Clone)]
pub(super) struct Revocations {
    table: ShopsTable,
    known: Cache<Option<u64>>,
}

impl Revocations {
    pub fn new(table: ShopsTable, known_for: Duration) -> Self {
        Self { table, known: Cache::new(10_000, known_for) }
    }

    /// As it was within the last minute. A row that cannot be read is none, as sales are to be taken all the same.
    pub async fn known(&self, shop: &ShopId) -> Result<Option<u64>, TableError> {
        let name = shop.as_str().as_bytes();
        if let Some(known) = self.known.get(name).await {
            return Ok(known);
        }
        let counted = match self.counted(shop).await {
            Err(error) if error.is_unreadable() => {
                tracing::error!(%error, "sales are judged by the clock");
                None
            }
            counted => counted?,
        };
        self.known.insert(name, counted).await;
        Ok(counted)
    }

    /// As the table has it.
    pub async fn counted(&self, shop: &ShopId) -> Result<Option<u64>, TableError> {
        let Some(row) = self.table.row(shop.as_str(), ROW).await? else { return Ok(None) };
        let wrong = || TableError::Attribute { row: format!("{shop} {ROW}"), attribute: "n" };
        text(&row, "n").and_then(|n| n.parse().ok()).map(Some).ok_or_else(wrong)
    }

    /// Begins to count, if nobody has.
    pub async fn begin(&self, shop: &ShopId, at: u64) -> Result<(), TableError> {
        if self.counted(shop).await?.is_none() {
            self.put(shop, None, at).await?;
        }
        Ok(())
    }

    /// Counts one more, of which there were at least so many. None if somebody else did just then.
    pub async fn next(&self, shop: &ShopId, least: u64) -> Result<Option<u64>, TableError> {
        let before = self.counted(shop).await?;
        let number = before.unwrap_or(0).max(least) + 1;
        Ok(self.put(shop, before, number).await?.then_some(number))
    }

    async fn put(&self, shop: &ShopId, before: Option<u64>, number: u64) -> Result<bool, TableError> {
        let mut row = key(shop.as_str(), ROW);
        row.insert("n".into(), n(number));
        let (condition, values) = match before {
            None => ("attribute_not_exists(shop_id)", Item::new()),
            Some(before) => ("n = :before", Item::from([(":before".to_owned(), n(before))])),
        };
        let put = self.table.put_if(row, condition, values).await?;
        let name = shop.as_str().as_bytes();
        if put {
            self.known.insert(name, Some(number)).await;
        } else {
            self.known.invalidate(name).await;
        }
        Ok(put)
    }
}
