use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! catalogue {
    ($($(#[doc = $meaning:literal])+ $variant:ident => $name:literal),+ $(,)?) => {
        /// Everything Kassa counts: the one catalogue.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Metric { $($(#[doc = $meaning])+ $variant),+ }

        impl Metric {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The metric's name wherever it is shown.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// What it counts, in one line.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($meaning),+).trim_ascii()),+ }
            }
        }
    };
}

catalogue! {
    /// Envelopes accepted for the first time.
    Accepted => "accepted",
    /// Requests refused: malformed, unknown shop, too large.
    Refused => "refused",
    /// Repeats that changed nothing, at any stage.
    Duplicates => "duplicates",
    /// Sales recorded.
    Recorded => "recorded",
    /// Sales rejected.
    Rejected => "rejected",
    /// Recorded lines of an item nobody declared.
    UnknownItems => "unknown_items",
    /// Sales whose own time is more than a day ahead or a year behind the clock.
    SuspiciousClocks => "suspicious_clocks",
    /// Content keys unwrapped with a shop's private key.
    KeyUnwraps => "key_unwraps",
    /// Content keys found in the cache.
    KeyCacheHits => "key_cache_hits",
    /// Messages delivered again after a failure.
    Redelivered => "redelivered",
    /// Messages that went to the dead letters.
    DeadLetters => "dead_letters",
    /// Events that no code here can read, left out of the read models.
    UnreadableEvents => "unreadable_events",
    /// Recorded sales that reached the read models.
    Projected => "projected",
    /// Messages sealed with a key that a shop here has or had, and not with theirs.
    WrongKeysKnown => "wrong_keys_known",
    /// Messages sealed with a key that nobody here has.
    WrongKeysUnknown => "wrong_keys_unknown",
    /// Messages whose wrong key could not be told.
    WrongKeysUntold => "wrong_keys_untold",
    /// Incidents of which people were told.
    IncidentsOpened => "incidents_opened",
    /// Incidents that are over.
    IncidentsClosed => "incidents_closed",
    /// Text messages sent.
    SmsSent => "sms_sent",
    /// Text messages not sent because the shop's were used up.
    SmsOverBudget => "sms_over_budget",
    /// Alerts published.
    AlertsSent => "alerts_sent",
    /// Sales the warehouse took.
    WebhookDelivered => "webhook_delivered",
    /// Deliveries the warehouse did not take, and may take later.
    WebhookFailed => "webhook_failed",
    /// Sales the warehouse refused.
    WebhookRefused => "webhook_refused",
}

/// Counters of one process, shared by whoever counts.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<[AtomicU64]>);

impl Default for Metrics {
    fn default() -> Self {
        Self(Metric::ALL.iter().map(|_| AtomicU64::new(0)).collect())
    }
}

impl Metrics {
    pub fn count(&self, metric: Metric, n: u64) {
        self.0[metric as usize].fetch_add(n, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self, metric: Metric) -> u64 {
        self.0[metric as usize].load(Ordering::Relaxed)
    }
}
