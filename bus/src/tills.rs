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
    /// Sales that were accepted from then on are not its.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
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
    /// The till's, at a time when it might sign.
    Well,
    /// The till's, after this key of it was revoked.
    Revoked(Timestamp),
    /// Somebody else's.
    Badly,
}

impl EnrolledTill {
    /// Judges a signature on a sale that was accepted at this time. The till's own clock is not asked: whoever has a
    /// stolen key would set it back.
    #[must_use]
    pub fn judge(&self, jws: &Jws<'_>, accepted_at: Timestamp) -> Signed {
        match self.keys.iter().rev().find(|key| jws.is_by(&key.key)) {
            None => Signed::Badly,
            Some(TillKey { revoked: Some(revoked), .. }) if *revoked <= accepted_at => {
                Signed::Revoked(*revoked)
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
