//! What must change for the shops to be as `shops.toml` declares them.

use std::collections::{HashMap, HashSet};
use std::fmt;

use async_trait::async_trait;
use jiff::Timestamp;
use kassa_bus::amount::Amount;
use kassa_bus::keys::{KeyError, ShopKeys};
use kassa_bus::opening_hours::OpeningHours;
use kassa_bus::quiet_hours::QuietHours;
use kassa_bus::registry::{Registry, Shop, ShopKey};
use kassa_bus::table::TableError;
use kassa_bus::text::{Contact, Phone};
use kassa_bus::tills::Unsigned;
use kassa_bus::{ShopId, Thumbprint};
use kassa_pipeline::posting::Row;
use kassa_pipeline::read_model::{DeclaredItem, ReadModel};
use kassa_pipeline::row::{ItemRow, ReadRow};
use serde::Serialize;

use crate::custody::{self, CustodyError, KeepKeys};
use crate::shops::{DeclaredShop, Shops};

/// Why the shops could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("the key of {shop_id}")]
    Key { shop_id: ShopId, source: KeyError },
    #[error(transparent)]
    Custody(#[from] CustodyError),
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Keys that can be made for shops that have none.
#[async_trait]
pub trait MakeKeys: KeepKeys {
    /// Makes the shop's key. An adapter MUST NOT replace or delete one that is there.
    async fn make(&self, shop: &ShopId) -> Result<(), KeyError>;
}

/// What must change for a shop to be as `shops.toml` declares it. Nothing is ever deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    MakeKey {
        shop_id: ShopId,
    },
    /// There is a key under the shop's name, and the registry knows of none.
    RegisterKey {
        shop_id: ShopId,
        kid: Thumbprint,
    },
    AddShop {
        shop: DeclaredShop,
    },
    ChangeShop {
        shop: DeclaredShop,
        differs: Vec<Difference>,
    },
    AddItem {
        shop_id: ShopId,
        item: DeclaredItem,
    },
    ChangeItem {
        shop_id: ShopId,
        item: DeclaredItem,
        differs: Vec<Difference>,
    },
}

/// A field that is not what was declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub field: &'static str,
    pub is: String,
    pub becomes: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |text: &str| if text.is_empty() { "(none)".to_owned() } else { text.to_owned() };
        write!(f, "{}: {} → {}", self.field, or_none(&self.is), or_none(&self.becomes))
    }
}

fn differences<const N: usize>(fields: [(&'static str, String, String); N]) -> Vec<Difference> {
    let differ = fields.into_iter().filter(|(_, is, becomes)| is != becomes);
    differ.map(|(field, is, becomes)| Difference { field, is, becomes }).collect()
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each =
            |differs: &[Difference]| differs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Self::MakeKey { shop_id } => write!(f, "+ {shop_id} key (RSA-2048)"),
            Self::RegisterKey { shop_id, kid } => write!(f, "~ {shop_id} key {kid} is registered as its"),
            Self::AddShop { shop } => write!(f, "+ {} ({}, {})", shop.id, shop.name, shop.time_zone),
            Self::ChangeShop { shop, differs } => write!(f, "~ {} {}", shop.id, each(differs)),
            Self::AddItem { shop_id, item } => write!(
                f,
                "+ {shop_id} item {} ({}, {}, opening stock {})",
                item.item_no, item.description, item.price, item.opening_stock
            ),
            Self::ChangeItem { shop_id, item, differs } => {
                write!(f, "~ {shop_id} item {} {}", item.item_no, each(differs))
            }
        }
    }
}

/// All that must change, in the order it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub changes: Vec<Change>,
    /// Shops that are registered and not declared (any more). They are left as they are.
    pub undeclared: Vec<ShopId>,
    /// Rows of the registry that cannot be read, each with what is wrong with it. They are left as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
}

impl Plan {
    /// Compares what there is with the declaration. Changes nothing.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub async fn make(
        shops: &Shops,
        keys: &dyn KeepKeys,
        registry: &Registry,
        read_model: &ReadModel,
    ) -> Result<Self, ApplyError> {
        let (mut changes, mut unreadable) = (Vec::new(), Vec::new());
        for shop in &shops.shops {
            let registered = match registry.shop(&shop.id).await {
                Err(error) if error.is_unreadable() => {
                    unreadable.push(error.to_string());
                    continue;
                }
                registered => registered?,
            };
            let kid = custody::present(keys, registry, &shop.id, registered.as_deref()).await?;
            changes.extend(kid.is_none().then(|| Change::MakeKey { shop_id: shop.id.clone() }));
            changes.extend(shop_change(shop, registered.as_deref()));
            if let (Some(kid), Some(registered)) = (kid, registered)
                && !registered.has_key(&kid)
            {
                changes.push(Change::RegisterKey { shop_id: shop.id.clone(), kid });
            }
            // An item whose row cannot be read is declared anew, which may put it right.
            let rows = declared_rows(read_model, &shop.id, &shops.items).await?;
            changes.extend(shops.items.iter().filter_map(|item| item_change(&shop.id, item, &rows)));
        }
        let declared = |id: &ShopId| shops.shops.iter().any(|shop| shop.id == *id);
        let undeclared = registry.shops().await?.into_iter().filter(|id| !declared(id)).collect();
        Ok(Self { changes, undeclared, unreadable })
    }

    /// Does what is planned, and says which items' rows cannot take it. Cut off, it can be planned and carried out again.
    ///
    /// # Errors
    /// [`ApplyError`]; what was done by then stays.
    pub async fn carry_out(
        &self,
        keys: &dyn MakeKeys,
        registry: &Registry,
        read_model: &ReadModel,
        now: Timestamp,
    ) -> Result<Vec<String>, ApplyError> {
        let mut refused = Vec::new();
        for change in &self.changes {
            match change {
                Change::MakeKey { shop_id } => {
                    let failed = |source| ApplyError::Key { shop_id: shop_id.clone(), source };
                    keys.make(shop_id).await.map_err(failed)?;
                    if let Some(before) = registry.shop(shop_id).await? {
                        register_key(keys, registry, &before, now).await?;
                    }
                }
                Change::RegisterKey { shop_id, .. } => {
                    if let Some(before) = registry.shop(shop_id).await? {
                        register_key(keys, registry, &before, now).await?;
                    }
                }
                Change::AddShop { shop } | Change::ChangeShop { shop, .. } => {
                    let before = registry.shop(&shop.id).await?;
                    let shop = registered(shop, before.as_deref());
                    register_key(keys, registry, &shop, now).await?;
                }
                Change::AddItem { shop_id, item } | Change::ChangeItem { shop_id, item, .. } => {
                    match read_model.declare(shop_id, item).await {
                        Err(error) if error.is_unreadable() => refused.push(error.to_string()),
                        Ok(true) => refused.push(format!(
                            "{shop_id} {}: what was sold of it until now is among the other items; kassa rebuild \
                             gives it its own",
                            Row::Item(item.item_no)
                        )),
                        declared => drop(declared?),
                    }
                }
            }
        }
        Ok(refused)
    }
}

/// The rows of these items.
async fn declared_rows(
    read_model: &ReadModel,
    shop: &ShopId,
    items: &[DeclaredItem],
) -> Result<HashMap<String, ItemRow>, TableError> {
    let wanted: HashSet<String> = items.iter().map(|item| Row::Item(item.item_no).to_string()).collect();
    let (mut rows, mut cursor) = (HashMap::new(), None);
    loop {
        let (page, next) = read_model.page(shop, "s-", cursor).await?;
        rows.extend(page.rows.into_iter().filter_map(|row| match row {
            ReadRow::Item(row) if wanted.contains(&row.record_type) => Some((row.record_type.clone(), row)),
            _ => None,
        }));
        cursor = next;
        if cursor.is_none() {
            return Ok(rows);
        }
    }
}

async fn key_of(keys: &dyn ShopKeys, shop_id: &ShopId) -> Result<Option<Thumbprint>, ApplyError> {
    match keys.public_key(shop_id).await {
        Ok(key) => Ok(Some(key.kid().clone())),
        Err(KeyError::NoSuchKey) => Ok(None),
        Err(source) => Err(ApplyError::Key { shop_id: shop_id.clone(), source }),
    }
}

/// Registers the shop with the key it has now, and those it had.
async fn register_key(
    keys: &dyn ShopKeys,
    registry: &Registry,
    shop: &Shop,
    now: Timestamp,
) -> Result<(), ApplyError> {
    let mut shop = shop.clone();
    if let Some(kid) = key_of(keys, &shop.shop_id).await?.filter(|kid| !shop.has_key(kid)) {
        shop.keys.push(ShopKey::new(kid, now));
    }
    Ok(registry.register(&shop).await?)
}

fn registered(shop: &DeclaredShop, before: Option<&Shop>) -> Shop {
    Shop {
        shop_id: shop.id.clone(),
        name: shop.name.to_string(),
        time_zone: shop.time_zone.clone(),
        language: shop.language,
        manager_phone: shop.manager_phone.clone(),
        manager_email: shop.manager_email.as_ref().map(ToString::to_string),
        quiet_hours: shop.quiet_hours,
        opening_hours: shop.opening_hours.clone(),
        sms_budget: shop.sms_budget,
        unsigned: unsigned(shop, before),
        keys: before.map_or_else(Vec::new, |before| before.keys.clone()),
    }
}

/// A shop that was taken unsigned sales from and does not say that this is to end goes on so.
fn unsigned(shop: &DeclaredShop, is: Option<&Shop>) -> Unsigned {
    shop.unsigned.or(is.map(|is| is.unsigned)).unwrap_or(Unsigned::Reject)
}

fn shop_change(shop: &DeclaredShop, is: Option<&Shop>) -> Option<Change> {
    let Some(is) = is else { return Some(Change::AddShop { shop: shop.clone() }) };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let phone = |phone: &Option<Phone>| phone.as_ref().map(ToString::to_string).unwrap_or_default();
    let contact = |text: &Option<Contact>| text.as_ref().map(ToString::to_string).unwrap_or_default();
    let quiet = |shop: Option<QuietHours>| shop.map(|h| h.to_string()).unwrap_or_default();
    let open = |shop: &Option<OpeningHours>| shop.as_ref().map(ToString::to_string).unwrap_or_default();
    let differs = differences([
        ("name", is.name.clone(), shop.name.to_string()),
        ("time_zone", is.time_zone.clone(), shop.time_zone.clone()),
        ("language", is.language.to_string(), shop.language.to_string()),
        ("manager_phone", phone(&is.manager_phone), phone(&shop.manager_phone)),
        ("manager_email", text(&is.manager_email), contact(&shop.manager_email)),
        ("quiet_hours", quiet(is.quiet_hours), quiet(shop.quiet_hours)),
        ("opening_hours", open(&is.opening_hours), open(&shop.opening_hours)),
        ("sms_budget", is.sms_budget.to_string(), shop.sms_budget.to_string()),
        ("unsigned", is.unsigned.to_string(), unsigned(shop, Some(is)).to_string()),
    ]);
    (!differs.is_empty()).then(|| Change::ChangeShop { shop: shop.clone(), differs })
}

fn item_change(shop_id: &ShopId, item: &DeclaredItem, rows: &HashMap<String, ItemRow>) -> Option<Change> {
    let (shop_id, item) = (shop_id.clone(), item.clone());
    let row = rows.get(&Row::Item(item.item_no).to_string());
    // A row without an opening stock is of an item that was sold before it was declared.
    let Some(is) = row.filter(|row| row.opening_stock.is_some()) else {
        return Some(Change::AddItem { shop_id, item });
    };
    // 14.9 and 14.90 are the same amount.
    let amount = |is: Option<Amount>, becomes: Amount| match is {
        Some(is) if is == becomes => becomes.to_string(),
        is => is.map_or_else(String::new, |is| is.to_string()),
    };
    let differs = differences([
        ("description", is.item_description.clone().unwrap_or_default(), item.description.clone()),
        ("price", amount(is.selling_price, item.price), item.price.to_string()),
        ("opening stock", amount(is.opening_stock, item.opening_stock), item.opening_stock.to_string()),
    ]);
    (!differs.is_empty()).then_some(Change::ChangeItem { shop_id, item, differs })
}
