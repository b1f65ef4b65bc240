use std::sync::atomic::{AtomicU64, Ordering};

use kassa_bus::{Metrics, Publisher, ShopId};
use kassa_pipeline::reconcile::reconcile_all;
use kassa_pipeline::unsettled::Finder;
use serde::{Deserialize, Serialize};

use super::{Progress, QuestionError, Questions};

/// `?shop=&dry_run=`
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct ReconcileFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shop: Option<String>,
    #[serde(default)]
    pub dry_run: bool,
}

/// What was found to have come to no end, and whether it was sent on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciled {
    pub unsettled: u64,
    pub published: bool,
}

impl Questions {
    /// Sends every sale that came to no end on its way again, or counts them. Reads the whole table.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn reconcile(
        &self,
        filter: &ReconcileFilter,
        publisher: Option<&dyn Publisher>,
        progress: Progress<'_>,
    ) -> Result<Reconciled, QuestionError> {
        let shops = match &filter.shop {
            Some(shop) => Some(self.shops(Some(shop)).await?),
            None => None,
        };
        let meant = |shop: &ShopId| shops.as_ref().is_none_or(|shops| shops.contains(shop));
        let of = self.books.events.approximate_count().await?;
        let read = AtomicU64::new(0);
        // Metrics are what a shop says of itself, and not what somebody does to it.
        let uncounted = Metrics::none();
        let publisher = publisher.filter(|_| !filter.dry_run).map(|publisher| (publisher, &uncounted));
        let see = |_: &_| progress(read.fetch_add(1, Ordering::Relaxed) + 1, of);
        let finder = Finder { store: self.books.events.clone() };
        let unsettled = reconcile_all(&finder, publisher, &meant, see).await?;
        Ok(Reconciled { unsettled, published: publisher.is_some() })
    }
}
