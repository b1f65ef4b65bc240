use std::sync::Arc;

use crate::attention::Attention;
use crate::clock::Clock;
use crate::documents::Documents;
use crate::keys::ShopKeys;
use crate::metrics::Metrics;
use crate::notify::Notifier;
use crate::registry::Registry;
use crate::secrets::Secrets;
use crate::settings::{SettingError, Settings};
use crate::wake::Wakes;

/// What a subscriber may ask of the place it runs in: a Lambda function, or the shop on one machine.
///
/// Each thing is made when it is asked for, so that a function needs settings and rights for what its
/// subscriber uses and for nothing else.
pub trait Host: Send + Sync {
    fn clock(&self) -> Clock;

    fn metrics(&self) -> Metrics;

    fn settings(&self) -> &Settings;

    /// The subscriber's own table.
    ///
    /// # Errors
    /// [`SettingError`], as all below.
    fn documents(&self, subscriber: &'static str) -> Result<Documents, SettingError>;

    /// Which shops there are.
    fn registry(&self) -> Result<Registry, SettingError>;

    /// Which sales were rejected and are not booked.
    fn attention(&self) -> Result<Attention, SettingError>;

    /// The shops' keys.
    fn keys(&self) -> Result<Arc<dyn ShopKeys>, SettingError>;

    /// The way to people.
    fn notifier(&self) -> Result<Arc<dyn Notifier>, SettingError>;

    /// The subscriber's own queue, to be woken by.
    fn wakes(&self, subscriber: &'static str) -> Result<Arc<dyn Wakes>, SettingError>;

    /// Secrets shared with others.
    fn secrets(&self) -> Result<Arc<dyn Secrets>, SettingError>;
}
