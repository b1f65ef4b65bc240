use std::collections::HashSet;

use kassa_bus::publish::publish_one;
use kassa_bus::{Message, Publisher, Retry, Topic};
use kassa_pipeline::accept::republished;
use kassa_pipeline::event::{ACCEPTED, Event, Fact, StoredEvent, envelope_hash};
use kassa_pipeline::event_store::{EventStore, Scan};

/// Publishes again every envelope that was accepted and neither recorded nor rejected, and says how
/// many. One that is on its way already is published twice, which changes nothing.
pub(super) async fn recover(store: &EventStore, publisher: &dyn Publisher) -> Result<u64, Retry> {
    let scan = Scan { without_bodies: true, ..Scan::default() };
    let mut republished = 0;
    let mut sale: Vec<StoredEvent> = Vec::new();
    let mut cursor = None;
    loop {
        let page = store.scan(scan, cursor).await?;
        for event in page.events {
            // A sale's events come together.
            if sale
                .first()
                .is_some_and(|first| first.key.stream != event.key.stream || first.sale_id != event.sale_id)
            {
                republished += settle(store, publisher, &sale).await?;
                sale.clear();
            }
            sale.push(event);
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(republished + settle(store, publisher, &sale).await?);
        }
    }
}

async fn settle(store: &EventStore, publisher: &dyn Publisher, sale: &[StoredEvent]) -> Result<u64, Retry> {
    let Some(first) = sale.first() else { return Ok(0) };
    // With one envelope any other event is its end. With more, which rarely is, the bodies tell.
    if sale.iter().filter(|e| e.kind == ACCEPTED).count() == 1 && sale.len() > 1 {
        return Ok(0);
    }
    let events = store.sale(&first.shop_id, &first.sale_id).await?;
    let events = events.iter().map(StoredEvent::read).collect::<Result<Vec<_>, _>>()?;
    let mut count = 0;
    for event in unsettled(events) {
        if let Some(sale) = republished(event, 1) {
            publish_one(publisher, Topic::ToDecrypt, Message::of(&sale)).await?;
            count += 1;
        }
    }
    Ok(count)
}

/// The accepted events of one sale whose envelope came to no end.
fn unsettled(events: Vec<Event>) -> Vec<Event> {
    let ended: HashSet<String> = events
        .iter()
        .filter_map(|event| match &event.fact {
            Fact::Rejected(rejected) => Some(rejected.envelope.clone()),
            Fact::Recorded(recorded) => Some(recorded.envelope.clone()),
            Fact::Accepted(_) => None,
        })
        .collect();
    let open = |event: &Event| match &event.fact {
        Fact::Accepted(accepted) => !ended.contains(&envelope_hash(&accepted.envelope)),
        _ => false,
    };
    events.into_iter().filter(open).collect()
}
