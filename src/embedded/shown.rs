use std::sync::Arc;

use async_trait::async_trait;
use kassa_bus::message::RejectedSale;
use kassa_bus::{Message, PublishError, Publisher, ShopId, Topic};

use crate::console::Feed;

/// A publisher whose rejections the console's feed shows. A rejection that is published is in the event store.
pub(super) struct Shown {
    pub inner: Arc<dyn Publisher>,
    pub feed: Arc<Feed>,
}

#[async_trait]
impl Publisher for Shown {
    async fn publish(&self, topic: Topic, messages: Vec<Message>) -> Vec<Result<(), PublishError>> {
        if topic == Topic::DecryptErrors {
            for sale in messages.iter().filter_map(|message| message.read::<RejectedSale>().ok()) {
                self.feed.rejected(&sale);
            }
        }
        self.inner.publish(topic, messages).await
    }

    fn has_room(&self, topic: Topic, shop: &ShopId) -> bool {
        self.inner.has_room(topic, shop)
    }
}
