use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use kassa_bus::local::{DeadLetter, DeadLetters};
use kassa_bus::{Clock, Retry};
use kassa_pipeline::table::{TableError, n, s};

/// Dead letters, in a table of the store.
pub(super) struct LocalDeadLetters {
    pub client: Client,
    pub table: String,
    pub clock: Clock,
}

#[async_trait]
impl DeadLetters for LocalDeadLetters {
    async fn keep(&self, letter: DeadLetter) -> Result<(), Retry> {
        let at = self.clock.now();
        let attributes = serde_json::to_string(&letter.message.attributes)?;
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .item("queue", s(letter.queue))
            .item("id", s(format!("{at}#{}", letter.message.id)))
            .item("at", s(at.to_string()))
            .item("receives", n(letter.receives))
            .item("why", s(letter.why))
            .item("attributes", s(attributes))
            .item("body", s(letter.message.body.as_str()));
        put.send().await.map_err(TableError::unavailable("keep a dead letter"))?;
        Ok(())
    }
}
