//! One sale's events among themselves: how they add up, and whether each says what it said when it was appended.
//!
//! An accepted event's key has its envelope's hash, and a recorded one has a hash of its lines, till, counter and time;
//! totals and day follow from these, and the envelope must be one that was accepted. No hash covers when an event was
//! appended, the client's address, and the keys a sale was opened and signed with: those the envelope itself shows to
//! whoever has the shop's key.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use kassa_bus::SaleId;
use kassa_bus::Totals;
use kassa_bus::business_date::business_date;
use kassa_bus::registry::Registry;
use kassa_bus::table::TableError;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Check;
use crate::event::{
    ACCEPTED, Event, EventKey, Fact, RECORDED, Recorded, StoredEvent, USED, content_hash,
    content_hash_of_json,
};

/// Takes events that come sale by sale.
pub(super) struct SaleCheck<'a> {
    registry: &'a Registry,
    sale: Option<(String, SaleId)>,
    seen: Seen,
}

#[derive(Default)]
struct Seen {
    /// When which envelopes were accepted, by their hashes.
    accepted: HashMap<String, Timestamp>,
    /// Those that were rejected.
    rejected: HashSet<String>,
    recorded: u32,
}

impl<'a> SaleCheck<'a> {
    pub(super) fn new(registry: &'a Registry) -> Self {
        Self { registry, sale: None, seen: Seen::default() }
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
        if self.sale.as_ref().is_none_or(|(s, sale)| s != stream || sale != sale_id) {
            self.ends(check);
            self.sale = Some((stream.clone(), sale_id.clone()));
        }
        if *stream != EventKey::stream(&event.shop_id, sale_id.utc_date()) {
            check.mismatch(format!("{sale_id} stands in the stream {stream}, which is not its own"));
        }
        let kind = name.strip_prefix(sale_id.as_str()).and_then(|rest| rest.split('#').nth(1));
        if kind != Some(&event.kind) {
            check.mismatch(format!("event {name} of {stream} says it is {} of {sale_id}", event.kind));
        }
        if let Some(envelope) = name.rsplit('#').next().filter(|_| event.kind == ACCEPTED) {
            self.seen.accepted.insert(envelope.to_owned(), event.at);
        }
        if let Ok(read) = read {
            return self.compare(event, &read, check).await;
        }
        self.seen.recorded += u32::from(event.kind == RECORDED);
        Ok(())
    }

    async fn compare(
        &mut self,
        event: &StoredEvent,
        read: &Event,
        check: &mut Check,
    ) -> Result<(), TableError> {
        let EventKey { stream, event: name } = &event.key;
        match &read.fact {
            Fact::Accepted(_) if read.key() != event.key => {
                check.mismatch(format!(
                    "event {name} of {stream}: its envelope is not the one that was accepted"
                ));
            }
            Fact::Rejected(rejected) => drop(self.seen.rejected.insert(rejected.envelope.clone())),
            Fact::Recorded(recorded) => {
                self.seen.recorded += 1;
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
        let Some(accepted_at) = self.seen.accepted.get(&recorded.envelope) else {
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
            let days = [*accepted_at, event.at].map(|at| business_date(*sold_at, &event.sale_id, at, &zone));
            if !days.contains(&recorded.business_date) {
                let (is, zone) = (recorded.business_date, &shop.time_zone);
                wrong.push(format!("business_date is {is}, in {zone} it must be {}", days[0]));
            }
        }
        Ok(wrong)
    }

    pub(super) fn ends(&mut self, check: &mut Check) {
        let Some((_, sale)) = self.sale.take() else { return };
        let Seen { accepted, rejected, recorded } = std::mem::take(&mut self.seen);
        if accepted.is_empty() && rejected.is_empty() && recorded == 0 {
            // All there is of it is a message that was given up.
            return;
        }
        check.accepted += u64::from(!accepted.is_empty());
        let is_open = accepted.keys().any(|envelope| !rejected.contains(envelope));
        match (recorded, is_open) {
            (0, true) => check.pending += 1,
            (0, false) => check.rejected += 1,
            _ => check.recorded += 1,
        }
        if accepted.is_empty() {
            check.mismatch(format!("{sale} was never accepted"));
        }
        if recorded > 1 {
            check.mismatch(format!("{sale} is recorded {recorded} times"));
        }
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
