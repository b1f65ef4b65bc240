use std::mem;

use jiff::{SignedDuration, Timestamp};
use kassa_bus::ShopId;
use kassa_bus::message::{Reason, RejectedSale};
use serde::{Deserialize, Serialize};

/// A shop whose sales are rejected for one reason, from the first failure until it is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    pub shop_id: ShopId,
    pub reason: Reason,
    pub phase: Phase,
    pub failures: Failures,
    /// When a failure was last heard of. All waiting goes by our own clock; the times that failures carry
    /// are for people.
    pub heard_at: Timestamp,
    /// How many sales the shop had recorded by then: once it has more, it has recovered.
    pub recorded: u64,
    /// What is still to be sent, in order.
    pub outgoing: Vec<Outgoing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It may be a hiccup.
    Pending {
        since: Timestamp,
    },
    /// It recovered within the group wait. One more failure opens it at once.
    Hiccup,
    /// People were told, last at that time.
    Open {
        told_at: Timestamp,
    },
    Over,
}

/// How long what lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// From the first failure until people are told: what recovers within it was a hiccup.
    pub group_wait: SignedDuration,
    /// Between reminders, at least.
    pub repeat_interval: SignedDuration,
    /// Without a failure, and with a sale recorded since, until it is over.
    pub resolve_after: SignedDuration,
}

/// How long one function may take to send something before another sends it again.
const LEASE: SignedDuration = SignedDuration::from_mins(2);

/// What could not be sent for so long is no news any more.
const STALE: SignedDuration = SignedDuration::from_hours(24);

/// Failures that were not counted before.
#[derive(Debug, Clone)]
pub struct Heard {
    pub failures: Failures,
    pub at: Timestamp,
    /// How many sales the shop has recorded so far.
    pub recorded: u64,
}

/// How the shop is doing, as seen at a tick.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub recorded: u64,
    pub registered: bool,
    /// Whether these are the shop's quiet hours.
    pub quiet: bool,
}

/// A change of phase that people hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Opened,
    Closed,
}

impl Incident {
    #[must_use]
    pub fn new(shop_id: ShopId, reason: Reason, heard: Heard) -> Self {
        let Heard { failures, at, recorded } = heard;
        let (phase, outgoing) = (Phase::Pending { since: at }, Vec::new());
        Self { shop_id, reason, phase, failures, heard_at: at, recorded, outgoing }
    }

    /// Takes in further failures.
    pub fn hear(&mut self, heard: Heard) -> Option<Turn> {
        if self.phase == Phase::Over {
            let outgoing = mem::take(&mut self.outgoing);
            *self = Self { outgoing, ..Self::new(self.shop_id.clone(), self.reason, heard) };
            return None;
        }
        self.failures.add(heard.failures);
        self.heard_at = self.heard_at.max(heard.at);
        self.recorded = self.recorded.max(heard.recorded);
        (self.phase == Phase::Hiccup).then(|| self.open(heard.at))
    }

    /// Does what is due by time.
    pub fn tick(&mut self, now: Timestamp, seen: Seen, policy: &Policy) -> Option<Turn> {
        self.outgoing.retain(|outgoing| now.duration_since(outgoing.at) < STALE);
        let recovered = seen.recorded > self.recorded;
        let silent = now.duration_since(self.heard_at) >= policy.resolve_after;
        match self.phase {
            Phase::Pending { since } if now.duration_since(since) >= policy.group_wait => {
                if !recovered {
                    return Some(self.open(now));
                }
                self.phase = Phase::Hiccup;
            }
            Phase::Hiccup if silent => self.phase = Phase::Over,
            // A shop that is no longer registered records nothing any more.
            Phase::Open { .. } if silent && (recovered || !seen.registered) => {
                self.phase = Phase::Over;
                self.tell(News::Over, now);
                return Some(Turn::Closed);
            }
            Phase::Open { told_at } => {
                let due = now.duration_since(told_at) >= policy.repeat_interval;
                // Nobody is reminded of what he was not told yet.
                if due && !seen.quiet && self.outgoing.is_empty() {
                    self.phase = Phase::Open { told_at: now };
                    self.tell(News::StillOpen, now);
                }
            }
            Phase::Pending { .. } | Phase::Hiccup | Phase::Over => {}
        }
        None
    }

    fn open(&mut self, now: Timestamp) -> Turn {
        self.phase = Phase::Open { told_at: now };
        self.tell(News::Opened, now);
        Turn::Opened
    }

    fn tell(&mut self, news: News, at: Timestamp) {
        self.outgoing.extend(Addressee::ALL.map(|to| Outgoing {
            news,
            to,
            at,
            failures: self.failures.clone(),
            claimed_until: None,
        }));
    }

    /// What the caller is to send now: the first that waits for each addressee, unless somebody else is
    /// sending it.
    #[must_use]
    pub fn claim(&mut self, now: Timestamp) -> Vec<Outgoing> {
        let claim = |to| {
            let first = self.outgoing.iter_mut().find(|outgoing| outgoing.to == to)?;
            if first.claimed_until.is_some_and(|until| now < until) {
                return None;
            }
            first.claimed_until = Some(now + LEASE);
            Some(first.clone())
        };
        Addressee::ALL.into_iter().filter_map(claim).collect()
    }

    /// Takes off the list what was sent now.
    pub fn sent(&mut self, sent: &Outgoing, now: Timestamp) {
        self.outgoing.retain(|outgoing| outgoing.id() != sent.id());
        if let Phase::Open { told_at } = &mut self.phase {
            *told_at = now.max(*told_at);
        }
    }

    /// Whether people were told, and not yet that it is over.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// Whether there is nothing to do until the next failure.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.phase == Phase::Over && self.outgoing.is_empty()
    }
}

/// Failures summed up: the same sum in whatever order they are added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    pub count: u64,
    pub first: Timestamp,
    pub last: Timestamp,
    /// Where the last came from.
    pub source: String,
}

impl Failures {
    pub fn add(&mut self, other: Self) {
        self.count += other.count;
        self.first = self.first.min(other.first);
        if (self.last, &self.source) < (other.last, &other.source) {
            (self.last, self.source) = (other.last, other.source);
        }
    }
}

impl<'a> FromIterator<&'a RejectedSale> for Failures {
    fn from_iter<I: IntoIterator<Item = &'a RejectedSale>>(sales: I) -> Self {
        let none = Self { count: 0, first: Timestamp::MAX, last: Timestamp::MIN, source: String::new() };
        sales.into_iter().fold(none, |mut sum, sale| {
            let (first, last) = (sale.rejected_at, sale.rejected_at);
            sum.add(Self { count: 1, first, last, source: sale.origin.source.to_string() });
            sum
        })
    }
}

/// Something to tell somebody, with the failures as they were when it was news.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    pub news: News,
    pub to: Addressee,
    pub at: Timestamp,
    pub failures: Failures,
    /// Until then it is in the hands of whoever sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_until: Option<Timestamp>,
}

impl Outgoing {
    /// Its name among all that an incident ever sends.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{} {:?} {:?}", self.at, self.news, self.to)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum News {
    Opened,
    StillOpen,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Addressee {
    /// By text message.
    Manager,
    /// By whatever subscribes to the alerts.
    Ict,
}

impl Addressee {
    const ALL: [Self; 2] = [Self::Manager, Self::Ict];
}

#[cfg(test)]
mod tests;
