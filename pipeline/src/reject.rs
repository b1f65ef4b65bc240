use std::sync::Arc;

use kassa_bus::attention::Unbooked;
use kassa_bus::message::{Envelope, Origin, Reason, RejectedSale, SealedWith};
use kassa_bus::publish::publish_one;
use kassa_bus::{
    Clock, Dimension, Message, Metric, Metrics, Publisher, Retry, SaleId, ShopId, TillId, Topic, trace,
};

use crate::attention::AttentionList;
use crate::event::{Accepted, Event, Fact, Rejected};
use crate::event_store::{Appended, EventStore};

/// Why a sale can never be recorded as it is: a fact, not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub reason: Reason,
    pub detail: String,
    pub sealed_with: Option<SealedWith>,
    /// The till it says it is of, where that could be read.
    pub till: Option<TillId>,
}

impl Rejection {
    pub fn because(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), sealed_with: None, till: None }
    }

    #[must_use]
    pub fn of(self, till: Option<TillId>) -> Self {
        Self { till, ..self }
    }

    #[must_use]
    pub fn sealed_with(self, key: SealedWith) -> Self {
        Self { sealed_with: Some(key), ..self }
    }
}

/// Which sale, and which of its envelopes.
#[derive(Clone, Copy)]
pub struct Rejectable<'a> {
    pub shop_id: &'a ShopId,
    pub sale_id: &'a SaleId,
    /// Its hash.
    pub envelope: &'a str,
    /// Itself, from whoever has it.
    pub closed: Option<&'a Envelope>,
    pub origin: &'a Origin,
}

/// Rejects sales: appends `SaleRejected`, and tells whoever listens on `decrypt-errors`.
#[derive(Clone)]
pub struct Reject {
    pub store: EventStore,
    pub attention: AttentionList,
    pub publisher: Arc<dyn Publisher>,
    pub clock: Clock,
    pub metrics: Metrics,
}

impl Reject {
    /// Safe to repeat: a rejection of the same envelope is found and only published again.
    ///
    /// # Errors
    /// [`Retry`] if it was not put on the list of what needs attention, not appended, or not published.
    pub async fn reject(&self, sale: Rejectable<'_>, rejection: Rejection) -> Result<(), Retry> {
        let rejected = self.note(sale, rejection).await?;
        Ok(publish_one(&*self.publisher, Topic::DecryptErrors, rejected).await?)
    }

    /// Does all of that but publishing: gives the message, which whoever rejects several publishes together.
    ///
    /// # Errors
    /// [`Retry`] if it was not put on the list of what needs attention, or not appended.
    pub async fn note(&self, sale: Rejectable<'_>, rejection: Rejection) -> Result<Message, Retry> {
        // Somebody will ask what became of it, so its trace is kept as one with an error is.
        let span = trace::child(trace::Kind::Internal, "reject");
        span.fail(rejection.reason.as_str(), rejection.detail.as_str());
        span.within(self.rejected(sale, rejection)).await
    }

    async fn rejected(&self, sale: Rejectable<'_>, rejection: Rejection) -> Result<Message, Retry> {
        let rejected_at = self.clock.now();
        let attempt = sale.origin.attempt;
        let event = Event {
            shop_id: sale.shop_id.clone(),
            sale_id: sale.sale_id.clone(),
            at: rejected_at,
            trace: sale.origin.trace,
            fact: Fact::Rejected(Rejected {
                reason: rejection.reason,
                detail: rejection.detail.clone(),
                sealed_with: rejection.sealed_with.clone(),
                till: rejection.till.clone(),
                envelope: sale.envelope.to_owned(),
                attempt,
            }),
        };
        // First, so that nothing is rejected of which the list says nothing.
        let unbooked = Unbooked {
            sale_id: sale.sale_id.clone(),
            reason: rejection.reason,
            till: rejection.till.clone(),
            sealed_with: rejection.sealed_with.clone(),
            since: rejected_at,
        };
        let listed = self.attention.expect(sale.shop_id, &unbooked).await?;
        let since = match self.store.append(&event).await? {
            Appended::New => {
                let labels = [
                    (Dimension::Shop, sale.shop_id.as_str()),
                    (Dimension::Reason, rejection.reason.as_str()),
                ];
                // Put through again and rejected again, it was counted before.
                self.metrics.count_of(Metric::Rejected, &labels, u64::from(attempt <= 1));
                rejected_at
            }
            Appended::Exists(there) => {
                self.metrics.count(Metric::Duplicates, 1);
                there.at
            }
        };
        self.attention.rejected(sale.shop_id, &Unbooked { since, ..unbooked }, listed).await?;
        let waited = rejected_at.duration_since(sale.origin.accepted_at).as_millis();
        tracing::info!(
            shop_id = %sale.shop_id,
            sale_id = %sale.sale_id,
            trace_id = sale.origin.trace.map(|trace| tracing::field::display(trace.trace_id())),
            reason = %rejection.reason,
            attempt,
            waited_ms = u64::try_from(waited).unwrap_or(0),
            "sale rejected"
        );
        let rejected = RejectedSale {
            shop_id: sale.shop_id.clone(),
            sale_id: sale.sale_id.clone(),
            reason: rejection.reason,
            detail: rejection.detail,
            sealed_with: rejection.sealed_with,
            till: rejection.till,
            envelope: sale.envelope.to_owned(),
            closed: sale.closed.filter(|closed| told(rejection.reason, closed)).cloned(),
            rejected_at,
            origin: Origin { attempt, ..sale.origin.clone() },
        };
        Ok(Message::of(&rejected))
    }
}

/// The message that a rejection stands for, from its event and the accepted one of its envelope: what to publish again if it was
/// lost on its way.
#[must_use]
pub fn republished(accepted: Event, rejection: Event) -> Option<RejectedSale> {
    let (Fact::Accepted(envelope), Fact::Rejected(rejected)) = (accepted.fact, rejection.fact) else {
        return None;
    };
    let Accepted { envelope: closed, source, .. } = envelope;
    Some(RejectedSale {
        shop_id: rejection.shop_id,
        sale_id: rejection.sale_id,
        reason: rejected.reason,
        detail: rejected.detail,
        sealed_with: rejected.sealed_with,
        till: rejected.till,
        envelope: rejected.envelope,
        closed: Some(closed).filter(|closed| told(rejected.reason, closed)),
        rejected_at: rejection.at,
        origin: Origin {
            source,
            accepted_at: accepted.at,
            attempt: rejected.attempt,
            opened_with: None,
            trace: rejection.trace,
        },
    })
}

/// Whether the envelope is told as well: a message has to have room for it.
fn told(reason: Reason, closed: &Envelope) -> bool {
    reason == Reason::WrongKey && closed.is_inline()
}
