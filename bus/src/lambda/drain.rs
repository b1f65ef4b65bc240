use std::str::FromStr;
use std::time::{Duration, Instant};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message as Received,
    MessageAttributeValue, MessageSystemAttributeName,
};
use futures::future::try_join_all;
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{Function, SYSTEM};
use crate::message::Message;
use crate::metrics::{Dimension, Metric};
use crate::settings::{SettingError, Settings};
use crate::subscriber::{Failure, Retry, Subscription, Verdict, dealt_with, traced};

/// The subscriber's queue, emptied by its own function.
pub(super) struct Drain {
    client: Client,
    queue: String,
    dead_letters: String,
    /// From one invocation to the next.
    interval: Duration,
}

/// What one invocation did.
#[derive(Debug, Default)]
pub(super) struct Drained {
    pub messages: usize,
    pub failed: usize,
    /// Whether it ended because whoever takes the messages is down.
    pub paused: bool,
}

/// What one SQS request takes or gives.
const ENTRIES: usize = 10;

/// Receives after which a message that the subscriber itself cannot take goes to the dead letters. SQS counts pauses
/// as well, so one that has waited through an outage has fewer tries left, though never none.
const MAX_RECEIVES: u32 = 5;

/// How often the function is called, unless its settings say otherwise: `rate(1 minute)` is the shortest there is, but
/// on an emulator.
const INTERVAL: Duration = Duration::from_mins(1);

/// How long one invocation goes on: to the next one, less a batch.
fn time_limit(interval: Duration) -> Duration {
    interval * 2 / 3
}

/// How many seconds a message is out of sight after its nth receive: it doubles from one interval to thirty, a minute
/// to half an hour, so that in the 14 days its queue keeps it, it is received fewer than the thousand times SQS counts
/// to.
fn out_of_sight(interval: Duration, receives: u32) -> i32 {
    let times = 2u32.pow(receives.saturating_sub(1).min(5)).min(30);
    i32::try_from((interval * times).as_secs().max(1)).unwrap_or(i32::MAX)
}

/// Bytes of messages in a batch, about: a function has 128 MB of memory, and each is held in several forms.
const ENOUGH: usize = 2 * 1024 * 1024;

/// How many more requests bring what a batch holds, when the first brought so many bytes.
fn further(most: usize, bytes: usize) -> usize {
    (ENOUGH / bytes.max(1)).min(most.div_ceil(ENTRIES).saturating_sub(1))
}

impl Drain {
    pub fn new(client: Client, settings: &Settings) -> Result<Self, SettingError> {
        let queue = settings.text("QUEUE_URL")?.to_owned();
        let dead_letters = settings.text("DEAD_LETTERS_URL")?.to_owned();
        let interval = settings.duration("SCHEDULE_INTERVAL", INTERVAL)?;
        Ok(Self { client, queue, dead_letters, interval })
    }

    /// Batch after batch until the queue is empty, the subscriber says pause, or time is up.
    pub async fn drain(&self, function: &Function, subscription: &Subscription) -> Result<Drained, Retry> {
        let Function { metrics, clock, tracer, .. } = function;
        let labels = &[(Dimension::Function, subscription.name)];
        let begun = Instant::now();
        let mut drained = Drained::default();
        while begun.elapsed() < time_limit(self.interval) && !drained.paused {
            let received = self.receive(subscription.batch).await?;
            if received.is_empty() {
                break;
            }
            let messages: Vec<Message> = received.iter().map(message).collect();
            let again = received.iter().filter(|received| receives(received) > 1).count();
            metrics.count_of(Metric::Redelivered, labels, again as u64);
            let verdicts = traced(tracer, SYSTEM, subscription, &messages, None).await;
            dealt_with(metrics, subscription.name, clock.now(), &messages, &verdicts);
            drained.messages += messages.len();
            drained.failed += verdicts.iter().filter(|verdict| verdict.is_err()).count();
            drained.paused = verdicts.iter().any(|verdict| matches!(verdict, Err(Failure::Pause { .. })));
            let buried = self.settle(&received, &messages, &verdicts).await?;
            metrics.count_of(Metric::DeadLetters, labels, buried);
        }
        Ok(drained)
    }

    /// As many as a batch holds, with ten to a request.
    async fn receive(&self, most: usize) -> Result<Vec<Received>, Retry> {
        let one = |_| async {
            let receive = self
                .client
                .receive_message()
                .queue_url(&self.queue)
                .max_number_of_messages(10)
                .message_attribute_names("All")
                .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
                .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp);
            receive.send().await.map(|received| received.messages.unwrap_or_default())
        };
        // Most minutes have less than one request brings.
        let mut received = one(0).await?;
        if received.len() == ENTRIES {
            let bytes = received.iter().map(|received| received.body().map_or(0, str::len)).sum();
            let more = try_join_all((0..further(most, bytes)).map(one)).await?;
            received.extend(more.into_iter().flatten());
        }
        Ok(received)
    }

    /// What is done with is deleted, what cannot be is buried, the rest comes again. Says how many were buried.
    async fn settle(
        &self,
        received: &[Received],
        messages: &[Message],
        verdicts: &[Verdict],
    ) -> Result<u64, Retry> {
        let mut buried = 0;
        let mut done = Vec::new();
        let mut again = Vec::new();
        for ((received, message), verdict) in received.iter().zip(messages).zip(verdicts) {
            match verdict {
                Ok(()) => done.push(received),
                Err(Failure::Pause { .. }) => again.push(received),
                Err(Failure::Retry(_)) if receives(received) < MAX_RECEIVES => again.push(received),
                Err(why @ (Failure::Retry(_) | Failure::Refuse(_))) => {
                    self.bury(message, &why.in_full()).await?;
                    buried += 1;
                    done.push(received);
                }
            }
        }
        self.delete(&done).await?;
        self.hide(&again).await?;
        Ok(buried)
    }

    async fn bury(&self, message: &Message, why: &str) -> Result<(), Retry> {
        let mut send =
            self.client.send_message().queue_url(&self.dead_letters).message_body(message.body.as_str());
        let why = [("why".to_owned(), sendable(why))];
        for (name, value) in message.attributes.clone().into_iter().chain(why).filter(|(_, v)| !v.is_empty())
        {
            let value = MessageAttributeValue::builder().data_type("String").string_value(value).build()?;
            send = send.message_attributes(name, value);
        }
        send.send().await?;
        Ok(())
    }

    async fn delete(&self, done: &[&Received]) -> Result<(), Retry> {
        for some in done.chunks(ENTRIES) {
            let entry = |(n, received): (usize, &&Received)| {
                let handle = received.receipt_handle.clone().unwrap_or_default();
                DeleteMessageBatchRequestEntry::builder().id(n.to_string()).receipt_handle(handle).build()
            };
            let entries = some.iter().enumerate().map(entry).collect::<Result<_, _>>()?;
            let delete = self.client.delete_message_batch().queue_url(&self.queue).set_entries(Some(entries));
            // One that was not deleted comes again, and its receiver knows it.
            delete.send().await?;
        }
        Ok(())
    }

    async fn hide(&self, again: &[&Received]) -> Result<(), Retry> {
        for some in again.chunks(ENTRIES) {
            let entry = |(n, received): (usize, &&Received)| {
                ChangeMessageVisibilityBatchRequestEntry::builder()
                    .id(n.to_string())
                    .receipt_handle(received.receipt_handle.clone().unwrap_or_default())
                    .visibility_timeout(out_of_sight(self.interval, receives(received)))
                    .build()
            };
            let entries = some.iter().enumerate().map(entry).collect::<Result<_, _>>()?;
            let hide = self
                .client
                .change_message_visibility_batch()
                .queue_url(&self.queue)
                .set_entries(Some(entries));
            hide.send().await?;
        }
        Ok(())
    }
}

/// What SQS takes as an attribute: no control characters, and not longer than anybody reads.
fn sendable(why: &str) -> String {
    let refused = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
    why.chars().take(1_000).map(|c| if refused(c) { ' ' } else { c }).collect()
}

fn receives(received: &Received) -> u32 {
    said(received, &MessageSystemAttributeName::ApproximateReceiveCount).unwrap_or(1)
}

fn said<T: FromStr>(received: &Received, attribute: &MessageSystemAttributeName) -> Option<T> {
    received.attributes.as_ref()?.get(attribute)?.parse().ok()
}

fn message(received: &Received) -> Message {
    let attributes = received.message_attributes.iter().flatten();
    let sent = said(received, &MessageSystemAttributeName::SentTimestamp);
    Message {
        sent: sent.and_then(|millis| Timestamp::from_millisecond(millis).ok()),
        id: received.message_id.clone().unwrap_or_default(),
        attributes: attributes
            .filter_map(|(name, value)| Some((name.clone(), value.string_value.clone()?)))
            .collect(),
        body: Zeroizing::new(received.body.clone().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_message_was_refused_can_be_sent_whatever_it_says() {
        assert_eq!(sendable("no\n\u{1b}[31m\u{ffff}é"), "no  [31m é");
        assert_eq!(sendable(&"x".repeat(2_000)).len(), 1_000);
    }

    #[test]
    fn a_batch_of_large_messages_is_smaller() {
        let small = further(100, ENTRIES * 2_000);
        let large = further(100, ENTRIES * crate::limits::MAX_MESSAGE);
        assert_eq!((small, large, further(10, 1), further(100, 0)), (9, 0, 0, 9));
        assert_eq!(further(100, ENTRIES * 64 * 1024), 3);
    }

    #[test]
    fn fourteen_days_of_receives_are_fewer_than_a_thousand() {
        let mut seconds = 0;
        let receives = (1..).take_while(|&n| {
            seconds += out_of_sight(INTERVAL, n);
            seconds < 14 * 24 * 60 * 60
        });
        assert!(receives.count() < 1000);
        let of = |interval| [1, 2, 3, 6, 100].map(|receives| out_of_sight(interval, receives));
        assert_eq!(of(INTERVAL), [60, 120, 240, 1800, 1800]);
        assert_eq!(of(Duration::from_millis(1_500)), [1, 3, 6, 45, 45]);
        assert_eq!(time_limit(INTERVAL), Duration::from_secs(40));
    }
}
