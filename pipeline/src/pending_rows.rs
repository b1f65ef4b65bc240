//! Rows of sales that no look would find (again): accepted under an id of a day that is not looked at, or given up by a `reconcile` whose
//! process may end. Each is a hint that stands until its sale is settled; whoever acts on it reads the sale's events first.

use jiff::Timestamp;
use kassa_bus::shops_table::{ShopsTable, key};
use kassa_bus::table::{Item, TableError, s, text};
use kassa_bus::{SaleId, ShopId};

use crate::tries::Known;

/// The rows, in the shops table, under a partition key that no shop can have.
#[derive(Clone)]
pub struct PendingRows {
    table: ShopsTable,
}

const PARTITION: &str = "#pending";

/// Rows of a shop that are read in one minute.
pub const ROWS: i32 = 2_000;

impl PendingRows {
    #[must_use]
    pub fn new(table: ShopsTable) -> Self {
        Self { table }
    }

    /// Says that a sale is there. Of one that is said to be, the first word stands.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn put(&self, shop: &ShopId, sale: &SaleId, known: Known) -> Result<(), TableError> {
        let mut row = key(PARTITION, &name(shop, sale));
        row.insert("accepted_at".into(), s(known.accepted_at.to_string()));
        row.insert("found_at".into(), s(known.found_at.to_string()));
        self.table.put_if(row, "attribute_not_exists(record_type)", Item::new()).await.map(drop)
    }

    /// It is settled.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn remove(&self, shop: &ShopId, sale: &SaleId) -> Result<(), TableError> {
        self.table.remove(PARTITION, &name(shop, sale)).await
    }

    /// The next of a shop's sales after one, or the first, in the order of their ids; and the last of these, if there may be more.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn after(
        &self,
        shop: &ShopId,
        after: Option<&SaleId>,
    ) -> Result<(Vec<(SaleId, Known)>, Option<SaleId>), TableError> {
        let beginning = format!("{shop}#");
        let after = after.map(|sale| name(shop, sale));
        let rows = self.table.rows_after(PARTITION, &beginning, after.as_deref(), ROWS).await?;
        let full = rows.len() >= usize::try_from(ROWS).unwrap_or(usize::MAX);
        let sales: Vec<_> = rows.iter().filter_map(|row| read(row, &beginning)).collect();
        let last = sales.last().map(|(sale, _)| sale.clone()).filter(|_| full);
        Ok((sales, last))
    }
}

fn name(shop: &ShopId, sale: &SaleId) -> String {
    format!("{shop}#{sale}")
}

/// What a row says. One whose times nobody can read says all the same that its sale is there.
fn read(row: &Item, beginning: &str) -> Option<(SaleId, Known)> {
    let name = text(row, "record_type")?;
    let Ok(sale) = name.strip_prefix(beginning)?.parse::<SaleId>() else {
        tracing::error!("row {PARTITION} {name}: that is no sale's id; skipped");
        return None;
    };
    let at = |name| text(row, name).and_then(|at| at.parse::<Timestamp>().ok());
    let accepted_at = at("accepted_at").unwrap_or(Timestamp::UNIX_EPOCH);
    Some((sale, Known { accepted_at, found_at: at("found_at").unwrap_or(accepted_at) }))
}
