use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use kassa_bus::ShopId;
use kassa_bus::attention::{NeedsAttention, Unbooked};
use kassa_bus::registry::Shop;
use kassa_bus::table::Readable;
use kassa_pipeline::event::StoredEvent;
use kassa_pipeline::row::DayRow;
use kassa_subscribers::decrypt_error_alerter::{self, Incident};

use super::{QuestionError, Questions, Sent};
use crate::embedded::OUTBOX;

/// Each of these reads a bounded number of rows, however many sales there were.
impl Questions {
    /// The shops as they are registered.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn registered(&self) -> Result<Readable<Arc<Shop>>, QuestionError> {
        Ok(self.books.registry.registered().await?)
    }

    /// Checkpoints that cannot be read, so that nobody knows what stock and turnover contain.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn unreadable_checkpoints(&self) -> Result<Vec<String>, QuestionError> {
        let checkpoints = self.books.read_model.checkpoints().await?;
        let errors = checkpoints.values().filter_map(|checkpoint| checkpoint.position().err());
        Ok(errors.map(|error| error.to_string()).collect())
    }

    /// A shop's last days with sales, the last first.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn last_days(&self, shop: &ShopId, limit: i32) -> Result<Readable<DayRow>, QuestionError> {
        Ok(self.books.read_model.last_days(shop, limit).await?)
    }

    /// Events of a shop's latest sales of today and yesterday (UTC), in no order. Of sales with classic ids, which
    /// are in no order, they are just some.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn latest(
        &self,
        shop: &ShopId,
        now: Timestamp,
        limit: i32,
    ) -> Result<Vec<StoredEvent>, QuestionError> {
        let today = now.to_zoned(TimeZone::UTC).date();
        let mut events = self.books.events.latest(shop, today, limit).await?;
        if events.is_empty() {
            let yesterday = today.saturating_sub(1.day());
            events = self.books.events.latest(shop, yesterday, limit).await?;
        }
        Ok(events)
    }

    /// What was rejected, by shop and reason, and what became of it.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn incidents(&self) -> Result<Readable<Incident>, QuestionError> {
        let documents = self.documents(decrypt_error_alerter::ENTRY.name)?;
        Ok(decrypt_error_alerter::incidents(documents).await?)
    }

    /// Sales that were rejected and are neither booked nor given up.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn attention(&self) -> Result<Vec<NeedsAttention>, QuestionError> {
        Ok(self.books.attention.of_all().await?)
    }

    /// The last of them of each shop.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn unbooked(&self, limit: usize) -> Result<Vec<(ShopId, Unbooked)>, QuestionError> {
        let mut last = Vec::new();
        for (shop, list) in self.books.attention.lists().await? {
            if list.taken > 0 {
                let mut sales = self.books.attention.sales(&shop).await?.rows;
                sales.sort_by_key(|sale| std::cmp::Reverse(sale.since));
                last.extend(sales.into_iter().take(limit).map(|sale| (shop.clone(), sale)));
            }
        }
        Ok(last)
    }

    /// The last notices of the outbox, the last first.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn last_sent(&self, limit: i32) -> Result<Vec<Sent>, QuestionError> {
        let sent = self.documents(OUTBOX)?.last(Sent::GROUP, limit).await?.logged();
        Ok(sent.into_iter().map(|(_, sent)| sent).collect())
    }
}
