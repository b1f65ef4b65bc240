//! Finishing what an earlier process left: a rebuild that was cut off, sales that were accepted and not settled.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kassa_bus::local::LocalBus;
use kassa_bus::message::RejectedSale;
use kassa_bus::publish::publish_one;
use kassa_bus::table::TableError;
use kassa_bus::{Message, Metrics, Publisher, Retry, Topic};
use kassa_pipeline::attention::{Days, note};
use kassa_pipeline::event::{Event, EventKey, Fact, REJECTED, Rejected, StoredEvent};
use kassa_pipeline::event_store::EventStore;
use kassa_pipeline::reconcile::reconcile_all;
use kassa_pipeline::reject;
use kassa_pipeline::unsettled::Finder;

use super::store::Store;
use crate::questions::Questions;

/// A rejection is published right after it was appended. What was appended this long before the last event
/// was published, or else the store stood still in between, and with it the time of the last event.
const SURELY_PUBLISHED: SignedDuration = SignedDuration::from_mins(15);

/// What an earlier process did not finish.
pub(super) async fn resume(questions: Arc<Questions>, store: Store, bus: Arc<LocalBus>, metrics: Metrics) {
    let due = async { store.read_model.needs_rebuild(&store.registry.shops().await?).await };
    match due.await {
        Ok(false) if !store.rows_are_lost() => {}
        Ok(_) => match questions.rebuild(&|_, _| {}).await {
            Ok(rebuilt) => tracing::info!(sales = rebuilt.sales, "rebuilt stock and turnover, as was due"),
            Err(error) => tracing::error!(%error, "cannot rebuild stock and turnover; run kassa rebuild"),
        },
        Err(error) => tracing::error!(%error, "cannot see whether a rebuild is due"),
    }
    match recover(&store, &*bus, &metrics).await {
        Ok(0) => {}
        Ok(republished) => tracing::info!(republished, "left by an earlier process, published again"),
        Err(error) => {
            tracing::error!(%error, "cannot look for accepted sales that are not settled; restart to try again");
        }
    }
}

/// Publishes again what an earlier process may not have come to, and says how many messages: every envelope
/// that was accepted and is not judged, and the last rejections. What is on its way already is published twice, which
/// changes nothing.
///
/// A shop of before there was a list of what needs attention gets one, from the same look.
async fn recover(open: &Store, publisher: &dyn Publisher, metrics: &Metrics) -> Result<u64, Retry> {
    let (store, attention) = (&open.events, open.attention_list());
    let finder = Finder { store: store.clone() };
    let (mut rejections, mut rejected) = (LastRejections::default(), Days::new());
    let lacks = !attention.is_made().await?;
    let see = |event: &StoredEvent| {
        rejections.see(event);
        if lacks {
            note(&mut rejected, event);
        }
    };
    let mut republished = reconcile_all(&finder, Some((publisher, metrics)), &|_| true, see).await?;
    if lacks {
        attention.make(rejected).await?;
    }
    for rejection in rejections.taken() {
        if let Some(told) = told(store, &rejection).await? {
            publish_one(publisher, Topic::DecryptErrors, Message::of(&told)).await?;
            republished += 1;
        }
    }
    Ok(republished)
}

/// The message of a rejection, if its events can be read.
async fn told(store: &EventStore, rejection: &EventKey) -> Result<Option<RejectedSale>, TableError> {
    let Some(rejection) = read(store, rejection).await? else { return Ok(None) };
    let Fact::Rejected(Rejected { envelope, .. }) = &rejection.fact else { return Ok(None) };
    let accepted = EventKey::accepted(&rejection.shop_id, &rejection.sale_id, envelope);
    Ok(read(store, &accepted).await?.and_then(|accepted| reject::republished(accepted, rejection)))
}

async fn read(store: &EventStore, key: &EventKey) -> Result<Option<Event>, TableError> {
    let event = store.get(std::slice::from_ref(key)).await?.pop();
    match event.map(|event| event.and_then(|event| Ok(event.read()?))).transpose() {
        Err(error) if error.is_unreadable() => {
            tracing::error!(%error, "skipped");
            Ok(None)
        }
        event => event,
    }
}

/// Rejections that may not have been published, out of events in any order: the last ones, of which there are more than a
/// process has in hand at once.
#[derive(Default)]
struct LastRejections {
    last: Timestamp,
    seen: BTreeSet<(Timestamp, EventKey)>,
}

impl LastRejections {
    const MOST: usize = 1_000;

    fn see(&mut self, event: &StoredEvent) {
        self.last = self.last.max(event.at);
        if event.kind == REJECTED {
            self.seen.insert((event.at, event.key.clone()));
            if self.seen.len() > Self::MOST {
                self.seen.pop_first();
            }
        }
    }

    fn taken(self) -> impl Iterator<Item = EventKey> {
        let Self { last, seen } = self;
        seen.into_iter()
            .filter(move |(at, _)| last.duration_since(*at) < SURELY_PUBLISHED)
            .map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_thousand_rejections_are_told_again() {
        let second = |n: i64| Timestamp::from_second(n).unwrap_or_default();
        let rejection = |n: i64| StoredEvent {
            key: EventKey { stream: "AMIS1#2026-11-22".into(), event: format!("{n}") },
            kind: REJECTED.into(),
            version: 1,
            at: second(n / 2),
            sale_id: kassa_bus::SaleId::new(second(0)),
            shop_id: "AMIS1".parse().unwrap(),
            trace: None,
            reason: None,
            body: String::new(),
        };
        let told = |times: &mut dyn Iterator<Item = i64>| {
            let mut last = LastRejections::default();
            times.for_each(|n| last.see(&rejection(n)));
            assert!(last.seen.len() <= LastRejections::MOST);
            last.taken().map(|key| key.event).collect::<Vec<_>>()
        };
        // given more than a thousand within a quarter of an hour, in whatever order they are read
        let last = told(&mut (0..1_500).rev());
        assert_eq!((last.len(), last[0].as_str(), last[999].as_str()), (1_000, "500", "1499"));
        // and what is older than a quarter of an hour was told
        assert_eq!(told(&mut [0, 3_000].into_iter()), ["3000"]);
    }
}
