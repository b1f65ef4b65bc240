use std::sync::Arc;

use async_trait::async_trait;
use kassa_bus::attention::Attention;
use kassa_bus::keys::ShopKeys;
use kassa_bus::local::QueueWakes;
use kassa_bus::notify::Notifier;
use kassa_bus::registry::Registry;
use kassa_bus::secrets::{SecretText, Secrets};
use kassa_bus::wake::Wakes;
use kassa_bus::{Clock, Documents, Host, Metrics, Retry, SettingError, Settings};

use super::outbox::Outbox;
use super::store::Store;
use crate::console::Feed;

/// The shop on one machine as a subscriber sees it: tables in the store, settings from the environment, and
/// an outbox where people would be.
#[derive(Clone)]
pub struct LocalHost {
    pub store: Store,
    pub keys: Arc<dyn ShopKeys>,
    pub settings: Settings,
    pub clock: Clock,
    pub metrics: Metrics,
    /// Whoever looks hears of what is sent.
    pub feed: Arc<Feed>,
}

impl Host for LocalHost {
    fn clock(&self) -> Clock {
        self.clock.clone()
    }

    fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn documents(&self, subscriber: &'static str) -> Result<Documents, SettingError> {
        Ok(self.store.documents(subscriber, self.clock.clone()))
    }

    fn registry(&self) -> Result<Registry, SettingError> {
        Ok(self.store.registry.clone())
    }

    fn attention(&self) -> Result<Attention, SettingError> {
        Ok(self.store.attention.clone())
    }

    fn keys(&self) -> Result<Arc<dyn ShopKeys>, SettingError> {
        Ok(Arc::clone(&self.keys))
    }

    fn notifier(&self) -> Result<Arc<dyn Notifier>, SettingError> {
        let clock = self.clock.clone();
        let documents = self.store.documents(super::OUTBOX, clock.clone());
        Ok(Arc::new(Outbox { documents, clock, feed: self.feed.clone() }))
    }

    fn wakes(&self, queue: &'static str) -> Result<Arc<dyn Wakes>, SettingError> {
        Ok(Arc::new(QueueWakes { queues: self.store.kept(&self.clock).queues, queue }))
    }

    fn secrets(&self) -> Result<Arc<dyn Secrets>, SettingError> {
        Ok(Arc::new(InSettings(self.settings.clone())))
    }
}

/// A secret's live values are in its setting, the newest first, with blanks between.
struct InSettings(Settings);

#[async_trait]
impl Secrets for InSettings {
    async fn live(&self, setting: &'static str) -> Result<Vec<SecretText>, Retry> {
        Ok(self
            .0
            .text(setting)?
            .split_ascii_whitespace()
            .map(|text| SecretText::new(text.to_owned()))
            .collect())
    }
}
