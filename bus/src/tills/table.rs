use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;

use super::revocations::Revocations;
use super::{EnrolledTill, TillKey};
use crate::cache::Cache;
use crate::jws::SigningKey;
use crate::shops_table::{ShopsTable, key};
use crate::table::{Item, Readable, TableError, n, s, text};
use crate::{ShopId, TillId};

/// Why a till was not enrolled or revoked.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error(
        "till {till} of {shop_id} is enrolled with another key; revoke that first, or choose another name"
    )]
    OtherKey { shop_id: ShopId, till: TillId },
    #[error("this key of till {till} of {shop_id} was revoked; make the till a new one")]
    Revoked { shop_id: ShopId, till: TillId },
    #[error("{shop_id} has no till {till} that could be revoked")]
    NoSuchTill { shop_id: ShopId, till: TillId },
    #[error("till {till} of {shop_id} was just changed by somebody else; try again")]
    Changed { shop_id: ShopId, till: TillId },
    #[error(transparent)]
    Table(#[from] TableError),
}

/// The tills that are enrolled: a row `t-<till>` each, beside their shop's own in the shops table.
///
/// Reads are cached for a minute, within which a revocation takes effect. What is not there is not remembered.
#[derive(Clone)]
pub struct Tills {
    table: ShopsTable,
    cache: Cache<Arc<EnrolledTill>>,
    revocations: Revocations,
}

const ROW: &str = "t-";

/// How long a till is known before it is read again.
const KNOWN_FOR: Duration = Duration::from_mins(1);

/// What a till is cached under. No shop's id has a `#`.
fn name(shop: &ShopId, till: &TillId) -> Vec<u8> {
    format!("{shop}#{till}").into_bytes()
}

impl Tills {
    #[must_use]
    pub fn new(table: ShopsTable) -> Self {
        let revocations = Revocations::new(table.clone(), KNOWN_FOR);
        Self { table, cache: Cache::new(10_000, KNOWN_FOR), revocations }
    }

    /// How many tills' keys of a shop were revoked, if that is known.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn revocations(&self, shop: &ShopId) -> Result<Option<u64>, TableError> {
        self.revocations.known(shop).await
    }

    /// The highest number that a revocation of a shop has.
    async fn last_revocation(&self, shop: &ShopId) -> Result<u64, TableError> {
        let tills = self.of(shop).await?.rows;
        Ok(tills.iter().flat_map(|till| &till.keys).filter_map(|key| key.revocation).max().unwrap_or(0))
    }

    /// A till, if it is enrolled.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn till(&self, shop: &ShopId, till: &TillId) -> Result<Option<Arc<EnrolledTill>>, TableError> {
        match self.cache.get(&name(shop, till)).await {
            Some(known) => Ok(Some(known)),
            None => self.afresh(shop, till).await,
        }
    }

    /// The same, whatever was known of it.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn afresh(
        &self,
        shop: &ShopId,
        till: &TillId,
    ) -> Result<Option<Arc<EnrolledTill>>, TableError> {
        let row = self.table.row(shop.as_str(), &format!("{ROW}{till}")).await?;
        let found = row.map(|row| from_item(shop, &row).map(Arc::new)).transpose()?;
        if let Some(found) = &found {
            self.cache.insert(&name(shop, till), Arc::clone(found)).await;
        }
        Ok(found)
    }

    /// What of a shop's rows cannot be read, in words.
    ///
    /// # Errors
    /// [`TableError::Unavailable`].
    pub async fn unreadable(&self, shop: &ShopId) -> Result<Vec<String>, TableError> {
        let mut unreadable = self.of(shop).await?.unreadable;
        match self.revocations.counted(shop).await {
            Err(error) if error.is_unreadable() => unreadable.push(error.to_string()),
            counted => drop(counted?),
        }
        Ok(unreadable)
    }

    /// A shop's tills, by their names.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn of(&self, shop: &ShopId) -> Result<Readable<EnrolledTill>, TableError> {
        let rows = self.table.rows_like(shop.as_str(), ROW).await?;
        Ok(rows.iter().map(|row| from_item(shop, row)).collect())
    }

    /// Enrols a till with this key. Again, it changes nothing.
    ///
    /// # Errors
    /// [`EnrolError`].
    pub async fn enrol(
        &self,
        shop: &ShopId,
        till: &TillId,
        key: SigningKey,
        now: Timestamp,
    ) -> Result<EnrolledTill, EnrolError> {
        let before = self.afresh(shop, till).await?;
        let (shop_id, till) = (shop.clone(), till.clone());
        let mut keys = before.as_ref().map_or_else(Vec::new, |before| before.keys.clone());
        if let Some(known) = keys.iter().find(|known| known.key == key) {
            return match (known.revoked, before) {
                (None, Some(before)) => Ok(EnrolledTill::clone(&before)),
                _ => Err(EnrolError::Revoked { shop_id, till }),
            };
        }
        if before.as_ref().is_some_and(|before| before.present().is_some()) {
            return Err(EnrolError::OtherKey { shop_id, till });
        }
        self.revocations.begin(&shop_id, self.last_revocation(&shop_id).await?).await?;
        keys.push(TillKey { key, since: now, revoked: None, revocation: None });
        self.write(EnrolledTill { shop_id, till, keys, version: before.map_or(0, |b| b.version) }).await
    }

    /// Takes a till's right to sign. What it signed before stays as it is.
    ///
    /// # Errors
    /// [`EnrolError`].
    pub async fn revoke(
        &self,
        shop: &ShopId,
        till: &TillId,
        now: Timestamp,
    ) -> Result<EnrolledTill, EnrolError> {
        let before = self.afresh(shop, till).await?;
        let none = || EnrolError::NoSuchTill { shop_id: shop.clone(), till: till.clone() };
        let mut revoked = EnrolledTill::clone(&*before.ok_or_else(none)?);
        let Some(key) = revoked.keys.last_mut().filter(|key| key.revoked.is_none()) else {
            return Ok(revoked);
        };
        // Counted first: a sale that is taken from now on knows of it before any is judged by it.
        let least = self.last_revocation(shop).await?;
        let Some(number) = self.revocations.next(shop, least).await? else {
            return Err(EnrolError::Changed { shop_id: shop.clone(), till: till.clone() });
        };
        (key.revoked, key.revocation) = (Some(now), Some(number));
        self.write(revoked).await
    }

    async fn write(&self, till: EnrolledTill) -> Result<EnrolledTill, EnrolError> {
        let before = Item::from([(":before".to_owned(), n(till.version))]);
        let unchanged = "attribute_not_exists(shop_id) OR version = :before";
        if !self.table.put_if(to_item(&till), unchanged, before).await? {
            return Err(EnrolError::Changed { shop_id: till.shop_id, till: till.till });
        }
        self.cache.invalidate(&name(&till.shop_id, &till.till)).await;
        Ok(till)
    }
}

/// The row in its next version.
fn to_item(till: &EnrolledTill) -> Item {
    let of_key = |key: &TillKey| {
        let mut map =
            HashMap::from([("x".to_owned(), s(key.key.x())), ("since".to_owned(), s(key.since.to_string()))]);
        map.extend(key.revoked.map(|revoked| ("revoked".to_owned(), s(revoked.to_string()))));
        map.extend(key.revocation.map(|number| ("revocation".to_owned(), n(number))));
        AttributeValue::M(map)
    };
    let mut item = key(till.shop_id.as_str(), &format!("{ROW}{}", till.till));
    item.insert("version".into(), n(till.version + 1));
    item.insert("keys".into(), AttributeValue::L(till.keys.iter().map(of_key).collect()));
    item
}

fn from_item(shop: &ShopId, item: &Item) -> Result<EnrolledTill, TableError> {
    let name = text(item, "record_type").unwrap_or_default();
    let wrong = |attribute| TableError::Attribute { row: format!("{shop} {name}"), attribute };
    let of_key = |key: &AttributeValue| {
        let key = key.as_m().ok()?;
        Some(TillKey {
            key: SigningKey::from_x(text(key, "x")?).ok()?,
            since: text(key, "since")?.parse().ok()?,
            revoked: text(key, "revoked").map(str::parse).transpose().ok()?,
            revocation: text(key, "revocation").map(str::parse).transpose().ok()?,
        })
    };
    let keys = item.get("keys").and_then(|keys| keys.as_l().ok()).ok_or_else(|| wrong("keys"))?;
    Ok(EnrolledTill {
        shop_id: shop.clone(),
        till: name.strip_prefix(ROW).and_then(|t| t.parse().ok()).ok_or_else(|| wrong("record_type"))?,
        keys: keys.iter().map(|key| of_key(key).ok_or_else(|| wrong("keys"))).collect::<Result<_, _>>()?,
        version: text(item, "version").and_then(|t| t.parse().ok()).ok_or_else(|| wrong("version"))?,
    })
}
