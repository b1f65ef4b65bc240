use async_trait::async_trait;

use crate::ids::ShopId;
use crate::message::{Message, Topic};

/// The topic did not take the message; it may later.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot publish to {topic}: {why}")]
pub struct PublishError {
    pub topic: &'static str,
    pub why: String,
}

/// The way out of a stage.
#[async_trait]
pub trait Publisher: Send + Sync {
    /// Publishes each message and answers for each, in their order.
    ///
    /// An adapter MUST answer `Ok` only once every subscription of the topic is sure to get that
    /// message at least once. It MAY deliver twice and in any order, and MUST NOT let one refused
    /// message fail its neighbours.
    async fn publish(&self, topic: Topic, messages: Vec<Message>) -> Vec<Result<(), PublishError>>;

    /// Whether the topic can take new sales of a shop, or whoever brings them should come back later. SNS always can.
    fn has_room(&self, _topic: Topic, _shop: &ShopId) -> bool {
        true
    }
}

/// Publishes one message.
///
/// # Errors
/// As [`Publisher::publish`].
pub async fn publish_one(
    publisher: &dyn Publisher,
    topic: Topic,
    message: Message,
) -> Result<(), PublishError> {
    publisher.publish(topic, vec![message]).await.pop().unwrap_or_else(|| {
        Err(PublishError { topic: topic.name(), why: "the publisher gave no answer".into() })
    })
}
