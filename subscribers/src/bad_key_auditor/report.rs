use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use kassa_bus::registry::Registry;
use kassa_bus::table::TableError;
use kassa_bus::{Documents, ShopId};
use serde::{Deserialize, Serialize};

use super::advice::advice;
use super::group;
use super::key::Key;
use super::standing::Standing;
use super::tally::{Merge, Seen, Tally};
use super::verdict::{Case, LooksLike, judge};

/// The wrong keys of some time, by shop and key.
///
/// ```json
/// {"from": "2026-11-21",
///  "keys": [{"shop_id": "AMIS1", "time_zone": "Europe/Amsterdam",
///            "key": {"class": "known", "shop_id": "AMIS2", "kid": "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"},
///            "told": "AMIS2's key",
///            "tills": {"named": [["till-1", 12]]}, "sources": {"named": [["10.0.0.7", 12]]},
///            "count": 12, "first": "2026-11-22T12:00:00Z", "last": "2026-11-22T12:05:00Z",
///            "looks_like": "misconfiguration",
///            "what_to_do": "till-1 at 10.0.0.7 of AMIS1 has AMIS2's key: load AMIS1's with GET /shop/AMIS1/key, …"}]}
/// ```
///
/// `class` is `known` (with `shop_id` and `kid`), `tried` (classic, found by trial; with `shop_id`), `untold`
/// (classic), `unknown` (with `kid`) or `others`; `looks_like` is `misconfiguration`, `attack` or `unclear`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// The first day (UTC) that is counted: days are counted whole.
    pub from: Date,
    pub keys: Vec<AuditedKey>,
}

/// One wrong key at one shop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditedKey {
    pub shop_id: ShopId,
    pub time_zone: String,
    pub key: Key,
    /// The key in words.
    pub told: String,
    #[serde(flatten)]
    pub seen: Seen,
    pub looks_like: LooksLike,
    pub what_to_do: String,
}

/// The keys that sales came with between two instants, and what they look like.
///
/// # Errors
/// [`TableError`].
pub async fn audit(
    documents: &Documents,
    registry: &Registry,
    since: Timestamp,
    until: Timestamp,
) -> Result<Audit, TableError> {
    let day = |at: Timestamp| at.to_zoned(TimeZone::UTC).date();
    let (from, to) = (day(since), day(until));
    let mut days = BTreeMap::<(ShopId, Key), Option<Seen>>::new();
    for date in from.series(1.day()).take_while(|date| *date <= to) {
        for (name, tally) in documents.list::<Tally>(&group(date), "").await?.logged() {
            // What is no shop's, this did not write.
            let Ok(shop) = name.parse::<ShopId>() else { continue };
            let others = tally.others.map(|seen| (Key::Others, seen));
            for (key, seen) in tally.named.into_iter().chain(others) {
                days.entry((shop.clone(), key)).or_default().merge(Some(seen));
            }
        }
    }
    let seen = days.into_iter().filter_map(|(of, seen)| Some((of, seen.filter(|seen| seen.last >= since)?)));
    let (mut cases, mut keys) = (Vec::new(), Vec::new());
    for ((shop_id, key), seen) in seen {
        let owner = match &key {
            Key::Known { shop_id, .. } => registry.readable_shop(shop_id).await?,
            _ => None,
        };
        cases.push(Case { standing: Standing::of(&key, &shop_id, owner.as_deref()), shop_id, seen });
        keys.push(key);
    }
    let looks = judge(&cases);
    let mut audited = Vec::with_capacity(keys.len());
    for ((case, key), looks_like) in cases.into_iter().zip(keys).zip(looks) {
        let shop = registry.readable_shop(&case.shop_id).await?;
        audited.push(AuditedKey {
            time_zone: shop.map_or_else(|| "UTC".to_owned(), |shop| shop.time_zone.clone()),
            told: case.standing.words(&case.shop_id),
            what_to_do: advice(&case, looks_like),
            shop_id: case.shop_id,
            key,
            seen: case.seen,
            looks_like,
        });
    }
    Ok(Audit { from, keys: audited })
}
