//! What needs attention: the one list of it, which the console shows as well.

use jiff::{SignedDuration, Timestamp};
use kassa_bus::attention::{NeedsAttention, UnbookedSales};
use kassa_bus::{ShopId, TillId};
use serde::{Deserialize, Serialize};

use super::Health;

/// Something somebody is to look at, and the command to begin with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shop_id: Option<ShopId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub till: Option<TillId>,
    /// What sales were rejected for, [`MORE`], [`PENDING`], or `dead-letters of` a queue.
    pub reason: String,
    /// With whose key they were sealed, if that is another shop's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_of: Option<ShopId>,
    /// How many. Of [`MORE`], nobody has counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    pub run: String,
}

/// There may be more rejected sales than have a place on the list.
pub const MORE: &str = "more rejected sales than are listed";

/// Sales were accepted and are neither recorded nor rejected.
pub const PENDING: &str = "pending";

/// How long a sale may be pending.
const IN_TIME: SignedDuration = SignedDuration::from_mins(1);

impl Need {
    /// What it is, in words.
    #[must_use]
    pub fn what(&self) -> String {
        match &self.key_of {
            Some(owner) => format!("{}, sealed with {owner}'s key", self.reason),
            None => self.reason.clone(),
        }
    }
}

/// The list, as of a moment.
#[must_use]
pub fn needs(rejected: &[NeedsAttention], health: Option<&Health>, now: Timestamp) -> Vec<Need> {
    let rejected = rejected.iter().flat_map(|of| {
        let more = of.more.then(|| Need {
            shop_id: Some(of.shop_id.clone()),
            till: None,
            reason: MORE.to_owned(),
            key_of: None,
            count: None,
            since: None,
            run: format!("kassa rejected --shop {}", of.shop_id),
        });
        of.sales.iter().map(|sales| unbooked(&of.shop_id, sales)).chain(more)
    });
    let health =
        health.into_iter().flat_map(|health| pending(health, now).into_iter().chain(dead_letters(health)));
    rejected.chain(health).collect()
}

fn unbooked(shop: &ShopId, sales: &UnbookedSales) -> Need {
    Need {
        shop_id: Some(shop.clone()),
        till: sales.till.clone(),
        reason: sales.reason.to_string(),
        key_of: sales.key_of.clone(),
        count: Some(sales.count),
        since: Some(sales.since),
        run: sales.command(shop, ""),
    }
}

fn pending(health: &Health, now: Timestamp) -> Option<Need> {
    let (count, waited) =
        (whole(health.pending?)?, SignedDuration::try_from_secs_f64(health.pending_seconds?).ok()?);
    (waited > IN_TIME).then(|| Need {
        shop_id: None,
        till: None,
        reason: PENDING.to_owned(),
        key_of: None,
        count: Some(count),
        since: now.checked_sub(waited).ok(),
        run: "kassa reconcile --dry-run".to_owned(),
    })
}

fn dead_letters(health: &Health) -> impl Iterator<Item = Need> {
    health.hops.iter().chain(&health.subscribers).filter_map(|hop| {
        let count = whole(hop.queue.as_ref()?.dead_letters?)?;
        Some(Need {
            shop_id: None,
            till: None,
            reason: format!("dead-letters of {}", hop.name),
            key_of: None,
            count: Some(count),
            since: None,
            run: format!("kassa dead-letters show --queue {}", hop.name),
        })
    })
}

/// A number of things, if there are any.
fn whole(measured: f64) -> Option<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it saturates, far beyond any shop"
    )]
    let whole = measured.max(0.0).round() as u64;
    (whole > 0).then_some(whole)
}
