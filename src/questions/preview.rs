use std::collections::HashMap;

use jiff::Timestamp;
use jiff::civil::Date;
use kassa_bus::amount::{Amount, Total};
use kassa_bus::message::Reason;
use kassa_bus::table::TableError;
use kassa_bus::{Line, SaleId, ShopId, TillId, Totals};
use kassa_pipeline::event_store::EventStore;
use kassa_pipeline::first_use::usable;
use kassa_pipeline::opener::{Closed, Opener};
use kassa_pipeline::own_rows::OwnRows;
use kassa_pipeline::posting::{Row, RowKey, Sums, add, postings};
use kassa_pipeline::process::record;
use kassa_pipeline::read_model::ReadModel;
use kassa_pipeline::row::ReadRow;
use serde::{Deserialize, Serialize};

use super::rejected::ShownRejection;

/// What would become of rejected sales if they were put through again now. Holds sales in plaintext, for whoever asked
/// to see them; cannot be printed otherwise.
#[derive(Serialize, Deserialize)]
pub struct Preview {
    pub sales: Vec<Previewed>,
    /// What stock and turnover would be afterwards, where it differs.
    pub rows: Vec<RowChange>,
}

/// One of them.
#[derive(Serialize, Deserialize)]
pub struct Previewed {
    pub rejected: ShownRejection,
    pub would: Would,
}

/// What would become of it.
#[derive(Serialize, Deserialize)]
#[serde(tag = "be", rename_all = "kebab-case")]
pub enum Would {
    Recorded {
        lines: Vec<Line>,
        totals: Totals,
        business_date: Date,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        till: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signed_by: Option<TillId>,
    },
    /// It is the same as another of them, which would be recorded.
    Repeat,
    Rejected {
        reason: Reason,
        detail: String,
    },
    /// The key cannot be asked now.
    Unknown {
        why: String,
    },
}

/// A row of the read models: `stock` and `turnover` of an item, or `sales` and `turnover` of a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowChange {
    pub shop_id: ShopId,
    pub record_type: String,
    /// Stock, or how many sales.
    pub number: [Amount; 2],
    pub turnover: [Amount; 2],
}

pub(super) async fn preview(
    again: Vec<ShownRejection>,
    opened_with: Option<&ShopId>,
    opener: &Opener,
    (store, read_model): (&EventStore, &ReadModel),
    now: Timestamp,
) -> Result<Preview, TableError> {
    let (mut sales, mut sums) = (Vec::new(), Sums::new());
    let mut recorded: HashMap<(ShopId, SaleId), String> = HashMap::new();
    for rejected in again {
        let Some(sale) = rejected.again(store, opened_with).await? else { continue };
        let inside = match opener.open(&sale).await {
            Ok(inside) => usable(store, &sale.envelope, &inside).await.map(|()| inside),
            closed => closed,
        };
        let would = match inside {
            Err(Closed::Rejected(why)) => Would::Rejected { reason: why.reason, detail: why.detail },
            Err(Closed::Retry(why)) => Would::Unknown { why: why.to_string() },
            Ok(sale) => match opener.registry.shop(&sale.shop_id).await? {
                None => Would::Rejected { reason: Reason::UnknownShop, detail: String::new() },
                Some(shop) => {
                    let Some(record) = record(&sale, &shop, None) else {
                        let detail = "its lines add up to more than a row holds".into();
                        let would = Would::Rejected { reason: Reason::InvalidSale, detail };
                        sales.push(Previewed { rejected, would });
                        continue;
                    };
                    let name = (sale.shop_id.clone(), sale.sale_id.clone());
                    match recorded.get(&name) {
                        Some(content) if *content == record.content => Would::Repeat,
                        Some(_) => Would::Rejected {
                            reason: Reason::Conflict,
                            detail: "another of these would be recorded under this id".into(),
                        },
                        None => {
                            add(&mut sums, postings(&sale.shop_id, now, &record));
                            recorded.insert(name, record.content);
                            Would::Recorded {
                                lines: record.lines,
                                totals: record.totals,
                                business_date: record.business_date,
                                till: record.till,
                                signed_by: record.signed_by,
                            }
                        }
                    }
                }
            },
        };
        sales.push(Previewed { rejected, would });
    }
    Ok(Preview { sales, rows: changes(read_model, &sums).await? })
}

async fn changes(read_model: &ReadModel, sums: &Sums) -> Result<Vec<RowChange>, TableError> {
    let mut own: HashMap<&ShopId, OwnRows> = HashMap::new();
    let mut by_row = Sums::new();
    for (RowKey { shop_id, row }, sum) in sums {
        if !own.contains_key(shop_id) {
            own.insert(shop_id, read_model.sharing(shop_id).await?.own);
        }
        let row = match (row, own.get_mut(shop_id)) {
            (Row::Item(item), Some(own)) => {
                own.admit(*item);
                own.row_of(*item)
            }
            (row, _) => *row,
        };
        add(&mut by_row, [(RowKey { shop_id: shop_id.clone(), row }, *sum)]);
    }
    let mut changes = Vec::new();
    for (key, sum) in &by_row {
        let is = match read_model.row(key).await {
            Err(error) if error.is_unreadable() => None,
            is => is?,
        };
        let (number, turnover) = match is {
            Some(ReadRow::Item(row)) => (row.stock, row.gross_turnover),
            Some(ReadRow::Day(row)) => (row.sales, row.turnover),
            None => (Amount::default(), Amount::default()),
        };
        // What is sold is no longer in stock.
        let more = if matches!(key.row, Row::Day(_)) { sum.number } else { -sum.number };
        let afterwards = |is: Amount, more: Total| (Total::from(is) + more).amount();
        // What a row cannot hold leaves it as it is.
        let (after, turnover_after) =
            afterwards(number, more).zip(afterwards(turnover, sum.turnover)).unwrap_or((number, turnover));
        changes.push(RowChange {
            shop_id: key.shop_id.clone(),
            record_type: key.row.to_string(),
            number: [number, after],
            turnover: [turnover, turnover_after],
        });
    }
    Ok(changes)
}
