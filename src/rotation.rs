//! Another key for a shop, and the end of an old one.

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use kassa_bus::keys::KeyError;
use kassa_bus::registry::{Registry, Shop, ShopKey};
use kassa_bus::table::TableError;
use kassa_bus::{ShopId, Thumbprint};
use serde::{Deserialize, Serialize};

use crate::plan::MakeKeys;

/// Keys that can take each other's place.
///
/// Each step can be repeated. An adapter MUST NOT delete a key in any of them.
#[async_trait]
pub trait RotateKeys: MakeKeys {
    /// Has the present key be found by its own name as well, and says which it is.
    async fn name_present(&self, shop: &ShopId) -> Result<Thumbprint, KeyError>;
    /// A key that is found by its own name and that is none of these: one that a rotation left when it was cut off, or
    /// a new one.
    async fn make_next(&self, shop: &ShopId, known: &[Thumbprint]) -> Result<Thumbprint, KeyError>;
    /// Makes this the key that tills get from now on.
    async fn promote(&self, shop: &ShopId, kid: &Thumbprint) -> Result<(), KeyError>;
    /// Has this key open nothing any more, until somebody enables it by hand.
    async fn disable(&self, shop: &ShopId, kid: &Thumbprint) -> Result<(), KeyError>;
}

/// What is asked for: another key for this shop, and for how long the present one goes on opening.
#[derive(Debug, Serialize, Deserialize)]
pub struct Rotation {
    pub shop_id: ShopId,
    pub overlap: SignedDuration,
    /// The present key is gone for good: it opens nothing from now on.
    #[serde(default)]
    pub lost: bool,
}

/// Which old key is to be disabled.
#[derive(Debug, Serialize, Deserialize)]
pub struct Retirement {
    pub shop_id: ShopId,
    pub kid: Thumbprint,
    /// Also if sales may still come that were sealed with it.
    pub now: bool,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    pub shop_id: ShopId,
    pub from: Thumbprint,
    pub to: Thumbprint,
    /// What was accepted before then and sealed with the key before is still opened.
    pub until: Timestamp,
}

/// Why a key was not rotated or retired.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    #[error("{0} has no key yet; apply shops.toml first")]
    NoKey(ShopId),
    #[error("{0} has no key {1}; `kassa key list` shows which it has")]
    NoSuchKey(ShopId, Thumbprint),
    #[error("the key {1} of {0} is not lost: it is where it belongs")]
    NotLost(ShopId, Thumbprint),
    #[error("{0} is there, and is no key that is lost; move it away first")]
    InTheWay(String),
    #[error("{0} is what tills of {1} seal with; rotate it first")]
    InUse(Thumbprint, ShopId),
    #[error(
        "sales sealed with {kid} may come until {until:.0}; retire it then, or with --now lose what comes"
    )]
    TooEarly { kid: Thumbprint, until: Timestamp },
    #[error("the keys of {shop_id}")]
    Key { shop_id: ShopId, source: KeyError },
    #[error(transparent)]
    Table(#[from] TableError),
}

/// How a key stands at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyState {
    /// Tills seal with it.
    Present,
    /// A rotation that is under way, or was cut off, has made it; the next `kassa key rotate` goes on with it.
    Coming,
    /// It opens what tills that have not heard of the present one sealed.
    Overlapping,
    /// Nobody should seal with it any more: it can be retired.
    Over,
    /// It was disabled.
    Retired,
}

/// A shop's key as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownKey {
    pub shop_id: ShopId,
    #[serde(flatten)]
    pub key: ShopKey,
    pub state: KeyState,
}

/// A shop's keys as they stand, the present one last.
#[must_use]
pub fn shown(shop: &Shop, now: Timestamp) -> Vec<ShownKey> {
    let state = |key: &ShopKey| match key {
        key if shop.present_key() == Some(key) => KeyState::Present,
        ShopKey { retired: Some(_), .. } => KeyState::Retired,
        ShopKey { until: Some(until), .. } if now < *until => KeyState::Overlapping,
        key if coming(shop) == Some(key) => KeyState::Coming,
        _ => KeyState::Over,
    };
    let shown =
        |key: &ShopKey| ShownKey { shop_id: shop.shop_id.clone(), key: key.clone(), state: state(key) };
    shop.keys.iter().map(shown).collect()
}

/// The key that is to take the present one's place: it stands before it, and is no older.
pub(crate) fn coming(shop: &Shop) -> Option<&ShopKey> {
    let (present, others) = shop.keys.split_last()?;
    others.last().filter(|key| key.since >= present.since && key.ended().is_none())
}

/// Gives a shop another key. Cut off anywhere, it goes on when it is asked for again.
///
/// No sale is refused meanwhile: the registry knows the next key before any till can, and the present one goes on
/// opening by its own name when the shop's name has moved on.
///
/// # Errors
/// [`RotationError`].
pub async fn rotate(
    keys: &dyn RotateKeys,
    registry: &Registry,
    rotation: &Rotation,
    now: Timestamp,
) -> Result<Rotated, RotationError> {
    let Rotation { shop_id, overlap, lost } = rotation;
    let failed = |source| RotationError::Key { shop_id: shop_id.clone(), source };
    let no_key = || RotationError::NoKey(shop_id.clone());
    let mut shop = Shop::clone(&*registry.afresh(shop_id).await?.ok_or_else(no_key)?);
    let present = shop.present_key().ok_or_else(no_key)?.clone();
    if *lost {
        match keys.public_key(shop_id).await {
            Err(KeyError::NoSuchKey) => {}
            Ok(there) if *there.kid() == present.kid => {
                return Err(RotationError::NotLost(shop_id.clone(), present.kid));
            }
            // It may be somebody's only one.
            Ok(_) | Err(_) => return Err(RotationError::InTheWay(keys.place(shop_id))),
        }
    }
    let to = if let Some(coming) = coming(&shop) {
        coming.kid.clone()
    } else {
        if !lost {
            keys.name_present(shop_id).await.map_err(failed)?;
        }
        let known: Vec<_> = shop.keys.iter().map(|key| key.kid.clone()).collect();
        let next = keys.make_next(shop_id, &known).await.map_err(failed)?;
        // Never older than the present one, whosever clock that was by.
        let key = ShopKey::new(next.clone(), now.max(present.since));
        shop.keys.insert(shop.keys.len() - 1, key);
        registry.register(&shop).await?;
        next
    };
    keys.promote(shop_id, &to).await.map_err(failed)?;
    let until = if *lost { now } else { now.saturating_add(*overlap).unwrap_or(Timestamp::MAX) };
    let (mut next, mut others): (Vec<_>, Vec<_>) = shop.keys.drain(..).partition(|key| key.kid == to);
    if let Some(before) = others.last_mut() {
        before.until = Some(until);
        before.retired = lost.then_some(now);
    }
    others.append(&mut next);
    shop.keys = others;
    registry.register(&shop).await?;
    Ok(Rotated { shop_id: shop_id.clone(), from: present.kid, to, until })
}

/// Disables a key that tills no longer seal with. It is never deleted. Again, it changes nothing.
///
/// # Errors
/// [`RotationError`].
pub async fn retire(
    keys: &dyn RotateKeys,
    registry: &Registry,
    retirement: &Retirement,
    now: Timestamp,
) -> Result<ShownKey, RotationError> {
    let Retirement { shop_id, kid, now: at_once } = retirement;
    let unknown = || RotationError::NoSuchKey(shop_id.clone(), kid.clone());
    let mut shop = Shop::clone(&*registry.afresh(shop_id).await?.ok_or_else(unknown)?);
    let in_use = [shop.present_key(), coming(&shop)].into_iter().flatten().any(|key| key.kid == *kid);
    let key = shop.keys.iter_mut().find(|key| key.kid == *kid).ok_or_else(unknown)?;
    if in_use {
        return Err(RotationError::InUse(kid.clone(), shop_id.clone()));
    }
    if let Some(until) = key.until.filter(|until| now < *until && !at_once && key.retired.is_none()) {
        return Err(RotationError::TooEarly { kid: kid.clone(), until });
    }
    let key = ShopKey { retired: key.retired.or(Some(now)), ..key.clone() };
    // Whoever decrypts is to know first, or it would take a disabled key for one that may come back.
    for known in shop.keys.iter_mut().filter(|known| known.kid == *kid) {
        *known = key.clone();
    }
    registry.register(&shop).await?;
    let failed = |source| RotationError::Key { shop_id: shop_id.clone(), source };
    keys.disable(shop_id, kid).await.map_err(failed)?;
    Ok(ShownKey { shop_id: shop_id.clone(), key, state: KeyState::Retired })
}
