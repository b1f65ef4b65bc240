//! What needs attention of a shop's sales: those that were rejected, are not booked, and were not given up. One list, which
//! `kassa status`, the console and texts to people share.
//!
//! A row `a-<sale>` each, beside their shop's own in the shops table; the pipeline writes them. At most `PLACES` of a shop
//! have one, for anybody can have a sale rejected. How many have, and on which days there may be more of them, stands in a row
//! under `#attention`.

/// The rows.
mod table;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::message::{Reason, SealedWith};
use crate::{SaleId, ShopId, TillId};

pub use table::{Attention, List, Placed};

/// A sale that was rejected and is neither booked nor given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unbooked {
    pub sale_id: SaleId,
    /// Of the last rejection.
    pub reason: Reason,
    /// The till it says it is of, where that could be read.
    pub till: Option<TillId>,
    pub sealed_with: Option<SealedWith>,
    /// When it was rejected first.
    pub since: Timestamp,
}

/// Sales of a shop that can be dealt with together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnbookedSales {
    pub reason: Reason,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub till: Option<TillId>,
    /// The shop here with whose key they were sealed, where that is another than their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_of: Option<ShopId>,
    pub count: u64,
    /// When the first of them was rejected.
    pub since: Timestamp,
    /// That one.
    pub first: SaleId,
}

impl UnbookedSales {
    /// The command to begin with. `reach` is what it needs to be told to ask the same shop, as ` --stage prod`.
    #[must_use]
    pub fn command(&self, shop: &ShopId, reach: &str) -> String {
        let reason = self.reason;
        match (reason, &self.key_of) {
            (Reason::WrongKey, Some(owner)) => {
                format!("kassa retry --shop {shop} --reason {reason} --opened-with {owner}{reach}")
            }
            (Reason::WrongKey, None) => format!("kassa audit keys --shop {shop}{reach}"),
            (Reason::Unsigned | Reason::BadSignature | Reason::UnknownTill | Reason::RevokedTill, _) => {
                format!("kassa till list --shop {shop}{reach}")
            }
            _ => format!("kassa rejected --shop {shop} --reason {reason}{reach}"),
        }
    }
}

/// What needs attention of one shop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeedsAttention {
    pub shop_id: ShopId,
    /// Those that came first first.
    pub sales: Vec<UnbookedSales>,
    /// Whether there may be more than these: more than have a place, or days that were not looked through yet.
    pub more: bool,
}

impl NeedsAttention {
    /// How many sales, at least.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.sales.iter().map(|sales| sales.count).sum()
    }

    /// Whether nothing does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sales.is_empty() && !self.more
    }
}

/// Sales of one shop that have a place, at most.
pub const PLACES: usize = 1_000;

/// Days of one shop that are kept to be looked through, at most.
pub const DAYS: usize = 1_000;

/// Sales by what they were rejected for, till and key.
fn together(shop: &ShopId, sales: Vec<Unbooked>) -> Vec<UnbookedSales> {
    let mut groups: BTreeMap<(Reason, Option<TillId>, Option<ShopId>), UnbookedSales> = BTreeMap::new();
    for Unbooked { sale_id, reason, till, sealed_with, since, .. } in sales {
        let key_of = sealed_with.and_then(|key| key.shop_id).filter(|owner| owner != shop);
        let group = groups.entry((reason, till.clone(), key_of.clone()));
        let group = group.or_insert_with(|| UnbookedSales {
            reason,
            till,
            key_of,
            count: 0,
            since,
            first: sale_id.clone(),
        });
        group.count += 1;
        if since < group.since {
            (group.since, group.first) = (since, sale_id);
        }
    }
    let mut sales: Vec<_> = groups.into_values().collect();
    sales.sort_by(|a, b| (a.since, &a.first).cmp(&(b.since, &b.first)));
    sales
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sales_are_counted_by_reason_till_and_whose_key() {
        let shop: ShopId = "AMIS1".parse().unwrap();
        let sale = |n: i64, till: &str, key_of: Option<&str>| Unbooked {
            sale_id: format!("{n}-20261122").parse().unwrap(),
            reason: Reason::WrongKey,
            till: till.parse().ok(),
            sealed_with: key_of
                .map(|shop| SealedWith { kid: "x".repeat(43).parse().unwrap(), shop_id: shop.parse().ok() }),
            since: Timestamp::from_second(n).unwrap(),
        };
        let sales = vec![
            sale(5, "till-1", Some("AMIS2")),
            sale(3, "till-1", Some("AMIS2")),
            sale(4, "till-2", Some("AMIS2")),
            // A key of its own that opens nothing any more is no other shop's.
            sale(1, "", Some("AMIS1")),
            sale(2, "", None),
        ];
        let groups: Vec<_> = together(&shop, sales)
            .into_iter()
            .map(|group| {
                let till = group.till.map(|till| till.to_string());
                (till, group.key_of.map(|shop| shop.to_string()), group.count, group.first.to_string())
            })
            .collect();
        let owner = || Some("AMIS2".to_owned());
        assert_eq!(
            groups,
            [
                (None, None, 2, "1-20261122".to_owned()),
                (Some("till-1".to_owned()), owner(), 2, "3-20261122".to_owned()),
                (Some("till-2".to_owned()), owner(), 1, "4-20261122".to_owned()),
            ]
        );
    }
}
