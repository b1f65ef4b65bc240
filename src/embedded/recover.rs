//! Finishing what an earlier process left: a rebuild that was cut off, sales that were accepted and not settled.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kassa_bus::local::LocalBus;
use kassa_bus::publish::publish_one;
use kassa_bus::{Message, Metrics, Publisher, Retry, Topic};
use kassa_pipeline::attention::{Days, note};
use kassa_pipeline::event::{REJECTED, StoredEvent, readable};
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
    match store.read_model.needs_rebuild().await {
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
/// that was accepted and neither recorded nor rejected, and the last rejections. What is on its way already
/// is published twice, which changes nothing.
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
        let sale = readable(&store.sale(&rejection.shop_id, &rejection.sale_id).await?);
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
