use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::Error;
use crate::message::Message;
use crate::subscriber::Verdict;
use crate::trace::{Parent, Xray};

/// What a function was invoked with.
///
/// A record that lacks something becomes a message that lacks it, for the subscriber to judge: one bad
/// record must not fail its batch.
#[derive(Debug)]
pub struct Invocation {
    messages: Vec<Message>,
    redelivered: u64,
    source: Source,
}

/// Each is answered in a way of its own.
#[derive(Debug)]
enum Source {
    /// SQS: each message that failed is named
    /// (<https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>).
    Queue,
    /// A `DynamoDB` stream: the first record that failed is named, and comes again with all after it
    /// (<https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html>). The
    /// state of a tumbling window is handed back as it came: the window is there to name the shard
    /// (<https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-windows.html>).
    Stream { state: Option<Value> },
    /// SNS without a queue: the invocation fails as a whole.
    Topic,
}

/// An event that is none of the three, or a stream's that names no shard.
#[derive(Debug, thiserror::Error)]
enum NotAnEvent {
    #[error("the event has no Records: this function takes batches of SQS, SNS or a DynamoDB stream")]
    NoRecords,
    #[error("the records are neither of SQS nor of SNS nor of a DynamoDB stream")]
    UnknownSource,
    #[error(
        "the event names no shard, and checkpoints are kept per shard: give the stream's mapping a \
         tumbling window (TumblingWindowInSeconds)"
    )]
    NoShard,
}

impl Invocation {
    /// # Errors
    /// If the event is of no known source, or a stream's batch names no shard.
    pub fn read(mut event: Value, only_shard: Option<&str>) -> Result<Self, Error> {
        let Some(Value::Array(records)) = event.get_mut("Records").map(Value::take) else {
            return Err(NotAnEvent::NoRecords.into());
        };
        let source = |record: &Value| text(&record["eventSource"]).or_else(|| text(&record["EventSource"]));
        let windowed = event.get("window").is_some();
        match records.first().and_then(source).as_deref() {
            Some("aws:sqs") => {
                let again = |record: &&Value| {
                    text(&record["attributes"]["ApproximateReceiveCount"])
                        .is_some_and(|receives| receives != "1")
                };
                let redelivered = records.iter().filter(again).count() as u64;
                let messages = records.into_iter().map(queued).collect();
                Ok(Self { messages, redelivered, source: Source::Queue })
            }
            Some("aws:sns") => {
                let messages = records.into_iter().map(notified).collect();
                Ok(Self { messages, redelivered: 0, source: Source::Topic })
            }
            Some("aws:dynamodb") => Self::of_stream(event, records, only_shard),
            // A window's end comes without records.
            None if windowed => Self::of_stream(event, records, only_shard),
            _ => Err(NotAnEvent::UnknownSource.into()),
        }
    }

    fn of_stream(mut event: Value, records: Vec<Value>, only_shard: Option<&str>) -> Result<Self, Error> {
        let shard =
            text(&event["shardId"]).or_else(|| only_shard.map(str::to_owned)).ok_or(NotAnEvent::NoShard)?;
        let messages = records.into_iter().filter_map(|record| inserted(record, &shard)).collect();
        // An answer without a state counts as failed, also at a window's end.
        let state = event.get("window").is_some().then(|| match event["state"].take() {
            Value::Null => json!({}),
            state => state,
        });
        Ok(Self { messages, redelivered: 0, source: Source::Stream { state } })
    }

    /// How many of the messages had been received before.
    #[must_use]
    pub fn redelivered(&self) -> u64 {
        self.redelivered
    }

    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The answer that has Lambda bring back what failed, and nothing else.
    ///
    /// # Errors
    /// If all of the batch must come again: of SNS if a message failed, of a stream if the first did.
    pub fn answer(&self, verdicts: &[Verdict]) -> Result<Value, Error> {
        let failed = self.messages.iter().zip(verdicts).enumerate();
        let mut failed =
            failed.filter_map(|(n, (message, verdict))| Some((n, message, verdict.as_ref().err()?)));
        let named = |message: &Message| json!({"itemIdentifier": message.id});
        match &self.source {
            Source::Queue => {
                let all: Vec<Value> = failed.map(|(_, message, _)| named(message)).collect();
                Ok(json!({"batchItemFailures": all}))
            }
            Source::Stream { state } => {
                let first = match failed.next() {
                    Some((0, _, why)) => return Err(why.to_string().into()),
                    Some((_, message, _)) => vec![named(message)],
                    None => Vec::new(),
                };
                let mut answer = Map::from_iter([("batchItemFailures".to_owned(), first.into())]);
                answer.extend(state.clone().map(|state| ("state".to_owned(), state)));
                Ok(answer.into())
            }
            Source::Topic => match failed.next() {
                None => Ok(Value::Null),
                Some((_, _, why)) => Err(why.to_string().into()),
            },
        }
    }
}

/// An SQS record; the queue has raw message delivery, so body and attributes are the published ones.
fn queued(mut record: Value) -> Message {
    let sent = text(&record["attributes"]["SentTimestamp"]).and_then(|millis| millis.parse().ok());
    let mut attributes = attributes(&record["messageAttributes"], "stringValue");
    // What X-Ray has SQS hand on, where nobody of ours did.
    if !attributes.contains_key("traceparent")
        && let Some(xray) = record["attributes"]["AWSTraceHeader"].as_str().and_then(Xray::read)
    {
        let context = Parent::Xray(xray).context();
        attributes.extend(context.map(|context| ("traceparent".to_owned(), context.to_string())));
    }
    Message {
        sent: sent.and_then(|millis| Timestamp::from_millisecond(millis).ok()),
        id: taken(&mut record["messageId"]),
        attributes,
        body: Zeroizing::new(taken(&mut record["body"])),
    }
}

fn notified(mut record: Value) -> Message {
    let sns = &mut record["Sns"];
    Message {
        sent: text(&sns["Timestamp"]).and_then(|at| at.parse().ok()),
        id: taken(&mut sns["MessageId"]),
        attributes: attributes(&sns["MessageAttributes"], "Value"),
        body: Zeroizing::new(taken(&mut sns["Message"])),
    }
}

/// A new row of the event store. Rows are never changed or deleted; if somebody does, it is no event.
fn inserted(mut record: Value, shard: &str) -> Option<Message> {
    let id = taken(&mut record["dynamodb"]["SequenceNumber"]);
    if text(&record["eventName"]).as_deref() != Some("INSERT") {
        tracing::error!(id, "a row of the event store was changed or deleted; kassa check tells what it was");
        return None;
    }
    let mut attributes: HashMap<String, String> = match record["dynamodb"]["NewImage"].take() {
        Value::Object(image) => {
            image.into_iter().filter_map(|(name, value)| Some((name, scalar(value)?))).collect()
        }
        _ => HashMap::new(),
    };
    let body = Zeroizing::new(attributes.remove("body").unwrap_or_default());
    attributes.insert("shard".to_owned(), shard.to_owned());
    Some(Message { id, attributes, body, sent: None })
}

/// A string or number attribute of `DynamoDB`'s JSON.
fn scalar(value: Value) -> Option<String> {
    match value {
        Value::Object(typed) => {
            typed.into_iter().find(|(kind, _)| kind == "S" || kind == "N").and_then(|(_, v)| text(&v))
        }
        _ => None,
    }
}

fn attributes(of: &Value, field: &str) -> HashMap<String, String> {
    let pairs = of.as_object().into_iter().flatten();
    pairs.filter_map(|(name, value)| Some((name.clone(), text(&value[field])?))).collect()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// The text, moved out; empty where there is none.
fn taken(value: &mut Value) -> String {
    match value.take() {
        Value::String(text) => text,
        _ => String::new(),
    }
}
