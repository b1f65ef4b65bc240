use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL64;
use kassa_bus::message::{DecryptedSale, Envelope, Reason, decode_content};
use kassa_bus::table::TableError;
use kassa_bus::{Clock, SaleId};

use crate::event::{Event, EventKey, Fact, StoredEvent, Used, content_hash};
use crate::event_store::{Appended, EventStore};
use crate::opener::Closed;
use crate::reject::Rejection;

/// Sees to it that an envelope which names no sale is not two: whoever saw one on its way could post it again under an
/// id of his own.
///
/// Which sale it was used for first is a fact, kept under the hash of its ciphertext. Two sales never have the same, as
/// OAEP seals everything anew (RFC 8017, 7.1).
pub struct FirstUse {
    pub store: EventStore,
    pub clock: Clock,
}

impl FirstUse {
    /// Uses the envelope for this sale, which was inside. Safe to repeat.
    ///
    /// # Errors
    /// [`Closed`] if it was used for another, or if that cannot be told now.
    pub async fn of(&self, envelope: &Envelope, sale: &DecryptedSale) -> Result<(), Closed> {
        of_another_shop(&self.store, envelope, sale).await?;
        let Some(ciphertext) = ciphertext(envelope) else { return Ok(()) };
        let mut number = 1;
        loop {
            let event = Event {
                shop_id: sale.shop_id.clone(),
                sale_id: sale.sale_id.clone(),
                at: self.clock.now(),
                trace: sale.origin.trace,
                fact: Fact::Used(Used { ciphertext: ciphertext.clone(), number }),
            };
            let Appended::Exists(used) = self.store.append(&event).await? else { return Ok(()) };
            match said_by(&used, &self.store, sale).await? {
                Said::Yes => return Ok(()),
                Said::No(why) => return Err(why),
                // This one will come to nothing as well: it leaves the envelope to whose it is.
                Said::Nothing if is_another(&self.store, &sale.sale_id, sale).await? == Some(true) => {
                    return Ok(());
                }
                Said::Nothing => number += 1,
            }
        }
    }
}

/// Whether the envelope could be used for this sale now. Writes nothing.
///
/// # Errors
/// As [`FirstUse::of`].
pub async fn usable(store: &EventStore, envelope: &Envelope, sale: &DecryptedSale) -> Result<(), Closed> {
    of_another_shop(store, envelope, sale).await?;
    let Some(ciphertext) = ciphertext(envelope) else { return Ok(()) };
    for used in store.uses(&sale.shop_id, &ciphertext).await? {
        match said_by(&used, store, sale).await? {
            Said::Yes => return Ok(()),
            Said::No(why) => return Err(why),
            Said::Nothing => {}
        }
    }
    Ok(())
}

/// Whether a sale that another shop's key opened, and that does not say whose it is, is that shop's: whoever saw its
/// envelope on its way could post it here as well, and it would count in both.
async fn of_another_shop(
    store: &EventStore,
    envelope: &Envelope,
    sale: &DecryptedSale,
) -> Result<(), Closed> {
    let (Some(owner), None) = (&sale.origin.opened_with, &sale.signed_by) else { return Ok(()) };
    let came = match ciphertext(envelope) {
        // Which sale that was, it does not say.
        Some(ciphertext) => vec![EventKey::used(owner, &ciphertext, 1)],
        None => vec![
            EventKey::recorded(owner, &sale.sale_id),
            EventKey::accepted(owner, &sale.sale_id, &sale.envelope),
        ],
    };
    if store.there(&came).await?.is_empty() {
        return Ok(());
    }
    let detail = format!("it came to {owner} as well, and no till signed which shop's it is");
    Err(Rejection::because(Reason::Replayed, detail).of(sale.till_id()).into())
}

/// What an envelope's use for one sale says of its use for another.
enum Said {
    Yes,
    No(Closed),
    /// That sale came to nothing.
    Nothing,
}

async fn said_by(used: &StoredEvent, store: &EventStore, sale: &DecryptedSale) -> Result<Said, TableError> {
    let first = &used.sale_id;
    // The shop itself makes UUIDs for these sales: each post without an id is a sale of its own.
    if *first == sale.sale_id || (first.is_uuid() && sale.sale_id.is_uuid()) {
        return Ok(Said::Yes);
    }
    Ok(match is_another(store, first, sale).await? {
        Some(false) => {
            let detail = format!("its envelope came before, as sale {first}");
            Said::No(Rejection::because(Reason::Replayed, detail).of(sale.till_id()).into())
        }
        Some(true) => Said::Nothing,
        None => Said::No(Closed::Retry(Waits(first.clone()).into())),
    })
}

/// Whether what is recorded under an id is something else than this sale, if anything is. The same goods count as the
/// same sale: a till may have encrypted it anew for another try, and in doubt nothing counts twice.
async fn is_another(
    store: &EventStore,
    id: &SaleId,
    sale: &DecryptedSale,
) -> Result<Option<bool>, TableError> {
    let content = content_hash(&sale.lines, sale.till.as_deref(), sale.seq, sale.sold_at);
    let recorded = store.recorded(&sale.shop_id, id).await?;
    Ok(recorded.map(|recorded| recorded.content != content))
}

/// It may yet be recorded, or come to nothing.
#[derive(Debug, thiserror::Error)]
#[error("its envelope came before, as sale {0}, which is not recorded yet")]
struct Waits(SaleId);

/// SHA-256 in base64url of the ciphertext of an envelope that names no sale inside. Of its base64, one ciphertext has
/// many.
fn ciphertext(envelope: &Envelope) -> Option<String> {
    match envelope {
        Envelope::Classic { content_base64 } => {
            Some(URL64.encode(digest(&SHA256, &decode_content(content_base64)?)))
        }
        Envelope::Sealed { .. } => None,
    }
}
