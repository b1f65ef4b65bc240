use jiff::Timestamp;
use jiff::tz::TimeZone;
use kassa_bus::registry::Shop;
use kassa_bus::{ShopId, Thumbprint};

use super::key::Key;

/// What a key is to the shop that the sales were sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Its own, and its present one by now.
    Own,
    OwnRetired {
        since: Timestamp,
        until: Timestamp,
    },
    Other {
        owner: ShopId,
    },
    OtherRetired {
        owner: ShopId,
        since: Timestamp,
        until: Timestamp,
    },
    Unknown(Option<Thumbprint>),
    Untold,
}

impl Standing {
    /// `owner` is the registry's word on the shop whose key it is.
    #[must_use]
    pub fn of(key: &Key, shop: &ShopId, owner: Option<&Shop>) -> Self {
        match key {
            Key::Known { shop_id, kid } => match (shop_id == shop, owner.and_then(|o| retired(o, kid))) {
                (true, None) => Self::Own,
                (true, Some((since, until))) => Self::OwnRetired { since, until },
                (false, None) => Self::Other { owner: shop_id.clone() },
                (false, Some((since, until))) => Self::OtherRetired { owner: shop_id.clone(), since, until },
            },
            Key::Tried { shop_id } => Self::Other { owner: shop_id.clone() },
            Key::Untold => Self::Untold,
            Key::Unknown { kid } => Self::Unknown(Some(kid.clone())),
            Key::Others => Self::Unknown(None),
        }
    }

    /// In words, as in "sealed with …".
    #[must_use]
    pub fn words(&self, shop: &ShopId) -> String {
        let retired = |owner: &ShopId, since: Timestamp, until: Timestamp| {
            format!("{owner}'s key of {}, retired on {}", day(since), day(until))
        };
        match self {
            Self::Own => format!("{shop}'s own key"),
            Self::OwnRetired { since, until } => retired(shop, *since, *until),
            Self::Other { owner } => format!("{owner}'s key"),
            Self::OtherRetired { owner, since, until } => retired(owner, *since, *until),
            Self::Unknown(Some(kid)) => format!("a key that nobody here has: {kid}"),
            Self::Unknown(None) => "more keys".to_owned(),
            Self::Untold => "a key that cannot be told".to_owned(),
        }
    }
}

/// From when to when a shop had this key, if it has another by now: to when it was said to end, or else until the next
/// one came.
fn retired(owner: &Shop, kid: &Thumbprint) -> Option<(Timestamp, Timestamp)> {
    let at = owner.keys.iter().position(|key| key.kid == *kid)?;
    let key = &owner.keys[at];
    Some((key.since, key.ended().or_else(|| Some(owner.keys.get(at + 1)?.since))?))
}

fn day(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%-d %B %Y").to_string()
}

#[cfg(test)]
mod tests {
    use kassa_bus::registry::ShopKey;
    use kassa_bus::text::Language;
    use kassa_bus::tills::Unsigned;

    use super::*;

    fn shop(text: &str) -> ShopId {
        text.parse().unwrap()
    }

    fn thumbprint(n: usize) -> Thumbprint {
        format!("{n:0>43}").parse().unwrap()
    }

    #[test]
    fn a_key_is_retired_once_its_shop_has_a_later_one() {
        // given AMIS1 with a key of March and one since November
        let [since, until]: [Timestamp; 2] =
            ["2026-03-02T08:00:00Z", "2026-11-20T08:00:00Z"].map(|at| at.parse().unwrap());
        let keys = [(1, since), (2, until)].map(|(n, since)| ShopKey::new(thumbprint(n), since));
        let owner = Shop {
            shop_id: shop("AMIS1"),
            name: "Amsterdam".into(),
            time_zone: "Europe/Amsterdam".into(),
            language: Language::Dutch,
            manager_phone: None,
            manager_email: None,
            quiet_hours: None,
            opening_hours: None,
            sms_budget: 30,
            unsigned: Unsigned::Accept,
            keys: keys.to_vec(),
        };
        let standing = |n, to: &str| {
            let key = Key::Known { shop_id: shop("AMIS1"), kid: thumbprint(n) };
            Standing::of(&key, &shop(to), Some(&owner))
        };
        // then
        assert_eq!(standing(1, "AMIS1"), Standing::OwnRetired { since, until });
        assert_eq!(standing(2, "AMIS1"), Standing::Own);
        assert_eq!(standing(2, "AMIS2"), Standing::Other { owner: shop("AMIS1") });
        let told = standing(1, "AMIS2").words(&shop("AMIS2"));
        assert_eq!(told, "AMIS1's key of 2 March 2026, retired on 20 November 2026");
    }
}
