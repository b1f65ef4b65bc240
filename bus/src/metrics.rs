use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::ids::ShopId;

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
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    totals: Box<[AtomicU64]>,
    by_shop: Mutex<BTreeMap<(ShopId, &'static str), u64>>,
}

/// Counters of single shops that are kept, at most: what is beyond is in the totals only. Each of them will be a
/// metric to pay for.
const BY_SHOP: usize = 1_000;

impl Default for Counters {
    fn default() -> Self {
        let totals = Metric::ALL.iter().map(|_| AtomicU64::new(0)).collect();
        Self { totals, by_shop: Mutex::default() }
    }
}

impl Metrics {
    pub fn count(&self, metric: Metric, n: u64) {
        self.0.totals[metric as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// Counts for one shop, and in all.
    pub fn count_of(&self, shop: &ShopId, metric: Metric, n: u64) {
        self.count(metric, n);
        let mut by_shop = self.0.by_shop.lock().unwrap_or_else(PoisonError::into_inner);
        let room = by_shop.len() < BY_SHOP;
        match by_shop.entry((shop.clone(), metric.name())) {
            Entry::Occupied(mut counted) => *counted.get_mut() += n,
            Entry::Vacant(first) if room => _ = first.insert(n),
            Entry::Vacant(_) => {}
        }
    }

    #[must_use]
    pub fn get(&self, metric: Metric) -> u64 {
        self.0.totals[metric as usize].load(Ordering::Relaxed)
    }

    /// What was counted for single shops: shop, metric's name, number.
    #[must_use]
    pub fn by_shop(&self) -> Vec<(ShopId, &'static str, u64)> {
        let by_shop = self.0.by_shop.lock().unwrap_or_else(PoisonError::into_inner);
        by_shop.iter().map(|((shop, metric), n)| (shop.clone(), *metric, *n)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_for_shops_is_bounded_and_the_totals_are_whole() {
        let metrics = Metrics::default();
        for n in 0..2 * BY_SHOP {
            metrics.count_of(&format!("S{n}").parse().unwrap(), Metric::WrongKeysKnown, 1);
            metrics.count_of(&"S0".parse().unwrap(), Metric::WrongKeysKnown, 2);
        }
        let by_shop = metrics.by_shop();
        assert_eq!(by_shop.len(), BY_SHOP);
        let of_s0 = by_shop.iter().find(|(shop, ..)| shop.as_str() == "S0").unwrap();
        assert_eq!((of_s0.1, of_s0.2), ("wrong_keys_known", 4 * BY_SHOP as u64 + 1));
        assert_eq!(metrics.get(Metric::WrongKeysKnown), 6 * BY_SHOP as u64);
    }
}
