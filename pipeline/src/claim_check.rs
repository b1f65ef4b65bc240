//! What SNS does not take goes by its event's key (a claim check): an accepted sale is in the event store anyway.
//!
//! Whoever sends an accepted sale on its way makes its message with `message`, and whoever takes it from there gets its
//! envelope back with `claimed`. Most messages carry their envelope and need no look at the store.

use kassa_bus::Message;
use kassa_bus::message::{AcceptedSale, Carried};
use kassa_bus::table::TableError;

use crate::event::envelope_hash;
use crate::event_store::EventStore;

/// The message of an accepted sale.
#[must_use]
pub fn message(sale: &AcceptedSale) -> Message {
    let AcceptedSale { shop_id, sale_id, envelope, origin } = sale.clone();
    let envelope = if envelope.is_inline() {
        Carried::Inline(envelope)
    } else {
        Carried::Accepted { accepted: envelope_hash(&envelope) }
    };
    Message::of(&AcceptedSale { shop_id, sale_id, envelope, origin })
}

/// The sale with its envelope, wherever that is.
///
/// # Errors
/// [`TableError`], also if its event is not there.
pub async fn claimed(store: &EventStore, sale: AcceptedSale<Carried>) -> Result<AcceptedSale, TableError> {
    let AcceptedSale { shop_id, sale_id, envelope, origin } = sale;
    let envelope = match envelope {
        Carried::Inline(envelope) => envelope,
        Carried::Accepted { accepted } => store.accepted(&shop_id, &sale_id, &accepted).await?.envelope,
    };
    Ok(AcceptedSale { shop_id, sale_id, envelope, origin })
}

/// The hash that names the sale's `accepted` event.
#[must_use]
pub fn hash(envelope: Carried) -> String {
    match envelope {
        Carried::Inline(envelope) => envelope_hash(&envelope),
        Carried::Accepted { accepted } => accepted,
    }
}
