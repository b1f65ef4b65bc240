//! Whether the books balance: every sale's history, and every row of the read models against the events.

use std::collections::BTreeMap;

use kassa_bus::ShopId;
use kassa_bus::amount::{Amount, Total};
use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::contained::{Changes, Contained, Later, positions};
use crate::event::{EventKey, StoredEvent, USED};
use crate::event_store::{EventStore, Scan};
use crate::last_at::Sought;
use crate::posting::{Row, RowKey, Sums, add};
use crate::read_model::ReadModel;
use crate::row::{ReadRow, from_item};
use crate::settlement::{SaleFold, Sales, Settlement};
use crate::unsettled::Finder;
use kassa_bus::registry::Registry;
use kassa_bus::table::{Item, TableError, text};

/// Whether the books balance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Sales with an accepted event.
    pub accepted: u64,
    pub recorded: u64,
    /// Each of its envelopes is rejected.
    pub rejected: u64,
    /// Neither.
    pub pending: u64,
    /// What does not agree, in words. Empty is what it should be.
    pub mismatches: Vec<String>,
}

/// Mismatches told at most; a broken table has thousands.
const TOLD: usize = 100;

/// Compares every sale's history and every row of the read models with the events. Sales may go on
/// meanwhile; a sale in flight counts as pending.
///
/// # Errors
/// [`TableError`].
pub async fn check(
    store: &EventStore,
    read_model: &ReadModel,
    registry: &Registry,
    changes: &dyn Changes,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Check, TableError> {
    let (checkpoints, rows) = rows_at_checkpoints(read_model, registry).await?;
    let mut later = Later::than(&positions(&checkpoints, changes).await?, changes).await?;
    let mut tally = Tally::default();
    rows.iter().for_each(|(shop, row)| tally.seek(shop, row));
    let finder = Finder { store: store.clone() };
    for unreadable in registry.unreadable().await? {
        tally.mismatch(unreadable);
    }
    for error in checkpoints.values().filter_map(|checkpoint| checkpoint.position().err()) {
        tally.mismatch(format!("{error}; what rows contain is not known until kassa rebuild has run"));
    }
    let mut cursor = None;
    let mut scanned = 0;
    loop {
        let page = store.scan(Scan::default(), cursor).await?;
        scanned += page.events.len() as u64;
        progress(scanned);
        page.unreadable.into_iter().for_each(|unreadable| tally.mismatch(unreadable));
        for event in &page.events {
            if let Some(sale) = tally.take(event) {
                tally.settle(&finder, sale).await?;
            }
        }
        for event in later.contained(page.events).await? {
            tally.sum(&event);
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    for event in later.settled(store).await? {
        tally.sum(&event);
    }
    if let Some(sale) = std::mem::take(&mut tally.sales).rest() {
        tally.settle(&finder, sale).await?;
    }
    compare(&mut tally, rows);
    Ok(tally.check)
}

/// Rows and checkpoints as they belong together: read again while steps come between.
async fn rows_at_checkpoints(
    read_model: &ReadModel,
    registry: &Registry,
) -> Result<(BTreeMap<String, Checkpoint>, Vec<(ShopId, Item)>), TableError> {
    loop {
        let before = read_model.checkpoints().await?;
        let mut rows = Vec::new();
        for shop in registry.shops().await? {
            rows.extend(read_model.items(&shop).await?.into_iter().map(|item| (shop.clone(), item)));
        }
        if read_model.checkpoints().await? == before {
            return Ok((before, rows));
        }
    }
}

/// Counts sales from events that come sale by sale.
#[derive(Default)]
struct Tally {
    check: Check,
    sums: Sums,
    last_at: Sought,
    sales: Sales,
}

impl Tally {
    /// Takes the next event, and gives the sale that it shows to be complete.
    fn take(&mut self, event: &StoredEvent) -> Option<SaleFold> {
        if let Err(error) = event.read() {
            self.mismatch(error.to_string());
        }
        if event.kind == USED {
            // An envelope's, and no sale's.
            return None;
        }
        let EventKey { stream, .. } = &event.key;
        if *stream != EventKey::stream(&event.shop_id, event.sale_id.utc_date()) {
            self.mismatch(format!("{} stands in the stream {}, which is not its own", event.sale_id, stream));
        }
        self.sales.take(event)
    }

    /// Notes what a day's row says of its last sale, to be looked for among its sales.
    fn seek(&mut self, shop: &ShopId, row: &Item) {
        if let Ok(Some(ReadRow::Day(day))) = from_item(shop, row)
            && let (Some(date), Some(last_at)) = (day.date(), day.last_at)
        {
            self.last_at.said(RowKey { shop_id: shop.clone(), row: Row::Day(date) }, last_at);
        }
    }

    /// Adds up a sale that the read models contain.
    fn sum(&mut self, event: &Contained) {
        // One that cannot be read is named already.
        if let Ok(postings) = event.postings() {
            self.last_at.posted(&postings);
            add(&mut self.sums, postings);
        }
    }

    async fn settle(&mut self, finder: &Finder, sale: SaleFold) -> Result<(), TableError> {
        let (id, recorded) = (sale.sale_id.clone(), sale.recorded);
        if (sale.accepted, sale.rejected, recorded) == (0, 0, 0) {
            // All there is of it is a message that was given up.
            return Ok(());
        }
        let judged = finder.judged(sale).await?;
        self.check.accepted += u64::from(judged.accepted > 0);
        match judged.settlement() {
            Settlement::Recorded => self.check.recorded += 1,
            Settlement::Rejected => self.check.rejected += 1,
            Settlement::Pending => self.check.pending += 1,
        }
        if judged.accepted == 0 {
            self.mismatch(format!("{id} was never accepted"));
        }
        if recorded > 1 {
            self.mismatch(format!("{id} is recorded {recorded} times"));
        }
        Ok(())
    }

    fn mismatch(&mut self, what: String) {
        let told = self.check.mismatches.len();
        if told <= TOLD {
            self.check.mismatches.push(if told < TOLD { what } else { "… and more".into() });
        }
    }
}

/// Every row can be read and is what the events add up to, and every sum has its row.
fn compare(tally: &mut Tally, rows: Vec<(ShopId, Item)>) {
    let mut sums = std::mem::take(&mut tally.sums);
    for (shop_id, item) in rows {
        let row = Row::parse(text(&item, "record_type").unwrap_or_default());
        let key = row.map(|row| RowKey { shop_id: shop_id.clone(), row });
        let sum = key.as_ref().and_then(|key| sums.remove(key)).unwrap_or_default();
        let (name, values) = match from_item(&shop_id, &item) {
            Ok(None) => continue,
            Err(error) => {
                tally.mismatch(format!("{error}; kassa rebuild makes it anew"));
                continue;
            }
            Ok(Some(ReadRow::Item(item))) => {
                let stock = Total::from(item.opening_stock.unwrap_or_default()) + -sum.number;
                let values = vec![
                    ("gross_number", item.gross_number, sum.number),
                    ("gross_turnover", item.gross_turnover, sum.turnover),
                    ("stock", item.stock, stock),
                ];
                (item.record_type, values)
            }
            Ok(Some(ReadRow::Day(day))) => {
                // A row of before there was a last one has none until the day's next sale, or a rebuild.
                if key.is_some_and(|key| tally.last_at.is_wrong(&key)) {
                    let [is, should] =
                        [day.last_at, sum.last_at].map(|at| at.map_or("none".into(), |at| at.to_string()));
                    let name = &day.record_type;
                    tally.mismatch(format!("{shop_id} {name}: last_at is {is}, the events say {should}"));
                }
                (
                    day.record_type,
                    vec![("sales", day.sales, sum.number), ("turnover", day.turnover, sum.turnover)],
                )
            }
        };
        let wrong = |(_, is, should): &(&str, Amount, Total)| Total::from(*is) != *should;
        for (attribute, is, should) in values.into_iter().filter(wrong) {
            tally.mismatch(format!("{shop_id} {name}: {attribute} is {is}, the events say {should}"));
        }
    }
    for (RowKey { shop_id, row }, _) in sums {
        let what = if matches!(row, Row::Day(_)) { "a day" } else { "an item" };
        tally.mismatch(format!("{shop_id} {row}: {what} of the events has no row"));
    }
}
