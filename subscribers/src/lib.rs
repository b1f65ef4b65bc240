//! Whoever must know of a sale, plugged into the same topics as the core.
//!
//! To add one: a file here, a line in [`all`], a block in `deploy.yml`. It may use what
//! `kassa_bus` publishes and nothing of the pipeline.

use kassa_bus::Subscription;

/// Every subscriber, in the order they are started. None is written yet.
#[must_use]
pub fn all() -> Vec<Subscription> {
    Vec::new()
}
