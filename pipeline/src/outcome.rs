//! What became of a sale, as its till is told: from the keys of its first events.

use kassa_bus::SaleId;
use kassa_bus::message::Reason;
use serde_json::{Value, json};

use crate::event::{REJECTED, StoredEvent};
use crate::settlement::{Judged, SaleFold, Settlement};

/// What became of a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It counts.
    Recorded,
    /// It does not count, unless somebody puts it through again. Of an event of before reasons stood beside bodies, why is
    /// not known here.
    Rejected(Option<Reason>),
    /// It is on its way.
    Pending,
}

/// What a till may be told from a sale's events, the first first, without their bodies.
#[derive(Default)]
pub struct FirstEvents {
    sale: Option<SaleFold>,
    last_rejected: Option<StoredEvent>,
}

impl FirstEvents {
    pub fn take(&mut self, event: StoredEvent) {
        match &mut self.sale {
            Some(sale) => sale.take(&event),
            None => self.sale = Some(SaleFold::new(&event)),
        }
        let later = self.last_rejected.as_ref().is_none_or(|last| last.at <= event.at);
        if event.kind == REJECTED && later {
            self.last_rejected = Some(event);
        }
    }

    /// The outcome, where these are all. Nothing, if the sale was not accepted.
    #[must_use]
    pub fn outcome(self) -> Option<Outcome> {
        let reason = self.last_rejected.and_then(|event| event.reason);
        self.sale.filter(|sale| sale.accepted > 0).map(|sale| Outcome::of(sale, reason))
    }
}

impl Outcome {
    /// Of a sale with so many envelopes that nobody reads all for an answer, all but one a stranger's: no final no.
    #[must_use]
    pub fn of_many(recorded: bool) -> Self {
        if recorded { Self::Recorded } else { Self::Pending }
    }

    fn of(sale: SaleFold, reason: Option<Reason>) -> Self {
        match sale.judged().as_ref().map(Judged::settlement) {
            Ok(Settlement::Recorded) => Self::Recorded,
            Ok(Settlement::Rejected) => Self::Rejected(reason),
            // Which envelopes rejections of long ago were of stands in bodies, and accept may read none.
            Ok(Settlement::Pending) | Err(_) => Self::Pending,
        }
    }

    /// The answer's body: `{"sale_id", "status": "recorded" | "rejected" | "pending"[, "reason"]}`.
    #[must_use]
    pub fn document(self, sale_id: &SaleId) -> Value {
        match self {
            Self::Recorded => json!({"sale_id": sale_id, "status": "recorded"}),
            Self::Rejected(None) => json!({"sale_id": sale_id, "status": "rejected"}),
            Self::Rejected(Some(reason)) => {
                json!({"sale_id": sale_id, "status": "rejected", "reason": reason})
            }
            Self::Pending => json!({"sale_id": sale_id, "status": "pending"}),
        }
    }
}
