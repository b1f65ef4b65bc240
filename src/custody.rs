//! Whether the keys that are there are those that the registry knows.
//!
//! A sealed sale opens with one key and no other. So a key that is gone is named, and never replaced by another unasked: tills
//! would seal with that one, and nobody would miss the first until its sales are needed.

use std::fmt;

use jiff::Timestamp;
use kassa_bus::keys::{KeyError, ShopKeys};
use kassa_bus::registry::{Registry, Shop};
use kassa_bus::table::TableError;
use kassa_bus::{ShopId, Thumbprint};

use crate::rotation::coming;

/// Keys that are kept somewhere.
pub trait KeepKeys: ShopKeys {
    /// Where a shop's present key is, or is to be.
    fn place(&self, shop: &ShopId) -> String;
    /// How a key gets there again.
    fn put_back(&self, shop: &ShopId) -> String;
}

/// What is wrong with a shop's present key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    Gone,
    /// It is another one.
    Other(Thumbprint),
}

/// A shop's present key is not the one that the registry knows.
#[derive(Debug)]
pub struct WrongKey {
    pub shop_id: ShopId,
    /// The one that it knows.
    pub kid: Thumbprint,
    pub wrong: Wrong,
    /// Whose the one is that is there.
    pub owner: Option<ShopId>,
    pub place: String,
    pub put_back: String,
}

/// Why a shop's keys are not those that the registry knows.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    #[error("{0}")]
    Present(Box<WrongKey>),
    #[error(
        "the key {kid} of {shop_id} is gone, and opens what tills sealed until {until:.0}. {put_back}. If it is lost for good, \
         `kassa key retire --shop {shop_id} --kid {kid} --now` rejects what still comes"
    )]
    Overlapping { shop_id: ShopId, kid: Thumbprint, until: Timestamp, put_back: String },
    #[error("the key of {shop_id}. {put_back}")]
    Key { shop_id: ShopId, put_back: String, source: KeyError },
    #[error(transparent)]
    Table(#[from] TableError),
}

impl fmt::Display for WrongKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shop_id, kid, wrong, owner, place, put_back } = self;
        match (wrong, owner) {
            (Wrong::Gone, _) => write!(f, "{place} is gone")?,
            (Wrong::Other(there), Some(owner)) => write!(f, "{place} is {there}, a key of {owner}")?,
            (Wrong::Other(there), None) => {
                write!(f, "{place} is {there}, which is no key the registry knows")?;
            }
        }
        write!(
            f,
            ", and {shop_id} has the key {kid}: what tills sealed with that opens with no other. {put_back}. If it is lost for \
             good, `kassa key rotate --shop {shop_id} --lost` makes another"
        )
    }
}

/// What is wrong with the key that is there, by what the registry knows: the present key is to be there, or the one that takes
/// its place. A shop without a key may have any.
#[must_use]
pub fn judge(shop: &Shop, there: Option<&Thumbprint>) -> Option<Wrong> {
    let wanted = [Some(shop.present_key()?), coming(shop)];
    match there {
        None => Some(Wrong::Gone),
        Some(kid) if wanted.into_iter().flatten().any(|key| key.kid == *kid) => None,
        Some(kid) => Some(Wrong::Other(kid.clone())),
    }
}

/// The present key that is there, if it is the one that the registry knows.
///
/// # Errors
/// [`CustodyError`].
pub async fn present(
    keys: &dyn KeepKeys,
    registry: &Registry,
    shop_id: &ShopId,
    registered: Option<&Shop>,
) -> Result<Option<Thumbprint>, CustodyError> {
    let there = match keys.public_key(shop_id).await {
        Ok(key) => Some(key.kid().clone()),
        Err(KeyError::NoSuchKey) => None,
        Err(source) => {
            let put_back = keys.put_back(shop_id);
            return Err(CustodyError::Key { shop_id: shop_id.clone(), put_back, source });
        }
    };
    let wrong = registered.and_then(|shop| Some((shop.present_key()?, judge(shop, there.as_ref())?)));
    let Some((known, wrong)) = wrong else { return Ok(there) };
    let owner = match &wrong {
        Wrong::Gone => None,
        Wrong::Other(kid) => registry.owner(kid).await?,
    };
    Err(CustodyError::Present(Box::new(WrongKey {
        shop_id: shop_id.clone(),
        kid: known.kid.clone(),
        wrong,
        owner,
        place: keys.place(shop_id),
        put_back: keys.put_back(shop_id),
    })))
}

#[cfg(test)]
mod tests {
    use kassa_bus::registry::ShopKey;
    use kassa_bus::text::Language;
    use kassa_bus::tills::Unsigned;

    use super::*;

    fn kid(letter: &str) -> Thumbprint {
        letter.repeat(43).parse().unwrap()
    }

    fn shop(kids: &[&str]) -> Shop {
        Shop {
            shop_id: "AMIS1".parse().unwrap(),
            name: String::new(),
            time_zone: "UTC".into(),
            language: Language::English,
            manager_phone: None,
            manager_email: None,
            quiet_hours: None,
            opening_hours: None,
            sms_budget: 0,
            unsigned: Unsigned::Accept,
            keys: kids
                .iter()
                .zip(0..)
                .map(|(kid_, n)| ShopKey::new(kid(kid_), Timestamp::from_second(n).unwrap()))
                .collect(),
        }
    }

    #[test]
    fn the_present_key_or_its_successor_is_to_be_there() {
        let rotated = shop(&["A", "B"]);
        assert_eq!(judge(&rotated, Some(&kid("B"))), None);
        assert_eq!(judge(&rotated, Some(&kid("A"))), Some(Wrong::Other(kid("A"))));
        assert_eq!(judge(&rotated, Some(&kid("C"))), Some(Wrong::Other(kid("C"))));
        assert_eq!(judge(&rotated, None), Some(Wrong::Gone));
        // while it rotates, the next stands before the present one, and may have its place already
        let mut rotating = shop(&["A", "B"]);
        rotating.keys.swap(0, 1);
        for there in ["A", "B"] {
            assert_eq!(judge(&rotating, Some(&kid(there))), None);
        }
    }

    #[test]
    fn a_shop_without_a_key_may_have_any() {
        assert_eq!(judge(&shop(&[]), None), None);
        assert_eq!(judge(&shop(&[]), Some(&kid("A"))), None);
    }
}
