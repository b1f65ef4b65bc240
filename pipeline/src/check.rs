//! Whether the books balance: every sale's history, every recorded sale against the hashes of when it was recorded, and
//! every row of the read models against the events.
//!
//! Sales go on meanwhile. What is checked is what there was when it began: rows are read once, and compared with the
//! events up to where the projection stood; what it took while they were read is looked up for the rows that differ.
//! Nothing is waited for, and no more is kept than rows and those events' keys.

/// Rows as they were read, and what they must be.
mod reading;
/// One sale's events among themselves.
mod sale;

use kassa_bus::registry::Registry;
use kassa_bus::table::TableError;
use serde::{Deserialize, Serialize};

use self::reading::Reading;
use self::sale::SaleCheck;
use crate::attention::{AttentionList, Expected};
use crate::contained::{Changes, Later, positions};
use crate::event_store::{EventStore, Scan};
use crate::read_model::ReadModel;

/// Whether the books balance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Sales with an accepted event.
    pub accepted: u64,
    pub recorded: u64,
    /// Each of its envelopes is rejected.
    pub rejected: u64,
    /// Neither.
    pub pending: u64,
    /// What does not agree, in words. Empty is what it should be.
    pub mismatches: Vec<String>,
}

/// Mismatches told at most; a broken table has thousands.
const TOLD: usize = 100;

impl Check {
    fn mismatch(&mut self, what: String) {
        let told = self.mismatches.len();
        if told <= TOLD {
            self.mismatches.push(if told < TOLD { what } else { "… and more".into() });
        }
    }
}

/// Compares every sale's history and every row of the read models with the events. Sales may go on
/// meanwhile; a sale in flight counts as pending.
///
/// # Errors
/// [`TableError`].
pub async fn check(
    store: &EventStore,
    (read_model, attention): (&ReadModel, &AttentionList),
    registry: &Registry,
    changes: &dyn Changes,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Check, TableError> {
    let mut check = Check::default();
    registry.unreadable().await?.into_iter().for_each(|unreadable| check.mismatch(unreadable));
    let mut reading = Reading::read(read_model, &registry.shops().await?, &mut check).await?;
    let mut later = Later::than(&positions(reading.checkpoints(), changes).await?, changes).await?;
    let (mut sale, mut cursor, mut scanned) = (SaleCheck::new(registry, store), None, 0);
    let mut expected = Expected::default();
    loop {
        let page = store.scan(Scan::default(), cursor).await?;
        scanned += page.events.len() as u64;
        progress(scanned);
        page.unreadable.into_iter().for_each(|unreadable| check.mismatch(unreadable));
        for event in &page.events {
            sale.take(event, &mut check).await?;
            expected.take(event);
        }
        for event in later.contained(page.events).await? {
            // One that cannot be read is named already.
            reading.expect(event.postings().unwrap_or_default());
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    for event in later.settled(store).await? {
        reading.expect(event.postings().unwrap_or_default());
    }
    sale.ends(&mut check).await?;
    attention.mismatches(expected).await?.into_iter().for_each(|wrong| check.mismatch(wrong));
    reading.compare(store, changes, &mut check).await?;
    Ok(check)
}
