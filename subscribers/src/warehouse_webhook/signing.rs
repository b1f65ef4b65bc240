use std::sync::{Arc, PoisonError, RwLock};

use jiff::{SignedDuration, Timestamp};
use kassa_bus::Retry;
use kassa_bus::secrets::Secrets;
use kassa_bus::webhook::Secret;

/// How long the secrets are taken for unchanged. While one is replaced both live, so there is no hurry.
const KEPT: SignedDuration = SignedDuration::from_mins(5);

/// The secrets deliveries are signed with, the newest first.
pub struct Signing {
    secrets: Arc<dyn Secrets>,
    // Never held across an await.
    kept: RwLock<Option<(Timestamp, Arc<[Secret]>)>>,
}

impl Signing {
    #[must_use]
    pub fn new(secrets: Arc<dyn Secrets>) -> Self {
        Self { secrets, kept: RwLock::new(None) }
    }

    /// # Errors
    /// [`Retry`] if they cannot be had, are none, or are no secrets.
    pub async fn secrets(&self, now: Timestamp) -> Result<Arc<[Secret]>, Retry> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((since, secrets)) = kept
            && now.duration_since(since) < KEPT
        {
            return Ok(secrets);
        }
        let live = self.secrets.live("WAREHOUSE_SECRET").await?;
        let secrets = live.iter().map(|text| text.expose().parse()).collect::<Result<Arc<[Secret]>, _>>()?;
        if secrets.is_empty() {
            return Err(Retry::because("WAREHOUSE_SECRET holds no secret"));
        }
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = Some((now, Arc::clone(&secrets)));
        Ok(secrets)
    }
}
