use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{DefaultKeyedRateLimiter, Quota};
use kassa_bus::shares::{Share, Shares};
use kassa_bus::{ClientAddress, SettingError, Settings, ShopId};

use crate::problem::Problem;

/// How many sales a second are let in: of a till, as far as the door can tell one, which is a shop's client at a network
/// address; and of a shop. And how much of a shop is in hand at once.
///
/// Counted by this process alone: on AWS by each instance of the function, of which there are as many as sales come at
/// once, so that a shop gets a multiple. What bounds all of them together is the API's own throttling.
pub struct Rates {
    // Boxed because they are large, and what holds them is moved about.
    tills: Box<DefaultKeyedRateLimiter<(ShopId, ClientAddress)>>,
    shops: Box<DefaultKeyedRateLimiter<ShopId>>,
    in_hand: Arc<Shares<ShopId>>,
}

/// More than any till sells, and than one machine takes: what is meant to be bounded is said where it is deployed.
const TILL_RATE: u64 = 10_000;
const SHOP_RATE: u64 = 20_000;

/// Bytes of sales in hand at once. A shop gets as much as is left for others, at most.
const IN_HAND: usize = 16 * 1024 * 1024;

/// The least that a request counts for, so that a shop gets a share of the requests, too.
const LEAST: usize = IN_HAND / 512;

/// So many tills are counted at once before those that were not heard of lately are forgotten.
const MANY: usize = 50_000;

impl Rates {
    /// With the settings `TILL_RATE` and `SHOP_RATE`: sales a second, and as many at once.
    ///
    /// # Errors
    /// [`SettingError`].
    pub fn told(settings: &Settings) -> Result<Self, SettingError> {
        let quota = |name, default| {
            let rate = u32::try_from(settings.count(name, default)?).ok().and_then(NonZeroU32::new);
            let what = "a number of sales a second, 1 to 4294967295";
            Ok(Quota::per_second(rate.ok_or(SettingError::Wrong { name, what })?))
        };
        Ok(Self {
            tills: Box::new(DefaultKeyedRateLimiter::keyed(quota("TILL_RATE", TILL_RATE)?)),
            shops: Box::new(DefaultKeyedRateLimiter::keyed(quota("SHOP_RATE", SHOP_RATE)?)),
            in_hand: Shares::of_what_is_left(IN_HAND),
        })
    }

    /// Takes a request of so many bytes of a registered shop in hand, until what is given is dropped.
    ///
    /// # Errors
    /// [`Problem::BUSY`], if the shop has its share in hand.
    pub fn enter(&self, shop: &ShopId, bytes: usize) -> Result<Share<ShopId>, Problem> {
        self.in_hand.take(shop, bytes.max(LEAST)).ok_or(Problem::BUSY)
    }

    /// Lets one sale of a registered shop in.
    ///
    /// # Errors
    /// [`Problem::TooMany`].
    pub fn admit(&self, shop: &ShopId, client: ClientAddress) -> Result<(), Problem> {
        if self.tills.len() > MANY {
            self.tills.retain_recent();
        }
        let too_many = |detail| Problem::TooMany { retry_after: 1, detail };
        let till = (shop.clone(), client);
        self.tills.check_key(&till).map_err(|_| too_many("this till sells faster than it may"))?;
        self.shops.check_key(shop).map_err(|_| too_many("this shop sells faster than it may"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(till: &str, shop: &str) -> Result<Rates, SettingError> {
        let told = [("TILL_RATE", till), ("SHOP_RATE", shop)];
        Rates::told(&Settings::none().with(told.map(|(name, rate)| (name.to_owned(), rate.to_owned()))))
    }

    #[test]
    fn one_till_or_shop_that_sells_too_fast_is_told_so_and_the_others_sell_on() {
        let [one, two] = ["AMIS1", "AMIS2"].map(|shop| shop.parse::<ShopId>().unwrap());
        let rates = rates("2", "3").unwrap();
        let admitted = |shop: &ShopId, source: &str| rates.admit(shop, ClientAddress::from(source)).is_ok();
        assert_eq!([(); 3].map(|()| admitted(&one, "192.0.2.1")), [true, true, false]);
        // another till of the shop has what is left of the shop's
        assert_eq!([(); 2].map(|()| admitted(&one, "192.0.2.2")), [true, false]);
        // and another shop all of its own
        assert!(admitted(&two, "192.0.2.1"));
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert!(admitted(&one, "192.0.2.1"), "a second later there is room");
    }

    #[test]
    fn one_shop_that_floods_the_door_leaves_as_much_room_as_it_takes() {
        let [one, two] = ["AMIS1", "AMIS2"].map(|shop| shop.parse::<ShopId>().unwrap());
        for (bytes, most) in [(1, 256), (320 * 1024, 25)] {
            let rates = rates("1", "1").unwrap();
            let in_hand: Vec<_> = std::iter::from_fn(|| rates.enter(&one, bytes).ok()).collect();
            assert_eq!((in_hand.len(), rates.enter(&one, bytes).err()), (most, Some(Problem::BUSY)));
            assert!(rates.enter(&two, bytes).is_ok());
        }
    }

    #[test]
    fn a_rate_of_none_is_a_mistake() {
        assert!(rates("0", "1").is_err() && rates("1", "99999999999").is_err());
    }
}
