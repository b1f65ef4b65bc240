use std::collections::HashSet;

use jiff::Timestamp;
use kassa_bus::SaleId;

use crate::event::{ACCEPTED, Event, EventKey, Fact, RECORDED, REJECTED, StoredEvent, envelope_hash};

/// An envelope that was accepted and came to no end: neither was its sale recorded from it, nor was it rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsettled {
    /// Of its accepted event.
    pub key: EventKey,
    pub sale_id: SaleId,
    pub accepted_at: Timestamp,
    /// The sale is recorded from another envelope, so that this one may have been taken for the repeat it is, of which
    /// no event tells.
    pub recorded: bool,
}

/// How a sale stands, as far as its events tell without their bodies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Settled,
    Unsettled(Vec<Unsettled>),
    /// There are several envelopes and some end: which one's it is stands in the bodies.
    Unclear,
}

/// Tells from a sale's events, which may be without bodies.
#[must_use]
pub fn standing(sale: &[StoredEvent]) -> Standing {
    let accepted = || sale.iter().filter(|event| event.kind == ACCEPTED);
    // What became of its dead letters is no end of a sale, nor is what nobody here knows.
    let all = sale.iter().filter(|event| [ACCEPTED, REJECTED, RECORDED].contains(&&*event.kind)).count();
    match (accepted().count(), all) {
        (0, _) => Standing::Settled,
        (several, all) if several == all => {
            let unsettled = |event: &StoredEvent| Unsettled {
                key: event.key.clone(),
                sale_id: event.sale_id.clone(),
                accepted_at: event.at,
                recorded: false,
            };
            Standing::Unsettled(accepted().map(unsettled).collect())
        }
        // With one envelope, any other event is its end.
        (1, _) => Standing::Settled,
        _ => Standing::Unclear,
    }
}

/// The envelopes of one sale that came to no end.
#[must_use]
pub fn unsettled(sale: &[Event]) -> Vec<Unsettled> {
    let ended: HashSet<&str> = sale
        .iter()
        .filter_map(|event| match &event.fact {
            Fact::Rejected(rejected) => Some(rejected.envelope.as_str()),
            Fact::Recorded(recorded) => Some(recorded.envelope.as_str()),
            Fact::Accepted(_) | Fact::Dropped(_) | Fact::Used(_) => None,
        })
        .collect();
    let recorded = sale.iter().any(|event| matches!(event.fact, Fact::Recorded(_)));
    let open = |event: &&Event| match &event.fact {
        Fact::Accepted(accepted) => !ended.contains(&*envelope_hash(&accepted.envelope)),
        _ => false,
    };
    let unsettled = |event: &Event| Unsettled {
        key: event.key(),
        sale_id: event.sale_id.clone(),
        accepted_at: event.at,
        recorded,
    };
    sale.iter().filter(open).map(unsettled).collect()
}

/// An envelope that was rejected, of a sale that is not recorded.
#[derive(Clone)]
pub struct RejectedEnvelope {
    pub accepted: Event,
    /// The last time.
    pub rejected: Event,
    pub attempt: u32,
}

/// The envelopes of one sale that were rejected and may be put through again. Of a recorded sale there are none.
#[must_use]
pub fn rejected(sale: &[Event]) -> Vec<RejectedEnvelope> {
    if sale.iter().any(|event| matches!(event.fact, Fact::Recorded(_))) {
        return Vec::new();
    }
    let last = |envelope: &str| {
        let of = sale.iter().filter_map(|event| match &event.fact {
            Fact::Rejected(rejected) if rejected.envelope == envelope => Some((rejected.attempt, event)),
            _ => None,
        });
        of.max_by_key(|(attempt, _)| *attempt)
    };
    let again = |event: &Event| {
        let Fact::Accepted(accepted) = &event.fact else { return None };
        let (attempt, rejected) = last(&envelope_hash(&accepted.envelope))?;
        Some(RejectedEnvelope { accepted: event.clone(), rejected: rejected.clone(), attempt })
    };
    sale.iter().filter_map(again).collect()
}

/// Puts events together into sales. They come sale by sale from a query or a scan, as the table keeps them.
#[derive(Default)]
pub struct Sales(Vec<StoredEvent>);

impl Sales {
    /// Takes the next event, and gives the sale that it shows to be complete.
    pub fn take(&mut self, event: StoredEvent) -> Option<Vec<StoredEvent>> {
        let another =
            |last: &StoredEvent| last.key.stream != event.key.stream || last.sale_id != event.sale_id;
        let complete = self.0.last().is_some_and(another).then(|| std::mem::take(&mut self.0));
        self.0.push(event);
        complete
    }

    /// The sale whose events may not all have come.
    #[must_use]
    pub fn current(&self) -> Option<&SaleId> {
        self.0.last().map(|event| &event.sale_id)
    }

    /// The last sale, once there are no more events.
    #[must_use]
    pub fn rest(self) -> Vec<StoredEvent> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Accepted, Recorded, Rejected};
    use kassa_bus::Totals;
    use kassa_bus::message::{Envelope, Reason};
    use proptest::prelude::*;

    /// What happens to a sale: one of its envelopes is accepted, rejected or recorded.
    fn event(at: i64, what: u8, envelope: u8) -> Event {
        let sealed = Envelope::Sealed { sealed: format!("envelope {envelope}") };
        let envelope = envelope_hash(&sealed);
        let fact = match what {
            0 => Fact::Accepted(Accepted { envelope: sealed, source: String::new() }),
            1 => Fact::Rejected(Rejected {
                reason: Reason::WrongKey,
                detail: String::new(),
                sealed_with: None,
                till: None,
                envelope,
                attempt: u32::try_from(at).unwrap(),
            }),
            _ => Fact::Recorded(Recorded {
                decrypted_at: None,
                lines: Vec::new(),
                totals: Totals::default(),
                business_date: "2026-11-22".parse().unwrap(),
                till: None,
                seq: None,
                sold_at: None,
                key: None,
                opened_with: None,
                attempt: None,
                signed_by: None,
                content: String::new(),
                envelope,
            }),
        };
        let (shop_id, sale_id) = ("A".parse().unwrap(), "7-20261122".parse().unwrap());
        Event { shop_id, sale_id, at: Timestamp::from_second(at).unwrap(), trace: None, fact }
    }

    fn stored(sale: &[Event]) -> Vec<StoredEvent> {
        sale.iter().map(|event| StoredEvent { body: String::new(), ..event.to_stored() }).collect()
    }

    proptest! {
        /// What is told without bodies is what the bodies tell.
        #[test]
        fn without_bodies_the_same_is_told_or_nothing(
            accepted in 0u8..4,
            ends in prop::collection::vec((1u8..3, 0u8..4), 0..4),
        ) {
            let accepted = (0..accepted).map(|envelope| event(i64::from(envelope), 0, envelope));
            let mut sale: Vec<Event> = accepted.collect();
            // An envelope ends after it was accepted, and a sale is recorded once.
            for (at, (what, envelope)) in (10..).zip(ends) {
                let recorded = what == 2 && sale.iter().any(|e| matches!(e.fact, Fact::Recorded(_)));
                if usize::from(envelope) < sale.iter().filter(|e| matches!(e.fact, Fact::Accepted(_))).count() && !recorded {
                    sale.push(event(at, what, envelope));
                }
            }
            let by_bodies = unsettled(&sale);
            match standing(&stored(&sale)) {
                Standing::Settled => prop_assert_eq!(by_bodies, []),
                Standing::Unsettled(told) => prop_assert_eq!(told, by_bodies),
                Standing::Unclear => prop_assert!(sale.len() > 2),
            }
        }
    }

    #[test]
    fn an_envelope_that_came_after_one_that_ended_is_unsettled() {
        let rejected = [event(1, 0, 1), event(2, 0, 2), event(3, 1, 1)];
        assert_eq!(standing(&stored(&rejected)), Standing::Unclear);
        let [open] = &unsettled(&rejected)[..] else { panic!() };
        assert_eq!((open.accepted_at.as_second(), open.recorded), (2, false));
        // Of a sale that is recorded it may be a repeat.
        let recorded = [event(1, 0, 1), event(2, 0, 2), event(3, 2, 1)];
        assert!(unsettled(&recorded)[0].recorded);
    }

    #[test]
    fn of_a_rejected_sale_the_last_attempt_counts_and_a_recorded_one_is_not_rejected() {
        let mut sale = vec![event(1, 0, 1), event(2, 0, 2), event(3, 1, 1), event(5, 1, 1), event(4, 1, 2)];
        let found: Vec<_> = rejected(&sale).iter().map(|found| (found.accepted.at, found.attempt)).collect();
        assert_eq!(found, [(Timestamp::from_second(1).unwrap(), 5), (Timestamp::from_second(2).unwrap(), 4)]);
        sale.push(event(6, 2, 2));
        assert!(rejected(&sale).is_empty());
    }

    #[test]
    fn events_are_put_together_sale_by_sale() {
        let of =
            |id: &str| StoredEvent { sale_id: id.parse().unwrap(), ..stored(&[event(1, 0, 1)]).remove(0) };
        let mut sales = Sales::default();
        let ids = ["1-20261122", "1-20261122", "2-20261122"];
        let complete: Vec<usize> =
            ids.iter().filter_map(|id| sales.take(of(id))).map(|sale| sale.len()).collect();
        assert_eq!((complete, sales.current().unwrap().as_str()), (vec![2], "2-20261122"));
        assert_eq!(sales.rest().len(), 1);
    }
}
