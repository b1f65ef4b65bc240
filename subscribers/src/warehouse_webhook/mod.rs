//! Sends every sale to the warehouse: signed batches by HTTPS POST, as often as it takes.
//!
//! A sale may come twice and in any order; the receiver tells a repeat by its shop and id. This is the one
//! place where sales leave in plaintext, and it is on only where `WAREHOUSE_URL` is set.

/// What people are told.
mod alert;
/// What the warehouse's answer means.
mod answer;
/// One delivery after the other, each as often as makes sense.
mod courier;
/// What goes in one delivery.
mod delivery;
/// One delivery over HTTP.
mod post;
/// The secrets that sign.
mod signing;
/// How it goes: the circuit, and what is shown of it.
mod state;
/// Where sales may go.
mod target;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use kassa_bus::message::DecryptedSale;
use kassa_bus::notify::{Notice, Notifier};
use kassa_bus::table::TableError;
use kassa_bus::{
    Clock, Documents, Entry, Failure, Host, Intake, Message, Metric, Retry, SettingError, Subscriber,
    Subscription, Topic, Verdict,
};

use self::courier::Courier;
use self::delivery::{Delivery, Parcel, pack};
use self::post::Post;
use self::signing::Signing;
use self::state::{Admission, End, Outcome, change, probe_interval};
pub use self::state::{Failing, News, Stopped, WebhookState, resume, status};
use self::target::Rules;

pub const ENTRY: Entry = Entry { name: "warehouse-webhook", make };

/// Attempts at a delivery while all is well: more in a row than a blip explains are an outage.
const ATTEMPTS: u32 = 3;

struct WarehouseWebhook {
    courier: Courier,
    documents: Documents,
    notifier: Arc<dyn Notifier>,
    clock: Clock,
    /// While it fails, from one probe to the next.
    probe_interval: SignedDuration,
    /// Sales delivered that the document does not count yet.
    uncounted: AtomicU64,
}

fn make(host: &dyn Host) -> Result<Option<Subscription>, SettingError> {
    let settings = host.settings();
    let Some(url) = settings.optional("WAREHOUSE_URL") else { return Ok(None) };
    let wrong = |what| SettingError::Wrong { name: "WAREHOUSE_URL", what };
    let rules = Rules {
        allow_http: settings.flag("WAREHOUSE_ALLOW_HTTP")?,
        allow_private: settings.flag("WAREHOUSE_ALLOW_PRIVATE")?,
    };
    let url = rules.target(url).map_err(wrong)?;
    let timeout = settings.duration("WAREHOUSE_TIMEOUT", Duration::from_secs(10))?;
    let schedule = settings.duration("SCHEDULE_INTERVAL", Duration::from_mins(1))?;
    let schedule = SignedDuration::try_from(schedule.min(Duration::from_hours(24))).unwrap_or_default();
    let post = Post::new(url, rules, timeout, Signing::new(host.secrets()?), host.clock())
        .map_err(|_| wrong("empty: there is no TLS on this machine"))?;
    let subscriber = Arc::new(WarehouseWebhook {
        courier: Courier { post, metrics: host.metrics() },
        documents: host.documents(ENTRY.name)?,
        notifier: host.notifier()?,
        clock: host.clock(),
        probe_interval: probe_interval(schedule),
        uncounted: AtomicU64::new(0),
    });
    let subscription = ENTRY.on(Topic::ToProcess, subscriber);
    Ok(Some(Subscription { batch: 100, intake: Intake::Drained, every_minute: true, ..subscription }))
}

/// Why what is left of a batch waits.
struct Pause {
    until: Option<Timestamp>,
    why: String,
}

#[async_trait]
impl Subscriber for WarehouseWebhook {
    async fn handle(&self, batch: &[Message]) -> Vec<Verdict> {
        if let Some(oldest) = batch.iter().filter_map(|message| message.sent).min() {
            let waited = self.clock.now().duration_since(oldest).as_secs_f64();
            self.courier.metrics.observe(Metric::WebhookAge, &[], waited.max(0.0));
        }
        let mut verdicts: Vec<Option<Verdict>> = batch.iter().map(|_| None).collect();
        let mut parcels = Vec::with_capacity(batch.len());
        for (place, message) in batch.iter().enumerate() {
            match message.read::<DecryptedSale>() {
                Ok(sale) => parcels.push(Parcel::of(place, sale)),
                Err(not_ours) => {
                    self.courier.metrics.count(Metric::WebhookRefused, 1);
                    verdicts[place] = Some(Err(Failure::Refuse(not_ours.to_string().into())));
                }
            }
        }
        if parcels.is_empty() {
            return verdicts.into_iter().flatten().collect();
        }
        // Nothing is known of the warehouse without the document, and it is no sale's fault.
        let unknown = |error: TableError| Pause { until: None, why: Retry::from(error).to_string() };
        let rest = self.take(pack(parcels), &mut verdicts).await.unwrap_or_else(unknown);
        let pause = || Err(Failure::Pause { until: rest.until, why: rest.why.clone() });
        verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(pause)).collect()
    }

    /// Writes down what was delivered since something was written last, for whoever looks.
    async fn tick(&self) -> Result<(), Retry> {
        let delivered = self.uncounted.swap(0, Ordering::Relaxed);
        if delivered == 0 {
            return Ok(());
        }
        let now = self.clock.now();
        let counted = change(&self.documents, |state| {
            state.delivered += delivered;
            state.last_delivered_at = Some(now);
        });
        if let Err(error) = counted.await {
            self.uncounted.fetch_add(delivered, Ordering::Relaxed);
            return Err(error.into());
        }
        Ok(())
    }
}

impl WarehouseWebhook {
    async fn take(
        &self,
        deliveries: VecDeque<Delivery>,
        verdicts: &mut [Option<Verdict>],
    ) -> Result<Pause, TableError> {
        let (url, began) = (self.courier.post.url().as_str(), self.clock.now());
        let next_probe = began + self.probe_interval;
        let (admission, state) = change(&self.documents, |state| state.admit(url, began, next_probe)).await?;
        let (state, rest) = match admission {
            Admission::Wait { until } => {
                let why = state.why();
                (state, Pause { until, why })
            }
            Admission::Open | Admission::Probe => {
                let attempts = if admission == Admission::Open { ATTEMPTS } else { 1 };
                let outcome = self.courier.bring(deliveries, attempts, verdicts).await;
                (self.note(&outcome, state, next_probe).await, self.rest(outcome))
            }
        };
        if state.untold.is_some()
            && let Err(error) = self.tell().await
        {
            tracing::warn!(%error, "people were not told how it goes with the warehouse; the next run tells them");
        }
        Ok(rest)
    }

    /// Writes down what came of a batch, unless it is what always comes of one.
    async fn note(&self, outcome: &Outcome, state: WebhookState, next_probe: Timestamp) -> WebhookState {
        let (url, now) = (self.courier.post.url().as_str(), self.clock.now());
        self.uncounted.fetch_add(outcome.delivered, Ordering::Relaxed);
        if !state.is_news(outcome, now) {
            return state;
        }
        let delivered = self.uncounted.swap(0, Ordering::Relaxed);
        match change(&self.documents, |state| state.note(outcome, delivered, url, next_probe, now)).await {
            Ok(((), state)) => state,
            // What was delivered is delivered all the same.
            Err(error) => {
                self.uncounted.fetch_add(delivered, Ordering::Relaxed);
                let error = Retry::from(error);
                tracing::warn!(%error, "how it goes with the warehouse was not written down");
                state
            }
        }
    }

    fn rest(&self, outcome: Outcome) -> Pause {
        match outcome.end {
            Some(End::Down(down)) => Pause { until: down.until, why: down.why },
            Some(End::Gone) => Pause { until: None, why: "status 410: stopped until resumed".into() },
            None => Pause { until: Some(self.clock.now()), why: "the warehouse is slow".into() },
        }
    }

    /// Whoever takes the news out of the document brings it, or puts it back.
    async fn tell(&self) -> Result<(), Retry> {
        let (Some(news), _) = change(&self.documents, |state| state.untold.take()).await? else {
            return Ok(());
        };
        let host = self.courier.post.url().host_str().unwrap_or_default();
        let told = self.notifier.send(&Notice::Alert(alert::alert(&news, host))).await;
        if told.is_ok() {
            self.courier.metrics.count(Metric::AlertsSent, 1);
        } else {
            let put_back = |state: &mut WebhookState| _ = state.untold.get_or_insert_with(|| news.clone());
            change(&self.documents, put_back).await?;
        }
        told
    }
}
