//! What functions write: one line a batch, small enough to pay for, and nothing of a sale.

mod subscribers;
mod webhook;

use futures::future::join_all;
use jiff::Timestamp;
use kassa::till::Prepared;
use kassa_bus::Line;
use kassa_bus::metrics::Metric;
use serde_json::{Value, json};

use self::subscribers::ten_rejected;
use crate::common::cloud::{Cloud, Proxy};
use crate::common::function::{
    Function, accepted, api_event, decrypted, line, recorded_image, scheduled_event, sealed_with, sqs_event,
    stream_event,
};

/// As till and as turnover, and that as metrics round it, so that any trace of a sale in a log can be told.
const MARKS: [&str; 3] = ["till-7712345", "7712345.67", "7712346"];

fn marked() -> Line {
    Line { gross_turnover: MARKS[1].parse().unwrap(), ..line() }
}

/// Ten of one shop's sales.
async fn ten(cloud: &Cloud) -> Vec<Prepared> {
    let mut sales = Vec::new();
    for _ in 0..10 {
        sales.push(sealed_with(cloud, MARKS[0], marked()).await);
    }
    sales
}

fn queued(sales: &[Prepared], message: impl Fn(&Prepared) -> String) -> Value {
    let records: Vec<(String, String)> =
        sales.iter().enumerate().map(|(n, sale)| (n.to_string(), message(sale))).collect();
    sqs_event(&records.iter().map(|(id, body)| (id.as_str(), body.as_str())).collect::<Vec<_>>())
}

/// What process gets of a sale.
fn sold_in_the_open(sale: &Prepared) -> String {
    decrypted(sale).replace("18.95", MARKS[1])
}

fn streamed(sales: &[Prepared]) -> Value {
    let image = |n: u8| {
        let mut image = recorded_image(n);
        image["at"]["S"] = json!(Timestamp::now().to_string());
        let body = image["body"]["S"].as_str().unwrap().replace("7.45", MARKS[1]);
        image["body"]["S"] = json!(body);
        image
    };
    let records: Vec<(String, Value)> =
        (0..sales.len()).map(|n| (format!("{}", 100 + n), image(u8::try_from(n).unwrap()))).collect();
    let records: Vec<_> = records.iter().map(|(n, image)| (n.as_str(), "INSERT", image.clone())).collect();
    stream_event(Some("shard-of-logs"), &records)
}

/// Has ten sales go through every stage, and says what each stage wrote.
async fn sold(cloud: &Cloud, level: &str) -> Vec<(&'static str, Vec<String>)> {
    let settings = [("RUST_LOG", level)];
    let mut written = Vec::new();
    let sales = ten(cloud).await;
    let accept = Function::start(cloud, "accept", &settings).await;
    for sale in &sales {
        assert_eq!(
            accept.api.invoke(api_event("POST /shop", &sale.body, false)).await.unwrap()["statusCode"],
            202
        );
    }
    written.push(("accept", accept.said()));
    // Sales of their own, since the deployed functions take what these here pass on.
    let events = [
        ("decrypt", queued(&ten(cloud).await, accepted)),
        ("process", queued(&ten(cloud).await, sold_in_the_open)),
        ("project", streamed(&sales)),
    ];
    for (name, event) in events {
        let function = Function::start(cloud, name, &settings).await;
        let answer = function.api.invoke(event).await.unwrap();
        assert_eq!(answer["batchItemFailures"], json!([]), "{name}");
        written.push((name, function.said()));
    }
    written
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_write_one_line_a_batch_and_nothing_of_a_sale() {
    let cloud = Cloud::deployed().await;
    a_sale_costs_at_most_300_bytes_of_log(&cloud).await;
    subscribers::they_and_watch_write_one_line_a_batch_and_nothing_of_a_sale(&cloud).await;
    at_the_finest_level_and_in_every_failure_nothing_of_a_sale_is_written(&cloud).await;
}

async fn a_sale_costs_at_most_300_bytes_of_log(cloud: &Cloud) {
    // given a shop whose sales come ten at a time, when ten go through every stage
    let written = sold(cloud, "info").await;
    // then each invocation wrote one line, which CloudWatch can make metrics of
    let mut bytes = 0;
    for (name, lines) in &written {
        assert_eq!(lines.len(), if *name == "accept" { 10 } else { 1 }, "{name}: {lines:#?}");
        for line in lines {
            bytes += line.len() + 1;
            let line: Value = serde_json::from_str(line).unwrap();
            assert!(line["took_ms"].is_u64(), "{line}");
            embedded_metrics(&line);
        }
    }
    // and all of them together are small
    let each: Vec<_> = written
        .iter()
        .map(|(name, lines)| (name, lines.iter().map(|l| l.len() + 1).sum::<usize>() / 10))
        .collect();
    eprintln!("bytes of log a sale, by function: {each:?}, in all {}", bytes / 10);
    assert!(bytes / 10 <= 300, "{} bytes a sale: {written:#?}", bytes / 10);
}

/// By <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>.
fn embedded_metrics(line: &Value) {
    assert!(line["_aws"]["Timestamp"].as_u64().unwrap() > 1_700_000_000_000);
    for directive in line["_aws"]["CloudWatchMetrics"].as_array().unwrap() {
        assert_eq!(directive["Namespace"], "kassa-local");
        for set in directive["Dimensions"].as_array().unwrap() {
            let dimensions = set.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
            dimensions.for_each(|name| assert!(line[name].is_string(), "{name} of {line}"));
        }
        for metric in directive["Metrics"].as_array().unwrap() {
            let name = metric["Name"].as_str().unwrap();
            assert!(Metric::ours().any(|ours| ours.name() == name), "{name} is not in the catalogue");
            let values = line[name].as_array().map_or(1, Vec::len);
            assert!(line[name].is_number() || (1..=100).contains(&values), "{name} of {line}");
        }
    }
}

async fn at_the_finest_level_and_in_every_failure_nothing_of_a_sale_is_written(cloud: &Cloud) {
    // given every function at its finest level
    let mut written: Vec<String> =
        sold(cloud, "trace").await.into_iter().flat_map(|(_, lines)| lines).collect();
    // and a sale that comes alone, so that whatever is summed over its batch is the sale itself
    let function = Function::start(cloud, "process", &[("RUST_LOG", "trace")]).await;
    let alone = queued(&ten(cloud).await[..1], sold_in_the_open);
    assert_eq!(function.api.invoke(alone).await.unwrap()["batchItemFailures"], json!([]));
    written.extend(function.said());
    // when each fails in each service it uses, with sales that it must not drop, and is given what is no sale
    let (sales, others, rejected) = (ten(cloud).await, ten(cloud).await, ten_rejected(cloud).await);
    let functions = [
        ("accept", &["dynamodb.*", "sns.*"][..], api_event("POST /shop", &sales[0].body, false)),
        ("decrypt", &["kms.*", "dynamodb.*", "sns.*"], queued(&others, accepted)),
        ("process", &["dynamodb.*"], queued(&others, sold_in_the_open)),
        ("project", &["dynamodb.*"], streamed(&sales)),
        ("bad-key-auditor", &["dynamodb.*", "kms.*"], rejected.clone()),
        ("decrypt-error-alerter", &["dynamodb.*"], rejected),
        ("watch", &["dynamodb.*"], scheduled_event()),
    ];
    let failures = functions.iter().flat_map(|(name, services, event)| {
        services.iter().map(move |service| without(cloud, name, service, event))
    });
    let broken = functions.iter().map(|(name, _, event)| given_no_sale(cloud, name, event));
    // All at once: most of it is waiting before the next try.
    let (failures, broken, alerter, webhook) = tokio::join!(
        join_all(failures),
        join_all(broken),
        subscribers::alerter_in_every_failure(cloud),
        subscribers::webhook_in_every_failure(cloud)
    );
    written.extend(failures.into_iter().chain(broken).chain(webhook).flatten().chain(alerter));
    // then nothing that was written has anything of what was sold
    assert!(written.len() > 50);
    have_nothing_of_a_sale(&written);
}

/// What a function writes while a service throttles all that it asks.
async fn without(cloud: &Cloud, name: &str, service: &str, event: &Value) -> Vec<String> {
    let proxy = Proxy::start(&cloud.endpoint).await;
    proxy.throttle(service, 1.0, 7);
    let settings = [("RUST_LOG", "trace"), ("AWS_ENDPOINT_URL", proxy.url.as_str())];
    let function = Function::start(cloud, name, &settings).await;
    let answer = function.api.invoke(event.clone()).await;
    let failed = answer.as_ref().map_or(true, |answer| {
        answer["statusCode"] == 503 || answer["batchItemFailures"].as_array().is_some_and(|f| !f.is_empty())
    });
    assert!(failed, "{name} without {service}: {answer:?}");
    let said = function.said();
    // A minute that fails is told by Lambda's runtime, with the answer.
    let told = said.iter().any(|line| line.contains("WARN") || line.contains("ERROR"));
    assert!(told || answer.is_err(), "{name} without {service}");
    said
}

async fn given_no_sale(cloud: &Cloud, name: &str, event: &Value) -> Vec<String> {
    let function = Function::start(cloud, name, &[("RUST_LOG", "trace")]).await;
    let broken: Value =
        serde_json::from_str(&event.to_string().replace("gross_turnover", "gross_turnoven")).unwrap();
    let _ = function.api.invoke(broken).await;
    function.said()
}

#[track_caller]
fn have_nothing_of_a_sale(lines: &[String]) {
    for line in lines {
        assert!(MARKS.iter().all(|mark| !line.contains(mark)) && !line.contains("gross_turnove"), "{line}");
    }
}
