//! The shops' time zones: when something happened at a shop is told as its clocks have it, and the zone is named once.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use kassa_bus::ShopId;
use serde::{Deserialize, Serialize};

use super::{QuestionError, Questions};

/// Time zones by shop. What is of no shop that is known here is told in UTC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Zones(BTreeMap<ShopId, String>);

impl Zones {
    fn name(&self, shop: &ShopId) -> &str {
        self.0.get(shop).map_or("UTC", String::as_str)
    }

    /// A moment by a shop's clocks.
    #[must_use]
    pub fn local(&self, shop: &ShopId, at: Timestamp) -> Zoned {
        at.to_zoned(TimeZone::get(self.name(shop)).unwrap_or(TimeZone::UTC))
    }

    /// Whose time the times of these shops are, as a heading says it.
    #[must_use]
    pub fn named<'a>(&self, shops: impl IntoIterator<Item = &'a ShopId>) -> String {
        let mut names: Vec<&str> = shops.into_iter().map(|shop| self.name(shop)).collect();
        names.dedup();
        match names[..] {
            [] => "UTC".to_owned(),
            [name] => name.to_owned(),
            _ => "each shop’s time".to_owned(),
        }
    }
}

impl Questions {
    /// # Errors
    /// [`QuestionError`].
    pub async fn zones(&self) -> Result<Zones, QuestionError> {
        let shops = self.registered().await?.rows;
        Ok(Zones(shops.iter().map(|shop| (shop.shop_id.clone(), shop.time_zone.clone())).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_by_each_shops_own_clocks_and_the_zone_is_named_once() {
        let [a, b, c]: [ShopId; 3] = ["A", "B", "C"].map(|id| id.parse().unwrap());
        let zones = [(a.clone(), "Europe/Amsterdam".into()), (b.clone(), "America/New_York".into())];
        let zones = Zones(zones.into());
        let told =
            |shop| zones.local(shop, "2026-11-22T23:30:00Z".parse().unwrap()).strftime("%F %T").to_string();
        assert_eq!(told(&a), "2026-11-23 00:30:00");
        assert_eq!(told(&b), "2026-11-22 18:30:00");
        assert_eq!(told(&c), "2026-11-22 23:30:00");
        assert_eq!(zones.named([&a, &a]), "Europe/Amsterdam");
        assert_eq!(zones.named([&a, &b, &a]), "each shop’s time");
        assert_eq!((zones.named([&c]), zones.named([])), ("UTC".into(), "UTC".into()));
    }
}
