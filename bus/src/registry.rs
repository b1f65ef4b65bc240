use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::{ShopId, Thumbprint};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::opening_hours::OpeningHours;
use crate::quiet_hours::QuietHours;
use crate::shops_table::ShopsTable;
use crate::table::{Item, Readable, TableError, n, s, text};
use crate::text::{Language, Phone};
use crate::tills::{Tills, Unsigned};

/// A shop as registered: the row `info` of the shops table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shop {
    pub shop_id: ShopId,
    pub name: String,
    /// IANA name; a sale is booked on its day there.
    pub time_zone: String,
    /// For texts to the manager.
    pub language: Language,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager_phone: Option<Phone>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager_email: Option<String>,
    /// When the manager is not to be reminded of what was said before, in the shop's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_hours: Option<QuietHours>,
    /// When sales are to be expected, in the shop's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opening_hours: Option<OpeningHours>,
    /// Text messages the manager may get in a month.
    pub sms_budget: u32,
    /// What becomes of sales that no till signed.
    pub unsigned: Unsigned,
    /// Present and past, the present one last. While the key is being changed, its successor stands before it.
    pub keys: Vec<ShopKey>,
}

/// Text messages a month for a shop that does not say otherwise.
pub const SMS_BUDGET: u32 = 30;

/// A public key the shop has or had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShopKey {
    pub kid: Thumbprint,
    pub since: Timestamp,
    /// Sales that were accepted before then are still opened with it, though tills have another by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Since when it opens nothing any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<Timestamp>,
}

impl ShopKey {
    #[must_use]
    pub fn new(kid: Thumbprint, since: Timestamp) -> Self {
        Self { kid, since, until: None, retired: None }
    }

    /// Whether it may open a sale that was accepted at this time.
    #[must_use]
    pub fn opens(&self, accepted_at: Timestamp) -> bool {
        self.retired.is_none() && self.until.is_none_or(|until| accepted_at < until)
    }

    /// When it stopped opening sales, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<Timestamp> {
        self.until.into_iter().chain(self.retired).min()
    }
}

impl Shop {
    /// Where the shop's day begins and ends. A zone nobody knows (any more) counts as UTC.
    #[must_use]
    pub fn zone(&self) -> TimeZone {
        TimeZone::get(&self.time_zone).unwrap_or(TimeZone::UTC)
    }

    #[must_use]
    pub fn has_key(&self, kid: &Thumbprint) -> bool {
        self.key(kid).is_some()
    }

    /// The key of this name, past, present or to come.
    #[must_use]
    pub fn key(&self, kid: &Thumbprint) -> Option<&ShopKey> {
        self.keys.iter().find(|key| key.kid == *kid)
    }

    /// The key that tills seal with.
    #[must_use]
    pub fn present_key(&self) -> Option<&ShopKey> {
        self.keys.last()
    }
}

/// The shop registry, in the shops table. Reads are cached for a minute, misses for seconds.
///
/// Beside each shop's `info` row it keeps two indexes as rows of their own, under partition keys that
/// no shop can have: `#shops` lists the shops, `#keys` finds a key's owner.
#[derive(Clone)]
pub struct Registry {
    table: ShopsTable,
    /// Which tills may sign for which shop.
    pub tills: Tills,
    shops: Cache<Option<Arc<Shop>>, TableError>,
    owners: Cache<Option<ShopId>, TableError>,
}

const SHOPS: &str = "#shops";
const KEYS: &str = "#keys";
const INFO: &str = "info";

/// What is not there may be there soon, so it is asked for again sooner.
const KNOWN_FOR: Duration = Duration::from_mins(1);
const MISSED_FOR: Duration = Duration::from_secs(3);

fn remembered<T>(found: Option<T>) -> (Option<T>, Duration) {
    let lifetime = if found.is_some() { KNOWN_FOR } else { MISSED_FOR };
    (found, lifetime)
}

impl Registry {
    #[must_use]
    pub fn new(client: Client, table: impl Into<Arc<str>>) -> Self {
        Self::of(ShopsTable::new(client, table))
    }

    /// The registry in this table.
    #[must_use]
    pub fn of(table: ShopsTable) -> Self {
        let (shops, owners) = (Cache::new(10_000, KNOWN_FOR), Cache::new(10_000, KNOWN_FOR));
        Self { tills: Tills::new(table.clone()), table, shops, owners }
    }

    /// A shop, if it is registered.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn shop(&self, id: &ShopId) -> Result<Option<Arc<Shop>>, TableError> {
        if let Some(found) = self.shops.get(id.as_str().as_bytes()).await {
            return Ok(found);
        }
        self.load(id).await
    }

    /// The same, whatever was known of it: for whoever would turn a sale away on what may be a minute old.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn afresh(&self, id: &ShopId) -> Result<Option<Arc<Shop>>, TableError> {
        self.shops.invalidate(id.as_str().as_bytes()).await;
        self.load(id).await
    }

    /// A shop, if it is registered and its row can be read: for whoever has something to do also without.
    ///
    /// # Errors
    /// [`TableError::Unavailable`].
    pub async fn readable_shop(&self, id: &ShopId) -> Result<Option<Arc<Shop>>, TableError> {
        match self.shop(id).await {
            Err(error) if error.is_unreadable() => Ok(None),
            shop => shop,
        }
    }

    async fn load(&self, id: &ShopId) -> Result<Option<Arc<Shop>>, TableError> {
        let load = async {
            let row = self.table.row(id.as_str(), INFO).await?;
            row.map(|item| from_item(id, &item).map(Arc::new)).transpose().map(remembered)
        };
        self.shops.get_or_load_for(id.as_str().as_bytes(), load).await
    }

    /// The shop that has or had this key.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn owner(&self, kid: &Thumbprint) -> Result<Option<ShopId>, TableError> {
        let load = async {
            let row = self.table.row(KEYS, kid.as_str()).await?;
            // It is asked only whose key it was, and a sale is not to wait for that.
            let log = |error: &TableError| tracing::error!(%error, "a key's owner is not known");
            Ok(remembered(row.and_then(|row| owner(&row).inspect_err(log).ok())))
        };
        self.owners.get_or_load_for(kid.as_str().as_bytes(), load).await
    }

    /// The ids of all shops, in order, as far as they are ids.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn shops(&self) -> Result<Vec<ShopId>, TableError> {
        Ok(self.ids().await?.rows)
    }

    async fn ids(&self) -> Result<Readable<ShopId>, TableError> {
        let id = |row: &Item| {
            let id = text(row, "record_type").unwrap_or_default();
            id.parse().map_err(|_| TableError::Unreadable(format!("row {SHOPS} {id}: that is no shop's id")))
        };
        Ok(self.table.rows(SHOPS).await?.iter().map(id).collect())
    }

    /// All shops as they are registered, in the order of their ids.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn registered(&self) -> Result<Readable<Arc<Shop>>, TableError> {
        let Readable { rows, unreadable } = self.ids().await?;
        let mut shops = Readable { rows: Vec::with_capacity(rows.len()), unreadable };
        for id in rows {
            match self.shop(&id).await {
                Err(error) if !error.is_unreadable() => return Err(error),
                shop => shop.transpose().into_iter().for_each(|shop| shops.push(shop)),
            }
        }
        Ok(shops)
    }

    /// Its rows that cannot be read, each with what is wrong with it. Reads the table, whatever is known.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn unreadable(&self) -> Result<Vec<String>, TableError> {
        let Readable { rows, mut unreadable } = self.ids().await?;
        for id in rows {
            let info = self.table.row(id.as_str(), INFO).await?;
            unreadable
                .extend(info.and_then(|item| from_item(&id, &item).err()).map(|error| error.to_string()));
            unreadable.extend(self.tills.unreadable(&id).await?);
        }
        for row in self.table.rows(KEYS).await? {
            unreadable.extend(owner(&row).err().map(|error| error.to_string()));
        }
        Ok(unreadable)
    }

    /// Registers a shop with its indexes, or replaces what was registered.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn register(&self, shop: &Shop) -> Result<(), TableError> {
        let mut rows = vec![
            to_item(shop),
            Item::from([("shop_id".into(), s(SHOPS)), ("record_type".into(), s(shop.shop_id.as_str()))]),
        ];
        rows.extend(shop.keys.iter().map(|key| {
            Item::from([
                ("shop_id".into(), s(KEYS)),
                ("record_type".into(), s(key.kid.as_str())),
                ("owner".into(), s(shop.shop_id.as_str())),
            ])
        }));
        let puts = rows.into_iter().map(|row| {
            let put = Put::builder().table_name(&*self.table.name).set_item(Some(row)).build();
            Ok(TransactWriteItem::builder()
                .put(put.map_err(TableError::unavailable("register a shop"))?)
                .build())
        });
        let puts = puts.collect::<Result<_, TableError>>()?;
        let write = self.table.client.transact_write_items().set_transact_items(Some(puts));
        write.send().await.map_err(TableError::unavailable("register a shop"))?;
        self.shops.invalidate(shop.shop_id.as_str().as_bytes()).await;
        self.owners.invalidate_all();
        Ok(())
    }
}

fn to_item(shop: &Shop) -> Item {
    let key = |key: &ShopKey| {
        let mut map = HashMap::from([
            ("kid".to_owned(), s(key.kid.as_str())),
            ("since".to_owned(), s(key.since.to_string())),
        ]);
        let ends = [("until", key.until), ("retired", key.retired)];
        map.extend(ends.into_iter().filter_map(|(name, at)| Some((name.to_owned(), s(at?.to_string())))));
        AttributeValue::M(map)
    };
    let mut item = Item::from([
        ("shop_id".into(), s(shop.shop_id.as_str())),
        ("record_type".into(), s(INFO)),
        ("name".into(), s(&shop.name)),
        ("time_zone".into(), s(&shop.time_zone)),
        ("language".into(), s(shop.language.code())),
        ("sms_budget".into(), n(shop.sms_budget)),
        ("unsigned".into(), s(shop.unsigned.to_string())),
        ("keys".into(), AttributeValue::L(shop.keys.iter().map(key).collect())),
    ]);
    let phone = shop.manager_phone.as_ref().map(ToString::to_string);
    let quiet_hours = shop.quiet_hours.as_ref().map(ToString::to_string);
    let opening_hours = shop.opening_hours.as_ref().map(ToString::to_string);
    for (name, value) in [
        ("manager_phone", &phone),
        ("manager_email", &shop.manager_email),
        ("quiet_hours", &quiet_hours),
        ("opening_hours", &opening_hours),
    ] {
        if let Some(value) = value {
            item.insert(name.into(), s(value));
        }
    }
    item
}

fn owner(item: &Item) -> Result<ShopId, TableError> {
    let kid = text(item, "record_type").unwrap_or_default();
    let wrong = || TableError::Attribute { row: format!("{KEYS} {kid}"), attribute: "owner" };
    text(item, "owner").and_then(|owner| owner.parse().ok()).ok_or_else(wrong)
}

fn from_item(id: &ShopId, item: &Item) -> Result<Shop, TableError> {
    let wrong = |attribute| TableError::Attribute { row: format!("{id} info"), attribute };
    let required = |attribute| text(item, attribute).map(str::to_owned).ok_or_else(|| wrong(attribute));
    let keys = item.get("keys").and_then(|keys| keys.as_l().ok()).ok_or_else(|| wrong("keys"))?;
    let key = |key: &AttributeValue| {
        let key = key.as_m().ok()?;
        let end = |name| text(key, name).map(str::parse).transpose().ok();
        Some(ShopKey {
            kid: text(key, "kid")?.parse().ok()?,
            since: text(key, "since")?.parse().ok()?,
            until: end("until")?,
            retired: end("retired")?,
        })
    };
    Ok(Shop {
        shop_id: id.clone(),
        name: required("name")?,
        time_zone: required("time_zone")?,
        // What was registered when anything was taken for a language or a phone number: English, and no phone.
        language: required("language")?.parse().unwrap_or_default(),
        manager_phone: text(item, "manager_phone").and_then(|phone| phone.parse().ok()),
        manager_email: text(item, "manager_email").map(str::to_owned),
        quiet_hours: text(item, "quiet_hours")
            .map(|hours| hours.parse().map_err(|_| wrong("quiet_hours")))
            .transpose()?,
        opening_hours: text(item, "opening_hours")
            .map(|hours| hours.parse().map_err(|_| wrong("opening_hours")))
            .transpose()?,
        // Shops registered before there was one have none.
        sms_budget: text(item, "sms_budget")
            .map_or(Ok(SMS_BUDGET), |n| n.parse().map_err(|_| wrong("sms_budget")))?,
        // Nor do shops that were registered when no till could sign say what to do with what is not.
        unsigned: text(item, "unsigned")
            .map_or(Ok(Unsigned::Accept), |t| t.parse().map_err(|_| wrong("unsigned")))?,
        keys: keys.iter().map(|k| key(k).ok_or_else(|| wrong("keys"))).collect::<Result<_, _>>()?,
    })
}
