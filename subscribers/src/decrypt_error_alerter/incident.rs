//! What is decided of one shop's trouble of one kind, and when. Nothing here reads or writes: `Incident::hear` takes
//! failures in, `Incident::tick` does what is due.

use std::mem;

use jiff::{SignedDuration, Timestamp};
use kassa_bus::ShopId;
use kassa_bus::message::{Reason, RejectedSale};
use serde::{Deserialize, Serialize};

use super::outgoing::{Addressee, News, Outgoing, Texted};
use super::tills::Tills;

/// A shop whose sales are rejected for one reason, from the first failure until it is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    pub shop_id: ShopId,
    pub reason: Reason,
    pub phase: Phase,
    pub failures: Failures,
    /// When a failure was last heard of, by our own clock.
    pub heard_at: Timestamp,
    /// What is still to be sent, in order.
    pub outgoing: Vec<Outgoing>,
    /// For when somebody asked to be woken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wakes_at: Option<Timestamp>,
    /// What was rejected until then, people were told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_until: Option<Timestamp>,
    /// When the first failure was that was heard of since, until its group wait is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh_since: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It may be a hiccup.
    Pending {
        /// When the first failure was.
        since: Timestamp,
    },
    /// People were told, last at that time.
    Open { told_at: Timestamp },
    /// What was booked, or given up, within the group wait was a hiccup, and is over as well.
    #[serde(alias = "hiccup")]
    Over,
}

/// How long what lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// From the first failure until people are told: what is booked within it was a hiccup.
    pub group_wait: SignedDuration,
    /// Between reminders, at least.
    pub repeat_interval: SignedDuration,
    /// Without a failure, and with nothing left to be booked, until it is over.
    pub resolve_after: SignedDuration,
    /// From one text message to the next of the same shop, at least.
    pub pace: SignedDuration,
}

/// Who asks to be woken does so for what is due before the next minute.
const MINUTE: SignedDuration = SignedDuration::from_secs(60);

/// What could not be sent for so long is no news any more.
const STALE: SignedDuration = SignedDuration::from_hours(24);

/// Failures that were not counted before.
#[derive(Debug, Clone)]
pub struct Heard {
    pub failures: Failures,
    pub at: Timestamp,
}

/// How the shop is doing, as seen at a tick.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What needs attention of the incident's sales: those that are neither booked nor given up. None, if nothing does.
    pub left: Option<Left>,
    /// When that was asked. What was heard of since may have been missed.
    pub asked: Timestamp,
    /// Whether these are the shop's quiet hours.
    pub quiet: bool,
    /// Others of the shop are told now, and what is due within this time is told along.
    pub early: SignedDuration,
}

/// Sales that are still to be booked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    pub count: u64,
    pub since: Timestamp,
    pub tills: Tills,
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
        let phase = Phase::Pending { since: heard.since() };
        let Heard { failures, at } = heard;
        let (outgoing, wakes_at, told_until, fresh_since) = (Vec::new(), None, None, None);
        Self { shop_id, reason, phase, failures, heard_at: at, outgoing, wakes_at, told_until, fresh_since }
    }

    /// Takes in further failures. What was over begins anew.
    pub fn hear(&mut self, heard: Heard) {
        match &mut self.phase {
            Phase::Over => {
                let outgoing = mem::take(&mut self.outgoing);
                *self = Self { outgoing, ..Self::new(self.shop_id.clone(), self.reason, heard) };
                return;
            }
            Phase::Pending { since } => *since = heard.since().min(*since),
            Phase::Open { .. } => {
                self.fresh_since = self.fresh_since.into_iter().chain([heard.since()]).min();
            }
        }
        self.failures.add(heard.failures);
        self.heard_at = self.heard_at.max(heard.at);
    }

    /// Does what is due by time.
    pub fn tick(&mut self, now: Timestamp, seen: &Seen, policy: &Policy) -> Option<Turn> {
        self.outgoing.retain(|outgoing| now.duration_since(outgoing.at) < STALE);
        let all_seen = self.heard_at < seen.asked;
        let silent = now.duration_since(self.heard_at) >= policy.resolve_after && all_seen;
        match (self.phase, self.left(seen, silent)) {
            (Phase::Pending { .. }, Some(left)) if self.is_due(now + seen.early, policy) => {
                self.open(&left, now, seen);
                return Some(Turn::Opened);
            }
            (Phase::Pending { .. }, None) if self.is_due(now, policy) && all_seen => self.phase = Phase::Over,
            (Phase::Open { .. }, None) if silent => {
                self.phase = Phase::Over;
                self.tell(News::Over, &self.failures.clone(), now);
                return Some(Turn::Closed);
            }
            // Nothing that people were told of is left, and this they were not told of.
            (Phase::Open { told_at }, Some(left))
                if self.is_news(&left, told_at, now + seen.early, policy) =>
            {
                self.open(&left, now, seen);
            }
            (Phase::Open { told_at }, Some(left)) => {
                let due = now.duration_since(told_at) >= policy.repeat_interval;
                // Nobody is reminded of what he was not told yet.
                if due && !seen.quiet && self.outgoing.is_empty() {
                    self.phase = Phase::Open { told_at: now };
                    self.told(seen);
                    self.tell(News::StillOpen, &self.of(&left), now);
                }
            }
            _ => {}
        }
        if self.is_open() && self.is_due(now, policy) {
            self.fresh_since = None;
        }
        None
    }

    /// What of it is to be told. Of what is booked already, as a conflict's sale is, nothing ever needs attention: what there
    /// was is told, and is over when no more comes.
    fn left(&self, seen: &Seen, silent: bool) -> Option<Left> {
        if self.reason.needs_attention() {
            return seen.left.clone();
        }
        (!silent || matches!(self.phase, Phase::Pending { .. })).then(|| self.all())
    }

    /// All that was heard of.
    #[must_use]
    pub fn all(&self) -> Left {
        let Failures { count, first, tills, .. } = self.failures.clone();
        Left { count, since: first, tills }
    }

    fn of(&self, left: &Left) -> Failures {
        let Left { count, since, tills } = left.clone();
        Failures { count, first: since, tills, ..self.failures.clone() }
    }

    fn open(&mut self, left: &Left, now: Timestamp, seen: &Seen) {
        self.phase = Phase::Open { told_at: now };
        self.told(seen);
        self.tell(News::Opened, &self.of(left), now);
    }

    /// What is left of an open incident is news if it was all rejected after the last that was told of, a group wait ago.
    fn is_news(&self, left: &Left, told_at: Timestamp, now: Timestamp, policy: &Policy) -> bool {
        left.since > self.told_until.unwrap_or(told_at) && now.duration_since(left.since) >= policy.group_wait
    }

    fn told(&mut self, seen: &Seen) {
        (self.told_until, self.fresh_since) = (Some(seen.asked), None);
    }

    /// The manager hears of what needs attention only.
    fn tell(&mut self, news: News, failures: &Failures, at: Timestamp) {
        let tell =
            |to| Outgoing { news, to, at, failures: failures.clone(), claimed_until: None, texted: None };
        let texted = self.reason.needs_attention();
        let to = Addressee::ALL.into_iter().filter(|to| texted || *to == Addressee::Ict);
        self.outgoing.extend(to.map(tell));
    }

    /// Whether the group wait is over of what people were not told of.
    #[must_use]
    pub fn is_due(&self, now: Timestamp, policy: &Policy) -> bool {
        self.due(policy).is_some_and(|due| now >= due)
    }

    fn due(&self, policy: &Policy) -> Option<Timestamp> {
        let since = match self.phase {
            Phase::Pending { since } => since,
            Phase::Open { .. } => self.fresh_since?,
            Phase::Over => return None,
        };
        since.checked_add(policy.group_wait).ok()
    }

    /// In how long somebody must look at it, where that is before the next minute and nobody was asked to bring it about.
    /// The caller is to.
    #[must_use]
    pub fn wake(&mut self, now: Timestamp, policy: &Policy) -> Option<SignedDuration> {
        let due = self.due(policy)?;
        let wait = now.duration_until(due).max(SignedDuration::ZERO);
        if wait > MINUTE || self.wakes_at.is_some_and(|at| at >= due) {
            return None;
        }
        self.wakes_at = Some(due);
        Some(wait)
    }

    /// What the caller is to send now: the first that waits for each addressee, unless somebody else is sending it.
    #[must_use]
    pub fn claim(&mut self, now: Timestamp) -> Vec<Outgoing> {
        Addressee::ALL.into_iter().filter_map(|to| Outgoing::claim(&mut self.outgoing, to, now)).collect()
    }

    /// Writes down what became of the message to the manager. ICT's of the same news says so.
    pub fn texted(&mut self, message: &Outgoing, became: Texted, now: Timestamp) {
        if let Texted::Waits { until } = became {
            for waits in self.outgoing.iter_mut().filter(|outgoing| outgoing.id() == message.id()) {
                waits.claimed_until = Some(until);
            }
        }
        if became.is_final() {
            self.sent(message, now);
            for alert in self.outgoing.iter_mut().filter(|other| other.is_same_news(message)) {
                alert.texted = Some(became);
            }
        }
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

impl Heard {
    /// Ours is the later clock, unless it is wrong.
    fn since(&self) -> Timestamp {
        self.failures.first.min(self.at)
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
    #[serde(default, skip_serializing_if = "Tills::is_empty")]
    pub tills: Tills,
}

impl Failures {
    pub fn add(&mut self, other: Self) {
        self.count += other.count;
        self.first = self.first.min(other.first);
        if (self.last, &self.source) < (other.last, &other.source) {
            (self.last, self.source) = (other.last, other.source);
        }
        self.tills.add(other.tills);
    }
}

impl<'a> FromIterator<&'a RejectedSale> for Failures {
    fn from_iter<I: IntoIterator<Item = &'a RejectedSale>>(sales: I) -> Self {
        let none = Self {
            count: 0,
            first: Timestamp::MAX,
            last: Timestamp::MIN,
            source: String::new(),
            tills: Tills::default(),
        };
        sales.into_iter().fold(none, |mut sum, sale| {
            let (first, last) = (sale.rejected_at, sale.rejected_at);
            let tills = sale.till.clone().into_iter().collect();
            sum.add(Self { count: 1, first, last, source: sale.origin.source.to_string(), tills });
            sum
        })
    }
}

#[cfg(test)]
mod tests;
