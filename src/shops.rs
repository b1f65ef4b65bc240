use std::ops::Range;
use std::path::Path;

use jiff::tz::TimeZone;
use kassa_bus::amount::Amount;
use kassa_bus::opening_hours::OpeningHours;
use kassa_bus::quiet_hours::QuietHours;
use kassa_bus::registry::SMS_BUDGET;
use kassa_bus::text::{Contact, Description, Language, Name, Phone};
use kassa_bus::tills::Unsigned;
use kassa_bus::{ItemNo, ShopId};
use kassa_pipeline::read_model::DeclaredItem;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use toml::Spanned;

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
    pub name: Name,
    #[serde(deserialize_with = "zone")]
    pub time_zone: String,
    #[serde(default)]
    pub language: Language,
    pub manager_phone: Option<Phone>,
    pub manager_email: Option<Contact>,
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

/// An IANA time zone's name.
fn zone<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    let name = String::deserialize(value)?;
    TimeZone::get(&name).map_err(|_| D::Error::custom(format!("{name:?} is no IANA time zone")))?;
    Ok(name)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    shops: Vec<Spanned<DeclaredShop>>,
    #[serde(default)]
    items: Vec<Spanned<FileItem>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileItem {
    number: ItemNo,
    description: Description,
    #[serde(deserialize_with = "as_tills_send_them")]
    price: Amount,
    #[serde(deserialize_with = "not_negative")]
    opening_stock: Amount,
}

/// Within the same bounds.
fn as_tills_send_them<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Amount, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|why| serde::de::Error::custom(format!("{text:?} {why}")))
}

/// Nobody has fewer than none on his shelves.
fn not_negative<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Amount, D::Error> {
    let amount = as_tills_send_them(deserializer)?;
    if amount.is_negative() {
        return Err(D::Error::custom(format!("{amount} is negative; a shop opens with 0 or more")));
    }
    Ok(amount)
}

/// Why `shops.toml` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ShopsError {
    #[error("cannot read {path}: {why}")]
    Unreadable { path: String, why: std::io::Error },
    /// With the line, and how it begins.
    #[error("{path}, line {line}: {why}: {begins}")]
    Line { path: String, line: usize, why: String, begins: String },
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
        let at = |span: Range<usize>, why: String| {
            let (path, (line, begins)) = (path.into(), line(text, span.start));
            ShopsError::Line { path, line, why, begins }
        };
        let file: File = toml::from_str(text)
            .map_err(|why| at(why.span().unwrap_or_default(), why.message().to_owned()))?;
        if file.shops.is_empty() {
            let why = "it declares no shop; add a [[shops]] with id, name and time_zone".into();
            return Err(ShopsError::Wrong { path: path.into(), why });
        }
        for (n, shop) in file.shops.iter().enumerate() {
            let id = &shop.get_ref().id;
            if file.shops[..n].iter().any(|other| other.get_ref().id == *id) {
                return Err(at(shop.span(), format!("shop {id} is declared twice")));
            }
        }
        for (n, item) in file.items.iter().enumerate() {
            let number = item.get_ref().number;
            if file.items[..n].iter().any(|other| other.get_ref().number == number) {
                return Err(at(item.span(), format!("item {number} is declared twice")));
            }
        }
        let item = |i: FileItem| DeclaredItem {
            item_no: i.number,
            description: i.description.into(),
            price: i.price,
            opening_stock: i.opening_stock,
        };
        let shops = file.shops.into_iter().map(Spanned::into_inner).collect();
        Ok(Self { shops, items: file.items.into_iter().map(Spanned::into_inner).map(item).collect() })
    }
}

/// The number of the line that this byte is in, and how the line begins.
fn line(text: &str, byte: usize) -> (usize, String) {
    let before = text.get(..byte).unwrap_or(text);
    let number = before.matches('\n').count();
    let begins = text.lines().nth(number).unwrap_or_default().trim();
    (number + 1, begins.chars().take(60).collect())
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

    #[test]
    fn what_would_show_only_when_somebody_is_to_be_told_shows_at_once() {
        let shop = "[[shops]]\nid = \"A\"\nname = \"A\"\ntime_zone = \"UTC\"\n";
        for (field, why) in [
            ("manager_phone = \"call me\"", "must be a phone number with its country"),
            ("manager_phone = \"0612345678\"", "as +31600000001"),
            ("language = \"xx\"", "must be en or nl"),
            ("language = \"NL\"", "must be en or nl"),
        ] {
            refused(&format!("{shop}{field}"), "shops.toml, line 5: ");
            refused(&format!("{shop}{field}"), why);
        }
        let item = |stock: &str| {
            format!(
                "{shop}[[items]]\nnumber = \"1\"\ndescription = \"x\"\nprice = \"1\"\nopening_stock = \"{stock}\""
            )
        };
        refused(&item("-1"), "line 9: -1 is negative");
        assert!(Shops::parse(&item("0"), "shops.toml").is_ok());
    }

    #[test]
    fn a_text_that_others_cannot_keep_is_refused_with_its_line() {
        let shop = "[[shops]]\nid = \"A\"\nname = \"A\"\ntime_zone = \"UTC\"\n";
        let item = |text: &str| {
            format!(
                "{shop}[[items]]\nnumber = \"1\"\ndescription = \"{text}\"\nprice = \"1\"\nopening_stock = \"1\""
            )
        };
        assert!(Shops::parse(&item(&"é".repeat(1024)), "shops.toml").is_ok());
        refused(
            &item(&"é".repeat(1025)),
            "shops.toml, line 7: must have at most 1024 characters, and has 1025: description = ",
        );
        refused(&item("a\\u0000b"), "shops.toml, line 7: must have no control characters, and has U+0000");
        let named = |name: &str| shop.replace("name = \"A\"", &format!("name = \"{name}\""));
        assert!(Shops::parse(&named(&"é".repeat(256)), "shops.toml").is_ok());
        refused(&named(&"é".repeat(257)), "shops.toml, line 3: must have at most 256 characters");
        refused(
            &format!("{shop}manager_email = \"a\\n@example.com\""),
            "line 5: must have no control characters, and has U+000A",
        );
        refused(&shop.replace("UTC", "Mars"), "line 4: \"Mars\" is no IANA time zone");
        refused(&format!("{shop}{shop}"), "line 5: shop A is declared twice: [[shops]]");
        // the whole of a long line is not told
        let error = Shops::parse(&item(&"x".repeat(5000)), "shops.toml").unwrap_err().to_string();
        assert!(error.len() < 200, "{error}");
    }
}
