use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_sns::Client;
use aws_sdk_sns::types::{MessageAttributeValue, PublishBatchRequestEntry};
use futures::future::join_all;

use crate::error::chain;
use crate::limits::{MAX_MESSAGE, batches};
use crate::message::{Message, Topic};
use crate::publish::{PublishError, Publisher};
use crate::trace::Publishing;

/// The topics on SNS.
pub struct Sns {
    client: Client,
    topics: HashMap<Topic, String>,
}

/// Messages that one `PublishBatch` takes.
const ENTRIES: usize = 10;

impl Sns {
    /// `topics` are ARNs of those this function may publish to.
    #[must_use]
    pub fn new(client: Client, topics: HashMap<Topic, String>) -> Self {
        Self { client, topics }
    }

    async fn publish_batch(
        &self,
        topic: Topic,
        arn: &str,
        batch: &[Message],
    ) -> Vec<Result<(), PublishError>> {
        let refused = |why: String| PublishError { topic: topic.name(), why };
        let entries: Result<Vec<_>, _> =
            batch.iter().enumerate().map(|(n, message)| entry(n, message)).collect();
        let sent = match entries {
            Ok(entries) => {
                let request = self
                    .client
                    .publish_batch()
                    .topic_arn(arn)
                    .set_publish_batch_request_entries(Some(entries));
                request.send().await.map_err(|e| refused(chain(&e)))
            }
            Err(error) => Err(refused(chain(&error))),
        };
        match sent {
            Err(error) => batch.iter().map(|_| Err(error.clone())).collect(),
            Ok(answer) => {
                // Some may have been taken and others not, in any order.
                let taken =
                    |n: usize| answer.successful().iter().any(|entry| entry.id() == Some(&n.to_string()));
                let why = |n: usize| answer.failed().iter().find(|entry| entry.id() == n.to_string());
                let said = |n| why(n).map_or("SNS did not say why", |entry| entry.code()).to_owned();
                let verdict = |n| if taken(n) { Ok(()) } else { Err(refused(said(n))) };
                (0..batch.len()).map(verdict).collect()
            }
        }
    }
}

fn entry(n: usize, message: &Message) -> Result<PublishBatchRequestEntry, aws_sdk_sns::error::BuildError> {
    let mut entry = PublishBatchRequestEntry::builder().id(n.to_string()).message(message.body.as_str());
    for (name, value) in &message.attributes {
        let value = MessageAttributeValue::builder().data_type("String").string_value(value).build()?;
        entry = entry.message_attributes(name, value);
    }
    entry.build()
}

#[async_trait]
impl Publisher for Sns {
    async fn publish(&self, topic: Topic, mut messages: Vec<Message>) -> Vec<Result<(), PublishError>> {
        let Some(arn) = self.topics.get(&topic) else {
            let error =
                PublishError { topic: topic.name(), why: "this function was not given the topic".into() };
            return messages.iter().map(|_| Err(error.clone())).collect();
        };
        let publishing = Publishing::begin("aws_sns", topic, &mut messages);
        // One that is too large by itself goes alone, for SNS to refuse.
        let cut = batches(&messages, ENTRIES, MAX_MESSAGE, Message::size);
        let sent = cut.into_iter().map(|batch| self.publish_batch(topic, arn, batch));
        let answers = join_all(sent).await.concat();
        publishing.answered(&answers);
        answers
    }
}
