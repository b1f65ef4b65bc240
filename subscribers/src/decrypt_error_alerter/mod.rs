//! Tells people that a shop's sales are rejected, reminds them, and tells them when it is over.
//!
//! Per shop and reason there is one `Incident`, a document that every function changes by conditional writes
//! only: however many run at once, it opens once. What is to be sent is written with the change that made it
//! news, is claimed by one function at a time, and is taken off once it was sent. A function that dies between
//! sending and taking off leaves it to be sent again after two minutes: a message comes at least once.
//!
//! Whether sales still need attention is not for the messages to say but for the list of those that were rejected and are
//! neither booked nor given up ([`kassa_bus::attention`]), which `kassa status` and the console show. Messages say when to
//! look. A sale that is put through again and rejected again is on the list as before, and no news.
//!
//! It behaves as Prometheus' Alertmanager does with `group_wait`, `repeat_interval` and resolved notifications,
//! grouped by shop and reason, except that
//! - it is over when nothing of it is on the list and nothing failed for `RESOLVE_AFTER`, not when nothing was heard for a
//!   while (`resolve_timeout`): that a shop's other sales are booked says nothing of these;
//! - what is booked or given up within the group wait is never told;
//! - there is no `group_interval`: more failures change the count in the reminder and are no news themselves, unless they
//!   are all that is left: once what was told is booked or given up, they are told as what begins. A manager gets one text a
//!   minute at most, of all that is news about his shop;
//! - of what is booked already (conflicts, replays) ICT hears, and the manager does not: nothing needs attention;
//! - quiet hours hold back reminders only, and send them when they end; a muted interval there drops all;
//! - the group wait ends when the subscriber's own queue wakes it, to the second. All else is done once a minute.
//!
//! A sale is on the list before its rejection is heard of here, so that it is not on it says that it is booked or given up.

mod attend;
mod budget;
mod delivery;
mod gsm7;
mod ict;
mod incident;
mod manager;
mod outgoing;
mod runbook;
#[cfg(test)]
mod testing;
mod tills;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream;
use jiff::{SignedDuration, Timestamp};
use kassa_bus::attention::Attention;
use kassa_bus::message::{Reason, RejectedSale};
use kassa_bus::notify::Notifier;
use kassa_bus::registry::{Registry, Shop};
use kassa_bus::table::{Readable, TableError};
use kassa_bus::wake::Wakes;
use kassa_bus::{
    Clock, Contract, Documents, Entry, Failure, Host, Message, Metric, Metrics, Retry, SettingError, ShopId,
    Subscriber, Subscription, Topic, Verdict,
};

pub use incident::{Failures, Incident, Phase};
use incident::{Heard, Policy, Turn};
pub use outgoing::{Addressee, News, Outgoing, Texted};
pub use tills::Tills;

pub const ENTRY: Entry = Entry { name: "decrypt-error-alerter", make };

/// The group of documents `<shop>#<reason>`.
const INCIDENTS: &str = "incidents";

/// As many as are folded into a document in one transaction.
const BATCH: usize = 99;

/// Shops attended to at once.
const SIDE_BY_SIDE: usize = 8;

/// Every incident there was, by shop and reason, with what became of it last.
///
/// # Errors
/// [`TableError`].
pub async fn incidents(documents: &Documents) -> Result<Readable<Incident>, TableError> {
    Ok(documents.list(INCIDENTS, "").await?.map(|(_, incident)| incident))
}

fn make(host: &dyn Host) -> Result<Option<Subscription>, SettingError> {
    let settings = host.settings();
    let lasts = |name, default| {
        let length = settings.duration(name, default)?;
        Ok(SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX))
    };
    let policy = Policy {
        group_wait: lasts("GROUP_WAIT", Duration::from_secs(30))?,
        repeat_interval: lasts("REPEAT_INTERVAL", Duration::from_hours(4))?,
        resolve_after: lasts("RESOLVE_AFTER", Duration::from_mins(10))?,
        // Where a minute is made shorter, so is this.
        pace: lasts("MINUTE", Duration::from_mins(1))?,
    };
    let alerter = Alerter {
        documents: host.documents(ENTRY.name)?,
        registry: host.registry()?,
        attention: host.attention()?,
        wakes: host.wakes(ENTRY.name)?,
        notifier: host.notifier()?,
        clock: host.clock(),
        metrics: host.metrics(),
        policy,
        stage: settings.optional("STAGE").map(str::to_owned),
    };
    let subscription = ENTRY.on(Topic::DecryptErrors, Arc::new(alerter));
    Ok(Some(Subscription { batch: BATCH, every_minute: true, ..subscription }))
}

struct Alerter {
    documents: Documents,
    registry: Registry,
    attention: Attention,
    wakes: Arc<dyn Wakes>,
    notifier: Arc<dyn Notifier>,
    clock: Clock,
    metrics: Metrics,
    policy: Policy,
    stage: Option<String>,
}

#[async_trait]
impl Subscriber for Alerter {
    async fn handle(&self, batch: &[Message]) -> Vec<Verdict> {
        let mut verdicts: Vec<Verdict> = Vec::with_capacity(batch.len());
        let mut incidents: BTreeMap<(ShopId, Reason), Vec<(usize, RejectedSale)>> = BTreeMap::new();
        let mut woken: BTreeSet<ShopId> = BTreeSet::new();
        for (place, message) in batch.iter().enumerate() {
            verdicts.push(match taken(message) {
                Ok(Taken::Rejected(sale)) => {
                    let sale = *sale;
                    if is_news(&sale) {
                        incidents.entry((sale.shop_id.clone(), sale.reason)).or_default().push((place, sale));
                    }
                    Ok(())
                }
                Ok(Taken::WokenFor(shop)) => {
                    woken.insert(shop);
                    Ok(())
                }
                Err(not_ours) => Err(Failure::Refuse(not_ours.into())),
            });
        }
        for ((shop, reason), sales) in incidents {
            let (places, sales): (Vec<_>, Vec<_>) = sales.into_iter().unzip();
            if let Err(why) = self.hear(&shop, reason, &sales).await {
                for place in places {
                    verdicts[place] = Err(why.clone().into());
                }
            }
        }
        if !woken.is_empty()
            && let Err(why) = self.attend_all(|shop| woken.contains(shop)).await
        {
            tracing::warn!(%why, "what was due is left to the minute");
        }
        verdicts
    }

    async fn tick(&self) -> Result<(), Retry> {
        self.attend_all(|_| true).await
    }
}

/// What a message of the queue is.
enum Taken {
    Rejected(Box<RejectedSale>),
    WokenFor(ShopId),
}

fn taken(message: &Message) -> Result<Taken, String> {
    match message.woken() {
        None => message.read().map(Box::new).map(Taken::Rejected).map_err(|not_ours| not_ours.to_string()),
        Some(shop) => shop.parse().map(Taken::WokenFor).map_err(|_| "a wake-up about no shop".to_owned()),
    }
}

/// Whether a till sold this, and nobody knows that it was rejected: it is neither put through again nor given up.
fn is_news(sale: &RejectedSale) -> bool {
    sale.origin.attempt <= 1 && sale.reason != Reason::Dropped
}

impl Alerter {
    async fn attend_all(&self, of: impl Fn(&ShopId) -> bool) -> Result<(), Retry> {
        let incidents = incidents(&self.documents).await?.logged();
        let open = incidents.iter().filter(|incident| incident.is_open()).count();
        #[expect(
            clippy::cast_precision_loss,
            reason = "there are fewer incidents than a float counts exactly"
        )]
        self.metrics.observe(Metric::IncidentsOpen, &[], open as f64);
        let mut shops: BTreeMap<ShopId, Vec<Incident>> = BTreeMap::new();
        for incident in incidents {
            if !incident.is_settled() && of(&incident.shop_id) {
                shops.entry(incident.shop_id.clone()).or_default().push(incident);
            }
        }
        let attended = stream::iter(shops)
            .map(|(shop, incidents)| async move { self.attend(&shop, &incidents).await })
            .buffer_unordered(SIDE_BY_SIDE)
            .collect::<Vec<_>>();
        attended.await.into_iter().collect()
    }

    async fn hear(&self, shop: &ShopId, reason: Reason, sales: &[RejectedSale]) -> Result<(), TableError> {
        let (name, at) = (name(shop, reason), self.clock.now());
        let by_id: HashMap<String, &RejectedSale> = sales.iter().map(|sale| (sale.id(), sale)).collect();
        let ids: Vec<String> = sales.iter().map(Contract::id).collect();
        let wake = self.documents.fold(INCIDENTS, &name, &ids, |before: Option<Incident>, fresh| {
            let failures = fresh.iter().filter_map(|id| by_id.get(*id).copied()).collect();
            let heard = Heard { failures, at };
            let mut incident = match before {
                None => Incident::new(shop.clone(), reason, heard),
                Some(mut incident) => {
                    incident.hear(heard);
                    incident
                }
            };
            let wake = incident.wake(at, &self.policy);
            (incident, wake)
        });
        if let Some(after) = wake.await?.flatten() {
            self.wake(shop, after).await;
        }
        Ok(())
    }

    /// Has this called about a shop after some time. Where that fails, the minute does what is due.
    async fn wake(&self, shop: &ShopId, after: SignedDuration) {
        let after = Duration::try_from(after).unwrap_or_default();
        if let Err(why) = self.wakes.wake(shop.as_str(), after).await {
            tracing::warn!(shop_id = %shop, %why, "nobody wakes the alerter; it looks at the next minute");
        }
    }

    fn count(&self, turn: Option<Turn>) {
        match turn {
            Some(Turn::Opened) => self.metrics.count(Metric::IncidentsOpened, 1),
            Some(Turn::Closed) => self.metrics.count(Metric::IncidentsClosed, 1),
            None => {}
        }
    }
}

fn name(shop: &ShopId, reason: Reason) -> String {
    format!("{shop}#{reason}")
}

fn is_quiet(shop: &Shop, now: Timestamp) -> bool {
    shop.quiet_hours.is_some_and(|hours| hours.contain(now.to_zoned(shop.zone()).time()))
}
