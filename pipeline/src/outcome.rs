//! What became of a sale, as its till is told: from the keys of its events, and of those no more than a few pages, as anybody may ask.

use kassa_bus::message::Reason;
use kassa_bus::table::TableError;
use kassa_bus::{SaleId, ShopId};
use serde_json::{Value, json};

use crate::event::{RECORDED, REJECTED, StoredEvent};
use crate::event_store::{Bodies, EventStore};
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

/// Pages of a sale's events that are read for an answer, each of 1 MB at most. Of a sale that has more (hundreds of envelopes, all
/// but one a stranger's) nobody is told a final no.
const PAGES: usize = 4;

impl Outcome {
    /// Reads what became of a sale. Nothing, if it was not accepted.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn read(store: &EventStore, shop: &ShopId, sale: &SaleId) -> Result<Option<Self>, TableError> {
        let (mut fold, mut last, mut cursor) = (None::<SaleFold>, None::<StoredEvent>, None);
        for _ in 0..PAGES {
            let page = store.of_sale((shop, sale), "", Bodies::Without, cursor).await?;
            for event in page.events {
                match &mut fold {
                    Some(fold) => fold.take(&event),
                    None => fold = Some(SaleFold::new(&event)),
                }
                let later = last.as_ref().is_none_or(|last| last.at <= event.at);
                if event.kind == REJECTED && later {
                    last = Some(event);
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                let reason = last.and_then(|event| event.reason);
                return Ok(fold.filter(|fold| fold.accepted > 0).map(|fold| Self::of(fold, reason)));
            }
        }
        Ok(Some(if store.has((shop, sale), RECORDED).await? { Self::Recorded } else { Self::Pending }))
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
