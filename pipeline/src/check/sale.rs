//! One sale's events among themselves: how they add up, and whether each says what it said when it was appended.
//!
//! An accepted event's key has its envelope's hash, and a recorded one has a hash of its lines, till, counter and time;
//! totals and day follow from these, and the envelope must be one that was accepted. No hash covers when an event was
//! appended, the client's address, and the keys a sale was opened and signed with: those the envelope itself shows to
//! whoever has the shop's key.

use std::collections::HashMap;

use jiff::Timestamp;
use kassa_bus::Totals;
use kassa_bus::business_date::business_date;
use kassa_bus::registry::Registry;
use kassa_bus::table::TableError;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Check;
use crate::event::{
    ACCEPTED, Event, EventKey, Fact, Recorded, StoredEvent, USED, content_hash, content_hash_of_json,
};
use crate::event_store::EventStore;
use crate::settlement::{SaleFold, Sales, Settlement};
use crate::unsettled::Finder;

/// When envelopes of one sale were accepted, kept at once: whoever posts rubbish under its id makes more of them, and of these
/// the one that is recorded is read again.
const ENVELOPES: usize = 256;

/// Takes events that come sale by sale.
pub(super) struct SaleCheck<'a> {
    registry: &'a Registry,
    finder: Finder,
    sales: Sales,
    /// When which envelopes of the sale in hand were accepted, by their hashes.
    accepted: HashMap<String, Timestamp>,
}

impl<'a> SaleCheck<'a> {
    pub(super) fn new(registry: &'a Registry, store: &EventStore) -> Self {
        let finder = Finder { store: store.clone() };
        Self { registry, finder, sales: Sales::default(), accepted: HashMap::new() }
    }

    pub(super) async fn take(&mut self, event: &StoredEvent, check: &mut Check) -> Result<(), TableError> {
        let read = event.read();
        if let Err(error) = &read {
            check.mismatch(error.to_string());
        }
        if event.kind == USED {
            // An envelope's, and no sale's.
            return Ok(());
        }
        let (EventKey { stream, event: name }, sale_id) = (&event.key, &event.sale_id);
        if let Some(sale) = self.sales.take(event) {
            self.accepted.clear();
            self.settle(sale, check).await?;
        }
        if *stream != EventKey::stream(&event.shop_id, sale_id.utc_date()) {
            check.mismatch(format!("{sale_id} stands in the stream {stream}, which is not its own"));
        }
        let kind = name.strip_prefix(sale_id.as_str()).and_then(|rest| rest.split('#').nth(1));
        if kind != Some(&event.kind) {
            check.mismatch(format!("event {name} of {stream} says it is {} of {sale_id}", event.kind));
        }
        if let Some(envelope) = name.rsplit('#').next().filter(|_| event.kind == ACCEPTED)
            && self.accepted.len() < ENVELOPES
        {
            self.accepted.insert(envelope.to_owned(), event.at);
        }
        match read {
            Ok(read) => self.compare(event, &read, check).await,
            Err(_) => Ok(()),
        }
    }

    async fn compare(&self, event: &StoredEvent, read: &Event, check: &mut Check) -> Result<(), TableError> {
        let EventKey { stream, event: name } = &event.key;
        match &read.fact {
            Fact::Accepted(_) if read.key() != event.key => {
                check.mismatch(format!(
                    "event {name} of {stream}: its envelope is not the one that was accepted"
                ));
            }
            Fact::Recorded(recorded) => {
                for wrong in self.wrong(event, recorded).await? {
                    check.mismatch(format!("event {name} of {stream}: {wrong}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What of a recorded sale is not what was recorded.
    async fn wrong(&self, event: &StoredEvent, recorded: &Recorded) -> Result<Vec<String>, TableError> {
        let Recorded { lines, till, seq, sold_at, content, .. } = recorded;
        let mut wrong = Vec::new();
        let hash = content_hash(lines, till.as_deref(), *seq, *sold_at);
        // Amounts may have been written otherwise than today.
        if hash != *content && as_written(&event.body).as_ref() != Some(content) {
            wrong
                .push("lines, till, seq and sold_at are not what was recorded: their hash is another".into());
        }
        if Totals::of(lines).as_ref() != Some(&recorded.totals) {
            wrong.push("totals are not what its lines add up to".into());
        }
        let Some(accepted_at) = self.accepted_at(event, &recorded.envelope).await? else {
            wrong.push("the envelope it is said to come from was never accepted".into());
            return Ok(wrong);
        };
        // One of version 1 has no day of its own, and one of a shop that is no more has no zone.
        let shop = match self.registry.shop(&event.shop_id).await {
            Err(error) if error.is_unreadable() => None,
            shop => shop?,
        };
        if let Some(shop) = shop.filter(|_| event.version > 1) {
            let zone = shop.zone();
            let days =
                [accepted_at, event.at].map(|at| business_date(*sold_at, &event.sale_id, at, &zone).date);
            if !days.contains(&recorded.business_date) {
                let (is, zone) = (recorded.business_date, &shop.time_zone);
                wrong.push(format!("business_date is {is}, in {zone} it must be {}", days[0]));
            }
        }
        Ok(wrong)
    }

    async fn accepted_at(
        &self,
        event: &StoredEvent,
        envelope: &str,
    ) -> Result<Option<Timestamp>, TableError> {
        if let Some(at) = self.accepted.get(envelope) {
            return Ok(Some(*at));
        }
        if self.accepted.len() < ENVELOPES {
            return Ok(None);
        }
        let key = EventKey::accepted(&event.shop_id, &event.sale_id, envelope);
        let found = self.finder.store.get(&[key]).await?.pop();
        Ok(found.and_then(|found| Some(found.ok()?.at)))
    }

    /// No more events come.
    pub(super) async fn ends(mut self, check: &mut Check) -> Result<(), TableError> {
        match std::mem::take(&mut self.sales).rest() {
            Some(sale) => self.settle(sale, check).await,
            None => Ok(()),
        }
    }

    async fn settle(&self, sale: SaleFold, check: &mut Check) -> Result<(), TableError> {
        let (id, recorded) = (sale.sale_id.clone(), sale.recorded);
        if (sale.accepted, sale.rejected, recorded) == (0, 0, 0) {
            // All there is of it is a message that was given up.
            return Ok(());
        }
        let judged = self.finder.judged(sale).await?;
        check.accepted += u64::from(judged.accepted > 0);
        match judged.settlement() {
            Settlement::Recorded => check.recorded += 1,
            Settlement::Rejected => check.rejected += 1,
            Settlement::Pending => check.pending += 1,
        }
        if judged.accepted == 0 {
            check.mismatch(format!("{id} was never accepted"));
        }
        if recorded > 1 {
            check.mismatch(format!("{id} is recorded {recorded} times"));
        }
        Ok(())
    }
}

/// The hash of what was sold, as the body has it.
fn as_written(body: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Written<'a> {
        #[serde(borrow)]
        lines: &'a RawValue,
        #[serde(borrow, default)]
        till: Option<&'a RawValue>,
        #[serde(borrow, default)]
        seq: Option<&'a RawValue>,
        #[serde(borrow, default)]
        sold_at: Option<&'a RawValue>,
    }
    let Written { lines, till, seq, sold_at } = serde_json::from_str(body).ok()?;
    let text = |raw: Option<&RawValue>| raw.map_or("null", RawValue::get).to_owned();
    Some(content_hash_of_json(&format!("[{},{},{},{}]", lines.get(), text(till), text(seq), text(sold_at))))
}
