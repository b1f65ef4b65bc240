use std::path::Path;

use jiff::tz::TimeZone;
use kassa_bus::amount::Amount;
use kassa_bus::opening_hours::OpeningHours;
use kassa_bus::quiet_hours::QuietHours;
use kassa_bus::registry::SMS_BUDGET;
use kassa_bus::tills::Unsigned;
use kassa_bus::{ItemNo, ShopId};
use kassa_pipeline::read_model::DeclaredItem;
use serde::{Deserialize, Deserializer, Serialize};

/// The file Kassa ships with, for whoever runs it somewhere else.
const SHIPPED: &str = include_str!("../shops.toml");

/// `shops.toml`, checked.
#[derive(Debug, Clone)]
pub struct Shops {
    pub shops: Vec<DeclaredShop>,
    pub items: Vec<DeclaredItem>,
}

/// A shop as declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredShop {
    pub id: ShopId,
    pub name: String,
    pub time_zone: String,
    #[serde(default = "english")]
    pub language: String,
    pub manager_phone: Option<String>,
    pub manager_email: Option<String>,
    /// When the manager gets no reminders, in the shop's time.
    pub quiet_hours: Option<QuietHours>,
    /// When sales are to be expected, in the shop's time: a shop that has none then is told to ICT.
    pub opening_hours: Option<OpeningHours>,
    /// Text messages a month, at most.
    #[serde(default = "sms_budget")]
    pub sms_budget: u32,
    /// What becomes of sales that no till signed. Not said, a new shop rejects them, and another goes on as it did.
    pub unsigned: Option<Unsigned>,
}

fn sms_budget() -> u32 {
    SMS_BUDGET
}

fn english() -> String {
    "en".into()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    shops: Vec<DeclaredShop>,
    #[serde(default)]
    items: Vec<FileItem>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileItem {
    number: ItemNo,
    description: String,
    #[serde(deserialize_with = "as_tills_send_them")]
    price: Amount,
    #[serde(deserialize_with = "as_tills_send_them")]
    opening_stock: Amount,
}

/// Within the same bounds.
fn as_tills_send_them<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Amount, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|why| serde::de::Error::custom(format!("{text:?} {why}")))
}

/// Why `shops.toml` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ShopsError {
    #[error("cannot read {path}: {why}")]
    Unreadable { path: String, why: std::io::Error },
    #[error("{path} is not a shops file: {why}")]
    NotShops { path: String, why: Box<toml::de::Error> },
    #[error("{path}: {why}")]
    Wrong { path: String, why: String },
}

impl Shops {
    /// Reads the file, or what Kassa ships with if there is no file of that name and it was not asked for.
    ///
    /// # Errors
    /// [`ShopsError`], with the line where there is one.
    pub fn read(path: Option<&Path>) -> Result<Self, ShopsError> {
        let name = path.unwrap_or(Path::new("shops.toml"));
        let text = match std::fs::read_to_string(name) {
            Ok(text) => text,
            Err(e) if path.is_none() && e.kind() == std::io::ErrorKind::NotFound => SHIPPED.to_owned(),
            Err(why) => return Err(ShopsError::Unreadable { path: name.display().to_string(), why }),
        };
        Self::parse(&text, &name.display().to_string())
    }

    /// Reads the text of a file of this name.
    ///
    /// # Errors
    /// [`ShopsError`], with the line where there is one.
    pub fn parse(text: &str, path: &str) -> Result<Self, ShopsError> {
        let file: File = toml::from_str(text)
            .map_err(|why| ShopsError::NotShops { path: path.into(), why: Box::new(why) })?;
        let wrong = |why: String| ShopsError::Wrong { path: path.into(), why };
        if file.shops.is_empty() {
            return Err(wrong("it declares no shop; add a [[shops]] with id, name and time_zone".into()));
        }
        for (n, shop) in file.shops.iter().enumerate() {
            TimeZone::get(&shop.time_zone)
                .map_err(|_| wrong(format!("shop {}: {:?} is no IANA time zone", shop.id, shop.time_zone)))?;
            if file.shops[..n].iter().any(|other| other.id == shop.id) {
                return Err(wrong(format!("shop {} is declared twice", shop.id)));
            }
        }
        for (n, item) in file.items.iter().enumerate() {
            if file.items[..n].iter().any(|other| other.number == item.number) {
                return Err(wrong(format!("item {} is declared twice", item.number)));
            }
        }
        let item = |i: FileItem| DeclaredItem {
            item_no: i.number,
            description: i.description,
            price: i.price,
            opening_stock: i.opening_stock,
        };
        Ok(Self { shops: file.shops, items: file.items.into_iter().map(item).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, says: &str) {
        let error = Shops::parse(text, "shops.toml").unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    #[test]
    fn the_shipped_file_declares_what_the_design_says() {
        let shops = Shops::parse(SHIPPED, "shops.toml").unwrap();
        assert_eq!(shops.shops.iter().map(|s| s.id.as_str()).collect::<Vec<_>>(), ["AMIS1", "AMIS2"]);
        let items: Vec<String> = shops.items.iter().map(|i| i.item_no.to_string()).collect();
        assert_eq!(items, ["98", "12345", "91279", "90001", "90002"]);
    }

    #[test]
    fn a_wrong_file_is_told_with_place_and_remedy() {
        refused("", "add a [[shops]]");
        refused("[[shops]]\nid = \"A\"\nname = \"A\"\ntime_zone = \"Mars\"", "no IANA time zone");
        refused("[[shops]]\nid = \"A B\"\nname = \"A\"\ntime_zone = \"UTC\"", "shop id");
        refused("[[shops]]\nid = \"A\"\nname = \"A\"\ntimezone = \"UTC\"", "timezone");
        let shop = "[[shops]]\nid = \"A\"\nname = \"A\"\ntime_zone = \"UTC\"\n";
        refused(&format!("{shop}{shop}"), "declared twice");
        refused(
            &format!(
                "{shop}[[items]]\nnumber = \"1\"\ndescription = \"x\"\nprice = 1.5\nopening_stock = \"1\""
            ),
            "price",
        );
    }
}
