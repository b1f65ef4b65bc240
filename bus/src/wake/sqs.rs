use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::MessageAttributeValue;

use super::{WAKE_UP, Wakes};
use crate::message::Message;
use crate::subscriber::Retry;

/// What SQS holds a message back for, at most
/// (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-delay-queues.html>).
const LONGEST: u64 = 900;

/// A function's own queue.
pub struct SqsWakes {
    client: Client,
    queue: String,
}

impl SqsWakes {
    #[must_use]
    pub fn new(client: Client, queue: impl Into<String>) -> Self {
        Self { client, queue: queue.into() }
    }
}

#[async_trait]
impl Wakes for SqsWakes {
    async fn wake(&self, about: &str, after: Duration) -> Result<(), Retry> {
        // Not before the time is over.
        let seconds = after.as_millis().div_ceil(1_000).min(LONGEST.into());
        let attribute = MessageAttributeValue::builder().data_type("String").string_value(about).build()?;
        let send = self
            .client
            .send_message()
            .queue_url(&self.queue)
            .delay_seconds(i32::try_from(seconds)?)
            .message_attributes(WAKE_UP, attribute)
            .message_body(Message::wake_up(about).body.as_str());
        send.send().await?;
        Ok(())
    }
}
