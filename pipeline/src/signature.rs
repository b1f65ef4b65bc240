use kassa_bus::jws::Jws;
use kassa_bus::message::{AcceptedSale, Reason};
use kassa_bus::registry::{Registry, Shop};
use kassa_bus::table::TableError;
use kassa_bus::tills::{Signed, Taken, Unsigned};
use kassa_bus::{ShopId, TillId};
use zeroize::Zeroizing;

use crate::content::{self, Content};
use crate::event::envelope_hash;
use crate::event_store::EventStore;
use crate::reject::Rejection;

/// What was in an envelope: a sale in JSON, and the till that signed it, if one did.
pub(crate) struct Opened {
    pub json: Zeroizing<Vec<u8>>,
    pub signed_by: Option<TillId>,
}

/// Whether an envelope's content may be taken for what its till says: signed by a till of the shop, or not signed where
/// the shop takes that.
///
/// # Errors
/// [`TableError`], and within it the [`Rejection`] if it may not.
pub(crate) async fn verify(
    (registry, store): (&Registry, &EventStore),
    shop: &Shop,
    content: Zeroizing<Vec<u8>>,
    sale: &AcceptedSale,
) -> Result<Result<Opened, Rejection>, TableError> {
    // A JWS is base64url, which no JSON object begins as.
    if content.trim_ascii_start().first() == Some(&b'{') {
        let judged = unsigned(shop.unsigned).map_err(|rejection| rejection.of(content::till(&content)));
        return Ok(judged.map(|()| Opened { json: content, signed_by: None }));
    }
    let Some(jws) = std::str::from_utf8(&content).ok().map(Jws::parse) else {
        return Ok(Err(malformed("neither a JSON object nor a compact JWS")));
    };
    let jws = match jws {
        Ok(jws) => jws,
        Err(error) => return Ok(Err(malformed(error))),
    };
    let judged = judge(registry, store, &jws, sale).await?;
    let judged = judged.map_err(|rejection| rejection.of(Some(jws.till.clone())));
    Ok(judged.map(|()| Opened { signed_by: Some(jws.till.clone()), json: jws.into_payload() }))
}

/// Whether a sale may come without a signature.
pub(crate) fn unsigned(policy: Unsigned) -> Result<(), Rejection> {
    match policy {
        Unsigned::Accept | Unsigned::Flag => Ok(()),
        Unsigned::Reject => Err(Rejection::because(
            Reason::Unsigned,
            "not signed, and the shop takes only what its tills sign",
        )),
    }
}

fn malformed(why: impl std::fmt::Display) -> Rejection {
    Rejection::because(Reason::InvalidSale, format!("the content: {why}"))
}

/// Nobody is turned away on what may be a minute old: a till may have been enrolled, or got another key, just now.
async fn judge(
    registry: &Registry,
    store: &EventStore,
    jws: &Jws<'_>,
    sale: &AcceptedSale,
) -> Result<Result<(), Rejection>, TableError> {
    let (shop, till) = (&sale.shop_id, &jws.till);
    let known = registry.tills.till(shop, till).await?;
    if known.is_some_and(|till| till.judge(jws) == Signed::Well) {
        return Ok(Ok(()));
    }
    let Some(known) = registry.tills.afresh(shop, till).await? else {
        let detail = format!("signed by till {till}, which is not enrolled for {shop}");
        return Ok(Err(Rejection::because(Reason::UnknownTill, detail)));
    };
    Ok(match known.judge(jws) {
        Signed::Well => Ok(()),
        Signed::Revoked(revoked) if !revoked.was_before(taken(store, sale).await?) => Ok(()),
        Signed::Revoked(revoked) => {
            let detail = format!("signed by till {till}, whose key was revoked at {:.0}", revoked.at);
            Err(Rejection::because(Reason::RevokedTill, detail))
        }
        Signed::Badly => {
            let detail = format!("the signature is not by the key that till {till} is enrolled with");
            Err(Rejection::because(Reason::BadSignature, detail))
        }
    })
}

/// As its event says, which is the first of however many posts.
async fn taken(store: &EventStore, sale: &AcceptedSale) -> Result<Taken, TableError> {
    let accepted = store.accepted(&sale.shop_id, &sale.sale_id, &envelope_hash(&sale.envelope)).await?;
    Ok(Taken { at: sale.origin.accepted_at, revocations: accepted.revocations })
}

/// A signature is for one shop, and a till speaks for itself only.
pub(crate) fn stands_for(content: &Content, till: &TillId, shop: &ShopId) -> Result<(), Rejection> {
    let tampered = |detail: &str| Err(Rejection::because(Reason::Tampered, detail).of(Some(till.clone())));
    match &content.shop_id {
        Some(inside) if inside == shop => {}
        Some(_) => return tampered("it was signed for another shop"),
        None => return tampered("there is no shop_id in what was signed"),
    }
    match &content.till {
        Some(inside) if inside != till.as_str() => tampered("it was signed by another till than it names"),
        _ => Ok(()),
    }
}
