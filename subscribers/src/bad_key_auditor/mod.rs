//! Which wrong keys do sales come with, from whose tills, since when, and what is to be done?
//!
//! Takes `decrypt-errors` of reason `wrong-key`, finds out whose key each sale was encrypted with, and keeps
//! counts per shop, key and day in its own table. `kassa audit keys` shows them.
//!
//! ```text
//! group           name    document
//! day#2026-11-22  AMIS1   per key: count, first, last, tills, sources
//! permits         hour    how often private keys were used to find something out this hour
//! ```
//!
//! One document is a shop's day, whatever the keys: a stranger who makes up a thousand keys makes no row
//! larger and no more rows, and a sale counts once even if its key is told otherwise the second time.
//!
//! | setting | default | |
//! |---|---|---|
//! | `AUDIT_TRIALS` | 20 | other shops whose key is tried on one classic sale; 0 is none |
//! | `AUDIT_TRIAL_RATE` | 600 | uses of private keys an hour, over all functions |

/// What to do about it.
mod advice;
/// Which key it was.
mod key;
/// What `kassa audit keys` answers.
mod report;
/// What a key is to a shop: its own, another's, retired, nobody's.
mod standing;
/// What was seen, put together in any order.
pub mod tally;
/// Which till it was, where it can be read.
mod till;
/// Whose key it was, where only trying tells.
mod trial;
/// Misconfiguration or attack.
pub mod verdict;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use kassa_bus::documents::FOLDED;
use kassa_bus::message::{Envelope, Reason, RejectedSale, SealedWith, decode_content};
use kassa_bus::registry::Registry;
use kassa_bus::table::TableError;
use kassa_bus::{
    Contract, Dimension, Documents, Entry, Failure, Host, Message, Metric, Metrics, SettingError, ShopId,
    Subscriber, Subscription, Topic, Verdict,
};

pub use key::Key;
pub use report::{Audit, AuditedKey, audit};
pub use tally::{Bounded, Seen};
pub use verdict::LooksLike;

use tally::Tally;
use till::Tills;
use trial::{Permits, Trials};

pub const ENTRY: Entry = Entry { name: "bad-key-auditor", make };

struct BadKeyAuditor {
    documents: Documents,
    registry: Registry,
    trials: Trials,
    tills: Tills,
    metrics: Metrics,
}

fn make(host: &dyn Host) -> Result<Option<Subscription>, SettingError> {
    let (settings, documents, keys) = (host.settings(), host.documents(ENTRY.name)?, host.keys()?);
    let an_hour = settings.count("AUDIT_TRIAL_RATE", 600)?;
    let shops = usize::try_from(settings.count("AUDIT_TRIALS", 20)?).unwrap_or(usize::MAX);
    let permits = Arc::new(Permits::new(documents.clone(), host.clock(), an_hour));
    let auditor = BadKeyAuditor {
        documents,
        registry: host.registry()?,
        trials: Trials::new(keys.clone(), shops, permits.clone()),
        tills: Tills::new(keys, permits),
        metrics: host.metrics(),
    };
    Ok(Some(Subscription { batch: 100, ..ENTRY.on(Topic::DecryptErrors, Arc::new(auditor)) }))
}

/// A sale, and what was found out about it.
struct Audited {
    sale: RejectedSale,
    key: Key,
    till: Option<Arc<str>>,
}

/// A shop's day, as its group and name in the table.
type Place = (String, ShopId);

/// The group of a day's documents.
fn group(day: Date) -> String {
    format!("day#{day}")
}

impl Audited {
    fn place(&self) -> Place {
        let day = self.sale.origin.accepted_at.to_zoned(TimeZone::UTC).date();
        (group(day), self.sale.shop_id.clone())
    }

    fn seen(&self) -> Seen {
        let origin = &self.sale.origin;
        Seen::once(origin.accepted_at, self.till.as_deref(), origin.source)
    }

    /// Whose the key is, as the metrics tell it apart.
    fn class(&self) -> &'static str {
        match self.key {
            Key::Known { .. } | Key::Tried { .. } => "known",
            Key::Unknown { .. } | Key::Others => "unknown",
            Key::Untold => "untold",
        }
    }
}

impl BadKeyAuditor {
    /// Finds out about one message; `None` if it is not about a wrong key, or about a retry.
    async fn audit(&self, message: &Message) -> Result<Option<Audited>, Failure> {
        let sale: RejectedSale = message.read().map_err(|e| Failure::Refuse(e.to_string().into()))?;
        // One that is put through again is counted already.
        if sale.reason != Reason::WrongKey || sale.origin.attempt > 1 {
            return Ok(None);
        }
        let (key, till) = match (&sale.sealed_with, &sale.closed) {
            (Some(SealedWith { kid, shop_id: Some(owner) }), closed) => {
                let till = self.till(owner, closed.as_ref()).await?;
                (Key::Known { shop_id: owner.clone(), kid: kid.clone() }, till)
            }
            (Some(SealedWith { kid, shop_id: None }), _) => (Key::Unknown { kid: kid.clone() }, None),
            (None, Some(Envelope::Classic { content_base64 })) => {
                (self.tried(&sale, content_base64).await?, None)
            }
            (None, _) => (Key::Untold, None),
        };
        Ok(Some(Audited { sale, key, till }))
    }

    async fn till(&self, owner: &ShopId, closed: Option<&Envelope>) -> Result<Option<Arc<str>>, TableError> {
        match closed {
            Some(Envelope::Sealed { sealed }) => self.tills.till(owner, sealed).await,
            _ => Ok(None),
        }
    }

    async fn tried(&self, sale: &RejectedSale, content_base64: &str) -> Result<Key, Failure> {
        let Some(ciphertext) = decode_content(content_base64) else { return Ok(Key::Untold) };
        let shops = self.registry.shops().await?;
        let owner = self.trials.owner(&sale.shop_id, &ciphertext, &shops, turn(&sale.id())).await?;
        Ok(owner.map_or(Key::Untold, |shop_id| Key::Tried { shop_id }))
    }

    /// Counts what was found out about sales of one shop's day, each once. They are no more than are folded at once,
    /// or the metrics would miss some.
    async fn count(&self, (group, shop): &Place, sales: &[(usize, Audited)]) -> Result<(), TableError> {
        let ids: Vec<String> = sales.iter().map(|(_, audited)| audited.sale.id()).collect();
        let audited = sales.iter().map(|(_, audited)| audited);
        let by_id: HashMap<&str, &Audited> = ids.iter().map(String::as_str).zip(audited).collect();
        let counted = self.documents.fold(group, shop.as_str(), &ids, |tally: Option<Tally>, fresh| {
            let mut tally = tally.unwrap_or_default();
            let fresh: Vec<&Audited> = fresh.iter().filter_map(|id| by_id.get(id).copied()).collect();
            for audited in &fresh {
                tally.add(audited.key.clone(), audited.seen());
            }
            (tally, fresh.into_iter().map(Audited::class).collect::<Vec<_>>())
        });
        for class in counted.await?.into_iter().flatten() {
            let labels = [(Dimension::Shop, shop.as_str()), (Dimension::Class, class)];
            self.metrics.count_of(Metric::WrongKeys, &labels, 1);
        }
        Ok(())
    }
}

/// A number that differs from sale to sale, and not from delivery to delivery.
fn turn(id: &str) -> usize {
    id.bytes().fold(0, |turn: usize, byte| turn.wrapping_mul(31).wrapping_add(byte.into()))
}

#[async_trait]
impl Subscriber for BadKeyAuditor {
    async fn handle(&self, batch: &[Message]) -> Vec<Verdict> {
        let mut verdicts: Vec<Verdict> = Vec::with_capacity(batch.len());
        let mut found: BTreeMap<Place, Vec<(usize, Audited)>> = BTreeMap::new();
        // One after the other, so that what the first trial found out serves the rest.
        for (at, message) in batch.iter().enumerate() {
            verdicts.push(self.audit(message).await.map(|audited| {
                if let Some(audited) = audited {
                    found.entry(audited.place()).or_default().push((at, audited));
                }
            }));
        }
        for (place, sales) in &found {
            for sales in sales.chunks(FOLDED) {
                if let Err(error) = self.count(place, sales).await {
                    for (at, _) in sales {
                        verdicts[*at] = Err(error.clone().into());
                    }
                }
            }
        }
        verdicts
    }
}
