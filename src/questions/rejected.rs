//! Rejected sales, and putting them through again. However large their envelopes are, one is in hand at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use kassa_bus::keys::ShopKeys;
use kassa_bus::message::{AcceptedSale, Reason, SealedWith};
use kassa_bus::publish::publish_one;
use kassa_bus::registry::Shop;
use kassa_bus::table::TableError;
use kassa_bus::{Metrics, Network, Publisher, SaleId, ShopId, Topic};
use kassa_pipeline::event::{
    Accepted, Dropped, Event, EventKey, Fact, RECORDED, REJECTED, Rejected, StoredEvent,
};
use kassa_pipeline::event_store::{Appended, Bodies, EventStore, Scan};
use kassa_pipeline::opener::Opener;
use kassa_pipeline::{accept, claim_check};
use serde::{Deserialize, Serialize};

use super::preview::{Preview, preview};
use super::{Books, Progress, QuestionError, Questions};
use crate::dead_letters::Why;

/// `?shop=&reason=&sale=`: which rejected sales, and what is to be done with them.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct RejectedFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shop: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sale: Option<String>,
    /// Those that are sealed with a key of this shop, and with that key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_with: Option<String>,
    /// Why they are given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
}

/// An envelope that is rejected, and whose sale is not recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownRejection {
    pub shop_id: ShopId,
    pub sale_id: SaleId,
    pub reason: Reason,
    pub detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_with: Option<SealedWith>,
    /// How often it was tried.
    pub attempt: u32,
    /// Of the envelope.
    pub hash: String,
    pub source: Network,
    pub accepted_at: Timestamp,
    pub rejected_at: Timestamp,
}

impl ShownRejection {
    fn of(rejection: Event, accepted: &Event) -> Option<Self> {
        let Fact::Rejected(Rejected { reason, detail, sealed_with, envelope: hash, attempt, .. }) =
            rejection.fact
        else {
            return None;
        };
        let Fact::Accepted(Accepted { source, .. }) = &accepted.fact else { return None };
        Some(Self {
            shop_id: rejection.shop_id,
            sale_id: rejection.sale_id,
            reason,
            detail,
            sealed_with,
            attempt,
            hash,
            source: *source,
            accepted_at: accepted.at,
            rejected_at: rejection.at,
        })
    }

    /// The message that puts it through again, if its envelope can be read; with another shop's key, where that is said.
    pub(super) async fn again(
        &self,
        events: &EventStore,
        opened_with: Option<&ShopId>,
    ) -> Result<Option<AcceptedSale>, TableError> {
        let accepted = accepted(events, (&self.shop_id, &self.sale_id), &self.hash).await?;
        let mut sale = accepted.and_then(|accepted| accept::republished(accepted, self.attempt + 1));
        if let Some(sale) = &mut sale {
            sale.origin.opened_with = opened_with.cloned();
        }
        Ok(sale)
    }

    /// Whether it may be sealed with a key of this shop. A classic envelope names none.
    fn may_open_with(&self, owner: &Shop) -> bool {
        let names = self.sealed_with.as_ref().map(|key| owner.has_key(&key.kid));
        self.shop_id != owner.shop_id && names.unwrap_or(self.reason == Reason::WrongKey)
    }
}

/// The event that keeps an envelope, if it can be read.
async fn accepted(
    events: &EventStore,
    (shop, sale): (&ShopId, &SaleId),
    envelope: &str,
) -> Result<Option<Event>, TableError> {
    let event = events.get(&[EventKey::accepted(shop, sale, envelope)]).await?.pop();
    match event.map(|event| event.and_then(|event| Ok(event.read()?))).transpose() {
        Err(error) if error.is_unreadable() => {
            tracing::error!(%error, "skipped");
            Ok(None)
        }
        event => event,
    }
}

impl Questions {
    /// The envelopes that are rejected, the first rejected first. Reads the whole table, unless a sale is named.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn rejected(
        &self,
        filter: &RejectedFilter,
        progress: Progress<'_>,
    ) -> Result<Vec<ShownRejection>, QuestionError> {
        let shops = self.shops_rejected(filter).await?;
        let owner = self.opened_with(filter).await?;
        let mut found = Vec::new();
        for (shop, sale) in self.sales_rejected(filter, shops.as_deref(), progress).await? {
            // What was given up is only found by its name.
            let given_up_at = match filter.sale {
                Some(_) => None,
                None => self.books.events.given_up_at((&shop, &sale)).await?,
            };
            let envelopes = self.rejected_envelopes(&shop, &sale).await?.into_iter();
            found.extend(envelopes.filter(|shown| given_up_at < Some(shown.rejected_at)));
        }
        found.retain(|shown| filter.reason.is_none_or(|reason| reason == shown.reason));
        found.retain(|shown| owner.as_ref().is_none_or(|owner| shown.may_open_with(owner)));
        found.sort_by(|a, b| (a.rejected_at, &a.sale_id).cmp(&(b.rejected_at, &b.sale_id)));
        Ok(found)
    }

    /// The envelopes of a sale that were rejected and may be put through again, each with its last rejection. Of a recorded sale
    /// there are none. Envelopes are read one by one.
    async fn rejected_envelopes(
        &self,
        shop: &ShopId,
        sale: &SaleId,
    ) -> Result<Vec<ShownRejection>, QuestionError> {
        let events = &self.books.events;
        if events.has((shop, sale), RECORDED).await? {
            return Ok(Vec::new());
        }
        let (mut last, mut cursor) = (BTreeMap::<String, Event>::new(), None);
        loop {
            let page = events.of_sale((shop, sale), REJECTED, Bodies::With, cursor).await?;
            let read = |event: StoredEvent| {
                event.read().inspect_err(|error| tracing::error!(%error, "skipped")).ok()
            };
            for event in page.events.into_iter().filter_map(read) {
                let Fact::Rejected(rejected) = &event.fact else { continue };
                let before = last.get(&rejected.envelope);
                let is_later = |before: &Event| tried(before) < rejected.attempt;
                if before.is_none_or(is_later) {
                    last.insert(rejected.envelope.clone(), event);
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let mut found = Vec::with_capacity(last.len());
        for (envelope, rejection) in last {
            let accepted = accepted(events, (shop, sale), &envelope).await?;
            found.extend(accepted.and_then(|accepted| ShownRejection::of(rejection, &accepted)));
        }
        Ok(found)
    }

    /// Puts them through again, and says which. What becomes of them, their histories tell.
    ///
    /// # Errors
    /// [`QuestionError`]; those published by then are on their way, and to repeat it does no harm.
    pub async fn retry(
        &self,
        filter: &RejectedFilter,
        publisher: &dyn Publisher,
        progress: Progress<'_>,
    ) -> Result<Vec<ShownRejection>, QuestionError> {
        let owner = self.opened_with(filter).await?.map(|owner| owner.shop_id.clone());
        let mut sent = Vec::new();
        for shown in self.rejected(filter, progress).await? {
            if let Some(sale) = shown.again(&self.books.events, owner.as_ref()).await? {
                publish_one(publisher, Topic::ToDecrypt, claim_check::message(&sale)).await?;
                sent.push(shown);
            }
        }
        Ok(sent)
    }

    /// Gives them up: why stands in the event store, and they need no attention any more. One that is named can be put
    /// through all the same. Says which.
    ///
    /// # Errors
    /// [`QuestionError`]; those given up by then are.
    pub async fn give_up(
        &self,
        filter: &RejectedFilter,
        now: Timestamp,
        progress: Progress<'_>,
    ) -> Result<Vec<SaleId>, QuestionError> {
        let (Some(_), Some(why)) = (&filter.shop, &filter.why) else {
            return Err(QuestionError::Refused("say of which shop, and why".into()));
        };
        if filter.sale.is_none() && filter.reason.is_none() {
            return Err(QuestionError::Refused("say which sale, or rejected for which reason".into()));
        }
        let mut rejected = BTreeMap::new();
        for ShownRejection { shop_id, sale_id, rejected_at, .. } in self.rejected(filter, progress).await? {
            let last = rejected.entry((shop_id, sale_id)).or_insert(rejected_at);
            *last = rejected_at.max(*last);
        }
        let mut given_up = Vec::new();
        for ((shop, sale), rejected_at) in rejected {
            if self.give_up_one((&shop, &sale), why.as_str(), now.max(rejected_at), rejected_at).await? {
                given_up.push(sale);
            }
        }
        Ok(given_up)
    }

    /// Gives a sale up for all that it was rejected for by then, unless it is.
    async fn give_up_one(
        &self,
        (shop, sale): (&ShopId, &SaleId),
        why: &str,
        at: Timestamp,
        rejected_at: Timestamp,
    ) -> Result<bool, QuestionError> {
        let Books { events, attention, .. } = &self.books;
        let mut is_new = false;
        if events.given_up_at((shop, sale)).await? < Some(rejected_at) {
            for times in 1.. {
                let times = (times > 1).then_some(times);
                let fact = Fact::Dropped(Dropped { letter: None, why: why.to_owned(), times });
                let event = Event { shop_id: shop.clone(), sale_id: sale.clone(), at, trace: None, fact };
                match events.append(&event).await? {
                    Appended::New => is_new = true,
                    // Somebody else gave it up meanwhile.
                    Appended::Exists(there) if there.at >= rejected_at => {}
                    Appended::Exists(_) => continue,
                }
                break;
            }
        }
        attention.remove(shop, sale).await?;
        Ok(is_new)
    }

    /// What opens envelopes to look at them, and counts nothing.
    #[must_use]
    pub fn opener(&self, keys: Arc<dyn ShopKeys>) -> Opener {
        Opener::new(self.books.registry.clone(), self.books.events.clone(), keys, Metrics::none())
    }

    /// What would become of them. Opens them, and writes nothing.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn preview(
        &self,
        filter: &RejectedFilter,
        opener: &Opener,
        progress: Progress<'_>,
        now: Timestamp,
    ) -> Result<Preview, QuestionError> {
        let again = self.rejected(filter, progress).await?;
        let owner = self.opened_with(filter).await?.map(|owner| owner.shop_id.clone());
        let Books { events, read_model, .. } = &self.books;
        Ok(preview(again, owner.as_ref(), opener, (events, read_model), now).await?)
    }

    /// With whose keys they are to be opened.
    async fn opened_with(&self, filter: &RejectedFilter) -> Result<Option<Arc<Shop>>, QuestionError> {
        let Some(owner) = &filter.opened_with else { return Ok(None) };
        let owner = self.shops(Some(owner)).await?.remove(0);
        Ok(self.books.registry.afresh(&owner).await?)
    }

    /// Which shops are meant; nothing where all are, because a sale may have come for one that is not registered.
    async fn shops_rejected(&self, filter: &RejectedFilter) -> Result<Option<Vec<ShopId>>, QuestionError> {
        match (&filter.shop, &filter.sale) {
            (None, None) => Ok(None),
            (shop, _) => Ok(Some(self.shops(shop.as_deref()).await?)),
        }
    }

    async fn sales_rejected(
        &self,
        filter: &RejectedFilter,
        shops: Option<&[ShopId]>,
        progress: Progress<'_>,
    ) -> Result<BTreeSet<(ShopId, SaleId)>, QuestionError> {
        if let (Some(sale), Some(shops)) = (&filter.sale, shops) {
            let sale: SaleId = sale.parse().map_err(|e| QuestionError::NotASaleId(sale.clone(), e))?;
            return Ok(shops.iter().map(|shop| (shop.clone(), sale.clone())).collect());
        }
        let of = self.books.events.approximate_count().await?;
        let scan = Scan { kind: Some(REJECTED), without_bodies: true, ..Scan::default() };
        let (mut sales, mut cursor, mut pages) = (BTreeSet::new(), None, 0);
        loop {
            let page = self.books.events.scan(scan, cursor).await?;
            pages += 1;
            // What the filter leaves out was read as well.
            progress((pages * u64::from(kassa_bus::table::PAGE.unsigned_abs())).min(of), of);
            let events = page.events.into_iter();
            let meant = |shop: &ShopId| shops.is_none_or(|shops| shops.contains(shop));
            sales.extend(events.filter(|e| meant(&e.shop_id)).map(|event| (event.shop_id, event.sale_id)));
            cursor = page.next;
            if cursor.is_none() {
                return Ok(sales);
            }
        }
    }
}

/// How often a rejected envelope was tried.
fn tried(rejection: &Event) -> u32 {
    if let Fact::Rejected(rejected) = &rejection.fact { rejected.attempt } else { 0 }
}
