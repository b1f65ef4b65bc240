use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::ProvideErrorMetadata;
use aws_sdk_sqs::operation::get_queue_url::GetQueueUrlError;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, Message as Received, MessageSystemAttributeName,
    QueueAttributeName,
};
use jiff::Timestamp;
use kassa_bus::error::chain;
use kassa_bus::{Message, Retry};
use kassa_pipeline::decrypt::Decrypt;
use kassa_pipeline::process::Process;
use kassa_pipeline::project::Project;

use crate::dead_letters::{DeadLetterOffice, Given, Held, Letter};

/// The dead letters of a stage: an SQS queue beside each.
pub struct SqsOffice {
    client: Client,
    /// How the queues' names begin.
    stack: String,
}

/// Why dead letters on AWS cannot be dealt with.
#[derive(Debug, thiserror::Error)]
enum OfficeError {
    #[error("cannot {what} {queue}: {why}")]
    Sqs { what: &'static str, queue: String, why: String },
    #[error("moving the messages of {queue} back ended as {status}: {why}")]
    Move { queue: String, status: String, why: String },
    #[error("what project left is no message: `kassa rebuild` makes stock and turnover anew; then drop it")]
    NoMessages,
}

/// What one request gives, at most.
const ENTRIES: i32 = 10;

/// How long messages are out of sight while they are looked at, in seconds.
const LOOKED_AT: i32 = 60;

/// How often a move is asked how far it is.
const LOOK: Duration = Duration::from_secs(1);

/// What services answer that know no message move tasks.
const UNKNOWN: [&str; 4] = [
    "UnsupportedOperation",
    "AWS.SimpleQueueService.UnsupportedOperation",
    "InvalidAction",
    "UnknownOperationException",
];

impl SqsOffice {
    /// Of the stage with this stack.
    #[must_use]
    pub fn new(client: Client, stack: &str) -> Self {
        Self { client, stack: stack.to_owned() }
    }

    /// What the queue of a function's dead letters is called.
    fn name(&self, queue: &str) -> String {
        match queue {
            Project::NAME => format!("{}-project-failures", self.stack),
            _ => format!("{}-{queue}-dead-letters", self.stack),
        }
    }

    /// Where a queue is; nothing if there is none.
    async fn url(&self, name: &str) -> Result<Option<String>, Retry> {
        match self.client.get_queue_url().queue_name(name).send().await {
            Ok(found) => Ok(found.queue_url),
            Err(error) if error.as_service_error().is_some_and(GetQueueUrlError::is_queue_does_not_exist) => {
                Ok(None)
            }
            Err(error) => Err(failed("find", name)(error)),
        }
    }

    async fn there(&self, name: &str) -> Result<String, Retry> {
        let missing =
            || OfficeError::Sqs { what: "find", queue: name.to_owned(), why: "it is not there".into() };
        Ok(self.url(name).await?.ok_or_else(missing)?)
    }

    async fn attribute(&self, url: &str, wanted: QueueAttributeName) -> Result<Option<String>, Retry> {
        let get = self.client.get_queue_attributes().queue_url(url).attribute_names(wanted.clone());
        let got = get.send().await.map_err(failed("ask about", url))?;
        Ok(got.attributes.and_then(|mut attributes| attributes.remove(&wanted)))
    }

    async fn letters(&self, url: &str) -> Result<u64, Retry> {
        let count = self.attribute(url, QueueAttributeName::ApproximateNumberOfMessages).await?;
        Ok(count.and_then(|count| count.parse().ok()).unwrap_or_default())
    }

    async fn receive(&self, url: &str) -> Result<Vec<Received>, Retry> {
        let receive = self.client.receive_message().queue_url(url).max_number_of_messages(ENTRIES);
        let receive = receive.visibility_timeout(LOOKED_AT).wait_time_seconds(1);
        let receive = receive
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .message_attribute_names("All");
        Ok(receive.send().await.map_err(failed("read", url))?.messages.unwrap_or_default())
    }

    /// Lets others see them again.
    async fn show(&self, url: &str, received: &[Received]) -> Result<(), Retry> {
        for some in received.chunks(10) {
            let entry = |(n, received): (usize, &Received)| {
                ChangeMessageVisibilityBatchRequestEntry::builder()
                    .id(n.to_string())
                    .receipt_handle(received.receipt_handle.clone().unwrap_or_default())
                    .visibility_timeout(0)
                    .build()
            };
            let entries = some.iter().enumerate().map(entry).collect::<Result<_, _>>()?;
            let show = self.client.change_message_visibility_batch().queue_url(url);
            show.set_entries(Some(entries)).send().await.map_err(failed("put back what was read of", url))?;
        }
        Ok(())
    }

    /// SQS moves them itself
    /// (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_StartMessageMoveTask.html>). False if
    /// this service does not know how.
    async fn moved(
        &self,
        name: &str,
        arn: &str,
        of: u64,
        told: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<Option<u64>, Retry> {
        match self.client.start_message_move_task().source_arn(arn).send().await {
            Ok(_) => {}
            Err(error) if error.code().is_some_and(|code| UNKNOWN.contains(&code)) => return Ok(None),
            Err(error) => return Err(failed("move the messages of", name)(error)),
        }
        loop {
            let list = self.client.list_message_move_tasks().source_arn(arn).max_results(1);
            let list = list.send().await.map_err(failed("ask about the move of", name))?;
            let Some(task) = list.results().first() else { return Ok(Some(of)) };
            let so_far = u64::try_from(task.approximate_number_of_messages_moved()).unwrap_or_default();
            told(so_far, of.max(so_far));
            match task.status().unwrap_or_default() {
                "RUNNING" => tokio::time::sleep(LOOK).await,
                "COMPLETED" => return Ok(Some(so_far)),
                status => {
                    let why = task.failure_reason().unwrap_or("without saying why").to_owned();
                    return Err(OfficeError::Move { queue: name.into(), status: status.into(), why }.into());
                }
            }
        }
    }

    /// Sends each to its queue and then deletes it: a crash in between leaves two, which count once.
    async fn by_hand(
        &self,
        from: &str,
        to: &str,
        of: u64,
        told: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<u64, Retry> {
        let mut moved = 0;
        // What fails once more meanwhile comes back behind these.
        while moved < of {
            let received = self.receive(from).await?;
            if received.is_empty() {
                break;
            }
            for received in received {
                let send = self.client.send_message().queue_url(to);
                let send = send.message_body(received.body.unwrap_or_default());
                let attributes = received.message_attributes.map(|mut attributes| {
                    attributes.remove("why");
                    attributes
                });
                send.set_message_attributes(attributes).send().await.map_err(failed("send to", to))?;
                let delete = self.client.delete_message().queue_url(from);
                let delete = delete.set_receipt_handle(received.receipt_handle);
                delete.send().await.map_err(failed("delete from", from))?;
                moved += 1;
                told(moved, of.max(moved));
            }
        }
        Ok(moved)
    }
}

#[async_trait]
impl DeadLetterOffice for SqsOffice {
    async fn queues(&self) -> Result<Vec<Given>, Retry> {
        let plugged = kassa_subscribers::all().into_iter().map(|entry| entry.name);
        let mut queues = Vec::new();
        for queue in [Decrypt::NAME, Process::NAME, Project::NAME].into_iter().chain(plugged) {
            // One that is switched off has none.
            if let Some(url) = self.url(&self.name(queue)).await? {
                let letters = self.letters(&url).await?;
                queues.push(Given { queue: queue.to_owned(), letters, since: None });
            }
        }
        Ok(queues)
    }

    async fn read(&self, queue: &str, most: usize) -> Result<Vec<Held>, Retry> {
        let url = self.there(&self.name(queue)).await?;
        let mut all: Vec<Received> = Vec::new();
        while all.len() < most {
            let received = self.receive(&url).await?;
            if received.is_empty() {
                break;
            }
            all.extend(received);
        }
        self.show(&url, &all).await?;
        let mut letters: Vec<Held> = all.into_iter().take(most).map(held).collect();
        letters.sort_by_key(|held| held.letter.at);
        Ok(letters)
    }

    async fn redrive(&self, queue: &str, told: &(dyn Fn(u64, u64) + Sync)) -> Result<u64, Retry> {
        if queue == Project::NAME {
            return Err(OfficeError::NoMessages.into());
        }
        let name = self.name(queue);
        let from = self.there(&name).await?;
        let of = self.letters(&from).await?;
        let arn = self.attribute(&from, QueueAttributeName::QueueArn).await?.unwrap_or_default();
        if let Some(moved) = self.moved(&name, &arn, of, told).await? {
            return Ok(moved);
        }
        let to = self.there(&format!("{}-{queue}", self.stack)).await?;
        self.by_hand(&from, &to, of, told).await
    }

    async fn discard(&self, queue: &str, held: &Held) -> Result<(), Retry> {
        let url = self.there(&self.name(queue)).await?;
        let delete = self.client.delete_message().queue_url(&url).receipt_handle(&held.handle);
        delete.send().await.map_err(failed("delete from", &url))?;
        Ok(())
    }
}

fn failed<E: std::error::Error>(what: &'static str, queue: &str) -> impl Fn(E) -> Retry {
    let queue = queue.to_owned();
    move |error| OfficeError::Sqs { what, queue: queue.clone(), why: chain(&error) }.into()
}

fn held(from: Received) -> Held {
    let system = |name| from.attributes.as_ref().and_then(|of| of.get(&name)).and_then(|at| at.parse().ok());
    let sent = system(MessageSystemAttributeName::SentTimestamp);
    let at = sent.and_then(|at| Timestamp::from_millisecond(at).ok()).unwrap_or(Timestamp::UNIX_EPOCH);
    let receives = system(MessageSystemAttributeName::ApproximateReceiveCount).unwrap_or_default();
    let text = from.message_attributes.iter().flatten();
    let attributes: std::collections::HashMap<String, String> =
        text.filter_map(|(name, value)| Some((name.clone(), value.string_value.clone()?))).collect();
    let why = attributes.get("why").cloned();
    let id = from.message_id.unwrap_or_default();
    let body = from.body.unwrap_or_default().into();
    let message = Message { id: id.clone(), attributes, body, sent: None };
    let letter = Letter::of(&id, &message, at, u32::try_from(receives).unwrap_or(u32::MAX), why);
    Held { letter, message, handle: from.receipt_handle.unwrap_or_default() }
}
