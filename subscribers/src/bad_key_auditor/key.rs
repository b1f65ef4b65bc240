use kassa_bus::{ShopId, Thumbprint};
use serde::{Deserialize, Serialize};

/// Which key a sale was encrypted with that its shop's key did not open, as far as that can be told.
///
/// Whether a shop's key is its present one or retired is not in here: it is told when it is asked, from the
/// registry, so that a rotation does not make two keys of one. In the order in which keys are kept where not
/// all of them can be: ours first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "class", rename_all = "lowercase")]
pub enum Key {
    /// Sealed, and names a key that a shop here has or had.
    Known { shop_id: ShopId, kid: Thumbprint },
    /// Classic, and this shop's present key opened it.
    Tried { shop_id: ShopId },
    /// Classic, and none of the keys that were tried opened it.
    Untold,
    /// Sealed, and names a key that nobody here has.
    Unknown { kid: Thumbprint },
    /// Beyond those that are counted each by itself.
    Others,
}
