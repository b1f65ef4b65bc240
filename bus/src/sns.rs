use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_sns::Client;
use aws_sdk_sns::types::{MessageAttributeValue, PublishBatchRequestEntry};
use futures::future::join_all;

use crate::error::chain;
use crate::message::{Message, Topic};
use crate::publish::{PublishError, Publisher};
use crate::trace::Publishing;

/// The topics on SNS.
pub struct Sns {
    client: Client,
    topics: HashMap<Topic, String>,
}

/// What one `PublishBatch` takes: entries, and bytes of bodies and attributes
/// (<https://docs.aws.amazon.com/sns/latest/api/API_PublishBatch.html>).
const ENTRIES: usize = 10;
const BYTES: usize = 256 * 1024;

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

fn size(message: &Message) -> usize {
    let attributes: usize = message.attributes.iter().map(|(n, v)| n.len() + v.len() + "String".len()).sum();
    message.body.len() + attributes
}

/// Cuts messages into batches SNS takes. One too large on its own is sent alone, for SNS to refuse.
fn batches(messages: &[Message]) -> Vec<&[Message]> {
    let mut batches = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (n, message) in messages.iter().enumerate() {
        let more = size(message);
        if n > from && (n - from == ENTRIES || bytes + more > BYTES) {
            batches.push(&messages[from..n]);
            (from, bytes) = (n, 0);
        }
        bytes += more;
    }
    if from < messages.len() {
        batches.push(&messages[from..]);
    }
    batches
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
        let sent = batches(&messages).into_iter().map(|batch| self.publish_batch(topic, arn, batch));
        let answers = join_all(sent).await.concat();
        publishing.answered(&answers);
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn batches_keep_order_and_sns_limits(sizes in prop::collection::vec(1usize..140_000, 0..40)) {
            let message = |(n, size): (usize, &usize)| Message {
                id: n.to_string(), attributes: HashMap::new(), body: "x".repeat(*size).into(), sent: None,
            };
            let messages: Vec<Message> = sizes.iter().enumerate().map(message).collect();
            let cut = batches(&messages);
            for batch in &cut {
                prop_assert!(!batch.is_empty() && batch.len() <= ENTRIES);
                prop_assert!(batch.iter().map(size).sum::<usize>() <= BYTES);
            }
            let order: Vec<String> = cut.into_iter().flatten().map(|m| m.id.clone()).collect();
            prop_assert_eq!(order, messages.iter().map(|m| m.id.clone()).collect::<Vec<_>>());
        }
    }
}
