use std::sync::Arc;
use std::time::{Duration, Instant};

use kassa_bus::error::chain;
use kassa_subscribers::decrypt_error_alerter::Incident;
use tokio::sync::Mutex;

use super::Sight;
use crate::monitor::{AlarmStatus, State};
use crate::questions::QuestionError;
use crate::status::{Need, needs};

/// What every page says of alarms and incidents.
pub(super) struct Health {
    pub alarms: Result<Vec<AlarmStatus>, String>,
    /// None where the subscriber that keeps them is switched off.
    pub incidents: Result<Option<Vec<Incident>>, String>,
    /// The list of what needs attention.
    pub attention: Result<Vec<Need>, String>,
    /// Rows beside those of stock and turnover that cannot be read.
    pub unreadable: Vec<String>,
}

impl Health {
    async fn look(sight: &Sight) -> Self {
        let alarms = sight.monitor.alarms().await.map_err(|error| chain(&error));
        let mut unreadable =
            sight.questions.registered().await.map_or_else(|_| Vec::new(), |shops| shops.unreadable);
        unreadable.extend(sight.questions.unreadable_checkpoints().await.unwrap_or_default());
        let incidents = match sight.questions.incidents().await {
            Ok(incidents) => {
                unreadable.extend(incidents.unreadable);
                Ok(Some(incidents.rows))
            }
            Err(QuestionError::NoDocuments(_)) => Ok(None),
            Err(error) => Err(chain(&error)),
        };
        let attention = sight.questions.attention().await.map_err(|error| chain(&error));
        let attention = attention.map(|rejected| {
            let mut needs = needs(&rejected, None, sight.clock.now());
            for need in &mut needs {
                need.run.push_str(&sight.reach);
            }
            needs
        });
        Self { alarms, incidents, attention, unreadable }
    }

    /// Whether nothing is known to need attention.
    pub(super) fn is_attended(&self) -> bool {
        self.attention.as_ref().is_ok_and(Vec::is_empty)
    }

    /// The alarms that are on.
    pub(super) fn firing(&self) -> impl Iterator<Item = &AlarmStatus> {
        self.alarms.iter().flatten().filter(|alarm| alarm.state == State::Alarm)
    }

    /// The incidents that people were told of and that are not over.
    pub(super) fn open(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.iter().flatten().flatten().filter(|incident| incident.is_open())
    }
}

/// What was found not long ago, for however many browsers ask.
pub(super) struct Recently<T>(Mutex<Option<(Instant, Arc<T>)>>);

impl<T> Default for Recently<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Recently<T> {
    /// What was found within `fresh`, or what `look` finds now. Only one looks at a time.
    pub(super) async fn get(&self, fresh: Duration, look: impl Future<Output = T>) -> Arc<T> {
        let mut found = self.0.lock().await;
        if let Some((at, there)) = &*found
            && at.elapsed() < fresh
        {
            return Arc::clone(there);
        }
        let there = Arc::new(look.await);
        *found = Some((Instant::now(), Arc::clone(&there)));
        there
    }
}

/// What is looked for on behalf of every browser at once.
#[derive(Default)]
pub(super) struct Looks {
    health: Recently<Health>,
    pub shops: Recently<super::overview::Shops>,
    pub hops: Recently<super::hops::Found>,
}

/// News is shown this late at most.
pub(super) const FRESH: Duration = Duration::from_millis(300);

impl Looks {
    pub(super) async fn health(&self, sight: &Sight) -> Arc<Health> {
        self.health.get(FRESH, Health::look(sight)).await
    }
}
