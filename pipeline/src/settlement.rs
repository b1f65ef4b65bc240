//! How a sale stands: the one definition of settled, for whoever asks (`watch`, `reconcile`, `check`, a till, people).
//!
//! A sale is settled once it is recorded, which wins, or rejected: then each of its envelopes that was accepted is judged. One
//! that is stuck beside others that were rejected keeps its sale pending. All of this stands in the keys of its events, so
//! that nobody reads a body for it. `Sales` folds events as they come from the table, `SaleFold::judged` tells how the sale stands.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kassa_bus::{SaleId, ShopId};

use crate::event::{ACCEPTED, EventKey, RECORDED, REJECTED, StoredEvent};

/// How an accepted sale stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    Recorded,
    /// Each of its envelopes was rejected.
    Rejected,
    /// An envelope of it is not judged, and the sale not recorded.
    Pending,
}

/// An accepted envelope of which no event tells what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unjudged {
    /// Of its accepted event.
    pub key: EventKey,
    pub sale_id: SaleId,
    pub accepted_at: Timestamp,
}

/// What a sale's events say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judged {
    pub accepted: u64,
    pub recorded: bool,
    /// The envelopes that are not judged. Of a recorded sale these are no more than candidates: see
    /// [`Finder::unjudged`](crate::unsettled::Finder::unjudged).
    pub unjudged: Vec<Unjudged>,
}

impl Judged {
    #[must_use]
    pub fn settlement(&self) -> Settlement {
        match (self.recorded, self.unjudged.is_empty()) {
            (true, _) => Settlement::Recorded,
            (false, true) => Settlement::Rejected,
            (false, false) => Settlement::Pending,
        }
    }

    /// The envelopes that keep the sale pending.
    #[must_use]
    pub fn pending(self) -> Vec<Unjudged> {
        if self.recorded { Vec::new() } else { self.unjudged }
    }
}

/// What a fold cannot tell, and must be read on for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unclear {
    /// Rejections of before their keys had an envelope's hash are among its events.
    pub old: bool,
}

/// Envelopes of one sale that are kept at once, at most. A stranger can make more of a sale whose id is known.
pub const MAX_ENVELOPES: usize = 256;

/// One sale's events, in the order of their keys, which may be without bodies.
#[derive(Debug, Clone)]
pub struct SaleFold {
    stream: String,
    pub shop_id: ShopId,
    pub sale_id: SaleId,
    pub accepted: u64,
    pub rejected: u64,
    pub recorded: u64,
    unjudged: BTreeMap<String, Unjudged>,
    /// There were more envelopes than are kept.
    crowded: bool,
    /// Rejections that do not say here whose they are.
    old: u64,
}

impl SaleFold {
    #[must_use]
    pub fn new(event: &StoredEvent) -> Self {
        let mut fold = Self {
            stream: event.key.stream.clone(),
            shop_id: event.shop_id.clone(),
            sale_id: event.sale_id.clone(),
            accepted: 0,
            rejected: 0,
            recorded: 0,
            unjudged: BTreeMap::new(),
            crowded: false,
            old: 0,
        };
        fold.take(event);
        fold
    }

    fn is_of(&self, event: &StoredEvent) -> bool {
        self.stream == event.key.stream && self.sale_id == event.sale_id
    }

    /// Takes the sale's next event. What became of its dead letters is no end of a sale, nor is what nobody here knows.
    pub fn take(&mut self, event: &StoredEvent) {
        match event.kind.as_str() {
            ACCEPTED => {
                self.accepted += 1;
                self.crowded |= self.unjudged.len() >= MAX_ENVELOPES;
                if !self.crowded {
                    let envelope = event.envelope().unwrap_or_else(|| event.key.event.clone());
                    self.unjudged.insert(envelope, unjudged(event));
                }
            }
            REJECTED => {
                self.rejected += 1;
                match event.envelope() {
                    Some(envelope) => drop(self.unjudged.remove(&envelope)),
                    None => self.old += 1,
                }
            }
            RECORDED => self.recorded += 1,
            _ => {}
        }
    }

    /// How the sale stands.
    ///
    /// # Errors
    /// [`Unclear`], if its events are too many, or too old.
    pub fn judged(self) -> Result<Judged, Unclear> {
        let recorded = self.recorded > 0;
        let old = self.old > 0;
        if !recorded && (self.crowded || (old && self.accepted > 1)) {
            return Err(Unclear { old });
        }
        // With one envelope, any rejection is its own.
        let judged = old && self.accepted == 1;
        let unjudged = if judged { Vec::new() } else { self.unjudged.into_values().collect() };
        Ok(Judged { accepted: self.accepted, recorded, unjudged })
    }
}

/// The envelope of an accepted event.
pub(crate) fn unjudged(event: &StoredEvent) -> Unjudged {
    Unjudged { key: event.key.clone(), sale_id: event.sale_id.clone(), accepted_at: event.at }
}

/// Puts events together into sales. They come sale by sale from a query or a scan, as the table keeps them.
#[derive(Default)]
pub struct Sales(Option<SaleFold>);

impl Sales {
    /// Takes the next event, and gives the sale that it shows to be complete.
    pub fn take(&mut self, event: &StoredEvent) -> Option<SaleFold> {
        if let Some(sale) = self.0.as_mut().filter(|sale| sale.is_of(event)) {
            sale.take(event);
            return None;
        }
        self.0.replace(SaleFold::new(event))
    }

    /// The sale whose events may not all have come.
    #[must_use]
    pub fn current(&self) -> Option<&SaleId> {
        self.0.as_ref().map(|sale| &sale.sale_id)
    }

    /// The last sale, once there are no more events.
    #[must_use]
    pub fn rest(self) -> Option<SaleFold> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Accepted, Event, Fact, Recorded, Rejected, envelope_hash};
    use kassa_bus::message::{Envelope, Reason};
    use kassa_bus::{Network, Totals};
    use proptest::prelude::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum What {
        Accepted,
        Rejected,
        /// As it was written before keys had the hash.
        RejectedOfOld,
        Recorded,
    }

    fn event(at: i64, what: What, envelope: usize) -> StoredEvent {
        let sealed = Envelope::Sealed { sealed: format!("envelope {envelope}") };
        let envelope = envelope_hash(&sealed);
        let fact = match what {
            What::Accepted => {
                Fact::Accepted(Accepted { envelope: sealed, source: Network::default(), revocations: None })
            }
            What::Rejected | What::RejectedOfOld => Fact::Rejected(Rejected {
                till: None,
                reason: Reason::WrongKey,
                detail: String::new(),
                sealed_with: None,
                envelope,
                attempt: 1,
            }),
            What::Recorded => Fact::Recorded(Recorded {
                decrypted_at: None,
                dated: None,
                attempt: None,
                opened_with: None,
                lines: Vec::new(),
                totals: Totals::default(),
                business_date: "2026-11-22".parse().unwrap(),
                till: None,
                seq: None,
                sold_at: None,
                key: None,
                signed_by: None,
                content: String::new(),
                envelope,
            }),
        };
        let (shop_id, sale_id): (ShopId, SaleId) = ("A".parse().unwrap(), "7-20261122".parse().unwrap());
        let at = Timestamp::from_second(at).unwrap();
        let mut stored = Event { shop_id, sale_id, at, trace: None, fact }.to_stored();
        if what == What::RejectedOfOld {
            stored.key.event = format!("7-20261122#rejected#{}", at.as_second());
        }
        stored
    }

    /// As the table gives it.
    fn fold(mut sale: Vec<StoredEvent>, bodies: bool) -> SaleFold {
        sale.sort_by(|a, b| a.key.event.cmp(&b.key.event));
        let mut sales = Sales::default();
        for event in sale {
            let event = if bodies { event } else { StoredEvent { body: String::new(), ..event } };
            assert!(sales.take(&event).is_none());
        }
        sales.rest().unwrap()
    }

    proptest! {
        /// With and without bodies, of new and of old rejections, in whatever order they came about: the same, or nothing.
        #[test]
        fn a_sale_is_settled_when_recorded_or_when_each_of_its_envelopes_is_judged(
            accepted in 1usize..6,
            ends in prop::collection::vec((0u8..3, 0usize..6), 0..8),
        ) {
            let mut sale: Vec<_> = (0..accepted).map(|n| event(1, What::Accepted, n)).collect();
            let mut open: Vec<bool> = vec![true; accepted];
            let (mut recorded, mut old) = (false, false);
            for (at, (what, envelope)) in (10..).zip(ends).filter(|(_, (_, envelope))| *envelope < accepted) {
                let what = [What::Rejected, What::RejectedOfOld, What::Recorded][usize::from(what)];
                if what != What::Recorded || !recorded {
                    sale.push(event(at, what, envelope));
                }
                open[envelope] &= what == What::Recorded;
                recorded |= what == What::Recorded;
                old |= what == What::RejectedOfOld;
            }
            let wanted = match (recorded, open.contains(&true)) {
                (true, _) => Settlement::Recorded,
                (false, true) => Settlement::Pending,
                (false, false) => Settlement::Rejected,
            };
            prop_assert_eq!(fold(sale.clone(), true).judged().unwrap().settlement(), wanted);
            match fold(sale, false).judged() {
                Ok(judged) => prop_assert_eq!(judged.settlement(), wanted),
                Err(unclear) => prop_assert!(unclear.old && old && accepted > 1),
            }
        }
    }

    #[test]
    fn a_sale_with_more_envelopes_than_are_kept_is_read_on_for() {
        let crowd = |count| (0..count).map(|n| event(1, What::Accepted, n)).collect();
        assert_eq!(fold(crowd(MAX_ENVELOPES), false).judged().unwrap().unjudged.len(), MAX_ENVELOPES);
        assert_eq!(fold(crowd(MAX_ENVELOPES + 1), false).judged(), Err(Unclear { old: false }));
    }

    #[test]
    fn events_are_put_together_sale_by_sale() {
        let of = |id: &str| StoredEvent { sale_id: id.parse().unwrap(), ..event(1, What::Accepted, 1) };
        let mut sales = Sales::default();
        let ids = ["1-20261122", "1-20261122", "2-20261122"];
        let complete: Vec<u64> =
            ids.iter().filter_map(|id| sales.take(&of(id))).map(|sale| sale.accepted).collect();
        assert_eq!((complete, sales.current().unwrap().as_str()), (vec![2], "2-20261122"));
        assert_eq!(sales.rest().unwrap().accepted, 1);
    }
}
