//! Real bootstraps over the Runtime API's stand-in, and the events that AWS documents.

use std::fs::File;
use std::process::{Child, Command};
use std::time::Duration;

use jiff::Timestamp;
use kassa::till::{Format, Prepared, Till};
use kassa_bus::message::{AcceptedSale, DecryptedSale, Envelope, Origin};
use kassa_bus::{Clock, Line, Message};
use kassa_pipeline::claim_check;
use kassa_pipeline::event::envelope_hash;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cloud::Cloud;
use super::runtime_api::RuntimeApi;

/// One function's environment, ended when it is dropped.
pub struct Function {
    pub api: RuntimeApi,
    process: Child,
    /// What it wrote.
    log: TempDir,
}

impl Function {
    pub async fn start(cloud: &Cloud, handler: &str, more: &[(&str, &str)]) -> Self {
        let api = RuntimeApi::start().await;
        let is_subscriber = kassa_subscribers::all().iter().any(|entry| entry.name == handler);
        let mut command =
            Command::new(cloud.bootstrap(if is_subscriber { "subscribers" } else { "pipeline" }));
        command
            .env_clear()
            .envs(api.env(handler))
            .envs(cloud.function_settings(handler))
            .envs(more.iter().copied());
        let log = tempfile::tempdir().unwrap();
        let file = |name: &str| File::create(log.path().join(name)).unwrap();
        let process = command.stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap();
        Self { api, process, log }
    }
}

impl Function {
    /// What its one thread has computed so far (<https://docs.kernel.org/scheduler/sched-stats.html>).
    #[allow(dead_code, reason = "what benchmarks measure")]
    pub fn cpu(&self) -> Duration {
        let schedstat = std::fs::read_to_string(format!("/proc/{}/schedstat", self.process.id())).unwrap();
        Duration::from_nanos(schedstat.split(' ').next().unwrap().parse().unwrap())
    }

    /// The lines it wrote so far.
    pub fn said(&self) -> Vec<String> {
        let read = |name: &str| std::fs::read_to_string(self.log.path().join(name)).unwrap();
        read("stdout").lines().chain(read("stderr").lines()).map(str::to_owned).collect()
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>
pub fn api_event(route: &str, body: &str, is_base64: bool) -> Value {
    let (method, path) = route.split_once(' ').unwrap();
    json!({
        "version": "2.0", "routeKey": route, "rawPath": path, "rawQueryString": "",
        "headers": {"accept": "*/*", "content-length": "5", "host": "id.execute-api.eu-west-1.amazonaws.com", "x-forwarded-for": "192.0.2.7"},
        "requestContext": {
            "accountId": "123456789012", "apiId": "id", "domainName": "id.execute-api.eu-west-1.amazonaws.com", "domainPrefix": "id",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.7", "userAgent": "agent"},
            "requestId": "id", "routeKey": route, "stage": "$default", "time": "22/Nov/2026:12:00:00 +0000", "timeEpoch": 1_795_348_800_000_u64
        },
        "pathParameters": {"shop_id": "AMIS1"},
        "body": body, "isBase64Encoded": is_base64
    })
}

/// <https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html>
pub fn sqs_event(records: &[(&str, &str)]) -> Value {
    let record = |(id, body): &(&str, &str)| {
        json!({
            "messageId": id, "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a", "body": body,
            "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": (Timestamp::now().as_millisecond() - 40).to_string(), "SenderId": "AIDAIENQZJOLO23YVJ4VO", "ApproximateFirstReceiveTimestamp": "1545082649185"},
            "messageAttributes": {"shop_id": {"stringValue": "AMIS1", "stringListValues": [], "binaryListValues": [], "dataType": "String"}},
            "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3", "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-2:123456789012:my-queue", "awsRegion": "us-east-2"
        })
    };
    json!({"Records": records.iter().map(record).collect::<Vec<_>>()})
}

/// <https://docs.aws.amazon.com/lambda/latest/dg/with-sns.html>
pub fn sns_event(message: &str) -> Value {
    json!({"Records": [{
        "EventVersion": "1.0", "EventSubscriptionArn": "arn:aws:sns:us-east-1:123456789012:sns-lambda:21be56ed-a058-49f5-8c98-aedd2564c486",
        "EventSource": "aws:sns",
        "Sns": {
            "SignatureVersion": "1", "Timestamp": "2019-01-02T12:45:07.000Z", "Signature": "tcc6faL2yUC6dgZdmrwh1Y4cGa/ebXEkAi6RibDsvpi+tE/1+82j",
            "SigningCertURL": "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-ac565b8b1a6c5d002d285f9598aa1d9b.pem",
            "MessageId": "95df01b4-ee98-5cb9-9903-4c221d41eb5e", "Message": message,
            "MessageAttributes": {"shop_id": {"Type": "String", "Value": "AMIS1"}},
            "Type": "Notification", "UnsubscribeURL": "https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe",
            "TopicArn": "arn:aws:sns:us-east-1:123456789012:sns-lambda", "Subject": "TestInvoke"
        }
    }]})
}

/// <https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-windows.html>
pub fn stream_event(shard: Option<&str>, records: &[(&str, &str, Value)]) -> Value {
    let record = |(sequence, name, image): &(&str, &str, Value)| {
        json!({
            "eventID": "1", "eventName": name, "eventVersion": "1.0", "eventSource": "aws:dynamodb", "awsRegion": "us-east-1",
            "dynamodb": {
                "ApproximateCreationDateTime": 1_795_348_800, "Keys": {"stream": image["stream"], "event": image["event"]},
                "NewImage": image, "SequenceNumber": sequence, "SizeBytes": 26, "StreamViewType": "NEW_IMAGE"
            },
            "eventSourceARN": "arn:aws:dynamodb:us-east-1:123456789012:table/events/stream/2026-11-22T00:00:00.000"
        })
    };
    let mut event = json!({
        "Records": records.iter().map(record).collect::<Vec<_>>(),
        "window": {"start": "2026-11-22T12:00:00Z", "end": "2026-11-22T12:15:00Z"}, "state": {"1": "state1"},
        "eventSourceARN": "arn:aws:dynamodb:us-east-1:123456789012:table/events/stream/2026-11-22T00:00:00.000",
        "isFinalInvokeForWindow": false, "isWindowTerminatedEarly": false
    });
    if let Some(shard) = shard {
        event["shardId"] = json!(shard);
    }
    event
}

/// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-rule-schedule.html>
pub fn scheduled_event() -> Value {
    json!({
        "version": "0", "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa", "detail-type": "Scheduled Event", "source": "aws.events",
        "account": "123456789012", "time": "2026-11-22T12:00:00Z", "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:123456789012:rule/my-scheduled-rule"], "detail": {}
    })
}

pub fn origin() -> Origin {
    Origin {
        source: "192.0.2.7".into(),
        accepted_at: Timestamp::now(),
        attempt: 1,
        opened_with: None,
        trace: None,
    }
}

pub fn line() -> Line {
    let number = |text: &str| text.parse().unwrap();
    Line { item_no: "98".parse().unwrap(), gross_number: number("1"), gross_turnover: number("18.95") }
}

pub async fn sealed(cloud: &Cloud) -> Prepared {
    sealed_with(cloud, "till-1", line()).await
}

pub async fn sealed_with(cloud: &Cloud, till: &str, line: Line) -> Prepared {
    let till =
        Till::new(&cloud.url, "AMIS1".parse().unwrap(), till, Format::Sealed, Clock::system()).unwrap();
    till.ring_up(vec![line]).await.unwrap()
}

/// The message that decrypt gets for a sale.
pub fn accepted(sale: &Prepared) -> String {
    let request: Value = serde_json::from_str(&sale.body).unwrap();
    let envelope = Envelope::Sealed { sealed: request["sealed"].as_str().unwrap().to_owned() };
    let sale = AcceptedSale {
        shop_id: "AMIS1".parse().unwrap(),
        sale_id: sale.sale_id.clone(),
        envelope,
        origin: origin(),
    };
    claim_check::message(&sale).body.to_string()
}

/// The message that process gets for a sale.
pub fn decrypted(sale: &Prepared) -> String {
    let envelope = envelope_hash(&Envelope::Sealed { sealed: "of the test".into() });
    let sale = DecryptedSale {
        shop_id: "AMIS1".parse().unwrap(),
        sale_id: sale.sale_id.clone(),
        lines: vec![line()],
        till: None,
        seq: None,
        sold_at: None,
        key: None,
        signed_by: None,
        envelope,
        origin: origin(),
    };
    Message::of(&sale).body.to_string()
}

pub fn recorded_image(n: u8) -> Value {
    let sale = format!("{n}-20261122");
    let body = r#"{"lines":[{"item_no":"91279","gross_number":"0.5","gross_turnover":"7.45"}],"totals":{"gross_number":"0.5","gross_turnover":"7.45"},"business_date":"2031-01-01","content":"c","envelope":"e"}"#;
    json!({
        "stream": {"S": "AMIS1#2026-11-22"}, "event": {"S": format!("{sale}#recorded")}, "kind": {"S": "recorded"}, "version": {"N": "2"},
        "at": {"S": "2026-11-22T12:00:00Z"}, "sale_id": {"S": sale}, "shop_id": {"S": "AMIS1"}, "body": {"S": body}
    })
}
