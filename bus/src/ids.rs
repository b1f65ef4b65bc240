use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not the identifier it should be. Says what is wrong, never repeats the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidId(&'static str);

macro_rules! text_id {
    ($name:ident) => {
        impl $name {
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        text_conversions!($name);
    };
}

macro_rules! text_conversions {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.as_str().to_owned()
            }
        }
    };
}

/// A shop's name: 1 to 64 ASCII letters, digits, `-` or `_`, the first a letter or digit.
///
/// A subset of what a KMS alias, a `DynamoDB` key and a URL path segment allow, so it needs no
/// escaping anywhere and `#` can separate it from what follows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ShopId(String);
text_id!(ShopId);

impl FromStr for ShopId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !first || text.len() > 64 || !text.bytes().all(allowed) {
            return Err(InvalidId(
                "a shop id is 1 to 64 letters, digits, '-' or '_', the first a letter or digit",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A till's name as it is enrolled under: 1 to 64 ASCII letters, digits, `.`, `-` or `_`, the first a letter or digit.
///
/// It names a key in a JWS, a row in the registry and a folder on the till's disk, and needs no escaping in any of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TillId(String);
text_id!(TillId);

impl FromStr for TillId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !first || text.len() > 64 || !text.bytes().all(allowed) {
            return Err(InvalidId(
                "a till's name is 1 to 64 letters, digits, '.', '-' or '_', the first a letter or digit",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A sale's identity within its shop, given by the till (or, for classic sales without one, by
/// `accept`): a `UUIDv7` (RFC 9562) or the classic `<digits>-<yyyymmdd>`.
///
/// It carries the sale's time, so the event store's partition follows from it alone.
///
/// ```
/// # fn main() -> Result<(), kassa_bus::ids::InvalidId> {
/// let classic: kassa_bus::SaleId = "7-20261122".parse()?;
/// assert_eq!(classic.utc_date().to_string(), "2026-11-22");
/// assert!("7-20261332".parse::<kassa_bus::SaleId>().is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SaleId {
    text: String,
    made: Made,
}
text_conversions!(SaleId);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Made {
    At(Timestamp),
    On(Date),
}

impl SaleId {
    /// A new id that sorts after every id made in an earlier millisecond. A clock before 1970 counts as 1970.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
        let at = uuid::Timestamp::from_unix_time(
            millis / 1000,
            u32::try_from(millis % 1000).unwrap_or(0) * 1_000_000,
            0,
            0,
        );
        let made =
            Timestamp::from_millisecond(i64::try_from(millis).unwrap_or(0)).unwrap_or(Timestamp::UNIX_EPOCH);
        Self { text: Uuid::new_v7(at).to_string(), made: Made::At(made) }
    }

    /// Where `UUIDv7`s that were made from this millisecond on begin, as texts sort. Classic ids, which are digits,
    /// are anywhere.
    #[must_use]
    pub fn made_from(at: Timestamp) -> String {
        let millis = u64::try_from(at.as_millisecond()).unwrap_or(0);
        format!("{:08x}-{:04x}", millis >> 16, millis & 0xffff)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    #[must_use]
    pub fn is_uuid(&self) -> bool {
        matches!(self.made, Made::At(_))
    }

    /// The instant a `UUIDv7` was made; a classic id knows its day only.
    #[must_use]
    pub fn instant(&self) -> Option<Timestamp> {
        match self.made {
            Made::At(at) => Some(at),
            Made::On(_) => None,
        }
    }

    /// The UTC date that decides the event store's partition.
    #[must_use]
    pub fn utc_date(&self) -> Date {
        self.date_in(&TimeZone::UTC)
    }

    /// The date in the shop's own time zone. A classic id says the shop's date itself.
    #[must_use]
    pub fn date_in(&self, zone: &TimeZone) -> Date {
        match self.made {
            Made::At(at) => Zoned::new(at, zone.clone()).date(),
            Made::On(date) => date,
        }
    }
}

impl fmt::Debug for SaleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for SaleId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const FORM: InvalidId = InvalidId(
            "a sale id is a UUIDv7 (RFC 9562, lower case with hyphens) or <1 to 20 digits>-<yyyymmdd>",
        );
        if text.len() == 36 && text.matches('-').count() == 4 {
            let id = Uuid::try_parse(text).map_err(|_| FORM)?;
            let canonical = id.get_version_num() == 7
                && id.get_variant() == uuid::Variant::RFC4122
                && !text.bytes().any(|b| b.is_ascii_uppercase());
            let (seconds, nanos) = id.get_timestamp().ok_or(FORM)?.to_unix();
            let at = i64::try_from(seconds)
                .ok()
                .and_then(|s| Timestamp::new(s, i32::try_from(nanos).unwrap_or(0)).ok())
                .ok_or(InvalidId(
                    "the UUIDv7's time is after the last that can be kept, 9999-12-30T22:00:00Z",
                ))?;
            return if canonical {
                Ok(Self { text: text.to_owned(), made: Made::At(at) })
            } else {
                Err(FORM)
            };
        }
        let (digits, day) = text.split_once('-').ok_or(FORM)?;
        let all_digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
        if !(1..=20).contains(&digits.len()) || day.len() != 8 || !all_digits(digits) || !all_digits(day) {
            return Err(FORM);
        }
        let number = |range: std::ops::Range<usize>| day[range].parse::<i16>().map_err(|_| FORM);
        let (year, month, dom) = (number(0..4)?, number(4..6)?, number(6..8)?);
        let narrow = |n: i16| i8::try_from(n).map_err(|_| FORM);
        let date = Date::new(year, narrow(month)?, narrow(dom)?)
            .map_err(|_| InvalidId("the sale id's last eight digits are not a calendar date"))?;
        Ok(Self { text: text.to_owned(), made: Made::On(date) })
    }
}

/// An article's number: 1 to 18 digits; leading zeros do not count, so `00098` is `98`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ItemNo(u64);

impl FromStr for ItemNo {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const FORM: InvalidId = InvalidId("an item number is 1 to 18 digits");
        if text.is_empty() || text.len() > 18 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(FORM);
        }
        text.parse().map(Self).map_err(|_| FORM)
    }
}

impl From<ItemNo> for String {
    fn from(item: ItemNo) -> String {
        item.to_string()
    }
}

impl TryFrom<String> for ItemNo {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

/// Plain digits; `{:05}` pads as the read model's row names do.
impl fmt::Display for ItemNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A public key's name: its RFC 7638 thumbprint, SHA-256 in base64url (43 characters).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Thumbprint(String);
text_id!(Thumbprint);

impl FromStr for Thumbprint {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if text.len() != 43 || !text.bytes().all(allowed) {
            return Err(InvalidId("a key's thumbprint (RFC 7638, SHA-256) is 43 base64url characters"));
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_uuid_v7_tells_its_instant_and_a_classic_id_its_day() {
        let uuid: SaleId = "019394e8-6c00-7000-8000-000000000001".parse().unwrap();
        assert_eq!(uuid.instant().unwrap().to_string(), "2024-12-05T03:41:20.256Z");
        let classic: SaleId = "123-20261122".parse().unwrap();
        assert_eq!(classic.utc_date().to_string(), "2026-11-22");
        assert!(!classic.is_uuid());
    }

    #[test]
    fn a_sale_just_after_midnight_belongs_to_the_shops_day() {
        // given 23:30 UTC, which is 00:30 the next day in Amsterdam
        let id = SaleId::new("2026-11-22T23:30:00Z".parse().unwrap());
        assert_eq!(id.utc_date().to_string(), "2026-11-22");
        let amsterdam = TimeZone::get("Europe/Amsterdam").unwrap();
        assert_eq!(id.date_in(&amsterdam).to_string(), "2026-11-23");
    }

    #[test]
    fn tills_with_a_clock_in_1970_or_2099_have_valid_ids() {
        for at in ["1970-01-01T00:00:00Z", "2099-12-31T23:59:59Z"] {
            let id = SaleId::new(at.parse().unwrap());
            assert_eq!(id.as_str().parse::<SaleId>().unwrap().instant(), id.instant());
        }
    }

    #[test]
    fn wrong_ids_are_refused() {
        for text in [
            "",
            "x",
            "1-2",
            "1-20261332",
            "-20261122",
            "1-20261122-3",
            "123456789012345678901-20261122",
            "0193a4e8-6c00-4000-8000-000000000001",
            "0193A4E8-6C00-7000-8000-000000000001",
            "ffffffff-ffff-7fff-bfff-ffffffffffff",
            "１-20261122",
        ] {
            assert!(text.parse::<SaleId>().is_err(), "{text}");
        }
        for text in ["", "-A", "A B", "A#B", "AMÍS", &"A".repeat(65)] {
            assert!(text.parse::<ShopId>().is_err(), "{text}");
        }
        for text in ["", ".", "..", "../till", "a/b", "a b", "-a", "kassa#1", "é", &"A".repeat(65)] {
            assert!(text.parse::<TillId>().is_err(), "{text}");
        }
        for text in ["", "12a", "-1", "1234567890123456789", "9".repeat(5000).as_str()] {
            assert!(text.parse::<ItemNo>().is_err());
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_what_parses_prints_itself(text in ".{0,40}") {
            if let Ok(id) = text.parse::<SaleId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn ids_made_later_sort_later(a in 0i64..4_000_000_000_000, b in 0i64..4_000_000_000_000) {
            prop_assume!(a < b);
            let make = |ms| SaleId::new(Timestamp::from_millisecond(ms).unwrap());
            prop_assert!(make(a).as_str() < make(b).as_str());
            let from = SaleId::made_from(Timestamp::from_millisecond(b).unwrap());
            prop_assert!(make(a).as_str() < &*from && &*from < make(b).as_str());
        }
    }
}
