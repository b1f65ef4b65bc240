use std::collections::HashMap;
use std::sync::Arc;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use jiff::SignedDuration;
use kassa_bus::attention::Attention;
use kassa_bus::error::chain;
use kassa_bus::registry::Registry;
use kassa_bus::sns::Sns;
use kassa_bus::{Clock, Documents, Publisher, Topic};
use kassa_pipeline::event_store::{Appends, EventStore};
use kassa_pipeline::read_model::ReadModel;

use super::{KmsKeyMaker, STREAM_LAG, SqsOffice, StageError, StageName, StreamChanges};
use crate::monitor::{CloudWatch, Monitor};
use crate::questions::Books;
use crate::rotation::RotateKeys;

/// A deployed stage: what its stack says it consists of.
pub struct Stage {
    stack: String,
    config: SdkConfig,
    outputs: HashMap<String, String>,
}

fn is_http(url: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| url.strip_prefix(scheme).is_some_and(|host| !host.is_empty()))
}

/// `bad-key-auditor` as templates name it: `BadKeyAuditor`.
fn capital(name: &str) -> String {
    let part = |part: &str| part[..1].to_ascii_uppercase() + &part[1..];
    name.split('-').filter(|p| !p.is_empty()).map(part).collect()
}

/// Parts in which a table on AWS is scanned side by side.
pub(super) const SEGMENTS: i32 = 4;

impl Stage {
    /// Finds the stage's stack, with the credentials and region of the environment or the profile.
    ///
    /// # Errors
    /// [`StageError`].
    pub async fn find(service: &str, stage: &StageName) -> Result<Self, StageError> {
        let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
        let config =
            aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http.build_https()).load().await;
        // The SDK would panic over an empty one.
        if let Some(url) = config.endpoint_url().filter(|url| !is_http(url)) {
            return Err(StageError::NotAnEndpoint(url.to_owned()));
        }
        let region = config.region().ok_or(StageError::NoRegion)?.to_string();
        let stack = format!("{service}-{stage}");
        let client = aws_sdk_cloudformation::Client::new(&config);
        let described = client.describe_stacks().stack_name(&stack).send().await.map_err(|error| {
            let of_service = error.as_service_error().and_then(|e| e.meta().code());
            // CloudFormation's word for a stack that is not there, among other things.
            if of_service == Some("ValidationError") {
                StageError::NotDeployed { stack: stack.clone(), stage: stage.to_string(), region }
            } else {
                StageError::Unreachable { stack: stack.clone(), why: chain(&error) }
            }
        })?;
        let outputs = described.stacks().iter().flat_map(aws_sdk_cloudformation::types::Stack::outputs);
        let pair = |o: &aws_sdk_cloudformation::types::Output| {
            Some((o.output_key()?.to_owned(), o.output_value()?.to_owned()))
        };
        let outputs = outputs.filter_map(pair).collect();
        Ok(Self { stack, config, outputs })
    }

    pub(super) fn output(&self, output: &'static str) -> Result<&str, StageError> {
        let value = self.outputs.get(output).map(String::as_str);
        value.ok_or_else(|| StageError::NoOutput { stack: self.stack.clone(), output })
    }

    /// How far the stream may be behind, which an emulator's is not.
    fn stream_lag(&self) -> SignedDuration {
        self.outputs.get("StreamLag").and_then(|lag| lag.parse().ok()).unwrap_or(STREAM_LAG)
    }

    /// Where tills post.
    ///
    /// # Errors
    /// [`StageError::NoOutput`].
    pub fn url(&self) -> Result<&str, StageError> {
        self.output("ShopUrl")
    }

    /// What `CloudWatch` knows of it.
    ///
    /// # Errors
    /// [`StageError::NoOutput`].
    pub fn monitor(&self) -> Result<Arc<dyn Monitor>, StageError> {
        let client = aws_sdk_cloudwatch::Client::new(&self.config);
        Ok(Arc::new(CloudWatch::new(client, &self.stack, self.output("HttpApiId")?)))
    }

    /// `<service>-<stage>`: the stack's name, and how all names begin.
    #[must_use]
    pub fn stack(&self) -> &str {
        &self.stack
    }

    /// The stack and where it is, as people call it.
    #[must_use]
    pub fn place(&self) -> String {
        let region = self.config.region().map_or(String::new(), |region| format!(", {region}"));
        format!("{}{region}", self.stack)
    }

    /// The shops' keys.
    ///
    /// # Errors
    /// [`StageError::NoOutput`].
    pub fn keys(&self) -> Result<Arc<dyn RotateKeys>, StageError> {
        let client = aws_sdk_kms::Client::new(&self.config);
        Ok(Arc::new(KmsKeyMaker::new(client, self.output("KeyPrefix")?, self.stack.clone())))
    }

    /// Where sales are sent on their way again.
    ///
    /// # Errors
    /// [`StageError::NoOutput`].
    pub fn to_decrypt(&self) -> Result<Arc<dyn Publisher>, StageError> {
        let topic = (Topic::ToDecrypt, self.output("ToDecryptTopic")?.to_owned());
        Ok(Arc::new(Sns::new(aws_sdk_sns::Client::new(&self.config), HashMap::from([topic]))))
    }

    /// Events, registry and read models.
    ///
    /// # Errors
    /// [`StageError`].
    pub async fn books(&self) -> Result<Books, StageError> {
        let (events, shops) = (self.output("EventsTable")?, self.output("ShopsTable")?);
        let described = self.dynamodb().describe_table().table_name(events).send().await;
        let described = described
            .map_err(|error| StageError::Unreachable { stack: self.stack.clone(), why: chain(&error) })?;
        let stream = described.table.and_then(|table| table.latest_stream_arn);
        let stream = stream.ok_or_else(|| StageError::NoStream(events.to_owned()))?;
        Ok(self.books_of(events, shops, stream))
    }

    pub(super) fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::new(&self.config)
    }

    /// Those in two tables, with the stream of the first: its own, or copies of them.
    pub(super) fn books_of(&self, events: &str, shops: &str, stream: String) -> Books {
        let dynamodb = self.dynamodb();
        // One that is switched off has no table.
        let documents = kassa_subscribers::all().into_iter().filter_map(|entry| {
            let table = self.outputs.get(&format!("{}Table", capital(entry.name)))?;
            Some((entry.name, Documents::new(dynamodb.clone(), table, Clock::system())))
        });
        let documents = documents.collect();
        let streams = aws_sdk_dynamodbstreams::Client::new(&self.config);
        Books {
            events: EventStore::new(dynamodb.clone(), events, Appends::Single),
            registry: Registry::new(dynamodb.clone(), shops),
            attention: Attention::new(dynamodb.clone(), shops),
            read_model: ReadModel::new(dynamodb, shops),
            changes: Arc::new(StreamChanges::new(streams, stream, self.stream_lag())),
            segments: SEGMENTS,
            documents,
            dead_letters: Arc::new(SqsOffice::new(aws_sdk_sqs::Client::new(&self.config), &self.stack)),
        }
    }
}
