use async_trait::async_trait;
use jiff::Timestamp;
use kassa_bus::{Message, Retry, SaleId, ShopId};
use serde::{Deserialize, Serialize};

/// A queue, and how many messages it gave up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    pub queue: String,
    /// At least so many, where they cannot be counted exactly.
    pub letters: u64,
    /// When the first of them was given up, or sent, whichever is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// A dead letter as people see it: never what is in it, which may be a sale in plaintext.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shop_id: Option<ShopId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sale_id: Option<SaleId>,
    pub at: Timestamp,
    pub receives: u32,
    /// What it failed at, where that is kept with it. On AWS it stands in the function's log, unless the function gave
    /// the message up itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    pub bytes: usize,
}

/// A dead letter in hand. Cannot be printed.
pub struct Held {
    pub letter: Letter,
    pub message: Message,
    /// By which it is put away.
    pub handle: String,
}

impl Letter {
    /// Of a message that was given up under this id.
    #[must_use]
    pub fn of(id: &str, message: &Message, at: Timestamp, receives: u32, why: Option<String>) -> Self {
        let attribute = |name: &str| message.attributes.get(name);
        Self {
            id: id.to_owned(),
            shop_id: attribute("shop_id").and_then(|id| id.parse().ok()),
            sale_id: attribute("sale_id").and_then(|id| id.parse().ok()),
            at,
            receives,
            why,
            bytes: message.body.len(),
        }
    }
}

/// Where dead letters are.
#[async_trait]
pub trait DeadLetterOffice: Send + Sync {
    /// Every queue that can have some, in the order a sale meets them.
    async fn queues(&self) -> Result<Vec<Given>, Retry>;

    /// So many of a queue at most, the oldest first where there is an order. They stay where they are.
    async fn read(&self, queue: &str, most: usize) -> Result<Vec<Held>, Retry>;

    /// Sends all of a queue's back into it, and says how many. What `told` hears is how many so far, of how many.
    async fn redrive(&self, queue: &str, told: &(dyn Fn(u64, u64) + Sync)) -> Result<u64, Retry>;

    /// Puts one away for good.
    async fn discard(&self, queue: &str, held: &Held) -> Result<(), Retry>;
}

/// Why a dead letter was dropped: a line or two, for whoever asks later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Why(String);

/// Bytes of a [`Why`], at most.
const LONGEST_WHY: usize = 500;

impl std::str::FromStr for Why {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.is_empty() || text.len() > LONGEST_WHY || text.chars().any(char::is_control) {
            return Err("say why in a line of up to 500 bytes: it is all that will be known");
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Why {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Why> for String {
    fn from(why: Why) -> Self {
        why.0
    }
}

impl Why {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_is_something_that_can_be_read_later() {
        assert_eq!(
            "  a till from a trade fair ".parse::<Why>().unwrap().as_str(),
            "a till from a trade fair"
        );
        for none in ["", "  ", "a\nb", &"x".repeat(501)] {
            assert!(none.parse::<Why>().is_err());
        }
    }
}
