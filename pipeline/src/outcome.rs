use kassa_bus::SaleId;
use kassa_bus::message::Reason;
use serde_json::{Value, json};

use crate::event::{ACCEPTED, RECORDED, REJECTED, StoredEvent};
use crate::standing::{Standing, standing};

/// What became of a sale, as its till is told.
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

impl Outcome {
    /// Tells from a sale's events, which may be without bodies. Nothing, if it was not accepted.
    #[must_use]
    pub fn of(sale: &[StoredEvent]) -> Option<Self> {
        let of = |kind| move |event: &&StoredEvent| event.kind == kind;
        if sale.iter().any(|event| event.kind == RECORDED) {
            return Some(Self::Recorded);
        }
        sale.iter().find(of(ACCEPTED))?;
        match standing(sale) {
            Standing::Settled => {
                let last = sale.iter().filter(of(REJECTED)).max_by_key(|event| event.at);
                Some(Self::Rejected(last.and_then(|event| event.reason)))
            }
            Standing::Unsettled(_) | Standing::Unclear => Some(Self::Pending),
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
