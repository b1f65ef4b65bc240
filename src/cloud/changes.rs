use async_trait::async_trait;
use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::error::SdkError;
use aws_sdk_dynamodbstreams::operation::get_shard_iterator::GetShardIteratorError;
use aws_sdk_dynamodbstreams::operation::get_shard_iterator::builders::GetShardIteratorFluentBuilder;
use aws_sdk_dynamodbstreams::types::{AttributeValue, Record, ShardIteratorType};
use jiff::SignedDuration;
use kassa_bus::table::TableError;
use kassa_pipeline::contained::Changes;
use kassa_pipeline::event::EventKey;
use kassa_pipeline::posting::Sequence;

/// The stream of a deployed events table, by its ARN.
pub struct StreamChanges {
    client: Client,
    stream: String,
    lag: SignedDuration,
}

/// From an event's own time to its record in the stream, on AWS: an append may be tried for eight seconds, clocks
/// differ a little, and a record comes within a second or so of its append.
pub const STREAM_LAG: SignedDuration = SignedDuration::from_secs(15);

/// Pages without records that are asked for before an open shard counts as read to its end.
const EMPTY_PAGES: u32 = 3;

impl StreamChanges {
    #[must_use]
    pub fn new(client: Client, stream: String, lag: SignedDuration) -> Self {
        Self { client, stream, lag }
    }

    fn iterator_of(&self, shard: &str) -> GetShardIteratorFluentBuilder {
        self.client.get_shard_iterator().stream_arn(&self.stream).shard_id(shard)
    }

    async fn iterator(&self, shard: &str, from: Option<&Sequence>) -> Result<Option<String>, TableError> {
        let request = self.iterator_of(shard);
        let from_start = || request.clone().shard_iterator_type(ShardIteratorType::TrimHorizon).send();
        let answer = match from {
            None => from_start().await,
            Some(Sequence(sequence)) => {
                let after = request.clone().shard_iterator_type(ShardIteratorType::AfterSequenceNumber);
                match after.sequence_number(sequence).send().await {
                    // A day has passed since, so whatever is left comes after it.
                    Err(error) if is_trimmed(&error) => from_start().await,
                    answer => answer,
                }
            }
        };
        Ok(answer.map_err(TableError::unavailable("find a place in the stream"))?.shard_iterator)
    }
}

fn is_trimmed(error: &SdkError<GetShardIteratorError>) -> bool {
    error.as_service_error().is_some_and(GetShardIteratorError::is_trimmed_data_access_exception)
}

fn key(record: &Record) -> Option<EventKey> {
    let keys = record.dynamodb()?.keys()?;
    let text = |name: &str| keys.get(name).and_then(|value: &AttributeValue| value.as_s().ok()).cloned();
    Some(EventKey { stream: text("stream")?, event: text("event")? })
}

#[async_trait]
impl Changes for StreamChanges {
    async fn shards(&self) -> Result<Vec<String>, TableError> {
        let mut shards = Vec::new();
        let mut after = None;
        loop {
            let request = self.client.describe_stream().stream_arn(&self.stream);
            let answer = request.set_exclusive_start_shard_id(after).send().await;
            let described =
                answer.map_err(TableError::unavailable("describe the stream"))?.stream_description;
            let Some(described) = described else { return Ok(shards) };
            shards.extend(described.shards().iter().filter_map(|shard| shard.shard_id().map(str::to_owned)));
            after = described.last_evaluated_shard_id;
            if after.is_none() {
                return Ok(shards);
            }
        }
    }

    async fn after(
        &self,
        shard: &str,
        from: Option<&Sequence>,
    ) -> Result<(Vec<EventKey>, Option<Sequence>), TableError> {
        let mut iterator = self.iterator(shard, from).await?;
        for _ in 0..EMPTY_PAGES {
            // A closed shard has no iterator after its last record.
            let Some(at) = iterator else { break };
            let page = self.client.get_records().shard_iterator(at).send().await;
            let page = page.map_err(TableError::unavailable("read the stream"))?;
            let last = page.records().last().and_then(|r| r.dynamodb()?.sequence_number());
            if let Some(last) = last {
                let upto = Sequence(last.to_owned());
                return Ok((page.records().iter().filter_map(key).collect(), Some(upto)));
            }
            iterator = page.next_shard_iterator;
        }
        Ok((Vec::new(), None))
    }

    async fn at(&self, shard: &str, place: &Sequence) -> Result<Option<EventKey>, TableError> {
        let at = self.iterator_of(shard).shard_iterator_type(ShardIteratorType::AtSequenceNumber);
        let iterator = match at.sequence_number(&place.0).send().await {
            Err(error) if is_trimmed(&error) => return Ok(None),
            answer => answer.map_err(TableError::unavailable("find a place in the stream"))?.shard_iterator,
        };
        let page = self.client.get_records().set_shard_iterator(iterator).limit(1).send().await;
        let page = page.map_err(TableError::unavailable("read the stream"))?;
        let is = |record: &&Record| record.dynamodb().and_then(|r| r.sequence_number()) == Some(&place.0);
        Ok(page.records().first().filter(is).and_then(key))
    }

    fn lag(&self) -> SignedDuration {
        self.lag
    }
}
