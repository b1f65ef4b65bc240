/// How many keys were revoked.
pub mod revocations;
/// Where they are kept.
mod table;

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::jws::{Jws, SigningKey};
use crate::{ShopId, TillId};

pub use table::{EnrolError, Tills};

/// What becomes of a shop's sales that no till signed: whoever has the shop's public key can make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unsigned {
    /// They count as any other: for shops whose tills cannot sign.
    Accept,
    /// They count, and are counted: for a shop that is moving.
    Flag,
    /// They are rejected.
    Reject,
}

impl fmt::Display for Unsigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "accept",
            Self::Flag => "flag",
            Self::Reject => "reject",
        })
    }
}

impl FromStr for Unsigned {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "accept" => Ok(Self::Accept),
            "flag" => Ok(Self::Flag),
            "reject" => Ok(Self::Reject),
            _ => Err("unsigned is accept, flag or reject"),
        }
    }
}

/// A key that a till signs or signed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TillKey {
    pub key: SigningKey,
    pub since: Timestamp,
    /// When it was revoked, by the clock there was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
    /// Which of the shop's revocations that was, from 1 on. Those of before they were counted have no number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<u64>,
}

/// When a sale was accepted, as far as revocations care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub at: Timestamp,
    /// How many revocations of its shop there were. Of a sale from before they were counted, nobody knows.
    pub revocations: Option<u64>,
}

/// A till that may sign for its shop, or might.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolledTill {
    pub shop_id: ShopId,
    pub till: TillId,
    /// Past and present, the present one last. All but that one are revoked.
    pub keys: Vec<TillKey>,
    /// How often it was changed, so that two who change it at once do not undo each other.
    #[serde(skip)]
    version: u64,
}

/// Whose signature it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// The till's, by the key it has.
    Well,
    /// The till's, by a key of it that was revoked: it counts for what was taken before.
    Revoked(Revoked),
    /// Somebody else's.
    Badly,
}

/// A revocation, by its number and by the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    pub at: Timestamp,
    number: Option<u64>,
}

impl Revoked {
    /// Whether it was there when a sale was taken. No clock is asked where revocations were counted: the till's would be
    /// set back by whoever has its key, and the shop's may be set right at any time.
    #[must_use]
    pub fn was_before(self, sale: Taken) -> bool {
        match (self.number, sale.revocations) {
            (Some(number), Some(known)) => number <= known,
            _ => self.at <= sale.at,
        }
    }
}

impl EnrolledTill {
    /// Whose signature it is.
    #[must_use]
    pub fn judge(&self, jws: &Jws<'_>) -> Signed {
        match self.keys.iter().rev().find(|key| jws.is_by(&key.key)) {
            None => Signed::Badly,
            Some(TillKey { revoked: Some(at), revocation, .. }) => {
                Signed::Revoked(Revoked { at: *at, number: *revocation })
            }
            Some(_) => Signed::Well,
        }
    }

    /// The key it signs with today, if it may.
    #[must_use]
    pub fn present(&self) -> Option<&TillKey> {
        self.keys.last().filter(|key| key.revoked.is_none())
    }
}
