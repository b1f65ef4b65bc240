//! Whether the books balance: every sale's history, and every row of the read models against the events.

use std::collections::BTreeMap;

use kassa_bus::amount::{Amount, Total};
use kassa_bus::{SaleId, ShopId};
use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::contained::{Changes, Contained, Later, positions};
use crate::event::{ACCEPTED, EventKey, RECORDED, REJECTED, StoredEvent, USED};
use crate::event_store::{EventStore, Scan};
use crate::last_at::Sought;
use crate::posting::{Row, RowKey, Sums, add};
use crate::read_model::ReadModel;
use crate::row::{ReadRow, from_item};
use kassa_bus::registry::Registry;
use kassa_bus::table::{Item, TableError, text};

/// Whether the books balance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Sales with an accepted event.
    pub accepted: u64,
    pub recorded: u64,
    /// Rejected and not recorded.
    pub rejected: u64,
    /// Neither yet.
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
    for (shop, row) in &rows {
        tally.seek(shop, row);
    }
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
            tally.take(event);
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
    tally.end_of_sale();
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
    sale: Option<(String, SaleId)>,
    seen: Seen,
}

#[derive(Default)]
struct Seen {
    accepted: bool,
    rejected: bool,
    recorded: u32,
}

impl Tally {
    fn take(&mut self, event: &StoredEvent) {
        if let Err(error) = event.read() {
            self.mismatch(error.to_string());
        }
        if event.kind == USED {
            // An envelope's, and no sale's.
            return;
        }
        let EventKey { stream, .. } = &event.key;
        if self.sale.as_ref().is_none_or(|(s, sale)| s != stream || *sale != event.sale_id) {
            self.end_of_sale();
            self.sale = Some((stream.clone(), event.sale_id.clone()));
        }
        match event.kind.as_str() {
            ACCEPTED => self.seen.accepted = true,
            REJECTED => self.seen.rejected = true,
            RECORDED => self.seen.recorded += 1,
            _ => {}
        }
        if event.key.stream != EventKey::stream(&event.shop_id, event.sale_id.utc_date()) {
            self.mismatch(format!("{} stands in the stream {}, which is not its own", event.sale_id, stream));
        }
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

    fn end_of_sale(&mut self) {
        let Some((_, sale)) = self.sale.take() else { return };
        let seen = std::mem::take(&mut self.seen);
        if matches!(seen, Seen { accepted: false, rejected: false, recorded: 0 }) {
            // All there is of it is a message that was given up.
            return;
        }
        self.check.accepted += u64::from(seen.accepted);
        match (seen.recorded, seen.rejected) {
            (0, false) => self.check.pending += 1,
            (0, true) => self.check.rejected += 1,
            _ => self.check.recorded += 1,
        }
        if !seen.accepted {
            self.mismatch(format!("{sale} was never accepted"));
        }
        if seen.recorded > 1 {
            self.mismatch(format!("{sale} is recorded {} times", seen.recorded));
        }
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
