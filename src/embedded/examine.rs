//! Whether the files of keys are all that the registry knows.

use jiff::Timestamp;
use kassa_bus::registry::{Registry, ShopKey};
use kassa_bus::{ShopId, Thumbprint};

use super::keys::FileKeys;
use crate::custody::{CustodyError, KeepKeys, present};

/// Looks at every shop's keys: those that tills may seal with are to be there. Gives the others that are gone, which may be
/// wanted for what was accepted long ago and not opened.
///
/// # Errors
/// [`CustodyError`].
pub async fn examine(
    keys: &FileKeys,
    registry: &Registry,
    now: Timestamp,
) -> Result<Vec<(ShopId, Thumbprint)>, CustodyError> {
    let mut gone = Vec::new();
    for shop_id in registry.shops().await? {
        let shop = match registry.shop(&shop_id).await {
            Ok(Some(shop)) => shop,
            Ok(None) => continue,
            // Which keys it has is not known. The row is named where it is to be applied to.
            Err(error) if error.is_unreadable() => continue,
            Err(error) => return Err(error.into()),
        };
        present(keys, registry, &shop_id, Some(&shop)).await?;
        for key in shop.keys.iter().filter(|key| key.retired.is_none()) {
            let (kid, put_back) = (key.kid.clone(), keys.put_back(&shop_id));
            match (keys.has(&shop_id, &kid), key) {
                (Ok(true), _) => {}
                (Ok(false), ShopKey { until: Some(until), .. }) if now < *until => {
                    return Err(CustodyError::Overlapping { shop_id, kid, until: *until, put_back });
                }
                (Ok(false), _) => gone.push((shop_id.clone(), kid)),
                (Err(source), _) => return Err(CustodyError::Key { shop_id, put_back, source }),
            }
        }
    }
    Ok(gone)
}
