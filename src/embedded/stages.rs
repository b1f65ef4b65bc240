//! The pipeline's stages, as the embedded shop has them.

use std::sync::Arc;

use kassa_bus::keys::ShopKeys;
use kassa_bus::{Clock, Metrics, Publisher, SettingError, Settings, Subscription};
use kassa_pipeline::accept::Accept;
use kassa_pipeline::decrypt::Decrypt;
use kassa_pipeline::envelope_limit::EnvelopeLimit;
use kassa_pipeline::first_use::FirstUse;
use kassa_pipeline::opener::Opener;
use kassa_pipeline::pending_rows::PendingRows;
use kassa_pipeline::process::Process;
use kassa_pipeline::project::Project;
use kassa_pipeline::rates::Rates;
use kassa_pipeline::reconcile::Reconcile;
use kassa_pipeline::reject::Reject;
use kassa_pipeline::unsettled::Finder;
use kassa_pipeline::watch::Watch;

use super::store::Store;

/// What stages are made of.
pub struct Stages<'a> {
    pub store: &'a Store,
    pub keys: Arc<dyn ShopKeys>,
    pub publisher: Arc<dyn Publisher>,
    pub clock: &'a Clock,
    pub metrics: &'a Metrics,
    pub settings: &'a Settings,
}

impl Stages<'_> {
    /// The stage behind the listener.
    ///
    /// # Errors
    /// [`SettingError`].
    pub fn accept(&self) -> Result<Accept, SettingError> {
        Ok(Accept {
            rates: Rates::told(self.settings)?,
            limit: EnvelopeLimit::default(),
            pending: PendingRows::new(self.store.shops()),
            store: self.store.events.clone(),
            registry: self.store.registry.clone(),
            keys: self.keys.clone(),
            publisher: self.publisher.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        })
    }

    /// Every stage that hangs on a topic, on the stream or on the clock.
    ///
    /// # Errors
    /// [`SettingError`].
    pub fn subscriptions(&self) -> Result<Vec<Subscription>, SettingError> {
        let reject = Reject {
            store: self.store.events.clone(),
            attention: self.store.attention_list(),
            publisher: self.publisher.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        };
        let decrypt = Decrypt {
            opener: Opener::new(
                self.store.registry.clone(),
                self.store.events.clone(),
                self.keys.clone(),
                self.metrics.clone(),
            ),
            store: self.store.events.clone(),
            first_use: FirstUse { store: self.store.events.clone(), clock: self.clock.clone() },
            publisher: self.publisher.clone(),
            reject: reject.clone(),
            metrics: self.metrics.clone(),
        };
        let process = Process {
            store: self.store.events.clone(),
            registry: self.store.registry.clone(),
            reject,
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        };
        let project = Project::new(
            self.store.read_model.clone(),
            self.store.attention.clone(),
            self.metrics.clone(),
            self.clock.clone(),
        );
        let watch = Watch::new(
            self.store.registry.clone(),
            self.store.read_model.clone(),
            (Finder { store: self.store.events.clone() }, PendingRows::new(self.store.shops())),
            self.clock.clone(),
            self.metrics.clone(),
        );
        let reconcile = Reconcile::told(
            self.settings,
            Finder { store: self.store.events.clone() },
            self.store.shops(),
            self.publisher.clone(),
            (self.clock.clone(), self.metrics.clone()),
        )?;
        Ok(vec![
            decrypt.subscription(),
            process.subscription(),
            project.subscription(),
            watch.subscription(),
            reconcile.subscription(),
        ])
    }
}
