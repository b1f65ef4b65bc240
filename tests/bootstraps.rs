//! The real bootstraps over a stand-in of Lambda's Runtime API: events as AWS documents them in, answers out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "common/cloud.rs"]
mod cloud;
#[path = "common/runtime_api.rs"]
mod runtime_api;

use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cloud::Cloud;
use jiff::Timestamp;
use kassa::till::{Format, Prepared, Till};
use kassa_bus::message::{AcceptedSale, DecryptedSale, Envelope, Origin};
use kassa_bus::{Clock, Line, Message};
use kassa_pipeline::event::envelope_hash;
use runtime_api::RuntimeApi;
use serde_json::{Value, json};

/// One function's environment, ended when it is dropped.
struct Function {
    api: RuntimeApi,
    process: Child,
}

impl Function {
    async fn start(cloud: &Cloud, handler: &str, more: &[(&str, &str)]) -> Self {
        let api = RuntimeApi::start().await;
        let mut command = Command::new(cloud.bootstrap("pipeline"));
        command
            .env_clear()
            .envs(api.env(handler))
            .envs(cloud.function_settings(handler))
            .envs(more.iter().copied());
        Self { api, process: command.stdout(Stdio::null()).spawn().unwrap() }
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>
fn api_event(route: &str, body: &str, is_base64: bool) -> Value {
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
fn sqs_event(records: &[(&str, &str)]) -> Value {
    let record = |(id, body): &(&str, &str)| {
        json!({
            "messageId": id, "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a", "body": body,
            "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1545082649183", "SenderId": "AIDAIENQZJOLO23YVJ4VO", "ApproximateFirstReceiveTimestamp": "1545082649185"},
            "messageAttributes": {"shop_id": {"stringValue": "AMIS1", "stringListValues": [], "binaryListValues": [], "dataType": "String"}},
            "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3", "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-2:123456789012:my-queue", "awsRegion": "us-east-2"
        })
    };
    json!({"Records": records.iter().map(record).collect::<Vec<_>>()})
}

/// <https://docs.aws.amazon.com/lambda/latest/dg/with-sns.html>
fn sns_event(message: &str) -> Value {
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
fn stream_event(shard: Option<&str>, records: &[(&str, &str, Value)]) -> Value {
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

fn failures(ids: &[&str]) -> Value {
    json!({"batchItemFailures": ids.iter().map(|id| json!({"itemIdentifier": id})).collect::<Vec<_>>()})
}

fn origin() -> Origin {
    Origin { source: "192.0.2.7".into(), accepted_at: Timestamp::now(), attempt: 1, trace: None }
}

fn line() -> Line {
    let number = |text: &str| text.parse().unwrap();
    Line { item_no: "98".parse().unwrap(), gross_number: number("1"), gross_turnover: number("18.95") }
}

async fn sealed(cloud: &Cloud) -> Prepared {
    let till =
        Till::new(&cloud.url, "AMIS1".parse().unwrap(), "till-1", Format::Sealed, Clock::system()).unwrap();
    till.ring_up(&[line()]).await.unwrap()
}

/// The message that decrypt gets for a sale.
fn accepted(sale: &Prepared) -> String {
    let request: Value = serde_json::from_str(&sale.body).unwrap();
    let envelope = Envelope::Sealed { sealed: request["sealed"].as_str().unwrap().to_owned() };
    let sale = AcceptedSale {
        shop_id: "AMIS1".parse().unwrap(),
        sale_id: sale.sale_id.clone(),
        envelope,
        origin: origin(),
    };
    Message::of(&sale).body.to_string()
}

/// The message that process gets for a sale.
fn decrypted(sale: &Prepared) -> String {
    let envelope = envelope_hash(&Envelope::Sealed { sealed: "of the test".into() });
    let sale = DecryptedSale {
        shop_id: "AMIS1".parse().unwrap(),
        sale_id: sale.sale_id.clone(),
        lines: vec![line()],
        till: None,
        seq: None,
        sold_at: None,
        key: None,
        envelope,
        origin: origin(),
    };
    Message::of(&sale).body.to_string()
}

fn recorded_image(n: u8) -> Value {
    let sale = format!("{n}-20261122");
    let body = r#"{"lines":[{"item_no":"91279","gross_number":"0.5","gross_turnover":"7.45"}],"totals":{"gross_number":"0.5","gross_turnover":"7.45"},"business_date":"2031-01-01","content":"c","envelope":"e"}"#;
    json!({
        "stream": {"S": "AMIS1#2026-11-22"}, "event": {"S": format!("{sale}#recorded")}, "kind": {"S": "recorded"}, "version": {"N": "2"},
        "at": {"S": "2026-11-22T12:00:00Z"}, "sale_id": {"S": sale}, "shop_id": {"S": "AMIS1"}, "body": {"S": body}
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bootstraps_take_what_aws_sends_and_answer_as_aws_documents() {
    let cloud = Cloud::deployed().await;
    accept_answers_the_http_api(&cloud).await;
    a_queues_failures_are_named_and_nothing_else_fails(&cloud).await;
    sns_without_a_queue_fails_as_a_whole(&cloud).await;
    a_streams_checkpoint_is_its_shards(&cloud).await;
    a_missing_or_wrong_setting_fails_at_start_and_is_named(&cloud);
}

async fn accept_answers_the_http_api(cloud: &Cloud) {
    let accept = Function::start(cloud, "accept", &[]).await;
    let sale = sealed(cloud).await;
    // A body with a text content type comes as it is, one without in base64.
    for (body, is_base64) in [(sale.body.clone(), false), (BASE64_STANDARD.encode(&sale.body), true)] {
        let answer = accept.api.invoke(api_event("POST /shop", &body, is_base64)).await.unwrap();
        assert_eq!(answer["statusCode"], 202);
        assert_eq!(answer["headers"], json!({"content-type": "application/json"}));
        assert_eq!(answer["isBase64Encoded"], false);
        let told: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        assert_eq!(told, json!({"sale_id": sale.sale_id, "status": "accepted"}));
    }
    let key = accept.api.invoke(api_event("GET /shop/{shop_id}/key", "", false)).await.unwrap();
    assert_eq!(
        (&key["statusCode"], &key["headers"]["cache-control"]),
        (&json!(200), &json!("public, max-age=3600"))
    );
    // What is not in its form is refused; nothing is an error of the function.
    for (event, status) in [
        (api_event("POST /shop", "*", true), 400),
        (api_event("POST /shop", "hello", false), 400),
        (json!({"routeKey": "POST /shop"}), 400),
        (
            json!({"routeKey": "POST /shop", "body": 7, "isBase64Encoded": "x", "headers": [], "requestContext": null}),
            400,
        ),
        (api_event("GET /nowhere", "", false), 404),
        (json!({}), 404),
        (json!([]), 404),
        (api_event("POST /shop", &"x".repeat(128 * 1024 + 1), false), 413),
    ] {
        let answer = accept.api.invoke(event).await.unwrap();
        assert_eq!(answer["statusCode"], status);
        assert_eq!(answer["headers"]["content-type"], "application/problem+json");
    }
}

async fn a_queues_failures_are_named_and_nothing_else_fails(cloud: &Cloud) {
    let (one, two) = (sealed(cloud).await, sealed(cloud).await);
    let decrypt = Function::start(cloud, "decrypt", &[]).await;
    let batch =
        [("a", accepted(&one)), ("b", "rubbish".to_owned()), ("c", accepted(&two)), ("d", String::new())];
    let event = sqs_event(&batch.each_ref().map(|(id, body)| (*id, body.as_str())));
    assert_eq!(decrypt.api.invoke(event).await.unwrap(), failures(&["b", "d"]));
    let process = Function::start(cloud, "process", &[]).await;
    let batch = [("a", decrypted(&one)), ("b", "[]".to_owned()), ("c", decrypted(&two))];
    let mut event = sqs_event(&batch.each_ref().map(|(id, body)| (*id, body.as_str())));
    // A record without body, attributes or id is bad by itself; an empty id has Lambda bring back the batch.
    event["Records"].as_array_mut().unwrap().push(json!({"eventSource": "aws:sqs"}));
    assert_eq!(process.api.invoke(event).await.unwrap(), failures(&["b", ""]));
    for id in [&one.sale_id, &two.sale_id] {
        assert_eq!(cloud.ask(&["sale", id.as_str(), "--shop", "AMIS1"]).await["status"], "recorded");
    }
    assert_eq!(process.api.invoke(sqs_event(&[("a", &decrypted(&one))])).await.unwrap(), failures(&[]));
    for wrong in [json!({}), json!({"Records": []}), json!({"Records": [{"eventSource": "aws:s3"}]})] {
        assert!(process.api.invoke(wrong).await.is_err());
    }
}

async fn sns_without_a_queue_fails_as_a_whole(cloud: &Cloud) {
    let process = Function::start(cloud, "process", &[]).await;
    let sale = sealed(cloud).await;
    assert_eq!(process.api.invoke(sns_event(&decrypted(&sale))).await.unwrap(), Value::Null);
    assert_eq!(cloud.ask(&["sale", sale.sale_id.as_str(), "--shop", "AMIS1"]).await["status"], "recorded");
    let failed = process.api.invoke(sns_event("rubbish")).await.unwrap_err();
    assert!(failed["errorMessage"].as_str().unwrap().contains("to-process"), "{failed}");
}

async fn a_streams_checkpoint_is_its_shards(cloud: &Cloud) {
    let project = Function::start(cloud, "project", &[]).await;
    let sales = |rows: &Value| {
        let day = rows.as_array().unwrap().iter().find(|row| row["record_type"] == "d-2031-01-01");
        day.map_or(Value::Null, |row| row["sales"].clone())
    };
    let mut broken = recorded_image(9);
    broken["body"]["S"] = json!("rubbish");
    let batch = [
        ("100", "INSERT", recorded_image(1)),
        ("101", "INSERT", broken),
        ("102", "REMOVE", recorded_image(2)),
        ("103", "INSERT", recorded_image(3)),
    ];
    let done = json!({"batchItemFailures": [], "state": {"1": "state1"}});
    // The same batch again, and one cut differently, change nothing; in another shard they are other events.
    for (shard, batch) in [("shard-a", &batch[..]), ("shard-a", &batch[..]), ("shard-a", &batch[3..])] {
        assert_eq!(project.api.invoke(stream_event(Some(shard), batch)).await.unwrap(), done);
    }
    assert_eq!(sales(&cloud.ask(&["stock", "--shop", "AMIS1"]).await), json!("2"));
    assert_eq!(project.api.invoke(stream_event(Some("shard-b"), &batch[..1])).await.unwrap(), done);
    assert_eq!(sales(&cloud.ask(&["stock", "--shop", "AMIS1"]).await), json!("3"));
    // A window ends without records.
    let mut end = stream_event(Some("shard-a"), &[]);
    end["isFinalInvokeForWindow"] = json!(true);
    assert_eq!(project.api.invoke(end).await.unwrap(), done);
    // Without a shard's name a checkpoint would be nobody's, unless there is one shard only.
    let failed = project.api.invoke(stream_event(None, &batch)).await.unwrap_err();
    assert!(failed["errorMessage"].as_str().unwrap().contains("TumblingWindowInSeconds"), "{failed}");
    let project = Function::start(cloud, "project", &[("STREAM_SHARD", "shard-a")]).await;
    assert_eq!(project.api.invoke(stream_event(None, &batch)).await.unwrap(), done);
    assert_eq!(sales(&cloud.ask(&["stock", "--shop", "AMIS1"]).await), json!("3"));
}

fn a_missing_or_wrong_setting_fails_at_start_and_is_named(cloud: &Cloud) {
    let lambda = [
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    let start = |handler: &str, without: &str, with: &[(&str, &str)]| {
        let mut command = Command::new(cloud.bootstrap("pipeline"));
        command.env_clear().envs(lambda).env("_HANDLER", handler).envs(cloud.function_settings(handler));
        let output = command.env_remove(without).envs(with.iter().copied()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    for (handler, names) in [
        (
            "accept",
            &[
                "EVENTS_TABLE",
                "SHOPS_TABLE",
                "TO_DECRYPT_TOPIC",
                "KEY_PREFIX",
                "AWS_REGION",
                "AWS_SECRET_ACCESS_KEY",
            ][..],
        ),
        (
            "decrypt",
            &["EVENTS_TABLE", "SHOPS_TABLE", "TO_PROCESS_TOPIC", "DECRYPT_ERRORS_TOPIC", "KEY_PREFIX"],
        ),
        ("process", &["EVENTS_TABLE", "SHOPS_TABLE", "DECRYPT_ERRORS_TOPIC"]),
        ("project", &["SHOPS_TABLE"]),
    ] {
        for name in names {
            let told = start(handler, name, &[]);
            assert!(told.contains(&format!("{name} is missing")), "{handler} without {name}: {told}");
        }
    }
    assert!(start("accept", "", &[("TO_DECRYPT_TOPIC", "to-decrypt")]).contains("TO_DECRYPT_TOPIC must be"));
    assert!(start("nobody", "", &[]).contains("_HANDLER must be accept, decrypt, process or project"));
}
