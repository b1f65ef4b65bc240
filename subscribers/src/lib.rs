//! Whoever must know of a sale, plugged into the same topics as the core.
//!
//! To add one: a file here, a line in `all`, a block in `deploy.yml`; `README.md` says it in twenty lines.
//! It may use what `kassa_bus` publishes and nothing of the pipeline.

#![warn(clippy::print_stdout, clippy::print_stderr)]

/// Which wrong keys sales come with, and from whom.
pub mod bad_key_auditor;
/// One SMS when a shop's sales are rejected, one when it is over.
pub mod decrypt_error_alerter;
/// Sales to the warehouse.
pub mod warehouse_webhook;

use kassa_bus::Entry;

/// The settings that subscribers have, as `deploy.yml` names them.
pub fn settings() -> impl Iterator<Item = &'static str> {
    let names =
        include_str!("../deploy.yml").lines().filter_map(|line| line.strip_prefix("    ")?.split_once(": "));
    names.map(|(name, _)| name).filter(|name| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
}

/// Every subscriber, in the order they are started.
#[must_use]
pub fn all() -> Vec<Entry> {
    vec![bad_key_auditor::ENTRY, decrypt_error_alerter::ENTRY, warehouse_webhook::ENTRY]
}
