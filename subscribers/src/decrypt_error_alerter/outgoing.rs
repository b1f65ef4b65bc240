//! What is to be sent to whom, and what became of it.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::incident::Failures;

/// How long one function may take to send something before another sends it again.
const LEASE: SignedDuration = SignedDuration::from_mins(2);

/// Something to tell somebody, with the failures as they were when it was news.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    pub news: News,
    pub to: Addressee,
    pub at: Timestamp,
    pub failures: Failures,
    /// Until then it is in the hands of whoever sends it, or waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_until: Option<Timestamp>,
    /// To ICT: what became of the text message of the same news.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texted: Option<Texted>,
}

impl Outgoing {
    /// Its name among all that an incident ever sends.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{} {:?} {:?}", self.at, self.news, self.to)
    }

    #[must_use]
    pub fn is_same_news(&self, other: &Self) -> bool {
        (self.at, self.news) == (other.at, other.news)
    }

    /// The first that waits for somebody, unless it is in somebody's hands.
    pub fn claim(outgoing: &mut [Self], to: Addressee, now: Timestamp) -> Option<Self> {
        let at = outgoing.iter().position(|outgoing| outgoing.to == to)?;
        let to_be_texted =
            outgoing.iter().any(|other| other.to == Addressee::Manager && other.is_same_news(&outgoing[at]));
        let first = &mut outgoing[at];
        if first.claimed_until.is_some_and(|until| now < until) {
            return None;
        }
        first.claimed_until = Some(now + LEASE);
        let texted = first.texted.or(to_be_texted.then_some(Texted::NotYet));
        Some(Self { texted, ..first.clone() })
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
    /// The manager first: ICT reads whether he was sent his.
    pub const ALL: [Self; 2] = [Self::Manager, Self::Ict];
}

/// What became of a text message to the manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "text", rename_all = "kebab-case")]
pub enum Texted {
    Sent {
        at: Timestamp,
    },
    NotRegistered,
    NoPhone,
    OverBudget,
    /// That one kind of trouble is over is no news to him while there is another.
    OthersOpen,
    /// Another was sent less than a minute ago.
    Waits {
        until: Timestamp,
    },
    /// It is tried again.
    NotYet,
}

impl Texted {
    /// Whether nothing more will come of it.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Waits { .. } | Self::NotYet)
    }
}
