use std::sync::Arc;

use async_trait::async_trait;
use kassa_bus::notify::{Notice, Notifier};
use kassa_bus::{Clock, Documents, Retry};
use uuid::Uuid;

use crate::console::Feed;
use crate::questions::Sent;

/// What would have gone to phones and mailboxes, kept where `kassa outbox` shows it.
pub(super) struct Outbox {
    pub documents: Documents,
    pub clock: Clock,
    pub feed: Arc<Feed>,
}

#[async_trait]
impl Notifier for Outbox {
    async fn send(&self, notice: &Notice) -> Result<(), Retry> {
        let at = self.clock.now();
        // Names are in the order of time, also within a moment.
        let name = format!("{at:.6}#{}", Uuid::now_v7());
        let sent = Sent { at, notice: notice.clone() };
        self.documents.update(Sent::GROUP, &name, |_| (Some(sent.clone()), ())).await?;
        self.feed.changed();
        Ok(())
    }
}
