//! The real bootstraps over a stand-in of Lambda's Runtime API: events as AWS documents them in, answers out.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::{SignedDuration, Timestamp};
use kassa_bus::SaleId;
use kassa_bus::limits::MAX_BODY;
use serde_json::{Value, json};

use crate::common::cloud::Cloud;
use crate::common::function::{
    Function, accepted, api_event, decrypted, recorded_image, scheduled_event, sealed, sns_event, sqs_event,
    stream_event,
};

fn failures(ids: &[&str]) -> Value {
    json!({"batchItemFailures": ids.iter().map(|id| json!({"itemIdentifier": id})).collect::<Vec<_>>()})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bootstraps_take_what_aws_sends_and_answer_as_aws_documents() {
    let cloud = Cloud::deployed().await;
    accept_answers_the_http_api(&cloud).await;
    a_queues_failures_are_named_and_nothing_else_fails(&cloud).await;
    sns_without_a_queue_fails_as_a_whole(&cloud).await;
    a_streams_checkpoint_is_its_shards(&cloud).await;
    the_minute_says_what_is_pending_and_how_the_shops_day_goes(&cloud).await;
}

async fn accept_answers_the_http_api(cloud: &Cloud) {
    let accept = Function::start(cloud, "accept", &[]).await;
    let sale = sealed(cloud).await;
    let key = accept.api.invoke(api_event("GET /shop/{shop_id}/key", "", false)).await.unwrap();
    let jwk: Value = serde_json::from_str(key["body"].as_str().unwrap()).unwrap();
    // A body with a text content type comes as it is, one without in base64.
    for (body, is_base64) in [(sale.body.clone(), false), (BASE64_STANDARD.encode(&sale.body), true)] {
        let answer = accept.api.invoke(api_event("POST /shop", &body, is_base64)).await.unwrap();
        assert_eq!(answer["statusCode"], 202);
        assert_eq!(answer["headers"], json!({"content-type": "application/json", "kassa-key": jwk["kid"]}));
        assert_eq!(answer["isBase64Encoded"], false);
        let told: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        assert_eq!(told, json!({"sale_id": sale.sale_id, "status": "accepted"}));
    }
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
        (api_event("POST /shop", &"x".repeat(MAX_BODY + 1), false), 413),
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

async fn the_minute_says_what_is_pending_and_how_the_shops_day_goes(cloud: &Cloud) {
    // given a sale that was accepted six minutes ago, and nothing since
    let at = Timestamp::now() - SignedDuration::from_mins(6);
    let id = SaleId::new(at);
    let happens = async |kind: &str, event: &str| {
        let put = format!(
            "print(json.dumps(aws('dynamodb').put_item(TableName='kassa-local-events', Item={{
                'stream': {{'S': 'AMIS1#{}'}}, 'event': {{'S': '{id}#{event}'}}, 'kind': {{'S': '{kind}'}}, 'version': {{'N': '1'}},
                'at': {{'S': '{at}'}}, 'sale_id': {{'S': '{id}'}}, 'shop_id': {{'S': 'AMIS1'}}, 'body': {{'S': '{{}}'}}
            }})['ResponseMetadata']['HTTPStatusCode']))",
            id.utc_date()
        );
        cloud.boto(&put).await
    };
    happens("accepted", "accepted#hash").await;
    let watch = Function::start(cloud, "watch", &[]).await;
    // The last of each metric, in a line that CloudWatch makes metrics of.
    let said = |metric: &str, shop: Option<&str>| {
        let of =
            |line: &&Value| shop.is_none_or(|shop| line["shop_id"] == shop) && line.get(metric).is_some();
        let lines: Vec<Value> = watch.said().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let line = lines.iter().rfind(of).unwrap_or_else(|| panic!("no {metric} in {lines:?}"));
        let of = &line["_aws"]["CloudWatchMetrics"];
        assert!(of.as_array().unwrap().iter().all(|of| of["Namespace"] == "kassa-local"), "{line}");
        line[metric].as_f64().unwrap()
    };
    assert_eq!(watch.api.invoke(scheduled_event()).await.unwrap(), Value::Null);
    let (pending, age) = (said("pending", None), said("pending_age", None));
    assert!((pending - 1.0).abs() < 1e-9 && (360.0..600.0).contains(&age), "{pending}, {age} s");
    for shop in ["AMIS1", "AMIS2"] {
        for metric in ["sales_today", "sales_last_week", "turnover_today", "turnover_last_week"] {
            assert!(said(metric, Some(shop)) >= 0.0, "{metric} of {shop}");
        }
    }
    // and when it is rejected, it is pending no more
    happens("rejected", "rejected#1").await;
    watch.api.invoke(scheduled_event()).await.unwrap();
    assert!(said("pending", None).abs() < 1e-9 && said("pending_age", None).abs() < 1e-9);
    // and the function that is deployed may do all that
    let invoked = "print(json.dumps(aws('lambda').invoke(FunctionName='kassa-local-watch', \
        Payload=json.dumps({'detail-type': 'Scheduled Event'})).get('FunctionError')))";
    assert_eq!(cloud.boto(invoked).await, Value::Null);
}
