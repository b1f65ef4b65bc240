//! The shop on one machine watching itself: each minute it keeps what was recorded, looks at its alarms, and tells
//! people what they say, as `CloudWatch` does for the one on AWS.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use kassa_bus::local::{LocalBus, STACK};
use kassa_bus::notify::{Notice, Notifier};
use kassa_bus::table::TableError;
use kassa_bus::{Clock, Documents, Metrics, Retry};
use tokio::sync::watch;

use super::alarms::Alarms;
use super::alert::alert;
use super::math::{Ask, answer};
use super::standing::Standings;
use super::store::MetricStore;
use super::{AlarmStatus, Line, Monitor, MonitorError, Query, State, history};

/// What it is made of.
pub struct Parts {
    /// Whatever is recorded is recorded here, and by nobody else taken.
    pub metrics: Metrics,
    /// Says how much waits in its queues.
    pub bus: Arc<LocalBus>,
    /// Placeholders filled in.
    pub alarms: Alarms,
    pub notifier: Arc<dyn Notifier>,
    /// Of its own: metrics over a restart, and the alarms' states.
    pub documents: Documents,
    pub clock: Clock,
}

/// The shop on one machine watching itself.
pub struct Collector {
    parts: Parts,
    store: MetricStore,
    opened: Timestamp,
    /// When metrics were last taken.
    taken: Mutex<Timestamp>,
    standings: Mutex<Standings>,
    /// A minute is looked at and written by one at a time, or an alarm would be told by each.
    looking: tokio::sync::Mutex<()>,
}

/// After so long, one whole minute of the clock is sure to be over.
const FIRST: SignedDuration = SignedDuration::from_mins(2);

/// The document of the alarms' states.
const ALARMS: (&str, &str) = ("alarms", "standings");

impl Collector {
    /// Takes up where an earlier process ended.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn open(parts: Parts) -> Result<Arc<Self>, TableError> {
        let now = parts.clock.now();
        let store = MetricStore::new(STACK);
        store.begins(now);
        history::resume(&parts.documents, &store, now).await?;
        let standings = match parts.documents.get(ALARMS.0, ALARMS.1).await {
            // The alarms begin anew, as they would in a new shop.
            Err(error) if error.is_unreadable() => {
                tracing::error!(%error, "nobody knows how the alarms stood");
                None
            }
            standings => standings?,
        };
        Ok(Arc::new(Self {
            parts,
            store,
            opened: now,
            taken: Mutex::new(now),
            standings: Mutex::new(standings.unwrap_or_default()),
            looking: tokio::sync::Mutex::default(),
        }))
    }

    /// Watches until `closing`, at the end of each minute by the clock.
    pub async fn run(self: Arc<Self>, minute: Duration, mut closing: watch::Receiver<bool>) {
        if let Err(error) = history::recall(&self.parts.documents, &self.store, self.parts.clock.now()).await
        {
            tracing::error!(%error, "cannot read the metrics of earlier days; dashboards begin now");
        }
        loop {
            let ended = closing.wait_for(|closing| *closing);
            if tokio::time::timeout(until_the_next(minute, self.parts.clock.now()), ended).await.is_ok() {
                return;
            }
            if let Err(why) = self.minute().await {
                tracing::error!(%why, "cannot watch this minute; the next looks again");
            }
        }
    }

    /// What is to be done at the end of a minute.
    ///
    /// # Errors
    /// [`Retry`]. What people were not told they are told the next time.
    pub async fn minute(&self) -> Result<(), Retry> {
        if let Err(why) = self.parts.bus.measure().await {
            tracing::warn!(%why, "cannot measure a queue");
        }
        let _looking = self.looking.lock().await;
        self.gather();
        self.watch().await?;
        self.write().await
    }

    /// Keeps what was recorded since it was last asked.
    pub fn gather(&self) {
        let taken = self.parts.metrics.take();
        let now = self.parts.clock.now();
        let last = std::mem::replace(&mut *lock(&self.taken), now);
        // At the end of a minute, what was recorded belongs to the minute that is over.
        let at = last + now.duration_since(last) / 2;
        self.store.record(at, &taken);
        self.store.prune(now);
    }

    /// Looks at the alarms, tells people, and then only takes it that they know.
    async fn watch(&self) -> Result<(), Retry> {
        let now = self.parts.clock.now();
        // Before a whole minute is known, it would look as if everything had stopped.
        if now < self.opened + FIRST {
            return Ok(());
        }
        let before = lock(&self.standings).clone();
        let mut standings = before.clone();
        for told in standings.step(&self.parts.alarms, now, &self.store) {
            // That an alarm that is new is OK is no news. (CloudWatch says so nevertheless.)
            if told.state == State::Alarm || told.over {
                self.parts.notifier.send(&Notice::Alert(alert(&told, STACK))).await?;
            }
        }
        if standings != before {
            let change = |_| (Some(standings.clone()), ());
            self.parts.documents.update(ALARMS.0, ALARMS.1, change).await?;
            *lock(&self.standings) = standings;
        }
        Ok(())
    }

    async fn write(&self) -> Result<(), Retry> {
        for begin in self.store.changed() {
            history::keep(&self.parts.documents, &self.store, begin).await?;
        }
        Ok(())
    }

    /// Keeps what the last minute had, and writes it.
    ///
    /// # Errors
    /// [`Retry`].
    pub async fn close(&self) -> Result<(), Retry> {
        let _looking = self.looking.lock().await;
        self.gather();
        self.write().await
    }

    /// What is known of the past.
    #[must_use]
    pub fn store(&self) -> &MetricStore {
        &self.store
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a minute still lasts.
fn until_the_next(minute: Duration, now: Timestamp) -> Duration {
    let length = i64::try_from(minute.as_millis()).unwrap_or(i64::MAX).max(1);
    let left = length - now.as_millisecond().rem_euclid(length);
    Duration::from_millis(u64::try_from(left).unwrap_or_default())
}

#[async_trait]
impl Monitor for Collector {
    fn stack(&self) -> &str {
        STACK
    }

    fn api(&self) -> &str {
        STACK
    }

    async fn data(
        &self,
        queries: &[Query],
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Line>, MonitorError> {
        // Also what this minute had so far.
        self.gather();
        answer(Ask { queries, from, to, rounded: true }, &self.store)
    }

    async fn alarms(&self) -> Result<Vec<AlarmStatus>, MonitorError> {
        Ok(lock(&self.standings).status(&self.parts.alarms, self.parts.clock.now()))
    }
}
