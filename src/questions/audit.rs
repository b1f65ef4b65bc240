use jiff::Timestamp;
use kassa_subscribers::bad_key_auditor::{Audit, ENTRY, audit};
use serde::{Deserialize, Serialize};

use super::{QuestionError, Questions};

/// `?from=&to=&shop=`
#[derive(Debug, Serialize, Deserialize)]
pub struct AuditFilter {
    pub from: Timestamp,
    pub to: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shop: Option<String>,
}

impl Questions {
    /// The wrong keys that sales came with.
    ///
    /// # Errors
    /// [`QuestionError`].
    pub async fn audit_keys(&self, filter: &AuditFilter) -> Result<Audit, QuestionError> {
        let documents = self.documents(ENTRY.name)?;
        let mut audit = audit(documents, &self.books.registry, filter.from, filter.to).await?;
        // Only now, because a key is judged in the light of all shops.
        if let Some(shop) = &filter.shop {
            let shops = self.shops(Some(shop)).await?;
            audit.keys.retain(|key| shops.contains(&key.shop_id));
        }
        Ok(audit)
    }
}
