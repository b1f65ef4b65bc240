//! Tells people that a shop's sales are rejected, reminds them, and tells them when it is over.
//!
//! Per shop and reason there is one `Incident`, a document that every function changes by conditional writes
//! only: however many run at once, it opens once. What is to be sent is written with the change that made it
//! news, is claimed by one function at a time, and is taken off once it was sent. A function that dies between
//! sending and taking off leaves it to be sent again after two minutes: a message comes at least once.
//!
//! It behaves as Prometheus' Alertmanager does with `group_wait`, `repeat_interval` and resolved notifications,
//! grouped by shop and reason, except that
//! - it is over when a sale was recorded since the last failure and nothing failed for `RESOLVE_AFTER`, not when
//!   nothing was heard for a while (`resolve_timeout`): a shop that sells nothing has not recovered;
//! - what recovers within the group wait is never told, but stays under watch: the next failure is told at once;
//! - there is no `group_interval`: more failures change the count in the reminder and are no news themselves;
//! - quiet hours hold back reminders only, and send them when they end; a muted interval there drops all;
//! - it wakes up once a minute, so whatever is due comes up to a minute later.
//!
//! "Recorded since" is told by the read model's running number of the shop's sales. It lags by some seconds,
//! so a sale recorded in the seconds before a failure may count as one recorded after it.

mod budget;
mod delivery;
mod gsm7;
mod ict;
mod incident;
mod manager;
mod runbook;
#[cfg(test)]
mod testing;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream;
use jiff::{SignedDuration, Timestamp};
use kassa_bus::message::{Reason, RejectedSale};
use kassa_bus::notify::Notifier;
use kassa_bus::registry::{Registry, Shop};
use kassa_bus::table::{Readable, TableError};
use kassa_bus::{
    Clock, Contract, Documents, Entry, Failure, Host, Message, Metric, Metrics, Retry, SettingError, ShopId,
    Subscriber, Subscription, Topic, Verdict,
};

pub use incident::{Addressee, Failures, Incident, News, Outgoing, Phase};
use incident::{Heard, Policy, Seen, Turn};

pub const ENTRY: Entry = Entry { name: "decrypt-error-alerter", make };

/// The group of documents `<shop>#<reason>`.
const INCIDENTS: &str = "incidents";

/// As many as are folded into a document in one transaction.
const BATCH: usize = 99;

/// Incidents attended to at once.
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
    };
    let alerter = Alerter {
        documents: host.documents(ENTRY.name)?,
        registry: host.registry()?,
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
        for (place, message) in batch.iter().enumerate() {
            verdicts.push(match message.read::<RejectedSale>() {
                Ok(sale) => {
                    incidents.entry((sale.shop_id.clone(), sale.reason)).or_default().push((place, sale));
                    Ok(())
                }
                Err(not_ours) => Err(Failure::Refuse(not_ours.to_string().into())),
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
        verdicts
    }

    async fn tick(&self) -> Result<(), Retry> {
        let incidents = incidents(&self.documents).await?.logged();
        let open = incidents.iter().filter(|incident| incident.is_open()).count();
        #[expect(
            clippy::cast_precision_loss,
            reason = "there are fewer incidents than a float counts exactly"
        )]
        self.metrics.observe(Metric::IncidentsOpen, &[], open as f64);
        let attended = stream::iter(incidents.into_iter().filter(|incident| !incident.is_settled()))
            .map(|incident| async move { self.attend(&incident.shop_id, incident.reason).await })
            .buffer_unordered(SIDE_BY_SIDE)
            .collect::<Vec<_>>();
        attended.await.into_iter().collect()
    }
}

impl Alerter {
    async fn hear(&self, shop: &ShopId, reason: Reason, sales: &[RejectedSale]) -> Result<(), TableError> {
        let recorded = self.registry.recorded(shop).await?;
        let (name, at) = (name(shop, reason), self.clock.now());
        let by_id: HashMap<String, &RejectedSale> = sales.iter().map(|sale| (sale.id(), sale)).collect();
        let ids: Vec<String> = sales.iter().map(Contract::id).collect();
        let turn = self.documents.fold(INCIDENTS, &name, &ids, |before, fresh| {
            let failures = fresh.iter().filter_map(|id| by_id.get(*id).copied()).collect();
            let heard = Heard { failures, at, recorded };
            match before {
                None => (Incident::new(shop.clone(), reason, heard), None),
                Some(mut incident) => {
                    let turn = incident.hear(heard);
                    (incident, turn)
                }
            }
        });
        self.count(turn.await?.flatten());
        Ok(())
    }

    /// Does what is due in an incident, and sends what is to be sent.
    async fn attend(&self, shop_id: &ShopId, reason: Reason) -> Result<(), Retry> {
        let shop = self.registry.shop(shop_id).await?;
        let recorded = self.registry.recorded(shop_id).await?;
        let (name, now) = (name(shop_id, reason), self.clock.now());
        let quiet = shop.as_ref().is_some_and(|shop| is_quiet(shop, now));
        let seen = Seen { recorded, registered: shop.is_some(), quiet };
        let due = self.documents.update(INCIDENTS, &name, |before: Option<Incident>| {
            let Some(before) = before else { return (None, (None, Vec::new())) };
            let mut incident = before.clone();
            let turn = incident.tick(now, seen, &self.policy);
            let claimed = incident.claim(now);
            ((incident != before).then_some(incident), (turn, claimed))
        });
        let (turn, claimed) = due.await?;
        self.count(turn);
        let mut outcome = Ok(());
        for outgoing in claimed {
            outcome = outcome.and(self.send(shop_id, reason, shop.as_deref(), &outgoing).await);
        }
        outcome
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
