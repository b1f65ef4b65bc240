use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use kassa_bus::keys::ShopKeys;
use kassa_bus::message::{AcceptedSale, Envelope, Reason, SealedWith};
use kassa_bus::publish::publish_one;
use kassa_bus::registry::Shop;
use kassa_bus::{Metrics, Publisher, SaleId, ShopId, Topic};
use kassa_pipeline::attention::is_given_up;
use kassa_pipeline::event::{Accepted, Dropped, Event, Fact, REJECTED, Rejected, readable};
use kassa_pipeline::event_store::Scan;
use kassa_pipeline::opener::Opener;
use kassa_pipeline::standing::{RejectedEnvelope, rejected};
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
    pub source: String,
    pub accepted_at: Timestamp,
    pub rejected_at: Timestamp,
}

impl ShownRejection {
    fn of(envelope: &RejectedEnvelope) -> Option<Self> {
        let Fact::Rejected(Rejected { reason, detail, sealed_with, envelope: hash, attempt, .. }) =
            &envelope.rejected.fact
        else {
            return None;
        };
        let Fact::Accepted(Accepted { source, .. }) = &envelope.accepted.fact else { return None };
        Some(Self {
            shop_id: envelope.rejected.shop_id.clone(),
            sale_id: envelope.rejected.sale_id.clone(),
            reason: *reason,
            detail: detail.clone(),
            sealed_with: sealed_with.clone(),
            attempt: *attempt,
            hash: hash.clone(),
            source: source.clone(),
            accepted_at: envelope.accepted.at,
            rejected_at: envelope.rejected.at,
        })
    }
}

/// A rejection as it is shown, and the message that puts it through again.
pub(super) type Again = (ShownRejection, AcceptedSale);

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
        Ok(self.again(filter, progress).await?.into_iter().map(|(shown, _)| shown).collect())
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
        let mut sent = Vec::new();
        for (shown, sale) in self.again(filter, progress).await? {
            publish_one(publisher, Topic::ToDecrypt, claim_check::message(&sale)).await?;
            sent.push(shown);
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
        let mut given_up = Vec::new();
        for (ShownRejection { shop_id, sale_id, .. }, sale) in self.again(filter, progress).await? {
            if given_up.contains(&sale_id) {
                continue;
            }
            let fact = Fact::Dropped(Dropped { letter: None, why: why.as_str().to_owned() });
            let trace = sale.origin.trace;
            let event = Event { shop_id: shop_id.clone(), sale_id: sale_id.clone(), at: now, trace, fact };
            self.books.events.append(&event).await?;
            self.books.attention.remove(&shop_id, &sale_id).await?;
            given_up.push(sale_id);
        }
        Ok(given_up)
    }

    /// What opens envelopes to look at them, and counts nothing.
    #[must_use]
    pub fn opener(&self, keys: Arc<dyn ShopKeys>) -> Opener {
        Opener::new(self.books.registry.clone(), keys, Metrics::none())
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
        let again = self.again(filter, progress).await?;
        let Books { events, read_model, .. } = &self.books;
        Ok(preview(again, opener, (events, read_model), now).await?)
    }

    async fn again(
        &self,
        filter: &RejectedFilter,
        progress: Progress<'_>,
    ) -> Result<Vec<Again>, QuestionError> {
        let shops = self.shops_rejected(filter).await?;
        let opened_with = self.opened_with(filter).await?;
        let mut found = Vec::new();
        for (shop, sale) in self.sales_rejected(filter, shops.as_deref(), progress).await? {
            let events = self.books.events.sale(&shop, &sale).await?;
            // What was given up is only found by its name.
            if filter.sale.is_none() && events.iter().any(is_given_up) {
                continue;
            }
            for envelope in rejected(&readable(&events)) {
                let shown = ShownRejection::of(&envelope);
                let again = accept::republished(envelope.accepted, envelope.attempt + 1);
                found.extend(shown.zip(again));
            }
        }
        found.retain(|(shown, _)| filter.reason.is_none_or(|reason| reason == shown.reason));
        if let Some(owner) = opened_with {
            let perhaps_with_its_key = |(shown, sale): &Again| match (&shown.sealed_with, &sale.envelope) {
                _ if shown.shop_id == owner.shop_id => false,
                (Some(key), _) => owner.has_key(&key.kid),
                // It names none.
                (None, Envelope::Classic { .. }) => shown.reason == Reason::WrongKey,
                (None, Envelope::Sealed { .. }) => false,
            };
            found.retain(perhaps_with_its_key);
            for (_, sale) in &mut found {
                sale.origin.opened_with = Some(owner.shop_id.clone());
            }
        }
        found.sort_by(|(a, _), (b, _)| (a.rejected_at, &a.sale_id).cmp(&(b.rejected_at, &b.sale_id)));
        Ok(found)
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
