use jiff::{SignedDuration, Timestamp};
use kassa_bus::publish::publish_one;
use kassa_bus::{Message, Publisher, Retry, Topic};
use kassa_pipeline::accept;
use kassa_pipeline::event::{Event, REJECTED, StoredEvent};
use kassa_pipeline::event_store::{EventStore, Scan};
use kassa_pipeline::reject;
use kassa_pipeline::standing::{Sales, Unsettled};
use kassa_pipeline::unsettled::Finder;

/// A rejection is published right after it was appended. What was appended this long before the last event
/// was published, or else the store stood still in between, and with it the time of the last event.
const SURELY_PUBLISHED: SignedDuration = SignedDuration::from_mins(15);

/// Publishes again what an earlier process may not have come to, and says how many messages: every envelope
/// that was accepted and neither recorded nor rejected, and the last rejections. What is on its way already
/// is published twice, which changes nothing.
pub(super) async fn recover(store: &EventStore, publisher: &dyn Publisher) -> Result<u64, Retry> {
    let finder = Finder { store: store.clone() };
    let scan = Scan { without_bodies: true, ..Scan::default() };
    let mut republished = 0;
    let mut rejections = LastRejections::default();
    let mut sales = Sales::default();
    let mut cursor = None;
    loop {
        let page = store.scan(scan, cursor).await?;
        for event in page.events {
            rejections.see(&event);
            if let Some(sale) = sales.take(event) {
                republished += settle(&finder, publisher, &sale).await?;
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    republished += settle(&finder, publisher, &sales.rest()).await?;
    for rejection in rejections.taken() {
        let sale = read(store, &rejection).await?;
        let rejection = sale.iter().find(|event| event.key() == rejection.key);
        if let Some(told) = rejection.and_then(|rejection| reject::republished(&sale, rejection)) {
            publish_one(publisher, Topic::DecryptErrors, Message::of(&told)).await?;
            republished += 1;
        }
    }
    Ok(republished)
}

/// Rejections that may not have been published, out of events in any order.
#[derive(Default)]
struct LastRejections {
    last: Timestamp,
    seen: Vec<StoredEvent>,
}

impl LastRejections {
    /// So many are kept before those that are too old are looked for.
    const MANY: usize = 10_000;

    fn see(&mut self, event: &StoredEvent) {
        self.last = self.last.max(event.at);
        if event.kind == REJECTED {
            self.seen.push(event.clone());
            if self.seen.len().is_multiple_of(Self::MANY) {
                self.forget();
            }
        }
    }

    fn forget(&mut self) {
        let last = self.last;
        self.seen.retain(|event| last.duration_since(event.at) < SURELY_PUBLISHED);
    }

    fn taken(mut self) -> Vec<StoredEvent> {
        self.forget();
        self.seen
    }
}

async fn read(store: &EventStore, of: &StoredEvent) -> Result<Vec<Event>, Retry> {
    let events = store.sale(&of.shop_id, &of.sale_id).await?;
    Ok(events.iter().map(StoredEvent::read).collect::<Result<_, _>>()?)
}

async fn settle(finder: &Finder, publisher: &dyn Publisher, sale: &[StoredEvent]) -> Result<u64, Retry> {
    let mut count = 0;
    for Unsettled { key, .. } in finder.of(sale).await? {
        for event in finder.store.get(&[key]).await? {
            if let Some(sale) = accept::republished(event.read()?, 1) {
                publish_one(publisher, Topic::ToDecrypt, Message::of(&sale)).await?;
                count += 1;
            }
        }
    }
    Ok(count)
}
